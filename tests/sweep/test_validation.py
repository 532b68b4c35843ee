"""Evaluations that look at all samples, or at stage after stage of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lra_jax
from lra_jax import sweep, types, validation
from lra_jax.experiment import streams
from lra_jax.validation import UNKNOWN, Best

SLICE = validation.SLICE
STAGES = (200, 1000)
TOTAL = 2500  # twelve slices and a rest of 100

NOTHING_YET = Best(UNKNOWN, 0, np.full(2, UNKNOWN, np.int32))


def looked_at(wrong, losses, total, stages, best):
    """An evaluation in stages by NumPy: samples, errors among them, loss, counts."""
    seen, counts = 0, [UNKNOWN] * len(stages)
    while seen < total:
        seen = min(seen + SLICE, total)
        errors = int(wrong[:seen].sum())
        if seen in stages:
            place = stages.index(seen)
            counts[place] = errors
            is_last = place == len(stages) - 1
            if errors and (is_last or errors >= best.stage_errors[place]):
                break
        elif errors and seen > stages[-1]:
            break
    return seen, errors, losses[:seen].mean(), counts


def evaluate_slice(wrong, losses):
    def evaluate(index, size):
        at = index * SLICE + jnp.arange(size)
        wrong_there = jnp.asarray(wrong)[at]
        return types.Metrics(
            jnp.asarray(losses, jnp.float32)[at].mean(),
            jnp.sum(wrong_there, dtype=jnp.int32),
        )

    return evaluate


def samples(first_error, rate, seed):
    """Which samples are wrong: none before the first, then a share of them."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(TOTAL) < rate
    wrong[:first_error] = False
    if first_error < TOTAL:
        wrong[first_error] = True
    return wrong, rng.normal(size=TOTAL)


CASES = [
    *((0, 0.75, counts) for counts in ((150, 800), (155, 700), (10, 20), (200, 1000))),
    *((0, 0.01, counts) for counts in ((3, 12), (2, 12), (4, 3))),
    *((150, 0.01, counts) for counts in ((1, 1), (2, 12), (40, 300))),
    *((300, 0.01, counts) for counts in ((0, 0), (1, 9))),
    *((n, 0.3, (0, 5)) for n in (999, 1000, 1399, 1400, 2399, 2400, 2499, TOTAL)),
]


@pytest.mark.parametrize(("first_error", "rate", "counts"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_an_evaluation_looks_as_far_as_it_can_matter(first_error, rate, counts, seed):
    wrong, losses = samples(first_error, rate, seed)
    best = Best(counts[1], 1000, np.array(counts, np.int32))
    expected = looked_at(wrong, losses, TOTAL, STAGES, best)
    found = validation.in_stages(evaluate_slice(wrong, losses), TOTAL, STAGES, best)
    assert (found.num_samples, found.num_errors) == expected[:2]
    np.testing.assert_allclose(found.loss, expected[2], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.stage_errors, expected[3])
    # No error is known of all samples or of none: that is what "solved" says.
    assert (found.num_errors == 0) == (not wrong.any())
    if found.num_errors == 0:
        assert found.num_samples == TOTAL


def test_members_of_a_tile_look_as_far_as_each_alone():
    cases = [samples(n, 0.3, seed) for seed, n in enumerate((0, 150, 700, 1800, TOTAL))]
    wrong, losses = (np.stack(column) for column in zip(*cases, strict=True))
    best = Best(
        np.full(5, 5), np.full(5, 1000), np.tile(np.array([1, 5], np.int32), (5, 1))
    )

    def one(wrong, losses, best):
        return validation.in_stages(evaluate_slice(wrong, losses), TOTAL, STAGES, best)

    together = jax.vmap(one)(wrong, losses, best)
    assert len(set(together.num_samples.tolist())) >= 4
    for index in range(5):
        alone = one(*jax.tree.map(lambda x, i=index: x[i], (wrong, losses, best)))
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[index], b, rtol=1e-6)


def test_the_first_stage_is_all_that_initial_weights_are_evaluated_on():
    wrong, losses = samples(0, 0.5, 1)
    found = validation.on_first(evaluate_slice(wrong, losses), 200, STAGES)
    errors = wrong[:200].sum()
    assert (found.num_samples, found.num_errors) == (200, errors)
    np.testing.assert_array_equal(found.stage_errors, [errors, UNKNOWN])
    whole = validation.on_first(evaluate_slice(wrong, losses), TOTAL, ())
    assert (whole.num_samples, whole.num_errors) == (TOTAL, wrong.sum())
    np.testing.assert_allclose(whole.loss, losses.mean(), rtol=1e-4, atol=1e-6)


def test_further_is_better_and_as_far_with_fewer_errors():
    def evaluation(samples, errors):
        return validation.Evaluation(0.0, errors, samples, None)

    best = Best(5, 1000, None)
    for samples_, errors, better in [
        (200, 0, False), (200, 4, False), (1000, 4, True), (1000, 5, False),
        (1000, 6, False), (1200, 9, True),
    ]:  # fmt: skip
        assert bool(validation.is_better(evaluation(samples_, errors), best)) == better


@pytest.mark.parametrize(
    ("stages", "total", "expected"),
    [((200, 1000), 10_000, (200, 1000)), ((200, 1000), 1000, (200,)),
     ([400], 401, (400,)), ((), 10, ()), ((200,), 200, ())],
)  # fmt: skip
def test_stages_are_smaller_than_the_validation_set(stages, total, expected):
    assert validation.check_stages(stages, total) == expected


@pytest.mark.parametrize(
    "wrong", [200, "200", [100], [200, 200], [1000, 200], [0], [200.5], [True]]
)
def test_wrong_stages_are_named(wrong):
    with pytest.raises(ValueError, match="validation_stages: expected"):
        validation.check_stages(wrong, 10_000)


def build(numbers):
    rule = lra_jax.lra_norm(max_norm=1.0)
    return rule, optax.adam(numbers["lr"])


WHOLE = sweep.Experiment(
    lra_jax.TASKS["temporal_order"],
    build,
    seq_len=10,
    hidden_size=24,
    eval_every=20,
    num_validation=2500,
    validation_stages=(),
)
NUMBERS = {"lr": [0.03, 0.01, 0.003, 0.0, 0.03, 0.01]}
SEEDS = [0, 0, 0, 0, 1, 1]


def run(stages, **limits):
    experiment = dataclasses.replace(WHOLE, validation_stages=stages)
    limits = sweep.Limits(**{"max_steps": 400, "patience": 0, **limits})
    return sweep.run_sweep(experiment, NUMBERS, SEEDS, limits=limits)


def test_what_is_solved_and_when_is_the_same_in_stages():
    whole, staged = run(()).members, run(STAGES).members
    assert (whole.status == sweep.Status.SOLVED).sum() >= 3
    np.testing.assert_array_equal(whole.status, staged.status)
    np.testing.assert_array_equal(whole.step, staged.step)
    solved = whole.status == sweep.Status.SOLVED
    np.testing.assert_array_equal(staged.num_samples[solved], 2500)
    np.testing.assert_array_equal(staged.best_num_samples[solved], 2500)
    np.testing.assert_array_equal(whole.num_samples, 2500)
    assert (staged.num_samples[~solved] < 2500).all()


def test_counts_are_of_the_first_samples_of_the_same_set():
    """Where an evaluation in stages stops, the whole one has no fewer errors."""
    whole, staged = run(()).curves, run(STAGES).curves
    for curves in (whole, staged):  # the same order, whatever ends when
        assert (np.diff(curves.step) >= 0).all()
    np.testing.assert_array_equal(whole.member, staged.member)
    np.testing.assert_allclose(whole.train_loss, staged.train_loss, rtol=1e-5)
    assert (staged.num_errors <= whole.num_errors).all()
    rates = staged.num_errors / staged.num_samples
    assert np.abs(rates - whole.num_errors / 2500).max() < 0.12
    same = staged.num_samples == 2500
    np.testing.assert_array_equal(staged.num_errors[same], whole.num_errors[same])


def test_evaluations_cost_a_tenth_where_nothing_gets_better():
    staged = run(STAGES).curves
    frozen = staged.num_samples[(staged.member == 3) & (staged.step > 0)]  # lr = 0
    np.testing.assert_array_equal(frozen, 200)
    learning = staged.num_samples[staged.member == 0]
    assert {200, 2500} <= {*learning.tolist()}


def test_patience_counts_evaluations_without_a_better_one():
    state = run(STAGES, patience=3)
    assert state.members.status[3] == sweep.Status.STALLED
    assert state.members.step[3] == 3 * 20
    rows = state.curves
    for member in range(6):
        at = np.flatnonzero(rows.member == member)
        best, stale = (rows.num_samples[at[0]], -rows.num_errors[at[0]]), 0
        for row in at[1:]:
            assert stale < 3  # else it had ended before
            now = rows.num_samples[row], -rows.num_errors[row]
            best, stale = (now, 0) if now > best else (best, stale + 1)
        if state.members.status[member] == sweep.Status.STALLED:
            assert stale == 3
        found = state.members.best_num_samples, -state.members.best_num_errors
        assert tuple(int(x[member]) for x in found) == best


def test_a_member_that_goes_on_after_it_was_solved_is_looked_at_in_full():
    whole = run((), steps_after_solved=100)
    staged = run(STAGES, steps_after_solved=100)
    np.testing.assert_array_equal(whole.members.status, staged.members.status)
    np.testing.assert_array_equal(whole.members.step, staged.members.step)
    # Whether an evaluation is without an error is the same for both.
    np.testing.assert_array_equal(
        whole.curves.num_errors == 0, staged.curves.num_errors == 0
    )


def test_the_best_weights_are_those_of_the_best_evaluation():
    experiment = dataclasses.replace(WHOLE, validation_stages=STAGES)
    state = sweep.run_sweep(
        experiment,
        NUMBERS,
        SEEDS,
        limits=sweep.Limits(max_steps=100, patience=0),
        keep_params="best",
    )
    task, members = experiment.task, state.members
    for member, seed in enumerate(SEEDS):
        params = jax.tree.map(lambda x, i=member: x[i], state.params)
        key = streams(jnp.uint32(seed)).validation
        errors, seen = 0, 0
        while seen < members.best_num_samples[member]:  # the same first slices
            size = min(SLICE, 2500 - seen)
            batch = task.sample(jax.random.fold_in(key, seen // SLICE), size, 10)
            errors += int(lra_jax.evaluate(params, batch).num_errors)
            seen += size
        assert errors == members.best_num_errors[member]


def counted(calls, wrong, losses):
    """As `evaluate_slice`, and notes each slice of a lane that is computed."""
    plain = evaluate_slice(wrong, losses)

    def evaluate(index, size):
        jax.debug.callback(lambda i: calls.append(int(i)), index)
        return plain(index, size)

    return evaluate


def test_who_has_ended_keeps_nobody_looking():
    """A solved member would look at all samples, and its tile with it."""
    right, losses = samples(TOTAL, 0.0, 0)
    wrong = np.stack([right, samples(0, 0.7, 1)[0]])
    best = Best(np.zeros(2, int), np.full(2, TOTAL), np.zeros((2, 2), np.int32))
    for live, slices in (([False, True], 1), ([True, True], 13), ([False, False], 0)):
        calls = []

        def one(wrong, best, live, calls=calls):
            evaluate = counted(calls, wrong, losses)
            return validation.in_stages(evaluate, TOTAL, STAGES, best, live)

        found = jax.vmap(one)(wrong, best, np.array(live))
        jax.effects_barrier()
        whole = [i for i in calls if i < TOTAL // SLICE]
        assert len(set(whole)) == min(slices, TOTAL // SLICE)
        np.testing.assert_array_equal(
            found.num_samples > 0, live, err_msg="only who is live looks"
        )


@pytest.mark.parametrize("size", [1, 2, 8, 500, 6000, 60_000])
def test_an_order_visits_every_sample_and_its_beginning_is_spread(size):
    order = validation.spread(size)
    np.testing.assert_array_equal(np.sort(order), np.arange(size))
    if size >= 500:
        tenths = np.bincount(order[:200] * 10 // size, minlength=10)
        assert tenths.min() >= 18


def sorted_by_class():
    labels = np.repeat(np.arange(4), 1500)
    inputs = np.eye(4, dtype=np.float32)[labels][:, None].repeat(10, 1)
    return lra_jax.Task.from_arrays(inputs, labels, validation=0.5)


def test_the_first_recorded_samples_are_like_the_others():
    """A part is in order of class: its first samples would be of one class."""
    task = sorted_by_class()
    first = task.validation.take(np.arange(200)).labels
    assert len(set(first.tolist())) == 1
    experiment = sweep.Experiment(
        task, build, hidden_size=8, eval_every=2, validation_stages=STAGES
    )
    params = lra_jax.init_params(jax.random.key(0), 4, 8, 4)
    always_0 = params._replace(
        w_hy=jnp.zeros_like(params.w_hy), b_y=jnp.array([1.0, 0.0, 0.0, 0.0])
    )
    found = lra_jax.member.initial(experiment, jnp.uint32(0), params=always_0)
    assert found.evaluation.num_samples == 200
    assert abs(int(found.evaluation.num_errors) - 150) < 30
    whole = lra_jax.member.validate(experiment, always_0, jnp.uint32(0))
    assert whole.num_errors == 2250
