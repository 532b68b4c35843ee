"""Files that are whole or not there, and folders of which one process has the lock."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import sys
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


def write(path: pathlib.Path, *data: bytes, shared: bool = False) -> None:
    """Writes a file aside and renames it: whoever opens it finds it whole.

    Args:
      path: of the file.
      data: its content, in parts.
      shared: whether several processes may write it at once. Each then writes aside
        under a name of its own.

    Raises:
      OSError: it cannot be written; what was there before is whole.
    """
    process = f".{os.getpid()}" if shared else ""
    aside = path.with_name(f".{path.name}{process}.part")
    try:
        with aside.open("wb") as file:
            file.writelines(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync_folder(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise


def lock(file: IO[str]) -> None:
    """Locks a file for this process, until it closes it or ends.

    Raises:
      BlockingIOError: another process has it.
      OSError: the filesystem has no locks.
    """
    if sys.platform == "win32":
        position = file.tell()
        file.seek(_LOCKED_BYTE)  # what is locked there, nobody else can read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLK):
                raise BlockingIOError(error.errno, error.strerror) from None
            raise
        finally:
            file.seek(position)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_LOCKED_BYTE = 2**20  # far behind what the file says


def sync_folder(path: pathlib.Path) -> None:
    """Makes the names in a folder outlive a loss of power, where the system can."""
    if sys.platform == "win32":
        return  # it opens no folders, and keeps their names itself
    with contextlib.suppress(OSError):  # some filesystems refuse it
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
