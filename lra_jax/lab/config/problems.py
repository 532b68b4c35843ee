"""Problems of a config, in words that are safe to print."""

from __future__ import annotations

import itertools
import json
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from lra_jax.lab.config import notation
from lra_jax.settings import did_you_mean, nearest

# What a message may hold: a screen.
MAX_PROBLEMS = 30
MAX_LINES = 36


class ConfigError(Exception):
    """All problems of a config, as one screen of text that is safe to print."""

    def __init__(self, source: str, problems: Sequence[str]):
        self.problems = [cut(problem, 460) for problem in problems]
        count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        if len(problems) >= MAX_PROBLEMS:
            count = f"at least {count}"
        lines = [
            line
            for problem in self.problems
            for line in textwrap.wrap(
                problem, 120, initial_indent="  ", subsequent_indent="      "
            )
        ]
        if len(lines) > MAX_LINES:
            lines[MAX_LINES:] = ["  ... and more"]
        name = _escape(source)
        if len(name) > 150:  # the end of a path says most
            name = f"...{name[-147:]}"
        super().__init__("\n".join([f"{name}: {count}", *lines]))


def unknown_key(where: str, key: str, value: Any, known: Any, hint: str = "") -> str:
    """The problem of a key that nothing knows, with the nearest one or all."""
    hint = hint or did_you_mean(key, known)
    hint = hint or f" (known here: {', '.join(sorted(set(known) - {'grid'}))})"
    return f"{where}{show_key(key)} = {show(value)}: unknown key{hint}"


def is_like(key: str, known: Iterable[str]) -> bool:
    """Whether a key is nearly one that is known."""
    return nearest(key, known, least=0.7) is not None


def show(value: Any) -> str:
    """The beginning of a value, as JSON; of a word, as it was written."""
    if isinstance(value, notation.Word):
        return cut(value, 60)
    parts = json.JSONEncoder(default=str, ensure_ascii=False).iterencode(value)
    try:
        return cut("".join(itertools.islice(parts, 60)), 60)
    except ValueError:  # Python refuses to print it
        return "(thousands of digits)"


def show_key(key: str) -> str:
    """A key as TOML writes it: bare, or in quotes."""
    return key if re.fullmatch("[A-Za-z0-9_-]{1,60}", key) else show(key)


def cut(text: str, length: int) -> str:
    """At most `length` characters, none of which a terminal takes for a command."""
    text = _escape(text[: length + 1])
    return text if len(text) <= length else text[: length - 3] + "..."


def _escape(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
