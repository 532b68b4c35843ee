"""Networks of every kind, for tests that ask the same of all of them.

Their weights have JAX's default type, so that the tests of x64 have them, too.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import lra_jax
from lra_jax import networks

X, H, Y = 6, 5, 4


def flax_cell(kind, **options):
    """A network of a cell of Flax."""

    def make(input_size, hidden_size, rngs):
        dtype = jnp.result_type(float)
        return kind(input_size, hidden_size, rngs=rngs, param_dtype=dtype, **options)

    return networks.from_flax(make)


def init_own(key, input_size, hidden_size):
    size = (input_size + hidden_size, 2 * hidden_size)
    return {"a": 0.4 * jax.random.normal(key, size), "tau": 0.8 * jnp.ones(hidden_size)}


def step_own(weights, s, x):
    seen = jnp.concatenate([x, s[:, s.shape[1] // 2 :]], axis=1)
    return jnp.sin(seen @ weights["a"]) * jnp.tile(weights["tau"], 2)[None] + 0.3 * s


def own():
    """One of the user's own: D = 2H, of which the latter half is emitted, squashed."""
    return networks.from_step(
        init=init_own,
        step=step_own,
        emit=lambda weights, s: jnp.arctan(s[:, s.shape[1] // 2 :]),
        state_size=lambda hidden_size: 2 * hidden_size,
    )


def derived_tanh():
    """The network tanh as a user would write it, of functions."""
    return networks.from_step(
        init=networks.tanh().init,
        step=lambda p, s, x: jnp.tanh(s) @ p.w_hh + x @ p.w_xh + p.b_h[None],
        emit=lambda p, s: jnp.tanh(s),
        activity=lambda p, s, z: z,
    )


MASK = np.triu(np.ones((H, H))) - 0.5 * np.eye(H)
SIGNS = (1, -1, 1, 1, -1)

NETWORKS = {
    "tanh": networks.tanh(),
    "relu": networks.relu(),
    "leaky": networks.leaky(alpha=0.4),
    "leaky relu, noise": networks.leaky(alpha=0.4, nonlinearity="relu", noise=0.1),
    "leaky sigmoid, Dale": networks.leaky(
        alpha=0.3, nonlinearity="sigmoid", noise=0.1, dale=0.8
    ),
    "leaky softplus, mask": networks.leaky(nonlinearity="softplus", mask=MASK),
    "leaky retanh, Dale, mask": networks.leaky(
        alpha=0.9, nonlinearity="retanh", dale=SIGNS, mask=MASK
    ),
    "gru": networks.gru(),
    "lstm": networks.lstm(),
    "two tanh": networks.stack(networks.tanh(), networks.tanh()),
    # Noise below: what the layer above reads depends on it.
    "leaky, gru": networks.stack(networks.leaky(noise=0.5), networks.gru()),
    "lstm, lstm": networks.stack(networks.lstm(), networks.lstm()),
    "own": own(),
    "flax GRUCell": flax_cell(nnx.GRUCell),
    "flax LSTMCell": flax_cell(nnx.LSTMCell),
    "flax OptimizedLSTMCell": flax_cell(nnx.OptimizedLSTMCell),
}


def random_params(network, seed=0, hidden_size=H):
    """Weights with biases that are not 0, and none that is orthogonal."""
    key = jax.random.key(seed)
    params = lra_jax.init_params(key, X, hidden_size, Y, network=network)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
    moved = [
        w + 0.2 * jax.random.normal(k, w.shape, w.dtype)
        for w, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, moved)


def random_batch(length=6, size=3, *, vectors=False, start=None, seed=0):
    """Symbols, or vectors, and a class for each sample."""
    rng = np.random.default_rng(seed)
    inputs = (
        jnp.asarray(rng.normal(size=(length, size, X)))
        if vectors
        else jnp.asarray(rng.integers(X, size=(length, size)), jnp.int32)
    )
    labels = jnp.asarray(rng.integers(Y, size=size), jnp.int32)
    start = None if start is None else jnp.asarray(start, jnp.int32)
    return lra_jax.Batch(inputs, labels, start)
