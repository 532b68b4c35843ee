"""Initial weights of a network's recurrent matrices, by name."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lra_jax import matrices, settings

WHhInit = Literal["orthogonal", "glorot", "gaussian", "sparse"]
INITS = get_args(WHhInit)

# Inputs of a unit whose recurrent weights are "sparse".
SPARSE_INPUTS = 15


class Sizes(NamedTuple):
    """What initial weights are drawn for."""

    inputs: int  # X
    hidden: int  # H
    dtype: jnp.dtype | None = None  # None is JAX's default


def check(w_hh_init: str, w_hh_gain: ArrayLike) -> None:
    """Raises ValueError where the name is unknown, or the gain no positive number."""
    settings.check_choice("w_hh_init", w_hh_init, tuple(INITS))
    settings.check_number("w_hh_gain", w_hh_gain, "positive")


def square(
    key: jax.Array, size: int, dtype: jnp.dtype, init: str, gain: ArrayLike
) -> jax.Array:
    """A recurrent matrix `[H, H]`, times the gain.

    orthogonal   Haar-distributed
    glorot       uniform in ±√(6 / 2H)
    gaussian     N(0, 1/H): with gain g the spectral radius is near g
    sparse       N(0, 1/n) for n = 15 (or H) random inputs of each unit, else 0
    """
    wide = matrices.wide(dtype)
    if init == "orthogonal":
        w = matrices.orthogonal(key, (size, size), dtype)
    elif init == "glorot":
        w = jax.nn.initializers.glorot_uniform()(key, (size, size), wide)
    elif init == "gaussian":
        w = jax.random.normal(key, (size, size), wide) / np.sqrt(size)
    else:
        key_who, key_size = jax.random.split(key)
        count = min(SPARSE_INPUTS, size)
        order = (
            jax.random.uniform(key_who, (size, size)).argsort(axis=0).argsort(axis=0)
        )
        drawn = jax.random.normal(key_size, (size, size), wide) / np.sqrt(count)
        w = jnp.where(order < count, drawn, 0)
    if not (isinstance(gain, int | float) and gain == 1):
        w = jnp.asarray(gain, w.dtype) * w
    return w.astype(dtype)


def layer(
    key: jax.Array, sizes: Sizes, w_hh_init: str, w_hh_gain: ArrayLike, gates: int = 1
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """W_xh, W_hh and b_h of a layer with G gates; W_xh orthogonal, b_h = 0.

    Args:
      key: consumed, but for the third of its three parts: that is the readout's.
      sizes: X, H and the type.
      w_hh_init: of each gate's part of W_hh.
      w_hh_gain: times it.
      gates: G.

    Returns:
      `[X, G H]`, `[H, G H]` and `[G H]`.
    """
    key_xh, key_hh, _ = jax.random.split(key, 3)
    inputs, hidden, dtype = sizes
    dtype = jnp.result_type(float) if dtype is None else dtype
    if gates == 1:
        w_xh = matrices.orthogonal(key_xh, (inputs, hidden), dtype)
        w_hh = square(key_hh, hidden, dtype, w_hh_init, w_hh_gain)
    else:
        w_xh = jnp.concatenate(
            [
                matrices.orthogonal(k, (inputs, hidden), dtype)
                for k in jax.random.split(key_xh, gates)
            ],
            axis=1,
        )
        w_hh = jnp.concatenate(
            [
                square(k, hidden, dtype, w_hh_init, w_hh_gain)
                for k in jax.random.split(key_hh, gates)
            ],
            axis=1,
        )
    return w_xh, w_hh, jnp.zeros((gates * hidden,), dtype)
