"""neurogym's environments as tasks, with the real package; and ours beside it."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_jax import TASKS, Weighted, bptt, evaluate, init_params
from lra_jax.lab.config import tasks
from lra_jax.lab.data import neurogym as adapter
from lra_jax.lab.data.sources import DatasetError
from lra_jax.tasks import decisions, memory

NUM = 1500
pytestmark = pytest.mark.filterwarnings("ignore:.*WARN:UserWarning")


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "neurogym", None)
    with pytest.raises(DatasetError, match=r"pip install 'lra_jax\[neurogym\]'"):
        adapter.find("GoNogo-v0", 2, 2, seed=-1)


def test_a_name_in_a_config_is_checked_before_the_package_is_asked():
    assert tasks.problem_of("neurogym:GoNogo-v0") is None
    assert "neurogym:NAME" in tasks.problem_of("neurogym:no name")


@pytest.fixture
def neurogym():
    return pytest.importorskip("neurogym", reason="the extra `neurogym`")


def test_an_environment_is_a_task_that_can_be_trained(neurogym):
    task = adapter.find("DelayComparison-v0", 40, 20, seed=3)
    assert (task.input_size, task.output_size) == (2, 3)
    assert (task.training.size, task.validation.size) == (40, 20)
    batch = task.sample(jax.random.key(0), 8)
    assert isinstance(batch.labels, Weighted)
    assert batch.inputs.shape == (task.min_seq_len, 8, 2)
    params = init_params(jax.random.key(1), 2, 6, 3)
    rule = bptt(output_loss=task.output_loss)
    grads, _, info = rule.grads(
        jax.random.key(2), params, rule.init(None, params), batch
    )
    assert np.isfinite(info.loss)
    assert all(np.isfinite(g).all() for g in grads)
    every = task.validation.take(np.arange(20))
    assert evaluate(params, every, output_loss=task.output_loss).num_errors <= 20
    exact = 9 * jax.nn.one_hot(every.labels.labels, 3)
    assert not task.output_loss.is_error(exact, every.labels).any()
    again = adapter._draw("DelayComparison-v0", 60, 3)
    np.testing.assert_array_equal(
        every.inputs[every.start[4] :, 4], again[44][0]
    )  # the same seed, the same trials


def test_an_unknown_environment_is_named(neurogym):
    with pytest.raises(DatasetError, match="neurogym makes no 'Nothing-v0'"):
        adapter.find("Nothing-v0", 2, 2)


def drawn(name, duration):
    """Ours with a step of 100 ms, as neurogym's."""
    sample = functools.partial(TASKS[name].sample, batch_size=NUM)
    return jax.device_get(
        jax.jit(functools.partial(sample, seq_len=duration // 100))(jax.random.key(0))
    )


# Ours and D; neurogym's, with our durations and what it lets us choose.
PAIRS = {
    "perceptual_decision": (
        decisions.PERCEPTUAL,
        "PerceptualDecisionMaking-v0",
        {"cohs": [6.4, 12.8, 25.6, 51.2]},
        "stimulus",
        ("fixation", "stimulus", "decision"),
    ),
    "delayed_match": (
        memory.MATCH,
        "DelayMatchSample-v0",
        {},
        "test",
        ("fixation", "sample", "delay", "test", "decision"),
    ),
    "delayed_comparison": (
        memory.COMPARISON,
        "DelayComparison-v0",
        {},
        "stimulus2",
        ("fixation", "stimulus1", "delay", "stimulus2", "decision"),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_our_trials_have_the_statistics_of_neurogyms(neurogym, name):
    """Durations, the stimulus before the response, by answer, and chance."""
    made, env_name, options, stimulus, names = PAIRS[name]
    rng = np.random.default_rng(0)

    def duration(period):
        low, high = period.shortest // 100, period.longest // 100
        return lambda: 100 * int(rng.integers(low, high + 1))

    timing = {n: duration(p) for n, p in zip(names, made.periods, strict=True)}
    env = neurogym.make(env_name, dt=100, timing=timing, **options).unwrapped
    env.reset(seed=0)
    env.seed(0)
    theirs, lengths, answers = [], [], []
    for _ in range(NUM):
        env.new_trial()
        channels = list(range(1, env.ob.shape[1]))
        theirs.append(env.view_ob(stimulus)[-1, channels])
        lengths.append(len(env.gt))
        answers.append(env.gt[-1])
    theirs, answers = np.array(theirs), np.array(answers)
    batch = drawn(name, made.duration)
    seq_len = len(batch.inputs)
    ours_answers = batch.labels.labels[-1]
    begin = (batch.labels.labels > 0).argmax(axis=0)
    ours = batch.inputs[begin - 1, np.arange(NUM), 1:]
    spread = np.sqrt(np.var(lengths) / NUM * 2) + 1e-9
    assert abs(np.mean(seq_len - batch.start) - np.mean(lengths)) < 5 * spread
    for answer in (1, 2):
        a, b = theirs[answers == answer], ours[ours_answers == answer]
        error = np.sqrt(a.var(axis=0) / len(a) + b.var(axis=0) / len(b))
        assert np.all(abs(a.mean(axis=0) - b.mean(axis=0)) < 5 * error)
        np.testing.assert_allclose(a.std(axis=0), b.std(axis=0), rtol=0.2)
    assert abs(np.mean(answers == 1) - 0.5) < 5 * 0.5 / np.sqrt(NUM)
    right = TASKS[name].output_loss.is_error(
        jax.nn.one_hot((batch.labels.labels > 0).astype(int), 3),
        jax.tree.map(jnp.asarray, batch.labels),
    )
    assert abs(1 - right.mean() - np.mean(answers == 1)) < 5 * 0.7 / np.sqrt(NUM)
