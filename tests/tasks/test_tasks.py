"""The tasks against their definitions, read back from what they draw."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lra_jax
from lra_jax import TASKS
from lra_jax.tasks.task import position

REALS = [TASKS[name].output_loss for name in ("adding", "flip_flop", "sine")]

all_tasks = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)

# Where the informative symbols' ranges start, in tenths of T.
STARTS = {"temporal_order": (1, 5), "temporal_order_3bit": (1, 3, 6)}
ORDER_TASKS = pytest.mark.parametrize(
    ("task", "starts"),
    [(TASKS[name], starts) for name, starts in STARTS.items()],
    ids=STARTS,
)
# 19: w is 1, and later ranges start at odd places; 400 is the longest checked.
LENGTHS = pytest.mark.parametrize("seq_len", [10, 11, 19, 400])


NUM_SAMPLES = 4000


@functools.cache
def draw_batch(task, seq_len):
    sample = jax.jit(
        functools.partial(task.sample, seq_len=seq_len, batch_size=NUM_SAMPLES)
    )
    return jax.device_get(sample(jax.random.key(0)))


def draw(task, seq_len):
    batch = draw_batch(task, seq_len)
    assert batch.start is None
    return batch.inputs, batch.labels


def possible(task, seq_len):
    """A length, or the least one."""
    return max(seq_len, task.min_seq_len)


@functools.cache
def draw_several(task):
    """Three keys, and their batches of 20 samples of length 20."""
    keys = jax.random.split(jax.random.key(5), 3)
    seq_len = possible(task, 20)
    sample = functools.partial(task.sample, batch_size=20, seq_len=seq_len)
    return keys, jax.device_get(jax.jit(jax.vmap(sample))(keys))


def guesses(task, batch):
    """Logits that answer the same whenever an answer is asked for.

    The first answer that is not to wait, in the response of a trial, which is where the
    fixation signal is off; else class 0, or the number 1/2.
    """
    if not task.output_loss.every_step:
        shape = (batch.labels.shape[0], task.output_size)
        return jnp.zeros(shape).at[:, 0].set(0.5)
    shape = (*batch.inputs.shape[:2], task.output_size)
    if isinstance(batch.labels, lra_jax.Weighted):
        if batch.labels.labels.ndim == 3:
            return jnp.full(shape, 0.5)
        respond = batch.inputs[..., 0] < 0.5
    else:
        respond = batch.labels > 0
    return jax.nn.one_hot(respond.astype(int), task.output_size)


def assert_uniform(counts):
    """χ² within five standard deviations of its mean: one key in 10⁵ or fewer fail."""
    counts = np.asarray(counts, np.float64)
    expected, freedom = counts.mean(), counts.size - 1
    assert expected > 50
    chi_square = np.sum((counts - expected) ** 2) / expected
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


def informative(inputs, num_bits):
    """Places and values of the symbols 0 and 1, `[num_bits, B]` in order of time."""
    marked = inputs < 2
    np.testing.assert_array_equal(marked.sum(axis=0), num_bits)
    places = np.argsort(~marked, axis=0, kind="stable")[:num_bits]
    return places, np.take_along_axis(inputs, places, axis=0)


def test_positions_are_exact_floors_for_all_lengths():
    for seq_len in range(10, 401):
        for tenths in (1, 3, 4, 5, 6):  # those in use: not all others are exact
            assert position(seq_len, tenths / 10) == seq_len * tenths // 10


def test_ranges_of_positions_never_meet_for_all_lengths():
    for seq_len in range(10, 401):
        width = seq_len // 10
        for starts in STARTS.values():
            ends = [seq_len * s // 10 + width for s in starts]
            assert all(
                end <= seq_len * s // 10
                for end, s in zip(ends[:-1], starts[1:], strict=True)
            )
            assert ends[-1] <= seq_len
        assert width + seq_len * 4 // 10 <= seq_len  # adding


# Temporal order.


@ORDER_TASKS
def test_at_length_ten_positions_are_fixed_and_every_case_occurs(task, starts):
    inputs, labels = draw(task, 10)
    places, values = informative(inputs, len(starts))
    np.testing.assert_array_equal(places.T, np.tile(starts, (NUM_SAMPLES, 1)))
    weights = 2 ** np.arange(len(starts))
    np.testing.assert_array_equal(labels, weights @ values)
    cases = np.unique(np.concatenate([values, labels[None]]), axis=None)
    np.testing.assert_array_equal(cases, np.arange(2 ** len(starts)))
    assert len(np.unique(values, axis=1).T) == 2 ** len(starts)


@ORDER_TASKS
@LENGTHS
def test_positions_keep_to_their_ranges_and_the_label_tells_the_values(
    task, starts, seq_len
):
    inputs, labels = draw(task, seq_len)
    assert inputs.dtype == labels.dtype == np.int32
    assert inputs.shape == (seq_len, NUM_SAMPLES)
    assert labels.shape == (NUM_SAMPLES,)
    places, values = informative(inputs, len(starts))
    width = seq_len // 10
    first = np.array([seq_len * s // 10 for s in starts])[:, None]
    assert np.all(first <= places)
    assert np.all(places < first + width)
    np.testing.assert_array_equal(labels, 2 ** np.arange(len(starts)) @ values)
    assert np.all((inputs >= 0) & (inputs < 6))


@ORDER_TASKS
def test_positions_labels_and_distractors_are_uniform(task, starts):
    inputs, labels = draw(task, 40)
    places, _ = informative(inputs, len(starts))
    for start, row in zip(starts, places, strict=True):
        assert_uniform(np.bincount(row - 4 * start, minlength=4))
    # Joint with the values: positions say nothing about the label.
    assert_uniform(np.bincount(labels, minlength=task.output_size))
    joint = labels * 4 + places[0] - 4 * starts[0]
    assert_uniform(np.bincount(joint, minlength=4 * task.output_size))
    distractors = inputs[inputs >= 2]
    assert_uniform(np.bincount(distractors - 2))
    last = inputs[-1]  # always a distractor: nor do these
    assert_uniform(np.bincount(labels * 4 + last - 2))


@ORDER_TASKS
def test_positions_are_drawn_independently(task, starts):
    inputs, _ = draw(task, 40)
    places, _ = informative(inputs, len(starts))
    offsets = places - 4 * np.array(starts)[:, None]
    joint = np.ravel_multi_index(tuple(offsets[:2]), (4, 4))
    assert_uniform(np.bincount(joint, minlength=16))


# Random permutation.


@pytest.mark.parametrize("seq_len", [1, 10, 40])
def test_permutation_starts_with_its_label_and_never_repeats_it(seq_len):
    inputs, labels = draw(TASKS["random_permutation"], seq_len)
    assert inputs.dtype == labels.dtype == np.int32
    assert inputs.shape == (seq_len, NUM_SAMPLES)
    np.testing.assert_array_equal(inputs[0], labels)
    np.testing.assert_array_equal(np.unique(labels), [0, 1])
    assert np.all((inputs[1:] >= 2) & (inputs[1:] <= 99))
    assert_uniform(np.bincount(labels))


def test_permutation_distractors_are_uniform_and_independent_of_the_label():
    inputs, labels = draw(TASKS["random_permutation"], 40)
    assert_uniform(np.bincount(inputs[1:].ravel() - 2, minlength=98))
    assert_uniform(np.bincount(inputs[1:, labels == 1].ravel() - 2, minlength=98))
    pairs = (inputs[1:-1] % 2) * 2 + inputs[2:] % 2
    assert_uniform(np.bincount(pairs.ravel()))


# Adding.


@LENGTHS
def test_adding_marks_two_numbers_and_asks_for_their_mean(seq_len):
    inputs, labels = draw(TASKS["adding"], seq_len)
    assert inputs.dtype == labels.dtype == np.float32
    assert inputs.shape == (seq_len, NUM_SAMPLES, 2)
    assert labels.shape == (NUM_SAMPLES, 1)
    marks, values = inputs[..., 0], inputs[..., 1]
    np.testing.assert_array_equal(np.unique(marks), [0, 1])
    np.testing.assert_array_equal(marks.sum(axis=0), 2)
    first, second = np.sort(np.argsort(-marks, axis=0, kind="stable")[:2], axis=0)
    width = seq_len // 10
    assert np.all(first < width)
    assert np.all((width <= second) & (second < width + seq_len * 4 // 10))
    expected = np.sum(marks * values, axis=0, dtype=np.float64) / 2
    np.testing.assert_allclose(labels[:, 0], expected, rtol=1e-6)
    assert np.all((values >= 0) & (values < 1))


def test_adding_numbers_and_places_are_uniform():
    inputs, _ = draw(TASKS["adding"], 40)
    marks, values = inputs[..., 0], inputs[..., 1]
    assert_uniform(np.bincount((values * 20).astype(int).ravel(), minlength=20))
    first, second = np.argsort(-marks, axis=0, kind="stable")[:2]
    assert_uniform(np.bincount(first, minlength=4))
    assert_uniform(np.bincount(second - 4, minlength=16))
    marked = values[second, np.arange(NUM_SAMPLES)]
    assert_uniform(np.bincount((marked * 10).astype(int), minlength=10))


def test_adding_counts_an_error_beyond_a_squared_difference_of_four_hundredths():
    _, labels = draw(TASKS["adding"], 10)
    for offset, wrong in ((0.0, False), (0.199, False), (0.201, True), (-0.21, True)):
        errors = TASKS["adding"].output_loss.is_error(labels + offset, labels)
        np.testing.assert_array_equal(errors, wrong)


# All tasks.


@all_tasks
def test_chance_is_what_a_constant_answer_gets_right(task):
    batch = draw_batch(task, possible(task, 10))
    errors = task.output_loss.is_error(
        guesses(task, batch), jax.tree.map(jnp.asarray, batch.labels)
    )
    right = 1 - np.mean(errors)
    deviation = np.sqrt(task.chance * (1 - task.chance) / NUM_SAMPLES)
    assert right == task.chance == 0 or abs(right - task.chance) < 4 * deviation


@all_tasks
def test_a_key_determines_the_batch_also_under_jit_and_vmap(task):
    keys, together = draw_several(task)
    seq_len = possible(task, 20)
    alone = jax.jit(functools.partial(task.sample, batch_size=20, seq_len=seq_len))
    # Products and sums may be joined in one program and not in the other.
    rtol, atol = (1e-6, 1e-6) if together.inputs.ndim == 4 else (0, 0)
    for index in (0, 2, 0):
        batch = alone(keys[index])
        np.testing.assert_allclose(batch.inputs, together.inputs[index], rtol, atol)
        for found, expected in zip(
            jax.tree.leaves((batch.labels, batch.start)),
            jax.tree.leaves((together.labels, together.start)),
            strict=True,
        ):
            np.testing.assert_allclose(found, expected[index], rtol=1e-6, atol=1e-6)


@all_tasks
def test_different_keys_and_samples_differ(task):
    inputs = draw_several(task)[1].inputs
    assert np.mean(inputs[0] != inputs[1]) > 0.3
    samples = inputs.swapaxes(1, 2).reshape(3 * 20, -1)
    assert len(np.unique(samples, axis=0)) == 3 * 20


@settings(deadline=None, derandomize=True, database=None, max_examples=15)
@given(batch_size=st.integers(1, 300), extra_len=st.integers(0, 390))
def test_shapes_and_dtypes_for_any_sizes(batch_size, extra_len):
    for task in TASKS.values():
        seq_len = task.min_seq_len + extra_len
        key = jax.random.key(0)
        batch = jax.eval_shape(lambda k: task.sample(k, batch_size, seq_len), key)  # noqa: B023
        assert batch.inputs.shape[:2] == (seq_len, batch_size)
        symbols = batch.inputs.ndim == 2
        dtype = jnp.int32 if symbols else jnp.float32
        assert batch.inputs.dtype == dtype
        assert batch.inputs.shape[2:] == (() if symbols else (task.input_size,))
        labels, axes = batch.labels, (batch_size,)
        if task.output_loss.every_step:
            axes = (seq_len, batch_size)
        if isinstance(labels, lra_jax.Weighted):
            labels, weights = labels
            assert weights.dtype == jnp.float32
            assert weights.shape in (axes, labels.shape)
        classes = task.output_loss not in REALS
        assert labels.shape == axes + (() if classes else (task.output_size,))
        assert labels.dtype == (jnp.int32 if classes else jnp.float32)


@all_tasks
def test_dtypes_are_never_promoted_implicitly(task):
    sample = functools.partial(task.sample, batch_size=3, seq_len=possible(task, 10))
    with jax.numpy_dtype_promotion("strict"):
        strict = jax.eval_shape(sample, jax.random.key(0))
    usual = jax.eval_shape(lambda key: sample(key), jax.random.key(0))
    assert jax.tree.leaves(strict) == jax.tree.leaves(usual)


@all_tasks
@pytest.mark.parametrize("value", [-1, 0, 10.0, 25.5, "10", True, None], ids=repr)
def test_an_impossible_length_is_named_with_the_least_one(task, value):
    with pytest.raises(ValueError, match=r"^seq_len: expected an integer") as error:
        task.sample(jax.random.key(0), 3, value)
    assert str(error.value).endswith(f"at least {task.min_seq_len}, got {value!r}")


@all_tasks
def test_one_less_than_the_least_length_is_impossible(task):
    least = task.min_seq_len
    inputs = draw_batch(task, least).inputs
    assert inputs.shape[:2] == (least, NUM_SAMPLES)
    with pytest.raises(ValueError, match=f"at least {least}, got {least - 1}$"):
        task.sample(jax.random.key(0), 3, least - 1)


@all_tasks
@pytest.mark.parametrize("value", [-1, 0, 2.0, "3", True], ids=repr)
def test_an_impossible_batch_size_is_named(task, value):
    with pytest.raises(ValueError, match=r"^batch_size: expected an integer") as error:
        task.sample(jax.random.key(0), value, possible(task, 10))
    assert str(error.value).endswith(f"at least 1, got {value!r}")


def test_sizes_are_those_of_the_specification():
    sizes = {
        name: (task.input_size, task.output_size, task.min_seq_len, task.chance)
        for name, task in TASKS.items()
    }
    assert sizes == {
        "adding": (2, 1, 10, 0.64),
        "random_permutation": (100, 100, 1, 0.5),
        "context_integration": (7, 3, 10, 0.5),
        "copying": (10, 9, 21, 8**-10),
        "delayed_comparison": (2, 3, 10, 0.5),
        "delayed_match": (3, 3, 10, 0.5),
        "delayed_nonmatch": (3, 2, 10, 0.5),
        "flip_flop": (3, 3, 10, 5.5e-4),
        "go_nogo": (3, 2, 10, 0.5),
        "memory_pro_anti": (11, 9, 10, 0.125),
        "perceptual_decision": (3, 3, 10, 0.5),
        "ready_set_go": (3, 2, 30, 0.0),
        "sine": (1, 1, 20, 0.0),
        "temporal_order": (6, 4, 10, 0.25),
        "temporal_order_3bit": (6, 8, 10, 0.125),
    }
