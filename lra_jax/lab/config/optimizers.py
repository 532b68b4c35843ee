"""The optimizers that a config can name; any optax optimizer works from Python.

All take five numbers more than optax has: `decay_steps`, with which update n has the
learning rate lr / √(1 + n / decay_steps), 0 for none; `w_hh_rate`, by which updates of
W_hh are multiplied, and of other networks those of all recurrent weights;
`readout_rate`, the same for W_hy and b_y; `orthogonality`, the strength of
`lra_jax.soft_orthogonality`; and `weight_decay`, the part of all weights that is taken
off in each update, whatever lr is. Which weights are recurrent is read off their names.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lra_jax import soft_orthogonality
from lra_jax.networks.weights import roles_by_name
from lra_jax.settings import BelowOne, Fraction
from lra_jax.types import AnyParams


def sgd(
    *,
    lr: ArrayLike,
    decay_steps: ArrayLike = 0.0,
    w_hh_rate: ArrayLike = 1.0,
    readout_rate: ArrayLike = 1.0,
    orthogonality: ArrayLike = 0.0,
    weight_decay: Fraction = 0.0,
) -> optax.GradientTransformation:
    """Plain gradient descent, the paper's optimizer."""
    optimizer = optax.sgd(_decayed(lr, decay_steps))
    return _with_rates(optimizer, w_hh_rate, readout_rate, orthogonality, weight_decay)


def momentum(
    *,
    lr: ArrayLike,
    momentum: BelowOne = 0.9,
    nesterov: bool = False,
    decay_steps: ArrayLike = 0.0,
    w_hh_rate: ArrayLike = 1.0,
    readout_rate: ArrayLike = 1.0,
    orthogonality: ArrayLike = 0.0,
    weight_decay: Fraction = 0.0,
) -> optax.GradientTransformation:
    """Gradient descent with momentum."""
    rate = _decayed(lr, decay_steps)
    optimizer = optax.sgd(rate, momentum=momentum, nesterov=nesterov)
    return _with_rates(optimizer, w_hh_rate, readout_rate, orthogonality, weight_decay)


def adam(
    *,
    lr: ArrayLike,
    b1: BelowOne = 0.9,
    b2: BelowOne = 0.999,
    eps: ArrayLike = 1e-8,
    decay_steps: ArrayLike = 0.0,
    w_hh_rate: ArrayLike = 1.0,
    readout_rate: ArrayLike = 1.0,
    orthogonality: ArrayLike = 0.0,
    weight_decay: Fraction = 0.0,
) -> optax.GradientTransformation:
    """Adam."""
    optimizer = optax.adam(_decayed(lr, decay_steps), b1=b1, b2=b2, eps=eps)
    return _with_rates(optimizer, w_hh_rate, readout_rate, orthogonality, weight_decay)


def rmsprop(
    *,
    lr: ArrayLike,
    decay: BelowOne = 0.9,
    eps: ArrayLike = 1e-8,
    decay_steps: ArrayLike = 0.0,
    w_hh_rate: ArrayLike = 1.0,
    readout_rate: ArrayLike = 1.0,
    orthogonality: ArrayLike = 0.0,
    weight_decay: Fraction = 0.0,
) -> optax.GradientTransformation:
    """RMSProp."""
    optimizer = optax.rmsprop(_decayed(lr, decay_steps), decay=decay, eps=eps)
    return _with_rates(optimizer, w_hh_rate, readout_rate, orthogonality, weight_decay)


def _decayed(lr: ArrayLike, decay_steps: ArrayLike) -> optax.ScalarOrSchedule:
    """lr, or update number n to lr / √(1 + n / decay_steps)."""
    if _is(decay_steps, 0):
        return lr

    def rate(count: jax.Array) -> jax.Array:
        steps = jnp.asarray(decay_steps)
        decays = steps > 0
        slower = jnp.sqrt(1 + count / jnp.where(decays, steps, 1))
        return jnp.asarray(lr) / jnp.where(decays, slower, 1)

    return rate


def _with_rates(
    optimizer: optax.GradientTransformation,
    w_hh_rate: ArrayLike,
    readout_rate: ArrayLike,
    orthogonality: ArrayLike,
    weight_decay: ArrayLike,
) -> optax.GradientTransformation:
    """The optimizer, its updates times a rate of their own, and W_hh kept in shape."""
    rates = {"recurrent": w_hh_rate, "readout": readout_rate}

    def scale(updates: AnyParams, params: AnyParams | None) -> AnyParams:
        del params
        return jax.tree.map(
            lambda x, role: rates[role] * x if role in rates else x,
            updates,
            roles_by_name(updates),
        )

    steps = [optimizer]
    if not all(_is(rate, 1) for rate in rates.values()):
        steps.append(optax.stateless(scale))
    if not _is(weight_decay, 0):
        steps.append(optax.add_decayed_weights(-jnp.asarray(weight_decay)))
    if not _is(orthogonality, 0):
        steps.append(soft_orthogonality(orthogonality))
    return optax.chain(*steps) if len(steps) > 1 else optimizer


def _is(value: ArrayLike, number: int) -> bool:
    """Whether a value is a known number, and this one."""
    return isinstance(value, int | float) and value == number


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": adam,
    "momentum": momentum,
    "rmsprop": rmsprop,
    "sgd": sgd,
}
