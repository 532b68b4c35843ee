"""A loop of one's own: epochs of batches, predictions, and how many are right."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lra_jax

KEY = jax.random.key(0)


def numbered(count, seq_len=2):
    """A task whose real inputs have the number of the sample in the first channel."""
    inputs = np.tile(np.arange(count, dtype=np.float32)[:, None, None], (1, seq_len, 1))
    held_out = inputs[:2] + 1000, [0, 1]
    return lra_jax.Task.from_arrays(inputs, np.arange(count) % 2, validation=held_out)


def numbers(batches):
    """The numbers of the samples of some batches, `[batches, B]`."""
    return np.array([batch.inputs[0, :, 0] for batch in batches], int)


# Epochs.


def test_an_epoch_has_every_sample_exactly_once():
    task = numbered(12)
    epochs = numbers(lra_jax.batches(task, 4, key=KEY, epochs=3)).reshape(3, 12)
    for epoch in epochs:
        assert sorted(epoch) == [*range(12)]
    assert len({*map(tuple, epochs)}) == 3  # in another order each time
    batch = next(lra_jax.batches(task, 4, key=KEY))
    assert (batch.inputs.shape, batch.labels.shape) == ((2, 4, 1), (4,))
    assert (batch.labels == batch.inputs[0, :, 0] % 2).all()
    # The control: what a task draws comes with replacement.
    drawn = numbers([task.sample(KEY, 12)])[0]
    assert len({*drawn}) < 12


def test_what_is_left_of_an_epoch_is_dropped_and_differs():
    epochs = numbers(lra_jax.batches(numbered(11), 4, key=KEY, epochs=6)).reshape(6, 8)
    left = {tuple({*range(11)} - {*epoch}) for epoch in epochs}
    assert {len(x) for x in left} == {3}  # no sample twice
    assert len(left) > 1


def test_the_key_determines_the_batches_and_more_epochs_leave_the_first_ones():
    task = numbered(12)
    first = numbers(lra_jax.batches(task, 4, key=KEY))
    endless = itertools.islice(lra_jax.batches(task, 4, key=KEY, epochs=None), 7)
    np.testing.assert_array_equal(numbers(endless)[:3], first)
    other = numbers(lra_jax.batches(task, 4, key=jax.random.key(1)))
    assert (other != first).any()


def test_batches_of_samples_are_of_these():
    found = numbers(lra_jax.batches(numbered(5).validation, 2, key=KEY))
    assert sorted(found[0]) == [1000, 1001]


@pytest.mark.parametrize(
    ("samples", "keys", "said"),
    [
        (lra_jax.TASKS["adding"], {}, "samples: expected a task that is made of arrays; this one makes its samples, so draw them: task.sample(key, batch_size, seq_len)"),
        (np.zeros((4, 2, 1)), {}, "samples: expected a Task or Samples, got ndarray; arrays become a task with lra_jax.Task.from_arrays"),
        (numbered(5), {"batch_size": 6}, "batch_size: expected at most N = 5 samples, got 6"),
        (numbered(5), {"batch_size": 0}, "batch_size: expected an integer of at least 1, got 0"),
        (numbered(5), {"epochs": 0}, "epochs: expected an integer of at least 1, got 0"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_batches_are_refused_at_once(samples, keys, said):
    with pytest.raises(ValueError) as error:  # noqa: PT011 -- compared as a whole
        lra_jax.batches(samples, **({"batch_size": 2, "key": KEY} | keys))
    assert str(error.value) == said


# Predictions.

PARAMS = lra_jax.init_params(KEY, 6, 8, 4)
REAL = lra_jax.init_params(KEY, 3, 8, 2)
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("count", [1, 199, 200, 401])
def test_predictions_are_those_of_a_forward_pass(count):
    symbols = RANDOM.integers(0, 6, (count, 5))
    logits = lra_jax.forward(PARAMS, jnp.asarray(symbols.T)).logits
    found = lra_jax.predict(PARAMS, symbols)
    assert (found.shape, found.dtype) == ((count,), np.int32)
    np.testing.assert_array_equal(found, logits.argmax(axis=1))
    numbers = lra_jax.predict(PARAMS, symbols, logits=True)
    np.testing.assert_allclose(numbers, logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch_first", [True, False])
def test_predictions_of_every_step_have_the_axes_of_the_inputs(batch_first):
    vectors = RANDOM.normal(size=(7, 5, 3)).astype(np.float32)
    given = vectors if batch_first else vectors.swapaxes(0, 1)
    keys = {"batch_first": batch_first, "every_step": True}
    trace = lra_jax.forward(REAL, jnp.asarray(vectors.swapaxes(0, 1)), every_step=True)
    expected = trace.logits.swapaxes(0, 1) if batch_first else trace.logits
    np.testing.assert_allclose(
        lra_jax.predict(REAL, given, logits=True, **keys),
        expected,
        rtol=1e-5,
        atol=1e-6,
    )
    found = lra_jax.predict(REAL, given, **keys)
    np.testing.assert_array_equal(found, expected.argmax(axis=2))


def test_a_padded_sequence_gets_what_it_gets_alone():
    symbols = RANDOM.integers(0, 6, (6, 5))
    lengths = np.array([5, 1, 3, 4, 2, 5])
    padded = np.where(np.arange(5) < lengths[:, None], symbols, -7)
    last = lra_jax.predict(PARAMS, padded, lengths=lengths, logits=True)
    steps = lra_jax.predict(
        PARAMS, padded, lengths=lengths, logits=True, every_step=True
    )
    classes = lra_jax.predict(PARAMS, padded, lengths=lengths, every_step=True)
    for row, length in enumerate(lengths):
        alone = lra_jax.predict(
            PARAMS, symbols[row : row + 1, :length], logits=True, every_step=True
        )[0]
        np.testing.assert_allclose(last[row], alone[-1], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(steps[row, :length], alone, rtol=1e-5, atol=1e-6)
        assert np.isnan(steps[row, length:]).all()
        assert classes[row].tolist() == [*alone.argmax(axis=1)] + [-1] * (5 - length)
    whole = lra_jax.predict(PARAMS, symbols, logits=True)
    assert abs(whole[1] - last[1]).max() > 0.01  # the control: padding counts


def test_a_network_that_is_not_a_number_answers_no_class():
    broken = PARAMS._replace(w_hy=jnp.full_like(PARAMS.w_hy, jnp.nan))
    assert lra_jax.predict(broken, [[0, 1], [2, 3]]).tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("params", "inputs", "keys", "said"),
    [
        (PARAMS, [[0, 6]], {}, "inputs: expected symbols from 0 to 5 as in params, got 6 at sample 0, step 1"),
        (REAL, np.zeros((2, 4, 5)), {}, "inputs: expected X = 3 as in params, got 5, batch-first (2, 4, 5)"),
        (REAL, np.zeros((2, 4)), {}, "inputs: expected [N, T] symbols or [N, T, X] numbers with batch_first=True, got float64 (2, 4); symbols are integers, inputs.astype(int), and one number at each step is inputs[:, :, None]"),
        (PARAMS, [[0, 1]], {"lengths": [3]}, "lengths: expected integers [N] = (1,) from 1 to T = 2, got 3 at sample 0"),
        (PARAMS, [[0, -1]], {}, "inputs: expected symbols from 0 to 2³¹ - 1, got -1 at sample 0, step 1"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_refused(params, inputs, keys, said):
    with pytest.raises(ValueError) as error:  # noqa: PT011 -- compared as a whole
        lra_jax.predict(params, inputs, **keys)
    assert str(error.value) == said


# Accuracy.


@pytest.mark.parametrize("count", [1, 200, 333])
def test_accuracy_is_the_share_without_an_error(count):
    inputs = RANDOM.integers(0, 6, (count + 4, 5))
    labels = RANDOM.integers(0, 4, count + 4)
    held_out = inputs[4:], labels[4:]
    task = lra_jax.Task.from_arrays(
        inputs[:4] % 6, labels[:4], validation=held_out, input_size=6, output_size=4
    )
    batch = task.validation.take(np.arange(count))
    errors = int(lra_jax.evaluate(PARAMS, batch).num_errors)
    found = lra_jax.accuracy(PARAMS, task.validation)
    assert found == pytest.approx(1 - errors / count, abs=1e-12)
    classes = lra_jax.predict(PARAMS, held_out[0])
    assert found == pytest.approx((classes == held_out[1]).mean(), abs=1e-12)


def test_accuracy_is_by_the_loss_that_is_given():
    task = lra_jax.TASKS["adding"]
    batch = task.sample(KEY, 30, 10)
    samples = lra_jax.Samples(
        30, lambda i: lra_jax.Batch(batch.inputs[:, i], batch.labels[i])
    )
    params = lra_jax.init_params(KEY, 2, 8, 1)
    params = params._replace(w_hy=0 * params.w_hy, b_y=jnp.ones(1))  # answers 1
    errors = lra_jax.evaluate(params, batch, output_loss=task.output_loss).num_errors
    assert 0 < errors < 30
    found = lra_jax.accuracy(params, samples, output_loss=task.output_loss)
    assert found == pytest.approx(1 - int(errors) / 30)


def test_accuracy_wants_samples():
    with pytest.raises(ValueError, match=r"such as task\.validation, got Task"):
        lra_jax.accuracy(PARAMS, lra_jax.TASKS["adding"])


def test_another_networks_answers_are_those_of_its_forward_pass():
    network = lra_jax.networks.lstm()
    params = lra_jax.init_params(jax.random.key(0), 3, 8, 2, network=network)
    inputs = jax.random.normal(jax.random.key(1), (30, 7, 3))
    trace = lra_jax.forward(params, inputs.swapaxes(0, 1), network=network)
    found = lra_jax.predict(params, inputs, logits=True, network=network)
    np.testing.assert_allclose(found, trace.logits, rtol=1e-5, atol=1e-6)
    labels = np.array(trace.logits.argmax(axis=1))
    labels[:6] = 1 - labels[:6]
    samples = lra_jax.Samples(
        30, lambda i: lra_jax.Batch(inputs[i].swapaxes(0, 1), jnp.asarray(labels)[i])
    )
    share = lra_jax.accuracy(params, samples, network=network)
    assert share == pytest.approx(24 / 30)
    with pytest.raises(ValueError, match="expected X = 3 as in params, got 2"):
        lra_jax.predict(params, inputs[..., :2], network=network)
    with pytest.raises(ValueError, match="params: expected Params"):
        lra_jax.predict(params, inputs)
