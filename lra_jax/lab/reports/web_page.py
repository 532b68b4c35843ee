"""Runs as one HTML page that can be sent to anyone: `report.html`.

Everything is in the page, and its security policy keeps it from loading anything: it
works from a mail's attachment, on a phone, in print, and, but for sorting, without
JavaScript. A table of more than `MAX_LINES` members shows its first ones, or the first
in another order, or of those that are filtered: a browser takes seconds to lay out
10,000 lines. `lra-jax report` and `lra-jax grid` write the page. Its template, style
and script are the files in `page/`; the template escapes all text but what is `Markup`
here.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup, escape

from lra_jax.lab.reports import run_view, texts
from lra_jax.lab.reports.run_view import Drawing, RunView
from lra_jax.lab.reports.summary import (
    NAMES,
    OUTCOMES,
    member_columns,
    percent,
    show,
    summarize,
)

MAX_LINES = 1000  # of a table of members that are laid out at once


class _Table(NamedTuple):
    """A table of texts."""

    header: Sequence[str]
    lines: Sequence[Sequence[str]]


class _Members(NamedTuple):
    """The table of all members.

    Attributes:
      header: of the columns in which members differ, and of all results.
      lines: the first cell of each line, and its others; `MAX_LINES` at most.
      rest: the lines after these as JSON, see `_packed`; None if there are none.
      total: how many lines there are.
      common: the settings that all members share.
      words: the columns that have texts, counted from 1.
    """

    header: Sequence[str]
    lines: Sequence[tuple[str, Sequence[str]]]
    rest: Markup | None
    total: int
    common: str
    words: Sequence[int]


class _Figure(NamedTuple):
    """A figure.

    Attributes:
      caption: what it shows.
      width: the least on a screen, in points; None where the SVG has none.
      svg: what follows `<svg` in its file.
    """

    caption: str
    width: str | None
    svg: Markup


def page(runs: Sequence[RunView], *, refresh: int | None = None) -> str:
    """The page of one run, or of several that are compared.

    Args:
      runs: with different names.
      refresh: seconds after which a browser loads the page again; None is never.
    """
    joined = run_view.join(runs)
    return _template().render(
        name=joined.name,
        refresh=refresh,
        together=_best_settings(joined) if len(runs) > 1 else None,
        explanations=map(_markdown, run_view.explanations(joined.rows)),
        runs=[_run(run, f"f{index}-", refresh) for index, run in enumerate(runs)],
    )


@functools.cache
def _template() -> jinja2.Template:
    """The page, with the style and the script in it."""
    loader = jinja2.PackageLoader("lra_jax.lab.reports", "page")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    def code(name: str) -> Markup:
        return Markup(loader.get_source(environment, name)[0])

    own = {"style": code("page.css"), "script": code("page.js")}
    return environment.get_template("page.html", globals=own)


def _run(run: RunView, prefix: str, refresh: int | None) -> dict[str, Any]:
    """What the template needs of a run; `prefix` tells the ids of its figures."""
    state = "Finished" if run.finished else "Not finished"
    if refresh:
        state = f"Running; this page loads itself again every {refresh} seconds"
    return {
        "name": run.name,
        "state": state,
        "counted": run_view.counted(run.rows, run.chances),
        "command": run.command,
        "best": _best_settings(run),
        "notes": map(_markdown, run.notes),
        "figures": [
            _figure(drawing, f"{prefix}{number}-")
            for number, drawing in enumerate(run.drawings)
        ],
        "members": _members(run.rows),
    }


def _best_settings(run: RunView) -> _Table:
    return _Table(*texts.cells(summarize(run.rows)))


# What results are called here; accuracies are shown in per cent.
_RESULTS = {
    "step": "updates",
    "final_num_errors": "final errors",
    "final_num_samples": "of final",
    "final_accuracy": "final %",
    "best_num_errors": "best errors",
    "best_num_samples": "of best",
    "best_accuracy": "best %",
    "best_step": "best at",
}


def _members(rows: Sequence[dict[str, Any]]) -> _Members:
    same, columns = {}, []
    for key in member_columns(rows):
        values = {row.get(key) for row in rows}
        if len(values) > 1 or key in OUTCOMES:
            columns.append(key)
        else:
            (same[key],) = values
    names = {**NAMES, **_RESULTS}
    cells = [_cells(key, [row.get(key) for row in rows]) for key in columns]
    shown = zip(*(column[:MAX_LINES] for column in cells), strict=True)
    return _Members(
        header=[names.get(key, key) for key in columns],
        lines=[(first, others) for first, *others in shown],
        rest=_packed([x[MAX_LINES:] for x in cells]) if len(rows) > MAX_LINES else None,
        total=len(rows),
        common=", ".join(
            f"{names.get(key, key)} {show(value)}" for key, value in same.items()
        ),
        words=[
            place
            for place, key in enumerate(columns, 1)
            if any(isinstance(row.get(key), str) for row in rows)
        ],
    )


def _cells(key: str, values: Sequence[Any]) -> list[str]:
    """The texts of a column; each different value is formatted once."""

    def cell(value: Any) -> str:
        if value is None:
            return ""
        return percent(value) if key.endswith("_accuracy") else show(value)

    pairs = [(type(value), value) for value in values]  # 1, 1.0 and True are equal
    known = {pair: cell(pair[1]) for pair in set(pairs)}
    return [known[pair] for pair in pairs]


def _packed(columns: Sequence[Sequence[str]]) -> Markup:
    """Columns as JSON: for each its different texts, and of each line which it is."""
    packed = []
    for column in columns:
        place = {text: i for i, text in enumerate(dict.fromkeys(column))}
        packed.append([list(place), [place[text] for text in column]])
    text = json.dumps(packed, ensure_ascii=False, separators=(",", ":"))
    # Nothing in it ends the element that it is in.
    return Markup(text.replace("<", "\\u003c"))


def _figure(drawing: Drawing, prefix: str) -> _Figure:
    svg = inline_svg(drawing.svg, prefix)
    width = re.match(r'<svg[^>]* width="([\d.]+)pt"', svg)
    return _Figure(
        drawing.caption,
        f"{0.7 * float(width[1]):.0f}" if width else None,
        Markup(svg.removeprefix("<svg")),
    )


def inline_svg(text: str, prefix: str) -> str:
    """An SVG file as an element of a page that has others.

    Args:
      text: of the file, as matplotlib writes it.
      prefix: before its ids, to tell them from those of others.
    """
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)  # HTML knows them
    text = re.sub(r'(\sid="|href="#|url\(#)', rf"\g<1>{prefix}", text)
    # It would hold for the whole page. The page's own says the same of all figures.
    text = re.sub(r"<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    return re.sub(r"\n\s*", "\n", text)


def _markdown(text: str) -> Markup:
    """Bold text and code, which is the Markdown that notes have."""
    text = re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text))
