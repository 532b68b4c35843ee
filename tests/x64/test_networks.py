"""Any network: what is derived of it is what closed forms, autodiff and NumPy say."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from network_cases import (
    MASK,
    NETWORKS,
    SIGNS,
    derived_tanh,
    random_batch,
    random_params,
)
from oracles import numpy_local_rules, numpy_networks
from oracles import numpy_lra as oracle

import lra_jax
from lra_jax import (
    error_signals,
    gradients,
    losses,
    networks,
    numerics,
    regularizer,
    rnn,
    targets,
)
from lra_jax.networks.network import Term
from x64.problems import Sizes, distance, random_problem

TANH, DERIVED = networks.tanh(), derived_tanh()
STARTS = np.array([1, 0, 3], np.int32)
all_networks = pytest.mark.parametrize("name", NETWORKS)


def as_cell(params):
    return networks.LayerCell(params.w_xh, params.w_hh, params.b_h)


def of_derived(params):
    """`Params` as the derived network has them."""
    return lra_jax.NetworkParams(as_cell(params), params.w_hy, params.b_y)


def assert_trees_close(actual, expected, tolerance):
    """Each array to `tolerance`, relative to its largest entry."""
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    for a, b in zip(actual, expected, strict=True):
        if np.any(b):
            assert distance(a, b) <= tolerance
        else:
            assert np.max(np.abs(a), initial=0) <= tolerance


# Five questions.


@given(
    sizes=st.sampled_from([(3, 4, 5), (1, 1, 1), (2, 6, 1), (4, 1, 6)]),
    seed=st.integers(0, 2**32 - 1),
    decade=st.floats(-20, 1),
    symbols=st.booleans(),
    as_params=st.booleans(),
)
@settings(max_examples=40)
def test_each_question_derived_is_its_closed_form(
    sizes, seed, decade, symbols, as_params
):
    batch, inputs, hidden = sizes
    rng = np.random.default_rng(seed)
    params = lra_jax.Params(
        *map(jnp.asarray, random_problem(seed, Sizes(1, batch, inputs, hidden)).params)
    )
    p = params if as_params else as_cell(params)
    x = (
        rng.integers(inputs, size=batch)
        if symbols
        else rng.normal(size=(batch, inputs))
    )
    s, q, e = (jnp.asarray(rng.normal(size=(batch, hidden))) for _ in range(3))
    d = jnp.asarray(10.0**decade * rng.normal(size=(batch, hidden)))
    x = jnp.asarray(x)

    def both(question, *arguments):
        closed = getattr(TANH, question)(p, *arguments)
        return closed, getattr(DERIVED, question)(as_cell(params), *arguments)

    for question, arguments in {"pull": (s, x, q), "slope": (s, e)}.items():
        closed, derived = both(question, *arguments)
        assert distance(closed, derived) < 1e-12, question
    closed, derived = both("weigh", s, x, q)
    assert type(closed) is type(p)
    if as_params:
        assert not np.any(closed.w_hy)
        assert not np.any(closed.b_y)
        closed = as_cell(closed)
    assert_trees_close(closed, derived, 1e-12)
    # A displacement is known to 1e-10 of its own size, however small it is.
    size = np.max(np.abs(d), axis=1)
    for question, arguments in {"gap": (s, d), "move": (s, x, d)}.items():
        closed, derived = both(question, *arguments)
        error = np.max(np.abs(closed - derived), axis=1)
        assert np.all(error <= 1e-10 * size * max(1, np.abs(params.w_hh).max())), (
            question
        )


def test_a_direct_difference_is_no_question_for_small_displacements():
    """What `difference` is for: of d = 1e-13 it has ten digits more."""
    s, d = jnp.full((1, 3), 0.7), jnp.full((1, 3), 1e-13)
    exact = TANH.gap(None, s, d)
    assert distance(DERIVED.gap(None, s, d), exact) < 1e-10
    assert distance(jnp.tanh(s) - jnp.tanh(s - d), exact) > 1e-4


def test_questions_of_all_steps_at_once_are_those_of_each():
    s, d = (jax.random.normal(jax.random.key(i), (4, 3, 2)) for i in range(2))
    for question in ("slope", "gap"):
        ask = getattr(DERIVED, question)
        each = jnp.stack([ask(None, *here) for here in zip(s, d, strict=True)])
        assert distance(ask(None, s, d), each) < 1e-14


# Ω in general.


def omega_by_hand(network, p, s_prev, x, u):
    """(‖v‖/‖u‖ - 1)² of each sample, by the Jacobian of a step, and ρ."""
    jacobian = jax.jacobian(lambda s: network.step(p, s, x))(s_prev)  # [B, D, B, D]
    v = jnp.einsum("bibj,bi->bj", jacobian, u)
    rho = jnp.linalg.norm(v, axis=1) / jnp.linalg.norm(u, axis=1)
    return (rho - 1) ** 2, rho


def quotient(f, x, along):
    """The derivative of f at a pytree x along another, by a difference quotient."""
    step = 1e-5

    def at(h):
        return f(jax.tree.map(lambda a, b: a + h * b, x, along))

    return (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step)


@pytest.mark.parametrize(
    "name", ["tanh", "leaky sigmoid, Dale", "lstm", "leaky, gru", "own", "flax GRUCell"]
)
def test_omega_and_its_gradients_are_difference_quotients(name):
    """Through the step before as well, whose state is a function of the weights."""
    network = NETWORKS[name]
    params = random_params(network)
    p = rnn.cell_of(params)
    batch = random_batch(vectors=True)
    place = error_signals.run_forward(
        params, batch, lra_jax.cross_entropy, network
    ).place
    before, here = (jax.tree.map(lambda x, t=t: x[t], place) for t in (2, 3))
    u = jax.random.normal(jax.random.key(7), here.s.shape)
    weight = jnp.array([[0.3], [1.0], [2.0]])

    @jax.jit
    def ask(p):
        v, omega = network.norm_preservation(p, here.s_prev, here.x, u)
        term = Term(here, jnp.zeros_like(u), before, omega.times(weight))
        units, scales = network.weigh_term(p, term)
        return v, omega, jax.tree.map(jnp.multiply, units, scales)

    @jax.jit
    def total(p, s_prev):
        s_prev = s_prev + network.step(p, before.s_prev, before.x)
        value, _ = omega_by_hand(network, p, s_prev, here.x, u)
        return jnp.sum(weight[:, 0] * value) / len(value)

    v, omega, weights = ask(p)
    value, rho = omega_by_hand(network, p, here.s_prev, here.x, u)
    assert distance(omega.value, value) < 1e-12
    assert distance(omega.rho[:, 0], rho) < 1e-12
    assert distance(v, network.pull(p, here.s_prev, here.x, u)) < 1e-13
    along = random_params(network, seed=3)
    along = rnn.cell_of(along)
    expected = quotient(lambda p: total(p, jnp.zeros_like(here.s)), p, along)
    found = sum(map(jnp.vdot, jax.tree.leaves(weights), jax.tree.leaves(along)))
    assert distance(found, expected) < 1e-8
    direction = jax.random.normal(jax.random.key(8), here.s.shape)
    expected = quotient(lambda s: total(p, s), jnp.zeros_like(here.s), direction) * len(
        u
    )
    assert distance(jnp.vdot(weight * omega.a, direction), expected) < 1e-8


def test_omega_of_a_vanished_error_is_nothing():
    p, s = as_cell(random_params(TANH)), jnp.ones((2, 5))
    u = jnp.stack([jnp.zeros(5), jnp.ones(5)])
    for network in (TANH, DERIVED):
        _, omega = network.norm_preservation(p, s, jnp.array([0, 1]), u)
        assert omega.value[0] == 0
        assert omega.rho[0, 0] == 1
        assert not np.any(omega.a[0])
        assert np.all(np.abs(omega.a[1]) > 1e-6)


@given(seed=st.integers(0, 2**32 - 1), decade=st.floats(-25, 5))
@settings(max_examples=20)
def test_omega_in_general_is_the_closed_form_of_tanh(seed, decade):
    """At every scale of u; and its weights' gradients, with an error beside them."""
    params = random_params(TANH, seed % 1000)
    p = as_cell(params)
    rng = np.random.default_rng(seed)
    s, u, q = (jnp.asarray(rng.normal(size=(3, 5))) for _ in range(3))
    u, x = 10.0**decade * u, jnp.asarray(rng.integers(6, size=3))
    place = networks.network.Place(x, jnp.tanh(s), s_prev=s, s=s, z=s)
    before = networks.network.Place(x[::-1], jnp.tanh(q), s_prev=q, s=q, z=q)
    (v, closed), (v_derived, derived) = (
        network.norm_preservation(p, s, x, u) for network in (TANH, DERIVED)
    )
    assert distance(v_derived, v) < 1e-12
    assert distance(derived.value, closed.value) < 1e-11
    assert distance(derived.rho, closed.rho) < 1e-12
    assert distance(derived.a, closed.a) < 1e-10
    for error in (jnp.zeros_like(q), q):
        grads = [
            jax.tree.map(
                jnp.multiply, *network.weigh_term(p, Term(place, error, before, omega))
            )
            for network, omega in ((TANH, closed), (DERIVED, derived))
        ]
        assert_trees_close(grads[1], grads[0], 1e-10)


@pytest.mark.parametrize(("name", "is_bptt"), [("gru", True), ("tanh", False)])
def test_lra_is_bptt_where_the_state_is_what_is_emitted(name, is_bptt):
    """K = 1, γ = H/2, no bounds: e is d, so that each step hands on BPTT's error."""
    network = NETWORKS[name]
    params, batch = random_params(network), random_batch()
    size = params.w_hy.shape[0]
    rules = (
        lra_jax.lra_diff(gamma=size / 2, network=network),
        lra_jax.bptt(network=network),
    )
    found, expected = (
        rule.grads(jax.random.key(1), params, lra_jax.EmptyState(), batch)[0]
        for rule in rules
    )
    apart = [
        distance(a, b)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    ]
    assert (max(apart) < 1e-12) == is_bptt


# Gradients of the weights, of all steps together.


@all_networks
@pytest.mark.parametrize("seq_len", [1, 3, 8, 11])
def test_steps_together_are_the_sum_of_single_steps(name, seq_len, monkeypatch):
    """Of derived networks in pieces of at least three steps, the first one longer."""
    monkeypatch.setattr(networks.network, "STEPS_AT_ONCE", 3)
    network, keys = NETWORKS[name], jax.random.split(jax.random.key(seq_len), 3)
    params = random_params(network)
    cell = rnn.cell_of(params)
    inputs = jax.random.randint(keys[0], (seq_len, 4), 0, 6)
    start = jnp.arange(4) % min(seq_len, 2)
    place = error_signals.run_forward(
        params,
        lra_jax.Batch(inputs, jnp.zeros(4, jnp.int32), start),
        lra_jax.cross_entropy,
        network,
        keys[1],
    ).place
    q = jax.random.normal(keys[2], place.s.shape)
    q = q * 10.0 ** -jnp.arange(seq_len)[:, None, None]
    found = jax.jit(gradients.sum_at_once, static_argnums=0)(network, cell, place, q)
    steps = [
        jax.tree.map(
            lambda w: w / 4,
            network.weigh(
                cell,
                place.s_prev[t],
                place.x[t],
                q[t],
                z_prev=place.z_prev[t],
                key=None if place.key is None else place.key[t],
            ),
        )
        for t in range(seq_len)
    ]
    assert_trees_close(found.grads, jax.tree.map(lambda *w: sum(w), *steps), 1e-13)
    norms = jax.tree.map(lambda *w: jnp.stack([jnp.linalg.norm(x) for x in w]), *steps)
    assert_trees_close(found.norms, norms, 1e-13)
    wrong = gradients.sum_at_once(network, cell, place, q[::-1]).grads
    apart = [
        distance(a, b)
        for a, b in zip(*map(jax.tree.leaves, (wrong, found.grads)), strict=True)
    ]
    assert seq_len == 1 or max(apart) > 0.1


# Rules on tanh, and on the same network derived.

RULES = {
    "bptt": [{}, {"max_norm": 0.1}],
    "dfa": [{}, {"readout": "transpose"}],
    "lra_diff": [
        {"gamma": 4.0},
        {"gamma": 4.0, "num_refinements": 3, "lambda_": 0.1, "c0": 0.1, "c1": 0.1},
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
        {
            "gamma": 4.0,
            "update_first_step": False,
            "descend_local_loss": False,
            "lambda_": 1.0,
            "schedule": "shrinkage",
            "reduction": "sum",
        },
        {"gamma": 4.0, "lambda_": 1.0, "schedule": "error_ratio"},
    ],
    "lra_e": [{"feedback_lr": 0.1}],
    "lra_fdbk": [{"gamma": 4.0, "c1": 0.1}],
    "lra_norm": [{}, {"exponent": 0.5, "activity": 0.0}],
    "readout_only": [{}],
    "rec_lra": [{"num_steps_per_skip": 2}],
}
CASES = [
    (rule, options, kind)
    for rule, all_options in RULES.items()
    for options in all_options
    for kind in ("plain", "starts, vectors", "every step")
    if kind != "every step" or lra_jax.rule_card(rule).every_step
]


def problem_of(kind):
    if kind != "every step":
        problem = random_problem(1, Sizes(5, 3, 4, 5, 3), tokens=kind == "plain")
        return problem._replace(start=None if kind == "plain" else STARTS)
    problem = random_problem(2, Sizes(5, 3, 4, 5, 3))
    labels = np.array([[0, -1, 2], [-1, 1, 1], [2, -1, -1], [1, 0, -1], [0, 0, 2]])
    return problem._replace(labels=labels, output="cross_entropy_every_step")


def by_oracle(rule, problem, state, options):
    arguments = (problem.inputs, problem.labels, problem.start)
    options = options | {"output_loss": problem.oracle_loss}
    if hasattr(oracle, rule):
        return getattr(oracle, rule)(problem.params, *arguments, **options)
    if rule in ("dfa", "lra_e", "lra_fdbk", "rec_lra"):  # they know no other loss
        del options["output_loss"]
    flat = tuple(map(np.asarray, jax.tree.leaves(state)))
    run = getattr(numpy_local_rules, rule)
    return run(problem.params, flat, *arguments, **options)[0]


@pytest.mark.parametrize(("rule", "options", "kind"), CASES, ids=str)
def test_rules_on_tanh_derived_are_those_on_tanh_and_the_oracle(rule, options, kind):
    problem = problem_of(kind)
    params, batch = problem.library

    def update(network, params):
        made = lra_jax.RULES[rule](
            **options, output_loss=problem.library_loss, network=network
        )
        before = made.init(jax.random.key(5), params)
        grads, after, info = jax.jit(made.grads)(
            jax.random.key(6), params, before, batch
        )
        return before, (grads, after, info.local_loss, info.target_step_norm)

    state, closed = update(TANH, params)
    _, derived = update(DERIVED, of_derived(params))
    assert_trees_close(derived, closed, 1e-12)
    expected = by_oracle(rule, problem, state, options)
    assert_trees_close(derived[0], expected.grads, 1e-10)


def test_the_cost_of_activity_descends_half_the_square_of_z():
    """Of tanh ½‖h‖² where states are small: its direction is z, and not ∂z/∂s z."""
    s = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)))
    unsaid = dataclasses.replace(DERIVED, activity_of=None)
    for network in (unsaid, NETWORKS["lstm"], NETWORKS["gru"]):
        half = jax.grad(lambda s, n=network: jnp.sum(n.emit(None, s) ** 2) / 2)(s)
        found = network.activity(None, s, network.emit(None, s))
        assert distance(found, half) < 1e-14
    for network in (TANH, DERIVED):
        found = network.activity(None, s, jnp.tanh(s))
        assert distance(found, jnp.tanh(s)) == 0
        assert distance(unsaid.activity(None, s, jnp.tanh(s)), found) > 0.01


# bptt is the gradient.


@all_networks
def test_bptt_is_automatic_differentiation(name):
    """With starts; the noise of a step is that of the forward pass with the same key."""
    network = NETWORKS[name]
    params = random_params(network)
    batch = random_batch(start=STARTS)
    key = jax.random.key(3)

    @jax.jit
    def both(params):
        rule = lra_jax.bptt(network=network)

        def loss(params, noise):
            logits = lra_jax.forward(
                params, batch.inputs, start=batch.start, network=network, key=noise
            ).logits
            return jnp.mean(lra_jax.cross_entropy.value(logits, batch.labels))

        noise = jax.random.fold_in(key, error_signals.NOISE)
        found, _, info = rule.grads(key, params, lra_jax.EmptyState(), batch)
        exact, without = (jax.value_and_grad(loss)(params, k) for k in (noise, None))
        return (info.loss, found), exact, without

    found, exact, without = both(params)
    assert_trees_close(found, exact, 1e-12)
    other = distance(without[0], exact[0])
    assert (other > 1e-4) if network.is_noisy else (other == 0)


# First order: lra_diff with K = 1 is a chain of pulls.


@functools.cache
def first_order(name, scale):
    """The displacements d [T,B,D] of lra_diff, and the first-order theory of them.

    d_{T-1} = γ Jᵀ π W_hyᵀ,   u_t = 2s J_tᵀ J_t d_t,   d_{t-1} = γ A_tᵀ u_t
    with J_t = ∂z_t/∂s_t and A_t = ∂s_t/∂s_{t-1}, here as matrices of each sample.
    """
    network = NETWORKS[name]
    params = random_params(network)
    params = params._replace(w_hy=scale * params.w_hy)
    batch = random_batch()
    gamma, hidden = 2.0, params.w_hy.shape[0]
    step = targets.TargetStep(
        gamma=jnp.asarray(gamma),
        num_refinements=1,
        lambda_=None,
        schedule=regularizer.SCHEDULES["constant"],
        local_loss=losses.mse,
        scale=1 / hidden,
        normalize=functools.partial(numerics.clip, c=0.0, axis=-1),
        refinement="fixed",
    )

    @jax.jit
    def run(params):
        forward = error_signals.run_forward(
            params, batch, lra_jax.cross_entropy, network
        )
        found = targets.propagate(forward, batch.labels, lra_jax.cross_entropy, step)
        p, place = forward.cell, forward.place

        def of_sample(s, s_prev, x):
            jacobian = jax.jacobian(lambda s: network.emit(p, s[None])[0])(s)
            return jacobian, jax.jacobian(
                lambda s: network.step(p, s[None], x[None])[0]
            )(s_prev)

        pi = forward.pi @ params.w_hy.T
        jacobians = jax.vmap(jax.vmap(of_sample))(place.s, place.s_prev, place.x)
        return found.d, found.u, pi, jacobians

    d, u, pi, (emit, back) = jax.device_get(run(params))
    d_theory, u_theory = np.zeros_like(d), np.zeros_like(u)
    for b in range(d.shape[1]):
        d_theory[-1, b] = gamma * emit[-1, b].T @ pi[b]
        for t in reversed(range(len(d))):
            e = emit[t, b] @ d_theory[t, b]
            u_theory[t, b] = 2 / hidden * emit[t, b].T @ e
            if t:
                d_theory[t - 1, b] = gamma * back[t, b].T @ u_theory[t, b]
    errors = [
        np.max(np.abs(a - b), axis=(1, 2)) / np.max(np.abs(b), axis=(1, 2))
        for a, b in ((d, d_theory), (u, u_theory))
    ]
    return np.max(errors)


@all_networks
def test_small_displacements_follow_the_first_order_chain(name):
    assert first_order(name, 1e-7) < 1e-6


@pytest.mark.parametrize("name", ["leaky", "two tanh", "own"])
def test_the_second_order_is_of_the_displacements_size(name):
    large, small = (first_order(name, scale) for scale in (1e-2, 1e-3))
    assert large > 1e-5
    assert 5 < large / small < 20


# NumPy loops over equations that are written by hand.


ORACLES = {
    "leaky": (
        networks.leaky(alpha=0.4),
        lambda cell: numpy_networks.Leaky(cell, 0.4, "tanh"),
    ),
    "leaky sigmoid, Dale, mask": (
        networks.leaky(alpha=0.3, nonlinearity="sigmoid", dale=SIGNS, mask=MASK),
        lambda cell: numpy_networks.Leaky(cell, 0.3, "sigmoid", SIGNS, MASK),
    ),
    "leaky softplus": (
        networks.leaky(alpha=0.7, nonlinearity="softplus"),
        lambda cell: numpy_networks.Leaky(cell, 0.7, "softplus"),
    ),
    "two tanh": (
        networks.stack(networks.tanh(), networks.tanh()),
        numpy_networks.TwoLayers,
    ),
}
ORACLE_RULES = [
    ("bptt", {}),
    ("lra_norm", {"activity": 0.3}),
    ("lra_norm", {"exponent": 0.6, "activity": 0.0}),
    ("lra_diff", {"gamma": 3.0, "num_refinements": 2}),
    ("lra_diff", {"gamma": 3.0, "num_refinements": 2, "c1": 0.05}),
]


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize(("rule", "numbers"), ORACLE_RULES, ids=str)
def test_networks_against_loops_in_numpy(name, rule, numbers):
    network, twin = ORACLES[name]
    params = random_params(network)
    batch = random_batch(vectors=True)
    cells = params.cell if isinstance(params.cell[0], tuple) else (params.cell,)
    cells = [numpy_networks.Layer(*map(np.asarray, cell)) for cell in cells]
    by_hand = twin(*cells)
    readout = numpy_networks.Readout(*map(np.asarray, params[1:]))
    inputs, labels = np.asarray(batch.inputs), np.asarray(batch.labels)

    trace = lra_jax.forward(params, batch.inputs, network=network)
    for b in range(inputs.shape[1]):
        s, z = numpy_networks.forward(by_hand, inputs[:, b])
        assert distance(trace.h[:, b], s) < 1e-13
        assert distance(trace.z[:, b], z) < 1e-13

    made = lra_jax.RULES[rule](**numbers, network=network)
    run = jax.jit(made.grads)
    grads, _, info = run(jax.random.key(0), params, lra_jax.EmptyState(), batch)
    errors = getattr(numpy_networks, rule)
    loss, layers, output = numpy_networks.gradients(
        errors, by_hand, readout, inputs, labels, **numbers
    )
    assert float(info.loss) == pytest.approx(loss, rel=1e-13)
    assert_trees_close(grads, (layers, output), 1e-10)


# Training can be differentiated.

NUMBERS = {
    "lra_diff": {"gamma": 2.0},
    "lra_norm": {"exponent": 0.7, "activity": 0.2},
    "fa": {"max_norm": 0.5},
}


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ("lra_diff", "leaky, traced"),
        ("lra_norm", "own"),
        ("fa", "gru"),
        pytest.param("lra_diff", "gru", marks=pytest.mark.slow),
        pytest.param("lra_diff", "own", marks=pytest.mark.slow),
        pytest.param("lra_norm", "leaky, traced", marks=pytest.mark.slow),
        pytest.param("lra_norm", "gru", marks=pytest.mark.slow),
        pytest.param("fa", "leaky, traced", marks=pytest.mark.slow),
    ],
)
def test_two_updates_can_be_differentiated_in_both_modes(rule, name):
    """In lr and the rule's numbers, and in numbers of the network."""
    traced = {"alpha": 0.4, "noise": 0.3} if name == "leaky, traced" else {}
    make = {
        "gru": networks.gru,
        "leaky, traced": networks.leaky,
        "own": lambda: NETWORKS["own"],
    }[name]
    numbers = NUMBERS[rule]
    # Ω with a derivative of its own, where time is given to it.
    static = {"num_refinements": 2} if rule == "lra_diff" else {}
    if (rule, name) == ("lra_diff", "gru"):
        static["lambda_"] = 0.1
    params = random_params(make(**traced))
    batch = random_batch(4, start=STARTS)

    def after(values):
        lr, *rest = values
        named = dict(zip([*numbers, *traced], rest, strict=True))
        network = make(**{k: named.pop(k) for k in traced})
        choice = {
            "rule": lra_jax.RULES[rule](**named, **static, network=network),
            "optimizer": optax.sgd(lr),
        }
        state = lra_jax.init_train_state(jax.random.key(2), params, **choice)

        def update(state, _):
            state, info = lra_jax.train_step(state, batch, **choice)
            return state, info.loss

        state, _ = jax.lax.scan(update, state, length=2)
        return lra_jax.evaluate(state.params, batch, network=network).loss

    values = jnp.array([0.5, *numbers.values(), *traced.values()])
    eye = jnp.eye(len(values))

    @jax.jit
    def all_of_it(values):
        step = 2e-4
        moves = jnp.array([-2.0, -1.0, 1.0, 2.0])[:, None, None] * step * eye[None]
        points = (values[None, None] + moves).reshape(-1, len(values))
        found = jax.lax.map(after, points).reshape(4, -1)
        weights = jnp.array([1.0, -8.0, 8.0, -1.0]) / (12 * step)
        forward = jax.lax.map(lambda v: jax.jvp(after, (values,), (v,))[1], eye)
        return forward, jax.grad(after)(values), weights @ found

    forward, reverse, expected = all_of_it(values)
    assert abs(expected[0]) > 1e-4  # something is learned
    np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(forward, expected, rtol=1e-6, atol=1e-8)


# Types.


def test_a_cell_whose_state_has_another_type_is_refused():
    """Flax's SimpleCell computes in float32, whatever its weights are."""
    from flax import nnx

    def make(input_size, hidden_size, rngs):
        return nnx.SimpleCell(
            input_size, hidden_size, rngs=rngs, param_dtype=jnp.float64
        )

    network = networks.from_flax(make)
    params = lra_jax.init_params(jax.random.key(0), 6, 5, 4, network=network)
    batch = random_batch()
    message = (
        r"^network: expected a step of from_flax to return the next state, float64 "
        r"\[B, D\] = \(3, 5\) like the weights of the readout and the state before, "
        r"got float32 \(3, 5\)"
    )
    with pytest.raises(ValueError, match=message):
        lra_jax.forward(params, batch.inputs, network=network)
    with pytest.raises(ValueError, match=message):
        lra_jax.evaluate(params, batch, network=network)
