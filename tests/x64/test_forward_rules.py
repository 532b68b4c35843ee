"""Rules that run forward in time: exact ones are BPTT, the others what loops say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from network_cases import MASK, NETWORKS, SIGNS, X, Y, random_batch, random_params
from oracles import numpy_forward, numpy_networks
from oracles.numpy_lra import cross_entropy

import lra_jax
from lra_jax import losses, networks, rnn

STARTS = np.array([1, 0, 3], np.int32)
LOCAL = [
    name
    for name, network in NETWORKS.items()
    if network.has_recurrent and not isinstance(network, networks.Stack)
]
EVERY = lra_jax.cross_entropy_every_step


def batch_of(every_step, *, vectors=False, start=STARTS, length=6, seed=0):
    batch = random_batch(length, vectors=vectors, start=start, seed=seed)
    if not every_step:
        return batch, lra_jax.cross_entropy
    labels = np.random.default_rng(seed).integers(-1, Y, size=batch.inputs.shape[:2])
    started = np.ones(labels.shape, bool)
    if start is not None:
        started = np.arange(length)[:, None] >= start
    return batch._replace(labels=jnp.asarray(np.where(started, labels, -1))), EVERY


@functools.partial(jax.jit, static_argnames=("name", "network", "loss", "options"))
def grads_of(name, network, loss, params, batch, options=()):
    rule = lra_jax.RULES[name](network=network, output_loss=loss, **dict(options))
    state = rule.init(jax.random.key(2), params)
    grads, _, info = rule.grads(jax.random.key(3), params, state, batch)
    return grads, info.loss


def assert_close(actual, expected, tolerance=1e-12):
    largest = max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(expected))
    assert np.isfinite(largest)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest)


# Exact rules.


# With a loss of the last step some; the others with the slow tests.
LAST_STEP = ("tanh", "lstm", "leaky, gru", "own")


@pytest.mark.parametrize(
    ("name", "every_step"),
    [
        pytest.param(
            name,
            every_step,
            marks=pytest.mark.slow
            if "flax O" in name or not (every_step or name in LAST_STEP)
            else (),
        )
        for name in NETWORKS
        for every_step in (False, True)
    ],
)
def test_rtrl_is_bptt(name, every_step):
    """With noise, starts and either loss."""
    network, (batch, loss) = NETWORKS[name], batch_of(every_step)
    params = random_params(network)
    found, expected = (
        grads_of(rule, network, loss, params, batch) for rule in ("rtrl", "bptt")
    )
    assert_close(found, expected)


@pytest.mark.parametrize("name", ["tanh", "lstm", "leaky, gru"])
def test_snap_of_order_two_is_rtrl_where_all_units_are_connected(name):
    network, (batch, loss) = NETWORKS[name], batch_of(True, vectors=True)
    params = random_params(network)
    found = grads_of("snap", network, loss, params, batch, (("order", 2),))
    assert_close(found, grads_of("rtrl", network, loss, params, batch))
    # And order one is not.
    first, _ = grads_of("snap", network, loss, params, batch)
    assert np.abs(first.b_y - found[0].b_y).max() < 1e-12
    cells = (rnn.cell_of(each) for each in (first, found[0]))
    differences = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), *cells)
    assert max(jax.tree.leaves(differences)) > 1e-3


def test_higher_orders_of_snap_follow_the_connections():
    """A chain of units: a weight gets one unit further with each order."""
    size = 5
    chain = np.eye(size) + np.eye(size, k=1)
    network = networks.leaky(alpha=0.5, mask=chain)
    params, (batch, loss) = random_params(network), batch_of(True)
    exact, _ = grads_of("rtrl", network, loss, params, batch)
    errors = []
    for order in range(1, size + 1):
        found, _ = grads_of("snap", network, loss, params, batch, (("order", order),))
        errors.append(float(jnp.abs(found.cell.w_xh - exact.cell.w_xh).max()))
    assert np.all(np.diff(errors) < 0)
    assert errors[-1] < 1e-12 < 1e-6 < errors[-2]
    # The engine with a mask is that of local traces where it keeps what they keep.
    local, _ = grads_of("snap", network, loss, params, batch)
    mask = functools.partial(
        jax.tree.map,
        lambda w: np.eye(size, dtype=bool).reshape(size, *(1,) * (w.ndim - 1), size),
    )
    rule = lra_jax.influence.make_rule(
        lra_jax.influence.whole_influence(network, mask),
        max_norm=0.0,
        output_loss=loss,
        network=network,
    )
    empty = lra_jax.EmptyState()
    masked, _, _ = jax.jit(rule.grads)(jax.random.key(3), params, empty, batch)
    assert_close(local, masked)


@pytest.mark.parametrize("rule", ["snap", "eprop"])
@pytest.mark.parametrize("name", LOCAL)
def test_local_traces_are_the_exact_influence_where_only_they_are_not_zero(name, rule):
    """Units that are not connected to others: all there is stays within a unit."""
    network, (batch, loss) = NETWORKS[name], batch_of(True)
    params = random_params(network)
    size = params.w_hy.shape[0]
    kept = np.eye(size) if rule == "snap" else np.zeros((size, size))
    w_hh = rnn.cell_of(params).w_hh
    lone = w_hh * np.tile(kept, w_hh.shape[1] // size)
    if hasattr(params, "cell"):
        params = params._replace(cell=params.cell._replace(w_hh=lone))
    else:
        params = params._replace(w_hh=lone)
    found, exact = (
        rnn.cell_of(grads_of(r, network, loss, params, batch)[0])
        for r in (rule, "rtrl")
    )
    # What a weight of 0 would do is known to the exact rule alone.
    assert_close(
        (found.w_xh, found.b_h, found.w_hh * (lone != 0)),
        (exact.w_xh, exact.b_h, exact.w_hh * (lone != 0)),
    )


# Loops.


def by_loops(network, traces, readout, batch, every_step, feedback):
    """The gradients of a rule with local traces, summed sample by sample."""
    inputs = np.eye(X)[batch.inputs]
    total, readouts = None, [np.zeros_like(x) for x in readout]
    length, samples = batch.inputs.shape
    for b in range(samples):
        s = np.zeros(network.size)
        trace = traces()
        asked = [
            t
            for t in range(length)
            if (batch.labels[t, b] >= 0 if every_step else t == length - 1)
        ]
        for t in range(length):
            x = inputs[t, b]
            trace.step(s, x)
            s = trace.next(s, x) if hasattr(trace, "next") else network.step(s, x)
            if t not in asked:
                continue
            z = network.emit(s)
            label = batch.labels[t, b] if every_step else batch.labels[b]
            _, pi = cross_entropy(z @ readout.w_hy + readout.b_y, label)
            pi = pi / (len(asked) * samples)
            more = trace.gradients(network.error_of_z(s, pi @ feedback))
            total = (
                more
                if total is None
                else [a + c for a, c in zip(total, more, strict=True)]
            )
            readouts = [readouts[0] + np.outer(z, pi), readouts[1] + pi]
    return total, readouts


LEAKY = {
    "tanh": (networks.tanh(), {"alpha": 1.0, "nonlinearity": "tanh"}),
    "leaky": (networks.leaky(alpha=0.4), {"alpha": 0.4, "nonlinearity": "tanh"}),
    "Dale, mask": (
        networks.leaky(alpha=0.3, nonlinearity="sigmoid", dale=SIGNS, mask=MASK),
        {"alpha": 0.3, "nonlinearity": "sigmoid", "signs": SIGNS, "mask": MASK},
    ),
}


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("rule", ["snap", "eprop", "rflo"])
@pytest.mark.parametrize("name", LEAKY)
def test_rate_units_are_those_of_loops(name, rule, every_step):
    network, numbers = LEAKY[name]
    params, (batch, loss) = random_params(network), batch_of(every_step, start=None)
    cell = jax.tree.map(np.asarray, rnn.cell_of(params))
    twin = numpy_networks.Leaky(cell, **numbers)
    readout = numpy_networks.Readout(*map(np.asarray, params[-2:]))
    made = lra_jax.RULES[rule](network=network, output_loss=loss)
    state = made.init(jax.random.key(2), params)
    feedback = np.asarray(state.e_y) if rule == "rflo" else readout.w_hy.T
    expected, of_readout = by_loops(
        twin,
        lambda: numpy_forward.LeakyTraces(twin, X, own=rule == "snap"),
        readout,
        jax.tree.map(np.asarray, batch),
        every_step,
        feedback,
    )
    grads, _, _ = made.grads(jax.random.key(3), params, state, batch)
    assert_close((rnn.cell_of(grads), grads[-2:]), (expected, of_readout))


class GRUState:
    """What `by_loops` asks of a network, of a GRU."""

    def __init__(self, size):
        self.size = size

    def emit(self, s):
        return s

    def error_of_z(self, s, e):
        return e


@pytest.mark.parametrize("rule", ["snap", "eprop"])
def test_a_gru_is_that_of_loops(rule):
    network = networks.gru()
    params, (batch, loss) = random_params(network), batch_of(True, start=None)
    cell = [np.asarray(x) for x in params.cell]
    readout = numpy_networks.Readout(*map(np.asarray, params[-2:]))
    expected, of_readout = by_loops(
        GRUState(len(cell[3])),
        lambda: numpy_forward.GRUTraces(cell, own=rule == "snap"),
        readout,
        jax.tree.map(np.asarray, batch),
        True,
        readout.w_hy.T,
    )
    grads, _ = grads_of(rule, network, loss, params, batch)
    assert_close((tuple(grads.cell), grads[-2:]), (tuple(expected), of_readout))


def test_without_a_leak_eprop_has_one_step():
    """Of tanh, a loss of the last step trains the last step alone."""
    network = networks.tanh()
    params, (batch, loss) = random_params(network), batch_of(False, start=None)
    grads, _ = grads_of("eprop", network, loss, params, batch)
    place = rnn.run(params, batch.inputs, network=network, started=None)
    pi = loss.grad(rnn.readout(params, place.z[-1]), batch.labels)
    last = jax.tree.map(lambda x: x[-1], place)
    q = network.slope(params, last.s, pi @ params.w_hy.T, z=last.z) / len(pi)
    cell = rnn.cell_of(params)
    assert_close(rnn.cell_of(grads), network.weigh(cell, last.s_prev, last.x, q))


# Layers.


@pytest.mark.parametrize("rule", ["snap", "eprop"])
def test_a_stack_of_one_is_its_layer(rule):
    layer = networks.lstm()
    params, (batch, loss) = random_params(layer), batch_of(True)
    alone, _ = grads_of(rule, layer, loss, params, batch)
    stacked = params._replace(cell=(params.cell,))
    found, _ = grads_of(rule, networks.stack(layer), loss, stacked, batch)
    assert_close(found, alone._replace(cell=(alone.cell,)))


@pytest.mark.parametrize("rule", ["snap", "eprop"])
def test_the_last_layer_of_a_stack_learns_as_if_what_it_reads_were_inputs(rule):
    below, above = networks.tanh(), networks.gru()
    network = networks.stack(below, above)
    params, (batch, loss) = random_params(network), batch_of(True)
    found, _ = grads_of(rule, network, loss, params, batch)
    lower = lra_jax.Params(*params.cell[0], *params[-2:])
    read = lra_jax.forward(lower, batch.inputs, start=batch.start).z
    alone, _ = grads_of(
        rule,
        above,
        loss,
        params._replace(cell=params.cell[1]),
        batch._replace(inputs=read),
    )
    assert_close(found.cell[1], alone.cell)


def test_errors_reach_lower_layers_within_a_step():
    """Of sequences of one step local traces are all there is: eprop is BPTT."""
    network = NETWORKS["leaky, gru"]
    params, (batch, loss) = random_params(network), batch_of(True, length=1, start=None)
    found, exact = (
        grads_of(rule, network, loss, params, batch) for rule in ("eprop", "bptt")
    )
    assert_close(found, exact)
    assert np.abs(exact[0].cell[0].w_xh).max() > 1e-3


# UORO.


@pytest.mark.parametrize("name", ["tanh", "lstm", "leaky, gru"])
def test_the_mean_of_uoro_is_bptt(name):
    """Over 20,000 keys, within five standard errors."""
    network, (batch, loss) = NETWORKS[name], batch_of(True, length=4)
    batch = jax.tree.map(lambda x: x[..., :2] if x.ndim == 2 else x[:2], batch)
    params = random_params(network, hidden_size=3)
    if network.is_noisy:
        network = networks.stack(networks.leaky(), networks.gru())
    exact, _ = grads_of("bptt", network, loss, params, batch)
    rule = lra_jax.uoro(network=network, output_loss=loss)

    @jax.jit
    @jax.vmap
    def draw(key):
        return rule.grads(key, params, lra_jax.EmptyState(), batch)[0]

    def moments(key):
        drawn = draw(jax.random.split(key, 2000))
        square = jax.tree.map(lambda g: (g**2).mean(0), drawn)
        return jax.tree.map(lambda g: g.mean(0), drawn), square

    parts = [moments(jax.random.key(i)) for i in range(10)]
    means, squares = (
        jax.tree.map(lambda *x: np.mean(x, axis=0), *(part[k] for part in parts))
        for k in range(2)
    )
    leaves = zip(*map(jax.tree.leaves, (exact, means, squares)), strict=True)
    for i, (expected, mean, square) in enumerate(leaves):
        error = np.sqrt(np.maximum(square - mean**2, 0) / 20_000)
        assert np.all(np.abs(mean - expected) <= 5 * error + 1e-9)
        # One draw is far from it, of all but the readout.
        if i < len(jax.tree.leaves(exact)) - 2:
            assert error.max() * np.sqrt(20_000) > np.abs(expected).max()


# Updates inside of a sequence.

FORWARD = ["rtrl", "snap", "rflo", "eprop", "uoro"]


def trained(rule, params, batch, rate, **options):
    optimizer = optax.sgd(rate)
    state = lra_jax.init_train_state(jax.random.key(1), params, rule, optimizer)
    step = functools.partial(
        lra_jax.train_step, rule=rule, optimizer=optimizer, **options
    )
    return jax.jit(step)(state, batch)


@pytest.mark.parametrize("rule", FORWARD)
def test_pieces_of_a_sequence_add_up_to_it(rule):
    """With a learning rate so small that weights do not move in between."""
    network, (batch, _) = networks.leaky(), batch_of(True)
    params, made = (
        random_params(network),
        lra_jax.RULES[rule](network=network, output_loss=EVERY),
    )
    rate = 1e-7
    whole, info = trained(made, params, batch, rate)
    same, _ = trained(made, params, batch, rate, update_every=6)
    for a, b in zip(*(jax.tree.leaves(s.params) for s in (whole, same)), strict=True):
        np.testing.assert_array_equal(a, b)
    if rule == "uoro":  # its draws are of a piece
        return
    for every in (1, 2, 3):
        parts, found = trained(made, params, batch, rate, update_every=every)
        changes = (
            jax.tree.map(lambda a, b: (a - b) / rate, s.params, params)
            for s in (parts, whole)
        )
        assert_close(*changes, tolerance=1e-5)
        assert found.loss == pytest.approx(info.loss.item(), rel=1e-6)
        assert parts.step == 1


@pytest.mark.parametrize("every", [1, 3])
def test_weights_move_inside_of_a_sequence_as_in_a_loop(every):
    network, (batch, _) = networks.gru(), batch_of(True, start=None)
    rule = lra_jax.snap(network=network, output_loss=EVERY)
    params, optimizer = random_params(network), optax.adam(0.01)
    state = lra_jax.init_train_state(jax.random.key(1), params, rule, optimizer)
    choice = {"rule": rule, "optimizer": optimizer}
    found, _ = lra_jax.train_step(state, batch, **choice, update_every=every)
    asked = losses.num_asked(batch.labels)
    carry = rule.stream.begin(params, batch)
    for first in range(0, 6, every):
        part = slice(first, first + every)
        piece = lra_jax.Piece(batch.inputs[part], batch.labels[part], num_asked=asked)
        state, carry, _ = lra_jax.stream_step(state, carry, piece, **choice)
    assert_close(found.params, state.params)
    # And what they do is not what one update at the end would.
    end, _ = lra_jax.train_step(
        lra_jax.init_train_state(jax.random.key(1), params, rule, optimizer),
        batch,
        **choice,
    )
    assert np.abs(end.params.w_hy - found.params.w_hy).max() > 1e-3


def test_a_stream_goes_on_where_it_stood():
    """A state and a trace carried over are those of one long sequence."""
    network = networks.leaky()
    rule = lra_jax.eprop(network=network, output_loss=EVERY)
    (batch, _), params = batch_of(True, start=None, length=8), random_params(network)
    asked = losses.num_asked(batch.labels)
    key, empty = jax.random.key(0), lra_jax.EmptyState()
    whole, _, _ = jax.jit(rule.grads)(key, params, empty, batch)
    carry, total = rule.stream.begin(params, batch), None
    for part in (slice(0, 3), slice(3, 4), slice(4, 8)):
        piece = lra_jax.Piece(batch.inputs[part], batch.labels[part], num_asked=asked)
        grads, _, carry, _ = rule.stream.grads(key, params, empty, carry, piece)
        total = grads if total is None else jax.tree.map(jnp.add, total, grads)
    assert_close(total, whole)
