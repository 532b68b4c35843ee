"""A config file: what it may say, and every problem of what it does say.

    task = "temporal_order"        # top level: one value for the whole run
    seq_len = 10
    seeds = [0, 1, 2]

    [grid]                         # lists are axes; their product, times seeds, is run
    lr = [0.1, 0.01]
    gamma = [1, 10]                # arguments of the rule and of the optimizer
    lambda = [0, 0.1]
    local_loss = "mse"             # a single value is an axis of one
    c0 = { log_uniform = [1e-3, 10], num = 64 }    # drawn, see `experiments.draws`

`[[grid]]`, several times, is the union of several products: a rule and its controls in
one run. The settings in `AXES` may stand at the top level or be axes. What the keys of
a grid may be is read off the signatures of the rules and optimizers themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import hashlib
import itertools
import json
import math
import os
import pathlib
import re
import shlex
import textwrap
import tomllib
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from lra_jax import RULES, Task
from lra_jax.lab.config import extensions, notation
from lra_jax.lab.config import tasks as tasks_lib
from lra_jax.lab.config.arguments import (
    Argument,
    all_arguments,
    arguments_of,
    check_argument,
    check_choice,
    check_integer,
)
from lra_jax.lab.config.draws import Draws
from lra_jax.lab.config.optimizers import OPTIMIZERS
from lra_jax.lab.data.datasets import Part
from lra_jax.lab.data.sources import DatasetError

MAX_MEMBERS = 1_000_000
MAX_MEMORY = 2**40  # bytes that one member may need at the very least

# What a file may hold, so that a wrong one is refused at once.
MAX_BYTES = 2**18
MAX_DOTS = 100  # in a line, but for those of numbers; see `_parse`
MAX_DIGITS = 1000  # in a row

# What a message may hold: a screen.
MAX_PROBLEMS = 30
MAX_LINES = 36

# Settings that may be axes of a grid as well: each changes the compiled program.
AXES = ("task", "seq_len", "rule", "optimizer", "hidden_size", "batch_size")

# Settings that files of run folders did not always have; their defaults mean what was
# done before. `Config.request_digest` leaves them out where they have these.
ADDED = ("input_gain", "split", "save_params", "steps_after_solved", "import_")


class ConfigError(Exception):
    """All problems of a config, as one screen of text that is safe to print."""

    def __init__(self, source: str, problems: Sequence[str]):
        self.problems = [_cut(problem, 460) for problem in problems]
        count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
        if len(problems) >= MAX_PROBLEMS:
            count = f"at least {count}"
        lines = [
            line
            for problem in self.problems
            for line in textwrap.wrap(
                problem, 120, initial_indent="  ", subsequent_indent="      "
            )
        ]
        if len(lines) > MAX_LINES:
            lines[MAX_LINES:] = ["  ... and more"]
        name = _escape(source)
        if len(name) > 150:  # the end of a path says most
            name = f"...{name[-147:]}"
        super().__init__("\n".join([f"{name}: {count}", *lines]))


@dataclasses.dataclass(frozen=True)
class Config:
    """A run, resolved: every setting has a value.

    Attributes:
      name: of the run; the run folder's default name.
      task, seq_len, rule, optimizer, hidden_size, batch_size: see `AXES`; None only
        where every table of the grid says it.
      input_gain: W_xh begins as a random orthogonal matrix times this.
      max_steps: most updates of a member.
      eval_every: updates between two evaluations.
      patience: evaluations without strictly fewer errors that end a member; 0 is off.
      num_validation: samples of the validation set; of recorded data, all there are.
      split: part of recorded data that is evaluated on: for "validation" the training
        part is trained on, for "test" training and validation together.
      validation: "released" evaluates from the released code's initial state, see
        `lra_jax.rules.lra_released`.
      steps_after_solved: updates for which a member goes on after its first evaluation
        without an error.
      race: whether the first of a group's members with one seed and one K that is
        solved ends the others.
      save_params: whether the run folder keeps each member's last weights.
      seeds: each setting of the grid runs with each of them.
      dtype: of weights and arithmetic.
      matmul_precision: of products of float32 matrices where the hardware has several.
      import_: `import` in a file; modules that add rules, tasks or optimizers, see
        `experiments.extensions`.
      grid: one table or more; axis name to its values.
    """

    name: str
    task: str | None = None
    seq_len: int | None = None
    rule: str | None = "lra_diff"
    optimizer: str | None = "sgd"
    hidden_size: int | None = 100
    batch_size: int | None = 20
    input_gain: float = 1.0
    max_steps: int = 100_000
    eval_every: int = 100
    patience: int = 30
    steps_after_solved: int = 0
    num_validation: int = 10_000
    split: Part = "validation"
    validation: Literal["standard", "released"] = "standard"
    race: bool = False
    save_params: bool = False
    seeds: tuple[int, ...] = (0,)
    dtype: Literal["float32", "float64"] = "float32"
    matmul_precision: Literal["highest", "high", "default"] = "highest"
    import_: tuple[str, ...] = ()
    grid: tuple[dict[str, tuple[Any, ...]], ...] = ()

    def to_toml(self) -> str:
        """The config as a file that `load` reads back to the same value.

        Its last tables, `[defaults.rule.NAME]` and `[defaults.optimizer.NAME]`, are
        what the grid leaves to the defaults of the code.
        """
        lines = [self._request(left_out=())]
        for kind, factories in self.defaults().items():
            for name, values in factories.items():
                if not values:
                    continue
                lines.append(f"[defaults.{kind}.{_toml_key(name)}]")
                lines += [f"{key} = {_toml(value)}" for key, value in values.items()]
                lines.append("")
        return "\n".join(lines).rstrip() + "\n"

    def _request(self, left_out: Sequence[str]) -> str:
        """The settings and the grid as TOML.

        Args:
          left_out: settings that are not in it where they have their defaults.
        """
        lines = [
            f"{_key(field)} = {json.dumps(value, ensure_ascii=False)}"
            for field in dataclasses.fields(self)
            if field.name != "grid"
            and (value := getattr(self, field.name)) is not None
            and not (field.name in left_out and value == field.default)
        ]
        for table in self.grid:
            lines += ["", "[[grid]]"]
            for key, values in table.items():
                if isinstance(values, Draws):
                    lines.append(f"{key} = {values.to_toml()}")
                else:
                    lines.append(f"{key} = {json.dumps(values)}")
        return "\n".join(lines) + "\n"

    def defaults(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What is left to the defaults of rules and optimizers.

        Returns:
          For "rule" and "optimizer" the names that the grid has, and for each of these
          the arguments that some table with it does not give, with their defaults.
        """
        found: dict[str, dict[str, dict[str, Any]]] = {"rule": {}, "optimizer": {}}
        for table in self.grid:
            for kind, of_kind in found.items():
                for name in table.get(kind, (getattr(self, kind),)):
                    mine = of_kind.setdefault(name, {})
                    for key, argument in arguments_of(_TABLES[kind][name]).items():
                        if not argument.required and key not in table:
                            mine[key] = argument.default
        return found

    def digest(self) -> str:
        """SHA-256 of all that the results depend on; the name is not."""
        text = dataclasses.replace(self, name="").to_toml()
        return hashlib.sha256(text.encode()).hexdigest()

    def request_digest(self) -> str:
        """SHA-256 of what was asked for, without what is left to defaults.

        It is what `digest` was in run folders that do not say their defaults.
        """
        text = dataclasses.replace(self, name="")._request(left_out=ADDED)
        return hashlib.sha256(text.encode()).hexdigest()

    def members(self) -> Iterator[dict[str, Any]]:
        """Each member's settings and hyper-parameters; the seed varies fastest."""
        fixed = {key: getattr(self, key) for key in AXES}
        for table in self.grid:
            for values in _product(table):
                for seed in self.seeds:
                    yield {**fixed, **values, "seed": seed}


def _key(field: dataclasses.Field[Any]) -> str:
    """A field's name in a file: that of a keyword of Python has no underscore."""
    return field.name.rstrip("_")


def _product(table: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """A table's settings: the product of its lists with the rows of what is drawn."""
    drawn = [key for key, values in table.items() if isinstance(values, Draws)]
    axes = [[{key: x} for x in table[key]] for key in table if key not in drawn]
    if drawn:
        rows = zip(*(table[key] for key in drawn), strict=True)
        axes.append([dict(zip(drawn, row, strict=True)) for row in rows])
    for parts in itertools.product(*axes):
        found = {key: value for part in parts for key, value in part.items()}
        yield {key: found[key] for key in table}


def _toml(value: Any) -> str:
    """A default as TOML writes it."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, default=str)


def _toml_key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else json.dumps(key)


def _num_settings(table: Mapping[str, tuple[Any, ...]]) -> int:
    """How many `_product` has, without making them."""
    drawn = [len(values) for values in table.values() if isinstance(values, Draws)]
    lists = (len(x) for x in table.values() if not isinstance(x, Draws))
    return math.prod([*lists, *drawn[:1]])


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


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """What a config file says, with the file's name where it says none; unchecked.

    Raises:
      ConfigError: it cannot be read, or is not TOML.
    """
    source = str(path)
    try:
        with pathlib.Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise ConfigError(source, [f"cannot be read: {reason}"]) from None
    if len(data) > MAX_BYTES:
        text = f"is larger than {MAX_BYTES // 1024} KiB; expected a config"
        raise ConfigError(source, [text])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(source, ["is not a text file in UTF-8"]) from None
    try:
        raw = _parse(text)
    except ValueError as error:
        problem = f"is not valid TOML: {error}{_mended(text, error)}"
        raise ConfigError(source, [problem]) from None
    raw.setdefault("name", pathlib.Path(path).stem)
    return raw


def _mended(text: str, error: ValueError) -> str:
    """The line that an error of TOML names, and what may have been meant."""
    match = re.search(r"\(at line (\d+)", str(error))
    lines = text.split("\n")
    if match is None or int(match[1]) > len(lines):
        return ""
    line = lines[int(match[1]) - 1].strip()
    meant = notation.mended(line)
    return f": {_cut(line, 60)}" + (f"; write {_cut(meant, 60)}" if meant else "")


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
            _override(raw, override, problems)
        tasks_lib.locate(raw, folder)
        said = raw.get("import", [])
        said = [said] if isinstance(said, str) else said
        if isinstance(said, list) and (said or imports):
            raw["import"] = [*said, *(name for name in imports if name not in said)]
        named = raw.get("import", [])
        if (problem := check_setting("import", named)) is not None:
            problems.append(f"import = {_show(named)}: {problem}")
            raise _TooManyError  # nobody knows what they would have added
        load_extensions(named, source)
        config = _resolve(raw, problems)
    if problems:
        raise ConfigError(source, problems)
    assert config is not None
    return config


class _TooManyError(Exception):
    """Enough problems are known, or no more can be."""


class _Problems(list[str]):
    """Problems so far. A screenful ends the search: a file has room for thousands."""

    def append(self, problem: str) -> None:
        super().append(problem)
        if len(self) == MAX_PROBLEMS:
            raise _TooManyError


# A dot that is not of a number in a list.
_DOT_OF_A_KEY = r"\.(?![0-9][0-9_]*([eE][+-]?[0-9_]+)?\s*[],])"


def _parse(text: str) -> dict[str, Any]:
    """Parses TOML; whatever is wrong is a `ValueError` that says so.

    For a key of n parts, `tomllib` needs memory in n²; of a number of many digits, it
    raises an error that names no line.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if len(re.findall(_DOT_OF_A_KEY, line)) > MAX_DOTS:
            raise ValueError(f"more than {MAX_DOTS} dots (at line {number})")
        if re.search(f"[0-9_]{{{MAX_DIGITS}}}", line):
            raise ValueError(f"{MAX_DIGITS:,} digits or more (at line {number})")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _override(raw: dict[str, Any], text: str, problems: list[str]) -> None:
    """Applies one `--set`."""
    path, equals, value_text = text.partition("=")
    keys = path.strip().split(".")
    where = f"--set {_cut(text, 60)}"
    if not equals or not all(keys):
        problems.append(f"{where}: expected KEY=VALUE, such as grid.gamma=[1,10]")
        return
    try:
        parsed = _parse(f"value = {value_text}")
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
            problems.append(f"{where}: {_show_key(keys[0])} is not a table")
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
                f"{where}: no table of the grid has {_show_key(key)}; "
                f"grid.0.{_show_key(key)} sets it in the first"
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


def _resolve(raw: dict[str, Any], problems: list[str]) -> Config | None:
    """Checks everything and notes problems; a config if there are none."""
    fields = {_key(f): f for f in dataclasses.fields(Config)}
    top: dict[str, Any] = {}
    for key, value in raw.items():
        if key in ("grid", "defaults"):
            continue
        if key not in fields:
            in_grid = key in all_arguments()
            hint = f"; it belongs under [grid]: grid.{key}" if in_grid else ""
            problems.append(_unknown("", key, value, fields, hint))
        elif (problem := check_setting(key, value)) is not None:
            is_axis = key in AXES and isinstance(value, list)
            hint = f"; a list stands under [grid]: grid.{key}" if is_axis else ""
            hint = hint or _meant(value, functools.partial(check_setting, key))
            problems.append(f"{key} = {_show(value)}: {problem}{hint}")
        else:
            kind = {"seeds": tuple, "input_gain": float, "import": tuple}.get(key)
            top[fields[key].name] = kind(value) if kind else value
    for problem in _changed_defaults(raw.get("defaults", {})):
        problems.append(problem)
    tables = raw.get("grid", {})
    tables = [tables] if isinstance(tables, dict) else tables
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        problems.append(
            f"grid = {_show(tables)}: expected a table [grid], or [[grid]]s"
        )
        return None
    invalid = {key: _near(key, raw[key]) for key in AXES if key in raw.keys() - top}
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
            top.get("split", "validation"),
            problems,
        )
        for index, table in enumerate(tables or [{}])
    ]
    count = sum(map(_num_settings, grid)) * len(top.get("seeds", (0,)))
    if count > MAX_MEMBERS:
        amount = f"{count:,}" if count < 10**21 else "over 10²¹"
        problems.append(f"grid: {amount} members; at most {MAX_MEMBERS:,} in one run")
    top |= _num_validation(top, grid, problems)
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


class _Table:
    """A table of the grid while it is checked.

    Args:
      where: its name in messages.
      raw: what the file says.
      problems: to which its problems are added.

    Attributes:
      axes: name to values; drawn ones are `Draws`.
    """

    def __init__(self, where: str, raw: Mapping[str, Any], problems: list[str]):
        self.where = where
        self.problems = problems
        self.axes: dict[str, tuple[Any, ...]] = {}
        self._raw = raw
        for key, value in raw.items():
            self.axes[key] = self._values(key, value)
        nums = {len(x) for x in self.axes.values() if isinstance(x, Draws)}
        if len(nums) > 1:
            problems.append(
                f"{where}: drawn axes are drawn together and need the same num, got "
                f"{', '.join(map(str, sorted(nums)))}"
            )

    def _values(self, key: str, value: Any) -> tuple[Any, ...]:
        if isinstance(value, dict):
            try:
                return Draws.make(key, value)
            except ValueError as error:
                self.problem(key, str(error))
                return ()
        values = tuple(value) if isinstance(value, list) else (value,)
        if not values:
            self.problem(key, "expected at least one value")
        elif _has_repeats(values):
            self.problem(key, "the same value twice")
        return values

    def problem(self, key: str, text: str) -> None:
        """Notes a problem of an axis."""
        value = _show(self._raw[key])
        self.problems.append(f"{self.where}.{_show_key(key)} = {value}: {text}")

    def settings(
        self, defaults: Mapping[str, Any], invalid: Mapping[str, str | None]
    ) -> dict[str, tuple[Any, ...]]:
        """The values of each of `AXES`, (None,) where they are not good.

        A name that is nobody's is taken for the nearest one, if there is one, so that
        what belongs to it can be checked.

        Args:
          defaults: of what the table does not say.
          invalid: settings that the file says wrongly elsewhere, and for what they are
            taken.
        """
        found: dict[str, tuple[Any, ...]] = {}
        for key in AXES:
            found[key] = self.axes.get(key, (defaults[key],))
            if isinstance(found[key], Draws):
                self.problem(key, _NOT_DRAWN)
                found[key] = (None,)
            elif key in self.axes:
                taken: list[Any] = []
                for value in self.axes[key]:
                    if (text := check_setting(key, value)) is not None:
                        check = functools.partial(check_setting, key)
                        hint = _meant(value, check, several=True)
                        self.problem(key, f"{text}, got {_show(value)}{hint}")
                        value = _near(key, value)
                    if value not in taken:
                        taken.append(value)
                found[key] = tuple(taken)
            elif key in invalid:
                found[key] = (invalid[key],)
            elif defaults[key] is None and key not in invalid:
                text = f"{key}: missing; give it at the top level or in {self.where}"
                self.problems.append(text)
        return found

    def check_arguments(
        self, settings: Mapping[str, tuple[Any, ...]], dtype: str
    ) -> None:
        """Checks the arguments of the rules and of the optimizers."""
        factories = [
            ("rule", RULES, settings["rule"]),
            ("optimizer", OPTIMIZERS, settings["optimizer"]),
        ]
        known: dict[str, Argument] = {}
        for kind, table, names in factories:
            for name in names:
                if name is None:  # it may have any of theirs
                    for factory in table.values():
                        known = {**arguments_of(factory), **known}
                    continue
                arguments = arguments_of(table[name])
                known |= arguments
                for key, argument in arguments.items():
                    if argument.required and key not in self.axes:
                        text = f"{self.where}.{key}: missing; {kind} {name!r} needs it"
                        self.problems.append(text)
        complete = all(None not in names for *_, names in factories)
        for key in self.axes:
            if key in known:
                self._check_takers(key, factories)
                self._check_values(key, known[key], dtype)
            elif key not in AXES and (complete or _is_like(key, known)):
                text = _unknown(f"{self.where}.", key, self._raw[key], {*known, *AXES})
                self.problems.append(text)

    def _check_takers(self, key: str, factories: Sequence[tuple[Any, ...]]) -> None:
        """An argument has to be one of all rules of the table, or all optimizers."""
        for kind, table, names in factories:
            others = [n for n in names if n and key not in arguments_of(table[n])]
            takers = [n for n in names if n and n not in others]
            if takers and others:
                text = f"{kind} {others[0]!r} has no such argument; use [[grid]]"
                self.problem(key, text)

    def _check_values(self, key: str, argument: Argument, dtype: str) -> None:
        if isinstance(self.axes[key], Draws) and not argument.is_real:
            self.problem(key, _NOT_DRAWN)
            return
        for value in self.axes[key]:
            if (text := check_argument(value, argument, dtype)) is not None:
                check = functools.partial(
                    check_argument, argument=argument, dtype=dtype
                )
                hint = _meant(value, check, several=True)
                self.problem(key, f"{text}, got {_show(value)}{hint}")


def _check_table(
    where: str,
    raw: Mapping[str, Any],
    defaults: Mapping[str, Any],
    invalid: Mapping[str, str | None],
    dtype: str,
    split: Part,
    problems: list[str],
) -> dict[str, tuple[Any, ...]]:
    """Checks one table of the grid; returns its axes.

    Where recorded data have one length, it is an axis even if the table has none.
    """
    table = _Table(where, raw, problems)
    names = table.axes.get("task", (defaults["task"],))
    unknown = [name for name in names if not tasks_lib.is_found(name)]
    taken = [_near("task", name) or invalid.get("task") for name in unknown]
    tasks = _find_tasks([*names, *taken], split, problems)
    lengths = {None if task is None else task.max_seq_len for task in tasks.values()}
    if "seq_len" not in raw and defaults["seq_len"] is None and len(lengths) == 1:
        (length,) = lengths
        if length is not None:
            table.axes["seq_len"] = (length,)
        elif None in tasks.values():  # data that are not there
            invalid = {**invalid, "seq_len": None}
    if unknown and None in taken:  # they may be data of one length
        invalid = {"seq_len": None, **invalid}
    settings = table.settings(defaults, invalid)
    table.check_arguments(settings, dtype)
    _check_sizes(settings, tasks, problems)
    return table.axes


def _check_sizes(
    settings: Mapping[str, tuple[Any, ...]],
    tasks: Mapping[str, Task | None],
    problems: list[str],
) -> None:
    """Lengths that tasks have, and sizes that fit into a memory."""
    for task, seq_len in itertools.product(settings["task"], settings["seq_len"]):
        found = tasks.get(task)
        if found is None or seq_len is None:
            continue
        least, most = found.min_seq_len, found.max_seq_len
        if most is not None and not least <= seq_len <= most:
            problems.append(
                f"seq_len = {seq_len}: task {task!r} has {most}; it may be left out"
            )
        elif seq_len < least:
            problems.append(
                f"seq_len = {seq_len}: task {task!r} needs at least {least}"
            )
    sizes = [settings[key] for key in ("seq_len", "batch_size", "hidden_size")]
    if all(values and None not in values for values in sizes):
        t, b, h = (max(values) for values in sizes)
        memory = 4 * (t * b * h + h * h)  # the states and the recurrent weights
        if memory > MAX_MEMORY:
            problems.append(
                f"seq_len = {t}, batch_size = {b}, hidden_size = {h}: one member needs "
                f"at least {memory // 2**30:,} GiB; at most {MAX_MEMORY // 2**30:,} GiB"
            )


def _find_tasks(
    names: Sequence[Any], split: Part, problems: list[str]
) -> dict[str, Task | None]:
    """The tasks of names that are known; None for data that cannot be used."""
    found: dict[str, Task | None] = {}
    for name in names:
        if not tasks_lib.is_found(name):
            continue  # reported with the setting itself
        try:
            found[name] = tasks_lib.find(name, split)
        except DatasetError as error:
            found[name] = None
            text = f"task = {_show(name)}: {error}"
            if text not in problems:
                problems.append(text)
    return found


def _num_validation(
    top: Mapping[str, Any], grid: Sequence[Mapping[str, Any]], problems: list[str]
) -> dict[str, int]:
    """How large the validation set of recorded data is, as a setting; else nothing."""
    names = [name for table in grid for name in table.get("task", (top.get("task"),))]
    tasks = _find_tasks(names, top.get("split", "validation"), problems)
    sizes = {
        name: None if task.validation is None else task.validation.size
        for name, task in tasks.items()
        if task is not None
    }
    if set(sizes.values()) <= {None}:
        return {}
    if len(set(sizes.values())) > 1:
        texts = (f"{name} {size or 'any number'}" for name, size in sizes.items())
        problems.append(
            "task: these have validation sets of different sizes, which needs separate "
            f"runs: {', '.join(texts)}"
        )
        return {}
    ((name, size),) = [*sizes.items()][:1]
    assert size is not None
    if top.get("num_validation", size) != size:
        problems.append(
            f"num_validation = {top['num_validation']}: task {name!r} has {size}; it "
            "may be left out"
        )
    return {"num_validation": size}


_TABLES: dict[str, Mapping[str, Any]] = {
    "task": tasks_lib.KNOWN,
    "rule": RULES,
    "optimizer": OPTIMIZERS,
}


def _near(key: str, value: Any) -> str | None:
    """The rule, optimizer or task for which a wrong name may be taken, or None."""
    known = extensions.TABLES.get(key, {})  # recorded data may not be there
    if not isinstance(value, str):
        return None
    near = difflib.get_close_matches(value[:60], _TABLES.get(key, {}), n=1)
    return near[0] if near and near[0] in known else None


def _meant(
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
    if key == "task" and tasks_lib.is_own(value):
        return tasks_lib.problem_of(value)
    if key in _TABLES:
        problem = check_choice(value, tuple(_TABLES[key]))
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


def _changed_defaults(defaults: Any) -> Iterator[str]:
    """Where the `[defaults]` of a resolved config are not those of the code here."""
    hint = "take [defaults] out of the file to have today's"
    if not isinstance(defaults, dict):
        yield f"defaults = {_show(defaults)}: expected tables, as in a resolved config"
        return
    for kind, factories in defaults.items():
        if kind not in ("rule", "optimizer") or not isinstance(factories, dict):
            yield f"defaults.{_show_key(kind)}: expected tables of rule and optimizer"
            continue
        for name, values in factories.items():
            if name not in _TABLES[kind] or not isinstance(values, dict):
                continue  # the grid is told if it has it
            known = arguments_of(_TABLES[kind][name])
            for key, value in values.items():
                where = f"defaults.{kind}.{_show_key(name)}.{_show_key(key)}"
                if key not in known:
                    text = f"{name} has no such argument; {hint}"
                elif not _is_same(value, known[key].default):
                    text = f"the default is {_show(known[key].default)}; give {key} in "
                    text += f"the grid, or {hint}"
                else:
                    continue
                yield f"{where} = {_show(value)}: {text}"


def _is_same(value: Any, default: Any) -> bool:
    """Whether a default as TOML has it is the code's."""
    found = tomllib.loads(f"value = {_toml(default)}")["value"]
    if isinstance(value, bool) is not isinstance(found, bool):
        return False
    return bool(value == found or (value != value and found != found))


def _is_of_this_system(name: str) -> bool:
    """Whether files can have a name: in an old locale, of ASCII alone."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


_NOT_DRAWN = "only real numbers can be drawn; expected a list of values"


def _is_like(key: str, known: Iterable[str]) -> bool:
    return bool(difflib.get_close_matches(key[:60], known, n=1))


def _unknown(where: str, key: str, value: Any, known: Any, hint: str = "") -> str:
    near = difflib.get_close_matches(key[:60], known, n=1)
    if near and not hint:
        hint = f", did you mean {near[0]!r}?"
    hint = hint or f" (known here: {', '.join(sorted(set(known) - {'grid'}))})"
    return f"{where}{_show_key(key)} = {_show(value)}: unknown key{hint}"


def _has_repeats(values: Sequence[Any]) -> bool:
    """Whether two values are equal; 1 and 1.0 are, 1 and true are not."""
    kinds = [(type(v) is bool, v) for v in values if isinstance(v, str | int | float)]
    return len(set(kinds)) < len(kinds)


def _show(value: Any) -> str:
    """The beginning of a value, as JSON; of a word, as it was written."""
    if isinstance(value, notation.Word):
        return _cut(value, 60)
    parts = json.JSONEncoder(default=str, ensure_ascii=False).iterencode(value)
    try:
        return _cut("".join(itertools.islice(parts, 60)), 60)
    except ValueError:  # Python refuses to print it
        return "(thousands of digits)"


def _show_key(key: str) -> str:
    """A key as TOML writes it: bare, or in quotes."""
    return key if re.fullmatch("[A-Za-z0-9_-]{1,60}", key) else _show(key)


def _cut(text: str, length: int) -> str:
    """At most `length` characters, none of which a terminal takes for a command."""
    text = _escape(text[: length + 1])
    return text if len(text) <= length else text[: length - 3] + "..."


def _escape(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
