"""Reads a person's own arrays: what they are, what their labels ask, what is wrong.

Most people's arrays are batch-first and padded at the end. `Records` are such arrays,
checked.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lra_jax import losses, types
from lra_jax.tasks.values import is_integer, place, reals, to_array, with_axes

# What the labels of these losses are, with the axes of arrays that are batch-first.
LABELS = {
    losses.cross_entropy: ("cross_entropy", "integer classes [N]"),
    losses.squared_error: ("squared_error", "real values [N, Y]"),
    losses.cross_entropy_every_step: (
        "cross_entropy_every_step",
        "integer classes [N, T]",
    ),
    losses.binary_cross_entropy_every_step: (
        "binary_cross_entropy_every_step",
        "0 or 1 [N, T, Y]",
    ),
    losses.squared_error_every_step: (
        "squared_error_every_step",
        "real values [N, T, Y]",
    ),
}
CLASSES = (losses.cross_entropy, losses.cross_entropy_every_step)
_STEPS_OF_REALS = (
    losses.binary_cross_entropy_every_step,
    losses.squared_error_every_step,
)
_REALS = (losses.squared_error, *_STEPS_OF_REALS)


class Records(NamedTuple):
    """Samples of one part of the data, batch-first and padded at the end.

    Attributes:
      inputs: `[N, T]` integers, or `[N, T, X]` real numbers or small integers.
      labels: `[N]` or `[N, T]` int32, or real `[N, Y]` or `[N, T, Y]`.
      lengths: `[N]` int32, 1 to T; None is T for all.
      weights: real `[N, T]` or `[N, T, Y]`, of labels that are `Weighted`: finite, at
        least 0, and 0 where a sequence is padded. Labels are 0 where they are 0.
    """

    inputs: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray | None
    weights: np.ndarray | None = None

    def part(self, indices: np.ndarray) -> Records:
        """The samples of these indices."""
        lengths, weights = (
            None if x is None else x[indices] for x in (self.lengths, self.weights)
        )
        return Records(self.inputs[indices], self.labels[indices], lengths, weights)

    @property
    def inside(self) -> np.ndarray:
        """`[N, T]`: true at the steps of a sequence, false where it is padded."""
        count, seq_len = self.inputs.shape[:2]
        if self.lengths is None:
            return np.ones((count, seq_len), bool)
        return np.arange(seq_len) < self.lengths[:, None]

    @property
    def asked(self) -> np.ndarray:
        """Which labels of every step ask for an answer, of the labels' shape."""
        y, weights = self.labels, self.weights
        if weights is None:
            return y >= 0
        return np.broadcast_to(with_axes(weights != 0, y.ndim), y.shape)


def read(
    inputs: Any,
    labels: Any,
    lengths: Any = None,
    *,
    batch_first: bool,
    output_loss: types.OutputLoss | None,
    where: str = "",
) -> tuple[Records, types.OutputLoss]:
    """Arrays as records, and the loss that their labels are for.

    Args:
      inputs: `[N, T]` or `[N, T, X]`; the first two axes are swapped without
        `batch_first`.
      labels: see `Task.from_arrays`; an array, or `Weighted`.
      lengths: `[N]`, or None.
      batch_first: whether N is the first axis.
      output_loss: None chooses one by the labels.
      where: the part of the data, for messages, with a space after it.

    Raises:
      ValueError: an argument is not what is expected.
    """
    if not isinstance(batch_first, bool | np.bool_):
        raise ValueError(f"batch_first: expected True or False, got {batch_first!r}")
    if not isinstance(output_loss, types.OutputLoss | None):
        raise ValueError(
            f"output_loss: expected an OutputLoss or None, got {output_loss!r}"
        )
    x = read_inputs(f"{where}inputs", inputs, batch_first)
    count, seq_len = x.shape[:2]
    steps = None if lengths is None else read_lengths(f"{where}lengths", lengths, x)
    axes = dict(zip("NTX", x.shape, strict=False))
    if not batch_first:
        axes = {name: axes[name] for name in ("T", "N", *"X"[: x.ndim - 2])}
    reading = (
        f"{where}inputs are read as "
        f"[{', '.join(f'{name} = {size}' for name, size in axes.items())}] "
        f"because batch_first={batch_first}"
    )
    weighted = isinstance(labels, types.Weighted)
    y = to_array(f"{where}labels", labels.labels if weighted else labels)
    if y.dtype == bool:
        raise ValueError(
            f"{where}labels: expected integers or real numbers, got bool {y.shape}; "
            f"classes 0 and 1 are labels.astype(int)"
        )
    try:
        y, loss = _read_labels(
            y, count, seq_len, batch_first, output_loss, weighted=weighted
        )
    except ValueError as error:
        hint = ""
        if y.shape[:1] == (seq_len,) != (count,):
            hint = (
                f"; with batch_first={not batch_first} they would be read with "
                f"N = {seq_len}, T = {count}"
            )
        raise ValueError(f"{where}labels: {error}; {reading}{hint}") from None
    records = Records(x, y, steps)
    check_inputs(f"{where}inputs", records)
    if weighted:
        name = f"{where}labels.weights"
        weights = to_array(name, labels.weights)
        try:
            weights = _read_weights(weights, y, batch_first, loss)
        except ValueError as error:
            raise ValueError(f"{name}: {error}; {reading}") from None
        records = _check_weights(name, records._replace(weights=weights))
    return _check_labels(f"{where}labels", records, loss), loss


def read_inputs(name: str, inputs: Any, batch_first: bool) -> np.ndarray:
    """`[N, T]` integers, or `[N, T, X]` integers or real numbers."""
    x = to_array(name, inputs)
    if not (x.ndim == 3 or (x.ndim == 2 and is_integer(x))):
        first = "N, T" if batch_first else "T, N"
        hint = ""
        if x.ndim == 2:
            hint = (
                f"; symbols are integers, {name}.astype(int), and one number at each "
                f"step is {name}[:, :, None]"
            ).replace(name, "inputs")
        raise ValueError(
            f"{name}: expected [{first}] symbols or [{first}, X] numbers with "
            f"batch_first={batch_first}, got {x.dtype} {x.shape}{hint}"
        )
    if 0 in x.shape:
        raise ValueError(f"{name}: expected no empty axis, got {x.dtype} {x.shape}")
    if not batch_first:
        x = np.swapaxes(x, 0, 1)
    small = is_integer(x) and x.dtype.itemsize <= 2
    # Small integers are converted when a batch of them is taken.
    return x if x.ndim == 2 or small else reals(x)


def read_lengths(name: str, lengths: Any, inputs: np.ndarray) -> np.ndarray:
    """`[N]` int32."""
    count, seq_len = inputs.shape[:2]
    array = to_array(name, lengths)
    expected = f"{name}: expected integers [N] = ({count},) from 1 to T = {seq_len}"
    if array.shape != (count,) or not is_integer(array):
        raise ValueError(f"{expected}, got {array.dtype} {array.shape}")
    wrong = (array < 1) | (array > seq_len)
    if wrong.any():
        raise ValueError(f"{expected}, got {array[wrong][0]} {place(wrong)}")
    return array.astype(np.int32)


def _read_labels(
    y: np.ndarray,
    count: int,
    seq_len: int,
    batch_first: bool,
    output_loss: types.OutputLoss | None,
    *,
    weighted: bool,
) -> tuple[np.ndarray, types.OutputLoss]:
    """Labels, batch-first, and the loss that they are for.

    Raises:
      ValueError: what was expected, got, and may have been meant.
    """
    steps = (count, seq_len) if batch_first else (seq_len, count)
    names = "N, T" if batch_first else "T, N"
    got = f"got {y.dtype} {y.shape}"
    integer = is_integer(y)
    loss = output_loss
    if loss is None:
        if integer and y.shape == (count,):
            loss = losses.cross_entropy
        elif integer and y.shape == steps:
            if seq_len > 1 and not weighted and _is_one_hot(y):
                raise ValueError(
                    f"{got}: for one-hot classes give labels.argmax(axis=1), for "
                    f"classes of every step output_loss="
                    f"lra_jax.cross_entropy_every_step"
                )
            loss = losses.cross_entropy_every_step
        elif not integer and y.ndim == 2 and y.shape == steps != (count, 1):
            values = "values [N, Y] of the last step output_loss=lra_jax.squared_error"
            if weighted:
                values = (
                    "one value at each step labels[:, :, None] and "
                    "output_loss=lra_jax.squared_error_every_step"
                )
            raise ValueError(
                f"{got}: for classes of every step give labels.astype(int), "
                f"for {values}"
            )
        elif not integer and y.ndim == 2 and len(y) == count:
            loss = losses.squared_error
        elif not integer and y.ndim == 3 and y.shape[:2] == steps:
            loss = losses.binary_cross_entropy_every_step
        else:
            raise ValueError(
                f"expected N = {count} integer classes, real values [N, Y], or labels "
                f"of every step [{names}] = {steps}, {got}{_meant(y, steps, count)}"
            )
    fits = {
        losses.cross_entropy: integer and y.shape == (count,),
        losses.squared_error: y.ndim == 2 and len(y) == count,
        losses.cross_entropy_every_step: integer and y.shape == steps,
        **dict.fromkeys(_STEPS_OF_REALS, y.ndim == 3 and y.shape[:2] == steps),
    }
    leading = y.shape[:2] == steps if loss.every_step else y.shape[:1] == (count,)
    if not fits.get(loss, leading) or 0 in y.shape:
        axes = names if loss.every_step else "N"
        name, expected = LABELS.get(loss, ("output_loss", f"values [{axes}, ...]"))
        one_value = loss in _STEPS_OF_REALS and y.shape == steps
        meant = "; one value at each step is labels[:, :, None]" * one_value
        raise ValueError(
            f"expected {expected.replace('N, T', names)} of N = {count}"
            f"{f' and T = {seq_len}' if loss.every_step else ''} for {name}, "
            f"{got}{meant or _meant(y, steps, count)}"
        )
    if loss == losses.squared_error_every_step and not weighted:
        raise ValueError(
            f"expected Weighted(labels, weights) for squared_error_every_step, as a "
            f"label below 0 may be asked for, too; weights of 1 ask at every step; "
            f"got an array, {y.dtype} {y.shape}"
        )
    if not integer or loss in _REALS:
        y = reals(y)
    return (y if batch_first or not loss.every_step else np.swapaxes(y, 0, 1)), loss


def _is_one_hot(y: np.ndarray) -> bool:
    return bool(((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all())


def _meant(y: np.ndarray, steps: tuple[int, int], count: int) -> str:
    """What labels of another shape may be, as the end of a message."""
    if y.shape[:2] == steps[::-1] != steps:
        return "; labels of every step have the first two axes of inputs"
    if y.shape == (count,):
        return "; classes are labels.astype(int), and Y = 1 value is labels[:, None]"
    if y.shape == (count, 1) and is_integer(y):
        return "; classes are labels[:, 0]"
    if y.ndim == 2 and len(y) == count and is_integer(y):
        return "; one-hot classes are labels.argmax(axis=1)"
    return ""


def _read_weights(
    weights: np.ndarray, labels: np.ndarray, batch_first: bool, loss: types.OutputLoss
) -> np.ndarray:
    """Weights, batch-first and real.

    Args:
      weights: as they are given; truth values are 0 and 1.
      labels: of the same part, batch-first.
      batch_first: whether N is the first axis of `weights`.
      loss: the task's.

    Raises:
      ValueError: what was expected, and got.
    """
    got = f"got {weights.dtype} {weights.shape}"
    if not loss.every_step:
        name, axes = LABELS.get(loss, ("output_loss", "one for each sample"))
        raise ValueError(
            f"expected no weights, as the labels of {name} are {axes}, {got}; labels "
            f"of every step have weights"
        )
    steps = labels.shape[:2] if batch_first else labels.shape[1::-1]
    names = "N, T" if batch_first else "T, N"
    shapes = {names: steps}
    if labels.ndim == 3:  # labels that are classes have no weights of outputs
        shapes[f"{names}, Y"] = (*steps, labels.shape[2])
    if weights.shape not in shapes.values():
        expected = " or ".join(f"[{name}] = {shape}" for name, shape in shapes.items())
        raise ValueError(f"expected real numbers {expected}, {got}")
    return reals(weights if batch_first else np.swapaxes(weights, 0, 1))


def check_inputs(name: str, records: Records) -> None:
    """Raises a ValueError for a value that is no input."""
    x, inside = records.inputs, records.inside
    if x.ndim == 2:
        wrong = ((x < 0) | (x >= 2**31)) & inside
        expected = "symbols from 0 to 2³¹ - 1"
    else:
        wrong = np.logical_and(~np.isfinite(x).all(axis=2), inside)
        expected = f"finite {x.dtype} numbers"
    if wrong.any():
        first = x[tuple(np.argwhere(wrong)[0])]
        value = first if x.ndim == 2 else first[~np.isfinite(first)][0]
        raise ValueError(f"{name}: expected {expected}, got {value} {place(wrong)}")


def _check_weights(name: str, records: Records) -> Records:
    """Checks the values of weights; those where a sequence is padded become 0.

    Raises:
      ValueError: a value is no weight.
    """
    assert records.weights is not None
    weights = records.weights
    weights = np.where(with_axes(records.inside, weights.ndim), weights, 0)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        raise ValueError(
            f"{name}: expected finite {weights.dtype} numbers of at least 0, got "
            f"{weights[wrong][0]} {place(wrong)}"
        )
    if not weights.any():
        raise ValueError(f"{name}: expected some above 0, all are 0")
    axes = tuple(range(1, weights.ndim))
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(np.sum(weights, axis=axes, dtype=weights.dtype))
    if wrong.any():
        raise ValueError(
            f"{name}: expected {weights.dtype} numbers whose sum over a sample is "
            f"finite, got up to {weights.max():g} {place(wrong)}"
        )
    return records._replace(weights=weights)


def _check_labels(name: str, records: Records, loss: types.OutputLoss) -> Records:
    """Checks the values of labels; those where a sequence is padded ask nothing.

    Labels of no weight may be anything, and become 0.

    Raises:
      ValueError: a value is no label.
    """
    y, weighted = records.labels, records.weights is not None
    if loss.every_step:
        asked = records.asked if weighted else with_axes(records.inside, y.ndim)
        # An unsigned number that is too large stays so.
        signed = np.minimum(y, y.dtype.type(2**31)) if y.dtype == np.uint64 else y
        signed = signed.astype(np.int64) if is_integer(y) else y
        y = np.where(asked, signed, signed.dtype.type(0 if weighted else -1))
    hint = ""
    if is_integer(y):
        classes = loss == losses.cross_entropy or (weighted and loss in CLASSES)
        least = 0 if classes else -(2**31)
        wrong = (y < least) | (y >= 2**31)
        expected = "classes from 0 to 2³¹ - 1" if least == 0 else "int32"
    else:
        wrong = ~np.isfinite(y) & (loss in _REALS)
        expected = f"finite {y.dtype} numbers"
    if loss == losses.binary_cross_entropy_every_step and not wrong.any():
        nothing = (y < 0).all(axis=2, keepdims=True) & (not weighted)
        wrong = ~((y == 0) | (y == 1) | nothing)
        expected = "0 or 1"
        if not weighted:
            expected += ", or all Y below 0 at a step that asks nothing"
        hint = (
            f"; for real values give {'' if weighted else 'Weighted labels and '}"
            f"output_loss=lra_jax.squared_error_every_step"
        )
    if weighted:
        expected += " where the weight is not 0"
    if wrong.any():
        value = y[tuple(np.argwhere(wrong)[0])]
        axes = wrong.shape[: 1 + loss.every_step]
        at = np.logical_or.reduce(wrong.reshape(*axes, -1), axis=-1)
        raise ValueError(f"{name}: expected {expected}, got {value} {place(at)}{hint}")
    if loss.every_step and not weighted and (y < 0).all():
        raise ValueError(f"{name}: expected some of at least 0, all are below")
    return records._replace(labels=y.astype(np.int32) if is_integer(y) else y)
