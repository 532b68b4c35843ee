"""examples/context_decision.py: its trials, its curves, its figure and its flags."""

import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lra_jax

pytest.importorskip("matplotlib")
from matplotlib import image

pytestmark = pytest.mark.end_to_end

PATH = Path(lra_jax.__file__).parent.parent / "examples/context_decision.py"


@pytest.fixture
def example(monkeypatch):
    """The example as a module, with small sizes."""
    spec = importlib.util.spec_from_file_location("context_decision", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sizes = {"SEQ_LEN": 6, "HIDDEN_SIZE": 30, "BATCH_SIZE": 4, "NUM_TRIALS": 200}
    for name, size in sizes.items():
        monkeypatch.setattr(module, name, size)
    return module


def test_the_answer_is_the_sign_of_the_stream_that_the_context_names(example):
    key = jax.random.key(0)
    batch = example.TASK.sample(key, 4000, 30)
    assert batch.inputs.shape == (30, 4000, 4)
    evidence, cue = batch.inputs[..., :2], np.asarray(batch.inputs[..., 2:])
    assert np.array_equal(cue, np.broadcast_to(cue[:1], cue.shape))
    assert np.array_equal(cue.sum(axis=-1), np.ones((30, 4000)))
    trials = example.draw_trials(key, 4000, 30)
    colour_counts = np.asarray(trials.context, bool)
    assert np.array_equal(cue[0, :, 1], colour_counts)
    assert abs(colour_counts.mean() - 0.5) < 0.04  # 5 standard errors
    named = np.take_along_axis(
        np.asarray(trials.coherence), colour_counts[:, None].astype(int), axis=1
    )[:, 0]
    assert np.array_equal(batch.labels, named > 0)
    relevant, other = example.by_relevance(trials)
    assert np.array_equal(relevant, named)
    # The control: the other stream says nothing of the answer.
    assert abs(np.mean((np.asarray(other) > 0) == batch.labels) - 0.5) < 0.04
    # The evidence is the coherence with noise.
    error = np.asarray(evidence - trials.coherence[None])
    assert abs(error.mean()) < 5 * 0.5 / np.sqrt(error.size)
    assert error.std() == pytest.approx(0.5, rel=0.01)
    sizes = np.unique(np.abs(trials.coherence))
    assert np.allclose(sizes, example.COHERENCES)


def test_a_curve_has_the_fraction_of_right_at_each_coherence(example):
    coherence = np.array([[0.1, -0.1, 0.4], [0.1, -0.1, -0.1]])
    is_right = np.array([[True, False, True], [False, True, False]])
    values, fractions = example.psychometric(coherence, is_right)
    assert values.tolist() == [-0.1, 0.1, 0.4]
    assert fractions == pytest.approx([1 / 3, 1 / 2, 1])
    choices = example.Choices(coherence, coherence, is_right, None)
    assert example.percent_correct(choices) == pytest.approx([100, 100 / 3])


def test_seeds_differ_and_training_changes_the_network(example):
    rule = example.RULES["bptt"]
    first, second = (
        example.train(rule, seed, 1).cell for seed in (jnp.array(0), jnp.array(1))
    )
    assert abs(first.w_hh - second.w_hh).max() > 0.01
    again = example.train(rule, jnp.array(0), 2).cell
    # Adam's step is at most about its rate.
    assert 0 < abs(first.w_hh - again.w_hh).max() < 0.01
    # The first 24 of 30 units excite, the others inhibit.
    signs = np.sign(example.NETWORK.effective(again))
    assert np.array_equal(signs, np.outer([1] * 24 + [-1] * 6, np.ones(30)))


@pytest.mark.slow
def test_it_prints_a_line_for_each_rule_and_draws(example, tmp_path, capsys):
    example.main(["--out", str(tmp_path / "a.png"), "--updates=2", "--seeds=2"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(example.RULES)
    for line in lines:
        mean, *seeds = (float(x) for x in line.split() if x[0].isdigit())
        assert mean == pytest.approx(np.mean(seeds), abs=0.1)
        assert 20 < mean < 80  # two updates teach nothing
    picture = image.imread(tmp_path / "a.png")
    assert picture.shape[:2] == (320, 960)
    assert picture[..., :3].std() > 0.05


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--updates=0", "--updates: expected an integer ≥ 1, got '0'"),
        ("--seeds=two", "--seeds: expected an integer ≥ 1, got 'two'"),
        ("--out=a.txt", "--out: expected a .png, .pdf or .svg, got 'a.txt'"),
        ("--out=no/such/a.png", "--out: no folder 'no/such'"),
    ],
)
def test_a_wrong_flag_ends_it_before_training(example, flag, message, capsys):
    with pytest.raises(SystemExit) as error:
        example.main([flag])
    assert error.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.optimized
def test_rules_learn_as_the_page_says(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("context_decision", PATH)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(["--out", str(tmp_path / "a.png")])
    page = (PATH.parent.parent / "docs/neuroscience.md").read_text("utf8")
    rows = re.findall(r"^\| `(\w+)` .*\| ([\d.]+) % \(", page, re.MULTILINE)
    said = {name: float(number) for name, number in rows}
    lines = capsys.readouterr().out.splitlines()
    found = {line.split()[0]: float(line.split()[1]) for line in lines}
    assert found == pytest.approx(said, abs=1.5)
    assert said["readout_only"] < 80 < 84 < min(said["bptt"], said["lra_norm"])
