"""From errors at the hidden units to gradients of the weights.

Learning rules differ in how an error reaches step t. What follows is the same for
all: with qₜ `[B, H]`, the error at hₜ per sample, and zₜ₋₁ constant,

    ∇W_hhᵗ = mean_b zₜ₋₁ᵀ qₜ     ∇W_xhᵗ = mean_b xₜᵀ qₜ     ∇b_hᵗ = mean_b qₜ

each bounded on its own, then summed over t = 0 .. T-1. The readout gets the exact
gradients of E.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lra_jax import types
from lra_jax.numerics import Normalized, clip, matmul


class HiddenGrads(NamedTuple):
    """Gradients of the hidden layer's weights."""

    w_xh: jax.Array  # [X, H]
    w_hh: jax.Array  # [H, H]
    b_h: jax.Array  # [H]


class SummedGrads(NamedTuple):
    """`HiddenGrads` summed over t, and the norm of each step's part, `[T]`."""

    grads: HiddenGrads
    w_xh_norm: jax.Array
    w_hh_norm: jax.Array


def mean_outer(left: jax.Array, right: jax.Array) -> jax.Array:
    """mean_b leftᵀ right = (leftᵀ right) / B: `[B, I]`, `[B, J]` to `[I, J]`."""
    return matmul(left.T, right) / left.shape[0]


def local_gradients(
    x: jax.Array, z_prev: jax.Array, q: jax.Array, input_size: int
) -> HiddenGrads:
    """The shared formula for one step.

    Args:
      x: int `[B]` or float `[B, X]`, the step's input.
      z_prev: `[B, H]`, zₜ₋₁.
      q: `[B, H]`, the error at hₜ per sample.
      input_size: X.
    """
    if x.ndim == 1:  # symbols: xₜᵀ q adds row b of q to row x_b
        zeros = jnp.zeros((input_size, q.shape[1]), q.dtype)
        w_xh = zeros.at[x].add(q) / q.shape[0]
    else:
        w_xh = mean_outer(x.astype(q.dtype), q)
    return HiddenGrads(w_xh=w_xh, w_hh=mean_outer(z_prev, q), b_h=jnp.mean(q, axis=0))


def sum_over_time(
    step_gradients: Callable[[Any], HiddenGrads],
    steps: Any,
    like: types.Params,
    normalize: Callable[[jax.Array], Normalized],
) -> SummedGrads:
    """Σₜ Normalize(∇ᵗ), in memory that does not grow with T.

    Args:
      step_gradients: one step's slice of `steps` to its gradients.
      steps: a pytree of arrays `[T, ...]`.
      like: weights of the shapes and dtype to sum in.
      normalize: applied to each of a step's three gradients.
    """

    def add(total: HiddenGrads, step: Any) -> tuple[HiddenGrads, Any]:
        w_xh, w_hh, b_h = (normalize(g) for g in step_gradients(step))
        total = HiddenGrads(
            w_xh=total.w_xh + w_xh.value,
            w_hh=total.w_hh + w_hh.value,
            b_h=total.b_h + b_h.value,
        )
        return total, (w_xh.norm.reshape(()), w_hh.norm.reshape(()))

    zeros = HiddenGrads(*map(jnp.zeros_like, (like.w_xh, like.w_hh, like.b_h)))
    grads, (w_xh_norm, w_hh_norm) = lax.scan(add, zeros, steps)
    return SummedGrads(grads, w_xh_norm, w_hh_norm)


def sum_local_gradients(
    params: types.Params, inputs: jax.Array, z: jax.Array, q: jax.Array
) -> SummedGrads:
    """The shared formula, summed over t without bounds.

    Args:
      params: weights of the shapes to sum in.
      inputs: int `[T, B]` or float `[T, B, X]`.
      z: `[T, B, H]` of the forward pass.
      q: `[T, B, H]`, the errors at h.
    """
    input_size = params.w_xh.shape[0]
    return sum_over_time(
        lambda step: local_gradients(step[0], step[1], step[2], input_size),
        (inputs, previous(z), q),
        params,
        functools.partial(clip, c=0.0),
    )


def previous(z: jax.Array) -> jax.Array:
    """zₜ₋₁ for all t, with z₋₁ = 0: `[T, B, H]` to `[T, B, H]`."""
    return jnp.concatenate([jnp.zeros_like(z[:1]), z[:-1]])


def readout_gradients(z_last: jax.Array, pi: jax.Array) -> tuple[jax.Array, jax.Array]:
    """∇W_hy = mean_b z_{T-1}ᵀ π,  ∇b_y = mean_b π: the gradients of E."""
    return mean_outer(z_last, pi), jnp.mean(pi, axis=0)
