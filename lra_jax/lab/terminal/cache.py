"""The folder in which what took time is kept for the next run."""

from __future__ import annotations

import os
import pathlib
import tempfile


def home() -> pathlib.Path | None:
    """The user's home; None where nobody knows of one."""
    try:
        found = pathlib.Path(os.environ.get("HOME") or pathlib.Path.home())
    except (RuntimeError, KeyError):  # no HOME, and a user without an entry
        return None
    return found if found.is_absolute() and found != found.parent else None


def folder() -> pathlib.Path | None:
    """`lra_jax` below XDG_CACHE_HOME or ~/.cache; None where there is neither.

    A relative XDG_CACHE_HOME is ignored, as its specification asks.
    """
    given = pathlib.Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():
        return given / "lra_jax"
    at_home = home()
    return None if at_home is None else at_home / ".cache" / "lra_jax"


def writable(path: pathlib.Path) -> bool:
    """Whether files can be made in a folder, which is made where it is missing."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return True
    except (OSError, ValueError):  # the latter of a path with a zero byte
        return False
