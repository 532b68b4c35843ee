"""Arithmetic that stays exact where this algorithm works: near 1e-25 and near 1.

Local targets shrink by orders of magnitude per time step. Norms here do not
underflow, differences of nearby tanh values do not cancel, and matrix products do
not silently lose bits. Everything that follows is built on these functions.

Training itself can be differentiated: where the derivative of a norm or a quotient
does not exist, or does not fit into the number type, it is chosen here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

Axis = int | tuple[int, ...] | None


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a @ b` at the highest precision, unless the caller asked for another one.

    TF32 or bfloat16 passes would change the results of local learning. A surrounding
    `jax.default_matmul_precision(...)` (or that configuration value) is a request for
    another precision, and is respected.
    """
    # Not declared to type checkers.
    asked = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST if asked is None else None)


def with_type(tree: Any, dtype: jnp.dtype) -> Any:
    """A pytree with all its real numbers of a type, and the rest as it is."""
    return jax.tree.map(
        lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree
    )


def tanh_difference(z_a: jax.Array, z_b: jax.Array, d: jax.Array) -> jax.Array:
    """tanh(a) - tanh(b) = tanh(d) ⊙ (1 - tanh(a) tanh(b)),  d = a - b.

    Accurate at every size of d, where the direct difference keeps no digit once
    |d| is below the rounding of a (1e-7 in float32).

    Args:
      z_a: tanh(a).
      z_b: tanh(b), same shape.
      d: a - b, same shape, known better than a and b are.
    """
    return jnp.tanh(d) * (1 - z_a * z_b)


def largest(x: jax.Array, *, axis: Axis = None) -> jax.Array:
    """M = max|x|, reduced axes kept: what x is divided by before it is squared.

    A constant to differentiation. What it scales is multiplied by it again, or does
    not change with it, so its own derivative has no part in the result.

    XLA multiplies by 1/M, which float16 cannot hold where M is subnormal: there M is
    the smallest normal number, unless x is 0.
    """
    found = lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True))
    if x.dtype != jnp.float16:
        return found
    return jnp.where(found == 0, 0, jnp.maximum(found, float(jnp.finfo(x.dtype).tiny)))


def norm(x: jax.Array, *, axis: Axis = None) -> jax.Array:
    """Euclidean norm with the reduced axes kept: M ‖x / M‖, M = max|x|.

    Squares of float32 entries below 1e-19 vanish; those of x / M do not.

    Args:
      x: any shape.
      axis: axis of the norm; None means all of them (Frobenius).
    """
    scale, _, unit_norm = _unit(x, axis)
    return scale * unit_norm


@jax.custom_jvp
def root(x: jax.Array) -> jax.Array:
    """√x, whose derivative at 0 counts as 0: the norm of nothing is at its minimum.

    The derivative of `jnp.sqrt` at 0 is infinite. Times the derivative of a square at
    0, which is 0, that is no number.
    """
    return jnp.sqrt(x)


@root.defjvp
def _root_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    value = root(*primals)
    positive = ~(value == 0)  # or not a number, which must stay visible
    slope = 0.5 / jnp.where(positive, value, 1)
    return value, jnp.where(positive, slope, 0) * tangents[0]


@jax.custom_jvp
def quotient(a: jax.Array, b: jax.Array) -> jax.Array:
    """a / b, whose derivative (∂a - (a/b) ∂b) / b has no square of a tiny b."""
    return a / b


@quotient.defjvp
def _quotient_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    value, b = quotient(*primals), primals[1]
    return value, quotient(tangents[0] - value * tangents[1], b)


class Normalized(NamedTuple):
    """A gradient after Normalize, with its norm (reduced axes kept)."""

    value: jax.Array
    norm: jax.Array


Normalization = Callable[..., Normalized]


def clip(
    delta: jax.Array,
    c: ArrayLike,
    *,
    axis: Axis = None,
    scale: jax.Array | None = None,
) -> Normalized:
    """Normalize(Δ, c) of Algorithm 1:  Δ ← c Δ / ‖Δ‖  if ‖Δ‖ ≥ c, else Δ.

    Args:
      delta: `[B, H]`, one Δhₜ per sample (axis=-1), or a weight gradient
        (axis=None).
      c: `[]` the bound, may be traced; c ≤ 0 leaves Δ as it is.
      axis: axis of the norm; None means all of them (Frobenius).
      scale: `[]` if Δ is `scale` times the array given, whose squares do not vanish.
    """
    scale, unit, unit_norm = _unit(delta, axis, scale)
    size = scale * unit_norm
    c = jnp.asarray(c, delta.dtype)
    bound = (c > 0) & (size >= c)
    return _bounded(delta, scale, unit, unit_norm, c, bound)


def force(
    delta: jax.Array,
    c: ArrayLike,
    *,
    axis: Axis = None,
    scale: jax.Array | None = None,
) -> Normalized:
    """Forced normalisation (the paper's Fig. 3):  Δ ← c Δ / ‖Δ‖  always; 0 stays 0.

    Arguments as for `clip`; c ≤ 0 leaves Δ as it is.
    """
    scale, unit, unit_norm = _unit(delta, axis, scale)
    c = jnp.asarray(c, delta.dtype)
    # A NaN must not pass for a zero: `~(scale == 0)` holds for both large and NaN.
    bound = (c > 0) & ~((scale == 0) | (unit_norm == 0))
    return _bounded(delta, scale, unit, unit_norm, c, bound)


NORMALIZATIONS: dict[str, Normalization] = {"clip": clip, "force": force}


def _unit(
    x: jax.Array, axis: Axis, scale: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """M = max|x|, x / M and ‖x / M‖, reduced axes kept; 0 stays 0.

    With a scale given, that is M, and `x` is x / M already.
    """
    unit = x
    if scale is None:
        scale = largest(x, axis=axis)
        unit = x / jnp.where(scale == 0, 1, scale)
    return scale, unit, root(jnp.sum(unit * unit, axis=axis, keepdims=True))


def _bounded(
    delta: jax.Array,
    scale: jax.Array,
    unit: jax.Array,
    unit_norm: jax.Array,
    c: jax.Array,
    bound: jax.Array,
) -> Normalized:
    """c Δ / ‖Δ‖ where bound, else Δ."""
    # Where nothing is bound the norm may be 0: the unused branch stays finite.
    factor = c / jnp.where(bound, unit_norm, 1)
    if unit is delta:  # given in units of the scale
        value = unit * jnp.where(bound, factor, scale)
    else:
        value = jnp.where(bound, unit * factor, delta)
    return Normalized(value, jnp.where(bound, c, scale * unit_norm))
