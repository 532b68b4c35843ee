"""Formats of files that recorded data come in, read with NumPy."""

from __future__ import annotations

import gzip
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Records(NamedTuple):
    """All samples of a data set, in the order of its source.

    Attributes:
      inputs: `[N, T, X]`. Where there are no labels, `[N, T + 1, Y]` of which each
        frame but the first is what the step before has to answer.
      labels: `[N]` int32 classes; None where inputs are their own targets.
      start: `[N]` int32, the first step of each sample; None is 0 for all.
      num_training: samples before the test part that the source has; None where it has
        no parts.
    """

    inputs: np.ndarray
    labels: np.ndarray | None
    start: np.ndarray | None = None
    num_training: int | None = None


def read_table(path: pathlib.Path, side: int) -> Records:
    """Square images from a gzipped CSV: a row has the pixels, and last the class.

    Args:
      path: of the file.
      side: pixels of a side.

    Returns:
      Records with inputs `[N, side, side]` uint8.
    """
    with gzip.open(path, "rt", encoding="ascii") as file:
        lines = file.read().splitlines()
    if not lines:
        raise ValueError("is empty")
    rows = np.loadtxt(lines, np.float64, delimiter=",", ndmin=2)
    if rows.shape[1] != side**2 + 1:
        raise ValueError(f"{rows.shape[1]} columns; expected {side**2 + 1}")
    return Records(
        inputs=_bytes(rows[:, :-1]).reshape(-1, side, side),
        labels=_bytes(rows[:, -1]).astype(np.int32),
    )


def _bytes(values: np.ndarray) -> np.ndarray:
    whole = values.astype(np.uint8)
    if not np.array_equal(whole, values):
        raise ValueError("expected integers from 0 to 255")
    return whole


def read_series(path: pathlib.Path) -> tuple[list[np.ndarray], list[str]]:
    """Labelled series of a `.ts` file, of different lengths.

    After `@data`, a line is a sample: `:` between channels and before the label, `,`
    between the values of a channel.

    Args:
      path: of the file.

    Returns:
      Series `[T, X]` float32, and the label of each.
    """
    lines = iter(path.read_text("utf8").splitlines())
    for line in lines:
        if line.strip().lower() == "@data":
            break
    series, labels = [], []
    for line in filter(None, map(str.strip, lines)):
        *channels, label = line.split(":")
        values = [np.array(text.split(","), np.float32) for text in channels]
        series.append(np.stack(values, axis=1))
        labels.append(label)
    if not series:
        raise ValueError("no data")
    return series, labels


def read_idx(path: pathlib.Path) -> np.ndarray:
    """An array of bytes of an idx file, gzipped or not.

    Its bytes: 0, 0, 8 for uint8, the number of axes, four for the size of each axis,
    the largest first, and then the values.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError("no idx file of bytes")
    shape = np.frombuffer(data, ">u4", data[3], 4).astype(int)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if values.size != shape.prod():
        raise ValueError(f"{values.size} values; expected {shape.prod()}")
    return values.reshape(shape)


def align(series: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Series `[Tᵢ, X]` as one array, aligned at their ends.

    Returns:
      `[N, max T, X]`, 0 before a series, and `[N]` int32, where each starts.
    """
    longest = max(map(len, series))
    start = np.array([longest - len(x) for x in series], np.int32)
    whole = np.zeros((len(series), longest, series[0].shape[1]), series[0].dtype)
    for row, x, first in zip(whole, series, start, strict=True):
        row[first:] = x
    return whole, start
