"""A grid of training runs as one batched computation: the only file with a grid axis.

A compiled *chunk* advances `M` members at once by `eval_every` updates and evaluates
them. The host loop puts members into its `M` slots, takes them out when they end, and
fills their slots with members that wait: the compiled program never changes, and no
ended member is paid for while others wait.

Hyper-parameters are arrays `[N]`. Those named in `Experiment.shared` set how long the
program runs (K does). They are scalars of the same program, so a chunk holds members
of one value, and none pays for another's larger one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from lra_jax import member
from lra_jax.member import (
    Check,
    Experiment,
    Hyperparameters,
    Initial,
    Limits,
    RunState,
    Status,
)

EMPTY = -1  # a slot without a member
DEFAULT_LIMITS = Limits()


class Curves(NamedTuple):
    """Evaluations of all members, one row each, in the order they were made."""

    member: np.ndarray  # [R] int32
    step: np.ndarray  # [R] int32, updates done
    train_loss: np.ndarray  # [R] float32, mean since the last row; NaN at step 0
    loss: np.ndarray  # [R] float32, validation
    num_errors: np.ndarray  # [R] int32, validation


class Members(NamedTuple):
    """Where each member is, arrays `[N]` of int32; -1 is not known yet."""

    status: np.ndarray  # a `Status`
    step: np.ndarray  # updates done
    num_errors: np.ndarray  # at the last evaluation
    best_num_errors: np.ndarray
    best_step: np.ndarray  # of the first evaluation with that many


class SweepState(NamedTuple):
    """All that is needed to go on, between two chunks.

    Attributes:
      slots: `[M]` int32, the member in each slot, or `EMPTY`.
      runs: arrays `[M, ...]`; None when all slots are empty.
      members: results so far.
      curves: evaluations so far.
    """

    slots: np.ndarray
    runs: RunState | None
    members: Members
    curves: Curves


class Grid(NamedTuple):
    """The members of a sweep.

    Attributes:
      shared: name to `[N]`, hyper-parameters that are scalars of the program.
      mapped: name to `[N]`, all others.
      seeds: `[N]` uint32.
    """

    shared: dict[str, np.ndarray]
    mapped: dict[str, np.ndarray]
    seeds: np.ndarray

    def companions(self, index: int) -> np.ndarray:
        """`[N]` bool: the members that may be in a chunk with this one."""
        same = np.ones(self.seeds.shape, bool)
        for values in self.shared.values():
            same &= values == values[index]
        return same

    def first(self, candidates: np.ndarray) -> int:
        """The candidate (`[N]` bool) that comes first by shared values, then index."""
        indices = np.flatnonzero(candidates)
        keys = [values[indices] for values in self.shared.values()]
        return int(indices[np.lexsort((indices, *reversed(keys)))[0]])

    def arguments(self, slots: np.ndarray) -> tuple[Any, Any, jax.Array]:
        """`shared`, `mapped` and `seeds` of the members in the slots.

        An empty slot computes a copy of another one, and is ignored.
        """
        some = int(slots.max())
        filled = np.where(slots == EMPTY, some, slots)
        return (
            {name: jnp.asarray(x[some]) for name, x in self.shared.items()},
            {name: jnp.asarray(x[filled]) for name, x in self.mapped.items()},
            jnp.asarray(self.seeds[filled]),
        )


def make_grid(
    experiment: Experiment, hyperparameters: Mapping[str, ArrayLike], seeds: ArrayLike
) -> Grid:
    """Checks and sorts out the arrays of a grid.

    Args:
      experiment: knows which hyper-parameters are shared.
      hyperparameters: name to `[N]` values.
      seeds: `[N]` integers from 0 to 2³² - 1.

    Raises:
      ValueError: the arrays do not have one value per member.
    """
    seeds = np.asarray(seeds)
    if seeds.ndim != 1 or seeds.size < 1:
        raise ValueError(f"seeds: expected [N] with N ≥ 1, got shape {seeds.shape}")
    arrays = {name: np.asarray(x) for name, x in hyperparameters.items()}
    for name, values in arrays.items():
        if values.shape != seeds.shape:
            raise ValueError(
                f"{name}: expected one value per member, shape {seeds.shape}, "
                f"got {values.shape}"
            )
    return Grid(
        shared={n: x for n, x in arrays.items() if n in experiment.shared},
        mapped={n: x for n, x in arrays.items() if n not in experiment.shared},
        seeds=seeds.astype(np.uint32),
    )


class Program(NamedTuple):
    """The compiled functions of an experiment, for any number of members.

    Attributes:
      initial: `(seeds [S]) -> Initial [S]`, what members of these seeds start from.
      start: `(shared, mapped [M], seeds [M], Initial [M]) -> RunState [M]`.
      chunk: `(limits, shared, mapped [M], seeds [M], RunState [M])
        -> (RunState [M], Check [M])`.
    """

    initial: Callable[[jax.Array], Initial]
    start: Callable[..., RunState]
    chunk: Any  # a jitted function: callable, and `lower` shows its cost


@functools.lru_cache(maxsize=16)
def make_program(experiment: Experiment) -> Program:
    """Vmaps over members and jits; nothing is compiled before the first call.

    An equal experiment gets the same program, so that going on with a sweep compiles
    nothing again.
    """

    def initial(seeds: jax.Array) -> Initial:
        return lax.map(lambda seed: member.initial(experiment, seed), seeds)

    def start(
        shared: Hyperparameters,
        mapped: Hyperparameters,
        seeds: jax.Array,
        initial: Initial,
    ) -> RunState:
        return jax.vmap(
            lambda mapped, seed, initial: member.start(
                experiment, {**shared, **mapped}, seed, initial
            )
        )(mapped, seeds, initial)

    def chunk(
        limits: Limits,
        shared: Hyperparameters,
        mapped: Hyperparameters,
        seeds: jax.Array,
        runs: RunState,
    ) -> tuple[RunState, Check]:
        return jax.vmap(
            lambda mapped, seed, run: member.advance(
                experiment, limits, {**shared, **mapped}, seed, run
            )
        )(mapped, seeds, runs)

    return Program(jax.jit(initial), jax.jit(start), jax.jit(chunk))


def run_shapes(experiment: Experiment, grid: Grid, num_slots: int) -> RunState:
    """Shapes and dtypes of the `RunState` of `num_slots` members."""
    program = make_program(experiment)
    shared, mapped, seeds = grid.arguments(np.zeros(num_slots, np.int32))
    initial = jax.eval_shape(program.initial, seeds)
    return jax.eval_shape(program.start, shared, mapped, seeds, initial)


def memory_of_chunk(experiment: Experiment, grid: Grid, num_slots: int) -> int:
    """Bytes that a chunk of `num_slots` members needs, by the compiler's account."""
    shared, mapped, seeds = grid.arguments(np.zeros(num_slots, np.int32))
    shapes = run_shapes(experiment, grid, num_slots)
    lowered = make_program(experiment).chunk.lower(
        Limits(), shared, mapped, seeds, shapes
    )
    account = lowered.compile().memory_analysis()
    return int(
        account.argument_size_in_bytes
        + account.output_size_in_bytes
        + account.temp_size_in_bytes
    )


def num_slots(grid: Grid, max_parallel: int | None = None) -> int:
    """M: as few rounds as the bound allows, and no more slots than those need.

    Args:
      grid: the members.
      max_parallel: most members advanced at once; None is no bound.

    Raises:
      ValueError: `max_parallel` is below 1.
    """
    values = np.stack([grid.seeds * 0, *grid.shared.values()], axis=1)
    largest = int(np.unique(values, axis=0, return_counts=True)[1].max())
    if max_parallel is None:
        return largest
    if max_parallel < 1:
        raise ValueError(f"max_parallel: expected at least 1, got {max_parallel}")
    rounds = -(-largest // max_parallel)
    return -(-largest // rounds)


def init_sweep(grid: Grid, *, max_parallel: int | None = None) -> SweepState:
    """The state of a sweep in which no member has started; see `num_slots`."""
    unknown = np.full(grid.seeds.shape, -1, np.int32)
    return SweepState(
        slots=np.full(num_slots(grid, max_parallel), EMPTY, np.int32),
        runs=None,
        members=Members(
            status=np.full_like(unknown, Status.PENDING),
            step=np.zeros_like(unknown),
            num_errors=unknown,
            best_num_errors=unknown,
            best_step=unknown,
        ),
        curves=Curves(*(np.zeros(0, t) for t in (*"iiffi",))),
    )


def iterate_sweep(
    experiment: Experiment,
    grid: Grid,
    state: SweepState,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[SweepState]:
    """Advances a sweep chunk by chunk, and yields its state after each.

    A caller may stop after any chunk, keep the state, and go on from it later: the
    results are the same to the bit.

    Args:
      experiment: what all members have in common.
      grid: the members.
      state: from `init_sweep`, or the last one of an earlier call.
      limits: when members end unsolved.
    """
    program = make_program(experiment)
    initial = None
    while True:
        waiting = state.members.status == Status.PENDING
        if (state.slots != EMPTY).any():
            may_join = waiting & grid.companions(int(state.slots.max()))
        elif waiting.any():
            may_join = waiting & grid.companions(grid.first(waiting))
        else:
            return
        if may_join.any() and (state.slots == EMPTY).any():
            if initial is None:  # the same for all members of a seed
                initial = program.initial(jnp.asarray(np.unique(grid.seeds)))
            state = _fill(program, grid, state, may_join, initial)
        runs, check = program.chunk(limits, *grid.arguments(state.slots), state.runs)
        state = _collect(state, runs, jax.device_get(check))
        yield state


def run_sweep(
    experiment: Experiment,
    hyperparameters: Mapping[str, ArrayLike],
    seeds: ArrayLike,
    *,
    limits: Limits = DEFAULT_LIMITS,
    max_parallel: int | None = None,
) -> SweepState:
    """Trains a whole grid.

    Args:
      experiment: what all members have in common.
      hyperparameters: name to `[N]` values.
      seeds: `[N]` integers; members of one seed see the same weights and data.
      limits: when members end unsolved.
      max_parallel: most members advanced at once; None is no bound.

    Returns:
      The last state: `members` has the results, `curves` all evaluations.

    Raises:
      ValueError: the arrays do not have one value per member.
    """
    grid = make_grid(experiment, hyperparameters, seeds)
    last = init_sweep(grid, max_parallel=max_parallel)
    for state in iterate_sweep(experiment, grid, last, limits=limits):
        last = state
    return last


@jax.jit
def _put(fresh: jax.Array, new: RunState, old: RunState) -> RunState:
    """`new` in the fresh slots, `old` in the others."""

    def put(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(fresh.reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(put, new, old)


def _fill(
    program: Program,
    grid: Grid,
    state: SweepState,
    may_join: np.ndarray,
    initial: Initial,
) -> SweepState:
    """Puts waiting members (`may_join`, `[N]` bool) into empty slots.

    `initial` has a row for each different seed, in increasing order.
    """
    joining = np.flatnonzero(may_join)
    where = np.flatnonzero(state.slots == EMPTY)[: joining.size]
    joining = joining[: where.size]
    slots = state.slots.copy()
    slots[where] = joining
    shared, mapped, seeds = grid.arguments(slots)
    unique = np.unique(grid.seeds)
    row = np.searchsorted(unique, np.asarray(seeds))
    runs = program.start(shared, mapped, seeds, jax.tree.map(lambda x: x[row], initial))
    if state.runs is None:
        status = jnp.where(jnp.asarray(slots) == EMPTY, Status.PENDING, runs.status)
        runs = runs._replace(status=status.astype(jnp.int32))
    else:
        fresh = np.zeros(slots.shape, bool)
        fresh[where] = True
        runs = _put(jnp.asarray(fresh), runs, state.runs)
    metrics = jax.device_get(initial.metrics)
    row = np.searchsorted(unique, grid.seeds[joining])
    errors = metrics.num_errors[row]
    rows = Curves(
        member=joining.astype(np.int32),
        step=np.zeros(joining.shape, np.int32),
        train_loss=np.full(joining.shape, np.nan, np.float32),
        loss=metrics.loss[row].astype(np.float32),
        num_errors=errors,
    )
    return SweepState(
        slots=slots,
        runs=runs,
        members=_write(state.members, joining, Status.RUNNING, 0, errors, errors, 0),
        curves=_extend(state.curves, rows),
    )


def _collect(state: SweepState, runs: RunState, check: Check) -> SweepState:
    """Notes what a chunk did, and empties the slots of members that ended."""
    status, step, num_errors, best = jax.device_get(
        (runs.status, runs.train.step, runs.num_errors, runs.best_num_errors)
    )
    full = np.flatnonzero(state.slots != EMPTY)
    ran = state.slots[full]
    best_step = np.where(
        best[full] < state.members.best_num_errors[ran],
        step[full],
        state.members.best_step[ran],
    )
    rows = Curves(
        member=ran,
        step=step[full],
        train_loss=np.asarray(check.train_loss, np.float32)[full],
        loss=np.asarray(check.loss, np.float32)[full],
        num_errors=num_errors[full],
    )
    slots = np.where(status == Status.RUNNING, state.slots, EMPTY)
    return SweepState(
        slots=slots,
        runs=runs if (slots != EMPTY).any() else None,
        members=_write(
            state.members,
            ran,
            status[full],
            step[full],
            num_errors[full],
            best[full],
            best_step,
        ),
        curves=_extend(state.curves, rows),
    )


def _write(members: Members, index: np.ndarray, *values: Any) -> Members:
    """A copy of `members` with a value for each column at `index`."""
    written = Members(*(column.copy() for column in members))
    for column, value in zip(written, values, strict=True):
        column[index] = value
    return written


def _extend(curves: Curves, rows: Curves) -> Curves:
    return Curves(*(np.concatenate([a, b]) for a, b in zip(curves, rows, strict=True)))
