"""Symbols and classes: one-hot vectors, by their index, of any integer type."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_index(indices: jax.Array, size: int) -> jax.Array:
    """Whether an index is one of 0 .. size-1, bool of the same shape."""
    # A number that the type cannot hold would wrap in the comparison.
    largest = min(size - 1, int(jnp.iinfo(indices.dtype).max))
    return (indices >= 0) & (indices <= largest)


def saturated(labels: Any) -> Any:
    """The same; of NumPy's integers, those that JAX would wrap become its limits.

    Args:
      labels: an array, or a pytree of arrays, such as `Weighted`.
    """
    return jax.tree.map(_saturated, labels)


def _saturated(indices: Any) -> Any:
    if not isinstance(indices, np.ndarray) or indices.dtype.kind not in "iu":
        return indices
    held = jax.dtypes.canonicalize_dtype(indices.dtype)
    limits = np.iinfo(held)
    return jnp.asarray(np.clip(indices, limits.min, limits.max).astype(held))


def as_index(indices: jax.Array, size: int) -> jax.Array:
    """The same indices as int32; one that is wrong stays wrong.

    JAX adds the size to an index and compares the two in the type of the index: a
    narrow type cannot hold the size. A wide index must not wrap to a right one.

    Args:
      indices: integers of any type and shape. Of int32 they are returned as they are.
      size: how many symbols or classes there are.
    """
    if indices.dtype == jnp.int32:
        return indices
    narrow = jnp.asarray(indices).astype(jnp.int32)
    return jnp.where(is_index(indices, size), narrow, size)


def one_hot(indices: jax.Array, size: int, dtype: jnp.dtype) -> jax.Array:
    """One-hot vectors `[..., size]` of indices `[...]`; NaN for what is none."""
    vectors = jax.nn.one_hot(indices, size, dtype=dtype)
    known = is_index(indices, size)[..., None]
    return jnp.where(known, vectors, jnp.asarray(jnp.nan, dtype))
