"""By which code a result was made: a fingerprint of all that can change its numbers.

A fingerprint has a hash for each source file. Only what a file does counts: comments,
docstrings, layout and the cards of rules do not. What is in it, and why:

- all of `lra_jax` but the lab: rules, tasks, network, training, the grid;
- of the lab, `optimizers.py`, `draws.py`, and what makes tasks of recorded data and of
  neurogym's;
- `groups.py`, of `config.py` what makes members of a grid, and of `arguments.py` what
  says which arguments a rule has: they decide which number reaches which member;
- the files of rules, optimizers, networks and tasks that are somebody else's;
- the data of a task that is made of arrays, but for the data sets.

The versions of JAX and its kin are no part of it: a run folder's manifest has them, and
a finished result of another version remains a result.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import pathlib
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

import lra_jax
from lra_jax import RULES, Samples
from lra_jax.lab.config import Config, tasks
from lra_jax.lab.config.optimizers import OPTIMIZERS
from lra_jax.lab.data.datasets import DATASETS
from lra_jax.networks import NETWORKS

Fingerprint = Mapping[str, str]  # names of files, and of data, to hashes

_LIBRARY = pathlib.Path(lra_jax.__file__).parent
_LAB = _LIBRARY / "lab"

_DATA = "data of "  # what the name of data begins with
_AT_ONCE = 1000  # samples

# Of the lab; of a file that does more, the definitions that count.
_FILES: dict[str, tuple[str, ...]] = {
    "config/arguments.py": (
        "Argument",
        "_FEEDBACK_KEYS",
        "_of_feedback",
        "arguments_of",
        "feedback_of",
        "takes_feedback",
    ),
    "config/config.py": ("AXES", "NETWORK_AXES", "Config", "_product"),
    "config/draws.py": (),
    "config/optimizers.py": (),
    "config/tasks.py": (),
    "data/datasets.py": (),
    "data/formats.py": (),
    "data/neurogym.py": (),
    "data/own_arrays.py": (),
    "data/parts.py": (),
    "data/sources.py": (),
    "runs/groups.py": (),
}


def of(config: Config, files: Iterable[pathlib.Path] = ()) -> dict[str, str]:
    """The fingerprint of the code that trains a config.

    Args:
      config: whose rules, optimizers, networks and tasks may be somebody else's.
      files: more that counts.
    """
    return ours() | of_files([*_foreign_files(config), *files]) | _of_data(config)


@functools.cache
def ours() -> dict[str, str]:
    """The fingerprint of this project's code."""
    paths = [path for path in _LIBRARY.rglob("*.py") if _LAB not in path.parents]
    found = {_name_of(path): _hash(path) for path in sorted(paths)}
    for name, definitions in _FILES.items():
        found[_name_of(_LAB / name)] = _hash(_LAB / name, definitions)
    return found


def _name_of(path: pathlib.Path) -> str:
    return path.relative_to(_LIBRARY.parent).as_posix()


def of_files(paths: Iterable[pathlib.Path]) -> dict[str, str]:
    """The fingerprint of other files; those that share a short name count together."""
    found: dict[str, list[str]] = {}
    for path in sorted({path.resolve() for path in paths}):
        found.setdefault(f"{path.parent.name}/{path.name}", []).append(_hash(path))
    return {name: "+".join(hashes) for name, hashes in found.items()}


def changes(found: object, now: Fingerprint) -> list[str]:
    """How the code differs from that of a fingerprint that was kept, in words."""
    if not isinstance(found, Mapping) or not found:
        return ["it does not say by which code it was made"]
    here, there = (
        {name: x for name, x in files.items() if not str(name).startswith(_DATA)}
        for files in (now, found)
    )
    names = {
        "changed": [name for name in here if there.get(name, here[name]) != here[name]],
        "new": [name for name in here if name not in there],
        "gone": [name for name in there if name not in here],
    }
    return [f"{word}: {', '.join(files)}" for word, files in names.items() if files]


def changes_of_data(found: object, now: Fingerprint) -> list[str]:
    """The data that are others than those of a fingerprint that was kept, in words."""
    kept = found if isinstance(found, Mapping) else {}
    return [
        f"the {name} are others"
        for name in now
        if name.startswith(_DATA) and kept.get(name, now[name]) != now[name]
    ]


def _hash(path: pathlib.Path, definitions: Collection[str] = ()) -> str:
    """The hash of what a source file does; of anything else, that of its bytes."""
    data = path.read_bytes()
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError):  # the latter of zero bytes, before Python 3.12
        return hashlib.sha256(data).hexdigest()[:16]
    tree.body = [node for node in tree.body if not _is_card(node)]
    if definitions:
        tree.body = [node for node in tree.body if _name(node) in definitions]
    return hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()[:16]


def _is_card(node: ast.stmt) -> bool:
    """Whether a statement of a module is the card of a rule."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func).split(".")[-1] == "RuleCard"
    )


def _name(node: ast.stmt) -> str | None:
    """What a statement of a module defines."""
    if isinstance(node, ast.Assign | ast.AnnAssign):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        return target.id if isinstance(target, ast.Name) else None
    return getattr(node, "name", None)


def _plain(node: Any) -> Any:
    """A syntax tree as tuples, the same in all versions of Python."""
    if isinstance(node, list):
        return tuple(map(_plain, node))
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    body = fields.get("body")
    if isinstance(body, list) and body and _is_text(body[0]):
        fields["body"] = body[1:]
    left_out = ("kind", "type_comment", "type_ignores")
    return type(node).__name__, *(
        (name, _plain(value))
        for name, value in fields.items()
        if name not in left_out and value is not None and value != []
    )


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a text alone, such as a docstring."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _foreign_files(config: Config) -> list[pathlib.Path]:
    """The files of what a config names that are not ours."""
    found: set[pathlib.Path] = set()
    for factory in _factories(config):
        while hasattr(factory, "func"):  # `functools.partial`
            factory = factory.func
        module = sys.modules.get(getattr(factory, "__module__", ""))
        try:
            path = pathlib.Path(inspect.getsourcefile(module or factory) or "")
        except TypeError:  # defined in a terminal
            continue
        if not path.is_file() or _LIBRARY in path.parents:
            continue
        package = getattr(module, "__name__", "").partition(".")
        root = (
            getattr(sys.modules.get(package[0]), "__path__", None) if package[2] else ()
        )
        found |= {path, *(file for top in root or () for file in _sources(top))}
    return sorted(found)


def _sources(folder: str) -> Iterator[pathlib.Path]:
    paths = pathlib.Path(folder).rglob("*.py")
    return (path for path in paths if path.is_file())  # no link to nothing


def _factories(config: Config) -> Iterator[Any]:
    """What makes the rules, optimizers, networks and batches of a config."""
    tables = {"rule": RULES, "optimizer": OPTIMIZERS, "network": NETWORKS}
    for table in config.grid or ({},):
        for key, known in tables.items():
            names = table.get(key, (getattr(config, key),))
            yield from (known[name] for name in names if name in known)
    for name in _tasks(config):
        yield tasks.find(name, config.split).draw


def _tasks(config: Config) -> list[str]:
    """The tasks of a config that are there."""
    names = dict.fromkeys(
        name
        for table in config.grid or ({},)
        for name in table.get("task", (config.task,))
    )
    return [name for name in names if tasks.is_found(name)]


def _of_data(config: Config) -> dict[str, str]:
    """A hash for each task that is made of arrays; data sets do not change."""
    hashes = {}
    for name in _tasks(config):
        if name not in DATASETS:
            task = tasks.find(name, config.split)
            parts = [x for x in (task.training, task.validation, task.test) if x]
            if parts:
                hashes[f"{_DATA}{name}"] = _hash_of_samples(tuple(parts))
    return hashes


@functools.cache
def _hash_of_samples(parts: tuple[Samples, ...]) -> str:
    digest = hashlib.sha256()
    for samples in parts:
        for first in range(0, samples.size, _AT_ONCE):
            batch = samples.take(np.arange(first, min(first + _AT_ONCE, samples.size)))
            for array in jax.tree.leaves(batch):
                values = np.ascontiguousarray(array)
                digest.update(f"{values.dtype} {values.shape}".encode())
                digest.update(values.tobytes())
    return digest.hexdigest()[:16]
