"""What a chunk changes: members in slots, their results, curves and races."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lra_jax.member import Check, Initial, RunState, Status
from lra_jax.sweep import processes
from lra_jax.sweep.grid import Grid
from lra_jax.sweep.program import Program
from lra_jax.sweep.state import Curves, Members, SweepState
from lra_jax.tiles import EMPTY


def move_members(compiled: Program, state: SweepState, slots: np.ndarray) -> SweepState:
    """The state with its members in other slots."""
    if slots is state.slots or state.runs is None:
        return state._replace(slots=slots)
    place = np.zeros(state.members.step.shape, np.int32)
    filled = state.slots != EMPTY
    place[state.slots[filled]] = np.flatnonzero(filled)
    source = np.where(slots == EMPTY, 0, place[slots])
    return state._replace(slots=slots, runs=compiled.move(state.runs, source))


# Initial weights that are drawn at once, in bytes, besides those of members that join.
INITIAL_BYTES = 1 << 28


class Seeds(NamedTuple):
    """What members start from, the same for all of a seed and of a network's numbers.

    Attributes:
      row: `[N]`, of each member in the other two; -1 of those that are not in them.
      initial: `[S]`, on the devices.
      evaluation: `[S]`, of `initial`, in this process's memory.
    """

    row: np.ndarray
    initial: Initial
    evaluation: Any  # `Evaluation` of NumPy arrays


def evaluate_seeds(
    compiled: Program,
    grid: Grid,
    joining: np.ndarray,
    queue: np.ndarray,
    network_numbers: Sequence[str] = (),
) -> Seeds:
    """Draws and evaluates the initial weights of each different seed and network.

    Of the members that join, and of those that wait as many more as fit into
    `INITIAL_BYTES`. Another number of them is another program to compile.

    Args:
      compiled: the program.
      grid: the members.
      joining: those that are started now.
      queue: those that wait, in order; these may be among them.
      network_numbers: names of the hyper-parameters that tell networks apart.
    """
    numbers = {**grid.mapped, **grid.shared}
    numbers = {name: numbers[name] for name in network_numbers}
    wanted = np.concatenate([joining, queue])
    columns = np.stack([grid.seeds.astype(float), *numbers.values()], axis=1)[wanted]
    _, first, row = np.unique(columns, axis=0, return_index=True, return_inverse=True)
    row = row.reshape(-1)
    at_once = np.unique(row[: joining.size]).size
    each = grid.weight_bytes or 1  # not known: no bound
    most = max(INITIAL_BYTES // each, at_once)
    if first.size > most:  # those that are wanted first
        chosen = np.argsort(first)[:most]
        place = np.full(first.size, -1)
        place[chosen] = np.arange(most)
        first, row = first[chosen], place[row]
    members = wanted[first]
    initial = compiled.initial(
        jnp.asarray(grid.seeds[members]),
        {name: jnp.asarray(x[members]) for name, x in numbers.items()},
    )
    evaluation = jax.device_get(processes.local(initial.evaluation))
    rows = np.full(grid.seeds.shape, -1)
    rows[wanted] = row
    return Seeds(rows, initial, evaluation)


def start_members(
    compiled: Program,
    grid: Grid,
    state: SweepState,
    slots: np.ndarray,
    seeds: Seeds,
    history: History,
) -> SweepState:
    """Starts the members of `slots` that are not in the state's slots."""
    fresh = slots != state.slots
    joining = slots[fresh]
    row = np.maximum(seeds.row[grid.occupants(slots)], 0)  # others stay as they are
    runs = compiled.start(grid.arguments(slots), seeds.initial, row, fresh, state.runs)
    row = seeds.row[joining]
    errors, samples = (
        x[row] for x in (seeds.evaluation.num_errors, seeds.evaluation.num_samples)
    )
    rows = Curves(
        member=joining,
        step=np.zeros(joining.shape, np.int32),
        train_loss=np.full(joining.shape, np.nan, np.float32),
        loss=seeds.evaluation.loss[row].astype(np.float32),
        num_errors=errors,
        num_samples=samples,
    )
    return SweepState(
        slots=slots,
        runs=runs,
        members=_write(
            state.members,
            joining,
            Members(
                status=np.full_like(errors, Status.RUNNING),
                step=np.zeros_like(errors),
                num_errors=errors,
                num_samples=samples,
                best_num_errors=errors,
                best_num_samples=samples,
                best_step=np.zeros_like(errors),
            ),
        ),
        curves=history.extend(rows),
    )


def collect(
    state: SweepState, runs: RunState, check: Check, history: History
) -> SweepState:
    """Notes what a chunk did, and empties the slots of members that ended."""
    best = runs.best.num_errors, runs.best.num_samples
    results = runs.status, runs.train.step, runs.num_errors, runs.num_samples, *best
    *columns, check = jax.device_get(processes.local((*results, check)))
    full = state.slots != EMPTY
    ran = state.slots[full]
    step, errors, samples, best_errors, best_samples = (x[full] for x in columns[1:])
    before = state.members
    improved = (best_samples > before.best_num_samples[ran]) | (
        best_errors < before.best_num_errors[ran]
    )
    status = columns[0]
    rows = Curves(
        member=ran,
        step=step,
        train_loss=np.asarray(check.train_loss, np.float32)[full],
        loss=np.asarray(check.loss, np.float32)[full],
        num_errors=errors,
        num_samples=samples,
    )
    slots = np.where(status == Status.RUNNING, state.slots, EMPTY)
    return SweepState(
        slots=slots,
        runs=runs if (slots != EMPTY).any() else None,
        members=_write(
            before,
            ran,
            Members(
                status=status[full],
                step=step,
                num_errors=errors,
                num_samples=samples,
                best_num_errors=best_errors,
                best_num_samples=best_samples,
                best_step=np.where(improved, step, before.best_step[ran]),
            ),
        ),
        curves=history.extend(rows),
    )


def end_races(state: SweepState, race: np.ndarray | None) -> SweepState:
    """Ends the members of races that have a winner, and empties their slots."""
    status = state.members.status
    won = status == Status.SOLVED
    if race is None or not won.any():
        return state
    lost = np.flatnonzero(np.isin(race, race[won]) & (status <= Status.RUNNING))
    slots = np.where(np.isin(state.slots, lost), EMPTY, state.slots)
    status = status.copy()
    status[lost] = Status.OUTRUN
    return state._replace(
        slots=slots,
        runs=state.runs if (slots != EMPTY).any() else None,
        members=state.members._replace(status=status),
    )


def _write(members: Members, index: np.ndarray, values: Members) -> Members:
    """A copy of `members` with what is new of those at `index`."""
    written = Members(*(column.copy() for column in members))
    for column, value in zip(written, values, strict=True):
        column[index] = value
    return written


class History:
    """Curves that grow: what is there already is not copied for every new row.

    The arrays it gives are the beginnings of longer ones, to be read only. They stay as
    they are when more rows come.
    """

    def __init__(self, curves: Curves):
        self._size = curves.member.size
        self._columns = Curves(*(x.copy() for x in curves))

    def extend(self, rows: Curves) -> Curves:
        """All curves, after more rows."""
        size = self._size + rows.member.size
        if size > self._columns.member.size:
            room = max(size, 2 * self._size)
            longer = Curves(*(np.empty(room, x.dtype) for x in self._columns))
            for new, old in zip(longer, self._columns, strict=True):
                new[: self._size] = old[: self._size]
            self._columns = longer
        for column, values in zip(self._columns, rows, strict=True):
            column[self._size : size] = values
        self._size = size
        curves = Curves(*(column[:size] for column in self._columns))
        for column in curves:
            column.flags.writeable = False
        return curves
