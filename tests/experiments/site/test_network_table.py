"""The table of rules on networks: which setting is chosen, and what is counted."""

from command_line import call

from experiments.site import network_table
from lra_jax.lab.reports import results


def rows(rule, network, layers, **solved):
    """Members of two learning rates: `lr1={seed: step or accuracy}`."""
    found = []
    for lr, seeds in solved.items():
        for seed, outcome in seeds.items():
            is_solved = isinstance(outcome, int)
            found.append(
                {
                    "member": len(found),
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


# The counted seeds are better at "a", and the tuning seeds at "b".
A = {"0": 50, "1": 50, "100": 0.9, "101": 400}
B = {"0": 0.5, "1": 300, "100": 200, "101": 200}


def test_tuning_seeds_choose_and_the_others_are_counted():
    (row,) = network_table.pairs(rows("bptt", "gru", 1, a=A, b=B))
    assert row["setting"] == "lr b"
    assert (row["solved"], row["seeds"], row["median_updates"]) == (1, 2, 300)
    assert row["accuracy"] == 0.75


def test_of_equally_many_solved_the_fewest_updates_win_and_else_accuracy():
    fast = {"0": 7, "100": 100}
    slow = {"0": 8, "100": 101}
    assert network_table.choose(rows("x", "gru", 1, a=slow, b=fast))[0]["step"] == 7
    good, bad = {"0": 0.3, "100": 0.6}, {"0": 0.4, "100": 0.5}
    (chosen,) = network_table.choose(rows("x", "gru", 1, a=bad, b=good))
    assert chosen["best_accuracy"] == 0.3


def test_a_pair_that_is_not_finished_is_left_out():
    unfinished = rows("bptt", "tanh", 1, a=A)
    unfinished[0]["status"] = "running"
    found = network_table.pairs([*unfinished, *rows("bptt", "tanh", 2, a=A)])
    assert [row["network"] for row in found] == ["2 layers of tanh"]


def test_the_table_has_rules_by_networks(tmp_path):
    members = [
        *rows("bptt", "gru", 1, a=A, b=B),
        *rows("dfa", "tanh", 1, a={"0": 0.25, "100": 0.5}),
    ]
    (tmp_path / "run").mkdir()
    results.write_rows(tmp_path / "run/results.csv", members)
    done = call(network_table, "--run", str(tmp_path / "run"), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "at.md").read_text().splitlines() == [
        "| rule | gru | tanh |",
        "| --- | --- | --- |",
        "| bptt | 1/2 in 300 |  |",
        "| dfa |  | 0/1 (25.00 %) |",
    ]
    first, second = results.read_rows(tmp_path / "at.csv")
    assert first["name"] == "bptt gru"
    assert float(second["accuracy"]) == 0.25


def test_a_run_that_is_not_there_is_one_message(tmp_path):
    done = call(network_table, "--run", str(tmp_path / "no"))
    assert done.returncode == 2
    assert done.stderr.startswith("experiments.network_table: ")
    assert done.stderr.count("\n") == 1
