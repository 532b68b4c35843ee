"""Runs the notebooks in examples/ from a clean kernel, and stores what they show.

python .ci/notebooks.py [NAME...] [--into FOLDER]

Without --into the notebooks are changed in place: `make notebooks`. With it, they run
in FOLDER, as a reader's do who has no clone, and are stored there.
"""

import argparse
import hashlib
import os
import pathlib
import tempfile
import time

import nbclient
import nbformat

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"


def source_hash(notebook):
    """A hash of all code, to tell whether the outputs are of this code."""
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(cells).encode()).hexdigest()[:16]


def execute(notebook, folder):
    """The notebook after a run in a folder; a cell that fails raises."""
    client = nbclient.NotebookClient(
        notebook,
        timeout=3600,
        startup_timeout=600,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute()


def store(notebook, path):
    """Writes a notebook that was run, without what is of this machine alone."""
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
        "executed": source_hash(notebook),
    }
    path.write_text(nbformat.writes(notebook) + "\n", "utf8")


def main():
    """See the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--into", type=pathlib.Path, metavar="FOLDER")
    arguments = parser.parse_args()
    names = arguments.names or sorted(p.stem for p in EXAMPLES.glob("*.ipynb"))
    with tempfile.TemporaryDirectory() as folder:
        settings, empty = (
            pathlib.Path(folder, "settings"),
            pathlib.Path(folder, "empty"),
        )
        empty.mkdir()
        # No settings and kernels of the user's: "python3" is this process's Python.
        for variable in ("IPYTHONDIR", "JUPYTER_DATA_DIR"):
            os.environ[variable] = str(settings)
        os.environ.pop("JUPYTER_PATH", None)
        if arguments.into is None:  # the code is this clone's
            os.environ["PYTHONPATH"] = str(EXAMPLES.parent)
        for name in names:
            notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
            begin = time.monotonic()
            execute(notebook, arguments.into or empty)
            store(notebook, (arguments.into or EXAMPLES) / f"{name}.ipynb")
            print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
