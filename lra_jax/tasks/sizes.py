"""The sizes of a task that is made of arrays: X, Y and T of all its parts."""

from __future__ import annotations

from typing import Any

import numpy as np

from lra_jax import types
from lra_jax.tasks.reading import CLASSES, LABELS, Records
from lra_jax.tasks.values import is_integer, place


def input_size(parts: dict[str, Records], given: int | None) -> int:
    """X: the axis of real numbers, or one more than the largest symbol.

    Args:
      parts: by what messages have before `inputs`: "" for those to train on.
      given: what the caller says.

    Raises:
      ValueError: parts are of different kinds, or `given` does not fit.
    """
    first = parts[""].inputs
    kind = "[N, T] symbols" if first.ndim == 2 else f"[N, T, X = {first.shape[2]}]"
    for where, records in parts.items():
        x = records.inputs
        if x.shape[2:] != first.shape[2:]:
            raise ValueError(
                f"{where}inputs: expected {kind} as in inputs, got {x.dtype}, "
                f"batch-first {x.shape}"
            )
    if first.ndim == 3:
        return _checked("input_size", "inputs", first.shape[2], given)
    highest = {
        f"{where}inputs": np.where(r.inside, r.inputs, 0) for where, r in parts.items()
    }
    return _num_values("input_size", "symbols", highest, given)


def output_size(
    parts: dict[str, Records], loss: types.OutputLoss, given: int | None
) -> int:
    """Y: the last axis of real labels, or one more than the largest class.

    Args:
      parts: see `input_size`.
      loss: the task's.
      given: what the caller says.

    Raises:
      ValueError: parts are of different kinds, or `given` does not fit.
    """
    first = parts[""].labels
    axes = 1 + loss.every_step
    for where, records in parts.items():
        if (records.weights is None) != (parts[""].weights is None):
            expected, got = "Weighted(labels, weights)", "an array"
            if records.weights is not None:
                expected, got = got, expected
            raise ValueError(
                f"{where}labels: expected {expected} as in labels, got {got}; weights "
                f"of 1 ask at every step"
            )
        if records.labels.shape[axes:] != first.shape[axes:]:
            raise ValueError(
                f"{where}labels: expected {first.shape[axes:]} for each label as in "
                f"labels, got {records.labels.shape[axes:]}"
            )
    if loss in CLASSES or (loss not in LABELS and _is_classes(first, axes)):
        labels = {f"{where}labels": r.labels for where, r in parts.items()}
        return _num_values("output_size", "classes", labels, given)
    if loss in LABELS:
        return _checked("output_size", "labels", first.shape[-1], given)
    if given is None and first.ndim != axes + 1:
        raise ValueError("output_size: expected Y for an output_loss of your own")
    return _positive("output_size", first.shape[-1] if given is None else given)


def _is_classes(labels: np.ndarray, axes: int) -> bool:
    return labels.ndim == axes and is_integer(labels)


def _positive(name: str, value: Any) -> int:
    integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not integer or value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value!r}")
    return int(value)


def _checked(name: str, arrays: str, size: int, given: int | None) -> int:
    if given is not None and _positive(name, given) != size:
        raise ValueError(f"{name}: the last axis of {arrays} is {size}, got {given}")
    return size


def _num_values(
    name: str, what: str, arrays: dict[str, np.ndarray], given: int | None
) -> int:
    """One more than the largest value, or what is given if it is no less."""
    if given is None:
        return max(int(x.max()) for x in arrays.values()) + 1
    size = _positive(name, given)
    for array, x in arrays.items():
        wrong = np.greater_equal(x, size)
        if wrong.any():
            raise ValueError(
                f"{array}: expected {what} from 0 to {size - 1} with {name}={size}, "
                f"got {x[wrong][0]} {place(wrong)}"
            )
    return size


def seq_len(parts: dict[str, Records]) -> int:
    """T of the task: the most steps that the arrays of a part have.

    Raises:
      ValueError: T differs, and neither part has lengths.
    """
    first = parts[""]
    length = first.inputs.shape[1]
    for where, records in parts.items():
        steps = records.inputs.shape[1]
        if steps != length and records.lengths is None and first.lengths is None:
            raise ValueError(
                f"{where}inputs: expected T = {length} as in inputs, got {steps}; "
                f"sequences of different lengths need lengths"
            )
    return max(records.inputs.shape[1] for records in parts.values())
