"""What a file says to a `Config`, or to all that is wrong with it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lra_jax.lab.config import extensions, tasks
from lra_jax.lab.config.arguments import all_arguments
from lra_jax.lab.config.config import AXES, Config, key_of
from lra_jax.lab.config.draws import Draws
from lra_jax.lab.config.overrides import apply_override
from lra_jax.lab.config.problems import MAX_PROBLEMS, ConfigError, show, unknown_key
from lra_jax.lab.config.settings import changed_defaults, check_setting, meant, near
from lra_jax.lab.config.table import check_table, of_recorded
from lra_jax.lab.config.text import read

MAX_MEMBERS = 1_000_000


def load_extensions(names: Sequence[str], source: str) -> None:
    """Imports modules of a user's own; see `extensions.load`.

    Raises:
      ConfigError: one cannot be used.
    """
    try:
        extensions.load(names)
    except extensions.ExtensionError as error:
        raise ConfigError(source, [f"import: {error}"]) from None


def resolve(
    raw: dict[str, Any],
    source: str,
    overrides: Sequence[str] = (),
    imports: Sequence[str] = (),
    folder: pathlib.Path = pathlib.Path(),
) -> Config:
    """Checks what a config file says, as `tomllib` reads it; see `load`.

    Args:
      raw: is changed by the overrides.
      source: a name for messages.
      overrides: see `load`.
      imports: see `load`.
      folder: of the file, beside which its data may be.

    Raises:
      ConfigError: with all problems at once.
    """
    problems = _Problems()
    config = None
    with contextlib.suppress(_TooManyError):
        for override in overrides:
            apply_override(raw, override, problems)
        tasks.locate(raw, folder)
        said = raw.get("import", [])
        said = [said] if isinstance(said, str) else said
        if isinstance(said, list) and (said or imports):
            raw["import"] = [*said, *(name for name in imports if name not in said)]
        named = raw.get("import", [])
        if (problem := check_setting("import", named)) is not None:
            problems.append(f"import = {show(named)}: {problem}")
            raise _TooManyError  # nobody knows what they would have added
        load_extensions(named, source)
        config = _resolve(raw, problems)
    if problems:
        raise ConfigError(source, problems)
    assert config is not None
    return config


def load(
    path: str | pathlib.Path,
    overrides: Sequence[str] = (),
    imports: Sequence[str] = (),
) -> Config:
    """Reads, overrides and checks a config.

    Args:
      path: of a TOML file.
      overrides: each `key=value`, `grid.key=value` or, with several tables,
        `grid.INDEX.key=value`, the value in TOML. `grid.key` changes every table that
        has the key.
      imports: modules besides those that the file names.

    Raises:
      ConfigError: with all problems at once; only that of a module that cannot be
        imported, since nobody knows what it would have added.
    """
    folder = pathlib.Path(path).parent
    return resolve(read(path), str(path), overrides, imports, folder)


# Of settings that a file writes otherwise.
_KINDS: dict[str, Callable[[Any], Any]] = {
    "seeds": tuple,
    "validation_stages": tuple,
    "input_gain": float,
    "import": tuple,
}


class _TooManyError(Exception):
    """Enough problems are known, or no more can be."""


class _Problems(list[str]):
    """Problems so far. A screenful ends the search: a file has room for thousands."""

    def append(self, problem: str) -> None:
        super().append(problem)
        if len(self) == MAX_PROBLEMS:
            raise _TooManyError


def _resolve(raw: dict[str, Any], problems: list[str]) -> Config | None:
    """Checks everything and notes problems; a config if there are none."""
    fields = {key_of(f): f for f in dataclasses.fields(Config)}
    top: dict[str, Any] = {}
    for key, value in raw.items():
        if key in ("grid", "defaults"):
            continue
        if key not in fields:
            in_grid = key in all_arguments()
            hint = f"; it belongs under [grid]: grid.{key}" if in_grid else ""
            problems.append(unknown_key("", key, value, fields, hint))
        elif (problem := check_setting(key, value)) is not None:
            is_axis = key in AXES and isinstance(value, list)
            hint = f"; a list stands under [grid]: grid.{key}" if is_axis else ""
            hint = hint or meant(value, functools.partial(check_setting, key))
            problems.append(f"{key} = {show(value)}: {problem}{hint}")
        else:
            kind = _KINDS.get(key)
            top[fields[key].name] = kind(value) if kind else value
    for problem in changed_defaults(raw.get("defaults", {})):
        problems.append(problem)
    tables = raw.get("grid", {})
    tables = [tables] if isinstance(tables, dict) else tables
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        problems.append(f"grid = {show(tables)}: expected a table [grid], or [[grid]]s")
        return None
    invalid = {key: near(key, raw[key]) for key in AXES if key in raw.keys() - top}
    defaults = {
        key: top.get(key, None if key in invalid else fields[key].default)
        for key in AXES
    }
    grid = [
        check_table(
            f"grid.{index}" if len(tables) > 1 else "grid",
            table,
            defaults,
            invalid,
            top.get("dtype", "float32"),
            top.get("split", "validation"),
            problems,
        )
        for index, table in enumerate(tables or [{}])
    ]
    count = sum(map(_num_settings, grid)) * len(top.get("seeds", (0,)))
    if count > MAX_MEMBERS:
        amount = f"{count:,}" if count < 10**21 else "over 10²¹"
        problems.append(f"grid: {amount} members; at most {MAX_MEMBERS:,} in one run")
    top |= of_recorded(top, grid, problems)
    if not problems:
        named = [
            (key, name)
            for key in extensions.TABLES
            for table in grid
            for name in table.get(key, (top.get(key, fields[key].default),))
        ]
        own = extensions.modules_of(named)
        top["import_"] = tuple(dict.fromkeys([*top.get("import_", ()), *own]))
    found = {**top, "grid": tuple(grid)}
    return None if problems else Config(**_plain(found))


def _plain(value: Any) -> Any:
    """A value whose texts are Python's own: how one was written does not matter now."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(x) for x in value)
    return value


def _num_settings(table: Mapping[str, tuple[Any, ...]]) -> int:
    """How many `_product` has, without making them."""
    drawn = [len(values) for values in table.values() if isinstance(values, Draws)]
    lists = (len(x) for x in table.values() if not isinstance(x, Draws))
    return math.prod([*lists, *drawn[:1]])
