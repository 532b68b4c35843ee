"""What a rule's errors are beside those of BPTT, where the right answer is known."""

import csv
import dataclasses
import errno
import functools
import json
import os
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rich.console
from absl.testing import flagsaver
from command_line import call

from lra_jax import RULES, TASKS, diagnostics, member
from lra_jax.experiment import Experiment
from lra_jax.lab.benches import alignment
from lra_jax.lab.flow.recording import RELATIVE_NORM, Setting
from lra_jax.lab.reports import results
from lra_jax.lab.runs import store
from lra_jax.lab.terminal import machine

pytestmark = pytest.mark.end_to_end

BUDGET = alignment.BUDGETS["smoke"]
T = BUDGET.seq_len
FAMILIES = {
    "through W_hhᵀ": (
        Setting("bptt", "bptt"),
        Setting("same", "lra_norm", {"exponent": 0.0, "activity": 0.0}),
    ),
    "other": (Setting("lra_e", "lra_e"), Setting("readout_only", "readout_only")),
}
SETTINGS = {setting.name: setting for found in FAMILIES.values() for setting in found}


_record = alignment.record  # which one of the tests replaces


@functools.cache
def record(name):
    return _record(SETTINGS[name], T, BUDGET)


def test_every_rule_is_a_setting_of_its_own():
    settings = [s for found in alignment.FAMILIES.values() for s in found]
    # No rule to train with, lra_norm and bptt by other means, and no direction at all.
    others = {"lra_released", "lra_reversible", "rtrl", "random_error"}
    assert {s.rule for s in settings} == set(RULES) - others
    assert len({s.name for s in settings}) == len(settings)
    for s in settings:
        RULES[s.rule](**s.options)
    assert [*alignment.FAMILIES] == [
        "through W_hhᵀ", "own feedback weights", "direct, or not at all",
        "forward in time", "through an inverse", alignment.LONG,
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["bptt", "same"])
def test_errors_of_bptt_by_another_name_are_its_own(name):
    numbers = alignment.numbers(record(name), "a")
    cosines = {
        k: v for k, v in numbers.items() if "cosine" in k and "interval" not in k
    }
    assert len(cosines) == 3 * (2 + 4)
    np.testing.assert_allclose([*cosines.values()], 1, atol=1e-12)
    np.testing.assert_allclose(
        record(name).seen.error_norm, record("bptt").seen.error_norm, rtol=1e-9
    )


def test_a_rule_without_errors_has_no_cosines_and_no_norms():
    recording = record("readout_only")
    numbers = alignment.numbers(recording, "a")
    for name, value in numbers.items():
        if "cosine" in name or "decades" in name:
            assert value is None, name
    assert not recording.seen.error_norm.any()
    assert np.isnan(recording.values(RELATIVE_NORM)).all()
    rows = [row for row in alignment.lines(recording, "a") if row["t"] is not None]
    assert {row["error_cosine"] for row in rows} == {None}
    page = alignment.page([numbers], BUDGET)
    assert "| readout_only | – | – | – | – | – |" in page


@functools.cache
def first_update(seed, name):
    """What the first observation of a seed is of: a rule, its state, and the batch."""
    task, setting = TASKS[alignment.TASK], SETTINGS[name]
    rule = RULES[setting.rule](**setting.options)
    experiment = Experiment(
        task=task, build=lambda _: (rule, optax.sgd(0.1)), seq_len=T,
        hidden_size=BUDGET.hidden_size, num_validation=1,
    )  # fmt: skip

    def start(seed):
        initial = member.initial(experiment, seed)
        stream = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), 1)
        batch = task.sample(jax.random.fold_in(stream, 0), experiment.batch_size, T)
        return member.start(experiment, {}, seed, initial).train, batch

    with machine.in_float64():
        return rule, *jax.jit(start)(jnp.asarray(seed))


def test_norms_are_those_of_the_gradients_of_single_samples():
    rule, state, batch = first_update(1, "lra_e")

    def norms(inputs, label):
        one = batch._replace(inputs=inputs[:, None], labels=label[None])
        _, _, info = rule.grads(state.key, state.params, state.rule_state, one)
        return info.w_xh_grad_norm  # of one sample: its error at each step

    with machine.in_float64():
        found = jax.jit(jax.vmap(norms))(batch.inputs.T, batch.labels)
    expected = np.asarray(found).mean(axis=0)
    seen = record("lra_e").seen
    np.testing.assert_allclose(seen.error_norm[1, 0], expected, rtol=1e-9)


def test_norms_of_bptt_are_those_of_numpy():
    seed = 1
    _, state, batch = first_update(seed, "bptt")
    w_xh, w_hh, b_h, w_hy, b_y = (np.asarray(x) for x in state.params)
    inputs, labels = np.asarray(batch.inputs), np.asarray(batch.labels)
    z = np.zeros((T + 1, labels.size, BUDGET.hidden_size))
    for t in range(T):
        z[t] = np.tanh(z[t - 1] @ w_hh + w_xh[inputs[t]] + b_h)  # z[-1] is 0
    logits = z[T - 1] @ w_hy + b_y
    pi = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    pi[np.arange(labels.size), labels] -= 1
    q = np.zeros_like(z[:T])
    q[-1] = pi @ w_hy.T * (1 - z[T - 1] ** 2)
    for t in range(T - 1, 0, -1):
        q[t - 1] = q[t] @ w_hh.T * (1 - z[t - 1] ** 2)
    norm = np.sqrt((q**2).sum(-1)).mean(1)
    recording = record("bptt")
    np.testing.assert_allclose(recording.seen.error_norm[seed, 0], norm, rtol=1e-9)
    np.testing.assert_allclose(
        recording.values(RELATIVE_NORM)[seed, 0], norm / norm[-1],
        rtol=1e-9,
    )  # fmt: skip
    slope = np.polyfit(np.arange(T), np.log10(norm), 1)[0]
    decades = diagnostics.decay(recording.seen.error_norm, T)
    assert decades[seed, 0] == pytest.approx(slope, rel=1e-6)


def test_moments_and_distances_are_where_they_say():
    recording = record("lra_e")
    assert alignment.moments(recording) == {"start": 0, "middle": 1, "end": 2}
    assert alignment.distances(60) == {"1": 1, "10": 10, "half": 30, "first": 59}
    numbers = alignment.numbers(recording, "a")
    cosine = recording.values("error_cosine")
    for name, t in (("1", T - 2), ("10", T - 11), ("half", T // 2 - 1), ("first", 0)):
        mean = cosine[:, 2, t].mean()
        assert numbers[f"error_cosine_{name}_end"] == pytest.approx(mean), name
    # An error that grows to 1,000 times its size over the T - 1 steps to the first.
    norm = np.broadcast_to(
        10 ** (3 * np.linspace(1, 0, T)), recording.seen.error_norm.shape
    )
    grown = dataclasses.replace(
        recording, seen=recording.seen._replace(error_norm=norm)
    )
    assert alignment.numbers(grown, "a")["decades_end"] == pytest.approx(-3 / (T - 1))
    (first,) = (
        row for row in alignment.lines(grown, "a") if (row["step"], row["t"]) == (0, 0)
    )
    assert first[RELATIVE_NORM] == pytest.approx(1000)
    assert first["relative_error_norm_log10_interval"] == pytest.approx(0)


def test_a_run_goes_on_and_leaves_table_numbers_and_picture(tmp_path, monkeypatch):
    recorded = []

    def count(setting, seq_len, budget):
        recorded.append(setting.name)
        return record(setting.name)

    interruption = mock.Mock(signal=None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(alignment, "FAMILIES", FAMILIES)
    monkeypatch.setattr(alignment, "record", count)
    monkeypatch.setattr(alignment.machine, "prepare", lambda: None)
    monkeypatch.setattr(alignment.run, "Interruption", lambda *_: interruption)
    with flagsaver.as_parsed(
        budget="smoke", results=str(tmp_path), accept_old_code="false"
    ):
        interruption.signal = 15
        assert alignment._run(rich.console.Console(quiet=True)) == 143
        assert recorded == ["bptt"]
        interruption.signal = None
        assert alignment._run(rich.console.Console(quiet=True)) == 0
        assert recorded == ["bptt", "same", "lra_e", "readout_only"]
    folder = tmp_path / "alignment" / "smoke"
    numbers = json.loads((folder / "alignment.json").read_text())
    assert [*numbers] == ["bptt", "same", "lra_e", "readout_only"]
    assert numbers["bptt"]["w_hh_cosine_middle"] == pytest.approx(1)
    assert numbers["lra_e"]["family"] == "other"
    text = (folder / "alignment.md").read_text()
    assert " | 1.00 ± 0.00 | 1.00 ± 0.00 |\n| same |" in text
    best = np.max(record("lra_e").seen.accuracy, axis=1).mean()
    assert numbers["lra_e"]["accuracy_best"] == pytest.approx(best)
    with (folder / "alignment.csv").open() as file:
        assert len([*csv.DictReader(file)]) == 4 * (3 + 3 * T)
    assert len(results.read_rows(folder / "alignment.csv")) == 4 * (3 + 3 * T)
    for suffix in (".png", ".svg"):
        assert (folder / "alignment").with_suffix(suffix).stat().st_size > 10_000


def test_a_full_disk_is_a_message_with_the_file_and_the_command(tmp_path, monkeypatch):
    def full(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(alignment.run, "Interruption", mock.Mock(return_value=mock.Mock(
        command="the command", signal=None
    )))  # fmt: skip
    monkeypatch.setattr(alignment, "observe", lambda *_, **__: ({}, []))
    monkeypatch.setattr(alignment.results, "write_rows", full)
    done = call(alignment, budget="smoke", results=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        f"experiments.alignment: {tmp_path}/alignment/smoke/alignment.csv: No space left "
        "on device. To go on:\n  the command\n"
    )


def test_a_recording_of_other_code_is_used_only_where_somebody_insists(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(alignment, "record", lambda setting, *_: record(setting.name))
    setting, budget = SETTINGS["bptt"], alignment.BUDGETS["smoke"]
    first = alignment.observe(setting, "a", budget, tmp_path)
    monkeypatch.setattr(alignment, "record", None)  # nothing is recorded any more
    assert alignment.observe(setting, "a", budget, tmp_path) == first
    (path,) = tmp_path.iterdir()
    kept = json.loads(path.read_text())
    kept["code"]["lra_jax/lab/config/optimizers.py"] = "0"
    path.write_text(json.dumps(kept))
    with pytest.raises(store.OldCodeError) as error:
        alignment.observe(setting, "a", budget, tmp_path)
    assert str(error.value) == (
        f"{path} ({setting.name}) was made by other code than today's:\n  changed: "
        "lra_jax/lab/config/optimizers.py\nTo use it all the same, add --accept-old-code; or "
        "remove it to record anew"
    )
    options = {"accept_old_code": True}
    assert alignment.observe(setting, "a", budget, tmp_path, **options) == first
    assert "made by other code than today's" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--budget", "huge"], "experiments.alignment: flag --budget=huge"),
        (
            ["--results", "/dev/null"],
            "experiments.alignment: /dev/null/alignment: Not a directory",
        ),
        (["--results", ""], "experiments.alignment: --results is empty; expected a"),
        (["bptt"], "experiments.alignment: unexpected argument 'bptt'"),
    ],
)
def test_a_bad_command_is_one_message_and_exit_code_2(arguments, says):
    done = call(alignment, *arguments, budget="standard", results="results")
    assert done.returncode == 2
    assert done.stderr.startswith(says)
    assert done.stderr.count("\n") == 1
