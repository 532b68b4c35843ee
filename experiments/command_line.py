"""The command line of the programs here: absl flags, dashes in their names allowed."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable

import rich.console
from absl import flags, logging


def parser(
    program: str,
    check: Callable[[], None] = lambda: None,
    *,
    takes_words: bool = False,
) -> Callable[[list[str]], list[str]]:
    """A `flags_parser` for `app.run`: bad flags are one message and exit code 2.

    Args:
      program: its name, which begins the message.
      check: looks at the values together, and raises `flags.Error`.
      takes_words: whether words that are no flags are allowed.
    """

    def parse(argv: list[str]) -> list[str]:
        if {"-h", "-help", "--help"} & {*argv[1:]}:
            print(usage())
            sys.exit(0)
        try:
            rest = flags.FLAGS([_underscored(word) for word in argv])
            if len(rest) > 1 and not takes_words:
                raise flags.Error(f"unexpected argument {rest[1]!r}")
            check()
        except flags.Error as error:
            text = "".join(c if c.isprintable() else "?" for c in str(error))
            text = re.sub(r"\w+_\w+", _as_typed, text)
            print(f"{program}: {text}", file=sys.stderr)
            sys.exit(2)
        return rest

    return parse


def _as_typed(match: re.Match[str]) -> str:
    """The name of a flag with dashes, any other word as it is."""
    word = match[0]
    return word.replace("_", "-") if word in flags.FLAGS else word


def usage() -> str:
    """What the program is, and its flags."""
    lines = [(sys.modules["__main__"].__doc__ or "").strip(), "", "Flags:"]
    for module, found in flags.FLAGS.flags_by_module_dict().items():
        # Not absl's own, nor those of programs that this one has functions of.
        is_other = module.startswith("experiments.") and module != "experiments.bench"
        if is_other or module.startswith("absl"):
            continue
        for flag in found:
            name, default = flag.name.replace("_", "-"), flag.default
            is_set = default not in (None, [], False)
            said = " ".join(flag.help.split()) + f" (default: {default})" * is_set
            indent = 2 * " "
            lines.append(f"{indent}--{name}")
            lines += textwrap.wrap(
                said, 88, initial_indent=3 * indent, subsequent_indent=3 * indent
            )
    return "\n".join(lines)


def console() -> rich.console.Console:
    """Where a program prints: wide where no terminal says how wide it is."""
    logging.set_verbosity(logging.WARNING)
    terminal = rich.console.Console()
    return terminal if terminal.is_terminal else rich.console.Console(width=120)


def exit_code(
    run: Callable[[rich.console.Console], int],
    errors: tuple[type[Exception], ...],
    program: str = "",
) -> int:
    """What a program returns; where the user is to mend something, a message and 2.

    Args:
      run: the program.
      errors: that are the user's.
      program: its name, which begins the message; none where the message has a file's.
    """
    try:
        return run(console())
    except errors as error:
        print(f"{program}: {error}" if program else error, file=sys.stderr)
        return 2


def _underscored(word: str) -> str:
    """`--seq-len=9` to `--seq_len=9`; what is not a flag stays as it is."""
    name, equals, value = word.partition("=")
    if not name.startswith("--"):
        return word
    return name.replace("-", "_").replace("__", "--", 1) + equals + value
