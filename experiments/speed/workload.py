"""What `experiments.benchmark` times, and the operations that it cannot avoid.

The unit is a *member-step*: one update of one member of a grid. `experiments.wall_time`
costs a whole grid by the same counts.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lra_jax import TASKS
from lra_jax.tasks import Task


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed."""

    task: str = "temporal_order"
    seq_len: int = 10
    num_refinements: int = 10
    members: int = 45
    hidden_size: int = 100
    batch_size: int = 20
    repeats: int = 5
    seconds: float = 0.5


class Operations(NamedTuple):
    """What one member-step cannot avoid."""

    multiply_adds: int  # of matrix products
    tanh: int  # evaluations
    bytes: int  # of weights, read once and written once


def operations(settings: Settings) -> Operations:
    """Counts the products and tanh of one update of lra_diff with λ = 0.

    Products of [B, H] and [H, H], B H² multiply-adds each; z₋₁ = 0 saves t = 0:

        forward T-1,   targets (T-1)(2K-1),   ∇W_hh T-1       together (T-1)(2K+1)

    and of the readout, B H Y each: logits 1, the top target 2K-1, ∇W_hy 1. At k = 1
    a target needs one product instead of two: h̄ is h, whose product is known. Real
    inputs need x W_xh and xᵀ u at every t; symbols are a gather and a scatter.

    tanh of B H units: z T times, ẑ T times; at every k ≥ 2 the top target's z̄, and of
    the T-1 others z̄ and ẑ'. The library evaluates more, to keep float32 accurate at
    small displacements; that is a choice, so it is not counted.
    """
    task = TASKS[settings.task]
    seq_len, k, batch, hidden = (
        settings.seq_len,
        settings.num_refinements,
        settings.batch_size,
        settings.hidden_size,
    )
    x, y = task.input_size, task.output_size
    products = (seq_len - 1) * (2 * k + 1) * batch * hidden**2
    products += (2 * k + 1) * batch * hidden * y
    if not _has_symbols(task):
        products += 2 * seq_len * batch * x * hidden
    weights = x * hidden + hidden**2 + hidden + hidden * y + y
    return Operations(
        multiply_adds=products,
        tanh=(2 * seq_len + (k - 1) * (2 * seq_len - 1)) * batch * hidden,
        bytes=2 * 4 * weights,
    )


def _has_symbols(task: Task) -> bool:
    shapes = jax.eval_shape(
        lambda: task.sample(jax.random.key(0), 1, max(1, task.min_seq_len))
    )
    return bool(jnp.issubdtype(shapes.inputs.dtype, jnp.integer))
