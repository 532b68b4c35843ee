"""The bytes of a checkpoint: the state of a group of members after a chunk.

The evaluations are not in it, but in the group's `CurveFile`; those of older runs are.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from lra_jax import sweep
from lra_jax.lab.runs.curve_file import CurveFile, DamagedCurvesError
from lra_jax.lab.runs.groups import Group
from lra_jax.lab.runs.provenance import SCHEMA_VERSION
from lra_jax.sweep import SweepState

TURNS = ("even", "odd")


TITLE = f"lra_jax checkpoint {SCHEMA_VERSION} ".encode()


class UnusableError(Exception):
    """A checkpoint that cannot be gone on from, and why."""


class Saved(NamedTuple):
    """What the checkpoint of a group says.

    Attributes:
      chunks: how many the state is made of.
      state: of the group.
      curve_file: to which its next evaluations are appended.
    """

    chunks: int
    state: SweepState
    curve_file: CurveFile


def title(data: bytes) -> bytes:
    """The first line of a checkpoint, by which damage to the rest is seen."""
    return TITLE + hashlib.sha256(data).hexdigest().encode()


def name(index: int, turn: int) -> str:
    """Of the file of a group, below the folder; two names take turns."""
    return f"checkpoint/{index:03d}.{TURNS[turn % 2]}.msgpack"


def name_of_curves(index: int) -> str:
    """Of the file of a group's evaluations, below the folder."""
    return f"checkpoint/{index:03d}.curves"


def pack(
    digest: str, index: int, chunks: int, state: SweepState, mark: Mapping[str, Any]
) -> bytes:
    """What follows the title of a checkpoint.

    Args:
      digest: of the config.
      index: of the group.
      chunks: how many the state is made of.
      state: of the group.
      mark: of its evaluations, in the group's `CurveFile`.
    """
    frozen = jax.tree.map(freeze, state._replace(curves=None))  # type: ignore[arg-type]
    content = {
        "config_digest": digest,
        "group": index,
        "chunks": chunks,
        "curves": mark,
        "state": flax.serialization.to_state_dict(frozen),
    }
    return flax.serialization.msgpack_serialize(content)


def read(
    path: pathlib.Path, index: int, group: Group, digests: Collection[str]
) -> Saved:
    """What a checkpoint says.

    Args:
      path: of the file.
      index: of the group.
      group: whose state it has.
      digests: of the config, as the checkpoint may have it.

    Raises:
      UnusableError: it or its evaluations cannot be read, are damaged, or are of
        another version, config, group or program.
    """
    try:
        first, _, data = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise UnusableError(f"cannot be read: {error.strerror}") from None
    if not first.startswith(TITLE):
        raise UnusableError(f"is no checkpoint of version {SCHEMA_VERSION}, or damaged")
    if first != title(data):
        raise UnusableError("is damaged: its checksum is not that of its content")
    curves_path = path.with_name(pathlib.PurePath(name_of_curves(index)).name)
    try:
        raw = flax.serialization.msgpack_restore(data)
        if raw["config_digest"] not in digests or raw["group"] != index:
            raise UnusableError("is of another config or group")
        return _restore(curves_path, group, raw)
    except UnusableError:
        raise
    except DamagedCurvesError as error:
        text = f"has its evaluations in {curves_path.name}, which {error}"
        raise UnusableError(text) from None
    except Exception as error:  # Flax and msgpack have no common one
        text = f"is of another program ({type(error).__name__}: {error})"
        raise UnusableError(text) from None


def _restore(curves_path: pathlib.Path, group: Group, raw: dict[str, Any]) -> Saved:
    found = _of_today(raw["state"], group.experiment.num_validation)
    shapes = None
    if found["runs"] is not None:
        shapes = sweep.run_shapes(group.experiment, group.grid, found["slots"])
    template = sweep.init_sweep(group.grid)._replace(runs=shapes)
    if "curves" in raw:
        curve_file, curves = CurveFile.read(curves_path, raw["curves"])
        template = template._replace(curves=curves)
        found |= {"curves": flax.serialization.to_state_dict(curves)}
    else:  # as older versions wrote them; their file is not begun
        curve_file = CurveFile(curves_path)
    state = flax.serialization.from_state_dict(template, found)
    state = state._replace(runs=jax.tree.map(thaw, shapes, state.runs))
    return Saved(raw["chunks"], state, curve_file)


def _of_today(state: dict[str, Any], num_validation: int) -> dict[str, Any]:
    """A state of any version of the library, with all fields of today's.

    Args:
      state: as Flax's state dictionaries are.
      num_validation: samples of the validation set, all of which evaluations looked at
        before there were stages.
    """
    state = {"params": None, **state}
    members, curves, runs = state["members"], state["curves"], state["runs"]
    if "num_samples" in members:
        return state

    def whole(errors: Any) -> np.ndarray:
        return np.where(np.asarray(errors) < 0, -1, num_validation).astype(np.int32)

    state["members"] = members | {
        "num_samples": whole(members["num_errors"]),
        "best_num_samples": whole(members["best_num_errors"]),
    }
    state["curves"] = curves | {"num_samples": whole(curves["num_errors"])}
    if runs is not None:
        best = runs["best_num_errors"]
        state["runs"] = {
            **{key: x for key, x in runs.items() if key != "best_num_errors"},
            "num_samples": whole(runs["num_errors"]),
            "best": {
                "num_errors": best,
                "num_samples": whole(best),
                "stage_errors": np.zeros((*np.shape(best), 0), np.int32),
            },
        }
    return state


def freeze(leaf: Any) -> Any:
    """A leaf as a NumPy array; typed keys become their data."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def thaw(shape: jax.ShapeDtypeStruct, data: np.ndarray) -> jax.Array | np.ndarray:
    """The inverse of `freeze`, checked against what the program expects.

    It stays on the host, unless it is a key: a sweep divides it among the devices.
    """
    leaf: jax.Array | np.ndarray = np.asarray(data)
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        leaf = jax.random.wrap_key_data(jnp.asarray(data), impl="threefry2x32")
    if leaf.shape != shape.shape or leaf.dtype != shape.dtype:
        raise ValueError(f"expected {shape.dtype} {shape.shape}, got {data.shape}")
    return leaf
