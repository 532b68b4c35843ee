"""The bench on recorded data: what is chosen, what is counted, and what is said."""

import copy
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from command_line import QUICK, call

from lra_jax import losses
from lra_jax.lab.benches import bench as bench_lib
from lra_jax.lab.benches import real
from lra_jax.lab.config import ConfigError
from lra_jax.lab.data import datasets, formats, sources
from lra_jax.lab.reports import results
from lra_jax.lab.runs.runner import Evaluations

METHODS = {
    "bptt": {
        "label": "BPTT",
        "grid": [
            {"rule": "bptt", "optimizer": "sgd", "lr": 0.3},
            {"rule": "bptt", "optimizer": "adam", "lr": 0.01},
        ],
    },
}
REFUSED = {"rule": "tpri", "network": "gru", "lr": 1}
GOOD = {"name": "b", "task": "fake", "methods": METHODS, "num_trials": 2}


def records():
    index = np.arange(40)
    inputs = np.tile((index % 4)[:, None, None], (1, 5, 2)).astype(np.uint8)
    return formats.Records(inputs, (index % 4).astype(np.int32))


FAKE = datasets.Dataset("fake data", records, 4, 2, 3)
SONGS = datasets.Dataset(
    "songs",
    lambda: formats.Records(np.zeros((40, 6, 88), np.uint8), None),
    88, 8, 12,
    output_loss=losses.binary_cross_entropy_every_step,
)  # fmt: skip


@pytest.fixture(autouse=True)
def fake_data(monkeypatch):
    monkeypatch.setitem(datasets.DATASETS, "fake", FAKE)
    monkeypatch.setitem(datasets.DATASETS, "songs", SONGS)
    datasets.find.cache_clear()
    datasets._load.cache_clear()


def bench(**changes):
    settings = {"max_steps": 30, "eval_every": 10, "seeds": [0, 1, 2], "num_last": 2}
    return real.Bench(**GOOD | settings | changes)


def member(*points, status="exhausted"):
    """Evaluations of a member: updates, number of errors and loss of each."""
    step, num_errors, loss = (np.array(x) for x in zip(*points, strict=True))
    return Evaluations(
        status, step, loss.astype(np.float32), num_errors, np.full_like(num_errors, 8)
    )


def constant(errors, **options):
    return member(*((s, errors, 1.0) for s in (0, 10, 20, 30)), **options)


class Trained:
    """A runner that knows what every run would give."""

    def __init__(self, **outcomes):
        self.outcomes = outcomes  # by the phase: of each member
        self.configs = {}

    def evaluations(self, config):
        phase = config.name.rpartition(".")[2]
        self.configs[phase] = config
        return [
            found._replace(num_samples=np.full_like(found.step, config.num_validation))
            for found in self.outcomes[phase]
        ]


def test_the_best_mean_of_the_last_evaluations_chooses_the_setting():
    # 20 and 30 updates count, of both seeds: 2, 3, 4, 4 of 8 are wrong with the second
    # setting. What it had before does not count.
    tuning = [
        constant(4), constant(3),
        member((0, 8, 1), (10, 0, 1), (20, 2, 1), (30, 3, 1)),
        member((0, 8, 1), (10, 0, 1), (20, 4, 1), (30, 4, 1)),
    ]  # fmt: skip
    test = [member((0, 9, 1), (30, errors, 1)) for errors in (0, 3, 6)]
    runner = Trained(tuning=tuning, test=test)
    outcome = real.compare(runner, bench(), "bptt")
    choice = outcome.choice
    assert (choice.setting["optimizer"], choice.setting["lr"]) == ("adam", 0.01)
    assert choice.score == 1 - 13 / 32
    first, second = runner.configs["tuning"], runner.configs["test"]
    assert (first.split, first.seeds, first.patience) == ("validation", (100, 101), 0)
    assert (first.max_steps, first.eval_every, first.num_validation) == (30, 10, 8)
    assert (second.split, second.seeds, second.patience) == ("test", (0, 1, 2), 0)
    # Evaluated once, after the last update.
    assert (second.max_steps, second.eval_every, second.num_validation) == (30, 30, 12)
    assert [m["lr"] for m in second.members()] == [0.01] * 3
    np.testing.assert_allclose(outcome.test, [1, 0.75, 0.5])
    row = real.row_of(bench(), "bptt", outcome)
    assert tuple(row) == real.COLUMNS
    assert row["test"] == pytest.approx(0.75)
    assert row["interval_95"] == pytest.approx(4.302653 * 0.25 / 3**0.5)
    assert row["test_by_seed"] == "1.0000 0.7500 0.5000"
    assert (row["max_steps"], row["updates"]) == (30, 30)
    assert (row["diverged"], row["seeds"]) == (0, 3)


def test_with_early_stopping_the_best_evaluations_in_a_row_choose_the_updates_too():
    # Of both seeds: after 10 and 20 updates the second setting has 1, 3, 2, 2 wrong of 8;
    # at the end 3, 7, 2, 6, where the first, 4 throughout, is better.
    tuning = [
        constant(4), constant(4),
        member((0, 8, 1), (10, 1, 1), (20, 3, 1), (30, 7, 1)),
        member((0, 8, 1), (10, 2, 1), (20, 2, 1), (30, 6, 1)),
    ]  # fmt: skip
    test = [member((0, 9, 1), (20, errors, 1)) for errors in (0, 3, 6)]
    runner = Trained(tuning=tuning, test=test)
    late = real.choose(bench(), bench().tuning("bptt"), tuning)
    assert (late.setting["optimizer"], late.score, late.updates) == ("sgd", 0.5, 30)
    early = bench(early_stopping=True)
    outcome = real.compare(runner, early, "bptt")
    choice = outcome.choice
    assert (choice.setting["optimizer"], choice.updates) == ("adam", 20)
    assert choice.score == 1 - 8 / 32
    second = runner.configs["test"]
    assert (second.max_steps, second.eval_every) == (20, 20)
    row = real.row_of(early, "bptt", outcome)
    assert (row["max_steps"], row["updates"]) == (30, 20)
    text = real.page([row])
    assert "optimizer adam, lr 0.01; 20 updates" in text
    assert "the one, and the number of updates, with the best mean" in text
    assert "| ≤ 30 |" in real.table([row])
    # Of equals the first setting, and of its evaluations the first.
    same = real.choose(early, early.tuning("bptt"), [constant(2)] * 4)
    assert (same.setting["optimizer"], same.updates) == ("sgd", 20)


def test_early_stopping_counts_an_nll_downwards():
    found = [
        member(
            *((s, 8, loss) for s, loss in zip((0, 10, 20, 30), losses_, strict=True))
        )
        for losses_ in (
            (60, 30, 20, 25),
            (60, 30, 20, 25),
            (60, 20, 10, 30),
            (60, 20, 10, 30),
        )
    ]
    songs = bench(task="songs", early_stopping=True)
    choice = real.choose(songs, songs.tuning("bptt"), found)
    assert (choice.setting["optimizer"], choice.score, choice.updates) == (
        "adam",
        15,
        20,
    )


def test_of_equals_the_first_setting_is_chosen():
    choice = real.choose(bench(), bench().tuning("bptt"), [constant(2)] * 4)
    assert choice.setting["optimizer"] == "sgd"


def test_a_member_without_an_error_stays_as_it_was_when_it_ended():
    solved = member((0, 8, 1), (10, 0, 1), status="solved")
    other = member((0, 8, 1), (10, 4, 1), (20, 3, 1), (30, 2, 1))
    config = bench().tuning("bptt")
    choice = real.choose(bench(), config, [constant(3)] * 2 + [solved, other])
    assert choice.setting["optimizer"] == "adam"
    assert choice.score == 1 - 5 / 32


def test_a_setting_of_which_a_seed_diverged_is_no_candidate():
    diverged = member((0, 8, 1), (10, 0, 1), (24, 0, 1), status="diverged")
    config = bench().tuning("bptt")
    found = [constant(5)] * 2 + [diverged, constant(0)]
    assert real.choose(bench(), config, found).setting["optimizer"] == "sgd"
    assert real.choose(bench(), config, [diverged] * 4) is None


def test_where_every_setting_diverges_nothing_is_counted():
    early = member((0, 8, 1), (3, 0, 1), status="diverged")
    outcome = real.compare(Trained(tuning=[early] * 4), bench(), "bptt")
    assert outcome == (None, [], 0)
    row = real.row_of(bench(), "bptt", outcome)
    assert (row["test"], row["setting"]) == (None, None)
    line = "| BPTT | every setting diverged | – | diverged | 3 |"
    assert line in real.page([row])


def test_a_diverged_seed_counts_with_its_last_finite_weights_and_is_shown():
    test = [member((0, 9, 1), (20, 3, 1))] * 2
    test.append(member((0, 9, 1), (7, 9, 1), status="diverged"))
    runner = Trained(tuning=[constant(1)] * 4, test=test)
    outcome = real.compare(runner, bench(), "bptt")
    np.testing.assert_allclose(outcome.test, [0.75, 0.75, 0.25])
    row = real.row_of(bench(), "bptt", outcome)
    assert real.cell(row) == "58.33 ± 71.71 (1 of 3 diverged)"


def test_where_every_step_is_asked_the_least_nll_is_the_best():
    points = ((0, 8, 60.0), (10, 8, 20.0), (20, 8, 12.5), (30, 8, 13.5))
    songs = bench(task="songs")
    tuning = [member(*((s, 8, 14.0) for s in (0, 10, 20, 30)))] * 2
    runner = Trained(
        tuning=[*tuning, member(*points), member(*points)],
        test=[member((0, 12, 60.0), (20, 12, 12.0 + i)) for i in range(3)],
    )
    outcome = real.compare(runner, songs, "bptt")
    assert (outcome.choice.setting["optimizer"], outcome.choice.score) == ("adam", 13)
    row = real.row_of(songs, "bptt", outcome)
    assert (row["measure"], row["test"]) == ("nll", 13.0)
    assert real.cell(row) == "13.000 ± 2.484"


def rows(name, measure="accuracy", methods=("BPTT", "control")):
    return [
        {
            "name": f"{method} {name}", "bench": name, "data": name, "lengths": "= 8",
            "method": method, "measure": measure, "validation": 0.9,
            "test": 0.5 + 0.1 * i, "interval_95": 0.01, "seeds": 5, "diverged": 0,
            "max_steps": 2000, "updates": 2000, "settings": 8, "tuning_seeds": 2,
            "setting": "lr 1", "test_by_seed": "",
        }
        for i, method in enumerate(methods)
    ]  # fmt: skip


def test_the_table_has_data_sets_in_rows_and_methods_in_columns():
    text = real.table([*rows("one"), *rows("two", "nll", ("control", "other"))])
    lines = text.splitlines()
    settings = "updates | settings × tuning seeds | n |"
    assert lines[0] == f"| data | T | BPTT | control | other | {settings}"
    assert lines[2:4] == [
        "| one, % | 8 | 50.00 ± 1.00 | 60.00 ± 1.00 |  | 2,000 | 8 × 2 | 5 |",
        "| two, NLL | 8 |  | 0.500 ± 0.010 | 0.600 ± 0.010 | 2,000 | 8 × 2 | 5 |",
    ]


def test_the_table_is_of_all_data_sets_in_the_folder_in_a_fixed_order(tmp_path):
    titles = [datasets.DATASETS[n].title for n in ("mnist_rows", "digits_rows")]
    for name, title in zip("ab", titles, strict=True):
        found = [row | {"data": title} for row in rows(name)]
        results.write_rows(tmp_path / f"{name}.csv", found)
    results.write_rows(tmp_path / "table.csv", rows("stale"))
    # One data set's were written by another version of the program.
    old = [{key: row[key] for key in list(row)[:-1]} for row in found]
    results.write_rows(tmp_path / "old.csv", old)
    found, others = real.all_rows(tmp_path)
    assert [row["bench"] for row in found] == ["b", "b", "a", "a"]
    assert others == ["old.csv"]


def test_a_variant_is_a_row_of_its_own_beside_its_data_set(tmp_path):
    outcome = real.Outcome(real.Choice({"lr": 1}, 0.5, 30), [0.5], 0)
    written = [
        ("b", bench(task="songs", name="b")),
        ("a", bench(task="fake", variant="leaky units", name="a")),
        ("c", bench(task="fake", name="c")),
    ]
    for name, its in written:
        results.write_rows(
            tmp_path / f"{name}.csv", [real.row_of(its, "bptt", outcome)]
        )
    results.write_rows(tmp_path / "d.csv", rows("fake data of another kind"))
    found, _ = real.all_rows(tmp_path)
    assert list(dict.fromkeys(row["data"] for row in found)) == [
        "fake data, leaky units", "fake data", "songs", "fake data of another kind",
    ]  # fmt: skip
    assert "on training and validation parts" in real.page(found[:1])
    assert "on the training part" in real.page(found[3:])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seeds": 5}, "seeds = 5: expected a list of integers"),
        ({"taks": "fake"}, "did you mean 'task'?"),
        ({"task": None}, "task: missing"),
        ({"task": "fakes"}, "did you mean 'fake'?"),
        ({"task": "temporal_order"}, "task = temporal_order: expected one of digits_"),
        ({"name": "table"}, "name = table: is that of the table"),
        ({"tuning_seeds": [4, 100]}, "[4] are among seeds"),
        ({"num_trials": 3}, "methods.bptt: 2 settings; num_trials is 3"),
        ({"num_last": 0}, "num_last = 0: expected 1 to 20 evaluations"),
        ({"num_last": 21}, "num_last = 21: expected 1 to 20 evaluations"),
        ({"eval_every": 900, "num_last": 4}, "expected 1 to 3 evaluations"),
        (
            {"methods": {"x": {"label": "x", "published": "bptt", "grid": {}}}},
            "expected a table with label, grid and maybe input_gain",
        ),
        ({"methods": {"x": 5}}, "methods.x: expected a table with label, grid"),
        ({"methods": {"x": {"grid": {}}}}, "expected a table with label, grid"),
        (
            {"methods": {"x": {"label": "x", "grid": {"rule": "bppt", "lr": 1}}}},
            "did you mean 'bptt'?",
        ),
        (
            {"methods": METHODS | {"again": METHODS["bptt"]}},
            "methods: two have the same label, of BPTT, BPTT",
        ),
        ({"seeds": [1, 1]}, "seeds = [1, 1]: expected different integers"),
        ({"tuning_seeds": [-1]}, "tuning_seeds = [-1]: expected different integers"),
        ({"name": "../x"}, "name = ../x: expected a name for a folder"),
        ({"methods": {}}, "methods: expected at least one"),
        (
            {"methods": {"x": METHODS["bptt"] | {"label": 5}}},
            "methods.x.label = 5: expected a text",
        ),
        (
            {"methods": {"x": {"label": "x", "grid": {"lr": [1, 2], "batch_size": 5}}}},
            "methods.x.grid: batch_size is the same for all methods",
        ),
        ({"max_steps": 0}, "max_steps = 0: expected an integer of at least 1"),
        ({"max_steps": True}, "max_steps = True: expected an integer"),
        ({"early_stopping": 1}, "early_stopping = 1: expected true or false"),
        ({"early_stopping": "true"}, "early_stopping = true: expected true or false"),
        (
            {"methods": {"x": {"label": "x", "grid": REFUSED}}, "num_trials": 1},
            "methods.x: rule 'tpri': network: expected tanh",
        ),
    ],
)
def test_bad_benches_are_refused_with_a_reason(change, says, monkeypatch):
    raw = {k: v for k, v in (copy.deepcopy(GOOD) | change).items() if v is not None}
    monkeypatch.setattr(real.config_lib, "read", lambda path: raw)
    with pytest.raises(ConfigError) as refusal:
        bench_lib.check_refusals(real.load("b.toml"))
    assert says in str(refusal.value).replace("\n      ", " ")


def test_without_the_package_a_bench_says_what_to_install(monkeypatch):
    monkeypatch.setattr(real.config_lib, "read", lambda path: copy.deepcopy(raw))
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda _: None)
    raw = GOOD | {"task": "digits_rows"}
    with pytest.raises(ConfigError) as refusal:
        real.load("b.toml")
    assert refusal.value.problems == [
        "task = digits_rows: needs the package sklearn: pip install 'lra_jax[digits]'"
    ]


@pytest.mark.parametrize("task", ["mnist_rows", "chorales"])
def test_every_bench_of_networks_asks_each_rule_the_same_on_each_network(task):
    raw = real.config_lib.read(pathlib.Path(f"configs/networks/networks_{task}.toml"))
    methods = raw["methods"]
    grids = {}
    for name, method in methods.items():
        (grid,) = method["grid"]
        rule = grid["rule"]
        rest = {k: grid[k] for k in grid if k not in ("network", "num_layers", "alpha")}
        grids.setdefault(rule, []).append(rest)
        assert name.startswith(rule)
    for each in grids.values():
        assert len(each) == 6
        assert all(x == each[0] for x in each)


def test_every_bench_in_configs_is_good():
    benches = sorted(pathlib.Path("configs/real").glob("*.toml"))
    read = {path: real.config_lib.read(path) for path in benches}
    usual = {path.stem for path, raw in read.items() if "variant" not in raw}
    assert usual == {*datasets.DATASETS} - {"fake", "songs"}
    for path, raw in read.items():
        if "variant" in raw:  # of a data set, whose name it begins with
            assert raw["name"] == path.stem
            assert path.stem.startswith(f"{raw['task']}_")
        else:
            assert raw["name"] == raw["task"] == path.stem
        try:
            datasets.find(raw["task"])
        except sources.MissingDatasetError:
            continue
        loaded = real.load(str(path))
        assert "readout_only" in loaded.methods
        if loaded.variant:
            continue
        in_parts = re.search("(mnist|fashion)_(pixels|eights)", path.stem)
        forward = ["eprop", "snap"] if in_parts else []
        assert [*loaded.methods] == [
            "readout_only", "bptt", "tptt", "lra_diff", "lra_norm", *forward
        ]  # fmt: skip


SCRIPT = """
import sys
import numpy as np
from absl import app
from lra_jax.lab.data import datasets, formats, sources
from lra_jax.lab.benches import real
index = np.arange(80)
inputs = np.tile((index % 4)[:, None, None], (1, 5, 2)).astype(np.uint8)
records = formats.Records(inputs, (index % 4).astype(np.int32))
datasets.DATASETS["fake"] = datasets.Dataset("fake data", lambda: records, 4, 2, 3)
app.run(real.main, sys.argv, flags_parser=real.parse)
"""
CONFIG = """
task = "fake"
seeds = [0, 1]
tuning_seeds = [5]
num_trials = 2
max_steps = 40
num_last = 2
eval_every = 20
hidden_size = 8
batch_size = 8

[methods.bptt]
label = "BPTT"
grid = { rule = "bptt", optimizer = "adam", lr = [1e-9, 0.05] }
"""


def command(folder, *words):
    root = str(pathlib.Path(real.__file__).parents[3])
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True,
        check=False, cwd=folder, env={**os.environ, **QUICK, "PYTHONPATH": root},
    )  # fmt: skip


@pytest.mark.end_to_end
def test_the_command_trains_both_phases_and_goes_on_where_it_stood(tmp_path):
    (tmp_path / "my.toml").write_text(CONFIG, "utf8")
    done = command(tmp_path, "--config", "my.toml")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "results" / "real"
    (row,) = results.read_rows(folder / "my.csv")
    assert "lr 0.05" in row["setting"]
    assert row["validation"] > 0.5
    assert 0 < row["test"] <= 1
    names = {path.name for path in folder.iterdir()}
    tables = {f"table.{end}" for end in ("csv", "json", "md", "png", "svg")}
    assert names == {"my.csv", "my.md", "my_runs.csv", *tables}
    by_name = json.loads((folder / "table.json").read_text())
    assert by_name["bptt my"]["test"] == pytest.approx(row["test"])
    assert "| fake data, % | 5 |" in (folder / "table.md").read_text()
    test = tmp_path / "runs" / "real" / "my" / "bptt.test"
    assert 'split = "test"' in (test / "config.resolved.toml").read_text()
    with np.load(test / "curves.npz") as curves:
        assert set(curves["step"].tolist()) == {0, 40}
    before = (folder / "my.csv").read_text()
    again = command(tmp_path, "--config", "my.toml")
    assert again.returncode == 0, again.stderr
    assert "member-steps/s" not in again.stdout
    assert (folder / "my.csv").read_text() == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            (),
            "experiments.real: --config is missing, such as --config configs/real/digi",
        ),
        (("--config", "no.toml"), "no.toml: 1 problem\n  cannot be read: No such file"),
    ],
)
def test_a_bad_command_is_one_message_and_exit_code_2(words, says):
    done = call(real, *words, config=None, out=".")
    assert done.returncode == 2
    assert done.stderr.startswith(says)
    assert "Traceback" not in done.stderr
