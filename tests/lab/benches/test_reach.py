"""The bench of reach: who is tried, what is chosen, and what is counted."""

import copy
import dataclasses
import errno
import os
import pathlib

import pytest
from command_line import call

from lra_jax.lab.benches import bench, bench_figures, costs, reach
from lra_jax.lab.benches import bench as bench_lib
from lra_jax.lab.config import ConfigError, extensions
from lra_jax.lab.reports import results

BENCH = reach.Bench(
    name="b",
    tasks=["temporal_order"],
    seq_len=[10, 20, 30],
    methods={
        "bptt": {
            "label": "BPTT",
            "published": "bptt",
            "grid": {"rule": "bptt", "lr": [0.3, 0.1]},
        },
    },
    seeds=[0, 1, 2],
    required=2,
    num_trials=2,
)


class Trained:
    """A runner that knows what every run would give."""

    def __init__(self, outcomes):
        self.outcomes = outcomes  # by name of the run: (status, step) of each member
        self.configs = {}

    def rows(self, config):
        self.configs[config.name] = config
        return [
            {"member": i, "status": status, "step": step, "best_accuracy": 0.99996}
            for i, (status, step) in enumerate(self.outcomes[config.name])
        ]


def test_most_tuning_seeds_count_before_few_updates():
    lost, name = ("exhausted", 9), "bptt.temporal_order.T10"
    tuning = [("solved", 1), lost, ("solved", 5), ("solved", 7)]
    runner = Trained({f"{name}.tuning": tuning, name: [lost] * 3})
    trial = reach.try_length(runner, BENCH, "bptt", "temporal_order", 10)
    assert trial.setting["lr"] == 0.1
    (grid,) = runner.configs[name].grid
    assert grid["lr"] == (0.1,)
    assert runner.configs[name].seeds == (0, 1, 2)
    assert runner.configs[f"{name}.tuning"].seeds == (100, 101)
    assert runner.configs[f"{name}.tuning"].race


def test_a_method_goes_on_while_enough_new_seeds_are_solved():
    won, lost, name = ("solved", 5), ("outrun", 5), "bptt.temporal_order.T"
    runner = Trained(
        {
            f"{name}10.tuning": [won, lost, lost, lost],
            f"{name}10": [won, won, lost],
            f"{name}20.tuning": [lost, lost, won, lost],
            f"{name}20": [won, lost, lost],
        }
    )
    found = reach.reach(runner, BENCH, "bptt", "temporal_order")
    assert reach.longest(BENCH, found) == 10
    rows = [*reach.rows_of(BENCH, "bptt", "temporal_order", found)]
    assert [(row["seq_len"], row["solved"]) for row in rows] == [(10, 2), (20, 1)]
    assert [row["published_reach"] for row in rows] == [120, 120]
    assert "lr 0.3" in rows[0]["setting"]
    assert "lr 0.1" in rows[1]["setting"]


def test_a_method_and_a_bench_name_networks():
    grid = {"rule": "bptt", "lr": [0.3, 0.1], "network": "leaky", "alpha": 0.5}
    methods = BENCH.methods | {"leaky": {"label": "leaky", "grid": grid}}
    bench = dataclasses.replace(BENCH, methods=methods, network="gru", num_layers=2)
    assert [*reach._contradictions(bench)] == []
    lost, name = ("exhausted", 9), "leaky.temporal_order.T10"
    found = [("solved", 5)] * 2 + [lost] * 2
    runner = Trained({f"{name}.tuning": found, name: [lost] * 3})
    trial = reach.try_length(runner, bench, "leaky", "temporal_order", 10)
    settings = {k: trial.setting[k] for k in ("network", "num_layers", "alpha", "lr")}
    assert settings == {"network": "leaky", "num_layers": 2, "alpha": 0.5, "lr": 0.3}
    (table,) = runner.configs[name].grid
    assert (table["network"], table["alpha"]) == (("leaky",), (0.5,))
    other = next(bench.tuning("bptt", "temporal_order", 10).members())
    assert (other["network"], other["num_layers"]) == ("gru", 2)
    grid["alpha"] = 2
    (problem,) = reach._contradictions(bench)
    assert "methods.leaky: grid.alpha = 2: expected a number from 0 to 1" in problem
    # The paper's network is not spoken of.
    plain = next(BENCH.tuning("bptt", "temporal_order", 10).members())
    assert "network" not in plain


def test_where_no_setting_solves_a_tuning_seed_nothing_is_counted():
    runner = Trained({"bptt.temporal_order.T10.tuning": [("exhausted", 9)] * 4})
    found = reach.reach(runner, BENCH, "bptt", "temporal_order")
    assert found == {10: reach.Trial(None, [])}
    assert reach.longest(BENCH, found) == 0


REFUSED = {"rule": "tpri", "network": "gru", "lr": [1, 2]}
GOOD = {
    "name": "b",
    "tasks": ["temporal_order"],
    "seq_len": [10, 20],
    "num_trials": 2,
    "methods": BENCH.methods,
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seeds": 5}, "seeds = 5: expected a list of integers"),
        ({"seqlen": [10]}, "did you mean 'seq_len'?"),
        ({"tasks": None}, "tasks: missing"),
        ({"seq_len": [20, 10]}, "expected increasing lengths"),
        ({"required": 6}, "expected 1 to 5 seeds"),
        ({"tuning_seeds": [4, 100]}, "[4] are among seeds"),
        ({"num_trials": 3}, "methods.bptt: 2 settings; num_trials is 3"),
        ({"methods": {"x": {"grid": {}}}}, "expected a table with label, grid"),
        (
            {"methods": {"x": {"label": "x", "grid": {"rule": "bppt", "lr": 1}}}},
            "did you mean 'bptt'?",
        ),
        ({"tasks": ["temporal"]}, "did you mean 'temporal_order'?"),
        ({"tasks": ["digits_rows"]}, "tasks: digits_rows: expected one of adding, "),
        ({"max_steps": "9"}, "max_steps = 9: expected an integer"),
        (
            {"methods": BENCH.methods | {"again": BENCH.methods["bptt"]}},
            "methods: two have the same label, of BPTT, BPTT",
        ),
        ({"seq_len": [5]}, "needs at least 10"),
        (
            {"seq_len": [10, 10**9]},
            "methods.bptt: seq_len = 1000000000, batch_size = 20, hidden_size = 100: one",
        ),
        (
            {"methods": {"x": {"label": "x", "grid": REFUSED}}},
            "methods.x: rule 'tpri': network: expected tanh",
        ),
        ({"tasks": ["adding"] * 2}, "tasks = ['adding', 'adding']: one twice"),
        (
            {"methods": {"x": BENCH.methods["bptt"] | {"published": "fa"}}},
            "methods.x.published: expected one of tptt, bptt",
        ),
        (
            {"methods": {"x": BENCH.methods["bptt"] | {"published": ["bptt"]}}},
            "methods.x.published: expected one of tptt, bptt",
        ),
    ],
)
def test_bad_benches_are_refused_with_a_reason(change, says, monkeypatch):
    raw = {k: v for k, v in (copy.deepcopy(GOOD) | change).items() if v is not None}
    monkeypatch.setattr(reach.config_lib, "read", lambda path: raw)
    with pytest.raises(ConfigError) as refusal:
        bench_lib.check_refusals(reach.load("b.toml"))
    assert says in str(refusal.value).replace("\n      ", " ")


OWN = """
import numpy as np
import lra_jax

drawn = lra_jax.TASKS["temporal_order"]
arrays = lra_jax.Task.from_arrays(np.eye(4, 10, dtype=int), np.arange(4) % 2, validation=0.5)
"""


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("own_bench:drawn", None),
        ("spikes.npz", "expected a task that is drawn, at any length, got arrays"),
        (
            "own_bench:arrays",
            "expected a task that is drawn, at any length, got arrays",
        ),
        ("own_bench:dawn", "did you mean 'drawn'?"),
        ("no_such_bench:drawn", "no_such_bench"),
        ("own_bench:", "expected MODULE:NAME"),
    ],
)
def test_a_task_of_ones_own_has_to_be_drawn(task, says, tmp_path, monkeypatch):
    (tmp_path / "own_bench.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(extensions, "_files", dict(extensions._files))
    monkeypatch.setattr(reach.config_lib, "read", lambda path: GOOD | {"tasks": [task]})
    if says is None:
        bench = reach.load("b.toml")
        config = bench.tuning("bptt", task, 20)
        assert config.task == task
        assert config.name == "bptt.own_bench.drawn.T20.tuning"
        return
    with pytest.raises(ConfigError) as refusal:
        reach.load("b.toml")
    assert says in str(refusal.value).replace("\n      ", " ")


SPENT = {"bptt": costs.Cost(0.00204, 32_400.0), "norm": costs.Cost(0.004, 0.0)}


def test_the_tables_of_a_bench():
    norm = {
        "label": "no rescaling",
        "grid": {"rule": "lra_norm", "exponent": 0, "lr": 1},
    }
    bench = dataclasses.replace(
        BENCH,
        tasks=["temporal_order", "random_permutation"],
        methods=BENCH.methods | {"norm": norm},
    )
    won, lost = ("solved", 250), ("exhausted", 900)
    names = ["bptt.temporal_order", "bptt.random_permutation"]
    outcomes = {f"{name}.T10.tuning": [won] * 4 for name in names}
    outcomes |= {f"{name}.T10": [won, ("solved", 350), lost] for name in names}
    outcomes |= {
        f"{names[0]}.T20.tuning": [won] * 4, f"{names[0]}.T20": [lost] * 3,
        f"{names[1]}.T20.tuning": [won] * 4, f"{names[1]}.T20": [won] * 3,
        f"{names[1]}.T30.tuning": [won] * 4, f"{names[1]}.T30": [won] * 3,
        "norm.temporal_order.T10.tuning": [lost] * 2,
        "norm.random_permutation.T10.tuning": [won] * 2,
        "norm.random_permutation.T10": [lost] * 3,
    }  # fmt: skip
    runner = Trained(outcomes)
    rows = [
        row
        for task in bench.tasks
        for method in bench.methods
        for row in reach.rows_of(
            bench, method, task, reach.reach(runner, bench, method, task)
        )
    ]
    short = reach.methods_table(bench, rows, SPENT)
    assert short.splitlines() == [
        "| method | errors arrive | weights transported | kB per step | ms per update |"
        " temporal order: published | ours | random permutation: published | ours |",
        "| --- " * 9 + "|",
        "| BPTT | gradient of E, unrolled | W_hhᵀ, W_hyᵀ | 32 | 2.0 | 120 | "
        "10, not 20: 0/3 (99.99 %) | 70 | ≥ 30: 3/3 in 250 |",
        "| no rescaling | step by step: BPTT's | W_hhᵀ, W_hyᵀ | 0 | 4.0 |  | "
        "not 10: not tuned |  | not 10: 0/3 (99.99 %) |",
    ]
    assert reach._rows_of_costs(bench, SPENT) == [
        {"method": "BPTT", "kb_per_step": 32.4, "ms_per_update": 2.04},
        {"method": "no rescaling", "kb_per_step": 0.0, "ms_per_update": 4.0},
    ]
    page = reach.page(bench, rows, short).splitlines()
    assert "| BPTT | 2/3 in 300 | 0/3 (99.99 %) |" in page
    assert "| BPTT | 2/3 in 300 | 3/3 in 250 | 3/3 in 250 |" in page
    assert "| no rescaling | not tuned |  |" in page


def test_two_lengths_are_drawn_seed_by_seed():
    won, lost = ("solved", 250), ("exhausted", 10_000)
    name = "bptt.temporal_order"
    runner = Trained(
        {
            f"{name}.T10.tuning": [won] * 4,
            f"{name}.T10": [won, won, lost],
            f"{name}.T20.tuning": [won] * 4,
            f"{name}.T20": [lost, won, lost],
        }
    )
    bench = dataclasses.replace(BENCH, seq_len=[10, 20])
    found = reach.reach(runner, bench, "bptt", "temporal_order")
    rows = [*reach.rows_of(bench, "bptt", "temporal_order", found)]
    assert [row["updates_by_seed"] for row in rows] == ["250 250 –", "– 250 –"]
    (axes,) = bench_figures.seeds(rows).axes
    marks = [
        (line.get_xdata()[0], line.get_marker())
        for line in axes.lines
        if len(line.get_xdata()) == 1 and line.get_marker() != "None"
    ]
    assert sorted(marks) == [(250, "o")] * 3 + [(16_000, "x")] * 3


def test_a_method_without_a_setting_is_drawn_unsolved(tmp_path):
    lost = ("exhausted", 10_000)
    runner = Trained({"bptt.temporal_order.T10.tuning": [lost] * 4})
    bench = dataclasses.replace(BENCH, seq_len=[10, 20])
    found = reach.reach(runner, bench, "bptt", "temporal_order")
    rows = [*reach.rows_of(bench, "bptt", "temporal_order", found)]
    results.write_rows(tmp_path / "reach.csv", rows)
    (row,) = results.read_rows(tmp_path / "reach.csv")
    assert row["updates_by_seed"] == "– – –"
    (axes,) = bench_figures.seeds([row]).axes
    assert [line.get_marker() for line in axes.lines].count("x") == 3


def test_every_bench_in_configs_is_good():
    benches = sorted(pathlib.Path("configs/reach").glob("*.toml"))
    of_networks = pathlib.Path("configs/networks")
    benches += [
        of_networks / f"networks_{x}.toml" for x in ("adding", "temporal_order")
    ]
    assert len(benches) > 2
    for path in benches:
        assert reach.load(str(path)).name == path.stem


def test_methods_with_columns_are_a_table_of_two_directions():
    path = "configs/networks/networks_temporal_order.toml"
    bench = dataclasses.replace(reach.load(path), seq_len=[10, 30])
    row = {"task": "temporal_order", "solved": 5, "seeds": 5, "accuracy": 1.0}
    rows = [
        {**row, "method": "BPTT, GRU", "seq_len": 10, "longest": 30, "median_updates": 9},
        {**row, "method": "BPTT, GRU", "seq_len": 30, "longest": 30, "median_updates": 8},
        {**row, "method": "DFA, tanh", "seq_len": 10, "longest": 0, "solved": 1,
         "accuracy": 0.5, "median_updates": None},
    ]  # fmt: skip
    header, _, *lines = reach.crossed_table(bench, rows).splitlines()
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert columns == [
        "longest T", "tanh", "relu", "leaky", "GRU", "LSTM", "two layers of tanh"
    ]  # fmt: skip
    cells = {line.split("|")[1].strip(): line.split("|") for line in lines}
    assert len(cells) == 7
    assert cells["BPTT"][1 + columns.index("GRU")].strip() == "≥ 30: 5/5 in 8"
    assert cells["DFA"][2].strip() == "not 10: 1/5 (50.00 %)"
    assert cells["BPTT"][2].strip() == ""


def test_a_column_is_the_end_of_the_label(tmp_path):
    text = pathlib.Path("configs/networks/networks_adding.toml").read_text()
    path = tmp_path / "b.toml"
    path.write_text(text.replace('column = "GRU"', 'column = "gru"', 1))
    with pytest.raises(ConfigError) as refusal:
        reach.load(str(path))
    assert refusal.value.problems == [
        "methods.bptt_gru.column = 'gru': expected the end of its label, as in "
        "'BPTT, gru', got 'BPTT, GRU'"
    ]


SHORT = """
at_most_50 = dataclasses.replace(drawn, max_seq_len=50)
"""


def test_a_task_that_is_short_has_no_costs_and_a_longer_one_is_refused_first(
    tmp_path, monkeypatch
):
    (tmp_path / "short_bench.py").write_text(f"import dataclasses\n{OWN}{SHORT}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(extensions, "_files", dict(extensions._files))
    raw = GOOD | {"tasks": ["short_bench:at_most_50"]}
    monkeypatch.setattr(reach.config_lib, "read", lambda path: dict(raw))
    bench = reach.load("b.toml")
    monkeypatch.setattr(costs, "measure", None)  # nothing is measured
    assert reach.costs_of(bench) is None
    raw["seq_len"] = [10, 60]
    with pytest.raises(ConfigError, match=r"seq_len = 60: task .* has 50"):
        reach.load("b.toml")


class Interruption:
    """Nothing comes, and the process keeps its own handlers."""

    signal = None

    def __init__(self, console, command):
        self.command = " ".join(command)


def test_a_full_disk_is_a_message_with_the_file_and_the_command(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(reach, "reach", lambda *_: {})
    monkeypatch.setattr(bench.run, "Interruption", Interruption)
    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "b.toml"
    path.write_text(
        'tasks = ["temporal_order"]\nseq_len = [10]\nnum_trials = 1\n'
        '[methods.a]\nlabel = "A"\ngrid = { rule = "bptt", lr = 0.1 }\n'
    )
    done = call(reach, "--config", path, out=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        f"{tmp_path}/results/reach/b/reach.csv: No space left on device. To go on:\n"
        f"  python -m experiments.reach --config {path} --out {tmp_path}\n"
    )


@pytest.mark.parametrize("flag", ["config", "out"])
def test_an_empty_value_is_no_default(flag):
    done = call(reach, "--config", "b.toml", f"--{flag}=", out=".")
    assert done.returncode == 2
    assert done.stderr == f"experiments.reach: --{flag} is empty; expected a value\n"


def test_a_bad_command_is_one_message_and_exit_code_2():
    done = call(reach, "--config", "no.toml", out=".")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "no.toml: 1 problem\n  cannot be read: No such file or directory"
    )
