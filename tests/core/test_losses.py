"""Global and local losses, and their derivatives, against NumPy and jax.grad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lra_jax
from lra_jax import losses

B, Y = 6, 5


def logits_of(seed=0, scale=2.0):
    return np.random.default_rng(seed).normal(size=(B, Y)) * scale


LABELS = {
    "cross_entropy": np.array([0, 4, 2, 1, 2, 3]),
    "squared_error": logits_of(1, 0.5),
}
LOSSES = {
    "cross_entropy": lra_jax.cross_entropy,
    "squared_error": lra_jax.squared_error,
}

all_losses = pytest.mark.parametrize("name", LOSSES)


def in_float64(name, logits, labels):
    """E_b, written from the definition."""
    if labels.ndim == 1:
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        return -np.log(p[np.arange(B), labels])
    return np.sum((logits - labels) ** 2, axis=1) / Y


@all_losses
def test_value_is_the_definition_per_sample(name):
    logits, labels = logits_of(), LABELS[name]
    value = LOSSES[name].value(jnp.asarray(logits), jnp.asarray(labels))
    assert value.shape == (B,)
    np.testing.assert_allclose(value, in_float64(name, logits, labels), rtol=1e-5)


@all_losses
def test_grad_is_automatic_differentiation(name):
    logits, labels = jnp.asarray(logits_of()), jnp.asarray(LABELS[name])
    expected = jax.grad(lambda x: LOSSES[name].value(x, labels).sum())(logits)
    grad = LOSSES[name].grad(logits, labels)
    assert grad.dtype == logits.dtype
    np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-7)


@all_losses
def test_grad_is_the_slope_of_the_definition(name):
    logits, labels, eps = logits_of(), LABELS[name], 1e-5
    slopes = np.empty((B, Y))
    for i in range(Y):
        step = eps * np.eye(Y)[i]
        up, down = (in_float64(name, logits + s * step, labels) for s in (1.0, -1.0))
        slopes[:, i] = (up - down) / (2 * eps)
    grad = LOSSES[name].grad(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(grad, slopes, rtol=1e-5, atol=1e-6)


@all_losses
def test_samples_do_not_touch_each_other(name):
    logits, labels = jnp.asarray(logits_of()), jnp.asarray(LABELS[name])
    sick = logits.at[2].set(jnp.nan)
    others = np.array([0, 1, 3, 4, 5])
    for function in (LOSSES[name].value, LOSSES[name].grad):
        np.testing.assert_array_equal(
            function(sick, labels)[others], function(logits, labels)[others]
        )
        assert np.all(np.isnan(function(sick, labels)[2]))


def test_cross_entropy_of_extreme_logits_is_finite():
    logits = jnp.array([[1e4, -1e4], [1e4, -1e4]])
    labels = jnp.array([0, 1])
    np.testing.assert_allclose(lra_jax.cross_entropy.value(logits, labels), [0, 2e4])
    np.testing.assert_allclose(
        lra_jax.cross_entropy.grad(logits, labels), [[0, 0], [1, -1]]
    )


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_their_number():
    labels = jnp.arange(B, dtype=jnp.int32) % Y
    value = lra_jax.cross_entropy.value(jnp.full((B, Y), 3.0), labels)
    np.testing.assert_allclose(value, np.log(Y), rtol=1e-6)
    grad = lra_jax.cross_entropy.grad(jnp.full((B, Y), 3.0), labels)
    np.testing.assert_allclose(grad, 1 / Y - np.eye(Y)[labels], rtol=1e-6)


def test_a_class_is_wrong_where_another_logit_is_larger():
    logits = jnp.array([[1, 3, 2], [1, 3, 2], [-5, -4, -6], [0, 0, 1e-30]])
    labels = jnp.array([1, 2, 1, 0])
    errors = lra_jax.cross_entropy.is_error(logits, labels)
    assert errors.dtype == bool
    np.testing.assert_array_equal(errors, [False, True, False, True])


@pytest.mark.parametrize("place", range(Y))
def test_a_class_with_a_nan_logit_is_an_error(place):
    # argmax takes a NaN for the largest: the right class may be "found".
    logits = jnp.asarray(logits_of()).at[:, place].set(jnp.nan)
    labels = jnp.full((B,), place, jnp.int32)
    assert np.all(lra_jax.cross_entropy.is_error(logits, labels))


def test_a_real_output_is_an_error_when_off_by_more_than_a_fifth():
    labels = jnp.zeros((6, 2))
    outputs = jnp.array(
        [[0, 0], [0.199, -0.199], [0.201, 0], [0, -0.201], [jnp.nan, 0], [9, jnp.inf]]
    )
    errors = lra_jax.squared_error.is_error(outputs, labels)
    np.testing.assert_array_equal(errors, [False, False, True, True, True, True])


def test_integer_labels_are_real_numbers_to_the_squared_error():
    outputs, labels = jnp.full((2, 1), 0.5), jnp.array([[0], [1]])
    with jax.numpy_dtype_promotion("strict"):
        np.testing.assert_allclose(lra_jax.squared_error.value(outputs, labels), 0.25)
        grad = lra_jax.squared_error.grad(outputs, labels)
    np.testing.assert_allclose(grad, [[1], [-1]])


@pytest.mark.parametrize("part", ["value", "grad", "is_error"])
@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("cross_entropy", np.zeros(B, np.float32)),
        ("cross_entropy", np.zeros(B, bool)),
        ("cross_entropy", np.zeros(B - 1, np.int32)),
        ("cross_entropy", np.zeros((B, Y), np.int32)),
        ("squared_error", np.zeros(B, np.float32)),
        ("squared_error", np.zeros((B, 1), np.float32)),
    ],
    ids=lambda x: x if isinstance(x, str) else f"{x.dtype}{x.shape}",
)
def test_labels_that_do_not_fit_are_named(name, labels, part):
    function = getattr(LOSSES[name], part)
    with pytest.raises(ValueError, match=r"^labels: expected ") as error:
        function(jnp.zeros((B, Y)), jnp.asarray(labels))
    assert str(error.value).endswith(f"got {labels.dtype} {labels.shape}")


# Local losses.

all_local_losses = pytest.mark.parametrize("local_loss", losses.LOCAL_LOSSES.values())
SIZES = np.concatenate([[0], 10.0 ** np.arange(-12, 4)])
ERRORS = np.concatenate([-SIZES, SIZES])


@all_local_losses
def test_derivative_is_automatic_differentiation(local_loss):
    e = jnp.asarray(ERRORS, jnp.float32)
    expected = jax.vmap(jax.grad(local_loss.value))(e)
    np.testing.assert_allclose(local_loss.derivative(e), expected, rtol=1e-5)


def test_mse_is_the_square():
    e = jnp.asarray(ERRORS, jnp.float32)
    np.testing.assert_allclose(losses.mse.value(e), ERRORS**2, rtol=1e-6)
    np.testing.assert_allclose(losses.mse.derivative(e), 2 * ERRORS, rtol=1e-6)


def test_log_penalty_is_the_logarithm_even_where_one_plus_it_is_one():
    e = jnp.asarray(ERRORS, jnp.float32)
    np.testing.assert_allclose(
        losses.log_penalty.value(e), np.log1p(ERRORS**2), rtol=1e-6
    )
    np.testing.assert_allclose(
        losses.log_penalty.derivative(e), 2 * ERRORS / (1 + ERRORS**2), rtol=1e-6
    )


def test_log_penalty_bounds_its_slope():
    e = jnp.linspace(-5, 5, 1001)
    slope = losses.log_penalty.derivative(e)
    assert np.abs(slope).max() <= 1
    np.testing.assert_allclose(e[np.argmax(slope)], 1, atol=1e-5)


@all_local_losses
def test_slopes_of_the_tiniest_errors_are_not_zero(local_loss):
    e = jnp.array([1e-25, -1e-37], jnp.float32)
    np.testing.assert_allclose(local_loss.derivative(e), 2 * e, rtol=1e-6)


def test_the_table_has_both_local_losses():
    expected = {"mse": losses.mse, "log_penalty": losses.log_penalty}
    assert expected == lra_jax.LOCAL_LOSSES
