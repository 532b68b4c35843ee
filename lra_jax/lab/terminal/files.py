"""Files: written whole, locked, damaged; and what the system says against them."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import sys
import tokenize
import zipfile
import zlib
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

# What `np.load` raises of an archive that is cut, changed or something else, besides
# OSError.
DAMAGE = (
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    RuntimeError,  # of what zipfile takes for a password, or for another method
    SyntaxError,  # of an array's header, which is Python
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


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
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        error.filename = str(path)
        raise


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text as `write` does; a device, or a pipe, as it is.

    Args:
      path: of the file; of a link, that of what it names.
      text: in UTF-8, with backslashes for what that does not have.

    Raises:
      OSError: it cannot be written.
    """
    data = text.encode("utf-8", "backslashreplace")
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    write(pathlib.Path(os.path.realpath(path)) if path.is_symlink() else path, data)


def described(error: OSError) -> str:
    """What the system has against a file, as a line: which one, and why."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}"


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
