"""`--set KEY=VALUE` over what a config says."""

from __future__ import annotations

import shlex
import tomllib
from typing import Any

from lra_jax.lab.config import notation
from lra_jax.lab.config.problems import cut, show_key
from lra_jax.lab.config.text import parse


def apply_override(raw: dict[str, Any], text: str, problems: list[str]) -> None:
    """Applies one `--set`."""
    path, equals, value_text = text.partition("=")
    keys = path.strip().split(".")
    where = f"--set {cut(text, 60)}"
    if not equals or not all(keys):
        problems.append(f"{where}: expected KEY=VALUE, such as grid.gamma=[1,10]")
        return
    try:
        parsed = parse(f"value = {value_text}")
    except ValueError as error:
        word = value_text.strip()  # a bare word is a string
        is_word = not word.startswith(("[", "{", "'", '"'))
        if not isinstance(error, tomllib.TOMLDecodeError) or not is_word:
            problems.append(f"{where}: the value is not valid TOML: {error}")
            if (meant := notation.as_toml(word)) is not None:
                problems[-1] += (
                    f"; write --set {shlex.quote(f'{path.strip()}={meant}')}"
                )
            return
        parsed = {"value": notation.Word(word)}
    value = parsed.pop("value")
    if parsed:
        problems.append(f"{where}: expected one value")
        return
    if keys[0] != "grid" or len(keys) == 1:
        if len(keys) > 1:
            problems.append(f"{where}: {show_key(keys[0])} is not a table")
        else:
            raw[keys[0]] = value
        return
    tables = raw.setdefault("grid", {})
    tables = tables if isinstance(tables, list) else [tables]
    if not all(isinstance(table, dict) for table in tables):
        return  # reported with the grid itself
    key = keys[-1]
    if len(keys) == 2:
        having = [t for t in tables if key in t] if len(tables) > 1 else tables
        if not having:
            problems.append(
                f"{where}: no table of the grid has {show_key(key)}; "
                f"grid.0.{show_key(key)} sets it in the first"
            )
        for table in having:
            table[key] = value
        return
    indices = [str(index) for index in range(len(tables))]
    if len(keys) == 3 and keys[1] in indices:
        tables[int(keys[1])][key] = value
    else:
        problems.append(
            f"{where}: expected grid.KEY, or grid.INDEX.KEY with INDEX "
            f"from 0 to {len(tables) - 1}"
        )
