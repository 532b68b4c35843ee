"""Runs the paper's protocol and compares: `python -m experiments.reproduce table1`.

Artefacts are the paper's Tables I to V and Figures 2 to 5, or `all`. Runs go into
`runs/reproduce/BUDGET/`, are shared between artefacts, and are resumed where they
stand. What comes of them goes into `results/BUDGET/`. Exit codes are those of
`experiments.grid`.
"""

from __future__ import annotations

import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence

import rich.console
from absl import app, flags

from experiments import command_line, machine, protocol, results, run, store
from experiments.config import Config
from experiments.protocol import Budget

ARTEFACTS = (
    "table5",
    "figure2",
    "figure3",
    "figure4",
    "figure5",
    "table1",
    "table2",
    "table3",
    "table4",
)

_BUDGET = flags.DEFINE_enum(
    "budget", "standard", [*protocol.BUDGETS], "How much is trained."
)
_SEEDS = flags.DEFINE_integer("seeds", 5, "Seeds of each setting.", lower_bound=1)
_RUNS = flags.DEFINE_string("runs", "runs/reproduce", "Where run folders go.")
_OUT = flags.DEFINE_string("out", "results", "Where tables and figures go.")


class Interrupted(Exception):
    """A signal stopped a run; all that was computed is saved.

    Args:
      number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Runner:
    """Trains configs, each in a run folder of its own, and knows what came of them.

    Args:
      console: where to say what happens.
      folder: of the run folders.
      interruption: stops a run after a chunk.
    """

    def __init__(
        self,
        console: rich.console.Console,
        folder: pathlib.Path,
        interruption: run.Interruption,
    ):
        self._console = console
        self._folder = folder
        self._interruption = interruption

    def rows(self, config: Config) -> list[results.Row]:
        """The rows of a run's results, trained now where they are not there yet."""
        path = self._folder / config.name
        if not results.is_finished(path, config):
            toml = path / "config.resolved.toml"
            number = run.train(
                self._console,
                config,
                path,
                resume=True,
                command=["python", "-m", "experiments.grid", "--config", str(toml)],
                interruption=self._interruption,
                with_report=False,
            )
            if number:
                raise Interrupted(number)
        return results.read_rows(path / "results.csv")


def reach(
    runner: Runner, name: str, task: str, budget: Budget, seeds: Sequence[int]
) -> dict[int, list[results.Row]]:
    """Longer and longer sequences, until no member of the grid solves one.

    A seed goes on as long as some setting solves its length, from fresh weights.

    Returns:
      The rows of each length that was tried.
    """
    found: dict[int, list[results.Row]] = {}
    for seq_len in budget.reach_seq_len:
        config = protocol.reach_config(name, task, seq_len, budget, seeds)
        found[seq_len] = runner.rows(config)
        seeds = sorted({r["seed"] for r in found[seq_len] if r["status"] == "solved"})
        if not seeds:
            break
    return found
