"""The evaluations of a group of members: a file of rows that only grows.

A checkpoint has no evaluations. It has a *mark*: how many rows of this file belong to
its state, and their SHA-256. Rows are appended and synced before the checkpoint is
written, so what a killed save leaves behind the last mark belongs to no state. It is
cut off before the next rows are appended.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from lra_jax.sweep import Curves

ROW = np.dtype([
    ("member", "<i4"), ("step", "<i4"), ("train_loss", "<f4"), ("loss", "<f4"),
    ("num_errors", "<i4"), ("num_samples", "<i4"),
])  # fmt: skip


class DamagedCurvesError(Exception):
    """The file does not have the rows of a mark."""


class CurveFile:
    """A file of evaluations, and how much of it is in use.

    Args:
      path: of the file; it need not exist.
    """

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._rows = 0
        self._hash = hashlib.sha256()

    @classmethod
    def read(cls, path: pathlib.Path, mark: Mapping[str, Any]) -> tuple[Self, Curves]:
        """The file as a mark knows it, and its evaluations.

        Nothing is written.

        Args:
          path: of the file.
          mark: from `extend`.

        Raises:
          DamagedCurvesError: the rows are not there, or are others.
        """
        file, wanted = cls(path), int(mark["rows"])
        try:
            with path.open("rb") as opened:
                data = opened.read(wanted * ROW.itemsize)
        except OSError as error:
            raise DamagedCurvesError(f"cannot be read: {error.strerror}") from None
        found = len(data) // ROW.itemsize
        if found < wanted:
            raise DamagedCurvesError(f"has {found:,} whole rows of {wanted:,}")
        file._rows = wanted
        file._hash.update(data)
        if file._hash.hexdigest() != mark["sha256"]:
            raise DamagedCurvesError("is damaged: its checksum is not that of its rows")
        rows = np.frombuffer(data, ROW)
        native = (ROW[name].newbyteorder("=") for name in Curves._fields)
        return file, Curves(
            *(
                rows[name].astype(t)
                for name, t in zip(Curves._fields, native, strict=True)
            )
        )

    def extend(self, curves: Curves) -> dict[str, Any]:
        """Appends the rows that are not in the file, and syncs them.

        Args:
          curves: all of the group; its first rows are those that the file has.

        Returns:
          The mark of these curves: `rows` and `sha256`.

        Raises:
          OSError: they cannot be written; the file is as it was.
        """
        new = np.empty(curves.member.size - self._rows, ROW)
        for name, column in zip(Curves._fields, curves, strict=True):
            new[name] = column[self._rows :]
        data = new.tobytes()
        if data or not self.path.exists():
            self._append(data)
        self._rows += new.size
        self._hash.update(data)
        return {"rows": self._rows, "sha256": self._hash.hexdigest()}

    def _append(self, data: bytes) -> None:
        end = self._rows * ROW.itemsize
        with self.path.open("ab", buffering=0) as file:
            try:
                file.truncate(end)
                rest = memoryview(data)
                while rest:  # a disk that is nearly full takes a part
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise
