"""What trained weights answer to one's own arrays, and how much of it is right."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from lra_jax import losses, rnn, types
from lra_jax.networks import Network
from lra_jax.tasks import Samples, reading, values
from lra_jax.tasks.arrays import align

MAX_SLICE = 200  # samples that are computed at once


def predict(
    params: types.AnyParams,
    inputs: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    batch_first: bool = True,
    every_step: bool = False,
    logits: bool = False,
    network: Network = rnn.TANH,
) -> np.ndarray:
    """The classes, or the logits, of sequences in one's own arrays.

    Sequences are computed in slices of at most 200.

    Args:
      params: the weights.
      inputs: as in `Task.from_arrays`: `[N, T]` symbols or `[N, T, X]` numbers.
      lengths: `[N]`, where the sequences are padded at their ends; None is T for all.
      batch_first: False says that inputs have T first: `[T, N]` or `[T, N, X]`. Answers
        of every step then have it first as well.
      every_step: whether to answer at every step, or after the last one.
      logits: whether to return the logits. A network for `squared_error` has its
        values there. One for `binary_cross_entropy_every_step` says 1 where they are
        above 0.
      network: whose weights they are, as in training; without noise.

    Returns:
      A NumPy array. `[N]` int32 classes, or `[N, T]` with `every_step`: the largest
      logit's index, and -1 at padded steps and where a logit is not a number. With
      `logits`, `[N, Y]` or `[N, T, Y]` numbers, NaN at padded steps.

    Raises:
      ValueError: inputs or lengths have another shape, type or value than is expected,
        or do not fit the weights.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> inputs = [[0, 1, 2], [5, 4, 0]]  # [N, T], padded
      >>> lra_jax.predict(params, inputs, lengths=[3, 2]).shape
      (2,)
      >>> lra_jax.predict(params, inputs, lengths=[3, 2], every_step=True)[1, 2].item()
      -1
    """
    rnn.check_params(params, network)
    x = reading.read_inputs("inputs", inputs, batch_first)
    count, seq_len = x.shape[:2]
    steps = None if lengths is None else reading.read_lengths("lengths", lengths, x)
    records = reading.Records(x, np.zeros(count, np.int32), steps)
    reading.check_inputs("inputs", records)
    _check_sizes(rnn.input_size(params, network), records)
    start = None if steps is None else seq_len - steps
    x = x if start is None else align(x, start, seq_len, 0)
    kind = np.int32 if x.ndim == 2 else jnp.result_type(float)
    parts = []
    for indices in _slices(count):
        part = jnp.asarray(x[indices].swapaxes(0, 1).astype(kind))
        begin = None if start is None else jnp.asarray(start[indices])
        answers = _logits(params, part, begin, every_step=every_step, network=network)
        parts.append(np.asarray(answers.swapaxes(0, 1) if every_step else answers))
    answers = np.concatenate(parts)[:count]
    if every_step and start is not None:  # back to where the sequences were
        step = np.minimum(np.arange(seq_len) + start[:, None], seq_len - 1)
        answers = answers[np.arange(count)[:, None], step]
        answers[~records.inside] = np.nan
    if not logits:
        classes = answers.argmax(axis=-1).astype(np.int32)
        answers = np.where(np.isnan(answers).any(axis=-1), np.int32(-1), classes)
    return answers if batch_first or not every_step else answers.swapaxes(0, 1)


def accuracy(
    params: types.AnyParams,
    samples: Samples,
    *,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
) -> float:
    """The share of samples without an error, from 0 to 1.

    Samples are computed in slices of at most 200.

    Args:
      params: the weights.
      samples: such as `task.validation` or `task.test`.
      output_loss: says what an error is; a task's is `task.output_loss`.
      network: whose weights they are, as in training; without noise.

    Raises:
      ValueError: `samples` are none, or they do not fit the weights or the loss.

    Example:
      >>> inputs = jax.random.normal(jax.random.key(0), (100, 7, 3))  # [N, T, X]
      >>> labels = (inputs.sum(axis=(1, 2)) > 0).astype(int)
      >>> task = lra_jax.Task.from_arrays(inputs, labels, validation=0.2)
      >>> params = lra_jax.init_params(jax.random.key(0), 3, 8, 2)
      >>> 0 <= lra_jax.accuracy(params, task.validation) <= 1
      True
    """
    if not isinstance(samples, Samples):
        raise ValueError(
            f"samples: expected Samples, such as task.validation, got "
            f"{type(samples).__name__}"
        )
    if samples.size < 1:
        raise ValueError("samples: expected at least one, got none")
    wrong = [
        np.asarray(
            _errors(
                params, samples.take(indices), output_loss=output_loss, network=network
            )
        )
        for indices in _slices(samples.size)
    ]
    return 1 - float(np.concatenate(wrong)[: samples.size].mean())


def _slices(count: int) -> Iterator[np.ndarray]:
    """Indices from 0 to count - 1 in slices of one size; the last index may repeat."""
    size = -(-count // -(-count // MAX_SLICE))
    for first in range(0, count, size):
        yield np.minimum(np.arange(first, first + size), count - 1)


@functools.partial(jax.jit, static_argnames=("every_step", "network"))
def _logits(
    params: types.AnyParams,
    inputs: jax.Array,
    start: jax.Array | None,
    *,
    every_step: bool,
    network: Network,
) -> jax.Array:
    given: dict[str, Any] = {"start": start, "network": network}
    if every_step:
        return rnn.forward(params, inputs, every_step=True, **given).logits
    return rnn.final_logits(params, inputs, **given)


@functools.partial(jax.jit, static_argnames=("output_loss", "network"))
def _errors(
    params: types.AnyParams,
    batch: types.Batch,
    *,
    output_loss: types.OutputLoss,
    network: Network,
) -> jax.Array:
    logits = _logits(
        params,
        batch.inputs,
        batch.start,
        every_step=output_loss.every_step,
        network=network,
    )
    return output_loss.is_error(logits, batch.labels)


def _check_sizes(input_size: int | None, records: reading.Records) -> None:
    """Raises a ValueError where inputs are not of the network's X."""
    x = records.inputs
    if input_size is None:  # weights that do not tell
        return
    if x.ndim == 3 and x.shape[2] != input_size:
        raise ValueError(
            f"inputs: expected X = {input_size} as in params, got {x.shape[2]}, "
            f"batch-first {x.shape}"
        )
    if x.ndim == 2:
        wrong = (x >= input_size) & records.inside
        if wrong.any():
            raise ValueError(
                f"inputs: expected symbols from 0 to {input_size - 1} as in params, "
                f"got {x[wrong][0]} {values.place(wrong)}"
            )
