"""Cognitive tasks and copying against an independent twin, and their statistics."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import numpy_tasks
from scipy.stats import norm

import lra_jax
from lra_jax import TASKS
from lra_jax.tasks import decisions, memory, timing, trials

NUM_SAMPLES = 600
TRIALS = {
    "perceptual_decision": decisions.PERCEPTUAL,
    "context_integration": decisions.CONTEXT,
    "delayed_match": memory.MATCH,
    "delayed_nonmatch": memory.MATCH,
    "delayed_comparison": memory.COMPARISON,
    "go_nogo": memory.GO,
    "memory_pro_anti": memory.DIRECTION,
}
# Where the evidence alone does not always give the answer.
NOISY = ("perceptual_decision", "context_integration", "delayed_comparison")
fixation_tasks = pytest.mark.parametrize("name", TRIALS)


@functools.cache
def draw(name, seq_len, size=NUM_SAMPLES):
    sample = functools.partial(TASKS[name].sample, batch_size=size, seq_len=seq_len)
    return jax.device_get(jax.jit(sample)(jax.random.key(3)))


def draw_coarse(name):
    """With a step of 100 ms, about."""
    return draw(name, TRIALS[name].duration // 100)


# The twin.


@fixation_tasks
def test_a_trial_asks_what_its_inputs_say(name):
    batch = draw_coarse(name)
    answer_of, duration = numpy_tasks.ANSWERS[name]
    assert duration == TRIALS[name].duration
    agree = 0
    for b in range(NUM_SAMPLES):
        x, start = batch.inputs[:, b], batch.start[b]
        answer = batch.labels.labels[-1, b]
        agree += answer_of(x, start) == answer
        labels, weights = numpy_tasks.asked(x, start, answer, duration)
        np.testing.assert_array_equal(batch.labels.labels[:, b], labels)
        np.testing.assert_allclose(batch.labels.weights[:, b], weights, rtol=1e-6)
    if name not in NOISY:
        assert agree == NUM_SAMPLES
        return
    expected, variance = expected_agreement(name, draw_coarse(name))
    assert abs(agree - expected) < 4 * np.sqrt(variance) + 1e-9
    assert agree > 0.85 * NUM_SAMPLES


def expected_agreement(name, batch):
    """How many answers an ideal observer of the inputs has right, and the variance.

    Of n steps of dt ms the means differ by c, with the deviation sqrt(2 / (n dt)). The
    background adds a little to the noise of steps.
    """
    dt = TRIALS[name].step_size(len(batch.inputs))
    sides = {
        "perceptual_decision": decisions.PERCEPTUAL_COHERENCES,
        "context_integration": decisions.CONTEXT_COHERENCES,
        "delayed_comparison": (8 / 48,),
    }[name]
    channels = {"perceptual_decision": [1, 2], "context_integration": [1, 2, 3, 4]}
    chances = []
    for b in range(NUM_SAMPLES):
        first, last = numpy_tasks.stimuli(
            batch.inputs[:, b], batch.start[b], channels.get(name, [1])
        )[0]
        scale = np.sqrt((last - first) * dt / 2 / (1 + 2 * 0.01**2 * 100))
        chances.append(np.mean([norm.cdf(c * scale) for c in sides]))
    chances = np.array(chances)
    return chances.sum(), np.sum(chances * (1 - chances))


@pytest.mark.parametrize("seq_len", [30, 40, 120])
def test_ready_set_go_asks_for_the_interval_that_was_shown(seq_len):
    batch = draw("ready_set_go", seq_len)
    for b in range(NUM_SAMPLES):
        labels, weights = numpy_tasks.ready_set_go(batch.inputs[:, b], batch.start[b])
        np.testing.assert_array_equal(batch.labels.labels[:, b], labels)
        np.testing.assert_allclose(batch.labels.weights[:, b], weights, rtol=1e-6)


@pytest.mark.parametrize("seq_len", [20, 60])
@pytest.mark.parametrize("name", ["flip_flop", "sine"])
def test_dynamics_follow_from_the_inputs(name, seq_len):
    batch = draw(name, seq_len)
    for b in range(NUM_SAMPLES):
        labels, weights = getattr(numpy_tasks, name)(batch.inputs[:, b], 0)
        found = batch.labels.labels[:, b]
        np.testing.assert_allclose(found, labels, atol=1e-5)
        np.testing.assert_array_equal(batch.labels.weights[:, b], weights)


@pytest.mark.parametrize("seq_len", [21, 120, 1020])
def test_copying_asks_for_the_symbols_after_the_delay(seq_len):
    batch = draw("copying", seq_len, 100)
    assert batch.start is None
    assert np.all(batch.inputs[:10] < 8)
    np.testing.assert_array_equal(np.unique(batch.inputs[10 : seq_len - 11]), 8)
    np.testing.assert_array_equal(batch.inputs[seq_len - 11], 9)
    np.testing.assert_array_equal(batch.inputs[seq_len - 10 :], 8)
    for b in range(100):
        np.testing.assert_array_equal(
            batch.labels[:, b], numpy_tasks.copying(batch.inputs[:, b])
        )


@pytest.mark.parametrize("delay", [1, 100, 1000])
def test_who_knows_when_but_not_what_has_the_baseline_of_copying(delay):
    seq_len = delay + 20
    batch = draw("copying", seq_len, 100)
    # Sure of class 0 until the last ten steps, then the eight symbols alike.
    logits = np.full((seq_len, 9), -40.0, np.float32)
    logits[:-10, 0] = 40
    logits[-10:, 1:] = 0
    logits = jnp.broadcast_to(logits[:, None], (seq_len, 100, 9))
    task = TASKS["copying"]
    values = task.output_loss.value(logits, jnp.asarray(batch.labels))
    np.testing.assert_allclose(values, 10 * np.log(8) / (delay + 20), rtol=1e-5)
    assert task.output_loss.is_error(logits, jnp.asarray(batch.labels)).all()
    exact = 40 * jax.nn.one_hot(batch.labels, 9)
    assert not task.output_loss.is_error(exact, jnp.asarray(batch.labels)).any()


# Statistics.


@fixation_tasks
@pytest.mark.parametrize("seq_len", [10, 33, 100])
def test_periods_are_uniform_between_their_bounds(name, seq_len):
    made = TRIALS[name]
    when = made.draw(jax.random.key(0), 4000, seq_len)
    steps = np.diff(np.asarray(when.edges), axis=0)
    assert np.all(when.edges[0] >= 0)
    np.testing.assert_array_equal(when.edges[-1], seq_len)
    for found, period in zip(steps, made.periods, strict=True):
        least = max(1, seq_len * period.shortest // made.duration)
        most = max(1, seq_len * period.longest // made.duration)
        count = np.bincount(found - least, minlength=most - least + 1)
        assert len(count) == most - least + 1
        expected = 4000 / len(count)
        chi_square = np.sum((count - expected) ** 2) / expected
        freedom = len(count) - 1
        assert chi_square <= freedom + 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("name", [*TRIALS, "ready_set_go"])
def test_trials_fit_into_every_length(name):
    made = TRIALS.get(name, timing.TRIALS)
    for seq_len in range(TASKS[name].min_seq_len, 401):
        ranges = made.ranges(seq_len)
        assert sum(most for _, most in ranges) <= seq_len
        response = ranges[-1][0]
        if name == "ready_set_go":
            for n in range(ranges[1][0], ranges[1][1] + 1):
                assert n - 1 - n // 5 - made.num_steps(seq_len, 25) > 0
                assert ranges[0][1] + 3 * n <= seq_len
        else:
            assert made.num_steps(seq_len, trials.GRACE) < response


@fixation_tasks
def test_answers_are_equally_likely(name):
    labels = draw(name, 30, 4000).labels.labels
    answers = np.bincount(labels[-1], minlength=TASKS[name].output_size)
    wanted = answers if TASKS[name].output_size == 2 else answers[1:]
    expected = wanted.mean()
    assert answers.sum() == wanted.sum()
    chi_square = np.sum((wanted - expected) ** 2) / expected
    freedom = len(wanted) - 1
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("seq_len", [25, 100])
def test_evidence_has_the_means_and_the_noise_of_its_definition(seq_len):
    batch = draw("perceptual_decision", seq_len, 4000)
    # The step before the response is always the stimulus's.
    dt = 2500 / seq_len
    begin = (batch.inputs[..., 0] < 0.5) & (np.arange(seq_len)[:, None] >= batch.start)
    last = begin.argmax(axis=0) - 1
    evidence = batch.inputs[last, np.arange(4000), 1:]
    right = batch.labels.labels[-1] - 1
    chosen = evidence[np.arange(4000), right]
    other = evidence[np.arange(4000), 1 - right]
    mean = np.mean(decisions.PERCEPTUAL_COHERENCES) / 2
    spread = np.var(np.array(decisions.PERCEPTUAL_COHERENCES) / 2)
    variance = (1 + 2 * 0.01**2 * 100) / dt + spread
    for values, expected in ((chosen, 0.5 + mean), (other, 0.5 - mean)):
        assert abs(values.mean() - expected) < 5 * np.sqrt(variance / 4000)
        assert abs(values.var() / variance - 1) < 5 * np.sqrt(2 / 4000)


@pytest.mark.parametrize(("seq_len", "share"), [(40, 0.44), (160, 0.6)])
def test_a_constant_interval_is_often_within_the_tolerance(seq_len, share):
    """As often as the docstring of ready-set-go says."""
    batch = draw("ready_set_go", seq_len, 4000)
    labels = jax.tree.map(jnp.asarray, batch.labels)
    set_ = (batch.inputs[..., 2] > 0.5).argmax(axis=0)
    best = 0.0
    for steps in range(seq_len // 10, seq_len // 3):
        go = np.arange(seq_len)[:, None] >= set_ + steps
        errors = TASKS["ready_set_go"].output_loss.is_error(
            jax.nn.one_hot(go.astype(int), 2), labels
        )
        best = max(best, 1 - np.mean(errors))
    assert abs(best - share) < 0.03


def test_pulses_come_five_times_in_a_sequence_of_any_length():
    for seq_len in (20, 200):
        pulses = np.abs(draw("flip_flop", seq_len).inputs) > 0.5
        mean = pulses.sum(axis=0).mean()
        assert abs(mean - 5) < 5 * np.sqrt(5 / (3 * NUM_SAMPLES))


# What is right.


def answer(batch, change=None):
    """Sure and right logits `[T, B, Y]` of one trial, after a change of its classes."""
    classes = np.array(batch.labels.labels)
    if change is not None:
        change(classes)
    return 9 * jax.nn.one_hot(classes, 3)


def test_a_trial_is_right_by_its_fixation_and_its_last_step():
    batch = draw_coarse("perceptual_decision")
    batch = jax.tree.map(lambda x: x[..., :1] if x.ndim < 3 else x[:, :1], batch)
    start, loss = int(batch.start[0]), trials.fixate_then_answer
    begin = int((batch.labels.labels[:, 0] > 0).argmax())
    labels = jax.tree.map(jnp.asarray, batch.labels)

    def is_error(step=None, value=0):
        def change(classes):
            if step is not None:
                classes[step] = value

        return bool(loss.is_error(answer(batch, change), labels)[0])

    assert not is_error()
    right = int(batch.labels.labels[-1, 0])
    assert is_error(-1, 3 - right)
    assert is_error(-1, 0)
    assert is_error(begin - 1, right)  # fixation is broken
    assert is_error(start, right)
    assert not is_error(begin, 0)  # the first 100 ms
    assert not is_error(begin + 1, 0)  # changes its mind until the end
    assert not is_error(max(0, start - 1), right) or start == 0
    sick = answer(batch).at[-1].set(np.nan)
    assert loss.is_error(sick, labels)[0]
    weights = labels.weights.at[begin + 2].set(np.nan)
    assert loss.is_error(answer(batch), labels._replace(weights=weights))[0]


def test_signs_and_mean_squares_say_what_dynamics_are_right():
    bits = jax.tree.map(jnp.asarray, draw("flip_flop", 20).labels)
    loss = TASKS["flip_flop"].output_loss
    assert not loss.is_error(0.1 * bits.labels, bits).any()
    flipped = bits.labels.at[-1, :, 1].multiply(-1)
    wrong = loss.is_error(flipped, bits)
    np.testing.assert_array_equal(wrong, bits.weights[-1, :, 1] > 0)
    assert loss.is_error(jnp.full_like(bits.labels, np.nan), bits).all()
    sines = jax.tree.map(jnp.asarray, draw("sine", 20).labels)
    loss = TASKS["sine"].output_loss
    for off, is_wrong in ((0.19, False), (0.21, True), (np.nan, True)):
        errors = loss.is_error(sines.labels + off, sines)
        np.testing.assert_array_equal(errors, is_wrong)
    assert loss.every_step
    assert isinstance(sines, lra_jax.Weighted)
