"""How long a solved task stays solved: `python -m experiments.stability --config FILE`.

FILE is a bench of configs/reach whose results are there, with one setting for each
method. The seeds that it solved are trained again, and go on for 1,000 updates after
their first evaluation without an error. What comes of it is the fraction of the
evaluations in these updates that have no error either; one that is missing, because the
member diverged, counts as an error.

Tables go beside those of the bench, `results/reach/NAME/stability.csv` and `.md`. Exit
codes are those of `grid`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from lra_jax.lab.benches import bench as bench_lib
from lra_jax.lab.benches import reach
from lra_jax.lab.benches.published import TITLES
from lra_jax.lab.benches.reach import Bench
from lra_jax.lab.config import Config, ConfigError
from lra_jax.lab.reports import markdown, results
from lra_jax.lab.reports.results import Row
from lra_jax.lab.runs import store
from lra_jax.lab.runs.runner import Evaluations, Runner
from lra_jax.lab.terminal import command_line, files, screen

STEPS_AFTER_SOLVED = 1_000


def config_of(bench: Bench, method: str, row: Row) -> Config:
    """The run of the seeds that a row of `reach.csv` has as solved."""
    solved = [
        seed
        for seed, updates in zip(bench.seeds, reach.updates_of(row, bench), strict=True)
        if updates is not None
    ]
    grid = bench.methods[method]["grid"]
    config = bench.config(method, row["task"], row["seq_len"], grid, solved)
    return dataclasses.replace(config, steps_after_solved=STEPS_AFTER_SOLVED)


def fraction(evaluations: Evaluations, config: Config) -> float | None:
    """The evaluations after the first without errors that have none; None: none has."""
    solved = np.flatnonzero((evaluations.num_errors == 0) & (evaluations.step > 0))
    if not solved.size:
        return None
    after = evaluations.num_errors[solved[0] + 1 :]
    wanted = -(-config.steps_after_solved // config.eval_every)
    return float((after[:wanted] == 0).sum() / wanted)


def rows_of(runner: Runner, bench: Bench, table: list[Row]) -> Iterator[Row]:
    """A row for each method, task and T of which a seed was solved; short T first."""
    methods = {named["label"]: method for method, named in bench.methods.items()}
    for row in sorted(table, key=lambda row: row["seq_len"]):  # the short ones first
        if not row["solved"]:
            continue
        config = config_of(bench, methods[row["method"]], row)
        found = [fraction(e, config) for e in runner.evaluations(config)]
        counted = [x for x in found if x is not None]
        yield {
            "name": row["name"],
            "task": row["task"],
            "method": row["method"],
            "seq_len": row["seq_len"],
            "seeds": len(found),
            "solved": len(counted),
            "eval_every": config.eval_every,
            "fraction": float(np.mean(counted)) if counted else None,
            "fraction_by_seed": " ".join(
                "–" if x is None else f"{x:.2f}" for x in found
            ),
        }


def page(bench: Bench, rows: list[Row]) -> str:
    """The table of all methods, for each task and T."""
    cells = {(row["method"], row["task"], row["seq_len"]): row for row in rows}
    places = [
        (task, seq_len)
        for task in bench.tasks
        for seq_len in bench.seq_len
        if any((row["task"], row["seq_len"]) == (task, seq_len) for row in rows)
    ]
    header = ["method", *(f"{TITLES.get(task, task)}, T = {t}" for task, t in places)]
    body = []
    for named in bench.methods.values():
        found = [cells.get((named["label"], *place)) for place in places]
        if any(found):
            body.append([named["label"], *map(_cell, found)])
    note = (
        f"The mean over the solved seeds of the fraction of evaluations, in the "
        f"{STEPS_AFTER_SOLVED:,} updates after the first one without an error, that "
        f"have no error of {bench.num_validation:,} either; an evaluation every "
        f"{bench.eval_every:,} updates. In brackets the least of the seeds."
    )
    return markdown.table(header, body) + "\n" + markdown.notes([note])


def _cell(row: Row | None) -> str:
    if row is None or row["fraction"] is None:
        return ""
    least = min(float(text) for text in row["fraction_by_seed"].split() if text != "–")
    return f"{row['fraction']:.0%} ({least:.0%})"


def load(path: str) -> Bench:
    """Reads and checks a bench.

    Raises:
      ConfigError: it is wrong, or has several settings of a method.
    """
    bench = reach.load(path)
    if bench.num_trials != 1:
        text = "num_trials: expected 1; which setting a method chose is not known here"
        raise ConfigError(path, [text])
    return bench


def _is_of(bench: Bench, row: Row) -> bool:
    """Whether a row is one that the bench, as it is, has made."""
    needed = {"name", "method", "task", "seq_len", "solved", "updates_by_seed"}
    labels = {named["label"] for named in bench.methods.values()}
    if not needed <= {*row} or row["method"] not in labels:
        return False
    try:
        reach.updates_of(row, bench)
    except ValueError:
        return False
    return True


def _work(runner: Runner, bench: Bench, folder: pathlib.Path) -> None:
    """Trains what is not trained yet, and writes the tables after each row."""
    folder = folder.parent / "reach" / bench.name
    source = folder / "reach.csv"
    if not source.is_file():
        command = " ".join(command_line.started_as("reach"))
        text = f"{source} is missing: {command} makes it"
        raise ConfigError(bench.name, [text])
    table = store.read_rows(source)
    if not all(_is_of(bench, row) for row in table):
        command = " ".join(command_line.started_as("reach"))
        text = (
            f"{source} has other methods, or another number of seeds, than {bench.name}"
        )
        text += f"; run {command} again"
        raise ConfigError(bench.name, [text])
    rows: list[Row] = []
    for row in rows_of(runner, bench, table):
        rows.append(row)
        results.write_rows(folder / "stability.csv", rows)
        results.write_by_name(folder / "stability.json", rows)
        files.write_text(folder / "stability.md", page(bench, rows))
    screen.say(runner.console, page(bench, rows))


parse, main = bench_lib.program(__name__, "configs/reach/one_setting.toml", load, _work)
