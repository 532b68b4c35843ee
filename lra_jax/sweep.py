"""A grid of training runs as one batched computation: the only file with a grid axis.

A compiled *chunk* advances the members in its slots by `eval_every` updates and
evaluates them. The host loop puts members into slots, takes them out when they end,
fills their slots with members that wait, and moves the last ones together
(`lra_jax.tiles`): the compiled program stays the same, and an ended member is not paid
for.

Hyper-parameters are arrays `[N]`. Those named in `Experiment.shared` set how long the
program runs (K does). They are a scalar for each tile of slots.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import ArrayLike

from lra_jax import member, settings, tiles, types
from lra_jax.member import (
    Check,
    Experiment,
    Hyperparameters,
    Initial,
    Limits,
    RunState,
    Status,
)
from lra_jax.tiles import EMPTY

DEFAULT_LIMITS = Limits()

# Members that one CPU core advances in lockstep: their weights and states fit into its
# cache, and more only leave it (BUILD_NOTES.md). Other devices take all that they have.
TILE_WIDTH = {"cpu": 4}


class Curves(NamedTuple):
    """Evaluations of all members, one row each, in the order they were made.

    Attributes:
      member: `[R]` int32, whose evaluation it is.
      step: `[R]` int32, updates done.
      train_loss: `[R]` float32, mean since the member's last row; NaN at step 0.
      loss: `[R]` float32, E on the validation set.
      num_errors: `[R]` int32, on the validation set.

    Example:
      `run_sweep` has one.
    """

    member: np.ndarray
    step: np.ndarray
    train_loss: np.ndarray
    loss: np.ndarray
    num_errors: np.ndarray


class Members(NamedTuple):
    """Where each member is, arrays `[N]` of int32; -1 is not known yet.

    Attributes:
      status: a `Status`.
      step: updates done.
      num_errors: at the last evaluation.
      best_num_errors: the fewest of all evaluations.
      best_step: updates done at the first evaluation with that many.

    Example:
      `run_sweep` has one.
    """

    status: np.ndarray
    step: np.ndarray
    num_errors: np.ndarray
    best_num_errors: np.ndarray
    best_step: np.ndarray


class SweepState(NamedTuple):
    """All that is needed to go on, between two chunks.

    Attributes:
      slots: `[tiles, width]` int32, the member in each slot, or `EMPTY`.
      runs: arrays `[tiles, width, ...]`; None when all slots are empty.
      members: results so far.
      curves: evaluations so far.

    Example:
      `run_sweep` has one.
    """

    slots: np.ndarray
    runs: RunState | None
    members: Members
    curves: Curves


Weights = Mapping[int, types.Params]  # members to NumPy arrays
OnChunk = Callable[[SweepState, Weights], None]


class Arguments(NamedTuple):
    """What tells the members in some slots apart.

    Attributes:
      shared: name to `[tiles]`, hyper-parameters that are a scalar for each tile.
      mapped: name to `[tiles, width]`, all others.
      seeds: `[tiles, width]` uint32.
    """

    shared: Any
    mapped: Any
    seeds: Any

    @property
    def hyperparameters(self) -> Hyperparameters:
        """Of one slot, all."""
        return {**self.shared, **self.mapped}


_IN_TILE = Arguments(shared=None, mapped=0, seeds=0)  # vmap's axes in a tile


class Grid(NamedTuple):
    """The members of a sweep.

    Attributes:
      shared: name to `[N]`, hyper-parameters that are a scalar for each tile.
      mapped: name to `[N]`, all others.
      seeds: `[N]` uint32.
      kind: `[N]` int, equal for members that may be in one tile: a number for each
        different combination of shared values, in increasing order.
      race: `[N]` int, equal for members of which the first that is solved ends the
        others; None if all run to their own end.

    Example:
      `make_grid` has one.
    """

    shared: dict[str, np.ndarray]
    mapped: dict[str, np.ndarray]
    seeds: np.ndarray
    kind: np.ndarray
    race: np.ndarray | None = None

    def arguments(self, slots: np.ndarray) -> Arguments:
        """Of the members in the slots, `[tiles, width]`.

        An empty slot computes a copy of another one of its tile, and is ignored.
        """
        some = np.maximum(slots.max(axis=1, keepdims=True), 0)
        filled = np.where(slots == EMPTY, some, slots)
        return Arguments(
            {name: x[some[:, 0]] for name, x in self.shared.items()},
            {name: x[filled] for name, x in self.mapped.items()},
            self.seeds[filled],
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
      ValueError: the arrays do not have one value per member, hyper-parameters are no
        real numbers, or seeds no integers from 0 to 2³² - 1.

    Example:
      >>> experiment = sweep.Experiment(
      ...     lra_jax.TASKS["temporal_order"],
      ...     lambda numbers: (lra_jax.readout_only(), optax.sgd(numbers["lr"])),
      ...     seq_len=10, hidden_size=8, eval_every=5, num_validation=50,
      ... )
      >>> numbers = {"lr": [0.1, 0.3], "num_refinements": [1, 2]}
      >>> grid = sweep.make_grid(experiment, numbers, seeds=[0, 0])
      >>> sorted(grid.mapped), sorted(grid.shared), grid.kind.tolist()
      (['lr'], ['num_refinements'], [0, 1])
    """
    seeds = settings.check_seeds(seeds)
    arrays = {
        name: settings.check_values(name, values, seeds.size)
        for name, values in hyperparameters.items()
    }
    shared = {n: x for n, x in arrays.items() if n in experiment.shared}
    values = np.stack([np.zeros(seeds.shape), *shared.values()], axis=1)
    return Grid(
        shared=shared,
        mapped={n: x for n, x in arrays.items() if n not in experiment.shared},
        seeds=seeds,
        kind=np.unique(values, axis=0, return_inverse=True)[1].reshape(-1),
    )


class Program(NamedTuple):
    """The compiled functions of an experiment on some devices, for any tiles.

    Attributes:
      initial: `(seeds [S]) -> Initial [S]`, what members of these seeds start from.
      start: `(Arguments, Initial [S], row, fresh, runs) -> RunState`: members at their
        start in the fresh slots (bool), from their row of `Initial`; in the others what
        `runs` has, if it is not None.
      chunk: `(limits, used [tiles], Arguments, runs) -> (RunState, Check)`.
      move: `(runs, source) -> RunState`: each slot gets what the slot with the number
        `source` had.
    """

    initial: Callable[[jax.Array], Initial]
    start: Callable[..., RunState]
    chunk: Any  # a jitted function: callable, and `lower` shows its cost
    move: Callable[[RunState, np.ndarray], RunState]


@functools.lru_cache(maxsize=16)
def make_program(experiment: Experiment, devices: tuple[jax.Device, ...]) -> Program:
    """Vmaps over slots, maps over tiles, shards over devices, and jits.

    An equal experiment gets the same program, so that going on with a sweep compiles
    nothing again. Nothing is compiled before the first call.
    """
    mesh = _mesh(devices)
    tiled, whole = PartitionSpec("grid"), PartitionSpec()

    def sharded(function: Callable[..., Any], *in_specs: PartitionSpec) -> Any:
        mapped = jax.shard_map(
            function,
            mesh=mesh,
            in_specs=in_specs,
            out_specs=tiled,
            check_vma=False,  # no tile knows of another
        )
        return jax.jit(mapped)

    def initial(seeds: jax.Array) -> Initial:
        return lax.map(lambda seed: member.initial(experiment, seed), seeds)

    def start(
        arguments: Arguments,
        initial: Initial,
        row: jax.Array,
        fresh: jax.Array,
        runs: RunState | None,
    ) -> RunState:
        def slot(
            mine: Arguments, row: jax.Array, fresh: jax.Array, run: RunState | None
        ) -> RunState:
            first = jax.tree.map(lambda x: x[row], initial)
            new = member.start(experiment, mine.hyperparameters, mine.seeds, first)
            if run is None:
                return new
            return jax.tree.map(lambda a, b: jnp.where(fresh, a, b), new, run)

        tile = jax.vmap(slot, in_axes=(_IN_TILE, 0, 0, 0))
        return jax.vmap(tile)(arguments, row, fresh, runs)

    def chunk(
        limits: Limits, used: jax.Array, arguments: Arguments, runs: RunState
    ) -> tuple[RunState, Check]:
        def slot(mine: Arguments, run: RunState) -> tuple[RunState, Check]:
            return member.advance(
                experiment, limits, mine.hyperparameters, mine.seeds, run
            )

        def leave(arguments: Arguments, runs: RunState) -> tuple[RunState, Check]:
            dtype = runs.train.params.w_hh.dtype
            nothing = jnp.zeros(arguments.seeds.shape, dtype)
            return runs, Check(nothing, nothing)

        def tile(now: tuple[jax.Array, Arguments, RunState]) -> tuple[RunState, Check]:
            advance = jax.vmap(slot, in_axes=(_IN_TILE, 0))
            return lax.cond(now[0], advance, leave, *now[1:])

        return lax.map(tile, (used, arguments, runs))

    def move(runs: RunState, source: jax.Array) -> RunState:
        def take(x: jax.Array) -> jax.Array:
            return x.reshape((-1, *x.shape[2:]))[source]

        return jax.tree.map(take, runs)

    return Program(
        initial=jax.jit(initial, out_shardings=NamedSharding(mesh, whole)),
        start=sharded(start, tiled, whole, tiled, tiled, tiled),
        chunk=sharded(chunk, whole, tiled, tiled, tiled),
        move=jax.jit(move, out_shardings=NamedSharding(mesh, tiled)),
    )


def _mesh(devices: tuple[jax.Device, ...]) -> Mesh:
    return Mesh(np.array(devices), ("grid",))


def _devices(devices: Sequence[jax.Device] | None) -> tuple[jax.Device, ...]:
    return tuple(jax.devices() if devices is None else devices)


def run_shapes(experiment: Experiment, grid: Grid, slots: np.ndarray) -> RunState:
    """Shapes and dtypes of the `RunState` of the members in the slots."""

    def slot(mine: Arguments) -> RunState:
        initial = member.initial(experiment, mine.seeds)
        return member.start(experiment, mine.hyperparameters, mine.seeds, initial)

    tile = jax.vmap(slot, in_axes=(_IN_TILE,))
    return jax.eval_shape(jax.vmap(tile), grid.arguments(slots))


def memory_of_chunk(
    experiment: Experiment,
    grid: Grid,
    slots: np.ndarray,
    *,
    devices: Sequence[jax.Device] | None = None,
) -> int:
    """Bytes that a chunk needs on each device, by the compiler's account."""
    devices = _devices(devices)
    lowered = make_program(experiment, devices).chunk.lower(
        DEFAULT_LIMITS,
        np.zeros(len(slots), bool),
        grid.arguments(slots),
        run_shapes(experiment, grid, slots),
    )
    account = lowered.compile().memory_analysis()
    return int(
        account.argument_size_in_bytes
        + account.output_size_in_bytes
        + account.temp_size_in_bytes
    )


def init_sweep(
    grid: Grid,
    *,
    max_parallel: int | None = None,
    tile_width: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> SweepState:
    """The state of a sweep in which no member has started.

    Args:
      grid: the members.
      max_parallel: most members advanced by one chunk, rounded up to full tiles on
        every device; None is no bound.
      tile_width: most members advanced in lockstep by a device; None is `TILE_WIDTH`.
      devices: among which tiles are divided; None is all of `jax.devices()`.

    Raises:
      ValueError: `max_parallel` or `tile_width` is no integer of at least 1.

    Example:
      >>> experiment = sweep.Experiment(
      ...     lra_jax.TASKS["temporal_order"],
      ...     lambda numbers: (lra_jax.readout_only(), optax.sgd(numbers["lr"])),
      ...     seq_len=10, hidden_size=8, eval_every=5, num_validation=50,
      ... )
      >>> numbers = {"lr": [0.1, 0.3], "num_refinements": [1, 2]}
      >>> grid = sweep.make_grid(experiment, numbers, seeds=[0, 0])
      >>> state = sweep.init_sweep(grid)
      >>> [sweep.Status(status).name for status in state.members.status]
      ['PENDING', 'PENDING']
    """
    devices = _devices(devices)
    if tile_width is None:
        tile_width = TILE_WIDTH.get(devices[0].platform)
    unknown = np.full(grid.seeds.shape, -1, np.int32)
    return SweepState(
        slots=tiles.make(grid.kind, len(devices), max_parallel, tile_width),
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
    devices: Sequence[jax.Device] | None = None,
    on_chunk: OnChunk | None = None,
) -> Iterator[SweepState]:
    """Advances a sweep chunk by chunk, and yields its state after each.

    A caller may stop after any chunk, keep the state, and go on from it later, on as
    many devices as there are then: the results are the same. In a race, what the
    others have done when one is solved depends on which were advanced at once.

    Where a device's memory does not suffice, tiles are halved until it does: those of
    all processes, where one finds it so. Other errors are of one process alone, and it
    has to end the others (as `experiments.grid` does), which wait for it.

    Args:
      experiment: what all members have in common.
      grid: the members.
      state: from `init_sweep`, or the last one of an earlier call.
      limits: when members end unsolved.
      devices: among which tiles are divided; None is all of `jax.devices()`.
      on_chunk: see `run_sweep`; of several processes, all need one or none.

    Raises:
      ValueError: a limit is no integer, or too small.

    Example:
      >>> experiment = sweep.Experiment(
      ...     lra_jax.TASKS["temporal_order"],
      ...     lambda numbers: (lra_jax.readout_only(), optax.sgd(numbers["lr"])),
      ...     seq_len=10, hidden_size=8, eval_every=5, num_validation=50,
      ... )
      >>> grid = sweep.make_grid(experiment, {"lr": [0.1, 0.3]}, seeds=[0, 1])
      >>> state, limits = sweep.init_sweep(grid), sweep.Limits(max_steps=10)
      >>> for state in sweep.iterate_sweep(experiment, grid, state, limits=limits):
      ...     print(state.members.step)
      [5 5]
      [10 10]
    """
    devices = _devices(devices)
    limits = member.check_limits(limits)
    program = make_program(experiment, devices)
    missing = -len(state.slots) % len(devices)
    rows = np.full((missing, state.slots.shape[1]), EMPTY, np.int32)
    state = _move(
        program,
        state._replace(runs=_spread(state.runs, _mesh(devices))),
        np.concatenate([state.slots, rows]),
    )
    queue = np.flatnonzero(state.members.status == Status.PENDING)
    queue = queue[np.argsort(grid.kind[queue], kind="stable")]
    initial, history = None, _History(state.curves)
    while queue.size or (state.slots != EMPTY).any():
        if (state.slots == EMPTY).any():
            slots = tiles.fill(state.slots, grid.kind, queue, len(devices))
            joining = np.setdiff1d(slots[slots != EMPTY], state.slots)
            if joining.size:
                if initial is None:  # the same for all members of a seed
                    initial = program.initial(jnp.asarray(np.unique(grid.seeds)))
                state = _start(program, grid, state, slots, initial, history)
                queue = queue[~np.isin(queue, joining)]
            slots = tiles.compact(
                state.slots, grid.kind, len(devices), narrow=not queue.size
            )
            state = _move(program, state, slots)
        used = (state.slots != EMPTY).any(axis=1)
        arguments, advanced = grid.arguments(state.slots), state.slots
        collected, too_much = None, False
        try:
            runs, check = program.chunk(limits, used, arguments, state.runs)
            if jax.process_count() == 1:
                collected = _collect(state, runs, check, history)
            else:  # before the others take part, it has to be there
                jax.block_until_ready((runs, check))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or state.slots.shape[1] == 1:
                raise
            too_much = True
        if _in_any_process(too_much, _mesh(devices)):
            # The same members, half as many of them in lockstep.
            state = _move(program, state, tiles.halve(state.slots))
            continue
        state = collected or _collect(state, runs, check, history)
        state = _end_races(state, grid.race)
        queue = queue[state.members.status[queue] == Status.PENDING]
        if on_chunk is not None:
            on_chunk(state, _weights(runs, advanced, state.slots))
        yield state


def run_sweep(
    experiment: Experiment,
    hyperparameters: Mapping[str, ArrayLike],
    seeds: ArrayLike,
    *,
    limits: Limits = DEFAULT_LIMITS,
    max_parallel: int | None = None,
    tile_width: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    on_chunk: OnChunk | None = None,
) -> SweepState:
    """Trains a whole grid.

    Args:
      experiment: what all members have in common.
      hyperparameters: name to `[N]` values.
      seeds: `[N]` integers from 0 to 2³² - 1; members of one seed see the same weights
        and data.
      limits: when members end unsolved.
      max_parallel: see `init_sweep`, as for the next two.
      tile_width: most members advanced in lockstep by a device.
      devices: among which tiles are divided.
      on_chunk: is called after every chunk of `eval_every` updates with the state, and
        with the last weights of the members that it ended (also of those outrun). The
        newest rows of `state.curves` are the chunk's. What it returns is ignored; to
        stop early, iterate over `iterate_sweep`.

    Returns:
      The last state: `members` has the results, `curves` all evaluations.

    Raises:
      ValueError: see `make_grid`; or a limit, `max_parallel` or `tile_width` is no
        integer, or too small.

    Example:
      >>> experiment = sweep.Experiment(
      ...     lra_jax.TASKS["temporal_order"],
      ...     lambda numbers: (lra_jax.readout_only(), optax.sgd(numbers["lr"])),
      ...     seq_len=10, hidden_size=8, eval_every=5, num_validation=50,
      ... )
      >>> numbers, limits = {"lr": [0.1, 0.3]}, sweep.Limits(max_steps=10)
      >>> state = sweep.run_sweep(experiment, numbers, seeds=[0, 0], limits=limits)
      >>> [sweep.Status(status).name for status in state.members.status]
      ['EXHAUSTED', 'EXHAUSTED']
      >>> state.curves.member.tolist(), state.curves.step.tolist()
      ([0, 1, 0, 1, 0, 1], [0, 0, 5, 5, 10, 10])
    """
    grid = make_grid(experiment, hyperparameters, seeds)
    last = init_sweep(
        grid, max_parallel=max_parallel, tile_width=tile_width, devices=devices
    )
    for state in iterate_sweep(
        experiment, grid, last, limits=limits, devices=devices, on_chunk=on_chunk
    ):
        last = state
    return last


def gather(state: SweepState) -> SweepState:
    """The state with all of its runs in this process's memory.

    What several processes share has to be gathered by all of them at once.
    """
    return state._replace(runs=_local(state.runs))


def _local(tree: Any) -> Any:
    """Arrays of this process alone, whole, also of what several processes share."""
    leaves = jax.tree.leaves(tree)
    if jax.process_count() == 1 or not leaves:
        return tree
    shared = _replicate(leaves[0].sharding.mesh)(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), shared)


def _in_any_process(found: bool, mesh: Mesh) -> bool:
    """Whether it is so in one process: all have to go on in the same way."""
    if jax.process_count() == 1:
        return found
    each = jax.make_array_from_callback(
        (mesh.size,),
        NamedSharding(mesh, PartitionSpec("grid")),
        lambda _: np.full(1, found),
    )
    return bool(np.asarray(_local(each)).any())


def _spread(runs: RunState | None, mesh: Mesh) -> RunState | None:
    """The runs on all devices, wherever they were."""
    if runs is None or jax.process_count() > 1:
        return runs if runs is None else _replicate(mesh)(runs)
    return jax.device_put(runs, NamedSharding(mesh, PartitionSpec()))


@functools.cache
def _replicate(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _move(program: Program, state: SweepState, slots: np.ndarray) -> SweepState:
    """The state with its members in other slots."""
    if slots is state.slots or state.runs is None:
        return state._replace(slots=slots)
    place = np.zeros(state.members.step.shape, np.int32)
    filled = state.slots != EMPTY
    place[state.slots[filled]] = np.flatnonzero(filled)
    source = np.where(slots == EMPTY, 0, place[slots])
    return state._replace(slots=slots, runs=program.move(state.runs, source))


def _start(
    program: Program,
    grid: Grid,
    state: SweepState,
    slots: np.ndarray,
    initial: Initial,
    history: _History,
) -> SweepState:
    """Starts the members of `slots` that are not in the state's slots.

    `initial` has a row for each different seed, in increasing order.
    """
    fresh = slots != state.slots
    joining = slots[fresh]
    unique = np.unique(grid.seeds)
    arguments = grid.arguments(slots)
    row = np.searchsorted(unique, arguments.seeds)
    runs = program.start(arguments, initial, row, fresh, state.runs)
    metrics = jax.device_get(_local(initial.metrics))
    row = np.searchsorted(unique, grid.seeds[joining])
    errors = metrics.num_errors[row]
    rows = Curves(
        member=joining,
        step=np.zeros(joining.shape, np.int32),
        train_loss=np.full(joining.shape, np.nan, np.float32),
        loss=metrics.loss[row].astype(np.float32),
        num_errors=errors,
    )
    return SweepState(
        slots=slots,
        runs=runs,
        members=_write(state.members, joining, Status.RUNNING, 0, errors, errors, 0),
        curves=history.extend(rows),
    )


def _collect(
    state: SweepState, runs: RunState, check: Check, history: _History
) -> SweepState:
    """Notes what a chunk did, and empties the slots of members that ended."""
    results = runs.status, runs.train.step, runs.num_errors, runs.best_num_errors
    status, step, num_errors, best, check = jax.device_get(_local((*results, check)))
    full = state.slots != EMPTY
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
        curves=history.extend(rows),
    )


def _weights(runs: RunState, before: np.ndarray, after: np.ndarray) -> Weights:
    """The weights of the members that a chunk took out of the slots."""
    left = np.argwhere((before != EMPTY) & (after == EMPTY))
    if not left.size:
        return {}
    params = jax.device_get(_local(runs.train.params))
    return {
        int(before[tile, slot]): types.Params(*(x[tile, slot] for x in params))
        for tile, slot in left
    }


def _end_races(state: SweepState, race: np.ndarray | None) -> SweepState:
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


def _write(members: Members, index: np.ndarray, *values: Any) -> Members:
    """A copy of `members` with a value for each column at `index`."""
    written = Members(*(column.copy() for column in members))
    for column, value in zip(written, values, strict=True):
        column[index] = value
    return written


class _History:
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
        found = Curves(*(column[:size] for column in self._columns))
        for column in found:
            column.flags.writeable = False
        return found
