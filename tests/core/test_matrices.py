"""Decompositions under vmap, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_jax import matrices

MANY = jax.random.normal(jax.random.key(0), (3, 4, 4)) + 3 * jnp.eye(4)[None]
KEYS = jax.random.split(jax.random.key(1), 3)
MAPPED = {
    "orthogonal": (lambda key: matrices.orthogonal(key, (4, 4)), KEYS),
    "inverse": (matrices.inverse, MANY),
    "ridge_solve": (lambda w: matrices.ridge_solve(w, jnp.float32(0.5), w), MANY),
}


def lowered(name, platform):
    function, argument = MAPPED[name]
    program = jax.jit(jax.vmap(function)).trace(argument)
    return program.lower(lowering_platforms=(platform,)).as_text()


def decompositions(text):
    """The lines of a program that leave the work to a library for matrices."""
    names = ("lapack", "solver", "cholesky")
    return [line for line in text.splitlines() if any(name in line for name in names)]


@pytest.mark.parametrize("name", MAPPED)
def test_a_cpu_decomposes_one_matrix_at_a_time(name):
    lines = decompositions(lowered(name, "cpu"))
    assert any("tensor<4x4xf32>" in line for line in lines)
    assert not any("tensor<3x4x4xf32>" in line for line in lines)


@pytest.mark.parametrize("name", MAPPED)
def test_other_devices_decompose_all_at_once(name):
    lines = decompositions(lowered(name, "cuda"))
    assert any("tensor<3x4x4xf32>" in line for line in lines)
    assert lowered(name, "tpu")


@pytest.mark.parametrize("name", MAPPED)
def test_what_is_mapped_is_what_each_is_alone(name):
    function, argument = MAPPED[name]
    together = jax.vmap(function)(argument)
    twice = jax.vmap(jax.vmap(function))(argument[None])[0]
    for i in range(3):
        np.testing.assert_array_equal(together[i], function(argument[i]))
        np.testing.assert_array_equal(twice[i], function(argument[i]))


def test_an_inverse_of_half_precision_is_that_of_float32_rounded():
    w = MANY[0].astype(jnp.bfloat16)
    expected = jnp.linalg.inv(w.astype(jnp.float32)).astype(jnp.bfloat16)
    assert (matrices.inverse(w) == expected).all()
    assert matrices.orthogonal(KEYS[0], (4, 4), jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize("mode", [jax.jacfwd, jax.jacrev])
def test_the_derivatives_are_those_of_the_equations(mode):
    w = MANY[0]
    expected = mode(lambda w: jnp.linalg.solve(w, jnp.eye(4)))(w)
    np.testing.assert_allclose(mode(matrices.inverse)(w), expected, atol=1e-5)

    def solved(w, ridge):
        return jnp.linalg.solve(w @ w.T + ridge * jnp.eye(4), w)

    found = mode(lambda w, r: matrices.ridge_solve(w, r, w), (0, 1))(w, 0.5)
    for a, b in zip(found, mode(solved, (0, 1))(w, 0.5), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
