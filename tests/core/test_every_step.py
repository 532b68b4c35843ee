"""Losses of every step: what they ask, and which rules learn from them.

The rules' numbers are compared with the oracle in tests/x64/test_every_step.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lra_jax
from lra_jax import RULES, rnn

T, B, X, H, Y = 5, 3, 4, 6, 3
LOSSES = {
    "binary_cross_entropy": lra_jax.binary_cross_entropy_every_step,
    "cross_entropy": lra_jax.cross_entropy_every_step,
}
SUPPORTING = [rule for rule in RULES if lra_jax.rule_card(rule).every_step]
OPTIONS = {
    "lra_diff": {"gamma": 2.0, "num_refinements": 2, "lambda_": 0.1, "c1": 0.3},
}
all_losses = pytest.mark.parametrize("name", LOSSES)


@functools.cache
def problem(name="binary_cross_entropy"):
    """Weights and a batch; sample 0 is not asked at steps 0 and 3, 2 never."""
    rng = np.random.default_rng(0)
    params = jax.device_get(lra_jax.init_params(jax.random.key(0), X, H, Y))
    asked = np.ones((T, B), bool)
    asked[[0, 3], 0] = False
    asked[:, 2] = False
    if name == "cross_entropy":
        labels = np.where(asked, rng.integers(Y, size=(T, B)), -1).astype(np.int32)
    else:
        keys = rng.integers(2, size=(T, B, Y))
        labels = np.where(asked[..., None], keys, -1).astype(np.float32)
    inputs = rng.normal(size=(T, B, X)).astype(np.float32)
    return params, lra_jax.Batch(inputs, labels)


def logits_of(name, seed=1):
    shape = (T, B, Y)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unasked(name):
    labels = problem(name)[1].labels
    return (labels < 0) if labels.ndim == 2 else np.all(labels < 0, axis=2)


# The losses.


@all_losses
def test_a_step_that_is_not_asked_counts_for_nothing(name):
    loss, labels, logits = LOSSES[name], problem(name)[1].labels, logits_of(name)
    assert loss.every_step
    sick = np.where(unasked(name)[..., None], np.nan, logits).astype(np.float32)
    for function in loss[:3]:
        np.testing.assert_array_equal(function(sick, labels), function(logits, labels))
    np.testing.assert_array_equal(loss.grad(logits, labels)[unasked(name)], 0)
    # A sample that is never asked.
    assert loss.value(logits, labels)[2] == 0
    assert not loss.is_error(logits, labels)[2]


@all_losses
def test_a_sample_is_an_error_where_any_answer_is_wrong_or_no_number(name):
    loss, labels = LOSSES[name], problem(name)[1].labels
    right = np.full((T, B, Y), -2.0, np.float32)
    if name == "cross_entropy":
        right[np.eye(Y, dtype=bool)[labels] & ~unasked(name)[..., None]] = 2
    else:
        right[labels == 1] = 2
    assert not np.any(loss.is_error(right, labels))
    assert np.all(loss.value(right, labels) < 0.5)
    for wrong in (-right[4, 1], np.full(Y, np.nan)):
        logits = right.copy()
        logits[4, 1] = wrong
        np.testing.assert_array_equal(
            loss.is_error(logits, labels), [False, True, False]
        )
    assert not np.any(
        loss.is_error(np.where(unasked(name)[..., None], -right, right), labels)
    )


def test_binary_cross_entropy_of_extreme_logits_is_finite():
    loss = LOSSES["binary_cross_entropy"]
    logits = jnp.array([[[1e4, 1e4, -1e4]], [[-1e4, 30.0, -30.0]]])
    labels = jnp.array([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    # One key of 6 is wrong, by 1e4; two are right up to exp(-30).
    np.testing.assert_allclose(loss.value(logits, labels), [5e3], rtol=1e-6)
    expected = [[[0, 0.5, 0]], [[0, -0.5 * np.exp(-30), 0.5 * np.exp(-30)]]]
    np.testing.assert_allclose(loss.grad(logits, labels), expected, rtol=1e-5)
    np.testing.assert_array_equal(loss.is_error(logits, labels), [True])


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("binary_cross_entropy", np.zeros((T, B), np.float32)),
        ("binary_cross_entropy", np.zeros((T, B, Y), np.int32)),
        ("binary_cross_entropy", np.zeros((T - 1, B, Y), np.float32)),
        ("cross_entropy", np.zeros(B, np.int32)),
        ("cross_entropy", np.zeros((T, B), np.float32)),
    ],
)
def test_wrong_labels_are_named(name, labels):
    params, batch = problem(name)
    with pytest.raises(ValueError, match=r"^labels: expected .* \[T, B") as error:
        lra_jax.evaluate(
            params, batch._replace(labels=labels), output_loss=LOSSES[name]
        )
    assert str(error.value).endswith(f"got {labels.dtype} {labels.shape}")


# The network and its evaluation.


@all_losses
def test_an_evaluation_is_of_all_steps(name):
    params, batch = problem(name)
    trace = rnn.forward(params, batch.inputs, every_step=True)
    logits = trace.z @ params.w_hy + params.b_y[None, None]
    np.testing.assert_allclose(trace.logits, logits, atol=1e-6)
    np.testing.assert_allclose(
        trace.logits[-1], rnn.final_logits(params, batch.inputs), atol=1e-6
    )
    loss = LOSSES[name]
    metrics = lra_jax.evaluate(params, batch, output_loss=loss)
    np.testing.assert_allclose(
        metrics.loss, np.mean(loss.value(logits, batch.labels)), rtol=1e-6
    )
    assert metrics.num_errors == np.sum(loss.is_error(logits, batch.labels))


# Rules.


@pytest.mark.parametrize("rule", SUPPORTING)
def test_a_rule_lowers_the_loss_of_every_step(rule):
    params, batch = problem()
    loss = LOSSES["binary_cross_entropy"]
    made = RULES[rule](**OPTIONS.get(rule, {}), output_loss=loss)

    def update(carry, key):
        params, state = carry
        grads, state, info = made.grads(key, params, state, batch)
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, grads)
        return (params, state), info.loss

    keys = jax.random.split(jax.random.key(2), 60)
    start = (params, made.init(jax.random.key(1), params))
    _, found = jax.jit(lambda carry: jax.lax.scan(update, carry, keys))(start)
    first = lra_jax.evaluate(params, batch, output_loss=loss).loss
    np.testing.assert_allclose(found[0], first, rtol=1e-6)
    assert found[-1] < 0.9 * found[0]


@pytest.mark.parametrize("rule", sorted(set(RULES) - set(SUPPORTING)))
def test_other_rules_refuse_a_loss_of_every_step(rule):
    numbers = {"gamma": 1.0} if rule == "lra_released" else {}
    message = f"^output_loss: expected a loss of the last step, which {rule} "
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match=message):
            RULES[rule](**numbers, output_loss=loss)


def test_an_error_of_its_own_is_added_to_what_keeps_its_norm():
    """lra_norm at step t: a displacement from above of norm ‖dₜ₊₁‖, and its own."""
    params, batch = problem()
    loss = LOSSES["binary_cross_entropy"]
    only = np.where(np.arange(T)[:, None, None] == 2, batch.labels, -1)
    rule = lra_jax.lra_norm(activity=0.0, output_loss=loss)
    _, _, info = rule.grads(
        jax.random.key(0),
        params,
        lra_jax.EmptyState(),
        batch._replace(labels=only.astype(np.float32)),
    )
    norms = np.asarray(info.target_step_norm)
    np.testing.assert_array_equal(norms[3:], 0)
    assert norms[2] > 0
    np.testing.assert_allclose(norms[:2], norms[2], rtol=1e-5)


# Weights.


def weighted_batch(seed=3):
    """Values to follow, with a weight for each output."""
    rng = np.random.default_rng(seed)
    labels, weights = rng.normal(size=(T, B, Y)), rng.uniform(size=(T, B, Y))
    return problem()[1]._replace(
        labels=lra_jax.Weighted(labels.astype(np.float32), weights.astype(np.float32))
    )


@pytest.mark.parametrize(
    "weights",
    [
        np.ones((T, B), np.int32),
        np.ones((T, B, Y - 1), np.float32),
        np.ones(B, np.float32),
    ],
)
@pytest.mark.parametrize("output", [*LOSSES.values(), lra_jax.squared_error_every_step])
def test_wrong_weights_are_named(output, weights):
    labels = np.zeros((T, B, Y), np.float32)
    if output == lra_jax.cross_entropy_every_step:
        labels = np.zeros((T, B), np.int32)
    batch = problem()[1]._replace(labels=lra_jax.Weighted(labels, weights))
    with pytest.raises(ValueError, match=r"^weights: expected real \[T, B\]") as error:
        lra_jax.evaluate(problem()[0], batch, output_loss=output)
    assert str(error.value).endswith(f"got {weights.dtype} {weights.shape}")


def test_classes_have_no_weights_of_outputs():
    labels = lra_jax.Weighted(np.zeros((T, B), int), np.ones((T, B, Y), np.float32))
    with pytest.raises(
        ValueError, match=r"^weights: expected real \[T, B\] = \(5, 3\),"
    ):
        lra_jax.cross_entropy_every_step.value(logits_of(""), labels)


def test_losses_of_the_last_step_take_no_weights():
    labels = lra_jax.Weighted(np.zeros(B, int), np.ones(B, np.float32))
    with pytest.raises(ValueError, match=r"^labels: expected an array, got Weighted"):
        lra_jax.cross_entropy.value(logits_of("")[0], labels)


def test_values_that_may_be_below_0_need_weights():
    loss = lra_jax.squared_error_every_step
    for function in loss[:3]:
        with pytest.raises(ValueError, match=r"^labels: expected Weighted\(labels, w"):
            function(logits_of(""), np.zeros((T, B, Y), np.float32))


def test_a_step_of_no_weight_is_no_error():
    loss = lra_jax.squared_error_every_step
    batch = weighted_batch()
    labels = batch.labels.labels
    off = labels.copy()
    off[2, 1, 0] += 0.21
    off[2, 2, 0] += 0.19
    assert loss.is_error(off, batch.labels).tolist() == [False, True, False]
    weights = batch.labels.weights.copy()
    weights[2, 1, 0] = 0
    assert not loss.is_error(off, batch.labels._replace(weights=weights)).any()
    off[0, 0, 0] = np.nan
    assert loss.is_error(off, batch.labels).tolist() == [True, True, False]


@pytest.mark.parametrize("rule", ["bptt", "snap", "lra_diff"])
def test_training_lowers_a_weighted_loss_also_inside_of_sequences(rule):
    params, batch = problem()[0], weighted_batch()
    loss = lra_jax.squared_error_every_step
    made = RULES[rule](**OPTIONS.get(rule, {}), output_loss=loss)
    optimizer = optax.sgd(0.1)
    every = 1 if rule == "snap" else None
    state = lra_jax.init_train_state(jax.random.key(0), params, made, optimizer)

    def step(state, _):
        return lra_jax.train_step(
            state, batch, rule=made, optimizer=optimizer, update_every=every
        )

    after, infos = jax.jit(lambda state: jax.lax.scan(step, state, length=60))(state)
    assert infos.loss[-1] < 0.8 * infos.loss[0]
    found = lra_jax.evaluate(after.params, batch, output_loss=loss)
    assert found.loss < infos.loss[0]
    samples = lra_jax.Samples(
        B, lambda i: jax.tree.map(lambda x: jnp.asarray(x)[:, i], batch)
    )
    right = lra_jax.accuracy(after.params, samples, output_loss=loss)
    assert right == 1 - found.num_errors / B
