"""How much of a validation set an evaluation looks at: all, or stage after stage.

An evaluation on all samples costs as much as half of the training, and most of it says
nothing new. In stages it looks at the first samples, and goes on only while that can
still matter:

- At a stage that is not the last one, it goes on if there is no error yet, or fewer
  errors than the best evaluation had among the same samples.
- At the last stage, and after it slice by slice, it goes on as long as there is no
  error. Without an error among all samples a member is *solved*: that stays exact.

Of two evaluations the one that went further is better; of two that went equally far,
the one with fewer errors. The stages are the beginning of one fixed order, so that
counts are of the same samples. Without stages every evaluation looks at all of them, as
the paper's do, and the better one has fewer errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from lra_jax import settings, types

# Validation runs in slices of this many samples: the states of a tile stay in a core's
# cache, which is twice as fast as 1,000.
SLICE = 200

STAGES = (200, 1000)
"""What an evaluation looks at before all samples, where a config asks nothing else."""

UNKNOWN = np.iinfo(np.int32).max  # errors at a stage that was not reached

EvaluateSlice = Callable[[jax.Array, int], types.Metrics]  # (index, size) -> Metrics


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
      loss: `[]` E, mean over the samples it looked at.
      num_errors: `[]` int32, among these.
      num_samples: `[]` int32, how many these are.
      stage_errors: `[S]` int32, errors at each stage; `UNKNOWN` where it ended before.
    """

    loss: jax.Array
    num_errors: jax.Array
    num_samples: jax.Array
    stage_errors: jax.Array


class Best(NamedTuple):
    """The best evaluation so far, as far as later ones are compared with it."""

    num_errors: jax.Array
    num_samples: jax.Array
    stage_errors: jax.Array


def check_stages(stages: Sequence[int], total: int) -> tuple[int, ...]:
    """The stages that are smaller than the validation set, as Python integers.

    Args:
      stages: numbers of samples.
      total: samples of the validation set.

    Raises:
      ValueError: they are no increasing multiples of `SLICE`.
    """
    if isinstance(stages, (str, int)) or not isinstance(stages, Sequence):
        raise ValueError(
            "validation_stages: expected numbers of samples, such as [200, 1000], "
            f"got {stages!r}"
        )
    sizes = tuple(settings.check_size("validation_stages", x) for x in stages)
    if any(size % SLICE for size in sizes) or list(sizes) != sorted({*sizes}):
        raise ValueError(
            f"validation_stages: expected increasing multiples of {SLICE}, "
            f"got {list(stages)}"
        )
    return tuple(size for size in sizes if size < total)


def spread(size: int) -> np.ndarray:
    """An order of `size` samples whose beginnings are spread over all, `[size]` int32.

    Recorded samples may stand in order of class, and their first ones would be of one.
    Each step is the golden part of all, or the next larger one that visits every
    sample.
    """
    step = max(1, int(size * (5**0.5 - 1) / 2))
    while math.gcd(step, size) > 1:
        step += 1
    return (np.arange(size) * step % size).astype(np.int32)


def on_first(evaluate: EvaluateSlice, total: int, stages: Sequence[int]) -> Evaluation:
    """An evaluation on the first samples, a fixed number.

    Args:
      evaluate: `(index, size) -> Metrics` of a slice.
      total: how many samples.
      stages: of the evaluations that are compared with it.
    """

    def share(index: jax.Array, size: int) -> types.Metrics:
        metrics = evaluate(index, size)
        return metrics._replace(loss=metrics.loss * (size / total))

    whole, rest = divmod(total, SLICE)
    parts = []
    if whole:
        slices = lax.map(lambda i: share(i, SLICE), jnp.arange(whole))
        parts.append(jax.tree.map(lambda x: jnp.sum(x, axis=0), slices))
    if rest:
        parts.append(share(jnp.asarray(whole), rest))
    metrics = jax.tree.map(lambda *some: sum(some[1:], some[0]), *parts)
    errors = metrics.num_errors.astype(jnp.int32)
    return Evaluation(
        metrics.loss,
        errors,
        jnp.asarray(total, jnp.int32),
        jnp.where(np.array(stages, np.int32) == total, errors, UNKNOWN),
    )


class _Progress(NamedTuple):
    """An evaluation in stages, after some slices."""

    slice_index: jax.Array  # [] int32, of the next slice
    loss: jax.Array  # [] sum over samples
    num_errors: jax.Array
    stage_errors: jax.Array
    goes_on: jax.Array


def in_stages(
    evaluate: EvaluateSlice,
    total: int,
    stages: Sequence[int],
    best: Best,
    live: ArrayLike = True,
) -> Evaluation:
    """An evaluation that goes on only while that can still matter.

    Args:
      evaluate: `(index, size) -> Metrics` of a slice.
      total: samples of the validation set.
      stages: one at least, from `check_stages`.
      best: what it is compared with.
      live: `[]` bool; where it is false nothing is looked at. Members in lockstep wait
        for the one that looks furthest, which should not be one that has ended.
    """
    sizes = np.array(stages, np.int32)
    whole, rest = divmod(total, SLICE)

    def advance(progress: _Progress) -> _Progress:
        metrics = evaluate(progress.slice_index, SLICE)
        looked_at = (progress.slice_index + 1) * SLICE
        errors = progress.num_errors + metrics.num_errors.astype(jnp.int32)
        at = looked_at == sizes
        may_be_better = jnp.all(~at | (errors < best.stage_errors))
        goes_on = (errors == 0) | (may_be_better & (looked_at < sizes[-1]))
        return _Progress(
            progress.slice_index + 1,
            progress.loss + metrics.loss * SLICE,
            errors,
            jnp.where(at, errors, progress.stage_errors),
            goes_on,
        )

    shape = jax.eval_shape(lambda index: evaluate(index, SLICE), jnp.int32(0))
    begin = _Progress(
        jnp.int32(0),
        jnp.zeros((), shape.loss.dtype),
        jnp.int32(0),
        jnp.full(sizes.shape, UNKNOWN, jnp.int32),
        jnp.asarray(live, bool),
    )
    end = lax.while_loop(lambda p: p.goes_on & (p.slice_index < whole), advance, begin)
    loss, errors, looked_at = end.loss, end.num_errors, end.slice_index * SLICE
    if rest:
        metrics = evaluate(jnp.int32(whole), rest)
        loss = jnp.where(end.goes_on, loss + metrics.loss * rest, loss)
        errors += jnp.where(end.goes_on, metrics.num_errors.astype(jnp.int32), 0)
        looked_at += jnp.where(end.goes_on, rest, 0)
    count = jnp.maximum(looked_at, 1).astype(loss.dtype)
    return Evaluation(loss / count, errors, looked_at, end.stage_errors)


def is_better(evaluation: Evaluation, best: Best) -> jax.Array:
    """Whether an evaluation is better than the best one before it."""
    further = evaluation.num_samples > best.num_samples
    as_far = evaluation.num_samples == best.num_samples
    return further | (as_far & (evaluation.num_errors < best.num_errors))
