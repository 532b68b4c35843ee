"""States computed back from the last one: the same gradients, and no memory for T."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lra_jax
from lra_jax import RULES, losses

GAIN = 0.1
KEY = jax.random.key(0)


@functools.cache
def program(rule, output_loss):
    """With the rule's numbers traced: one for all of them."""

    def grads(params, batch, numbers):
        made = RULES[rule](**numbers, output_loss=output_loss)
        return made.grads(KEY, params, lra_jax.EmptyState(), batch)[::2]

    return jax.jit(grads)


@functools.cache
def weights(input_size, output_size, gain):
    params = lra_jax.init_params(KEY, input_size, 20, output_size, input_gain=gain)
    return params._replace(b_h=0.01 * jnp.ones_like(params.b_h))


@functools.cache
def sample(task, seq_len):
    return jax.jit(task.sample, static_argnums=(1, 2))(jax.random.key(1), 3, seq_len)


def gradients_of(rule, task, batch, gain=GAIN, **numbers):
    if rule != "bptt":
        numbers = {"exponent": 1.0, "activity": 0.02} | numbers
    numbers = {name: float(x) for name, x in ({"max_norm": 0.0} | numbers).items()}
    params = weights(task.input_size, task.output_size, gain)
    return program(rule, task.output_loss)(params, batch, numbers)


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
    batch = sample(task, 200)
    found = gradients_of("lra_reversible", task, batch, **numbers)
    expected = gradients_of("lra_norm", task, batch, **numbers)
    assert_same(found, expected, 2e-3)


def test_without_rescaling_and_cost_it_is_bptt():
    task = lra_jax.TASKS["temporal_order"]
    batch = sample(task, 200)
    found, _ = gradients_of("lra_reversible", task, batch, exponent=0, activity=0)
    expected, _ = gradients_of("bptt", task, batch)
    assert_as_close(found, expected, 2e-3)


def test_samples_that_start_later_are_as_in_lra_norm():
    task = lra_jax.TASKS["adding"]
    batch = sample(task, 40)
    start = jnp.array([0, 7, 39])
    inputs = batch.inputs.at[:7, 1].set(jnp.nan)
    batch = batch._replace(start=start, inputs=inputs)
    found = gradients_of("lra_reversible", task, batch)
    expected = gradients_of("lra_norm", task, batch)
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
    batch = sample(task, 300)

    def compare(gain):
        rules = "lra_reversible", "lra_norm"
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
