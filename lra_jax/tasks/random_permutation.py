"""Random permutation: remember the first symbol through a stream of others.

x₀ = v ~ U{0..1}, all later symbols ~ U{2..99}, and the label is v, as a class of 100.
The literature's sequence has T + 1 symbols whose last repeats the first: the input is
its first T, the label its last.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lra_jax import types
from lra_jax.tasks.task import Task

NUM_SYMBOLS = 100


def _draw(key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
    key_noise, key_value = jax.random.split(key)
    inputs = jax.random.randint(
        key_noise, (seq_len, batch_size), 2, NUM_SYMBOLS, jnp.int32
    )
    values = jax.random.randint(key_value, (batch_size,), 0, 2, jnp.int32)
    return types.Batch(inputs=inputs.at[0].set(values), labels=values)


random_permutation = Task(
    draw=_draw,
    input_size=NUM_SYMBOLS,
    output_size=NUM_SYMBOLS,
    min_seq_len=1,
    chance=0.5,  # once the readout knows that only classes 0 and 1 occur
)
