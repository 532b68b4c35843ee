"""Soft orthogonality of W_hh, for any rule: a step beside the optimizer's."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lra_jax import settings, types
from lra_jax.numerics import matmul


def soft_orthogonality(strength: ArrayLike) -> optax.GradientTransformation:
    """Draws W_hh towards the orthogonal matrices, where it begins.

    A step of gradient descent on ¼ ‖W_hhᵀ W_hh - I‖² is added to the update:

        ΔW_hh ← ΔW_hh - strength · W_hh (W_hhᵀ W_hh - I)

    It belongs after an optimizer, in `optax.chain(optimizer, soft_orthogonality(...))`,
    so that neither its learning rate nor its moments know of it. A singular value s of
    W_hh goes to s - strength · s (s² - 1): with a strength of at most ½, all between 0
    and √(1 + 1 / strength) come to 1. It costs two products of `[H, H]`, whatever T is.

    Args:
      strength: not negative; 0 does nothing.

    Returns:
      A transformation without state, of updates that are `Params`. Its update needs
      `params`.

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

    def update(updates: types.Params, params: types.Params | None) -> types.Params:
        if params is None:
            raise ValueError("soft_orthogonality: expected params, got None")
        w = params.w_hh
        step = jnp.asarray(strength, w.dtype) * (matmul(w, matmul(w.T, w)) - w)
        return updates._replace(w_hh=updates.w_hh - step)

    return optax.stateless(update)
