"""Configs of the reproduction's runs, and settings of its recordings."""

from __future__ import annotations

from collections.abc import Sequence
from keyword import iskeyword
from typing import Any

from experiments.paper.budgets import PaperBudget
from experiments.paper.rows import (
    LAMBDA,
    REACH_ROWS,
    ROWS,
    Axes,
    SearchedRule,
    axis_values,
)
from lra_jax.lab import config as config_lib
from lra_jax.lab.benches.published import ORDER, TASKS
from lra_jax.lab.config import Config
from lra_jax.lab.flow.recording import Setting


def _resolve(
    name: str,
    row: SearchedRule,
    task: str,
    budget: PaperBudget,
    axes: Axes,
    **settings: Any,
) -> Config:
    common = {
        "name": name,
        "task": task,
        "rule": row.rule,
        "hidden_size": budget.hidden_size,
        "num_validation": budget.num_validation,
        "validation_stages": [],
        **settings,
        **row.settings(budget),
    }
    return config_lib.resolve({**common, "grid": axes}, name)


def table_config(
    name: str, task: str, budget: PaperBudget, seeds: Sequence[int]
) -> Config:
    """The run of a row of Tables I to III on a task, at all lengths and K.

    The paper shows whether any member of the grid solves a cell: the first that does
    ends the others of its seed.
    """
    row = ROWS[name]
    return _resolve(
        f"{name}.{task}",
        row,
        task,
        budget,
        row.axes(budget) | {"seq_len": [*budget.tables.seq_len]},
        seeds=[*seeds],
        max_steps=budget.tables.max_steps,
        race=True,
    )


def first_setting(name: str, budget: PaperBudget) -> Setting:
    """A row of Tables I to III with the first value of each of its axes."""
    row = ROWS[name]
    values = {key: axis[0] for key, axis in row.axes(budget).items()}
    lr = values.pop("lr")
    options = {key + "_" * iskeyword(key): value for key, value in values.items()}
    return Setting(name, row.rule, options, lr)


def table4_config(budget: PaperBudget, seeds: Sequence[int]) -> Config:
    """The search over c0 and c1 of Table IV, on temporal order."""
    table4 = budget.table4
    axes = axis_values(table4.grid) | {
        "c0": [*table4.bounds],
        "c1": [*table4.bounds],
        "seq_len": [table4.seq_len],
    }
    return _resolve(
        "table4",
        ROWS["lra_diff"],
        ORDER,
        budget,
        axes,
        seeds=[*seeds],
        max_steps=table4.max_steps,
    )


def curve_config(
    task: str, seq_len: int, budget: PaperBudget, seeds: Sequence[int]
) -> Config:
    """The setting in which the authors' code was run for its training curves."""
    row = ROWS["lra_released"]
    axes: Axes = {"lr": [0.1], "gamma": [1], "num_refinements": [10], "c": [1]}
    return _resolve(
        f"released.{task}.T{seq_len}",
        row,
        task,
        budget,
        axes | {"seq_len": [seq_len]},
        seeds=[*seeds],
        max_steps=budget.curve_steps,
        patience=0,
    )


def figure5_config(
    rule: str, task: str, budget: PaperBudget, seeds: Sequence[int]
) -> Config:
    """The search over λ of Figure 5 on a task: `gridsearch.py`'s K, c and loss."""
    row = REACH_ROWS[f"{rule}_regularised"]
    axes = row.axes(budget) | axis_values(budget.figure5.grid)
    axes |= {
        "lambda": [0, *budget.figure5.lambda_],
        "seq_len": [budget.figure5.seq_len[TASKS.index(task)]],
    }
    return _resolve(
        f"figure5.{rule}.{task}",
        row,
        task,
        budget,
        axes,
        seeds=[*seeds],
        max_steps=budget.figure5.max_steps,
    )


def reach_lengths(name: str, budget: PaperBudget) -> tuple[int, ...]:
    """The lengths of Table V that a method may be tried on."""
    is_released = REACH_ROWS[name].rule == "lra_released"
    lengths = budget.reach.seq_len
    longest = budget.reach.released_seq_len if is_released else max(lengths)
    return tuple(t for t in lengths if t <= longest)


def reach_config(
    name: str, task: str, seq_len: int, budget: PaperBudget, seeds: Sequence[int]
) -> Config:
    """One length of Table V for the seeds that have solved all shorter ones."""
    row = REACH_ROWS[name]
    return _resolve(
        f"reach.{name}.{task}.T{seq_len}",
        row,
        task,
        budget,
        row.axes(budget) | {"seq_len": [seq_len]},
        seeds=[*seeds],
        max_steps=budget.reach.max_steps,
        eval_every=budget.reach.eval_every,
        race=True,
    )


def flow_settings(figure: str, budget: PaperBudget) -> list[Setting]:
    """What Figures 2 to 4 train, and "decay" looks at untrained.

    The paper prints no hyper-parameters for its figures: α, γ, K, c, loss and λ are
    those of the released script's main; then what works.
    """
    k = budget.flow.num_refinements
    script = {"gamma": 10.0, "num_refinements": k, "local_loss": "log_penalty"}
    bounded = {**script, "c0": 1.0, "c1": 1.0}
    printed = {**bounded, "refinement": "overwrite"}
    large = {**bounded, "gamma": 50.0, "num_refinements": 1}
    released = {**script, "c": 1.0}
    omega = {"lambda_": LAMBDA}
    forced = {**bounded, "normalization": "force"}
    if figure == "decay":
        return _decay_settings(k)
    return {
        "figure2": [
            Setting("lra_diff", "lra_diff", bounded),
            Setting("lra_diff, γ = 50, K = 1", "lra_diff", large),
            Setting("overwrite, as printed", "lra_diff", printed),
            Setting("lra_released", "lra_released", released),
            Setting("BPTT", "bptt"),
            Setting("readout only", "readout_only"),
        ],
        "figure3": [
            Setting("forced, c0 = 1", "lra_diff", forced),
            Setting("forced, c0 = 0", "lra_diff", {**forced, "c0": 0.0}),
        ],
        "figure4": [
            Setting("lra_diff, λ", "lra_diff", {**bounded, **omega}),
            Setting("lra_diff, γ = 50, K = 1, λ", "lra_diff", {**large, **omega}),
            Setting("overwrite, λ", "lra_diff", {**printed, **omega}),
            Setting("lra_released, λ", "lra_released", {**released, **omega}),
        ],
    }[figure]


def _decay_settings(k: int) -> list[Setting]:
    """From the released behaviour to a target that reaches back, change by change.

    Without bounds. γ = 10 of the released code is 0.5 where L is a mean over units
    alone, and 0.005 where it is a sum: what the mean over the batch does is in γ.
    """

    def lra(
        gamma: float, num_refinements: int, refinement: str, reduction: str = "mean"
    ) -> dict[str, Any]:
        return {
            "gamma": gamma,
            "num_refinements": num_refinements,
            "refinement": refinement,
            "reduction": reduction,
        }

    released = {"num_refinements": k}
    settings = {
        "released, γ = 10": {"gamma": 10.0, **released},
        "released, γ = 200": {"gamma": 200.0, **released},
        "released, γ = 1000, K = 1": {"gamma": 1000.0, "num_refinements": 1},
    }
    readings = {
        f"constant target and history, overwrite, γ = 0.5, K = {k}": lra(
            0.5, k, "overwrite"
        ),
        f"the same, fixed, γ = 0.5, K = {k}": lra(0.5, k, "fixed"),
        f"overwrite, γ = 10, K = {k}": lra(10.0, k, "overwrite"),
        f"overwrite, γ = 10, K = {3 * k}": lra(10.0, 3 * k, "overwrite"),
        f"fixed, γ = 10, K = {k}": lra(10.0, k, "fixed"),
        f"fixed, γ = 10, K = {3 * k}": lra(10.0, 3 * k, "fixed"),
        "γ = 1, K = 1": lra(1.0, 1, "fixed"),
        "γ = 10, K = 1": lra(10.0, 1, "fixed"),
        "γ = 50, K = 1": lra(50.0, 1, "fixed"),
        "sum, γ = 0.5, K = 1": lra(0.5, 1, "fixed", "sum"),
        f"sum, γ = 0.5, K = {k}": lra(0.5, k, "fixed", "sum"),
    }
    return [
        *(Setting(name, "lra_released", given) for name, given in settings.items()),
        *(Setting(name, "lra_diff", given) for name, given in readings.items()),
    ]
