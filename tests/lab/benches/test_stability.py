"""How long a solved task stays solved: what is trained, and what is counted."""

import dataclasses

import numpy as np
import pytest
from test_reach import BENCH

from lra_jax.lab.benches import stability
from lra_jax.lab.config import ConfigError
from lra_jax.lab.reports import results
from lra_jax.lab.runs.runner import Evaluations

ONE_SETTING = dataclasses.replace(
    BENCH,
    methods={"bptt": {"label": "BPTT", "grid": {"rule": "bptt", "lr": 0.3}}},
    num_trials=1,
    eval_every=300,
)
ROW = {
    "name": "bptt temporal_order T20",
    "task": "temporal_order",
    "method": "BPTT",
    "seq_len": 20,
    "solved": 2,
    "updates_by_seed": "600 – 900",
}


class Recorded:
    """A runner that knows what every member's evaluations would be."""

    def __init__(self, *errors):
        self.errors = errors
        self.configs = []

    def evaluations(self, config):
        self.configs.append(config)
        for found in self.errors:
            num_errors = np.array([5, *found])
            step = config.eval_every * np.arange(num_errors.size)
            yield Evaluations("solved", step, 0 * step, num_errors, 0 * step + 100)


def test_only_solved_seeds_are_trained_and_go_on():
    runner = Recorded([3, 0, 0, 0, 0, 0], [0, 0, 1, 2, 0])
    (row,) = stability.rows_of(runner, ONE_SETTING, [ROW])
    (config,) = runner.configs
    assert config.seeds == (0, 2)
    assert config.steps_after_solved == 1_000
    assert (config.task, config.seq_len) == ("temporal_order", 20)
    assert row["fraction_by_seed"] == "1.00 0.50"  # 4 evaluations in 1,000 updates
    assert (row["solved"], row["fraction"]) == (2, 0.75)
    assert "| BPTT | 75% (50%) |" in stability.page(ONE_SETTING, [row])


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([0, 0, 0, 0, 0], 1.0),
        ([0, 1, 0, 0, 0], 0.75),
        ([0, 0], 0.25),  # it diverged: what is missing counts as errors
        ([7, 8, 9], None),
    ],
)
def test_missing_evaluations_count_as_errors(errors, expected):
    config = stability.config_of(ONE_SETTING, "bptt", ROW)
    (found,) = Recorded(errors).evaluations(config)
    assert stability.fraction(found, config) == expected


def test_nothing_of_a_row_without_solved_seeds():
    runner = Recorded()
    assert [*stability.rows_of(runner, ONE_SETTING, [ROW | {"solved": 0}])] == []
    assert runner.configs == []


def test_a_bench_of_several_settings_is_refused(tmp_path):
    path = tmp_path / "b.toml"
    path.write_text(
        'tasks = ["temporal_order"]\nseq_len = [10]\nnum_trials = 2\n'
        '[methods.a]\nlabel = "A"\ngrid = { rule = "bptt", lr = [0.1, 0.2] }\n'
    )
    with pytest.raises(ConfigError, match="num_trials: expected 1"):
        stability.load(str(path))


@pytest.mark.parametrize(
    "change",
    [
        {"method": "of before"},
        {"updates_by_seed": "600 – 900 300 300 300"},
        {"updates_by_seed": None},
    ],
)
def test_a_table_of_another_version_of_the_bench_is_a_message(tmp_path, change):
    folder = tmp_path / "reach" / ONE_SETTING.name
    folder.mkdir(parents=True)
    results.write_rows(folder / "reach.csv", [ROW | change])
    with pytest.raises(ConfigError, match="has other methods"):
        stability._work(None, ONE_SETTING, tmp_path / "stability")
