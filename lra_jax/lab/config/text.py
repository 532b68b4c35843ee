"""A config as text: TOML, and what people write in its place."""

from __future__ import annotations

import pathlib
import re
import tomllib
from typing import Any

from lra_jax.lab.config import notation
from lra_jax.lab.config.problems import ConfigError, cut

# What a file may hold, so that a wrong one is refused at once.
MAX_BYTES = 2**18
MAX_DOTS = 100  # in a line, but for those of numbers; see `parse`
MAX_DIGITS = 1000  # in a row

# A dot that is not of a number in a list.
_DOT_OF_A_KEY = r"\.(?![0-9][0-9_]*([eE][+-]?[0-9_]+)?\s*[],])"


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """What a config file says, with the file's name where it says none; unchecked.

    Raises:
      ConfigError: it cannot be read, or is not TOML.
    """
    source = str(path)
    try:
        with pathlib.Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise ConfigError(source, [f"cannot be read: {reason}"]) from None
    if len(data) > MAX_BYTES:
        text = f"is larger than {MAX_BYTES // 1024} KiB; expected a config"
        raise ConfigError(source, [text])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(source, ["is not a text file in UTF-8"]) from None
    try:
        raw = parse(text)
    except ValueError as error:
        problem = f"is not valid TOML: {error}{_mended(text, error)}"
        raise ConfigError(source, [problem]) from None
    raw.setdefault("name", pathlib.Path(path).stem)
    return raw


def _mended(text: str, error: ValueError) -> str:
    """The line that an error of TOML names, and what may have been meant."""
    match = re.search(r"\(at line (\d+)", str(error))
    lines = text.split("\n")
    if match is None or int(match[1]) > len(lines):
        return ""
    line = lines[int(match[1]) - 1].strip()
    meant = notation.mended(line)
    return f": {cut(line, 60)}" + (f"; write {cut(meant, 60)}" if meant else "")


def parse(text: str) -> dict[str, Any]:
    """Parses TOML; whatever is wrong is a `ValueError` that says so.

    For a key of n parts, `tomllib` needs memory in n²; of a number of many digits, it
    raises an error that names no line.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if len(re.findall(_DOT_OF_A_KEY, line)) > MAX_DOTS:
            raise ValueError(f"more than {MAX_DOTS} dots (at line {number})")
        if re.search(f"[0-9_]{{{MAX_DIGITS}}}", line):
            raise ValueError(f"{MAX_DIGITS:,} digits or more (at line {number})")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
