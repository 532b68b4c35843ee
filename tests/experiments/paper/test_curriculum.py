"""Growing T with the same weights."""

import json

import jax
import numpy as np
import pytest

from experiments.paper import curriculum
from lra_jax import member, sweep, tiles, types
from lra_jax.lab import config as config_lib
from lra_jax.lab.runs import groups
from lra_jax.member import Limits, Status

pytestmark = pytest.mark.end_to_end

LIMITS = Limits(max_steps=10, patience=0)


def config(seq_len, **settings):
    raw = {
        "name": "test",
        "task": "temporal_order",
        "rule": "bptt",
        "hidden_size": 16,
        "batch_size": 8,
        "num_validation": 40,
        "eval_every": 5,
        "max_steps": 10,
        "patience": 0,
        "seeds": [0, 3],
        **settings,
    }
    grid = {"lr": [0.1, 0.3], "seq_len": [seq_len]}
    return config_lib.resolve({**raw, "grid": grid}, "test")


def group(seq_len, **settings):
    (found,) = groups.make_groups(config(seq_len, **settings))
    return found


def test_from_fresh_weights_it_is_the_sweep():
    found = group(10)
    status, step, params = curriculum.train_from(
        found.experiment, found.grid, LIMITS, None
    )
    numbers = {**found.grid.mapped, **found.grid.shared}
    swept = sweep.run_sweep(
        found.experiment, numbers, found.grid.seeds, limits=LIMITS
    ).members
    np.testing.assert_array_equal(status, swept.status)
    np.testing.assert_array_equal(step, swept.step)
    for i, seed in enumerate(found.grid.seeds):
        mine = jax.tree.map(lambda x, i=i: x[i], params)
        metrics = member.validate(found.experiment, mine, seed)
        assert metrics.num_errors == swept.num_errors[i]


@pytest.mark.parametrize("rows", [None, 1])
def test_nobody_is_lost_where_kinds_do_not_fill_their_tiles(monkeypatch, rows):
    """Members of 5 + 5 + 3 with different K, and too few slots for all at once."""
    sizes, width = (5, 5, 3), 4
    kind = np.repeat(np.arange(3), sizes)
    seeds = np.arange(100, 113)
    grid = sweep.Grid({}, {}, seeds.astype(np.uint32), kind)
    waves = []

    class Program:
        """Counts its members' updates; nothing is compiled."""

        @staticmethod
        def start(arguments, initial, row, fresh, runs):
            waves.append(arguments.seeds)
            running = np.full(row.shape, Status.RUNNING)
            step = np.zeros(row.shape, int)
            return member.RunState(
                train_state(step, initial[row]), running, None, None, None, None
            )

        @staticmethod
        def chunk(limits, used, arguments, runs):
            status = np.full_like(runs.status, Status.SOLVED)
            train = train_state(arguments.seeds, runs.train.params)
            return runs._replace(train=train, status=status), None

    def train_state(step, params):
        return types.TrainState(params, None, None, None, step)

    slots = tiles.make(kind, 1, None, width)
    empty = sweep.init_sweep(grid)._replace(slots=slots[:rows])
    monkeypatch.setattr(curriculum.jax, "devices", lambda: ["one"])
    monkeypatch.setattr(sweep, "make_program", lambda *_: Program)
    monkeypatch.setattr(sweep, "init_sweep", lambda _: empty)
    monkeypatch.setattr(curriculum, "_initial", lambda e, seeds, p: 2 * seeds)
    status, step, params = curriculum.train_from(None, grid, LIMITS, None)
    np.testing.assert_array_equal(status, [Status.SOLVED] * 13)
    np.testing.assert_array_equal(step, seeds)
    np.testing.assert_array_equal(params, 2 * seeds)
    assert len(waves) == (5 if rows else 1)


def test_going_on_is_training_longer():
    """10 updates and then 10 more from these weights; sgd has no state but data do."""
    found = group(10)
    _, _, half = curriculum.train_from(found.experiment, found.grid, LIMITS, None)
    again = curriculum.train_from(found.experiment, found.grid, LIMITS, half)
    still = curriculum.train_from(
        found.experiment, found.grid, Limits(max_steps=5, patience=0), half
    )
    for before, after, less in zip(half, again[2], still[2], strict=True):
        assert np.all(np.isfinite(after))
        assert not np.array_equal(before, after)
        assert not np.array_equal(less, after)


def test_only_solved_members_go_on_with_their_weights(monkeypatch):
    seen = []

    def train(experiment, grid, limits, params):
        seen.append((experiment.seq_len, grid.seeds.tolist(), params))
        n = grid.seeds.size
        status = np.full(n, Status.EXHAUSTED)
        status[grid.mapped["lr"] > 0.2] = Status.SOLVED
        if experiment.seq_len == 30:
            status[:] = Status.STALLED
        weights = np.arange(n) + 100.0 * experiment.seq_len
        return status, np.full(n, 7), weights

    monkeypatch.setattr(curriculum, "train_from", train)
    found = curriculum.grow_lengths(config, (10, 20, 30, 40))
    assert [t for t, *_ in seen] == [10, 20, 30]
    assert [seeds for _, seeds, _ in seen] == [[0, 3, 0, 3], [0, 3], [0, 3]]
    assert seen[0][2] is None
    np.testing.assert_array_equal(seen[1][2], [1002, 1003])
    np.testing.assert_array_equal(seen[2][2], [2000, 2001])
    assert found[20] == [
        {"seed": 0, "setting": 1, "updates": 7, "solved": 1},
        {"seed": 3, "setting": 1, "updates": 7, "solved": 1},
    ]
    assert [row["solved"] for row in found[10]] == [0, 0, 1, 1]


def test_what_is_kept_between_lengths_goes_on_as_if_nothing_had_been(monkeypatch):
    """Every bit of the weights; and what has ended is not tried again."""
    trained = []

    def train(experiment, grid, limits, params):
        trained.append((experiment.seq_len, grid.seeds.tolist(), params))
        n = grid.seeds.size
        status = np.full(n, Status.SOLVED)
        status[0] = Status.EXHAUSTED
        weights = types.Params(
            *(np.float32(experiment.seq_len) / np.arange(3, 3 + n, dtype=np.float32),)
            * 5
        )
        return status, np.full(n, 7), weights

    monkeypatch.setattr(curriculum, "train_from", train)
    kept = []
    lengths = (10, 20, 30, 40, 50)
    whole = curriculum.grow_lengths(
        config, lengths, keep=lambda grown: kept.append(json.dumps(grown.to_json()))
    )
    assert [*whole] == [10, 20, 30, 40]  # then nobody is left
    first, trained[:] = list(trained), []
    for done, text in enumerate(kept, 1):
        begun = curriculum.Grown.from_json(json.loads(text))
        assert curriculum.grow_lengths(config, lengths, begun=begun) == whole
        assert [t[:2] for t in trained] == [t[:2] for t in first[done:]]
        for (_, _, mine), (_, _, other) in zip(trained, first[done:], strict=True):
            jax.tree.map(np.testing.assert_array_equal, mine, other)
            assert mine.w_hh.dtype == np.float32
        trained.clear()


@pytest.mark.parametrize("seq_len", [10, 12])
def test_a_network_is_evaluated_before_it_goes_on(seq_len):
    """The carried weights set the best number of errors, and cannot solve."""
    found = group(seq_len)
    params = jax.vmap(lambda s: member.initial(found.experiment, s).params)(
        jax.numpy.asarray(found.grid.seeds)
    )
    initial = curriculum._initial(found.experiment, found.grid.seeds, params)
    for i, seed in enumerate(found.grid.seeds):
        mine = jax.tree.map(lambda x, i=i: x[i], params)
        errors = member.validate(found.experiment, mine, seed).num_errors
        assert initial.evaluation.num_errors[i] == errors
