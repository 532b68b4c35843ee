"""Labels: any integer type means the same, and what is no label is not a number.

A label that is none makes NaN of the loss and of every gradient, as a symbol that is
none does: values are data, and may be traced, so that nothing can be refused.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lra_jax
from lra_jax import RULES, losses

T, B, X, H, Y = 3, 2, 3, 4, 3
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
REQUIRED = {"lra_diff": {"gamma": 2.0}, "lra_released": {"gamma": 2.0}}
# Settings that bound, learn feedback weights, or add Ω: what might hide a NaN.
SETTINGS = {
    "bptt": {"max_norm": 0.1},
    "fa": {"max_norm": 0.1, "readout": "random"},
    "lra_diff": {"lambda_": 0.1, "c0": 0.1, "c1": 0.1, "num_refinements": 2},
    "lra_e": {"feedback_lr": 0.1, "max_norm": 0.1},
    "lra_fdbk": {"c1": 0.1},
    "lra_released": {"lambda_": 0.1, "c": 0.1},
    "rec_lra": {"feedback_lr": 0.1, "num_steps_per_skip": 1},
}
EVERY_STEP = [
    "bptt", "fa", "lra_diff", "lra_norm", "random_error", "readout_only", "tpri", "tptt",
]  # fmt: skip
LOSSES = {
    name: getattr(lra_jax, name)
    for name in (
        "cross_entropy",
        "squared_error",
        "cross_entropy_every_step",
        "binary_cross_entropy_every_step",
    )
}
RIGHT = {
    "cross_entropy": np.array([2, 0], np.int32),
    "squared_error": np.array([[0.5, 0, 1], [1, 0, -1]], np.float32),
    "cross_entropy_every_step": np.array([[-1, 2], [0, -7], [1, 1]], np.int32),
    "binary_cross_entropy_every_step": np.array(
        [[[0, 1, 1], [1, 0, 0]], [[-1, -1, -1], [1, 1, 1]], [[0, 0, 0], [-1, -1, -1]]],
        np.float32,
    ),
}
WRONG = {
    "cross_entropy": [-1, Y, 2**31 - 1],
    "squared_error": [np.nan, np.inf],
    "cross_entropy_every_step": [Y, 2**31 - 1],
    "binary_cross_entropy_every_step": [0.5, 2, np.nan, -1],
}
wrong_labels = pytest.mark.parametrize(
    ("name", "wrong"), [(name, value) for name in WRONG for value in WRONG[name]]
)


def make(rule, **more):
    return RULES[rule](**REQUIRED.get(rule, {}), **SETTINGS.get(rule, {}), **more)


def logits_of(name, seed=0):
    shape = (T, B, Y) if name.endswith("every_step") else (B, Y)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def with_one(name, value):
    """The right labels but for one, of sample 1 at the last step."""
    labels = RIGHT[name].copy()
    place = {1: (1,), 2: (-1, 1), 3: (0, 1, 2)}[labels.ndim]
    labels[(1, 2) if name == "squared_error" else place] = value
    return labels


# Types of integers.


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("number", ["numpy", "jax"])
def test_the_type_of_an_integer_label_means_nothing(dtype, number):
    """More classes than the type can count: bytes, and three special symbols."""
    num_classes = 259
    logits = np.random.default_rng(0).normal(size=(5, num_classes)).astype(np.float32)
    logits[3, 256:] = 9  # of these, 256 is 0 as a byte
    labels = np.array([0, 1, 2, 0, 127])
    found = labels.astype(dtype)
    if number == "jax":
        found = jnp.asarray(found)
    for function in lra_jax.cross_entropy[:3]:
        expected = function(logits, jnp.asarray(labels, jnp.int32))
        np.testing.assert_array_equal(function(logits, found), expected)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        lra_jax.cross_entropy.grad(logits, found),
        p - np.eye(num_classes)[labels],
        atol=1e-6,
    )
    assert np.all(lra_jax.cross_entropy.is_error(logits, found))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int64"])
def test_labels_of_every_step_ask_nothing_in_any_signed_type(dtype):
    name = "cross_entropy_every_step"
    logits = logits_of(name)
    for function in LOSSES[name][:3]:
        np.testing.assert_array_equal(
            function(logits, RIGHT[name].astype(dtype)), function(logits, RIGHT[name])
        )


def test_unsigned_labels_of_every_step_always_ask():
    labels = np.array([[0, 2], [1, 0], [1, 1]])
    logits, loss = logits_of("cross_entropy_every_step"), LOSSES["cross_entropy"]
    each = [loss.value(z, y) for z, y in zip(logits, labels, strict=True)]
    found = lra_jax.cross_entropy_every_step.value(logits, labels.astype(np.uint8))
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-6)


def test_a_rule_learns_from_bytes_what_it_learns_from_integers():
    num_classes = 259
    params = lra_jax.init_params(jax.random.key(0), X, H, num_classes)
    inputs, rule = np.array([[0, 1], [2, 0]]), lra_jax.bptt()
    grads = jax.jit(functools.partial(rule.grads, jax.random.key(1)))
    both = [
        grads(params, lra_jax.EmptyState(), lra_jax.Batch(inputs, labels))
        for labels in (np.array([0, 2], np.int32), np.array([0, 2], np.uint8))
    ]
    jax.tree.map(np.testing.assert_array_equal, *both)
    np.testing.assert_allclose(both[1][0].b_y.sum(), 0, atol=1e-6)  # softmax


@pytest.mark.parametrize("wrong", [2**32, 2**32 + 1, 2**40])
def test_a_wide_label_of_a_step_does_not_wrap_to_a_class(wrong):
    """Nor to one that asks nothing; -2**32 asks nothing, as any other below 0."""
    logits, loss = (
        logits_of("cross_entropy_every_step"),
        losses.cross_entropy_every_step,
    )
    labels = RIGHT["cross_entropy_every_step"].astype(np.int64)
    labels[1, 1] = -(2**32)
    expected = loss.value(logits, RIGHT["cross_entropy_every_step"])
    np.testing.assert_array_equal(loss.value(logits, labels), expected)
    labels[1, 1] = wrong
    assert np.isnan(loss.value(logits, labels)).tolist() == [False, True]
    assert np.isnan(loss.grad(logits, labels)[1, 1]).all()
    rule, (params, batch) = make("lra_diff", output_loss=loss), problem_with(labels)
    grads, _, _ = rule.grads(jax.random.key(0), params, lra_jax.EmptyState(), batch)
    assert all(np.isnan(g).any() for g in grads)


def problem_with(labels):
    params = lra_jax.init_params(jax.random.key(0), X, H, Y)
    return params, lra_jax.Batch(np.ones((T, B), np.int32), labels)


def test_a_wide_label_does_not_wrap_to_a_class():
    logits = logits_of("cross_entropy")
    labels = np.array([0, 2**32 + 1])
    for function in lra_jax.cross_entropy[:2]:
        found = np.isnan(function(logits, labels)).reshape(B, -1)
        np.testing.assert_array_equal(found.all(axis=1), [False, True])


# No label.


@wrong_labels
def test_what_is_no_label_is_nan_in_the_loss_and_in_its_derivative(name, wrong):
    logits, labels = logits_of(name), with_one(name, wrong)
    loss = LOSSES[name]
    for values in (RIGHT[name], labels):
        gradient = loss.grad(logits, values)
        with_jax = jax.grad(lambda x, y: jnp.sum(loss.value(x, y)))(logits, values)
        np.testing.assert_allclose(gradient, with_jax, atol=1e-6)
        is_nan = np.isnan(loss.value(logits, values))
        np.testing.assert_array_equal(is_nan, [False, values is labels])
        of_sample = np.isnan(gradient).any(axis=-1)
        of_sample = of_sample.reshape(-1, B).any(axis=0)
        np.testing.assert_array_equal(of_sample, is_nan)
    assert loss.is_error(logits, labels)[1]
    for function, of_first in (  # the other sample does not know
        (loss.value, lambda x: x[0]),
        (loss.is_error, lambda x: x[0]),
        (loss.grad, lambda x: x[..., 0, :]),
    ):
        np.testing.assert_array_equal(
            of_first(function(logits, labels)), of_first(function(logits, RIGHT[name]))
        )


@functools.cache
def problem(name):
    rng = np.random.default_rng(0)
    params = jax.device_get(lra_jax.init_params(jax.random.key(0), X, H, Y))
    inputs = rng.integers(X, size=(T, B)).astype(np.int32)
    return params, lra_jax.Batch(inputs, RIGHT[name])


@pytest.mark.parametrize(
    ("rule", "name"),
    [(rule, "cross_entropy") for rule in RULES]
    + [
        pytest.param(
            rule,
            "squared_error",
            marks=() if rule in ("bptt", "lra_diff", "tptt") else pytest.mark.slow,
        )
        for rule in RULES
    ]
    + [(rule, "cross_entropy_every_step") for rule in EVERY_STEP]
    + [(rule, "binary_cross_entropy_every_step") for rule in ("bptt", "lra_diff")],
)
def test_a_rule_makes_nan_of_all_that_it_learns_from_what_is_no_label(rule, name):
    params, batch = problem(name)
    made = make(rule, output_loss=LOSSES[name])
    state = made.init(jax.random.key(1), params)
    grads = jax.jit(functools.partial(made.grads, jax.random.key(2)))
    for wrong in (None, *WRONG[name]):
        labels = RIGHT[name] if wrong is None else with_one(name, wrong)
        found, _, info = grads(params, state, batch._replace(labels=labels))
        names = params._fields[3 if rule == "readout_only" else 0 :]
        for field in names:
            assert np.isnan(getattr(found, field)).any() == (wrong is not None), field
        assert np.isnan(info.loss) == (wrong is not None)


@wrong_labels
def test_an_evaluation_counts_what_is_no_label_as_an_error(name, wrong):
    params, batch = problem(name)
    labels = with_one(name, wrong)
    metrics = lra_jax.evaluate(
        params, batch._replace(labels=labels), output_loss=LOSSES[name]
    )
    right = lra_jax.evaluate(params, batch, output_loss=LOSSES[name])
    assert np.isnan(metrics.loss)
    assert not np.isnan(right.loss)
    logits = lra_jax.forward(
        params, batch.inputs, every_step=LOSSES[name].every_step
    ).logits
    others = LOSSES[name].is_error(logits, batch.labels)[:1]
    assert metrics.num_errors == 1 + int(others.sum())


def test_labels_are_data_inside_of_a_scan():
    """Known to nobody while it is traced: NaN there too."""
    params, batch = problem("cross_entropy")
    labels = np.array([[0, 1], [0, -1]], np.int8)

    def step(total, y):
        return total, lra_jax.evaluate(params, batch._replace(labels=y)).loss

    _, loss = jax.lax.scan(step, 0, labels)
    np.testing.assert_array_equal(np.isnan(loss), [False, True])


# Messages.

AXES = "(inputs are time-major, [T, B] or [T, B, X]: time is the first axis)"


def test_a_batch_whose_first_axis_is_the_batch_hears_which_axis_is_time():
    params, _ = problem("cross_entropy")
    inputs, labels = np.zeros((5, 7, X), np.float32), np.zeros(5, np.int32)  # [B, T, X]
    with pytest.raises(ValueError, match=r"^labels") as error:
        lra_jax.evaluate(params, lra_jax.Batch(inputs, labels))
    assert str(error.value) == (
        f"labels: expected integer classes [B] = (7,) {AXES}, got int32 (5,)"
    )
    lra_jax.evaluate(params, lra_jax.Batch(inputs.swapaxes(0, 1), labels))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("labels", [np.zeros(B + 1, np.int32), [0, 1]])
def test_labels_that_do_not_fit_are_named(name, labels):
    text = "an array, got list" if isinstance(labels, list) else AXES
    for function in LOSSES[name][:3]:
        with pytest.raises(ValueError, match=r"^labels: expected ") as error:
            function(logits_of(name), labels)
        assert text in str(error.value)


def test_complex_labels_are_refused():
    labels = RIGHT["squared_error"].astype(np.complex64)
    with pytest.raises(ValueError, match=r"^labels: expected real .* got complex64"):
        losses.squared_error.value(logits_of("squared_error"), labels)
