"""The adding problem: the mean of two marked numbers (Hochreiter & Schmidhuber).

Channel 0 is 1 at p₀ = U{0..w-1} and p₁ = w + U{0..f(.4)-1}, else 0; channel 1 is
U[0, 1) everywhere. The label is the mean of channel 1 at the two marks; a sample
counts as an error when (y - label)² > 0.04.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lra_jax import losses, types
from lra_jax.tasks.task import Task, position


def _draw(key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
    key_value, key_0, key_1 = jax.random.split(key, 3)
    width = position(seq_len, 0.1)
    values = jax.random.uniform(key_value, (seq_len, batch_size))
    place_0 = jax.random.randint(key_0, (batch_size,), 0, width)
    place_1 = width + jax.random.randint(
        key_1, (batch_size,), 0, position(seq_len, 0.4)
    )
    places = jnp.stack([place_0, place_1])
    sample = jnp.arange(batch_size)[None]
    marks = jnp.zeros_like(values).at[places, sample].set(1)
    labels = jnp.mean(values[places, sample], axis=0)[:, None]
    return types.Batch(inputs=jnp.stack([marks, values], axis=-1), labels=labels)


adding = Task(
    draw=_draw,
    input_size=2,
    output_size=1,
    min_seq_len=10,
    # The best constant answer is 1/2; the mean of two uniforms is within 0.2 of it
    # with probability 1 - (2 · 0.3)² = 0.64.
    chance=0.64,
    output_loss=losses.squared_error,
)
