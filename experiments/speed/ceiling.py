"""The ceiling of `experiments.benchmark`: what this machine's best rates would allow.

The rates of products and of tanh are those of the fastest of several programs, XLA's
and PyTorch's, at the shapes of the update and in the same run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.speed import timings
from experiments.speed.timings import Timing
from experiments.speed.workload import Operations, Settings
from lra_jax import numerics
from lra_jax.lab.terminal import machine


class Ceiling(NamedTuple):
    """The member-steps per second that only the unavoidable operations allow.

    Note: an upper bound of this machine's rates at these shapes, reached by some
    program of this run. Element-wise work other than tanh, drawing data, and the slower
    products of the weight gradients are not in it.
    """

    product_rate: float  # multiply-adds per second
    tanh_rate: float  # evaluations per second

    def rate(self, needed: Operations) -> float:
        """Member-steps per second."""
        seconds = needed.multiply_adds / self.product_rate
        return 1 / (seconds + needed.tanh / self.tanh_rate)


def _chained(
    name: str, step: Callable[..., jax.Array], arrays: Sequence[Any], work: float
) -> Timing:
    """XLA's rate at x ← step(x, ...), on as many devices as x has blocks `[D, ...]`."""
    num_devices = arrays[0].shape[0]
    length = max(1, round(5e7 / work)) if work < 5e7 else 1

    def chain(x: jax.Array, *others: jax.Array) -> jax.Array:
        others = tuple(y[0] for y in others)
        return lax.fori_loop(0, length, lambda _, x: step(x, *others), x[0])[None]

    mesh = Mesh(np.array(jax.devices()[:num_devices]), ("grid",))
    spec = PartitionSpec("grid")
    mapped = jax.shard_map(
        chain, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )
    placed = [jax.device_put(x, NamedSharding(mesh, spec)) for x in arrays]
    compiled, compile_seconds = timings.compile_jitted(jax.jit(mapped), *placed)

    def run(calls: int) -> None:
        for _ in range(calls):
            jax.block_until_ready(compiled(*placed))

    return Timing(name, run, length * num_devices * work, compile_seconds)


def _device_counts() -> list[int]:
    return sorted({1, jax.device_count()})


def product_timings(settings: Settings) -> list[Timing]:
    """Batched products [n, B, H] × [n, H, H]; work in multiply-adds."""
    batch, hidden = settings.batch_size, settings.hidden_size
    rng = np.random.default_rng(0)
    orthogonal = np.linalg.qr(rng.standard_normal((hidden, hidden)))[0]

    def arrays(*counts: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.standard_normal((*counts, batch, hidden)).astype(np.float32)
        w = np.broadcast_to(orthogonal, (*counts, hidden, hidden)).astype(np.float32)
        return x, w

    each = batch * hidden**2
    found = []
    for devices, count in itertools.product(
        _device_counts(), sorted({1, 4, settings.members})
    ):
        name = f"XLA, {devices} device(s), [{count}, B, H] × [{count}, H, H]"
        found.append(
            _chained(name, numerics.matmul, arrays(devices, count), count * each)
        )
    for count in sorted({4 * machine.num_cores(), settings.members}):
        name = f"torch.bmm, its threads, [{count}, B, H] × [{count}, H, H]"
        if not timings.has_torch():
            found.append(timings.missing(name, "torch"))
            continue
        from experiments.speed import torch_baseline

        length = max(1, round(5e7 / (count * each)))
        call = torch_baseline.make_products(count, batch, hidden, length)
        found.append(_threaded(name, call, length * count * each))
    return found


def tanh_timings(settings: Settings) -> list[Timing]:
    """Evaluations of tanh; work in their number."""
    unit = settings.batch_size * settings.hidden_size
    devices = jax.device_count()
    found = []
    for count in sorted({4, settings.members}):
        x = np.linspace(-2, 2, devices * count * unit, dtype=np.float32)
        name = f"XLA, {devices} device(s), [{count}, B, H]"
        # Times 8, so that a call takes about as long as one of products.
        found.append(
            _chained(name, jnp.tanh, [x.reshape(devices, -1)], 8 * count * unit)
        )
        found[-1].work /= 8
    for count in sorted({4 * devices, settings.members, 16 * settings.members}):
        name = f"torch.tanh, its threads, [{count}, B, H]"
        if not timings.has_torch():
            found.append(timings.missing(name, "torch"))
            continue
        from experiments.speed import torch_baseline

        length = max(1, round(6e6 / (count * unit)))
        call = torch_baseline.make_tanh(count * unit, length)
        found.append(_threaded(name, call, length * count * unit))
    return found


def _threaded(name: str, call: Callable[[], Any], work: float) -> Timing:
    """Of PyTorch, with as many threads as it takes by itself."""
    from experiments.speed import torch_baseline

    def run(calls: int) -> None:
        for _ in range(calls):
            call()

    return Timing(
        name, torch_baseline.with_threads(torch_baseline.NUM_THREADS, run), work
    )
