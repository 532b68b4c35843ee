"""Temporal order: which of two symbols stood at two (or three) places long ago.

Symbols 0 and 1 carry the information, 2..5 are distractors. The i-th informative
symbol stands at pᵢ = f(startᵢ) + U{0..w-1}, f(a) = int(T a), w = f(.1), and has the
value vᵢ ~ U{0..1}; the label is Σᵢ 2ⁱ vᵢ.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from lra_jax import types
from lra_jax.tasks.task import Task, position


def _draw(
    key: jax.Array, batch_size: int, seq_len: int, *, starts: tuple[float, ...]
) -> types.Batch:
    key_noise, key_place, key_value = jax.random.split(key, 3)
    num_bits = len(starts)
    noise = jax.random.randint(key_noise, (seq_len, batch_size), 2, 6, jnp.int32)
    first = jnp.array([position(seq_len, s) for s in starts], jnp.int32)
    places = first[:, None] + jax.random.randint(
        key_place, (num_bits, batch_size), 0, position(seq_len, 0.1), jnp.int32
    )
    values = jax.random.randint(key_value, (num_bits, batch_size), 0, 2, jnp.int32)
    inputs = noise.at[places, jnp.arange(batch_size)[None]].set(values)
    weights = 2 ** jnp.arange(num_bits, dtype=jnp.int32)
    labels = jnp.sum(weights[:, None] * values, axis=0, dtype=jnp.int32)
    return types.Batch(inputs=inputs, labels=labels)


temporal_order = Task(
    draw=functools.partial(_draw, starts=(0.1, 0.5)),
    input_size=6,
    output_size=4,
    min_seq_len=10,
    chance=0.25,
)

temporal_order_3bit = Task(
    draw=functools.partial(_draw, starts=(0.1, 0.3, 0.6)),
    input_size=6,
    output_size=8,
    min_seq_len=10,
    chance=0.125,
)
