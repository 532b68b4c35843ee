"""How two configs differ, in words."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from typing import Any

from lra_jax.lab.config import Config
from lra_jax.lab.config.config import before as value_before
from lra_jax.lab.config.config import key_of
from lra_jax.lab.config.draws import SCALES


def differences(before: str, config: Config) -> tuple[list[str], list[str]]:
    """How a config differs from one that was written down.

    Args:
      before: what `Config.to_toml` gave.
      config: what is asked for now.

    Returns:
      Where it asks for something else; and where it was left to other defaults.

    Raises:
      ValueError: the text is no TOML.
    """
    there, here = _flat(tomllib.loads(before)), _flat(tomllib.loads(config.to_toml()))
    fields = {key_of(field): field for field in dataclasses.fields(Config)}
    other, defaults = [], []
    for key in dict.fromkeys([*there, *here]):
        if key == "name" or there.get(key, _NOTHING) == here.get(key, _NOTHING):
            continue
        lines = [
            f"{where} {_line(key, found[key])}"
            for where, found in (("there:", there), ("here: ", here))
            if key in found
        ]
        if key.startswith("defaults."):
            defaults.append(", ".join(lines))
        elif key in there or key not in fields or not _is_as_before(fields[key], here):
            other += lines
    if "defaults" not in {key.partition(".")[0] for key in there}:
        defaults = []  # older folders do not say them
    return other, defaults


def _is_as_before(field: dataclasses.Field[Any], here: dict[str, Any]) -> bool:
    """Whether a setting that a folder does not say is what it was there."""
    value, was = here[key_of(field)], value_before(field)
    return bool(value == (list(was) if isinstance(was, tuple) else was))


_NOTHING = object()  # what no config has


def _flat(table: Any, where: str = "") -> dict[str, Any]:
    """What a TOML file says, by its full keys: `seeds`, `grid.lr`, `grid.1.lr`."""
    if isinstance(table, list) and len(table) == 1 and isinstance(table[0], dict):
        return _flat(table[0], where)
    if isinstance(table, list) and table and isinstance(table[0], dict):
        table = {str(index): part for index, part in enumerate(table)}
    elif not isinstance(table, dict) or {*table} & {*SCALES}:
        return {where: table}
    prefix = f"{where}." if where else ""
    return {
        key: value
        for name, part in table.items()
        for key, value in _flat(part, prefix + name).items()
    }


def _line(key: str, value: Any) -> str:
    """What a config says, and in which of several tables of its grid."""
    table, _, name = key.removeprefix("grid.").rpartition(".")
    if not key.startswith("grid."):
        table, name = "", key
    text = f"{name} = {json.dumps(value, ensure_ascii=False)}"
    return f"{text} (grid.{table})" if table else text
