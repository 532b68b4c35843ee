"""Rules on recorded data: `python -m experiments.real --config configs/real/NAME.toml`.

A file is one data set. Phase 1 trains all settings of each method on the training part
with seeds of their own (`tuning_seeds`); the one whose last evaluations on the
validation part have the best mean is chosen. Phase 2 trains it with other seeds
(`seeds`) for as many updates, on training and validation parts together, and what it
has at the end on the test part counts. All methods have as many settings, and as many
updates; with `early_stopping` phase 1 chooses the number of updates too.
docs/real_data.md describes the data and their parts.

Runs go into `runs/real/NAME/` and go on where they stand; the second phase of a method
is one chunk, which a run that is killed repeats. Results go into
`results/real/NAME.csv` and `.md`, and with those of all other data sets there into
`results/real/table.csv`, `.json`, `.md`, `.png` and `.svg`. Exit codes are those of
`grid`.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from lra_jax.lab import config as config_lib
from lra_jax.lab.benches import bench as bench_lib
from lra_jax.lab.benches import pictures
from lra_jax.lab.config import Config, arguments, tasks
from lra_jax.lab.data import datasets
from lra_jax.lab.data.datasets import DATASETS
from lra_jax.lab.data.sources import DatasetError
from lra_jax.lab.reports import markdown, results
from lra_jax.lab.reports.results import Row
from lra_jax.lab.reports.statistics import mean_interval
from lra_jax.lab.reports.summary import percent
from lra_jax.lab.runs.runner import Evaluations, Runner
from lra_jax.lab.terminal import files, screen

TABLE = "table"  # of all data sets, beside the results of each
COLUMNS = (
    "name", "bench", "data", "lengths", "method", "measure", "validation", "test",
    "interval_95", "seeds", "diverged", "max_steps", "updates", "settings",
    "tuning_seeds", "setting", "test_by_seed",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a file in configs/real says.

    Attributes:
      name: of the bench, and of its files and folders.
      task: name of a data set, of `DATASETS`; or a task of one's own arrays, as in a
        config, with a test part.
      methods: see `bench.Bench`.
      variant: what all methods have that other files on these data do not, for tables;
        of another network, say.
      seeds: that are counted.
      tuning_seeds: that choose a setting.
      num_trials: settings of each method, the same for all.
      max_steps: updates of each run, at most.
      early_stopping: whether phase 1 chooses, with the setting, after how many updates
        to stop: after any `num_last` evaluations in a row, instead of the last ones.
      eval_every: updates between two evaluations of phase 1.
      num_last: evaluations in a row whose mean chooses a setting; the last of phase 1
        without `early_stopping`.
      hidden_size: H.
      batch_size: B.
    """

    name: str
    task: str
    methods: dict[str, dict[str, Any]]
    variant: str = ""
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0, 1, 2, 3, 4])
    tuning_seeds: list[int] = dataclasses.field(default_factory=lambda: [100, 101])
    num_trials: int = 8
    max_steps: int = 2000
    early_stopping: bool = False
    eval_every: int = 100
    num_last: int = 5
    hidden_size: int = 100
    batch_size: int = 20

    def _common(self, method: str, grid: Any, seeds: Sequence[int]) -> dict[str, Any]:
        """What the configs of both phases say."""
        return {
            "task": self.task,
            "hidden_size": self.hidden_size,
            "batch_size": self.batch_size,
            "validation_stages": [],
            "patience": 0,
            "seeds": [*seeds],
            "input_gain": self.methods[method].get("input_gain", 1.0),
            "grid": grid,
        }

    def tuning(self, method: str) -> Config:
        """Phase 1: all settings of a method.

        Raises:
          ConfigError: the grid is wrong, or the data are not there.
        """
        grid = self.methods[method]["grid"]
        raw = self._common(method, grid, self.tuning_seeds) | {
            "name": f"{method}.tuning",
            "max_steps": self.max_steps,
            "eval_every": self.eval_every,
        }
        return config_lib.resolve(raw, self.name)

    def tunings(self, method: str) -> list[Config]:
        """See `bench.Bench`."""
        return [self.tuning(method)]

    def final(self, method: str, choice: Choice) -> Config:
        """Phase 2: the chosen setting for as long, evaluated after its last update."""
        grid = {key: [value] for key, value in choice.setting.items()}
        raw = self._common(method, grid, self.seeds) | {
            "name": f"{method}.test",
            "max_steps": choice.updates,
            "eval_every": choice.updates,
            "split": "test",
        }
        return config_lib.resolve(raw, self.name)


class Choice(NamedTuple):
    """What the tuning seeds chose.

    Attributes:
      setting: settings and hyper-parameters.
      score: mean over the tuning seeds and their evaluations on the validation part
        that count: accuracy, or NLL.
      updates: after which the last of these evaluations was.
    """

    setting: dict[str, Any]
    score: float
    updates: int


class Outcome(NamedTuple):
    """A method on a data set.

    Attributes:
      choice: None where every setting diverged on a tuning seed.
      test: for each of the counted seeds what its last finite weights reach on the
        test part: accuracy, or NLL. Empty without a choice.
      diverged: seeds whose weights did not stay finite.
    """

    choice: Choice | None
    test: list[float]
    diverged: int


def load(path: str) -> Bench:
    """Reads and checks a bench.

    Raises:
      ConfigError: with all problems of one kind at once.
    """
    return bench_lib.load(path, Bench, _contradictions)


def _contradictions(bench: Bench) -> Iterator[str]:
    """What is wrong with values of the right types."""
    if bench.name == TABLE:
        yield f"name = {TABLE}: is that of the table of all data sets"
    problem = arguments.check_choice(bench.task, tuple(DATASETS))
    if tasks.is_own(bench.task):
        problem = tasks.problem_of(bench.task)
    if problem is not None:
        yield f"task = {bench.task}: {problem}"
        return
    try:
        tasks.find(bench.task, "test")
    except DatasetError as error:
        yield f"task = {bench.task}: {error}"
        return
    most = max(1, math.ceil(bench.max_steps / max(1, bench.eval_every)))
    if not 1 <= bench.num_last <= most:
        yield f"num_last = {bench.num_last}: expected 1 to {most} evaluations"
    yield from bench_lib.contradictions(bench, lambda method: [bench.tuning(method)])


def is_nll(task: str) -> bool:
    """Whether a data set asks for every step and has NLL per frame, not accuracy."""
    return tasks.find(task).output_loss.every_step


def title_of(task: str) -> str:
    """The data of a task, for people."""
    return DATASETS[task].title if task in DATASETS else task


def _place(data: str) -> int:
    """Where `DATASETS` has the data of a row, whatever its variant; others are last."""
    titles = [dataset.title for dataset in DATASETS.values()]
    found = [title for title in titles if f"{data}, ".startswith(f"{title}, ")]
    return titles.index(max(found, key=len)) if found else len(titles)


def varies(task: str) -> bool:
    """Whether the sequences of a task differ in length."""
    if task in DATASETS:
        return datasets.varies(task)
    return any(
        part.take(np.arange(1)).start is not None
        for part in (tasks.find(task).training, tasks.find(task).validation)
        if part is not None
    )


def scores(task: str, found: Evaluations) -> np.ndarray:
    """Accuracy, or NLL, at each evaluation of a member, `[R]`."""
    if is_nll(task):
        return found.loss
    return 1 - found.num_errors / found.num_samples


def choose(bench: Bench, config: Config, found: Sequence[Evaluations]) -> Choice | None:
    """The setting with the best mean of its seeds' last evaluations.

    With early stopping it is the best mean of `num_last` evaluations in a row, and
    where they end is the number of updates. A member that had no error stays as it was.
    A setting of which a seed diverged is no candidate. Of equals the first is chosen.

    Args:
      bench: says how many evaluations count, and whether training may stop early.
      config: of phase 1.
      found: of each member.

    Returns:
      None where there is no candidate.
    """
    every, most = config.eval_every, config.max_steps
    steps = np.array([*range(every, most, every), most])
    if not bench.early_stopping:
        steps = steps[-bench.num_last :]

    def score(member: Evaluations) -> np.ndarray:
        """Means of `num_last` evaluations in a row, by where they end."""
        if member.status == "diverged":
            return np.full(len(steps) - bench.num_last + 1, np.nan)
        place = np.searchsorted(member.step, steps, side="right") - 1
        at = scores(bench.task, member)[place].astype(float)
        return np.lib.stride_tricks.sliding_window_view(at, bench.num_last).mean(1)

    seeds = len(config.seeds)  # they vary fastest
    means = np.array([score(member) for member in found])
    means = means.reshape(-1, seeds, means.shape[1]).mean(1)
    sign = 1 if is_nll(bench.task) else -1
    order = np.where(np.isnan(means), np.inf, sign * means)
    if np.isinf(order).all():
        return None
    best, end = np.unravel_index(np.argmin(order), order.shape)
    member = [*config.members()][best * seeds]
    return Choice(
        bench_lib.setting_of(member),
        float(means[best, end]),
        int(steps[end + bench.num_last - 1]),
    )


def compare(runner: Runner, bench: Bench, method: str) -> Outcome:
    """Both phases of a method."""
    tuning = bench.tuning(method)
    choice = choose(bench, tuning, runner.evaluations(tuning))
    if choice is None:
        return Outcome(None, [], 0)
    final = bench.final(method, choice)
    found = runner.evaluations(final)
    return Outcome(
        choice,
        [float(scores(bench.task, member)[-1]) for member in found],
        sum(member.status == "diverged" for member in found),
    )


def row_of(bench: Bench, method: str, outcome: Outcome) -> Row:
    """What came of a method."""
    mean, interval = None, None
    if outcome.test:
        mean, interval = mean_interval(outcome.test)
    choice = outcome.choice
    return {
        "name": f"{method} {bench.name}",
        "bench": bench.name,
        "data": ", ".join(filter(None, (title_of(bench.task), bench.variant))),
        "lengths": ("≤ " if varies(bench.task) else "= ")
        + str(tasks.find(bench.task).min_seq_len),
        "method": bench.methods[method]["label"],
        "measure": "nll" if is_nll(bench.task) else "accuracy",
        "validation": choice.score if choice else None,
        "test": mean,
        "interval_95": interval,
        "seeds": len(bench.seeds),
        "diverged": outcome.diverged,
        "max_steps": bench.max_steps,
        "updates": choice.updates if choice else None,
        "settings": bench.num_trials,
        "tuning_seeds": len(bench.tuning_seeds),
        "setting": bench_lib.text(choice.setting) if choice else None,
        "test_by_seed": " ".join(f"{value:.4f}" for value in outcome.test),
    }


def page(rows: Sequence[Row]) -> str:
    """The table of one data set."""
    first = rows[0]
    trained_on = "training and validation parts"
    if _place(first["data"]) == len(DATASETS):
        trained_on = "the training part"
    unit = "NLL per frame" if first["measure"] == "nll" else "accuracy %"
    header = ["method", "chosen setting", f"validation {unit}"]
    header += [f"test {unit}", "n"]
    early = _stopped_early(rows)
    body = [
        [
            row["method"],
            _setting(row, early),
            "–" if row["validation"] is None else _value(row, row["validation"]),
            cell(row),
            str(row["seeds"]),
        ]
        for row in rows
    ]
    which = "the one with the best mean over the last evaluations"
    if early:
        which = (
            "the one, and the number of updates, with the best mean over evaluations "
            "in a row"
        )
    lines = (
        f"{first['data']}, T {first['lengths']}. Of {first['settings']} settings of "
        f"each method, trained for {first['max_steps']:,} updates, {which} "
        f"of {first['tuning_seeds']} tuning seeds "
        "on the validation part; then trained for as long with other seeds on "
        f"{trained_on}, and evaluated on the test part.",
        _NOTE,
    )
    return markdown.table(header, body) + "\n" + markdown.notes(lines)


def _stopped_early(rows: Sequence[Row]) -> bool:
    return any(row["updates"] not in (None, row["max_steps"]) for row in rows)


def _setting(row: Row, early: bool) -> str:
    if not row["setting"]:
        return "every setting diverged"
    return row["setting"] + (f"; {row['updates']:,} updates" if early else "")


_NOTE = (
    "Test: mean and 95 % interval (Student's t) over the n seeds, all on the same test "
    "samples, whose choice is not in the interval. Seeds that diverged count with "
    "their last finite weights."
)


def table(rows: Sequence[Row]) -> str:
    """Data sets × methods, of all that was run."""
    benches = dict[str, list[Row]]()
    for row in rows:
        benches.setdefault(row["bench"], []).append(row)
    methods = dict.fromkeys(row["method"] for row in rows)
    by_place = {(row["method"], row["bench"]): row for row in rows}
    header = ["data", "T", *methods, "updates", "settings × tuning seeds", "n"]
    body = [
        [
            row["data"] + (", NLL" if row["measure"] == "nll" else ", %"),
            row["lengths"].removeprefix("= "),
            *(
                cell(by_place[method, bench]) if (method, bench) in by_place else ""
                for method in methods
            ),
            ("≤ " if _stopped_early(of_bench) else "") + f"{row['max_steps']:,}",
            f"{row['settings']} × {row['tuning_seeds']}",
            str(row["seeds"]),
        ]
        for bench, of_bench in benches.items()
        for row in of_bench[:1]
    ]
    return (
        markdown.table(header, body)
        + "\n"
        + markdown.notes([f"{_NOTE} NLL: per frame, less is better."])
    )


def cell(row: Row) -> str:
    """Test accuracy in %, or NLL, with its interval and how many seeds diverged."""
    if row["test"] is None:
        return "diverged"
    text = _value(row, row["test"], row["interval_95"])
    if row["diverged"]:
        text += f" ({row['diverged']} of {row['seeds']} diverged)"
    return text


def _value(row: Row, value: float, interval: float | None = None) -> str:
    if row["measure"] == "accuracy":
        return percent(value, interval)
    return f"{value:.3f}" if interval is None else f"{value:.3f} ± {interval:.3f}"


def all_rows(folder: pathlib.Path) -> tuple[list[Row], list[str]]:
    """The rows of all data in a folder of results: `DATASETS` in order, then others.

    Returns:
      The rows, and the names of files that were written by another version of this
      program, whose rows have other columns, or that are damaged.
    """
    paths = [path for path in sorted(folder.glob("*.csv")) if path.stem != TABLE]
    found, others = dict[str, list[Row]](), []
    for path in paths:
        try:
            found[path.name] = results.read_rows(path)
        except ValueError:
            others.append(path.name)
    known = {
        n: rows
        for n, rows in found.items()
        if rows
        and (
            _place(str(rows[0].get("data"))) < len(DATASETS)
            or {"bench", "data", "test_by_seed"} <= {*rows[0]}
        )
    }
    now = [rows for rows in known.values() if tuple(rows[0]) == COLUMNS]
    now.sort(key=lambda rows: _place(rows[0]["data"]))
    others += [name for name, rows in known.items() if tuple(rows[0]) != COLUMNS]
    return [row for rows in now for row in rows], others


def _work(runner: Runner, bench: Bench, folder: pathlib.Path) -> None:
    """Trains what is not trained yet, and writes its table and that of all data."""
    rows = [row_of(bench, m, compare(runner, bench, m)) for m in bench.methods]
    folder.mkdir(parents=True, exist_ok=True)
    results.write_rows(folder / f"{bench.name}.csv", rows)
    results.write_rows(folder / f"{bench.name}_runs.csv", runner.made_with())
    text = page(rows)
    files.write_text(folder / f"{bench.name}.md", text)
    every, others = all_rows(folder)
    results.write_rows(folder / f"{TABLE}.csv", every)
    results.write_by_name(folder / f"{TABLE}.json", every)
    files.write_text(folder / f"{TABLE}.md", table(every))
    screen.say(runner.console, text)
    for name in others:
        screen.say(
            runner.console,
            f"{screen.printable(folder / name)} was written by another version, or "
            "is damaged: not in the table of all data sets",
        )
    pictures.show(runner.console, TABLE, folder)


parse, main = bench_lib.program(__name__, "configs/real/digits_rows.toml", load, _work)
