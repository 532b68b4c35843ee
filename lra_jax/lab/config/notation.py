"""What people write in a config, and how TOML writes the same."""

from __future__ import annotations

import re
import tomllib

MAX_LENGTH = 200  # of a text that is looked at

_TOKEN = re.compile(r"""\s*("[^"]*"|'[^']*'|[][(){},;=]|[^][(){},;="'\s]+)""")
_NUMBER = re.compile(r"([+-]?)(\d*)(\.?)(\d*)((?:[eE][+-]?\d+)?)")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+")
_WORDS = {"true": "true", "false": "false", "yes": "true", "no": "false"}
_TYPOGRAPHY = str.maketrans("−–“”„‘’", '--"""\'\'')
_BRACKETS = str.maketrans("();", "[],")


class Word(str):
    """A text that was written without quotes."""

    __slots__ = ()


def as_toml(text: str) -> str | None:
    """A value as TOML writes it, from one that is only like it.

    `.5` is 0.5, `0.1, 0.3` and `(0.1 0.3)` are [0.1,0.3], `True` is true, and words
    get quotes.

    Returns:
      None where it is not clear what was meant.
    """
    text = text.strip().translate(_TYPOGRAPHY)
    if not text or len(text) > MAX_LENGTH:
        return None
    if _THOUSANDS.fullmatch(text):
        return text.replace(",", "")
    tokens = _tokens(text)
    if tokens is None:
        return None
    found: list[str] = []
    for index, token in enumerate(tokens):
        if token == "(" and found and found[-1] not in (*"[{,=",):
            return None  # a function
        is_key = tokens[index + 1 : index + 2] == ["="]
        token = token.translate(_BRACKETS) if len(token) == 1 else token
        if token not in (*"[]{},=",):
            token = token if is_key else _value(token)
        begins = token not in (*"]},=",)
        if found and begins and found[-1] not in (*"[{,=",):
            found.append(",")
        found.append(token)
    joined = "".join(found)
    several = "," in found and found[0] not in (*"[{",)
    joined = f"[{joined}]" if several else joined
    return joined if _parsed(joined) else None


def _tokens(text: str) -> list[str] | None:
    found, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            return None
        found.append(match[1])
        place = match.end()
    return found


def _value(token: str) -> str:
    """A number, a switch, a word or a text."""
    if token[0] in "\"'":
        return token
    if token.lower() in _WORDS:
        return _WORDS[token.lower()]
    match = _NUMBER.fullmatch(token)
    if match is None or not match[2] + match[4]:
        return token if _parsed(token) else f'"{token}"'
    sign, whole, dot, rest, exponent = match.groups()
    digits = whole.lstrip("0") or "0"
    return f"{sign}{digits}{dot}{rest or '0' * len(dot)}{exponent}"


def _parsed(text: str) -> bool:
    try:
        return [*tomllib.loads(f"value = {text}")] == ["value"]
    except (ValueError, RecursionError):
        return False


def mended(line: str) -> str | None:
    """A line of a config as TOML writes it; None where it is not clear."""
    key, equals, value = line.partition("=")
    key, value = key.strip(), value.partition("#")[0]
    if not equals:
        key, _, value = line.partition(":")
        key = key.strip()
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", key):
        return None
    meant = as_toml(value)
    found = None if meant is None else f"{key} = {meant}"
    return None if found is None or found == line.strip() else found
