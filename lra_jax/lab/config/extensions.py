"""Modules of a user's own, which put rules, tasks and more where configs look.

A module adds rows to `lra_jax.RULES`, `lra_jax.TASKS`, `lra_jax.networks.NETWORKS` or
`lra_jax.lab.config.optimizers.OPTIMIZERS` when it is imported. A config names it with
`import = ["my_rules"]`, a command with `--import my_rules`.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import pathlib
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from lra_jax import RULES, TASKS, Task
from lra_jax.lab.config.arguments import arguments_of
from lra_jax.lab.config.optimizers import OPTIMIZERS
from lra_jax.lab.data.datasets import DATASETS
from lra_jax.lab.terminal import machine
from lra_jax.networks import NETWORKS

# What a config may name, by the key that names it.
TABLES: dict[str, Mapping[str, Any]] = {
    "rule": RULES,
    "task": TASKS,
    "optimizer": OPTIMIZERS,
    "network": NETWORKS,
}

_files: dict[str, tuple[pathlib.Path, ...]] = {}
_rows: dict[tuple[str, str], tuple[str, Any]] = {}  # to the module, and what it added


class ExtensionError(Exception):
    """A module that cannot be used, and why, as a line."""


def load(names: Sequence[str]) -> None:
    """Imports modules, each once.

    Args:
      names: of modules, as in an `import` statement. The current directory is searched
        as well.

    Raises:
      ExtensionError: one cannot be imported, or what it adds is not what its table has.
    """
    for name in names:
        if name not in _files:
            _load(name)


def _load(name: str) -> None:
    if problem := problem_of(name):
        raise ExtensionError(f"{name!r}: {problem}")
    here = os.getcwd()
    if not {"", here} & {*sys.path}:
        sys.path.insert(0, here)
        importlib.invalidate_caches()
    before = {key: dict(table) for key, table in TABLES.items()}
    known = {*sys.modules}
    with contextlib.suppress(RuntimeError):  # JAX is at work already
        machine.prepare()  # before the module computes something
    try:
        added = _import(name, before)
    except ExtensionError:  # as if it had not been imported
        for key, rows in before.items():
            _restore(key, rows)
        for other in {*sys.modules} - known:
            if _is_own(other):
                del sys.modules[other]
        raise
    for key, row, value in added:
        _rows[key, row] = name, value
    _files[name] = tuple(_sources(sys.modules[name], {*sys.modules} - known))


def _import(
    name: str, before: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, str, Any]]:
    """Imports a module, and returns what it added to the tables."""
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise ExtensionError(
            f"module {name!r} cannot be imported: {as_line(error)}"
        ) from None
    added = list(_added(before))
    for key, row, value in added:
        if row in before[key] or (key == "task" and row in DATASETS):
            raise ExtensionError(
                f"module {name!r}: {key} {row!r} is there already; choose another name"
            )
        if problem := _CHECKS[key](value):
            raise ExtensionError(f"module {name!r}: {key} {row!r}: {problem}")
    return added


def _restore(key: str, rows: Mapping[str, Any]) -> None:
    table: dict[str, Any] = TABLES[key]  # type: ignore[assignment]
    table.clear()
    table.update(rows)


def problem_of(name: str) -> str | None:
    """What is wrong with the name of a module, or None."""
    is_file = name.endswith(".py")
    if not is_file and all(part.isidentifier() for part in name.split(".")):
        return None
    stem = name.removesuffix(".py").strip("./").replace("/", ".")
    good = stem != name and all(part.isidentifier() for part in stem.split("."))
    hint = f"; write {stem}" if good else ""
    return f"expected the name of a module{hint}"


def imported_files() -> list[pathlib.Path]:
    """The source files of the modules, and of what they import from beside them."""
    return sorted({path for paths in _files.values() for path in paths})


def modules_of(rows: Sequence[tuple[str, Any]]) -> list[str]:
    """The modules that have added what a config names.

    Args:
      rows: keys of `TABLES`, each with a name.
    """
    found = (
        _rows[key, name][0]
        for key, name in rows
        if (key, name) in _rows and TABLES[key].get(name) is _rows[key, name][1]
    )
    return list(dict.fromkeys(found))


def _added(
    before: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[str, str, Any]]:
    """Rows of the tables that are new or another than before."""
    for key, table in TABLES.items():
        for name, value in table.items():
            if before[key].get(name) is not value:
                yield key, name, value


def _sources(module: ModuleType, loaded: set[str]) -> Iterator[pathlib.Path]:
    """The module's file, and those of what it imported from its own folder."""
    own = {module.__name__, module.__name__.partition(".")[0]}
    folder: pathlib.Path | None = None
    for name in (*own, *loaded):
        file = getattr(sys.modules.get(name), "__file__", None)
        if not isinstance(file, str):
            continue
        path = pathlib.Path(file).resolve()
        if name in own:
            is_package = path.name == "__init__.py"
            folder = path.parent.parent if is_package else path.parent
            yield path
        elif folder and path.is_relative_to(folder) and not _is_installed(path):
            yield path


def _is_own(name: str) -> bool:
    """Whether a module is somebody's own file, and not of an installed package."""
    if name.partition(".")[0] in ("lra_jax", "experiments"):
        return False
    file = getattr(sys.modules[name], "__file__", None)
    if not isinstance(file, str) or _is_installed(path := pathlib.Path(file)):
        return False
    return not path.is_relative_to(sysconfig.get_paths()["stdlib"])


def _is_installed(path: pathlib.Path) -> bool:
    return bool({*path.parts} & {"site-packages", "dist-packages"})


def as_line(error: BaseException) -> str:
    """An error as a line, with the place that raised it."""
    reason = " ".join(str(error).split()) or "no reason given"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename]
    where = ""
    if len(own) > 1:  # the first is ours
        last = own[-1]
        where = f" ({pathlib.Path(last.filename).name}, line {last.lineno})"
    return f"{type(error).__name__}: {reason}{where}"


def _check_factory(value: Any) -> str | None:
    if not callable(value):
        return f"expected a factory, got {type(value).__name__}"
    try:
        known = arguments_of(value)
        parameters = inspect.signature(value).parameters
    except Exception as error:  # whatever a signature may be made of
        return f"its signature cannot be read: {as_line(error)}"
    for name, parameter in parameters.items():
        is_one = parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        required = is_one and parameter.default is parameter.empty
        if required and name.rstrip("_") not in known and name != "output_loss":
            return (
                f"argument {name} has no default, and no annotation that a config can "
                "read: ArrayLike, a Literal or bool"
            )
    return None


def _check_rule(value: Any) -> str | None:
    if (problem := _check_factory(value)) is not None:
        return problem
    parameters = inspect.signature(value).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if "output_loss" in parameters or inspect.Parameter.VAR_KEYWORD in kinds:
        return None
    return "expected a factory with an argument output_loss"


def _check_task(value: Any) -> str | None:
    if isinstance(value, Task):
        return None
    return f"expected a lra_jax.Task, got {type(value).__name__}"


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "rule": _check_rule,
    "task": _check_task,
    "optimizer": _check_factory,
    "network": _check_factory,
}
