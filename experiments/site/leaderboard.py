"""The leaderboard of rules: `python -m experiments.leaderboard`.

Each folder `results/reach/NAME` with a bench `configs/reach/NAME.toml` has its methods
in the table, one row for each task: the longest T that it solves, and what it needs
there. So a new rule gets its rows by a config, a run of `experiments.reach`, and this
command.

A method is compared with BPTT and with the readout alone of the same bench, in pairs of
a seed, over all tasks and T that both have tried, by the updates until it is solved; a
seed that is not solved counts as the most updates that there were. p is of a two-sided
Wilcoxon signed-rank test, corrected for all tests of the table by Holm's method.

Writes below results/ `leaderboard.md`, `comparisons.md`, and `leaderboard.csv` with
every seed.
"""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import rich.console
from absl import flags

from experiments.site import tables
from lra_jax import rule_card
from lra_jax.lab.benches import reach
from lra_jax.lab.benches.published import TITLES
from lra_jax.lab.config import ConfigError
from lra_jax.lab.reports import markdown, results
from lra_jax.lab.reports.results import Row
from lra_jax.lab.runs import store
from lra_jax.lab.terminal import command_line, files
from lra_jax.rules.card import RuleCard

_ROOT = flags.DEFINE_string(
    "root", ".", "Folder that has configs/ and results/.", allow_override=True
)


CONTROLS = ("bptt", "readout_only")
# Columns of a bench's table that are read here, the numbers and the others.
_NUMBERS = ("seq_len", "solved", "seeds", "max_steps", "longest")
_NEEDED = ("name", "task", "method", "setting", "updates_by_seed", *_NUMBERS)


class Entry(NamedTuple):
    """A method of a bench on a task, at one T.

    Attributes:
      bench: its name.
      method: its label.
      rule: a name of `lra_jax.RULES`.
      network: a name of `lra_jax.networks.NETWORKS`, or "2 layers of tanh".
      card: of the rule with its options.
      row: of the bench's table.
      updates: of each seed until it is solved; None where it is not.
      seeds: these seeds.
    """

    bench: str
    method: str
    rule: str
    network: str
    card: RuleCard
    row: Row
    updates: tuple[int | None, ...]
    seeds: tuple[int, ...]

    @property
    def place(self) -> tuple[str, int]:
        """Task and T."""
        return self.row["task"], self.row["seq_len"]

    @property
    def censored(self) -> np.ndarray:
        """Updates of all seeds, the most where one is not solved."""
        most = self.row["max_steps"]
        return np.array([most if n is None else n for n in self.updates], float)


def entries(root: pathlib.Path) -> list[Entry]:
    """All that the benches of a folder have measured.

    Raises:
      ConfigError: a bench's config cannot be read.
      store.RunFolderError: a bench's table cannot be read, or there are none.
    """
    found = []
    folder = root / "results/reach"
    for table in sorted(folder.glob("*/reach.csv")):
        name = table.parent.name
        bench = reach.load(str(root / "configs/reach" / f"{name}.toml"))
        rows = tables.read(table, _NEEDED, _NUMBERS)
        for method, said in bench.methods.items():
            config = bench.tuning(method, bench.tasks[0], bench.seq_len[0])
            setting = next(iter(config.members()))
            network = tables.network_of(setting)
            card = rule_card(setting["rule"]).of(setting)
            for row in rows:
                if row["method"] != said["label"]:
                    continue
                try:
                    updates = reach.updates_of(row, bench)
                except ValueError as error:
                    raise ConfigError(name, [f"{table}: {error}"]) from error
                found.append(
                    Entry(
                        name,
                        said["label"],
                        setting["rule"],
                        network,
                        card,
                        row,
                        updates,
                        tuple(bench.seeds),
                    )
                )
    if not found:
        raise store.RunFolderError(
            f"{folder}: expected NAME/reach.csv with methods of a bench "
            f"{root / 'configs/reach/NAME.toml'}, found none"
        )
    return found


def wilcoxon(a: np.ndarray, b: np.ndarray) -> float | None:
    """p of a two-sided signed-rank test of pairs; None where all are equal."""
    from scipy import stats

    difference = (a - b)[a != b]
    if not len(difference):
        return None
    # Exact with ties as well, which not all versions of `stats.wilcoxon` are: twice a
    # rank is an integer, so how likely each sum of signed ranks is can be counted.
    ranks = np.rint(2 * stats.rankdata(np.abs(difference))).astype(int)
    seen = abs(int(np.sum(np.sign(difference) * ranks)))
    chances = np.zeros(2 * ranks.sum() + 1)  # of the sums from -ranks.sum() on
    chances[ranks.sum()] = 1
    for rank in ranks:
        chances = (np.roll(chances, rank) + np.roll(chances, -rank)) / 2
    sums = np.abs(np.arange(len(chances)) - ranks.sum())
    return float(chances[sums >= seen].sum())


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p of many tests, corrected by Holm's method."""
    known = sorted((p, i) for i, p in enumerate(values) if p is not None)
    found: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        found[i] = largest
    return found


def best(found: Sequence[Entry]) -> list[Entry]:
    """Of each method and task, the longest T that is solved, or the shortest tried."""
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in found:
        key = (entry.bench, entry.method, entry.row["task"])
        groups.setdefault(key, []).append(entry)
    chosen = []
    for mine in groups.values():
        mine.sort(key=lambda entry: entry.row["seq_len"])
        longest = mine[0].row["longest"]
        at = [entry for entry in mine if entry.row["seq_len"] == longest]
        chosen.append(at[0] if at else mine[0])
    return chosen


def _costs(root: pathlib.Path, bench: str) -> dict[str, tuple[str, str]]:
    """Label to kB a step and ms an update, as a bench has measured them, if it has."""
    path = root / "results/reach" / bench / "costs.csv"
    if not path.is_file():
        return {}
    numbers = ("kb_per_step", "ms_per_update")
    return {
        row["method"]: (f"{row['kb_per_step']:,.0f}", f"{row['ms_per_update']:,.1f}")
        for row in tables.read(path, ("method", *numbers), numbers)
    }


def table(root: pathlib.Path, found: Sequence[Entry]) -> str:
    """The leaderboard: for each task, by the longest T and then by updates.

    "≥" marks a T after which no longer one was tried.
    """
    chosen = best(found)
    tried: dict[tuple[str, str, str], int] = {}
    for entry in found:
        group = (entry.bench, entry.method, entry.row["task"])
        tried[group] = max(entry.row["seq_len"], tried.get(group, 0))
    lines: dict[str, list[tuple[Any, list[str]]]] = {}
    for entry in chosen:
        row = entry.row
        kilobytes, milliseconds = _costs(root, entry.bench).get(entry.method, ("", ""))
        reached = row["longest"] or 0
        solved = [n for n in entry.updates if n is not None]
        median = statistics.median(solved) if solved else None
        shown = f"{reached:,}" if reached else f"not {row['seq_len']:,}"
        if reached == tried[entry.bench, entry.method, row["task"]]:
            shown = f"≥ {shown}"
        line = [
            entry.method, entry.network, shown, f"{row['solved']}/{row['seeds']}",
            "" if median is None else f"{median:,.0f}", milliseconds, kilobytes,
            entry.card.errors_arrive, entry.card.transported, entry.card.stores,
            f"[{entry.bench}](../configs/reach/{entry.bench}.toml)",
        ]  # fmt: skip
        key = (-reached, -row["solved"], median or float("inf"), entry.method)
        lines.setdefault(row["task"], []).append((key, line))
    header = [
        "method", "network", "longest T", "seeds", "updates", "ms an update",
        "kB a step", "errors arrive", "transported", "stored", "bench",
    ]  # fmt: skip
    parts = []
    for task, rows in lines.items():
        rows.sort(key=lambda pair: pair[0])
        text = markdown.table(header, [line for _, line in rows])
        parts.append(f"**{TITLES.get(task, task)}**\n\n{text}")
    return "\n".join(parts)


class Comparison(NamedTuple):
    """A method beside a control of its bench, over all that both have tried.

    Attributes:
      method: the one.
      control: the other.
      sooner: pairs of a seed in which the method is solved sooner.
      later: pairs in which the control is.
      p: of a signed-rank test, before any correction; None where all are equal.
    """

    method: Entry
    control: Entry
    sooner: int
    later: int
    p: float | None


def comparisons(found: Sequence[Entry]) -> list[Comparison]:
    """Every method with BPTT and with the readout alone of its bench."""
    methods: dict[tuple[str, str], list[Entry]] = {}
    for entry in found:
        methods.setdefault((entry.bench, entry.method), []).append(entry)
    made = []
    for (bench, method), mine in methods.items():
        if mine[0].rule in CONTROLS and mine[0].card == rule_card(mine[0].rule):
            continue
        for (where, name), others in methods.items():
            rule = others[0].rule
            is_control = rule in CONTROLS and where == bench and name != method
            is_control &= others[0].card == rule_card(rule)  # with nothing changed
            if not is_control or mine[0].network != others[0].network:
                continue
            theirs = {entry.place: entry for entry in others}
            pairs = [
                (entry.censored, theirs[entry.place].censored)
                for entry in mine
                if entry.place in theirs
            ]
            if not pairs:
                continue
            a, b = (np.concatenate(column) for column in zip(*pairs, strict=True))
            made.append(
                Comparison(
                    mine[0],
                    others[0],
                    int((a < b).sum()),
                    int((a > b).sum()),
                    wilcoxon(a, b),
                )
            )
    return made


def comparison_table(made: Sequence[Comparison]) -> str:
    """The comparisons, with p corrected for all of them."""
    corrected = holm([each.p for each in made])
    body = [
        [
            each.method.method, each.control.method, str(each.sooner), str(each.later),
            "" if p is None else f"{p:.1g}", each.method.bench,
        ]
        for each, p in zip(made, corrected, strict=True)
    ]  # fmt: skip
    header = ["method", "beside", "pairs sooner", "pairs later", "p", "bench"]
    return markdown.table(header, body)


def seeds(found: Sequence[Entry]) -> list[Row]:
    """Every seed of every method, task and T."""
    return [
        {
            "bench": entry.bench,
            "method": entry.method,
            "rule": entry.rule,
            "network": entry.network,
            "task": entry.row["task"],
            "seq_len": entry.row["seq_len"],
            "seed": seed,
            "updates": updates,
            "max_steps": entry.row["max_steps"],
            "setting": entry.row["setting"],
        }
        for entry in found
        for seed, updates in zip(entry.seeds, entry.updates, strict=True)
    ]


def _run(console: rich.console.Console) -> int:
    """Writes the three files."""
    del console
    root = pathlib.Path(_ROOT.value)
    found = entries(root)
    text = table(root, found)
    compared = comparison_table(comparisons(found))
    results.write_rows(root / "results/leaderboard.csv", seeds(found))
    files.write_text(root / "results/leaderboard.md", text)
    files.write_text(root / "results/comparisons.md", compared)
    print(text, end="")
    return 0


parse = command_line.parser(__name__)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    errors = (ConfigError, store.RunFolderError, OSError)
    return command_line.exit_code(_run, errors, command_line.program(__name__))
