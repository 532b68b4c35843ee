"""One's own arrays as a task: held out, divided, aligned, and refused with a reason."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lra_jax
from lra_jax.lab import config as config_lib
from lra_jax.lab.config import tasks
from lra_jax.lab.data.sources import DatasetError
from lra_jax.tasks import arrays, division, reading

from_arrays = lra_jax.Task.from_arrays
N, T, X, Y = 32, 8, 3, 4
RANDOM = np.random.default_rng(0)
SYMBOLS = RANDOM.integers(0, 6, (N, T))
VECTORS = RANDOM.normal(size=(N, T, X))
CLASSES = RANDOM.permutation(np.arange(N) % Y)
OTHER = RANDOM.integers(0, 6, (10, T)), RANDOM.integers(0, Y, 10)


def whole(samples):
    """All samples of a part, as NumPy arrays."""
    return jax.device_get(samples.take(np.arange(samples.size)))


def numbered(count, seq_len=2):
    """Real inputs of which the first channel is the number of the sample."""
    return np.tile(np.arange(count, dtype=np.float32)[:, None, None], (1, seq_len, 1))


def drawn(task, num=2000):
    """The numbers of the samples that a task of `numbered` inputs draws."""
    return set(np.array(task.sample(jax.random.key(0), num).inputs[0, :, 0], int))


def held_out(samples):
    return set(whole(samples).inputs[0, :, 0].astype(int))


def test_the_signature_is_settled():
    parameters = inspect.signature(from_arrays).parameters
    assert list(parameters)[:2] == ["inputs", "labels"]
    required = inspect.Parameter.empty
    assert {
        n: p.default for n, p in parameters.items() if p.kind == p.KEYWORD_ONLY
    } == {
        "validation": required,
        "batch_first": True,
        "lengths": None,
        "output_loss": None,
        "test": None,
        "seed": 0,
        "input_size": None,
        "output_size": None,
    }
    with pytest.raises(TypeError, match="required keyword-only argument: 'validation'"):
        from_arrays(SYMBOLS, CLASSES)


# Parts.


@settings(deadline=None, derandomize=True, database=None, max_examples=25)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    fractions=st.tuples(st.floats(0.05, 0.6), st.floats(0.05, 0.35)),
    seed=st.integers(0, 2**32 - 1),
)
def test_parts_have_each_sample_once_and_each_class_its_share(counts, fractions, seed):
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    records = reading.Records(np.arange(len(labels))[:, None], labels, None)
    names = dict(zip(("validation", "test"), fractions, strict=True))
    numbers = [round(fraction * len(labels)) for fraction in fractions]
    if 0 in numbers or sum(numbers) >= len(labels) or max(counts) < 4:
        return  # a part may be empty
    parts = division.divide(records, names, seed, by_class=True)
    found = np.concatenate([part.inputs[:, 0] for part in parts])
    np.testing.assert_array_equal(np.sort(found), np.arange(len(labels)))
    assert set(parts[0].labels) == set(labels)  # each class is trained on
    for part, fraction in zip(parts[1:], fractions, strict=True):
        assert part.labels.size
        shares = np.bincount(part.labels, minlength=len(counts))
        exact = fraction * np.array(counts)
        assert (shares <= np.ceil(exact)).all()
        if min(counts) * (1 - sum(fractions)) > 2:  # no class is nearly used up
            assert (shares >= np.floor(exact)).all()
            assert shares.sum() == round(fraction * len(labels))


def test_a_fraction_is_the_same_of_each_class_and_never_trained_on():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    task = from_arrays(numbered(100), labels, validation=0.2, test=0.1)
    assert np.bincount(whole(task.validation).labels).tolist() == [10, 6, 4]
    assert np.bincount(whole(task.test).labels).tolist() == [5, 3, 2]
    parts = drawn(task), held_out(task.validation), held_out(task.test)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 100
    assert task.chance == 0.5
    # As near to the share as whole samples are: 2.5 and 1.5 of each class.
    odd = from_arrays(numbered(8), np.repeat([0, 1], [5, 3]), validation=0.5)
    counts = np.bincount(whole(odd.validation).labels)
    assert counts.sum() == 4
    assert counts.tolist() in ([3, 1], [2, 2])


def test_a_seed_determines_the_parts_and_a_test_part_leaves_validation_alone():
    labels = np.arange(60) % 3
    one, same, with_test, other = (
        held_out(from_arrays(numbered(60), labels, validation=0.25, **keys).validation)
        for keys in ({}, {"seed": 0}, {"test": 0.5}, {"seed": 1})
    )
    assert one == same == with_test != other
    # In all versions of everything.
    assert sorted(one) == [*(3, 5, 7, 10, 11, 16, 18, 20, 21, 33, 35, 40, 41, 48, 49)]


def test_accuracy_is_of_samples_that_no_update_has_seen():
    """Labels are noise: a network learns its training samples by heart, and no others."""
    inputs = RANDOM.normal(size=(60, 3, 20)).astype(np.float32)
    labels = RANDOM.permutation(np.arange(60) % 2)
    task = from_arrays(inputs, labels, validation=0.5)
    experiment = lra_jax.Experiment(
        task,
        lambda hp: (lra_jax.bptt(), optax.adam(hp["lr"])),
        hidden_size=30,
        eval_every=150,
    )
    assert (experiment.seq_len, experiment.num_validation) == (3, 30)
    weights = {}
    found = lra_jax.run_sweep(
        experiment,
        {"lr": [0.03]},
        [0],
        limits=lra_jax.Limits(max_steps=150),
        on_chunk=lambda _, ended: weights.update(ended),
    )
    assert found.members.num_errors[0] > 5
    validation = lra_jax.evaluate(weights[0], whole(task.validation))
    assert validation.num_errors == found.members.num_errors[0]
    # The control: the same weights on what was drawn to train on.
    batch = task.sample(jax.random.key(0), 300)
    assert lra_jax.evaluate(weights[0], batch).num_errors == 0


def test_arrays_given_for_validation_and_test_are_these_parts():
    other, third = numbered(5) + 100, numbered(4) + 200
    labels = np.array([0, 1, 1, 1, 3])
    task = from_arrays(
        numbered(8),
        np.arange(8) % 2,
        validation=(other, labels),
        test=[third, labels[1:]],
    )
    assert held_out(task.validation) == {100, 101, 102, 103, 104}
    assert held_out(task.test) == {200, 201, 202, 203}
    assert drawn(task) == set(range(8))
    assert task.output_size == 4  # the largest class of all parts, and one more
    assert task.chance == 0.6


@pytest.mark.parametrize("validation", [0.001, 0.999, 0, 1, 1.5, -0.2, float("nan")])
def test_a_fraction_that_leaves_a_part_empty_is_refused(validation):
    with pytest.raises(ValueError, match=r"^validation: (a fraction|expected a frac)"):
        from_arrays(SYMBOLS, CLASSES, validation=validation)


@pytest.mark.parametrize("value", [None, True, "0.2", SYMBOLS, (SYMBOLS,), {}], ids=str)
def test_a_validation_part_has_one_of_three_forms(value):
    with pytest.raises(ValueError, match=r"^validation: expected a fraction between"):
        from_arrays(SYMBOLS, CLASSES, validation=value)


@pytest.mark.parametrize("name", ["validation", "test"])
@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (SYMBOLS, "the training inputs themselves"),
        (SYMBOLS[:], "inputs that share memory with the training inputs"),
        (SYMBOLS[3:9], "inputs that share memory with the training inputs"),
        (SYMBOLS.copy(), "a copy of the training inputs"),
        (SYMBOLS.tolist(), "a copy of the training inputs"),
        (SYMBOLS[[5, 2]], "samples that are all among the training samples"),
    ],
    ids=["object", "view", "slice", "copy", "lists", "picked"],
)
def test_training_data_are_refused_where_others_are_asked_for(name, inputs, said):
    parts = {"validation": 0.2} | {name: (inputs, CLASSES[: len(inputs)])}
    with pytest.raises(ValueError) as error:  # noqa: PT011 -- compared as a whole
        from_arrays(SYMBOLS, CLASSES, **parts)
    assert str(error.value) == f"{name}: expected data that are held out, got {said}"


def test_validation_data_are_refused_for_the_test():
    with pytest.raises(ValueError, match=r"got the validation inputs themselves$"):
        from_arrays(SYMBOLS, CLASSES, validation=OTHER, test=OTHER)
    part = OTHER[0][:4], OTHER[1][:4]
    with pytest.raises(ValueError, match=r"share memory with the validation inputs$"):
        from_arrays(SYMBOLS, CLASSES, validation=OTHER, test=part)


def test_held_out_samples_that_happen_to_be_training_samples_are_no_copy():
    """Where training samples repeat themselves, there are few different ones."""
    few = np.repeat(np.eye(4, dtype=int), 8, axis=0)
    task = from_arrays(
        few, few.argmax(axis=1), validation=(np.eye(4, dtype=int), range(4))
    )
    assert task.validation.size == 4
    part = SYMBOLS[[5, 2]]
    part[0, 0] = 5 - part[0, 0]  # one of both is new
    assert from_arrays(SYMBOLS, CLASSES, validation=(part, [0, 1])).validation.size == 2


# Layouts.


def assert_same_parts(a, b):
    for name in ("validation", "test"):
        for x, y in zip(whole(getattr(a, name)), whole(getattr(b, name)), strict=True):
            np.testing.assert_array_equal(x, y)
    key = jax.random.key(1)
    for x, y in zip(a.sample(key, 20), b.sample(key, 20), strict=True):
        np.testing.assert_array_equal(x, y)
    fields = "input_size", "output_size", "min_seq_len", "max_seq_len", "chance"
    assert all(getattr(a, name) == getattr(b, name) for name in fields)
    assert a.output_loss == b.output_loss


@pytest.mark.parametrize("inputs", [SYMBOLS, VECTORS], ids=["symbols", "vectors"])
@pytest.mark.parametrize(
    "labels",
    [CLASSES, VECTORS[:, 0], SYMBOLS, (VECTORS > 0) * 1.0],
    ids=["classes", "values", "classes of steps", "values of steps"],
)
@pytest.mark.parametrize(
    "lengths", [None, 1 + np.arange(N) % T], ids=["whole", "padded"]
)
def test_time_first_arrays_are_the_same_task(inputs, labels, lengths):
    first = from_arrays(inputs, labels, lengths=lengths, validation=0.25, test=0.25)
    steps = labels is SYMBOLS or labels.ndim == 3
    turned = labels.swapaxes(0, 1) if steps else labels
    keys = {"lengths": lengths, "validation": 0.25, "test": 0.25}
    second = from_arrays(inputs.swapaxes(0, 1), turned, batch_first=False, **keys)
    assert_same_parts(first, second)
    batch = first.sample(jax.random.key(0), 5)
    assert batch.inputs.shape == (T, 5, *inputs.shape[2:])
    assert batch.labels.shape == (
        (T, 5, *labels.shape[2:]) if steps else (5, *labels.shape[1:])
    )
    assert (batch.start is None) == (lengths is None)


class Foreign:
    """What a library with arrays of its own gives NumPy."""

    def __init__(self, values):
        self._values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._values, dtype)


@pytest.mark.parametrize("kind", [np.ndarray.tolist, jnp.asarray, Foreign])
def test_arrays_of_others_are_the_same_task(kind):
    keys = {"validation": 0.25, "test": 0.25}
    expected = from_arrays(SYMBOLS, CLASSES, **keys)
    assert_same_parts(from_arrays(kind(SYMBOLS), kind(CLASSES), **keys), expected)


def test_small_integers_are_real_numbers_or_symbols_by_their_axes():
    pixels = RANDOM.integers(0, 256, (N, T, X), np.uint8)
    batch = whole(
        from_arrays(pixels, CLASSES, validation=(pixels + 1, CLASSES)).validation
    )
    assert batch.inputs.dtype == np.float32
    np.testing.assert_array_equal(batch.inputs, (pixels + 1).swapaxes(0, 1))
    letters = RANDOM.integers(0, 256, (N, T), np.uint8)
    task = from_arrays(letters, CLASSES.astype(np.uint8), validation=0.5)
    batch = whole(task.validation)
    assert batch.inputs.dtype == batch.labels.dtype == np.int32
    assert task.input_size == int(letters.max()) + 1
    assert task.sample(jax.random.key(0), 4).inputs.dtype == np.int32


def evaluated(key, task):
    """What initial weights of a task's sizes get on a batch of it."""
    params = lra_jax.init_params(key, task.input_size, 4, task.output_size)
    return lra_jax.evaluate(params, task.sample(key, 5), output_loss=task.output_loss)


def test_labels_choose_the_loss_and_the_sizes():
    steps = np.where(SYMBOLS < 3, -1, SYMBOLS - 3)
    rolls = RANDOM.integers(0, 2, (N, T, 5)) * 1.0
    rolls[:, 0] = -1
    for labels, loss, output_size in (
        (CLASSES, lra_jax.cross_entropy, Y),
        (VECTORS[:, 0], lra_jax.squared_error, X),
        (steps, lra_jax.cross_entropy_every_step, 3),
        (rolls, lra_jax.binary_cross_entropy_every_step, 5),
    ):
        task = from_arrays(SYMBOLS, labels, validation=0.25)
        assert task.output_loss == loss
        assert (task.input_size, task.output_size) == (6, output_size)
        assert task.min_seq_len == task.max_seq_len == T
        jax.eval_shape(functools.partial(evaluated, task=task), jax.random.key(0))
    chosen = from_arrays(
        SYMBOLS, SYMBOLS, validation=0.25, output_loss=lra_jax.squared_error
    )
    assert chosen.output_size == T
    assert chosen.sample(jax.random.key(0), 5).labels.dtype == np.float32
    sizes = from_arrays(SYMBOLS, CLASSES, validation=0.25, input_size=9, output_size=7)
    assert (sizes.input_size, sizes.output_size) == (9, 7)


def test_chance_is_what_a_constant_answer_gets_right():
    inputs, held = numbered(6), numbered(4) + 10
    values = np.array([[0.0], [0.1], [1.0], [2.0]])  # the mean to train on is 0
    steps = np.array([[1, 1], [1, -1], [0, 1], [-1, -1]])
    for labels, training, chance in (
        (np.array([2, 0, 2, 2]), np.zeros(6, int), 0.75),
        (values, np.zeros((6, 1)), 0.5),
        (steps, np.zeros((6, 2), int), 0.75),
        (steps[:, :, None] * 1.0, np.zeros((6, 2, 1)), 0.75),
    ):
        task = from_arrays(inputs, training, validation=(held, labels))
        assert task.chance == chance


def test_a_loss_of_ones_own_gets_its_labels_as_they_are():
    def off(logits, labels):
        return jnp.abs(logits[:, 0] - labels)

    loss = lra_jax.OutputLoss(off, off, lambda logits, labels: off(logits, labels) > 1)
    keys = {"validation": 0.25, "output_loss": loss}
    with pytest.raises(
        ValueError, match=r"^output_size: expected Y for an output_loss"
    ):
        from_arrays(SYMBOLS, VECTORS[:, 0, 0], **keys)
    task = from_arrays(SYMBOLS, VECTORS[:, 0, 0], output_size=1, **keys)
    assert (task.output_size, task.chance) == (1, 0.0)
    assert task.sample(jax.random.key(0), 5).labels.shape == (5,)


# Lengths.

PADDED = np.array([[7, 8, 9, 9], [1, 2, 3, 4], [5, 9, 9, 9]])
LENGTHS = np.array([2, 4, 1])


def test_padding_goes_before_the_sequences():
    held = PADDED[:, ::-1].copy(), [0, 1, 1], [4, 4, 3]
    task = from_arrays(PADDED, [0, 1, 0], lengths=LENGTHS, validation=held, test=(
        PADDED[:, :3].copy(), [1, 0, 1], [3, 1, 2]))  # fmt: skip
    batch = task.sample(jax.random.key(0), 50)
    rows = {tuple(r) for r in np.c_[batch.inputs.T, batch.start, batch.labels].tolist()}
    assert rows == {(0, 0, 7, 8, 2, 0), (1, 2, 3, 4, 0, 1), (0, 0, 0, 5, 3, 0)}
    batch = whole(task.validation)
    assert batch.inputs.T.tolist() == [[9, 9, 8, 7], [4, 3, 2, 1], [0, 9, 9, 9]]
    assert batch.start.tolist() == [0, 0, 1]
    batch = whole(task.test)  # of fewer steps than the others
    assert batch.inputs.T.tolist() == [[0, 7, 8, 9], [0, 0, 0, 1], [0, 0, 5, 9]]
    assert batch.start.tolist() == [1, 3, 2]


def test_nothing_looks_at_padding():
    symbols, vectors = PADDED.copy(), PADDED[:, :, None] * 1.0
    inside = np.arange(4) < LENGTHS[:, None]
    symbols[~inside] = -100
    vectors[~inside] = np.nan
    steps = np.where(inside, PADDED % 3, 10**6)
    rolls = np.where(inside, PADDED % 2, np.nan)[:, :, None]
    validation = np.arange(4)[None], [[0, 1, 1, 2]]
    task = from_arrays(symbols, steps, lengths=LENGTHS, validation=validation)
    assert (task.input_size, task.output_size) == (9, 3)
    batch = task.sample(jax.random.key(0), 50)
    found = {tuple(x) for x in np.asarray(batch.labels).T.tolist()}
    assert found == {(-1, -1, 1, 2), (1, 2, 0, 1), (-1, -1, -1, 2)}
    assert whole(task.validation).start is None
    held = np.ones((1, 4, 1)), np.ones((1, 4, 1))
    task = from_arrays(vectors, rolls, lengths=LENGTHS, validation=held)
    batch = task.sample(jax.random.key(0), 50)
    assert np.isfinite(batch.inputs).all()
    found = {tuple(x) for x in np.asarray(batch.labels[:, :, 0]).T.tolist()}
    assert found == {(-1, -1, 1, 0), (1, 0, 1, 0), (-1, -1, -1, 1)}


def test_a_padded_sequence_gives_what_it_gives_alone():
    task = from_arrays(PADDED, [0, 1, 0], lengths=LENGTHS, validation=(PADDED + 1, [1, 0, 1], LENGTHS))  # fmt: skip
    params = lra_jax.init_params(jax.random.key(0), task.input_size, 5, 2)
    batch = whole(task.validation)
    together = lra_jax.forward(params, batch.inputs, start=batch.start).logits
    alone = lra_jax.forward(params, jnp.array([[8], [9]])).logits
    np.testing.assert_allclose(together[0], alone[0], rtol=1e-5, atol=1e-6)
    assert abs(together[1] - alone[0]).max() > 0.01


# Use.


def test_the_length_may_be_left_out_where_there_is_one():
    task = from_arrays(SYMBOLS, CLASSES, validation=OTHER)
    key = jax.random.key(0)
    assert (task.sample(key, 3).inputs == task.sample(key, 3, T).inputs).all()
    for wrong in (T - 1, T + 1):
        with pytest.raises(
            ValueError, match=f"^seq_len: expected an integer of at .* {T}"
        ):
            task.sample(key, 3, wrong)
    drawn_task = lra_jax.TASKS["temporal_order"]
    with pytest.raises(
        ValueError, match=r"^seq_len: expected an integer of at least 10, got None$"
    ):
        lra_jax.Experiment(drawn_task, lambda hp: None)


def test_an_experiment_has_the_tasks_own_validation_set():
    task = from_arrays(SYMBOLS, CLASSES, validation=OTHER)
    assert lra_jax.Experiment(task, lambda hp: None).num_validation == 10
    drawn_task = lra_jax.TASKS["temporal_order"]
    assert lra_jax.Experiment(drawn_task, lambda hp: None, 10).num_validation == 10_000
    said = lra_jax.Experiment(drawn_task, lambda hp: None, 10, num_validation=7)
    assert said.num_validation == 7


def test_indices_outside_of_a_part_are_refused():
    samples = from_arrays(SYMBOLS, CLASSES, validation=OTHER).validation
    for wrong in ([10], np.arange(11), [-1]):
        with pytest.raises(ValueError, match=r"^indices: expected 0 to 9, got"):
            samples.take(wrong)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_config_finds_a_registered_task_and_its_parts(split, monkeypatch):
    task = from_arrays(SYMBOLS, CLASSES, validation=OTHER, test=0.25)
    monkeypatch.setitem(lra_jax.TASKS, "mine", task)
    raw = {
        "name": "own",
        "task": "mine",
        "split": split,
        "grid": {"rule": "bptt", "lr": 1},
    }
    found = config_lib.resolve(raw, "own")
    assert found.num_validation == {"validation": 10, "test": 8}[split]
    assert found.grid[0]["seq_len"] == (T,)
    evaluated = tasks.find("mine", split).validation
    expected = {"validation": task.validation, "test": task.test}[split]
    assert evaluated is expected
    for without, reason in (
        (from_arrays(SYMBOLS, CLASSES, validation=OTHER), "has no test part"),
        (lra_jax.TASKS["adding"], "has no test part: it is drawn"),
    ):
        monkeypatch.setitem(lra_jax.TASKS, "other", without)
        with pytest.raises(DatasetError) as error:
            tasks.find("other", "test")
        assert str(error.value) == reason


# What is refused.

READ = "; inputs are read as [N = 32, T = 8] because batch_first=True"
EXPECTED = (
    "labels: expected N = 32 integer classes, real values [N, Y], or labels of every "
    "step [N, T] = (32, 8), got "
)


def with_nan():
    found = VECTORS.copy()
    found[3, 5, 1] = np.nan
    return found


@pytest.mark.parametrize(
    ("inputs", "labels", "said"),
    [
        (
            np.zeros(32, np.float32),
            CLASSES,
            "inputs: expected [N, T] symbols or [N, T, X] numbers with batch_first=True, got float32 (32,)",
        ),
        (
            VECTORS[:, :, 0],
            CLASSES,
            "inputs: expected [N, T] symbols or [N, T, X] numbers with batch_first=True, got float64 (32, 8); symbols are integers, inputs.astype(int), and one number at each step is inputs[:, :, None]",
        ),
        (SYMBOLS, CLASSES[:8], f"{EXPECTED}int64 (8,){READ}; with batch_first=False they would be read with N = 8, T = 32"),
        (SYMBOLS, CLASSES[:9], f"{EXPECTED}int64 (9,){READ}"),
        (
            SYMBOLS,
            CLASSES * 1.0,
            f"{EXPECTED}float64 (32,); classes are labels.astype(int), and Y = 1 value is labels[:, None]{READ}",
        ),
        (SYMBOLS, CLASSES[:, None], f"{EXPECTED}int64 (32, 1); classes are labels[:, 0]{READ}"),
        (
            SYMBOLS,
            np.eye(Y, dtype=int)[CLASSES],
            f"{EXPECTED}int64 (32, 4); one-hot classes are labels.argmax(axis=1){READ}",
        ),
        (
            SYMBOLS,
            np.eye(T, dtype=int)[CLASSES],
            f"labels: got int64 (32, 8): for one-hot classes give labels.argmax(axis=1), for classes of every step output_loss=lra_jax.cross_entropy_every_step{READ}",
        ),
        (
            SYMBOLS,
            SYMBOLS * 1.0,
            f"labels: got float64 (32, 8): for classes of every step give labels.astype(int), for values [N, Y] of the last step output_loss=lra_jax.squared_error{READ}",
        ),
        (
            SYMBOLS,
            SYMBOLS.T,
            f"{EXPECTED}int64 (8, 32); labels of every step have the first two axes of inputs{READ}; with batch_first=False they would be read with N = 8, T = 32",
        ),
        (SYMBOLS, CLASSES == 1, "labels: expected integers or real numbers, got bool (32,); classes 0 and 1 are labels.astype(int)"),
        (SYMBOLS, np.array(list("abcd"))[CLASSES], "labels: expected numbers, got <U1 (32,); names are numbered by np.unique(names, return_inverse=True)[1]"),
        (SYMBOLS, CLASSES - 1, f"labels: expected classes from 0 to 2³¹ - 1, got -1 at sample {CLASSES.argmin()}"),
        (SYMBOLS, CLASSES + 2**40, "labels: expected classes from 0 to 2³¹ - 1, got 10995116277..."),
        (SYMBOLS, np.full((N, T), -1), "labels: expected some of at least 0, all are below"),
        (SYMBOLS, np.full((N, 2), np.inf), "labels: expected finite float32 numbers, got inf at sample 0"),
        (SYMBOLS, VECTORS, "labels: expected 0 or 1, or all Y below 0 at a step that asks nothing, got ..."),
        (SYMBOLS - 6, CLASSES, "inputs: expected symbols from 0 to 2³¹ - 1, got -..."),
        (with_nan(), CLASSES, "inputs: expected finite float32 numbers, got nan at sample 3, step 5"),
        (VECTORS * 1e300, CLASSES, "inputs: expected finite float32 numbers, got ..."),
        (SYMBOLS[:0], CLASSES[:0], "inputs: expected no empty axis, got int64 (0, 8)"),
        (SYMBOLS[:, :0], CLASSES, "inputs: expected no empty axis, got int64 (32, 0)"),
        (VECTORS[:, :, :0], CLASSES, "inputs: expected no empty axis, got float64 (32, 8, 0)"),
        ([[1, 2], [1]], [0, 1], "inputs: expected an array, or lists of equal lengths; pad shorter sequences at their ends and give lengths; NumPy says: ..."),
        (np.array([[1, 2], [1]], object), [0, 1], "inputs: expected numbers, got an array of objects (2,); pad shorter sequences at their ends and give lengths"),
        (None, CLASSES, "inputs: expected numbers, got an array of objects (); pad shorter sequences at their ends and give lengths"),
        (np.ma.masked_equal(SYMBOLS, 3), CLASSES, "inputs: expected no masked values; for sequences of different lengths give lengths"),
        (SYMBOLS * 1j, CLASSES, "inputs: expected numbers, got complex128 (32, 8)"),
    ],
)  # fmt: skip
def test_arrays_of_another_kind_get_a_reason(inputs, labels, said):
    """Word for word, but for `...` at the end: a value, or what NumPy says."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 -- compared below
        from_arrays(inputs, labels, validation=0.25)
    found = str(error.value)
    assert found == said or (said.endswith("...") and found.startswith(said[:-3]))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"lengths": np.full(N, T + 1)}, "lengths: expected integers [N] = (32,) from 1 to T = 8, got 9 at sample 0"),
        ({"lengths": np.zeros(N, int)}, "lengths: expected integers [N] = (32,) from 1 to T = 8, got 0 at sample 0"),
        ({"lengths": np.ones(N)}, "lengths: expected integers [N] = (32,) from 1 to T = 8, got float64 (32,)"),
        ({"lengths": np.ones(T, int)}, "lengths: expected integers [N] = (32,) from 1 to T = 8, got int64 (8,)"),
        ({"output_size": 3}, f"labels: expected classes from 0 to 2 with output_size=3, got 3 at sample {CLASSES.argmax()}"),
        ({"output_size": 2.5}, "output_size: expected a positive integer, got 2.5"),
        ({"input_size": 0}, "input_size: expected a positive integer, got 0"),
        ({"seed": -1}, "seed: expected an integer from 0 to 2³² - 1, got -1"),
        ({"seed": 0.5}, "seed: expected an integer from 0 to 2³² - 1, got 0.5"),
        ({"batch_first": 1}, "batch_first: expected True or False, got 1"),
        ({"output_loss": "mse"}, "output_loss: expected an OutputLoss or None, got 'mse'"),
        ({"output_loss": lra_jax.squared_error}, f"labels: expected real values [N, Y] of N = 32 for squared_error, got int64 (32,); classes are labels.astype(int), and Y = 1 value is labels[:, None]{READ}"),
        ({"test": 0.9}, "test: a fraction of 0.9 of N = 32 samples leaves no sample for training"),
        ({"validation": (OTHER[0], OTHER[1][:3])}, "validation labels: expected integer classes [N] of N = 10 for cross_entropy, got int64 (3,); validation inputs are read as [N = 10, T = 8] because batch_first=True"),
        ({"validation": (OTHER[0][:, :5], OTHER[1])}, "validation inputs: expected T = 8 as in inputs, got 5; sequences of different lengths need lengths"),
        ({"validation": (VECTORS, CLASSES)}, "validation inputs: expected [N, T] symbols as in inputs, got float32, batch-first (32, 8, 3)"),
        ({"test": (OTHER[0] + 6, OTHER[1]), "input_size": 6}, f"test inputs: expected symbols from 0 to 5 with input_size=6, got {OTHER[0][0, 0] + 6} at sample 0, step 0"),
        ({"validation": (OTHER[0], OTHER[1] - 9)}, f"validation labels: expected classes from 0 to 2³¹ - 1, got {OTHER[1][0] - 9} at sample 0"),
    ],
)  # fmt: skip
def test_arguments_of_another_kind_get_a_reason(keys, said):
    with pytest.raises(ValueError) as error:  # noqa: PT011 -- compared as a whole
        from_arrays(SYMBOLS, CLASSES, **({"validation": 0.25} | keys))
    assert str(error.value) == said


def test_real_sizes_have_to_be_those_of_the_arrays():
    with pytest.raises(
        ValueError, match=r"^input_size: the last axis of inputs is 3, got 4"
    ):
        from_arrays(VECTORS, CLASSES, validation=0.25, input_size=4)
    with pytest.raises(
        ValueError, match=r"^output_size: the last axis of labels is 3, got 4"
    ):
        from_arrays(VECTORS, VECTORS[:, 0], validation=0.25, output_size=4)
    with pytest.raises(
        ValueError, match=r"^validation inputs: expected \[N, T, X = 3\]"
    ):
        from_arrays(VECTORS, CLASSES, validation=(VECTORS[:, :, :2], CLASSES))
    with pytest.raises(
        ValueError, match=r"^test labels: expected \(3,\) for each label"
    ):
        from_arrays(VECTORS, VECTORS[:, 0], validation=0.25, test=(VECTORS[:9] + 1, VECTORS[:9, 0, :2]))  # fmt: skip


# Weights.

Weighted = lra_jax.Weighted
STEPS = RANDOM.integers(-2, Y, (N, T))  # below 0, nothing is asked
ROLLS = RANDOM.integers(0, 2, (N, T, Y)) * 1.0
VALUES = RANDOM.normal(size=(N, T, Y))
WEIGHTS = RANDOM.uniform(0.5, 2, (N, T))
OF_OUTPUTS = RANDOM.uniform(0.5, 2, (N, T, Y))
SQUARES = lra_jax.squared_error_every_step


def updated(task, rule=lra_jax.bptt):
    """The loss and the gradients of a batch, as one vector."""
    rule = rule(output_loss=task.output_loss)
    params = lra_jax.init_params(jax.random.key(0), task.input_size, 5, Y)
    batch = task.sample(jax.random.key(1), 20)
    state = rule.init(jax.random.key(2), params)
    grads, _, info = rule.grads(jax.random.key(3), params, state, batch)
    found = [info.loss, *jax.tree.leaves(grads)]
    return np.concatenate([np.ravel(x) for x in found])


@pytest.mark.parametrize(
    "rule", [lra_jax.bptt, functools.partial(lra_jax.lra_diff, gamma=1.0)]
)
@pytest.mark.parametrize("labels", [SYMBOLS % Y, ROLLS], ids=["classes", "rolls"])
@pytest.mark.parametrize(
    "lengths", [None, 1 + np.arange(N) % T], ids=["whole", "padded"]
)
def test_weights_of_1_are_labels_without_weights(labels, lengths, rule):
    keys = {"validation": 0.25, "lengths": lengths, "output_size": Y}
    plain = from_arrays(VECTORS, labels, **keys)
    shapes = [(N, T), labels.shape]
    for weights in (*map(np.ones, shapes), np.ones((N, T), bool), np.full((N, T), 7)):
        task = from_arrays(VECTORS, Weighted(labels, weights), **keys)
        assert task.output_loss == plain.output_loss
        assert task.chance == plain.chance
        np.testing.assert_allclose(
            updated(task, rule), updated(plain, rule), rtol=1e-5, atol=1e-7
        )
    # The control: other weights are another loss, with the same constant answer.
    other = from_arrays(VECTORS, Weighted(labels, WEIGHTS), **keys)
    assert abs(updated(other, rule) - updated(plain, rule)).max() > 1e-3
    assert other.chance == plain.chance


@pytest.mark.parametrize(
    "lengths", [None, 1 + np.arange(N) % T], ids=["whole", "padded"]
)
@pytest.mark.parametrize("rolls", [False, True])
def test_weights_of_0_are_labels_below_0(rolls, lengths):
    asked = STEPS >= 0
    if rolls:
        plain = np.where(asked[:, :, None], ROLLS, -1)
        labels = np.where(asked[:, :, None], ROLLS, np.nan)
    else:
        plain, labels = STEPS, np.where(asked, STEPS, 10**12)
    keys = {"validation": 0.25, "lengths": lengths}
    plain = from_arrays(VECTORS, plain, **keys)
    task = from_arrays(VECTORS, Weighted(labels, asked), **keys)
    assert (task.output_size, task.chance) == (plain.output_size, plain.chance)
    np.testing.assert_allclose(updated(task), updated(plain), rtol=1e-5, atol=1e-7)
    accuracies = {
        lra_jax.accuracy(
            lra_jax.init_params(jax.random.key(0), X, 5, Y),
            part,
            output_loss=plain.output_loss,
        )
        for part in (task.validation, plain.validation)
    }
    assert len(accuracies) == 1


def test_a_task_with_weights_has_their_loss():
    """E of each sample, computed by NumPy from the arrays as they were given."""
    lengths = 1 + np.arange(N) % T
    held = numbered(N, T), Weighted(VALUES, OF_OUTPUTS), lengths
    task = from_arrays(
        numbered(5, T) - 9, Weighted(np.zeros((5, T, Y)), np.ones((5, T))),
        validation=held, output_loss=SQUARES,
    )  # fmt: skip
    assert (task.output_loss, task.output_size) == (SQUARES, Y)
    batch = whole(task.validation)
    assert (batch.labels.weights == 0).all(axis=2).sum(axis=0).tolist() == (
        T - lengths
    ).tolist()
    logits = RANDOM.normal(size=(T, N, Y)).astype(np.float32)
    found = SQUARES.value(logits, batch.labels)
    for b, length in enumerate(lengths):
        at = slice(T - length, T)  # sequences end together
        w = OF_OUTPUTS[b, :length]
        terms = w * (logits[at, b] - VALUES[b, :length]) ** 2 / Y
        assert found[b] == pytest.approx(terms.sum() / w.mean(axis=1).sum(), rel=1e-5)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("of_outputs", [False, True])
def test_each_weight_stays_with_its_sample(batch_first, of_outputs):
    """Inputs, labels and weights of a sample say its number, those of a step its step."""
    count = 40
    lengths = 1 + np.arange(count) % T
    number = (np.arange(count)[:, None] + np.arange(T) / 100)[:, :, None]
    labels = np.tile(number, (1, 1, 2))
    weights = labels + 1 if of_outputs else number[:, :, 0] + 1
    given_arrays = number, labels, weights
    if not batch_first:
        given_arrays = [array.swapaxes(0, 1) for array in given_arrays]
    task = from_arrays(
        given_arrays[0], Weighted(*given_arrays[1:]), validation=0.2, test=0.1,
        lengths=lengths, batch_first=batch_first, output_loss=SQUARES,
    )  # fmt: skip
    seen = set()
    for part in (task.training, task.validation, task.test):
        inputs, labels, start = whole(part)
        assert labels.weights.shape == (T, part.size, 2)[: 2 + of_outputs]
        inside = np.arange(T)[:, None] >= start
        for array in (labels.labels[..., 0], labels.weights - 1):
            first = array[..., 0] if array.ndim == 3 else array
            np.testing.assert_allclose(
                first[inside], inputs[inside][:, 0], rtol=1e-5, atol=1e-6
            )
        assert not labels.weights[~inside].any()
        # The control: the weights of the next sample are others.
        turned = np.roll(labels.weights, 1, axis=1)
        assert abs(turned - labels.weights)[-1].min() > 0.5
        seen |= {*inputs[-1, :, 0].astype(int)}
    assert seen == set(range(count))


def test_arrays_of_others_with_weights_are_the_same_task():
    labels = SYMBOLS % Y
    keys = {"validation": 0.25, "test": (VECTORS[:4] + 1, Weighted(labels[:4], WEIGHTS[:4]))}  # fmt: skip
    expected = from_arrays(VECTORS, Weighted(labels, WEIGHTS), **keys)
    for kind in (np.ndarray.tolist, jnp.asarray, Foreign):
        found = from_arrays(VECTORS, Weighted(kind(labels), kind(WEIGHTS)), **keys)
        for name in ("training", "validation", "test"):
            a, b = (whole(getattr(task, name)) for task in (found, expected))
            jax.tree.map(np.testing.assert_array_equal, a, b)
    weights = whole(expected.test).labels.weights
    assert weights.dtype == np.float32
    np.testing.assert_array_equal(weights.T, WEIGHTS[:4].astype(np.float32))


def test_chance_asks_nothing_where_there_is_no_weight():
    inputs, held = numbered(4, 2), numbered(4, 2) + 10
    classes = np.array([[1, 1], [1, 0], [2, 1], [0, 2]])
    shown = np.array([[1, 3.5], [1, 0], [0, 1], [1, 0]])
    values = classes[:, :, None] / 10
    training = Weighted(np.tile([[[0.0], [0.2]]], (4, 1, 1)), np.tile([1, 3.0], (4, 1)))
    for labels, trained, loss, answer, chance in (
        (classes, Weighted(classes, np.ones((4, 2))), None, [0, 1, 0], 0.75),
        ((classes == 1)[:, :, None] * 1.0, Weighted(values * 0, np.ones((4, 2))), None, [1], 0.75),
        # The least error is that of 0.15: 0, whose square is too large, is asked for.
        (values * 4 - 0.3, training, SQUARES, [0.15], 0.75),
    ):  # fmt: skip
        task = from_arrays(
            inputs,
            trained,
            validation=(held, Weighted(labels, shown)),
            output_loss=loss,
        )
        assert task.chance == chance
        everywhere = Weighted(labels, np.ones((4, 2)))
        whole_task = from_arrays(
            inputs, trained, validation=(held, everywhere), output_loss=loss
        )
        assert whole_task.chance < chance  # the control
        # As the loss itself counts.
        for each in (task, whole_task):
            labels_of = whole(each.validation).labels
            logits = np.array(answer, np.float32) - 0.5 * (loss is None)
            logits = np.broadcast_to(logits, (2, 4, len(answer)))
            wrong = each.output_loss.is_error(logits, labels_of)
            assert each.chance == 1 - wrong.mean()


def test_the_constant_answer_has_the_least_loss():
    """Of real values, whatever the weights: the loss has no slope there."""
    lengths = 1 + np.arange(N) % T
    for weights in (WEIGHTS, OF_OUTPUTS):
        scale = np.exp(RANDOM.normal(size=(N, 1))).reshape(
            N, *(1,) * (weights.ndim - 1)
        )
        for each in (weights, weights * scale):
            records, loss = reading.read(
                VECTORS, Weighted(VALUES, each), lengths, batch_first=True,
                output_loss=SQUARES,
            )  # fmt: skip
            answer = arrays._constant(records)
            labels = Weighted(
                *(x.swapaxes(0, 1) for x in (records.labels, records.weights))
            )
            logits = np.broadcast_to(answer, (T, N, Y))
            slope = loss.grad(logits, labels).sum(axis=(0, 1))
            np.testing.assert_allclose(slope, 0, atol=1e-5)
            other = loss.grad(logits + 0.1, labels).sum(axis=(0, 1))
            assert (other > 0.1).all()


def test_a_sweep_trains_with_weights():
    """Weights of 0 are labels below 0 in the compiled program, too."""
    asked = STEPS >= 0
    evaluations = []
    for labels in (STEPS, Weighted(np.where(asked, STEPS, 99), asked)):
        experiment = lra_jax.Experiment(
            from_arrays(VECTORS, labels, validation=0.25),
            lambda hp: (
                lra_jax.bptt(output_loss=lra_jax.cross_entropy_every_step),
                optax.adam(hp["lr"]),
            ),
            hidden_size=4,
            eval_every=5,
        )
        found = lra_jax.run_sweep(
            experiment, {"lr": [0.03]}, [0], limits=lra_jax.Limits(max_steps=10)
        )
        evaluations.append(found.curves.loss)
    assert evaluations[0] == pytest.approx(evaluations[1], rel=1e-5)
    assert np.isfinite(evaluations).all()


def test_no_samples_have_no_accuracy():
    params = lra_jax.init_params(jax.random.key(0), 3, 4, 2)
    nothing = lra_jax.Samples(0, lambda indices: None)
    with pytest.raises(ValueError, match="samples: expected at least one, got none"):
        lra_jax.accuracy(params, nothing)


def test_swapped_labels_keep_their_weights():
    task = from_arrays(VECTORS, Weighted(SYMBOLS % Y, WEIGHTS), validation=0.25)
    labels = task.sample(jax.random.key(0), 9).labels
    swapped = lra_jax.diagnostics.swap_labels(task, labels)
    assert swapped.weights is labels.weights
    expected = np.where(labels.labels > 0, Y - labels.labels, 0)
    np.testing.assert_array_equal(swapped.labels, expected)


def test_a_loss_of_ones_own_gets_weights():
    def size(logits, labels):
        return jnp.sum(jnp.abs(logits[..., 0] - labels.labels) * labels.weights, axis=0)

    loss = lra_jax.OutputLoss(size, size, lambda *of: size(*of) > 1, every_step=True)
    labels = Weighted(SYMBOLS - 3.0, WEIGHTS * (SYMBOLS != 5))
    task = from_arrays(
        VECTORS, labels, validation=0.25, output_loss=loss, output_size=1
    )
    assert task.chance == 0
    found = whole(task.validation).labels
    assert found.labels.min() == -3
    assert found.labels.max() == 1  # 2, of no weight, is read as 0


READ_X = "; inputs are read as [N = 32, T = 8, X = 3] because batch_first=True"


def changed(weights, at, value):
    found = weights.copy()
    found[at] = value
    return found


@pytest.mark.parametrize(
    ("labels", "weights", "keys", "said"),
    [
        (STEPS, WEIGHTS.T, {}, f"labels.weights: expected real numbers [N, T] = (32, 8), got float64 (8, 32){READ_X}"),
        (ROLLS, WEIGHTS[:, :, None], {}, f"labels.weights: expected real numbers [N, T] = (32, 8) or [N, T, Y] = (32, 8, 4), got float64 (32, 8, 1){READ_X}"),
        (STEPS, OF_OUTPUTS, {}, f"labels.weights: expected real numbers [N, T] = (32, 8), got float64 (32, 8, 4){READ_X}"),
        (STEPS, WEIGHTS[:, 0], {}, f"labels.weights: expected real numbers [N, T] = (32, 8), got float64 (32,){READ_X}"),
        (CLASSES, WEIGHTS, {}, f"labels.weights: expected no weights, as the labels of cross_entropy are integer classes [N], got float64 (32, 8); labels of every step have weights{READ_X}"),
        (CLASSES, np.ones(N), {}, f"labels.weights: expected no weights, as the labels of cross_entropy are integer classes [N], got float64 (32,); labels of every step have weights{READ_X}"),
        (VALUES[:, 0], WEIGHTS, {}, f"labels.weights: expected no weights, as the labels of squared_error are real values [N, Y], got float64 (32, 8); labels of every step have weights{READ_X}"),
        (SYMBOLS, changed(WEIGHTS, (3, 5), -0.5), {}, "labels.weights: expected finite float32 numbers of at least 0, got -0.5 at sample 3, step 5"),
        (SYMBOLS, changed(WEIGHTS, (3, 5), np.nan), {}, "labels.weights: expected finite float32 numbers of at least 0, got nan at sample 3, step 5"),
        (ROLLS, changed(OF_OUTPUTS, (3, 5, 1), 1e300), {}, "labels.weights: expected finite float32 numbers of at least 0, got inf at sample 3, step 5"),
        (SYMBOLS, 0 * WEIGHTS, {}, "labels.weights: expected some above 0, all are 0"),
        (SYMBOLS, changed(WEIGHTS, 3, 1e38), {}, "labels.weights: expected float32 numbers whose sum over a sample is finite, got up to 1e+38 at sample 3"),
        (SYMBOLS, changed(0 * WEIGHTS, 3, 1), {}, "labels.weights: expected some above 0 in each part, all are 0 in the ..."),
        (SYMBOLS, WEIGHTS * 1j, {}, "labels.weights: expected numbers, got complex128 (32, 8)"),
        (SYMBOLS, None, {}, "labels.weights: expected numbers, got an array of objects (); pad shorter sequences at their ends and give lengths"),
        (SYMBOLS - 1, WEIGHTS, {}, "labels: expected classes from 0 to 2³¹ - 1 where the weight is not 0, got -1 at sample ..."),
        (VALUES, WEIGHTS, {}, "labels: expected 0 or 1 where the weight is not 0, got ..."),
        (-ROLLS, WEIGHTS, {}, "labels: expected 0 or 1 where the weight is not 0, got -1.0 at sample ..."),
        (changed(VALUES, (2, 1), np.nan), WEIGHTS, {"output_loss": SQUARES}, "labels: expected finite float32 numbers where the weight is not 0, got nan at sample 2, step 1"),
        (VALUES[:, :, 0], WEIGHTS, {}, f"labels: got float64 (32, 8): for classes of every step give labels.astype(int), for one value at each step labels[:, :, None] and output_loss=lra_jax.squared_error_every_step{READ_X}"),
        (VALUES[:, :, 0], WEIGHTS, {"output_loss": SQUARES}, f"labels: expected real values [N, T, Y] of N = 32 and T = 8 for squared_error_every_step, got float64 (32, 8); one value at each step is labels[:, :, None]{READ_X}"),
        (SYMBOLS, WEIGHTS, {"validation": (VECTORS + 1, SYMBOLS)}, "validation labels: expected Weighted(labels, weights) as in labels, got an array; weights of 1 ask at every step"),
        (SYMBOLS, WEIGHTS, {"test": (VECTORS + 1, Weighted(SYMBOLS, -WEIGHTS))}, "test labels.weights: expected finite float32 numbers of at least 0, got -..."),
        (SYMBOLS, WEIGHTS, {"validation": Weighted(SYMBOLS, WEIGHTS)}, "validation: expected a fraction between 0 and 1, (inputs, labels) or (inputs, labels, lengths), got a Weighted of 2"),
    ],
)  # fmt: skip
def test_weights_of_another_kind_get_a_reason(labels, weights, keys, said):
    """Word for word, but for `...` at the end: a value."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 -- compared below
        from_arrays(VECTORS, Weighted(labels, weights), **({"validation": 0.25} | keys))
    found = str(error.value)
    assert found == said or (said.endswith("...") and found.startswith(said[:-3]))


def test_labels_without_weights_where_these_are_needed_get_a_reason():
    turned = VECTORS.swapaxes(0, 1)
    with pytest.raises(ValueError) as error:  # noqa: PT011 -- compared as a whole
        from_arrays(
            turned, Weighted(STEPS.T, WEIGHTS), validation=0.25, batch_first=False
        )
    assert str(error.value) == (
        "labels.weights: expected real numbers [T, N] = (8, 32), got float64 (32, 8); "
        "inputs are read as [T = 8, N = 32, X = 3] because batch_first=False"
    )
    with pytest.raises(
        ValueError,
        match=r"^labels: expected Weighted\(labels, weights\) for squared_error_every",
    ):
        from_arrays(VECTORS, VALUES, validation=0.25, output_loss=SQUARES)
    with pytest.raises(
        ValueError, match=r"^validation labels: expected an array as in labels, got W"
    ):
        from_arrays(
            VECTORS, SYMBOLS, validation=(VECTORS + 1, Weighted(SYMBOLS, WEIGHTS))
        )
    # What stands at padded steps is nobody's weight.
    lengths = np.full(N, T - 1)
    weights = changed(WEIGHTS, np.s_[:, -1], -np.inf)
    task = from_arrays(
        VECTORS, Weighted(SYMBOLS, weights), validation=0.25, lengths=lengths
    )
    assert np.isfinite(evaluated(jax.random.key(0), task).loss)
