"""The optimizers that a config can name; any optax optimizer works from Python.

All take three numbers more than optax has: `decay_steps`, with which update n has the
learning rate lr / √(1 + n / decay_steps), 0 for none; `w_hh_rate`, by which updates of
W_hh are multiplied; and `readout_rate`, the same for W_hy and b_y.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from lra_jax.types import Params


def sgd(
    *,
    lr: ArrayLike,
    decay_steps: ArrayLike = 0.0,
    w_hh_rate: ArrayLike = 1.0,
    readout_rate: ArrayLike = 1.0,
) -> optax.GradientTransformation:
    """Plain gradient descent, the paper's optimizer."""
    return _with_rates(optax.sgd(_decayed(lr, decay_steps)), w_hh_rate, readout_rate)


def momentum(
    *,
    lr: ArrayLike,
    momentum: ArrayLike = 0.9,
    nesterov: bool = False,
    decay_steps: ArrayLike = 0.0,
    w_hh_rate: ArrayLike = 1.0,
    readout_rate: ArrayLike = 1.0,
) -> optax.GradientTransformation:
    """Gradient descent with momentum."""
    rate = _decayed(lr, decay_steps)
    return _with_rates(
        optax.sgd(rate, momentum=momentum, nesterov=nesterov), w_hh_rate, readout_rate
    )


def adam(
    *,
    lr: ArrayLike,
    b1: ArrayLike = 0.9,
    b2: ArrayLike = 0.999,
    eps: ArrayLike = 1e-8,
    decay_steps: ArrayLike = 0.0,
    w_hh_rate: ArrayLike = 1.0,
    readout_rate: ArrayLike = 1.0,
) -> optax.GradientTransformation:
    """Adam."""
    rate = _decayed(lr, decay_steps)
    return _with_rates(optax.adam(rate, b1=b1, b2=b2, eps=eps), w_hh_rate, readout_rate)


def rmsprop(
    *,
    lr: ArrayLike,
    decay: ArrayLike = 0.9,
    eps: ArrayLike = 1e-8,
    decay_steps: ArrayLike = 0.0,
    w_hh_rate: ArrayLike = 1.0,
    readout_rate: ArrayLike = 1.0,
) -> optax.GradientTransformation:
    """RMSProp."""
    rate = _decayed(lr, decay_steps)
    return _with_rates(
        optax.rmsprop(rate, decay=decay, eps=eps), w_hh_rate, readout_rate
    )


def _decayed(lr: ArrayLike, decay_steps: ArrayLike) -> optax.ScalarOrSchedule:
    """lr, or update number n to lr / √(1 + n / decay_steps)."""
    if isinstance(decay_steps, int | float) and decay_steps == 0:
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
) -> optax.GradientTransformation:
    """The optimizer, and its updates times a rate of their own."""
    rates = {"w_hh": w_hh_rate, "w_hy": readout_rate, "b_y": readout_rate}
    if all(isinstance(rate, int | float) and rate == 1 for rate in rates.values()):
        return optimizer

    def scale(updates: Params, params: Params | None) -> Params:
        del params
        slower = {name: rate * getattr(updates, name) for name, rate in rates.items()}
        return updates._replace(**slower)

    return optax.chain(optimizer, optax.stateless(scale))


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": adam,
    "momentum": momentum,
    "rmsprop": rmsprop,
    "sgd": sgd,
}
