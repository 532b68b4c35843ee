"""The summary of runs: the best setting of each rule, K and λ, over seeds.

`summarize` makes it from rows of results. `texts` and `web_page` write it.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lra_jax import RULES
from lra_jax.lab.config import AXES
from lra_jax.lab.config.arguments import arguments_of
from lra_jax.lab.config.config import NETWORK_AXES
from lra_jax.lab.reports.statistics import mean_interval

# What splits the table into lines; everything else is searched over. Rows have a "run"
# where several are compared.
LINE_KEYS = ("run", *AXES, "num_refinements", "lambda")
# What a member reached, in the order of the columns.
RESULTS = (
    "status", "step", "final_num_errors", "final_num_samples", "final_accuracy",
    "best_num_errors", "best_num_samples", "best_accuracy", "best_step",
)  # fmt: skip
# What is not a setting.
OUTCOMES = {"member", "seed", *RESULTS}

# What people call a setting, where it is not its name in a config.
NAMES = {"num_refinements": "K", "lambda": "λ", "seq_len": "T"}

_NOT_ENDED = ("pending", "running")
UNKNOWN = (*_NOT_ENDED, "outrun")  # what it would have reached, that is


def best_of_seeds(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The best member of each T, K and seed of a run.

    It is the one that was solved in the fewest updates, or else the most accurate one;
    of equals the first. Its setting is what varies in the run. `updates` is when it was
    solved, or how many it had.

    Args:
      rows: of `results.csv`, of one rule on one task.
    """
    axes = ("seq_len", "num_refinements", "seed")
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(axis) for axis in axes), []).append(row)
    keys = [key for key in (rows[0] if rows else ()) if key not in OUTCOMES | {*axes}]
    varied = [key for key in keys if len({row[key] for row in rows}) > 1]

    def merit(row: Mapping[str, Any]) -> tuple[bool, float]:
        if row["status"] == "solved":
            return True, -row["best_step"]
        accuracy = row["best_accuracy"]
        return False, -math.inf if accuracy is None else accuracy

    found = []
    for place, members in groups.items():
        best = max(members, key=merit)
        found.append(
            dict(zip(axes, place, strict=True))
            | {
                "status": best["status"],
                "updates": best["best_step" if best["status"] == "solved" else "step"],
                "best_accuracy": best["best_accuracy"],
                "setting": ", ".join(
                    f"{NAMES.get(key, key)} {best[key]}"
                    for key in varied
                    if best[key] is not None
                ),
            }
        )
    return found


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


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the summary: the best setting of a rule, K and λ.

    Attributes:
      setting: the best by solved fraction, then best accuracy, then fewest updates.
      values: of the summary's `keys`; a rule's default where the setting has none, and
        None where the rule has no such argument.
      chosen: those of the setting's values that were searched over: its rule had
        several.
      num_settings: from how many settings it was chosen.
    """

    setting: Setting
    values: Mapping[str, Any]
    chosen: Mapping[str, Any]
    num_settings: int


@dataclasses.dataclass(frozen=True)
class Summary:
    """The best settings, from which every format is written.

    Attributes:
      keys: of `LINE_KEYS`, those that tell the lines apart.
      varying: what else differs between settings, in the order of the results' columns.
      lines: in the order of the results.
    """

    keys: Sequence[str]
    varying: Sequence[str]
    lines: Sequence[Line]


_Values = tuple[tuple[str, Any], ...]  # keys and values of a setting
_Rows = list[dict[str, Any]]


def line_value(values: Mapping[str, Any], key: str) -> Any:
    """What a setting has for one of `LINE_KEYS`, by default too; None has no such."""
    value = values.get(key, NETWORK_AXES.get(key))
    if value is None and values["rule"] in RULES:
        argument = arguments_of(RULES[values["rule"]]).get(key)
        return argument and argument.default
    return value


def settings(rows: Sequence[dict[str, Any]]) -> list[Setting]:
    """Rows of results grouped over seeds, where one has ended and was not outrun."""
    return _settings(_by_values(rows))


def best_settings(rows: Sequence[dict[str, Any]]) -> list[tuple[Setting, int]]:
    """The best setting of each line, and how many settings it was chosen from."""
    by_values = _by_values(rows)
    return _best(by_values, _settings(by_values))


def summarize(rows: Sequence[dict[str, Any]]) -> Summary:
    """The summary of rows of results; they may be of several runs, with "run"."""
    by_values = _by_values(rows)
    every = _settings(by_values)
    best = _best(by_values, every)
    keys = [
        key
        for key in LINE_KEYS
        if len({line_value(setting.values, key) for setting, _ in best}) > 1
        or key in ("rule", "num_refinements", "lambda")
    ]
    # The order of the columns of results.csv, so that a table is the same made from it.
    others = dict.fromkeys(key for row in rows for key in row)
    others = {key: None for key in others if key not in (*LINE_KEYS, *OUTCOMES)}
    tried: dict[tuple[str, str], set[Any]] = {}  # by rule and key, the values it had
    for setting in every:
        for key, value in setting.values.items():
            tried.setdefault((setting.values["rule"], key), set()).add(value)
    lines = [
        Line(
            setting,
            {key: line_value(setting.values, key) for key in keys},
            {
                key: setting.values[key]
                for key in others
                if key in setting.values and len(tried[setting.values["rule"], key]) > 1
            },
            count,
        )
        for setting, count in best
    ]
    varying = [k for k in others if len({s.values.get(k) for s in every}) > 1]
    return Summary(keys, varying, lines)


def _by_values(rows: Iterable[dict[str, Any]]) -> dict[_Values, _Rows]:
    """The rows of each setting, a row for each seed."""
    by_values: dict[_Values, _Rows] = {}
    for row in rows:
        values = tuple(
            (key, value)
            for key, value in row.items()
            if value is not None and key not in OUTCOMES
        )
        by_values.setdefault(values, []).append(row)
    return by_values


def _settings(by_values: Mapping[_Values, _Rows]) -> list[Setting]:
    every = []
    for values, members in by_values.items():
        ended = [row for row in members if row["status"] not in UNKNOWN]
        outrun = sum(row["status"] == "outrun" for row in members)
        if ended:
            every.append(Setting(dict(values), ended, len(members), outrun))
    return every


def _best(
    by_values: Mapping[_Values, _Rows], every: Iterable[Setting]
) -> list[tuple[Setting, int]]:
    known: dict[tuple[Any, ...], tuple[Any, ...]] = {}  # there are few of them

    def line(values: Mapping[str, Any]) -> tuple[Any, ...]:
        own = (values["rule"], *map(values.get, LINE_KEYS))
        if own not in known:
            known[own] = tuple(line_value(values, key) for key in LINE_KEYS)
        return known[own]

    lines: dict[tuple[Any, ...], list[Setting]] = {}
    for setting in every:
        lines.setdefault(line(setting.values), []).append(setting)
    # Settings that were only outrun have no rank, but were in the race.
    counts = collections.Counter(
        line(dict(values))
        for values, members in by_values.items()
        if any(row["status"] not in _NOT_ENDED for row in members)
    )
    return [
        (max(candidates, key=Setting.rank), counts[key])
        for key, candidates in lines.items()
    ]


def member_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns of a table of members: settings, hyper-parameters, seed, results.

    Args:
      rows: at least one.
    """
    outcomes = [key for key in rows[0] if key in RESULTS]
    axes = [key for key in AXES if key in rows[0] or key not in NETWORK_AXES]
    every = dict.fromkeys(["member", *axes]) | dict.fromkeys(k for r in rows for k in r)
    return [*(k for k in every if k not in ("seed", *RESULTS)), "seed", *outcomes]


def percent(value: float, interval: float | None = None) -> str:
    """An accuracy for people: `99.84 ± 0.10`, without rounding up to 100."""
    text = "100" if value == 1 else f"{math.floor(round(value * 10_000, 6)) / 100:.2f}"
    return text if interval is None else f"{text} ± {100 * interval:.2f}"


def show(value: Any) -> str:
    """A setting for people."""
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)
