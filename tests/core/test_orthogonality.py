"""Soft orthogonality: what it does to singular values, and to nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lra_jax
from lra_jax import soft_orthogonality
from lra_jax.lab.config.optimizers import OPTIMIZERS


def params_with(singular_values):
    """Weights whose W_hh has these singular values."""
    size = len(singular_values)
    params = lra_jax.init_params(jax.random.key(0), 2, size, 2)
    other = lra_jax.init_params(jax.random.key(1), 2, size, 2)
    return params._replace(
        w_hh=params.w_hh @ jnp.diag(jnp.array(singular_values)) @ other.w_hh
    )


def step(params, strength, updates=None):
    transform = soft_orthogonality(strength)
    updates = jax.tree.map(jnp.zeros_like, params) if updates is None else updates
    return transform.update(updates, transform.init(params), params)[0]


def test_singular_values_follow_the_formula():
    s = np.array([0.2, 0.9, 1.0, 1.3])
    params = params_with(s)
    after = optax.apply_updates(params, step(params, 0.25)).w_hh
    found = np.linalg.svd(after, compute_uv=False)
    np.testing.assert_allclose(
        np.sort(found), np.sort(s - 0.25 * s * (s**2 - 1)), atol=1e-6
    )


def test_it_is_the_gradient_of_the_distance_to_orthogonal():
    def distance(w):
        return jnp.sum((w.T @ w - jnp.eye(len(w))) ** 2) / 4

    params = params_with([0.5, 1.0, 1.7])
    expected = -0.1 * jax.grad(distance)(params.w_hh)
    np.testing.assert_allclose(step(params, 0.1).w_hh, expected, atol=1e-6)


def test_only_w_hh_moves_and_the_other_updates_stay():
    params = params_with([0.5, 1.0, 1.7])
    updates = jax.tree.map(jnp.ones_like, params)
    found = step(params, 0.1, updates)
    np.testing.assert_allclose(found.w_hh, 1 + step(params, 0.1).w_hh, rtol=1e-6)
    for mine, given in zip(found, updates, strict=True):
        if mine.shape != params.w_hh.shape:
            np.testing.assert_array_equal(mine, given)


def test_an_orthogonal_matrix_stays():
    params = lra_jax.init_params(jax.random.key(0), 2, 20, 2)
    np.testing.assert_allclose(step(params, 0.5).w_hh, 0, atol=2e-6)


def test_repeated_steps_end_at_an_orthogonal_matrix():
    params = params_with([0.05, 0.9, 1.6])
    for _ in range(60):
        params = optax.apply_updates(params, step(params, 0.3))
    np.testing.assert_allclose(params.w_hh.T @ params.w_hh, np.eye(3), atol=1e-5)


@pytest.mark.parametrize("factory", OPTIMIZERS.values())
def test_optimizers_of_a_config_add_it_after_their_rates(factory):
    params = params_with([0.5, 1.0, 1.7])
    updates = {}
    for strength in (0.0, 0.1):
        optimizer = factory(lr=0.1, w_hh_rate=0.01, orthogonality=strength)
        updates[strength], _ = optimizer.update(params, optimizer.init(params), params)
    expected = step(params, 0.1, updates[0.0])
    np.testing.assert_allclose(updates[0.1].w_hh, expected.w_hh, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(updates[0.1].w_xh, updates[0.0].w_xh)


def test_it_says_what_it_cannot_use():
    params = params_with([1.0, 1.0])
    with pytest.raises(
        ValueError, match=r"strength: expected a scalar, got shape \(2,\)"
    ):
        soft_orthogonality(jnp.ones(2))
    transform = soft_orthogonality(0.1)
    with pytest.raises(ValueError, match="expected params, got None"):
        transform.update(params, transform.init(params))


def test_of_gates_each_block_is_drawn_and_of_layers_each_matrix():
    networks = lra_jax.networks
    network = networks.stack(networks.gru(w_hh_gain=1.3), networks.lstm(w_hh_gain=0.6))
    params = lra_jax.init_params(jax.random.key(0), 2, 4, 2, network=network)
    after = optax.apply_updates(params, step(params, 0.25))
    for layer, s, count in ((0, 1.3, 3), (1, 0.6, 4)):
        blocks = np.split(np.asarray(after.cell[layer].w_hh), count, axis=1)
        for block in blocks:
            found = np.linalg.svd(block, compute_uv=False)
            np.testing.assert_allclose(found, s - 0.25 * s * (s**2 - 1), rtol=1e-5)
        for name in ("w_xh", "b_h"):
            before = getattr(params.cell[layer], name)
            np.testing.assert_array_equal(getattr(after.cell[layer], name), before)
    np.testing.assert_array_equal(after.w_hy, params.w_hy)
