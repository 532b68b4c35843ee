"""Properties of grids: nothing that a member computes depends on its neighbours."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxpr import equations

import lra_jax
from lra_jax import losses, member, sweep, tiles
from lra_jax.experiment import Experiment, streams
from lra_jax.member import Limits, Status
from lra_jax.paper.released import evaluate_released
from lra_jax.sweep import bookkeeping, loop, processes, program


def build(hyperparameters):
    rule = lra_jax.lra_diff(
        gamma=hyperparameters["gamma"],
        num_refinements=hyperparameters["num_refinements"],
        c0=1.0,
        c1=1.0,
    )
    return rule, optax.sgd(hyperparameters["lr"])


EXPERIMENT = Experiment(
    task=lra_jax.TASKS["temporal_order"],
    build=build,
    seq_len=10,
    hidden_size=16,
    batch_size=8,
    eval_every=5,
    num_validation=60,
)
LIMITS = Limits(max_steps=20, patience=0)


def hyperparameters(lr, gamma, num_refinements):
    return {
        "lr": np.asarray(lr, np.float32),
        "gamma": np.asarray(gamma, np.float32),
        "num_refinements": np.asarray(num_refinements, np.int32),
    }


ONE = jax.devices()[:1]
WIDE = {"devices": ONE, "tile_width": 100}  # all members in one tile, if they may


def run(hp, seeds, experiment=EXPERIMENT, **kwargs):
    kwargs = {"limits": LIMITS, **WIDE, **kwargs}
    return sweep.run_sweep(experiment, hp, seeds, **kwargs)


def states_of(grid, start, devices=ONE):
    return sweep.iterate_sweep(EXPERIMENT, grid, start, limits=LIMITS, devices=devices)


def rows_of(state, index):
    mine = state.curves.member == index
    return [column[mine] for column in state.curves[1:]]


def assert_same_member(a, i, b, j, exact=True):
    for x, y in zip(a.members, b.members, strict=True):
        assert x[i] == y[j]
    for x, y in zip(rows_of(a, i), rows_of(b, j), strict=True):
        if exact:
            np.testing.assert_array_equal(x, y)
        else:
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


HP = hyperparameters([0.1, 0.3, 0.03, 1.0], [1.0, 5.0, 10.0, 0.1], [1, 1, 1, 1])
SEEDS = [0, 0, 1, 2]


@pytest.fixture(scope="module")
def whole():
    return run(HP, SEEDS)


def test_every_member_is_advanced_to_its_limit_and_evaluated(whole):
    assert whole.slots.size == 4
    assert whole.runs is None
    np.testing.assert_array_equal(whole.members.status, Status.EXHAUSTED)
    np.testing.assert_array_equal(whole.members.step, 20)
    for index in range(4):
        step, train_loss, loss, errors, samples = rows_of(whole, index)
        np.testing.assert_array_equal(samples, 60)
        np.testing.assert_array_equal(step, [0, 5, 10, 15, 20])
        assert np.isnan(train_loss[0])
        assert np.isfinite(train_loss[1:]).all()
        assert np.isfinite(loss).all()
        assert whole.members.num_errors[index] == errors[-1]
        assert whole.members.best_num_errors[index] == errors.min()
        assert whole.members.best_step[index] == step[errors.argmin()]


@pytest.mark.parametrize("index", range(4))
def test_a_member_alone_equals_the_member_in_the_grid(whole, index):
    alone = run({k: v[[index]] for k, v in HP.items()}, [SEEDS[index]])
    # XLA may order sums differently for another number of members.
    assert_same_member(alone, 0, whole, index, exact=False)


def test_the_order_of_members_changes_no_bit(whole):
    order = np.array([2, 0, 3, 1])
    shuffled = run({k: v[order] for k, v in HP.items()}, np.array(SEEDS)[order])
    for place, index in enumerate(order):
        assert_same_member(shuffled, place, whole, index)


def test_fewer_slots_give_the_same_results(whole):
    chunked = run(HP, SEEDS, max_parallel=2)
    assert chunked.slots.size == 2
    for index in range(4):
        assert_same_member(chunked, index, whole, index, exact=False)


def test_a_freed_slot_is_filled_at_once_and_nothing_changes():
    """Members that end at different times leave their slots to those that wait."""
    lr = [np.nan, 0.1, np.nan, 0.2, 0.3]  # the first and third diverge
    hp = hyperparameters(lr, [1.0] * 5, [1] * 5)
    seeds = [0, 1, 2, 3, 4]
    grid = sweep.make_grid(EXPERIMENT, hp, seeds)
    start = sweep.init_sweep(grid, max_parallel=2, **WIDE)
    for state in states_of(grid, start):
        occupied = (state.slots != tiles.EMPTY).sum()
        waiting = (state.members.status == Status.PENDING).sum()
        assert occupied + waiting > 0 or state.runs is None
    np.testing.assert_array_equal(
        state.members.status == Status.DIVERGED, [True, False, True, False, False]
    )
    together = run(hp, seeds, max_parallel=4, tile_width=4)
    for index in (1, 3, 4):
        assert_same_member(state, index, together, index, exact=False)


def test_a_diverged_member_leaves_its_neighbours_bit_identical(whole):
    lr = HP["lr"].copy()
    lr[1] = 1e38
    ruined = run({**HP, "lr": lr}, SEEDS)
    assert ruined.members.status[1] == Status.DIVERGED
    assert ruined.members.step[1] < 20
    for index in (0, 2, 3):
        assert_same_member(ruined, index, whole, index)


def test_a_nan_hyperparameter_is_divergence_at_the_first_update(whole):
    gamma = HP["gamma"].copy()
    gamma[0] = np.nan
    ruined = run({**HP, "gamma": gamma}, SEEDS)
    assert ruined.members.status[0] == Status.DIVERGED
    assert ruined.members.step[0] == 0
    # Frozen where it was: the evaluation is that of the initial weights.
    assert ruined.members.num_errors[0] == whole.curves.num_errors[0]
    for index in (1, 2, 3):
        assert_same_member(ruined, index, whole, index)


def test_resuming_at_any_chunk_gives_the_same_bits(whole):
    grid = sweep.make_grid(EXPERIMENT, HP, SEEDS)
    start = sweep.init_sweep(grid, **WIDE)
    states = list(states_of(grid, start))
    assert len(states) == 4
    for state in states:
        later = list(states_of(grid, state))
        for index in range(4):
            assert_same_member([state, *later][-1], index, whole, index)


def test_one_trace_for_any_members_values_and_refinements():
    traces = []

    def counted(hyperparameters):
        traces.append(None)
        return build(hyperparameters)

    experiment = dataclasses.replace(EXPERIMENT, build=counted)
    hp = hyperparameters([0.1, 0.2, 0.1, 0.2], [1.0, 1.0, 2.0, 2.0], [1, 1, 4, 4])
    state = run(hp, [0, 0, 1, 1], experiment)
    np.testing.assert_array_equal(state.members.status, Status.EXHAUSTED)
    assert len(traces) == 2  # one of `start`, one of `chunk`


def test_members_of_different_k_have_tiles_of_their_own():
    hp = hyperparameters([0.1] * 3, [1.0] * 3, [3, 1, 3])
    grid = sweep.make_grid(EXPERIMENT, hp, [0, 0, 1])
    np.testing.assert_array_equal(grid.kind, [1, 0, 1])
    start = sweep.init_sweep(grid, **WIDE)
    assert start.slots.shape == (2, 2)
    first = next(iter(states_of(grid, start)))
    np.testing.assert_array_equal(first.slots, [[1, tiles.EMPTY], [0, 2]])
    shared = grid.arguments(first.slots).shared
    np.testing.assert_array_equal(shared["num_refinements"], [1, 3])
    # K reaches the loop as one scalar: the condition of a batched bound would be a
    # `reduce_or`, and would run every member to the largest K.
    compiled = sweep.make_program(EXPERIMENT, tuple(ONE))
    conditions = [
        str(equation.params["cond_jaxpr"])
        for equation in equations(
            compiled.chunk,
            LIMITS,
            np.ones(2, bool),
            grid.arguments(first.slots),
            sweep.run_shapes(EXPERIMENT, grid, first.slots),
        )
        if equation.primitive.name == "while"
    ]
    assert len(conditions) >= 2  # the top target's loop, and the others'
    assert not any("reduce_or" in condition for condition in conditions)


def test_members_of_a_seed_share_weights_data_and_validation_set():
    hp = hyperparameters([0.0] * 4, [1.0, 7.0, 1.0, 1.0], [1] * 4)
    state = run(hp, [3, 3, 4, 5])
    same, different = rows_of(state, 0), rows_of(state, 2)
    for x, y in zip(same, rows_of(state, 1), strict=True):
        np.testing.assert_array_equal(x, y)
    # With lr = 0 the training loss shows the data, the others weights and validation.
    assert not np.allclose(same[1][1:], different[1][1:])
    assert not np.allclose(same[2], different[2])
    assert len(set(same[1][1:].tolist())) == 4  # fresh data at every step


@pytest.mark.parametrize("evaluate", [lra_jax.evaluate, evaluate_released])
def test_validation_is_the_fixed_set_in_slices(evaluate):
    experiment = dataclasses.replace(EXPERIMENT, num_validation=500, evaluate=evaluate)
    seed = jnp.uint32(5)
    params = lra_jax.init_params(jax.random.key(0), 6, 16, 4)
    key = jax.random.fold_in(jax.random.key(5, impl="threefry2x32"), 3)
    errors, loss = 0, 0.0
    sample = jax.jit(experiment.task.sample, static_argnums=(1, 2))
    for index, size in enumerate((200, 200, 100)):
        batch = sample(jax.random.fold_in(key, index), size, 10)
        metrics = jax.jit(evaluate)(params, batch)
        errors += int(metrics.num_errors)
        loss += float(metrics.loss) * size / 500
    found = jax.jit(lambda p: member.validate(experiment, p, seed))(params)
    assert int(found.num_errors) == errors
    np.testing.assert_allclose(found.loss, loss, rtol=1e-5)


@functools.cache  # the programs are compiled once
def _never_wrong(num_wrong):
    """An output loss that counts the first `num_wrong` samples of a batch as errors."""
    return losses.cross_entropy._replace(
        is_error=lambda logits, labels: jnp.arange(labels.shape[0]) < num_wrong
    )


def _with_errors(num_wrong):
    task = dataclasses.replace(EXPERIMENT.task, output_loss=_never_wrong(num_wrong))
    return dataclasses.replace(EXPERIMENT, task=task)


def test_no_error_solves_but_not_before_the_first_update():
    state = run({k: v[:1] for k, v in HP.items()}, [0], _with_errors(0))
    assert state.members.status[0] == Status.SOLVED
    assert state.members.step[0] == 5
    np.testing.assert_array_equal(state.curves.step, [0, 5])


@pytest.mark.parametrize(
    ("limits", "status", "step"),
    [
        (Limits(max_steps=1000, patience=3), Status.STALLED, 15),
        (Limits(max_steps=12, patience=0), Status.EXHAUSTED, 12),
        (Limits(max_steps=12, patience=3), Status.STALLED, 12),
        (Limits(max_steps=10, patience=3), Status.EXHAUSTED, 10),
    ],
)
def test_patience_and_maximum_steps_end_a_member(limits, status, step):
    hp = {k: v[:1] for k, v in HP.items()}
    state = run(hp, [0], _with_errors(1), limits=limits)
    assert state.members.status[0] == status
    assert state.members.step[0] == step


@pytest.mark.parametrize(("more", "step"), [(0, 5), (1, 5), (5, 5), (6, 10), (12, 15)])
def test_a_solved_member_goes_on_for_as_long_as_is_asked(more, step):
    limits = Limits(max_steps=5, patience=1, steps_after_solved=more)
    state = run({k: v[:1] for k, v in HP.items()}, [0], _with_errors(0), limits=limits)
    assert state.members.status[0] == Status.SOLVED
    assert (state.members.step[0], state.members.best_step[0]) == (step, 0)
    np.testing.assert_array_equal(state.curves.step, np.arange(0, step + 1, 5))


def test_only_a_solved_member_goes_on():
    hp = {k: v[:1] for k, v in HP.items()}
    limits = Limits(max_steps=10, patience=0, steps_after_solved=100)
    state = run(hp, [0], _with_errors(1), limits=limits)
    assert state.members.status[0] == Status.EXHAUSTED
    assert state.members.step[0] == 10


def test_arrays_of_the_wrong_length_are_named():
    with pytest.raises(ValueError, match=r"gamma: expected one value per member"):
        run({**HP, "gamma": HP["gamma"][:2]}, SEEDS)
    with pytest.raises(
        ValueError, match="max_parallel: expected an integer of at least 1, got 0"
    ):
        run(HP, SEEDS, max_parallel=0)


MANY = 13


@pytest.fixture(scope="module")
def many():
    """Members of three K, some of which diverge at once, and their run in one tile."""
    rng = np.random.default_rng(0)
    lr = np.where(np.arange(MANY) % 4 == 1, np.nan, rng.uniform(0.03, 1, MANY))
    hp = hyperparameters(lr, rng.uniform(0.1, 10, MANY), rng.integers(1, 4, MANY))
    return hp, np.arange(MANY) % 5, run(hp, np.arange(MANY) % 5)


@pytest.mark.parametrize(
    ("num_devices", "max_parallel", "tile_width"),
    [(8, None, None), (3, 5, 2)],
)
def test_devices_tiles_and_rounds_do_not_change_a_member(
    many, num_devices, max_parallel, tile_width
):
    hp, seeds, expected = many
    found = run(
        hp,
        seeds,
        devices=jax.devices()[:num_devices],
        max_parallel=max_parallel,
        tile_width=tile_width,
    )
    # Tiles of another width may take sums in another order.
    for index in range(MANY):
        assert_same_member(found, index, expected, index, exact=False)


def test_one_and_eight_devices_agree_to_the_bit(many):
    hp, seeds, _ = many
    one, eight = (
        run(hp, seeds, devices=jax.devices()[:n], max_parallel=8, tile_width=1)
        for n in (1, 8)
    )
    for index in range(MANY):
        assert_same_member(one, index, eight, index)


def test_a_sweep_goes_on_with_another_number_of_devices(many):
    hp, seeds, _ = many
    grid = sweep.make_grid(EXPERIMENT, hp, seeds)
    start = sweep.init_sweep(grid, max_parallel=6, tile_width=2, devices=ONE)
    whole = list(states_of(grid, start))[-1]
    two_chunks = next(iter(states_of(grid, next(iter(states_of(grid, start))))))
    later = list(states_of(grid, two_chunks, jax.devices()))[-1]
    for index in range(MANY):
        assert_same_member(later, index, whole, index)


def test_an_empty_tile_is_not_computed():
    """Its branch of the program has no update in it."""
    hp = hyperparameters([0.1] * 2, [1.0] * 2, [1, 1])
    grid = sweep.make_grid(EXPERIMENT, hp, [0, 1])
    start = sweep.init_sweep(grid, tile_width=1, devices=ONE)
    state = next(iter(states_of(grid, start)))
    compiled = sweep.make_program(EXPERIMENT, tuple(ONE))
    runs, check = compiled.chunk(
        LIMITS, np.array([True, False]), grid.arguments(state.slots), state.runs
    )
    np.testing.assert_array_equal(runs.train.step[:, 0], [10, 5])
    np.testing.assert_array_equal(check.loss[1], 0)
    np.testing.assert_array_equal(
        runs.train.params.w_hh[1], state.runs.train.params.w_hh[1]
    )
    assert not np.array_equal(
        runs.train.params.w_hh[0], state.runs.train.params.w_hh[0]
    )


def test_out_of_memory_halves_the_tiles_and_loses_nothing(many, monkeypatch):
    hp, seeds, expected = many
    compiled = sweep.make_program(EXPERIMENT, tuple(ONE))
    widths = []

    def small(limits, used, arguments, runs):
        widths.append(arguments.seeds.shape[1])
        if arguments.seeds.shape[1] > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return compiled.chunk(limits, used, arguments, runs)

    monkeypatch.setattr(
        program, "make_program", lambda *_: compiled._replace(chunk=small)
    )
    found = run(hp, seeds, max_parallel=7, tile_width=5)
    assert widths[:3] == [5, 3, 2]
    assert set(widths[3:]) == {2}
    for index in range(MANY):
        assert_same_member(found, index, expected, index, exact=False)

    def never(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(
        program, "make_program", lambda *_: compiled._replace(chunk=never)
    )
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        run(hp, seeds, tile_width=5)


# Races.


def end_of_race(race, **kwargs):
    """Members 0 and 1 learn; 2 and 3 have no rate. A member is solved at chance."""
    easy = dataclasses.replace(EXPERIMENT, num_validation=1, eval_every=1)
    hp = hyperparameters([0.5, 0.5, 0.0, 0.0], [10.0] * 4, [1] * 4)
    grid = sweep.make_grid(easy, hp, [0, 1, 0, 1])._replace(race=race)
    start = sweep.init_sweep(grid, devices=ONE, **kwargs)
    yield from sweep.iterate_sweep(easy, grid, start, limits=Limits(40, 0), devices=ONE)


@pytest.mark.parametrize("max_parallel", [4, 1])
def test_the_first_solved_member_of_a_race_ends_the_others(max_parallel):
    race = np.array([0, 1, 0, 1])
    *_, last = end_of_race(race, max_parallel=max_parallel, tile_width=max_parallel)
    status = last.members.status
    for number in (0, 1):
        mine = status[race == number]
        assert (mine == Status.SOLVED).any()
        assert np.isin(mine, [Status.SOLVED, Status.OUTRUN]).all()
    assert (last.slots == tiles.EMPTY).all()
    assert last.runs is None


def test_a_member_that_waits_when_its_race_is_won_never_starts():
    *_, last = end_of_race(np.zeros(4, int), max_parallel=1, tile_width=1)
    winner = np.flatnonzero(last.members.status == Status.SOLVED)
    assert winner.tolist() == [0]
    assert last.members.status[1:].tolist() == [Status.OUTRUN] * 3
    assert last.members.step[1:].tolist() == [0] * 3
    assert set(last.curves.member.tolist()) == {0}


def test_a_race_does_not_change_what_its_winner_computes():
    race = np.array([0, 1, 0, 1])
    *_, alone = end_of_race(None, tile_width=4)
    *_, raced = end_of_race(race, tile_width=4)
    for index in np.flatnonzero(raced.members.status == Status.SOLVED):
        assert_same_member(alone, index, raced, index)
    steps = alone.members.step
    for index in np.flatnonzero(raced.members.status == Status.OUTRUN):
        winners = (race == race[index]) & (raced.members.status == Status.SOLVED)
        assert raced.members.step[index] <= steps[winners].min()


def test_a_callback_sees_every_chunk_and_the_last_weights():
    seen, weights = [], {}

    def on_chunk(state, ended):
        seen.append((int(state.members.step.sum()), sorted(ended)))
        weights.update(ended)

    limits = Limits(max_steps=10, patience=0)
    options = {"limits": limits, "max_parallel": 2, "tile_width": 2, "devices": ONE}
    last = sweep.run_sweep(EXPERIMENT, HP, SEEDS, on_chunk=on_chunk, **options)
    # Two at once, ten updates each in two chunks; one of them may diverge earlier.
    assert seen == [(10, []), (20, [0, 1]), (30, []), (40, [2, 3])]
    assert set(last.members.status) == {Status.EXHAUSTED}
    check = jax.jit(functools.partial(member.validate, EXPERIMENT))
    for index, params in weights.items():
        assert all(isinstance(x, np.ndarray) for x in params)
        found = check(lra_jax.Params(*params), jnp.uint32(SEEDS[index]))
        assert found.num_errors == last.members.num_errors[index]
        np.testing.assert_allclose(found.loss, rows_of(last, index)[2][-1], rtol=1e-5)


def num_errors_of(params, experiment=EXPERIMENT, seeds=SEEDS):
    """Of each member's weights, on its seed's validation set."""
    check = jax.jit(functools.partial(member.validate, experiment))
    return [
        int(
            check(
                jax.tree.map(lambda x, i=i: x[i], params), jnp.uint32(seed)
            ).num_errors
        )
        for i, seed in enumerate(seeds)
    ]


# Members that get better, and worse again; the last one diverges at once.
ROUGH = {**HP, "lr": np.array([0.5, 0.5, 1.5, np.nan], np.float32)}


@pytest.fixture(scope="module")
def kept():
    return {
        which: run(ROUGH, SEEDS, keep_params=which) for which in (None, "last", "best")
    }


def test_kept_weights_have_the_errors_that_were_recorded(kept):
    members = kept["best"].members
    best, last = kept["best"].params, kept["last"].params
    assert isinstance(best, lra_jax.Params)
    for values in (*best, *last):
        assert isinstance(values, np.ndarray)
        assert len(values) == 4
    assert num_errors_of(best) == members.best_num_errors.tolist()
    assert num_errors_of(last) == members.num_errors.tolist()
    # The two are not the same: some were better before, at an evaluation of their own.
    np.testing.assert_array_equal(members.best_step, [20, 15, 5, 0])
    np.testing.assert_array_equal(members.step, [20, 20, 20, 0])
    assert (members.num_errors > members.best_num_errors).tolist() == [0, 1, 1, 0]
    for index in range(4):
        same = np.array_equal(best.w_hh[index], last.w_hh[index])
        assert same == (members.best_step[index] == members.step[index])


def test_keeping_weights_changes_nothing_else(kept):
    assert kept[None].params is None
    for which in ("last", "best"):
        for index in range(4):
            assert_same_member(kept[which], index, kept[None], index)


def test_the_best_weights_may_be_the_initial_ones(kept):
    # It diverges at its first update, and stays where it was.
    assert kept["best"].members.status[3] == Status.DIVERGED
    initial = member.initial(EXPERIMENT, jnp.uint32(SEEDS[3])).params
    for which in ("last", "best"):
        np.testing.assert_allclose(kept[which].params.w_xh[3], initial.w_xh, rtol=1e-6)


@pytest.mark.parametrize("which", ["last", "best"])
def test_weights_are_kept_of_members_that_wait_and_move(which):
    """Three slots on three devices for four members, of which one ends at once."""
    options = {"max_parallel": 2, "tile_width": 1, "devices": jax.devices()[:3]}
    order = [3, 0, 1, 2]
    hp, seeds = {k: v[order] for k, v in ROUGH.items()}, np.array(SEEDS)[order]
    moved = run(hp, seeds, keep_params=which, **options)
    name = "num_errors" if which == "last" else "best_num_errors"
    errors = getattr(moved.members, name)
    assert num_errors_of(moved.params, seeds=seeds) == errors.tolist()
    assert len(set(errors.tolist())) == 4  # no weights are those of another member


@pytest.mark.parametrize("which", ["last", "best"])
def test_weights_of_a_race_are_kept_and_nan_where_none_began(which, monkeypatch):
    easy = dataclasses.replace(EXPERIMENT, num_validation=1, eval_every=1)
    hp = hyperparameters([0.5, 0.5, 0.0], [10.0] * 3, [1] * 3)
    race, made = np.array([0, 1, 0]), loop.make_grid
    monkeypatch.setattr(loop, "make_grid", lambda *a: made(*a)._replace(race=race))
    options = {"limits": Limits(40, 0), "max_parallel": 1, "tile_width": 1}
    raced = run(hp, [0, 1, 0], easy, keep_params=which, **options)
    # One slot: the third one's race was won before its turn came.
    solved, outrun = Status.SOLVED, Status.OUTRUN
    np.testing.assert_array_equal(raced.members.status, [solved, solved, outrun])
    assert raced.members.num_errors[2] == -1
    for values in raced.params:
        assert np.isfinite(values[:2]).all()
        assert np.isnan(values[2]).all()
    began = jax.tree.map(lambda x: x[:2], raced.params)
    assert num_errors_of(began, easy, [0, 1]) == [0, 0]


@pytest.mark.parametrize("which", [True, "", "first", 0])
def test_what_cannot_be_kept_is_named(which):
    text = f"keep_params: expected None, 'last' or 'best', got {which!r}"
    with pytest.raises(ValueError, match=text):
        run(HP, SEEDS, keep_params=which)


def test_curves_grow_without_being_copied_and_stay_as_they_were():
    def rows(*members):
        n = len(members)
        return sweep.Curves(
            np.array(members, np.int32), *(np.zeros(n, t) for t in (*"iffii",))
        )

    history = bookkeeping.History(rows(7))
    states, moves = [history.extend(rows())], 0
    for index in range(1000):
        before = history._columns.member
        states.append(history.extend(rows(index, index)))
        moves += history._columns.member is not before
    assert moves == 11  # their room is doubled, from 1 row to more than 2,001
    expected = [7, *np.repeat(np.arange(1000), 2)]
    for number, state in enumerate(states):
        np.testing.assert_array_equal(state.member, expected[: 1 + 2 * number])
    assert [column.dtype.char for column in states[-1]] == [*"iiffii"]
    with pytest.raises(ValueError, match="read-only"):
        states[3].member[0] = 1
    # Who goes on from an earlier state disturbs nobody.
    again = bookkeeping.History(states[3])
    np.testing.assert_array_equal(again.extend(rows(9)).member[-3:], [2, 2, 9])
    np.testing.assert_array_equal(states[-1].member, expected)


def network_experiment(network, names=(), rule=lra_jax.bptt):
    def build(numbers):
        made = network(numbers) if callable(network) else network
        return rule(network=made), optax.sgd(numbers["lr"])

    return dataclasses.replace(
        EXPERIMENT, build=build, network=network, network_numbers=names, hidden_size=6
    )


def test_another_network_is_trained_as_a_loop_by_hand_does():
    network = lra_jax.networks.gru()
    experiment = network_experiment(network)
    state = run({"lr": [0.5, 0.1]}, [3, 4], experiment, keep_params="last")
    assert state.params.cell.w_hh.shape == (2, 6, 18)
    seed = jnp.uint32(4)
    keys = streams(seed)
    rule, optimizer = experiment.build({"lr": jnp.float32(0.1)})
    params = lra_jax.init_params(keys.params, 6, 6, 4, network=network)
    one = lra_jax.init_train_state(keys.rule, params, rule, optimizer)
    step = jax.jit(
        functools.partial(lra_jax.train_step, rule=rule, optimizer=optimizer)
    )
    for i in range(20):
        key = jax.random.fold_in(keys.data, i)
        one, _ = step(one, experiment.task.sample(key, 8, 10))
    for kept, own in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(one.params), strict=True
    ):
        np.testing.assert_allclose(kept[1], own, rtol=1e-4, atol=1e-6)
    assert np.abs(one.params.cell.w_hh - params.cell.w_hh).max() > 1e-4
    found = lra_jax.evaluate(
        jax.tree.map(lambda x: x[1], state.params),
        experiment.task.sample(jax.random.key(9), 50, 10),
        network=network,
    )
    assert np.isfinite(found.loss)


def leaky_of(numbers):
    return lra_jax.networks.leaky(
        alpha=numbers["alpha"], w_hh_gain=numbers["w_hh_gain"]
    )


def test_members_of_one_seed_and_of_equal_networks_start_from_the_same_weights():
    names = ("alpha", "w_hh_gain")
    experiment = network_experiment(leaky_of, names)
    hp = {
        "lr": [0.0, 1.0, 0.0, 0.0],
        "alpha": np.array([0.5, 0.5, 0.5, 0.9], np.float32),
        "w_hh_gain": np.array([1.0, 1.0, 2.0, 1.0], np.float32),
    }
    grid = sweep.make_grid(experiment, hp, [7] * 4)
    compiled = program.make_program(experiment, tuple(ONE))
    seeds = bookkeeping.evaluate_seeds(
        compiled, grid, np.arange(4), np.zeros(0, int), names
    )
    assert seeds.row[0] == seeds.row[1]
    assert len(set(seeds.row.tolist())) == 3
    w_hh = np.asarray(seeds.initial.params.cell.w_hh)[seeds.row]
    np.testing.assert_array_equal(w_hh[0], w_hh[3])
    np.testing.assert_allclose(w_hh[2], 2 * w_hh[0], rtol=1e-6)
    # alpha alone changes no weight, but what they are worth.
    loss = seeds.evaluation.loss[seeds.row]
    assert loss[0] == loss[1]
    assert len(set(loss.tolist())) == 3
    state = run(hp, [7] * 4, experiment, limits=Limits(5, 0))
    first = [rows_of(state, i)[2] for i in range(4)]
    np.testing.assert_allclose([x[0] for x in first], loss, rtol=1e-6)
    for i in (
        0,
        2,
        3,
    ):  # nothing is learned: the second evaluation uses the numbers too
        np.testing.assert_allclose(first[i][1], loss[i], rtol=1e-5)
    assert abs(first[1][1] - loss[1]) > 1e-4


def test_a_number_of_a_network_has_to_be_a_hyper_parameter():
    experiment = network_experiment(leaky_of, ("alpha", "w_hh_gain"))
    with pytest.raises(ValueError, match="got 'w_hh_gain'; did you mean 'w_hh_gian'"):
        sweep.make_grid(experiment, {"alpha": [0.1], "w_hh_gian": [1.0]}, [0])


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"network": "gru"}, "expected one of lra_jax.networks"),
        ({"network": lra_jax.networks.leaky(noise=np.ones(()))}, "arrays in it"),
        ({"network_numbers": "alpha"}, "network_numbers: expected a tuple of names"),
    ],
)
def test_a_network_of_an_experiment_is_checked(wrong, text):
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(EXPERIMENT, **wrong)


@pytest.fixture
def drawn(monkeypatch):
    """The blocks of initial weights that a sweep draws."""
    blocks, real = [], bookkeeping.evaluate_seeds

    def noted(*arguments):
        blocks.append(real(*arguments))
        return blocks[-1]

    monkeypatch.setattr(bookkeeping, "evaluate_seeds", noted)
    return blocks


@pytest.mark.parametrize(("most", "sizes"), [(1, [1, 1, 1]), (2, [2, 1])])
def test_initial_weights_in_blocks_are_the_same_weights(
    most, sizes, drawn, monkeypatch
):
    options = {"max_parallel": 1, "keep_params": "best"}
    whole = run(HP, SEEDS, **options)
    drawn.clear()
    weight_bytes = sweep.make_grid(EXPERIMENT, HP, SEEDS).weight_bytes
    monkeypatch.setattr(bookkeeping, "INITIAL_BYTES", most * weight_bytes)
    found = run(HP, SEEDS, **options)
    # Members 0 and 1 have the same seed.
    assert [len(each.evaluation.loss) for each in drawn] == sizes
    for index in range(4):
        assert_same_member(found, index, whole, index)
    for one, other in zip(
        jax.tree.leaves(found.params), jax.tree.leaves(whole.params), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_sweep_that_goes_on_draws_the_seeds_that_wait_alone(drawn):
    grid = sweep.make_grid(EXPERIMENT, HP, SEEDS)
    start = sweep.init_sweep(grid, max_parallel=1, devices=ONE)
    for state in states_of(grid, start):
        if (state.members.status == Status.PENDING).sum() == 1:
            break
    drawn.clear()
    for _ in states_of(grid, state):
        pass
    (found,) = drawn
    assert found.row.tolist() == [-1, -1, -1, 0]


@pytest.mark.parametrize("count", [4, 3])
def test_a_state_that_goes_on_is_divided_among_devices_from_the_start(count):
    if jax.device_count() < 2:
        pytest.skip("one device")
    mesh = processes.make_mesh(tuple(jax.devices()[:2]))
    runs = {"w": np.zeros((count, 2, 5)), "empty": np.zeros((count, 2, 0))}
    spread = processes.spread(runs, mesh)
    on_one = spread["w"].addressable_shards[0].data.shape[0]
    assert on_one == (2 if count == 4 else 3)
    assert spread["empty"].is_fully_replicated
