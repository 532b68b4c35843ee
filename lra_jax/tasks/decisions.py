"""Decisions about noisy evidence, of one stream or of the one that counts.

Two channels of a stream have the means 1/2 ± c/2 while it is shown, with c the
coherence, and noise of standard deviation 1 / sqrt(dt in ms). The answer is the channel
with the larger mean, class 1 or 2.

*Perceptual decision.* Britten, Shadlen, Newsome and Movshon (1992, J. Neurosci. 12,
4745-4765), with coherences c of 6.4, 12.8, 25.6 and 51.2 %, noise and means as in
neurogym's PerceptualDecisionMaking, without its coherence 0, whose answer is a coin. As
in Yang et al. (2019), fixation takes 100-400 ms, the stimulus 400-1,600 ms; the
response takes 500 ms.

*Context-dependent integration.* Mante, Sussillo, Shenoy and Newsome (2013, Nature 503,
78-84): two streams, and two inputs one of which is 1 in the whole trial and says which
stream counts. Coherences of 5, 15 and 50 %, fixation of 300 ms and a stimulus of 750 ms
as in neurogym's ContextDecisionMaking; a delay of 300-1,200 ms, response 500 ms.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lra_jax import types
from lra_jax.tasks.trials import Period, Trials, shown

PERCEPTUAL = Trials((Period(100, 400), Period(400, 1600), Period(500, 500)))
CONTEXT = Trials(
    (Period(300, 300), Period(750, 750), Period(300, 1200), Period(500, 500))
)
PERCEPTUAL_COHERENCES = (0.064, 0.128, 0.256, 0.512)
CONTEXT_COHERENCES = (0.05, 0.15, 0.5)


def _streams(
    key: jax.Array, choices: jax.Array, coherences: tuple[float, ...]
) -> jax.Array:
    """Means of the two channels of streams `[..., 2]`, of choices 0 or 1 `[...]`."""
    size = jax.random.choice(key, jnp.array(coherences), choices.shape)
    side = 2 * jax.nn.one_hot(choices, 2) - 1
    return 0.5 + 0.5 * size[..., None] * side


def _draw_perceptual(key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
    keys = jax.random.split(key, 5)
    when = PERCEPTUAL.draw(keys[0], batch_size, seq_len)
    choices = jax.random.randint(keys[1], (batch_size,), 0, 2, jnp.int32)
    means = _streams(keys[2], choices, PERCEPTUAL_COHERENCES)
    noise = PERCEPTUAL.noise(keys[3], (seq_len, batch_size, 2), 1.0)
    stimulus = shown(when.inside(1), means, noise)
    return PERCEPTUAL.batch(keys[4], stimulus, 1 + choices, when)


def _draw_context(key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
    keys = jax.random.split(key, 6)
    when = CONTEXT.draw(keys[0], batch_size, seq_len)
    choices = jax.random.randint(keys[1], (batch_size, 2), 0, 2, jnp.int32)
    context = jax.random.randint(keys[2], (batch_size,), 0, 2, jnp.int32)
    means = _streams(keys[3], choices, CONTEXT_COHERENCES).reshape(batch_size, 4)
    noise = CONTEXT.noise(keys[4], (seq_len, batch_size, 4), 1.0)
    stimulus = shown(when.inside(1), means, noise)
    cue = jnp.broadcast_to(jax.nn.one_hot(context, 2)[None], (seq_len, batch_size, 2))
    answer = 1 + choices[jnp.arange(batch_size), context]
    inputs = jnp.concatenate([stimulus, cue], axis=-1)
    return CONTEXT.batch(keys[5], inputs, answer, when)


perceptual_decision = PERCEPTUAL.task(_draw_perceptual, input_size=3, num_answers=2)

context_integration = CONTEXT.task(_draw_context, input_size=7, num_answers=2)
