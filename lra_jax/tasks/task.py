"""What a task is, and where its informative symbols may stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import chex
import jax
from numpy.typing import ArrayLike

from lra_jax import losses, settings, types
from lra_jax.tasks import arrays
from lra_jax.tasks.arrays import Samples


@dataclasses.dataclass(frozen=True)
class Task:
    """A task whose data are drawn on the device; `from_arrays` makes one of arrays.

    Attributes:
      draw: `(key, batch_size, seq_len) -> Batch`, for a `seq_len` that is possible.
      input_size: X, number of symbols or of input channels.
      output_size: Y.
      min_seq_len: smallest possible T.
      chance: fraction of samples that a constant answer gets right; in trials with
        fixation, an answer that is constant in the response.
      output_loss: E, and what counts as an error.
      max_seq_len: largest possible T; None is no bound. Recorded data have one T.
      validation: the validation set. None draws one, with `draw`: right where samples
        are made, wrong where they are taken from a stock that is trained on.
      test: another set that is held out, which nothing but its owner looks at.
      training: the samples that `draw` takes from, for `batches`; None where it makes
        them.

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
    test: Samples | None = None
    training: Samples | None = None

    @staticmethod
    def from_arrays(
        inputs: ArrayLike,
        labels: ArrayLike | types.Weighted,
        *,
        validation: Any,
        batch_first: bool = True,
        lengths: ArrayLike | None = None,
        output_loss: types.OutputLoss | None = None,
        test: Any = None,
        seed: int = 0,
        input_size: int | None = None,
        output_size: int | None = None,
    ) -> Task:
        """One's own arrays as a task, with a part that is held out.

        Arrays are of NumPy, nested lists, or anything that NumPy converts, such as
        PyTorch's tensors. The task draws from the training part, with replacement.
        Two calls give two tasks, which compile separately.

        Args:
          inputs: `[N, T]` integer symbols, or `[N, T, X]` numbers. 0 ≤ symbol.
          labels: what to answer. Their shape and type choose the loss:
            `[N]` integer classes, `cross_entropy`;
            `[N, Y]` real values, `squared_error`;
            `[N, T]` integer classes of every step, `cross_entropy_every_step`;
            `[N, T, Y]` real 0 or 1, `binary_cross_entropy_every_step`.
            A label of every step asks nothing where it is below 0.
            Labels of every step may have weights: `Weighted(labels, weights)`, in all
            parts or in none. Weights are at least 0, `[N, T]`, or `[N, T, Y]` beside
            labels of this shape; truth values are 0 and 1. A weight of 0 asks nothing:
            the label there may be anything, and is read as 0. Elsewhere a class has to
            be at least 0. `[N, T, Y]` real values of any size need weights, and
            `output_loss=lra_jax.squared_error_every_step`.
          validation: the part to evaluate on, which is never trained on. A fraction
            between 0 and 1 is taken out of the arrays: of each class the same share,
            where labels are classes `[N]`. Or `(inputs, labels)`, or `(inputs, labels,
            lengths)`, with the same axes.
          batch_first: False says that inputs, and labels of every step, have T first:
            `[T, N]`, `[T, N, X]`, `[T, N, Y]`. The same holds for weights.
          lengths: `[N]` integers from 1 to T: sequence b is in the first `lengths[b]`
            steps, and all after them is padding, which nothing looks at, labels of
            every step and their weights included. None is T for all.
          output_loss: E, where it is not the one that labels choose.
          test: as `validation`, for the field `test`; None is none.
          seed: of the order in which fractions are taken. The same seed gives the same
            parts, and the same validation part with or without a test part.
          input_size: number of symbols; None is the largest of all parts, and one more.
          output_size: number of classes; None as for symbols. With an `output_loss` of
            one's own, Y.

        Returns:
          A task of one `seq_len`, T, which `sample` and `Experiment` may leave out. Its
          `chance` is the share of the most frequent class in the validation part; for
          other labels, of the samples that one constant answer gets right.

        Raises:
          ValueError: an array has another shape, type or value than is expected; a part
            is empty; or validation or test data are training data.

        Example:
          >>> inputs = jax.random.normal(jax.random.key(0), (100, 7, 3))  # [N, T, X]
          >>> labels = (inputs.sum(axis=(1, 2)) > 0).astype(int)
          >>> task = lra_jax.Task.from_arrays(inputs, labels, validation=0.2)
          >>> task.input_size, task.output_size, task.validation.size
          (3, 2, 20)
          >>> task.sample(jax.random.key(1), batch_size=5).inputs.shape  # [T, B, X]
          (7, 5, 3)
        """
        held_out = {"validation": validation}
        if test is not None:
            held_out["test"] = test
        parts = arrays.parts(
            inputs,
            labels,
            lengths,
            held_out,
            batch_first=batch_first,
            output_loss=output_loss,
            seed=seed,
            input_size=input_size,
            output_size=output_size,
        )

        def draw(key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
            del seq_len  # there is one
            size, take = parts.training
            return take(jax.random.randint(key, (batch_size,), 0, size))

        return Task(
            draw=draw,
            input_size=parts.input_size,
            output_size=parts.output_size,
            min_seq_len=parts.seq_len,
            max_seq_len=parts.seq_len,
            chance=parts.chance,
            output_loss=parts.output_loss,
            validation=parts.validation,
            test=parts.test,
            training=parts.training,
        )

    def sample(
        self, key: jax.Array, batch_size: int, seq_len: int | None = None
    ) -> types.Batch:
        """A batch of independent samples.

        Args:
          key: consumed.
          batch_size: B ≥ 1.
          seq_len: T, from `min_seq_len` to `max_seq_len`; where these are the same, it
            may be left out.

        Returns:
          `Batch(inputs, labels)`: `[T, B]` int32 and `[B]` int32 for tasks of
          symbols.

        Raises:
          ValueError: an impossible `seq_len` or `batch_size`; or `draw` gave a batch of
            other sizes.
        """
        sizes = (
            self.check_seq_len(seq_len),
            settings.check_size("batch_size", batch_size),
        )
        batch = self.draw(key, sizes[1], sizes[0])
        try:  # `draw` may be a user's
            chex.assert_tree_shape_prefix(batch.inputs, sizes)
        except AssertionError:
            raise ValueError(
                f"task: expected inputs [T, B, ...] = {sizes}, got {batch.inputs.shape}"
            ) from None
        return batch

    def check_seq_len(self, seq_len: int | None) -> int:
        """T as a Python integer; None is the one T of recorded data.

        Raises:
          ValueError: an impossible `seq_len`.
        """
        if seq_len is None and self.min_seq_len == self.max_seq_len:
            return self.min_seq_len
        size = settings.check_size("seq_len", seq_len, self.min_seq_len)
        if self.max_seq_len is not None and size > self.max_seq_len:
            raise ValueError(
                f"seq_len: expected an integer of at most {self.max_seq_len}, "
                f"got {seq_len!r}"
            )
        return size


def position(seq_len: int, fraction: float) -> int:
    """int(T · fraction), as every generator in circulation computes it."""
    return int(seq_len * fraction)
