"""The terminal, or whatever stands in its place: a pipe, a file, nothing at all.

What a program prints never ends it. Characters that a stream cannot encode become
backslashes, and a stream that cannot be written any more is written to no longer. What
a user wrote (paths, names, settings) is printed as it is, never read as markup.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
from collections.abc import Collection, Sequence
from typing import Any, TextIO, cast

import rich.box
import rich.cells
import rich.console
import rich.table

WIDTH = 120  # columns, where no terminal says how many it has


class Outlet:
    """A stream that takes any text and never raises.

    Args:
      stream: standard output or error; None where the process began without it.

    Attributes:
      error: why it cannot be written any more; None as long as it can.
      farewell: what is said on standard error then, with {} for the reason; None is
        nothing.
    """

    def __init__(self, stream: TextIO | None):
        self._stream = stream
        self.error: Exception | None = None
        self.farewell: str | None = None

    def write(self, text: str) -> int:
        """Writes the text, or what can be written of it."""
        try:
            self._write(text)
        except UnicodeEncodeError:
            encoding = self.encoding
            self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:
            self._lose(error)
        return len(text)

    def _write(self, text: str) -> None:
        if self.error is not None:
            return
        if self._stream is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        try:
            self._stream.write(text)
        except BlockingIOError:  # whoever shares the stream asked for that
            set_blocking(self._stream.fileno(), blocking=True)

    def flush(self) -> None:
        """Writes what is not written yet."""
        if self._stream is None or self.error is not None:
            return
        try:
            try:
                self._stream.flush()
            except BlockingIOError:
                set_blocking(self._stream.fileno(), blocking=True)
                self._stream.flush()
        except (OSError, ValueError) as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        """Writes no longer, nor does Python at its exit."""
        self.error = error
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, cast(TextIO, self._stream).fileno())
            os.close(null)
        except (OSError, ValueError, AttributeError):
            pass  # it has no place in the system
        if self.farewell is not None:
            print(self.farewell.format(self.reason), file=sys.stderr)

    @property
    def reason(self) -> str:
        """Why it cannot be written."""
        return str(getattr(self.error, "strerror", None) or self.error)

    @property
    def encoding(self) -> str:
        """Of its characters."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        try:
            return self.error is None and cast(TextIO, self._stream).isatty()
        except (ValueError, AttributeError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__.get("_stream"), name)


def set_blocking(file: int, *, blocking: bool) -> None:
    """`os.set_blocking`, which Windows has from Python 3.12 on; nothing without it."""
    if hasattr(os, "set_blocking"):
        os.set_blocking(file, blocking)


def protect() -> None:
    """Makes standard output and error outlets; to be called before anything else.

    A process may begin without them. Then the first files that it opens would get their
    places, and all that libraries print.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Outlet):
            setattr(sys, name, Outlet(stream))


def say_loss(text: str) -> None:
    """What is said on standard error when standard output is lost, {} for the reason.

    It means that the program goes on, and that its exit code is not changed by it.
    """
    if isinstance(sys.stdout, Outlet):
        sys.stdout.farewell = text


def is_lost() -> bool:
    """Whether standard output cannot be written any more."""
    return isinstance(sys.stdout, Outlet) and sys.stdout.error is not None


def finish(code: int, program: str = "") -> int:
    """The exit code of a program whose own is `code`, when all is written.

    A reader that has had enough, such as `head`, is no failure. Where the output is
    what the program is for, another error is.
    """
    sys.stdout.flush()
    outlet = sys.stdout
    if not isinstance(outlet, Outlet) or outlet.error is None:
        return code
    if outlet.farewell is not None or isinstance(outlet.error, BrokenPipeError):
        return code
    name = f"{program}: " if program else ""
    print(f"{name}stdout cannot be written: {outlet.reason}", file=sys.stderr)
    return code or 1


def console(*, stderr: bool = False) -> rich.console.Console:
    """Where a program prints: wide where no terminal says how wide it is."""
    plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
    found = rich.console.Console(stderr=stderr, **plain)
    if not found.is_terminal or found.width < 1:
        found = rich.console.Console(stderr=stderr, width=WIDTH, **plain)
    return found


def printable(text: object) -> str:
    """A text in which nothing is a command to a terminal, such as a path."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def plain(text: str) -> str:
    """Markdown of a line as a terminal shows it: without stars and quotes."""
    return re.sub(r"\*\*(.+?)\*\*|`(.+?)`", lambda m: m[1] or m[2], text)


def say(console: rich.console.Console, text: str) -> None:
    """Prints a text; lines are as long as they are."""
    console.print(text, soft_wrap=True, highlight=False, markup=False, emoji=False)


def shell(words: Sequence[str], encoding: str = "utf-8") -> str:
    """Words as a line to be pasted into a shell (bash, zsh, ksh).

    Args:
      words: of a command. Bytes of a path that are no UTF-8 are surrogates in them, as
        Python has them.
      encoding: of the terminal.
    """
    return " ".join(_quoted(word, encoding) for word in words)


def _quoted(word: str, encoding: str) -> str:
    if word.isprintable() and _fits(word, encoding):
        return f"'{word}'" if re.fullmatch(r"=\S*", word) else shlex.quote(word)
    try:
        data = word.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        data = word.encode("utf-8", "surrogatepass")
    return f"$'{''.join(map(_byte, data))}'"


def _byte(value: int) -> str:
    as_it_is = 32 <= value < 127 and chr(value) not in "'\\!"
    return chr(value) if as_it_is else f"\\x{value:02x}"


def _fits(word: str, encoding: str) -> bool:
    try:
        word.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _fitting(text: str, encoding: str) -> str:
    """A text as the terminal is going to show it, which has a known width."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def option(name: str, value: str) -> list[str]:
    """The words of a flag with a value, which may look like a flag itself."""
    if value.startswith("-"):
        return [f"--{name}={value}"]
    return [f"--{name}", value]


def show_table(
    console: rich.console.Console,
    header: Sequence[str],
    lines: Sequence[Sequence[str]],
    *,
    left: Collection[str] | None = None,
    wrapped: Collection[str] = (),
) -> None:
    """Prints a table, or where the terminal is too narrow a line for each cell.

    Args:
      console: where to.
      header: names of the columns.
      lines: of cells.
      left: columns that are flush left; None is all.
      wrapped: columns whose cells may take several lines.
    """
    header = [_fitting(name, console.encoding) for name in header]
    lines = [[_fitting(cell, console.encoding) for cell in line] for line in lines]
    table = rich.table.Table(box=rich.box.SIMPLE)
    needed = 1
    for index, name in enumerate(header):
        cells = [name, *(line[index] for line in lines)]
        if name in wrapped:
            cells = [word for cell in cells for word in cell.split()] or [""]
        needed += 3 + max(map(rich.cells.cell_len, cells))
        table.add_column(
            name,
            justify="left" if left is None or name in left else "right",
            no_wrap=name not in wrapped,
        )
    if needed <= console.width:
        for line in lines:
            table.add_row(*line)
        console.print(table)
        return
    for line in lines:
        say(console, "")
        for name, cell in zip(header, line, strict=True):
            if cell:
                say(console, f"{name}: {cell}")
    say(console, "")
