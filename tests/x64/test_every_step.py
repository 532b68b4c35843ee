"""Losses of every step and starts against the NumPy oracle and autodiff, in float64.

docs/every_step.md has the equations.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import numpy_local_rules
from oracles import numpy_lra as oracle

import lra_jax
from lra_jax import error_signals, losses, numerics, regularizer, targets
from lra_jax.rules.tptt import sample_noise
from x64.problems import (
    EVERY_STEP_LOSSES,
    Sizes,
    assert_close,
    distance,
    random_problem,
    run,
    update,
)

SIZES = Sizes(length=5, batch=3, inputs=4, hidden=5, outputs=3)
STARTS = np.array([1, 0, 3], np.int32)
HIDDEN_GRADS = ("w_xh", "w_hh", "b_h")


def every_step_problem(seed, output, *, start=None, tokens=False, sizes=SIZES):
    """Labels at about two of three steps; sample 1 has a step more, sample 2 one."""
    problem = random_problem(seed, sizes, tokens=tokens)
    rng = np.random.default_rng([seed, 1])
    shape = (sizes.length, sizes.batch)
    asked = rng.random(shape) < 2 / 3
    asked[:, -1] = False
    asked[sizes.length // 2, -1] = True
    if start is not None:
        asked &= np.arange(sizes.length)[:, None] >= start
    if output == "binary_cross_entropy_every_step":
        keys = rng.integers(2, size=(*shape, sizes.outputs))
        labels = np.where(asked[..., None], keys, -1).astype(np.float64)
    else:
        labels = np.where(asked, rng.integers(sizes.outputs, size=shape), -1)
    return problem._replace(labels=labels, output=output, start=start)


PROBLEMS = {
    "keys": every_step_problem(1, "binary_cross_entropy_every_step"),
    "classes, symbols": every_step_problem(2, "cross_entropy_every_step", tokens=True),
    "keys, starts": every_step_problem(
        3, "binary_cross_entropy_every_step", start=STARTS
    ),
    "last step, starts": random_problem(4, SIZES, tokens=False)._replace(start=STARTS),
    "last step, starts, symbols": random_problem(5, SIZES)._replace(start=STARTS),
}
problems = pytest.mark.parametrize("name", PROBLEMS)

# Rule to the settings that are compared with the oracle.
NUMBERS = {"gamma": 2.0, "num_refinements": 1, "lambda_": 0.0, "c0": 0.0, "c1": 0.0}
LRA_DIFF = [
    NUMBERS,
    NUMBERS | {"num_refinements": 3, "c1": 0.1, "c0": 0.2},
    NUMBERS | {"num_refinements": 2, "lambda_": 0.5, "c1": 0.3},
]
LRA_DIFF_CHOICES = [
    {},
    {"local_loss": "log_penalty", "refinement": "overwrite", "schedule": "error_ratio"},
    {"reduction": "sum", "update_first_step": False, "schedule": "matched"},
]
LOCAL_RULES = {
    "fa": [{"max_norm": 0.0}, {"max_norm": 0.1, "readout": "random"}],
    "lra_norm": [
        {"exponent": 1.0, "activity": 0.02, "max_norm": 0.0},
        {"exponent": 0.3, "activity": 1.0, "max_norm": 0.1},
    ],
    "tpri": [{"target_lr": 0.5, "ridge": 0.5, "max_norm": 0.0}],
}
LAST_STEP_RULES = {
    "dfa": [{"max_norm": 0.0}],
    "lra_fdbk": [{"gamma": 3.0, "c1": 0.2, "max_norm": 0.0}],
    "lra_e": [{"beta": 0.7, "feedback_lr": 0.3, "max_norm": 0.0}],
    "rec_lra": [
        {"num_steps_per_skip": 2, "beta": 0.7, "feedback_lr": 0.3, "max_norm": 0.0}
    ],
}


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


# The losses.


@pytest.mark.parametrize("output", EVERY_STEP_LOSSES)
def test_losses_of_every_step_are_means_over_the_steps_asked(output):
    problem = every_step_problem(6, output)
    rng = np.random.default_rng(7)
    logits = rng.normal(size=(SIZES.length, SIZES.batch, SIZES.outputs)) * 3
    labels = problem.labels.copy()
    labels[:, 1] = -1  # a sample that is never asked
    loss, of_step = problem.library_loss, problem.oracle_loss.of_step
    values, pis = np.zeros(SIZES.batch), np.zeros_like(logits)
    for b in range(SIZES.batch):
        asked = [t for t in range(SIZES.length) if np.all(labels[t, b] >= 0)]
        for t in asked:
            value, pi = of_step(logits[t, b], labels[t, b])
            values[b] += value / len(asked)
            pis[t, b] = pi / len(asked)
    arrays = jnp.asarray(logits), jnp.asarray(labels)
    assert distance(loss.value(*arrays), values) < 1e-14
    assert distance(loss.grad(*arrays), pis) < 1e-14
    by_autodiff = jax.grad(lambda x: jnp.sum(loss.value(x, arrays[1])))(arrays[0])
    assert distance(by_autodiff, pis) < 1e-14


# Rules against the oracle.


@problems
def test_bptt_is_the_gradient_of_the_loss(name):
    problem = PROBLEMS[name]
    params, batch = problem.library
    loss = problem.library_loss

    def mean_loss(params):
        """The network unrolled, from the definition; h is 0 before the start."""
        x = batch.inputs
        if x.ndim == 2:
            x = jax.nn.one_hot(x, params.w_xh.shape[0], dtype=params.w_xh.dtype)
        start = jnp.zeros(SIZES.batch) if batch.start is None else batch.start
        z, logits = jnp.zeros((SIZES.batch, SIZES.hidden)), []
        for t in range(SIZES.length):
            h = z @ params.w_hh + x[t] @ params.w_xh + params.b_h[None]
            z = jnp.tanh(h) * (t >= start)[:, None]
            logits.append(z @ params.w_hy + params.b_y[None])
        logits = jnp.stack(logits) if loss.every_step else logits[-1]
        return jnp.mean(loss.value(logits, batch.labels))

    grads, info = run(lra_jax.bptt, problem, max_norm=0.0)
    assert_close(grads, jax.jit(jax.grad(mean_loss))(params), 1e-13)
    expected = expected_of(oracle.bptt, problem)
    assert_close(grads, expected.grads, 1e-12)
    assert_close(info, expected.info, 1e-12)
    # d = q with p = 0 and without the cost of activity.
    numbers = {"exponent": 0.0, "activity": 0.0, "max_norm": 0.0}
    assert_close(run(lra_jax.lra_norm, problem, **numbers)[0], grads, 1e-13)


@pytest.mark.parametrize("name", ["keys, starts", "last step, starts"])
def test_readout_only_equals_the_oracle(name):
    grads, info = run(lra_jax.readout_only, PROBLEMS[name])
    expected = expected_of(oracle.readout_only, PROBLEMS[name])
    assert_close(grads, expected.grads, 1e-12)
    assert_close(info, expected.info, 1e-12)


@pytest.mark.parametrize(
    ("name", "choice"),
    [
        ("keys", 0),
        ("keys", 1),
        ("classes, symbols", 2),
        ("keys, starts", 0),
        ("keys, starts", 1),
        ("last step, starts", 2),
        ("last step, starts, symbols", 1),
    ],
)
def test_lra_diff_equals_the_oracle(name, choice):
    problem = PROBLEMS[name]
    for numbers in LRA_DIFF:
        options = numbers | LRA_DIFF_CHOICES[choice]
        grads, info = run(lra_jax.lra_diff, problem, **options)
        expected = expected_of(oracle.lra_diff, problem, **options)
        assert_close(grads, expected.grads)
        assert_close(info, expected.info)


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        *itertools.product(LOCAL_RULES, ["keys", "keys, starts", "last step, starts"]),
        *itertools.product(LAST_STEP_RULES, ["last step, starts"]),
    ],
)
def test_local_rules_equal_the_oracle(rule, name):
    problem = PROBLEMS[name]
    for options in (LOCAL_RULES | LAST_STEP_RULES)[rule]:
        grads, info, before, after = update(lra_jax.RULES[rule], problem, **options)
        state = tuple(np.asarray(w) for w in jax.tree.leaves(before))
        expected, state = expected_of(
            getattr(numpy_local_rules, rule), problem, state, **options
        )
        assert_close(grads, expected.grads)
        assert_close(info, expected.info)
        for found, weights in zip(jax.tree.leaves(after), state, strict=True):
            assert distance(found, weights) < 1e-10


@pytest.mark.parametrize(
    ("name", "w_xh_update"),
    [
        ("keys", "tptt"),
        ("classes, symbols", "bptt"),
        ("keys, starts", "bptt"),
        ("last step, starts", "tptt"),
    ],
)
def test_tptt_equals_the_oracle(name, w_xh_update):
    problem = PROBLEMS[name]
    numbers = {"target_lr": 1.0, "feedback_lr": 0.3, "noise_std": 0.2}
    grads, info, before, after = update(
        lra_jax.tptt, problem, **numbers, w_xh_update=w_xh_update
    )
    shape = (SIZES.length, SIZES.batch, SIZES.hidden)
    noise = sample_noise(jax.random.key(0), shape, numbers.pop("noise_std"), np.float64)
    feedback = oracle.Feedback(*map(np.asarray, (*before.inverse, *before.velocity)))
    expected, feedback = oracle.tptt(
        problem.params,
        feedback,
        problem.inputs,
        problem.labels,
        np.asarray(noise),
        problem.start,
        **numbers,
        w_xh_update=w_xh_update,
        output_loss=problem.oracle_loss,
    )
    assert_close(grads, expected.grads)
    assert_close(info, expected.info)
    assert_close(oracle.Feedback(*after.inverse, *after.velocity), feedback)


# Special cases.

SUPPORTING = {
    "bptt": {"max_norm": 0.0},
    "fa": {"max_norm": 0.0},
    "lra_diff": LRA_DIFF[1],
    "lra_diff, Ω": LRA_DIFF[2] | {"schedule": "error_ratio"},
    "lra_norm": {"exponent": 1.0, "activity": 0.02, "max_norm": 0.0},
    "readout_only": {},
    "tpri": {"target_lr": 0.5, "ridge": 0.5, "max_norm": 0.0},
    "tptt": {"target_lr": 1.0, "feedback_lr": 0.3, "w_xh_update": "bptt"},
}


@pytest.mark.parametrize("setting", SUPPORTING)
def test_asked_at_the_last_step_only_it_is_the_loss_of_the_last_step(setting):
    last = random_problem(8, SIZES, tokens=False)
    labels = np.full((SIZES.length, SIZES.batch), -1)
    labels[-1] = last.labels
    every = last._replace(labels=labels, output="cross_entropy_every_step")
    factory = lra_jax.RULES[setting.split(",")[0]]
    found, expected = (
        update(factory, problem, **SUPPORTING[setting]) for problem in (every, last)
    )
    # The one difference is a sum with 0. Ω divides by norms of errors that K has shrunk.
    tolerance = 1e-10 if "Ω" in setting else 1e-13
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        atol = tolerance * np.max(np.abs(b))
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


# lra_diff's chain, and what is left of BPTT in it.


@functools.partial(jax.jit, static_argnames=("output", "num_refinements"))
def displacements(params, batch, gamma, output, num_refinements=1):
    """d and u `[T, B, H]` of lra_diff, mse with s = 1/H."""
    loss = EVERY_STEP_LOSSES[output][0]
    step = targets.TargetStep(
        gamma=jnp.asarray(gamma),
        num_refinements=jnp.asarray(num_refinements, jnp.int32),
        lambda_=None,
        schedule=regularizer.SCHEDULES["constant"],
        local_loss=losses.mse,
        scale=1 / SIZES.hidden,
        normalize=functools.partial(numerics.clip, c=0.0, axis=-1),
        refinement="fixed",
    )
    forward = error_signals.run_forward(params, batch, loss)
    found = targets.propagate(forward, batch.labels, loss, step)
    return found.d, found.u


def found_displacements(problem, gamma):
    params, batch = problem.library
    return map(np.asarray, displacements(params, batch, gamma, problem.output))


def own_errors(problem):
    """(π_t W_hy^T) ⊙ σ'_t and σ'_t, [T,B,H]."""
    params = problem.params
    _, z, _ = oracle.forward(params, problem.inputs)
    _, pi, _, _ = oracle.output_layer(params, z, problem.labels, problem.oracle_loss)
    return (pi @ params.w_hy.T) * (1 - z**2), 1 - z**2


def paths(problem, squared):
    """What output t+k sends to step t, [k,T,B,H]; `squared` with σ'² at each step.

    p⁰ = own error,   pᵏ_t = ((σ'²_{t+1} ⊙ pᵏ⁻¹_{t+1}) W_hh^T) ⊙ σ'_t;  Σ_k is BPTT's q
    without σ'².
    """
    own, slope = own_errors(problem)
    found = [own]
    for _ in range(SIZES.length - 1):
        path = np.zeros_like(own)
        for t in range(SIZES.length - 1):
            above = found[-1][t + 1] * (slope[t + 1] ** 2 if squared else 1)
            path[t] = (above @ problem.params.w_hh.T) * slope[t]
        found.append(path)
    return np.array(found)


def scaled_readout(problem, scale):
    """The same problem, its outputs' errors at h times `scale`."""
    params = problem.params
    return problem._replace(params=params._replace(w_hy=scale * params.w_hy))


@pytest.mark.parametrize("name", ["keys", "classes, symbols"])
def test_the_paths_add_up_to_bptt(name):
    problem, params = PROBLEMS[name], PROBLEMS[name].params
    _, z, _ = oracle.forward(params, problem.inputs)
    _, pi, _, _ = oracle.output_layer(params, z, problem.labels, problem.oracle_loss)
    q = oracle.bptt_errors(params, z, pi)
    assert distance(paths(problem, squared=False).sum(axis=0), q) < 1e-14


@pytest.mark.parametrize("gamma", [1e-4, 1e-5])
def test_at_small_gamma_a_step_learns_of_its_own_output_alone(gamma):
    """d = γ p⁰ + γ² 2s p¹ + O(γ³): each step on the way costs a factor γ."""
    problem = PROBLEMS["keys"]
    d, u = found_displacements(problem, gamma)
    own, first, *_ = paths(problem, squared=True)
    assert distance(d / gamma, own) < 2 * gamma
    # The last step has its own output alone, exactly.
    assert distance(d[-1] / gamma, own[-1]) < 1e-14
    rest = (d - gamma * own) / gamma**2
    assert distance(rest, 2 / SIZES.hidden * first) < 5 * gamma
    _, slope = own_errors(problem)
    assert distance(u / gamma, 2 / SIZES.hidden * slope**2 * own) < 5 * gamma


@pytest.mark.parametrize("factor", [1.0, 0.3])
@pytest.mark.parametrize("scale", [1e-6, 1e-8])
def test_small_errors_follow_the_weighted_paths_of_bptt(factor, scale):
    """d / γ = Σ_k (2γs)^k pᵏ with σ'² at each step, at any γ, where the error is small.

    The second order is of d's size.
    """
    gamma = factor * SIZES.hidden / 2
    problem = scaled_readout(PROBLEMS["keys"], scale)
    d, _ = found_displacements(problem, gamma)
    powers = (factor ** np.arange(SIZES.length))[:, None, None, None]
    expected = np.sum(powers * paths(problem, squared=True), axis=0)
    assert distance(d / gamma, expected) < 20 * scale


def test_a_linear_network_with_2_gamma_s_1_has_the_gradient_of_bptt():
    """σ' = 1 up to 1e-10 where z ~ 1e-5, and 2γs = 1: u = q, so the same gradient."""
    problem = scaled_readout(PROBLEMS["keys"], 1e-9)
    params = problem.params
    problem = problem._replace(
        params=params._replace(w_xh=1e-5 * params.w_xh, b_h=np.zeros_like(params.b_h))
    )
    numbers = NUMBERS | {"gamma": SIZES.hidden / 2}
    grads, _ = run(lra_jax.lra_diff, problem, **numbers)
    exact, _ = run(lra_jax.bptt, problem, max_norm=0.0)
    for name in HIDDEN_GRADS:
        assert distance(getattr(grads, name), getattr(exact, name)) < 1e-7, name
    smaller, _ = run(lra_jax.lra_diff, problem, **NUMBERS | {"gamma": 1e-3})
    own, _ = own_errors(problem)
    expected = 2e-3 / SIZES.hidden * own.mean(axis=1).sum(axis=0)
    assert distance(smaller.b_h, expected) < 2e-3


# Starts.


@pytest.mark.parametrize("setting", ["bptt", "lra_diff, Ω", "lra_norm", "tptt"])
def test_a_padded_sample_is_the_sample_alone(setting):
    problem, b, start = PROBLEMS["keys, starts"], 0, STARTS[0]
    padded, alone = (
        problem._replace(
            inputs=problem.inputs[first:, [b]],
            labels=problem.labels[first:, [b]],
            start=starts,
        )
        for first, starts in ((0, STARTS[[b]]), (start, None))
    )
    factory, options = lra_jax.RULES[setting.split(",")[0]], SUPPORTING[setting]
    found, expected = (update(factory, p, **options) for p in (padded, alone))
    assert_close(found[0], expected[0], 1e-12)
    for values, exact in zip(found[1][1:], expected[1][1:], strict=True):
        if values is not None:
            np.testing.assert_array_equal(values[:start], 0)
            np.testing.assert_allclose(values[start:], exact, rtol=1e-11, atol=1e-15)
