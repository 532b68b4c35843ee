"""What is wrong with one setting, and what may have been meant."""

from __future__ import annotations

import os
import shlex
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator
from typing import Any, Literal

from lra_jax import validation
from lra_jax.lab.config import extensions, notation, tasks
from lra_jax.lab.config.arguments import arguments_of, check_choice, check_integer
from lra_jax.lab.config.config import TABLES, Config, toml_of
from lra_jax.lab.config.problems import show, show_key
from lra_jax.settings import nearest

_HINTS = typing.get_type_hints(Config)
_LEAST = {
    "patience": 0,
    "steps_after_solved": 0,
}  # of the integer settings; 1 for all others


def check_setting(key: str, value: Any) -> str | None:
    """What is wrong with a setting, or None."""
    if key == "import":
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(
            isinstance(name, str) for name in names
        ):
            return "expected a list of names of modules"
        return next(filter(None, map(extensions.problem_of, names)), None)
    if key == "task" and tasks.is_own(value):
        return tasks.problem_of(value)
    if key in TABLES:
        problem = check_choice(value, tuple(TABLES[key]))
        if problem is None or "did you mean" in problem:
            return problem
        own = "FILE.npz, MODULE:NAME or " * (key == "task")
        return f"{problem}; one of your own: {own}--import MODULE"
    if typing.get_origin(_HINTS[key]) is Literal:
        return check_choice(value, typing.get_args(_HINTS[key]))
    if key == "seeds":
        good = isinstance(value, list | tuple) and all(
            type(v) is int and 0 <= v < 2**32 for v in value
        )
        if not good or not value or len(set(value)) < len(value):
            return "expected a list of different integers from 0 to 2³² - 1"
        return None
    if key == "validation_stages":
        try:
            validation.check_stages(value, sys.maxsize)
        except ValueError as error:
            return str(error).partition(": ")[2].partition(", got")[0]
        return None
    if key == "name":
        text = value if isinstance(value, str) else ""
        good = text.strip(". ") != "" and "/" not in text and text.isprintable()
        good = good and len(text.encode()) <= 255 and _is_of_this_system(text)
        return None if good else "expected a name for a folder, of at most 255 bytes"
    if _HINTS[key] is bool:
        return None if isinstance(value, bool) else "expected true or false"
    if _HINTS[key] is float:
        good = type(value) in (int, float) and 0 < value <= 1e30
        return None if good else "expected a positive number of at most 1e30"
    return check_integer(value, _LEAST.get(key, 1))


def _is_of_this_system(name: str) -> bool:
    """Whether files can have a name: in an old locale, of ASCII alone."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def changed_defaults(defaults: Any) -> Iterator[str]:
    """Where the `[defaults]` of a resolved config are not those of the code here."""
    hint = "take [defaults] out of the file to have today's"
    if not isinstance(defaults, dict):
        yield f"defaults = {show(defaults)}: expected tables, as in a resolved config"
        return
    for kind, factories in defaults.items():
        kinds = ("rule", "optimizer", "network")
        if kind not in kinds or not isinstance(factories, dict):
            expected = "expected tables of rule, optimizer and network"
            yield f"defaults.{show_key(kind)}: {expected}"
            continue
        for name, values in factories.items():
            if name not in TABLES[kind] or not isinstance(values, dict):
                continue  # the grid is told if it has it
            known = arguments_of(TABLES[kind][name])
            for key, value in values.items():
                where = f"defaults.{kind}.{show_key(name)}.{show_key(key)}"
                if key not in known:
                    text = f"{name} has no such argument; {hint}"
                elif known[key].default is None:
                    text = f"{key} has no default; give it in the grid"
                elif not _is_same(value, known[key].default):
                    text = f"the default is {show(known[key].default)}; give {key} in "
                    text += f"the grid, or {hint}"
                else:
                    continue
                yield f"{where} = {show(value)}: {text}"


def _is_same(value: Any, default: Any) -> bool:
    """Whether a default as TOML has it is the code's."""
    found = tomllib.loads(f"value = {toml_of(default)}")["value"]
    if isinstance(value, bool) is not isinstance(found, bool):
        return False
    return bool(value == found or (value != value and found != found))


def near(key: str, value: Any) -> str | None:
    """The rule, optimizer, ... for which a wrong name may be taken, or None."""
    known = extensions.TABLES.get(key, {})  # recorded data may not be there
    if not isinstance(value, str):
        return None
    name = nearest(value, TABLES.get(key, {}))
    return name if name in known else None


def meant(
    value: Any, check: Callable[[Any], str | None], *, several: bool = False
) -> str:
    """A hint at how TOML writes what a text is like, where that would be right.

    Args:
      value: that is wrong.
      check: what is wrong with another one.
      several: whether a list of values is right as well.
    """
    meant = notation.as_toml(value) if isinstance(value, str) else None
    if meant is None or (found := tomllib.loads(f"value = {meant}")["value"]) == value:
        return ""
    values = found if several and isinstance(found, list) else [found]
    if not values or any(check(one) is not None for one in values):
        return ""
    if isinstance(value, notation.Word):
        return f"; write {shlex.quote(meant) if chr(34) in meant else meant}"
    numbers = all(type(one) in (int, float) for one in values)
    what = "numbers" if numbers else "it"
    return f"; write {what} without quotes: {meant}"
