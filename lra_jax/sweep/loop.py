"""The host loop: members into slots, chunk after chunk, until all have ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
from numpy.typing import ArrayLike

from lra_jax import member, tiles
from lra_jax.experiment import Experiment
from lra_jax.member import Limits, Status
from lra_jax.sweep import bookkeeping, processes, program, weights
from lra_jax.sweep.grid import Grid, make_grid
from lra_jax.sweep.state import Curves, Members, OnChunk, SweepState
from lra_jax.tiles import EMPTY

DEFAULT_LIMITS = Limits()


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
      tile_width: most members advanced in lockstep by a device; None is a number for
        members of this size on a CPU, and no bound elsewhere.
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
    devices = processes.all_devices(devices)
    if tile_width is None and devices[0].platform == "cpu":
        tile_width = tiles.width_on_cpu(grid.weight_bytes)
    unknown = np.full(grid.seeds.shape, -1, np.int32)
    return SweepState(
        slots=tiles.make(grid.kind, len(devices), max_parallel, tile_width),
        runs=None,
        members=Members(
            status=np.full_like(unknown, Status.PENDING),
            step=np.zeros_like(unknown),
            num_errors=unknown,
            num_samples=unknown,
            best_num_errors=unknown,
            best_num_samples=unknown,
            best_step=unknown,
        ),
        curves=Curves(*(np.zeros(0, t) for t in (*"iiffii",))),
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
    has to end the others (as `lra_jax.lab.grid` does), which wait for it.

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
    yield from _advance(experiment, grid, state, limits, devices, on_chunk, None)


def _advance(
    experiment: Experiment,
    grid: Grid,
    state: SweepState,
    limits: Limits,
    devices: Sequence[jax.Device] | None,
    on_chunk: OnChunk | None,
    kept: weights.KeptWeights | None,
) -> Iterator[SweepState]:
    """`iterate_sweep`, which keeps weights as well."""
    devices = processes.all_devices(devices)
    limits = member.check_limits(limits)
    mesh = processes.make_mesh(devices)
    compiled = program.make_program(experiment, devices)
    missing = -len(state.slots) % len(devices)
    rows = np.full((missing, state.slots.shape[1]), EMPTY, np.int32)
    state = bookkeeping.move_members(
        compiled,
        state._replace(runs=processes.spread(state.runs, mesh)),
        np.concatenate([state.slots, rows]),
    )
    queue = np.flatnonzero(state.members.status == Status.PENDING)
    queue = queue[np.argsort(grid.kind[queue], kind="stable")]
    seeds, history = None, bookkeeping.History(state.curves)
    while queue.size or (state.slots != EMPTY).any():
        if (state.slots == EMPTY).any():
            slots = tiles.fill(state.slots, grid.kind, queue, len(devices))
            fresh = slots != state.slots
            if fresh.any():
                joining = slots[fresh]
                if seeds is None or (seeds.row[joining] < 0).any():
                    seeds = None  # lets go of those that are on the devices
                    seeds = bookkeeping.evaluate_seeds(
                        compiled, grid, joining, queue, experiment.network_numbers
                    )
                state = bookkeeping.start_members(
                    compiled, grid, state, slots, seeds, history
                )
                queue = queue[state.members.status[queue] == Status.PENDING]
                if kept is not None:
                    kept.note_start(joining, seeds.row[joining], seeds.initial.params)
            slots = tiles.compact(
                state.slots, grid.kind, len(devices), narrow=not queue.size
            )
            state = bookkeeping.move_members(compiled, state, slots)
        used = (state.slots != EMPTY).any(axis=1)
        arguments, advanced = grid.arguments(state.slots), state.slots
        collected, too_much = None, False
        try:
            runs, check = compiled.chunk(limits, used, arguments, state.runs)
            if jax.process_count() == 1:
                collected = bookkeeping.collect(state, runs, check, history)
            else:  # before the others take part, it has to be there
                jax.block_until_ready((runs, check))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or state.slots.shape[1] == 1:
                raise
            too_much = True
        if processes.in_any_process(too_much, mesh):
            # The same members, half as many of them in lockstep.
            state = bookkeeping.move_members(compiled, state, tiles.halve(state.slots))
            continue
        state = collected or bookkeeping.collect(state, runs, check, history)
        if grid.race is not None:
            state = bookkeeping.end_races(state, grid.race)
            queue = queue[state.members.status[queue] == Status.PENDING]
        if kept is not None:
            kept.note_chunk(state.members, runs, advanced, state.slots)
        if on_chunk is not None:
            on_chunk(state, weights.of_ended(runs, advanced, state.slots))
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
    keep_params: weights.Evaluation | None = None,
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
      keep_params: "last" keeps the weights of each member at its last evaluation,
        "best" those at its best one, the first of them (see `lra_jax.validation`); it
        may be that of the initial weights. They are copied to the host after a chunk
        and change nothing else. None keeps none.

    Returns:
      The last state: `members` has the results, `curves` all evaluations, and `params`
      the weights that were kept, `[N, ...]`. They are NaN for a member that was outrun
      before it started.

    Raises:
      ValueError: see `make_grid`; or a limit, `max_parallel` or `tile_width` is no
        integer, or too small; or `keep_params` is none of the three.

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

      The best weights of the best member, and what they get right of new data:

      >>> state = sweep.run_sweep(
      ...     experiment, numbers, seeds=[0, 0], limits=limits, keep_params="best"
      ... )
      >>> winner = state.members.best_num_errors.argmin()
      >>> params = jax.tree.map(lambda x: x[winner], state.params)
      >>> batch = experiment.task.sample(jax.random.key(7), 100, 10)
      >>> 0 <= lra_jax.evaluate(params, batch).num_errors.item() <= 100
      True
    """
    grid = make_grid(experiment, hyperparameters, seeds)
    last = init_sweep(
        grid, max_parallel=max_parallel, tile_width=tile_width, devices=devices
    )
    kept = None
    if keep_params is not None:
        kept = weights.KeptWeights(keep_params, grid.seeds.size)
    for state in _advance(experiment, grid, last, limits, devices, on_chunk, kept):
        last = state
    return last if kept is None else last._replace(params=kept.params)
