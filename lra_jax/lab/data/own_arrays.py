"""A person's own arrays in a file, as a task.

    numpy.savez("spikes.npz", inputs=inputs, labels=labels)

The arrays are the arguments of `lra_jax.Task.from_arrays`, by their names, and
`weights` of labels. Parts that are divided already are `validation_inputs`,
`validation_labels`, and maybe `validation_weights` and `validation_lengths`; the same
with `test_`. docs/own_data.md has the table.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from lra_jax import Task, Weighted
from lra_jax.lab.data.sources import DatasetError
from lra_jax.lab.terminal import files
from lra_jax.settings import did_you_mean, nearest
from lra_jax.tasks.reading import LABELS

VALIDATION = 0.2  # held out where the file does not say what is

_ARRAYS = ("inputs", "labels", "weights", "lengths")
_PARTS = ("validation", "test")
_OPTIONS = (*_PARTS, "seed", "batch_first", "output_loss", "input_size", "output_size")
_NAMES = (
    *_ARRAYS,
    *(f"{part}_{name}" for part in _PARTS for name in _ARRAYS),
    *_OPTIONS,
)
_LOSSES = {name: loss for loss, (name, _) in LABELS.items()}


def read_task(path: pathlib.Path) -> Task:
    """The task of a file.

    Args:
      path: of an `.npz` file.

    Raises:
      DatasetError: it cannot be read, or its arrays are not what
        `lra_jax.Task.from_arrays` expects.
    """
    columns = _read(path)
    try:
        return _task(columns)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}") from None


def _read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file, by their names.

    Raises:
      DatasetError: it is not there, or no file of arrays.
    """
    try:
        exists = path.is_file()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from None
    if not exists:
        near = nearest(path.name, [other.name for other in path.parent.glob("*.npz")])
        hint = f"; did you mean {path.with_name(near)}?" if near else ""
        raise DatasetError(
            f"{path}: there is no such file, beside the config or in the current "
            f"directory{hint}"
        )
    try:
        with path.open("rb") as file:  # NumPy leaves a damaged one open
            columns = np.load(file, allow_pickle=False)
            if isinstance(columns, np.ndarray):
                raise ValueError("it is one array; numpy.savez writes several")
            return {name: columns[name] for name in columns.files}
    except (OSError, *files.DAMAGE) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if "allow_pickle" in reason:
            reason = "it holds Python objects; expected arrays of numbers"
        raise DatasetError(f"{path} cannot be read: {reason}") from None


def _task(columns: Mapping[str, np.ndarray]) -> Task:
    """The task of the arrays of a file.

    Raises:
      ValueError: an array is missing, unknown, or not what is expected.
    """
    for name in columns:
        if name not in _NAMES:
            raise ValueError(
                f"{name}: unknown; expected some of {', '.join(_NAMES)}"
                f"{did_you_mean(name, _NAMES)}"
            )
    for name in ("inputs", "labels"):
        if name not in columns:
            raise ValueError(f"{name}: missing; the file has {', '.join(columns)}")
    options = {name: _scalar(name, columns[name]) for name in {*columns} & {*_OPTIONS}}
    if "output_loss" in options:
        options["output_loss"] = _loss(options["output_loss"])
    for part in _PARTS:
        arrays = _part(part, columns)
        if arrays is not None and part in options:
            raise ValueError(f"{part}: expected a fraction or arrays, got both")
        if arrays is not None:
            options[part] = arrays
    options.setdefault("validation", VALIDATION)
    return Task.from_arrays(
        columns["inputs"],
        _labels("", columns),
        lengths=columns.get("lengths"),
        **options,
    )


def _part(part: str, columns: Mapping[str, np.ndarray]) -> tuple[Any, ...] | None:
    """Inputs, labels and maybe lengths of a part that is divided already."""
    names = [f"{part}_{name}" for name in _ARRAYS]
    given = [name for name in names if name in columns]
    if not given:
        return None
    for name in names[:2]:
        if name not in columns:
            raise ValueError(f"{name}: missing beside {given[0]}")
    weights = ["weights", names[2]]
    for name, other in (weights, weights[::-1]):
        if name not in columns and other in columns:
            raise ValueError(f"{name}: missing beside {other}")
    lengths = [columns[name] for name in names[3:] if name in columns]
    return columns[names[0]], _labels(f"{part}_", columns), *lengths


def _labels(prefix: str, columns: Mapping[str, np.ndarray]) -> np.ndarray | Weighted:
    labels, weights = columns[f"{prefix}labels"], columns.get(f"{prefix}weights")
    return labels if weights is None else Weighted(labels, weights)


def _scalar(name: str, array: np.ndarray) -> Any:
    if array.ndim:
        hint = f"; arrays of a part are {name}_inputs and {name}_labels"
        raise ValueError(
            f"{name}: expected one value, got {array.dtype} {array.shape}"
            + hint * (name in _PARTS)
        )
    return array.item()


def _loss(name: Any) -> Any:
    if name not in _LOSSES:
        raise ValueError(
            f"output_loss: expected one of {', '.join(_LOSSES)}, got {name!r}"
        )
    return _LOSSES[name]
