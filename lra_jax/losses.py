"""The global loss E of the output layer and the local losses L of the hidden ones.

Each loss comes with its derivative in closed form: the algorithm is written in
gradients, and none of them is taken by automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lra_jax import settings, symbols, types


def check_loss(output_loss: Any) -> None:
    """Raises ValueError for what is no E."""
    if not isinstance(output_loss, types.OutputLoss):
        raise ValueError(
            "output_loss: expected a lra_jax.OutputLoss, such as lra_jax.cross_entropy "
            f"or a task's output_loss, got {output_loss!r:.60}"
        )


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
"""The local losses by name, each with ℓ(e) and ℓ'(e) of e = z - ẑ of any shape.

Example:
  >>> e = jnp.array([-1.0, 0.0, 1.0])
  >>> lra_jax.LOCAL_LOSSES["mse"].derivative(e).tolist()
  [-2.0, 0.0, 2.0]
  >>> lra_jax.LOCAL_LOSSES["log_penalty"].derivative(e).tolist()
  [-1.0, 0.0, 1.0]
"""


def _check_classes(logits: jax.Array, labels: jax.Array) -> None:
    settings.check_array("labels", labels)
    if labels.shape != logits.shape[:-1] or not jnp.issubdtype(
        labels.dtype, jnp.integer
    ):
        axes = "[B]" if logits.ndim == 2 else "[T, B]"
        raise ValueError(
            f"labels: expected integer classes {axes} = {logits.shape[:-1]} "
            f"{_OF_TIME_MAJOR}, got {labels.dtype} {labels.shape}"
        )


# A batch whose first axis is not time shows in the labels first.
_OF_TIME_MAJOR = "(inputs are time-major, [T, B] or [T, B, X]: time is the first axis)"


def _classes(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Classes from 0 to Y-1, and the factor of E and π: 1, or NaN for no class."""
    _check_classes(logits, labels)
    num_classes = logits.shape[-1]
    is_class = symbols.is_index(labels, num_classes)
    classes = jnp.where(is_class, symbols.as_index(labels, num_classes), 0)
    return classes, jnp.where(is_class, 1, jnp.nan).astype(logits.dtype)


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    classes, factor = _classes(logits, labels)
    log_p = jax.nn.log_softmax(logits)
    # A factor, no selection: its derivative is NaN too.
    return -jnp.take_along_axis(log_p, classes[..., None], axis=-1)[..., 0] * factor


def _cross_entropy_grad(logits: jax.Array, labels: jax.Array) -> jax.Array:
    classes, factor = _classes(logits, labels)
    one_hot = jax.nn.one_hot(classes, logits.shape[-1], dtype=logits.dtype)
    return (jax.nn.softmax(logits) - one_hot) * factor[..., None]


def _wrong_class(logits: jax.Array, labels: jax.Array) -> jax.Array:
    classes, factor = _classes(logits, labels)
    wrong = jnp.argmax(logits, axis=-1).astype(classes.dtype) != classes
    return wrong | jnp.isnan(factor) | jnp.any(jnp.isnan(logits), axis=-1)


cross_entropy = types.OutputLoss(
    value=_cross_entropy, grad=_cross_entropy_grad, is_error=_wrong_class
)
"""E_b = -log softmax(logits)_y,  π = softmax(logits) - onehot(y); labels int `[B]`.

An error is a class that is not the label. Labels may have any integer type. One that
is no class, below 0 or Y and above, is an error, and makes E_b and π NaN.

Raises:
  ValueError: the labels are no integers of the logits' leading axes.

Example:
  >>> logits, labels = jnp.zeros((1, 4)), jnp.array([2])
  >>> lra_jax.cross_entropy.grad(logits, labels).tolist()
  [[0.25, 0.25, -0.75, 0.25]]
  >>> lra_jax.cross_entropy.is_error(logits, labels).tolist()
  [True]
"""


def _difference(logits: jax.Array, labels: jax.Array) -> jax.Array:
    settings.check_array("labels", labels)
    if labels.shape != logits.shape or jnp.issubdtype(
        labels.dtype, jnp.complexfloating
    ):
        raise ValueError(
            f"labels: expected real values [B, Y] = {logits.shape} "
            f"{_OF_TIME_MAJOR}, got {labels.dtype} {labels.shape}"
        )
    found = logits - labels.astype(logits.dtype)
    # Where the label is infinite a rule with targets would stop at tanh(∞) = 1. What is
    # asked is the difference: compilers join it with the labels' last operation. A
    # factor, no selection: its derivative is NaN too.
    return found * jnp.where(jnp.isfinite(found), 1, jnp.nan).astype(found.dtype)


squared_error = types.OutputLoss(
    value=lambda logits, labels: jnp.mean(_difference(logits, labels) ** 2, axis=1),
    grad=lambda logits, labels: 2 * _difference(logits, labels) / logits.shape[1],
    is_error=lambda logits, labels: (
        ~jnp.all(_difference(logits, labels) ** 2 <= 0.04, axis=1)
    ),
)
"""E_b = mean over Y of (logits - label)²; labels real `[B, Y]`.

A sample is an error where any output is off by more than 0.2: the criterion of the
adding problem. A label that is not finite is an error, and makes E_b and its part of
the derivative NaN.

Raises:
  ValueError: the labels are complex, or have another shape than the logits.

Example:
  >>> logits, labels = jnp.array([[0.5], [0.5]]), jnp.array([[0.25], [0.375]])
  >>> lra_jax.squared_error.value(logits, labels).tolist()
  [0.0625, 0.015625]
  >>> lra_jax.squared_error.is_error(logits, labels).tolist()
  [True, False]
"""


def is_asked(labels: jax.Array) -> jax.Array:
    """Where a label asks for an answer, `[T, B]`: one below 0 asks nothing.

    Args:
      labels: `[T, B]`, or `[T, B, Y]`, of which all Y below 0 ask nothing.
    """
    asked = ~(labels < 0)  # also where a label is not a number
    return asked if asked.ndim == 2 else jnp.any(asked, axis=2)


def _weights(labels: types.Weighted) -> jax.Array:
    """Weights as they are; NaN where one is below 0 or not finite."""
    weights = jnp.asarray(labels.weights)
    right = jnp.isfinite(weights) & (weights >= 0)
    return jnp.where(right, weights, jnp.asarray(jnp.nan, weights.dtype))


def _weight_of_step(labels: types.Weighted) -> jax.Array:
    """w_bt `[T, B]`: of weights of outputs, their mean."""
    weights = _weights(labels)
    return weights if weights.ndim == 2 else jnp.mean(weights, axis=2)


def num_asked(labels: types.Labels) -> jax.Array:
    """n_b, the number of steps at which sample b is asked, `[B]`; 1 where it is 0.

    Of `Weighted` labels Σₜ w_bt, 1 where it is 0.
    """
    if isinstance(labels, types.Weighted):
        total = jnp.sum(_weight_of_step(labels), axis=0)
        return jnp.where(total == 0, jnp.ones_like(total), total)
    return jnp.maximum(jnp.sum(is_asked(labels), axis=0), 1)


def _shared(found: jax.Array, labels: types.Labels, count: jax.Array) -> jax.Array:
    """What a loss gives of one step alone, `[B, ...]`, as its share of the whole.

    Args:
      found: of the step as if it were the only one.
      labels: of that one step, `[1, B, ...]`.
      count: `[B]`, n_b.
    """
    axes = tuple(range(1, found.ndim))
    if isinstance(labels, types.Weighted):
        # Of the step alone, all of the weight is its own.
        share = _weight_of_step(labels)[0] / count
        return found * jnp.expand_dims(share.astype(found.dtype), axes)
    return found / jnp.expand_dims(count.astype(found.dtype), axes)


def _alone(labels_t: types.Labels) -> types.Labels:
    """Labels of a step as those of a sequence of one."""
    return jax.tree.map(lambda x: x[None], labels_t)


def grad_of_step(
    loss: types.OutputLoss, count: jax.Array
) -> Callable[[jax.Array, types.Labels], jax.Array]:
    """`(logits [B, Y], labels of t [B, ...]) -> [B, Y]`, πₜ of a loss of every step.

    Args:
      loss: of every step.
      count: `[B]`, n_b, from `num_asked` of all labels.
    """

    def grad(logits: jax.Array, labels_t: types.Labels) -> jax.Array:
        labels = _alone(labels_t)
        return _shared(loss.grad(logits[None], labels)[0], labels, count)

    return grad


def value_of_step(
    loss: types.OutputLoss, count: jax.Array
) -> Callable[[jax.Array, types.Labels], jax.Array]:
    """`(logits [B, Y], labels of t [B, ...]) -> [B]`, E_bt / n_b: what a step adds.

    Args:
      loss: of every step.
      count: `[B]`, n_b, from `num_asked` of all labels.
    """

    def value(logits: jax.Array, labels_t: types.Labels) -> jax.Array:
        labels = _alone(labels_t)
        return _shared(loss.value(logits[None], labels), labels, count)

    return value


def _at_every_step(
    loss: types.OutputLoss,
    check: Callable[[jax.Array, jax.Array], None],
    terms: types.OutputLoss | None = None,
) -> types.OutputLoss:
    """E_b = (1/n_b) Σ E_bt over the steps t that ask, of the loss E_bt of one step.

    Args:
      loss: E_bt, of logits `[T, B, Y]`.
      check: raises ValueError where labels do not fit the logits.
      terms: of a loss that is a sum over outputs, `value` and `is_error` of each,
        `[T, B, Y]`; it takes weights of outputs.
    """

    def at_asked(
        function: Callable[[jax.Array, jax.Array], jax.Array],
        logits: jax.Array,
        labels: jax.Array,
    ) -> jax.Array:
        check(logits, labels)
        labels = symbols.saturated(labels)
        asked = is_asked(labels)
        shown = asked if labels.ndim == 2 else asked[..., None]
        found = function(logits, jnp.where(shown, labels, 0))
        return jnp.where(asked if found.ndim == 2 else asked[..., None], found, 0)

    def at_weighted(
        function: Callable[[jax.Array, jax.Array], jax.Array],
        logits: jax.Array,
        weighted: types.Weighted,
    ) -> tuple[jax.Array, jax.Array]:
        """What a function gives, and its weights; 0 where these are 0."""
        check(logits, weighted.labels)
        _check_weights(logits, weighted.weights, of_outputs=terms is not None)
        labels, weights = symbols.saturated(weighted.labels), _weights(weighted)
        asked = weights != 0
        shown = asked if labels.ndim == asked.ndim else asked[..., None]
        found = function(logits, jnp.where(shown, labels, 0))
        if found.ndim > weights.ndim:
            weights, asked = weights[..., None], asked[..., None]
        return jnp.where(asked, found, 0), weights

    of_output = loss if terms is None else terms

    def value(logits: jax.Array, labels: types.Labels) -> jax.Array:
        if isinstance(labels, types.Weighted):
            found, weights = at_weighted(of_output.value, logits, labels)
            found = found * weights.astype(found.dtype)
            total = jnp.sum(found if found.ndim == 2 else jnp.sum(found, 2), axis=0)
        else:
            total = jnp.sum(at_asked(loss.value, logits, labels), axis=0)
        return total / num_asked(labels).astype(total.dtype)

    def grad(logits: jax.Array, labels: types.Labels) -> jax.Array:
        if isinstance(labels, types.Weighted):
            pi, weights = at_weighted(loss.grad, logits, labels)
            pi = pi * weights.astype(pi.dtype)
        else:
            pi = at_asked(loss.grad, logits, labels)
        return pi / num_asked(labels).astype(pi.dtype)[None, :, None]

    def is_error(logits: jax.Array, labels: types.Labels) -> jax.Array:
        if isinstance(labels, types.Weighted):
            wrong, weights = at_weighted(of_output.is_error, logits, labels)
            wrong |= jnp.isnan(weights)
            return jnp.any(wrong, axis=(0, *range(2, wrong.ndim)))
        return jnp.any(at_asked(loss.is_error, logits, labels), axis=0)

    return types.OutputLoss(value, grad, is_error, every_step=True)


def _check_weights(logits: jax.Array, weights: jax.Array, *, of_outputs: bool) -> None:
    settings.check_array("weights", weights)
    allowed = (logits.shape[:-1], logits.shape) if of_outputs else (logits.shape[:-1],)
    if weights.shape not in allowed or not jnp.issubdtype(weights.dtype, jnp.floating):
        axes = f"[T, B] = {allowed[0]}"
        if of_outputs:
            axes += f" or [T, B, Y] = {logits.shape}"
        raise ValueError(
            f"weights: expected real {axes}, got {weights.dtype} {weights.shape}"
        )


cross_entropy_every_step = _at_every_step(cross_entropy, _check_classes)
"""E_bt = -log softmax(logitsₜ)_y; labels int `[T, B]`, below 0 where nothing is asked.

E_b is the mean over the steps of sample b that ask; it is an error if any of them is.
A label of Y and above is no class: it is an error, and makes E_b and its πₜ NaN.

Raises:
  ValueError: the labels are no integers of the logits' leading axes.

Example:
  >>> logits, labels = jnp.zeros((2, 1, 2)), jnp.array([[-1], [0]])
  >>> lra_jax.cross_entropy_every_step.grad(logits, labels).tolist()
  [[[0.0, 0.0]], [[-0.5, 0.5]]]
"""


def _check_reals(expected: str) -> Callable[[jax.Array, jax.Array], None]:
    def check(logits: jax.Array, labels: jax.Array) -> None:
        settings.check_array("labels", labels)
        real = jnp.issubdtype(labels.dtype, jnp.floating)
        if labels.shape != logits.shape or not real:
            raise ValueError(
                f"labels: expected {expected} [T, B, Y] = {logits.shape} "
                f"{_OF_TIME_MAJOR}, got {labels.dtype} {labels.shape}"
            )

    return check


def _side(logits: jax.Array, labels: jax.Array) -> jax.Array:
    labels = labels.astype(logits.dtype)
    return jnp.where((labels == 0) | (labels == 1), 1 - 2 * labels, jnp.nan)


# With side = 1 at the label 0 and -1 at 1, no logit is too large for any of the three.
_keys = types.OutputLoss(
    value=lambda logits, labels: jax.nn.softplus(_side(logits, labels) * logits),
    grad=lambda logits, labels: (
        _side(logits, labels) * jax.nn.sigmoid(_side(logits, labels) * logits)
    ),
    is_error=lambda logits, labels: ~(_side(logits, labels) * logits < 0),
)

binary_cross_entropy_every_step = _at_every_step(
    types.OutputLoss(
        value=lambda logits, labels: jnp.sum(_keys.value(logits, labels), axis=-1),
        grad=_keys.grad,
        is_error=lambda logits, labels: (
            ~jnp.all(_side(logits, labels) * logits < 0, axis=-1)
        ),
    ),
    _check_reals("real 0 or 1"),
    _keys,
)
"""E_bt = Σ_Y -log p(label),  p(1) = 1 / (1 + exp(-logit)); labels real `[T, B, Y]`.

Labels are 0 or 1, and all -1 where nothing is asked. Outputs are independent keys, as
in papers on polyphonic music, whose NLL per frame E is. An error is a key that is not
on its label's side of p = 0.5, at any step that asks. Any other label, also one between
0 and 1, and a -1 beside a 0 or 1 of the same step, is an error, and makes E_b and its
part of πₜ NaN.

Raises:
  ValueError: the labels are not real, or have another shape than the logits.

Example:
  >>> logits, labels = jnp.zeros((1, 1, 2)), jnp.array([[[1.0, 0.0]]])
  >>> lra_jax.binary_cross_entropy_every_step.grad(logits, labels).tolist()
  [[[-0.5, 0.5]]]
"""


_squares = types.OutputLoss(
    value=lambda logits, labels: _difference(logits, labels) ** 2 / logits.shape[-1],
    grad=lambda logits, labels: 2 * _difference(logits, labels) / logits.shape[-1],
    is_error=lambda logits, labels: ~(_difference(logits, labels) ** 2 <= 0.04),
)


def _with_weights(loss: types.OutputLoss) -> types.OutputLoss:
    """A loss of every step whose labels may be anything: weights say what is asked."""

    def only(
        function: Callable[[jax.Array, types.Labels], jax.Array],
    ) -> Callable[[jax.Array, types.Labels], jax.Array]:
        def of_weighted(logits: jax.Array, labels: types.Labels) -> jax.Array:
            if not isinstance(labels, types.Weighted):
                raise ValueError(
                    "labels: expected Weighted(labels, weights), as a label below 0 "
                    "may be asked for, too; weights of 1 ask at every step; got "
                    f"{type(labels).__name__}"
                )
            return function(logits, labels)

        return of_weighted

    value, grad, is_error = (only(function) for function in loss[:3])
    return types.OutputLoss(value, grad, is_error, every_step=True)


squared_error_every_step = _with_weights(
    _at_every_step(
        types.OutputLoss(
            value=lambda logits, labels: jnp.sum(
                _squares.value(logits, labels), axis=-1
            ),
            grad=_squares.grad,
            is_error=lambda logits, labels: jnp.any(
                _squares.is_error(logits, labels), axis=-1
            ),
        ),
        _check_reals("real values"),
        _squares,
    )
)
"""E_bt = mean over Y of (logitsₜ - label)²; labels `Weighted`, real `[T, B, Y]`.

Labels may be below 0, so that none of them can ask nothing: their weights say what is
asked, and weights of 1 ask at every step. A sample is an error where any output that
has a weight is off by more than 0.2. A label that is not finite, where it is asked for,
is an error, and makes E_b and its part of πₜ NaN.

Raises:
  ValueError: the labels are not `Weighted`, or not real, or have another shape than the
    logits; or weights have another shape or type than is expected.

Example:
  >>> logits, labels = jnp.zeros((2, 1, 1)), jnp.array([[[-0.5]], [[0.25]]])
  >>> weighted = lra_jax.Weighted(labels, weights=jnp.ones((2, 1)))
  >>> lra_jax.squared_error_every_step.grad(logits, weighted).tolist()
  [[[0.5]], [[-0.25]]]
"""
