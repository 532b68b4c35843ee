"""Feedback weights: what they do to rules, how they learn, and that nothing is moved.

Numbers that need float64 are in x64/test_feedback.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close

import lra_jax
from lra_jax import TASKS, diagnostics, feedback, networks, rnn

T, B, H = 10, 4, 8
TASK = TASKS["temporal_order"]
RULES = {
    "bptt": lra_jax.bptt,
    "fa": lra_jax.fa,
    "lra_norm": lra_jax.lra_norm,
    "lra_diff": functools.partial(lra_jax.lra_diff, gamma=4.0, num_refinements=2),
    "lra_fdbk": functools.partial(lra_jax.lra_fdbk, gamma=4.0),
}
ONE_MATRIX = {"tanh": networks.tanh(), "leaky": networks.leaky(noise=0.1)}
SEVERAL = {
    "gru": networks.gru(),
    "leaky, lstm": networks.stack(networks.leaky(noise=0.1), networks.lstm()),
}
CASES = [  # a loss of every step on some; on the others with the slow tests
    pytest.param(
        rule,
        name,
        every_step,
        marks=pytest.mark.slow if every_step and name in ("leaky", "gru") else (),
    )
    for rule in RULES
    for name in (ONE_MATRIX | SEVERAL if rule != "lra_fdbk" else ONE_MATRIX)
    for every_step in ((False, True) if rule != "lra_fdbk" else (False,))
]
NETWORKS = ONE_MATRIX | SEVERAL


def problem(network):
    params = lra_jax.init_params(
        jax.random.key(0), TASK.input_size, H, TASK.output_size, network=network
    )
    noise = jax.tree.map(
        lambda w: w + 0.1 * jax.random.normal(jax.random.key(5), w.shape), params
    )
    return noise, TASK.sample(jax.random.key(1), B, T)


def weights_of(params, network):
    """The transposed forward weights, as feedback weights."""
    recurrent = [w.T for w in network.recurrent(rnn.cell_of(params))]
    a = recurrent[0] if len(recurrent) == 1 else tuple(recurrent)
    return feedback.FeedbackWeights(a=a, e_y=params.w_hy.T)


@pytest.mark.parametrize(("rule", "name", "every_step"), CASES)
def test_by_the_transposes_a_rule_is_what_it_is_with_them(rule, name, every_step):
    network = NETWORKS[name]
    params, batch = problem(network)
    options = {}
    if every_step:
        labels = jnp.broadcast_to(batch.labels, batch.inputs.shape)
        batch = batch._replace(labels=labels)
        options["output_loss"] = lra_jax.cross_entropy_every_step
    make = functools.partial(RULES[rule], network=network, **options)
    given, fixed = make(feedback="transpose"), make(feedback="random")
    grads_of = jax.jit(fixed.grads)
    key = jax.random.key(2)
    expected, _, info = jax.jit(given.grads)(key, params, lra_jax.EmptyState(), batch)
    grads, after, found = grads_of(key, params, weights_of(params, network), batch)
    assert_close((grads, found), (expected, info), 1e-4)
    assert_close(after, weights_of(params, network), 0)  # fixed
    # The control: others give something else.
    drawn = fixed.init(jax.random.key(3), params)
    other, _, _ = grads_of(key, params, drawn, batch)
    w, v = (jax.tree.leaves(rnn.cell_of(g))[0] for g in (other, expected))
    assert np.abs(w - v).max() > 0.1 * np.abs(v).max()


def test_fa_is_the_chain_of_bptt_with_random_feedback():
    params, batch = problem(networks.tanh())
    chain = lra_jax.bptt(
        feedback=lra_jax.Feedback(recurrent="random", readout="transpose")
    )
    state = chain.init(jax.random.key(3), params)
    results = [
        rule.grads(jax.random.key(2), params, state, batch)[0]
        for rule in (chain, lra_jax.fa())
    ]
    assert_close(*results, 0)
    assert_close(lra_jax.fa().init(jax.random.key(3), params), state, 0)


# A mirror.


def mirrored(choice, params, network, count, **options):
    """Feedback weights after some updates of theirs, forward weights fixed."""
    rule = lra_jax.bptt(feedback=choice, network=network)
    batch = TASK.sample(jax.random.key(1), options.get("B", B), T)

    @jax.jit
    def learn(state):
        def step(state, key):
            _, state, _ = rule.grads(key, params, state, batch)
            return state, diagnostics.feedback_errors(state, params, network)

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(4), count))

    return learn(rule.init(jax.random.key(3), params))


@pytest.mark.parametrize(("rate", "samples"), [(0.1, 200), (0.02, 50)])
def test_the_error_of_a_mirror_settles_where_theory_says(rate, samples):
    """‖A - Wᵀ‖ / ‖W‖ near √(H η / 2n), of an orthogonal W."""
    size = 32
    params = lra_jax.init_params(jax.random.key(0), TASK.input_size, size, 4)
    choice = lra_jax.Feedback(
        "mirror",
        "mirror",
        mirror_rate=rate,
        readout_mirror_rate=rate,
        mirror_samples=samples,
    )
    _, ((recurrent,), readout) = mirrored(choice, params, networks.tanh(), 600)
    expected = np.sqrt(size * rate / (2 * samples))
    for found in (recurrent, readout):
        assert found.relative[0] > 1
        settled = np.mean(found.relative[-200:])
        # Σ ξ² of a Gaussian is not 1 either: (H + 1) / H, and 1 / (1 - η/2).
        assert settled == pytest.approx(expected, rel=0.12)
        assert found.cosine[-1] > 1 - expected**2


def test_a_mirror_moves_by_its_rate_in_the_mean():
    """E[A] = (1-η) A + η Wᵀ, over 2,000 keys within five standard errors."""
    network = SEVERAL["leaky, lstm"]
    params, batch = problem(network)
    choice = lra_jax.Feedback(
        "mirror", "mirror", mirror_rate=0.3, readout_mirror_rate=0.5, mirror_samples=5
    )
    rule = lra_jax.bptt(feedback=choice, network=network)
    state = rule.init(jax.random.key(3), params)
    moved = jax.jit(jax.vmap(lambda key: rule.grads(key, params, state, batch)[1]))(
        jax.random.split(jax.random.key(4), 2000)
    )
    exact = weights_of(params, network)
    for rate, before, after, goal in (
        *zip((0.3, 0.3), state.a, moved.a, exact.a, strict=True),
        (0.5, state.e_y, moved.e_y, exact.e_y),
    ):
        error = np.std(after, axis=0) / np.sqrt(2000)
        expected = (1 - rate) * before + rate * goal
        assert np.all(np.abs(np.mean(after, axis=0) - expected) < 5 * error)
        assert error.max() < 0.1 * np.abs(goal).max()


def test_a_mirror_learns_from_the_noise_that_a_network_has():
    network = networks.leaky(alpha=0.5, noise=0.3)
    params, _ = problem(network)
    choice = lra_jax.Feedback(
        "mirror",
        "mirror",
        mirror_rate=0.02,
        readout_mirror_rate=0.02,
        mirror_source="network",
    )
    _, (recurrent, readout) = mirrored(choice, params, network, 500, B=64)
    for found in (*recurrent, readout):
        assert found.relative[0] > 1
        assert np.mean(found.relative[-100:]) < 0.2
        assert np.mean(found.cosine[-100:]) > 0.98


def test_a_mirror_stays_as_it_is_after_the_updates_asked_for():
    params, batch = problem(networks.tanh())
    choice = lra_jax.Feedback("mirror", "mirror", mirror_samples=5, mirror_updates=3)
    rule = lra_jax.lra_norm(feedback=choice)
    state, moves = rule.init(jax.random.key(3), params), []
    for i in range(5):
        before = state
        _, state, _ = rule.grads(jax.random.key(i), params, state, batch)
        moves.append(
            bool(np.any(before.a != state.a) and np.any(before.e_y != state.e_y))
        )
    assert moves == [True] * 3 + [False] * 2
    assert state.num_updates == 5


def test_an_update_goes_through_the_weights_before_they_learn():
    params, batch = problem(networks.tanh())
    made = (
        lra_jax.lra_norm(feedback=lra_jax.Feedback(*(way,) * 2, mirror_rate=0.5))
        for way in ("random", "mirror")
    )
    grads = [
        rule.grads(
            jax.random.key(2), params, rule.init(jax.random.key(3), params), batch
        )[0]
        for rule in made
    ]
    assert_close(*grads, 0)


def test_numbers_of_a_mirror_may_be_traced():
    params, batch = problem(networks.tanh())

    def relative(rate):
        choice = lra_jax.Feedback("mirror", "transpose", mirror_rate=rate)
        rule = lra_jax.bptt(feedback=choice)
        state = rule.init(jax.random.key(3), params)
        _, state, _ = rule.grads(jax.random.key(2), params, state, batch)
        (found,), _ = diagnostics.feedback_errors(state, params)
        return found.relative

    errors = jax.vmap(relative)(jnp.array([0.0, 0.5, 1.0]))
    assert np.all(np.diff(errors) < 0)
    assert errors[2] < 0.1


# Kolen-Pollack.


def trained(choice, optimizer, count=40):
    params, _ = problem(networks.tanh())
    rule = lra_jax.bptt(feedback=choice)
    state = lra_jax.init_train_state(jax.random.key(3), params, rule, optimizer)

    @jax.jit
    def train(state):
        def step(state, key):
            batch = TASK.sample(key, B, T)
            state, _ = lra_jax.train_step(state, batch, rule=rule, optimizer=optimizer)
            a, w = state.rule_state.a, state.params
            return state, (a, w.w_hh, state.rule_state.e_y, w.w_hy)

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(6), count))

    return state, train(state)[1]


def test_kolen_pollack_weights_come_together_by_the_decay():
    """A - Wᵀ of the weights that an update had shrinks by 1-κ, whatever is learned."""
    decay = 0.05
    optimizer = optax.chain(optax.sgd(0.1), optax.add_decayed_weights(-decay))
    choice = lra_jax.Feedback("kolen_pollack", "kolen_pollack", weight_decay=decay)
    start, (a, w_hh, e_y, w_hy) = trained(choice, optimizer)
    assert np.abs(w_hh[-1] - start.params.w_hh).max() > 0.1
    for feedback_weights, forward, first, first_forward in (
        (a, w_hh, start.rule_state.a, start.params.w_hh),
        (e_y, w_hy, start.rule_state.e_y, start.params.w_hy),
    ):
        # The state after update n knows of the change up to its beginning.
        before = np.concatenate([first_forward[None], forward[:-1]])
        gap = feedback_weights - np.swapaxes(before, 1, 2)
        shrunk = (1 - decay) ** np.arange(len(gap))
        expected = shrunk[:, None, None] * np.asarray(first - first_forward.T)
        np.testing.assert_allclose(gap, expected, rtol=0, atol=1e-5)


def test_without_a_decay_they_do_not():
    choice = lra_jax.Feedback("kolen_pollack", "kolen_pollack")
    start, (a, w_hh, *_) = trained(choice, optax.sgd(0.1))
    first = np.linalg.norm(start.rule_state.a - start.params.w_hh.T)
    assert np.linalg.norm(a[-1] - w_hh[-2].T) == pytest.approx(first, rel=1e-4)


@pytest.mark.parametrize("choice", ["mirror", lra_jax.Feedback("mirror", "mirror")])
def test_forward_rules_mirror_the_readout_of_a_network_of_ones_own(choice):
    """Its recurrent weights are not known, and nothing stands in their place."""
    own = networks.from_step(
        init=networks.relu().init, step=networks.relu().step, emit=networks.relu().emit
    )
    params, batch = problem(own)
    rule = lra_jax.rtrl(feedback=choice, network=own)
    state = rule.init(jax.random.key(3), params)
    assert state.a is None
    _, after, _ = rule.grads(jax.random.key(2), params, state, batch)
    before, moved = (
        diagnostics.feedback_errors(s, params, own)[1].relative for s in (state, after)
    )
    assert moved < 0.9 * before


# What is refused.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: lra_jax.bptt(feedback="miror"),
            "^feedback: expected one of 'transpose', .*; did you mean 'mirror'",
        ),
        (lambda: lra_jax.bptt(feedback=3), "^feedback: expected one of .* got 3"),
        (
            lambda: lra_jax.Feedback(readout="mirrors"),
            "^readout: expected one of .*; did you mean 'mirror'",
        ),
        (
            lambda: lra_jax.Feedback(mirror_rate=1.5),
            "^mirror_rate: expected a number from 0 to 1",
        ),
        (
            lambda: lra_jax.Feedback(mirror_samples=0),
            "^mirror_samples: expected an integer of at least 1",
        ),
        (
            lambda: lra_jax.lra_norm(
                feedback=lra_jax.Feedback("mirror", mirror_source="network")
            ),
            "^mirror_source: expected 'phase', as a network without noise",
        ),
        (
            lambda: lra_jax.bptt(
                feedback=lra_jax.Feedback("mirror", mirror_source="network"),
                network=networks.stack(networks.leaky(noise=0.1), networks.leaky()),
            ),
            "^mirror_source: expected 'phase', as the noise of a layer reaches many",
        ),
        (
            lambda: lra_jax.eprop(
                feedback=lra_jax.Feedback("mirror", "mirror", mirror_source="network"),
                network=networks.leaky(noise=0.1),
            ),
            "^mirror_source: expected 'phase', as a rule that runs forward",
        ),
        (
            lambda: lra_jax.lra_diff(gamma=1.0, lambda_=0.1, feedback="mirror"),
            "^lambda_: expected 0, as Ω asks for W_hhᵀ",
        ),
        (
            lambda: lra_jax.lra_norm(
                feedback="mirror",
                network=networks.from_step(
                    init=networks.tanh().init, step=networks.tanh().step
                ),
            ),
            "^network: expected tanh, .* have to be known, got step",
        ),
        (
            lambda: lra_jax.lra_fdbk(feedback="mirror", network=networks.gru()),
            "^network: expected tanh, relu or leaky, as lra_fdbk",
        ),
        (
            lambda: lra_jax.snap(
                network=networks.from_step(
                    init=networks.tanh().init, step=networks.tanh().step
                )
            ),
            "^network: expected tanh, .* whose traces are local, got step",
        ),
    ],
)
def test_what_cannot_be_is_refused_where_the_rule_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_mirror_learns_nothing_from_steps_before_a_start():
    network = networks.leaky(alpha=0.3, noise=0.1)
    params = lra_jax.init_params(jax.random.key(0), 3, 5, 2, network=network)
    params = params._replace(cell=params.cell._replace(b_h=params.cell.b_h + 0.3))
    inputs = jax.random.normal(jax.random.key(1), (8, 4, 3))
    place = rnn.run(
        params, inputs, network=network, started=None, key=jax.random.key(2)
    )
    choice = lra_jax.Feedback("mirror", "mirror", mirror_source="network")

    def measured(place, started):
        given = jax.random.key(3), choice, params, network, place, started
        return jax.tree.leaves(feedback._from_network(*given))

    silent = jax.tree.map(lambda x: jnp.zeros_like(x[:3]), place)
    silent = silent._replace(
        drive=jnp.broadcast_to(params.cell.b_h, silent.drive.shape), key=place.key[:3]
    )
    longer = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), silent, place)
    started = jnp.arange(11)[:, None] >= jnp.full((1, 4), 3)
    for one, other, wrong in zip(
        measured(place, None),
        measured(longer, started),
        measured(longer, None),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-5)
        assert np.abs(one - wrong).max() > 1e-2


@pytest.mark.parametrize("name", ["eprop", "rflo", "rtrl", "snap", "uoro"])
def test_feedback_of_recurrent_weights_alone_is_refused_where_there_are_none(name):
    with pytest.raises(ValueError, match="another readout than 'transpose'"):
        lra_jax.RULES[name](feedback=lra_jax.Feedback("random"))
