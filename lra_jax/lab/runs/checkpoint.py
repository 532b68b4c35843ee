"""The bytes of a checkpoint: the state of a group of members after a chunk."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lra_jax.lab.runs.provenance import SCHEMA_VERSION

TURNS = ("even", "odd")


TITLE = f"lra_jax checkpoint {SCHEMA_VERSION} ".encode()


def title(data: bytes) -> bytes:
    """The first line of a checkpoint, by which damage to the rest is seen."""
    return TITLE + hashlib.sha256(data).hexdigest().encode()


def name(index: int, chunks: int) -> str:
    """Of the file of a group, below the folder; two names take turns."""
    return f"checkpoint/{index:03d}.{TURNS[chunks % 2]}.msgpack"


def of_today(state: dict[str, Any], num_validation: int) -> dict[str, Any]:
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


def thaw(shape: jax.ShapeDtypeStruct, data: np.ndarray) -> jax.Array:
    """The inverse of `freeze`, checked against what the program expects."""
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        leaf = jax.random.wrap_key_data(jnp.asarray(data), impl="threefry2x32")
    else:
        leaf = jnp.asarray(data)
    if leaf.shape != shape.shape or leaf.dtype != shape.dtype:
        raise ValueError(f"expected {shape.dtype} {shape.shape}, got {data.shape}")
    return leaf
