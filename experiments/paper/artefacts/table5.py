"""Table V: the longest T that each method solves, and the same from warm starts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.paper import configs
from experiments.paper.artefacts.making import Artefact, Request
from experiments.paper.artefacts.texts import grid_text
from experiments.paper.budgets import PaperBudget
from experiments.paper.rows import REACH_ROWS, WARM_ROWS
from lra_jax.lab.benches import published
from lra_jax.lab.benches.cells import cell_of
from lra_jax.lab.benches.published import TITLES
from lra_jax.lab.reports import markdown
from lra_jax.lab.reports.results import Row
from lra_jax.lab.runs.runner import Runner


class SolvedLengths(NamedTuple):
    """The longest T that a method solves on a task.

    Attributes:
      name: of the method, in `REACH_ROWS`.
      label: for people.
      task: a name of `lra_jax.TASKS`.
      solved: by T, the seeds that some setting solved, of those that had solved all
        shorter ones.
      num_seeds: all seeds.
      num_settings: that were searched at each T.
      max_steps: most updates at each T.
      updates: by T, mean over these seeds of the fewest updates.
      printed: the paper's; None where T = 10 is not solved, or nothing is printed.
      is_printed: whether the paper has this method.
    """

    name: str
    label: str
    task: str
    solved: dict[int, tuple[int, ...]]
    num_seeds: int
    num_settings: int
    max_steps: int
    updates: dict[int, float | None]
    printed: int | None
    is_printed: bool

    @property
    def longest(self) -> list[int]:
        """For each seed the longest T solved; 0 is none."""
        return sorted(
            max((t for t, seeds in self.solved.items() if seed in seeds), default=0)
            for seed in range(self.num_seeds)
        )

    @property
    def is_open(self) -> bool:
        """Whether the longest T of the protocol was solved."""
        return bool(self.solved) and bool(self.solved[max(self.solved)])

    @property
    def verdict(self) -> str:
        """The paper's number against the range over seeds.

        Lengths between the last one solved and the next one tried are not known; it
        is "open" where nothing as long as the paper's number was tried and failed.
        Where the paper has none, it "agrees" if no seed has, and "partly" if some.
        """
        if not self.is_printed:
            return "–"
        least, most = self.longest[0], self.longest[-1]
        if not self.printed:
            return "agrees" if most == 0 else "partly" if least == 0 else "higher"
        if self.is_open and self.printed > most:
            return "open"
        failed = min((t for t in self.solved if t > most), default=math.inf)
        if least <= self.printed < failed:
            return "agrees"
        return "higher" if least > self.printed else "lower"


def methods_asked(budget: PaperBudget) -> list[tuple[str, str]]:
    """What Table V is made of: tasks, and names in `REACH_ROWS`."""
    return [
        (task, name)
        for task in budget.reach.tasks
        for name in REACH_ROWS
        if f"reach.{name}.{task}" not in budget.left_out
    ]


def make_table5(request: Request) -> Artefact:
    """Table V, with fresh weights at each T."""
    budget, seeds = request.budget, request.seeds
    results, searched = [], {}
    for task, name in methods_asked(budget):
        label = REACH_ROWS[name].label
        first = configs.reach_config(name, task, 10, budget, seeds)
        searched[label] = grid_text(first)
        by_length = search_lengths(request.runner, name, task, budget, seeds)
        max_steps = budget.reach.max_steps
        results.append(
            from_fresh_weights(name, label, task, by_length, len(seeds), max_steps)
        )
    lengths = ", ".join(f"{t:g}" for t in budget.reach.seq_len)
    return Artefact(
        table=reach_table(results, budget),
        notes=(
            "Fresh weights at each T. A seed goes on to the next T when some setting "
            "of the method has solved this one; cells are the seeds that solve T.",
            f"At most {budget.reach.max_steps:,} updates at each T, an evaluation "
            f"every {budget.reach.eval_every}; lengths tried: {lengths}.",
            "The paper's columns for TPTT and BPTT are those of the TPTT paper, with "
            "100,000 updates. A verdict compares the printed reach with the range over "
            "our seeds, up to the next length that was tried.",
            "TPTT trains with Nesterov momentum of 0.9, as in its authors' code; all "
            "others with plain gradient descent, as the paper says. Axes that are not "
            "the paper's were chosen after first looks at T ≤ 30.",
            "Of the released behaviour nothing longer than "
            f"T = {budget.reach.released_seq_len} is tried: its cost grows as T².",
        ),
        rows={"": reach_rows(results)},
        searched=searched,
        summary=reach_summary(results),
    )


def make_warm(request: Request) -> Artefact:
    """Table V with weights kept from one T to the next."""
    budget, seeds = request.budget, request.seeds
    results, searched = [], {}
    for task in budget.reach.tasks:
        for name in WARM_ROWS:
            if f"warm.{task}" in budget.left_out:
                continue
            members = request.runner.warm_lengths(name, task, budget, seeds)
            label = f"{REACH_ROWS[name].label}, warm start"
            first = configs.reach_config(name, task, 10, budget, seeds)
            searched[label] = grid_text(first)
            results.append(
                from_warm_starts(
                    name, label, task, members, len(seeds), budget.reach.max_steps
                )
            )
    return Artefact(
        table=reach_table(results, budget),
        notes=(
            "**Warm start**: a member that has solved T goes on to the next T with its "
            "weights, and has the same number of updates again. Not the paper's "
            "protocol, and not comparable with Table V.",
            f"At most {budget.reach.max_steps:,} updates at each T.",
        ),
        rows={"": reach_rows(results)},
        searched=searched,
    )


def search_lengths(
    runner: Runner, name: str, task: str, budget: PaperBudget, seeds: Sequence[int]
) -> dict[int, list[Row]]:
    """Longer and longer sequences, until no member of the grid solves one.

    A seed goes on as long as some setting solves its length, from fresh weights.

    Returns:
      The rows of each length that was tried.
    """
    by_length: dict[int, list[Row]] = {}
    for seq_len in configs.reach_lengths(name, budget):
        config = configs.reach_config(name, task, seq_len, budget, seeds)
        by_length[seq_len] = runner.rows(config)
        seeds = sorted(
            {row["seed"] for row in by_length[seq_len] if row["status"] == "solved"}
        )
        if not seeds:
            break
    return by_length


# Readings of the same algorithm are compared with the same column of the paper.
_COLUMNS = {
    "printed": "lra_diff",
    "printed_regularised": "lra_diff_regularised",
    "lra_released": "lra_diff",
    "lra_released_regularised": "lra_diff_regularised",
}


def from_fresh_weights(
    name: str,
    label: str,
    task: str,
    by_length: Mapping[int, Sequence[Row]],
    num_seeds: int,
    max_steps: int,
) -> SolvedLengths:
    """What came of a method's runs, by T."""
    cells = {t: cell_of(rows) for t, rows in by_length.items()}
    printed = published.TABLE5[task]
    column = _COLUMNS.get(name, name)
    return SolvedLengths(
        name=name,
        label=label,
        task=task,
        solved={
            t: tuple(sorted({r["seed"] for r in rows if r["status"] == "solved"}))
            for t, rows in by_length.items()
        },
        num_seeds=num_seeds,
        num_settings=max(cell.num_settings for cell in cells.values()),
        max_steps=max_steps,
        updates={t: cell.updates for t, cell in cells.items()},
        printed=printed.get(column),
        is_printed=column in printed,
    )


def from_warm_starts(
    name: str,
    label: str,
    task: str,
    rows: Sequence[Row],
    num_seeds: int,
    max_steps: int,
) -> SolvedLengths:
    """What came of `curriculum.grow_lengths`, which the paper does not have."""
    lengths = list(dict.fromkeys(row["seq_len"] for row in rows))
    winners = {
        t: [row for row in rows if row["seq_len"] == t and row["solved"]]
        for t in lengths
    }
    return SolvedLengths(
        name=f"{name} warm",
        label=label,
        task=task,
        solved={t: tuple(sorted({r["seed"] for r in w})) for t, w in winners.items()},
        num_seeds=num_seeds,
        num_settings=1 + max(int(row["setting"]) for row in rows),  # a text in a CSV
        max_steps=max_steps,
        updates={
            t: statistics.fmean(row["updates"] for row in w) if w else None
            for t, w in winners.items()
        },
        printed=None,
        is_printed=False,
    )


def reach_table(results: Sequence[SolvedLengths], budget: PaperBudget) -> str:
    """Table V: methods × T, the seeds that solve it."""
    parts = []
    for task in dict.fromkeys(result.task for result in results):
        of_task = [result for result in results if result.task == task]
        tried = {t for result in of_task for t in result.solved}
        lengths = [t for t in budget.reach.seq_len if t in tried]
        header = ["method", "paper", "ours: median (range)", "verdict", "settings"]
        header += [f"T = {t}" for t in lengths]
        body = [
            [
                result.label,
                str(result.printed or "–") if result.is_printed else "",
                _range(result),
                result.verdict,
                str(result.num_settings),
                *(_solved(result, t) for t in lengths),
            ]
            for result in of_task
        ]
        parts.append(f"**{TITLES[task]}**\n\n{markdown.table(header, body)}")
    return "\n".join(parts)


def reach_summary(results: Sequence[SolvedLengths]) -> str:
    """Table V for people in a hurry: methods × tasks, paper → ours."""
    tasks = list(dict.fromkeys(result.task for result in results))
    by_name = {(result.name, result.task): result for result in results}
    labels = {result.name: result.label for result in results}
    body = []
    for name, label in labels.items():
        cells = []
        for task in tasks:
            result = by_name.get((name, task))
            if result is None:
                cells.append("not run")
                continue
            printed = f"{result.printed or '–'} → " if result.is_printed else ""
            cells.append(f"{printed}{_range(result)}")
        body.append([label, *cells])
    return markdown.table(["method", *(TITLES[task] for task in tasks)], body)


def _range(result: SolvedLengths) -> str:
    longest = result.longest

    def text(length: int) -> str:
        is_last = result.is_open and length == longest[-1]
        return "≥ " * is_last + (str(length) if length else "–")

    middle = statistics.median_low(longest)
    return f"{text(middle)} ({text(longest[0])} to {text(longest[-1])})"


def _solved(result: SolvedLengths, t: int) -> str:
    if t not in result.solved:
        return ""
    return f"{len(result.solved[t])}/{result.num_seeds}"


def reach_rows(results: Sequence[SolvedLengths]) -> list[dict[str, Any]]:
    """Table V for CSV: a row for each method, task and T."""
    return [
        {
            "name": f"{result.name} {result.task} T{t}",
            "task": result.task,
            "method": result.label,
            "published_reach": result.printed,
            "seq_len": t,
            "solved": len(seeds),
            "seeds": result.num_seeds,
            "settings": result.num_settings,
            "max_steps": result.max_steps,
            "updates_to_solve": result.updates[t],
            "least_reach": result.longest[0],
            "median_reach": statistics.median_low(result.longest),
            "most_reach": result.longest[-1],
            "verdict_on_reach": result.verdict,
        }
        for result in results
        for t, seeds in result.solved.items()
    ]
