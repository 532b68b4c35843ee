"""Rules by how an error reaches a step: one as another's special case, and limits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close, assert_identical
from oracles import numpy_local_rules

import lra_jax
from lra_jax import RULES, TASKS, regularizer

T, B, H = 10, 5, 12
TASK = TASKS["temporal_order"]
LAST, RIDGE, TARGET_LR = T - 1, 0.5, 0.1


@functools.cache
def problem():
    """Weights, orthogonal but for noise, and a batch."""
    key, noise, sample = jax.random.split(jax.random.key(0), 3)
    params = lra_jax.init_params(key, TASK.input_size, H, TASK.output_size)
    moved = jax.random.normal(noise, params.w_hh.shape) * 0.05
    return params._replace(w_hh=params.w_hh + moved), TASK.sample(sample, B, T)


def first_state(rule, **options):
    return RULES[rule](**options).init(jax.random.key(1), problem()[0])


@functools.cache
def program(rule, **choices):
    def grads(params, state, batch, numbers):
        made = RULES[rule](**choices, **numbers)
        return made.grads(jax.random.key(2), params, state, batch)

    return jax.jit(grads)


def run(rule, params, batch, state=None, **options):
    """(grads, state, info) of an update; choices are strings and functions."""
    numbers = {k: x for k, x in options.items() if isinstance(x, int | float)}
    choices = {k: x for k, x in options.items() if k not in numbers}
    state = first_state(rule, **options) if state is None else state
    return jax.device_get(program(rule, **choices)(params, state, batch, numbers))


def assert_finite(tree):
    for x in jax.tree.leaves(tree):
        assert np.all(np.isfinite(x))


# Feedback weights as they are drawn.


@pytest.mark.parametrize("rule", ["fa", "lra_e", "rec_lra"])
@pytest.mark.parametrize("output_size", [4, H])
def test_feedback_weights_are_orthogonal_and_differ(rule, output_size):
    params = lra_jax.init_params(jax.random.key(0), 3, H, output_size)
    drawn = jax.tree.leaves(RULES[rule]().init(jax.random.key(1), params))
    for w in drawn:
        np.testing.assert_allclose(w @ w.T, np.eye(len(w)), rtol=0, atol=1e-6)
    # With Y = H all have one shape: those of one key would have equal rows.
    rows = np.concatenate(drawn)
    assert np.abs(rows @ rows.T - np.eye(len(rows))).max() < 0.99


@pytest.mark.parametrize(
    ("rule", "variance"), [("dfa", 1 / 200), ("lra_fdbk", 1 / 200)]
)
def test_feedback_weights_have_the_variance_asked_for(rule, variance):
    params = lra_jax.init_params(jax.random.key(0), 3, 200, 100)
    (w,) = jax.tree.leaves(RULES[rule]().init(jax.random.key(1), params))
    assert w.shape == {"dfa": (100, 200), "lra_fdbk": (200, 200)}[rule]
    # The standard error of the variance is below 2 %: at least 20,000 numbers.
    assert np.mean(np.square(w)) == pytest.approx(variance, rel=0.05)
    assert abs(np.mean(w)) < 0.03 * np.sqrt(variance)


# One rule as the special case of another.


def test_fa_by_the_transposes_is_bptt():
    params, batch = problem()
    exact, _, info = run("bptt", params, batch)
    state = first_state("fa")._replace(a=params.w_hh.T)
    grads, after, found = run("fa", params, batch, state)
    assert_close((grads, found), (exact, info), 1e-6)
    state = state._replace(e_y=params.w_hy.T)
    assert_identical(run("fa", params, batch, state, readout="random")[0], grads)
    assert_close(after, first_state("fa")._replace(a=params.w_hh.T), 0)


def test_random_errors_are_bptts_at_the_last_step_and_keep_its_norm():
    params, batch = problem()
    given = jax.random.key(2), params, lra_jax.EmptyState(), batch
    exact = lra_jax.diagnostics.hidden_errors(lra_jax.bptt(), *given)
    found = lra_jax.diagnostics.hidden_errors(lra_jax.random_error(), *given)
    assert_close(found[-1], exact[-1])
    norms = np.linalg.norm(found, axis=-1)
    np.testing.assert_allclose(
        norms, np.broadcast_to(norms[-1], norms.shape), rtol=1e-5
    )


def test_random_errors_have_no_direction():
    """2,000 samples: each coordinate's mean is 0 and its square's 1/H, at every step."""
    size = 2000
    batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(5), size, 10)
    params = lra_jax.init_params(jax.random.key(0), 6, H, 4)
    given = params, lra_jax.EmptyState(), batch
    errors = functools.partial(
        lra_jax.diagnostics.hidden_errors, lra_jax.random_error()
    )
    first, second = (errors(jax.random.key(k), *given) for k in (1, 2))
    unit = first / np.linalg.norm(first, axis=-1, keepdims=True)
    for step in unit[:-1]:
        assert np.abs(np.mean(step, axis=0)).max() < 5 / np.sqrt(size * H)
        # The variance of a squared coordinate is below 2 / H².
        deviation = np.abs(np.mean(np.square(step), axis=0) - 1 / H)
        assert deviation.max() < 5 * np.sqrt(2 / size) / H
    # Neither the update before nor the step after has anything to do with it.
    other = second / np.linalg.norm(second, axis=-1, keepdims=True)
    for a, b in ((unit[0], other[0]), (unit[0], unit[1]), (unit[3], unit[9])):
        cosines = np.sum(a * b, axis=-1)
        assert abs(np.mean(cosines)) < 5 / np.sqrt(size * H)
    # As it would not be if they were the same.
    assert np.mean(np.sum(unit[9] * other[9], axis=-1)) > 0.99


def test_dfa_by_the_transpose_is_bptt_at_the_last_step():
    params, batch = problem()
    _, _, info = run("bptt", params, batch)
    grads, _, found = run("dfa", params, batch, readout="transpose")
    for name in ("w_xh_grad_norm", "w_hh_grad_norm"):
        last, expected = getattr(found, name)[-1], getattr(info, name)[-1]
        assert last == pytest.approx(expected, rel=1e-6)
    state = first_state("dfa")._replace(e_y=params.w_hy.T)
    assert_close(run("dfa", params, batch, state)[0], grads, 1e-6)
    # The only step is the last.
    first = batch._replace(inputs=batch.inputs[:1])
    exact, grads = (
        run(rule, params, first, **choice)[0]
        for rule, choice in (("bptt", {}), ("dfa", {"readout": "transpose"}))
    )
    assert_close(grads, exact, 1e-6)


def test_tpri_of_an_orthogonal_matrix_is_bptt_over_one_plus_r_per_step():
    """Where tanh is linear: inputs of 1e-3, so that σ' is 1 up to 1e-6."""
    params, batch = problem()
    w_hh = lra_jax.init_params(jax.random.key(3), 1, H, 1).w_hh
    params = params._replace(w_hh=w_hh, w_xh=1e-3 * params.w_xh)
    _, _, exact = run("bptt", params, batch)
    _, _, found = run("tpri", params, batch, target_lr=TARGET_LR, ridge=RIDGE)
    shrunk = TARGET_LR / (1 + RIDGE) ** (LAST - np.arange(T))
    for name in ("w_xh_grad_norm", "w_hh_grad_norm"):
        expected = shrunk * getattr(exact, name)
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-4)
    # In direction too, without a chain.
    first = batch._replace(inputs=batch.inputs[:1])
    exact, found = (
        run(rule, params, first, **numbers)[0].w_xh
        for rule, numbers in (("bptt", {}), ("tpri", {"target_lr": TARGET_LR}))
    )
    assert_close(found, TARGET_LR * exact, 1e-5)


def test_lra_norm_without_its_parts_is_bptt():
    params, batch = problem()
    exact, _, info = run("bptt", params, batch)
    grads, _, found = run("lra_norm", params, batch, exponent=0.0, activity=0.0)
    assert_close(grads, exact, 1e-6)
    assert_close(found._replace(target_step_norm=None), info, 1e-6)
    # At the last step no norm has been kept yet.
    first = batch._replace(inputs=batch.inputs[:1])
    grads, exact = (
        run(rule, params, first, **numbers)[0]
        for rule, numbers in (("lra_norm", {"activity": 0.0}), ("bptt", {}))
    )
    assert_close(grads, exact, 1e-6)


def test_lra_norm_keeps_the_norms_of_errors():
    params, batch = problem()
    info = run("lra_norm", params, batch)[2]
    np.testing.assert_allclose(
        info.target_step_norm, np.full(T, info.target_step_norm[-1]), rtol=1e-5
    )


def test_the_cost_of_activity_is_its_gradient_where_there_is_no_error_below():
    """With W_hh = 0 no error gets below the top, where q = d + μ ‖d‖ z."""
    params, batch = problem()
    params = params._replace(w_hh=jnp.zeros((H, H)))
    plain, costly = (
        run("lra_norm", params, batch, activity=mu)[0] for mu in (0.0, 0.5)
    )
    trace = lra_jax.forward(params, batch.inputs)
    pi = lra_jax.cross_entropy.grad(trace.logits, batch.labels)
    d = pi @ params.w_hy.T * (1 - trace.z[-1] ** 2)
    cost = 0.5 * jnp.linalg.norm(d, axis=-1, keepdims=True) * trace.z[-1]
    np.testing.assert_allclose(costly.b_h - plain.b_h, cost.mean(axis=0), atol=1e-6)


def test_rec_lra_without_a_skip_is_lra_e():
    params, batch = problem()
    state = first_state("rec_lra")
    numbers = {"beta": 0.7, "feedback_lr": 0.1}
    grads, chain, info = run("lra_e", params, batch, state.chain, **numbers)
    for length in (T, T + 3):
        same = run(
            "rec_lra", params, batch, state, num_steps_per_skip=length, **numbers
        )
        assert_close(same, (grads, state._replace(chain=chain), info), 1e-6)
    skips, _, _ = run(
        "rec_lra", params, batch, state, num_steps_per_skip=LAST, **numbers
    )
    assert np.abs(skips.w_xh - grads.w_xh).max() > 1e-2 * np.abs(grads.w_xh).max()


def test_rec_lra_with_a_skip_at_every_step_has_no_chain():
    params, batch = problem()
    state = first_state("rec_lra")
    chainless = state._replace(chain=state.chain._replace(a=jnp.zeros((H, H))))
    with_chain, without = (
        run("rec_lra", params, batch, s, num_steps_per_skip=1)[::2]
        for s in (state, chainless)
    )
    assert_identical(with_chain, without)


@pytest.mark.parametrize("rule", ["lra_e", "rec_lra"])
def test_error_synapses_learn_only_if_asked(rule):
    params, batch = problem()
    before = first_state(rule)
    still, moved = (run(rule, params, batch, feedback_lr=lr)[1] for lr in (0.0, 0.1))
    assert_identical(still, jax.device_get(before))
    chains = (getattr(s, "chain", s) for s in (before, moved))
    for old, new in zip(*chains, strict=True):
        assert np.abs(new - old).max() > 1e-3
    if rule == "rec_lra":
        assert_identical(moved.e_skip, np.asarray(before.e_skip))


# Limits.

LOCAL_RULES = [
    "bptt", "fa", "dfa", "lra_fdbk", "lra_e", "lra_norm", "lra_reversible",
    "rec_lra", "tpri", "random_error",
]  # fmt: skip
FINITE_RULES = {rule: {} for rule in [*LOCAL_RULES, "tptt"]} | {
    f"lra_diff, {schedule}": {"gamma": 5.0, "lambda_": 0.5, "schedule": schedule}
    for schedule in regularizer.SCHEDULES
}


@functools.cache
def loss_times(scale):
    """Cross entropy with π times `scale`, E as it is."""
    loss = lra_jax.cross_entropy
    return loss._replace(grad=lambda *where: scale * loss.grad(*where))


@pytest.mark.parametrize("rule", LOCAL_RULES)
def test_errors_of_any_size_reach_every_step(rule):
    """Every step's part is linear in a small π: nothing is lost in rounding or 0."""
    params, batch = problem()
    numbers = {"gamma": 1.0} if rule == "lra_fdbk" else {}  # its chain grows with γ
    larger, smaller = (
        run(rule, params, batch, output_loss=loss_times(scale), **numbers)
        for scale in (2.0**-20, 2.0**-83)  # 1e-6, 1e-25
    )
    assert_close(jax.tree.map(lambda g: 2.0**63 * g, smaller[0]), larger[0], 1e-4)
    for name in ("w_xh_grad_norm", "w_hh_grad_norm", "target_step_norm"):
        norms, expected = getattr(smaller[2], name), getattr(larger[2], name)
        if expected is not None:
            np.testing.assert_allclose(2.0**63 * norms, expected, rtol=1e-4)
            assert np.all(norms[1:] > 0)


@pytest.mark.parametrize("case", FINITE_RULES)
@pytest.mark.parametrize(
    ("scale", "saturated"),
    [
        (0.0, False),
        (1e-25, False),
        (1.0, True),
        pytest.param(1.0, False, marks=pytest.mark.slow),
        pytest.param(0.0, True, marks=pytest.mark.slow),
        pytest.param(1e-25, True, marks=pytest.mark.slow),
    ],
)
def test_updates_are_finite_without_errors_and_where_states_saturate(
    case, scale, saturated
):
    params, batch = problem()
    if saturated:
        params = params._replace(w_xh=1e3 * params.w_xh)
        z = lra_jax.forward(params, batch.inputs).z
        assert np.mean(np.abs(z) == 1) > 0.9
    options = FINITE_RULES[case] | {"output_loss": loss_times(scale)}
    grads, state, info = run(case.split(",")[0], params, batch, **options)
    assert_finite((grads, state, info))
    if scale == 0:
        np.testing.assert_array_equal(grads.w_hy, 0)
    if scale == 0 and case in LOCAL_RULES:
        # States that were computed back are wrong by rounding, whatever the error is.
        for x in jax.tree.leaves((grads, info._replace(reversal_error=None)[1:])):
            np.testing.assert_array_equal(x, 0)


@pytest.mark.optimized  # else tanh stays below 1
@pytest.mark.parametrize(
    ("rule", "numbers"),
    [
        ("fa", {}),
        ("dfa", {}),
        ("lra_fdbk", {"gamma": 1e3}),
        ("lra_e", {"beta": 30.0}),
        ("rec_lra", {"beta": 30.0, "num_steps_per_skip": 3}),
        ("tpri", {"target_lr": 1.0, "ridge": 1.0}),
    ],
)
def test_a_saturated_unit_has_the_error_of_its_target(rule, numbers):
    """Units 0 and 1 are at ±1 at every step; float32 agrees with NumPy's float64."""
    params, batch = problem()
    params = params._replace(b_h=params.b_h.at[:2].set(jnp.array([10.0, -11.0])))
    assert np.all(np.abs(lra_jax.forward(params, batch.inputs).z[..., :2]) == 1)
    state = first_state(rule)
    expected, _ = getattr(numpy_local_rules, rule)(
        numpy_local_rules.Params(*(np.asarray(w, np.float64) for w in params)),
        tuple(np.asarray(w, np.float64) for w in jax.tree.leaves(state)),
        *batch,
        **numbers,
    )
    grads, _, info = run(rule, params, batch, **numbers)
    assert_close(tuple(grads), tuple(expected.grads), 1e-3)
    assert_close(tuple(info), tuple(expected.info), 1e-3)


@pytest.mark.slow
def test_the_defaults_of_lra_norm_solve_temporal_order_at_t_60():
    rule, optimizer = lra_jax.lra_norm(), optax.adam(1e-3)

    @jax.jit
    @jax.vmap
    def errors(seed):
        key = jax.random.key(seed)
        params = lra_jax.init_params(key, TASK.input_size, 100, TASK.output_size)
        state = lra_jax.init_train_state(key, params, rule, optimizer)

        def update(state, _):
            batch = TASK.sample(jax.random.fold_in(key, state.step), 20, 60)
            step = lra_jax.train_step(state, batch, rule=rule, optimizer=optimizer)
            return step[0], None

        def train(state, _):
            state, _ = jax.lax.scan(update, state, length=250)
            samples = TASK.sample(jax.random.key(99), 2_000, 60)
            return state, lra_jax.evaluate(state.params, samples).num_errors

        return jax.lax.scan(train, state, length=6)[1]

    assert np.all(np.min(errors(jnp.arange(3)), axis=1) == 0)
