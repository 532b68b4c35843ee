"""Epochs of mini-batches, without replacement, for a loop of one's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import jax

from lra_jax import settings, types
from lra_jax.tasks.arrays import Samples
from lra_jax.tasks.task import Task


def batches(
    samples: Task | Samples,
    batch_size: int,
    *,
    key: jax.Array,
    epochs: int | None = 1,
) -> Iterator[types.Batch]:
    """The training samples in a new random order each epoch, batch after batch.

    An epoch has ⌊N / B⌋ batches of B different samples. All batches have the same
    size, so that a compiled step is compiled once. The N mod B samples that are left
    are dropped; they are others in each epoch. The batches are on the device, and are
    taken one by one.

    Args:
      samples: a task that is made of arrays, or any `Samples`, such as
        `task.validation`.
      batch_size: B, from 1 to N.
      key: of the order. Epoch e uses `fold_in(key, e)`: the same key gives the same
        batches, and the first epochs are the same however many follow.
      epochs: how many; None never ends.

    Raises:
      ValueError: at once, if the task makes its samples, or a number is out of range.

    Example:
      >>> inputs, labels = jnp.arange(12).reshape(6, 2), jnp.array([0, 1, 0, 1, 0, 1])
      >>> task = lra_jax.Task.from_arrays(inputs, labels, validation=1 / 3)
      >>> key = jax.random.key(0)
      >>> epoch = list(lra_jax.batches(task, batch_size=2, key=key))
      >>> [batch.inputs.shape for batch in epoch]  # [T, B]
      [(2, 2), (2, 2)]
      >>> len({*jnp.concatenate([batch.inputs[0] for batch in epoch]).tolist()})
      4
    """
    stock = samples.training if isinstance(samples, Task) else samples
    if stock is None:
        raise ValueError(
            "samples: expected a task that is made of arrays; this one makes its "
            "samples, so draw them: task.sample(key, batch_size, seq_len)"
        )
    if not isinstance(stock, Samples):
        raise ValueError(
            f"samples: expected a Task or Samples, got {type(samples).__name__}; "
            "arrays become a task with lra_jax.Task.from_arrays"
        )
    size = settings.check_size("batch_size", batch_size)
    if size > stock.size:
        raise ValueError(
            f"batch_size: expected at most N = {stock.size} samples, got {size}"
        )
    numbers = (
        itertools.count()
        if epochs is None
        else range(settings.check_size("epochs", epochs))
    )
    return _batches(stock, size, key, numbers)


def _batches(
    samples: Samples, batch_size: int, key: jax.Array, epochs: Iterator[int] | range
) -> Iterator[types.Batch]:
    for epoch in epochs:
        order = jax.random.permutation(jax.random.fold_in(key, epoch), samples.size)
        for first in range(0, samples.size - batch_size + 1, batch_size):
            yield samples.take(order[first : first + batch_size])
