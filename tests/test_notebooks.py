"""The notebooks in examples/: they run from a clean kernel, and hold no outputs."""

import base64
import re
from pathlib import Path

import pytest

import lra_jax

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel")

ROOT = Path(lra_jax.__file__).parent.parent
PATHS = {path.stem: path for path in sorted((ROOT / "examples").glob("*.ipynb"))}
SMALL = """
SEQ_LEN, HIDDEN_SIZE, BATCH_SIZE, NUM_VALIDATION = 10, 8, 5, 50
UPDATES, CHECK_EVERY, SEEDS = 10, 5, 2
"""
METHODS = {
    "quickstart": ["lra_diff", "readout_only", "bptt"],
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
def test_a_stored_notebook_is_valid_and_has_no_outputs(name):
    notebook = read(name)
    nbformat.validate(notebook)
    # A line of text is a line of the file, and cells have ids: diffs stay small.
    assert PATHS[name].read_text("utf8") == nbformat.writes(notebook) + "\n"
    assert notebook.nbformat_minor >= 5
    for cell in code(notebook):
        assert (cell.outputs, cell.execution_count) == ([], None)
    kept = {key for cell in notebook.cells for key in cell.metadata}
    assert kept <= {"tags"}
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    # Lists of kernels and paths of a machine are none of its readers' business.
    assert notebook.metadata.kernelspec.name == "python3"


@all_notebooks
def test_a_notebook_says_how_long_it_takes(name):
    first = read(name).cells[0]
    assert first.cell_type == "markdown"
    said = " ".join(first.source.split())
    assert re.search(r"takes about \w+ (minutes?|seconds) on two CPU cores", said)


@all_notebooks
def test_a_notebook_never_installs_jax(name):
    """Another JAX would not fit the jaxlib that a hosted machine has."""
    for cell in code(read(name)):
        for line in cell.source.split("\n"):
            if re.search(r"\bpip\b.*\binstall\b", line):
                assert re.fullmatch(
                    r" +%pip install --quiet --no-deps \{packages\}", line
                )
    (needed,) = (
        line
        for cell in code(read(name))
        for line in cell.source.split("\n")
        if line.startswith("needed = ")
    )
    assert not re.search(r"\bjax(lib)?\b", needed)


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
    place = {"metadata": {"path": str(folder)}}
    # A cell that fails raises CellExecutionError, with its traceback.
    client = nbclient.NotebookClient(
        notebook,
        timeout=1200,
        startup_timeout=300,
        kernel_name="python3",
        resources=place,
    )
    return client.execute()


def check(name, notebook):
    """Every plot is there, and the table has its methods."""
    text = ""
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
        if "print(row.format(" in cell.source:
            text += "".join(o.text for o in streams)
    lines = text.split("\n")
    assert lines[0].startswith("method ")
    for method in METHODS[name]:
        assert sum(bool(re.match(rf"{re.escape(method)}  ", x)) for x in lines) == 1
    return lines


@all_notebooks
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    # Programs this small take longer to compile than to run.
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    check(name, run(name, tmp_path, SMALL, monkeypatch))


def found(lines, method):
    """The numbers of a method's row of the table, as texts."""
    (line,) = (x for x in lines if x.startswith(f"{method}  "))
    return re.split(r"  +", line)[1:]


@pytest.mark.slow
def test_the_quickstart_shows_what_its_text_says(tmp_path, monkeypatch):
    lines = check("quickstart", run("quickstart", tmp_path, "", monkeypatch))
    solved = {method: found(lines, method)[2] for method in METHODS["quickstart"]}
    assert solved == {"lra_diff": "3 of 3", "bptt": "3 of 3", "readout_only": "0 of 3"}


@pytest.mark.slow
def test_the_own_rule_shows_what_its_text_says(tmp_path, monkeypatch):
    notebook = run("own_rule", tmp_path, "RUN_BENCH = True", monkeypatch)
    lines = check("own_rule", notebook)
    # BPTT is the mix without A, but for rounding.
    for method in ("bptt", "blend, s = 0"):
        assert found(lines, method)[0] == "3 of 3"
    assert found(lines, "blend, s = 1")[0] == "0 of 3"
    assert found(lines, "readout_only")[0] == "0 of 3"
    (table,) = tmp_path.glob("runs/own_rule/results/reach/blend/reach.md")
    assert "blend, s = 0.25" in table.read_text("utf8")
