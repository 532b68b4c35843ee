"""What a device can do at most, measured, for `experiments.device`.

Rates of a large product, of many small products as an update has them, and of memory;
the time of one step of a loop with next to no work, which a kernel takes at least; and
that of one call from Python. All of float32 at the highest precision, on the first
device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from experiments.speed import timings
from experiments.speed.timings import Timing
from lra_jax import numerics

_STEPS = 1000  # of a loop


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of what is measured.

    Attributes:
      matrix: side of the large product's matrices.
      floats: of the array that is read and written.
      members: of which there are small products `[B, H] x [H, H]`, each number in turn.
    """

    matrix: int = 8192
    floats: int = 2**28
    members: tuple[int, ...] = (256, 4096)


@dataclasses.dataclass(frozen=True)
class Roofline:
    """What bounds a device.

    Attributes:
      product_rate: multiply-adds per second of a large product.
      small_product_rate: of small ones, the best of all numbers of members.
      byte_rate: bytes read and written per second.
      kernel_seconds: of a step of a loop whose length the compiler knows.
      unknown_step_seconds: of a step of a loop whose length it does not know.
      call_seconds: of one call of a compiled program from Python.
    """

    product_rate: float
    small_product_rate: float
    byte_rate: float
    kernel_seconds: float
    unknown_step_seconds: float
    call_seconds: float


def _timing(
    name: str, function: Callable[..., Any], work: float, *arguments: Any
) -> Timing:
    """A compiled function, called again and again; the device's queue is kept full."""
    placed = jax.device_put(arguments, jax.local_devices()[0])
    compiled, seconds = timings.compile_jitted(jax.jit(function), *placed)

    def run(calls: int) -> None:
        for _ in range(calls):
            result = compiled(*placed)
        jax.block_until_ready(result)

    return Timing(name, run, work, seconds)


def _loop(x: jax.Array, steps: int | jax.Array) -> jax.Array:
    return lax.fori_loop(0, steps, lambda i, x: jnp.sin(x), x)


def _large_product(side: int) -> Timing:
    matrix = jnp.full((side, side), 1 / side, jnp.float32)
    return _timing(
        f"a product of [{side}, {side}]", numerics.matmul, side**3, matrix, matrix
    )


def _small_products(members: int, batch_size: int, hidden_size: int) -> Timing:
    return _timing(
        f"{members} products of [B, H] and [H, H]",
        numerics.matmul,
        members * batch_size * hidden_size**2,
        jnp.full((members, batch_size, hidden_size), 0.1, jnp.float32),
        jnp.full((members, hidden_size, hidden_size), 0.1, jnp.float32),
    )


def _copy(floats: int) -> Timing:
    array = jnp.ones(floats, jnp.float32)
    return _timing(f"x + 1 of {floats:,} floats", lambda x: x + 1, 8 * floats, array)


def _step() -> Timing:
    return _timing("a step of a loop", lambda x: _loop(x, _STEPS), _STEPS, jnp.ones(8))


def _unknown_step() -> Timing:
    arguments = jnp.ones(8), jnp.int32(_STEPS)
    return _timing("a step of a loop of unknown length", _loop, _STEPS, *arguments)


def _call() -> Timing:
    return _timing("a call", jnp.sin, 1, jnp.ones(8))


def measure(
    sizes: Sizes,
    batch_size: int,
    hidden_size: int,
    *,
    repeats: int,
    seconds: float,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Roofline, list[dict[str, Any]]]:
    """Measures all, one after the other, so that no two need memory at once.

    Returns:
      The best of each, and a row for each that was measured.
    """
    rows: list[dict[str, Any]] = []

    def best(make: Callable[..., Timing], *arguments: int) -> float:
        timing = make(*arguments)
        timings.measure([timing], repeats, seconds, say)
        rows.append(timing.describe())
        return timing.calls * timing.work / min(timing.seconds)

    shape = (batch_size, hidden_size)
    found = Roofline(
        product_rate=best(_large_product, sizes.matrix),
        small_product_rate=max(
            best(_small_products, members, *shape) for members in sizes.members
        ),
        byte_rate=best(_copy, sizes.floats),
        kernel_seconds=1 / best(_step),
        unknown_step_seconds=1 / best(_unknown_step),
        call_seconds=1 / best(_call),
    )
    return found, rows
