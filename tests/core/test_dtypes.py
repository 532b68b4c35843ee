"""Types of numbers: all of an update has the type of the weights.

Inputs have types of their own, and symbols any integer type.
"""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from rule_cases import others_slow

import lra_jax
from lra_jax import RULES, gradients, numerics, regularizer, rnn, symbols
from lra_jax.networks.network import Place

T, B, X, H, Y = 6, 4, 5, 8, 3
REQUIRED = {"lra_diff": {"gamma": 4.0}, "lra_released": {"gamma": 4.0}}
# Settings in which all that a rule can carry is in use.
SETTINGS = {
    "fa": {"readout": "random"},
    "lra_diff": {"lambda_": 0.1, "num_refinements": 2, "schedule": "error_ratio"},
    "lra_e": {"feedback_lr": 0.01},
    "rec_lra": {"feedback_lr": 0.01},
    "tptt": {"w_xh_update": "bptt", "noise_std": 0.01},
}
NARROW = ["bfloat16", "float16"]
TRAINING = [rule for rule in RULES if rule != "lra_released"]


def make(rule):
    return RULES[rule](**REQUIRED.get(rule, {}), **SETTINGS.get(rule, {}))


@functools.cache
def weights(dtype="float32", num_symbols=X):
    return jax.device_get(
        lra_jax.init_params(jax.random.key(0), num_symbols, H, Y, dtype=dtype)
    )


def batch_of(dtype=np.int32):
    rng = np.random.default_rng(0)
    labels = (np.arange(B) % Y).astype(np.int32)
    if np.issubdtype(dtype, np.integer):
        inputs = rng.integers(X, size=(T, B))
    else:
        inputs = rng.normal(size=(T, B, X))
    return lra_jax.Batch(inputs.astype(dtype), labels)


def dtypes(tree):
    return {np.dtype(x.dtype).name for x in jax.tree.leaves(tree)}


# Weights.


@pytest.mark.parametrize("dtype", [*NARROW, "float32", jnp.float32, np.dtype("f4")])
def test_initial_weights_have_the_type_that_is_asked(dtype):
    params = lra_jax.init_params(jax.random.key(0), X, H, Y, dtype=dtype)
    assert dtypes(params) == {np.dtype(dtype).name}
    rounded = jax.tree.map(lambda x: x.astype(dtype), weights())
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(params), rounded)


def test_a_type_that_jax_has_not_is_no_smaller_one_in_silence():
    if jax.config.jax_enable_x64:
        pytest.skip("JAX has it")
    with pytest.raises(ValueError, match="got float64, for which jax"):
        lra_jax.init_params(jax.random.key(0), X, H, Y, dtype=np.float64)


@pytest.mark.parametrize("dtype", ["int32", "complex64", "float8_e4m3fn", "float", 3])
def test_a_type_that_weights_cannot_have_is_named(dtype):
    allowed = "dtype: expected one of bfloat16, float16, float32, float64, got "
    if dtype == "float":  # Python's name of float64
        lra_jax.init_params(jax.random.key(0), X, H, Y, dtype=dtype)
        return
    with pytest.raises(ValueError, match=rf"^{allowed}") as error:
        lra_jax.init_params(jax.random.key(0), X, H, Y, dtype=dtype)
    assert str(error.value).endswith(repr(dtype))


def test_weights_that_are_no_real_numbers_are_named():
    params = weights()._replace(w_hh=np.ones((H, H), np.int32))
    with pytest.raises(
        ValueError,
        match=r"^w_hh: expected weights of bfloat16, .*float64, got int32$",
    ):
        lra_jax.evaluate(params, batch_of())


# Rules.


@pytest.mark.parametrize(
    ("rule", "dtype"),
    [(rule, "bfloat16") for rule in TRAINING]
    + [pytest.param(rule, "float16", marks=others_slow(rule)) for rule in TRAINING],
)
def test_a_rule_trains_weights_of_16_bits_and_keeps_them(rule, dtype):
    made, batch = make(rule), batch_of()
    optimizer = optax.chain(optax.sgd(0.1))
    state = lra_jax.init_train_state(jax.random.key(1), weights(dtype), made, optimizer)
    assert dtypes((state.params, state.rule_state)) == {dtype}
    if jax.tree.leaves(state.rule_state):
        assert dtypes(state.rule_state) == {dtype}

    @jax.jit
    def train(state):
        step = functools.partial(lra_jax.train_step, rule=made, optimizer=optimizer)
        return jax.lax.scan(lambda s, _: step(s, batch), state, length=20)

    after, info = jax.device_get(train(state))
    assert dtypes((after.params, after.rule_state, info)) == {dtype}
    for values in jax.tree.leaves((after.params, after.rule_state, info)):
        assert np.all(np.isfinite(values.astype(np.float32)))
    assert info.loss[-1] < info.loss[0]
    grads, _, _ = jax.eval_shape(
        made.grads, jax.random.key(2), state.params, state.rule_state, batch
    )
    assert dtypes(grads) == {dtype}


@pytest.mark.parametrize("rule", TRAINING)
@pytest.mark.parametrize("dtype", [*NARROW, "float32"])
def test_adam_keeps_the_type_of_the_weights(rule, dtype):
    made, optimizer = make(rule), optax.adam(1e-3)
    state = jax.eval_shape(
        lambda key: lra_jax.init_train_state(key, weights(dtype), made, optimizer),
        jax.random.key(1),
    )
    step = functools.partial(lra_jax.train_step, rule=made, optimizer=optimizer)
    after, _ = jax.eval_shape(step, state, batch_of())
    shapes = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    assert shapes(after) == shapes(state)


@pytest.mark.parametrize("dtype", NARROW)
def test_the_released_code_says_which_types_it_takes(dtype):
    made = make("lra_released")
    with pytest.raises(
        ValueError,
        match=rf"^params: expected weights of float32 or float64, .* got {dtype}$",
    ):
        made.grads(jax.random.key(0), weights(dtype), lra_jax.EmptyState(), batch_of())


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("weight_dtype", [*NARROW, "float32"])
def test_the_type_of_the_inputs_does_not_reach_the_weights(dtype, weight_dtype):
    params, batch = weights(weight_dtype), batch_of(np.float32)
    batch = batch._replace(inputs=batch.inputs.astype(dtype))
    for rule in TRAINING:
        made = make(rule)
        state = jax.eval_shape(made.init, jax.random.key(1), params)
        found = jax.eval_shape(made.grads, jax.random.key(2), params, state, batch)
        assert dtypes(found) == {weight_dtype}, rule


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(
    ("seq_len", "batch_size", "size"), [(300, 20, 20.0), (700, 100, 1e-4), (7, 3, 1e-4)]
)
def test_sums_over_many_steps_of_16_bits_neither_vanish_nor_overflow(
    dtype, seq_len, batch_size, size
):
    """Σₜ mean_b of equal errors: T times one of them, if the type holds it."""
    dtype = jnp.dtype(dtype)
    ones = jnp.ones((seq_len, batch_size, 4), dtype)
    symbols = jnp.zeros((seq_len, batch_size), jnp.int32)
    place = Place(symbols, z_prev=ones, s_prev=ones, s=ones, z=ones)
    params = lra_jax.init_params(jax.random.key(0), 2, 4, 2, dtype=dtype)
    q = jnp.full_like(ones, size)
    summed = gradients.sum_at_once(rnn.TANH, rnn.cell_of(params), place, q)
    expected = seq_len * float(q[0, 0, 0])
    assert summed.grads.b_h.dtype == dtype
    for found in (summed.grads.b_h, summed.grads.w_hh, summed.grads.w_xh[0]):
        np.testing.assert_allclose(np.asarray(found, float), expected, rtol=5e-3)


def test_norms_in_float16_neither_vanish_nor_overflow():
    """XLA multiplies by 1/max|x|, which float16 cannot hold below 1.5e-5."""
    x = jnp.asarray(np.array([[3, 4], [0, 0], [3e4, 4e4]]), jnp.float16)
    x = x * jnp.asarray([[6e-8], [1], [1]], jnp.float16)
    found = numerics.norm(x, axis=-1)[:, 0]
    np.testing.assert_allclose(found, [5 * 5.9605e-8, 0, 5e4], rtol=2e-3)
    assert np.all(np.isfinite(numerics.clip(x, 1e-3, axis=-1).value))


@pytest.mark.parametrize("dtype", NARROW)
def test_omega_of_an_error_that_has_vanished_is_finite(dtype):
    u = jnp.zeros((2, H), dtype)
    omega = regularizer.norm_preservation(u, u, jnp.full((2, H), 0.5, dtype))
    for values in omega:
        assert np.all(np.isfinite(values.astype(np.float32)))


# Symbols.


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "uint32"])
def test_an_index_is_the_same_in_any_type(dtype):
    indices = np.array([0, 1, 127])
    for found in (indices.astype(dtype), jnp.asarray(indices.astype(dtype))):
        for size in (2, 127, 300, 70_000):
            index = symbols.as_index(found, size)
            assert index.dtype == jnp.int32
            is_right = indices < size
            np.testing.assert_array_equal(symbols.is_index(found, size), is_right)
            np.testing.assert_array_equal(index, np.where(is_right, indices, size))


@pytest.mark.parametrize("rule", ["bptt", "lra_diff", "lra_released", "tptt"])
def test_the_type_of_a_symbol_means_nothing(rule):
    """Also where there are more symbols than the type can count."""
    num_symbols = 300
    made, params = make(rule), weights(num_symbols=num_symbols)
    inputs = np.array([[0, 1, 2, 127], [44, 43, 5, 0], [3, 4, 100, 99]])
    state = made.init(jax.random.key(1), params)
    grads = jax.jit(functools.partial(made.grads, jax.random.key(2), params, state))
    both = [
        grads(batch_of()._replace(inputs=inputs.astype(dtype)))
        for dtype in (np.int32, np.int8)
    ]
    jax.tree.map(np.testing.assert_array_equal, *both)
    assert np.any(both[1][0].w_xh[44] != 0)
    assert not np.any(both[1][0].w_xh[44 + 256])


@pytest.mark.parametrize(
    ("dtype", "symbol"),
    [("int8", -1), ("uint8", X), ("uint8", 255), ("int64", 2**32), ("uint32", 2**31)],
)
@pytest.mark.parametrize("function", [lra_jax.forward, rnn.final_logits])
def test_a_symbol_that_is_none_is_nan_in_any_type(function, dtype, symbol):
    inputs = batch_of().inputs.astype(dtype)
    inputs[2, 1] = symbol
    found = function(weights(), inputs)
    logits = found.logits if function is lra_jax.forward else found
    nan = np.isnan(logits).any(axis=1)
    np.testing.assert_array_equal(nan, [False, True, False, False])
