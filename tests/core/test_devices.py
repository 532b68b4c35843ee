"""One batch over several devices, against one device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import lra_jax
from lra_jax import devices

X, H, Y, B, T = 3, 4, 2, 4, 3
NUMBERS = {
    "lra_diff": {"gamma": 2.0, "num_refinements": 2, "lambda_": 0.1},
    "lra_e": {"feedback_lr": 0.1},
    "lra_released": {"gamma": 2.0, "num_refinements": 2},
    "rec_lra": {"num_steps_per_skip": 2},
}
all_rules = pytest.mark.parametrize("name", lra_jax.RULES)
some_rules = pytest.mark.parametrize("name", ["bptt", "lra_diff", "lra_reversible"])


def mesh(kind):
    return jax.make_mesh((2,), ("data",), axis_types=(kind,))


@functools.cache
def problem():
    params = lra_jax.init_params(jax.random.key(0), X, H, Y)
    inputs = jax.random.randint(jax.random.key(1), (T, B), 0, X)
    return params, lra_jax.Batch(inputs, jnp.arange(B) % Y, jnp.arange(B) % 2)


def without_starts(batch):
    return batch._replace(start=None)


def update(name):
    """(params, batch) to the gradients and what is reported."""
    rule = lra_jax.RULES[name](**NUMBERS.get(name, {}))
    key = jax.random.key(2)

    def grads(params, batch):
        grads, _, info = rule.grads(key, params, rule.init(key, params), batch)
        return grads, info.loss

    return grads


def averaged(name):
    """The same of a device's samples, averaged over the devices."""
    grads = update(name)
    return lambda params, batch: jax.lax.pmean(grads(params, batch), "data")


def batch_of(name):
    batch = problem()[1]
    return without_starts(batch) if name == "lra_released" else batch


def specs(batch):
    return jax.tree.map(lambda x: P(None, "data") if x.ndim > 1 else P("data"), batch)


def on_each_device(name):
    batch = batch_of(name)
    return jax.shard_map(
        averaged(name),
        mesh=mesh(AxisType.Auto),
        in_specs=(P(), specs(batch)),
        out_specs=P(),
    )


def placed(batch):
    """The parameters on all devices, and the batch divided among them."""
    explicit = mesh(AxisType.Explicit)
    place = jax.tree.map(lambda s: NamedSharding(explicit, s), specs(batch))
    params = jax.device_put(problem()[0], NamedSharding(explicit, P()))
    return params, jax.device_put(batch, place)


def assert_equal(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@all_rules
def test_a_map_over_devices_accepts_what_every_rule_computes(name):
    batch = batch_of(name)
    grads, loss = jax.eval_shape(on_each_device(name), problem()[0], batch)
    assert jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, problem()[0])
    assert loss.shape == ()


@all_rules
def test_a_divided_batch_gives_gradients_that_all_devices_have(name):
    grads, _ = jax.eval_shape(jax.jit(update(name)), *placed(batch_of(name)))
    for grad, weight in zip(grads, problem()[0], strict=True):
        assert grad.shape == weight.shape
        assert grad.sharding.spec == P(*[None] * weight.ndim)


@some_rules
def test_several_devices_compute_what_one_does(name):
    params, batch = problem()
    expected = jax.jit(update(name))(params, batch)
    assert np.abs(expected[0].w_hh).max() > 1e-3
    assert_equal(jax.jit(on_each_device(name))(params, batch), expected)
    assert_equal(jax.jit(update(name))(*placed(batch)), expected)


def test_a_rule_of_the_whole_batch_is_that_of_each_part_in_a_map():
    # The error of TPTT has 1/B: what it computes of a batch is no mean over samples.
    name = "tptt"
    params, batch = problem()
    batch = without_starts(batch)
    grads = jax.jit(update(name))
    parts = [jax.tree.map(lambda x, i=i: x[..., i : i + 2], batch) for i in (0, 2)]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *(grads(params, p) for p in parts))
    found = jax.jit(
        jax.shard_map(
            averaged(name),
            mesh=mesh(AxisType.Auto),
            in_specs=(P(), specs(batch)),
            out_specs=P(),
        )
    )(params, batch)
    assert_equal(found, mean)
    # JAX divides the whole batch's computation, whatever it is.
    assert_equal(grads(*placed(batch)), grads(params, batch))


def test_pmap_computes_what_one_device_does():
    params, batch = problem()
    halves = jax.tree.map(lambda x: jnp.stack(jnp.split(x, 2, axis=x.ndim - 1)), batch)
    run = jax.pmap(averaged("lra_diff"), "data", in_axes=(None, 0))
    found = jax.tree.map(lambda x: x[0], run(params, halves))
    assert_equal(found, jax.jit(update("lra_diff"))(params, batch))


@pytest.mark.parametrize("every_step", [False, True])
def test_states_and_logits_are_divided_as_the_samples_are(every_step):
    params, batch = placed(problem()[1])
    trace = lra_jax.forward(
        params, batch.inputs, start=batch.start, every_step=every_step
    )
    assert jax.typeof(trace.z).sharding.spec == P(None, "data", None)
    logits = P(None, "data", None) if every_step else P("data", None)
    assert jax.typeof(trace.logits).sharding.spec == logits
    expected = lra_jax.forward(*problem()[:1], problem()[1].inputs, start=batch.start)
    np.testing.assert_allclose(trace.z, expected.z, rtol=1e-5, atol=1e-6)


def test_a_divided_batch_is_evaluated_as_on_one_device():
    found = lra_jax.evaluate(*placed(problem()[1]))
    expected = lra_jax.evaluate(*problem())
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-6)
    assert found.num_errors == expected.num_errors


def test_nothing_is_divided_on_one_device():
    calls = []
    function = devices.divided(lambda *_: calls.append("asked"))(lambda x: x + 1)
    assert function(jnp.ones(())) == 2
    assert not calls
