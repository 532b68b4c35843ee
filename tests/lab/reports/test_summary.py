"""Tables and figures of made-up results, where the right answer is known."""

import math

import numpy as np
import pytest
import scipy.stats

from lra_jax.lab.reports import figures, run_view, statistics, summary, texts


def row(member, seed, gamma, status, step, best, rule="lra_diff"):
    return {
        "member": member, "task": "temporal_order", "seq_len": 10, "rule": rule,
        "optimizer": "sgd", "hidden_size": 100, "batch_size": 20, "lr": 0.1,
        "gamma": gamma, "seed": seed, "status": status, "step": step,
        "final_num_errors": 0, "final_accuracy": best, "best_num_errors": 0,
        "best_accuracy": best, "best_step": step,
    }  # fmt: skip


ROWS = [
    row(0, 0, 1, "exhausted", 100, 0.90),
    row(1, 1, 1, "stalled", 80, 0.95),
    row(2, 2, 1, "solved", 60, 1.00),
    row(3, 0, 10, "solved", 20, 1.0),
    row(4, 1, 10, "solved", 40, 1.0),
    row(5, 2, 10, "diverged", 0, 0.25),
]


def cells(rows):
    return texts.cells(summary.summarize(rows))


def report(rows):
    return texts.report(run_view.RunView("name", "command", rows, [], True))


def test_intervals_are_students_t_over_seeds():
    first, second = summary.settings(ROWS)
    assert first.mean("best_accuracy") == pytest.approx(0.95)
    half_width = 4.302653 * 0.05 / math.sqrt(3)
    assert first.interval("best_accuracy") == pytest.approx(half_width)
    assert (first.num_solved, second.num_solved) == (1, 2)
    assert first.interval("best_accuracy") > 2 * 1.96 * 0.05 / math.sqrt(3)  # normal


@pytest.mark.parametrize("count", [2, 3, 31, 32, 1000])
def test_intervals_are_those_of_scipy(count):
    values = np.random.default_rng(count).normal(5, 2, count)
    mean, half_width = statistics.mean_interval(list(values))
    low, high = scipy.stats.t.interval(
        0.95, count - 1, values.mean(), scipy.stats.sem(values)
    )
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high))


def test_one_value_and_values_that_are_not_finite_have_no_interval():
    assert statistics.mean_interval([0.5]) == (0.5, None)
    mean, half_width = statistics.mean_interval([0.5, math.nan])
    assert (math.isnan(mean), half_width) == (True, None)
    finite = statistics.finite_mean_interval
    assert finite([math.inf, math.nan]) == (None, None)
    assert finite([0.5, math.nan]) == (0.5, None)
    # Student's t with one degree of freedom, in any table: 12.706.
    assert finite([0.4, math.nan, 0.6]) == (0.5, pytest.approx(1.2706, abs=5e-5))


def test_the_best_setting_has_most_seeds_solved():
    ((best, count),) = summary.best_settings(ROWS)
    assert best.values["gamma"] == 10
    assert count == 2
    header, ((*_, solved, accuracy, _, updates),) = cells(ROWS)
    assert header[-4:] == ["solved", "accuracy %", "final %", "updates"]
    assert (solved, updates) == ("2/3", "20")
    assert accuracy.startswith("75.00 ± ")


def test_a_single_error_is_not_rounded_to_a_hundred():
    assert summary.percent(0.99999) == "99.99"
    assert summary.percent(1.0) == "100"
    assert summary.percent(0.5, 0.0123) == "50.00 ± 1.23"


def test_members_that_run_are_left_out():
    running = [{**r, "status": "running"} for r in ROWS[:2]]
    assert summary.settings(running) == []
    (setting,) = summary.settings([*running, ROWS[2]])
    assert (len(setting.rows), setting.num_seeds) == (1, 3)


# A race for each of three seeds: γ = 1 wins two, γ = 10 one, γ = 50 none.
RACE = [
    row(0, 0, 1, "solved", 60, 1.0),
    row(1, 1, 1, "solved", 80, 1.0),
    row(2, 2, 1, "outrun", 10, 0.30),
    row(3, 0, 10, "outrun", 50, 0.99),
    row(4, 1, 10, "exhausted", 100, 0.90),
    row(5, 2, 10, "solved", 20, 1.0),
    row(6, 0, 50, "outrun", 60, 0.99),
    row(7, 1, 50, "outrun", 0, None),
    row(8, 2, 50, "outrun", 20, 0.98),
]


def test_in_a_race_the_best_setting_wins_most_and_outrun_members_have_no_accuracy():
    first, second = summary.settings(RACE)
    assert (first.num_outrun, second.num_outrun) == (1, 1)
    assert first.mean("best_accuracy") == 1
    assert second.mean("best_accuracy") == pytest.approx(0.95)
    _, ((*_, count, solved, accuracy, final, updates),) = cells(RACE)
    assert count == "3"  # γ = 50 was in the race
    assert (solved, accuracy, final) == ("2/3 (1 outrun)", "100 ± 0.00", "100")
    assert updates == "70"
    # Of as many races won, the one that is better where it was not outrun.
    even = [r for r in RACE if r["seed"] != 1] + [
        row(1, 1, 1, "exhausted", 100, 0.5),
        row(4, 1, 10, "exhausted", 100, 0.9),
    ]
    ((best, _),) = summary.best_settings(even)
    assert best.values["gamma"] == 10


def test_the_report_says_what_a_race_hides():
    page = report(RACE)
    assert "9 members: 1 exhausted, 5 outrun, 3 solved." in page
    (line,) = [line for line in page.splitlines() if "**A race**" in line]
    assert "`solved` counts races won" in line
    assert "race" not in report(ROWS)


DRAWN = [
    row(i, 0, gamma and 3**i, status, 10 * i, 0.9, rule) | {"lr": 0.01 * 2**i}
    for rule, gamma in (("lra_diff", 1), ("readout_only", None))
    for i, status in enumerate(["solved", "stalled", "solved", "solved"], 1)
]


# Of a lattice of nine settings three have ended, no two with the same lr or γ.
BEGUN = [
    row(3 * i + j, 0, 3**j, "solved" if i == j else "running", 10, 1.0) | {"lr": 2.0**i}
    for i in range(3)
    for j in range(3)
]


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (ROWS, "heatmap"),
        (BEGUN, "heatmap"),
        (DRAWN, "scatter"),
        (DRAWN[:4], "scatter"),
    ],
)
def test_settings_that_were_drawn_have_no_lattice(tmp_path, rows, kind):
    curves = {
        "member": np.array([r["member"] for r in rows]),
        "step": np.array([r["step"] for r in rows]),
        "num_errors": np.zeros(len(rows), int),
    }
    names = [*figures.draw(tmp_path, rows, curves, 10_000)]
    assert names == [
        f"figures/{name}_temporal_order_T10.png" for name in ("accuracy", kind)
    ]


def test_a_heat_map_says_what_its_cells_are_the_best_of():
    rows = [
        row(i, 0, 1, status, 30, 0.9) | {"beta": beta}
        for i, (status, beta) in enumerate([("solved", 0.5), ("exhausted", 1.0)])
    ]
    titles = [axes.get_title() for axes in figures._heatmap(rows, "x").axes]
    assert titles[0] == "lra_diff\nK = 1, λ = 0\nbest of beta"
    titles = [axes.get_title() for axes in figures._heatmap(rows[:1], "x").axes]
    assert titles[0] == "lra_diff\nK = 1, λ = 0"


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        RACE[:6],
        ROWS[3:5],  # one setting, all solved
        [ROWS[3]],  # one member
        [
            *ROWS[3:5],
            row(6, 0, 50, "solved", 30, 1.0),
            row(7, 0, 99, "diverged", 0, 0.2),
        ],
        [row(8, 0, None, "exhausted", 50, 0.5, rule="bptt")],
    ],
    ids=["mixed", "race", "one setting", "one member", "diverged at once", "no gamma"],
)
def test_figures_are_drawn_whatever_the_results(tmp_path, rows):
    members = np.array([r["member"] for r in rows]).repeat(2)
    steps = np.array([[0, r["step"]] for r in rows]).ravel()
    errors = np.array([[7500, r["best_num_errors"]] for r in rows]).ravel()
    curves = {"member": members, "step": steps, "num_errors": errors}
    names = figures.draw(tmp_path, rows, curves, 10_000)
    assert len(names) == 2
    for name in names:
        assert (tmp_path / name).stat().st_size > 5000
        assert (tmp_path / name).with_suffix(".svg").exists()


def test_without_a_rate_the_accuracy_alone_is_drawn(tmp_path):
    def drawn(rows):
        members = np.array([r["member"] for r in rows])
        steps = np.array([r["step"] for r in rows])
        curves = {"member": members, "step": steps, "num_errors": 0 * steps}
        return [*figures.draw(tmp_path, rows, curves, 10_000)]

    names = [
        f"figures/{kind}_temporal_order_T10.png" for kind in ("accuracy", "heatmap")
    ]
    bare = [{key: r[key] for key in r if key != "lr"} for r in ROWS]
    assert drawn(bare) == names[:1]
    # As a table has them, where another optimizer of the grid has rates.
    none = [r | {"lr": None, "member": r["member"] + 10} for r in ROWS]
    assert drawn(none) == names[:1]
    assert drawn([*ROWS, *none]) == names


def test_percent_shows_every_accuracy_of_ten_thousand_samples():
    for right in range(10_000):
        expected = f"{right // 100}.{right % 100:02d}"
        assert summary.percent(1 - (10_000 - right) / 10_000) == expected


# Two settings, of which the better one is the second; and what a run's report adds.
SMALL = [
    row(0, 0, 1, "exhausted", 2000, 0.9),
    row(1, 0, 10, "solved", 1500, 1.0),
    row(2, 1, 10, "solved", 1000, 1.0),
    row(3, 1, 1, "stalled", 1000, 0.95),
    {**row(4, 0, None, "exhausted", 2000, 0.25, rule="readout_only"), "note_a": "5 %_"},
    {**row(5, 0, None, "diverged", 0, 0.25, rule="readout_only"), "note_a": "a, b"},
]


def test_a_finished_table_has_a_conclusion():
    assert texts.conclusion(ROWS) == ""  # one line compares nothing
    frozen = row(6, 0, None, "exhausted", 100, 0.5, rule="readout_only")
    several = [{**r, "num_refinements": 1, "lambda": 0.0} for r in ROWS]
    several += [{**r, "num_refinements": 2, "lambda": 0.1} for r in ROWS[3:5]]
    assert texts.conclusion([*several, frozen]) == (
        "Fewest updates until all seeds are solved: 30, by lra_diff K 2 λ 0.1 with "
        "gamma 10. Not solved in all seeds by any setting: lra_diff K 1 λ 0 (75.00 %), "
        "readout_only (50.00 %)."
    )
    best_of_gammas = [r for r in several if r["gamma"] == 1 or r["status"] == "solved"]
    assert "by lra_diff K 1 λ 0 with gamma 10" in texts.conclusion(
        [r for r in best_of_gammas if r["num_refinements"] == 1] + [frozen]
    )
    unsolved = [*several[:2], frozen]
    assert texts.conclusion(unsolved) == (
        "No setting solves all seeds; best is lra_diff K 1 λ 0 with 92.50 %."
    )
    for status in ("running", "pending", "outrun"):
        assert texts.conclusion([*several, {**frozen, "status": status}]) == ""


def test_a_table_as_csv():
    assert texts.csv_table(summary.summarize(SMALL)) == (
        "rule,num_refinements,lambda,gamma,note_a,settings,solved,seeds,outrun,"
        "accuracy,accuracy_interval_95,final_accuracy,updates\n"
        "lra_diff,1,0,10,,2,2,2,0,1,0,1,1250\n"
        'readout_only,,,,"a, b",2,0,1,0,0.25,,0.25,0\n'
    )


def test_a_table_as_latex():
    rows = [{**r, "run": r["rule"]} for r in SMALL[:5]]
    assert texts.latex_table(*cells(rows)) == (
        r"""\begin{tabular}{llrrlrrrrr}
\toprule
run & rule & K & $\lambda$ & best setting & of & solved & accuracy \% & final \% & updates \\
\midrule
lra\_diff & lra\_diff & 1 & 0 & gamma 10 & 2 & 2/2 & 100 $\pm$ 0.00 & 100 & 1,250 \\
readout\_only & readout\_only & -- & -- &  & 1 & 0/1 & 25.00 & 25.00 & 2,000 \\
\bottomrule
\end{tabular}
"""
    )
    text = texts.latex_table(["a", "b"], [["&%$#_{}\\~^", "1e-05"], ["5 %_", "–"]])
    assert r"\&\%\$\#\_\{\}\textbackslash{}\textasciitilde{}\textasciicircum{}" in text
    assert r"\begin{tabular}{lr}" in text
    assert r"\begin{tabular}{ll}" in texts.latex_table(["a", "b"], [])


def test_a_table_is_the_same_of_rows_that_were_read_from_a_file():
    keys = dict.fromkeys(key for r in SMALL for key in r)
    read = [{key: r.get(key) for key in keys} for r in SMALL]
    assert cells(read) == cells(SMALL)


def test_cells_of_a_markdown_table_cannot_end_it():
    rows = [{**row(0, 0, 1, "solved", 9, 1.0), "run": name} for name in ("a|b", "c")]
    page = report(rows)
    assert r"| a\|b | lra_diff |" in page


class Counted(dict):
    """A row that counts how often it is read."""

    count = 0

    def __iter__(self):
        Counted.count += 1
        return super().__iter__()

    def __getitem__(self, key):
        Counted.count += 1
        return super().__getitem__(key)

    def items(self):
        Counted.count += 1
        return super().items()


def test_the_work_of_a_summary_grows_with_the_members_alone():
    counts = []
    for num_settings in (100, 200):
        rows = [
            Counted(row(2 * i + seed, seed, i, "solved", 9, 1.0) | {"hidden_size": i})
            for i in range(num_settings)  # each is a line
            for seed in range(2)
        ]
        Counted.count = 0
        found = summary.summarize(rows)
        assert len(found.lines) == num_settings
        counts.append(Counted.count)
    assert 400 < counts[1] <= 2 * counts[0]


def test_each_member_has_its_own_curve_in_whatever_order_they_were_written():
    rows = [row(0, 0, 1, "exhausted", 20, 0.5), row(1, 1, 1, "exhausted", 20, 0.9)]
    curves = {
        "member": np.array([1, 0, 1, 0, 1]),
        "step": np.array([0, 0, 10, 10, 20]),
        "num_errors": np.array([75, 80, 50, 70, 10]),
    }
    axes = figures._accuracy(rows, curves, 100, "x", None).axes[0]
    first, second = axes.lines[:2]
    assert first.get_xdata().tolist() == [0, 10]
    assert second.get_xdata().tolist() == [0, 10, 20]
    np.testing.assert_allclose(first.get_ydata(), -np.log10([0.8, 0.7]))
    np.testing.assert_allclose(second.get_ydata(), -np.log10([0.75, 0.5, 0.1]))


def test_a_network_is_a_column_where_it_varies_and_in_the_heading_where_it_does_not():
    def made(**network):
        return [
            {
                "member": i, "task": "temporal_order", "seq_len": 10,
                "rule": "bptt", "optimizer": "sgd", "hidden_size": 8,
                "batch_size": 20, **network, "lr": 0.1, "seed": i,
                "status": "exhausted", "step": 20, "final_num_errors": 1,
                "final_accuracy": 0.9, "best_num_errors": 1,
                "best_accuracy": 0.9, "best_step": 20,
            }
            for i in range(2)
        ]  # fmt: skip

    plain = made()
    gru = made(network="gru", num_layers=2)
    assert "network" not in summary.summarize(gru).keys
    heading = "2 members: 2 exhausted. Network: gru, 2 layers. Chance:"
    assert run_view.counted(gru, {}).startswith(heading)
    assert "Network" not in run_view.counted(plain, {})
    assert "Network" not in run_view.counted(made(network="tanh", num_layers=1), {})
    assert "Network" not in run_view.counted([*plain, *gru], {})
    both = summary.summarize([*plain, *gru])  # as of two runs, one older
    assert {*both.keys} >= {"network", "num_layers"}
    assert [line.values["network"] for line in both.lines] == ["tanh", "gru"]
    assert [line.values["num_layers"] for line in both.lines] == [1, 2]
    # A table of the paper's network has the columns it had.
    assert "network" not in summary.member_columns(plain)
    assert "network" in summary.member_columns(gru)


def test_of_each_seed_the_soonest_solved_member_counts_or_the_most_accurate():
    def made(seed, lr, status, step, accuracy, seq_len=10):
        return {
            "member": step, "rule": "bptt", "seq_len": seq_len, "lr": lr, "seed": seed,
            "status": status, "step": step + 50, "best_step": step,
            "best_accuracy": accuracy,
        }  # fmt: skip

    rows = [
        made(3, 0.1, "solved", 200, 1.0),
        made(3, 0.3, "solved", 100, 1.0),
        made(4, 0.1, "exhausted", 900, 0.7),
        made(4, 0.3, "stalled", 300, 0.8),
        made(4, 0.1, "outrun", 0, None, seq_len=20),
    ]
    assert summary.best_of_seeds([]) == []
    found = summary.best_of_seeds(rows)
    assert [(x["seq_len"], x["seed"], x["updates"], x["setting"]) for x in found] == [
        (10, 3, 100, "lr 0.3"), (10, 4, 350, "lr 0.3"), (20, 4, 50, "lr 0.1"),
    ]  # fmt: skip
    assert [x["best_accuracy"] for x in found] == [1.0, 0.8, None]
