"""Reads and writes tables of results: rows as CSV, and by name as JSON.

Texts, numbers and truth values come back as they were written. The columns of `TEXTS`
have texts. In all others, a text that looks like a number, like a truth value or like
nothing is in quotes: "1e5" is a text, 1e5 is a number. Where one value without quotes
is a word, all values of the column are texts.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lra_jax.lab.terminal import files

Row = dict[str, Any]

# Columns of all tables here that are texts, also where somebody has taken the quotes
# away, or where the file is of a version that wrote none: a commit may be 81293120e14.
TEXTS = frozenset({
    "bench", "code", "data", "device", "dtype", "family", "feedback",
    "fraction_by_seed", "jax", "key", "label", "lengths", "measure", "method", "name",
    "network", "optimizer", "optimizer_options", "options", "row", "rule", "run",
    "setting", "status", "task", "test_by_seed", "updates_by_seed", "verdict",
    "verdict_on_reach",
})  # fmt: skip

_INTEGER = re.compile("[+-]?(0|[1-9][0-9]{0,308})")
_REAL = re.compile(
    r"[+-]?((0|[1-9][0-9]{0,308})(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,9})?"
    "|[+-]?(nan|inf)"
)
_WORDS = {"": None, "True": True, "False": False}
_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n|\n|\r|\Z)')


def write_rows(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a CSV, numbers with six digits and None as nothing."""
    files.write(path, csv_text(rows, digits=6).encode())


def csv_text(
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str] | None = None,
    digits: int | None = None,
) -> str:
    """Rows as CSV that `parse_rows` reads back.

    Args:
      rows: None, and what a row does not have, is nothing.
      names: of the columns; by default all that there are, as they come.
      digits: of real numbers; None is all that they have.
    """
    if names is None:
        names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [
        _fields([row.get(name) for row in rows], name in TEXTS, digits)
        for name in names
    ]
    lines = [map(_quoted_if_needed, names), *zip(*columns, strict=True)]
    return "".join(",".join(line) + "\n" for line in lines)


def _fields(values: Sequence[Any], is_text: bool, digits: int | None) -> list[str]:
    """The fields of a column. In one of numbers, every text is in quotes."""
    kinds = set(map(type, values))
    if kinds == {int}:
        return list(map(int.__repr__, values))
    if kinds == {float} and not is_text and digits is None:
        return list(map(float.__repr__, values))
    mixed = not is_text and any(
        x is not None and not isinstance(x, str) for x in values
    )

    def field(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, float) and not is_text:
            return float.__repr__(value) if digits is None else f"{value:.{digits}g}"
        text = str(value)
        if not isinstance(value, str) and not is_text:
            return text
        return _quoted(text) if mixed or _is_special(text) else _quoted_if_needed(text)

    if kinds == {str}:  # few different ones, in as many rows as there are members
        known = {text: field(text) for text in set(values)}
        return [known[text] for text in values]
    return [field(value) for value in values]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _quoted_if_needed(text: str) -> str:
    return _quoted(text) if re.search('[",\r\n]', text) else text


def _is_special(text: str) -> bool:
    """Whether a text, without quotes, would be taken for something else."""
    return text in _WORDS or _REAL.fullmatch(text) is not None


def write_by_name(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as JSON, an object by "name", from which pages take numbers."""
    by_name = {
        row["name"]: {key: value for key, value in row.items() if key != "name"}
        for row in rows
    }
    text = json.dumps(by_name, indent=0, ensure_ascii=False)
    files.write(path, text.encode(), b"\n")


def read_rows(path: pathlib.Path) -> list[Row]:
    """The rows of a CSV: numbers, truth values and texts; empty fields are None.

    Raises:
      ValueError: it is no table, or no text.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        return parse_rows(file.read())


def parse_rows(text: str) -> list[Row]:
    """The rows of a CSV; see `read_rows`."""
    lines = _lines(text)
    names = [field for field, _ in next(lines, [])]
    table = [line for line in lines if len(names) == 1 or line != [("", False)]]
    for number, line in enumerate(table, 1):
        if len(line) != len(names):
            raise ValueError(
                f"row {number} has {len(line)} fields; there are {len(names)} columns"
            )
    columns = [
        _values([line[index] for line in table], name in TEXTS)
        for index, name in enumerate(names)
    ]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _lines(text: str) -> Iterator[list[tuple[str, bool]]]:
    """The fields of each line, and whether each is in quotes."""
    position, line = 0, list[tuple[str, bool]]()
    while position < len(text):
        match = _FIELD.match(text, position)
        if match is None:
            raise ValueError(f"a quote is out of place, at {text[position:][:20]!r}")
        inside, plain, end = match.groups()
        is_quoted = inside is not None
        line.append((inside.replace('""', '"') if is_quoted else plain, is_quoted))
        position = match.end()
        if end == "," and position == len(text):
            line.append(("", False))
        if end != "," or position == len(text):
            yield line
            line = []


def _values(fields: Sequence[tuple[str, bool]], is_text: bool) -> list[Any]:
    """The values of a column."""
    plain = {text for text, is_quoted in fields if not is_quoted}
    if is_text or not all(map(_is_special, plain)):
        return [text if text or is_quoted else None for text, is_quoted in fields]
    values = {text: _value(text) for text in plain}
    return [text if is_quoted else values[text] for text, is_quoted in fields]


def _value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    return int(text) if _INTEGER.fullmatch(text) else float(text)
