"""The devices of a sweep, and the processes that share it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lra_jax.member import RunState
from lra_jax.sweep.state import SweepState


def all_devices(devices: Sequence[jax.Device] | None) -> tuple[jax.Device, ...]:
    """These devices; all of `jax.devices()` for None."""
    return tuple(jax.devices() if devices is None else devices)


def make_mesh(devices: tuple[jax.Device, ...]) -> Mesh:
    """One axis, `grid`, along which tiles are divided."""
    return Mesh(np.array(devices), ("grid",))


def gather(state: SweepState) -> SweepState:
    """The state with all of its runs in this process's memory.

    What several processes share has to be gathered by all of them at once.
    """
    return state._replace(runs=local(state.runs))


def local(tree: Any) -> Any:
    """Arrays of this process alone, whole, also of what several processes share."""
    leaves = jax.tree.leaves(tree)
    if jax.process_count() == 1 or not leaves:
        return tree
    shared = _replicate(leaves[0].sharding.mesh)(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), shared)


def in_any_process(here: bool, mesh: Mesh) -> bool:
    """Whether it is so in one process: all have to go on in the same way."""
    if jax.process_count() == 1:
        return here
    each = jax.make_array_from_callback(
        (mesh.size,),
        NamedSharding(mesh, PartitionSpec("grid")),
        lambda _: np.full(1, here),
    )
    return bool(np.asarray(local(each)).any())


def spread(runs: RunState | None, mesh: Mesh) -> RunState | None:
    """The runs divided among all devices, wherever they were.

    Where the tiles are no multiple of the devices, or there are several processes,
    each device has all at first.
    """
    if runs is None or jax.process_count() > 1:
        return runs if runs is None else _replicate(mesh)(runs)

    def place(x: Any) -> jax.Array:
        divides = len(x) % mesh.size == 0
        whole = NamedSharding(mesh, PartitionSpec())
        return jax.device_put(x, division(mesh, x) if divides else whole)

    return jax.tree.map(place, runs)


def division(mesh: Mesh, x: Any) -> NamedSharding:
    """How an array of a `RunState` is divided among devices.

    All of it by tiles, but arrays without elements, which JAX leaves whole where
    `shard_map` returns them. Another division is another program to the compiler.
    """
    return NamedSharding(mesh, PartitionSpec("grid") if x.size else PartitionSpec())


@functools.cache
def _replicate(mesh: Mesh) -> Callable[[Any], Any]:
    return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))
