"""The table of rules on networks or tasks: which setting is chosen, and what is counted."""

import json

import numpy as np
import pytest
from command_line import call

from experiments.site import rule_table
from lra_jax.lab.reports import results


def rows(rule, network, layers, task="adding", **solved):
    """Members of two learning rates: `lr1={seed: step or accuracy}`."""
    found = []
    for lr, seeds in solved.items():
        for seed, outcome in seeds.items():
            is_solved = isinstance(outcome, int)
            found.append(
                {
                    "member": len(found),
                    "task": task,
                    "rule": rule,
                    "lr": lr,
                    "network": network,
                    "num_layers": layers,
                    "seed": int(seed),
                    "status": "solved" if is_solved else "exhausted",
                    "step": outcome if is_solved else 500,
                    "best_accuracy": 1.0 if is_solved else outcome,
                }
            )
    return found


def tables_of(folder, members, **beside):
    """The folder's tables `at`, of a run of these members and JSON files beside them."""
    (folder / "run").mkdir()
    results.write_rows(folder / "run/results.csv", members)
    for name, document in beside.items():
        (folder / f"run/{name}.json").write_text(json.dumps(document))
    done = call(rule_table, "--run", str(folder / "run"), "--out", str(folder))
    assert done.returncode == 0, done.stderr
    return (folder / "at.md").read_text().splitlines()


# The counted seeds are better at "a", and the tuning seeds at "b".
A = {"0": 50, "1": 50, "100": 0.9, "101": 400}
B = {"0": 0.5, "1": 300, "100": 200, "101": 200}


def test_tuning_seeds_choose_and_the_others_are_counted():
    (row,) = rule_table.cells(rows("bptt", "gru", 1, a=A, b=B), {})
    assert row["setting"] == "lr b"
    assert (row["solved"], row["seeds"], row["median_updates"]) == (1, 2, 300)
    assert row["accuracy"] == 0.75


def test_of_equally_many_solved_the_fewest_updates_win_and_else_accuracy():
    fast = {"0": 7, "100": 100}
    slow = {"0": 8, "100": 101}
    assert rule_table.choose(rows("x", "gru", 1, a=slow, b=fast))[0]["step"] == 7
    good, bad = {"0": 0.3, "100": 0.6}, {"0": 0.4, "100": 0.5}
    (chosen,) = rule_table.choose(rows("x", "gru", 1, a=bad, b=good))
    assert chosen["best_accuracy"] == 0.3


def test_a_pair_that_is_not_finished_is_left_out():
    unfinished = rows("bptt", "tanh", 1, a=A)
    unfinished[0]["status"] = "running"
    found = rule_table.cells([*unfinished, *rows("bptt", "tanh", 2, a=A)], {})
    assert [row["network"] for row in found] == ["2 layers of tanh"]


def test_the_table_has_rules_by_networks(tmp_path):
    members = [
        *rows("bptt", "gru", 1, a=A, b=B),
        *rows("dfa", "tanh", 1, a={"0": 0.25, "100": 0.5}),
    ]
    assert tables_of(tmp_path, members) == [
        "| rule | gru | tanh |",
        "| --- | --- | --- |",
        "| bptt | 1/2 in 300 |  |",
        "| dfa |  | 0/1 (25.00 %) |",
    ]
    first, second = results.read_rows(tmp_path / "at.csv")
    assert first["name"] == "bptt gru adding"
    assert float(second["accuracy"]) == 0.25


def test_several_tasks_are_rows_with_their_chance_and_rules_are_paired(tmp_path):
    """A rule that is better in 2 of 2 tasks may be so by chance, whatever its seeds."""
    seeds = [str(seed) for seed in range(6)]
    members = []
    for task in ("adding", "sine"):
        for rule, accuracy in (("bptt", 0.9), ("readout_only", 0.5), ("dfa", 0.7)):
            outcomes = {seed: accuracy + 0.01 * int(seed) for seed in seeds}
            members += rows(rule, "tanh", 1, task, a=outcomes | {"100": accuracy})
    assert tables_of(tmp_path, members, manifest={"chance": {"sine": 0.25}}) == [
        "| task | chance | bptt | readout_only | dfa |",
        "| --- | --- | --- | --- | --- |",
        "| adding |  | 92.50 % | 52.50 % | 72.50 % |",
        "| sine | 25.00 % | 92.50 % | 52.50 % | 72.50 % |",
    ]
    # Two of four signs are as far apart; Holm: three tests, of equal p.
    assert (tmp_path / "at_pairs.md").read_text().splitlines()[2:] == [
        "| bptt | readout_only | 2 | 0 | 1 |",
        "| dfa | bptt | 0 | 2 | 1 |",
        "| dfa | readout_only | 2 | 0 | 1 |",
    ]
    assert (tmp_path / "at_ranks.md").read_text().splitlines()[2:] == [
        "| bptt | tanh | 1.0 | 0 of 2 | 2 |",
        "| dfa | tanh | 2.0 | 0 of 2 | 0 |",
        "| readout_only | tanh | 3.0 | 0 of 2 | 0 |",
    ]
    assert len(results.read_rows(tmp_path / "at_seeds.csv")) == 2 * 3 * 6


def test_lengths_of_a_task_are_rows_of_their_own(tmp_path):
    members = []
    for seq_len, accuracy in ((100, 0.9), (20, 0.8)):
        more = rows("bptt", "tanh", 1, "sine", a={"0": accuracy, "100": 0.9})
        members += [row | {"seq_len": seq_len} for row in more]
    assert tables_of(tmp_path, members, manifest={"chance": {"sine": 0.25}})[2:] == [
        "| sine, T = 100 | 25.00 % | 90.00 % |",
        "| sine, T = 20 | 25.00 % | 80.00 % |",
    ]
    names = [row["task"] for row in results.read_rows(tmp_path / "at.csv")]
    assert names == ["sine, T = 100", "sine, T = 20"]


def test_ranks_are_by_solved_seeds_then_updates_then_accuracy_and_equals_share():
    def row(rule, task, solved, updates, accuracy, network="tanh"):
        return {
            "rule": rule, "network": network, "task": task, "solved": solved,
            "seeds": 5, "median_updates": updates, "accuracy": accuracy,
        }  # fmt: skip

    found = [
        row("a", "x", 5, 300, 1.0), row("b", "x", 4, 100, 0.9), row("c", "x", 0, None, 0.99),
        row("a", "y", 5, 200, 1.0), row("b", "y", 5, 200, 1.0), row("c", "y", 5, 100, 1.0),
        row("a", "z", 0, None, 0.2), row("b", "z", 0, None, 0.4), row("c", "z", 0, None, 0.3),
        row("c", "x", 0, None, 0.1, "gru"),
        row("c", "only c has finished it", 5, 100, 1.0),
    ]  # fmt: skip
    assert rule_table.ranks_table(found).splitlines()[2:] == [
        f"| b | tanh | {(2 + 2.5 + 1) / 3:.1f} | 1 of 3 | 1 |",
        f"| c | tanh | {(3 + 1 + 2) / 3:.1f} | 1 of 3 | 1 |",
        f"| a | tanh | {(1 + 2.5 + 3) / 3:.1f} | 2 of 3 | 1 |",
        "| c | gru | 1.0 | 0 of 1 | 1 |",
    ]


def test_lengths_of_a_task_are_one_pair():
    found = [
        {"rule": rule, "network": "tanh", "task": f"sine, T = {seq_len}",
         "accuracy": accuracy}
        for rule, accuracies in (("bptt", (0.9, 0.4, 0.4)), ("readout_only", (0.5, 0.5, 0.5)))
        for seq_len, accuracy in zip((20, 30, 40), accuracies, strict=True)
    ]  # fmt: skip
    last = rule_table.pairs_table(found).splitlines()[-1]
    assert last.startswith("| bptt | readout_only | 1 | 0 |")  # the means: 0.57 and 0.5


def test_twelve_tasks_of_twelve_are_not_by_chance():
    found = [
        {"rule": rule, "network": "tanh", "task": str(task), "accuracy": accuracy}
        for rule, accuracy in (("bptt", 0.9), ("readout_only", 0.5))
        for task in range(12)
    ]
    p = f"{2 / 2**12:.1g}"
    last = rule_table.pairs_table(found).splitlines()[-1]
    assert last == f"| bptt | readout_only | 12 | 0 | {p} |"


@pytest.mark.parametrize("seed", ["0", "100"])
def test_a_run_without_tuning_seeds_or_others_is_one_message(tmp_path, seed):
    results.write_rows(tmp_path / "results.csv", rows("bptt", "tanh", 1, a={seed: 0.5}))
    done = call(rule_table, "--run", str(tmp_path))
    assert done.returncode == 2
    assert "seeds: expected some of at least 100" in done.stderr


def test_the_last_quarter_is_of_those_that_trained_to_the_end():
    members = rows("bptt", "tanh", 1, a={"0": 0.9, "1": 300, "100": 0.9})
    curves = {
        "member": np.array([0, 0, 0, 0, 1]),
        "step": np.array([300, 375, 400, 500, 300]),
        "num_errors": np.array([0, 0, 4, 2, 0]),
        "num_samples": np.array([10, 10, 10, 10, 10]),
    }
    (row,) = rule_table.cells(members, curves)
    assert row["last_quarter"] == pytest.approx(0.7)  # of the steps after 375
    assert (row["least"], row["most"]) == (0.9, 1)
    assert rule_table.last_quarter(members[1], curves) is None


def test_a_run_that_is_not_there_is_one_message(tmp_path):
    done = call(rule_table, "--run", str(tmp_path / "no"))
    assert done.returncode == 2
    assert done.stderr.startswith("experiments.rule_table: ")
    assert done.stderr.count("\n") == 1


def test_what_a_race_ended_is_not_finished():
    members = rows("bptt", "tanh", 1, a=A, b=B)
    members[0] |= {"status": "outrun", "best_accuracy": None}
    assert rule_table.cells(members, {}) == []


@pytest.mark.parametrize("flag", ["--run", "--tables"])
def test_a_table_of_something_else_is_one_message(tmp_path, flag):
    results.write_rows(tmp_path / "results.csv", [{"a": 1}])
    path = tmp_path if flag == "--run" else tmp_path / "results.csv"
    done = call(rule_table, flag, str(path), picture=str(tmp_path / "x.png"))
    assert done.returncode == 2
    assert "results.csv: expected a table with the columns " in done.stderr
    assert done.stderr.count("\n") == 1


def test_damaged_curves_are_one_message(tmp_path):
    results.write_rows(tmp_path / "results.csv", rows("bptt", "tanh", 1, a=A))
    (tmp_path / "curves.npz").write_bytes(b"PK of something else")
    done = call(rule_table, "--run", str(tmp_path))
    assert done.returncode == 2
    assert "curves.npz is damaged" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is damaged: Expecting value"),
        ('{"chance": ', "is damaged: Expecting value"),
        ("[]", ": expected a run's manifest"),
        ('{"chance": 1}', ": expected a run's manifest"),
        ("ä".encode("latin-1"), "is damaged: 'utf-8' codec"),
    ],
)
def test_a_damaged_manifest_is_one_message(tmp_path, text, says):
    results.write_rows(tmp_path / "results.csv", rows("bptt", "tanh", 1, a=A))
    path = tmp_path / "manifest.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    done = call(rule_table, "--run", str(tmp_path), out=None)
    assert done.returncode == 2
    assert done.stderr.startswith(f"experiments.rule_table: {path}")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("value", "said"), [("", "nothing"), ("much", "'much'")])
def test_a_table_without_a_number_is_one_message(tmp_path, value, said):
    path = tmp_path / "at.csv"
    path.write_text(f"rule,network,task,accuracy\na,gru,x,0.5\nb,gru,x,{value}\n")
    done = call(rule_table, "--tables", str(path), picture=str(tmp_path / "x.png"))
    assert done.returncode == 2
    first, second = (
        f"experiments.rule_table: {path}: row {place}: accuracy: expected a number, got "
        for place in (1, 2)
    )
    # Where one value is a word, all values of the column are texts.
    expected = first + "'0.5'" if value else second + said
    assert done.stderr == f"{expected}\n"


def test_tables_are_drawn_beside_each_other(tmp_path):
    pytest.importorskip("matplotlib")
    for task in ("adding", "sine"):
        cells = rule_table.cells(rows("bptt", "gru", 1, task, a=A, b=B), {})
        results.write_rows(tmp_path / f"{task}.csv", cells)
    tables = ",".join(str(tmp_path / f"{task}.csv") for task in ("adding", "sine"))
    picture = tmp_path / "both.png"
    done = call(rule_table, "--tables", tables, picture=str(picture))
    assert done.returncode == 0, done.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    figure = rule_table.draw({"adding": results.read_rows(tmp_path / "adding.csv")})
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["75"]
    done = call(rule_table, "--tables", tables, picture=None)
    assert done.returncode == 2
    assert done.stderr == "experiments.rule_table: --tables: expected --picture\n"
