"""Reads and writes tables of results: rows as CSV, and by name as JSON."""

from __future__ import annotations

import csv
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]


def write_rows(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a CSV, numbers with six digits and None as nothing."""
    aside = path.with_name(f".{path.name}")
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
            )
    aside.replace(path)


def write_by_name(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as JSON, an object by "name", from which pages take numbers."""
    by_name = {
        row["name"]: {key: value for key, value in row.items() if key != "name"}
        for row in rows
    }
    text = json.dumps(by_name, indent=0, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_rows(path: pathlib.Path) -> list[Row]:
    """The rows of a CSV; numbers are numbers, and empty fields None."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            {key: _value(text) for key, text in row.items()}
            for row in csv.DictReader(file)
        ]


def _value(text: str) -> Any:
    if text in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
