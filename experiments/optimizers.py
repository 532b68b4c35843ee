"""The optimizers that a config can name; any optax optimizer works from Python."""

from __future__ import annotations

from collections.abc import Callable

import optax
from jax.typing import ArrayLike


def sgd(*, lr: ArrayLike) -> optax.GradientTransformation:
    """Plain gradient descent, the paper's optimizer."""
    return optax.sgd(lr)


def momentum(
    *, lr: ArrayLike, momentum: ArrayLike = 0.9, nesterov: bool = False
) -> optax.GradientTransformation:
    """Gradient descent with momentum."""
    return optax.sgd(lr, momentum=momentum, nesterov=nesterov)


def adam(
    *, lr: ArrayLike, b1: ArrayLike = 0.9, b2: ArrayLike = 0.999, eps: ArrayLike = 1e-8
) -> optax.GradientTransformation:
    """Adam."""
    return optax.adam(lr, b1=b1, b2=b2, eps=eps)


def rmsprop(
    *, lr: ArrayLike, decay: ArrayLike = 0.9, eps: ArrayLike = 1e-8
) -> optax.GradientTransformation:
    """RMSProp."""
    return optax.rmsprop(lr, decay=decay, eps=eps)


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adam": adam,
    "momentum": momentum,
    "rmsprop": rmsprop,
    "sgd": sgd,
}
