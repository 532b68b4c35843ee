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
