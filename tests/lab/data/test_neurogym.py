"""neurogym's environments as tasks, with the real package; and ours beside it."""

import functools
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import numpy_tasks
from scipy.stats import ks_2samp, norm

from lra_jax import TASKS, Weighted, bptt, evaluate, init_params
from lra_jax.lab.config import tasks
from lra_jax.lab.data import neurogym as adapter
from lra_jax.lab.data.sources import DatasetError
from lra_jax.tasks import decisions, memory, timing, trials

NUM = 1500
pytestmark = pytest.mark.filterwarnings("ignore:.*WARN:UserWarning")


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "neurogym", None)
    with pytest.raises(DatasetError, match=r"pip install 'lra_jax\[neurogym\]'"):
        adapter.find("GoNogo-v0", 2, 2, seed=-1)


def test_a_package_that_cannot_be_imported_is_a_message(monkeypatch, tmp_path):
    (tmp_path / "neurogym.py").write_text("import numpy\nnumpy.no_such_type\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "neurogym", raising=False)
    says = r"^neurogym cannot be imported \(AttributeError: .*no_such_type"
    with pytest.raises(DatasetError, match=says):
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


def drawn(name, seq_len):
    sample = functools.partial(TASKS[name].sample, batch_size=NUM, seq_len=seq_len)
    return jax.device_get(jax.jit(sample)(jax.random.key(0)))


def environment(neurogym, name, dt, periods, **options):
    """One of neurogym's, with periods `{name: Period}` of our durations."""
    rng = np.random.default_rng(0)

    def duration(period):
        low, high = period.shortest // dt, period.longest // dt
        return lambda: dt * int(rng.integers(low, high + 1))

    env = neurogym.make(name, dt=dt, **options).unwrapped
    env.timing.update({n: duration(period) for n, period in periods.items()})
    env.reset(seed=0)
    env.seed(0)
    return env


def assert_same_mean(a, b):
    """Within five standard errors, of samples along the first axis."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    error = np.sqrt(a.var(axis=0) / len(a) + b.var(axis=0) / len(b)) + 1e-9
    np.testing.assert_array_less(abs(a.mean(axis=0) - b.mean(axis=0)), 5 * error)


# What all our inputs have and no environment has, as σ² in ms.
BACKGROUND = 0.01**2 * 200


class Pair(NamedTuple):
    """One of our tasks, and what it is compared with.

    Attributes:
      made: the periods of ours.
      periods: neurogym's names of them, None where the duration of neurogym is kept.
      envs: neurogym's environments. Of two, each has one of the values of our cue.
      stimuli: the channels that show nothing but in stimuli.
      options: what neurogym lets us choose.
      first: the channel from which on the inputs are compared.
      noise: what the stimuli of ours have more of than neurogym's, as σ² in ms.
      dt: in ms.
    """

    made: trials.Trials
    periods: tuple[str | None, ...]
    envs: tuple[str, ...]
    stimuli: list[int]
    options: Mapping[str, object] = MappingProxyType({})
    first: int = 0
    noise: float = BACKGROUND
    dt: int = 100


# Where the definitions differ. In neurogym's two decisions the fixation signal ends with
# the fixation (`first`); a coherence of 0 is left out. GoNogo has no noise, and neither
# have the tasks of Yang et al. The latter are one environment for pro and one for anti,
# without a cue, and have a second ring of channels, of a modality that is not compared.
# DelayComparison has the noise of its stimulus in the fixation signal too, whose noise
# is not compared. A response of neurogym's is asked from its first step on.
PAIRS = {
    "perceptual_decision": Pair(
        decisions.PERCEPTUAL,
        ("fixation", "stimulus", "decision"),
        ("PerceptualDecisionMaking-v0",),
        [1, 2],
        {"cohs": [6.4, 12.8, 25.6, 51.2]},
        first=1,
    ),
    "context_integration": Pair(
        decisions.CONTEXT,
        (None, None, "delay", "decision"),
        ("ContextDecisionMaking-v0",),
        [1, 2, 3, 4],
        {"use_expl_context": True},
        first=1,
        dt=125,  # T is 22; 100 ms do not divide our longest trial
    ),
    "delayed_match": Pair(
        memory.MATCH,
        ("fixation", None, "delay", None, "decision"),
        ("DelayMatchSample-v0",),
        [1, 2],
    ),
    "delayed_comparison": Pair(
        memory.COMPARISON,
        ("fixation", None, "delay", None, "decision"),
        ("DelayComparison-v0",),
        [1],
    ),
    "go_nogo": Pair(
        memory.GO,
        ("fixation", None, "delay", None),
        ("GoNogo-v0",),
        [1, 2],
        noise=1 + BACKGROUND,
    ),
    "memory_pro_anti": Pair(
        memory.DIRECTION,
        ("fixation", "stimulus", "delay", None),
        ("yang19.dlygo-v0", "yang19.dlyanti-v0"),
        [*range(1, 9)],
        {"dim_ring": 8},
    ),
}


class Shown(NamedTuple):
    """What trials show and ask.

    Attributes:
      parts: `[N, 4]`, steps before the first stimulus, to the end of the last one, to
        the response, and of it.
      level: `[N, 2, X]`, mean inputs in the last stimulus and in the response.
      noise: `[N, I]`, variance of a stimulus's channel over the steps of the last one.
      answer: `[N]`.
      agrees: `[N]`, whether our twin reads that answer in the inputs.
      case: `[N, C]`, the cue, if there is one, and the answer.
    """

    parts: np.ndarray
    level: np.ndarray
    noise: np.ndarray
    answer: np.ndarray
    agrees: np.ndarray
    case: np.ndarray

    @classmethod
    def of(cls, name, several):
        """Of (inputs `[L, X]`, classes `[L]`, first step of the response)."""
        read = [cls._of_one(name, *trial) for trial in several]
        return cls(*map(np.array, zip(*read, strict=True)))

    @classmethod
    def _of_one(cls, name, x, classes, begin):
        stimuli = PAIRS[name].stimuli
        steps = numpy_tasks.stimuli(x, 0, stimuli)
        last = x[slice(*steps[-1])]
        response = x[begin:].mean(axis=0)
        answer_of, _ = numpy_tasks.ANSWERS[name]
        answer = int(classes[-1])
        asked = np.where(np.arange(len(x)) < begin, 0, answer)
        np.testing.assert_array_equal(classes, asked)
        return cls(
            np.diff([0, steps[0][0], steps[-1][1], begin, len(x)]),
            np.stack([last.mean(axis=0), response]),
            last[:, stimuli].var(axis=0, ddof=1),
            answer,
            answer_of(x, 0) == answer,
            [*response[1 + len(stimuli) :].round(), answer],
        )

    def level_of(self, case):
        return self.level[np.all(self.case == case, axis=1)]


def evidence(one, other):
    """How far each last stimulus is from all to those of its case, twice `[N]`."""
    channels = slice(1, 1 + one.noise.shape[1])
    level = np.concatenate([each.level[:, 0, channels] for each in (one, other)])
    case = np.concatenate([one.case, other.case])
    level -= level.mean(axis=0)
    values = np.empty(len(level))
    for which in np.unique(case, axis=0):
        within = np.all(case == which, axis=1)
        values[within] = level[within] @ level[within].mean(axis=0)
    return np.split(values, [len(one.case)])


def trials_of_neurogym(neurogym, name):
    pair = PAIRS[name]
    periods = zip(pair.periods, pair.made.periods, strict=True)
    replaced = {n: period for n, period in periods if n is not None}
    for i, env_name in enumerate(pair.envs):
        env = environment(neurogym, env_name, pair.dt, replaced, **pair.options)
        cue = np.eye(len(pair.envs))[i] if len(pair.envs) > 1 else np.empty(0)
        for _ in range(NUM // len(pair.envs)):
            env.new_trial()
            x = env.ob[:, : TASKS[name].input_size - len(cue)]
            x = np.hstack([x, np.tile(cue, (len(x), 1))])
            yield x, env.gt, env.start_ind["decision"]


def trials_of_ours(batch):
    for b in range(NUM):
        x = batch.inputs[batch.start[b] :, b]
        begin = np.flatnonzero(x[:, 0] > 0.5)[-1] + 1
        yield x, batch.labels.labels[batch.start[b] :, b], begin


@pytest.mark.parametrize("name", PAIRS)
def test_our_trials_have_the_statistics_of_neurogyms(neurogym, name):
    """Durations, the inputs by cue and answer, their noise, the answer, and chance."""
    pair, task = PAIRS[name], TASKS[name]
    assert pair.made.duration % pair.dt == 0
    batch = drawn(name, pair.made.duration // pair.dt)
    ours = Shown.of(name, trials_of_ours(batch))
    theirs = Shown.of(name, trials_of_neurogym(neurogym, name))
    assert_same_mean(theirs.parts, ours.parts)
    assert_same_mean(theirs.noise + pair.noise / pair.dt, ours.noise)
    assert_same_mean(theirs.agrees, ours.agrees)
    cases = np.unique(theirs.case, axis=0)
    np.testing.assert_array_equal(cases, np.unique(ours.case, axis=0))
    for case in cases:
        assert_same_mean(*(x.level_of(case)[..., pair.first :] for x in (theirs, ours)))
    if theirs.noise.max() > 1e-6:
        # Coherences change the distribution more than its mean.
        assert ks_2samp(*evidence(theirs, ours)).pvalue > 2 * norm.sf(5)
    error = np.sqrt(task.chance * (1 - task.chance) / NUM)
    for each in (theirs, ours):
        share = each.answer[:, None] == np.unique(ours.answer)
        assert np.all(abs(share.mean(axis=0) - task.chance) < 5 * error)
    wrong = task.output_loss.is_error(
        jax.nn.one_hot((batch.inputs[..., 0] < 0.5).astype(int), task.output_size),
        jax.tree.map(jnp.asarray, batch.labels),
    )
    assert_same_mean(theirs.answer == 1, ~np.asarray(wrong))


class Interval(NamedTuple):
    """What trials of ready-set-go show and ask, in steps, `[N]` each.

    Attributes:
      before: until ready.
      shown: from ready to set.
      ready: how long ready is shown.
      set_: how long set is.
      signal: how long the fixation signal is 1 after set.
      end: from set to the end.
      go: from set to the first step that asks for go.
      until: from set to after the last one.
    """

    before: np.ndarray
    shown: np.ndarray
    ready: np.ndarray
    set_: np.ndarray
    signal: np.ndarray
    end: np.ndarray
    go: np.ndarray
    until: np.ndarray

    @classmethod
    def of(cls, several):
        """Of (inputs `[L, 3]`, classes `[L]`)."""
        read = [cls._of_one(*trial) for trial in several]
        return cls(*np.array(read).T)

    @classmethod
    def _of_one(cls, x, classes):
        ((start, off),) = numpy_tasks.groups(x[:, 0] > 0.5)
        ((first, _),) = ready = numpy_tasks.groups(x[:, 1] > 0.5)
        ((second, _),) = set_ = numpy_tasks.groups(x[:, 2] > 0.5)
        ((go, until),) = numpy_tasks.groups(classes == 1)
        assert start == 0
        times = (off, len(x), go, until)
        return (
            first,
            second - first,
            np.ptp(ready),
            np.ptp(set_),
            *(time - second for time in times),
        )


def produces(env, shown, steps):
    """Whether neurogym rewards a go so many steps after set."""
    env.timing["measure"] = env.dt * int(shown)
    env.new_trial()
    env.t_ind = env.end_ind["measure"] + steps
    env.t = env.dt * env.t_ind
    *_, info = env.step(1)
    return info.get("performance", 0) == 1


@pytest.mark.parametrize("dt", [25, 40])
def test_ready_set_go_has_the_intervals_and_the_tolerance_of_neurogyms(neurogym, dt):
    task = TASKS["ready_set_go"]
    fixation, interval, _ = timing.TRIALS.periods
    batch = drawn("ready_set_go", timing.TRIALS.duration // dt)
    ours = Interval.of(
        (batch.inputs[start:, b], batch.labels.labels[start:, b])
        for b, start in enumerate(batch.start)
    )
    periods = {"fixation": fixation, "measure": interval}
    env = environment(neurogym, "ReadySetGo-v0", dt, periods)
    theirs = Interval.of((env.ob, env.gt) for _ in range(NUM) if env.new_trial())
    for a, b in zip(theirs[:4], ours[:4], strict=True):
        assert_same_mean(a, b)
    # Ours turns the signal off with set, neurogym after it. Its response and the one
    # step of its ground truth count from there, but its reward counts from set, as ours.
    # It has no noise.
    for each, late in ((ours, 0), (theirs, theirs.set_)):
        np.testing.assert_array_equal(each.signal, late)
        np.testing.assert_array_equal(each.end, late + 2 * each.shown)
        np.testing.assert_array_equal(each.go, late + each.shown)
    np.testing.assert_array_equal(ours.until, ours.end)
    np.testing.assert_array_equal(theirs.until, theirs.go + 1)

    longest = ours.end.max()
    steps = np.arange(longest)
    for shown, b in zip(*np.unique(ours.shown, return_index=True), strict=True):
        rewarded = np.array([produces(env, shown, k) for k in steps[: 2 * shown]])
        set_ = len(batch.inputs) - 2 * shown
        # The last step at which a go may begin is the first one that asks for it.
        unasked = batch.labels.weights[set_:, b] == 0
        last = np.flatnonzero(rewarded)[-1]
        np.testing.assert_array_equal(unasked, rewarded & (steps[: 2 * shown] < last))
        go = np.arange(len(batch.inputs))[:, None] >= set_ + steps
        labels = jax.tree.map(
            lambda x, b=b: jnp.repeat(x[:, [b]], longest, axis=1), batch.labels
        )
        wrong = task.output_loss.is_error(jax.nn.one_hot(go.astype(int), 2), labels)
        right = np.flatnonzero(~np.asarray(wrong))
        np.testing.assert_array_equal(right, np.flatnonzero(rewarded))
