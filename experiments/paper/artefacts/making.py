"""What an artefact is made with, what is made, and its files."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.paper import budgets
from experiments.paper.budgets import PaperBudget
from experiments.paper.recordings import PaperRunner
from lra_jax.lab.reports import markdown, results
from lra_jax.lab.reports.results import Row
from lra_jax.lab.terminal import files

Rows = Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Request:
    """What an artefact is made with.

    Attributes:
      budget: how much is trained.
      seeds: of each setting.
      runner: trains what is missing.
    """

    budget: PaperBudget
    seeds: Sequence[int]
    runner: PaperRunner


@dataclasses.dataclass(frozen=True)
class Artefact:
    """A table or a figure in numbers, before it is written.

    Attributes:
      table: Markdown.
      notes: what a reader has to know, below the table.
      rows: by suffix of the file name, "" for the artefact's own; CSV, and JSON by
        name, from which pages take numbers.
      searched: by label, the grid of each row of the table.
      summary: Markdown for a page of its own.
      recording: rows for the artefact's own CSV alone, in place of `rows[""]`.
    """

    table: str
    notes: Sequence[str]
    rows: Mapping[str, Rows]
    searched: Mapping[str, str] = dataclasses.field(default_factory=dict)
    summary: str | None = None
    recording: Sequence[Row] | None = None


def write_artefact(
    name: str, artefact: Artefact, request: Request, folder: pathlib.Path
) -> str:
    """Writes the files of an artefact.

    Args:
      name: of the artefact, and of its files.
      artefact: what is written.
      request: what it was made with.
      folder: of the results of this budget.

    Returns:
      The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = artefact.table + _notes(artefact, request)
    if artefact.recording is not None:
        results.write_rows(folder / f"{name}.csv", artefact.recording)
    for suffix, rows in artefact.rows.items():
        path = folder / f"{name}{suffix}.csv"
        results.write_rows(path, rows)
        results.write_by_name(path.with_suffix(".json"), rows)
    if artefact.summary is not None:
        path = folder / f"{name}_summary.md"
        files.write_text(path, artefact.summary)
    files.write_text(folder / f"{name}.md", page)
    _write_runs(name, request.runner, folder)
    return page


def _notes(artefact: Artefact, request: Request) -> str:
    """What is below every table."""
    budget = f"Budget `{request.budget.name}`, {len(request.seeds)} seeds."
    if request.budget.part:
        budget += f" A part of the table: {request.budget.part}."
    if request.budget.name != budgets.FULL.name:
        budget += (
            " The paper has 100,000 updates, α of 0.1, 0.01, 0.001 and γ of 10, 1, "
            "0.1, 0.01, 0.001: what is lower here might still rise."
        )
    grids = [f"{label}: {grid}." for label, grid in artefact.searched.items()]
    return "\n" + markdown.notes([budget, *artefact.notes, *grids])


def _write_runs(name: str, runner: PaperRunner, folder: pathlib.Path) -> None:
    """Writes the configs, what the runs were made with, and what each seed reached."""
    (folder / "configs").mkdir(exist_ok=True)
    for run, path in runner.used.items():
        # Of Table V the first length is enough: others differ in T and seeds alone.
        if not run.startswith("reach.") or run.endswith(".T10"):
            config = (path / "config.resolved.toml").read_bytes()
            files.write(folder / "configs" / f"{run}.toml", config)
    blank = {"members": None, "updates": None, "seconds": None}
    made_with = runner.made_with() + [row | blank for row in runner.recorded]
    if made_with:
        results.write_rows(folder / f"{name}_runs.csv", made_with)
    if runner.used:
        results.write_rows(folder / f"{name}_seeds.csv", runner.seeds())
