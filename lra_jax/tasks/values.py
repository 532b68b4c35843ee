"""Arrays of numbers as a person gives them: converted, or refused with a reason."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np


def to_array(name: str, values: Any) -> np.ndarray:
    """Values as an array of integers, real numbers or truth values."""
    if np.ma.is_masked(values):
        raise ValueError(
            f"{name}: expected no masked values; for sequences of different lengths "
            f"give lengths"
        )
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{name}: expected an array, or lists of equal lengths; pad shorter "
            f"sequences at their ends and give lengths; NumPy says: {error}"
        ) from None
    if array.dtype == object:
        raise ValueError(
            f"{name}: expected numbers, got an array of objects {array.shape}; pad "
            f"shorter sequences at their ends and give lengths"
        )
    number = jnp.issubdtype(array.dtype, jnp.integer) or _is_real(array)
    if not number and array.dtype != bool:
        raise ValueError(
            f"{name}: expected numbers, got {array.dtype} {array.shape}"
            + "; names are numbered by np.unique(names, return_inverse=True)[1]"
            * (array.dtype.kind in "SUT")
        )
    return array


def _is_real(array: np.ndarray) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))


def is_integer(array: np.ndarray) -> bool:
    """Whether the values are integers of any width."""
    return bool(jnp.issubdtype(array.dtype, jnp.integer))


def reals(array: np.ndarray) -> np.ndarray:
    """Of JAX's default type of real numbers; what is too large for it is infinite."""
    with np.errstate(over="ignore"):
        return array.astype(jnp.result_type(float))


def with_axes(array: np.ndarray, ndim: int) -> np.ndarray:
    """The same with axes of size 1 at its end, until it has as many as are asked for.

    Args:
      array: such as `[N, T]`, for each step.
      ndim: such as 3, of labels `[N, T, Y]`.
    """
    return array.reshape(array.shape + (1,) * (ndim - array.ndim))


def place(wrong: np.ndarray) -> str:
    """Where the first true value of `[N, ...]` is."""
    sample, *rest = np.argwhere(wrong)[0]
    return f"at sample {sample}" + (f", step {rest[0]}" if rest else "")
