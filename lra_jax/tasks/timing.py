"""Ready-set-go: measure an interval, and produce it again.

Jazayeri and Shadlen (2010, Nature Neuroscience 13, 1020-1026); Sohn, Narain, Meirhaeghe
and Jazayeri (2019, Neuron 103, 934-947), whose two ranges, 480-800 and 800-1,200 ms,
are joined here. After 100-400 ms of fixation an input flashes for 83 ms, *ready*; an
interval of n steps later another one, *set*. The network is to wait, class 0, until n
steps after set, and to say go, class 1, from then on. A trial ends 2n steps after set.
The fixation signal is 1 before set, and all inputs have the noise of
`lra_jax.tasks.trials`.

The first step of go may be up to 0.2 n steps and 25 ms away from the true time, which
is the tolerance of neurogym's ReadySetGo. Steps from the earliest such step up to the
last one ask nothing, the last one asks to go. Thus a trial in which all that is asked
is right is one whose interval is produced within the tolerance. The steps of go count
together as much as all that ask to wait. Who always produces the same interval can be
right in 44% of the trials at T = 40, and in 60% at T = 160: compare with it, and not
with `chance`, which is what waiting or going throughout gets right.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lra_jax import losses, types
from lra_jax.tasks.task import Task
from lra_jax.tasks.trials import Period, Trials, ratio_of, timeline

# Fixation, the interval that is shown, and twice as much.
TRIALS = Trials((Period(100, 400), Period(480, 1200), Period(960, 2400)))
FLASH, TOLERANCE = 83, 25  # ms


def _draw(key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
    key_fixation, key_interval, key_noise = jax.random.split(key, 3)
    fixation, interval = (
        jax.random.randint(key, (batch_size,), least, most + 1, jnp.int32)
        for key, (least, most) in zip(
            (key_fixation, key_interval), TRIALS.ranges(seq_len)[:2], strict=True
        )
    )
    when = timeline(jnp.stack([fixation, interval, 2 * interval]), seq_len)
    ready, set_, step = when.edges[1][None], when.edges[2][None], when.step
    flash = max(1, TRIALS.num_steps(seq_len, FLASH))
    inputs = jnp.stack(
        [
            (when.start[None] <= step) & (step < set_),
            (ready <= step) & (step < ready + flash),
            (set_ <= step) & (step < set_ + flash),
        ],
        axis=-1,
    )
    go = set_ + interval[None]
    # ⌊n / 5 + 25 ms / dt⌋.
    duration = TRIALS.duration
    tolerance = (interval * duration + 5 * TOLERANCE * seq_len) // (5 * duration)
    wait = (when.start[None] <= step) & (step < go - tolerance[None])
    late = step >= go + tolerance[None]
    noise = TRIALS.noise(key_noise, inputs.shape)
    ratio = ratio_of(wait, late, noise.dtype)[None]
    return types.Batch(
        inputs=inputs.astype(noise.dtype) + noise,
        labels=types.Weighted(
            (step >= go).astype(jnp.int32),
            jnp.where(late, ratio, wait.astype(noise.dtype)),
        ),
        start=when.start,
    )


ready_set_go = Task(
    draw=_draw,
    input_size=3,
    output_size=2,
    min_seq_len=30,
    chance=0.0,
    output_loss=losses.cross_entropy_every_step,
)
