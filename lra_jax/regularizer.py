"""Ω, the regulariser in the direction of the update (eq. 5-7, Algorithm 2).

For each pair (t-1, t), t ≥ 1, and each sample, with u = ∂Lₜ/∂hₜ constant:

    v = (u W_hhᵀ) ⊙ σ'(hₜ₋₁),   ρ = ‖v‖ / ‖u‖,   Ωₜ = (ρ - 1)²

Note: Algorithm 2 prints Ω = ρ, whose descent would promote vanishing; eq. 5 has
(ρ - 1)². Its line 2 differentiates Lₜ with respect to hₜ₊₁, on which Lₜ does not
depend; the pair is (t-1, t) here, where v is what line 21 of Algorithm 1 computes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lra_jax.numerics import norm, quotient, root

# Below this max|u| a sample has no error left whose direction could be preserved.
MIN_ERROR = 1e-30


class NormPreservation(NamedTuple):
    """Ω per sample and the factors of its gradients; all finite, 0 where u vanishes.

    ∂Ω/∂hₜ₋₁ = a
    ∂Ω/∂W_hh = mean_b [ left ᵀ right + zₜ₋₂ᵀ a ]     direct, and via hₜ₋₁
    ∂Ω/∂W_xh = mean_b xₜ₋₁ᵀ a,   ∂Ω/∂b_h = mean_b a   only via hₜ₋₁
    """

    value: jax.Array  # [B] Ω
    rho: jax.Array  # [B, 1] ρ, 1 where u vanishes
    a: jax.Array  # [B, H]
    left: jax.Array  # [B, H] = M ω ⊙ σ'(hₜ₋₁), M = max|u| per sample
    right: jax.Array  # [B, H] = u / M

    def times(self, weight: jax.Array) -> NormPreservation:
        """The same with gradients that are times λ, `[B, 1]`."""
        return self._replace(a=weight * self.a, right=weight * self.right)


def error_scale(u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """M = max|u| per sample, 1 where no error is left, and where one is; `[B, 1]`."""
    max_u = lax.stop_gradient(jnp.max(jnp.abs(u), axis=-1, keepdims=True))
    # A NaN is no vanished error: it must stay visible. float16 has no MIN_ERROR.
    least = max(MIN_ERROR, float(jnp.finfo(u.dtype).tiny))
    alive = ~(max_u < least)
    return jnp.where(alive, max_u, 1), alive


def norm_preservation(
    u: jax.Array, u_back: jax.Array, z_prev: jax.Array
) -> NormPreservation:
    """Ω = (‖v‖/‖u‖ - 1)² and its gradients in closed form.

        ω = 2 (ρ - 1) v / (‖v‖ ‖u‖)                       = ∂Ω/∂v
        a = -2 ω ⊙ (u W_hhᵀ) ⊙ z ⊙ σ',   σ' = 1 - z²      = ∂Ω/∂h

    Everything is computed on u / max|u|: Ω and its gradients do not change with the
    scale of u, and the squares of a tiny u would vanish.

    Args:
      u: `[B, H]`, ∂L/∂hₜ, held constant.
      u_back: `[B, H]`, u W_hhᵀ, the product that the caller has anyway.
      z_prev: `[B, H]`, tanh of the pre-activation whose step is regularised.
    """
    scale, alive = error_scale(u)
    u, u_back = u / scale, u_back / scale
    dz = 1 - z_prev**2
    v = u_back * dz
    # Entries of u are at most 1 now, and σ' is 0 or at least 6e-8: no square vanishes.
    norm_u, norm_v = (root(jnp.sum(x * x, axis=-1, keepdims=True)) for x in (u, v))
    safe_u = jnp.where(alive, norm_u, 1)
    rho = norm_v / safe_u
    flows = alive & ~(norm_v == 0)
    # ω = slope v
    slope = jnp.where(flows, 2 * (rho - 1) / (jnp.where(flows, norm_v, 1) * safe_u), 0)
    return NormPreservation(
        value=jnp.where(alive, (rho - 1) ** 2, 0)[:, 0],
        rho=jnp.where(alive, rho, 1),
        a=-2 * slope * (v * v * z_prev),
        left=slope * v * dz,
        right=u,
    )


# λ of a pair (t-1, t), `[B, 1]`, from λ, Ω of the pair, ‖uₜ‖ and ‖uₜ₊₁‖ `[B, 1]` (the
# former twice at the top). The paper leaves it open: "driven by the magnitude of the
# gradient of the neighbouring downstream layer".
Schedule = Callable[[jax.Array, NormPreservation, jax.Array, jax.Array], jax.Array]

# The largest factor by which "error_ratio" raises λ.
MAX_RATIO = 10.0


def _matched(
    lambda_: jax.Array, omega: NormPreservation, size: jax.Array, size_next: jax.Array
) -> jax.Array:
    del size_next
    size_a = norm(omega.a, axis=-1)
    ratio = quotient(size, jnp.where(size_a == 0, 1, size_a))
    return lambda_ * jnp.where(size_a == 0, 0, ratio)


def _error_ratio(
    lambda_: jax.Array, omega: NormPreservation, size: jax.Array, size_next: jax.Array
) -> jax.Array:
    del omega
    ratio = size_next / jnp.where(size == 0, 1, size)
    # What is bounded or 0 is constant, however steep the quotient is there.
    constant = (size == 0) | (ratio >= MAX_RATIO)
    ratio = quotient(size_next, jnp.where(constant, 1, size))
    bounded = jnp.where(constant, MAX_RATIO, ratio)
    return lambda_ * jnp.where(size == 0, 0, bounded)


SCHEDULES: dict[str, Schedule] = {
    # λₜ = λ
    "constant": lambda lambda_, omega, size, size_next: jnp.full_like(size, lambda_),
    # λₜ = λ ‖uₜ‖ / ‖∂Ωₜ/∂hₜ₋₁‖: Ω moves hₜ₋₁ by as much as its neighbour's error is.
    # The denominator has a factor zₜ₋₁: where states are small, the part of Ω that is
    # direct in W_hh grows like 1/‖zₜ₋₁‖.
    "matched": _matched,
    # λₜ = λ max(0, 1 - ρₜ): only where the norm shrinks
    "shrinkage": lambda lambda_, omega, size, size_next: (
        lambda_ * jnp.maximum(0, 1 - omega.rho)
    ),
    # λₜ = λ min(‖uₜ₊₁‖ / ‖uₜ‖, 10): more where the error has shrunk on its way; with
    # the u of each refinement in the K loop
    "error_ratio": _error_ratio,
}
