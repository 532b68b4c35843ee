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

from lra_jax.lab.benches.published import ORDER, ORDER_3BIT, PERMUTATION, TASKS
from lra_jax.lab.config import config as config_lib
from lra_jax.lab.config.config import Config
from lra_jax.lab.flow.recording import Setting

Axes = dict[str, list[Any]]

# λ where it is not searched over: the least of the paper's.
LAMBDA = 0.1


@dataclasses.dataclass(frozen=True)
class Grid:
    """α, γ and K that are searched over; by default the paper's."""

    lr: tuple[float, ...] = (0.1, 0.01, 0.001)
    gamma: tuple[float, ...] = (10, 1, 0.1, 0.01, 0.001)
    num_refinements: tuple[int, ...] = (10, 20, 30)


@dataclasses.dataclass(frozen=True)
class Tables:
    """Tables I to III.

    Attributes:
      seq_len: lengths.
      label_swap_seq_len: length of their label swap.
      max_steps: most updates.
      control_steps: the same of `readout_only`, which is cheap.
      paper: the paper's grid.
      variant: the same where Tables II and III vary the rule.
      released: the same for `lra_released`.
      wide: γ beyond the paper's grid, and α that goes with it.
    """

    seq_len: tuple[int, ...] = (10, 20, 30)
    label_swap_seq_len: int = 20
    max_steps: int = 100_000
    control_steps: int = 100_000
    paper: Grid = Grid()
    variant: Grid = Grid()
    released: Grid = Grid()
    wide: Grid = Grid((0.3, 0.1, 0.03), (50, 200), (1, 10, 20, 30))


@dataclasses.dataclass(frozen=True)
class Table4:
    """Table IV.

    Attributes:
      seq_len: length.
      max_steps: most updates.
      grid: the paper's.
      bounds: c0 and c1.
    """

    seq_len: int = 20
    max_steps: int = 100_000
    grid: Grid = Grid()
    bounds: tuple[float, ...] = (0, 0.01, 0.1, 1)


@dataclasses.dataclass(frozen=True)
class Reach:
    """Table V.

    Attributes:
      tasks: names of `lra_jax.TASKS`.
      seq_len: lengths in their order.
      released_seq_len: the longest for `lra_released`, whose cost grows as T².
      max_steps: most updates at each length.
      eval_every: updates between two evaluations.
      paper: the paper's grid, for LRA.
      regularised: the same with λ.
      lambda_: λ of the same.
      wide: γ beyond the paper's grid, and α that goes with it.
      rates: α of all other methods.
      max_norm: bounds of BPTT's gradient.
    """

    tasks: tuple[str, ...] = TASKS
    seq_len: tuple[int, ...] = tuple(range(10, 401, 10))
    released_seq_len: int = 400
    max_steps: int = 100_000
    eval_every: int = 100
    paper: Grid = Grid(num_refinements=(10,))
    regularised: Grid = Grid(num_refinements=(10,))
    lambda_: tuple[float, ...] = (2, 1, 0.1)
    wide: Grid = Grid((0.3, 0.1, 0.03, 0.01), (50, 200), (1,))
    rates: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    max_norm: tuple[float, ...] = (0, 1)


@dataclasses.dataclass(frozen=True)
class Figure5:
    """Figure 5.

    Attributes:
      seq_len: a length for each task.
      max_steps: most updates.
      grid: the paper's.
      lambda_: λ, besides 0.
    """

    seq_len: tuple[int, ...] = (20, 10, 20)
    max_steps: int = 100_000
    grid: Grid = Grid(num_refinements=(10,))
    lambda_: tuple[float, ...] = (2, 1, 0.1)


@dataclasses.dataclass(frozen=True)
class Flow:
    """Figures 2 to 4, and "decay".

    Attributes:
      num_steps: updates that are shown.
      every: updates between two points.
      num_refinements: K.
    """

    num_steps: int = 5_000
    every: int = 100
    num_refinements: int = 10


@dataclasses.dataclass(frozen=True)
class Budget:
    """How much is trained; by default all that the paper trains.

    Attributes:
      name: of the budget.
      tasks: names of `lra_jax.TASKS`.
      hidden_size: H.
      num_validation: samples of the validation set.
      curve_steps: updates of the curves of `lra_released`.
      left_out: runs that are not made: "row", "row.task", "reach.row.task",
        "figure5.rule" or "warm.task".
    """

    name: str
    tasks: tuple[str, ...] = TASKS
    hidden_size: int = 100
    num_validation: int = 10_000
    curve_steps: int = 2_200
    left_out: frozenset[str] = frozenset()
    tables: Tables = Tables()
    table4: Table4 = Table4()
    reach: Reach = Reach()
    figure5: Figure5 = Figure5()
    flow: Flow = Flow()


FULL = Budget("full")

STANDARD = Budget(
    "standard",
    tables=Tables(
        max_steps=1_000,
        control_steps=10_000,
        paper=Grid(lr=(0.1,), gamma=(10,)),
        variant=Grid(lr=(0.1,), gamma=(10,), num_refinements=(10,)),
        released=Grid(lr=(0.1,), gamma=(10, 0.01), num_refinements=(10,)),
        wide=Grid(lr=(0.3, 0.1, 0.03), gamma=(50, 200), num_refinements=(1,)),
    ),
    table4=Table4(
        max_steps=1_000,
        grid=Grid(lr=(0.1,), gamma=(10, 0.01), num_refinements=(10,)),
    ),
    reach=Reach(
        seq_len=(10, 20, 30, 40, 60, 80, 100, 120, 150, 200, 300, 400),
        released_seq_len=40,
        max_steps=2_000,
        eval_every=200,
        paper=Grid(lr=(0.1, 0.01), gamma=(10, 1), num_refinements=(10,)),
        regularised=Grid(lr=(0.1,), gamma=(10, 1), num_refinements=(10,)),
        lambda_=(1, 0.1),
        wide=Grid(lr=(0.3, 0.1), gamma=(50, 200), num_refinements=(1,)),
        rates=(0.3, 0.1, 0.03, 0.01),
        max_norm=(1,),
    ),
    figure5=Figure5(
        max_steps=1_000,
        grid=Grid(lr=(0.1,), gamma=(10,), num_refinements=(10,)),
    ),
    flow=Flow(num_steps=1_000, every=50),
    # What did not fit into some afternoons on two cores.
    left_out=frozenset(
        {
            "lra_released_log",
            f"lra_released_unbounded.{ORDER_3BIT}",
            f"lra_released_unbounded.{PERMUTATION}",
            "figure5.lra_released",
            f"reach.lra_diff_wide_regularised.{ORDER_3BIT}",
            f"reach.lra_diff_wide_regularised.{PERMUTATION}",
            f"reach.lra_released_regularised.{ORDER_3BIT}",
            f"reach.omega_only.{ORDER_3BIT}",
            f"reach.released_omega_only.{ORDER}",
            f"reach.released_omega_only.{ORDER_3BIT}",
            f"warm.{ORDER_3BIT}",
            f"warm.{PERMUTATION}",
        }
    ),
)

_TINY = Grid(lr=(0.1,), gamma=(10,), num_refinements=(2,))
_TINY_WIDE = Grid(lr=(0.3,), gamma=(50,), num_refinements=(1,))
SMOKE = Budget(
    "smoke",
    tasks=(ORDER,),
    hidden_size=32,
    num_validation=500,
    curve_steps=300,
    tables=Tables(
        seq_len=(10,),
        label_swap_seq_len=10,
        max_steps=300,
        control_steps=300,
        paper=_TINY,
        variant=_TINY,
        released=_TINY,
        wide=_TINY_WIDE,
    ),
    table4=Table4(seq_len=10, max_steps=300, grid=_TINY, bounds=(0, 1)),
    reach=Reach(
        tasks=(ORDER,),
        seq_len=(10, 20),
        released_seq_len=10,
        max_steps=300,
        paper=_TINY,
        regularised=_TINY,
        lambda_=(0.1,),
        wide=_TINY_WIDE,
        rates=(0.3,),
        max_norm=(1,),
    ),
    figure5=Figure5(seq_len=(10,), max_steps=300, grid=_TINY, lambda_=(0.1,)),
    flow=Flow(num_steps=100, every=50, num_refinements=2),
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


def _values(grid: Grid) -> Axes:
    return {key: [*values] for key, values in dataclasses.asdict(grid).items()}


def _lra(grid: Grid) -> Axes:
    """A grid of `lra_diff`, all norms bounded by 1."""
    return _values(grid) | {"c0": [1], "c1": [1]}


def _released(grid: Grid) -> Axes:
    """A grid of `lra_released`, whose one bound is 1."""
    return _values(grid) | {"c": [1]}


def _first(axes: Axes, **more: list[Any]) -> Axes:
    """The axes with the first K only, and others over them."""
    return axes | {"num_refinements": axes["num_refinements"][:1]} | more


def _released_settings(budget: Budget) -> dict[str, Any]:
    return {"validation": "released"}


ROWS: dict[str, Row] = {
    "lra_diff": Row(
        "lra_diff, paper's grid", "lra_diff", lambda b: _lra(b.tables.paper)
    ),
    "lra_diff_log": Row(
        "lra_diff, log-penalty",
        "lra_diff",
        lambda b: _lra(b.tables.variant) | {"local_loss": ["log_penalty"]},
    ),
    "lra_diff_unbounded": Row(
        "lra_diff, no normalisation",
        "lra_diff",
        lambda b: _lra(b.tables.variant) | {"c0": [0], "c1": [0]},
    ),
    "lra_diff_wide": Row(
        "lra_diff, larger γ, more α", "lra_diff", lambda b: _lra(b.tables.wide)
    ),
    "lra_released": Row(
        "lra_released, paper's grid",
        "lra_released",
        lambda b: _released(b.tables.released),
        _released_settings,
    ),
    "lra_released_log": Row(
        "lra_released, log-penalty",
        "lra_released",
        lambda b: _released(b.tables.released) | {"local_loss": ["log_penalty"]},
        _released_settings,
    ),
    "lra_released_unbounded": Row(
        "lra_released, no normalisation",
        "lra_released",
        lambda b: _released(b.tables.released) | {"c": [0]},
        _released_settings,
    ),
    "readout_only": Row(
        "readout only (control)",
        "readout_only",
        lambda b: {"lr": [*b.tables.paper.lr]},
        lambda b: {"max_steps": b.tables.control_steps},
    ),
    "omega_only": Row(
        "Ω-only updates (control)",
        "lra_diff",
        lambda b: _first(
            _lra(b.tables.paper),
            gamma=[b.tables.paper.gamma[0]],
            descend_local_loss=[False],
            **{"lambda": [LAMBDA]},
        ),
    ),
    "overwrite": Row(
        'refinement="overwrite" (as printed)',
        "lra_diff",
        lambda b: _first(_lra(b.tables.paper), refinement=["overwrite"]),
    ),
    "late_start": Row(
        "update_first_step=False (as printed)",
        "lra_diff",
        lambda b: _first(_lra(b.tables.paper), update_first_step=[False]),
    ),
    "bptt": Row(
        "BPTT", "bptt", lambda b: {"lr": [*b.tables.wide.lr], "max_norm": [0, 1]}
    ),
}


# Algorithm 1 line by line: lines 24-25, and a loop that ends at t = 1.
_PRINTED: Axes = {"refinement": ["overwrite"], "update_first_step": [False]}


def _regularised(axes: Axes, budget: Budget) -> Axes:
    """The axes with λ, and the log-penalty, as `gridsearch.py` has it."""
    return axes | {
        "local_loss": ["log_penalty"],
        "lambda": [*budget.reach.lambda_],
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
        "BPTT",
        "bptt",
        lambda b: {"lr": [*b.reach.rates], "max_norm": [*b.reach.max_norm]},
    ),
    "lra_diff": Row(
        "LRA-diff, paper's grid", "lra_diff", lambda b: _lra(b.reach.paper)
    ),
    "lra_diff_regularised": Row(
        "LRA-diff regularised, paper's grid",
        "lra_diff",
        lambda b: _regularised(_lra(b.reach.regularised), b),
    ),
    "printed": Row(
        "LRA-diff as printed, paper's grid",
        "lra_diff",
        lambda b: _lra(b.reach.paper) | _PRINTED,
    ),
    "printed_regularised": Row(
        "LRA-diff as printed, regularised, paper's grid",
        "lra_diff",
        lambda b: _regularised(_lra(b.reach.regularised), b) | _PRINTED,
    ),
    "lra_diff_wide": Row(
        "LRA-diff, larger γ, K = 1", "lra_diff", lambda b: _lra(b.reach.wide)
    ),
    "lra_diff_wide_regularised": Row(
        "LRA-diff regularised, larger γ, K = 1",
        "lra_diff",
        lambda b: _lra(b.reach.wide) | {"lambda": [LAMBDA]},
    ),
    "lra_released": Row(
        "released behaviour, paper's grid",
        "lra_released",
        lambda b: _released(b.reach.paper),
        _released_settings,
    ),
    "lra_released_regularised": Row(
        "released behaviour, regularised",
        "lra_released",
        lambda b: _regularised(_released(b.reach.regularised), b),
        _released_settings,
    ),
    "released_omega_only": Row(
        "released behaviour, Ω-only updates (control)",
        "lra_released",
        lambda b: (
            _regularised(_released(b.reach.regularised), b)
            | {"descend_local_loss": [False]}
        ),
        _released_settings,
    ),
    "omega_only": Row(
        "Ω-only updates (control)",
        "lra_diff",
        lambda b: (
            _regularised(_lra(b.reach.regularised), b) | {"descend_local_loss": [False]}
        ),
    ),
    "readout_only": Row(
        "readout only (control)",
        "readout_only",
        lambda b: {"lr": [*b.reach.rates]},
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
        row.axes(budget) | {"seq_len": [*budget.tables.seq_len]},
        seeds=[*seeds],
        max_steps=budget.tables.max_steps,
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
    table4 = budget.table4
    axes = _values(table4.grid) | {
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
    axes = row.axes(budget) | _values(budget.figure5.grid)
    axes |= {
        "lambda": [0, *budget.figure5.lambda_],
        "seq_len": [budget.figure5.seq_len[budget.tasks.index(task)]],
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


def reach_lengths(name: str, budget: Budget) -> tuple[int, ...]:
    """The lengths of Table V that a method may be tried on."""
    is_released = REACH_ROWS[name].rule == "lra_released"
    lengths = budget.reach.seq_len
    longest = budget.reach.released_seq_len if is_released else max(lengths)
    return tuple(t for t in lengths if t <= longest)


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
        max_steps=budget.reach.max_steps,
        eval_every=budget.reach.eval_every,
        race=True,
    )


def flow_settings(figure: str, budget: Budget) -> list[Setting]:
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
