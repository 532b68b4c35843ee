"""One batch over several devices: what a program needs that one device does not.

Rules are written for one device and a whole batch. Where JAX divides arrays by itself
nothing more is needed. Two kinds of programs ask for more:

- `jax.shard_map` runs the program on each device's part of the batch, and wants to
  know what differs from device to device (`varying_as`).
- On a mesh with Explicit axes, every operation has to say how its result is divided.
  A rule has its whole computation divided by JAX, and says it of the results
  (`divided`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

Function = TypeVar("Function", bound=Callable[..., Any])


def varying_as(x: jax.Array, other: jax.Array) -> jax.Array:
    """`x`, which counts as different on all devices where `other` is.

    The carry of a scan needs it: zeros are the same everywhere, sums of data are not.
    """
    # A choice between both varies as either. The compiler knows which one it is.
    return jnp.where(jnp.bool_(False), jnp.sum(other).astype(x.dtype), x)


def each_own(tree: Any, other: jax.Array) -> Any:
    """`varying_as` of all arrays of a pytree.

    What is differentiated in `jax.shard_map` needs it: the derivative by an array that
    all devices share is the sum over the devices.
    """
    return jax.tree.map(lambda x: varying_as(x, other), tree)


def spec(x: Any, *, axis: int | None = None) -> PartitionSpec:
    """How `x` is divided, or a single axis of it; not at all where nothing is said."""
    found = PartitionSpec()
    sharding = _explicit(x)
    if sharding is not None:
        found = sharding.spec
    if axis is None:
        return found
    return PartitionSpec(found[axis] if axis < len(found) else None)


def like(tree: Any) -> Any:
    """`spec` of all arrays of a pytree."""
    return jax.tree.map(spec, tree)


def _explicit(x: Any) -> NamedSharding | None:
    """The sharding of an array on a mesh that has Explicit axes, else None."""
    if not isinstance(x, jax.Array):
        return None
    sharding = getattr(jax.typeof(x), "sharding", None)
    if not isinstance(sharding, NamedSharding):
        return None
    explicit = AxisType.Explicit in (sharding.mesh.axis_types or ())
    return sharding if explicit else None


def divided(result: Callable[..., Any]) -> Callable[[Function], Function]:
    """Makes a function work on meshes with Explicit axes; elsewhere it stays as it is.

    Args:
      result: of the function's arguments, how what it returns is divided: a pytree of
        `PartitionSpec` of the same structure, or of a prefix of it.
    """

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            leaves, tree = jax.tree.flatten((arguments, options))
            there = [i for i, x in enumerate(leaves) if _explicit(x) is not None]
            if not there:
                return function(*arguments, **options)
            mesh = jax.typeof(leaves[there[0]]).sharding.mesh
            axes = tuple(
                name
                for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
                if kind == AxisType.Explicit
            )

            def automatic(*found: Any) -> Any:
                mixed = list(leaves)
                for i, x in zip(there, found, strict=True):
                    mixed[i] = x
                arguments, options = jax.tree.unflatten(tree, mixed)
                return function(*arguments, **options)

            shardings = jax.tree.map(
                lambda spec: NamedSharding(mesh, spec),
                result(*arguments, **options),
                is_leaf=lambda x: isinstance(x, PartitionSpec),
            )
            run = jax.sharding.auto_axes(automatic, axes=axes, out_sharding=shardings)
            return run(*(leaves[i] for i in there))

        return call  # type: ignore[return-value]

    return decorate
