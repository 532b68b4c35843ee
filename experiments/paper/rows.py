"""The rows of the paper's tables: rules, and the grids that are searched for each.

A *row* is a rule with a grid to search; a *run* is a row on one task, and gets a run
folder. Tables share runs: Table I, the right half of Table III and the MSE line of
Table II are one. γ is in the units of the rule: that of `lra_released` counts 1/B of
that of `lra_diff` where no bound is reached (docs/reproduction.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from experiments.paper.budgets import PaperBudget, SearchSpace

Axes = dict[str, list[Any]]

# λ where it is not searched over: the least of the paper's.
LAMBDA = 0.1


@dataclasses.dataclass(frozen=True)
class SearchedRule:
    """A rule of a table, and the grid that is searched for it.

    Attributes:
      label: for people.
      rule: its name in `RULES`.
      axes: of a budget, name to values.
      settings: of the config at its top level, beyond what a budget says.
    """

    label: str
    rule: str
    axes: Callable[[PaperBudget], Axes]
    settings: Callable[[PaperBudget], dict[str, Any]] = lambda budget: {}


def axis_values(grid: SearchSpace) -> Axes:
    """The axes of a grid, by name."""
    return {key: [*values] for key, values in dataclasses.asdict(grid).items()}


def _lra(grid: SearchSpace) -> Axes:
    """A grid of `lra_diff`, all norms bounded by 1."""
    return axis_values(grid) | {"c0": [1], "c1": [1]}


def _released(grid: SearchSpace) -> Axes:
    """A grid of `lra_released`, whose one bound is 1."""
    return axis_values(grid) | {"c": [1]}


def _first(axes: Axes, **more: list[Any]) -> Axes:
    """The axes with the first K only, and others over them."""
    return axes | {"num_refinements": axes["num_refinements"][:1]} | more


def _released_settings(budget: PaperBudget) -> dict[str, Any]:
    return {"validation": "released"}


# Algorithm 1 line by line: lines 24-25, and a loop that ends at t = 1.
_PRINTED: Axes = {"refinement": ["overwrite"], "update_first_step": [False]}

ROWS: dict[str, SearchedRule] = {
    "lra_diff": SearchedRule(
        "lra_diff, paper's grid", "lra_diff", lambda b: _lra(b.tables.paper)
    ),
    "printed": SearchedRule(
        "lra_diff as printed, paper's grid",
        "lra_diff",
        lambda b: _lra(b.tables.paper) | _PRINTED,
    ),
    "lra_diff_log": SearchedRule(
        "lra_diff, log-penalty",
        "lra_diff",
        lambda b: _lra(b.tables.variant) | {"local_loss": ["log_penalty"]},
    ),
    "lra_diff_unbounded": SearchedRule(
        "lra_diff, no normalisation",
        "lra_diff",
        lambda b: _lra(b.tables.variant) | {"c0": [0], "c1": [0]},
    ),
    "lra_diff_wide": SearchedRule(
        "lra_diff, larger γ, more α", "lra_diff", lambda b: _lra(b.tables.wide)
    ),
    "lra_released": SearchedRule(
        "lra_released, paper's grid",
        "lra_released",
        lambda b: _released(b.tables.released),
        _released_settings,
    ),
    "lra_released_log": SearchedRule(
        "lra_released, log-penalty",
        "lra_released",
        lambda b: _released(b.tables.released) | {"local_loss": ["log_penalty"]},
        _released_settings,
    ),
    "lra_released_unbounded": SearchedRule(
        "lra_released, no normalisation",
        "lra_released",
        lambda b: _released(b.tables.released) | {"c": [0]},
        _released_settings,
    ),
    "readout_only": SearchedRule(
        "readout only (control)",
        "readout_only",
        lambda b: {"lr": [*b.tables.paper.lr]},
        lambda b: {"max_steps": b.tables.control_steps},
    ),
    "omega_only": SearchedRule(
        "Ω-only updates (control)",
        "lra_diff",
        lambda b: _first(
            _lra(b.tables.paper),
            gamma=[b.tables.paper.gamma[0]],
            descend_local_loss=[False],
            **{"lambda": [LAMBDA]},
        ),
    ),
    "overwrite": SearchedRule(
        'refinement="overwrite" (as printed)',
        "lra_diff",
        lambda b: _first(_lra(b.tables.paper), refinement=["overwrite"]),
    ),
    "late_start": SearchedRule(
        "update_first_step=False (as printed)",
        "lra_diff",
        lambda b: _first(_lra(b.tables.paper), update_first_step=[False]),
    ),
    "bptt": SearchedRule(
        "BPTT", "bptt", lambda b: {"lr": [*b.tables.wide.lr], "max_norm": [0, 1]}
    ),
}


def _regularised(axes: Axes, budget: PaperBudget) -> Axes:
    """The axes with λ, and the log-penalty, as `gridsearch.py` has it."""
    return axes | {
        "local_loss": ["log_penalty"],
        "lambda": [*budget.reach.lambda_],
    }


# Four settings for each method of Table V at `standard`. At `full`, LRA has the paper's
# whole grids, and the other methods, of which it prints none, some of ours.
REACH_ROWS: dict[str, SearchedRule] = {
    "tptt": SearchedRule(
        "TPTT",
        "tptt",
        lambda b: {
            "optimizer": ["momentum"],
            "nesterov": [True],
            "lr": [0.3, 0.1],
            "target_lr": [10, 100],
            "feedback_lr": [0.1],
        },
        lambda b: {"patience": b.reach.tptt_patience},
    ),
    "bptt": SearchedRule(
        "BPTT",
        "bptt",
        lambda b: {"lr": [*b.reach.rates], "max_norm": [*b.reach.max_norm]},
    ),
    "lra_diff": SearchedRule(
        "LRA-diff, paper's grid", "lra_diff", lambda b: _lra(b.reach.paper)
    ),
    "lra_diff_regularised": SearchedRule(
        "LRA-diff regularised, paper's grid",
        "lra_diff",
        lambda b: _regularised(_lra(b.reach.regularised), b),
    ),
    "printed": SearchedRule(
        "LRA-diff as printed, paper's grid",
        "lra_diff",
        lambda b: _lra(b.reach.paper) | _PRINTED,
    ),
    "printed_regularised": SearchedRule(
        "LRA-diff as printed, regularised, paper's grid",
        "lra_diff",
        lambda b: _regularised(_lra(b.reach.regularised), b) | _PRINTED,
    ),
    "lra_diff_wide": SearchedRule(
        "LRA-diff, larger γ, K = 1", "lra_diff", lambda b: _lra(b.reach.wide)
    ),
    "lra_diff_wide_regularised": SearchedRule(
        "LRA-diff regularised, larger γ, K = 1",
        "lra_diff",
        lambda b: _lra(b.reach.wide) | {"lambda": [LAMBDA]},
    ),
    "lra_released": SearchedRule(
        "released behaviour, paper's grid",
        "lra_released",
        lambda b: _released(b.reach.paper),
        _released_settings,
    ),
    "lra_released_regularised": SearchedRule(
        "released behaviour, regularised",
        "lra_released",
        lambda b: _regularised(_released(b.reach.regularised), b),
        _released_settings,
    ),
    "released_omega_only": SearchedRule(
        "released behaviour, Ω-only updates (control)",
        "lra_released",
        lambda b: (
            _regularised(_released(b.reach.regularised), b)
            | {"descend_local_loss": [False]}
        ),
        _released_settings,
    ),
    "omega_only": SearchedRule(
        "Ω-only updates (control)",
        "lra_diff",
        lambda b: (
            _regularised(_lra(b.reach.regularised), b) | {"descend_local_loss": [False]}
        ),
    ),
    "readout_only": SearchedRule(
        "readout only (control)",
        "readout_only",
        lambda b: {"lr": [*b.reach.rates]},
    ),
}


# Methods of Table V that are also run with weights kept from one T to the next.
WARM_ROWS = ("bptt", "lra_diff_wide")


def only(
    budget: PaperBudget,
    *,
    tasks: Sequence[str] = (),
    rows: Sequence[str] = (),
    longest: int | None = None,
) -> PaperBudget:
    """A budget without other tasks, rows and lengths than these.

    Args:
      budget: of which a part is asked for.
      tasks: that stay; empty for all.
      rows: names in `ROWS` and `REACH_ROWS` that stay; empty for all.
      longest: the longest T of Table V that stays; None for all.
    """
    other = set()
    if rows:
        other = ROWS.keys() - rows
        other |= {
            f"reach.{name}.{task}"
            for name in REACH_ROWS.keys() - rows
            for task in budget.reach.tasks
        }

    def of(known: Sequence[str]) -> tuple[str, ...]:
        return tuple(task for task in known if not tasks or task in tasks)

    lengths = (t for t in budget.reach.seq_len if longest is None or t <= longest)
    asked = [f"the rows {', '.join(rows)}"] * bool(rows)
    asked += [f"the tasks {', '.join(tasks)}"] * bool(tasks)
    asked += [f"T ≤ {longest}"] * (longest is not None)
    return dataclasses.replace(
        budget,
        tasks=of(budget.tasks),
        reach=dataclasses.replace(
            budget.reach, tasks=of(budget.reach.tasks), seq_len=tuple(lengths)
        ),
        left_out=budget.left_out | other,
        part="; ".join(asked),
    )
