"""The command line of all commands: absl flags, dashes in their names allowed."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence

import jax
import rich.console
from absl import flags, logging

import lra_jax
from lra_jax.lab.terminal import files, screen
from lra_jax.settings import did_you_mean

# Modules whose flags belong to all commands that import them.
SHARED = ("lra_jax.lab.benches.bench", "lra_jax.lab.terminal.command_line")


def started_as(module: str) -> list[str]:
    """The words that start a command, as the user began this one.

    Args:
      module: whose last name is the command's.
    """
    name = module.rpartition(".")[2]
    if sys.argv[0].startswith("lra-jax "):
        return ["lra-jax", name]
    return ["python", "-m", f"experiments.{name}"]


def program(module: str) -> str:
    """The name of a command in messages: `lra-jax grid` or `experiments.grid`."""
    words = started_as(module)
    return " ".join(words).removeprefix("python -m ")


def choose(
    program: str, commands: Mapping[str, str], words: Sequence[str]
) -> tuple[str, list[str]]:
    """The command that the words of a command line name, and the others.

    Ends the program with a list of the commands where none is named, and with a message
    and exit code 2 where the name is of none.

    Args:
      program: its name.
      commands: names to what they do, in a few words.
      words: of the command line, without the program.
    """
    screen.protect()
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {what}" for name, what in commands.items()]
    first = f"{program} COMMAND [--flag VALUE ...]"
    last = f"{program} COMMAND --help shows a command's flags."
    listed = "\n".join([first, "", *lines, "", last])
    short = program.removeprefix("python -m ")
    if not words or words[0] in ("help", "--help", "-h", "-help"):
        print(listed)
        sys.exit(screen.finish(0, short))
    if words[0] == "--version":
        print(f"lra_jax {lra_jax.__version__}, JAX {jax.__version__}")
        sys.exit(screen.finish(0, short))
    name = words[0].replace("-", "_")
    if name not in commands:
        hint = did_you_mean(name, commands)
        text = "".join(c if c.isprintable() else "?" for c in words[0])
        print(f"{short}: no command {text!r}{hint}\n\n{listed}", file=sys.stderr)
        sys.exit(2)
    return name, list(words[1:])


def parser(
    module: str,
    check: Callable[[], None] = lambda: None,
    *,
    takes_words: bool = False,
    takes_imports: bool = False,
) -> Callable[[list[str]], list[str]]:
    """A `flags_parser` for `app.run`: bad flags are one message and exit code 2.

    Args:
      module: of the command; its last name is the command's, its docstring the help.
      check: looks at the values together, and raises `flags.Error`.
      takes_words: whether words that are no flags are allowed.
      takes_imports: whether there is `--import`.
    """
    if takes_imports:
        _define_import()

    def parse(argv: list[str]) -> list[str]:
        screen.protect()
        if {"-h", "-help", "--help"} & {*argv[1:]}:
            print(usage(module))
            sys.exit(screen.finish(0, program(module)))
        try:
            rest = flags.FLAGS(underscored(argv))
            if len(rest) > 1 and not takes_words:
                raise flags.Error(f"unexpected argument {rest[1]!r}")
            _check_given()
            check()
        except (flags.Error, ValueError) as error:
            text = "".join(c if c.isprintable() else "?" for c in str(error))
            text = re.sub(r"\w+_\w+", _as_typed, text)
            print(f"{program(module)}: {text}", file=sys.stderr)
            sys.exit(2)
        return rest

    return parse


def _check_given() -> None:
    """Refuses an empty value, as of a variable of the shell that is not set.

    Raises:
      flags.Error: a flag has one. It would be taken for the default, or for the current
        folder.
    """
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        is_list = isinstance(flag.parser, flags.ListParser)
        if flag.present and (flag.value == "" or (is_list and flag.value == [])):
            raise flags.Error(f"--{name} is empty; expected a value")


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
    return [word for name in imports() for word in screen.option("import", name)]


def _as_typed(match: re.Match[str]) -> str:
    """The name of a flag with dashes, any other word as it is."""
    word = match[0]
    return word.replace("_", "-") if word in flags.FLAGS else word


def usage(module: str) -> str:
    """What a command is, and its flags.

    Args:
      module: of the command.
    """
    text = (sys.modules[module].__doc__ or "").strip()
    for words in re.findall(r"python -m experiments\.\w+", text):
        text = text.replace(words, " ".join(started_as(words)))
    lines = [text, "", "Flags:"]
    for name_of_module, found in flags.FLAGS.flags_by_module_dict().items():
        # Not those of absl or chex, nor of commands that this one has functions of.
        if name_of_module not in (module, *SHARED):
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
    """Where a program prints; see `screen.console`."""
    logging.set_verbosity(logging.WARNING)
    return screen.console()


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
    screen.protect()
    try:
        return screen.finish(run(console()), program)
    except errors as error:
        text = files.described(error) if isinstance(error, OSError) else str(error)
        print(f"{program}: {text}" if program else text, file=sys.stderr)
        return screen.finish(2)


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
