"""Sequences of different lengths: what is before a sample's start does not exist.

The rules are those of RULES, but for `lra_released`, which refuses.
"""

import functools

import closeness
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_identical

import lra_jax
from lra_jax import RULES, rnn
from lra_jax.paper.released import evaluate_released

T, X, H, Y = 5, 3, 6, 3
STARTS = np.array([2, 0], np.int32)
B = len(STARTS)

# Rule to its arguments; a name after a comma is another setting of the same rule.
SETTINGS = {rule: {} for rule in RULES if rule != "lra_released"} | {
    "lra_diff": {"gamma": 2.0},
    "lra_diff, Ω": {
        "gamma": 2.0,
        "num_refinements": 3,
        "lambda_": 0.5,
        "c1": 0.3,
        "schedule": "error_ratio",
        "update_first_step": False,
    },
    "lra_diff, force": {"gamma": 2.0, "normalization": "force", "c1": 0.2},
    "lra_e": {"feedback_lr": 0.1},
    "rec_lra": {"feedback_lr": 0.1, "num_steps_per_skip": 2},
    "tpri": {"ridge": 0.5},
    "tptt": {"target_lr": 1.0, "feedback_lr": 0.1},
    "tptt, bptt": {"w_xh_update": "bptt"},
}
all_settings = pytest.mark.parametrize("setting", SETTINGS)
all_kinds = pytest.mark.parametrize("kind", ["symbols", "vectors"])
# Symbols differ from vectors in what all rules share: a few are enough.
cases = pytest.mark.parametrize(
    ("setting", "kind"),
    [(setting, "vectors") for setting in SETTINGS]
    + [(setting, "symbols") for setting in ("bptt", "lra_diff, Ω")],
)

# The gradient of a batch is not the mean of its samples' where its samples share a
# learned inverse, or a step of ẑ that has the 1/B of the mean in it; and that of a
# sample is not what it is alone where it draws numbers.
NOT_ADDITIVE = {"tptt", "tptt, bptt", "uoro", "random_error"}


def make(setting):
    return RULES[setting.split(",")[0]](**SETTINGS[setting])


@functools.cache
def problem(kind):
    rng = np.random.default_rng(0)
    params = lra_jax.init_params(jax.random.key(0), X, H, Y)
    params = params._replace(b_h=jnp.asarray(rng.normal(size=H) * 0.3, jnp.float32))
    inputs = (
        rng.integers(X, size=(T, B)).astype(np.int32)
        if kind == "symbols"
        else rng.normal(size=(T, B, X)).astype(np.float32)
    )
    labels = rng.integers(Y, size=B).astype(np.int32)
    return jax.device_get(params), lra_jax.Batch(inputs, labels, STARTS)


@functools.cache
def program(setting):
    rule = make(setting)
    state = rule.init(jax.random.key(1), problem("symbols")[0])
    grads = jax.jit(functools.partial(rule.grads, jax.random.key(2)))
    return lambda params, batch: jax.device_get(grads(params, state, batch))


def sample_of(batch, b):
    """Sample b alone, as long as it is."""
    return lra_jax.Batch(batch.inputs[STARTS[b] :, [b]], batch.labels[[b]])


def only(batch, b):
    """Sample b in the place of each, with its start: a batch of the same shape."""
    place = [b] * B
    return lra_jax.Batch(batch.inputs[:, place], batch.labels[place], STARTS[place])


def late(batch):
    """Both samples, which start where the later one does."""
    return batch._replace(start=np.full(B, STARTS.max()))


# Compiled: one program takes less time than each of its operations.
forward = jax.jit(rnn.forward)
final_logits = jax.jit(rnn.final_logits)
evaluate = jax.jit(lra_jax.evaluate)


def assert_close(actual, expected, tolerance=1e-6):
    """Relative to the largest entry of each array, or 1."""
    closeness.assert_close(actual, expected, tolerance, least=1.0)


# The network.


@all_kinds
def test_a_network_does_nothing_before_the_start(kind):
    params, batch = problem(kind)
    trace = forward(params, batch.inputs, start=batch.start)
    for b, start in enumerate(STARTS):
        alone = sample_of(batch, b)
        expected = forward(params, alone.inputs)
        for found, exact in ((trace.h, expected.h), (trace.z, expected.z)):
            np.testing.assert_array_equal(found[:start, b], 0)
            np.testing.assert_allclose(found[start:, b], exact[:, 0], atol=1e-6)
        np.testing.assert_allclose(trace.logits[b], expected.logits[0], atol=1e-6)
    final = final_logits(params, batch.inputs, start=batch.start)
    np.testing.assert_allclose(final, trace.logits, atol=1e-6)


@all_kinds
def test_an_evaluation_is_that_of_the_samples_alone(kind):
    params, batch = problem(kind)
    found = evaluate(params, batch)
    alone = [evaluate(params, sample_of(batch, b)) for b in range(B)]
    np.testing.assert_allclose(found.loss, np.mean([m.loss for m in alone]), rtol=1e-6)
    assert found.num_errors == sum(m.num_errors for m in alone)


# Rules.


@cases
def test_padded_samples_are_the_samples_alone(setting, kind):
    if setting in ("uoro", "random_error"):
        pytest.skip("it draws numbers for each step")
    params, batch = problem(kind)
    start = STARTS.max()
    shorter = batch._replace(inputs=batch.inputs[start:], start=None)
    update = program(setting)
    grads, state, info = update(params, late(batch))
    exact, exact_state, exact_info = update(params, shorter)
    assert_close((grads, state), (exact, exact_state))
    assert_close(info.loss, exact_info.loss)
    for values, expected in zip(info[1:], exact_info[1:], strict=True):
        assert (values is None) == (expected is None)
        if np.ndim(values) == 0:  # of the sample, if it is there
            assert values is None or max(values, expected) < 1e-4
        else:
            np.testing.assert_array_equal(values[:start], 0)
            assert_close(values[start:], expected)


@cases
def test_a_mixed_batch_is_the_mean_of_its_samples(setting, kind):
    if setting in NOT_ADDITIVE:
        pytest.skip("its samples share what the batch has learned: see the oracle")
    params, batch = problem(kind)
    update = program(setting)
    grads, state, info = update(params, batch)
    single = [update(params, only(batch, b)) for b in range(B)]
    mean = jax.tree.map(lambda *x: np.mean(x, axis=0), *single)
    # States computed back have the rounding of all steps above in them.
    tolerance = 1e-5 if setting == "lra_reversible" else 1e-6
    assert_close((grads, state, info[:3]), (*mean[:2], mean[2][:3]), tolerance)


@cases
@pytest.mark.parametrize("garbage", [1e30, np.nan])
def test_what_the_inputs_are_before_the_start_changes_nothing(setting, kind, garbage):
    params, batch = problem(kind)
    before = np.arange(T)[:, None] < STARTS
    inputs = batch.inputs.copy()
    inputs[before] = garbage if kind == "vectors" else np.iinfo(np.int32).max
    assert_identical(
        program(setting)(params, batch._replace(inputs=inputs)),
        program(setting)(params, batch),
    )


@all_kinds
@pytest.mark.parametrize("setting", ["bptt", "lra_diff, Ω", "tptt"])
def test_a_start_of_zero_is_no_start(setting, kind):
    params, batch = problem(kind)
    zero, none = (batch._replace(start=s) for s in (0 * STARTS, None))
    assert_close(program(setting)(params, zero), program(setting)(params, none))


@all_settings
def test_without_starts_nothing_is_selected_by_them(setting):
    """No comparison of steps with starts is in the program."""
    rule = make(setting)
    params, batch = problem("vectors")
    state = rule.init(jax.random.key(1), params)
    texts = [
        str(jax.make_jaxpr(rule.grads)(jax.random.key(2), params, state, b))
        for b in (batch._replace(start=None), batch)
    ]
    step_mask = f"bool[{T},{B}]"
    assert step_mask not in texts[0]
    assert step_mask in texts[1]


# Errors.


@pytest.mark.parametrize(
    "start",
    [np.zeros(B + 1, np.int32), np.zeros((B, 1), np.int32), np.zeros(B, np.float32)],
    ids=["more samples", "one axis more", "real"],
)
def test_a_wrong_start_is_named(start):
    params, batch = problem("vectors")
    batch = batch._replace(start=start)
    message = rf"^start: expected integers \[B\] = \({B},\), got {start.dtype}"
    for setting in SETTINGS:
        with pytest.raises(ValueError, match=message):
            program(setting)(params, batch)
    with pytest.raises(ValueError, match=message):
        lra_jax.evaluate(params, batch)


@pytest.mark.parametrize("start", [-1, 300])
def test_a_start_outside_of_the_sequence_is_named(start):
    params, batch = problem("symbols")
    batch = batch._replace(start=np.where(np.arange(B) == 1, start, 0))
    with pytest.raises(
        ValueError, match=rf"start: expected 0 to T-1 = .*got .*{start}"
    ):
        lra_jax.evaluate(params, batch)


def test_small_integers_do_not_wrap():
    inputs = jnp.zeros((300, 2), jnp.int32)
    for kind in (jnp.int8, jnp.uint8):
        started = rnn.has_started(inputs, jnp.array([0, 5], kind))
        np.testing.assert_array_equal(started.argmax(axis=0), [0, 5])
        np.testing.assert_array_equal(started.sum(axis=0), [300, 295])


def test_the_released_code_refuses_a_start():
    params, batch = problem("symbols")
    rule = lra_jax.lra_released(gamma=1.0)
    for function in (
        lambda: rule.grads(jax.random.key(0), params, lra_jax.EmptyState(), batch),
        lambda: evaluate_released(params, batch),
    ):
        with pytest.raises(ValueError, match=r"^start: expected None, .* released"):
            function()
