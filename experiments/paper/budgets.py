"""How much the reproduction trains: the paper's budget and two smaller ones."""

from __future__ import annotations

import dataclasses

from lra_jax.lab.benches.published import ORDER, ORDER_3BIT, PERMUTATION, TASKS


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Values of α, γ and K that are searched over; by default the paper's."""

    lr: tuple[float, ...] = (0.1, 0.01, 0.001)
    gamma: tuple[float, ...] = (10, 1, 0.1, 0.01, 0.001)
    num_refinements: tuple[int, ...] = (10, 20, 30)


@dataclasses.dataclass(frozen=True)
class TablesBudget:
    """What Tables I to III train.

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
    paper: SearchSpace = SearchSpace()
    variant: SearchSpace = SearchSpace()
    released: SearchSpace = SearchSpace()
    wide: SearchSpace = SearchSpace((0.3, 0.1, 0.03), (50, 200), (1, 10, 20, 30))


@dataclasses.dataclass(frozen=True)
class Table4Budget:
    """What Table IV trains.

    Attributes:
      seq_len: length.
      max_steps: most updates.
      grid: the paper's.
      bounds: c0 and c1.
    """

    seq_len: int = 20
    max_steps: int = 100_000
    grid: SearchSpace = SearchSpace()
    bounds: tuple[float, ...] = (0, 0.01, 0.1, 1)


@dataclasses.dataclass(frozen=True)
class ReachBudget:
    """What Table V trains.

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
      tptt_patience: evaluations that TPTT may go on without a better one. The TPTT
        code waits for 300; the paper's for 30, as every other method does here.
    """

    tasks: tuple[str, ...] = TASKS
    seq_len: tuple[int, ...] = tuple(range(10, 401, 10))
    released_seq_len: int = 400
    max_steps: int = 100_000
    eval_every: int = 100
    paper: SearchSpace = SearchSpace(num_refinements=(10,))
    regularised: SearchSpace = SearchSpace(num_refinements=(10,))
    lambda_: tuple[float, ...] = (2, 1, 0.1)
    wide: SearchSpace = SearchSpace((0.3, 0.1, 0.03, 0.01), (50, 200), (1,))
    rates: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    max_norm: tuple[float, ...] = (0, 1)
    tptt_patience: int = 300


@dataclasses.dataclass(frozen=True)
class Figure5Budget:
    """What Figure 5 trains.

    Attributes:
      seq_len: a length for each task of the paper, in the order of `TASKS`.
      max_steps: most updates.
      grid: the paper's.
      lambda_: λ, besides 0.
    """

    seq_len: tuple[int, ...] = (20, 10, 20)
    max_steps: int = 100_000
    grid: SearchSpace = SearchSpace(num_refinements=(10,))
    lambda_: tuple[float, ...] = (2, 1, 0.1)


@dataclasses.dataclass(frozen=True)
class FlowBudget:
    """What Figures 2 to 4 and "decay" record.

    Attributes:
      num_steps: updates that are shown.
      every: updates between two points.
      num_refinements: K.
    """

    num_steps: int = 5_000
    every: int = 100
    num_refinements: int = 10


@dataclasses.dataclass(frozen=True)
class PaperBudget:
    """How much is trained; by default all that the paper trains.

    Attributes:
      name: of the budget.
      tasks: names of `lra_jax.TASKS`.
      hidden_size: H.
      num_validation: samples of the validation set.
      curve_steps: updates of the curves of `lra_released`.
      left_out: runs that are not made: "row", "row.task", "reach.row.task",
        "figure5.rule" or "warm.task".
      part: what alone was asked for, in words; empty for all.
    """

    name: str
    tasks: tuple[str, ...] = TASKS
    hidden_size: int = 100
    num_validation: int = 10_000
    curve_steps: int = 2_200
    left_out: frozenset[str] = frozenset()
    part: str = ""
    tables: TablesBudget = TablesBudget()
    table4: Table4Budget = Table4Budget()
    reach: ReachBudget = ReachBudget()
    figure5: Figure5Budget = Figure5Budget()
    flow: FlowBudget = FlowBudget()


FULL = PaperBudget("full")

STANDARD = PaperBudget(
    "standard",
    tables=TablesBudget(
        max_steps=1_000,
        control_steps=10_000,
        paper=SearchSpace(lr=(0.1,), gamma=(10,)),
        variant=SearchSpace(lr=(0.1,), gamma=(10,), num_refinements=(10,)),
        released=SearchSpace(lr=(0.1,), gamma=(10, 0.01), num_refinements=(10,)),
        wide=SearchSpace(lr=(0.3, 0.1, 0.03), gamma=(50, 200), num_refinements=(1,)),
    ),
    table4=Table4Budget(
        max_steps=1_000,
        grid=SearchSpace(lr=(0.1,), gamma=(10, 0.01), num_refinements=(10,)),
    ),
    reach=ReachBudget(
        seq_len=(10, 20, 30, 40, 60, 80, 100, 120, 150, 200, 300, 400),
        released_seq_len=40,
        max_steps=2_000,
        eval_every=200,
        paper=SearchSpace(lr=(0.1, 0.01), gamma=(10, 1), num_refinements=(10,)),
        regularised=SearchSpace(lr=(0.1,), gamma=(10, 1), num_refinements=(10,)),
        lambda_=(1, 0.1),
        wide=SearchSpace(lr=(0.3, 0.1), gamma=(50, 200), num_refinements=(1,)),
        rates=(0.3, 0.1, 0.03, 0.01),
        max_norm=(1,),
        tptt_patience=30,
    ),
    figure5=Figure5Budget(
        max_steps=1_000,
        grid=SearchSpace(lr=(0.1,), gamma=(10,), num_refinements=(10,)),
    ),
    flow=FlowBudget(num_steps=1_000, every=50),
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

_TINY = SearchSpace(lr=(0.1,), gamma=(10,), num_refinements=(2,))
_TINY_WIDE = SearchSpace(lr=(0.3,), gamma=(50,), num_refinements=(1,))
SMOKE = PaperBudget(
    "smoke",
    tasks=(ORDER,),
    hidden_size=32,
    num_validation=500,
    curve_steps=300,
    tables=TablesBudget(
        seq_len=(10,),
        label_swap_seq_len=10,
        max_steps=300,
        control_steps=300,
        paper=_TINY,
        variant=_TINY,
        released=_TINY,
        wide=_TINY_WIDE,
    ),
    table4=Table4Budget(seq_len=10, max_steps=300, grid=_TINY, bounds=(0, 1)),
    reach=ReachBudget(
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
        tptt_patience=30,
    ),
    figure5=Figure5Budget(seq_len=(10,), max_steps=300, grid=_TINY, lambda_=(0.1,)),
    flow=FlowBudget(num_steps=100, every=50, num_refinements=2),
)

BUDGETS = {budget.name: budget for budget in (SMOKE, STANDARD, FULL)}
