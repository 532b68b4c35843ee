"""Tasks of working memory: what was shown has to be kept through a delay.

Fixation takes 100-400 ms where nothing else is said, and the response 500 ms. Stimuli
of the first four have noise of standard deviation 1 / sqrt(dt in ms).

*Delayed match to sample.* Miller, Erickson and Desimone (1996, J. Neurosci. 16,
5154-5167): a sample of 500 ms, a delay of 500-1,500 ms, a test of 500 ms. There are two
stimuli, each of them one of two channels at 1; the test is the sample in half of the
trials. Class 1 is match, 2 non-match, as in neurogym's DelayMatchSample.

*Delayed non-match to sample.* The same trials; class 1, go, where the test is not the
sample, else fixation to the end, as the task DNMS of Yang et al. (2019).

*Delayed comparison.* Romo, Brody, Hernández and Lemus (1999, Nature 399, 470-473);
Barak, Tsodyks and Romo (2010, J. Neurosci. 30, 9424-9430): two stimuli of 500 ms with a
delay of 500-1,500 ms between them. Frequencies are a pair of (18, 10), (22, 14),
(26, 18), (30, 22) and (34, 26) Hz in either order, shown as 1/2 + (f - 10)/48 in one
channel as in neurogym's DelayComparison. Class 1: the first is larger; 2: the second.

*Go or no-go with a delay.* A stimulus of 500 ms, one of two channels at 1, as in
neurogym's GoNogo; a delay of 200-1,600 ms. Class 1, go, after the second channel, else
fixation to the end.

*Memory pro and anti.* Munoz and Everling (2004, Nature Reviews Neuroscience 5,
218-228); delayed go and delayed anti of Yang et al. (2019). One of eight directions is
shown for 200-600 ms by a ring of eight channels, 0.8 exp(-(d / (π/8))² / 2) at the
distance d from what a channel prefers; a delay of 200-1,600 ms. One of two inputs is 1
in the whole trial: pro asks for that direction, class 1 to 8, anti for the opposite.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from lra_jax import types
from lra_jax.tasks.trials import Period, Trials, shown

_FIXATION, _RESPONSE = Period(100, 400), Period(500, 500)
_STIMULUS, _DELAY = Period(500, 500), Period(500, 1500)
MATCH = Trials((_FIXATION, _STIMULUS, _DELAY, _STIMULUS, _RESPONSE))
COMPARISON = MATCH
GO = Trials((_FIXATION, _STIMULUS, Period(200, 1600), _RESPONSE))
DIRECTION = Trials((_FIXATION, Period(200, 600), Period(200, 1600), _RESPONSE))
FREQUENCIES = ((18, 10), (22, 14), (26, 18), (30, 22), (34, 26))
NUM_DIRECTIONS = 8


def _draw_match(
    key: jax.Array, batch_size: int, seq_len: int, *, go_if_other: bool
) -> types.Batch:
    keys = jax.random.split(key, 4)
    when = MATCH.draw(keys[0], batch_size, seq_len)
    sample, other = jax.random.randint(keys[1], (2, batch_size), 0, 2, jnp.int32)
    noise = MATCH.noise(keys[2], (seq_len, batch_size, 2), 1.0)
    test = jnp.where(other == 1, 1 - sample, sample)
    first = shown(when.inside(1), jax.nn.one_hot(sample, 2), noise)
    second = shown(when.inside(3), jax.nn.one_hot(test, 2), noise)
    answer = other if go_if_other else 1 + other
    return MATCH.batch(keys[3], first + second, answer, when)


def _draw_comparison(key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
    keys = jax.random.split(key, 5)
    when = COMPARISON.draw(keys[0], batch_size, seq_len)
    pairs = (jnp.array(FREQUENCIES, float) - 10) / 48 + 0.5
    larger, smaller = jax.random.choice(keys[1], pairs, (batch_size,)).T
    choice = jax.random.randint(keys[2], (batch_size,), 0, 2, jnp.int32)
    first = jnp.where(choice == 0, larger, smaller)[:, None]
    second = jnp.where(choice == 0, smaller, larger)[:, None]
    noise = COMPARISON.noise(keys[3], (seq_len, batch_size, 1), 1.0)
    stimuli = shown(when.inside(1), first, noise) + shown(when.inside(3), second, noise)
    return COMPARISON.batch(keys[4], stimuli, 1 + choice, when)


def _draw_go(key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
    keys = jax.random.split(key, 4)
    when = GO.draw(keys[0], batch_size, seq_len)
    go = jax.random.randint(keys[1], (batch_size,), 0, 2, jnp.int32)
    noise = GO.noise(keys[2], (seq_len, batch_size, 2), 1.0)
    stimulus = shown(when.inside(1), jax.nn.one_hot(go, 2), noise)
    return GO.batch(keys[3], stimulus, go, when)


def _draw_direction(key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
    keys = jax.random.split(key, 4)
    when = DIRECTION.draw(keys[0], batch_size, seq_len)
    shape = (batch_size,)
    direction = jax.random.randint(keys[1], shape, 0, NUM_DIRECTIONS, jnp.int32)
    anti = jax.random.randint(keys[2], shape, 0, 2, jnp.int32)
    channel = jnp.arange(NUM_DIRECTIONS, dtype=jnp.int32)[None]
    apart = jnp.abs(channel - direction[:, None])
    apart = jnp.minimum(apart, NUM_DIRECTIONS - apart)  # in steps of 2π/8
    widths = apart.astype(float) * (16 / NUM_DIRECTIONS)
    bump = 0.8 * jnp.exp(-(widths**2) / 2)
    ring = shown(when.inside(1), bump)
    cue = jnp.broadcast_to(jax.nn.one_hot(anti, 2)[None], (seq_len, batch_size, 2))
    answer = 1 + jnp.where(anti == 1, direction + NUM_DIRECTIONS // 2, direction) % (
        NUM_DIRECTIONS
    )
    inputs = jnp.concatenate([ring, cue], axis=-1)
    return DIRECTION.batch(keys[3], inputs, answer, when)


delayed_match = MATCH.task(
    functools.partial(_draw_match, go_if_other=False), input_size=3, num_answers=2
)

delayed_nonmatch = MATCH.task(
    functools.partial(_draw_match, go_if_other=True),
    input_size=3,
    num_answers=2,
    no_go=True,
)

delayed_comparison = COMPARISON.task(_draw_comparison, input_size=2, num_answers=2)

go_nogo = GO.task(_draw_go, input_size=3, num_answers=2, no_go=True)

memory_pro_anti = DIRECTION.task(
    _draw_direction, input_size=3 + NUM_DIRECTIONS, num_answers=NUM_DIRECTIONS
)
