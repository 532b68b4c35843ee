"""The command line of the programs here: absl flags, dashes in their names allowed."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Sequence

import rich.console
from absl import flags, logging

from experiments import terminal


def parser(
    program: str,
    check: Callable[[], None] = lambda: None,
    *,
    takes_words: bool = False,
    takes_imports: bool = False,
) -> Callable[[list[str]], list[str]]:
    """A `flags_parser` for `app.run`: bad flags are one message and exit code 2.

    Args:
      program: its name, which begins the message.
      check: looks at the values together, and raises `flags.Error`.
      takes_words: whether words that are no flags are allowed.
      takes_imports: whether there is `--import`.
    """
    if takes_imports:
        _define_import()

    def parse(argv: list[str]) -> list[str]:
        terminal.protect()
        if {"-h", "-help", "--help"} & {*argv[1:]}:
            print(usage())
            sys.exit(terminal.finish(0, program))
        try:
            rest = flags.FLAGS(underscored(argv))
            if len(rest) > 1 and not takes_words:
                raise flags.Error(f"unexpected argument {rest[1]!r}")
            check()
        except (flags.Error, ValueError) as error:
            text = "".join(c if c.isprintable() else "?" for c in str(error))
            text = re.sub(r"\w+_\w+", _as_typed, text)
            print(f"{program}: {text}", file=sys.stderr)
            sys.exit(2)
        return rest

    return parse


def _define_import() -> None:
    """Defines the flag where no program that this one is made of did."""
    if "import" not in flags.FLAGS:
        flags.DEFINE_multi_string(
            "import",
            [],
            "Module with rules, tasks or optimizers of your own, found in the current "
            "directory as well; may be given several times.",
        )


def imports() -> list[str]:
    """The modules that `--import` names."""
    return list(flags.FLAGS["import"].value or ())


def imports_again() -> list[str]:
    """The words of the command line that name them."""
    return [word for name in imports() for word in terminal.option("import", name)]


def _as_typed(match: re.Match[str]) -> str:
    """The name of a flag with dashes, any other word as it is."""
    word = match[0]
    return word.replace("_", "-") if word in flags.FLAGS else word


def usage() -> str:
    """What the program is, and its flags."""
    lines = [(sys.modules["__main__"].__doc__ or "").strip(), "", "Flags:"]
    for module, found in flags.FLAGS.flags_by_module_dict().items():
        # Not those of absl or chex, nor of programs that this one has functions of.
        shared = ("experiments.bench", "experiments.command_line")
        is_other = module.startswith("experiments.") and module not in shared
        if is_other or module.startswith(("absl", "chex")):
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
    """Where a program prints; see `terminal.console`."""
    logging.set_verbosity(logging.WARNING)
    return terminal.console()


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
    terminal.protect()
    try:
        return terminal.finish(run(console()), program)
    except errors as error:
        print(f"{program}: {error}" if program else error, file=sys.stderr)
        return terminal.finish(2)


def underscored(argv: Sequence[str]) -> list[str]:
    """`--seq-len=9` to `--seq_len=9`; what is not the name of a flag stays as it is.

    A word after a flag that wants a value is that value, whatever it looks like, and
    after `--` no word is a flag.
    """
    found: list[str] = []
    is_value = False
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--":
            return [*found, word, *words]
        if is_value or not name.startswith("--"):
            found.append(word)
            flag = "" if is_value else name[name.startswith("-") :]
        else:
            flag = name[2:].replace("-", "_")
            found.append(f"--{flag}{equals}{value}")
        wants = flag in flags.FLAGS and not flags.FLAGS[flag].boolean
        is_value = wants and word.startswith("-") and not equals and not is_value
    return found
