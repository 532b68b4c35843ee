"""The network: initial weights, and the forward pass against a NumPy loop."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lra_jax
from lra_jax import rnn

X, H, Y, B, T = 6, 8, 4, 5, 7


def random_params(seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    shapes = ((X, H), (H, H), (H,), (H, Y), (Y,))
    arrays = (rng.normal(size=s) * scale / np.sqrt(s[0]) for s in shapes)
    return lra_jax.Params(*(jnp.asarray(w, jnp.float32) for w in arrays))


def random_symbols(seed=0, length=T):
    return np.random.default_rng(seed).integers(X, size=(length, B))


def forward_in_float64(params, x):
    """h and z `[T, B, H]` and logits of real inputs."""
    w_xh, w_hh, b_h, w_hy, b_y = (np.asarray(w, np.float64) for w in params)
    z, hs, zs = np.zeros((x.shape[1], H)), [], []
    for x_t in x:
        h = z @ w_hh + x_t @ w_xh + b_h
        z = np.tanh(h)
        hs.append(h)
        zs.append(z)
    return np.array(hs), np.array(zs), z @ w_hy + b_y


# Initial weights.


@pytest.mark.parametrize(
    "sizes", [(6, 8, 4), (100, 100, 100), (100, 16, 8), (2, 50, 1), (1, 1, 1)], ids=str
)
def test_weights_are_semi_orthogonal_and_biases_zero(sizes):
    input_size, hidden_size, output_size = sizes
    params = lra_jax.init_params(jax.random.key(0), *sizes)
    assert {w.dtype for w in params} == {jnp.dtype(jnp.float32)}
    assert [w.shape for w in params] == [
        (input_size, hidden_size),
        (hidden_size, hidden_size),
        (hidden_size,),
        (hidden_size, output_size),
        (output_size,),
    ]
    for w in (params.w_xh, params.w_hh, params.w_hy):
        w = np.asarray(w, np.float64)
        rows, columns = w.shape
        gram = w @ w.T if rows <= columns else w.T @ w
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=2e-6)
    np.testing.assert_array_equal(params.b_h, 0)
    np.testing.assert_array_equal(params.b_y, 0)


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2)], ids=str)
def test_orthogonal_matrices_are_haar_distributed(shape):
    num = 1000
    keys = jax.random.split(jax.random.key(1), num)
    draws = jax.jit(jax.vmap(lambda key: rnn.orthogonal(key, shape)))(keys)
    draws = np.asarray(draws, np.float64)
    # Entries of a Haar matrix of size n have mean 0 and variance 1/n; the signs that
    # a QR decomposition happens to choose would show in the mean of the diagonal.
    n = max(shape)
    assert np.abs(draws.mean(axis=0)).max() < 4.5 / np.sqrt(n * num)
    np.testing.assert_allclose((draws**2).mean(axis=0), 1 / n, atol=0.06)


def test_matrices_and_keys_differ():
    one, other = (lra_jax.init_params(jax.random.key(i), H, H, H) for i in (0, 1))
    assert np.abs(one.w_xh - one.w_hh).max() > 0.1
    assert np.abs(one.w_hh - one.w_hy).max() > 0.1
    assert np.abs(one.w_hh - other.w_hh).max() > 0.1
    again = lra_jax.init_params(jax.random.key(0), H, H, H)
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)


MANY = """
import sys
import jax
import numpy as np
import lra_jax

def init(key):
    return lra_jax.init_params(key, 100, 100, 100)

keys = jax.random.split(jax.random.key(0), 36)
np.savez(sys.argv[1], *jax.jit(jax.vmap(init))(keys))
"""


@pytest.mark.optimized
def test_many_keys_under_vmap_do_not_deadlock_and_are_what_each_is_alone(tmp_path):
    path = tmp_path / "params.npz"
    # A process of its own: one that waits for ever can be ended, a thread cannot.
    subprocess.run([sys.executable, "-c", MANY, path], timeout=3600, check=True)
    together = [np.asarray(w) for w in np.load(path).values()]
    for index, key in enumerate(jax.random.split(jax.random.key(0), 36)):
        alone = lra_jax.init_params(key, 100, 100, 100)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a, b[index], rtol=0, atol=1e-5)


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("size", [0, -1, 2.0, "3", None], ids=repr)
def test_a_size_that_is_no_positive_integer_is_named(place, size):
    name = ("input_size", "hidden_size", "output_size")[place]
    sizes = [5, 5, 5]
    sizes[place] = size
    with pytest.raises(ValueError, match=f"^{name}: expected a positive integer, got "):
        lra_jax.init_params(jax.random.key(0), *sizes)


# The forward pass.


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("length", [1, 2, T])
def test_forward_is_the_loop_of_the_definition(length, scale):
    params = random_params(scale=scale)
    x = np.random.default_rng(1).normal(size=(length, B, X))
    trace = lra_jax.forward(params, jnp.asarray(x, jnp.float32))
    assert type(trace) is lra_jax.Trace
    for actual, expected in zip(trace, forward_in_float64(params, x), strict=True):
        assert actual.dtype == jnp.float32
        np.testing.assert_allclose(actual, expected, atol=1e-4 * scale)


def test_states_are_the_tanh_of_the_pre_activations():
    trace = lra_jax.forward(random_params(), jnp.asarray(random_symbols()))
    np.testing.assert_allclose(trace.z, np.tanh(trace.h), atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, T])
def test_symbols_are_one_hot_vectors(length):
    params, symbols = random_params(), random_symbols(length=length)
    one_hot = np.eye(X)[symbols]
    trace = lra_jax.forward(params, jnp.asarray(symbols))
    expected = forward_in_float64(params, one_hot)
    for values, real in zip(trace, expected, strict=True):
        np.testing.assert_allclose(values, real, atol=1e-5)
    vectors = lra_jax.forward(params, jnp.asarray(one_hot, jnp.float32))
    for a, b in zip(trace, vectors, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("length", [1, 2, T])
@pytest.mark.parametrize("real", [False, True], ids=["symbols", "vectors"])
def test_final_logits_are_those_of_forward(length, real):
    params = random_params()
    inputs = random_symbols(length=length)
    if real:
        inputs = np.random.default_rng(2).normal(size=(length, B, X))
    inputs = jnp.asarray(inputs)
    logits = rnn.final_logits(params, inputs)
    np.testing.assert_allclose(
        logits, lra_jax.forward(params, inputs).logits, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.int8])
def test_any_integers_are_symbols(dtype):
    params, symbols = random_params(), random_symbols()
    with jax.numpy_dtype_promotion("strict"):
        logits = lra_jax.forward(params, jnp.asarray(symbols, dtype)).logits
    expected = lra_jax.forward(params, jnp.asarray(symbols, jnp.int32)).logits
    np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("real", [False, True], ids=["symbols", "vectors"])
def test_numpy_arrays_do_as_well(real):
    params, inputs = jax.device_get(random_params()), random_symbols()
    if real:
        inputs = np.eye(X, dtype=np.float32)[inputs]
    expected = lra_jax.forward(random_params(), jnp.asarray(inputs)).logits
    np.testing.assert_array_equal(lra_jax.forward(params, inputs).logits, expected)
    np.testing.assert_allclose(rnn.final_logits(params, inputs), expected, atol=1e-6)


def test_samples_do_not_touch_each_other():
    params, x = random_params(), np.random.default_rng(3).normal(size=(T, B, X))
    expected = lra_jax.forward(params, jnp.asarray(x)).logits
    x[:, 2] = np.nan
    logits = lra_jax.forward(params, jnp.asarray(x)).logits
    others = np.array([0, 1, 3, 4])
    np.testing.assert_array_equal(logits[others], expected[others])
    assert np.all(np.isnan(logits[2]))


@pytest.mark.parametrize("function", [lra_jax.forward, rnn.final_logits])
@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((T, B), np.float32),
        np.zeros((T, B), bool),
        np.zeros((T, B, X), np.int32),
        np.zeros((T, B, X + 1), np.float32),
        np.zeros((), np.int32),
        np.zeros((B,), np.int32),
        np.zeros((T, B, X, 1), np.float32),
        np.zeros((0, B), np.int32),
        np.zeros((0, B, X), np.float32),
    ],
    ids=lambda x: f"{x.dtype}{x.shape}",
)
def test_inputs_that_do_not_fit_are_named(inputs, function):
    with pytest.raises(ValueError, match=r"^inputs: expected integer symbols") as error:
        function(random_params(), jnp.asarray(inputs))
    message = str(error.value)
    assert f"[T, B, {X}]" in message
    assert message.endswith(f"got {inputs.dtype} {inputs.shape}")


def test_the_input_gain_multiplies_the_input_weights_alone():
    key = jax.random.key(0)
    plain = lra_jax.init_params(key, 3, 5, 2)
    small = lra_jax.init_params(key, 3, 5, 2, input_gain=0.1)
    np.testing.assert_allclose(small.w_xh, 0.1 * plain.w_xh, rtol=1e-6)
    for name in ("w_hh", "b_h", "w_hy", "b_y"):
        np.testing.assert_array_equal(getattr(small, name), getattr(plain, name))


@pytest.mark.parametrize("gain", [0, -1.0, float("nan"), float("inf")])
def test_an_input_gain_is_a_positive_number(gain):
    with pytest.raises(ValueError, match="input_gain: expected a positive number"):
        lra_jax.init_params(jax.random.key(0), 3, 5, 2, input_gain=gain)


def test_a_symbol_that_the_network_does_not_know_is_nan():
    """It is not silently another one, and harms no other sample."""
    params = rnn.init_params(jax.random.key(0), 6, 8, 4)
    inputs = jnp.array([[0, 5, 6, -1], [1, 2, 3, 4]])
    nan = jnp.isnan(rnn.forward(params, inputs).logits).any(axis=1)
    np.testing.assert_array_equal(nan, [False, False, True, True])
