"""README's picture and its table of T = 300, from the results of the bench of reach.

    docs/images/reach.png       from results/reach/rules/reach.csv
    results/reach/headline.md   from results/reach/one_setting/reach.csv

`python -m experiments.pages --draw` makes both anew.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from experiments.site import tables
from lra_jax.lab.benches.published import TITLES
from lra_jax.lab.reports import canvas, markdown, results
from lra_jax.lab.terminal import files, screen

SEQ_LEN = 300  # of the table


class Line(NamedTuple):
    """A line of the picture; methods with the same results share one."""

    methods: tuple[str, ...]  # names in the CSV
    label: str
    place: tuple[float, float]  # of the label, in T and seeds


LINES = (
    Line(("LRA-diff", "lra_norm", "TPTT"), "lra_diff, lra_norm, tptt", (160, 5)),
    Line(("BPTT",), "bptt", (160, 4)),
    Line(("LRA-fdbk",), "lra_fdbk: LRA with\nfeedback weights", (53, 1.7)),
    Line(("FA",), "fa: feedback\nalignment", (20.8, 0.95)),
    Line(("readout only (control)",), "frozen network,\ntrained readout", (10.2, 0.7)),
)

# Dotted: how far the paper's methods get, by their names in the CSV.
PUBLISHED = (
    ("LRA-diff", "the paper's LRA"),
    ("LRA-diff regularised", "the paper's LRA with Ω"),
)

# Rows of the table: a method's name in the CSV, and in the table.
METHODS = (
    ("lra_norm", "`lra_norm`"),
    ("lra_reversible, W_xh begins small", "`lra_reversible`, small input weights"),
    (
        "lra_norm without the cost of activity",
        "`lra_norm` without the cost of activity",
    ),
    (
        "lra_norm without the cost of activity, W_xh begins small",
        "the same, small input weights",
    ),
    ("BPTT, the same optimizer", "`bptt`"),
    ("BPTT with the cost of activity", "`bptt` with the cost of activity"),
    ("BPTT, the same optimizer, W_xh begins small", "`bptt`, small input weights"),
    ("BPTT, Adam alone", "`bptt`, plain Adam"),
    ("readout only (control)", "`readout_only`"),
)


_NUMBERS = ("seq_len", "solved", "seeds")


def draw(root: pathlib.Path) -> None:
    """Draws the picture and writes the table, below the folder of the repository.

    Raises:
      OSError: files cannot be written.
      store.RunFolderError: results cannot be read.
      ValueError: results lack a method, or matplotlib is missing.
    """
    if (note := canvas.missing()) is not None:
        raise ValueError(screen.plain(note))
    reach = root / "results" / "reach"
    path, more = reach / "one_setting" / "reach.csv", ("task", "median_updates")
    text = table(tables.read(path, ("method", *more, *_NUMBERS), _NUMBERS))
    path = reach / "rules" / "reach.csv"
    rows = tables.read(path, ("method", "published_reach", *_NUMBERS), _NUMBERS)
    draw_reach(rows, root / "docs" / "images" / "reach.png")
    files.write_text(reach / "headline.md", text)


def draw_reach(rows: Sequence[results.Row], path: pathlib.Path) -> None:
    """Seeds that solve temporal order against T, a line for each group of methods.

    Raises:
      ValueError: a method is missing, or methods of one line have other results.
    """
    with canvas.style():
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullLocator

        from lra_jax.lab.reports.figures import COLORS

        figure = Figure(figsize=(7.4, 3.4), layout="constrained")
        ax = figure.add_subplot()
        lengths = sorted({row["seq_len"] for row in rows})
        for line, color in zip(LINES, COLORS, strict=False):
            counts, *others = [_solved(rows, method) for method in line.methods]
            if any(other != counts for other in others):
                raise ValueError(f"{', '.join(line.methods)}: no common line any more")
            ax.plot(list(counts), list(counts.values()), color=color, marker="o",
                    linewidth=2, clip_on=False)  # fmt: skip
            ax.text(*line.place, line.label, color=color, va="center")
        for method, text in PUBLISHED:
            length = _published(rows, method)
            ax.axvline(length, color="0.5", linewidth=0.8, linestyle=":", ymax=0.95)
            ax.text(length, 5.55, text, color="0.4", fontsize=8)
        ax.set_xscale("log")
        ax.set_xticks(lengths, [str(length) for length in lengths])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlim(lengths[0] * 0.95, lengths[-1] * 2.2)
        ax.set_ylim(-0.15, 5.5)
        ax.set_ylabel("seeds solved, of 5")
        ax.set_xlabel("T, the length of a sequence; temporal order")
        figure.savefig(path, dpi=150)


def table(rows: Sequence[results.Row]) -> str:
    """Seeds solved at T = 300 and the median of their updates, as Markdown.

    Where T = 300 was not tried, the cell has the longest T that was.

    Raises:
      ValueError: a method is missing.
    """
    body = []
    for method, label in METHODS:
        cells = []
        for task in TITLES:
            tried = [r for r in rows if (r["task"], r["method"]) == (task, method)]
            if not tried:
                raise ValueError(f"no method {method!r} with {task}")
            last = max(tried, key=lambda row: int(row["seq_len"]))
            cell = f"{last['solved']} of {last['seeds']}"
            if last["seq_len"] != SEQ_LEN:
                cell += f" at T = {last['seq_len']}"
            elif last["solved"]:
                cell += f" in {last['median_updates']:,.0f}"
            cells.append(cell)
        body.append([label, *cells])
    return markdown.table(["rule", *TITLES.values()], body)


def _published(rows: Sequence[results.Row], method: str) -> float:
    for row in rows:
        if row["method"] == method and row["published_reach"] is not None:
            return float(row["published_reach"])
    raise ValueError(f"no published reach of {method!r} in the results")


def _solved(rows: Sequence[results.Row], method: str) -> dict[int, int]:
    counts = {r["seq_len"]: r["solved"] for r in rows if r["method"] == method}
    if not counts:
        raise ValueError(f"no method {method!r} in the results")
    return counts
