"""Updates of other networks than tanh: divided, mapped, lowered, and of any type."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lra_jax
from lra_jax import networks

X, H, Y, B, T = 3, 4, 2, 4, 3


def own_init(key, input_size, hidden_size):
    w = jax.random.normal(key, (input_size + hidden_size, 2 * hidden_size))
    return {"w": 0.3 * w}


def own_step(weights, s, x):
    size = s.shape[1] // 2
    return 0.3 * s + jnp.sin(jnp.concatenate([x, s[:, :size]], axis=1) @ weights["w"])


NETWORKS = {
    "gru": networks.gru(),
    "lstm": networks.lstm(),
    "leaky": networks.leaky(alpha=0.3, noise=0.1, dale=0.5, nonlinearity="softplus"),
    "stack": networks.stack(networks.tanh(), networks.relu()),
    "flax": networks.from_flax(lambda x, h, rngs: nnx.GRUCell(x, h, rngs=rngs)),
    "own": networks.from_step(
        init=own_init,
        step=own_step,
        emit=lambda weights, s: s[:, s.shape[1] // 2 :],
        state_size=lambda hidden_size: 2 * hidden_size,
    ),
}
RULES = {
    "bptt": {},
    "lra_diff": {"gamma": 2.0, "num_refinements": 2, "lambda_": 0.1, "c0": 1.0},
    "lra_e": {"feedback_lr": 0.1},
    "tptt": {"noise_std": 0.1},
}
all_networks = pytest.mark.parametrize("network", NETWORKS)
all_rules = pytest.mark.parametrize("rule", RULES)


def mesh(kind):
    return jax.make_mesh((2,), ("data",), axis_types=(kind,))


@functools.cache
def problem(network):
    params = lra_jax.init_params(jax.random.key(0), X, H, Y, network=NETWORKS[network])
    inputs = jax.random.randint(jax.random.key(1), (T, B), 0, X)
    return params, lra_jax.Batch(inputs, jnp.arange(B) % Y, jnp.arange(B) % 2)


def update(network, rule, **more):
    """(params, batch) to the gradients and E."""
    rule = lra_jax.RULES[rule](**RULES[rule], network=NETWORKS[network], **more)
    key = jax.random.key(2)

    def grads(params, batch):
        grads, _, info = rule.grads(key, params, rule.init(key, params), batch)
        return grads, info.loss

    return grads


def specs(batch):
    return jax.tree.map(lambda x: P(None, "data") if x.ndim > 1 else P("data"), batch)


def on_each_device(network, rule):
    if jax.__version_info__ < (0, 8) and network in ("stack", "own"):
        pytest.skip("JAX 0.7 has no zero of what differs from device to device")
    grads = update(network, rule)
    return jax.shard_map(
        lambda params, batch: jax.lax.pmean(grads(params, batch), "data"),
        mesh=mesh(AxisType.Auto),
        in_specs=(P(), specs(problem(network)[1])),
        out_specs=P(),
    )


def placed(network):
    params, batch = problem(network)
    explicit = mesh(AxisType.Explicit)
    place = jax.tree.map(lambda s: NamedSharding(explicit, s), specs(batch))
    params = jax.device_put(params, NamedSharding(explicit, P()))
    return params, jax.device_put(batch, place)


def assert_close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@all_networks
@all_rules
def test_a_map_over_devices_accepts_an_update(network, rule):
    params, batch = problem(network)
    grads, loss = jax.eval_shape(on_each_device(network, rule), params, batch)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, params)
    assert loss.shape == ()


@all_networks
@all_rules
def test_a_divided_batch_gives_gradients_that_all_devices_have(network, rule):
    grads, _ = jax.eval_shape(jax.jit(update(network, rule)), *placed(network))
    for grad in jax.tree.leaves(grads):
        assert grad.sharding.spec == P(*[None] * grad.ndim)


@pytest.mark.parametrize(
    ("network", "rule"),
    [("gru", "lra_diff"), ("stack", "lra_diff"), ("own", "bptt"), ("lstm", "lra_e")],
)
def test_several_devices_compute_what_one_does(network, rule):
    params, batch = problem(network)
    expected = jax.jit(update(network, rule))(params, batch)
    assert max(jnp.abs(g).max() for g in jax.tree.leaves(expected[0].cell)) > 1e-3
    assert_close(jax.jit(on_each_device(network, rule))(params, batch), expected)
    assert_close(jax.jit(update(network, rule))(*placed(network)), expected)


def test_the_inverse_of_tptt_learns_from_a_devices_own_samples():
    params, batch = problem("gru")
    batch = batch._replace(start=None)
    rule = lra_jax.tptt(network=NETWORKS["gru"])
    key = jax.random.key(2)

    def learned(params, batch):
        return rule.grads(key, params, rule.init(key, params), batch)[1].velocity

    parts = [jax.tree.map(lambda x, i=i: x[..., i : i + 2], batch) for i in (0, 2)]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *(learned(params, p) for p in parts))
    found = jax.jit(
        jax.shard_map(
            lambda params, batch: jax.lax.pmean(learned(params, batch), "data"),
            mesh=mesh(AxisType.Auto),
            in_specs=(P(), specs(batch)),
            out_specs=P(),
        )
    )(params, batch)
    assert max(jnp.abs(x).max() for x in jax.tree.leaves(mean)) > 1e-4
    assert_close(found, mean)


@all_networks
@all_rules
def test_an_update_is_lowered_for_accelerators(network, rule):
    platforms = ("cuda", "tpu")
    program = jax.jit(update(network, rule))
    exported = jax.export.export(program, platforms=platforms)(*problem(network))
    assert exported.platforms == platforms


@all_networks
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_of_16_bits_stay_of_16_bits(network, dtype):
    if network in ("flax", "own"):
        pytest.skip("the type is that of the user's own functions")
    batch = problem(network)[1]
    params = lra_jax.init_params(
        jax.random.key(0), X, H, Y, dtype=dtype, network=NETWORKS[network]
    )
    choice = {
        "rule": lra_jax.lra_diff(gamma=2.0, lambda_=0.1, network=NETWORKS[network]),
        "optimizer": optax.sgd(0.1),
    }
    state = lra_jax.init_train_state(jax.random.key(2), params, **choice)
    after, info = jax.jit(functools.partial(lra_jax.train_step, **choice))(state, batch)
    assert {str(x.dtype) for x in jax.tree.leaves(after.params)} == {dtype}
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(after.params))
    assert info.loss.dtype == dtype


@all_networks
def test_a_map_over_settings_is_each_setting_alone(network):
    params, batch = problem(network)

    def grads(gamma):
        rule = lra_jax.lra_diff(
            gamma=gamma, num_refinements=2, network=NETWORKS[network]
        )
        return rule.grads(jax.random.key(2), params, lra_jax.EmptyState(), batch)[0]

    gammas = jnp.array([0.5, 5.0])
    together = jax.jit(jax.vmap(grads))(gammas)
    one = jax.jit(grads)
    for i, gamma in enumerate(gammas):
        assert_close(jax.tree.map(lambda x, i=i: x[i], together), one(gamma))


def test_numbers_of_a_network_may_be_traced():
    params, batch = problem("leaky")

    def loss(alpha, noise):
        network = networks.leaky(alpha=alpha, noise=noise)
        rule = lra_jax.bptt(network=network)
        _, _, info = rule.grads(jax.random.key(2), params, lra_jax.EmptyState(), batch)
        return info.loss, lra_jax.evaluate(params, batch, network=network).loss

    alpha, noise = jnp.array([0.2, 0.2, 0.7]), jnp.array([0.0, 0.5, 0.0])
    noisy, silent = jax.jit(jax.vmap(loss))(alpha, noise)
    np.testing.assert_allclose(noisy[::2], silent[::2], rtol=1e-5)
    assert abs(noisy[1] - silent[1]) > 1e-3
    assert silent[0] == silent[1] != silent[2]
