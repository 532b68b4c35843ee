"""The task that a config names: a built-in one, a data set, or one of the user's own.

task = "temporal_order"       a row of `lra_jax.TASKS`
task = "digits_rows"          a data set, see docs/real_data.md
task = "my_data:spikes"       a `Task` of a module, or a function that returns one
task = "neurogym:GoNogo-v0"   trials of an environment, see `lra_jax.lab.data.neurogym`
task = "spikes.npz"           arrays in a file, see `lra_jax.lab.data.own_arrays`
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import pathlib
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from lra_jax import TASKS, Task
from lra_jax.lab.config import extensions
from lra_jax.lab.data import datasets, neurogym, own_arrays
from lra_jax.lab.data.datasets import DATASETS, Dataset, Part
from lra_jax.lab.data.sources import DatasetError
from lra_jax.settings import did_you_mean

# Tasks that have a name.
KNOWN: Mapping[str, Task | Dataset] = collections.ChainMap(DATASETS, TASKS)  # type: ignore[arg-type]

_FILE = ".npz"


def is_own(name: Any) -> bool:
    """Whether a config means a file or a member of a module, right or wrong."""
    if not isinstance(name, str) or name in KNOWN:
        return False
    return name.endswith(_FILE) or ":" in name


def is_found(name: Any) -> bool:
    """Whether `find` knows where to look."""
    if is_own(name):
        return problem_of(name) is None
    return isinstance(name, str) and name in KNOWN


def problem_of(name: str) -> str | None:
    """What is wrong with the way a task of one's own is written, or None."""
    if name.endswith(_FILE):
        return None if name.isprintable() else "expected the path of a file"
    if name.startswith(neurogym.PREFIX):
        known = re.fullmatch(r"[\w.-]+", name.removeprefix(neurogym.PREFIX))
        return None if known else "expected neurogym:NAME, such as neurogym:GoNogo-v0"
    module, _, member = name.partition(":")
    if (problem := extensions.problem_of(module)) is not None:
        return f"expected MODULE:NAME, such as my_data:task; {module!r}: {problem}"
    return (
        None if member.isidentifier() else "expected MODULE:NAME, such as my_data:task"
    )


def find(name: str, part: Part = "validation") -> Task:
    """The task of a name.

    Args:
      name: as a config has it.
      part: that is evaluated on. A data set trains on training and validation together
        for "test". All other tasks train on their training part alone.

    Raises:
      KeyError: an unknown name.
      DatasetError: the data are not there, or not what was expected, or a task that
        has no test part, as all that are drawn, was asked for one.
    """
    if name in DATASETS:
        return datasets.find(name, part)
    task = _own(name) if is_own(name) else TASKS[name]
    if part == "validation":
        return task
    if task.test is None:
        drawn = task.validation is None
        raise DatasetError(f"has no test part{': it is drawn' if drawn else ''}")
    return dataclasses.replace(task, validation=task.test)


def _own(name: str) -> Task:
    """The task of a file or of a module.

    Raises:
      DatasetError: there is none, and why.
    """
    kind = jnp.result_type(float)  # of real numbers, as the run has them
    if name.startswith(neurogym.PREFIX):
        return neurogym.find(name.removeprefix(neurogym.PREFIX))
    if not name.endswith(_FILE):
        return _of_module(name, kind)
    try:
        state = os.stat(name)
        version = state.st_mtime_ns, state.st_size
    except (OSError, ValueError):
        version = 0, 0  # reading it says why
    return _of_file(name, version, kind)


@functools.cache
def _of_file(name: str, version: tuple[int, int], kind: jnp.dtype) -> Task:
    del version, kind
    return own_arrays.read_task(pathlib.Path(name))


def _of_module(name: str, kind: jnp.dtype) -> Task:
    module_name, _, member = name.partition(":")
    try:
        extensions.load([module_name])
    except extensions.ExtensionError as error:
        raise DatasetError(str(error)) from None
    names = vars(sys.modules[module_name])
    if member not in names:
        hint = did_you_mean(member, names)
        raise DatasetError(f"module {module_name!r} has no {member!r}{hint}")
    value = names[member]
    if callable(value) and not isinstance(value, Task):
        try:
            value = _made(value, kind)
        except (Exception, SystemExit) as error:
            raise DatasetError(
                f"{member}() failed: {extensions.as_line(error)}"
            ) from None
    if not isinstance(value, Task):
        raise DatasetError(
            f"{member}: expected a lra_jax.Task, or a function without arguments that "
            f"returns one, got {type(value).__name__}"
        )
    return value


@functools.cache
def _made(make: Callable[[], Any], kind: jnp.dtype) -> Any:
    del kind
    return make()


def locate(raw: dict[str, Any], folder: pathlib.Path) -> None:
    """Replaces paths of data that a file names by paths from the current directory.

    A path is looked for beside the file, then in the current directory. Thus the
    resolved config of a run, in another folder, means the same data.

    Args:
      raw: of a config or of a bench; is changed.
      folder: of the file.
    """
    grid = raw.get("grid", {})
    for table in (raw, *(grid if isinstance(grid, list) else [grid])):
        if isinstance(table, dict) and "task" in table:
            table["task"] = _located(table["task"], folder)


def _located(value: Any, folder: pathlib.Path) -> Any:
    if isinstance(value, list):
        return [_located(item, folder) for item in value]
    if not is_own(value) or not value.endswith(_FILE):
        return value
    try:
        path = folder / value
        if not path.is_file() and pathlib.Path(value).is_file():
            return value
        place, here = pathlib.Path(os.path.abspath(path)), pathlib.Path.cwd()
    except (OSError, ValueError):
        return value
    return (place.relative_to(here) if place.is_relative_to(here) else place).as_posix()


def file_name(name: str) -> str:
    """A task's name as a part of the name of a file."""
    return re.sub(r"[^\w.-]+", "-", name.removesuffix(_FILE))
