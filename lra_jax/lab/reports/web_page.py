"""Runs as one HTML page that can be sent to anyone: `report.html`.

Everything is in the page, and its security policy keeps it from loading anything: it
works from a mail's attachment, on a phone, in print, and, but for sorting, without
JavaScript. `experiments.report` and `experiments.grid` write it.
"""

from __future__ import annotations

import html
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from lra_jax.lab.reports import member_table, summary
from lra_jax.lab.terminal import screen


class Drawing(NamedTuple):
    """A figure: what it shows, and its SVG as matplotlib writes it."""

    caption: str
    svg: str


class RunView(NamedTuple):
    """A run as the page shows it.

    Attributes:
      name: of the run.
      command: that makes it again.
      rows: of the results, as `tables.result_rows` gives or `results.read_rows` reads.
      notes: lines in Markdown, see `summary.notes`.
      finished: whether all members have ended.
      drawings: its figures.
      chances: of its tasks, as far as the run says; see `summary.chance`.
    """

    name: str
    command: str
    rows: Sequence[dict[str, Any]]
    notes: Sequence[str]
    finished: bool
    drawings: Sequence[Drawing] = ()
    chances: Mapping[str, float] = types.MappingProxyType({})


def view(rows: Sequence[dict[str, Any]], manifest: Mapping[str, Any]) -> RunView:
    """A run from its results and its manifest, without figures."""
    return RunView(
        name=manifest["name"],
        command=screen.shell(manifest["command"]),
        rows=rows,
        notes=summary.notes(manifest),
        finished=manifest["finished"],
        chances=dict(manifest.get("chance", {})),
    )


def join(runs: Sequence[RunView]) -> RunView:
    """Several runs as one, whose rows begin with `run`; one run stays as it is."""
    if len(runs) == 1:
        return runs[0]
    return RunView(
        name=", ".join(run.name for run in runs),
        command="\n".join(run.command for run in runs),
        rows=[{"run": run.name, **row} for run in runs for row in run.rows],
        notes=[
            f"{run.name}, {summary.counts(run.rows)}. {' '.join(run.notes)}"
            for run in runs
        ],
        finished=all(run.finished for run in runs),
        chances={task: x for run in runs for task, x in run.chances.items()},
    )


def page(runs: Sequence[RunView], *, refresh: int | None = None) -> str:
    """The page of one run, or of several that are compared.

    Args:
      runs: with different names.
      refresh: seconds after which a browser loads the page again; None is never.
    """
    joined = join(runs)
    reload = f'<meta http-equiv="refresh" content="{refresh}">\n' if refresh else ""
    parts = [_heading(1, joined.name)]
    if len(runs) > 1:
        parts += [_heading(2, "Best settings"), _best_settings(joined.rows)]
        parts += map(_paragraph, summary.explanations(joined.rows))
    for index, run in enumerate(runs):
        parts += _run(run, index, refresh, alone=len(runs) == 1)
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"{reload}<title>{_text(joined.name)}</title>\n"
        # Without an icon of its own, a page that is served is asked for one.
        f'<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n{body}\n</main>\n"
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def _run(
    run: RunView, index: int, refresh: int | None, *, alone: bool
) -> Iterable[str]:
    """The parts of a run, below its heading if it is not alone."""
    level = 2 if alone else 3
    if not alone:
        yield _heading(2, run.name)
    state = "Finished" if run.finished else "Not finished"
    if refresh:
        state = f"Running; this page loads itself again every {refresh} seconds"
    counted = _text(summary.counted(run.rows, run.chances))
    yield f"<p><strong>{state}.</strong> {counted}</p>"
    yield f"<pre>{_text(run.command)}</pre>"
    yield _heading(level, "Best settings")
    yield _best_settings(run.rows)
    if alone:
        yield from map(_paragraph, summary.explanations(run.rows))
    yield f"<ul>{''.join(f'<li>{_markdown(note)}</li>' for note in run.notes)}</ul>"
    yield _heading(level, "All members")
    yield _members(run, f"members-{index}")
    if run.drawings:
        yield _heading(level, "Figures")
        yield '<div class="figures">'
        for number, drawing in enumerate(run.drawings):
            yield _figure(drawing, f"f{index}-{number}-")
        yield "</div>"


def _best_settings(rows: Sequence[dict[str, Any]]) -> str:
    header, lines = summary.table(rows)
    if not lines:
        return "<p>No member has ended.</p>"
    heads = "".join(f'<th scope="col">{_text(name)}</th>' for name in header)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in line) + "</tr>"
        for line in lines
    )
    table = _scroll("Best settings", _table(heads, body))
    return f'<section class="best">{table}</section>'


def _table(heads: str, body: str) -> str:
    return f"<table><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"


def _scroll(label: str, content: str) -> str:
    """What may be wider than the page; the keys can scroll it as well."""
    return (
        '<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{html.escape(label)}">{content}</div>'
    )


# What results are called here; accuracies are shown in per cent.
_RESULTS = {
    "step": "updates",
    "final_num_errors": "final errors",
    "final_accuracy": "final %",
    "best_num_errors": "best errors",
    "best_accuracy": "best %",
    "best_step": "best at",
}


def _members(run: RunView, name: str) -> str:
    """The table of all members, and above it what they have in common."""
    same, columns = {}, []
    for key in member_table.columns(run.rows):
        values = {row.get(key) for row in run.rows}
        if len(values) > 1 or key in summary.OUTCOMES:
            columns.append(key)
        else:
            (same[key],) = values
    names = {**summary.NAMES, **_RESULTS}
    heads = "".join(
        '<th scope="col" aria-sort="none"><button type="button">'
        f"{_text(names.get(key, key))}</button></th>"
        for key in columns
    )
    # The words, not the numbers, begin at the left. A class for each cell would make
    # the page much longer.
    words = ",".join(
        f"#{name} :is(td,th):nth-child({place})"
        for place, key in enumerate(columns, 1)
        if any(isinstance(row.get(key), str) for row in run.rows)
    )
    body = "\n".join(_member(row, columns) for row in run.rows)
    common = ", ".join(
        f"{names.get(key, key)} {summary.show(value)}" for key, value in same.items()
    )
    return (
        f'<section id="{name}" class="members">\n'
        f"<style>{words}{{text-align:left}}</style>\n"
        f"{f'<p>All have {_text(common)}.</p>' if common else ''}\n"
        '<p class="filter" hidden><label>Show only rows with <input type="search" '
        'autocomplete="off" spellcheck="false"></label> <output></output></p>\n'
        f"{_scroll('All members', _table(heads, body))}\n</section>"
    )


def _member(row: dict[str, Any], columns: Sequence[str]) -> str:
    first, *cells = (_cell(key, row.get(key)) for key in columns)
    cells = [f"<td>{cell}</td>" for cell in cells]
    return f"<tr><th scope=row>{first}</th>{''.join(cells)}</tr>"


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key.endswith("_accuracy"):
        return summary.percent(value)
    return _text(summary.show(value))


def _figure(drawing: Drawing, prefix: str) -> str:
    svg = inline_svg(drawing.svg, prefix)
    label = f'role="img" aria-label="{html.escape(drawing.caption)}"'
    # On a phone, its letters stay large enough to be read.
    if width := re.match(r'<svg[^>]* width="([\d.]+)pt"', svg):
        label += f' style="min-width:{0.7 * float(width[1]):.0f}pt"'
    svg = svg.replace("<svg", f"<svg {label}", 1)
    return (
        f"<figure>\n{_scroll(drawing.caption, svg)}\n"
        f"<figcaption>{_text(drawing.caption)}</figcaption>\n</figure>"
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


def _heading(level: int, text: str) -> str:
    return f"<h{level}>{_text(text)}</h{level}>"


def _paragraph(text: str) -> str:
    return f"<p>{_markdown(text)}</p>"


def _markdown(text: str) -> str:
    """Bold text and code, which is the Markdown that notes have."""
    text = re.sub("`(.+?)`", r"<code>\1</code>", _text(text))
    return re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)


def _text(text: str) -> str:
    return html.escape(text, quote=False)


# Nothing is loaded, whatever the page's own texts are made to say. Heat maps are images
# within their SVG.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'"
)

_STYLE = """
:root {
  --text: #1b1f24; --soft: #57606a; --page: #fff; --line: #d0d7de; --shade: #f3f5f7;
  --link: #0072b2;
  color-scheme: light;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --text: #e6edf3; --soft: #9aa5b1; --page: #0f1419; --line: #343b44;
    --shade: #1b222a; --link: #56b4e9;
    color-scheme: dark;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif;
}
main { max-width: 90rem; margin: 0 auto; padding: 1rem; }
h1, h2, h3, figcaption { overflow-wrap: anywhere; line-height: 1.25; }
h2 { margin-top: 2.5rem; }
h1 + p { margin-top: 0; }
p, ul { max-width: 48rem; overflow-wrap: anywhere; }
pre {
  padding: .75rem 1rem; background: var(--shade); border-radius: 6px;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
.scroll { overflow: auto; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 1px; }
table {
  border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums;
}
td, th {
  padding: .25rem .5rem; text-align: left; white-space: nowrap; font-weight: inherit;
  border-bottom: 1px solid var(--line);
}
thead th { font-weight: 600; vertical-align: bottom; }
.best td:nth-last-child(6) { min-width: min(14rem, 35vw); white-space: normal; }
.best :is(td, th):nth-last-child(-n + 5) { text-align: right; }
.members .scroll { max-height: 80vh; }
.members td, .members th { text-align: right; }
.members th { position: sticky; left: 0; background: var(--page); }
.members thead th { top: 0; left: auto; padding: 0; background: var(--shade); }
.members button {
  width: 100%; padding: .4rem .5rem; border: 0; background: none; color: inherit;
  font: inherit; text-align: inherit; cursor: pointer;
}
.members button:hover { color: var(--link); }
.members button:focus-visible { outline-offset: -2px; }
.members button::after { content: " \\2195" / ""; color: var(--soft); }
[aria-sort=ascending] button::after { content: " \\2191" / ""; color: var(--link); }
[aria-sort=descending] button::after { content: " \\2193" / ""; color: var(--link); }
.filter input {
  padding: .3rem .5rem; border: 1px solid var(--line); border-radius: 6px;
  background: var(--page); color: inherit; font: inherit; max-width: 100%;
}
.filter output, figcaption { color: var(--soft); }
.figures { display: flex; flex-wrap: wrap; gap: 1.5rem; }
figure { margin: 0; max-width: 100%; }
figure .scroll {
  width: fit-content; max-width: 100%; padding: .5rem; border-radius: 6px;
  background: #fff;
}
figcaption { margin-top: .5rem; font-size: .875rem; max-width: 36rem; }
figure svg { display: block; max-width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
@media print {
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  table { font-size: 7pt; }
  td, th, .members thead th { padding: 1pt 3pt; }
  .members button { display: contents; }
  .members button::after, .filter { display: none; }
  .scroll, .members .scroll { max-height: none; overflow: visible; }
  .members th { position: static; }
  figure svg { min-width: 0 !important; }
  tr, figure { break-inside: avoid; }
  h1, h2, h3 { break-after: avoid; }
}
"""

_SCRIPT = """
"use strict";
const compareWords = new Intl.Collator(undefined, {numeric: true}).compare;

document.querySelectorAll(".members").forEach((section) => {
  const body = section.querySelector("tbody");
  const heads = [...section.querySelectorAll("thead th")];
  const input = section.querySelector("input");
  const output = section.querySelector("output");
  const key = `${location.pathname} ${section.id}`;
  const texts = new Map();  // of a whole row, for the filter
  let rows = [...body.rows];  // as they are shown
  for (const row of rows) {
    const cells = [...row.cells].map((cell) => cell.textContent);
    texts.set(row, cells.join(" ").toLowerCase());
  }

  // Empty cells are last in both directions; equal ones stay as they were.
  function sort(at, direction) {
    const value = new Map(rows.map((row) => [row, row.cells[at].textContent]));
    const filled = rows.filter((row) => value.get(row) !== "");
    const numbers = filled.every((row) => !isNaN(value.get(row)));
    const compare = numbers ? (a, b) => a - b : compareWords;
    const sign = direction === "descending" ? -1 : 1;
    filled.sort((a, b) => sign * compare(value.get(a), value.get(b)));
    rows = filled.concat(rows.filter((row) => value.get(row) === ""));
    for (const row of rows) body.append(row);
    for (const head of heads) head.setAttribute("aria-sort", "none");
    heads[at].setAttribute("aria-sort", direction);
  }

  function filter() {
    const wanted = input.value.toLowerCase();
    let count = 0;
    for (const row of rows) {
      row.hidden = !texts.get(row).includes(wanted);
      count += !row.hidden;
    }
    output.value = `${count} of ${rows.length}`;
  }

  // A page that loads itself again looks as it did, where the browser keeps state.
  let sorted = null;
  function remember() {
    const state = JSON.stringify([input.value, sorted]);
    try { sessionStorage.setItem(key, state); } catch {}
  }
  try {
    [input.value, sorted] = JSON.parse(sessionStorage.getItem(key)) ?? ["", null];
  } catch {}

  heads.forEach((head, at) => {
    head.firstChild.addEventListener("click", () => {
      const again = head.getAttribute("aria-sort") === "ascending";
      sorted = [at, again ? "descending" : "ascending"];
      sort(...sorted);
      remember();
    });
  });
  input.addEventListener("input", () => { filter(); remember(); });
  section.querySelector(".filter").hidden = false;
  if (heads[sorted?.[0]]) sort(...sorted);
  filter();
});
"""
