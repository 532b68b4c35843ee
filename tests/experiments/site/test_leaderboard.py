"""The leaderboard: what is in it, and the statistics beside it."""

import shutil

import numpy as np
import pytest
from command_line import call
from scipy import stats

import lra_jax
from experiments.site import leaderboard, tables
from lra_jax.lab.reports import results

ROOT = leaderboard.pathlib.Path(lra_jax.__file__).parent.parent
BENCH = """
tasks = ["temporal_order"]
seq_len = [10, 20]
seeds = [5, 6, 7, 8, 9]
num_trials = 1
max_steps = 100

[methods.bptt]
label = "BPTT"
grid = { rule = "bptt", lr = 0.1 }

[methods.readout_only]
label = "readout"
grid = { rule = "readout_only", lr = 0.1 }

[methods.mirror]
label = "mirrored"
grid = { rule = "bptt", feedback = "mirror", lr = 0.1 }
"""


def row(method, seq_len, updates, longest):
    known = [n for n in updates if n is not None]
    return {
        "name": f"{method} {seq_len}",
        "task": "temporal_order",
        "method": method,
        "seq_len": seq_len,
        "solved": len(known),
        "seeds": 5,
        "median_updates": np.median(known) if known else None,
        "updates_by_seed": " ".join("–" if n is None else str(n) for n in updates),
        "max_steps": 100,
        "accuracy": 0.9,
        "longest": longest,
        "setting": "lr 0.1",
    }


@pytest.fixture
def root(tmp_path):
    (tmp_path / "configs/reach").mkdir(parents=True)
    (tmp_path / "configs/reach/mine.toml").write_text(BENCH)
    folder = tmp_path / "results/reach/mine"
    folder.mkdir(parents=True)
    nothing = [None] * 5
    rows = [
        row("BPTT", 10, [10, 20, 30, 40, 50], 10),
        row("BPTT", 20, [60, None, 70, None, None], 10),
        row("readout", 10, nothing, 0),
        row("mirrored", 10, [20, 30, 40, 50, 60], 20),
        row("mirrored", 20, [10, 10, 20, 20, None], 20),
    ]
    results.write_rows(folder / "reach.csv", rows)
    return tmp_path


def test_a_bench_gets_its_rows_and_comparisons(root):
    done = call(leaderboard, "--root", str(root))
    assert done.returncode == 0, done.stderr
    lines = (root / "results/leaderboard.md").read_text().splitlines()
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines[4:]]
    assert [c[0] for c in cells] == ["mirrored", "BPTT", "readout"]
    assert [c[2] for c in cells] == ["≥ 20", "10", "not 10"]
    assert [c[3] for c in cells] == ["4/5", "5/5", "0/5"]
    assert [c[4] for c in cells] == ["15", "30", ""]
    assert [c[8] for c in cells] == ["none", "W_hhᵀ, W_hyᵀ", "none"]
    compared = (root / "results/comparisons.md").read_text()
    # T = 10: later five times. T = 20: sooner four times, and once neither is solved.
    assert "| mirrored | BPTT | 4 | 5 |" in compared
    assert "| mirrored | readout | 5 | 0 |" in compared
    assert "| BPTT |" not in compared.replace("| mirrored | BPTT |", "")
    kept = results.read_rows(root / "results/leaderboard.csv")
    assert len(kept) == 25
    assert [r["seed"] for r in kept[:6]] == [5, 6, 7, 8, 9, 5]
    assert sum(r["updates"] is None for r in kept) == 3 + 5 + 1


def test_a_table_of_other_seeds_than_the_config_has_is_one_message(root):
    path = root / "configs/reach/mine.toml"
    path.write_text(path.read_text().replace("8, 9]", "8, 9, 10]"))
    done = call(leaderboard, "--root", str(root))
    assert done.returncode == 2
    assert "another number of seeds" in " ".join(done.stderr.split())


def test_a_bench_without_its_config_is_named(root):
    (root / "configs/reach/mine.toml").unlink()
    done = call(leaderboard, "--root", str(root))
    assert done.returncode == 2
    assert "mine.toml" in done.stderr


OUTPUTS = ("leaderboard.md", "comparisons.md", "leaderboard.csv")


@pytest.fixture
def before(root):
    """Files of before, in whose place nothing is written."""
    paths = [root / "results" / name for name in OUTPUTS]
    for path in paths:
        path.write_text("of before")
    yield
    assert {path.read_text() for path in paths} == {"of before"}


@pytest.mark.parametrize("kind", ["no benches", "no such methods", "another folder"])
def test_nothing_to_show_is_one_message(root, before, kind):
    table = root / "results/reach/mine/reach.csv"
    if kind == "no benches":
        table.unlink()
    if kind == "no such methods":
        results.write_rows(table, [row("another", 10, [None] * 5, 0)])
    folder = root / "nowhere" if kind == "another folder" else root
    done = call(leaderboard, "--root", str(folder))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("experiments.leaderboard: ")
    assert (
        "results/reach: expected NAME/reach.csv with methods of a bench" in done.stderr
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("name,task", "<<<<<<< HEAD\nname,task", "is damaged: row 1 has"),
        ("readout,10,", "readout,10\n", "is damaged: row 3 has 4 fields"),
        ("max_steps", "most_steps", "; there is no max_steps\n"),
        ("readout,10,", "readout,,", "row 3: seq_len: expected a number, got nothing"),
    ],
)
def test_a_damaged_table_is_one_message(root, before, old, new, says):
    path = root / "results/reach/mine/reach.csv"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    done = call(leaderboard, "--root", str(root))
    assert done.returncode == 2
    assert done.stderr.startswith(f"experiments.leaderboard: {path}")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_costs_are_those_that_the_bench_has_measured(root):
    path = root / "results/reach/mine/costs.csv"
    label = "readout"
    cost = {"method": label, "kb_per_step": 1234.4, "ms_per_update": 0.25}
    results.write_rows(path, [cost])
    assert leaderboard._costs(root, "mine") == {label: ("1,234", "0.2")}
    results.write_rows(path, [cost | {"ms_per_update": None}])
    done = call(leaderboard, "--root", str(root))
    assert done.returncode == 2
    assert "costs.csv: row 1: ms_per_update: expected a number" in done.stderr
    path.unlink()
    assert leaderboard._costs(root, "mine") == {}


def test_layers_are_named_as_in_the_tables_of_rules():
    assert tables.network_of({}) == "tanh"
    assert tables.network_of({"network": "gru", "num_layers": 1}) == "gru"
    assert tables.network_of({"network": None, "num_layers": 2}) == "2 layers of tanh"


@pytest.mark.parametrize("size", [5, 8, 12, 30])
def test_the_signed_rank_test_is_scipys_without_ties(size):
    rng = np.random.default_rng(size)
    a, b = rng.normal(size=size), rng.normal(0.7, size=size)
    assert leaderboard.wilcoxon(a, b) == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert leaderboard.wilcoxon(a, a) is None


def test_of_five_pairs_p_is_never_small():
    assert leaderboard.wilcoxon(np.zeros(5), np.ones(5)) == 2 / 2**5


def test_holm_multiplies_by_the_tests_that_are_left():
    found = leaderboard.holm([0.01, None, 0.04, 0.03])
    assert found == pytest.approx([0.03, None, 0.06, 0.06])


def test_the_leaderboard_of_the_repository_is_current(tmp_path):
    for name in ("configs/reach", "results/reach"):
        shutil.copytree(ROOT / name, tmp_path / name)
    assert call(leaderboard, "--root", str(tmp_path)).returncode == 0
    for name in OUTPUTS:
        made, kept = (folder / "results" / name for folder in (tmp_path, ROOT))
        assert made.read_text() == kept.read_text()
