"""The paper's network, a layer of tanh units, with closed forms of all questions.

hₜ = zₜ₋₁ W_hh + xₜ W_xh + b_h,   zₜ = tanh(hₜ)         the state s is h, D = H
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lra_jax import regularizer, symbols, types
from lra_jax.networks.layer import Layer, LayerCell
from lra_jax.networks.network import Place, Product, Scaled, Term
from lra_jax.numerics import largest, matmul, tanh_difference


class Rows(NamedTuple):
    """What a step's gradients are sums of: products of rows.

    For the shared formula these are the rows of xₜ, zₜ₋₁ and qₜ, R = B. A rule whose
    error reaches the weights on several ways has more of them.

    Attributes:
      x: int `[R]` or float `[R, X]`.
      z_prev: `[R, H]`.
      q: `[R, H]`.
      left: `[R', H]` and
      right: `[R', H]`, further pairs for W_hh alone; both None if there are none.
    """

    x: jax.Array
    z_prev: jax.Array
    q: jax.Array
    left: jax.Array | None = None
    right: jax.Array | None = None


def weigh_rows(cell: LayerCell, rows: Rows, count: int) -> Scaled:
    """Σ of the products of rows, divided by `count`, for the three arrays of a layer.

    The rows are scaled before they are multiplied, not the products after: a `[B, H]`
    array is smaller than `[H, H]`, and no square of a tiny product vanishes. Ω's pairs
    have a scale of their own, which may be far above that of q, or below.
    """
    q, q_scale = _scaled(rows.q)
    z_prev, z_scale = _scaled(rows.z_prev)
    scale = q_scale / count
    right, left, w_hh_scale = q, z_prev, scale * z_scale
    if rows.left is not None and rows.right is not None:
        further_left, left_scale = _scaled(rows.left)
        further, right_scale = _scaled(rows.right)
        own, more = w_hh_scale, right_scale / count * left_scale
        w_hh_scale = jnp.maximum(own, more)
        divisor = jnp.where(w_hh_scale == 0, 1, w_hh_scale)
        right = jnp.concatenate([q * (own / divisor), further * (more / divisor)])
        left = jnp.concatenate([z_prev, further_left])
    units = LayerCell(
        weigh_inputs(cell, rows.x, q), matmul(left.T, right), jnp.sum(q, axis=0)
    )
    return Scaled(units, LayerCell(scale, w_hh_scale, scale))


def weigh_inputs(cell: LayerCell, x: jax.Array, q: jax.Array) -> jax.Array:
    """xᵀ q of rows, `[X, H]`."""
    if x.ndim == 1:  # symbols: row r of q is added to row x_r
        return jnp.zeros_like(cell.w_xh).at[x].add(q)
    return matmul(x.astype(q.dtype).T, q)


def _scaled(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows divided by their largest absolute value, and that value."""
    scale = largest(rows).reshape(())
    return rows / jnp.where(scale == 0, 1, scale), scale


@dataclasses.dataclass(frozen=True)
class Tanh(Layer):
    """See `networks.tanh`."""

    def advance(
        self,
        p: LayerCell,
        s_prev: jax.Array,
        drive: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        key: jax.Array | None = None,
        product: Product = matmul,
    ) -> jax.Array:
        del key
        z_prev = jnp.tanh(s_prev) if z_prev is None else z_prev
        return product(z_prev, p.w_hh) + drive

    def first(
        self, p: LayerCell, drive: jax.Array, s_prev: jax.Array, **options: Any
    ) -> jax.Array:
        del p, s_prev, options
        return drive

    def emit_first(self, p: LayerCell, s_prev: jax.Array) -> jax.Array:
        del p
        return s_prev  # tanh(0)

    def emit(self, p: LayerCell, s: jax.Array) -> jax.Array:
        del p
        return jnp.tanh(s)

    def activity(self, p: LayerCell, s: jax.Array, z: jax.Array) -> jax.Array:
        """z: without σ', which is 1 where states are small."""
        del p, s
        return z

    def pull(
        self,
        p: LayerCell,
        s_prev: jax.Array,
        x: jax.Array,
        q: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        drive: Any = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """(q W_hhᵀ) ⊙ σ'ₜ₋₁."""
        return self.pull_through((p.w_hh.T,), p, s_prev, x, q, z_prev=z_prev)

    def pull_through(
        self,
        feedback: tuple[jax.Array, ...],
        p: LayerCell,
        s_prev: jax.Array,
        x: jax.Array,
        q: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        drive: Any = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """(q A) ⊙ σ'ₜ₋₁."""
        z_prev = jnp.tanh(s_prev) if z_prev is None else z_prev
        return matmul(q, feedback[0]) * (1 - z_prev**2)

    def weigh(
        self,
        p: LayerCell,
        s_prev: jax.Array,
        x: jax.Array,
        q: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Any:
        """xₜᵀ q, zₜ₋₁ᵀ q and Σ_b q, at the scales of q and z."""
        z_prev = jnp.tanh(s_prev) if z_prev is None else z_prev
        if x.ndim == 1:
            x = symbols.as_index(x, p.w_xh.shape[0])
        layer = LayerCell(p.w_xh, p.w_hh, p.b_h)
        units, scales = weigh_rows(layer, Rows(x, z_prev, q), 1)
        found = jax.tree.map(jnp.multiply, units, scales)
        if isinstance(p, types.Params):
            return jax.tree.map(jnp.zeros_like, p)._replace(**found._asdict())
        return found

    def weigh_all(self, p: LayerCell, place: Place, q: jax.Array) -> LayerCell:
        """xᵀ q, z₋₁ᵀ q and Σ q over all steps and samples, one product each."""
        x, z_prev, q = (
            each.reshape(-1, *each.shape[2:]) for each in (place.x, place.z_prev, q)
        )
        return LayerCell(weigh_inputs(p, x, q), matmul(z_prev.T, q), jnp.sum(q, axis=0))

    def move(
        self,
        p: LayerCell,
        s_prev: jax.Array,
        x: jax.Array,
        d: jax.Array,
        *,
        s: jax.Array | None = None,
        z_prev: jax.Array | None = None,
        z_moved: jax.Array | None = None,
        drive: Any = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """(tanh(h) - tanh(h - d)) W_hh, from the difference of the states."""
        z_prev = jnp.tanh(s_prev) if z_prev is None else z_prev
        z_moved = jnp.tanh(s_prev - d) if z_moved is None else z_moved
        return matmul(tanh_difference(z_prev, z_moved, d), p.w_hh)

    def slope(
        self, p: LayerCell, s: jax.Array, e: jax.Array, *, z: jax.Array | None = None
    ) -> jax.Array:
        """e ⊙ σ'."""
        z = jnp.tanh(s) if z is None else z
        return e * (1 - z**2)

    def gap(
        self,
        p: LayerCell,
        s: jax.Array,
        d: jax.Array,
        *,
        z: jax.Array | None = None,
        z_moved: jax.Array | None = None,
    ) -> jax.Array:
        """tanh(h) - tanh(h - d), without cancellation."""
        z = jnp.tanh(s) if z is None else z
        z_moved = jnp.tanh(s - d) if z_moved is None else z_moved
        return tanh_difference(z, z_moved, d)

    def norm_preservation(
        self,
        p: LayerCell,
        s_prev: jax.Array,
        x: jax.Array,
        u: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        drive: Any = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, regularizer.NormPreservation]:
        z_prev = jnp.tanh(s_prev) if z_prev is None else z_prev
        u_back = matmul(u, p.w_hh.T)
        v = u_back * (1 - z_prev**2)
        return v, regularizer.norm_preservation(u, u_back, z_prev)

    def weigh_term(self, p: LayerCell, term: Term) -> Scaled:
        place, before, omega = term.place, term.before, term.omega
        rows = Rows(place.x, place.z_prev, term.q)
        if omega is not None:
            assert before is not None
            # Via hₜ₋₁, ∂Ωₜ is the shared formula one step earlier, with error a.
            rows = Rows(
                x=jnp.concatenate([place.x, before.x]),
                z_prev=jnp.concatenate([place.z_prev, before.z_prev]),
                q=jnp.concatenate([term.q, omega.a]),
                left=omega.left,
                right=omega.right,
            )
        return weigh_rows(LayerCell(p.w_xh, p.w_hh, p.b_h), rows, len(term.q))
