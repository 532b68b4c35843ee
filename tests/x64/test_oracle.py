"""The library against the NumPy oracle, autodiff and finite differences, in float64."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import numpy_lra as oracle
from x64.problems import (
    OUTPUT_LOSSES,
    Sizes,
    assert_close,
    assert_identical,
    distance,
    random_problem,
    run,
)

import lra_jax
from lra_jax import regularizer, rnn
from lra_jax.rules import tptt as tptt_rule

# Sizes with every degenerate axis, and B > H, H > B, X > H, Y > H.
SIZES = {
    "usual": Sizes(),
    "T=1": Sizes(length=1),
    "T=2": Sizes(length=2),
    "B=1": Sizes(batch=1),
    "H=1": Sizes(hidden=1),
    "Y=1": Sizes(outputs=1),
    "X=1": Sizes(inputs=1),
    "B>H": Sizes(4, 7, 2, 3, 5),
    "H>B": Sizes(6, 2, 9, 8, 2),
    "all 1": Sizes(1, 1, 1, 1, 1),
}


class Options(NamedTuple):
    """The options of lra_diff that choose a program."""

    local_loss: str = "mse"
    reduction: str = "mean"
    normalization: str = "clip"
    refinement: str = "fixed"
    update_first_step: bool = True
    output: str = "cross_entropy"
    with_omega: bool = True  # False: lambda_ is the Python number 0


class Numbers(NamedTuple):
    """The options of lra_diff that may be traced."""

    gamma: float = 1.0
    num_refinements: int = 1
    lambda_: float = 0.0
    c0: float = 0.0
    c1: float = 0.0


# With reduction="mean", gamma is multiplied by H.
NUMBERS = {
    "plain": Numbers(),
    "gamma=0.1": Numbers(gamma=0.1),
    "K=2": Numbers(num_refinements=2),
    "K=3": Numbers(num_refinements=3, gamma=0.5),
    "K=10": Numbers(num_refinements=10, gamma=0.2),
    "c0": Numbers(num_refinements=2, c0=0.05),
    "c1": Numbers(num_refinements=2, c1=0.1),
    "c0 and c1": Numbers(num_refinements=3, c0=0.02, c1=0.3),
    "lambda": Numbers(lambda_=0.1),
    "lambda, K=3": Numbers(lambda_=0.5, num_refinements=3, gamma=0.3),
    "lambda, c0 and c1": Numbers(lambda_=1.0, num_refinements=2, c0=0.5, c1=0.4),
}


@functools.cache
def compiled_lra_diff(options):
    """lra_diff with all its numbers traced, and Ω where the options ask for it."""

    def grads(params, batch, numbers):
        numbers = numbers._asdict()
        if not options.with_omega:
            numbers["lambda_"] = 0.0
        rule = lra_jax.lra_diff(
            **numbers,
            local_loss=options.local_loss,
            reduction=options.reduction,
            normalization=options.normalization,
            refinement=options.refinement,
            update_first_step=options.update_first_step,
            output_loss=OUTPUT_LOSSES[options.output][0],
        )
        key = jax.random.key(0)
        return rule.grads(key, params, rule.init(key, params), batch)

    return jax.jit(grads)


def check_lra_diff(options, numbers, problem):
    if not options.with_omega:
        numbers = numbers._replace(lambda_=0.0)
    if options.reduction == "mean":
        hidden = len(problem.params.b_h)
        numbers = numbers._replace(gamma=numbers.gamma * hidden)
    with jax.numpy_dtype_promotion("strict"):
        grads, _, info = compiled_lra_diff(options)(*problem.library, numbers)
    expected = oracle.lra_diff(
        problem.params,
        problem.inputs,
        problem.labels,
        **numbers._asdict(),
        local_loss=options.local_loss,
        reduction=options.reduction,
        normalization=options.normalization,
        refinement=options.refinement,
        update_first_step=options.update_first_step,
        output_loss=problem.oracle_loss,
    )
    assert_close(grads, expected.grads)
    assert_close(info, expected.info)
    return expected


# lra_diff.


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
def test_lra_diff_numbers(numbers):
    check_lra_diff(Options(), numbers, random_problem(1))


@pytest.mark.parametrize(
    "options",
    [
        Options(with_omega=False),
        Options(local_loss="log_penalty"),
        Options(reduction="sum"),
        Options(normalization="force"),
        Options(refinement="overwrite"),
        Options(update_first_step=False),
        Options(output="squared_error"),
    ],
    ids=str,
)
def test_lra_diff_options(options):
    problem = random_problem(2, output=options.output)
    for numbers in NUMBERS.values():
        check_lra_diff(options, numbers, problem)


@pytest.mark.parametrize("output", OUTPUT_LOSSES)
def test_lra_diff_of_real_inputs(output):
    problem = random_problem(3, tokens=False, output=output)
    for numbers in NUMBERS.values():
        check_lra_diff(Options(reduction="sum", output=output), numbers, problem)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_lra_diff_sizes(sizes):
    problem = random_problem(4, sizes)
    for numbers in NUMBERS.values():
        check_lra_diff(Options(), numbers, problem)


@pytest.mark.parametrize("seed", range(12))
def test_lra_diff_of_random_settings(seed):
    """All options mixed: one program and four settings of its numbers per seed."""
    rng = np.random.default_rng(100 + seed)

    def choose(*values):
        return values[rng.integers(len(values))]

    options = Options(
        local_loss=choose("mse", "log_penalty"),
        reduction=choose("mean", "sum"),
        normalization=choose("clip", "force"),
        refinement=choose("fixed", "overwrite"),
        update_first_step=choose(True, False),
        output=choose("cross_entropy", "squared_error"),
    )
    sizes = Sizes(*(int(rng.integers(1, high)) for high in (7, 6, 7, 7, 5)))
    tokens = choose(True, False)
    for draw in range(4):
        problem = random_problem(
            [seed, draw], sizes, tokens=tokens, output=options.output
        )
        numbers = Numbers(
            gamma=choose(0.1, 0.3, 1.0),
            num_refinements=choose(1, 2, 3, 10),
            lambda_=choose(0.0, 0.1, 1.0),
            c0=choose(0.0, 0.01, 0.3),
            c1=choose(0.0, 0.1, 1.0),
        )
        check_lra_diff(options, numbers, problem)


def test_the_settings_exercise_the_bounds():
    """c0 and c1 of the table bind for some of the steps and not for others."""
    problem, hidden = random_problem(1), Sizes().hidden
    numbers = NUMBERS["c0 and c1"]
    info = check_lra_diff(Options(), numbers, problem).info
    free = oracle.lra_diff(
        problem.params,
        problem.inputs,
        problem.labels,
        gamma=numbers.gamma * hidden,
        num_refinements=numbers.num_refinements,
    ).info
    assert np.any(free.w_hh_grad_norm[1:] > numbers.c0)
    assert np.any(free.target_step_norm > numbers.c1)
    assert np.any(info.w_hh_grad_norm[1:] < numbers.c0 * (1 - 1e-6))
    assert np.any(info.target_step_norm < numbers.c1 * (1 - 1e-6))


# bptt and readout_only.


def check_bptt(problem, max_norm):
    rule = lra_jax.bptt(max_norm=max_norm, output_loss=problem.library_loss)
    grads, info = run(rule, problem)
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
    assert_close(grads, jax.grad(mean_loss)(params), 1e-13)


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
    rule = lra_jax.readout_only(output_loss=problem.library_loss)
    grads, info = run(rule, problem)
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


# tptt.

TPTT_SETTINGS = {
    "default": {},
    "noise": {"noise_std": 0.3, "feedback_lr": 0.1},
    "no momentum": {"noise_std": 0.1, "feedback_lr": 0.5, "feedback_momentum": 0.0},
    "large rates": {"target_lr": 3.0, "feedback_lr": 1.0, "noise_std": 0.05},
    "bptt for w_xh": {"w_xh_update": "bptt", "noise_std": 0.2, "target_lr": 1.0},
}


def tptt_rounds(settings, problem, num_updates=3):
    """Each update's (library's grads, state, info), (oracle's result, feedback)."""
    rule = lra_jax.tptt(**settings, output_loss=problem.library_loss)
    params, batch = problem.library
    state = rule.init(jax.random.key(7), params)
    feedback = oracle.Feedback(*map(np.asarray, (*state.inverse, *state.velocity)))
    np.testing.assert_allclose(
        feedback.v @ feedback.v.T, np.eye(len(feedback.v)), 0, 1e-14
    )
    assert not any(np.any(part) for part in feedback[1:])
    length, batch_size = problem.inputs.shape[:2]
    shape = (length, batch_size, len(problem.params.b_h))
    grads_of = jax.jit(rule.grads)
    options = {k: v for k, v in settings.items() if k != "noise_std"}
    for key in jax.random.split(jax.random.key(8), num_updates):
        std = settings.get("noise_std", 0.0)
        noise = tptt_rule.sample_noise(key, shape, std, params.w_hh.dtype)
        with jax.numpy_dtype_promotion("strict"):
            grads, state, info = grads_of(key, params, state, batch)
        expected, feedback = oracle.tptt(
            problem.params,
            feedback,
            problem.inputs,
            problem.labels,
            np.asarray(noise),
            **options,
            output_loss=problem.oracle_loss,
        )
        yield (grads, state, info), (expected, feedback)


def flat(state):
    return oracle.Feedback(*state.inverse, *state.velocity)


@pytest.mark.parametrize("settings", TPTT_SETTINGS.values(), ids=TPTT_SETTINGS)
@pytest.mark.parametrize("name", ["tokens", "real"])
def test_tptt_equals_the_oracle(settings, name):
    for found, expected in tptt_rounds(settings, PROBLEMS[name]):
        grads, state, info = found
        result, feedback = expected
        assert_close(grads, result.grads)
        assert_close(flat(state), feedback)
        assert_close(info, result.info)


@pytest.mark.parametrize("name", ["T=1", "B=1, H=1"])
def test_tptt_of_degenerate_sizes(name):
    settings = TPTT_SETTINGS["noise"]
    for found, expected in tptt_rounds(settings, PROBLEMS[name]):
        assert_close(found[0], expected[0].grads)
        assert_close(flat(found[1]), expected[1])
        assert_close(found[2], expected[0].info)


def test_tptt_trains_w_xh_by_bptt_if_asked():
    problem = PROBLEMS["tokens"]
    settings = TPTT_SETTINGS["bptt for w_xh"]
    exact = check_bptt(problem, max_norm=0.0)
    local = next(tptt_rounds(settings | {"w_xh_update": "tptt"}, problem))[0][0]
    grads = next(tptt_rounds(settings, problem))[0][0]
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
        noise = tptt_rule.sample_noise(key, z.shape, std, z.dtype)
        gradient = jax.grad(reconstruction_loss)(
            inverse, params, batch.inputs, z, noise
        )
        updates, opt_state = optimizer.update(gradient, opt_state)
        inverse = optax.apply_updates(inverse, updates)
        _, state, _ = rule.grads(key, params, state, batch)
        assert_close(state.inverse, inverse, 1e-13)


def test_tptt_noise_has_the_standard_deviation_asked_for():
    noise = tptt_rule.sample_noise(jax.random.key(3), (50, 20, 10), 0.3, np.float64)
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


def test_python_and_traced_numbers_give_the_same():
    """Every number of lra_diff as a Python number and as a traced array."""
    problem = random_problem(10)
    for numbers in (
        Numbers(gamma=2.0, num_refinements=3, c0=0.1, c1=0.2, lambda_=0.3),
        Numbers(gamma=2.0, num_refinements=3),
    ):
        python, python_info = run(lra_jax.lra_diff(**numbers._asdict()), problem)
        grads, _, info = compiled_lra_diff(Options())(*problem.library, numbers)
        assert_close(grads, python, 1e-12)
        assert_close(info, python_info, 1e-12)
    again, _, _ = compiled_lra_diff(Options())(*problem.library, numbers)
    assert_identical(again, grads)
