"""The reproduction of the paper: its protocol, its cells, and a small run of it all."""

import contextlib
import csv
import json
import math
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import rich.console
from absl import flags
from command_line import call

from experiments.paper import budgets, configs, recordings, reproduce, rows
from experiments.paper.artefacts import making, table5, tables_1_to_3
from lra_jax import types
from lra_jax.lab.benches import cells, published
from lra_jax.lab.benches.cells import Cell
from lra_jax.lab.reports import results
from lra_jax.lab.runs import store
from lra_jax.lab.runs.runner import StoppedError
from lra_jax.member import Status

pytestmark = pytest.mark.end_to_end

BUDGETS = list(budgets.BUDGETS.values())


def row(seed, accuracy, status="exhausted", step=100, **values):
    return {
        "seed": seed,
        "best_accuracy": accuracy,
        "status": status,
        "step": step,
        "seq_len": 10,
        "num_refinements": 10,
        **values,
    }


# The published numbers.


def test_the_published_tables_are_whole_and_agree_where_the_paper_repeats_itself():
    cells = {
        (task, k, t)
        for task in published.TASKS
        for k in published.NUM_REFINEMENTS
        for t in published.SEQ_LEN
    }
    every = [published.TABLE1, *published.TABLE2.values(), *published.TABLE3.values()]
    for table in every:
        assert set(table) == cells
        assert all(0.5 < value <= 1 for value in table.values())
    assert published.TABLE1[published.ORDER, 10, 30] == 0.8402
    assert published.TABLE2["log_penalty"][published.ORDER, 20, 30] == 0.7966
    assert published.TABLE3["none"][published.ORDER_3BIT, 30, 30] == 0.6688
    assert published.TABLE5[published.PERMUTATION]["lra_diff"] is None


# The configs.


@pytest.mark.parametrize("budget", BUDGETS, ids=lambda b: b.name)
def test_every_row_is_a_valid_config(budget):
    for task in budget.tasks:
        for name in rows.ROWS:
            config = configs.table_config(name, task, budget, [0, 1])
            assert config.race
            assert {member["seq_len"] for member in config.members()} == set(
                budget.tables.seq_len
            )
        for name in rows.REACH_ROWS:
            config = configs.reach_config(name, task, 20, budget, [3])
            assert {member["seed"] for member in config.members()} == {3}
        for rule in ("lra_diff", "lra_released"):
            config = configs.figure5_config(rule, task, budget, [0])
            strengths = {member["lambda"] for member in config.members()}
            assert strengths == {0, *budget.figure5.lambda_}
    assert not configs.table4_config(budget, [0]).race


def test_the_full_budget_is_the_papers_protocol():
    """Sizes of section V: 15 settings for each cell of Tables I to III, 720 of IV."""
    full, seed = budgets.FULL, [0]
    members = list(
        configs.table_config("lra_diff", published.ORDER, full, seed).members()
    )
    assert len(members) == 15 * 3 * 3
    assert {m["lr"] for m in members} == {0.1, 0.01, 0.001}
    assert {m["gamma"] for m in members} == {10, 1, 0.1, 0.01, 0.001}
    assert len(list(configs.table4_config(full, seed).members())) == 720
    config = configs.reach_config(
        "lra_diff_regularised", published.ORDER, 10, full, seed
    )
    assert config.max_steps == 100_000
    assert full.reach.seq_len[:3] == (10, 20, 30)


def test_a_part_of_a_budget_has_no_other_tasks_rows_and_lengths():
    part = rows.only(
        budgets.FULL, tasks=[published.ORDER_3BIT], rows=["bptt"], longest=50
    )
    assert part.tasks == part.reach.tasks == (published.ORDER_3BIT,)
    assert part.reach.seq_len == (10, 20, 30, 40, 50)
    left = set(rows.ROWS) - part.left_out
    assert left == {"bptt"}
    reach = {
        name
        for name in rows.REACH_ROWS
        if f"reach.{name}.{published.ORDER_3BIT}" not in part.left_out
    }
    assert reach == {"bptt"}
    assert part.name == "full"
    assert part.part == "the rows bptt; the tasks temporal_order_3bit; T ≤ 50"
    assert rows.only(budgets.FULL) == budgets.FULL


@pytest.mark.parametrize("budget", [budgets.FULL, budgets.SMOKE], ids=lambda b: b.name)
def test_a_part_of_a_table_says_so_and_is_no_less_the_papers_budget(budget):
    """Below a part of the full budget nobody says that the paper has more updates."""
    for asked in (budget, rows.only(budget, rows=["bptt"])):
        artefact = making.Artefact(table="", notes=(), rows={})
        said = making._notes(artefact, making.Request(asked, [0], mock.Mock()))
        assert ("A part of the table: the rows bptt." in said) == (asked is not budget)
        assert ("100,000 updates" in said) == (budget is budgets.SMOKE)


def test_tptt_waits_at_full_as_long_as_in_its_authors_code():
    patience = {
        (budget.name, name): configs.reach_config(
            name, published.ORDER, 20, budget, [0]
        ).patience
        for budget in BUDGETS
        for name in ("tptt", "bptt")
    }
    assert patience.pop(("full", "tptt")) == 300
    assert set(patience.values()) == {30}


def test_the_smoke_budget_is_small():
    for name in rows.ROWS:
        config = configs.table_config(name, published.ORDER, budgets.SMOKE, [0])
        assert config.max_steps <= 300
        assert len(list(config.members())) <= 2
    assert configs.table4_config(budgets.SMOKE, [0]).max_steps <= 300


def test_methods_of_table_5_have_equal_tuning_budgets_at_standard():
    counts = {
        name: len(
            list(
                configs.reach_config(
                    name, published.ORDER, 10, budgets.STANDARD, [0]
                ).members()
            )
        )
        for name in rows.REACH_ROWS
    }
    assert set(counts.values()) == {4}


# Cells.


def test_a_cell_is_the_best_of_the_grid_for_each_seed():
    rows = [
        row(0, 0.9),
        row(0, 0.8),
        row(1, 0.5),
        row(1, 1.0, "solved", 300),
        row(1, 1.0, "solved", 200),
        row(2, None, "outrun", 0),
        row(2, 1.0, "solved", 100),
    ]
    cell = cells.cell_of(rows)
    assert cell.accuracy == pytest.approx((0.9 + 1 + 1) / 3)
    spread = np.std([0.9, 1, 1], ddof=1) / math.sqrt(3)
    assert cell.interval == pytest.approx(4.302653 * spread)
    assert (cell.solved, cell.num_seeds, cell.updates) == (2, 3, 150)


@pytest.mark.parametrize(
    ("printed", "accuracy", "interval", "solved", "verdict"),
    [
        (1.0, 1.0, 0.0, 5, "agrees"),
        (1.0, 0.9999, 0.0, 4, "partly"),
        (1.0, 0.9, 0.0, 0, "lower"),
        (0.84, 1.0, 0.0, 5, "higher"),
        (0.84, 0.845, 0.001, 0, "agrees"),  # within a point
        (0.84, 0.90, 0.025, 0, "agrees"),  # one more seed might: 0.025 √6
        (0.84, 0.90, 0.02, 1, "higher"),
        (0.84, 0.60, 0.02, 0, "lower"),
    ],
)
def test_verdicts(printed, accuracy, interval, solved, verdict):
    cell = Cell(accuracy, interval, solved, 5, 1, None)
    assert cells.verdict(printed, cell) == verdict


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--rows=btpt", "unknown row 'btpt'"),
        ("--tasks=adding", "unknown task 'adding'"),
        ("--rows=tptt", "--rows: table1 has none of them, but lra_diff, "),
        ("--longest=20", "--longest: of table5, not of table1"),
        (
            "--tasks=random_permutation",
            "--budget smoke: nothing of table1 is made for the tasks random_permutation",
        ),
    ],
)
def test_a_part_that_is_none_is_one_message(tmp_path, flag, said):
    done = call(
        *(reproduce, "table1", flag, "--runs", tmp_path / "runs"),
        budget="smoke",
        results=str(tmp_path / "results"),
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table2", "--rows=lra_released_log"], "table2 is made for the rows lra_rel"),
        (
            ["table5", "--rows=omega_only", "--tasks=temporal_order_3bit"],
            "table5 is made for the rows omega_only; the tasks temporal_order_3bit;",
        ),
        (["bptt", "table5"], "unknown artefact 'bptt'"),
    ],
)
def test_what_a_budget_leaves_out_is_one_message(tmp_path, words, said):
    done = call(
        *(reproduce, *words, "--runs", tmp_path / "runs"),
        budget="standard",
        results=str(tmp_path / "results"),
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_results_are_read_back_as_they_were(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("member,rule,lr,flag,gamma,best\n0,bptt,0.1,True,,1.0\n")
    assert results.read_rows(path) == [
        {"member": 0, "rule": "bptt", "lr": 0.1, "flag": True, "gamma": None, "best": 1}
    ]


# Tables.


def test_a_line_is_compared_with_the_same_k_and_length():
    rows = [
        row(seed, accuracy, seq_len=t, num_refinements=k)
        for seed in (0, 1)
        for t, accuracy in ((20, 0.99), (30, 0.7))
        for k in (1, 20)
    ]
    one, twenty = tables_1_to_3.lines_of(
        "r", "x", published.ORDER, rows, 50, published.TABLE1
    )
    assert (one.num_refinements, one.printed[30]) == (1, 0.8402)  # K = 10's
    assert (twenty.num_refinements, twenty.printed[30]) == (20, 0.8401)
    text = tables_1_to_3.paper_table([one, twenty])
    assert "| x | 20 | 50 | 99.81 | 99.00 ± 0.00 (0/2) | agrees |" in text
    cells = tables_1_to_3.paper_rows([one, twenty])
    assert cells[-1]["name"] == "r temporal_order K20 T30"
    assert [cell["verdict"] for cell in cells] == ["agrees", "lower"] * 2


class Scripted:
    """Stands for a Runner: seed s solves lengths up to `reach[s]`."""

    def __init__(self, reach):
        self.reach = reach
        self.asked = []

    def rows(self, config):
        (t,) = {member["seq_len"] for member in config.members()}
        self.asked.append((t, config.seeds))
        return [
            row(s, 1.0, "solved", seq_len=t)
            if self.reach[s] >= t
            else row(s, 0.5, seq_len=t)
            for s in config.seeds
        ]


def test_reach_goes_on_until_no_seed_solves():
    runner = Scripted([30, 10, 20])
    budget = budgets.STANDARD
    found = table5.search_lengths(runner, "bptt", published.ORDER, budget, [0, 1, 2])
    assert runner.asked == [
        (10, (0, 1, 2)),
        (20, (0, 1, 2)),
        (30, (0, 2)),
        (40, (0,)),
    ]
    reach = table5.from_fresh_weights("bptt", "BPTT", published.ORDER, found, 3, 100)
    assert reach.longest == [10, 20, 30]
    assert (reach.printed, reach.verdict) == (120, "lower")
    gap = reach._replace(solved={10: (0,), 60: (0,), 80: ()}, num_seeds=1, printed=70)
    assert gap.verdict == "agrees"  # 70 was not tried
    assert gap._replace(printed=80).verdict == "lower"
    cut = gap._replace(solved={10: (0,), 20: (0,)})  # nothing longer was tried
    assert cut.verdict == "open"
    assert cut._replace(printed=20).verdict == "agrees"
    still = reach._replace(solved={10: (0, 1), 20: (1,)}, num_seeds=2)
    assert "≥ 20" in table5.reach_table([still], budget)
    assert "| 10 (10 to ≥ 20) |" in table5.reach_table([still], budget)
    text = table5.reach_table([reach], budget)
    assert "| BPTT | 120 | 20 (10 to 30) | lower | 1 | 3/3 | 2/3 | 1/3 | 0/3 |" in text


def test_a_reach_of_nothing_agrees_with_a_dash():
    found = table5.search_lengths(
        Scripted([0, 0]), "lra_diff", published.PERMUTATION, budgets.STANDARD, [0, 1]
    )
    reach = table5.from_fresh_weights(
        "lra_diff", "x", published.PERMUTATION, found, 2, 100
    )
    assert reach.longest == [0, 0]
    assert reach.verdict == "agrees"
    assert reach._replace(solved={10: (0,), 20: ()}).verdict == "partly"
    assert reach._replace(solved={10: (0, 1), 20: ()}).verdict == "higher"
    assert "| x | – | – (– to –) | agrees |" in table5.reach_table(
        [reach], budgets.STANDARD
    )


def test_names_of_artefacts():
    assert reproduce._names(["table4", "table1"]) == ["table1", "table4"]
    assert reproduce._names(["all"]) == list(reproduce.ARTEFACTS)
    with pytest.raises(flags.Error, match="did you mean 'table1'"):
        reproduce._names(["tabel1"])
    with pytest.raises(flags.Error, match="expected one of"):
        reproduce._names([])


# What is kept.


def test_a_recording_is_used_again_only_of_the_same_code(tmp_path, monkeypatch, capsys):
    made = []

    def label_swap(setting, **options):
        made.append(setting.name)
        return [np.array([0.5, 0.5]), np.array([0.25, 0.25])]

    monkeypatch.setattr(recordings.recording, "label_swap", label_swap)
    monkeypatch.setattr(recordings.machine, "in_float64", contextlib.nullcontext)
    budget = budgets.BUDGETS["smoke"]

    def ask(**options):
        runner = recordings.PaperRunner(
            rich.console.Console(quiet=True),
            tmp_path,
            mock.Mock(signal=None),
            **options,
        )
        return runner.label_swap("lra_diff", "temporal_order", budget, (0, 1))

    first = ask()
    assert (first["w_xh"], first["w_hh"]) == (0.5, 0.25)
    assert ask() == first
    assert len(made) == 1
    (kept,) = tmp_path.glob("*.csv")
    for damage in (b"", b"name,task\na,b\n"):
        kept.write_bytes(damage)
        assert ask() == first
    assert len(made) == 3
    (path,) = tmp_path.glob("*.code.json")
    (code,) = json.loads(path.read_text())
    name = "flow/recording.py"
    for found, says in (
        (code | {name: "0"}, f"changed: {name}"),
        ([code, code | {name: "0"}], f"changed: {name}"),
        (None, "it does not say by which code it was made"),
    ):
        path.write_text(json.dumps(found))
        with pytest.raises(store.OldCodeError, match=says) as error:
            ask()
        assert str(error.value).endswith(
            "add --accept-old-code; or move it away to record it anew"
        )
        assert ask(accept_old_code=True) == first
        assert says in capsys.readouterr().err
    assert len(made) == 3


def runner(folder, **options):
    """A runner, and the interruption whose `signal` stops it."""
    interruption = mock.Mock(signal=None)
    console = rich.console.Console(quiet=True)
    return recordings.PaperRunner(
        console, folder, interruption, **options
    ), interruption


def test_each_setting_of_a_recording_is_kept_when_a_signal_comes(tmp_path, monkeypatch):
    recorded = []

    def record(setting, **how):
        recorded.append(setting.name)
        assert how["num_steps"] == 4
        if len(recorded) == 2:
            interruption.signal = 2
        return setting

    def rows(kind):
        return lambda found: [{"setting": s.name, "rule": kind} for s in found]

    monkeypatch.setattr(recordings.recording, "record", record)
    monkeypatch.setattr(recordings.machine, "in_float64", contextlib.nullcontext)
    monkeypatch.setattr(recordings.flow_tables, "by_step", rows("table"))
    monkeypatch.setattr(recordings.flow_tables, "summary", rows("summary"))
    names = [s.name for s in configs.flow_settings("figure4", budgets.SMOKE)]

    def ask():
        return one.flow("figure4", budgets.SMOKE, (0, 1), 4, 2)

    one, interruption = runner(tmp_path)
    with pytest.raises(StoppedError):
        ask()
    assert recorded == names[:2]
    one, interruption = runner(tmp_path)
    table, summary = ask()
    assert recorded == names
    assert table == [{"setting": name, "rule": "table"} for name in names]
    assert summary == [{"setting": name, "rule": "summary"} for name in names]
    assert len(one.recorded) == 1
    assert {path.name for path in (tmp_path / "figure4").iterdir()} == {
        "settings.txt", "code.json", "table.csv", "summary.csv", "made_with.csv",
    }  # fmt: skip
    assert ask() == (table, summary)
    assert recorded == names
    for name, data in (("settings.txt", b"\xff"), ("table.csv", b"")):
        (tmp_path / "figure4" / name).write_bytes(data)
        recorded.clear()
        interruption.signal = None
        recorded += ["", ""]  # the signal comes with the second one
        assert ask() == (table, summary)
        assert recorded[2:] == names


def test_a_part_of_a_recording_that_other_code_has_made_is_refused(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(recordings, "_code", lambda: {"a.py": "1"})
    setting = configs.flow_settings("figure4", budgets.SMOKE)[0]
    how = {"num_steps": 4}
    content = {"code": {"a.py": "0"}, "made_with": {}, "table": [], "summary": []}
    half = tmp_path / "part0.json"
    recordings.parts.write(half, f"{setting} {how}", **content)
    one, _ = runner(tmp_path)
    with pytest.raises(store.OldCodeError, match=r"(?s)part0\.json.*changed: a\.py"):
        one._record(half, "figure4", setting, how)
    one, _ = runner(tmp_path, accept_old_code=True)
    assert one._record(half, "figure4", setting, how)["code"] == {"a.py": "0"}


def test_each_length_of_a_warm_start_is_kept_when_a_signal_comes(tmp_path, monkeypatch):
    trained = []

    def train(experiment, grid, limits, params):
        trained.append((experiment.seq_len, params))
        if len(trained) == 1:
            interruption.signal = 15
        size = grid.seeds.size
        weights = types.Params(*(np.full(size, 1 / 3, np.float32),) * 5)
        return np.full(size, Status.SOLVED), np.full(size, 7), weights

    monkeypatch.setattr(recordings.curriculum, "train_from", train)

    def ask():
        return one.warm_lengths("bptt", published.ORDER, budgets.SMOKE, (0, 1))

    one, interruption = runner(tmp_path)
    with pytest.raises(StoppedError):
        ask()
    one, interruption = runner(tmp_path)
    rows = ask()
    assert [t for t, _ in trained] == [10, 20]
    assert trained[1][1].w_hh.tolist() == [np.float32(1 / 3)] * 2
    assert [row["seq_len"] for row in rows] == [10] * 2 + [20] * 2
    assert len(one.recorded) == 1
    assert not [*tmp_path.glob("*.part.json")]
    assert ask() == rows
    assert len(trained) == 2
    reach = table5.from_warm_starts("bptt", "x", published.ORDER, rows, 2, 300)
    assert (reach.longest, reach.num_settings) == ([20, 20], 1)
    path = tmp_path / f"warm.bptt.{published.ORDER}.csv"
    for damage in (b"", b"seq_len,seed\n10,0\n"):
        path.write_bytes(damage)
        assert ask() == rows
    assert len(trained) == 6


# A small run of everything.


def command(*words):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.reproduce", *words],
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_wrong_name_is_one_message():
    done = call(reproduce, "tabel1", budget="standard", results="results")
    code, message = done.returncode, done.stderr
    assert code == 2
    assert message.count("\n") == 1
    assert "did you mean 'table1'" in message


@pytest.mark.slow
def test_the_smoke_budget_of_everything_makes_sense(tmp_path):
    places = ("--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "results"))
    code, output, message = command("all", "--budget", "smoke", "--seeds", "2", *places)
    assert code == 0, message
    folder = tmp_path / "results" / "smoke"
    for name in reproduce.ARTEFACTS:
        page = (folder / f"{name}.md").read_text()
        assert page.splitlines()[0] in output
        with (folder / f"{name}.csv").open() as file:
            assert list(csv.DictReader(file))
    table1 = results.read_rows(folder / "table1.csv")
    of = {(r["row"], r["num_refinements"]): r for r in table1}
    labels = {name: r.label for name, r in rows.ROWS.items()}
    # T = 10 is so easy that the readout alone is near, and the exact gradient solves.
    assert of[labels["bptt"], None]["accuracy"] > 0.95
    assert of[labels["readout_only"], None]["accuracy"] > 0.8
    assert of[labels["lra_diff_wide"], 1]["accuracy"] > 0.95
    assert all(0.25 <= r["accuracy"] <= 1 for r in table1)
    reached = results.read_rows(folder / "table5.csv")
    assert {r["method"] for r in reached} == {r.label for r in rows.REACH_ROWS.values()}
    solved = {r["method"]: r["solved"] for r in reached if r["seq_len"] == 10}
    assert solved["BPTT"] == 2
    flow = {r["setting"]: r for r in results.read_rows(folder / "figure2_summary.csv")}
    assert flow["BPTT"]["w_hh_sum_cosine_init"] == pytest.approx(1)
    assert flow["lra_diff"]["decades_init"] < flow["lra_released"]["decades_init"]
    assert (folder / "table5.png").stat().st_size > 10_000
    configs = sorted((folder / "configs").glob("*.toml"))
    assert len(configs) > 20
    # A second time nothing is trained, and the pages are the same.
    before = (folder / "table1.md").read_text()
    code, _, _ = command("table1", "--budget", "smoke", "--seeds", "2", *places)
    assert code == 0
    assert (folder / "table1.md").read_text() == before
    runs = results.read_rows(folder / "table1_runs.csv")
    manifest = tmp_path / "runs/smoke_2_seeds" / runs[0]["run"] / "manifest.json"
    assert json.loads(manifest.read_text())["finished"]
