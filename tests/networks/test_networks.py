"""Networks: numbers in float32, noise, laws, initial weights, Flax, and messages."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jaxpr import equations
from network_cases import (
    MASK,
    NETWORKS,
    SIGNS,
    derived_tanh,
    flax_cell,
    init_own,
    own,
    random_batch,
    random_params,
    step_own,
)

import lra_jax
from lra_jax import error_signals, gradients, networks

X, H, Y = 6, 5, 4
all_networks = pytest.mark.parametrize("name", NETWORKS)


# Differences without cancellation.

# f, and f(a) - f(a - d) by an identity that does not cancel.
DIFFERENCES = {
    "tanh": (jnp.tanh, lambda a, d: np.sinh(d) / (np.cosh(a) * np.cosh(a - d))),
    "sin": (jnp.sin, lambda a, d: 2 * np.cos(a - d / 2) * np.sin(d / 2)),
    "exp": (jnp.exp, lambda a, d: -np.exp(a) * np.expm1(-d)),
    "sigmoid": (
        jax.nn.sigmoid,
        lambda a, d: np.sinh(d / 2) / (2 * np.cosh(a / 2) * np.cosh((a - d) / 2)),
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_known_to_5_digits_over_20_decades(name):
    f, exact = DIFFERENCES[name]
    rng = np.random.default_rng(0)
    sizes = 10.0 ** rng.uniform(-20, 0, (20_000, 1)) * rng.choice([-1, 1], (20_000, 1))
    a, d = (np.float32(x) for x in (rng.uniform(-1, 1, (20_000, 1)), sizes))
    expected = exact(a.astype(np.float64), d.astype(np.float64))

    def error(found):
        return np.max(np.abs(np.asarray(found, np.float64) / expected - 1))

    assert error(jax.jit(networks.difference, static_argnums=0)(f, a, d)) < 6e-5
    assert error(f(a) - f(a - d)) > 0.9


def test_a_difference_chooses_for_each_sample_and_takes_a_value_that_is_known():
    a, d = jnp.full((2, 3), 0.3), jnp.array([[1.0] * 3, [1e-6] * 3])
    found = networks.difference(jnp.tanh, a, d)
    np.testing.assert_array_equal(found[0], (jnp.tanh(a) - jnp.tanh(a - d))[0])
    np.testing.assert_allclose(found[1], 1e-6 * (1 - jnp.tanh(0.3) ** 2), rtol=1e-5)
    shifted = networks.difference(jnp.tanh, a, d, jnp.tanh(a) + 1)
    np.testing.assert_allclose(shifted - found, [[1] * 3, [0] * 3], atol=1e-6)


# Noise.


def test_noise_comes_of_the_key_and_has_the_size_that_is_asked():
    network = networks.leaky(alpha=0.2, noise=0.3)
    params = random_params(network)
    s = jnp.ones((4_000, H))
    x = jnp.zeros(4_000, jnp.int32)
    still = network.step(params.cell, s, x)
    noisy = [network.step(params.cell, s, x, key=jax.random.key(i)) for i in (0, 0, 1)]
    np.testing.assert_array_equal(noisy[0], noisy[1])
    assert np.min(np.abs(noisy[0] - noisy[2])) > 0
    xi = (noisy[0] - still) / (np.sqrt(2 * 0.2) * 0.3)
    assert abs(np.mean(xi)) < 0.03
    assert abs(np.std(xi) - 1) < 0.03


@pytest.mark.parametrize("name", ["leaky relu, noise", "leaky, gru"])
def test_both_passes_have_one_noise_and_an_evaluation_has_none(name):
    network, batch = NETWORKS[name], random_batch()
    params, key = random_params(network), jax.random.key(3)

    @jax.jit
    def loss(key):
        logits = lra_jax.forward(params, batch.inputs, network=network, key=key).logits
        return jnp.mean(lra_jax.cross_entropy.value(logits, batch.labels))

    noise = jax.random.fold_in(key, error_signals.NOISE)
    rule = lra_jax.readout_only(network=network)
    info = rule.grads(key, params, lra_jax.EmptyState(), batch)[2]
    np.testing.assert_allclose(info.loss, loss(noise), rtol=1e-6)
    evaluated = lra_jax.evaluate(params, batch, network=network).loss
    np.testing.assert_allclose(evaluated, loss(None), rtol=1e-6)
    assert abs(loss(noise) - loss(None)) > 1e-3
    # Updates have noise of their own.
    choice = {"rule": rule, "optimizer": optax.sgd(0.0)}
    state = lra_jax.init_train_state(jax.random.key(2), params, **choice)
    state, first = lra_jax.train_step(state, batch, **choice)
    _, second = lra_jax.train_step(state, batch, **choice)
    assert abs(first.loss - second.loss) > 1e-4


def test_a_step_of_your_own_gets_the_key_where_it_asks_for_one():
    def step(weights, s, x, key):
        moved = step_own(weights, s, x)
        return moved if key is None else moved + jax.random.normal(key, s.shape)

    options = {"init": init_own, "state_size": lambda h: 2 * h}
    options["emit"] = lambda weights, s: s[:, s.shape[1] // 2 :]
    noisy = networks.from_step(step=step, **options)
    still = networks.from_step(step=step_own, **options)
    assert noisy.is_noisy
    assert not still.is_noisy
    params, inputs = random_params(still), random_batch().inputs
    run = functools.partial(lra_jax.forward, params, inputs)
    np.testing.assert_array_equal(run(network=noisy).h, run(network=still).h)
    moved = run(network=noisy, key=jax.random.key(0)).h
    assert np.min(np.abs(moved - run(network=still).h)) > 0


# Laws of weights.


def train(network, params, batch, *, updates, lr=0.1, rule=lra_jax.bptt, **numbers):
    """The weights after updates, and the losses before each."""
    choice = {"rule": rule(**numbers, network=network), "optimizer": optax.sgd(lr)}

    @jax.jit
    def run(params):
        state = lra_jax.init_train_state(jax.random.key(2), params, **choice)

        def update(state, _):
            state, info = lra_jax.train_step(state, batch, **choice)
            return state, info.loss

        return jax.lax.scan(update, state, length=updates)

    state, losses = run(params)
    return state.params, losses


@pytest.mark.parametrize("rule", ["bptt", "lra_norm"])
def test_dales_signs_and_masks_hold_after_1000_updates(rule):
    lawful = networks.leaky(alpha=0.5, noise=0.1, dale=SIGNS, mask=MASK)
    free = networks.leaky(alpha=0.5, noise=0.1)
    batch = random_batch(8, 16)
    before = lra_jax.init_params(jax.random.key(0), X, H, Y, network=lawful)
    signs = np.sign(np.array(SIGNS))[:, None] * (MASK != 0)
    for network in (lawful, free):
        after, losses = train(
            network, before, batch, updates=1000, lr=0.5, rule=lra_jax.RULES[rule]
        )
        assert np.max(np.abs(after.cell.w_hh - before.cell.w_hh)) > 0.3
        assert np.isfinite(losses).all()
        w = np.sign(lawful.effective(before.cell))
        np.testing.assert_array_equal(w, signs)
        w = np.sign(network.effective(after.cell))
        # A weight on its way through 0 bounces.
        assert (np.array_equal(w, signs)) == (network is lawful)


def test_a_mask_scales_what_it_lets_through():
    network = networks.leaky(mask=MASK)
    params = lra_jax.init_params(jax.random.key(0), X, H, Y, network=network)
    np.testing.assert_array_equal(
        network.effective(params.cell), params.cell.w_hh * np.float32(MASK)
    )


@pytest.mark.parametrize(
    ("rule", "numbers"),
    [("bptt", {}), ("lra_diff", {"gamma": 2.0, "lambda_": 0.1}), ("tptt", {})],
)
def test_a_frozen_array_stays_bit_for_bit_and_the_others_move(rule, numbers):
    frozen = {
        ("w_xh", "b_n"): (networks.gru(), ("w_xh", "b_n")),
        ("0",): (networks.stack(networks.tanh(), networks.relu()), ("0",)),
        ("1.w_hh",): (
            networks.stack(networks.tanh(), networks.freeze(networks.relu(), "w_hh")),
            (),
        ),
    }
    still = {
        ("w_xh", "b_n"): lambda cell: [cell.w_xh, cell.b_n],
        ("0",): lambda cell: [*cell[0]],
        ("1.w_hh",): lambda cell: [cell[1].w_hh],
    }
    for key, (network, names) in frozen.items():
        network = networks.freeze(network, *names) if names else network
        before = random_params(network)
        after, _ = train(
            network,
            before,
            random_batch(),
            updates=5,
            rule=lra_jax.RULES[rule],
            **numbers,
        )
        num_still = len(still[key](before.cell))
        for a, b in zip(still[key](after.cell), still[key](before.cell), strict=True):
            np.testing.assert_array_equal(a, b)
        moved = [
            bool(np.any(a != b))
            for a, b in zip(
                jax.tree.leaves(after.cell), jax.tree.leaves(before.cell), strict=True
            )
        ]
        assert sum(moved) == len(moved) - num_still


def test_a_frozen_part_that_does_not_exist_is_named():
    network = networks.freeze(networks.gru(), "w_hx")
    params = random_params(networks.gru())
    message = (
        r"^frozen: expected some of w_xh, w_hh, b_h, b_n, got 'w_hx'; "
        r"did you mean 'w_xh'"
    )
    with pytest.raises(ValueError, match=message):
        lra_jax.init_params(jax.random.key(0), X, H, Y, network=network)
    rule = lra_jax.bptt(network=network)
    with pytest.raises(ValueError, match=message):
        rule.grads(jax.random.key(0), params, lra_jax.EmptyState(), random_batch())
    with pytest.raises(ValueError, match=r"^names: expected at least one"):
        networks.freeze(networks.gru())


# Initial weights.


def radius(w):
    return np.max(np.abs(np.linalg.eigvals(np.asarray(w, np.float64))))


def w_hh_of(hidden_size, **options):
    network = networks.leaky(**options)
    cell = network.init(jax.random.key(1), X, hidden_size)
    return np.asarray(network.effective(cell))


def test_initial_recurrent_weights_are_what_their_name_says():
    w = w_hh_of(200)
    np.testing.assert_allclose(w @ w.T, np.eye(200), atol=1e-5)
    w = w_hh_of(200, w_hh_init="glorot")
    bound = np.sqrt(6 / 400)
    assert 0.99 * bound < np.max(np.abs(w)) <= bound
    np.testing.assert_allclose(np.std(w), bound / np.sqrt(3), rtol=0.02)
    w = w_hh_of(200, w_hh_init="gaussian", w_hh_gain=1.5)
    np.testing.assert_allclose(np.std(w), 1.5 / np.sqrt(200), rtol=0.02)
    np.testing.assert_allclose(radius(w), 1.5, rtol=0.1)


def test_sparse_recurrent_weights_have_15_inputs_or_all():
    w = w_hh_of(200, w_hh_init="sparse")
    np.testing.assert_array_equal((w != 0).sum(axis=0), 15)
    assert len({*(w != 0).sum(axis=1)}) > 5  # outputs are as they come
    np.testing.assert_allclose(w[w != 0].std(), 1 / np.sqrt(15), rtol=0.05)
    np.testing.assert_allclose(radius(w), 1, rtol=0.15)
    for size in (15, 8, 1):
        assert (w_hh_of(size, w_hh_init="sparse") != 0).all()


@pytest.mark.parametrize("gain", [1.0, 1.5])
@pytest.mark.parametrize("dale", [0.8, 0.5])
def test_excitation_and_inhibition_balance_and_have_the_radius_of_the_gain(dale, gain):
    w = w_hh_of(200, dale=dale, w_hh_gain=gain)
    num_excitatory = round(200 * dale)
    assert (w[:num_excitatory] > 0).all()
    assert (w[num_excitatory:] < 0).all()
    # Of what each unit receives.
    assert np.max(np.abs(w.sum(axis=0))) < 1e-4 * np.min(np.abs(w).sum(axis=0))
    np.testing.assert_allclose(radius(w), gain, rtol=0.1)
    # Balance in the mean alone is not enough.
    drawn = np.abs(np.random.default_rng(0).normal(size=(200, 200)))
    sizes = np.abs(w).mean(axis=1, keepdims=True) / np.sqrt(2 / np.pi)
    assert radius(np.sign(w) * sizes * drawn) > 1.2 * gain


def test_signs_that_cannot_balance_have_the_radius_of_the_gain_as_well():
    for signs in ([1] * 100, [-1] * 100):
        w = w_hh_of(100, dale=signs, w_hh_gain=1.5)
        assert np.isfinite(w).all()
        np.testing.assert_array_equal(np.sign(w[:, 0]), signs)
        np.testing.assert_allclose(radius(w), 1.5, rtol=0.1)


def test_balance_is_that_of_what_a_mask_lets_through():
    mask = (np.random.default_rng(0).random((200, 200)) < 0.3) * 0.5
    w = w_hh_of(200, dale=0.8, mask=mask)
    assert ((w != 0) == (mask != 0)).all()
    assert np.max(np.abs(w.sum(axis=0))) < 1e-4 * np.min(np.abs(w).sum(axis=0))


def test_gates_are_drawn_one_by_one_and_a_forget_gate_is_open():
    cell = networks.gru(w_hh_gain=2.0).init(jax.random.key(0), X, H)
    for w in np.split(np.asarray(cell.w_hh), 3, axis=1):
        np.testing.assert_allclose(w @ w.T, 4 * np.eye(H), atol=1e-4)
    assert not np.allclose(cell.w_hh[:, :H], cell.w_hh[:, H : 2 * H])
    for bias in (1.0, -2.0):
        cell = networks.lstm(forget_bias=bias).init(jax.random.key(0), X, H)
        expected = np.repeat([0, bias, 0, 0], H)
        np.testing.assert_array_equal(cell.b_h, expected)


@all_networks
def test_initial_weights_have_the_type_that_is_asked(name):
    for dtype in ("float32", "bfloat16"):
        params = lra_jax.init_params(
            jax.random.key(0), X, H, Y, network=NETWORKS[name], dtype=dtype
        )
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {dtype}


def test_an_input_gain_is_of_the_first_layers_input_weights_alone():
    for name, inputs in {
        "gru": lambda cell: [cell.w_xh],
        "two tanh": lambda cell: [cell[0].w_xh],
        "flax LSTMCell": lambda cell: [
            cell[gate]["kernel"] for gate in ("if_", "ig", "ii", "io")
        ],
    }.items():
        one, small = (
            lra_jax.init_params(
                jax.random.key(0), X, H, Y, network=NETWORKS[name], input_gain=gain
            )
            for gain in (1.0, 0.1)
        )
        for a, b in zip(inputs(small.cell), inputs(one.cell), strict=True):
            np.testing.assert_allclose(a, 0.1 * b, rtol=1e-6)
        changed = sum(
            bool(np.any(a != b))
            for a, b in zip(jax.tree.leaves(small), jax.tree.leaves(one), strict=True)
        )
        assert changed == len(inputs(one.cell))


def test_layers_of_a_stack_are_drawn_with_keys_of_their_own():
    cells = NETWORKS["lstm, lstm"].init(jax.random.key(0), H, H)
    assert not np.any(cells[0].w_hh == cells[1].w_hh)


# A stack, and a network within it.


def test_a_stack_of_one_layer_is_the_layer():
    network, batch = networks.stack(networks.gru()), random_batch()
    params = random_params(network)
    alone = params._replace(cell=params.cell[0])
    for rule in (lra_jax.bptt, lra_jax.dfa, lra_jax.lra_norm, lra_jax.fa):
        made = [rule(network=n) for n in (network, networks.gru())]
        states = [
            r.init(jax.random.key(1), p)
            for r, p in zip(made, (params, alone), strict=True)
        ]
        grads = [
            jax.tree.leaves(jax.jit(r.grads)(jax.random.key(0), p, s, batch)[0])
            for r, p, s in zip(made, (params, alone), states, strict=True)
        ]
        for a, b in zip(*grads, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_layer_reads_what_the_one_below_emits_at_the_same_step():
    network = networks.stack(networks.lstm(), networks.tanh())
    params, inputs = random_params(network), random_batch().inputs
    trace = lra_jax.forward(params, inputs, network=network)
    first = lra_jax.forward(
        params._replace(cell=params.cell[0]), inputs, network=networks.lstm()
    )
    second = lra_jax.forward(
        lra_jax.Params(*params.cell[1], params.w_hy, params.b_y), first.z
    )
    np.testing.assert_allclose(trace.h[..., : 2 * H], first.h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trace.h[..., 2 * H :], second.h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trace.logits, second.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["tanh", "relu", "leaky", "gru", "lstm", "two tanh"])
def test_feedback_that_is_the_transpose_is_a_pull(name):
    network = NETWORKS[name]
    cell = lra_jax.rnn.cell_of(random_params(network))
    size = network.state_size(H)
    s, q = (jax.random.normal(jax.random.key(i), (3, size)) for i in range(2))
    x = jnp.array([0, 3, 5])
    transposed = tuple(w.T for w in network.recurrent(cell))
    exact = network.pull(cell, s, x, q)
    found = network.pull_through(transposed, cell, s, x, q)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-6)
    other = network.pull_through(tuple(-w for w in transposed), cell, s, x, q)
    assert np.max(np.abs(other - exact)) > 0.1


# Symbols.


@pytest.mark.parametrize("name", ["own", "flax GRUCell", "gru", "two tanh", "leaky"])
def test_symbols_are_one_hot_vectors_and_a_wrong_one_is_nan(name):
    network = NETWORKS[name]
    params, inputs = random_params(network), random_batch().inputs
    run = functools.partial(lra_jax.forward, params, network=network)
    symbols = run(inputs)
    vectors = run(jax.nn.one_hot(inputs, X))
    np.testing.assert_allclose(symbols.z, vectors.z, rtol=1e-5, atol=1e-6)
    for wrong in (X, -1):
        found = run(inputs.at[2, 1].set(wrong))
        assert np.isnan(found.z[2:, 1]).any(axis=-1).all()
        others = np.array([0, 2])
        np.testing.assert_array_equal(found.z[:, others], symbols.z[:, others])
        np.testing.assert_array_equal(found.z[:2], symbols.z[:2])


def test_symbols_of_a_network_that_does_not_tell_how_many_there_are_are_refused():
    network = networks.from_step(
        init=lambda key, input_size, hidden_size: {"w_hh": jnp.eye(hidden_size)},
        step=lambda p, s, x: jnp.tanh(s @ p["w_hh"] + x[:, :1]),
    )
    params = lra_jax.init_params(jax.random.key(0), X, H, Y, network=network)
    with pytest.raises(ValueError, match=r"^inputs: expected vectors \[T, B, X\]"):
        lra_jax.forward(params, random_batch().inputs, network=network)
    vectors = random_batch(vectors=True).inputs.astype(jnp.float32)
    assert lra_jax.forward(params, vectors, network=network).z.shape == (6, 3, H)
    with pytest.raises(ValueError, match=r"^network: expected one whose weights tell"):
        lra_jax.tptt(network=network).init(jax.random.key(0), params)


# Flax.

FLAX = {
    "GRUCell": nnx.GRUCell,
    "LSTMCell": nnx.LSTMCell,
    "OptimizedLSTMCell": nnx.OptimizedLSTMCell,
    "SimpleCell": nnx.SimpleCell,
}


@pytest.mark.parametrize("name", FLAX)
def test_a_cell_of_flax_is_what_flax_makes_of_it(name):
    network = flax_cell(FLAX[name])
    cell = FLAX[name](X, H, rngs=nnx.Rngs(3))
    leaves = jax.tree.leaves(nnx.state(cell, nnx.Param))
    weights = networks.cell_from_flax(cell)
    shapes = jax.tree.map(jnp.shape, network.init(jax.random.key(0), X, H))
    assert jax.tree.map(jnp.shape, weights) == shapes
    assert len(jax.tree.leaves(weights)) == len(leaves)
    x = jax.random.normal(jax.random.key(0), (7, 3, X))
    expected = nnx.RNN(cell, time_major=True)(x)
    params = lra_jax.NetworkParams(weights, jnp.ones((H, Y)), jnp.zeros(Y))
    found = lra_jax.forward(params, x, network=network)
    np.testing.assert_allclose(found.z, expected, rtol=1e-5, atol=1e-6)
    # There and back.
    other = network.init(jax.random.key(5), X, H)
    networks.cell_to_flax(other, cell)
    for a, b in zip(
        jax.tree.leaves(networks.cell_from_flax(cell)),
        jax.tree.leaves(other),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    moved = nnx.RNN(cell, time_major=True)(x)
    assert np.max(np.abs(moved - expected)) > 0.01
    with pytest.raises(ValueError, match=r"^p: expected weights "):
        networks.cell_to_flax(network.init(jax.random.key(5), X, H + 1), cell)


def test_initial_weights_of_flax_are_the_cells_own():
    cell = flax_cell(nnx.GRUCell).init(jax.random.key(0), 50, 200)
    kernel = np.asarray(cell["dense_i"]["kernel"])
    np.testing.assert_allclose(np.std(kernel), 1 / np.sqrt(50), rtol=0.02)
    w = np.asarray(cell["dense_h"]["kernel"])
    np.testing.assert_allclose(w @ w.T, np.eye(200), atol=1e-4)
    assert not np.any(cell["dense_i"]["bias"])
    other = flax_cell(nnx.GRUCell).init(jax.random.key(1), 50, 200)
    assert np.all(kernel != other["dense_i"]["kernel"])


class Scaled(nnx.RNNCellBase):
    """A cell whose output is not in its carry."""

    def __init__(self, cell):
        self.cell = cell

    def initialize_carry(self, input_shape, rngs=None):
        return self.cell.initialize_carry(input_shape, rngs)

    def __call__(self, carry, x):
        carry, y = self.cell(carry, x)
        return carry, 2 * y

    @property
    def num_feature_axes(self):
        return 1


@pytest.mark.parametrize(
    ("network", "kind", "weights"),
    [
        (
            networks.gru(),
            nnx.GRUCell,
            lambda cell: {
                "dense_i": {"kernel": cell.w_xh, "bias": cell.b_h},
                "dense_h": {"kernel": cell.w_hh},
            },
        ),
        (
            networks.lstm(),
            nnx.OptimizedLSTMCell,
            lambda cell: {
                "dense_i": {"kernel": cell.w_xh},
                "dense_h": {"kernel": cell.w_hh, "bias": cell.b_h},
            },
        ),
    ],
    ids=["gru", "lstm"],
)
def test_gates_are_those_of_flax(network, kind, weights):
    params = random_params(network)
    if network == networks.gru():  # Flax has no b_n
        params = params._replace(cell=params.cell._replace(b_n=jnp.zeros(H)))
    inputs = random_batch().inputs
    found = lra_jax.forward(params, inputs, network=network)
    flax = flax_cell(kind)
    params = params._replace(cell=weights(params.cell))
    expected = lra_jax.forward(params, inputs, network=flax)
    np.testing.assert_allclose(found.h, expected.h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.z, expected.z, rtol=1e-5, atol=1e-6)
    assert np.std(found.z) > 0.1


@pytest.mark.filterwarnings("ignore:carry_init is provided")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda x, h, rngs: nnx.GRUCell(
                x, h, carry_init=nnx.initializers.ones, rngs=rngs
            ),
            "make: expected a cell whose carry begins at 0, got another carry_init",
        ),
        (
            lambda x, h, rngs: Scaled(nnx.GRUCell(x, h, rngs=rngs)),
            "make: expected a cell whose output is an array of its carry, "
            "got another output",
        ),
        (
            lambda x, h, rngs: nnx.Linear(x, h, rngs=rngs),
            "make: expected a function that returns a flax.nnx.RNNCellBase, got Linear",
        ),
    ],
    ids=["carry", "output", "no cell"],
)
def test_cells_of_flax_that_are_no_network_are_refused(make, message):
    network = networks.from_flax(make)

    def run():
        params = lra_jax.init_params(jax.random.key(0), X, H, Y, network=network)
        lra_jax.forward(params, random_batch().inputs, network=network)

    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        run()


# Messages.


def run_emitting(emit):
    network = networks.from_step(
        init=init_own, step=step_own, emit=emit, state_size=lambda h: 2 * h
    )
    params, batch = random_params(network), random_batch()
    trace = lra_jax.forward(params, batch.inputs, network=network)
    metrics = lra_jax.evaluate(params, batch, network=network)
    return params, trace, metrics


MESSAGES = {
    "nonlinearity": (
        lambda: networks.leaky(nonlinearity="softpuls"),
        "nonlinearity: expected one of 'tanh', 'relu', 'softplus', 'sigmoid', 'retanh', "
        "got 'softpuls'; did you mean 'softplus'?",
    ),
    "init": (
        lambda: networks.gru(w_hh_init="orthogonl"),
        "w_hh_init: expected one of 'orthogonal', 'glorot', 'gaussian', 'sparse', "
        "got 'orthogonl'; did you mean 'orthogonal'?",
    ),
    "gain": (lambda: networks.tanh(w_hh_gain=-1.0), "w_hh_gain: expected "),
    "alpha": (lambda: networks.leaky(alpha=1.5), "alpha: expected "),
    "noise": (lambda: networks.leaky(noise=-0.1), "noise: expected "),
    "signs": (
        lambda: networks.leaky(dale=[1, 0, -1]),
        "dale: expected signs ±1 [H], or the fraction of units that excite, above 0 and "
        "at most 1, got [1, 0, -1]",
    ),
    "fraction": (lambda: networks.leaky(dale=1.5), "dale: expected signs ±1 [H], "),
    "mask": (
        lambda: networks.leaky(mask=np.ones((2, 3))),
        "mask: expected an array [H, H], got shape (2, 3)",
    ),
    "mask's numbers": (
        lambda: networks.leaky(mask=np.full((2, 2), np.nan)),
        "mask: expected finite numbers, got float64",
    ),
    "signs for another H": (
        lambda: networks.leaky(dale=[1, -1]).init(jax.random.key(0), X, H),
        "dale: expected H = 5 signs, got 2",
    ),
    "mask for another H": (
        lambda: networks.leaky(mask=np.ones((2, 2))).init(jax.random.key(0), X, H),
        "mask: expected [H, H] = (5, 5), got (2, 2)",
    ),
    "no layers": (lambda: networks.stack(), "layers: expected networks, "),
    "a factory as a layer": (
        lambda: networks.stack(networks.gru),
        "layers: expected networks, at least one, got (<function gru",
    ),
    "no function": (
        lambda: networks.from_step(init=init_own, step=1),
        "step: expected a function, got 1",
    ),
    "no function of Flax": (
        lambda: networks.from_flax(3),
        "make: expected a function, got 3",
    ),
    "a factory": (
        lambda: lra_jax.bptt(network=networks.gru),
        "network: expected one of lra_jax.networks, such as networks.gru(), got ",
    ),
    "a name": (
        lambda: lra_jax.init_params(jax.random.key(0), X, H, Y, network="gru"),
        "network: expected one of lra_jax.networks, such as networks.gru(), got 'gru'",
    ),
    "tpri": (
        lambda: lra_jax.tpri(network=networks.gru()),
        "network: expected tanh, as tpri inverts a step's derivative in closed form, "
        "got gru",
    ),
    "lra_reversible": (
        lambda: lra_jax.lra_reversible(network=NETWORKS["two tanh"]),
        "network: expected tanh, as lra_reversible computes a state back from the next "
        "one in closed form, got stack(tanh, tanh)",
    ),
    "lra_released": (
        lambda: lra_jax.lra_released(gamma=1.0, network=networks.relu()),
        "network: expected tanh, as lra_released is the paper's program, got relu",
    ),
    "fa, own": (
        lambda: lra_jax.fa(network=own()),
        "network: expected tanh, relu, leaky, gru, lstm or a stack of them, as feedback "
        "weights stand in place of the recurrent ones, which have to be known, "
        "got step_own",
    ),
    "fa, Flax": (
        lambda: lra_jax.fa(network=NETWORKS["flax GRUCell"]),
        "network: expected tanh, relu, leaky, gru, lstm or a stack of them, as feedback ",
    ),
    "fa, a stack": (
        lambda: lra_jax.fa(network=networks.stack(networks.gru(), own())),
        "network: expected tanh, relu, leaky, gru, lstm or a stack of them, as feedback ",
    ),
    "tptt": (
        lambda: lra_jax.tptt(w_xh_update="bptt", network=networks.lstm()),
        'network: expected tanh, as tptt with w_xh_update="bptt" knows its W_xh, '
        "got lstm",
    ),
    "weights of tanh": (
        lambda: lra_jax.forward(
            random_params(networks.tanh()),
            random_batch().inputs,
            network=networks.gru(),
        ),
        "params: expected NetworkParams of the network gru, got Params: init_params has "
        "an argument network, too",
    ),
    "no network": (
        lambda: lra_jax.forward(random_params(networks.gru()), random_batch().inputs),
        "params: expected Params, of the network tanh, got NetworkParams: give network= "
        "for weights of another one",
    ),
    "weights of another": (
        lambda: lra_jax.forward(
            random_params(networks.gru()),
            random_batch().inputs,
            network=networks.lstm(),
        ),
        "params.cell: expected the weights of lstm for H = 5, ",
    ),
    "weights without their type": (
        lambda: lra_jax.forward(
            random_params(networks.relu())._replace(
                cell=tuple(random_params(networks.relu()).cell)
            ),
            random_batch().inputs,
            network=networks.relu(),
        ),
        "params.cell: expected the weights of relu for H = 5, ",
    ),
    "weights of another type": (
        lambda: lra_jax.forward(
            random_params(networks.relu())._replace(b_y=jnp.zeros(Y, jnp.bfloat16)),
            random_batch().inputs,
            network=networks.relu(),
        ),
        "params.b_y: expected float32, as w_hy, got bfloat16",
    ),
    "a state of another size": (
        lambda: lra_jax.forward(
            random_params(networks.relu()),
            random_batch().inputs,
            network=networks.from_step(
                init=networks.relu().init, step=lambda p, s, x: s[:, :2]
            ),
        ),
        "network: expected a step of <lambda> to return the next state, float32 "
        "[B, D] = (3, 5) like the weights of the readout and the state before, "
        "got float32 (3, 2)",
    ),
    "fewer units than the readout reads": (
        lambda: run_emitting(lambda p, s: s[:, :2]),
        "network: expected step_own to emit float32 [B, H] with H = 5, as the readout "
        "reads, got float32 (3, 2)",
    ),
    "another type than the readout's": (
        lambda: run_emitting(lambda p, s: s[:, :5].astype(jnp.float16)),
        "network: expected step_own to emit float32 [B, H] with H = 5, as the readout "
        "reads, got float16 (3, 5)",
    ),
}


@pytest.mark.parametrize(("call", "message"), MESSAGES.values(), ids=MESSAGES)
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()


def test_what_the_readout_reads_is_not_refused():
    params, trace, metrics = run_emitting(lambda p, s: s[:, :5])
    np.testing.assert_array_equal(trace.z, trace.h[..., :5])
    assert trace.z.shape[-1] == params.w_hy.shape[0]
    assert np.isfinite(metrics.loss)


def test_roles_go_by_names_also_those_of_flax():
    kernels = {"dense_i": {"kernel": 0, "bias": 0}, "hf": {"kernel": 0}}
    assert networks.weights.roles_by_name(kernels) == {
        "dense_i": {"kernel": "input", "bias": "bias"},
        "hf": {"kernel": "recurrent"},
    }
    # Only a kernel is of a layer of Flax; and the readout is no part of a cell.
    others = {"ii": 0, "hf": {"scale": 0}, "w_hh": 0, "W_XH": 0, "gain": 0}
    assert networks.weights.roles_by_name(others) == {
        "ii": "other", "hf": {"scale": "other"}, "w_hh": "recurrent", "W_XH": "input",
        "gain": "other",
    }  # fmt: skip
    params = lra_jax.NetworkParams(kernels, w_hy=0, b_y=0)
    roles = networks.weights.roles_by_name(params)
    assert (roles.w_hy, roles.b_y) == ("readout", "readout")
    assert roles.cell["hf"]["kernel"] == "recurrent"


def test_a_network_is_a_value():
    for name, factory in networks.NETWORKS.items():
        assert factory() == factory()
        assert factory().name == name
        assert hash(factory()) == hash(factory())
    assert networks.gru() != networks.gru(w_hh_gain=2.0)
    assert networks.freeze(networks.gru(), "b_n") != networks.gru()


# Rules learn.

NUMBERS = {
    "lra_diff": {"gamma": H / 2, "num_refinements": 2},
    "lra_fdbk": {"gamma": H / 2},
}
LEARNERS = (
    "bptt", "lra_diff", "lra_norm", "dfa", "fa", "lra_e", "lra_fdbk", "rec_lra", "tptt",
)  # fmt: skip


def pairs():
    """Each rule with two networks, and each network with a rule; all are slow."""
    names = [*NETWORKS]
    for i, rule in enumerate(LEARNERS):
        for j, name in enumerate(names):
            if rule == "fa" and not NETWORKS[name].has_recurrent:
                continue
            short = (j - 5 * i) % len(names) in (0, 7)
            yield pytest.param(rule, name, marks=() if short else pytest.mark.slow)


@pytest.mark.parametrize(("rule", "name"), [*pairs()])
def test_sixty_updates_lower_the_loss(rule, name):
    network = NETWORKS[name]
    params = lra_jax.init_params(jax.random.key(0), X, H, Y, network=network)
    _, losses = train(
        network,
        params,
        random_batch(),
        updates=60,
        lr=0.1 if rule == "dfa" else 0.3,  # with relu it grows without bound
        rule=lra_jax.RULES[rule],
        **NUMBERS.get(rule, {}),
    )
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.9 * losses[0]


# The program of tanh: how many products and how many tanh an update has, of symbols, of
# vectors with starts, and with a loss of every step, where the rule has one.

RECORDED = [
    ("lra_diff", {"gamma": 4.0, "num_refinements": 1}, [(6, 8), (8, 8), (9, 8)]),
    (
        "lra_diff",
        {"gamma": 4.0, "num_refinements": 3, "lambda_": 0.1, "c0": 1.0, "c1": 1.0},
        [(10, 13), (12, 13), (15, 13)],
    ),
    (
        "lra_diff",
        {
            "gamma": 4.0,
            "num_refinements": 2,
            "refinement": "overwrite",
            "schedule": "matched",
            "lambda_": 0.1,
            "local_loss": "log_penalty",
            "normalization": "force",
            "c0": 0.1,
            "c1": 0.1,
        },
        [(10, 13), (12, 13), (15, 13)],
    ),
    (
        "lra_diff",
        {
            "gamma": 4.0,
            "update_first_step": False,
            "descend_local_loss": False,
            "lambda_": 1.0,
            "reduction": "sum",
        },
        [(6, 8), (8, 8), (9, 8)],
    ),
    ("lra_norm", {}, [(6, 1), (8, 1), (8, 1)]),
    (
        "lra_norm",
        {"exponent": 0.5, "activity": 0.0, "max_norm": 0.1},
        [(6, 1), (8, 1), (8, 1)],
    ),
    ("bptt", {}, [(6, 1), (8, 1), (8, 1)]),
    ("bptt", {"max_norm": 0.1}, [(6, 1), (8, 1), (8, 1)]),
    ("dfa", {}, [(5, 1), (7, 1)]),
    ("dfa", {"readout": "transpose"}, [(5, 1), (7, 1)]),
    ("fa", {}, [(6, 1), (8, 1), (8, 1)]),
    ("fa", {"readout": "random"}, [(6, 1), (8, 1), (8, 1)]),
    ("lra_e", {"feedback_lr": 0.1}, [(8, 5), (10, 5)]),
    ("lra_fdbk", {"gamma": 4.0}, [(6, 5), (8, 5)]),
    ("lra_reversible", {}, [(9, 2), (13, 2)]),
    ("readout_only", {}, [(3, 1), (4, 1), (4, 1)]),
    ("rec_lra", {"num_steps_per_skip": 3}, [(9, 5), (11, 5)]),
    ("tpri", {}, [(9, 1), (11, 1), (11, 1)]),
    ("tptt", {"noise_std": 0.1}, [(10, 6), (12, 6), (12, 6)]),
    ("tptt", {"w_xh_update": "bptt"}, [(13, 6), (16, 6), (16, 6)]),
    ("lra_released", {"gamma": 4.0}, [(23, 10)]),
]


def update_batches():
    """Weights, a batch and a loss: the three kinds of the table."""
    key = jax.random.key(0)
    symbols = jax.random.randint(key, (10, 7), 0, 6)
    labels = jnp.zeros(7, jnp.int32)
    yield 6, lra_jax.Batch(symbols, labels), lra_jax.cross_entropy
    start = jnp.array([0, 1, 2, 3, 0, 0, 5])
    vectors = jax.random.normal(key, (12, 7, 2))
    yield 2, lra_jax.Batch(vectors, labels, start), lra_jax.cross_entropy
    vectors = jax.random.normal(key, (9, 5, 3))
    labels = jnp.zeros((9, 5), jnp.int32)
    yield 3, lra_jax.Batch(vectors, labels), lra_jax.cross_entropy_every_step


@pytest.mark.parametrize(("rule", "options", "recorded"), RECORDED, ids=str)
def test_an_update_of_tanh_has_the_products_that_it_had(
    rule, options, recorded, monkeypatch
):
    """But for the norms of steps; the next test says who computes those."""
    monkeypatch.setattr(
        gradients,
        "step_norms",
        lambda network, cell, place, q: jax.tree.map(
            lambda w: jnp.zeros(len(q), w.dtype), cell
        ),
    )
    for (size, batch, loss), expected in zip(update_batches(), recorded, strict=False):
        params = lra_jax.init_params(jax.random.key(0), size, 16, Y)
        choice = {
            "rule": lra_jax.RULES[rule](**options, output_loss=loss),
            "optimizer": optax.sgd(0.1),
        }
        state = lra_jax.init_train_state(jax.random.key(2), params, **choice)
        step = functools.partial(lra_jax.train_step, **choice)
        names = [each.primitive.name for each in equations(step, state, batch)]
        found = tuple(names.count(name) for name in ("dot_general", "tanh"))
        assert found == expected


@pytest.mark.parametrize("network", ["tanh", "gru"])
def test_norms_of_steps_are_computed_where_somebody_reads_them(network):
    network = getattr(networks, network)()
    params = lra_jax.init_params(jax.random.key(0), 6, 16, Y, network=network)
    choice = {"rule": lra_jax.dfa(network=network), "optimizer": optax.sgd(0.1)}
    state = lra_jax.init_train_state(jax.random.key(2), params, **choice)
    batch = next(update_batches())[1]

    def cost(function):
        program = jax.jit(function).lower(state, batch).compile()
        return program.cost_analysis()["flops"]

    step = functools.partial(lra_jax.train_step, **choice)
    with_norms = cost(step)
    without = cost(lambda state, batch: step(state, batch)[0])
    assert without < 0.75 * with_norms


class HalvedGRU(type(networks.gru())):
    """Says of its own what an error asks of the weights."""

    def weigh(self, *arguments, **options):
        return jax.tree.map(lambda g: g / 2, super().weigh(*arguments, **options))


def test_a_network_with_a_weigh_of_its_own_is_asked_it():
    params = random_params(networks.gru())
    place = error_signals.run_forward(
        params, random_batch(), lra_jax.cross_entropy, networks.gru()
    ).place
    found, expected = (
        gradients.sum_at_once(network, params.cell, place, place.s).grads
        for network in (HalvedGRU(), networks.gru())
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert jnp.max(jnp.abs(b)) > 0.01
        np.testing.assert_allclose(2 * a, b, rtol=1e-4, atol=1e-6)


def test_gradients_of_a_noisy_step_are_of_the_noise_that_it_had():
    """Of these keys, draws for many steps are others than those of single steps."""

    def step(weights, s, x, key):
        moved = step_own(weights, s, x)
        return moved if key is None else moved * jax.random.normal(key, s.shape)

    network = networks.from_step(
        init=init_own,
        step=step,
        emit=lambda weights, s: s[:, s.shape[1] // 2 :],
        state_size=lambda hidden_size: 2 * hidden_size,
    )
    params = random_params(network)
    key = jax.random.key(0, impl="rbg")
    place = error_signals.run_forward(
        params, random_batch(), lra_jax.cross_entropy, network, key
    ).place
    found = gradients.sum_at_once(network, params.cell, place, place.s).grads
    steps = [
        network.weigh(
            params.cell, place.s_prev[t], place.x[t], place.s[t], key=place.key[t]
        )
        for t in range(len(place.s))
    ]
    for name, value in found.items():
        expected = sum(each[name] for each in steps) / place.s.shape[1]
        assert jnp.max(jnp.abs(expected)) > 0.01
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_the_same_network_derived_has_other_products():
    """What the closed forms save."""
    batch = next(update_batches())[1]
    found = []
    for network in (networks.tanh(), derived_tanh()):
        params = lra_jax.init_params(jax.random.key(0), 6, 16, Y, network=network)
        rule = lra_jax.lra_diff(gamma=4.0, lambda_=0.1, network=network)
        step = functools.partial(rule.grads, jax.random.key(0), params)
        names = [
            each.primitive.name for each in equations(step, lra_jax.EmptyState(), batch)
        ]
        found.append(names.count("dot_general"))
    assert found[0] == 6 < found[1]


def test_roles_of_a_network_of_ones_own_see_its_weights():
    """They may look at shapes: they get weights, and not the norms of steps."""

    def roles(p):
        return {name: "recurrent" if w.ndim == 2 else "bias" for name, w in p.items()}

    network = networks.from_step(
        init=lambda key, x, h: {"a": 0.5 * jnp.eye(h), "b": jnp.zeros(h)},
        step=lambda p, s, x: jnp.tanh(s @ p["a"] + x @ jnp.ones((3, 4)) + p["b"][None]),
        roles=roles,
    )
    params = lra_jax.init_params(jax.random.key(0), 3, 4, 2, network=network)
    batch = lra_jax.Batch(jnp.ones((5, 2, 3)), jnp.array([0, 1]))
    rule = lra_jax.bptt(network=network)
    _, _, info = rule.grads(jax.random.key(1), params, lra_jax.EmptyState(), batch)
    np.testing.assert_array_equal(info.w_hh_grad_norm, info.cell_grad_norms["a"])
    assert info.w_xh_grad_norm is None


@pytest.mark.parametrize("name", ["bptt", "rtrl", "uoro"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": lambda p, s, x: s.astype(jnp.bfloat16)}, "to return the next state"),
        ({"step": lambda p, s, x: s[:, :2]}, "to return the next state"),
        ({"emit": lambda p, s: s[:, :2]}, "to emit float32"),
    ],
)
def test_a_step_of_another_shape_is_one_message_in_every_rule(name, change, message):
    own = {"init": lambda key, x, h: {"a": jnp.ones(h)}, "step": lambda p, s, x: s}
    network = networks.from_step(**own | change)
    params = lra_jax.init_params(jax.random.key(0), 3, 4, 2, network=network)
    batch = lra_jax.Batch(jnp.ones((5, 2, 3)), jnp.array([0, 1]))
    rule = lra_jax.RULES[name](network=network)
    state = rule.init(jax.random.key(1), params)
    with pytest.raises(ValueError, match=message):
        rule.grads(jax.random.key(2), params, state, batch)


def test_a_stack_finds_the_sizes_of_its_layers_by_halves():
    asked = []

    class Counted(type(networks.gru())):
        def state_size(self, hidden_size):
            asked.append(hidden_size)
            return super().state_size(hidden_size)

    stack = networks.stack(networks.lstm(), Counted())
    parts = stack.parts(jnp.zeros((2, stack.state_size(500))))
    assert [part.shape[1] for part in parts] == [1000, 500]
    assert len(asked) < 30
    with pytest.raises(ValueError, match="got D = 1001"):
        stack.parts(jnp.zeros((2, 1001)))


def test_omega_of_a_pull_in_closed_form_moves_with_the_state_before():
    """Of a subclass whose `pull` takes z_prev for what it is: it depends on s_prev."""
    tanh = networks.tanh()

    class Closed(type(tanh)):
        norm_preservation = networks.Network.norm_preservation

        def pull(self, p, s_prev, x, q, *, z_prev=None, drive=None, key=None):
            z_prev = jnp.tanh(s_prev) if z_prev is None else z_prev
            return (q @ p.w_hh.T) * (1 - z_prev**2)

    params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
    s_prev = jax.random.normal(jax.random.key(1), (5, 8))
    u = jax.random.normal(jax.random.key(2), (5, 8))
    cell, x = (
        networks.LayerCell(params.w_xh, params.w_hh, params.b_h),
        jnp.zeros(5, int),
    )
    given = cell, s_prev, x, u
    _, found = Closed().norm_preservation(*given, z_prev=jnp.tanh(s_prev))
    _, expected = networks.Network.norm_preservation(tanh, *given)
    assert np.abs(expected.a).max() > 1e-3
    np.testing.assert_allclose(found.a, expected.a, rtol=1e-5, atol=1e-7)
