"""lra_released in float32: the released code's runs, its NaN, and traced numbers."""

import functools

import golden_cases as golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close

import lra_jax
from lra_jax.paper.released import evaluate_released, released_gradients

NUMBERS = {"gamma": 2.0, "num_refinements": 3, "lambda_": 0.1, "c": 0.05}


@functools.cache
def problem(task="temporal_order", batch_size=6, hidden_size=8):
    task = lra_jax.TASKS[task]
    sizes = (task.input_size, hidden_size, task.output_size)
    params = lra_jax.init_params(jax.random.key(0), *sizes)
    return params, task.sample(jax.random.key(1), batch_size, 10)


@functools.cache
def program(static):
    @jax.jit
    def run(numbers, params, batch):
        rule = lra_jax.lra_released(**numbers, **dict(static))
        found, _, info = rule.grads(jax.random.key(0), params, (), batch)
        return found, info

    return run


def grads_of(numbers, static=None, params=None, batch=None):
    """(grads, info) with numbers traced but for those in `static`."""
    drawn = problem()
    params, batch = params or drawn[0], batch or drawn[1]
    run = program(tuple((static or {}).items()))
    return jax.device_get(run(numbers, params, batch))


# The released code's numbers.


@pytest.mark.optimized
def test_float32_is_nan_where_the_released_code_is():
    arrays = golden.load("case_nan_03_float32")
    numbers = golden.numbers_of(arrays)
    params, batch = golden.params_of(arrays), golden.batch_of(arrays)
    found = jax.jit(functools.partial(golden.gradients_of, arrays))(
        params, batch, numbers
    )
    assert np.isnan(arrays["d_w_hh"]).all()
    for name, actual in jax.device_get(found).items():
        expected = arrays[name]
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected), name)
        number = ~np.isnan(expected)
        # Float32 rounding, of sums over B·H entries and of a few steps.
        scale = np.max(np.abs(expected), where=number, initial=0)
        np.testing.assert_allclose(
            actual[number], expected[number], rtol=0, atol=2e-5 * scale, err_msg=name
        )


@functools.cache
def start_of_run(name):
    """E as reported for 100 updates, and the validations before and after them."""
    arrays, settings = golden.load(f"curve_start_{name}"), golden.CURVES[name]
    settings = settings["hyper_parameters"]
    numbers = {k: settings[k] for k in ("gamma", "num_refinements", "lambda_", "c")}
    local_loss = golden.LOCAL_LOSSES[settings["local_loss"]]
    optimizer = optax.sgd(settings["learning_rate"])

    def step(params, batch):
        found = released_gradients(params, batch, **numbers, local_loss=local_loss)
        updates, _ = optimizer.update(found.grads, optimizer.init(params))
        return optax.apply_updates(params, updates), found.target_loss

    first = golden.params_of(arrays)
    batches = golden.batch_of(arrays, "train_")
    last, losses = jax.jit(functools.partial(jax.lax.scan, step))(first, batches)
    validation = golden.batch_of(arrays, "val_")
    evaluate = jax.jit(evaluate_released)
    metrics = [evaluate(params, validation) for params in (first, last)]
    standard = jax.jit(lra_jax.evaluate)(first, validation)
    return arrays, *jax.device_get((losses, metrics, standard))


all_curves = pytest.mark.parametrize("name", golden.CURVES)


@all_curves
def test_the_first_updates_of_a_run_are_the_released_codes(name):
    """Weights that differ by one part in 2²² move the losses by up to 5e-7."""
    arrays, losses, _, _ = start_of_run(name)
    assert len(losses) == 100
    np.testing.assert_allclose(losses, arrays["global_loss"], rtol=0, atol=2e-6)


@all_curves
def test_the_validation_of_a_run_is_the_released_codes(name):
    _, _, metrics, standard = start_of_run(name)
    curve = golden.CURVES[name]
    assert curve["iterations"][:2] == [0, 100]
    for i, found in enumerate(metrics):
        errors = round(10_000 * (1 - curve["validation_accuracy"][i]))
        # Of 10,000, one more may lie on the border of two classes.
        assert abs(int(found.num_errors) - errors) <= 1
        assert found.loss == pytest.approx(curve["validation_loss"][i], abs=2e-6)
    assert abs(int(standard.num_errors) - int(metrics[0].num_errors)) > 5


# Traced numbers.


@pytest.mark.slow
def test_a_vmap_over_numbers_is_separate_calls_with_one_k():
    params, batch = problem()
    axes = {
        "gamma": jnp.array([0.5, 2.0, 8.0]),
        "lambda_": jnp.array([0.0, 0.03, 0.1]),
        "c": jnp.array([0.05, 0.0, 1.0]),
    }

    @functools.partial(jax.jit, static_argnums=2)
    def together(numbers, num_refinements, traced):
        def one(numbers, num_refinements):
            rule = lra_jax.lra_released(num_refinements=num_refinements, **numbers)
            return rule.grads(jax.random.key(0), params, (), batch)[::2]

        if traced:
            return jax.vmap(one, (0, None))(numbers, num_refinements)
        return jax.vmap(lambda n: one(n, 2))(numbers)

    results = jax.device_get([together(axes, 2, traced) for traced in (True, False)])
    for index in range(3):
        numbers = {name: values[index] for name, values in axes.items()}
        alone = grads_of(numbers | {"num_refinements": 2})
        for result in results:
            assert_close(jax.tree.map(lambda x, i=index: x[i], result), alone, 1e-4)


@pytest.mark.parametrize(
    "local_loss", ["mse", pytest.param("log_penalty", marks=pytest.mark.slow)]
)
def test_traced_numbers_are_those_of_python(local_loss):
    choice = {"local_loss": local_loss}
    traced = grads_of(NUMBERS, choice)
    assert_close(grads_of({}, NUMBERS | choice), traced)
    assert_close(grads_of({**NUMBERS, "num_refinements": jnp.int32(3)}, choice), traced)


def test_a_traced_zero_lambda_is_the_program_without_omega():
    numbers = NUMBERS | {"lambda_": 0.0}
    without = dict(numbers)
    del without["lambda_"]
    assert_close(grads_of(numbers), grads_of(without))


@pytest.mark.optimized
def test_a_traced_zero_lambda_is_finite_where_omega_is_not():
    arrays = golden.load("case_nan_03_float32")
    inputs = {"params": golden.params_of(arrays), "batch": golden.batch_of(arrays)}
    numbers = golden.numbers_of(arrays)
    assert np.isnan(grads_of(numbers, **inputs)[0].w_hh).any()
    found = grads_of(numbers | {"lambda_": 0.0}, **inputs)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(found))
    del numbers["lambda_"]
    assert_close(found, grads_of(numbers, **inputs), 1e-4)


# What it shares with the other rules, and what not.


def test_gamma_is_b_times_that_of_lra_diff():
    """The top target is the same up to 1/B, as long as no norm is bounded."""
    params, batch = problem()
    released = grads_of({"gamma": 1.0})[1]
    rule = lra_jax.lra_diff(gamma=1.0)
    diff = jax.jit(rule.grads)(jax.random.key(0), params, (), batch)[2]
    np.testing.assert_allclose(
        6 * released.target_step_norm[-1], diff.target_step_norm[-1], rtol=1e-5
    )


def test_the_readout_without_omega_and_bound_is_exact():
    params, batch = problem()
    found, _ = grads_of({"gamma": 1.0})
    exact = jax.jit(lra_jax.bptt().grads)(jax.random.key(0), params, (), batch)[0]
    assert_close((found.w_hy, found.b_y), (exact.w_hy, exact.b_y))


def test_omega_needs_a_batch_of_at_most_the_hidden_units():
    params, batch = problem(batch_size=9)
    for lambda_ in (0.1, jnp.float32(0)):
        rule = lra_jax.lra_released(gamma=1.0, lambda_=lambda_)
        with pytest.raises(
            ValueError, match=r"^inputs: expected a batch of at most H = 8,"
        ):
            jax.eval_shape(rule.grads, jax.random.key(0), params, (), batch)
    found, _ = grads_of({"gamma": 1.0}, params=params, batch=batch)
    assert all(np.all(np.isfinite(g)) for g in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "task", [n for n, t in lra_jax.TASKS.items() if not t.output_loss.every_step]
)
def test_training_without_omega_lowers_the_loss(task):
    params, batch = problem(task)
    output_loss = lra_jax.TASKS[task].output_loss
    rule = lra_jax.lra_released(
        gamma=2.0, num_refinements=3, c=1.0, output_loss=output_loss
    )

    def step(params, _):
        grads, _, info = rule.grads(jax.random.key(0), params, (), batch)
        return jax.tree.map(lambda p, g: p - 0.03 * g, params, grads), info.loss

    _, losses = jax.jit(lambda p: jax.lax.scan(step, p, length=150))(params)
    assert np.all(np.isfinite(losses))
    assert losses[-1] < 0.98 * losses[0]


# Validation.


@pytest.mark.parametrize("task", ["temporal_order", "adding"])
def test_the_released_validation_starts_from_the_first_inputs_projection(task):
    params, batch = problem(task)
    output_loss = lra_jax.TASKS[task].output_loss
    x = np.asarray(batch.inputs)
    x = x if x.ndim == 3 else np.eye(len(params.w_xh))[x]
    w_xh, w_hh, b_h, w_hy, b_y = (np.asarray(w, np.float64) for w in params)
    b_h = b_h + 0.1
    z = x[0] @ w_xh + b_h
    for x_t in x:
        z = np.tanh(z @ w_hh + x_t @ w_xh + b_h)
    logits = jnp.asarray(z @ w_hy + b_y, jnp.float32)
    found = evaluate_released(
        params._replace(b_h=jnp.asarray(b_h, jnp.float32)),
        batch,
        output_loss=output_loss,
    )
    expected = jnp.mean(output_loss.value(logits, batch.labels))
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)
    errors = jnp.sum(output_loss.is_error(logits, batch.labels))
    assert found.num_errors == errors
    assert found.num_errors.dtype == np.int32


def test_the_released_validation_names_wrong_inputs():
    params, batch = problem()
    with pytest.raises(ValueError, match="inputs: expected"):
        evaluate_released(params, batch._replace(inputs=batch.inputs[:0]))
