"""A person's own arrays as samples on the device, in the parts of a task.

Arrays are read (`reading`), their sizes compared (`sizes`), divided (`division`), and
the padding moved before the sequences, where `types.Batch` has it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lra_jax import losses, types
from lra_jax.tasks import division, sizes
from lra_jax.tasks.reading import CLASSES, Records, read
from lra_jax.tasks.values import is_integer, with_axes


class Samples(NamedTuple):
    """A fixed set of samples.

    Attributes:
      size: how many there are.
      take: `(indices [B]) -> Batch`, for indices from 0 to `size` - 1; may be traced.

    Example:
      >>> inputs, labels = jnp.arange(12).reshape(4, 3), jnp.array([0, 1, 0, 1])
      >>> samples = lra_jax.Samples(
      ...     size=4, take=lambda i: lra_jax.Batch(inputs[i].T, labels[i])
      ... )
      >>> samples.take(jnp.array([0, 2])).inputs.tolist()
      [[0, 6], [1, 7], [2, 8]]
    """

    size: int
    take: Callable[[Any], types.Batch]


class Parts(NamedTuple):
    """Arrays that are read and divided, and what is known of them.

    Attributes:
      training: to train on.
      validation: held out.
      test: held out as well; None where none was asked for.
      output_loss: E.
      input_size: X.
      output_size: Y.
      seq_len: T.
      chance: the share of the validation part that a constant answer gets right.
    """

    training: Samples
    validation: Samples
    test: Samples | None
    output_loss: types.OutputLoss
    input_size: int
    output_size: int
    seq_len: int
    chance: float


def parts(
    inputs: Any,
    labels: Any,
    lengths: Any,
    held_out: dict[str, Any],
    *,
    batch_first: bool,
    output_loss: types.OutputLoss | None,
    seed: int,
    input_size: int | None,
    output_size: int | None,
) -> Parts:
    """All that `Task.from_arrays` does, but for the task.

    Args:
      inputs: see `Task.from_arrays`, as for all others.
      labels: of all samples that are no arrays of `held_out`.
      lengths: or None.
      held_out: fractions or arrays of "validation", and of "test" if it is wanted.
      batch_first: whether N is the first axis.
      output_loss: None chooses one by the labels.
      seed: of the division.
      input_size: X, or None.
      output_size: Y, or None.

    Raises:
      ValueError: see `Task.from_arrays`.
    """
    whole, loss = read(
        inputs, labels, lengths, batch_first=batch_first, output_loss=output_loss
    )
    fractions = {n: float(x) for n, x in held_out.items() if division.is_fraction(n, x)}
    given = {name: x for name, x in held_out.items() if name not in fractions}
    records = {
        name: read(*x, batch_first=batch_first, output_loss=loss, where=f"{name} ")[0]
        for name, x in given.items()
    }
    by_prefix = {"": whole} | {f"{name} ": part for name, part in records.items()}
    seq_len = sizes.seq_len(by_prefix)
    x_and_y = (
        sizes.input_size(by_prefix, input_size),
        sizes.output_size(by_prefix, loss, output_size),
    )
    others = {"training": (inputs, whole)}
    for name, part in records.items():
        for other, other_part in others.items():
            division.check_held_out(name, given[name][0], part, other, *other_part)
        others[name] = given[name][0], part
    training, *taken = division.divide(
        whole, fractions, seed, by_class=loss == losses.cross_entropy
    )
    divided = {"training": training, **dict(zip(fractions, taken, strict=True))}
    for name, part in divided.items():
        if part.weights is not None and not part.weights.any():
            raise ValueError(
                f"labels.weights: expected some above 0 in each part, all are 0 in the "
                f"{name} part that seed={seed} gives"
            )
    records |= {name: divided[name] for name in fractions}
    stored = {name: samples(part, loss, seq_len) for name, part in records.items()}
    return Parts(
        samples(training, loss, seq_len),
        stored["validation"],
        stored.get("test"),
        loss,
        *x_and_y,
        seq_len,
        chance=_chance(records["validation"], loss, training),
    )


def samples(records: Records, loss: types.OutputLoss, seq_len: int) -> Samples:
    """The records, aligned at their ends.

    They go to the device when the first of them are taken. A command can thus read
    its data before it chooses the devices.

    Args:
      records: of one part.
      loss: the task's.
      seq_len: T of the task, at least that of the records.
    """
    count, length = records.inputs.shape[:2]
    x, y, lengths, weights = records
    start = None
    if lengths is not None or length < seq_len:
        lengths = np.full(count, length, np.int32) if lengths is None else lengths
        start = seq_len - lengths
        x = align(x, start, seq_len, 0)
        if weights is not None:
            y, weights = (align(each, start, seq_len, 0) for each in (y, weights))
        elif loss.every_step:
            y = align(y, start, seq_len, -1)
    dtype = jnp.int32 if x.ndim == 2 else jnp.result_type(float)
    if x.dtype.itemsize > 2:
        x = x.astype(dtype)

    @functools.cache
    def stored() -> tuple[jax.Array, types.Labels, jax.Array | None]:
        with jax.ensure_compile_time_eval():  # may be asked for within a program
            begin = None if start is None else jnp.asarray(start)
            labels: types.Labels = jnp.asarray(y)
            if weights is not None:
                labels = types.Weighted(labels, jnp.asarray(weights))
            return jnp.asarray(x), labels, begin

    def take(indices: Any) -> types.Batch:
        if not isinstance(indices, jax.Array):
            indices = np.asarray(indices)
            if not is_integer(indices):
                raise ValueError(f"indices: expected integers, got {indices.dtype}")
            if ((indices < 0) | (indices >= count)).any():
                raise ValueError(
                    f"indices: expected 0 to {count - 1}, got {indices.min()} to "
                    f"{indices.max()}"
                )
        inputs, labels, begin = stored()
        answers = jax.tree.map(lambda each: each[indices], labels)
        if loss.every_step:
            answers = jax.tree.map(lambda each: jnp.swapaxes(each, 0, 1), answers)
        return types.Batch(
            inputs=jnp.swapaxes(inputs[indices], 0, 1).astype(dtype),
            labels=answers,
            start=None if begin is None else begin[indices],
        )

    return Samples(count, take)


def align(x: np.ndarray, start: np.ndarray, seq_len: int, before: int) -> np.ndarray:
    """Sequences of `[N, T, ...]` that begin at step 0, so that they begin at `start`.

    Args:
      x: of steps 0 to `seq_len` - `start` - 1, and whatever after them.
      start: `[N]`.
      seq_len: T of what is returned.
      before: the value of the steps before `start`.
    """
    step = np.arange(seq_len) - start[:, None]  # [N, T], in x
    moved = x[np.arange(len(x))[:, None], np.maximum(step, 0)]
    empty = (step < 0).reshape(step.shape + (1,) * (x.ndim - 2))
    return np.where(empty, x.dtype.type(before), moved)


def _chance(records: Records, loss: types.OutputLoss, training: Records) -> float:
    """The share of samples that a constant answer gets right; 0 where none is known.

    The answer is the most frequent class, for `squared_error` the mean of the training
    labels, for `binary_cross_entropy_every_step` each output's more frequent value, for
    `squared_error_every_step` the values of the least loss on the training part. Labels
    that ask nothing, below 0 or of no weight, are neither counted nor wrong.
    """
    y = records.labels
    asked = np.ones(y.shape, bool)
    if loss.every_step:
        asked = records.asked
    if loss in CLASSES:
        most = np.bincount(y[asked], minlength=1).argmax()
        right = y == most
    elif loss == losses.squared_error:
        right = (y - training.labels.mean(axis=0)) ** 2 <= 0.04
    elif loss == losses.binary_cross_entropy_every_step:
        ones, zeros = (((y == x) & asked).sum(axis=(0, 1)) for x in (1, 0))
        right = y == (ones > zeros)
    elif loss == losses.squared_error_every_step:
        right = (y - _constant(training)) ** 2 <= 0.04
    else:
        return 0.0
    return float((right | ~asked).reshape(len(y), -1).all(axis=1).mean())


def _constant(training: Records) -> np.ndarray:
    """The outputs `[Y]`, the same at all steps, whose squared error is the least.

    With W_b = Σₜ (mean over y of w_bty), E is the mean over b of Σₜ Σ_y w_bty (..)² /
    (W_b Y), so that output y is the mean of labels with the weights w_bty / W_b.
    """
    y, weights = training.labels, training.weights
    assert weights is not None
    weights = np.broadcast_to(with_axes(weights, 3), y.shape).astype(float)
    of_sample = weights.mean(axis=2).sum(axis=1)
    weights = weights / np.where(of_sample == 0, 1, of_sample)[:, None, None]
    total = weights.sum(axis=(0, 1))
    found = (weights * y).sum(axis=(0, 1)) / np.where(total == 0, 1, total)
    return found.astype(y.dtype)
