"""Labels with weights: against the NumPy oracle, autodiff and labels without them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import numpy_local_rules
from oracles import numpy_lra as oracle

import lra_jax
from x64.problems import (
    ALL_LOSSES,
    EVERY_STEP_LOSSES,
    Sizes,
    assert_close,
    distance,
    random_problem,
    run,
    update,
)

SIZES = Sizes(length=6, batch=3, inputs=4, hidden=5, outputs=3)
STARTS = np.array([1, 0, 3], np.int32)
OF_OUTPUTS = ("binary_cross_entropy_every_step", "squared_error_every_step")


def weighted_problem(seed, output, *, of_outputs=False, start=None):
    """Weights of 0 at about a third of the steps; sample 2 has them at one."""
    problem = random_problem(seed, SIZES, tokens=False)
    rng = np.random.default_rng([seed, 1])
    steps = (SIZES.length, SIZES.batch)
    shape = (*steps, SIZES.outputs)
    weights = rng.uniform(0.2, 3, size=shape if of_outputs else steps)
    weights[rng.random(weights.shape) < 1 / 3] = 0
    weights[:, -1] = 0
    weights[SIZES.length // 2, -1] = 0.7
    if start is not None:
        weights[np.arange(SIZES.length)[:, None] < start] = 0
    labels = {
        "binary_cross_entropy_every_step": rng.integers(2, size=shape) * 1.0,
        "squared_error_every_step": rng.normal(size=shape),
        "cross_entropy_every_step": rng.integers(SIZES.outputs, size=steps),
    }[output]
    return problem._replace(
        labels=oracle.Weighted(labels, weights), output=output, start=start
    )


PROBLEMS = {
    "keys": weighted_problem(1, "binary_cross_entropy_every_step"),
    "keys, outputs, starts": weighted_problem(
        2, "binary_cross_entropy_every_step", of_outputs=True, start=STARTS
    ),
    "classes, starts": weighted_problem(3, "cross_entropy_every_step", start=STARTS),
    "values": weighted_problem(4, "squared_error_every_step"),
    "values, outputs": weighted_problem(5, "squared_error_every_step", of_outputs=True),
}
problems = pytest.mark.parametrize("name", PROBLEMS)

NUMBERS = {"gamma": 2.0, "num_refinements": 1, "lambda_": 0.0, "c0": 0.0, "c1": 0.0}
SETTINGS = {
    "bptt": {"max_norm": 0.0},
    "eprop": {},
    "fa": {"max_norm": 0.0},
    "lra_diff": NUMBERS | {"num_refinements": 3, "lambda_": 0.5, "c1": 0.1},
    "lra_norm": {"exponent": 1.0, "activity": 0.02, "max_norm": 0.0},
    "random_error": {},
    "readout_only": {},
    "rflo": {},
    "rtrl": {},
    "snap": {},
    "tpri": {"target_lr": 0.5, "ridge": 0.5, "max_norm": 0.0},
    "tptt": {"target_lr": 1.0, "feedback_lr": 0.3, "w_xh_update": "bptt"},
    "uoro": {},
}
FORWARD = ("eprop", "rflo", "rtrl", "snap", "uoro")
rules = pytest.mark.parametrize("rule", SETTINGS)


def expected_of(function, problem, *first, **options):
    return function(
        problem.params,
        *first,
        problem.inputs,
        problem.labels,
        start=problem.start,
        output_loss=problem.oracle_loss,
        **options,
    )


def test_every_rule_that_takes_losses_of_every_step_is_here():
    assert set(SETTINGS) == {
        rule for rule in lra_jax.RULES if lra_jax.rule_card(rule).every_step
    }


# The losses.


@problems
def test_a_loss_is_the_weighted_mean_of_its_definition(name):
    problem = PROBLEMS[name]
    loss, of_step = problem.library_loss, problem.oracle_loss
    logits = np.random.default_rng(7).normal(size=(SIZES.length, SIZES.batch, 3)) * 3
    labels, weights = problem.labels
    values, pis = np.zeros(SIZES.batch), np.zeros_like(logits)
    for b in range(SIZES.batch):
        for t in range(SIZES.length):
            value, pi = problem.labels.output_at(logits[t, b], t, b, of_step)
            values[b] += value
            pis[t, b] = pi
    weighted = lra_jax.Weighted(jnp.asarray(labels), jnp.asarray(weights))
    assert distance(loss.value(logits, weighted), values) < 1e-14
    assert distance(loss.grad(jnp.asarray(logits), weighted), pis) < 1e-14
    found = jax.grad(lambda x: jnp.sum(loss.value(x, weighted)))(jnp.asarray(logits))
    assert distance(found, pis) < 1e-14
    # Where nothing is asked, logits and labels may be anything.
    nothing = np.broadcast_to(
        weights == 0 if weights.ndim == labels.ndim else (weights == 0)[..., None],
        labels.shape,
    )
    other = weighted._replace(labels=np.where(nothing, -7, labels))
    np.testing.assert_array_equal(
        loss.value(logits, other), loss.value(logits, weighted)
    )


@pytest.mark.parametrize("factor", [1e-3, 1.0, 50.0])
@problems
def test_weights_count_up_to_a_factor(name, factor):
    problem = PROBLEMS[name]
    labels, weights = problem.labels
    other = problem._replace(labels=oracle.Weighted(labels, factor * weights))
    grads, _ = run(lra_jax.bptt, problem, max_norm=0.0)
    assert_close(run(lra_jax.bptt, other, max_norm=0.0)[0], grads, 1e-13)


def test_equal_weights_of_outputs_are_weights_of_the_step():
    for name in ("keys", "values"):
        problem = PROBLEMS[name]
        labels, weights = problem.labels
        spread = np.repeat(weights[..., None], SIZES.outputs, axis=2)
        other = problem._replace(labels=oracle.Weighted(labels, spread))
        found, expected = (run(lra_jax.bptt, p, max_norm=0.0) for p in (other, problem))
        assert_close(found[0], expected[0], 1e-13)
        assert distance(found[1].loss, expected[1].loss) < 1e-14


# Rules.


@problems
def test_bptt_is_the_gradient_of_the_weighted_loss(name):
    problem = PROBLEMS[name]
    params, batch = problem.library
    loss = problem.library_loss

    def mean_loss(params):
        trace = lra_jax.forward(
            params, batch.inputs, start=batch.start, every_step=True
        )
        return jnp.mean(loss.value(trace.logits, batch.labels))

    grads, info = run(lra_jax.bptt, problem, max_norm=0.0)
    assert_close(grads, jax.jit(jax.grad(mean_loss))(params), 1e-12)
    expected = expected_of(oracle.bptt, problem)
    assert_close(grads, expected.grads, 1e-12)
    assert distance(info.loss, expected.info.loss) < 1e-12
    exact, info = run(lra_jax.rtrl, problem, max_norm=0.0)
    assert_close(exact, grads, 1e-12)
    assert distance(info.loss, expected.info.loss) < 1e-12


@problems
def test_rules_equal_the_oracle(name):
    problem = PROBLEMS[name]
    grads, info = run(lra_jax.lra_diff, problem, **SETTINGS["lra_diff"])
    expected = expected_of(oracle.lra_diff, problem, **SETTINGS["lra_diff"])
    assert_close(grads, expected.grads)
    assert_close(info, expected.info)
    for rule in ("fa", "lra_norm", "tpri"):
        grads, info, before, _ = update(lra_jax.RULES[rule], problem, **SETTINGS[rule])
        state = tuple(np.asarray(w) for w in jax.tree.leaves(before))
        expected, _ = expected_of(
            getattr(numpy_local_rules, rule), problem, state, **SETTINGS[rule]
        )
        assert_close(grads, expected.grads)
        assert_close(info, expected.info)


@functools.cache
def plain_and_weighted(output):
    """Labels below 0 at some steps, and the same asked by weights of 1 and 0."""
    problem = weighted_problem(6, output, start=STARTS)
    labels, weights = problem.labels
    asked = weights > 0
    shown = asked if labels.ndim == 2 else asked[..., None]
    # What stands at a weight of 0 is no label.
    labels = np.where(shown, labels, 5)
    weighted = oracle.Weighted(labels, asked * 1.0)
    return (
        problem._replace(labels=np.where(shown, labels, -1)),
        problem._replace(labels=weighted),
    )


@pytest.mark.parametrize("output", EVERY_STEP_LOSSES)
@rules
def test_weights_of_1_and_0_are_labels_that_ask_or_not(rule, output):
    expected, found = (
        update(lra_jax.RULES[rule], problem, **SETTINGS[rule])
        for problem in plain_and_weighted(output)
    )
    tolerance = 1e-10 if rule == "lra_diff" else 1e-13  # Ω divides by small norms
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.max(np.abs(b)))


@pytest.mark.parametrize("name", ["keys, outputs, starts", "values"])
@pytest.mark.parametrize("rule", FORWARD)
def test_pieces_of_a_sequence_add_up_to_it(rule, name):
    """Without a step of the weights in between; the denominator is the sequence's."""
    problem = PROBLEMS[name]
    params, batch = problem.library
    made = lra_jax.RULES[rule](output_loss=problem.library_loss)
    state = made.init(jax.random.key(0), params)
    pieces = made.stream.cut(batch, 2)
    carry, total, loss = made.stream.begin(params, batch), None, 0.0
    for i in range(3):
        piece = jax.tree.map(lambda x: x[i], pieces)  # noqa: B023
        assert piece.labels.weights.shape[0] == 2
        grads, state, carry, info = made.stream.grads(
            jax.random.key(i), params, state, carry, piece
        )
        total = grads if total is None else jax.tree.map(jnp.add, total, grads)
        loss += info.loss
    whole, _, info = made.grads(jax.random.key(0), params, state, batch)
    assert distance(loss, info.loss) < 1e-13
    if rule == "uoro":  # its own randomness differs
        assert distance(total.w_hy, whole.w_hy) < 1e-12
    else:
        assert_close(total, whole, 1e-12)


@pytest.mark.parametrize("value", [np.nan, -0.5, np.inf])
@pytest.mark.parametrize("name", ["keys, outputs, starts", "values", "classes, starts"])
@rules
def test_a_weight_that_is_none_makes_all_gradients_nan(rule, name, value):
    problem = PROBLEMS[name]
    params, batch = problem.library
    weights = batch.labels.weights.at[4, 1].set(value)
    made = lra_jax.RULES[rule](
        **SETTINGS[rule] if rule == "lra_diff" else {}, output_loss=problem.library_loss
    )
    state = made.init(jax.random.key(0), params)
    sick = batch._replace(labels=batch.labels._replace(weights=weights))
    grads, _, info = made.grads(jax.random.key(1), params, state, sick)
    assert np.isnan(info.loss)
    assert np.all(np.isnan(grads.b_y))
    if rule != "readout_only":
        assert np.all(np.isnan(grads.w_hh))
    metrics = lra_jax.evaluate(params, sick, output_loss=problem.library_loss)
    assert np.isnan(metrics.loss)
    sure = ALL_LOSSES[problem.output][0].is_error(
        jnp.zeros((SIZES.length, SIZES.batch, SIZES.outputs)), sick.labels
    )
    assert sure[1]
