"""How recorded data are divided into training, validation and test parts."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np


class Parts(NamedTuple):
    """Indices of samples, each in exactly one part."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def hashed_order(count: int) -> np.ndarray:
    """0 .. count-1 in the order of their SHA-256, in decimal: `[count]`.

    It looks random, and is the same in all versions of everything.
    """
    return np.array(
        sorted(range(count), key=lambda i: hashlib.sha256(b"%d" % i).digest())
    )


def divide(
    classes: np.ndarray,
    validation: int,
    test: int | None,
    num_training: int | None = None,
) -> Parts:
    """The parts of a data set: always the same.

    Of the samples of each class in their `hashed_order`, the first are for validation,
    the next for the test, all others for training. A test part of the source is kept.

    Args:
      classes: `[N]`.
      validation: samples of each class.
      test: samples of each class; None with a test part of the source.
      num_training: samples before the source's test part.

    Raises:
      ValueError: a class has too few samples.
    """
    count = len(classes) if num_training is None else num_training
    order = hashed_order(count)
    held_out = validation + (test or 0)
    parts: list[list[int]] = [[], [], []]
    for value in np.unique(classes):
        members = order[classes[order] == value]
        if members.size <= held_out:
            raise ValueError(
                f"class {value} has {members.size} samples; expected over {held_out}"
            )
        parts[0].extend(members[held_out:])
        parts[1].extend(members[:validation])
        parts[2].extend(members[validation:held_out])
    if num_training is not None:
        parts[2].extend(range(num_training, len(classes)))
    return Parts(*(np.sort(np.array(part, int)) for part in parts))
