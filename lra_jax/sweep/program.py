"""The compiled program: the only file with a grid axis."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec

from lra_jax import member
from lra_jax.experiment import Experiment, Hyperparameters
from lra_jax.member import Check, Initial, Limits, RunState
from lra_jax.sweep import processes
from lra_jax.sweep.grid import Arguments, Grid
from lra_jax.sweep.stored import StoredProgram

_IN_TILE = Arguments(shared=None, mapped=0, seeds=0)  # vmap's axes in a tile


class Program(NamedTuple):
    """The compiled functions of an experiment on some devices, for any tiles.

    Attributes:
      initial: `(seeds [S], numbers) -> Initial [S]`, what members of these seeds start
        from; `numbers` are those of the network, name to `[S]`.
      start: `(Arguments, Initial [S], row, fresh, runs) -> RunState`: members at their
        start in the fresh slots (bool), from their row of `Initial`; in the others what
        `runs` has, if it is not None.
      chunk: `(limits, used [tiles], Arguments, runs) -> (RunState, Check)`.
      move: `(runs, source) -> RunState`: each slot gets what the slot with the number
        `source` had.
    """

    initial: Callable[[jax.Array, Any], Initial]
    start: Callable[..., RunState]
    chunk: Any  # jitted: callable, and `lower` shows its cost
    move: Callable[[RunState, np.ndarray], RunState]


@functools.lru_cache(maxsize=16)
def make_program(experiment: Experiment, devices: tuple[jax.Device, ...]) -> Program:
    """Vmaps over slots, maps over tiles, shards over devices, and jits.

    An equal experiment gets the same program, so that going on with a sweep compiles
    nothing again. Nothing is compiled before the first call.
    """
    mesh = processes.make_mesh(devices)
    tiled, whole = PartitionSpec("grid"), PartitionSpec()
    everywhere, count = NamedSharding(mesh, whole), len(devices)

    def jitted(function: Callable[..., Any], **options: Any) -> Any:
        if experiment.task.validation is None:
            return jax.jit(function, **options)
        return StoredProgram(function, everywhere, **options)

    def shared(function: Callable[..., Any], *in_specs: PartitionSpec) -> Any:
        return jax.shard_map(
            function,
            mesh=mesh,
            in_specs=in_specs,
            out_specs=tiled,
            check_vma=False,  # no tile knows of another
        )

    def initial(seeds: jax.Array, numbers: Hyperparameters) -> Initial:
        def rows(*some: Any) -> Initial:
            return lax.map(lambda row: member.initial(experiment, *row), some)

        # The last one several times, so that all devices have as many.
        at = jnp.minimum(jnp.arange(-(-len(seeds) // count) * count), len(seeds) - 1)
        found = shared(rows, tiled, tiled)(
            *jax.tree.map(lambda x: x[at], (seeds, numbers))
        )
        return jax.tree.map(lambda x: x[: len(seeds)], found)

    def start(
        arguments: Arguments,
        initial: Initial,
        row: jax.Array,
        fresh: jax.Array,
        runs: RunState | None,
    ) -> RunState:
        def slot(
            one: Arguments, row: jax.Array, fresh: jax.Array, run: RunState | None
        ) -> RunState:
            first = jax.tree.map(lambda x: x[row], initial)
            new = member.start(experiment, one.hyperparameters, one.seeds, first)
            if run is None:
                return new
            return jax.tree.map(lambda a, b: jnp.where(fresh, a, b), new, run)

        tile = jax.vmap(slot, in_axes=(_IN_TILE, 0, 0, 0))
        return jax.vmap(tile)(arguments, row, fresh, runs)

    def chunk(
        limits: Limits, used: jax.Array, arguments: Arguments, runs: RunState
    ) -> tuple[RunState, Check]:
        def slot(one: Arguments, run: RunState) -> tuple[RunState, Check]:
            return member.advance(
                experiment, limits, one.hyperparameters, one.seeds, run
            )

        def leave(arguments: Arguments, runs: RunState) -> tuple[RunState, Check]:
            dtype = runs.train.params.w_hy.dtype
            nothing = jnp.zeros(arguments.seeds.shape, dtype)
            return runs, Check(nothing, nothing)

        def tile(row: tuple[jax.Array, Arguments, RunState]) -> tuple[RunState, Check]:
            advance = jax.vmap(slot, in_axes=(_IN_TILE, 0))
            return lax.cond(row[0], advance, leave, *row[1:])

        return lax.map(tile, (used, arguments, runs))

    def move(runs: RunState, source: jax.Array) -> RunState:
        def take(x: jax.Array) -> jax.Array:
            tiles, width, *rest = x.shape
            moved = x.reshape((tiles * width, *rest))[source]
            return lax.with_sharding_constraint(moved, processes.division(mesh, moved))

        return jax.tree.map(take, runs)

    return Program(
        initial=jitted(initial, out_shardings=everywhere),
        start=jitted(shared(start, tiled, whole, tiled, tiled, tiled)),
        chunk=jitted(shared(chunk, whole, tiled, tiled, tiled)),
        move=jax.jit(move),
    )


def run_shapes(experiment: Experiment, grid: Grid, slots: np.ndarray) -> RunState:
    """Shapes and dtypes of the `RunState` of the members in the slots."""

    def slot(one: Arguments) -> RunState:
        initial = member.initial(experiment, one.seeds, one.hyperparameters)
        return member.start(experiment, one.hyperparameters, one.seeds, initial)

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
    compiled = _lower_chunk(experiment, grid, slots, devices).compile()
    account: Any = compiled.memory_analysis()
    return int(
        account.argument_size_in_bytes
        + account.output_size_in_bytes
        + account.temp_size_in_bytes
    )


def _lower_chunk(
    experiment: Experiment,
    grid: Grid,
    slots: np.ndarray,
    devices: Sequence[jax.Device] | None,
) -> jax.stages.Lowered:
    """The program of a chunk as a sweep calls it: a cache then has it for the sweep."""
    devices = processes.all_devices(devices)
    mesh = processes.make_mesh(devices)
    runs = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape,
            x.dtype,
            sharding=processes.division(mesh, x),
            weak_type=x.weak_type,
        ),
        run_shapes(experiment, grid, slots),
    )
    return make_program(experiment, devices).chunk.lower(
        Limits(), np.zeros(len(slots), bool), grid.arguments(slots), runs
    )
