"""What a config's optimizers have beyond optax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lra_jax
from lra_jax.lab.config.optimizers import OPTIMIZERS

all_optimizers = pytest.mark.parametrize("factory", OPTIMIZERS.values())


def update(factory, number, **arguments):
    """The update `number`, from 0, where every gradient is 1."""
    params = lra_jax.init_params(jax.random.key(0), 2, 3, 2)
    grads = jax.tree.map(jnp.ones_like, params)
    optimizer = factory(**arguments)
    state = optimizer.init(params)
    for _ in range(number + 1):
        updates, state = optimizer.update(grads, state, params)
    return jax.tree.map(lambda x: float(x.mean()), updates)


@all_optimizers
def test_w_hh_alone_has_a_rate_of_its_own(factory):
    plain = update(factory, 2, lr=0.1)
    slow = update(factory, 2, lr=0.1, w_hh_rate=0.01)
    np.testing.assert_allclose(slow, plain._replace(w_hh=0.01 * plain.w_hh), rtol=1e-5)


@all_optimizers
def test_the_readout_has_a_rate_of_its_own(factory):
    plain = update(factory, 2, lr=0.1)
    fast = update(factory, 2, lr=0.1, readout_rate=10)
    expected = plain._replace(w_hy=10 * plain.w_hy, b_y=10 * plain.b_y)
    np.testing.assert_allclose(fast, expected, rtol=1e-5)


@all_optimizers
@pytest.mark.parametrize(("number", "factor"), [(0, 1), (3, 2**-0.5), (9, 0.5)])
def test_the_learning_rate_falls_with_the_root_of_the_updates(factory, number, factor):
    plain = update(factory, number, lr=0.1)
    slower = update(factory, number, lr=0.1, decay_steps=3)
    np.testing.assert_allclose(slower, np.multiply(plain, factor), rtol=1e-5)


@all_optimizers
def test_traced_defaults_are_the_defaults(factory):
    names = ("decay_steps", "w_hh_rate", "readout_rate", "orthogonality")
    traced = jax.jit(
        lambda *x: update_w_xh(factory, **dict(zip(names, x, strict=True)))
    )
    np.testing.assert_allclose(
        traced(0.0, 1.0, 1.0, 0.0), update_w_xh(factory), rtol=1e-6
    )


def update_w_xh(factory, **arguments):
    params = lra_jax.init_params(jax.random.key(0), 2, 3, 2)
    optimizer = factory(lr=0.1, **arguments)
    return optimizer.update(params, optimizer.init(params), params)[0].w_xh


@all_optimizers
def test_rates_of_another_network_go_by_the_roles_of_its_weights(factory):
    network = lra_jax.networks.gru()
    params = lra_jax.init_params(jax.random.key(0), 2, 3, 2, network=network)
    grads = jax.tree.map(jnp.ones_like, params)

    def updates(**rates):
        optimizer = factory(lr=0.1, **rates)
        return optimizer.update(grads, optimizer.init(params), params)[0]

    plain, found = updates(), updates(w_hh_rate=0.01, readout_rate=10)
    cell = plain.cell._replace(w_hh=0.01 * plain.cell.w_hh)
    expected = lra_jax.NetworkParams(cell, 10 * plain.w_hy, 10 * plain.b_y)
    for mine, its in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(mine, its, rtol=1e-5)
