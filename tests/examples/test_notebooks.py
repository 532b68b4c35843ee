"""The notebooks in examples/: what is stored is what a run of their code shows."""

import base64
import importlib.metadata
import importlib.util
import re
import runpy
import subprocess
import sys
import types
from pathlib import Path

import pytest

import lra_jax

pytestmark = pytest.mark.end_to_end

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

ROOT = Path(lra_jax.__file__).parent.parent
STORING = runpy.run_path(str(ROOT / ".ci/notebooks.py"))
PATHS = {path.stem: path for path in sorted((ROOT / "examples").glob("*.ipynb"))}
SMALL = """
SEQ_LEN, HIDDEN_SIZE, BATCH_SIZE, NUM_VALIDATION = 10, 8, 5, 50
UPDATES, CHECK_EVERY, SEEDS = 10, 5, 2
"""
METHODS = {
    "quickstart": ["lra_diff", "readout_only", "bptt"],
    "neuroscience": ["bptt", "lra_norm", "dfa", "readout_only"],
    "own_rule": [
        *(f"blend, s = {s:g}" for s in (0, 0.1, 0.25, 0.5, 1)),
        *("bptt", "readout_only"),
    ],
}

all_notebooks = pytest.mark.parametrize("name", PATHS)


def read(name):
    return nbformat.read(PATHS[name], as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook):
    """Where its cell of parameters is."""
    (index,) = (
        i
        for i, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", [])
    )
    return index


def test_these_are_the_notebooks():
    assert set(PATHS) == set(METHODS)


@all_notebooks
def test_a_stored_notebook_is_valid_and_small(name):
    notebook = read(name)
    nbformat.validate(notebook)
    # A line of text is a line of the file, and cells have ids: diffs stay small.
    text = PATHS[name].read_text("utf8")
    assert text == nbformat.writes(notebook) + "\n"
    assert len(text) < 500_000
    assert notebook.nbformat_minor >= 5
    kept = {key for cell in notebook.cells for key in cell.metadata}
    assert kept <= {"tags"}
    assert set(notebook.metadata) <= {"kernelspec", "language_info", "executed"}
    # Lists of kernels and paths of a machine are none of its readers' business.
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.language_info == {"name": "python"}
    assert not re.search(r"/(home|root|tmp|Users|work)/", text)


@all_notebooks
def test_stored_outputs_are_of_the_stored_code(name):
    """`make notebooks` writes both; an edited cell makes the hash another one."""
    notebook = read(name)
    assert notebook.metadata.executed == STORING["source_hash"](notebook)
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == [*range(1, len(counts) + 1)]
    check(name, notebook)
    code(notebook)[-1].source += " "
    assert notebook.metadata.executed != STORING["source_hash"](notebook)


@all_notebooks
def test_a_notebook_says_how_long_it_takes(name):
    first = read(name).cells[0]
    assert first.cell_type == "markdown"
    said = " ".join(first.source.split())
    assert re.search(r"takes about \w+ (minutes?|seconds) on two CPU cores", said)


# The first cell, on machines that have this and that.


class Machine:
    """Runs the first cell: what is installed, and what pip would say."""

    def __init__(self, monkeypatch, folder, installed, missing=(), pip=(0, "")):
        monkeypatch.chdir(folder)
        monkeypatch.delenv("LRA_JAX_SOURCE", raising=False)
        monkeypatch.setattr("sys.path", [*sys.path])
        self.calls = []
        self.pins = None
        distributions = [
            types.SimpleNamespace(name=name, version=version)
            for name, version in [*installed.items(), (None, "1.0")]
        ]
        monkeypatch.setattr(importlib.metadata, "distributions", lambda: distributions)
        find_spec = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name: None if name in missing else find_spec(name),
        )

        def run(command, **_):
            *command, _, pins, source = map(str, command)
            self.calls.append(([*command[1:], "--constraint"], source))
            self.pins = Path(pins).read_text()
            return types.SimpleNamespace(returncode=pip[0], stderr=pip[1])

        monkeypatch.setattr(subprocess, "run", run)

    def message(self, name="quickstart"):
        """What the cell ends with, in one line; None where it ends well."""
        try:
            exec(code(read(name))[0].source, {})
        except Exception as error:
            (line,) = error._render_traceback_()
            assert "\n" not in line
            return line
        return None


COLAB = {"jax": "0.7.2", "jaxlib": "0.7.2", "jax-cuda12-plugin": "0.7.2"}
COLAB |= {"numpy": "2.1.3", "optax": "0.2.8"}
PIP = ["-m", "pip", "install", "--quiet", "--no-color", "--constraint"]
FAILED = (
    "pip cannot install here.whl beside the JAX that is here; say in SOURCE where else "
    "lra_jax comes from. pip says: "
)


def test_all_notebooks_begin_alike():
    first, *others = (code(read(name))[0].source for name in PATHS)
    assert others == [first] * len(others)
    oldest = (ROOT / ".ci/oldest.txt").read_text("utf8")
    (floor,) = re.findall(r"^jax==(\d+\.\d+)$", oldest, re.MULTILINE)
    assert f"< ({floor.replace('.', ', ')})" in first
    assert f"needs JAX {floor} or newer" in first


def test_nothing_is_installed_where_all_is_there(monkeypatch, tmp_path):
    machine = Machine(monkeypatch, tmp_path, COLAB)
    assert machine.message() is None
    assert machine.calls == []


def test_a_clone_above_is_used_and_not_installed(monkeypatch):
    machine = Machine(monkeypatch, ROOT / "examples", COLAB)
    monkeypatch.setattr("sys.path", [p for p in sys.path if p != str(ROOT)])
    assert machine.message() is None
    assert sys.path[-1] == str(ROOT)
    assert machine.calls == []


@pytest.mark.parametrize("given", ["variable", "beside"])
def test_what_is_missing_is_installed_and_jax_stays(monkeypatch, tmp_path, given):
    machine = Machine(monkeypatch, tmp_path, COLAB, missing=["lra_jax"])
    wheel = tmp_path / "lra_jax-0.1.0-py3-none-any.whl"
    wheel.touch()
    source = str(wheel)
    if given == "variable":
        source = "git+https://example.org/lra_jax"
        monkeypatch.setenv("LRA_JAX_SOURCE", source)
    assert machine.message() is None
    assert machine.calls == [(PIP, source)]
    assert machine.pins.splitlines() == [
        "jax==0.7.2",
        "jaxlib==0.7.2",
        "jax-cuda12-plugin==0.7.2",
        "numpy==2.1.3",
    ]


@pytest.mark.parametrize(
    ("installed", "pip", "message"),
    [
        ({}, (0, ""), "Install JAX first: https://"),
        (
            {"jax": "0.6.2"},
            (0, ""),
            "lra_jax needs JAX 0.7 or newer, and this is 0.6.2: choose a newer runtime ",
        ),
        (
            COLAB,
            None,
            "lra_jax is not installed: put its wheel into this folder, or say in "
            "SOURCE where it comes from.",
        ),
        (
            COLAB,
            (1, "WARNING: no\nERROR: Cannot install\nERROR: For help visit"),
            FAILED + "ERROR: Cannot install",
        ),
        (
            COLAB,
            (1, "  error: subprocess\n  fatal: unable to access\nnote: no\n"),
            FAILED + "fatal: unable to access",
        ),
        (
            COLAB,
            (1, "python: No module named pip\n\n"),
            FAILED + "python: No module named pip",
        ),
        (COLAB, (1, ""), FAILED + "nothing"),
    ],
)
def test_where_it_cannot_install_it_says_what_to_do(
    monkeypatch, tmp_path, installed, pip, message
):
    machine = Machine(monkeypatch, tmp_path, installed, ["lra_jax"], pip or (0, ""))
    if pip is not None:
        monkeypatch.setenv("LRA_JAX_SOURCE", "here.whl")
    assert machine.message().startswith(message)


@all_notebooks
def test_links_of_a_notebook_resolve(name):
    text = "\n".join(c.source for c in read(name).cells if c.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert targets
    for target in targets:
        assert (PATHS[name].parent / target.split("#")[0]).is_file(), target


def run(name, folder, changes, monkeypatch):
    """The notebook after a run from a clean kernel, with other parameters."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    # No settings and kernels of the user's: "python3" is the Python of this process.
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder / "jupyter"))
    monkeypatch.delenv("JUPYTER_PATH", raising=False)
    # What pytest was started with is for pytest's own process.
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    notebook = read(name)
    cell = nbformat.v4.new_code_cell(changes)
    notebook.cells.insert(tagged(notebook) + 1, cell)
    # A cell that fails raises CellExecutionError, with its traceback.
    return STORING["execute"](notebook, folder)


def check(name, notebook):
    """Every plot is there, and the table has its methods."""
    for cell in code(notebook):
        pictures = [
            output.data["image/png"]
            for output in cell.outputs
            if output.output_type == "display_data" and "image/png" in output.data
        ]
        assert len(pictures) == cell.source.count("plt.subplots("), cell.source
        for picture in pictures:
            assert len(base64.b64decode(picture)) > 5000
        streams = [o for o in cell.outputs if o.output_type == "stream"]
        assert not [o.text for o in streams if o.name == "stderr"]
    lines = table_of(notebook)
    assert lines[0].startswith("method ")
    for method in METHODS[name]:
        assert sum(bool(re.match(rf"{re.escape(method)}  ", x)) for x in lines) == 1
    return lines


def table_of(notebook):
    """The lines of its table of methods."""
    return "".join(
        output.text
        for cell in code(notebook)
        if "print(row.format(" in cell.source
        for output in cell.outputs
        if output.output_type == "stream"
    ).split("\n")


@pytest.mark.slow
@all_notebooks
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    # Programs this small take longer to compile than to run.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    check(name, run(name, tmp_path, SMALL, monkeypatch))


def found(lines, method):
    """The numbers of a method's row of the table, as texts."""
    (line,) = (x for x in lines if x.startswith(f"{method}  "))
    return re.split(r"  +", line)[1:]


def quickstart_says(lines):
    solved = {method: found(lines, method)[2] for method in METHODS["quickstart"]}
    assert solved == {"lra_diff": "3 of 3", "bptt": "3 of 3", "readout_only": "0 of 3"}


def own_rule_says(lines):
    # BPTT is the mix without A, but for rounding.
    for method in ("bptt", "blend, s = 0"):
        assert found(lines, method)[0] == "3 of 3"
    assert found(lines, "blend, s = 1")[0] == "0 of 3"
    assert found(lines, "readout_only")[0] == "0 of 3"


def neuroscience_says(lines):
    mean = {
        method: float(found(lines, method)[0]) for method in METHODS["neuroscience"]
    }
    assert mean.pop("readout_only") < 80
    assert min(mean.values()) > 86


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("quickstart", quickstart_says),
        ("own_rule", own_rule_says),
        ("neuroscience", neuroscience_says),
    ],
)
def test_stored_tables_say_what_the_text_says(name, says):
    says(table_of(read(name)))


@pytest.mark.slow
def test_the_quickstart_shows_what_its_text_says(tmp_path, monkeypatch):
    lines = check("quickstart", run("quickstart", tmp_path, "", monkeypatch))
    quickstart_says(lines)
    agrees("quickstart", lines)


@pytest.mark.slow
def test_the_own_rule_shows_what_its_text_says(tmp_path, monkeypatch):
    notebook = run("own_rule", tmp_path, "RUN_BENCH = True", monkeypatch)
    lines = check("own_rule", notebook)
    own_rule_says(lines)
    agrees("own_rule", lines)
    (table,) = tmp_path.glob("runs/own_rule/results/reach/blend/reach.md")
    assert "blend, s = 0.25" in table.read_text("utf8")


def agrees(name, lines):
    """The stored table is this one, but for what rounding does to its numbers."""
    stored = table_of(read(name))
    assert [re.split(r"  +", x)[0] for x in lines] == [
        re.split(r"  +", x)[0] for x in stored
    ]
    for method in METHODS[name]:
        new, old = (
            [x for x in found(table, method) if re.fullmatch(r"\d of \d", x)]
            for table in (lines, stored)
        )
        assert new == old, method
