"""What a task is, and where its informative symbols may stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax

from lra_jax import losses, types


class Samples(NamedTuple):
    """A fixed set of samples.

    Attributes:
      size: how many there are.
      take: `(indices [B]) -> Batch`, for indices from 0 to `size` - 1; may be traced.
    """

    size: int
    take: Callable[[jax.Array], types.Batch]


@dataclasses.dataclass(frozen=True)
class Task:
    """A task whose data are drawn on the device.

    Attributes:
      draw: `(key, batch_size, seq_len) -> Batch`, for a `seq_len` that is possible.
      input_size: X, number of symbols or of input channels.
      output_size: Y.
      min_seq_len: smallest possible T.
      chance: fraction of samples that a constant answer gets right.
      output_loss: E, and what counts as an error.
      max_seq_len: largest possible T; None is no bound. Recorded data have one T.
      validation: the validation set; None where one is drawn, as large as is asked.

    Example:
      >>> def draw(key, batch_size, seq_len):
      ...     inputs = jax.random.randint(key, (seq_len, batch_size), 0, 3)
      ...     return lra_jax.Batch(inputs, labels=inputs[0])
      >>> first_symbol = lra_jax.Task(draw, 3, 3, min_seq_len=1, chance=1 / 3)
      >>> first_symbol.sample(jax.random.key(0), batch_size=2, seq_len=5).inputs.shape
      (5, 2)
    """

    draw: Callable[[jax.Array, int, int], types.Batch]
    input_size: int
    output_size: int
    min_seq_len: int
    chance: float
    output_loss: types.OutputLoss = losses.cross_entropy
    max_seq_len: int | None = None
    validation: Samples | None = None

    def sample(self, key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
        """A batch of independent samples.

        Args:
          key: consumed.
          batch_size: B ≥ 1.
          seq_len: T, from `min_seq_len` to `max_seq_len`.

        Returns:
          `Batch(inputs, labels)`: `[T, B]` int32 and `[B]` int32 for tasks of
          symbols.

        Raises:
          ValueError: an impossible `seq_len` or `batch_size`; or `draw` gave a batch of
            other sizes.
        """
        for name, value, least in (
            ("seq_len", seq_len, self.min_seq_len),
            ("batch_size", batch_size, 1),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"{name}: expected an integer of at least {least}, got {value!r}"
                )
        if self.max_seq_len is not None and seq_len > self.max_seq_len:
            raise ValueError(
                f"seq_len: expected an integer of at most {self.max_seq_len}, "
                f"got {seq_len!r}"
            )
        batch = self.draw(key, batch_size, seq_len)
        try:  # `draw` may be a user's
            chex.assert_tree_shape_prefix(batch.inputs, (seq_len, batch_size))
        except AssertionError:
            raise ValueError(
                f"task: expected inputs [T, B, ...] = {(seq_len, batch_size)}, "
                f"got {batch.inputs.shape}"
            ) from None
        return batch


def position(seq_len: int, fraction: float) -> int:
    """int(T · fraction), as every generator in circulation computes it."""
    return int(seq_len * fraction)
