"""The tests with other versions: the oldest that are supported, the newest, Colab's.

python .ci/compat.py [oldest] [newest] [nightly] [colab] [--short]
python .ci/compat.py floors > .ci/oldest.txt

Each set of packages has an environment of its own in build/compat:

- `oldest`: the floors of pyproject.toml (.ci/oldest.txt), on the oldest Python;
- `newest`: the newest JAX, on the newest Python that is on PATH or pyenv's;
- `nightly`: as `newest`, with the JAX of last night, from JAX_NIGHTLY_INDEX;
- `colab`: what Colab has (.ci/colab.txt); the wheel replaces none of it, and the
  notebooks run from it.

Both halves of the suite run on the first three, with --short a part of the first half.
Left out everywhere: the documentation site, the type checker, PyTorch and recorded data
that need packages of their own (their tests say that they are skipped).
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLOORS = ROOT / ".ci/oldest.txt"
COLAB = ROOT / ".ci/colab.txt"
# Where nightly builds are: the address that JAX's installation page gives.
NIGHTLY = os.environ.get("JAX_NIGHTLY_INDEX", "")
SETS = ("oldest", "newest", "nightly", "colab")

# What touches most of JAX, Flax, optax and chex in the least time.
SHORT = [
    "tests/repository/test_compat.py",
    "tests/core/test_flax_model.py",
    "tests/core/test_losses.py",
    "tests/lab/terminal/test_machine.py",
    "tests/core/test_numerics.py",
    "tests/lab/config/test_optimizers.py",
    "tests/core/test_orthogonality.py",
    "tests/repository/test_public_api.py",
    "tests/core/test_train.py",
    "tests/sweep/test_stored.py",
]


def project():
    """The table [project] of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]


def floors():
    """.ci/oldest.txt: the floor of everything that a user's command installs."""
    extras = project()["optional-dependencies"]
    wanted = [*project()["dependencies"], *extras["export"], *extras["plot"]]
    lines = [requirement.replace(">=", "==") for requirement in wanted]
    header = "# pyproject.toml's floors: python .ci/compat.py floors > .ci/oldest.txt"
    return "\n".join([header, *lines, ""])


def least_minor():
    """The x of the oldest Python 3.x that is supported."""
    return int(re.fullmatch(r">=3\.(\d+)", project()["requires-python"])[1])


def pythons():
    """Minor version to path of every supported Python that is found and runs."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    folders = [pathlib.Path(f) for f in os.environ["PATH"].split(os.pathsep)]
    folders += sorted(pyenv.glob("versions/3.*/bin"), reverse=True)
    found = {}
    for path in (p for f in folders for p in sorted(f.glob("python3.*"))):
        match = re.fullmatch(r"python3\.(\d+)", path.name)
        if match is None or int(match[1]) < least_minor() or int(match[1]) in found:
            continue
        # A shim of pyenv's may have nothing behind it; some have no venv.
        command = [path, "-c", "import ensurepip, venv"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            found[int(match[1])] = path
    return found


def python_of(name):
    """The Python that a set of packages is tested on."""
    found = pythons()
    wanted = {"oldest": sorted(found), "colab": [12, 13]}
    for minor in wanted.get(name, sorted(found, reverse=True)):
        if minor in found:
            return found[minor]
    expected = "python3.12 or python3.13" if name == "colab" else "a supported Python"
    sys.exit(f"compat: {name}: expected {expected} on PATH or pyenv's, found none")


def run(command, **options):
    """Runs a command, and returns whether it succeeded."""
    return (
        subprocess.run(list(map(str, command)), check=False, **options).returncode == 0
    )


def must(command, **options):
    """Runs a command; ends everything where it fails."""
    if not run(command, **options):
        sys.exit(f"compat: failed: {' '.join(map(str, command))}")


def environment(name, python, *packages):
    """The Python of an environment, which is made anew where its packages changed."""
    folder = ROOT / "build/compat" / name
    made_of = folder / "made_of.json"
    texts = [
        path.read_text("utf8") for path in (FLOORS, COLAB, ROOT / "pyproject.toml")
    ]
    wanted = json.dumps([str(python), *map(str, packages), *texts])
    inside = folder / "bin/python"
    if not made_of.is_file() or made_of.read_text("utf8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        must([python, "-m", "venv", folder])
        must([inside, "-m", "pip", "install", "-qq", *packages], cwd=ROOT)
        made_of.write_text(wanted, "utf8")
    elif name not in ("oldest", "colab"):
        upgrade = ["-qq", "--upgrade", "--upgrade-strategy", "eager"]
        must([inside, "-m", "pip", "install", *upgrade, *packages], cwd=ROOT)
    return inside


def versions(python):
    """Name to version of what an environment has."""
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {item["name"]: item["version"] for item in json.loads(listed.stdout)}


def suite(name, short):
    """Whether the tests pass with a set of packages."""
    packages = ["--editable", ".[test]"]
    if name == "oldest":
        packages += ["--constraint", FLOORS]
    python = environment(name, python_of(name), *packages)
    if name == "nightly":
        if not NIGHTLY:
            sys.exit("compat: nightly: JAX_NIGHTLY_INDEX is not set")
        latest = ["--upgrade", "--pre", "jax", "jaxlib", "--extra-index-url", NIGHTLY]
        must([python, "-m", "pip", "install", "-qq", *latest])
    found = versions(python)
    shown = ", ".join(
        f"{p} {found[p]}" for p in ("jax", "jaxlib", "flax", "optax", "chex", "numpy")
    )
    print(f"compat: {name}: {python_of(name).name}, {shown}", flush=True)
    if name == "oldest" and least_minor() not in pythons():
        print(f"compat: oldest: no python3.{least_minor()} was found", flush=True)
    test = [python, "-m", "pytest", "-n", "2", "--dist", "loadfile"]
    test += ["-p", "no:cacheprovider", "-rs"]
    if name == "nightly":
        test += ["-W", "default"]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    if name == "nightly":  # which may not know the flags of tests/conftest.py
        env.setdefault("XLA_FLAGS", "")
    if short:
        return run([*test, *SHORT], cwd=ROOT, env=env)
    test += ["-m", "not slow and not faults"]
    halves = [run(test, cwd=ROOT, env={**env, "JAX_ENABLE_X64": x}) for x in "01"]
    return all(halves)


def colab():
    """Whether the wheel replaces none of Colab's packages, and the notebooks run."""
    python = environment("colab", python_of("colab"), "--requirement", COLAB)
    must([python, "-m", "pip", "uninstall", "-qq", "--yes", "lra_jax"])
    before = versions(python)
    with tempfile.TemporaryDirectory() as folder:
        wheel = ["wheel", "-qq", "--no-deps", "--wheel-dir", folder, ROOT]
        must([python, "-m", "pip", *wheel])
        (source,) = pathlib.Path(folder).glob("*.whl")
        env = {**os.environ, "JAX_PLATFORMS": "cpu", "LRA_JAX_SOURCE": str(source)}
        env.pop("PYTHONPATH", None)
        notebooks = [python, ROOT / ".ci/notebooks.py", "--into", folder]
        passed = run(notebooks, cwd=folder, env=env)
    after = versions(python)
    added = {name: version for name, version in after.items() if name not in before}
    changed = {name for name in before if before[name] != after.get(name)}
    print(f"compat: colab: the wheel added {added}, replaced {changed or 'nothing'}")
    return passed and set(added) == {"lra_jax"} and not changed


def main():
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", nargs="*", choices=[*SETS, "floors"], metavar="SET")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    if arguments.sets == ["floors"]:
        print(floors(), end="")
        return
    passed = {}
    for name in arguments.sets or ["oldest", "newest"]:
        begin = time.monotonic()
        passed[name] = colab() if name == "colab" else suite(name, arguments.short)
        minutes = (time.monotonic() - begin) / 60
        outcome = "passed" if passed[name] else "FAILED"
        print(f"compat: {name}: {outcome} in {minutes:.1f} minutes", flush=True)
    sys.exit(not all(passed.values()))


if __name__ == "__main__":
    main()
