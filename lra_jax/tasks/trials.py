"""Trials of cognitive tasks: their periods, what is asked in each, what is right.

A trial is a sequence of periods, the last of which is the response. The longest trial
of a task takes T steps, so that a step is D/T ms, with D the duration of the longest
trial. A period of a to b ms has U{⌊T a/D⌋ .. ⌊T b/D⌋} steps, at least one. Trials are
aligned at their ends, as all sequences of different lengths are.

Class 0 is to fixate, which is asked before the response. After Yang, Joglekar, Song,
Newsome and Wang (2019, Nature Neuroscience 22, 297-306) and the program of it:

- The first 100 ms of the response ask nothing. The rest of it counts as much as all
  steps before it: these have the weight 1, and each step of the response
  (number of steps before) / (number of steps that are asked in it).
- A trial is right if the network fixates at every step where it is asked to, and has
  the right class at the last step, where a response asks for another one.
- All inputs have noise of standard deviation 0.01 sqrt(2 · 100 ms / dt).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lra_jax import losses, types
from lra_jax.tasks.task import Task

Draw = Callable[[jax.Array, int, int], types.Batch]

GRACE = 100  # ms of the response that ask nothing


def _fixation_or_answer_is_wrong(
    logits: jax.Array, labels: types.Weighted
) -> jax.Array:
    classes, weights = labels
    # Of a response the last step alone decides.
    step = jnp.arange(classes.shape[0])[:, None]
    answers = (classes > 0) & (weights > 0)
    last = step == jnp.max(jnp.where(answers, step, -1), axis=0)[None]
    decisive = (classes == 0) | last | ~(weights >= 0)
    shown = types.Weighted(classes, jnp.where(decisive, weights, 0))
    return losses.cross_entropy_every_step.is_error(logits, shown)


fixate_then_answer = losses.cross_entropy_every_step._replace(
    is_error=_fixation_or_answer_is_wrong
)
"""`cross_entropy_every_step` of `Weighted` labels, with the criterion of trials."""


class Period(NamedTuple):
    """How long a part of a trial takes, in ms."""

    shortest: int
    longest: int


class Timeline(NamedTuple):
    """When the periods of drawn trials begin.

    Attributes:
      edges: int32 `[P + 1, B]`, the first step of each of the P periods, and T.
      step: `[T, 1]`, 0 .. T-1.
    """

    edges: jax.Array
    step: jax.Array

    @property
    def start(self) -> jax.Array:
        """`[B]`, the first step of a trial."""
        return self.edges[0]

    def inside(self, first: int, last: int | None = None) -> jax.Array:
        """Whether a step is in one of the periods `first` to `last`, `[T, B]`."""
        end = self.edges[(first if last is None else last) + 1]
        return (self.edges[first][None] <= self.step) & (self.step < end[None])


@dataclasses.dataclass(frozen=True)
class Trials:
    """The periods of a task, in ms."""

    periods: tuple[Period, ...]

    @property
    def duration(self) -> int:
        """D, of the longest trial, in ms."""
        return sum(period.longest for period in self.periods)

    def num_steps(self, seq_len: int, ms: int) -> int:
        """⌊T ms / D⌋, how many steps some ms are."""
        return seq_len * ms // self.duration

    def step_size(self, seq_len: int) -> float:
        """dt, how many ms a step is."""
        return self.duration / seq_len

    def ranges(self, seq_len: int) -> list[tuple[int, int]]:
        """The fewest and the most steps of each period."""
        return [
            (
                max(1, self.num_steps(seq_len, period.shortest)),
                max(1, self.num_steps(seq_len, period.longest)),
            )
            for period in self.periods
        ]

    @property
    def min_seq_len(self) -> int:
        """The smallest T, 10 at least, at which T b/D is 1 for every period."""
        return max(10, *(-(-self.duration // each.longest) for each in self.periods))

    def draw(self, key: jax.Array, batch_size: int, seq_len: int) -> Timeline:
        """When the periods of some trials begin; `key` is consumed."""
        least, most = jnp.array(self.ranges(seq_len), jnp.int32).T
        shape = (len(self.periods), batch_size)
        steps = jax.random.randint(
            key, shape, least[:, None], most[:, None] + 1, jnp.int32
        )
        return timeline(steps, seq_len)

    def noise(
        self, key: jax.Array, shape: tuple[int, ...], sigma: float = 0.01 * 200**0.5
    ) -> jax.Array:
        """Noise of standard deviation σ / sqrt(dt) at every step; `key` is consumed.

        Args:
          key: of the noise.
          shape: `[T, B, ...]`.
          sigma: in sqrt(ms).
        """
        std = sigma / self.step_size(shape[0]) ** 0.5
        return std * jax.random.normal(key, shape)

    def batch(
        self, key: jax.Array, inputs: jax.Array, answer: jax.Array, when: Timeline
    ) -> types.Batch:
        """Trials with a fixation signal until the response, and what they ask.

        Args:
          key: of the noise that all inputs have; consumed.
          inputs: `[T, B, X - 1]`, all but the fixation signal.
          answer: int32 `[B]`, the class that the response asks for.
          when: the periods, the last of which is the response.
        """
        seq_len, batch_size, others = inputs.shape
        background = self.noise(key, (seq_len, batch_size, 1 + others))
        response = when.inside(len(self.periods) - 1)
        before = when.inside(0, len(self.periods) - 2)
        signal = before.astype(inputs.dtype)
        grace = self.num_steps(seq_len, GRACE)
        asked = response & (when.step >= when.edges[-2][None] + grace)
        ratio = ratio_of(before, asked, inputs.dtype)
        weights = jnp.where(asked, ratio[None], signal)
        return types.Batch(
            inputs=jnp.concatenate([signal[..., None], inputs], axis=-1) + background,
            labels=types.Weighted(
                jnp.where(response, answer[None], jnp.int32(0)), weights
            ),
            start=when.start,
        )

    def task(
        self, draw: Draw, *, input_size: int, num_answers: int, no_go: bool = False
    ) -> Task:
        """A task of such trials, with as many equally likely answers.

        Args:
          draw: `(key, batch_size, seq_len) -> Batch`.
          input_size: X.
          num_answers: of the response; each is a class besides fixation.
          no_go: whether fixation to the end is one of them; it has no other class.
        """
        return Task(
            draw=draw,
            input_size=input_size,
            output_size=1 + num_answers - no_go,
            min_seq_len=self.min_seq_len,
            chance=1 / num_answers,
            output_loss=fixate_then_answer,
        )


def ratio_of(one: jax.Array, other: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """How many of some steps there are for one of some others, `[B]` of bools `[T, B]`.

    As weights of the others they make both count the same.
    """
    count, others = (jnp.sum(x, axis=0).astype(dtype) for x in (one, other))
    return count / others


def timeline(steps: jax.Array, seq_len: int) -> Timeline:
    """The timeline of periods of so many steps `[P, B]`, which end at T."""
    last = jnp.full_like(steps[:1], seq_len)
    edges = seq_len - jnp.cumsum(steps[::-1], axis=0, dtype=jnp.int32)[::-1]
    return Timeline(
        jnp.concatenate([edges, last]), jnp.arange(seq_len, dtype=jnp.int32)[:, None]
    )


def shown(period: jax.Array, values: jax.Array, noise: ArrayLike = 0.0) -> jax.Array:
    """Values `[B, I]` and noise at the steps of a period `[T, B]`, elsewhere 0."""
    return jnp.where(period[..., None], values[None] + noise, 0)
