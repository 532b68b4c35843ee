"""Markdown of tables and notes, for every page that a program writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table; a `|` within a cell does not end it."""
    return "".join(map(_row, [header, ["---"] * len(header), *body]))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n"


def notes(lines: Iterable[str]) -> str:
    """A list of what a reader has to know, a line each."""
    return "".join(f"- {line}\n" for line in lines)
