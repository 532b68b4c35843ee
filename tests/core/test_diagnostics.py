"""Where a rule's errors point: cases in which the right answer is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lra_jax
from lra_jax import (
    RULES,
    TASKS,
    LearningRule,
    Weighted,
    cross_entropy,
    diagnostics,
    error_signals,
    gradients,
    init_params,
    networks,
    rnn,
)
from lra_jax.rules.bptt import backward

T, B, H = 10, 4, 16
EXAMPLES = {
    "bptt": {},
    "lra_diff": {"gamma": 3.0, "num_refinements": 2, "lambda_": 0.1},
    "lra_released": {
        "gamma": 3.0, "num_refinements": 2, "lambda_": 0.0, "c": 0.0,
        "local_loss": "mse",
    },
    "tptt": {"target_lr": 0.1, "feedback_lr": 0.001, "noise_std": 0.0},
}  # fmt: skip
# Rules whose step t reaches W_hh through qₜ alone.
LOCAL = ("bptt", "tptt")


@functools.cache
def weights_and_batch(task):
    key = jax.random.key(7)
    params = init_params(key, task.input_size, H, task.output_size)
    return params._replace(b_h=jnp.linspace(-0.3, 0.4, H)), task.sample(key, B, T)


def rule_and_batch(name, task, **options):
    params, batch = weights_and_batch(TASKS[task])
    rule = RULES[name](**options, output_loss=TASKS[task].output_loss)
    return rule, params, rule.init(jax.random.key(7), params), batch


def errors(rule, params, state, batch):
    find = jax.jit(functools.partial(diagnostics.hidden_errors, rule))
    return find(jax.random.key(0), params, state, batch)


def test_a_geometric_decay_is_its_exponent():
    t = np.arange(10)
    loss = np.stack([10.0 ** (0.7 * t - 9), 10.0 ** (-0.2 * t), np.ones(10)])
    np.testing.assert_allclose(diagnostics.decay(loss), [0.7, -0.2, 0], atol=1e-12)
    bent = 10.0 ** np.where(t < 5, 3 * t, 0.1 * t)  # only the top five count
    assert diagnostics.decay(bent) == pytest.approx(0.1)
    bent[:8] = 0
    assert diagnostics.decay(bent) == pytest.approx(0.1)
    assert diagnostics.vanished(bent) == 7
    bent[8] = 0
    assert np.isnan(diagnostics.decay(bent))
    bent[3] = np.nan
    assert np.isnan(diagnostics.vanished(bent))
    with pytest.raises(ValueError, match="num_steps: expected at least 2, got 0"):
        diagnostics.decay(bent, 0)


def test_a_cosine_has_no_scale_and_zero_has_no_direction():
    a = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    b = jnp.array([[4.0e-25, 3.0e-25], [1.0, 0.0]])
    cosines = diagnostics.cosine(1e-25 * a, b)
    assert cosines[0] == pytest.approx(24 / 25)
    assert np.isnan(cosines[1])


@pytest.mark.parametrize(
    ("task", "expected"),
    [("random_permutation", [1, 0]), ("temporal_order", [3, 2]),
     ("temporal_order_3bit", [7, 6])],
)  # fmt: skip
def test_labels_are_swapped_within_the_classes_that_occur(task, expected):
    swapped = diagnostics.swap_labels(TASKS[task], jnp.array([0, 1]))
    assert swapped.tolist() == expected


def test_labels_of_recorded_data_are_swapped_among_all_classes():
    labels = np.array([0] * 12 + [*range(10)] * 2)  # the largest class has 0.4
    inputs = np.zeros((32, 3, 2))
    task = lra_jax.Task.from_arrays(
        inputs, labels, validation=(inputs + 1, labels), output_size=10
    )
    swapped = diagnostics.swap_labels(task, jnp.array([0, 9]))
    assert swapped.tolist() == [9, 0]


def test_labels_of_every_step_are_swapped_where_they_ask_for_an_answer():
    steps = jnp.array([[0], [3], [8]])
    weights = jnp.array([[1.0], [0.0], [2.0]])
    for labels in (steps, Weighted(steps, weights)):
        found = diagnostics.swap_labels(TASKS["memory_pro_anti"], labels)
        assert jax.tree.leaves(found)[0].tolist() == [[0], [6], [1]]
    assert found.weights is weights
    two = diagnostics.swap_labels(TASKS["go_nogo"], jnp.array([[0], [1]]))
    np.testing.assert_array_equal(two, [[1], [0]])
    nothing = diagnostics.swap_labels(TASKS["copying"], jnp.array([[-1], [1]]))
    assert nothing.tolist() == [[-1], [8]]
    bits = Weighted(jnp.array([[[1.0, -1.0, 0.0]]]), jnp.ones((1, 1)))
    found = diagnostics.swap_labels(TASKS["flip_flop"], bits)
    assert found.labels.tolist() == [[[-1.0, 1.0, 0.0]]]
    # Of the same distribution.
    task = TASKS["context_integration"]
    labels = task.sample(jax.random.key(0), 200, 10).labels
    swapped = diagnostics.swap_labels(task, labels).labels
    assert jnp.all((swapped == 0) == (labels.labels == 0))
    assert jnp.all(swapped + labels.labels == jnp.where(swapped > 0, 3, 0))


@pytest.mark.parametrize("task", ["adding"])  # real inputs; symbols are below
def test_the_hidden_errors_of_bptt_are_its_own(task):
    rule, params, state, batch = rule_and_batch("bptt", task)
    q = errors(rule, params, state, batch)
    forward = error_signals.run_forward(params, batch, TASKS[task].output_loss)
    np.testing.assert_allclose(q, backward(forward), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", EXAMPLES)
def test_hidden_errors_add_up_to_the_gradient_of_any_rule(name):
    rule, params, state, batch = rule_and_batch(
        name, "temporal_order", **EXAMPLES[name]
    )
    grads, _, _ = jax.jit(rule.grads)(jax.random.key(0), params, state, batch)
    q = errors(rule, params, state, batch)
    place = error_signals.run_forward(params, batch, cross_entropy).place
    summed = gradients.sum_at_once(rnn.TANH, rnn.cell_of(params), place, q).grads
    scale = float(jnp.max(jnp.abs(grads.w_xh)))
    np.testing.assert_allclose(summed.w_xh, grads.w_xh, rtol=1e-4, atol=1e-5 * scale)
    if name in LOCAL:
        scale = float(jnp.max(jnp.abs(grads.w_hh)))
        np.testing.assert_allclose(
            summed.w_hh, grads.w_hh, rtol=1e-4, atol=1e-5 * scale
        )


def test_swapped_labels_turn_an_untrained_top_error_as_far_as_pi():
    rule, params, state, batch = rule_and_batch("bptt", "temporal_order")
    # Equal probabilities and linear units: what is left is π W_hyᵀ.
    params = jax.tree.map(lambda x: 1e-3 * x, params)
    swapped = diagnostics.swap_labels(TASKS["temporal_order"], batch.labels)
    q, swapped_q = (
        errors(rule, params, state, batch._replace(labels=labels))[-1]
        for labels in (batch.labels, swapped)
    )
    np.testing.assert_allclose(
        diagnostics.cosine(q, swapped_q), -1 / (4 - 1), atol=0.01
    )


def flipped(name):
    """The rule whose gradients of W_hh and W_xh point the other way."""
    rule = RULES[name]()

    def grads(key, params, rule_state, batch):
        found, rule_state, info = rule.grads(key, params, rule_state, batch)
        turned = found._replace(w_hh=-found.w_hh, w_xh=-found.w_xh)
        return turned, rule_state, info

    return LearningRule(rule.init, grads)


@functools.cache
def observed(case):
    """An update of a rule of one's own, or of one of the library."""
    params, batch = weights_and_batch(TASKS["temporal_order"])
    batch = batch._replace(start=np.array([0, 2, 9, 0], np.int32))
    rule = flipped("bptt") if case == "flipped" else RULES[case]()
    observe = jax.jit(functools.partial(diagnostics.observe, rule))
    state = rule.init(jax.random.key(1), params)
    return observe(jax.random.key(0), params, state, batch)


@pytest.mark.parametrize(("case", "expected"), [("bptt", 1), ("flipped", -1)])
def test_a_rule_of_ones_own_is_compared_with_bptt(case, expected):
    cosines = diagnostics.compare(observed(case), observed("bptt"))
    np.testing.assert_allclose(cosines.errors, expected, rtol=1e-5)
    assert np.isnan(cosines.w_hh_steps[0])  # z₋₁ = 0
    np.testing.assert_allclose(cosines.w_hh_steps[1:], expected, rtol=1e-5)
    np.testing.assert_allclose(cosines.grads[:2], expected, rtol=1e-5)
    np.testing.assert_allclose(cosines.grads[2:], 1, rtol=1e-5)


def test_norms_count_a_sample_that_has_not_started_as_zero():
    update = observed("bptt")
    norms = np.linalg.norm(update.errors, axis=-1)
    np.testing.assert_array_equal(norms[:2, 1:3], 0)
    np.testing.assert_allclose(update.error_norm, norms.mean(axis=1), rtol=1e-5)
    assert np.all(norms[:, 0] > 0)


def test_a_frozen_hidden_layer_points_nowhere():
    cosines = diagnostics.compare(observed("readout_only"), observed("bptt"))
    for values in (cosines.errors, cosines.w_hh_steps, cosines.grads.w_hh):
        assert np.isnan(values).all()
    np.testing.assert_allclose(cosines.grads.w_hy, 1, rtol=1e-5)


def test_updates_of_different_batches_are_not_compared():
    update = observed("bptt")
    other = update._replace(errors=update.errors[1:])
    with pytest.raises(ValueError, match=r"\(10, 4, 16\), got \(9, 4, 16\)"):
        diagnostics.compare(update, other)


NETWORKS = {
    "leaky": networks.leaky(alpha=0.3, noise=0.1),
    "stack": networks.stack(networks.gru(), networks.lstm()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_errors_of_another_network_are_at_what_the_inputs_add(name):
    network, task = NETWORKS[name], TASKS["temporal_order"]
    sizes = task.input_size, H, task.output_size
    params = init_params(jax.random.key(7), *sizes, network=network)
    batch, key = task.sample(jax.random.key(8), B, T), jax.random.key(9)
    rule = RULES["bptt"](network=network)
    update = diagnostics.observe(rule, key, params, (), batch, network=network)
    width = {"leaky": H, "stack": 3 * H}[name]
    assert update.errors.shape == (T, B, width)
    assert update.z.shape == (T, B, H)

    def loss(added):
        """E, with numbers added to what the inputs add; no noise where there is none."""
        drive = network.drive(params.cell, batch.inputs) + added
        s = jnp.zeros((B, network.state_size(H)))
        for t in range(T):
            s = network.advance(params.cell, s, drive[t])
        logits = network.emit(params.cell, s) @ params.w_hy
        return cross_entropy.value(logits, batch.labels).sum()

    expected = jax.grad(loss)(jnp.zeros(update.errors.shape))
    if name == "stack":
        np.testing.assert_allclose(update.errors, expected, rtol=1e-4, atol=1e-6)
    else:  # the update has noise, and the loss above has none
        assert not np.allclose(update.errors, expected, rtol=1e-2)
    one_hot = jax.nn.one_hot(batch.inputs, task.input_size)
    summed = jnp.einsum("tbx,tbc->xc", one_hot, update.errors) / B
    first = update.grads.cell[0] if name == "stack" else update.grads.cell
    np.testing.assert_allclose(summed, first.w_xh, rtol=1e-4, atol=1e-6)
    same = diagnostics.compare(update, update)
    np.testing.assert_allclose(jax.tree.leaves(same.grads), 1, rtol=1e-5)
    np.testing.assert_allclose(same.errors, 1, rtol=1e-5)


@pytest.mark.parametrize(
    "network",
    [
        networks.freeze(networks.gru(), "w_xh"),
        networks.from_step(
            init=lambda key, x, h: {"w_xh": jnp.ones((x, h))},
            step=lambda w, s, x: 0.5 * s + x @ w["w_xh"],
        ),
    ],
    ids=["frozen", "own"],
)
def test_errors_of_a_network_without_input_weights_that_learn_are_refused(network):
    params = init_params(jax.random.key(7), 6, H, 4, network=network)
    batch = TASKS["temporal_order"].sample(jax.random.key(8), B, 10)
    rule = RULES["bptt"](network=network)
    with pytest.raises(ValueError, match="whose w_xh is not frozen"):
        diagnostics.hidden_errors(
            rule, jax.random.key(9), params, (), batch, network=network
        )


def test_errors_of_an_inverse_with_input_weights_of_its_own_add_up_to_the_gradient():
    network = lra_jax.networks.leaky(alpha=0.3)
    params = lra_jax.init_params(jax.random.key(0), 3, 8, 4, network=network)
    inputs = jax.random.normal(jax.random.key(1), (6, 5, 3))
    batch = lra_jax.Batch(inputs, jnp.arange(5) % 4)
    rule = lra_jax.tptt(network=network, target_lr=1.0)
    state = rule.init(jax.random.key(2), params)
    given = jax.random.key(3), params, state, batch
    q = diagnostics.hidden_errors(rule, *given, network=network)
    grads, _, _ = rule.grads(*given)
    expected = jnp.einsum("tbx,tbc->xc", inputs, q) / 5
    np.testing.assert_allclose(grads.cell.w_xh, expected, rtol=1e-4, atol=1e-7)


def test_the_states_that_are_observed_are_those_of_the_noisy_pass():
    """They give the readout's gradient, which is of the rule's own pass."""
    network = lra_jax.networks.leaky(alpha=0.3, noise=0.5)
    params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, network=network)
    batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
    rule = lra_jax.bptt(network=network)
    given = jax.random.key(2), params, lra_jax.EmptyState(), batch
    update = diagnostics.observe(rule, *given, network=network)
    logits = update.z[-1] @ params.w_hy + params.b_y[None]
    pi = lra_jax.cross_entropy.grad(logits, batch.labels)
    np.testing.assert_allclose(
        update.grads.w_hy, update.z[-1].T @ pi / 5, rtol=1e-4, atol=1e-6
    )
