"""The summary of runs: the best setting of each rule, K and λ, over seeds, as text.

Everything here goes from rows of results to Markdown, CSV or LaTeX; `web_page` makes
a page of the same.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import math
import re
import statistics
import types
from collections.abc import Mapping, Sequence
from typing import Any

from lra_jax import RULES
from lra_jax.lab.config import tasks as tasks_lib
from lra_jax.lab.config.arguments import arguments_of
from lra_jax.lab.config.config import AXES
from lra_jax.lab.data.sources import DatasetError
from lra_jax.lab.reports import markdown as markdown_lib

# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; beyond
# the table, that of 30 (which is a little too wide).
T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip

# What splits the table into lines; everything else is searched over. Rows have a "run"
# where several are compared.
LINE_KEYS = ("run", *AXES, "num_refinements", "lambda")
# What is not a setting.
OUTCOMES = {
    "member", "seed", "status", "step", "best_step",
    "final_num_errors", "final_accuracy", "best_num_errors", "best_accuracy",
}  # fmt: skip

# What people call a setting, where it is not its name in a config.
NAMES = {"num_refinements": "K", "lambda": "λ", "seq_len": "T"}

_NOT_ENDED = ("pending", "running")
UNKNOWN = (*_NOT_ENDED, "outrun")  # what it would have reached, that is


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting of the grid with all its seeds.

    Attributes:
      values: its settings and hyper-parameters.
      rows: of its members that have ended and were not outrun, one per seed.
      num_seeds: all its seeds, whether ended or not.
      num_outrun: those of which another setting was solved first.
    """

    values: dict[str, Any]
    rows: list[dict[str, Any]]
    num_seeds: int
    num_outrun: int

    @property
    def num_solved(self) -> int:
        """Seeds that were solved."""
        return sum(row["status"] == "solved" for row in self.rows)

    @property
    def all_solved(self) -> bool:
        """Whether every seed was solved."""
        return self.num_solved == self.num_seeds

    def mean(self, column: str) -> float:
        """Mean over the seeds that have ended and were not outrun."""
        return statistics.fmean(row[column] for row in self.rows)

    def interval(self, column: str) -> float | None:
        """Half-width of the 95 % interval of the mean; None for a single seed."""
        return mean_interval([row[column] for row in self.rows])[1]

    def rank(self) -> tuple[float, ...]:
        """Better is larger: solved fraction, best accuracy, fewer updates.

        Seeds that were outrun count as not solved, and nowhere else: in a race, the
        best setting is the one that wins most often.
        """
        return (
            self.num_solved / self.num_seeds,
            self.mean("best_accuracy"),
            -self.mean("step"),
        )


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half-width of its 95 % interval (Student's t).

    The interval is None for one value, and where a value is not finite.
    """
    mean = statistics.fmean(values)
    if len(values) < 2 or not math.isfinite(mean):
        return mean, None
    quantile = T_95[min(len(values) - 1, len(T_95)) - 1]
    return mean, quantile * statistics.stdev(values) / math.sqrt(len(values))


def _values(row: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The settings and hyper-parameters of a row of results."""
    return tuple(
        (key, value)
        for key, value in row.items()
        if key not in OUTCOMES and value is not None
    )


def line_value(values: Mapping[str, Any], key: str) -> Any:
    """What a setting has for one of `LINE_KEYS`, by default too; None has no such."""
    value = values.get(key)
    if value is None and values["rule"] in RULES:
        argument = arguments_of(RULES[values["rule"]]).get(key)
        return argument and argument.default
    return value


def settings(rows: Sequence[dict[str, Any]]) -> list[Setting]:
    """Rows of results grouped over seeds, where one has ended and was not outrun."""
    by_values: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        by_values.setdefault(_values(row), []).append(row)
    found = []
    for values, members in by_values.items():
        ended = [row for row in members if row["status"] not in UNKNOWN]
        outrun = sum(row["status"] == "outrun" for row in members)
        if ended:
            found.append(Setting(dict(values), ended, len(members), outrun))
    return found


def best_settings(rows: Sequence[dict[str, Any]]) -> list[tuple[Setting, int]]:
    """The best setting of each line, and how many settings it was chosen from."""

    def line(values: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(line_value(values, key) for key in LINE_KEYS)

    lines: dict[tuple[Any, ...], list[Setting]] = {}
    for setting in settings(rows):
        lines.setdefault(line(setting.values), []).append(setting)
    # Settings that were only outrun have no rank, but were in the race.
    tried = {_values(row) for row in rows if row["status"] not in _NOT_ENDED}
    counts = collections.Counter(line(dict(values)) for values in tried)
    return [(max(found, key=Setting.rank), counts[key]) for key, found in lines.items()]


def percent(value: float, interval: float | None = None) -> str:
    """An accuracy for people: `99.84 ± 0.10`, without rounding up to 100."""
    text = "100" if value == 1 else f"{math.floor(round(value * 10_000, 6)) / 100:.2f}"
    return text if interval is None else f"{text} ± {100 * interval:.2f}"


def _columns(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The `LINE_KEYS` of a table, and what else settings have, in a fixed order."""
    best = [setting.values for setting, _ in best_settings(rows)]
    lines = [
        key
        for key in LINE_KEYS
        if len({line_value(values, key) for values in best}) > 1
        or key in ("rule", "num_refinements", "lambda")
    ]
    # The order of the columns of results.csv, so that a table is the same made from it.
    keys = dict.fromkeys(key for row in rows for key in row)
    return lines, [key for key in keys if key not in (*LINE_KEYS, *OUTCOMES)]


def table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the report's table."""
    varying, keys = _columns(rows)
    header = [NAMES.get(key, key) for key in varying]
    header += ["best setting", "of", "solved", "accuracy %", "final %", "updates"]
    lines = []
    tried: dict[tuple[str, str], set[Any]] = {}  # by rule and key, the values it had
    for other in settings(rows):
        for key, value in other.values.items():
            tried.setdefault((other.values["rule"], key), set()).add(value)
    for setting, count in best_settings(rows):
        values = setting.values
        chosen = [
            f"{key} {show(values[key])}"
            for key in keys
            if key in values and len(tried[values["rule"], key]) > 1
        ]
        lines.append(
            [show(line_value(values, key)) for key in varying]
            + [
                ", ".join(chosen),
                str(count),
                f"{setting.num_solved}/{setting.num_seeds}"
                + f" ({setting.num_outrun} outrun)" * (setting.num_outrun > 0),
                percent(
                    setting.mean("best_accuracy"), setting.interval("best_accuracy")
                ),
                percent(setting.mean("final_accuracy")),
                f"{setting.mean('step'):,.0f}",
            ]
        )
    return header, lines


def records(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """The report's table for programs: a column for each number; None is not known."""
    varying, keys = _columns(rows)
    every = settings(rows)
    keys = [key for key in keys if len({s.values.get(key) for s in every}) > 1]
    header = [*varying, *keys, "settings", "solved", "seeds", "outrun"]
    header += ["accuracy", "accuracy_interval_95", "final_accuracy", "updates"]
    lines = [
        [line_value(setting.values, key) for key in varying]
        + [setting.values.get(key) for key in keys]
        + [count, setting.num_solved, setting.num_seeds, setting.num_outrun]
        + [setting.mean("best_accuracy"), setting.interval("best_accuracy")]
        + [setting.mean("final_accuracy"), setting.mean("step")]
        for setting, count in best_settings(rows)
    ]
    return header, lines


def counts(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many members there are, and how many of each status."""
    statuses = sorted(row["status"] for row in rows)
    found = collections.Counter(statuses)
    return f"{len(rows)} members: " + ", ".join(
        f"{count} {status}" for status, count in found.items()
    )


def chance(task: str, known: Mapping[str, float]) -> float | None:
    """What a constant answer reaches in a task; None where nobody knows.

    Args:
      task: its name.
      known: what runs say of theirs. Older ones say nothing; then the task is asked,
        if it is there.
    """
    if task in known:
        return known[task]
    try:
        return tasks_lib.find(task).chance
    except (DatasetError, KeyError):
        return None


def counted(rows: Sequence[Mapping[str, Any]], known: Mapping[str, float]) -> str:
    """A line: how many members there are, and the chance of each task; see `chance`."""
    tasks = sorted({row["task"] for row in rows})
    found = {task: chance(task, known) for task in tasks}
    texts = [f"{t} {percent(x)} %" for t, x in found.items() if x is not None]
    said = f" Chance: {', '.join(texts)}." if texts else ""
    return f"{counts(rows)}.{said}"


def notes(manifest: Mapping[str, Any]) -> list[str]:
    """Lines in Markdown about a run: what is missing, time and device."""
    found = [
        f"{manifest['member_steps']:,} updates in {manifest['seconds']:,.0f} s on "
        f"{manifest['device']['cores']} cores, {manifest['device']['kind']}, "
        f"{manifest['dtype']}, JAX {manifest['versions']['jax']}.",
    ]
    if later := manifest.get("later", []):
        codes = ", ".join(str(maker["code"]) for maker in later)
        found.append(
            f"Made by several codes: begun by {manifest['code']}, gone on with by "
            f"{codes}."
        )
    if not manifest["finished"]:
        found.insert(0, "**Not finished**: members that run are not in the table.")
    return found


def explanations(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Paragraphs in Markdown that say how the table is to be read."""
    found = [
        "Each line is the best of its settings by solved fraction, then mean best "
        "accuracy, then fewest updates: the choice and the accuracies are on the same "
        "validation set. `of` is the number of settings that it was chosen from; what "
        "they have in common is in `config.resolved.toml`. `accuracy` is the best over "
        "a member's evaluations, `final` the last. Intervals are 95 %, Student's t "
        "over seeds. `updates` is the mean until a member ended."
    ]
    if any(row["status"] == "outrun" for row in rows):
        found.insert(
            0,
            "**A race**: a member that was solved has ended the others of its seed and "
            "K (`outrun`), which might have been solved as well. So `solved` counts "
            "races won, and a setting that won fewer is not known to be worse; all "
            "other results are of members that were not outrun, and a line without "
            "any is left out.",
        )
    return found


def markdown(
    name: str,
    command: str,
    rows: Sequence[dict[str, Any]],
    notes: Sequence[str],
    chances: Mapping[str, float] = types.MappingProxyType({}),
) -> str:
    """The report as a page.

    Args:
      name: of the run.
      command: that makes it again.
      rows: of the results.
      notes: lines about the run: time, device, figures.
      chances: of its tasks, as far as they are known; see `chance`.
    """
    header, lines = table(rows)
    page = [f"# {name}", "", "```", command, "```", ""]
    page += [counted(rows, chances), ""]
    if lines:
        page += [markdown_lib.table(header, lines)]
    for paragraph in explanations(rows):
        page += [paragraph, ""]
    page += [markdown_lib.notes(notes)]
    return "\n".join(page).rstrip() + "\n"


def csv_text(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A table as CSV, numbers with six digits and None as nothing."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for line in lines:
        writer.writerow([f"{x:.6g}" if isinstance(x, float) else x for x in line])
    return text.getvalue()


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


def latex(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
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


def show(value: Any) -> str:
    """A setting for people."""
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)
