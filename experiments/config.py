"""A config file: what it may say, and every problem of what it does say.

    task = "temporal_order"        # top level: one value for the whole run
    seq_len = 10
    seeds = [0, 1, 2]

    [grid]                         # lists are axes; their product, times seeds, is run
    lr = [0.1, 0.01]
    gamma = [1, 10]                # arguments of the rule and of the optimizer
    lambda = [0, 0.1]
    local_loss = "mse"             # a single value is an axis of one

`[[grid]]`, several times, is the union of several products: a rule and its controls in
one run. The settings in `AXES` may stand at the top level or be axes. What the keys of
a grid may be is read off the signatures of the rules and optimizers themselves.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import inspect
import itertools
import json
import math
import pathlib
import tomllib
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jax.typing import ArrayLike

from experiments.optimizers import OPTIMIZERS
from lra_jax import RULES, TASKS

MAX_MEMBERS = 1_000_000
MAX_INT = 2**31 - 1

# Settings that may be axes of a grid as well: each changes the compiled program.
AXES = ("task", "seq_len", "rule", "optimizer", "hidden_size", "batch_size")


class ConfigError(Exception):
    """All problems of a config, one line each."""

    def __init__(self, source: str, problems: Sequence[str]):
        self.problems = list(problems)
        count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        super().__init__("\n  ".join([f"{source}: {count}", *problems]))


@dataclasses.dataclass(frozen=True)
class Config:
    """A run, resolved: every setting has a value.

    Attributes:
      name: of the run; the run folder's default name.
      task, seq_len, rule, optimizer, hidden_size, batch_size: see `AXES`; None only
        where every table of the grid says it.
      max_steps: most updates of a member.
      eval_every: updates between two evaluations.
      patience: evaluations without strictly fewer errors that end a member; 0 is off.
      num_validation: samples of the validation set.
      seeds: each setting of the grid runs with each of them.
      dtype: of weights and arithmetic.
      matmul_precision: of products of float32 matrices where the hardware has several.
      grid: one table or more; axis name to its values.
    """

    name: str
    task: str | None = None
    seq_len: int | None = None
    rule: str | None = "lra_diff"
    optimizer: str | None = "sgd"
    hidden_size: int | None = 100
    batch_size: int | None = 20
    max_steps: int = 100_000
    eval_every: int = 100
    patience: int = 30
    num_validation: int = 10_000
    seeds: tuple[int, ...] = (0,)
    dtype: Literal["float32", "float64"] = "float32"
    matmul_precision: Literal["highest", "high", "default"] = "highest"
    grid: tuple[dict[str, tuple[Any, ...]], ...] = ()

    def to_toml(self) -> str:
        """The config as a file that `load` reads back to the same value."""
        lines = [
            f"{field.name} = {json.dumps(value, ensure_ascii=False)}"
            for field in dataclasses.fields(self)
            if field.name != "grid" and (value := getattr(self, field.name)) is not None
        ]
        for table in self.grid:
            lines += ["", "[[grid]]"]
            lines += [f"{key} = {json.dumps(values)}" for key, values in table.items()]
        return "\n".join(lines) + "\n"

    def digest(self) -> str:
        """SHA-256 of all that the results depend on; the name is not."""
        text = dataclasses.replace(self, name="").to_toml()
        return hashlib.sha256(text.encode()).hexdigest()

    def members(self) -> Iterator[dict[str, Any]]:
        """Each member's settings and hyper-parameters; the seed varies fastest."""
        fixed = {key: getattr(self, key) for key in AXES}
        for table in self.grid:
            for values in itertools.product(*table.values()):
                setting = {**fixed, **dict(zip(table, values, strict=True))}
                for seed in self.seeds:
                    yield {**setting, "seed": seed}


@dataclasses.dataclass(frozen=True)
class Argument:
    """A keyword of a rule's or an optimizer's factory, as a config sees it."""

    kind: Literal["number", "choice", "flag"]
    required: bool
    choices: tuple[str, ...] = ()


def arguments_of(factory: Callable[..., Any]) -> dict[str, Argument]:
    """The keywords that a config may give, read off the factory's signature.

    Numbers are annotated `ArrayLike`, choices `Literal`, switches `bool`. A trailing
    underscore (`lambda_`) is dropped.
    """
    hints = typing.get_type_hints(factory)
    found = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        hint, required = hints[name], parameter.default is inspect.Parameter.empty
        if hint == ArrayLike:
            argument = Argument("number", required)
        elif typing.get_origin(hint) is Literal:
            argument = Argument("choice", required, typing.get_args(hint))
        elif hint is bool:
            argument = Argument("flag", required)
        else:
            continue  # the output loss comes with the task
        found[name.rstrip("_")] = argument
    return found


def load(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> Config:
    """Reads, overrides and checks a config.

    Args:
      path: of a TOML file.
      overrides: each `key=value`, `grid.key=value` or, with several tables,
        `grid.INDEX.key=value`, the value in TOML. `grid.key` changes every table that
        has the key.

    Raises:
      ConfigError: with all problems at once.
    """
    source = str(path)
    try:
        raw = tomllib.loads(pathlib.Path(path).read_bytes().decode())
    except OSError as error:
        raise ConfigError(source, [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError(source, ["is not a text file in UTF-8"]) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(source, [f"is not valid TOML: {error}"]) from None
    raw.setdefault("name", pathlib.Path(path).stem)
    problems: list[str] = []
    for override in overrides:
        _override(raw, override, problems)
    config = _resolve(raw, problems)
    if problems:
        raise ConfigError(source, problems)
    assert config is not None
    return config


def _override(raw: dict[str, Any], text: str, problems: list[str]) -> None:
    """Applies one `--set`."""
    path, equals, value_text = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        problems.append(f"--set {text}: expected KEY=VALUE, such as grid.gamma=[1,10]")
        return
    try:
        value = tomllib.loads(f"value = {value_text}")["value"]
    except tomllib.TOMLDecodeError:
        value = value_text.strip()  # a bare word is a string
    if keys[0] != "grid" or len(keys) == 1:
        if len(keys) > 1:
            problems.append(f"--set {text}: {keys[0]} is not a table")
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
                f"--set {text}: no table of the grid has {key!r}; "
                f"grid.0.{key} sets it in the first"
            )
        for table in having:
            table[key] = value
    elif len(keys) == 3 and keys[1].isdigit() and int(keys[1]) < len(tables):
        tables[int(keys[1])][key] = value
    else:
        problems.append(
            f"--set {text}: expected grid.KEY, or grid.INDEX.KEY with INDEX "
            f"from 0 to {len(tables) - 1}"
        )


def _resolve(raw: dict[str, Any], problems: list[str]) -> Config | None:
    """Checks everything and notes problems; a config if there are none."""
    fields = {f.name: f for f in dataclasses.fields(Config)}
    hints = typing.get_type_hints(Config)
    top: dict[str, Any] = {}
    for key, value in raw.items():
        if key == "grid":
            continue
        if key not in fields:
            in_grid = key in _all_arguments()
            hint = f"; it belongs under [grid]: grid.{key}" if in_grid else ""
            problems.append(_unknown(key, value, fields) + hint)
        elif (problem := _check_setting(key, value, hints[key])) is not None:
            problems.append(f"{key} = {_show(value)}: {problem}")
        else:
            top[key] = tuple(value) if key == "seeds" else value
    tables = raw.get("grid", {})
    tables = [tables] if isinstance(tables, dict) else tables
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        problems.append(
            f"grid = {_show(tables)}: expected a table [grid], or [[grid]]s"
        )
        return None
    invalid = {key for key in AXES if key in raw and key not in top}
    defaults = {
        key: top.get(key, None if key in invalid else fields[key].default)
        for key in AXES
    }
    grid = [
        _check_table(
            f"grid.{index}" if len(tables) > 1 else "grid",
            table,
            defaults,
            invalid,
            top.get("dtype", "float32"),
            problems,
        )
        for index, table in enumerate(tables or [{}])
    ]
    count = sum(
        math.prod(len(values) for values in table.values()) for table in grid
    ) * len(top.get("seeds", (0,)))
    if count > MAX_MEMBERS:
        problems.append(f"grid: {count:,} members; at most {MAX_MEMBERS:,} in one run")
    return None if problems else Config(**top, grid=tuple(grid))


def _check_table(
    where: str,
    table: Mapping[str, Any],
    defaults: Mapping[str, Any],
    invalid: set[str],
    dtype: str,
    problems: list[str],
) -> dict[str, tuple[Any, ...]]:
    """Checks one table of the grid; returns its axes as tuples."""
    hints = typing.get_type_hints(Config)
    axes: dict[str, tuple[Any, ...]] = {}

    def problem(key: str, text: str) -> None:
        problems.append(f"{where}.{key} = {_show(table[key])}: {text}")

    for key, value in table.items():
        axes[key] = tuple(value) if isinstance(value, list) else (value,)
        if not axes[key]:
            problem(key, "expected at least one value")
        elif _has_repeats(axes[key]):
            problem(key, "the same value twice")

    settings: dict[str, tuple[Any, ...]] = {}
    for key in AXES:
        settings[key] = axes.get(key, (defaults[key],))
        if key in axes:
            wrong = [_check_setting(key, v, hints[key]) for v in axes[key]]
            for found in filter(None, wrong):
                problem(key, found)
            if any(wrong):
                settings[key] = (None,)
        elif defaults[key] is None and key not in invalid:
            problems.append(f"{key}: missing; give it at the top level or in {where}")

    factories = [
        ("rule", RULES, settings["rule"]),
        ("optimizer", OPTIMIZERS, settings["optimizer"]),
    ]
    known: dict[str, Argument] = {}
    complete = True
    for kind, factory_table, names in factories:
        for name in names:
            if name is None:
                complete = False
                continue
            arguments = arguments_of(factory_table[name])
            known |= arguments
            for key, argument in arguments.items():
                if argument.required and key not in table:
                    problems.append(f"{where}.{key}: missing; {kind} {name!r} needs it")
    for key in table:
        if key in AXES:
            continue
        if key not in known:
            if complete:
                problems.append(_unknown(f"{where}.{key}", table[key], {*known, *AXES}))
            continue
        for kind, factory_table, names in factories:
            others = [
                n for n in names if n and key not in arguments_of(factory_table[n])
            ]
            takers = [n for n in names if n and n not in others]
            if takers and others:
                problem(key, f"{kind} {others[0]!r} has no such argument; use [[grid]]")
        for value in axes[key]:
            if (text := _check_argument(key, value, known[key], dtype)) is not None:
                problem(key, f"{text}, got {_show(value)}")

    for task, seq_len in itertools.product(settings["task"], settings["seq_len"]):
        if task is None or seq_len is None:
            continue
        least = TASKS[task].min_seq_len
        if seq_len < least:
            problems.append(
                f"seq_len = {seq_len}: task {task!r} needs at least {least}"
            )
    return axes


_TABLES: dict[str, Mapping[str, Any]] = {
    "task": TASKS,
    "rule": RULES,
    "optimizer": OPTIMIZERS,
}
_LEAST = {"patience": 0}  # of the integer settings; 1 for all others


def _check_setting(key: str, value: Any, hint: Any) -> str | None:
    """What is wrong with a setting, or None."""
    if key in _TABLES:
        return _check_choice(value, tuple(_TABLES[key]))
    if typing.get_origin(hint) is Literal:
        return _check_choice(value, typing.get_args(hint))
    if key == "seeds":
        good = isinstance(value, list | tuple) and all(
            type(v) is int and 0 <= v < 2**32 for v in value
        )
        if not good or not value or len(set(value)) < len(value):
            return "expected a list of different integers from 0 to 2³² - 1"
        return None
    if key == "name":
        text = value if isinstance(value, str) else ""
        good = text.strip(". ") != "" and "/" not in text and text.isprintable()
        return None if good else "expected a name for a folder"
    least = _LEAST.get(key, 1)
    if type(value) is not int or not least <= value <= MAX_INT:
        return f"expected an integer of at least {least}"
    return None


def _check_choice(value: Any, allowed: Sequence[str]) -> str | None:
    if isinstance(value, str) and value in allowed:
        return None
    near = difflib.get_close_matches(str(value), allowed, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"expected one of {', '.join(allowed)}{hint}"


def _check_argument(key: str, value: Any, argument: Argument, dtype: str) -> str | None:
    """What is wrong with one value of a rule's or optimizer's argument, or None."""
    if argument.kind == "choice":
        return _check_choice(value, argument.choices)
    if argument.kind == "flag":
        return None if isinstance(value, bool) else "expected true or false"
    if key == "num_refinements":
        good = type(value) is int and 1 <= value <= MAX_INT
        return None if good else "expected an integer of at least 1"
    if type(value) not in (int, float):
        hint = "; write numbers without quotes" if isinstance(value, str) else ""
        return f"expected a number{hint}"
    if not (math.isfinite(value) and 0 <= value <= float(np.finfo(dtype).max)):
        return f"expected a finite number of at least 0 that {dtype} can hold"
    if key in ("momentum", "feedback_momentum", "b1", "b2", "decay") and value >= 1:
        return "expected a number below 1"
    return None


def _all_arguments() -> set[str]:
    factories = [*RULES.values(), *OPTIMIZERS.values()]
    return {key for factory in factories for key in arguments_of(factory)}


def _unknown(key: str, value: Any, known: Any) -> str:
    leaf = key.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(leaf, known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else ""
    return (
        f"{key} = {_show(value)}: unknown key{hint} "
        f"(known here: {', '.join(sorted(set(known) - {'grid'}))})"
    )


def _has_repeats(values: Sequence[Any]) -> bool:
    """Whether two values are equal; 1 and 1.0 are, 1 and true are not."""
    kinds = [(type(v) is bool, v) for v in values]
    return any(kind in kinds[:index] for index, kind in enumerate(kinds))


def _show(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= 60 else text[:57] + "..."
