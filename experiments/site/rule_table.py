"""Rules on networks or tasks: `python -m experiments.rule_table --run runs/at_30`.

Reads a grid whose tables are rules, on several networks or on several tasks. For each
rule, network and task, the seeds 100 and above choose a setting: the one that solves
most of them, in the fewest updates, or that is the most accurate. The other seeds are
counted for it. What the run has not finished is left out.

`--tables a.csv,b.csv --picture FILE` draws such tables of one task each beside each
other, and reads no run.

With `--out`, `NAME.csv` has a row for each rule, network and task, `NAME.md` the table,
`NAME_seeds.csv` every counted seed. Where there are several tasks, `NAME_ranks.md` has
the rules of each network by their mean rank over its tasks, and `NAME_pairs.md` each
rule beside BPTT and beside the readout alone: in pairs of a task and a network, by
the mean accuracy of the counted seeds, with p of a two-sided Wilcoxon signed-rank test,
corrected for all tests of the table by Holm's method. Seeds are no pairs of their own:
those of one task have the setting and the task in common.
"""

from __future__ import annotations

import json
import pathlib
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import rich.console
from absl import flags

from experiments.site import tables
from experiments.site.leaderboard import CONTROLS, holm, wilcoxon
from experiments.site.tables import network_of
from lra_jax.lab.reports import canvas, markdown, results, summary
from lra_jax.lab.runs import store
from lra_jax.lab.terminal import command_line, files, screen

if TYPE_CHECKING:  # the extra `plot`
    from matplotlib.figure import Figure

_RUN = flags.DEFINE_string("run", "runs/at_30", "Folder of the run.")
_OUT = flags.DEFINE_string(
    "out", None, "Folder for the tables; none by default.", allow_override=True
)
_NAME = flags.DEFINE_string("name", "at", "Of the tables' files.", allow_override=True)
_TABLES = flags.DEFINE_list("tables", [], "Tables to draw, from --out.")
_PICTURE = flags.DEFINE_string(
    "picture", None, "PNG of --tables; none by default.", allow_override=True
)

FIRST_TUNING_SEED = 100
LENGTH = ", T = "
_NEEDED = ("member", "rule", "task", "seed", "status", "step", "best_accuracy")
Row = dict[str, Any]
Curves = Mapping[str, np.ndarray]


def choose(rows: Sequence[Row]) -> list[Row]:
    """The counted seeds of the setting that the tuning seeds choose.

    Raises:
      ValueError: there are no tuning seeds, or no others.
    """
    settings = defaultdict(list)
    for row in rows:
        key = tuple((k, v) for k, v in row.items() if k not in summary.OUTCOMES)
        settings[key].append(row)

    def merit(members: Sequence[Row]) -> tuple[float, float, float]:
        tuned = [r for r in members if int(r["seed"]) >= FIRST_TUNING_SEED]
        solved = [int(r["step"]) for r in tuned if r["status"] == "solved"]
        mean = statistics.fmean(solved) if solved else 0.0
        accuracy = statistics.fmean(float(r["best_accuracy"]) for r in tuned)
        return len(solved), -mean, accuracy

    if len({int(row["seed"]) < FIRST_TUNING_SEED for row in rows}) < 2:
        raise ValueError(
            f"seeds: expected some of at least {FIRST_TUNING_SEED}, which choose the "
            "setting, and others that are counted"
        )
    best = max(settings.values(), key=merit)
    return [r for r in best if int(r["seed"]) < FIRST_TUNING_SEED]


def finished(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Rule, network and task to their members, where all of them have ended.

    What a race has ended counts as not ended: what it would have reached is not known.

    A task that has several lengths in the table is one with each of them.
    """
    groups, lengths = defaultdict(list), defaultdict(set)
    for row in rows:
        lengths[row["task"]].add(row.get("seq_len"))
    for row in rows:
        task = row["task"]
        if len(lengths[task]) > 1:
            task += f"{LENGTH}{row['seq_len']}"
        groups[row["rule"], network_of(row), task].append(row)
    return {
        key: members
        for key, members in groups.items()
        if all(r["status"] not in summary.UNKNOWN for r in members)
    }


def last_quarter(member: Row, curves: Curves) -> float | None:
    """Mean accuracy of a member's evaluations in the last quarter of its updates.

    None where it ended as solved: it was not trained on.
    """
    if member["status"] == "solved" or not curves:
        return None
    own = store.of_member(curves, int(member["member"]))
    late = curves["step"][own] > 0.75 * int(member["step"])
    if not late.any():
        return None
    errors, samples = (curves[key][own][late] for key in ("num_errors", "num_samples"))
    return float(np.mean(1 - errors / samples))


def cells(rows: Sequence[Row], curves: Curves) -> list[Row]:
    """A row for each rule, network and task that is finished.

    `last_quarter` is of the seeds that were not solved, and trained to the end.
    """
    found = []
    for (rule, network, task), members in finished(rows).items():
        counted = choose(members)
        steps = [int(r["step"]) for r in counted if r["status"] == "solved"]
        accuracies = [float(r["best_accuracy"]) for r in counted]
        late = [last_quarter(r, curves) for r in counted]
        known = [value for value in late if value is not None]
        varied = {
            k: v
            for k, v in counted[0].items()
            if len({r[k] for r in members}) > 1 and k not in summary.OUTCOMES
        }
        found.append(
            {
                "name": f"{rule} {network} {task}",
                "rule": rule,
                "network": network,
                "task": task,
                "solved": len(steps),
                "seeds": len(counted),
                "median_updates": statistics.median(steps) if steps else None,
                "accuracy": statistics.fmean(accuracies),
                "least": min(accuracies),
                "most": max(accuracies),
                "last_quarter": statistics.fmean(known) if known else None,
                "setting": ", ".join(f"{k} {v}" for k, v in varied.items()),
            }
        )
    return found


def table(found: Sequence[Row], chance: Mapping[str, float]) -> str:
    """In Markdown: rules by networks; or tasks by rules, a block for each network.

    A cell is how many seeds are solved, and when or the accuracy; the accuracy alone
    where nothing is solved in the whole table.
    """
    solvable = any(row["solved"] for row in found)

    def text(row: Row | None) -> str:
        if row is None:
            return ""
        solved = f"{row['solved']}/{row['seeds']}"
        accuracy = f"{summary.percent(row['accuracy'])} %"
        if row["solved"]:
            return f"{solved} in {row['median_updates']:,.0f}"
        return f"{solved} ({accuracy})" if solvable else accuracy

    by_place = {(r["rule"], r["network"], r["task"]): r for r in found}
    rules, networks, tasks = (
        list(dict.fromkeys(place[i] for place in by_place)) for i in range(3)
    )
    if len(tasks) == 1:
        lines = [
            [rule, *(text(by_place.get((rule, net, tasks[0]))) for net in networks)]
            for rule in rules
        ]
        return markdown.table(["rule", *networks], lines)
    parts = []
    for net in networks:
        lines = [
            [
                task,
                _percent_of_chance(chance.get(task.partition(LENGTH)[0])),
                *(text(by_place.get((rule, net, task))) for rule in rules),
            ]
            for task in tasks
        ]
        title = f"**{net}**\n\n" if len(networks) > 1 else ""
        parts.append(title + markdown.table(["task", "chance", *rules], lines))
    return "\n".join(parts)


def _percent_of_chance(share: float | None) -> str:
    return "" if share is None else f"{summary.percent(share)} %"


def ranks_table(found: Sequence[Row]) -> str:
    """The rules of a network by their mean rank over its tasks; equals share a rank.

    Tasks that not all of its rules have finished are left out. On a task that rule is
    better that solves more seeds; of equals in this, in fewer updates, if there are
    solved ones; and then the more accurate.
    """
    tasks, rules = defaultdict(list), defaultdict(set)
    for row in found:
        tasks[row["network"], row["task"]].append(row)
        rules[row["network"]].add(row["rule"])
    places = defaultdict(list)  # network and rule to (rank, all solved, first)
    for (network, _), rows in tasks.items():
        if len(rows) < len(rules[network]):
            continue
        merits = [
            (-row["solved"], row["median_updates"] or 0, -row["accuracy"])
            for row in rows
        ]
        for row, merit in zip(rows, merits, strict=True):
            better = sum(other < merit for other in merits)
            rank = better + (merits.count(merit) + 1) / 2
            place = rank, row["solved"] == row["seeds"], not better
            places[network, row["rule"]].append(place)
    lines = []
    for (network, rule), each in places.items():
        ranks, solved, first = zip(*each, strict=True)
        lines.append((network, statistics.fmean(ranks), rule, sum(solved), sum(first)))
    order = list(rules)
    body = [
        [rule, net, f"{rank:.1f}", f"{solved} of {len(places[net, rule])}", str(first)]
        for net, rank, rule, solved, first in sorted(
            lines, key=lambda line: (order.index(line[0]), line[1])
        )
    ]
    header = [
        "rule",
        "network",
        "mean rank",
        "solved by all seeds",
        "first, also with others",
    ]
    return markdown.table(header, body)


def pairs_table(found: Sequence[Row]) -> str:
    """Each rule beside the controls, in pairs of a task and a network.

    Of a task with several lengths the mean over those that both have finished counts:
    they are no pairs of their own.
    """
    accuracy: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for row in found:
        accuracy[row["rule"]][row["network"], row["task"]] = row["accuracy"]
    made = []
    for rule, mine in accuracy.items():
        for control in CONTROLS:
            places = [each for each in mine if each in accuracy.get(control, {})]
            if rule == control or not places or (rule, control) == CONTROLS[::-1]:
                continue
            a, b = (_by_task(one, places) for one in (mine, accuracy[control]))
            made.append((rule, control, (a > b).sum(), (a < b).sum(), wilcoxon(a, b)))
    body = [
        [rule, control, str(better), str(worse), "" if p is None else f"{p:.1g}"]
        for (rule, control, better, worse, _), p in zip(
            made, holm([each[-1] for each in made]), strict=True
        )
    ]
    return markdown.table(["rule", "beside", "tasks better", "tasks worse", "p"], body)


def _by_task(
    accuracy: Mapping[tuple[str, str], float], places: Sequence[tuple[str, str]]
) -> np.ndarray:
    """Mean accuracy over the lengths of each network and task."""
    lengths = defaultdict(list)
    for network, task in places:
        lengths[network, task.partition(LENGTH)[0]].append(accuracy[network, task])
    return np.array([statistics.fmean(each) for each in lengths.values()])


def counted_seeds(rows: Sequence[Row], curves: Curves) -> list[Row]:
    """Every counted seed."""
    return [
        {
            "rule": rule,
            "network": network,
            "task": task,
            "seed": row["seed"],
            "status": row["status"],
            "updates": row["step"],
            "accuracy": row["best_accuracy"],
            "last_quarter": last_quarter(row, curves),
        }
        for (rule, network, task), members in finished(rows).items()
        for row in choose(members)
    ]


def draw(titled: Mapping[str, Sequence[Row]]) -> Figure:
    """Rules × networks of each table, shaded by the mean best accuracy.

    Args:
      titled: by title, rows of `cells`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.2 + 2.6 * len(titled), 3.2), layout="constrained")
    panels = figure.subplots(1, len(titled), squeeze=False)[0]
    for axes, (title, rows) in zip(panels, titled.items(), strict=True):
        rules, networks = (
            list(dict.fromkeys(row[key] for row in rows)) for key in ("rule", "network")
        )
        shades = np.full((len(rules), len(networks)), np.nan)
        for row in rows:
            place = rules.index(row["rule"]), networks.index(row["network"])
            shades[place] = accuracy = float(row["accuracy"])
            axes.text(
                *place[::-1],
                f"{100 * accuracy:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if accuracy < 0.6 else "black",
            )
        axes.imshow(shades, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        short = [name.replace("2 layers of", "2 ×") for name in networks]
        axes.set_xticks(range(len(networks)), short, rotation=60, fontsize=7)
        axes.set_yticks(range(len(rules)), rules, fontsize=7)
        axes.set_title(f"{title}, best accuracy in %", fontsize=8)
    return figure


def _draw_tables() -> None:
    titled = {}
    for name in _TABLES.value:
        columns = ("rule", "network", "task", "accuracy")
        rows = tables.read(pathlib.Path(name), columns, numbers=["accuracy"])
        titled[rows[0]["task"]] = rows
    if _PICTURE.value is None:
        raise ValueError("--tables: expected --picture")
    if (note := canvas.missing()) is not None:
        raise ValueError(screen.plain(note))
    with canvas.style():
        draw(titled).savefig(str(_PICTURE.value), dpi=150)


def _run(console: rich.console.Console) -> int:
    """Prints the table and writes the files."""
    del console
    if _TABLES.value:
        _draw_tables()
        return 0
    run = pathlib.Path(str(_RUN.value))
    rows = tables.read(run / "results.csv", _NEEDED, ("member", "seed", "step"))
    curves, chance = _beside(run)
    found = cells(rows, curves)
    if not found:
        raise ValueError(f"{run}: no rule has finished on any network")
    text = table(found, chance)
    if _OUT.value is not None:
        folder = pathlib.Path(str(_OUT.value))
        folder.mkdir(parents=True, exist_ok=True)
        name = _NAME.value
        results.write_rows(folder / f"{name}.csv", found)
        results.write_rows(folder / f"{name}_seeds.csv", counted_seeds(rows, curves))
        files.write_text(folder / f"{name}.md", text)
        if len({row["task"] for row in found}) > 1:
            for part, made in (("pairs", pairs_table), ("ranks", ranks_table)):
                files.write_text(folder / f"{name}_{part}.md", made(found))
    print(text, end="")
    return 0


def _beside(run: pathlib.Path) -> tuple[Curves, Mapping[str, float]]:
    """Evaluations and chances of a run, where they are there.

    Raises:
      store.RunFolderError: they cannot be read.
    """
    curves: dict[str, np.ndarray] = {}
    if (run / "curves.npz").is_file():
        curves = store.read_curves(run / "curves.npz")
        if "num_samples" not in curves:  # of older runs, which looked at all
            curves = {}
    path = run / "manifest.json"
    if not path.is_file():
        return curves, {}
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except ValueError as error:  # also of what is no text
        raise store.RunFolderError(f"{path} is damaged: {error}") from None
    chance = manifest.get("chance", {}) if isinstance(manifest, dict) else None
    if not isinstance(chance, dict):
        raise store.RunFolderError(f"{path}: expected a run's manifest")
    return curves, chance


parse = command_line.parser(__name__)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    errors = (OSError, ValueError, store.RunFolderError)
    return command_line.exit_code(_run, errors, command_line.program(__name__))
