"""What a grid reaches, the best of each seed; and how that compares with the paper."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from lra_jax.lab.reports.results import Row
from lra_jax.lab.reports.statistics import mean_interval


class Cell(NamedTuple):
    """What a grid reaches: the best of it for each seed, then over seeds.

    Attributes:
      accuracy: mean over seeds of the best validation accuracy of the grid.
      interval: half-width of its 95 % interval; None for a single seed.
      solved: seeds that some setting solved.
      num_seeds: all seeds.
      num_settings: that were searched.
      updates: mean over solved seeds of the fewest updates; None if none is. In a
        race, settings that had not begun might have needed fewer.
    """

    accuracy: float
    interval: float | None
    solved: int
    num_seeds: int
    num_settings: int
    updates: float | None

    def columns(self) -> Row:
        """What every table of cells has, as its CSV names it."""
        return {
            "accuracy": self.accuracy,
            "interval_95": self.interval,
            "solved": self.solved,
            "seeds": self.num_seeds,
        }


def cell_of(rows: Sequence[Row]) -> Cell:
    """The cell of all rows of a grid; the choice is made on the validation set."""
    by_seed: dict[int, list[Row]] = {}
    for row in rows:
        by_seed.setdefault(row["seed"], []).append(row)
    best = [
        max(row["best_accuracy"] for row in found if row["best_accuracy"] is not None)
        for found in by_seed.values()
    ]
    updates = [
        min(row["step"] for row in found if row["status"] == "solved")
        for found in by_seed.values()
        if any(row["status"] == "solved" for row in found)
    ]
    mean, interval = mean_interval(best)
    return Cell(
        accuracy=mean,
        interval=interval,
        solved=len(updates),
        num_seeds=len(by_seed),
        num_settings=len(rows) // len(by_seed),
        updates=statistics.fmean(updates) if updates else None,
    )


def verdict(published: float, cell: Cell) -> str:
    """How a cell compares with what is printed, where 1.0 is ✓.

    The paper has one seed: it "agrees" within the 95 % interval in which one more of
    our seeds would be, or a point, whichever is larger. ✓ agrees where all of our
    seeds are solved, and "partly" where some are.
    """
    if published == 1:
        return {0: "lower", cell.num_seeds: "agrees"}.get(cell.solved, "partly")
    if cell.solved == cell.num_seeds:
        return "higher"
    difference = cell.accuracy - published
    one_more = (cell.interval or 0) * math.sqrt(cell.num_seeds + 1)
    if abs(difference) <= max(one_more, 0.01):
        return "agrees"
    return "higher" if difference > 0 else "lower"
