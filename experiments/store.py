"""The run folder: what a run leaves on disk, at every chunk and at the end.

    config.resolved.toml   the config as it was run, as `--config` reads it
    manifest.json          versions, device, precision, seeds, config digest, progress
    results.csv            a row per member
    curves.npz             a row per evaluation: member, step, train_loss, loss,
                           num_errors
    report.md, figures/    see `experiments.report` and `experiments.figures`
    checkpoint/NNN.msgpack the state of each group of members, to go on from

`docs/run_folder.md` describes each field. Files are written aside and then renamed:
none is ever half written.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import AXES, Config
from experiments.groups import Group
from lra_jax import sweep
from lra_jax.member import Status
from lra_jax.sweep import SweepState

SCHEMA_VERSION = 1


class RunFolderError(Exception):
    """A run folder that cannot be used as asked, and why."""


class RunFolder:
    """A folder that belongs to one config.

    Args:
      path: of the folder.
      config: what it belongs to.
    """

    def __init__(self, path: pathlib.Path, config: Config):
        self.path = path
        self.config = config

    def open(self, *, resume: bool) -> dict[str, Any]:
        """Creates the folder, or accepts one that holds this config's run.

        Returns:
          The manifest of the run so far; empty if it is new.

        Raises:
          RunFolderError: the folder holds something else, or a run that was not asked
            to be resumed. Nothing in it has been touched.
        """
        if self._is_new():
            try:
                (self.path / "checkpoint").mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunFolderError(f"{self.path}: {error.strerror}") from None
            self._write("config.resolved.toml", self.config.to_toml().encode())
            return {}
        manifest_path = self.path / "manifest.json"
        try:
            manifest = json.loads(manifest_path.read_text())
        except (OSError, ValueError):
            manifest = None
        if not isinstance(manifest, dict) or "config_digest" not in manifest:
            raise RunFolderError(
                f"{self.path} exists and is not a run folder; choose another --out"
            )
        if manifest.get("schema_version") != SCHEMA_VERSION:
            raise RunFolderError(
                f"{self.path} has schema version {manifest.get('schema_version')}, "
                f"this is version {SCHEMA_VERSION}; choose another --out"
            )
        if manifest["config_digest"] != self.config.digest():
            raise RunFolderError(
                f"{self.path} holds the run of another config; choose another --out. "
                f"Differences:\n  {self._differences()}"
            )
        if not resume:
            raise RunFolderError(
                f"{self.path} holds this run already; add --resume to go on with it, "
                "or choose another --out"
            )
        return manifest

    def _is_new(self) -> bool:
        """Whether nothing is there but what a run leaves that was killed at once."""
        if not self.path.is_dir():
            return not self.path.exists()
        before_manifest = {
            "checkpoint",
            "config.resolved.toml",
            ".config.resolved.toml.part",
            ".manifest.json.part",
        }
        names = {path.name for path in self.path.iterdir()}
        started = any((self.path / "checkpoint").glob("*"))
        return names <= before_manifest and not started

    def _differences(self) -> str:
        """The lines in which the folder's config and ours differ."""
        old = (self.path / "config.resolved.toml").read_text().splitlines()
        new = self.config.to_toml().splitlines()
        lines = [f"there: {line}" for line in old if line not in new]
        lines += [f"here:  {line}" for line in new if line not in old]
        return "\n  ".join(lines)

    def load_states(self, groups: Sequence[Group]) -> list[SweepState | None]:
        """The saved state of each group; None where it has not begun.

        Raises:
          RunFolderError: a checkpoint cannot be read, or is of another program.
        """
        return [self._load_state(i, group) for i, group in enumerate(groups)]

    def _load_state(self, index: int, group: Group) -> SweepState | None:
        path = self.path / _checkpoint_name(index)
        if not path.exists():
            return None
        try:
            raw = flax.serialization.msgpack_restore(path.read_bytes())
            shapes = None
            if raw["runs"] is not None:
                size = len(raw["slots"])
                shapes = sweep.run_shapes(group.experiment, group.grid, size)
            template = sweep.init_sweep(group.grid)._replace(runs=shapes)
            state = flax.serialization.from_state_dict(template, raw)
            state = state._replace(runs=jax.tree.map(_thaw, shapes, state.runs))
        except Exception as error:
            raise RunFolderError(
                f"{path} cannot be read as a checkpoint of this version "
                f"({type(error).__name__}: {error}); "
                "remove it to run its group of members again"
            ) from None
        return state

    def save(
        self,
        groups: Sequence[Group],
        states: Sequence[SweepState | None],
        manifest: dict[str, Any],
        changed: int | None = None,
    ) -> None:
        """Writes everything that a chunk changed.

        Args:
          groups: all groups of the run.
          states: of each group, None where it has not begun.
          manifest: to be written.
          changed: index of the group whose state is new; None if there is none.
        """
        if changed is not None:
            state = states[changed]
            frozen = jax.tree.map(_freeze, state)
            data = flax.serialization.msgpack_serialize(
                flax.serialization.to_state_dict(frozen)
            )
            self._write(_checkpoint_name(changed), data)
        # The manifest makes the folder a run's: what is left without it is no result.
        self._write("manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")
        self._write("results.csv", _csv(result_rows(self.config, groups, states)))
        curves = io.BytesIO()
        columns: dict[str, Any] = dict(curve_columns(groups, states))
        np.savez_compressed(curves, **columns)
        self._write("curves.npz", curves.getvalue())

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file of the folder."""
        self._write(name, text.encode())

    def _write(self, name: str, data: bytes) -> None:
        target = self.path / name
        aside = target.with_name(f".{target.name}.part")
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, target)
        except OSError as error:
            raise RunFolderError(
                f"{target} cannot be written: {error.strerror}. All that was written "
                "before is whole; make room and add --resume to go on"
            ) from None


def _checkpoint_name(index: int) -> str:
    return f"checkpoint/{index:03d}.msgpack"


def _freeze(leaf: Any) -> Any:
    """A leaf as a NumPy array; typed keys become their data."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _thaw(shape: jax.ShapeDtypeStruct, data: np.ndarray) -> jax.Array:
    """The inverse of `_freeze`, checked against what the program expects."""
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        leaf = jax.random.wrap_key_data(jnp.asarray(data), impl="threefry2x32")
    else:
        leaf = jnp.asarray(data)
    if leaf.shape != shape.shape or leaf.dtype != shape.dtype:
        raise ValueError(f"expected {shape.dtype} {shape.shape}, got {data.shape}")
    return leaf


def result_rows(
    config: Config, groups: Sequence[Group], states: Sequence[SweepState | None]
) -> list[dict[str, Any]]:
    """A row per member, in the order of `config.members()`.

    Accuracies are fractions of the validation set, of the weights as they were at the
    best and at the last evaluation.
    """
    rows = []
    results: dict[int, tuple[int, ...]] = {}
    for group, state in zip(groups, states, strict=True):
        state = state or sweep.init_sweep(group.grid)
        for i, member in enumerate(group.members):
            results[int(member)] = tuple(int(column[i]) for column in state.members)
    for index, member in enumerate(config.members()):
        status, step, errors, best, best_step = results[index]
        total = config.num_validation
        rows.append(
            {
                "member": index,
                **member,
                "status": Status(status).name.lower(),
                "step": step,
                "final_num_errors": errors if errors >= 0 else None,
                "final_accuracy": 1 - errors / total if errors >= 0 else None,
                "best_num_errors": best if best >= 0 else None,
                "best_accuracy": 1 - best / total if best >= 0 else None,
                "best_step": best_step if best_step >= 0 else None,
            }
        )
    return rows


def curve_columns(
    groups: Sequence[Group], states: Sequence[SweepState | None]
) -> dict[str, np.ndarray]:
    """All groups' evaluations in one table; `member` as in the results."""
    parts = [
        state.curves._replace(member=group.members[state.curves.member])
        for group, state in zip(groups, states, strict=True)
        if state is not None
    ]
    names = sweep.Curves._fields
    if not parts:
        return {name: np.zeros(0) for name in names}
    return {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in names
    }


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    results = [key for key in rows[0] if key in _RESULT_KEYS]
    settings = [key for row in rows for key in row if key not in _RESULT_KEYS]
    columns = list(dict.fromkeys(["member", *AXES, *settings, "seed", *results]))
    columns = [key for key in columns if key != "seed" and key not in results]
    columns += ["seed", *results]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


_RESULT_KEYS = (
    "status",
    "step",
    "final_num_errors",
    "final_accuracy",
    "best_num_errors",
    "best_accuracy",
    "best_step",
)


def describe_environment(config: Config) -> dict[str, Any]:
    """What a result depends on besides the config."""
    device = jax.devices()[0]
    names = ("lra_jax", "jax", "jaxlib", "numpy", "optax", "flax")
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "config_digest": config.digest(),
        "command": ["python", "-m", "experiments.grid", *sys.argv[1:]],
        "versions": {"python": platform.python_version()}
        | {name: _version(name) for name in names},
        "code": _code_version(),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": jax.device_count(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
        },
        "dtype": config.dtype,
        "matmul_precision": config.matmul_precision,
        "seeds": list(config.seeds),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _code_version() -> str | None:
    """The commit of the checkout, with `+` if it was changed; None outside of one."""
    here = pathlib.Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, cwd=here, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
