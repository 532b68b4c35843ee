"""The library against the NumPy oracle, autodiff and finite differences, in float64."""

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import numpy_local_rules
from oracles import numpy_lra as oracle

import lra_jax
from lra_jax import regularizer, rnn
from lra_jax.rules.tptt import sample_noise
from x64.problems import (
    OUTPUT_LOSSES,
    Sizes,
    assert_close,
    distance,
    random_problem,
    run,
    task_problem,
    update,
)

# Sizes with every degenerate axis, and B > H, H > B, X > H, Y > H.
SIZES = {
    "usual": Sizes(),
    "T=1": Sizes(length=1),
    "T=2": Sizes(length=2),
    "B=1": Sizes(batch=1),
    "H=1": Sizes(hidden=1),
    "X=1, Y=1": Sizes(inputs=1, outputs=1),
    "B>H": Sizes(4, 7, 2, 3, 5),
    "H>B": Sizes(6, 2, 9, 8, 2),
    "all 1": Sizes(1, 1, 1, 1, 1),
}


# Numbers of lra_diff. With reduction="mean", gamma is multiplied by H. At H = 1 every
# clipped step is ±γ c1, and two of them may cancel: Ω of the rounding error that is
# left has no right value. Hence K = 3 where Ω meets c1.
NUMBERS = {
    "plain": {},
    "gamma": {"gamma": 0.1},
    "K=2": {"num_refinements": 2},
    "K=3": {"num_refinements": 3, "gamma": 0.5},
    "K=10": {"num_refinements": 10, "gamma": 0.2},
    "c0": {"num_refinements": 2, "c0": 0.05},
    "c1": {"num_refinements": 2, "c1": 0.1},
    "c0, c1": {"num_refinements": 2, "c0": 0.15, "c1": 0.2},
    "lambda": {"lambda_": 0.1},
    "lambda, K=3": {"lambda_": 0.5, "num_refinements": 3, "gamma": 0.3},
    "lambda, c0, c1": {
        "lambda_": 1.0,
        "num_refinements": 3,
        "gamma": 0.7,
        "c0": 0.5,
        "c1": 0.4,
    },
}
ALL_NUMBERS = {
    "gamma": 1.0,
    "num_refinements": 1,
    "lambda_": 0.0,
    "c0": 0.0,
    "c1": 0.0,
}
SCHEDULES = [{"schedule": name} for name in regularizer.SCHEDULES]


def check_lra_diff(problem, *, static=(), **options):
    """The library's gradients and info, all fields, against the oracle's."""
    options = ALL_NUMBERS | options
    for name in static:
        del options[name]
    if options.get("reduction", "mean") == "mean":
        options["gamma"] *= len(problem.params.b_h)
    grads, info = run(lra_jax.lra_diff, problem, static=static, **options)
    expected = oracle.lra_diff(
        problem.params,
        problem.inputs,
        problem.labels,
        **options,
        **dict(static),
        output_loss=problem.oracle_loss,
    )
    assert_close(grads, expected.grads)
    assert_close(info, expected.info)
    return info


# lra_diff.


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
def test_lra_diff_numbers(numbers):
    check_lra_diff(random_problem(1), **numbers)


@pytest.mark.parametrize(
    "choice",
    [
        {"local_loss": "log_penalty"},
        {"reduction": "sum"},
        {"normalization": "force"},
        {"refinement": "overwrite"},
        {"update_first_step": False},
        {"descend_local_loss": False},
        *SCHEDULES,
        {"schedule": "matched", "refinement": "overwrite"},
        {"schedule": "error_ratio", "normalization": "force"},
    ],
    ids=str,
)
def test_lra_diff_choices(choice):
    for numbers in NUMBERS.values():
        check_lra_diff(random_problem(2), **choice, **numbers)


def test_lra_diff_without_omega():
    """lambda_ a Python zero; everything else as in the table."""
    for numbers in NUMBERS.values():
        check_lra_diff(random_problem(2), **numbers, static={"lambda_": 0.0})


@pytest.mark.parametrize(
    ("output", "tokens"),
    [("squared_error", True), ("cross_entropy", False), ("squared_error", False)],
)
def test_lra_diff_of_other_inputs_and_outputs(output, tokens):
    problem = random_problem(3, tokens=tokens, output=output)
    for numbers in NUMBERS.values():
        check_lra_diff(problem, **numbers)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_lra_diff_sizes(sizes):
    for numbers in NUMBERS.values():
        check_lra_diff(random_problem(4, sizes), **numbers)


@pytest.mark.parametrize("seed", range(7))
def test_lra_diff_of_random_settings(seed):
    """All options mixed: one program and seven settings of its numbers per seed."""
    rng = np.random.default_rng(100 + seed)

    def choose(*values):
        return values[rng.integers(len(values))]

    choices = {
        "local_loss": choose("mse", "log_penalty"),
        "reduction": choose("mean", "sum"),
        "normalization": choose("clip", "force"),
        "refinement": choose("fixed", "overwrite"),
        "update_first_step": choose(True, False),
        "descend_local_loss": choose(True, False),
        "schedule": choose(*regularizer.SCHEDULES),
    }
    ranges = ((1, 7), (1, 6), (1, 7), (2, 7), (1, 5))
    sizes = Sizes(*(int(rng.integers(low, high)) for low, high in ranges))
    kind = {"tokens": choose(True, False), "output": choose(*OUTPUT_LOSSES)}
    for draw in range(7):
        check_lra_diff(
            random_problem([seed, draw], sizes, **kind),
            **choices,
            gamma=choose(0.1, 0.3, 1.0),
            num_refinements=choose(1, 2, 3, 10),
            lambda_=choose(0.0, 0.1, 1.0),
            c0=choose(0.0, 0.01, 0.3),
            c1=choose(0.0, 0.1, 1.0),
        )


def test_the_settings_exercise_the_bounds():
    """c0 and c1 of the table bind at some of the steps and not at others."""
    problem, numbers = random_problem(1), NUMBERS["c0, c1"]
    info = check_lra_diff(problem, **numbers)
    w_hh_norm, step_norm = np.asarray(info.w_hh_grad_norm), info.target_step_norm
    assert np.max(w_hh_norm) == pytest.approx(numbers["c0"], rel=1e-14)
    assert np.min(w_hh_norm[1:]) < 0.6 * numbers["c0"]
    assert np.max(step_norm) > 0.8 * numbers["c1"]
    assert np.min(step_norm) < 0.6 * numbers["c1"]
    free = check_lra_diff(problem, **numbers | {"c1": 0.0})
    assert distance(step_norm, free.target_step_norm) > 0.1


def test_python_numbers_and_traced_numbers_give_the_same():
    problem, numbers = random_problem(10), ALL_NUMBERS | NUMBERS["lambda, c0, c1"]
    python, python_info = run(lra_jax.lra_diff, problem, static=numbers)
    traced, traced_info = run(lra_jax.lra_diff, problem, **numbers)
    assert_close(traced, python, 1e-13)
    assert_close(traced_info, python_info, 1e-13)


TASKS_OF_THE_LAST_STEP = [
    name for name, task in lra_jax.TASKS.items() if not task.output_loss.every_step
]


# Each of both; all schedules are compared above, on one problem.
@pytest.mark.parametrize(
    ("choice", "task"), list(zip(SCHEDULES, TASKS_OF_THE_LAST_STEP, strict=True))
)
def test_lra_diff_schedules_on_the_tasks(choice, task):
    for name in ("lambda, K=3", "lambda, c0, c1"):
        check_lra_diff(task_problem(task), **choice, **NUMBERS[name])


# bptt and readout_only.


def check_bptt(problem, max_norm):
    grads, info = run(lra_jax.bptt, problem, max_norm=max_norm)
    expected = oracle.bptt(
        problem.params,
        problem.inputs,
        problem.labels,
        max_norm=max_norm,
        output_loss=problem.oracle_loss,
    )
    assert_close(grads, expected.grads)
    assert_close(info, expected.info)
    return grads


PROBLEMS = {
    "tokens": random_problem(5),
    "real": random_problem(6, tokens=False, output="squared_error"),
    "T=1": random_problem(7, Sizes(length=1)),
    "B=1, H=1": random_problem(8, Sizes(batch=1, hidden=1)),
}


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_bptt_is_the_gradient_of_the_loss(problem):
    params, batch = problem.library

    def mean_loss(params):
        logits = rnn.forward(params, batch.inputs).logits
        return jnp.mean(problem.library_loss.value(logits, batch.labels))

    grads = check_bptt(problem, max_norm=0.0)
    assert_close(grads, jax.jit(jax.grad(mean_loss))(params), 1e-13)


def test_bptt_equals_finite_differences():
    """Central differences: truncation eps² and rounding 1e-16 / eps, both 1e-10."""
    problem, eps = random_problem(9), 1e-5
    grads = check_bptt(problem, max_norm=0.0)

    def loss_with(name, index, change):
        array = getattr(problem.params, name).copy()
        array[index] += change
        params = problem.params._replace(**{name: array})
        return oracle.mean_loss(params, problem.inputs, problem.labels)

    for name, array in problem.params._asdict().items():
        found = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            change = loss_with(name, index, eps) - loss_with(name, index, -eps)
            found[index] = change / (2 * eps)
        assert distance(found, getattr(grads, name)) < 1e-8, name


@pytest.mark.parametrize("fraction", [0.5, 0.999, 1.001, 100.0])
def test_bptt_clips_one_norm_over_all_gradients(fraction):
    problem = PROBLEMS["tokens"]
    free = check_bptt(problem, max_norm=0.0)
    norm = float(np.sqrt(sum(np.sum(np.square(g)) for g in free)))
    clipped = check_bptt(problem, max_norm=fraction * norm)
    factor = min(fraction, 1.0)
    assert_close(clipped, lra_jax.Params(*(factor * g for g in free)), 1e-14)


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_readout_only_is_bptt_without_the_hidden_layer(problem):
    grads, info = run(lra_jax.readout_only, problem)
    expected = oracle.readout_only(
        problem.params, problem.inputs, problem.labels, output_loss=problem.oracle_loss
    )
    assert_close(grads, expected.grads)
    assert_close(info, expected.info)
    exact = check_bptt(problem, max_norm=0.0)
    assert_close(grads._replace(w_xh=exact.w_xh, w_hh=exact.w_hh, b_h=exact.b_h), exact)
    for name in ("w_xh", "w_hh", "b_h"):
        assert np.all(np.asarray(getattr(grads, name)) == 0), name


@pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
def test_forward_and_output_loss(problem):
    params, batch = problem.library
    trace = rnn.forward(params, batch.inputs)
    for found, expected in zip(
        trace, oracle.forward(problem.params, problem.inputs), strict=True
    ):
        assert distance(found, expected) < 1e-14
    pairs = [
        problem.oracle_loss(logits, label)
        for logits, label in zip(np.asarray(trace.logits), problem.labels, strict=True)
    ]
    values, pis = zip(*pairs, strict=True)
    loss = problem.library_loss
    assert distance(loss.value(trace.logits, batch.labels), np.array(values)) < 1e-13
    assert distance(loss.grad(trace.logits, batch.labels), np.array(pis)) < 1e-13


# The rules by how an error reaches a step.

# Rule to its choices, and to numbers for each of them. The last bounds the gradient.
LOCAL_RULES = {
    "fa": (
        [{"readout": "transpose"}, {"readout": "random"}],
        [{"max_norm": 0.0}, {"max_norm": 0.5}],
    ),
    "dfa": (
        [{"readout": "random"}, {"readout": "transpose"}],
        [{"max_norm": 0.0}, {"max_norm": 0.5}],
    ),
    "lra_fdbk": (
        [{}],
        [
            {"gamma": 1.0, "c1": 0.0, "max_norm": 0.0},
            {"gamma": 7.0, "c1": 0.0, "max_norm": 0.0},
            {"gamma": 3.0, "c1": 0.2, "max_norm": 0.5},
        ],
    ),
    "lra_e": (
        [{}],
        [
            {"beta": 1.0, "feedback_lr": 0.0, "max_norm": 0.0},
            {"beta": 0.1, "feedback_lr": 0.3, "max_norm": 0.0},
            {"beta": 2.0, "feedback_lr": 0.1, "max_norm": 0.5},
        ],
    ),
    "rec_lra": (
        [{}],
        [
            {"num_steps_per_skip": 1, "beta": 1.0, "feedback_lr": 0.2, "max_norm": 0.0},
            {"num_steps_per_skip": 2, "beta": 0.3, "feedback_lr": 0.0, "max_norm": 0.0},
            {"num_steps_per_skip": 3, "beta": 2.0, "feedback_lr": 0.3, "max_norm": 0.5},
        ],
    ),
    "lra_norm": (
        [{}],
        [
            {"exponent": 1.0, "activity": 0.02, "max_norm": 0.0},
            {"exponent": 0.3, "activity": 0.0, "max_norm": 0.0},
            {"exponent": 1.0, "activity": 2.0, "max_norm": 0.5},
        ],
    ),
    "tpri": (
        [{}],
        [
            {"target_lr": 0.01, "ridge": 10.0, "max_norm": 0.0},
            {"target_lr": 1.0, "ridge": 0.1, "max_norm": 0.0},
            {"target_lr": 2.0, "ridge": 1.0, "max_norm": 0.5},
        ],
    ),
}


def check_local_rule(name, problem, **options):
    """Gradients, info and the new state, all fields, against the oracle's."""
    grads, info, before, after = update(lra_jax.RULES[name], problem, **options)
    expected, state = getattr(numpy_local_rules, name)(
        problem.params,
        tuple(np.asarray(w) for w in jax.tree.leaves(before)),
        problem.inputs,
        problem.labels,
        **options,
        output_loss=problem.oracle_loss,
    )
    assert_close(grads, expected.grads)
    assert_close(info, expected.info)
    for found, weights in zip(jax.tree.leaves(after), state, strict=True):
        assert distance(found, weights) < 1e-10
    return grads, info


def check_local_rule_in_all_settings(name, problem):
    choices, numbers = LOCAL_RULES[name]
    for choice, settings in itertools.product(choices, numbers):
        check_local_rule(name, problem, **choice, **settings)


local_rules = pytest.mark.parametrize("name", LOCAL_RULES)


@local_rules
@pytest.mark.parametrize("task", ["temporal_order", "adding"])  # symbols and vectors
def test_local_rules_on_the_tasks(name, task):
    check_local_rule_in_all_settings(name, task_problem(task))


@local_rules
@pytest.mark.parametrize("sizes", ["T=1", "H=1", "B>H"])
def test_local_rules_sizes(name, sizes):
    check_local_rule_in_all_settings(name, random_problem(11, SIZES[sizes]))


@local_rules
def test_local_rules_of_real_inputs_and_classes(name):
    problem = random_problem(12, tokens=False, output="cross_entropy")
    check_local_rule_in_all_settings(name, problem)


@local_rules
def test_local_rules_bound_one_norm_over_all_gradients(name):
    """Of the table's last numbers, max_norm binds; elsewhere it is none."""
    choices, numbers = LOCAL_RULES[name]
    grads, _ = check_local_rule(name, random_problem(13), **choices[0], **numbers[-1])
    norm = np.sqrt(sum(np.sum(np.square(g)) for g in grads))
    assert norm == pytest.approx(numbers[-1]["max_norm"], rel=1e-12)


@pytest.mark.parametrize(
    ("tokens", "output"), [(True, "cross_entropy"), (False, "squared_error")]
)
def test_states_computed_back_give_the_numbers_of_lra_norm(tokens, output):
    """Weights as an orthogonal start has them: far from ±1, z can be had back."""
    problem = random_problem(14, tokens=tokens, output=output)
    q, _ = np.linalg.qr(problem.params.w_hh)
    small = problem.params._replace(
        w_xh=0.1 * problem.params.w_xh, w_hh=q, b_h=0.1 * problem.params.b_h
    )
    problem = problem._replace(params=small)
    for numbers in LOCAL_RULES["lra_norm"][1]:
        grads, info, _, _ = update(lra_jax.lra_reversible, problem, **numbers)
        assert 0 <= info.reversal_error < 1e-12
        info = info._replace(reversal_error=None)
        expected, _ = numpy_local_rules.lra_norm(
            problem.params,
            (),
            problem.inputs,
            problem.labels,
            **numbers,
            output_loss=problem.oracle_loss,
        )
        assert_close(grads, expected.grads)
        assert_close(info, expected.info)


# tptt.

TPTT_SETTINGS = {
    "default": {},
    "noise": {"noise_std": 0.3, "feedback_lr": 0.1},
    "no momentum": {"noise_std": 0.1, "feedback_lr": 0.5, "feedback_momentum": 0.0},
    "large rates": {"target_lr": 3.0, "feedback_lr": 1.0, "noise_std": 0.05},
    "bptt for w_xh": {"w_xh_update": "bptt", "noise_std": 0.2, "target_lr": 1.0},
}


@functools.cache
def compiled_tptt(output, w_xh_update):
    """tptt with its numbers traced: one program for many settings."""

    def grads(key, params, state, batch, numbers):
        loss = OUTPUT_LOSSES[output][0]
        rule = lra_jax.tptt(**numbers, w_xh_update=w_xh_update, output_loss=loss)
        return rule.grads(key, params, state, batch)

    return jax.jit(grads)


def tptt_updates(settings, problem, num_updates=3):
    """Of each update: grads, state, info of the library; result, feedback of ours."""
    numbers = {"noise_std": 0.0, **settings}
    w_xh_update = numbers.pop("w_xh_update", "tptt")
    params, batch = problem.library
    state = lra_jax.tptt().init(jax.random.key(7), params)
    feedback = oracle.Feedback(*map(np.asarray, (*state.inverse, *state.velocity)))
    length, batch_size = problem.inputs.shape[:2]
    shape = (length, batch_size, len(problem.params.b_h))
    options = {k: v for k, v in numbers.items() if k != "noise_std"}
    for key in jax.random.split(jax.random.key(8), num_updates):
        noise = sample_noise(key, shape, numbers["noise_std"], params.w_hh.dtype)
        with jax.numpy_dtype_promotion("strict"):
            grads, state, info = compiled_tptt(problem.output, w_xh_update)(
                key, params, state, batch, numbers
            )
        result, feedback = oracle.tptt(
            problem.params,
            feedback,
            problem.inputs,
            problem.labels,
            np.asarray(noise),
            **options,
            w_xh_update=w_xh_update,
            output_loss=problem.oracle_loss,
        )
        yield (grads, state, info), (result, feedback)


def test_tptt_starts_from_an_orthogonal_inverse():
    params, _ = PROBLEMS["tokens"].library
    state = lra_jax.tptt().init(jax.random.key(7), params)
    v, *zeros = flat(state)
    np.testing.assert_allclose(v @ v.T, np.eye(len(v)), rtol=0, atol=1e-14)
    assert not any(np.any(part) for part in zeros)


def flat(state):
    return oracle.Feedback(*state.inverse, *state.velocity)


@pytest.mark.parametrize("settings", TPTT_SETTINGS.values(), ids=TPTT_SETTINGS)
@pytest.mark.parametrize("name", ["tokens", "real"])
def test_tptt_equals_the_oracle(settings, name):
    for found, expected in tptt_updates(settings, PROBLEMS[name]):
        grads, state, info = found
        result, feedback = expected
        assert_close(grads, result.grads)
        assert_close(flat(state), feedback)
        assert_close(info, result.info)


@pytest.mark.parametrize("name", ["T=1", "B=1, H=1"])
def test_tptt_of_degenerate_sizes(name):
    settings = TPTT_SETTINGS["noise"]
    for found, expected in tptt_updates(settings, PROBLEMS[name]):
        assert_close(found[0], expected[0].grads)
        assert_close(flat(found[1]), expected[1])
        assert_close(found[2], expected[0].info)


def test_tptt_trains_w_xh_by_bptt_if_asked():
    problem = PROBLEMS["tokens"]
    settings = TPTT_SETTINGS["bptt for w_xh"]
    exact = check_bptt(problem, max_norm=0.0)
    local = next(tptt_updates(settings | {"w_xh_update": "tptt"}, problem))[0][0]
    grads = next(tptt_updates(settings, problem))[0][0]
    assert_close(grads, local._replace(w_xh=exact.w_xh), 1e-12)
    assert distance(local.w_xh, exact.w_xh) > 0.1


def reconstruction_loss(feedback, params, inputs, z, noise):
    """Σ_t mean_{b,i} (G(x_t, f_t) - z̃_{t-1})² of section 7, for autodiff."""
    noisy = jnp.concatenate([jnp.zeros_like(z[:1]), z[:-1]]) + noise
    drive = params.w_xh[inputs]
    f = jnp.tanh(noisy @ params.w_hh + drive + params.b_h[None, None])
    reconstructed = jnp.tanh(drive + f @ feedback.v + feedback.c[None, None])
    return jnp.sum(jnp.mean((reconstructed - noisy) ** 2, axis=(1, 2)))


def test_tptt_feedback_is_the_gradient_of_the_reconstruction_loss_in_optax_sgd():
    """Autodiff of the loss and optax's Nesterov momentum, over three updates."""
    problem = PROBLEMS["tokens"]
    params, batch = problem.library
    z = rnn.forward(params, batch.inputs).z
    rate, momentum, std = 0.3, 0.9, 0.2
    rule = lra_jax.tptt(feedback_lr=rate, feedback_momentum=momentum, noise_std=std)
    state = rule.init(jax.random.key(1), params)
    inverse = state.inverse
    optimizer = optax.sgd(rate, momentum=momentum, nesterov=True)
    opt_state = optimizer.init(inverse)
    for key in jax.random.split(jax.random.key(2), 3):
        noise = sample_noise(key, z.shape, std, z.dtype)
        gradient = jax.grad(reconstruction_loss)(
            inverse, params, batch.inputs, z, noise
        )
        updates, opt_state = optimizer.update(gradient, opt_state)
        inverse = optax.apply_updates(inverse, updates)
        _, state, _ = rule.grads(key, params, state, batch)
        assert_close(state.inverse, inverse, 1e-13)


def test_tptt_noise_has_the_standard_deviation_asked_for():
    noise = sample_noise(jax.random.key(3), (50, 20, 10), 0.3, np.float64)
    assert noise.dtype == np.float64
    # The standard error of both is below 0.3 / sqrt(10,000) = 0.003.
    assert abs(np.mean(noise)) < 0.015
    assert abs(np.std(noise) - 0.3) < 0.015


# Ω.


class Pair(NamedTuple):
    """One pair (t-1, t) of B samples, with z_{t-2} and u constant."""

    params: oracle.Params
    u: np.ndarray  # [B, H]
    x: np.ndarray  # [B, X], x_{t-1}
    z: np.ndarray  # [B, H], z_{t-2}

    @property
    def h_prev(self):
        w_xh, w_hh, b_h, *_ = self.params
        return self.z @ w_hh + self.x @ w_xh + b_h


def random_pair(seed, batch=4, inputs=3, hidden=5):
    rng = np.random.default_rng(seed)
    sizes = Sizes(batch=batch, inputs=inputs, hidden=hidden)
    return Pair(
        random_problem(seed, sizes).params,
        rng.normal(size=(batch, hidden)),
        rng.normal(size=(batch, inputs)),
        np.tanh(rng.normal(size=(batch, hidden))),
    )


def library_omega(pair):
    u, w_hh = jnp.asarray(pair.u), jnp.asarray(pair.params.w_hh)
    with jax.numpy_dtype_promotion("strict"):
        return regularizer.norm_preservation(
            u, u @ w_hh.T, jnp.tanh(jnp.asarray(pair.h_prev))
        )


def library_omega_gradients(pair):
    """mean_b of ∂Ω/∂(w_xh, w_hh, b_h), as `NormPreservation` says to combine it."""
    omega = library_omega(pair)
    batch = len(pair.u)
    w_hh = (omega.left.T @ omega.right + pair.z.T @ omega.a) / batch
    return pair.x.T @ omega.a / batch, w_hh, jnp.mean(omega.a, axis=0)


def oracle_omega_gradients(pair):
    parts = [
        oracle.omega_weight_gradients(
            pair.params, pair.u[b], pair.x[b], pair.h_prev[b], pair.z[b]
        )
        for b in range(len(pair.u))
    ]
    return [np.mean(part, axis=0) for part in zip(*parts, strict=True)]


def omega_of(weights, pair):
    """mean_b Ω as a function of (w_xh, w_hh, b_h), for autodiff."""
    w_xh, w_hh, b_h = weights
    u, z = jax.lax.stop_gradient((jnp.asarray(pair.u), jnp.asarray(pair.z)))
    h_prev = z @ w_hh + pair.x @ w_xh + b_h[None]
    v = (u @ w_hh.T) * (1 - jnp.tanh(h_prev) ** 2)
    rho = jnp.linalg.norm(v, axis=1) / jnp.linalg.norm(u, axis=1)
    return jnp.mean((rho - 1) ** 2)


@pytest.mark.parametrize("seed", range(3))
def test_omega_closed_forms_equal_autodiff(seed):
    pair = random_pair(seed)
    weights = tuple(map(jnp.asarray, pair.params[:3]))
    value, exact = jax.value_and_grad(omega_of)(weights, pair)
    assert abs(jnp.mean(library_omega(pair).value) - value) < 1e-14
    for found, by_oracle, autodiff in zip(
        library_omega_gradients(pair), oracle_omega_gradients(pair), exact, strict=True
    ):
        assert distance(found, autodiff) < 1e-13
        assert distance(by_oracle, autodiff) < 1e-13


def test_omega_closed_forms_equal_finite_differences():
    """Of the oracle's own Ω; truncation eps² and rounding 1e-16 / eps, both 1e-10."""
    pair, eps = random_pair(4), 1e-5
    weights = {name: getattr(pair.params, name) for name in ("w_xh", "w_hh", "b_h")}

    def value(**changed):
        arrays = weights | changed
        values = [
            oracle.omega_of_weights(**arrays, u=u, x_before=x, z_before_that=z)
            for u, x, z in zip(pair.u, pair.x, pair.z, strict=True)
        ]
        return np.mean(values)

    for (name, array), closed in zip(
        weights.items(), library_omega_gradients(pair), strict=True
    ):
        found = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            step = np.zeros_like(array)
            step[index] = eps
            change = value(**{name: array + step}) - value(**{name: array - step})
            found[index] = change / (2 * eps)
        assert distance(found, closed) < 1e-8, name


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_omega_does_not_depend_on_the_scale_of_u(scale):
    pair = random_pair(5)
    scaled = pair._replace(u=pair.u * scale)
    assert_close(library_omega(scaled), library_omega(pair), 1e-13)
    for gradients in (library_omega_gradients, oracle_omega_gradients):
        for found, expected in zip(gradients(scaled), gradients(pair), strict=True):
            assert distance(found, expected) < 1e-13


def test_omega_of_no_error_is_zero():
    """u = 0 for one sample (and below the guard for another), not for the rest."""
    pair = random_pair(6)
    u = pair.u.copy()
    u[0], u[1] = 0, 1e-31
    silent = pair._replace(u=u)
    omega, others = library_omega(silent), library_omega(pair)
    for b in (0, 1):
        by_oracle = oracle.norm_preservation(pair.params.w_hh, u[b], pair.h_prev[b])
        assert by_oracle.value == 0
        assert not np.any(by_oracle.omega)
        assert not np.any(by_oracle.a)
        assert omega.value[b] == 0
        assert not np.any(omega.a[b])
        assert not np.any(np.outer(omega.left[b], omega.right[b]))
    for found, expected in zip(omega, others, strict=True):
        np.testing.assert_array_equal(found[2:], expected[2:])


def test_omega_of_a_blocked_error_is_finite():
    """v = 0: w_hh = 0, or one saturated unit; Ω = 1 and no gradient (section 5)."""
    pair = random_pair(7)
    pair = pair._replace(
        params=pair.params._replace(w_hh=np.zeros_like(pair.params.w_hh))
    )
    omega = library_omega(pair)
    np.testing.assert_array_equal(omega.value, np.ones(len(pair.u)))
    assert not np.any(omega.a)
    assert not np.any(omega.left)
    for gradient in library_omega_gradients(pair) + tuple(oracle_omega_gradients(pair)):
        assert not np.any(gradient)


def test_omega_of_w_xh_is_zero_where_the_states_are():
    """∂Ω/∂W_xh exists only through tanh's curvature: zero at z = 0 (section 5)."""
    pair = random_pair(8)
    pair = pair._replace(
        x=np.zeros_like(pair.x),
        z=np.zeros_like(pair.z),
        params=pair.params._replace(b_h=np.zeros_like(pair.params.b_h)),
    )
    assert not np.any(library_omega(pair).a)
    _, w_hh, _ = library_omega_gradients(pair)
    assert np.max(np.abs(w_hh)) > 0.01
