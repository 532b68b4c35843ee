"""What the reproduction of the paper trains: budgets, the rows of its tables, grids.

A *row* is a rule with a grid to search; a *run* is a row on one task, and gets a run
folder. Tables share runs: Table I, the right half of Table III and the MSE line of
Table II are one. γ is in the units of the rule: that of `lra_released` counts 1/B of
that of `lra_diff` where no bound is reached (docs/reproduction.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from keyword import iskeyword
from typing import Any

from experiments import config as config_lib
from experiments.config import Config
from experiments.gradient_flow import Setting

ORDER, ORDER_3BIT, PERMUTATION = TASKS = (
    "temporal_order",
    "temporal_order_3bit",
    "random_permutation",
)

Axes = dict[str, list[Any]]


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much is trained.

    Attributes:
      name: of the budget.
      tasks: names of `lra_jax.TASKS`.
      max_steps: most updates in tables and figures.
      reach_steps: most updates at each length of Table V.
      control_steps: most updates of `readout_only`, which is cheap, in the tables.
      curve_steps: updates of the curves of `lra_released`.
      lr: α of the paper's grid.
      gamma: γ of the paper's grid.
      released_gamma: the same for `lra_released`.
      released_num_refinements: K of the same.
      variant_num_refinements: K of `lra_diff` where Tables II and III vary it.
      figure5_gamma: γ of Figure 5.
      wide_num_refinements: K that goes with `wide_gamma`.
      num_refinements: K of the paper's grid.
      lambda_: λ of the paper's regularised grid.
      reach_every: updates between two evaluations in Table V.
      reach_lr: α of LRA in Table V, on the paper's grid.
      reach_regularised_lr: the same, regularised.
      reach_gamma: γ of both.
      reach_lambda: λ of the same, regularised.
      reach_rates: learning rates of all other methods in Table V.
      reach_wide_rates: learning rates that go with `wide_gamma` there.
      reach_norms: bounds of BPTT's gradient in Table V.
      wide_gamma: γ beyond the paper's grid.
      wide_lr: learning rates that go with it.
      bounds: c0 and c1 of Table IV.
      seq_len: lengths of Tables I to III.
      table4_gamma: γ of Table IV.
      table4_steps: most updates of Table IV.
      table4_num_refinements: K of Table IV.
      table4_seq_len: length of Table IV.
      figure5_seq_len: lengths of Figure 5, by task.
      reach_seq_len: lengths of Table V in their order.
      reach_tasks: tasks of Table V.
      left_out: runs that are not made: "row", "row.task", or "reach.row.task".
      released_reach: the longest of them for `lra_released`, whose cost grows as T².
      num_validation: samples of the validation set.
      hidden_size: H.
      flow_steps: updates that Figures 2 to 4 show.
      flow_every: updates between two of their points.
    """

    name: str
    tasks: tuple[str, ...]
    max_steps: int
    reach_steps: int
    control_steps: int
    curve_steps: int
    lr: tuple[float, ...]
    gamma: tuple[float, ...]
    released_gamma: tuple[float, ...]
    released_num_refinements: tuple[int, ...]
    variant_num_refinements: tuple[int, ...]
    figure5_gamma: tuple[float, ...]
    wide_num_refinements: tuple[int, ...]
    num_refinements: tuple[int, ...]
    lambda_: tuple[float, ...]
    reach_every: int
    reach_lr: tuple[float, ...]
    reach_regularised_lr: tuple[float, ...]
    reach_gamma: tuple[float, ...]
    reach_lambda: tuple[float, ...]
    reach_rates: tuple[float, ...]
    reach_wide_rates: tuple[float, ...]
    reach_norms: tuple[float, ...]
    wide_gamma: tuple[float, ...]
    wide_lr: tuple[float, ...]
    bounds: tuple[float, ...]
    seq_len: tuple[int, ...]
    table4_gamma: tuple[float, ...]
    table4_steps: int
    table4_num_refinements: tuple[int, ...]
    table4_seq_len: int
    figure5_seq_len: tuple[int, ...]
    reach_seq_len: tuple[int, ...]
    released_reach: int
    reach_tasks: tuple[str, ...]
    left_out: frozenset[str]
    num_validation: int
    hidden_size: int
    flow_steps: int
    flow_every: int


FULL = Budget(
    name="full",
    tasks=TASKS,
    max_steps=100_000,
    reach_steps=100_000,
    control_steps=100_000,
    curve_steps=2_200,
    lr=(0.1, 0.01, 0.001),
    gamma=(10, 1, 0.1, 0.01, 0.001),
    released_gamma=(10, 1, 0.1, 0.01, 0.001),
    released_num_refinements=(10, 20, 30),
    variant_num_refinements=(10, 20, 30),
    figure5_gamma=(10, 1, 0.1, 0.01, 0.001),
    wide_num_refinements=(1, 10, 20, 30),
    num_refinements=(10, 20, 30),
    lambda_=(2, 1, 0.1),
    reach_every=100,
    reach_lr=(0.1, 0.01, 0.001),
    reach_regularised_lr=(0.1, 0.01, 0.001),
    reach_gamma=(10, 1, 0.1, 0.01, 0.001),
    reach_lambda=(2, 1, 0.1),
    reach_rates=(0.3, 0.1, 0.03, 0.01, 0.003, 0.001),
    reach_wide_rates=(0.3, 0.1, 0.03, 0.01),
    reach_norms=(0, 1),
    wide_gamma=(50, 200),
    wide_lr=(0.3, 0.1, 0.03),
    bounds=(0, 0.01, 0.1, 1),
    seq_len=(10, 20, 30),
    table4_gamma=(10, 1, 0.1, 0.01, 0.001),
    table4_steps=100_000,
    table4_num_refinements=(10, 20, 30),
    table4_seq_len=20,
    figure5_seq_len=(20, 10, 20),
    reach_seq_len=tuple(range(10, 401, 10)),
    released_reach=400,
    reach_tasks=TASKS,
    left_out=frozenset(),
    num_validation=10_000,
    hidden_size=100,
    flow_steps=5_000,
    flow_every=100,
)

# What did not fit into an afternoon on two cores.
LEFT_OUT = frozenset(
    {
        "lra_released_log",
        "lra_released_unbounded",
        f"lra_released.{ORDER_3BIT}",
        f"omega_only.{ORDER_3BIT}",
        "figure5.lra_released",
        f"reach.omega_only.{ORDER}",
        f"reach.released_omega_only.{ORDER}",
        f"reach.lra_diff_wide_regularised.{ORDER}",
        f"reach.lra_diff_wide_regularised.{PERMUTATION}",
    }
)

STANDARD = dataclasses.replace(
    FULL,
    name="standard",
    max_steps=1_000,
    reach_steps=2_000,
    control_steps=10_000,
    lr=(0.1,),
    gamma=(10,),
    released_gamma=(10, 0.01),
    released_num_refinements=(10,),
    variant_num_refinements=(10,),
    figure5_gamma=(10,),
    wide_num_refinements=(1,),
    reach_every=200,
    reach_lr=(0.1, 0.01),
    reach_regularised_lr=(0.1,),
    reach_gamma=(10, 1),
    reach_lambda=(1, 0.1),
    reach_rates=(0.3, 0.1, 0.03, 0.01),
    reach_wide_rates=(0.3, 0.1),
    reach_norms=(1,),
    table4_gamma=(10, 0.01),
    table4_steps=1_000,
    table4_num_refinements=(10,),
    reach_seq_len=(10, 20, 30, 40, 60, 80, 100, 120, 150, 200, 300, 400),
    released_reach=40,
    left_out=LEFT_OUT,
    reach_tasks=(ORDER, PERMUTATION),
    flow_steps=1_000,
    flow_every=50,
)

SMOKE = dataclasses.replace(
    FULL,
    name="smoke",
    tasks=(ORDER,),
    max_steps=300,
    reach_steps=300,
    control_steps=300,
    curve_steps=300,
    lr=(0.1,),
    gamma=(10,),
    num_refinements=(2,),
    lambda_=(0.1,),
    released_gamma=(10,),
    released_num_refinements=(2,),
    variant_num_refinements=(2,),
    wide_gamma=(50,),
    wide_lr=(0.3,),
    wide_num_refinements=(1,),
    seq_len=(10,),
    table4_gamma=(10,),
    table4_num_refinements=(2,),
    table4_steps=300,
    table4_seq_len=10,
    bounds=(0, 1),
    figure5_gamma=(10,),
    figure5_seq_len=(10,),
    reach_lr=(0.1,),
    reach_regularised_lr=(0.1,),
    reach_gamma=(10,),
    reach_lambda=(0.1,),
    reach_rates=(0.3,),
    reach_wide_rates=(0.3,),
    reach_norms=(1,),
    reach_seq_len=(10, 20),
    released_reach=10,
    reach_tasks=(ORDER,),
    num_validation=500,
    hidden_size=32,
    flow_steps=100,
    flow_every=50,
)

BUDGETS = {budget.name: budget for budget in (SMOKE, STANDARD, FULL)}


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table: a rule, and what is searched over.

    Attributes:
      label: for people.
      rule: its name in `RULES`.
      axes: of a budget, name to values.
      settings: of the config at its top level, beyond what a budget says.
    """

    label: str
    rule: str
    axes: Callable[[Budget], Axes]
    settings: Callable[[Budget], dict[str, Any]] = lambda budget: {}


def _paper(budget: Budget) -> Axes:
    """The paper's grid: α × γ for each K, all norms bounded by 1."""
    return {
        "lr": [*budget.lr],
        "gamma": [*budget.gamma],
        "num_refinements": [*budget.num_refinements],
        "c0": [1],
        "c1": [1],
    }


def _released(budget: Budget) -> Axes:
    """The paper's grid, in the units of the released code."""
    axes = _paper(budget)
    del axes["c0"], axes["c1"]
    return axes | {
        "gamma": [*budget.released_gamma],
        "num_refinements": [*budget.released_num_refinements],
        "c": [1],
    }


def _variant(budget: Budget) -> Axes:
    """The paper's grid as Tables II and III vary it."""
    return _paper(budget) | {"num_refinements": [*budget.variant_num_refinements]}


def _wide(budget: Budget) -> Axes:
    return _paper(budget) | {
        "lr": [*budget.wide_lr],
        "gamma": [*budget.wide_gamma],
        "num_refinements": [*budget.wide_num_refinements],
    }


def _first(axes: Axes, **more: list[Any]) -> Axes:
    """The axes with the first K only, and others over them."""
    return axes | {"num_refinements": axes["num_refinements"][:1]} | more


def _released_settings(budget: Budget) -> dict[str, Any]:
    return {"validation": "released"}


ROWS: dict[str, Row] = {
    "lra_diff": Row("lra_diff, paper's grid", "lra_diff", _paper),
    "lra_diff_log": Row(
        "lra_diff, log-penalty",
        "lra_diff",
        lambda b: _variant(b) | {"local_loss": ["log_penalty"]},
    ),
    "lra_diff_unbounded": Row(
        "lra_diff, no normalisation",
        "lra_diff",
        lambda b: _variant(b) | {"c0": [0], "c1": [0]},
    ),
    "lra_diff_wide": Row("lra_diff, larger γ, more α", "lra_diff", _wide),
    "lra_released": Row(
        "lra_released, paper's grid", "lra_released", _released, _released_settings
    ),
    "lra_released_log": Row(
        "lra_released, log-penalty",
        "lra_released",
        lambda b: _released(b) | {"local_loss": ["log_penalty"]},
        _released_settings,
    ),
    "lra_released_unbounded": Row(
        "lra_released, no normalisation",
        "lra_released",
        lambda b: _released(b) | {"c": [0]},
        _released_settings,
    ),
    "readout_only": Row(
        "readout only (control)",
        "readout_only",
        lambda b: {"lr": [*b.lr]},
        lambda b: {"max_steps": b.control_steps},
    ),
    "omega_only": Row(
        "Ω-only updates (control)",
        "lra_diff",
        lambda b: _first(
            _paper(b),
            gamma=[b.gamma[0]],
            descend_local_loss=[False],
            **{"lambda": [b.lambda_[-1]]},
        ),
    ),
    "overwrite": Row(
        'refinement="overwrite" (as printed)',
        "lra_diff",
        lambda b: _first(_paper(b), refinement=["overwrite"]),
    ),
    "late_start": Row(
        "update_first_step=False (as printed)",
        "lra_diff",
        lambda b: _first(_paper(b), update_first_step=[False]),
    ),
    "bptt": Row("BPTT", "bptt", lambda b: {"lr": [*b.wide_lr], "max_norm": [0, 1]}),
}


# Algorithm 1 line by line: lines 24-25, and a loop that ends at t = 1.
_PRINTED: Axes = {"refinement": ["overwrite"], "update_first_step": [False]}


def _reach_lra(budget: Budget) -> Axes:
    return _first(_paper(budget), lr=[*budget.reach_lr], gamma=[*budget.reach_gamma])


def _regularised(budget: Budget, axes: Axes) -> Axes:
    """The grid over λ, and the log-penalty, as `gridsearch.py` has it."""
    return axes | {
        "lr": [*budget.reach_regularised_lr],
        "local_loss": ["log_penalty"],
        "lambda": [*budget.reach_lambda],
    }


def _reach_released(budget: Budget) -> Axes:
    axes = _reach_lra(budget)
    del axes["c0"], axes["c1"]
    return axes | {"c": [1]}


def _reach_wide(budget: Budget) -> Axes:
    return _reach_lra(budget) | {
        "lr": [*budget.reach_wide_rates],
        "gamma": [*budget.wide_gamma],
        "num_refinements": [1],
    }


# Four settings for each method of Table V at `standard`. At `full`, LRA has the paper's
# whole grids, and the other methods, of which it prints none, some of ours.
REACH_ROWS: dict[str, Row] = {
    "tptt": Row(
        "TPTT",
        "tptt",
        lambda b: {
            "optimizer": ["momentum"],
            "nesterov": [True],
            "lr": [0.3, 0.1],
            "target_lr": [10, 100],
            "feedback_lr": [0.1],
        },
    ),
    "bptt": Row(
        "BPTT", "bptt", lambda b: {"lr": [*b.reach_rates], "max_norm": [*b.reach_norms]}
    ),
    "lra_diff": Row("LRA-diff, paper's grid", "lra_diff", _reach_lra),
    "lra_diff_regularised": Row(
        "LRA-diff regularised, paper's grid",
        "lra_diff",
        lambda b: _regularised(b, _reach_lra(b)),
    ),
    "printed": Row(
        "LRA-diff as printed, paper's grid",
        "lra_diff",
        lambda b: _reach_lra(b) | _PRINTED,
    ),
    "printed_regularised": Row(
        "LRA-diff as printed, regularised, paper's grid",
        "lra_diff",
        lambda b: _regularised(b, _reach_lra(b)) | _PRINTED,
    ),
    "lra_diff_wide": Row("LRA-diff, larger γ, K = 1", "lra_diff", _reach_wide),
    "lra_diff_wide_regularised": Row(
        "LRA-diff regularised, larger γ, K = 1",
        "lra_diff",
        lambda b: _reach_wide(b) | {"lambda": [0.1]},
    ),
    "lra_released": Row(
        "released behaviour, paper's grid",
        "lra_released",
        _reach_released,
        _released_settings,
    ),
    "lra_released_regularised": Row(
        "released behaviour, regularised",
        "lra_released",
        lambda b: _regularised(b, _reach_released(b)),
        _released_settings,
    ),
    "released_omega_only": Row(
        "released behaviour, Ω-only updates (control)",
        "lra_released",
        lambda b: _regularised(b, _reach_released(b)) | {"descend_local_loss": [False]},
        _released_settings,
    ),
    "omega_only": Row(
        "Ω-only updates (control)",
        "lra_diff",
        lambda b: _regularised(b, _reach_lra(b)) | {"descend_local_loss": [False]},
    ),
    "readout_only": Row(
        "readout only (control)",
        "readout_only",
        lambda b: {"lr": [*b.reach_rates]},
    ),
}


# Methods of Table V that are also run with weights kept from one T to the next.
WARM_ROWS = ("bptt", "lra_diff_wide")


def _resolve(
    name: str, row: Row, task: str, budget: Budget, axes: Axes, **settings: Any
) -> Config:
    common = {
        "name": name,
        "task": task,
        "rule": row.rule,
        "hidden_size": budget.hidden_size,
        "num_validation": budget.num_validation,
        **settings,
        **row.settings(budget),
    }
    return config_lib.resolve({**common, "grid": axes}, name)


def table_config(name: str, task: str, budget: Budget, seeds: Sequence[int]) -> Config:
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
        row.axes(budget) | {"seq_len": [*budget.seq_len]},
        seeds=[*seeds],
        max_steps=budget.max_steps,
        race=True,
    )


def first_setting(name: str, budget: Budget) -> Setting:
    """A row of Tables I to III with the first value of each of its axes."""
    row = ROWS[name]
    values = {key: axis[0] for key, axis in row.axes(budget).items()}
    lr = values.pop("lr")
    options = {key + "_" * iskeyword(key): value for key, value in values.items()}
    return Setting(name, row.rule, options, lr)


def table4_config(budget: Budget, seeds: Sequence[int]) -> Config:
    """The search over c0 and c1 of Table IV, on temporal order."""
    row = ROWS["lra_diff"]
    searched: Axes = {
        "gamma": [*budget.table4_gamma],
        "num_refinements": [*budget.table4_num_refinements],
        "c0": [*budget.bounds],
        "c1": [*budget.bounds],
        "seq_len": [budget.table4_seq_len],
    }
    return _resolve(
        "table4",
        row,
        ORDER,
        budget,
        row.axes(budget) | searched,
        seeds=[*seeds],
        max_steps=budget.table4_steps,
    )


def curve_config(
    task: str, seq_len: int, budget: Budget, seeds: Sequence[int]
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
    rule: str, task: str, budget: Budget, seeds: Sequence[int]
) -> Config:
    """The search over λ of Figure 5 on a task: `gridsearch.py`'s K, c and loss."""
    row = REACH_ROWS[f"{rule}_regularised"]
    axes = row.axes(budget) | {
        "gamma": [*budget.figure5_gamma],
        "lambda": [0, *budget.lambda_],
        "seq_len": [budget.figure5_seq_len[budget.tasks.index(task)]],
    }
    return _resolve(
        f"figure5.{rule}.{task}",
        row,
        task,
        budget,
        axes,
        seeds=[*seeds],
        max_steps=budget.max_steps,
    )


def reach_lengths(name: str, budget: Budget) -> tuple[int, ...]:
    """The lengths of Table V that a method may be tried on."""
    is_released = REACH_ROWS[name].rule == "lra_released"
    longest = budget.released_reach if is_released else max(budget.reach_seq_len)
    return tuple(t for t in budget.reach_seq_len if t <= longest)


def reach_config(
    name: str, task: str, seq_len: int, budget: Budget, seeds: Sequence[int]
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
        max_steps=budget.reach_steps,
        eval_every=budget.reach_every,
        race=True,
    )


def flow_settings(figure: str, budget: Budget) -> list[Setting]:
    """What Figures 2 to 4 train, and "decay" looks at untrained.

    The paper prints no hyper-parameters for its figures: α, γ, K, c, loss and λ are
    those of the released script's main; then what works.
    """
    k = budget.num_refinements[0]
    script = {"gamma": 10.0, "num_refinements": k, "local_loss": "log_penalty"}
    bounded = {**script, "c0": 1.0, "c1": 1.0}
    printed = {**bounded, "refinement": "overwrite"}
    large = {**bounded, "gamma": 50.0, "num_refinements": 1}
    released = {**script, "c": 1.0}
    omega = {"lambda_": budget.lambda_[-1]}
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
    found = [Setting(n, "lra_released", options) for n, options in settings.items()]
    for name, options in {
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
    }.items():
        found.append(Setting(name, "lra_diff", options))
    return found
