"""The global loss E of the output layer and the local losses L of the hidden ones.

Each loss comes with its derivative in closed form: the algorithm is written in
gradients, and none of them is taken by automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lra_jax import types


class LocalLoss(NamedTuple):
    """ℓ(e) and ℓ'(e), element by element, of e = z - ẑ."""

    value: Callable[[jax.Array], jax.Array]
    derivative: Callable[[jax.Array], jax.Array]


# eq. 8: ℓ = e², ℓ' = 2e.
mse = LocalLoss(value=jnp.square, derivative=lambda e: 2 * e)

# ℓ = log(1 + e²), ℓ' = 2e / (1 + e²), at most 1. log1p: 1 + e² is 1 for |e| < 2.4e-4.
log_penalty = LocalLoss(
    value=lambda e: jnp.log1p(e * e), derivative=lambda e: 2 * e / (1 + e * e)
)

LOCAL_LOSSES = {"mse": mse, "log_penalty": log_penalty}


def _check_classes(logits: jax.Array, labels: jax.Array) -> None:
    if labels.shape != logits.shape[:1] or not jnp.issubdtype(
        labels.dtype, jnp.integer
    ):
        raise ValueError(
            f"labels: expected integer classes [B] = {logits.shape[:1]}, "
            f"got {labels.dtype} {labels.shape}"
        )


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    _check_classes(logits, labels)
    log_p = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]


def _cross_entropy_grad(logits: jax.Array, labels: jax.Array) -> jax.Array:
    _check_classes(logits, labels)
    one_hot = jax.nn.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    return jax.nn.softmax(logits) - one_hot


def _wrong_class(logits: jax.Array, labels: jax.Array) -> jax.Array:
    _check_classes(logits, labels)
    wrong = jnp.argmax(logits, axis=1).astype(labels.dtype) != labels
    return wrong | jnp.any(jnp.isnan(logits), axis=1)


# E_b = -log softmax(logits)_y, π = softmax(logits) - onehot(y); labels int [B].
cross_entropy = types.OutputLoss(
    value=_cross_entropy, grad=_cross_entropy_grad, is_error=_wrong_class
)


def _difference(logits: jax.Array, labels: jax.Array) -> jax.Array:
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels: expected real values [B, Y] = {logits.shape}, "
            f"got {labels.dtype} {labels.shape}"
        )
    return logits - labels.astype(logits.dtype)


# E_b = mean over Y of (y - label)²; labels real [B, Y]. A sample is an error where
# any output is off by more than 0.2: the criterion of the adding problem.
squared_error = types.OutputLoss(
    value=lambda logits, labels: jnp.mean(_difference(logits, labels) ** 2, axis=1),
    grad=lambda logits, labels: 2 * _difference(logits, labels) / logits.shape[1],
    is_error=lambda logits, labels: (
        ~jnp.all(_difference(logits, labels) ** 2 <= 0.04, axis=1)
    ),
)
