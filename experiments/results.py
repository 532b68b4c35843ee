"""Reads and writes tables of results, and says what a cell of the paper's is."""

from __future__ import annotations

import csv
import json
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments import summary

Row = dict[str, Any]


def write_rows(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a CSV, numbers with six digits and None as nothing."""
    aside = path.with_name(f".{path.name}")
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
            )
    aside.replace(path)


def write_by_name(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as JSON, an object by "name", from which pages take numbers."""
    by_name = {
        row["name"]: {key: value for key, value in row.items() if key != "name"}
        for row in rows
    }
    text = json.dumps(by_name, indent=0, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_rows(path: pathlib.Path) -> list[Row]:
    """The rows of a CSV; numbers are numbers, and empty fields None."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {key: _value(text) for key, text in row.items()}
            for row in csv.DictReader(file)
        ]


def _value(text: str) -> Any:
    if text in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


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


def cell(rows: Sequence[Row]) -> Cell:
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
    mean, interval = summary.mean_interval(best)
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
