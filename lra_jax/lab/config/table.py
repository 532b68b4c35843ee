"""A table of the grid: its axes, and what is wrong with them."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from lra_jax import RULES, Task
from lra_jax.lab.config import tasks as tasks_lib
from lra_jax.lab.config.arguments import Argument, arguments_of, check_argument
from lra_jax.lab.config.config import AXES
from lra_jax.lab.config.draws import Draws
from lra_jax.lab.config.optimizers import OPTIMIZERS
from lra_jax.lab.config.problems import is_like, show, show_key, unknown_key
from lra_jax.lab.config.settings import check_setting, meant, near
from lra_jax.lab.data.datasets import Part
from lra_jax.lab.data.sources import DatasetError
from lra_jax.networks import NETWORKS

MAX_MEMORY = 2**40  # bytes that one member may need at the very least
_NOT_DRAWN = "only real numbers can be drawn; expected a list of values"


def check_table(
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
    taken = [near("task", name) or invalid.get("task") for name in unknown]
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
        value = show(self._raw[key])
        self.problems.append(f"{self.where}.{show_key(key)} = {value}: {text}")

    def _which(self, key: str, value: Any) -> str:
        """Which value of a list is wrong; nothing where there is but one."""
        return f", got {show(value)}" if isinstance(self._raw[key], list) else ""

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
                        hint = meant(value, check, several=True)
                        self.problem(key, f"{text}{self._which(key, value)}{hint}")
                        value = near(key, value)
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
        """Checks the arguments of the rules, the optimizers and the networks."""
        factories = [
            ("rule", RULES, settings["rule"]),
            ("optimizer", OPTIMIZERS, settings["optimizer"]),
            ("network", NETWORKS, settings["network"]),
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
                if (needed := known[key].needs) and needed not in self.axes:
                    self.problem(key, f"it says nothing without {needed}")
                self._check_takers(key, factories)
                self._check_values(key, known[key], dtype)
            elif key not in AXES and (complete or is_like(key, known)):
                others = [n for n, f in NETWORKS.items() if key in arguments_of(f)]
                hint = f"; network {' and '.join(others)} has it" if others else ""
                text = unknown_key(
                    f"{self.where}.", key, self._raw[key], {*known, *AXES}, hint
                )
                self.problems.append(text)

    def _check_takers(self, key: str, factories: Sequence[tuple[Any, ...]]) -> None:
        """An argument has to be one of all a table's rules, optimizers or networks."""
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
                hint = meant(value, check, several=True)
                self.problem(key, f"{text}{self._which(key, value)}{hint}")


def _has_repeats(values: Sequence[Any]) -> bool:
    """Whether two values are equal; 1 and 1.0 are, 1 and true are not."""
    kinds = [(type(v) is bool, v) for v in values if isinstance(v, str | int | float)]
    return len(set(kinds)) < len(kinds)


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
        least = min((x for x in settings["num_layers"] if x is not None), default=1)
        # The states and the recurrent weights.
        memory = 4 * (t * b * h + h * h) * least
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
            text = f"task = {show(name)}: {error}"
            if text not in problems:
                problems.append(text)
    return found


def of_recorded(
    top: Mapping[str, Any], grid: Sequence[Mapping[str, Any]], problems: list[str]
) -> dict[str, Any]:
    """Settings that recorded data decide: their validation set, and all of it."""
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
    found: dict[str, Any] = {"num_validation": size}
    if "validation_stages" not in top:
        found["validation_stages"] = ()
    return found
