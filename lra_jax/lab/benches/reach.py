"""The longest T that rules solve: `python -m experiments.reach --config FILE`.

FILE is one of configs/reach. For each method and task, from the shortest T on: all
settings of the method race with seeds of their own (`tuning_seeds`); the one that wins
most races, in the fewest updates, is trained with other seeds (`seeds`), and these are
counted. (Settings that differ in K or in the optimizer race apart.) The next T is tried
where at least `required` of the seeds are solved. All methods have as many settings,
and as many updates. One with a single setting needs no tuning.

Runs go into `runs/reach/NAME/` and go on where they stand; tables and the figure go
into `results/reach/NAME/`. Exit codes are those of `grid`.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import pathlib
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from lra_jax import TASKS, rule_card
from lra_jax.lab import config as config_lib
from lra_jax.lab.benches import bench as bench_lib
from lra_jax.lab.benches import costs, pictures
from lra_jax.lab.benches.published import TABLE5, TITLES
from lra_jax.lab.config import Config, arguments, tasks
from lra_jax.lab.data.sources import DatasetError
from lra_jax.lab.reports import markdown, results, summary
from lra_jax.lab.reports.results import Row
from lra_jax.lab.runs.runner import Runner
from lra_jax.lab.terminal import files, screen


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a file in configs/reach says.

    Attributes:
      name: of the bench, and of its folders.
      tasks: names of `lra_jax.TASKS`, or `module:name` of one's own that is drawn.
      seq_len: lengths, in increasing order.
      methods: see `bench.Bench`.
      seeds: that are counted.
      tuning_seeds: that choose a setting.
      required: how many of `seeds` have to be solved to go on to the next T.
      num_trials: settings of each method, the same for all.
      max_steps: most updates of each run.
      eval_every: updates between two evaluations.
      num_validation: samples of the validation set.
      validation_stages: as of a config; [] looks at all samples every time.
      hidden_size: H.
      network: of the methods whose grid says no other.
      num_layers: the same of its layers.
    """

    name: str
    tasks: list[str]
    seq_len: list[int]
    methods: dict[str, dict[str, Any]]
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0, 1, 2, 3, 4])
    tuning_seeds: list[int] = dataclasses.field(default_factory=lambda: [100, 101])
    required: int = 4
    num_trials: int = 8
    max_steps: int = 10_000
    eval_every: int = 500
    num_validation: int = 10_000
    validation_stages: list[int] = dataclasses.field(default_factory=list)
    hidden_size: int = 100
    network: str = "tanh"
    num_layers: int = 1

    def config(
        self, method: str, task: str, seq_len: int, grid: Any, seeds: Sequence[int]
    ) -> Config:
        """The run of some settings of a method.

        Raises:
          ConfigError: the grid is wrong.
        """
        settings = {
            "name": f"{method}.{task.replace(':', '.')}.T{seq_len}",
            "task": task,
            "seq_len": seq_len,
            "hidden_size": self.hidden_size,
            "network": self.network,
            "num_layers": self.num_layers,
            "max_steps": self.max_steps,
            "eval_every": self.eval_every,
            "num_validation": self.num_validation,
            "validation_stages": self.validation_stages,
            "patience": 0,
            "seeds": [*seeds],
            "input_gain": self.methods[method].get("input_gain", 1.0),
        }
        return config_lib.resolve({**settings, "grid": grid}, self.name)

    def tuning(self, method: str, task: str, seq_len: int) -> Config:
        """The run in which all settings of a method race."""
        grid = self.methods[method]["grid"]
        config = self.config(method, task, seq_len, grid, self.tuning_seeds)
        return dataclasses.replace(config, name=f"{config.name}.tuning", race=True)

    def tunings(self, method: str) -> list[Config]:
        """See `bench.Bench`."""
        return [self.tuning(method, task, self.seq_len[-1]) for task in self.tasks]


def load(path: str) -> Bench:
    """Reads and checks a bench.

    Raises:
      ConfigError: with all problems of one kind at once.
    """
    return bench_lib.load(path, Bench, _contradictions)


def _problem_of_task(task: str) -> str | None:
    """What is wrong with a task of a bench, or None: it has to have every length."""
    if not tasks.is_own(task):
        return arguments.check_choice(task, tuple(TASKS))
    drawn = "expected a task that is drawn, at any length, got arrays of one length"
    if task.endswith(".npz"):
        return drawn
    if (problem := tasks.problem_of(task)) is not None:
        return problem
    try:
        found = tasks.find(task)
    except DatasetError as error:
        return str(error)
    return None if found.validation is None else drawn


def _contradictions(bench: Bench) -> Iterator[str]:
    """What is wrong with values of the right types."""
    if len(set(bench.tasks)) < len(bench.tasks):
        yield f"tasks = {bench.tasks}: one twice"
    problems = {task: _problem_of_task(task) for task in bench.tasks}
    for task, problem in problems.items():
        if problem is not None:
            yield f"tasks: {task}: {problem}"
    for method, table in bench.methods.items():
        known = tuple(TABLE5["temporal_order"])
        if isinstance(table, dict) and "published" in table:
            problem = arguments.check_choice(table["published"], known)
            if problem is not None:
                yield f"methods.{method}.published: {problem}"
    if bench.seq_len != sorted(set(bench.seq_len)):
        yield f"seq_len = {bench.seq_len}: expected increasing lengths"
    if not 1 <= bench.required <= len(bench.seeds):
        yield f"required = {bench.required}: expected 1 to {len(bench.seeds)} seeds"
    yield from bench_lib.contradictions(
        bench,
        lambda method: (
            bench.tuning(method, task, seq_len)
            for task, problem in problems.items()
            for seq_len in bench.seq_len
            if problem is None
        ),
        possible={"input_gain", "published", "column"},
    )
    for method, table in bench.methods.items():
        if isinstance(table, dict) and "column" in table:
            label, column = table.get("label"), table["column"]
            if not str(label).endswith(f", {column}"):
                yield (
                    f"methods.{method}.column = {column!r}: expected the end of its "
                    f"label, as in 'BPTT, {column}', got {label!r}"
                )


class Trial(NamedTuple):
    """A method at one length of a task.

    Attributes:
      setting: what was chosen; None where no setting solved a tuning seed.
      rows: of the counted seeds; none without a setting.
    """

    setting: dict[str, Any] | None
    rows: list[Row]

    @property
    def solved(self) -> list[Row]:
        """Rows of the seeds that were solved."""
        return [row for row in self.rows if row["status"] == "solved"]


def try_length(
    runner: Runner, bench: Bench, method: str, task: str, seq_len: int
) -> Trial:
    """Tunes on the tuning seeds, and trains the chosen setting with the others."""
    tuning = bench.tuning(method, task, seq_len)
    members = [*tuning.members()]
    if bench.num_trials == 1:
        chosen = members[0]
    else:
        steps = collections.defaultdict(list)
        for row in runner.rows(tuning):
            if row["status"] == "solved":
                # Seeds vary fastest.
                steps[row["member"] // len(tuning.seeds)].append(row["step"])
        if not steps:
            return Trial(None, [])
        best = min(steps, key=lambda i: (-len(steps[i]), statistics.fmean(steps[i])))
        chosen = members[best * len(tuning.seeds)]
    setting = bench_lib.setting_of(chosen)
    grid = {key: [value] for key, value in setting.items()}
    config = bench.config(method, task, seq_len, grid, bench.seeds)
    return Trial(setting, runner.rows(config))


def reach(runner: Runner, bench: Bench, method: str, task: str) -> dict[int, Trial]:
    """A method at longer and longer T, until too few seeds are solved."""
    found = {}
    for seq_len in bench.seq_len:
        found[seq_len] = try_length(runner, bench, method, task, seq_len)
        if len(found[seq_len].solved) < bench.required:
            break
    return found


def longest(bench: Bench, found: dict[int, Trial]) -> int:
    """The longest T that the required seeds solve; 0 if there is none."""
    good = [t for t, trial in found.items() if len(trial.solved) >= bench.required]
    return max(good, default=0)


def rows_of(
    bench: Bench, method: str, task: str, found: dict[int, Trial]
) -> Iterator[Row]:
    """What came of a method on a task, a row for each T."""
    for seq_len, trial in found.items():
        steps = [row["step"] for row in trial.solved]
        accuracies = [row["best_accuracy"] for row in trial.rows]
        updates = [
            str(row["step"]) if row["status"] == "solved" else "–" for row in trial.rows
        ]
        yield {
            "name": f"{method} {task} T{seq_len}",
            "task": task,
            "method": bench.methods[method]["label"],
            "published_reach": published(bench, method, task),
            "seq_len": seq_len,
            "solved": len(steps),
            "seeds": len(bench.seeds),
            "median_updates": statistics.median(steps) if steps else None,
            "updates_by_seed": " ".join(updates or ["–"] * len(bench.seeds)),
            "max_steps": bench.max_steps,
            "accuracy": statistics.fmean(accuracies) if accuracies else None,
            "longest": longest(bench, found),
            "setting": _text(trial.setting),
        }


def updates_of(row: Row, bench: Bench) -> tuple[int | None, ...]:
    """After how many updates each seed of a row was solved; None: it was not.

    Raises:
      ValueError: the row has another number of seeds than the bench.
    """
    texts = str(row["updates_by_seed"] or "").split()
    if not texts and not row["solved"]:  # as older tables have it
        return (None,) * len(bench.seeds)
    known = all(text == "–" or text.isdecimal() for text in texts)
    if not known or len(texts) != len(bench.seeds):
        raise ValueError(f"{row['name']} has another number of seeds than its config")
    return tuple(None if text == "–" else int(text) for text in texts)


def published(bench: Bench, method: str, task: str) -> int | None:
    """The reach that the paper has for a method; None where it has none."""
    name = bench.methods[method].get("published")
    return TABLE5[task][name] if name and task in TABLE5 else None


def _text(setting: dict[str, Any] | None) -> str:
    if setting is None:
        return "no setting solved a tuning seed"
    return bench_lib.text(setting)


def methods_table(
    bench: Bench, rows: Sequence[Row], spent: dict[str, costs.Cost] | None
) -> str:
    """The table of methods: what they need and cost, and the longest T they solve.

    Empty where that is not known yet.
    """
    printed = any("published" in method for method in bench.methods.values())
    header = ["method", "errors arrive", "weights transported", "kB per step"]
    header += ["ms per update"]
    for task in bench.tasks:
        title = TITLES.get(task, task)
        header += [f"{title}: published", "ours"] if printed else [title]
    body = []
    for method, named in bench.methods.items():
        label = named["label"]
        config = bench.tuning(method, bench.tasks[0], bench.seq_len[0])
        setting = next(iter(config.members()))
        card = rule_card(setting["rule"]).of(setting)
        line = [label, card.errors_arrive, card.transported]
        cost = None if spent is None else spent[method]
        line.append("" if cost is None else f"{cost.bytes_per_step / 1000:,.0f}")
        line.append("" if cost is None else f"{1000 * cost.seconds:,.1f}")
        for task in bench.tasks:
            mine = [r for r in rows if r["task"] == task and r["method"] == label]
            if printed:
                none = "–" if "published" in named and task in TABLE5 else ""
                line.append(str(published(bench, method, task) or none))
            line.append(_reached(bench, mine) if mine else "")
        body.append(line)
    return markdown.table(header, body)


def _rows_of_costs(bench: Bench, spent: dict[str, costs.Cost]) -> list[Row]:
    """What an update of each method costs, as a table for programs."""
    return [
        {
            "method": bench.methods[method]["label"],
            "kb_per_step": cost.bytes_per_step / 1000,
            "ms_per_update": 1000 * cost.seconds,
        }
        for method, cost in spent.items()
    ]


def _is_crossed(bench: Bench) -> bool:
    return all("column" in method for method in bench.methods.values())


def _reached(bench: Bench, rows: Sequence[Row]) -> str:
    """The longest T, the next one that failed, and the seeds at the last one tried."""
    last, longest = rows[-1], rows[-1]["longest"]
    if longest == bench.seq_len[-1]:
        where = f"≥ {longest}"
    elif longest:
        where = f"{longest}, not {last['seq_len']}"
    else:
        where = f"not {last['seq_len']}"
    return f"{where}: {_cell(last)}"


def crossed_table(bench: Bench, rows: Sequence[Row]) -> str:
    """What methods reach on the first task, by the columns that they say.

    A method of the label "BPTT, gru" and the column "gru" is in the line "BPTT".
    """
    columns = list(dict.fromkeys(m["column"] for m in bench.methods.values()))
    cells: dict[str, dict[str, str]] = {}
    for method in bench.methods.values():
        label, column = method["label"], method["column"]
        here = [r for r in rows if (r["task"], r["method"]) == (bench.tasks[0], label)]
        line = cells.setdefault(label.removesuffix(f", {column}"), {})
        line[column] = _reached(bench, here) if here else ""
    lines = [
        [name, *(line.get(c, "") for c in columns)] for name, line in cells.items()
    ]
    return markdown.table(["longest T", *columns], lines)


def page(bench: Bench, rows: Sequence[Row], methods: str) -> str:
    """The tables of a bench: that of its methods, and one for each task."""
    labels = [method["label"] for method in bench.methods.values()]
    parts = [methods]
    if _is_crossed(bench):
        parts.insert(0, crossed_table(bench, rows))
    for task in bench.tasks:
        mine = [row for row in rows if row["task"] == task]
        lengths = [t for t in bench.seq_len if any(r["seq_len"] == t for r in mine)]
        cells = {(r["method"], r["seq_len"]): r for r in mine}
        lines = [
            [label, *(_cell(cells.get((label, t))) for t in lengths)]
            for label in labels
        ]
        table = markdown.table(["method", *(f"T = {t}" for t in lengths)], lines)
        parts.append(f"**{TITLES.get(task, task)}**\n\n{table}")
    return "\n".join(parts) + _notes(bench)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if row["accuracy"] is None:
        return "not tuned"
    updates = row["median_updates"]
    after = (
        f"in {updates:,.0f}" if updates else f"({summary.percent(row['accuracy'])} %)"
    )
    return f"{row['solved']}/{row['seeds']} {after}"


def _notes(bench: Bench) -> str:
    tuned = (
        f"{bench.num_trials} settings of each method race on {len(bench.tuning_seeds)} "
        "tuning seeds at each T; the best is trained with others, which are counted."
        if bench.num_trials > 1
        else "One setting of each method, the same for all tasks and T."
    )
    lines = (
        tuned,
        f"Fresh weights at each T, at most {bench.max_steps:,} updates, solved is no "
        f"error of {bench.num_validation:,} samples, looked at every "
        f"{bench.eval_every:,} updates. A cell has the seeds solved, and the median of "
        "the updates that these took or, where there are none, the mean best accuracy; "
        f"the next T is tried after {bench.required} of {len(bench.seeds)}. `not "
        "tuned`: no setting solved a tuning seed.",
        "kB per step: how the memory of an update grows with T, between "
        f"T = {costs.SEQ_LEN[0]} and {costs.SEQ_LEN[1]:,}, in this implementation. ms "
        f"per update: of one member at T = {costs.SEQ_LEN[0]}.",
    )
    return "\n" + markdown.notes(lines)


def costs_of(bench: Bench) -> dict[str, costs.Cost] | None:
    """What an update of each method costs, on the first task.

    None where that cannot have the lengths at which it is measured.
    """
    name = bench.tasks[0]
    task = tasks.find(name)
    least, most = task.min_seq_len, task.max_seq_len or math.inf
    if not all(least <= t <= most for t in costs.SEQ_LEN):
        return None
    return {
        method: costs.measure(*(bench.tuning(method, name, t) for t in costs.SEQ_LEN))
        for method in bench.methods
    }


def _work(runner: Runner, bench: Bench, folder: pathlib.Path) -> None:
    """Trains what is not trained yet, and writes tables and figure."""
    folder = folder / bench.name
    rows: list[Row] = []
    for task in bench.tasks:
        for method in bench.methods:
            found = reach(runner, bench, method, task)
            rows += rows_of(bench, method, task, found)
            _write(runner, bench, rows, None, folder)
    spent = costs_of(bench)
    if spent is None:
        lengths = " and ".join(f"{t:,}" for t in costs.SEQ_LEN)
        text = f"costs are not measured: {bench.tasks[0]} does not have T = {lengths}"
        screen.say(runner.console, text)
    runner.stop_if_asked()
    text = _write(runner, bench, rows, spent, folder)
    screen.say(runner.console, text)
    pictures.show(runner.console, "reach", folder)


def _write(
    runner: Runner,
    bench: Bench,
    rows: Sequence[Row],
    spent: dict[str, costs.Cost] | None,
    folder: pathlib.Path,
) -> str:
    """The tables of what there is so far; returns their page."""
    short = methods_table(bench, rows, spent)
    text = page(bench, rows, short)
    folder.mkdir(parents=True, exist_ok=True)
    results.write_rows(folder / "reach.csv", rows)
    results.write_by_name(folder / "reach.json", rows)
    results.write_rows(folder / "runs.csv", runner.made_with())
    files.write_text(folder / "reach.md", text)
    files.write_text(folder / "summary.md", short)
    if spent is not None:
        results.write_rows(folder / "costs.csv", _rows_of_costs(bench, spent))
    if _is_crossed(bench):
        files.write_text(folder / "crossed.md", crossed_table(bench, rows))
    return text


parse, main = bench_lib.program(__name__, "configs/reach/smoke.toml", load, _work)
