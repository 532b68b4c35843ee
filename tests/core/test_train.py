"""Updates against hand-computed ones, and evaluations against a count in NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lra_jax
from lra_jax.train import init_train_state, train_step

TASK = lra_jax.TASKS["temporal_order"]
SIZES = (TASK.input_size, 8, TASK.output_size)


def probe_grads(key, params, rule_state, batch):
    """Gradients that tell which arguments they were made of."""
    scale = jax.random.uniform(key) + batch.inputs[0, 0].astype(jnp.float32)
    grads = jax.tree.map(lambda p: scale * (p + 1), params)
    rule_state = {
        "calls": rule_state["calls"] + 1,
        "key": jax.random.key_data(key),
        "init": rule_state["init"],
    }
    return grads, rule_state, lra_jax.RuleInfo(loss=scale)


def probe_init(key, params):
    data = jax.random.key_data(key)
    return {"calls": params.b_y[0], "key": jnp.zeros_like(data), "init": data}


PROBE = lra_jax.LearningRule(probe_init, probe_grads)


@functools.cache
def problem():
    params = lra_jax.init_params(jax.random.key(0), *SIZES)
    return jax.device_get((params, TASK.sample(jax.random.key(1), 3, 10)))


def start(rule, optimizer, seed=2):
    return init_train_state(jax.random.key(seed), problem()[0], rule, optimizer)


def step_of(rule, optimizer):
    return jax.jit(functools.partial(train_step, rule=rule, optimizer=optimizer))


def gradients(state, batch):
    """What the probe gives, by hand."""
    key = jax.random.fold_in(state.key, state.step)
    scale = np.asarray(jax.random.uniform(key)) + np.float32(batch.inputs[0, 0])
    return jax.tree.map(lambda p: scale * (np.asarray(p) + 1), state.params)


def assert_close(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def assert_identical(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


# The state before the first update.


def test_a_new_state_has_the_given_weights_and_no_steps():
    params, _ = problem()
    optimizer = optax.adam(0.1)
    state = start(PROBE, optimizer)
    assert_identical(state.params, params)
    assert_identical(state.opt_state, optimizer.init(params))
    assert state.step.dtype == jnp.int32
    assert state.step.shape == ()
    assert state.step == 0


def test_a_rules_initial_state_and_its_updates_have_different_keys():
    state = start(PROBE, optax.sgd(0.1))
    later = jax.random.key_data(state.key)
    assert not np.array_equal(state.rule_state["init"], later)
    assert not np.array_equal(later, jax.random.key_data(jax.random.key(2)))
    assert_identical(state, start(PROBE, optax.sgd(0.1)))
    other = start(PROBE, optax.sgd(0.1), seed=3)
    assert not np.array_equal(jax.random.key_data(other.key), later)
    assert not np.array_equal(other.rule_state["init"], state.rule_state["init"])


# Updates.


def test_a_step_of_sgd_descends_the_gradient():
    _, batch = problem()
    optimizer = optax.sgd(0.25)
    state, step = start(PROBE, optimizer), step_of(PROBE, optimizer)
    grads = gradients(state, batch)
    after, info = step(state, batch)
    expected = jax.tree.map(lambda p, g: p - 0.25 * g, problem()[0], grads)
    assert_close(after.params, expected)
    # g = scale (p + 1)
    np.testing.assert_allclose(info.loss, grads.b_h, rtol=1e-6)  # b_h is 0


def test_steps_with_momentum_add_up_the_gradients():
    _, batch = problem()
    optimizer = optax.sgd(0.1, momentum=0.8)
    state, step = start(PROBE, optimizer), step_of(PROBE, optimizer)
    velocity = jax.tree.map(np.zeros_like, state.params)
    for _ in range(3):
        grads = gradients(state, batch)
        velocity = jax.tree.map(lambda v, g: 0.8 * v + g, velocity, grads)
        params = jax.device_get(state.params)
        expected = jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity)
        state, _ = step(state, batch)
        assert_close(state.params, expected)


def test_steps_of_adam_are_those_of_its_paper():
    _, batch = problem()
    optimizer = optax.adam(0.1, b1=0.9, b2=0.99, eps=1e-6)
    state, step = start(PROBE, optimizer), step_of(PROBE, optimizer)
    mean = square = jax.tree.map(np.zeros_like, state.params)
    for i in range(1, 4):
        grads = gradients(state, batch)
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, grads)
        square = jax.tree.map(lambda s, g: 0.99 * s + 0.01 * g**2, square, grads)
        rate, c1, c2 = 0.1, 1 - 0.9**i, 1 - 0.99**i
        expected = jax.tree.map(
            lambda p, m, s, c1=c1, c2=c2: (
                p - rate * (m / c1) / (np.sqrt(s / c2) + 1e-6)  # noqa: B023
            ),
            jax.device_get(state.params),
            mean,
            square,
        )
        state, _ = step(state, batch)
        assert_close(state.params, expected)


def test_weight_decay_sees_the_weights():
    _, batch = problem()
    optimizer = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(0.1))
    state, step = start(PROBE, optimizer), step_of(PROBE, optimizer)
    grads = gradients(state, batch)
    after, _ = step(state, batch)
    expected = jax.tree.map(lambda p, g: p - 0.1 * (g + 0.5 * p), state.params, grads)
    assert_close(after.params, expected)


def test_steps_are_counted_and_each_has_its_own_key():
    _, batch = problem()
    optimizer = optax.sgd(0.0)
    state, step = start(PROBE, optimizer), step_of(PROBE, optimizer)
    seen = []
    for i in range(4):
        after, _ = step(state, batch)
        assert after.step == i + 1
        assert after.step.dtype == jnp.int32
        assert_identical(after.key, state.key)
        used = jax.random.key_data(jax.random.fold_in(state.key, i))
        np.testing.assert_array_equal(after.rule_state["key"], used)
        assert after.rule_state["calls"] == i + 1
        seen.append(tuple(used.tolist()))
        state = after
    assert len(set(seen)) == 4


def test_a_step_depends_on_its_arguments_only_and_changes_none():
    params, batch = problem()
    optimizer = optax.adam(0.1)
    rule = lra_jax.tptt(noise_std=0.1)
    step = step_of(rule, optimizer)
    state = start(rule, optimizer)
    before = jax.tree.map(jnp.copy, state)
    first = step(state, batch)
    other = TASK.sample(jax.random.key(9), 3, 10)
    step(step(state, other)[0], batch)
    assert_identical(step(state, batch), first)
    assert_identical(state, before)
    assert_identical(start(rule, optimizer), before)
    assert not np.array_equal(first[0].params.w_hh, params.w_hh)


def test_a_step_continues_from_where_another_stopped():
    _, batch = problem()
    rule, optimizer = lra_jax.readout_only(), optax.sgd(0.1, momentum=0.9)
    step = step_of(rule, optimizer)
    states = [start(rule, optimizer)]
    for _ in range(4):
        states.append(step(states[-1], batch)[0])
    stored = jax.tree.map(np.asarray, states[2]._replace(key=()))
    restored = jax.tree.map(jnp.asarray, stored)._replace(key=states[2].key)
    assert_identical(step(step(restored, batch)[0], batch)[0], states[4])


# Evaluations.


# Compiled: an evaluation without jit compiles each of its operations.
evaluate = jax.jit(lra_jax.evaluate, static_argnames="output_loss")


def constant_params(task, value):
    x, h, y = task.input_size, 4, task.output_size
    shapes = ((x, h), (h, h), (h,), (h, y), (y,))
    return lra_jax.Params(*(np.full(shape, value, np.float32) for shape in shapes))


def logits_in_float64(params, inputs):
    w_xh, w_hh, b_h, w_hy, b_y = (np.asarray(w, np.float64) for w in params)
    z = np.zeros((inputs.shape[1], len(b_h)))
    for x in np.asarray(inputs):
        z = np.tanh(z @ w_hh + w_xh[x] + b_h)
    return z @ w_hy + b_y


def test_an_evaluation_is_a_count_in_numpy():
    params, _ = problem()
    batch = jax.jit(TASK.sample, static_argnums=(1, 2))(jax.random.key(4), 10_000, 10)
    metrics = evaluate(params, batch)
    logits, labels = logits_in_float64(params, batch.inputs), np.asarray(batch.labels)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    loss = -log_p[np.arange(10_000), labels].mean()
    assert type(metrics) is lra_jax.Metrics
    assert metrics.num_errors.dtype == jnp.int32
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-5)
    assert metrics.num_errors == np.sum(logits.argmax(axis=1) != labels)


@pytest.mark.parametrize("num_errors", [0, 1, 9_999, 10_000])
def test_no_single_error_is_lost(num_errors):
    # Weights that answer with the first symbol.
    eye = np.eye(8, dtype=np.float32)
    params = jax.tree.map(np.zeros_like, problem()[0])
    params = params._replace(w_xh=3 * eye[:6], w_hy=eye[:, :4])
    symbols = np.arange(10_000) % 4
    labels = symbols.copy()
    labels[:num_errors] += 1
    batch = lra_jax.Batch(symbols[None], labels % 4)
    assert evaluate(params, batch).num_errors == num_errors


@pytest.mark.parametrize("task", lra_jax.TASKS.values(), ids=lra_jax.TASKS)
def test_weights_that_are_not_numbers_make_every_sample_an_error(task):
    params = constant_params(task, 0.1)
    seq_len = max(10, task.min_seq_len)
    batch = jax.jit(task.sample, static_argnums=(1, 2))(jax.random.key(1), 50, seq_len)
    params.w_hh[0, 0] = np.nan
    metrics = evaluate(params, batch, output_loss=task.output_loss)
    assert metrics.num_errors == 50
    assert np.isnan(metrics.loss)


def test_a_real_output_is_evaluated_by_its_own_loss():
    task = lra_jax.TASKS["adding"]
    # No weight but the last bias: the answer 1/2.
    params = constant_params(task, 0.0)._replace(b_y=np.array([0.5], np.float32))
    batch = jax.jit(task.sample, static_argnums=(1, 2))(jax.random.key(1), 1000, 10)
    metrics = evaluate(params, batch, output_loss=task.output_loss)
    off = np.asarray(batch.labels, np.float64)[:, 0] - 0.5
    np.testing.assert_allclose(metrics.loss, np.mean(off**2), rtol=1e-5)
    assert metrics.num_errors == np.sum(off**2 > 0.04)


def test_evaluating_names_what_does_not_fit():
    params, batch = problem()
    with pytest.raises(ValueError, match=r"^inputs: expected"):
        evaluate(params, batch._replace(inputs=jnp.zeros((10, 3))))
    with pytest.raises(ValueError, match=r"^labels: expected"):
        evaluate(params, batch._replace(labels=jnp.zeros(3)))


def batch_of(batch_size=3):
    return TASK.sample(jax.random.key(1), batch_size, 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g, i: (g._replace(w_hh=g.w_hh[:2]), i), r"got Params\(.*w_hh=\(2, 8\)"),
        (lambda g, i: (g._asdict(), i), r"got \{'b_h': \(8,\)"),
        (lambda g, i: (g, i._replace(loss=jnp.zeros(3))), r"got .* and \(3,\)"),
    ],
)
def test_what_a_rule_returns_is_checked(change, message):
    def grads(*args):
        found, rule_state, info = probe_grads(*args)
        found, info = change(found, info)
        return found, rule_state, info

    rule, optimizer = lra_jax.LearningRule(probe_init, grads), optax.sgd(0.1)
    step = functools.partial(train_step, rule=rule, optimizer=optimizer)
    with pytest.raises(ValueError, match=r"^rule: expected gradients .*" + message):
        jax.eval_shape(step, start(rule, optimizer), batch_of())


def test_what_a_task_draws_is_checked():
    task = dataclasses.replace(TASK, draw=lambda key, b, t: batch_of(b + 1))
    message = r"^task: expected inputs \[T, B, \.\.\.\] = \(10, 3\), got \(10, 4\)$"
    with pytest.raises(ValueError, match=message):
        task.sample(jax.random.key(0), 3, 10)


@pytest.mark.parametrize("name", ["value", "is_error"])
def test_what_an_output_loss_gives_is_checked(name):
    loss = lra_jax.cross_entropy
    changed = loss._replace(**{name: lambda x, y: getattr(loss, name)(x, y)[:, None]})
    evaluate = functools.partial(lra_jax.evaluate, output_loss=changed)
    with pytest.raises(ValueError, match=r"^output_loss: .*\[B\] = \(3,\), got .*3, 1"):
        jax.eval_shape(evaluate, problem()[0], batch_of())


def test_an_optimizer_gets_the_arguments_that_it_asks_for():
    def update(grads, state, params, *, value, grad, value_fn):
        rate = value + 2 * value_fn(jax.tree.map(jnp.zeros_like, params))
        return jax.tree.map(lambda g, h: -rate * g * h, grads, grad), state

    params, batch = problem()
    rule = lra_jax.bptt()
    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), update)
    state = init_train_state(jax.random.key(1), params, rule, optimizer)
    after, info = train_step(state, batch, rule=rule, optimizer=optimizer)
    grads, _, _ = rule.grads(state.key, params, state.rule_state, batch)
    rate = info.loss + 2 * np.log(SIZES[2])  # the loss of no weights
    for found, w, g in zip(after.params, params, grads, strict=True):
        np.testing.assert_allclose(found, w - rate * g * g, rtol=1e-5, atol=1e-7)


PLATEAU = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau())
EVERYWHERE = lra_jax.Params(True, True, True, True, True)
EXTRA_ARGUMENTS = {
    "reduce_on_plateau": PLATEAU,
    "polyak_sgd": optax.polyak_sgd(),
    "momo": optax.contrib.momo(),
    "inject_hyperparams": optax.inject_hyperparams(optax.polyak_sgd)(scaling=0.5),
    "MultiSteps": optax.MultiSteps(PLATEAU, 2),
    "apply_if_finite": optax.apply_if_finite(PLATEAU, 3),
    "masked": optax.masked(PLATEAU, EVERYWHERE),
    "schedule_free": optax.contrib.schedule_free_sgd(0.1),
    "backtracking": optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)
    ),
    "sophia": optax.contrib.sophia(0.1),
    "sam": optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.05), opaque_mode=True),
}


@pytest.mark.parametrize("name", EXTRA_ARGUMENTS)
def test_every_optimizer_trains_in_a_scan(name):
    params, batch = problem()
    choice = {"rule": lra_jax.fa(), "optimizer": EXTRA_ARGUMENTS[name]}
    state = init_train_state(jax.random.key(1), params, **choice)
    after, info = jax.eval_shape(
        lambda state: jax.lax.scan(
            lambda state, _: train_step(state, batch, **choice), state, length=3
        ),
        state,
    )
    shapes = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    assert shapes(after) == shapes(state)
    assert info.loss.shape == (3,)


def test_a_line_search_is_that_of_the_loss():
    params, batch = problem()
    choice = {"rule": lra_jax.bptt(), "optimizer": optax.lbfgs()}
    state = init_train_state(jax.random.key(1), params, **choice)
    step = jax.jit(functools.partial(train_step, **choice))
    losses = []
    for _ in range(4):
        state, info = step(state, batch)
        losses.append(float(info.loss))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("first", ["grad", "value"])
def test_an_optimizer_may_call_its_own_arguments_anything(first):
    code = f"lambda {first}, state, params=None: (tree({first}), state)"
    tree = functools.partial(jax.tree.map, lambda g: -0.1 * g)
    update = eval(code, {"tree": tree})
    optimizer = optax.GradientTransformation(lambda p: optax.EmptyState(), update)
    params, batch = problem()
    choice = {"rule": lra_jax.bptt(), "optimizer": optimizer}
    state = init_train_state(jax.random.key(1), params, **choice)
    after, _ = train_step(state, batch, **choice)
    sgd = {"rule": lra_jax.bptt(), "optimizer": optax.sgd(0.1)}
    same = init_train_state(jax.random.key(1), params, **sgd)
    expected, _ = train_step(same, batch, **sgd)
    np.testing.assert_allclose(after.params.w_hh, expected.params.w_hh, rtol=1e-6)
