"""Soft orthogonality of recurrent weights, for any rule, beside its optimizer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lra_jax import settings, types
from lra_jax.networks.weights import roles_by_name
from lra_jax.numerics import matmul


def soft_orthogonality(strength: ArrayLike) -> optax.GradientTransformation:
    """Draws W_hh towards the orthogonal matrices, where it begins.

    A step of gradient descent on ¼ ‖W_hhᵀ W_hh - I‖² is added to the update:

        ΔW_hh ← ΔW_hh - strength · W_hh (W_hhᵀ W_hh - I)

    It belongs after an optimizer, in `optax.chain(optimizer, soft_orthogonality(...))`,
    so that neither its learning rate nor its moments know of it. A singular value s of
    W_hh goes to s - strength · s (s² - 1): with a strength of at most ½, all between 0
    and √(1 + 1 / strength) come to 1. It costs two products of `[H, H]`, whatever T is.

    Of another network than tanh, each square block of each recurrent matrix `[H, k H]`
    is drawn so, gate by gate. Which are recurrent is read off their names: `w_hh`,
    `w_rec` and the like. Networks whose weights have other names stay as they are.

    Args:
      strength: not negative; 0 does nothing.

    Returns:
      A transformation without state, of updates that are `Params` or `NetworkParams`.
      Its update needs `params`.

    Raises:
      ValueError: `strength` is not a scalar, or known and not a finite number of at
        least 0; or, when updating, there are no `params`.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 2, 3, 2)
      >>> params = params._replace(w_hh=1.5 * jnp.eye(3))
      >>> optimizer = optax.chain(optax.sgd(0.1), lra_jax.soft_orthogonality(0.2))
      >>> nothing = jax.tree.map(jnp.zeros_like, params)
      >>> updates, _ = optimizer.update(nothing, optimizer.init(params), params)
      >>> f"{params.w_hh[0, 0] + updates.w_hh[0, 0]:.3f}"  # s - 0.2 s (s² - 1)
      '1.125'
    """
    settings.check_number("strength", strength)

    def step(w: jax.Array) -> jax.Array:
        return jnp.asarray(strength, w.dtype) * (matmul(w, matmul(w.T, w)) - w)

    def moved(update: jax.Array, w: jax.Array, role: str) -> jax.Array:
        if role != "recurrent" or w.ndim != 2 or w.shape[1] % w.shape[0]:
            return update
        blocks = jnp.split(w, w.shape[1] // w.shape[0], axis=1)
        steps = [step(block) for block in blocks]
        return update - (steps[0] if len(steps) == 1 else jnp.concatenate(steps, 1))

    def update(
        updates: types.AnyParams, params: types.AnyParams | None
    ) -> types.AnyParams:
        if params is None:
            raise ValueError("soft_orthogonality: expected params, got None")
        return jax.tree.map(moved, updates, params, roles_by_name(params))

    return optax.stateless(update)
