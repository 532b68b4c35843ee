"""Dynamics to be made: a memory of three bits, and sines of given frequencies.

Both of Sussillo and Barak (2013, Neural Computation 25, 626-649).

*Flip-flop.* Each of three inputs is ±1 at a step with probability 5/T, else 0, with
noise of standard deviation 0.1. Each of three outputs is to be the sign of the last
pulse of its input; before the first one it is not asked. A sequence is right if every
output that is asked has the right sign at every step.

*Sine.* The input is j/51 + 1/4, j = U{0..50}, at all steps, with noise of standard
deviation 0.01. The output is sin(ω t), whose ω is from 0.1 to 0.6 radians per step at
T = 60, and there are as many cycles at any T: ω = (0.1 + 0.5 j/50) 60/T. A sequence is
right if the mean of (output - sine)² is at most 0.04. The noise is ours.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lra_jax import losses, types
from lra_jax.tasks.task import Task

NUM_BITS, NUM_FREQUENCIES = 3, 51
PULSES = 5.0  # expected of an input, of both signs


def _wrong_sign(logits: jax.Array, labels: types.Weighted) -> jax.Array:
    wrong = ~(logits * labels.labels > 0) & (labels.weights != 0)
    return jnp.any(wrong, axis=(0, 2))


def _far(logits: jax.Array, labels: types.Weighted) -> jax.Array:
    return ~(losses.squared_error_every_step.value(logits, labels) <= 0.04)


def _draw_bits(key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
    key_pulse, key_sign, key_noise = jax.random.split(key, 3)
    shape = (seq_len, batch_size, NUM_BITS)
    at = jax.random.bernoulli(key_pulse, PULSES / seq_len, shape)
    pulses = jnp.where(at, jax.random.rademacher(key_sign, shape, float), 0)

    def hold(bits: jax.Array, pulse: jax.Array) -> tuple[jax.Array, jax.Array]:
        bits = jnp.where(pulse != 0, pulse, bits)
        return bits, bits

    _, bits = jax.lax.scan(hold, jnp.zeros_like(pulses[0]), pulses)
    noise = 0.1 * jax.random.normal(key_noise, shape)
    return types.Batch(
        inputs=pulses + noise, labels=types.Weighted(bits, jnp.abs(bits))
    )


def _draw_sine(key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
    key_frequency, key_noise = jax.random.split(key)
    index = jax.random.randint(key_frequency, (batch_size,), 0, NUM_FREQUENCIES)
    index = index.astype(float)
    omega = (0.1 + 0.5 * index / (NUM_FREQUENCIES - 1)) * (60 / seq_len)
    step = jnp.arange(seq_len, dtype=float)[:, None]
    level = (index / NUM_FREQUENCIES + 0.25)[None, :, None]
    noise = 0.01 * jax.random.normal(key_noise, (seq_len, batch_size, 1))
    return types.Batch(
        inputs=level + noise,
        labels=types.Weighted(
            jnp.sin(omega[None] * step)[..., None], jnp.ones((seq_len, batch_size))
        ),
    )


flip_flop = Task(
    draw=_draw_bits,
    input_size=NUM_BITS,
    output_size=NUM_BITS,
    min_seq_len=10,
    # All pulses of the sign that is answered: exp(-5/2) for each input where T is long.
    chance=5.5e-4,
    output_loss=losses.squared_error_every_step._replace(is_error=_wrong_sign),
)

sine = Task(
    draw=_draw_sine,
    input_size=1,
    output_size=1,
    min_seq_len=20,
    chance=0.0,
    output_loss=losses.squared_error_every_step._replace(is_error=_far),
)
