"""Runs as text: a report in Markdown, and its table as CSV and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lra_jax.lab.reports import markdown, results, run_view
from lra_jax.lab.reports.run_view import RunView
from lra_jax.lab.reports.summary import (
    NAMES,
    UNKNOWN,
    Line,
    Summary,
    percent,
    show,
    summarize,
)


def cells(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table, for people."""
    header = [NAMES.get(key, key) for key in summary.keys]
    header += ["best setting", "of", "solved", "accuracy %", "final %", "updates"]
    lines = []
    for line in summary.lines:
        setting = line.setting
        outrun = f" ({setting.num_outrun} outrun)" if setting.num_outrun else ""
        lines.append(
            [
                *(show(line.values[key]) for key in summary.keys),
                ", ".join(f"{key} {show(value)}" for key, value in line.chosen.items()),
                str(line.num_settings),
                f"{setting.num_solved}/{setting.num_seeds}{outrun}",
                percent(
                    setting.mean("best_accuracy"), setting.interval("best_accuracy")
                ),
                percent(setting.mean("final_accuracy")),
                f"{setting.mean('step'):,.0f}",
            ]
        )
    return header, lines


MAX_NAMES = 4  # in a conclusion


def conclusion(rows: Sequence[dict[str, Any]]) -> str:
    """What a finished table shows, in one or two sentences; "" where it is too early.

    A table of one line compares nothing. In a race most settings have no outcome.
    """
    summary = summarize(rows)
    lines = summary.lines
    if len(lines) < 2 or any(row["status"] in UNKNOWN for row in rows):
        return ""

    def name(line: Line) -> str:
        parts = []
        for key in summary.keys:
            if (value := line.values[key]) is not None:
                is_name = key in ("run", "task", "rule", "optimizer")
                parts.append(
                    show(value) if is_name else f"{NAMES.get(key, key)} {show(value)}"
                )
        return " ".join(parts)

    solved = [line for line in lines if line.setting.all_solved]
    others = [line for line in lines if not line.setting.all_solved]
    if not solved:
        best = max(lines, key=lambda line: line.setting.rank())
        accuracy = percent(best.setting.mean("best_accuracy"))
        return f"No setting solves all seeds; best is {name(best)} with {accuracy} %."
    first = min(solved, key=lambda line: line.setting.mean("step"))
    chosen = ", ".join(f"{key} {show(value)}" for key, value in first.chosen.items())
    updates = f"{first.setting.mean('step'):,.0f}"
    text = (
        f"Fewest updates until all seeds are solved: {updates}, by {name(first)}"
        + f" with {chosen}" * bool(chosen)
        + "."
    )
    if others:
        shown = [
            f"{name(line)} ({percent(line.setting.mean('best_accuracy'))} %)"
            for line in others[:MAX_NAMES]
        ]
        shown += [f"{len(others) - MAX_NAMES} more"] * (len(others) > MAX_NAMES)
        text += f" Not solved in all seeds by any setting: {', '.join(shown)}."
    return text


def report(run: RunView) -> str:
    """A run, or several that are joined, as a page of Markdown without figures."""
    header, lines = cells(summarize(run.rows))
    parts = [f"# {run.name}", "", "```", run.command, "```", ""]
    parts += [run_view.counted(run.rows, run.chances), ""]
    if lines:
        parts += [markdown.table(header, lines)]
    if sentence := conclusion(run.rows):
        parts += [sentence, ""]
    for paragraph in run_view.explanations(run.rows):
        parts += [paragraph, ""]
    parts += [markdown.notes(run.notes)]
    return "\n".join(parts).rstrip() + "\n"


def csv_table(summary: Summary) -> str:
    """The table for programs: a column for each number, with six digits."""
    header = [*summary.keys, *summary.varying, "settings", "solved", "seeds", "outrun"]
    header += ["accuracy", "accuracy_interval_95", "final_accuracy", "updates"]
    return results.csv_text([*map(_record, summary.lines)], header, digits=6)


def _record(line: Line) -> dict[str, Any]:
    setting = line.setting
    return {
        **setting.values,
        **line.values,
        "settings": line.num_settings,
        "solved": setting.num_solved,
        "seeds": setting.num_seeds,
        "outrun": setting.num_outrun,
        "accuracy": setting.mean("best_accuracy"),
        "accuracy_interval_95": setting.interval("best_accuracy"),
        "final_accuracy": setting.mean("final_accuracy"),
        "updates": setting.mean("step"),
    }


_LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "λ": r"$\lambda$",
    "±": r"$\pm$",
    "–": "--",
}  # fmt: skip
_NUMBER = re.compile(r"–|[-+\d.,e]+( ± [\d.]+)?|\d+/\d+.*")


def latex_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table as a `tabular` with the rules of booktabs; numbers are right-aligned."""

    def row(cells: Sequence[str]) -> str:
        texts = ("".join(_LATEX.get(c, c) for c in cell) for cell in cells)
        return " & ".join(texts) + r" \\"

    columns = "".join(
        "r" if all(map(_NUMBER.fullmatch, column)) else "l"
        for column in zip(*lines, strict=True)
    )
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns or 'l' * len(header)}}}",
            r"\toprule",
            row(header),
            r"\midrule",
            *map(row, lines),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )
