"""The versions that are supported, and the commands that test them."""

import os
import re
import runpy
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import lra_jax

ROOT = Path(lra_jax.__file__).parent.parent
COMPAT = runpy.run_path(str(ROOT / ".ci/compat.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PROMISED = {"jax", "jaxlib", "optax", "flax", "chex", "absl-py"}
TEST_TOOLS = {"pytest", "pytest-xdist", "hypothesis", "optuna", "tensorboardx"}


def pins(name):
    """Package to version of a file of exact versions; names alone are left out."""
    lines = (ROOT / ".ci" / name).read_text("utf8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and line[0] != "#")


def test_the_oldest_set_is_the_floors():
    assert (ROOT / ".ci/oldest.txt").read_text("utf8") == COMPAT["floors"]()
    assert set(pins("oldest.txt")) >= PROMISED


def test_every_dependency_has_a_floor_and_no_cap():
    for text in [*PROJECT["dependencies"], *(x for e in EXTRAS.values() for x in e)]:
        requirement = Requirement(text)
        if requirement.name not in ("lra_jax", "jax") or "[" not in text:
            operators = [s.operator for s in requirement.specifier]
            # A release that is broken may be left out.
            assert [x for x in operators if x != "!="] == [">="], text
    assert re.fullmatch(r">=3\.\d+", PROJECT["requires-python"])


def test_what_colab_has_is_enough():
    colab = pins("colab.txt")
    needed = [Requirement(text) for text in PROJECT["dependencies"]]
    unread = {"jinja2", "scipy"}  # their versions in Colab
    assert {r.name for r in needed} == set(colab) | unread
    assert unread <= {*(ROOT / ".ci/colab.txt").read_text("utf8").splitlines()}
    for requirement in needed:
        if requirement.name in unread:
            continue
        assert requirement.specifier.contains(colab[requirement.name]), requirement
    # The check can fail: these floors would make pip replace Colab's JAX.
    assert not Requirement("jax>=0.10").specifier.contains(colab["jax"])


def test_what_only_tests_need_is_no_dependency():
    names = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert names == PROMISED | {"numpy", "rich", "jinja2", "scipy"}
    assert {Requirement(text).name for text in EXTRAS["test"]} >= TEST_TOOLS
    code = "".join(
        path.read_text("utf8")
        for folder in ("lra_jax", "experiments")
        for path in (ROOT / folder).rglob("*.py")
    )
    modules = {"absl" if name == "absl-py" else name for name in names} - {"jaxlib"}
    for module in sorted(modules):
        assert re.search(rf"^ *(import|from) {module}\b", code, re.MULTILINE), module


def test_only_tests_that_exist_are_in_the_short_form():
    for path in COMPAT["SHORT"]:
        assert (ROOT / path).is_file(), path


def test_every_set_has_its_python_or_says_so(monkeypatch):
    python_of = COMPAT["python_of"]

    def chosen(found):
        monkeypatch.setitem(python_of.__globals__, "pythons", lambda: found)
        return [python_of(name) for name in ("oldest", "newest", "nightly", "colab")]

    assert chosen({13: "3.13", 11: "3.11", 14: "3.14", 12: "3.12"}) == [
        "3.11",
        "3.14",
        "3.14",
        "3.12",
    ]
    assert chosen({13: "3.13"}) == ["3.13"] * 4
    message = (
        "compat: colab: expected python3.12 or python3.13 on PATH or pyenv's, found"
    )
    with pytest.raises(SystemExit, match=f"^{message} none$"):
        chosen({11: "3.11"})
    with pytest.raises(
        SystemExit, match=r"^compat: oldest: expected a supported Python"
    ):
        chosen({})


@pytest.mark.parametrize("failing", ["none", "first", "second", "both"])
def test_both_halves_run_whatever_the_first_says(tmp_path, failing):
    """`make test`, with a Python that writes down how it was called."""
    python = tmp_path / "python"
    codes = {"none": (0, 0), "first": (1, 0), "second": (0, 1), "both": (1, 1)}[failing]
    python.write_text(
        "#!/bin/sh\n"
        f'echo "x64=$JAX_ENABLE_X64 $*" >> {tmp_path}/calls\n'
        f'[ -z "$JAX_ENABLE_X64" ] && exit {codes[0]}\n'
        f"exit {codes[1]}\n"
    )
    python.chmod(0o755)
    outer = ("JAX_ENABLE_X64", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    env = {k: v for k, v in os.environ.items() if k not in outer}
    made = subprocess.run(
        ["make", "-o", ".venv/installed", "test", f"BIN={tmp_path}"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    calls = (tmp_path / "calls").read_text().splitlines()
    test = "-m pytest -n 2 --dist loadfile"
    assert calls == [f"x64= {test}", f"x64=1 {test}"]
    assert (made.returncode == 0) == (failing == "none"), made.stderr


def test_a_clone_is_set_up_by_every_target_that_needs_it():
    text = (ROOT / "Makefile").read_text("utf8")
    for target in ("demo", "test", "end-to-end", "slow", "lint", "docs", "notebooks"):
        assert re.search(rf"^{target}: \.venv/installed$", text, re.MULTILINE), target
