"""Reports on runs, and compares them: `python -m experiments.report RUN [RUN ...]`.

RUN is a run folder, finished or not:

    python -m experiments.report runs/demo
    python -m experiments.report runs/a runs/b --format latex
    python -m experiments.report runs/a runs/b --format html --out comparison.html

`md` is the report, `latex` (booktabs) its table, `csv` the same for programs, a column
for each number, and `html` a page with the figures and a table of all members, which
needs no other file. Several runs are compared in one table, whose first column says the
run. Exit codes: 0 done, 2 a folder that is no run, or that cannot be read or written.
"""

from __future__ import annotations

import collections
import contextlib
import json
import pathlib
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from absl import flags

from lra_jax.lab import config as config_lib
from lra_jax.lab.reports import canvas, run_view, summary, texts, web_page
from lra_jax.lab.reports.run_view import RunView
from lra_jax.lab.runs import provenance
from lra_jax.lab.runs.store import RunFolderError, read_curves, read_results
from lra_jax.lab.terminal import command_line, files
from lra_jax.member import Status
from lra_jax.settings import nearest

_FORMAT = flags.DEFINE_enum(
    "format", "md", ["md", "csv", "latex", "html"], "What to make of the runs."
)
_OUT = flags.DEFINE_string(  # other programs have a flag of this name
    "out",
    None,
    "File to write. Default: the page of one run goes to RUN/report.html, all other "
    "formats are printed.",
    allow_override=True,
)

# Of those that figures are made of; older folders have no `num_samples`.
CURVES = ("member", "step", "num_errors")
FILES = ("config.resolved.toml", "curves.npz", "manifest.json", "results.csv")


def read(folder: pathlib.Path) -> RunView:
    """The run of a folder, without its figures.

    Raises:
      RunFolderError: it is no run folder, of another version, or damaged.
    """
    try:
        missing = [name for name in FILES if not (folder / name).is_file()]
        exists = folder.is_dir()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise RunFolderError(f"{folder} cannot be read: {reason}") from None
    if missing:
        reason = f"lacks {', '.join(missing)}" if exists else "does not exist"
        near = _near(folder) if len(missing) == len(FILES) else ""
        if folder.is_file():
            reason, near = "is a file", f"; did you mean {folder.parent}?"
        raise RunFolderError(f"{folder} is no run folder: it {reason}{near}")
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text("utf-8"))
        version = manifest["schema_version"]
        if version != provenance.SCHEMA_VERSION:
            raise RunFolderError(
                f"{folder} has schema version {version}, this is version "
                f"{provenance.SCHEMA_VERSION}"
            )
        view = run_view.view([], manifest)
        num_members = int(manifest["num_members"])
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError):
        raise RunFolderError(f"{path} is damaged") from None
    return view._replace(rows=_rows(folder, num_members))


def _rows(folder: pathlib.Path, num_members: int) -> list[dict[str, Any]]:
    """The rows of the table of results, with what a report needs of them."""
    numbers = ("member", "seed", "step", "best_accuracy", "final_accuracy")
    rows = read_results(folder, num_members)
    try:
        for row in rows:
            known = isinstance(row["task"], str)  # it need not be there any more
            known = known and str(row["status"]).upper() in Status.__members__
            ended = row["status"] not in summary.UNKNOWN
            kinds = {type(row[key]) for key in numbers if ended or row[key] is not None}
            if not (known and kinds <= {int, float}):
                raise ValueError
        if not rows or not {*summary.member_columns(rows)} <= {*rows[0]}:
            raise ValueError
    except (ValueError, TypeError, KeyError, AttributeError):
        raise RunFolderError(f"{folder / 'results.csv'} is damaged") from None
    return rows


def _near(folder: pathlib.Path) -> str:
    """A hint at the run folder beside it that is named most like it."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        runs = [path.parent for path in folder.parent.glob(f"*/{FILES[-1]}")]
        names = [path.name for path in runs if path.resolve() != folder.resolve()]
    near = nearest(folder.name, names, least=0)
    return f"; did you mean {folder.parent / near}?" if near else ""


def _draw(folder: pathlib.Path, view: RunView) -> RunView:
    """The run with its figures, or a note that says why there are none."""
    if (missing := canvas.missing()) is not None:
        return view._replace(notes=[*view.notes, missing])
    from lra_jax.lab.reports import figures

    config = config_lib.read(folder / "config.resolved.toml")
    curves = read_curves(folder / "curves.npz")
    try:
        if lacks := {*CURVES} - {*curves}:
            raise KeyError(*lacks)
        # Of a run that goes on, or was killed, the curves may be the older file.
        begun = set(curves["member"].tolist())
        rows = [row for row in view.rows if row["member"] in begun]
        num_validation = int(config["num_validation"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{folder}: its figures cannot be drawn ({type(error).__name__}: {error})"
        ) from None
    try:
        with tempfile.TemporaryDirectory() as name:
            scratch = pathlib.Path(name)
            captions = figures.draw(scratch, rows, curves, num_validation, view.chances)
            return view._replace(drawings=figures.drawings(scratch, captions))
    except Exception as error:  # of matplotlib, and whatever it is made of
        note = canvas.failure(error)
        print(f"{command_line.program(__name__)}: {folder}: {note}", file=sys.stderr)
        return view._replace(notes=[*view.notes, note])


def _run(words: Sequence[str]) -> int:
    folders = [pathlib.Path(word) for word in words]
    if not folders:
        raise RunFolderError("expected a run folder, such as runs/demo")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunFolderError("a run folder is given twice")
    if _FORMAT.value == "html" and len(folders) > 1 and _OUT.value is None:
        raise RunFolderError("--out is missing: where the page of several runs goes")
    config_lib.load_extensions(command_line.imports(), command_line.program(__name__))
    views = [read(folder) for folder in folders]
    count = collections.Counter(view.name for view in views)
    views = [
        view._replace(name=str(folder)) if count[view.name] > 1 else view
        for folder, view in zip(folders, views, strict=True)
    ]
    text = _text(folders, views)
    out = _OUT.value
    if out is None and _FORMAT.value == "html":
        out = str(folders[0] / "report.html")
    if out is None:
        print(text, end="")
        return 0
    try:
        files.write_text(pathlib.Path(out), text)
    except OSError as error:
        raise RunFolderError(f"{out} cannot be written: {error.strerror}") from None
    print(out)
    return 0


def _text(folders: Sequence[pathlib.Path], views: Sequence[RunView]) -> str:
    """What the flags ask to be made of the runs."""
    if _FORMAT.value == "html":
        return web_page.page(list(map(_draw, folders, views)))
    joined = run_view.join(views)
    if _FORMAT.value == "md":
        return texts.report(joined)
    lines = summary.summarize(joined.rows)
    if _FORMAT.value == "csv":
        return texts.csv_table(lines)
    return texts.latex_table(*texts.cells(lines))


parse = command_line.parser(__name__, takes_words=True, takes_imports=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    errors = (RunFolderError, config_lib.ConfigError)
    return command_line.exit_code(
        lambda _: _run(argv[1:]), errors, command_line.program(__name__)
    )
