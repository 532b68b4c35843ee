"""How errors flow: numbers where the right answer is known, and figures of them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.paper.artefacts.figures_2_to_4 import flow_table
from lra_jax import RULES, TASKS, bptt, forward, gradients, init_params, member
from lra_jax.lab.flow import gradient_flow, gradient_flow_figures
from lra_jax.lab.flow.gradient_flow import Setting
from lra_jax.lab.reports import results
from lra_jax.rules.bptt import backward

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
EXAMPLES = {
    "bptt": {},
    "lra_diff": {"gamma": 3.0, "num_refinements": 2, "lambda_": 0.1},
    "lra_released": {
        "gamma": 3.0, "num_refinements": 2, "lambda_": 0.0, "c": 0.0,
        "local_loss": "mse",
    },
    "tptt": {"target_lr": 0.1, "feedback_lr": 0.001, "noise_std": 0.0},
}  # fmt: skip
# Rules whose step t reaches W_hh through qₜ alone.
LOCAL = ("bptt", "tptt")


@functools.cache
def record(name):
    return gradient_flow.record(
        SETTINGS[name], seeds=(3, 5), num_steps=4, every=2, num_validation=50, **SIZES
    )


@functools.cache
def weights_and_batch(task):
    key = jax.random.key(7)
    params = init_params(key, task.input_size, H, task.output_size)
    return params._replace(b_h=jnp.linspace(-0.3, 0.4, H)), task.sample(key, B, T)


def rule_and_batch(name, task, **options):
    params, batch = weights_and_batch(TASKS[task])
    rule = RULES[name](**options, output_loss=TASKS[task].output_loss)
    return rule, params, rule.init(jax.random.key(7), params), batch


def errors(rule, params, state, batch):
    find = jax.jit(functools.partial(gradient_flow.hidden_errors, rule))
    return find(jax.random.key(0), params, state, batch)


def test_a_geometric_decay_is_its_exponent():
    t = np.arange(10)
    loss = np.stack([10.0 ** (0.7 * t - 9), 10.0 ** (-0.2 * t), np.ones(10)])
    np.testing.assert_allclose(gradient_flow.decay(loss), [0.7, -0.2, 0], atol=1e-12)
    bent = 10.0 ** np.where(t < 5, 3 * t, 0.1 * t)  # only the top five count
    assert gradient_flow.decay(bent) == pytest.approx(0.1)
    bent[:8] = 0
    assert gradient_flow.decay(bent) == pytest.approx(0.1)
    assert gradient_flow.vanished(bent) == 7
    bent[8] = 0
    assert np.isnan(gradient_flow.decay(bent))
    bent[3] = np.nan
    assert np.isnan(gradient_flow.vanished(bent))


def test_a_cosine_has_no_scale_and_zero_has_no_direction():
    a = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    b = jnp.array([[4.0e-25, 3.0e-25], [1.0, 0.0]])
    cosines = gradient_flow.cosine(1e-25 * a, b)
    assert cosines[0] == pytest.approx(24 / 25)
    assert np.isnan(cosines[1])


@pytest.mark.parametrize(
    ("task", "expected"),
    [("random_permutation", [1, 0]), ("temporal_order", [3, 2]),
     ("temporal_order_3bit", [7, 6])],
)  # fmt: skip
def test_labels_are_swapped_within_the_classes_that_occur(task, expected):
    swapped = gradient_flow.swap_labels(TASKS[task], jnp.array([0, 1]))
    assert swapped.tolist() == expected


@pytest.mark.parametrize("task", ["adding"])  # real inputs; symbols are below
def test_the_hidden_errors_of_bptt_are_its_own(task):
    rule, params, state, batch = rule_and_batch("bptt", task)
    q = errors(rule, params, state, batch)
    trace = jax.jit(forward)(params, batch.inputs)
    pi = TASKS[task].output_loss.grad(trace.logits, batch.labels)
    np.testing.assert_allclose(q, backward(params, trace, pi), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name in RULES])
def test_hidden_errors_add_up_to_the_gradient_of_any_rule(name):
    rule, params, state, batch = rule_and_batch(
        name, "temporal_order", **EXAMPLES[name]
    )
    grads, _, _ = jax.jit(rule.grads)(jax.random.key(0), params, state, batch)
    q = errors(rule, params, state, batch)
    trace = forward(params, batch.inputs)
    summed = gradients.sum_local_gradients(params, batch.inputs, trace.z, q).grads
    scale = float(jnp.max(jnp.abs(grads.w_xh)))
    np.testing.assert_allclose(summed.w_xh, grads.w_xh, rtol=1e-4, atol=1e-5 * scale)
    if name in LOCAL:
        scale = float(jnp.max(jnp.abs(grads.w_hh)))
        np.testing.assert_allclose(
            summed.w_hh, grads.w_hh, rtol=1e-4, atol=1e-5 * scale
        )


OPTIMIZER = optax.sgd(BPTT.lr)
EXPERIMENT = member.Experiment(
    task=TASKS["random_permutation"], build=lambda _: (bptt(), OPTIMIZER),
    seq_len=T, hidden_size=H, batch_size=B, eval_every=1, num_validation=50,
)  # fmt: skip


@functools.cache
def initial(seed):
    return jax.jit(functools.partial(member.initial, EXPERIMENT))(jnp.asarray(seed))


def test_the_steps_recorded_are_those_of_a_member():
    recording = record("bptt")
    assert recording.steps.tolist() == [0, 2, 4]
    limits = member.Limits(patience=0)
    advance = jax.jit(functools.partial(member.advance, EXPERIMENT, limits, {}))
    seed = jnp.asarray(5)
    run = member.start(EXPERIMENT, {}, seed, initial(5))
    losses = []
    for _ in range(5):
        run, check = advance(seed, run)
        losses.append(float(check.train_loss))
    np.testing.assert_allclose(recording.seen.loss[1], losses[::2], rtol=1e-5)
    metrics = initial(5).metrics
    errors = 50 * (1 - recording.seen.accuracy[1, 0])
    assert errors == pytest.approx(float(metrics.num_errors), abs=1e-4)


def test_seeds_differ():
    seen = record("forced").seen
    assert not np.any(seen.loss[0] == seen.loss[1])
    assert not np.any(seen.info.local_loss[0] == seen.info.local_loss[1])


def test_forced_steps_have_the_norm_that_is_asked_for():
    recording = record("forced")
    np.testing.assert_allclose(recording.values("target_step_norm"), 0.5, rtol=1e-5)
    assert not recording.diverged.any()


def test_the_first_observation_is_of_the_initial_weights():
    recording = record("forced")
    params = initial(3).params
    key = jax.random.fold_in(jax.random.key(3, impl="threefry2x32"), 1)
    batch = EXPERIMENT.task.sample(jax.random.fold_in(key, 0), B, T)
    rule = RULES["lra_diff"](**FORCED.options)
    _, _, info = jax.jit(rule.grads)(key, params, rule.init(key, params), batch)
    for name in gradient_flow.MAGNITUDES:
        seen = recording.values(name)[0, 0]
        np.testing.assert_allclose(seen, getattr(info, name), rtol=1e-3, err_msg=name)
    assert recording.seen.loss[0, 0] == pytest.approx(float(info.loss))


def test_bptt_agrees_with_itself():
    recording = record("bptt")
    for name in ("error_cosine", "w_hh_sum_cosine", "w_xh_sum_cosine"):
        np.testing.assert_allclose(recording.values(name), 1, rtol=1e-5, err_msg=name)
    by_t = recording.values("w_hh_cosine")
    assert np.isnan(by_t[..., 0]).all()  # z₋₁ = 0
    np.testing.assert_allclose(by_t[..., 1:], 1, rtol=1e-5)
    assert recording.values("local_loss") is None
    assert recording.values("decay") is None


def test_swapped_labels_turn_an_untrained_top_error_as_far_as_pi():
    rule, params, state, batch = rule_and_batch("bptt", "temporal_order")
    # Equal probabilities and linear units: what is left is π W_hyᵀ.
    params = jax.tree.map(lambda x: 1e-3 * x, params)
    swapped = gradient_flow.swap_labels(TASKS["temporal_order"], batch.labels)
    q, swapped_q = (
        errors(rule, params, state, batch._replace(labels=labels))[-1]
        for labels in (batch.labels, swapped)
    )
    np.testing.assert_allclose(
        gradient_flow.cosine(q, swapped_q), -1 / (4 - 1), atol=0.01
    )


def test_a_rule_without_hidden_gradients_has_no_label_swap():
    found = gradient_flow.label_swap(
        Setting("readout", "readout_only"), seeds=(0, 1), num_steps=1, **SIZES
    )
    interval = gradient_flow.mean_and_interval
    assert [interval(x) for x in found] == [(None, None)] * 2
    assert interval(np.array([0.25, np.nan])) == (0.25, None)
    # Half-width of Student's t with one degree of freedom: 12.7062 · 0.1.
    assert interval(np.array([0.4, 0.6])) == pytest.approx((0.5, 1.27062047))


def test_tables_are_read_as_they_are_written(tmp_path):
    recordings = [record("forced"), record("bptt")]
    rows = gradient_flow.table(recordings)
    assert len(rows) == 2 * 3 * (T + 1)
    for written in (rows, gradient_flow.summary(recordings)):
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
    forced, exact = gradient_flow.summary(recordings)
    assert (forced["updates"], forced["seeds"], forced["diverged"]) == (4, 2, 0)
    assert forced["decades_init"] == pytest.approx(
        record("forced").values("decay")[:, 0].mean()
    )
    assert exact["decades_init"] is None
    assert exact["w_hh_sum_cosine_end"] == pytest.approx(1)


def diverge(recording):
    """The recording, had its first seed diverged before the last observation."""

    def lost(values):
        values = values.copy()
        values[0, -1] = np.nan
        return values

    seen = jax.tree.map(lost, recording.seen)
    accuracy = recording.seen.accuracy.copy()
    accuracy[0, -1] = 0  # NaN is always an error
    return dataclasses.replace(recording, seen=seen._replace(accuracy=accuracy))


def test_a_table_says_how_many_seeds_diverged():
    whole, lost = record("forced"), diverge(record("forced"))
    assert lost.diverged.tolist() == [True, False]
    summary = gradient_flow.summary([lost, record("bptt")])
    assert summary[0]["diverged"] == 1
    # Means at the end are those of the other seed, but for the accuracy.
    assert summary[0]["decades_end"] == pytest.approx(whole.values("decay")[1, -1])
    assert summary[0]["vanished_end"] == 0
    for name in gradient_flow.SUMS:
        expected = pytest.approx(whole.values(name)[1, -1], rel=1e-6)
        assert summary[0][f"{name}_end"] == expected
        assert summary[0][f"{name}_end_interval"] is None
    assert summary[0]["accuracy_end"] == whole.seen.accuracy[1, -1] / 2
    header, _, first, second = flow_table(summary).splitlines()
    assert header.endswith("| accuracy % | diverged |")
    assert first.endswith("| 1/2 |")
    assert second.endswith("| 0/2 |")


def test_a_table_without_diverged_seeds_has_no_column_for_them():
    summary = gradient_flow.summary([record("forced"), record("bptt")])
    text = flow_table(summary)
    assert "diverged" not in text
    # Summaries that were recorded before there was such a column.
    old = [{k: v for k, v in row.items() if k != "diverged"} for row in summary]
    assert flow_table(old) == text


def test_figures_are_drawn_of_rules_with_and_without_local_losses(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(gradient_flow_figures, "MAX_PANELS", 2)
    rows = gradient_flow.table([record("forced"), record("bptt")])
    readout = [{**row, "setting": "readout"} for row in rows if row["rule"] == "bptt"]
    none = dict.fromkeys((*gradient_flow.MAGNITUDES, *gradient_flow.COSINES))
    rows += [row | none for row in readout]
    names = gradient_flow_figures.draw(tmp_path, rows, prefix="figure3", title="test")
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
        gradient_flow.record(BPTT, **arguments)
