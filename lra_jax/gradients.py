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
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from lra_jax import devices, rnn, types
from lra_jax.numerics import Normalized, clip, largest, matmul


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


class Rows(NamedTuple):
    """What a step's gradients are sums of: products of rows, divided by B.

    For the shared formula these are the rows of xₜ, zₜ₋₁ and qₜ, R = B. A rule whose
    error reaches the weights on several ways has more of them.

    Attributes:
      x: int `[R]` or float `[R, X]`.
      z_prev: `[R, H]`.
      q: `[R, H]`.
      left: `[R', H]` and
      right: `[R', H]`, further pairs for W_hh alone; None if there are none.
    """

    x: jax.Array
    z_prev: jax.Array
    q: jax.Array
    left: jax.Array | None = None
    right: jax.Array | None = None


def mean_outer(left: jax.Array, right: jax.Array) -> jax.Array:
    """mean_b leftᵀ right = (leftᵀ right) / B: `[B, I]`, `[B, J]` to `[I, J]`.

    Of `[T, B, I]` and `[T, B, J]`, the sum over t.
    """
    rows_left, rows_right = (x.reshape(-1, x.shape[-1]) for x in (left, right))
    return matmul(rows_left.T, rows_right) / left.shape[-2]


def _join(a: jax.Array, b: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """All rows divided by their largest absolute value, and that value."""
    rows = a if b is None else jnp.concatenate([a, b])
    scale = largest(rows).reshape(())
    return rows / jnp.where(scale == 0, 1, scale), scale


def no_gradients(params: types.Params, q: jax.Array) -> HiddenGrads:
    """Zeros: the sum over no steps, of errors q."""
    weights = (params.w_xh, params.w_hh, params.b_h)
    return HiddenGrads(*(devices.varying_as(jnp.zeros_like(w), q) for w in weights))


def result_sharding(
    key: jax.Array,
    params: types.Params,
    rule_state: types.RuleState,
    batch: types.Batch,
) -> tuple[types.Params, types.RuleState, PartitionSpec]:
    """How the results of a rule's `grads` are divided on a mesh with Explicit axes.

    Gradients are divided as the weights are, the state as it was, and each device has
    all of what is reported.
    """
    del key, batch
    return devices.like(params), devices.like(rule_state), PartitionSpec()


def add_step(
    total: HiddenGrads,
    now: Rows,
    batch_size: int,
    normalize: Callable[..., Normalized],
) -> tuple[HiddenGrads, tuple[jax.Array, jax.Array]]:
    """total + Normalize(∇ᵗ) of one step, and the norms of its parts of W_xh and W_hh.

    The rows are scaled before they are multiplied, not the products after: a `[B, H]`
    array is smaller than `[H, H]`, and no square of a tiny product vanishes.
    """
    right, q_scale = _join(now.q, now.right)
    left, z_scale = _join(now.z_prev, now.left)
    q = right[: now.q.shape[0]]
    if now.x.ndim == 1:  # symbols: xₜᵀ q adds row b of q to row x_b
        w_xh = jnp.zeros_like(total.w_xh).at[now.x].add(q)
    else:
        w_xh = matmul(now.x.astype(q.dtype).T, q)
    scale = q_scale / batch_size
    parts = (
        normalize(w_xh, scale=scale),
        normalize(matmul(left.T, right), scale=scale * z_scale),
        normalize(jnp.sum(q, axis=0), scale=scale),
    )
    total = HiddenGrads(*(a + g.value for a, g in zip(total, parts, strict=True)))
    return total, (parts[0].norm.reshape(()), parts[1].norm.reshape(()))


def sum_over_time(
    rows: Rows,
    params: types.Params,
    batch_size: int,
    normalize: Callable[..., Normalized],
) -> SummedGrads:
    """Σₜ Normalize(∇ᵗ), in memory that does not grow with T.

    Args:
      rows: arrays `[T, ...]`.
      params: weights of the shapes and dtype to sum in.
      batch_size: B.
      normalize: `(gradient, scale=...) -> Normalized`, for each of a step's three.
    """
    grads, (w_xh_norm, w_hh_norm) = lax.scan(
        lambda total, now: add_step(total, now, batch_size, normalize),
        no_gradients(params, rows.q),
        rows,
    )
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
    return sum_over_time(
        Rows(inputs, previous(z), q),
        params,
        q.shape[1],
        functools.partial(clip, c=0.0),
    )


def previous(z: jax.Array) -> jax.Array:
    """zₜ₋₁ for all t, with z₋₁ = 0: `[T, B, H]` to `[T, B, H]`."""
    return jnp.concatenate([jnp.zeros_like(z[:1]), z[:-1]])


def output_error(params: types.Params, z: jax.Array, pi: jax.Array) -> jax.Array:
    """(π W_hyᵀ) ⊙ σ', `[..., H]`: ∂E_b/∂h through the output of the states z.

    Args:
      params: the weights.
      z: `[..., H]`, the states that were read out.
      pi: `[..., Y]`.
    """
    return matmul(pi, params.w_hy.T) * (1 - z**2)


def readout_gradients(z: jax.Array, pi: jax.Array) -> tuple[jax.Array, jax.Array]:
    """∇W_hy = mean_b z_{T-1}ᵀ π,  ∇b_y = mean_b π: the gradients of E.

    With a loss of every step, mean_b Σₜ zₜᵀ πₜ and mean_b Σₜ πₜ.

    Args:
      z: `[T, B, H]` of the forward pass.
      pi: `[B, Y]`, or `[T, B, Y]`.
    """
    w_hy = mean_outer(rnn.read_states(z, pi), pi)
    return w_hy, jnp.mean(pi if pi.ndim == 2 else jnp.sum(pi, axis=0), axis=0)
