"""How errors flow: numbers where the right answer is known, and figures of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.paper.artefacts.figures_2_to_4 import flow_table
from lra_jax import RULES, TASKS, bptt, member
from lra_jax.experiment import Experiment
from lra_jax.lab.flow import figures, recording, tables
from lra_jax.lab.flow.recording import Setting
from lra_jax.lab.reports import results, statistics

pytestmark = pytest.mark.end_to_end

T, B, H = 10, 4, 16
SIZES = {
    "task": "random_permutation", "seq_len": T, "hidden_size": H, "batch_size": B,
    "dtype": "float32",
}  # fmt: skip
FORCED = Setting(
    "forced, γ = 2",
    "lra_diff",
    {"gamma": 2.0, "num_refinements": 2, "c1": 0.5, "normalization": "force"},
)
BPTT = Setting("bptt", "bptt")
SETTINGS = {"forced": FORCED, "bptt": BPTT}


@functools.cache
def record(name):
    return recording.record(
        SETTINGS[name], seeds=(3, 5), num_steps=4, every=2, num_validation=50, **SIZES
    )


OPTIMIZER = optax.sgd(BPTT.lr)
EXPERIMENT = Experiment(
    task=TASKS["random_permutation"], build=lambda _: (bptt(), OPTIMIZER),
    seq_len=T, hidden_size=H, batch_size=B, eval_every=1, num_validation=50,
)  # fmt: skip


@functools.cache
def initial(seed):
    return jax.jit(functools.partial(member.initial, EXPERIMENT))(jnp.asarray(seed))


def test_the_steps_recorded_are_those_of_a_member():
    kept = record("bptt")
    assert kept.steps.tolist() == [0, 2, 4]
    limits = member.Limits(patience=0)
    advance = jax.jit(functools.partial(member.advance, EXPERIMENT, limits, {}))
    seed = jnp.asarray(5)
    run = member.start(EXPERIMENT, {}, seed, initial(5))
    losses = []
    for _ in range(5):
        run, check = advance(seed, run)
        losses.append(float(check.train_loss))
    np.testing.assert_allclose(kept.seen.loss[1], losses[::2], rtol=1e-5)
    metrics = initial(5).evaluation
    errors = 50 * (1 - kept.seen.accuracy[1, 0])
    assert errors == pytest.approx(float(metrics.num_errors), abs=1e-4)


def test_seeds_differ():
    seen = record("forced").seen
    assert not np.any(seen.loss[0] == seen.loss[1])
    assert not np.any(seen.info.local_loss[0] == seen.info.local_loss[1])


def test_forced_steps_have_the_norm_that_is_asked_for():
    kept = record("forced")
    np.testing.assert_allclose(kept.values("target_step_norm"), 0.5, rtol=1e-5)
    assert not kept.diverged.any()


def test_the_first_observation_is_of_the_initial_weights():
    kept = record("forced")
    params = initial(3).params
    key = jax.random.fold_in(jax.random.key(3, impl="threefry2x32"), 1)
    batch = EXPERIMENT.task.sample(jax.random.fold_in(key, 0), B, T)
    rule = RULES["lra_diff"](**FORCED.options)
    _, _, info = jax.jit(rule.grads)(key, params, rule.init(key, params), batch)
    for name in recording.MAGNITUDES:
        seen = kept.values(name)[0, 0]
        np.testing.assert_allclose(seen, getattr(info, name), rtol=1e-3, err_msg=name)
    assert kept.seen.loss[0, 0] == pytest.approx(float(info.loss))


def test_bptt_agrees_with_itself():
    kept = record("bptt")
    for name in ("error_cosine", "w_hh_sum_cosine", "w_xh_sum_cosine"):
        np.testing.assert_allclose(kept.values(name), 1, rtol=1e-5, err_msg=name)
    by_t = kept.values("w_hh_cosine")
    assert np.isnan(by_t[..., 0]).all()  # z₋₁ = 0
    np.testing.assert_allclose(by_t[..., 1:], 1, rtol=1e-5)
    assert kept.values("local_loss") is None
    assert kept.values("decay") is None


def test_a_rule_without_hidden_gradients_has_no_label_swap():
    found = recording.label_swap(
        Setting("readout", "readout_only"), seeds=(0, 1), num_steps=1, **SIZES
    )
    interval = statistics.finite_mean_interval
    assert [interval(x) for x in found] == [(None, None)] * 2
    assert interval(np.array([0.25, np.nan])) == (0.25, None)
    # Half-width of Student's t with one degree of freedom: 12.7062 · 0.1.
    assert interval(np.array([0.4, 0.6])) == pytest.approx((0.5, 1.27062047))


def test_a_task_of_weighted_labels_is_recorded_and_its_labels_swapped():
    sizes = SIZES | {"task": "perceptual_decision"}
    kept = recording.record(
        BPTT, seeds=(3,), num_steps=2, every=2, num_validation=50, **sizes
    )
    losses = kept.values("loss")
    assert losses.size == 2
    assert np.all(np.isfinite(losses))
    swapped = recording.label_swap(BPTT, seeds=(0, 1), **sizes)
    for cosines in swapped:
        assert np.all((cosines > -1) & (cosines < 1 - 1e-3))


def test_tables_are_read_as_they_are_written(tmp_path):
    recordings = [record("forced"), record("bptt")]
    rows = tables.by_step(recordings)
    assert len(rows) == 2 * 3 * (T + 1)
    for written in (rows, tables.summary(recordings)):
        results.write_rows(tmp_path / "table.csv", written)
        read = results.read_rows(tmp_path / "table.csv")
        assert [list(row) for row in read] == [list(row) for row in written]
        for before, after in zip(written, read, strict=True):
            for name, value in before.items():
                if isinstance(value, float):
                    value = pytest.approx(value, rel=1e-3)
                assert after[name] == value, name
    top = next(row for row in rows if row["t"] == T - 1)
    assert top["loss"] is None
    expected = np.sqrt(np.prod(record("forced").values("local_loss")[:, 0, -1]))
    assert top["local_loss"] == pytest.approx(expected)
    forced, exact = tables.summary(recordings)
    assert (forced["updates"], forced["seeds"], forced["diverged"]) == (4, 2, 0)
    assert forced["decades_init"] == pytest.approx(
        record("forced").values("decay")[:, 0].mean()
    )
    assert exact["decades_init"] is None
    assert exact["w_hh_sum_cosine_end"] == pytest.approx(1)


def diverge(kept):
    """The recording, had its first seed diverged before the last observation."""

    def lost(values):
        values = values.copy()
        values[0, -1] = np.nan
        return values

    seen = jax.tree.map(lost, kept.seen)
    accuracy = kept.seen.accuracy.copy()
    accuracy[0, -1] = 0  # NaN is always an error
    return dataclasses.replace(kept, seen=seen._replace(accuracy=accuracy))


def test_a_table_says_how_many_seeds_diverged():
    whole, lost = record("forced"), diverge(record("forced"))
    assert lost.diverged.tolist() == [True, False]
    summary = tables.summary([lost, record("bptt")])
    assert summary[0]["diverged"] == 1
    # Means at the end are those of the other seed, but for the accuracy.
    assert summary[0]["decades_end"] == pytest.approx(whole.values("decay")[1, -1])
    assert summary[0]["vanished_end"] == 0
    for name in tables.SUMS:
        expected = pytest.approx(whole.values(name)[1, -1], rel=1e-6)
        assert summary[0][f"{name}_end"] == expected
        assert summary[0][f"{name}_end_interval"] is None
    assert summary[0]["accuracy_end"] == whole.seen.accuracy[1, -1] / 2
    header, _, first, second = flow_table(summary).splitlines()
    assert header.endswith("| accuracy % | diverged |")
    assert first.endswith("| 1/2 |")
    assert second.endswith("| 0/2 |")


def test_a_table_without_diverged_seeds_has_no_column_for_them():
    summary = tables.summary([record("forced"), record("bptt")])
    text = flow_table(summary)
    assert "diverged" not in text
    # Summaries that were recorded before there was such a column.
    old = [{k: v for k, v in row.items() if k != "diverged"} for row in summary]
    assert flow_table(old) == text


def test_figures_are_drawn_of_rules_with_and_without_local_losses(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(figures, "MAX_PANELS", 2)
    rows = tables.by_step([record("forced"), record("bptt")])
    readout = [{**row, "setting": "readout"} for row in rows if row["rule"] == "bptt"]
    none = dict.fromkeys((*recording.MAGNITUDES, *tables.COSINES))
    rows += [row | none for row in readout]
    names = figures.draw(tmp_path, rows, prefix="figure3", title="test")
    assert names == [
        "figure3_forced_gamma_2.png", "figure3_bptt.png", "figure3_flow.png",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / name).stat().st_size > 5000
        assert (tmp_path / name).with_suffix(".svg").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"every": 3}, "does not divide"), ({"dtype": "float64"}, "jax_enable_x64")],
)
def test_what_cannot_be_recorded_is_refused(change, message):
    arguments = {"seeds": (0,), "num_steps": 4, "every": 2} | SIZES | change
    with pytest.raises(ValueError, match=message):
        recording.record(BPTT, **arguments)
