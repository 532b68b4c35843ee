"""Norms, Normalize, differences of tanh and matrix products, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxpr import matmul_precisions

import lra_jax
from lra_jax import numerics

HIGHEST = jax.lax.Precision.HIGHEST
# Entries of 1.2 .. 9 times these are normal float32 numbers.
SCALES = [1e-38, 1e-30, 1e-25, 1e-19, 1e-10, 1.0, 1e10, 1e18, 1e30]
FUNCTIONS = [numerics.clip, numerics.force]

all_scales = pytest.mark.parametrize("scale", SCALES)
all_axes = pytest.mark.parametrize("axis", [None, -1])
all_functions = pytest.mark.parametrize("normalize", FUNCTIONS)


def entries(scale, shape=(4, 7)):
    rng = np.random.default_rng(0)
    signs = rng.choice([-1.0, 1.0], size=shape)
    return jnp.asarray(signs * rng.uniform(1.2, 9, size=shape) * scale, jnp.float32)


def norm_in_float64(x, axis):
    return np.linalg.norm(np.asarray(x, np.float64), axis=axis, keepdims=True)


@all_scales
@all_axes
def test_norm_is_exact_at_every_scale(scale, axis):
    x = entries(scale)
    norm = numerics.norm(x, axis=axis)
    assert norm.shape == ((1, 1) if axis is None else (4, 1))
    np.testing.assert_allclose(norm, norm_in_float64(x, axis), rtol=1e-6)


def test_norm_of_tiny_entries_is_not_zero():
    x = jnp.full((2, 100), 1e-25)
    np.testing.assert_allclose(numerics.norm(x, axis=-1), 1e-24, rtol=1e-6)
    assert jnp.linalg.norm(x) == 0  # what it is here for


def test_norm_of_rows_of_different_sizes_and_of_zero():
    x = jnp.array([[3e-25, 4e-25], [0, 0], [3e25, 4e25], [-0.3, 0.4]])
    expected = [[5e-25], [0], [5e25], [0.5]]
    np.testing.assert_allclose(numerics.norm(x, axis=-1), expected, rtol=1e-6)
    np.testing.assert_allclose(numerics.norm(x), [[5e25]], rtol=1e-6)


@all_scales
@all_axes
@all_functions
def test_normalize_sets_norms_above_the_bound(normalize, scale, axis):
    x = entries(scale)
    norm = norm_in_float64(x, axis)
    c = np.float32(0.5 * norm.min())
    value, reported = normalize(x, c, axis=axis)
    expected = np.asarray(x, np.float64) * (c / norm)
    # Entries below float32's smallest normal number may be flushed to 0.
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1.2e-38)
    np.testing.assert_allclose(reported, np.full_like(norm, c), rtol=1e-6)


@all_scales
@all_axes
def test_clip_leaves_what_is_within_the_bound(scale, axis):
    x = entries(scale)
    norm = norm_in_float64(x, axis)
    value, reported = numerics.clip(x, 2 * norm.max(), axis=axis)
    np.testing.assert_array_equal(value, x)
    np.testing.assert_allclose(reported, norm, rtol=1e-6)


@all_scales
@all_axes
def test_force_gives_norm_one_to_anything(scale, axis):
    x = entries(scale)
    value, reported = numerics.force(x, 1.0, axis=axis)
    expected = np.asarray(x, np.float64) / norm_in_float64(x, axis)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_array_equal(reported, np.ones_like(reported))


@pytest.mark.parametrize("c", [0.0, -1.0])
@all_scales
@all_axes
@all_functions
def test_a_bound_that_is_not_positive_is_none(normalize, scale, axis, c):
    x = entries(scale)
    value, reported = normalize(x, c, axis=axis)
    np.testing.assert_array_equal(value, x)
    np.testing.assert_allclose(reported, norm_in_float64(x, axis), rtol=1e-6)


@pytest.mark.parametrize("c", [-1.0, 0.0, 1e-30, 1.0])
@all_axes
@all_functions
def test_zero_stays_zero(normalize, axis, c):
    value, reported = normalize(jnp.zeros((3, 5)), c, axis=axis)
    np.testing.assert_array_equal(value, 0)
    np.testing.assert_array_equal(reported, 0)


@pytest.mark.parametrize("c", [0.0, 1.0])
@all_functions
def test_nan_stays_nan_in_its_own_sample(normalize, c):
    x = entries(1.0)
    expected, _ = normalize(x, c, axis=-1)
    value, reported = normalize(x.at[2, 3].set(jnp.nan), c, axis=-1)
    assert np.isnan(value[2, 3])
    others = np.array([0, 1, 3])
    np.testing.assert_array_equal(value[others], expected[others])
    assert np.all(np.isfinite(reported[others]))
    assert np.any(np.isnan(normalize(x.at[2, 3].set(jnp.nan), c)[0]))


@all_functions
def test_per_sample_bounds_each_row_and_frobenius_the_whole(normalize):
    x = jnp.array([[3.0, 4.0], [0.6, 0.8], [0.0, 12.0]])
    rows, row_norms = normalize(x, 2.0, axis=-1)
    short = {numerics.clip: [0.6, 0.8], numerics.force: [1.2, 1.6]}[normalize]
    np.testing.assert_allclose(rows, [[1.2, 1.6], short, [0, 2]], rtol=1e-6)
    np.testing.assert_allclose(row_norms[:, 0], [2, np.hypot(*short), 2], rtol=1e-6)
    whole, norm = normalize(x, 2.0)
    np.testing.assert_allclose(whole, x * (2 / np.sqrt(170)), rtol=1e-6)
    np.testing.assert_allclose(norm, [[2]])


@all_functions
def test_the_bound_may_be_traced(normalize):
    x = entries(1.0)
    bounds = jnp.array([-1.0, 0.0, 0.5, 1e3])
    values, norms = jax.jit(jax.vmap(lambda c: normalize(x, c)))(bounds)
    for index, c in enumerate(bounds):
        value, norm = normalize(x, c)
        np.testing.assert_allclose(values[index], value, rtol=1e-6)
        np.testing.assert_allclose(norms[index], norm, rtol=1e-6)


def test_the_table_has_both():
    expected = {"clip": numerics.clip, "force": numerics.force}
    assert expected == numerics.NORMALIZATIONS


@pytest.mark.parametrize("size", [10.0, 1.0, 1e-1, 1e-3, 1e-5, 1e-7, 1e-12, 1e-20])
def test_tanh_difference_keeps_its_digits_at_every_size(size):
    rng = np.random.default_rng(1)
    a = rng.uniform(-2, 2, size=1000)
    d = np.float32(size * rng.uniform(0.2, 1, size=1000) * np.sign(a))
    b = a - d.astype(np.float64)
    # The same difference in a form without cancellation.
    expected = np.sinh(d, dtype=np.float64) / (np.cosh(a) * np.cosh(b))
    z_a, z_b = (jnp.asarray(np.tanh(x), jnp.float32) for x in (a, b))
    difference = numerics.tanh_difference(z_a, z_b, jnp.asarray(d))
    np.testing.assert_allclose(difference, expected, rtol=5e-6)


def test_tanh_difference_survives_where_the_states_are_equal_in_float32():
    z = jnp.float32(0.5)
    difference = numerics.tanh_difference(z, z, jnp.float32(1e-25))
    np.testing.assert_allclose(difference, 0.75e-25, rtol=1e-6)
    assert numerics.tanh_difference(z, z, jnp.float32(0)) == 0


def precisions():
    a, b = jnp.ones((2, 3)), jnp.ones((3, 4))
    return matmul_precisions(numerics.matmul, a, b)


def test_matrix_products_have_the_highest_precision():
    assert precisions() == {(HIGHEST, HIGHEST)}


@pytest.mark.parametrize("asked", ["bfloat16", "tensorfloat32", "float32"])
def test_a_surrounding_precision_is_respected(asked):
    with jax.default_matmul_precision(asked):
        expected = matmul_precisions(jnp.matmul, jnp.ones((2, 3)), jnp.ones((3, 4)))
        assert precisions() == expected
    assert precisions() == {(HIGHEST, HIGHEST)}


def test_a_lower_precision_is_really_lower():
    with jax.default_matmul_precision("bfloat16"):
        assert precisions() != {(HIGHEST, HIGHEST)}


def test_a_jitted_function_notices_a_change_of_precision():
    def forward(params, inputs):
        return lra_jax.forward(params, inputs).logits

    params = lra_jax.init_params(jax.random.key(0), 3, 4, 2)
    inputs = jnp.zeros((5, 2), jnp.int32)
    jitted = jax.jit(forward)
    jitted(params, inputs)
    assert matmul_precisions(jitted, params, inputs) == {(HIGHEST, HIGHEST)}
    with jax.default_matmul_precision("bfloat16"):
        assert (HIGHEST, HIGHEST) not in matmul_precisions(jitted, params, inputs)


def test_matmul_is_the_matrix_product():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(5, 200)), rng.normal(size=(200, 3))
    product = numerics.matmul(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(product, a @ b, atol=2e-5)
    assert product.dtype == jnp.float32


def both_modes(function, x):
    """The derivative in x `[]` or `[N]`, which both modes agree in."""
    forward, reverse = jax.jacfwd(function)(x), jax.jacrev(function)(x)
    np.testing.assert_allclose(forward, reverse, rtol=1e-6)
    return np.asarray(forward)


def test_a_norm_has_the_derivative_of_its_direction_and_0_at_0():
    x = jnp.array([3.0, -4.0])  # the largest entry scales, and is no exception
    np.testing.assert_allclose(
        both_modes(lambda x: numerics.norm(x)[0], x), [0.6, -0.8], rtol=1e-6
    )
    tied = jnp.array([1e-25, 1e-25])
    np.testing.assert_allclose(
        both_modes(lambda x: numerics.norm(x)[0], tied), [0.5**0.5] * 2, rtol=1e-6
    )
    assert (both_modes(lambda x: numerics.norm(x)[0], jnp.zeros(2)) == 0).all()
    assert np.isinf(jax.grad(jnp.sqrt)(0.0))  # what it is here for


@pytest.mark.parametrize("normalize", [numerics.clip, numerics.force])
def test_a_bounded_gradient_is_differentiated_through_its_bound(normalize):
    def value(x, c):
        return normalize(x, c).value

    x = jnp.array([3.0, -4.0])
    # c x / |x|: the direction, and c times the part of dx across it over |x|.
    along = np.outer([0.6, -0.8], [0.6, -0.8])
    np.testing.assert_allclose(
        both_modes(lambda x: value(x, 2.0), x), 2 / 5 * (np.eye(2) - along), atol=1e-6
    )
    np.testing.assert_allclose(
        both_modes(lambda c: value(x, c), 2.0), [0.6, -0.8], rtol=1e-6
    )
    np.testing.assert_array_equal(both_modes(lambda x: value(x, 0.0), x), np.eye(2))
    zero = both_modes(lambda x: value(x, 2.0), jnp.zeros(2))
    np.testing.assert_array_equal(zero, np.eye(2))


def test_a_quotient_of_tiny_numbers_has_a_derivative():
    slope = jax.grad(numerics.quotient, argnums=(0, 1))(3e-25, 2e-25)
    np.testing.assert_allclose(slope, [5e24, -7.5e24], rtol=1e-6)
    assert not np.isfinite(jax.grad(lambda b: 3e-25 / b)(2e-25))  # b² is 0
