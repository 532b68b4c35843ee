"""What the program computes with: its local losses, Ω, and norms as float32 has them.

Numbers in brackets are the points of docs/reproduction.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lra_jax import losses, numerics
from lra_jax.numerics import matmul

# In the program, float32 squares are 0 of numbers below 2.6e-23; on CPUs, XLA takes
# subnormal numbers for 0, and squares are 0 below 1.1e-19. Numbers times this factor
# have squares that are 0 below 2.6e-23 again: Ω is 0/0 for the same u.
_SUBNORMAL = 2.0**12


class ProgramLoss(NamedTuple):
    """ℓ, ℓ', and whether the mean of ℓ is exactly 0 in the program's arithmetic."""

    value: Callable[[jax.Array], jax.Array]
    derivative: Callable[[jax.Array], jax.Array]
    vanishes: Callable[[jax.Array], jax.Array]


def _log_penalty(e: jax.Array) -> jax.Array:
    """log(1 + e²), not log1p: in float32 it is 0 for |e| < 2.4e-4 (17)."""
    return jnp.log(1 + e * e)


PROGRAM_LOSSES = {
    "mse": ProgramLoss(
        value=jnp.square,
        derivative=losses.mse.derivative,
        vanishes=lambda e: program_norm(e) == 0,
    ),
    "log_penalty": ProgramLoss(
        value=_log_penalty,
        derivative=losses.log_penalty.derivative,
        vanishes=lambda e: jnp.mean(_log_penalty(e)) == 0,
    ),
}


class Numbers(NamedTuple):
    """The rule's numbers and local loss."""

    gamma: jax.Array  # [] γ
    num_refinements: int | jax.Array  # K, int32 `[]` where it is traced
    lambda_: jax.Array | None  # [] λ; None leaves Ω out of the program
    c: jax.Array  # []
    loss: ProgramLoss

    def add_omega(self, grad: jax.Array, omega: jax.Array) -> jax.Array:
        """`grad + λ omega`; at λ = 0 `grad`, even where omega is NaN."""
        if self.lambda_ is None:
            return grad
        return _add(grad, self.lambda_, omega)

    def omega(
        self,
        u: jax.Array,
        product: jax.Array,
        h: jax.Array,
        skipped: jax.Array | None = None,
    ) -> _Omega:
        """`_omega`, whose derivatives are not taken where it is not used.

        They may be 0/0 there as it is itself, which times 0 is NaN.
        """
        unused = self.lambda_ == 0 if skipped is None else skipped | (self.lambda_ == 0)
        return _omega(*(_constant_where(unused, x) for x in (u, product, h)))

    def bound(self, grad: jax.Array) -> jax.Array:
        """One norm over the whole array, the batch included."""
        return numerics.clip(grad, self.c).value


@jax.custom_jvp
def _add(grad: jax.Array, lambda_: jax.Array, omega: jax.Array) -> jax.Array:
    """grad + λ omega, or grad at λ = 0; ∂/∂λ is omega there, where that is a number."""
    return jnp.where(lambda_ == 0, grad, grad + lambda_ * omega)


@_add.defjvp
def _add_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    (_, lambda_, omega), (d_grad, d_lambda, d_omega) = primals, tangents
    unused = lambda_ == 0
    slope = jnp.where(unused & ~jnp.isfinite(omega), 0, omega)
    d_used = jnp.where(unused, 0, lambda_ * d_omega)
    return _add(*primals), d_grad + d_lambda * slope + d_used


@jax.custom_jvp
def _constant_where(unused: jax.Array, x: jax.Array) -> jax.Array:
    """x, a constant to differentiation where it is not used."""
    del unused
    return x


@_constant_where.defjvp
def _constant_where_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return primals[1], jnp.where(primals[0], 0, tangents[1])


@jax.custom_jvp
def _direction(v: jax.Array, n: jax.Array) -> jax.Array:
    """v / n, and 0 with derivatives 0 where n = 0."""
    return jnp.where(n == 0, 0, v / n)


@_direction.defjvp
def _direction_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    n = primals[1]
    value = _direction(*primals)
    return value, _direction(tangents[0] - value * tangents[1], n)


def program_norm(x: jax.Array) -> jax.Array:
    """‖x‖ over the whole array, 0 where the program's float32 squares are 0."""
    return numerics.root(jnp.sum((x * _SUBNORMAL) ** 2)) / _SUBNORMAL


def times_transpose(w: jax.Array, *errors: jax.Array) -> list[jax.Array]:
    """Each error times wᵀ, as one product of matrices."""
    return jnp.split(matmul(jnp.concatenate(errors), w.T), len(errors))


class _Omega(NamedTuple):
    """The derivatives of Ω, `[B, H]`."""

    product: jax.Array  # ∂Ω/∂(u Wᵀ): ∂Ω/∂W is its transpose times u
    h: jax.Array  # ∂Ω/∂h


def _omega(u: jax.Array, product: jax.Array, h: jax.Array) -> _Omega:
    """Ω = (n / ‖u‖ - 1)²,  n = ‖diag(m) u Wᵀ‖,  m_b = σ'(h[b, b]).

    The norms are over the whole batch, and u is a constant (10). m is what a diagonal
    makes of a state `[B, H]` (6): one unit of each sample, the b-th, scales all units
    of that sample. u = 0 is 0/0 (17).

    Args:
      u: `[B, .]`.
      product: u Wᵀ `[B, H]`.
      h: `[B, H]`, B ≤ H.
    """
    z = jnp.tanh(jnp.diagonal(h))[:, None]
    m = 1 - z**2
    v = m * product
    n, size = program_norm(v), program_norm(u)
    quotient = numerics.quotient
    to_v = quotient(2 * (quotient(n, size) - 1), size) * _direction(v, n)
    to_m = jnp.sum(to_v * product, axis=1, keepdims=True)
    diagonal = jnp.eye(h.shape[0], h.shape[1], dtype=bool)
    return _Omega(m * to_v, jnp.where(diagonal, -2 * z * m * to_m, 0))
