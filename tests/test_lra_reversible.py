"""States computed back from the last one: the same gradients, and no memory for T."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lra_jax
from lra_jax import losses

GAIN = 0.1


def gradients_of(rule, task, batch, gain=GAIN):
    key = jax.random.key(0)
    sizes = task.input_size, 20, task.output_size
    params = lra_jax.init_params(key, *sizes, input_gain=gain)
    params = params._replace(b_h=0.01 * jnp.ones_like(params.b_h))
    grads, _, info = rule.grads(key, params, rule.init(key, params), batch)
    return grads, info


def assert_as_close(found, expected, tolerance):
    """Up to `tolerance` of each array's largest value."""
    for mine, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        scale = float(jnp.max(jnp.abs(theirs)))
        np.testing.assert_allclose(mine, theirs, atol=tolerance * scale, rtol=0)


def assert_same(found, expected, tolerance):
    """Gradients and report, up to what only computed states have: their error."""
    grads, info = found
    assert 0 < info.reversal_error < 1e-3
    found = grads, info._replace(reversal_error=None)
    assert_as_close(found, expected, tolerance)


@pytest.mark.parametrize("name", ["temporal_order", "adding"])
@pytest.mark.parametrize(
    "numbers",
    [{}, {"exponent": 0.5, "activity": 0.3}, {"exponent": 0, "max_norm": 0.01}],
    ids=str,
)
def test_gradients_and_report_are_those_of_lra_norm(name, numbers):
    task = lra_jax.TASKS[name]
    batch = task.sample(jax.random.key(1), 3, 200)
    options = {**numbers, "output_loss": task.output_loss}
    found = gradients_of(lra_jax.lra_reversible(**options), task, batch)
    expected = gradients_of(lra_jax.lra_norm(**options), task, batch)
    assert_same(found, expected, 2e-3)


def test_without_rescaling_and_cost_it_is_bptt():
    task = lra_jax.TASKS["temporal_order"]
    batch = task.sample(jax.random.key(1), 3, 200)
    (found, _), (expected, _) = (
        gradients_of(rule, task, batch)
        for rule in (lra_jax.lra_reversible(exponent=0, activity=0), lra_jax.bptt())
    )
    assert_as_close(found, expected, 2e-3)


def test_samples_that_start_later_are_as_in_lra_norm():
    task = lra_jax.TASKS["adding"]
    batch = task.sample(jax.random.key(1), 3, 40)
    start = jnp.array([0, 7, 39])
    inputs = batch.inputs.at[:7, 1].set(jnp.nan)
    batch = batch._replace(start=start, inputs=inputs)
    options = {"output_loss": task.output_loss}
    found = gradients_of(lra_jax.lra_reversible(**options), task, batch)
    expected = gradients_of(lra_jax.lra_norm(**options), task, batch)
    assert_same(found, expected, 1e-3)


def test_memory_grows_by_less_than_one_state_for_each_step():
    task = lra_jax.TASKS["temporal_order"]
    batch_size, hidden_size = 4, 100
    params = lra_jax.init_params(jax.random.key(0), task.input_size, hidden_size, 4)

    def bytes_of(rule, seq_len):
        batch = task.sample(jax.random.key(1), batch_size, seq_len)
        args = jax.random.key(0), params, rule.init(jax.random.key(0), params), batch
        memory = jax.jit(rule.grads).lower(*args).compile().memory_analysis()
        return memory.temp_size_in_bytes

    state = 4 * batch_size * hidden_size
    growth = {
        rule: (bytes_of(rule, 500) - bytes_of(rule, 100)) / 400
        for rule in (lra_jax.lra_reversible(), lra_jax.lra_norm())
    }
    reversible, stored = growth.values()
    assert reversible < 0.1 * state
    assert stored > 2 * state


def test_rounding_grows_where_states_are_large():
    """Why `input_gain` is to be small: tanh takes off what cannot be had back."""
    task = lra_jax.TASKS["temporal_order"]
    batch = task.sample(jax.random.key(1), 3, 300)

    def compare(gain):
        rules = lra_jax.lra_reversible(), lra_jax.lra_norm()
        (a, info), (b, _) = (gradients_of(rule, task, batch, gain) for rule in rules)
        cosine = jnp.vdot(a.w_xh, b.w_xh)
        cosine /= jnp.linalg.norm(a.w_xh) * jnp.linalg.norm(b.w_xh)
        return float(cosine), float(info.reversal_error)

    cosine, error = compare(GAIN)
    assert cosine > 0.9999
    assert error < 0.01
    cosine, error = compare(1.0)
    assert cosine < 0.9
    assert error > 1


def test_a_loss_of_every_step_is_refused():
    with pytest.raises(ValueError, match="lra_reversible"):
        lra_jax.lra_reversible(output_loss=losses.binary_cross_entropy_every_step)
