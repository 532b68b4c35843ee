"""A bench: methods with equally many settings, chosen with seeds that do not count.

What `experiments.reach` and `experiments.real` have in common: reading the file of a
bench, and all that can be wrong with it.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from experiments import config as config_lib
from experiments.config import Config, ConfigError

_NEEDED = {"label", "grid"}  # of a method


class Bench(Protocol):
    """What every bench has; a frozen dataclass whose fields are the keys of its file.

    Attributes:
      methods: name to a table of `label`, `grid` and, if it is not 1, `input_gain`; the
        last two as in a config of `experiments.grid`, where a grid may be several.
      seeds: that are counted.
      tuning_seeds: that choose a setting.
      num_trials: settings of each method, the same for all.
    """

    @property
    def methods(self) -> dict[str, dict[str, Any]]: ...
    @property
    def seeds(self) -> list[int]: ...
    @property
    def tuning_seeds(self) -> list[int]: ...
    @property
    def num_trials(self) -> int: ...


AnyBench = TypeVar("AnyBench", bound=Bench)


def load(
    path: str,
    kind: type[AnyBench],
    contradictions: Callable[[AnyBench], Iterable[str]],
) -> AnyBench:
    """Reads and checks a bench.

    Args:
      path: of a TOML file.
      kind: a dataclass.
      contradictions: what is wrong with values of the right types.

    Raises:
      ConfigError: with all problems of one kind at once.
    """
    raw = config_lib.read(path)
    problems = [*_misfits(raw, kind)]
    if problems:
        raise ConfigError(path, problems)
    bench = kind(**raw)
    problems = [*contradictions(bench)]
    if problems:
        raise ConfigError(path, problems)
    return bench


def _misfits(raw: dict[str, Any], kind: Any) -> Iterator[str]:
    """Unknown keys, values of another type, and keys that are missing."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key, value in raw.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield f"{key}: unknown; expected one of {', '.join(fields)}{hint}"
            continue
        type_ = typing.get_origin(hints[key]) or hints[key]
        items = typing.get_args(hints[key])
        fits = type(value) is type_
        if fits and type_ is list:
            fits = bool(value) and all(type(item) is items[0] for item in value)
        if not fits:
            of = f" of {items[0].__name__}" if type_ is list else ""
            yield f"{key} = {str(value)[:60]}: expected a {type_.__name__}{of}"
    for key, field in fields.items():
        is_required = field.default is field.default_factory is dataclasses.MISSING
        if is_required and key not in raw:
            yield f"{key}: missing"


def contradictions(
    bench: Bench, configs: Callable[[str], Iterable[Config]]
) -> Iterator[str]:
    """What is wrong with the seeds and the methods of a bench.

    Args:
      bench: whose values have the right types.
      configs: a method's name to the runs of all its settings.
    """
    if shared := sorted(set(bench.seeds) & set(bench.tuning_seeds)):
        yield f"tuning_seeds: {shared} are among seeds, which have to be new"
    tables = [method for method in bench.methods.values() if isinstance(method, dict)]
    labels = [str(method["label"]) for method in tables if "label" in method]
    if len(set(labels)) < len(labels):
        yield f"methods: two have the same label, of {', '.join(labels)}"
    for name, method in bench.methods.items():
        where = f"methods.{name}"
        if not isinstance(method, dict) or {*method} - {"input_gain"} != _NEEDED:
            yield f"{where}: expected a table with label, grid and maybe input_gain"
            continue
        try:
            found = [*configs(name)]
        except ConfigError as error:
            yield from (f"{where}: {problem}" for problem in error.problems)
            continue
        for config in found[:1]:
            count = sum(1 for _ in config.members()) // len(config.seeds)
            if count != bench.num_trials:
                yield f"{where}: {count} settings; num_trials is {bench.num_trials}"


def text(setting: dict[str, Any]) -> str:
    """A setting for people."""
    left_out = ("rule", "hidden_size", "batch_size")
    return ", ".join(f"{k} {v}" for k, v in setting.items() if k not in left_out)
