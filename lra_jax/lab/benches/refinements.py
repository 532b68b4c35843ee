"""Does a tuned γ replace K? `python -m experiments.refinements`.

The paper asks for it: more refinements of a target, or a larger step? Every pair of γ
and K may spend the same number of matrix products of `[B, H]` with `[H, H]`. An update
needs 2K + 1 of them for each step of T: the forward pass, the gradient of W_hh, u W_hhᵀ
in each refinement, and the new prediction from the second on. That is not the same
time: drawing data and all that is no product do not grow with K
(`results/benchmark.json` has K = 1 beside K = 10). Both readings of the refinement, the
best of some learning rates for each seed.

Runs go into `runs/refinements/BUDGET/` and go on where they stand; the table and the
figure go into `results/refinements/BUDGET/`, or where --out says.
"""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import sys
from collections.abc import Sequence

import jax
import rich.console
from absl import flags

from lra_jax.lab import config as config_lib
from lra_jax.lab.benches import pictures
from lra_jax.lab.benches.cells import cell_of
from lra_jax.lab.config import Config
from lra_jax.lab.reports import markdown, results
from lra_jax.lab.reports.results import Row
from lra_jax.lab.reports.summary import percent
from lra_jax.lab.runs import run, store
from lra_jax.lab.runs.runner import Runner, StoppedError
from lra_jax.lab.terminal import command_line, files, machine, screen
from lra_jax.targets import REFINEMENTS

TASK = "temporal_order"
NUM_EVALUATIONS = 30


@dataclasses.dataclass(frozen=True)
class Budget:
    """What is tried, and how long.

    Attributes:
      seq_len: T.
      updates: at K = 1; with more refinements there are fewer, for the same products.
      gamma, num_refinements, lr: γ, K, and α of which each seed has the best.
      num_seeds: of each.
      hidden_size: H.
      num_validation: samples of the validation set.
    """

    seq_len: int = 20
    updates: int = 3000
    gamma: tuple[float, ...] = (1, 3, 10, 30, 100, 300)
    num_refinements: tuple[int, ...] = (1, 2, 5, 10, 30)
    lr: tuple[float, ...] = (0.3, 0.1)
    num_seeds: int = 5
    hidden_size: int = 100
    num_validation: int = 10_000


BUDGETS = {
    "standard": Budget(),
    "smoke": Budget(
        seq_len=10, updates=300, gamma=(1, 30), num_refinements=(1, 5), lr=(0.3,),
        num_seeds=2, hidden_size=32, num_validation=500,
    ),
}  # fmt: skip

_BUDGET = flags.DEFINE_enum(  # experiments.reproduce has a flag of this name
    "budget", "standard", [*BUDGETS], "How much is trained.", allow_override=True
)
_ACCEPT_OLD_CODE = flags.DEFINE_boolean(
    "accept_old_code",
    False,
    "Use results that other code than today's has made.",
    allow_override=True,
)
_OUT = flags.DEFINE_string(
    "out", ".", "Folder in which runs/ and results/ are.", allow_override=True
)


def products(num_refinements: int) -> int:
    """Matrix products of an update for each step of T."""
    return 2 * num_refinements + 1


def config_of(refinement: str, num_refinements: int, budget: Budget) -> Config:
    """The run of a column of the table: all γ at one K."""
    updates = budget.updates * products(1) // products(num_refinements)
    every = max(1, updates // NUM_EVALUATIONS)
    name = f"{refinement}.K{num_refinements}"
    return config_lib.resolve(
        {
            "name": name,
            "task": TASK,
            "seq_len": budget.seq_len,
            "hidden_size": budget.hidden_size,
            "num_validation": budget.num_validation,
            "validation_stages": [],
            "max_steps": updates,
            "eval_every": every,
            "patience": 0,
            "seeds": [*range(budget.num_seeds)],
            "grid": {
                "rule": "lra_diff",
                "refinement": refinement,
                "num_refinements": num_refinements,
                "gamma": [*budget.gamma],
                "lr": [*budget.lr],
                "c0": 1,
                "c1": 1,
            },
        },
        name,
    )


def cells(refinement: str, found: Sequence[Row], num_refinements: int) -> list[Row]:
    """A row for each γ of a run."""
    rows = []
    for gamma in dict.fromkeys(row["gamma"] for row in found):
        mine = [row for row in found if row["gamma"] == gamma]
        cell = cell_of(mine)
        cost = None
        if cell.updates is not None:
            cost = cell.updates * products(num_refinements) / products(1)
        rows.append(
            {
                "name": f"{refinement} gamma{gamma:g} K{num_refinements}",
                "refinement": refinement,
                "gamma": gamma,
                "num_refinements": num_refinements,
                **cell.columns(),
                "diverged": statistics.fmean(r["status"] == "diverged" for r in mine),
                "updates_to_solve": cell.updates,
                "cost_to_solve": cost,
            }
        )
    return rows


def page(rows: Sequence[Row], budget: Budget) -> str:
    """γ × K for each refinement: what it takes to solve, or the accuracy."""
    by_place = {
        (row["refinement"], row["gamma"], row["num_refinements"]): row for row in rows
    }
    parts = []
    for refinement in REFINEMENTS:
        body = [
            [
                f"γ = {gamma:g}",
                *(
                    _cell(by_place.get((refinement, gamma, k)))
                    for k in budget.num_refinements
                ),
            ]
            for gamma in budget.gamma
        ]
        header = [f"{refinement}", *(f"K = {k}" for k in budget.num_refinements)]
        parts.append(markdown.table(header, body))
    lines = (
        f"Temporal order, T = {budget.seq_len}, {budget.num_seeds} seeds, the best of "
        f"α = {', '.join(f'{x:g}' for x in budget.lr)} for each; c0 = c1 = 1, MSE.",
        f"All have the matrix products, not the time, of {budget.updates:,} updates at "
        "K = 1: "
        + ", ".join(
            f"{config_of('fixed', k, budget).max_steps:,} updates at K = {k}"
            for k in budget.num_refinements
        )
        + ".",
        "A cell has the seeds solved and the mean products of it, in updates at K = 1, "
        "or the mean best accuracy in %. K = 1 has no second refinement to differ in.",
    )
    return "\n".join(parts) + "\n" + markdown.notes(lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return "as above"
    if not row["solved"]:
        return percent(row["accuracy"])
    return f"{row['solved']}/{row['seeds']} at {row['cost_to_solve']:,.0f}"


def _run(console: rich.console.Console) -> int:
    machine.prepare()
    jax.config.update("jax_enable_x64", False)
    budget = BUDGETS[_BUDGET.value]
    interruption = run.Interruption(
        console, [*command_line.started_as(__name__), *sys.argv[1:]]
    )
    out = pathlib.Path(_OUT.value)
    runs = out / "runs" / "refinements" / _BUDGET.value
    accept = _ACCEPT_OLD_CODE.value
    runner = Runner(console, runs, interruption, accept_old_code=accept)
    rows: list[Row] = []
    try:
        for refinement in REFINEMENTS:
            for k in budget.num_refinements:
                if k > 1 or refinement == REFINEMENTS[0]:
                    found = runner.rows(config_of(refinement, k, budget))
                    rows += cells(refinement, found, k)
        folder = out / "results" / "refinements" / _BUDGET.value
        folder.mkdir(parents=True, exist_ok=True)
        results.write_rows(folder / "refinements.csv", rows)
        results.write_rows(folder / "runs.csv", runner.made_with())
        text = page(rows, budget)
        files.write_text(folder / "refinements.md", text)
        screen.say(console, text)
        pictures.show(console, "refinements", folder)
    except StoppedError as stop:
        interruption.say("Interrupted; what was finished is saved. To go on:")
        return 128 + stop.number
    except OSError as error:
        raise run.unfinished(error, interruption.command) from None
    return 0


parse = command_line.parser(__name__)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    errors = (machine.MachineError, store.RunFolderError, OSError)
    return command_line.exit_code(_run, errors, command_line.program(__name__))
