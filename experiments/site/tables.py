"""Tables of results that others are made of."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from lra_jax.lab.reports.results import Row
from lra_jax.lab.runs import store


def read(
    path: pathlib.Path, columns: Collection[str], numbers: Collection[str] = ()
) -> list[Row]:
    """The rows of a table that has these columns, one at least.

    Args:
      path: of the CSV.
      columns: that it has to have.
      numbers: those of them that have a number in every row.

    Raises:
      store.RunFolderError: it cannot be read, is damaged, or is another table.
    """
    rows = store.read_rows(path)
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        raise store.RunFolderError(
            f"{path}: expected a table with the columns {', '.join(columns)}; "
            + (f"there is no {', '.join(missing)}" if rows else "there are no rows")
        )
    for place, row in enumerate(rows, 1):
        for name in numbers:
            if not isinstance(row[name], int | float):
                said = "nothing" if row[name] is None else repr(row[name])
                raise store.RunFolderError(
                    f"{path}: row {place}: {name}: expected a number, got {said}"
                )
    return rows


def network_of(settings: Mapping[str, Any]) -> str:
    """The network of a member, as tables name it."""
    layers = int(settings.get("num_layers") or 1)
    name = str(settings.get("network") or "tanh")
    return name if layers == 1 else f"{layers} layers of {name}"
