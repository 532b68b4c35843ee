"""Rules on recorded data: `python -m experiments.real --config configs/real/NAME.toml`.

A file is one data set. Phase 1 trains all settings of each method on the training part
with seeds of their own (`tuning_seeds`); the setting and the number of updates with the
best mean on the validation part are chosen. Phase 2 trains the chosen setting with
other seeds (`seeds`), for that many updates, on training and validation parts together,
and looks at the test part once, at the end. All methods have as many settings, and as
many updates. docs/real_data.md describes the data and their parts.

Runs go into `runs/real/NAME/` and go on where they stand. Results go into
`results/real/NAME.csv` and `.md`, and with those of all other data sets there into
`results/real/table.csv`, `.json`, `.md`, `.png` and `.svg`. Exit codes are those of
`experiments.grid`.
"""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import rich.console
from absl import app, flags

from experiments import bench as bench_lib
from experiments import command_line, datasets, machine, results, run, store, summary
from experiments import config as config_lib
from experiments.config import Config, ConfigError
from experiments.results import Row
from experiments.runner import Evaluations, Runner, StoppedError
from experiments.summary import percent
from experiments.tables import markdown_table

_CONFIG = flags.DEFINE_string(  # experiments.grid has a flag of this name
    "config", None, "TOML file that describes the bench.", allow_override=True
)

RESULTS = pathlib.Path("results/real")
TABLE = "table"  # of all data sets, beside the results of each


@dataclasses.dataclass(frozen=True)
class Bench:
    """What a file in configs/real says.

    Attributes:
      name: of the bench, and of its files and folders.
      task: name of a data set, of `datasets.DATASETS`.
      methods: see `bench.Bench`.
      seeds: that are counted.
      tuning_seeds: that choose a setting.
      num_trials: settings of each method, the same for all.
      max_steps: most updates of each run.
      eval_every: updates between two evaluations of phase 1.
      hidden_size: H.
      batch_size: B.
    """

    name: str
    task: str
    methods: dict[str, dict[str, Any]]
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0, 1, 2, 3, 4])
    tuning_seeds: list[int] = dataclasses.field(default_factory=lambda: [100, 101])
    num_trials: int = 8
    max_steps: int = 2000
    eval_every: int = 100
    hidden_size: int = 100
    batch_size: int = 20

    def _common(self, method: str, grid: Any, seeds: Sequence[int]) -> dict[str, Any]:
        """What the configs of both phases say."""
        return {
            "task": self.task,
            "hidden_size": self.hidden_size,
            "batch_size": self.batch_size,
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

    def final(self, method: str, choice: Choice) -> Config:
        """Phase 2: the chosen setting, evaluated after its last update."""
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
      updates: how many.
      score: mean over the tuning seeds on the validation part: accuracy, or NLL.
    """

    setting: dict[str, Any]
    updates: int
    score: float


class Outcome(NamedTuple):
    """A method on a data set.

    Attributes:
      choice: None where every setting diverged before its first evaluation.
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
    if bench.task not in datasets.DATASETS:
        near = difflib.get_close_matches(bench.task, datasets.DATASETS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        names = ", ".join(datasets.DATASETS)
        yield f"task = {bench.task}: expected one of {names}{hint}"
        return
    try:
        datasets.find(bench.task)
    except datasets.DatasetError as error:
        yield f"task = {bench.task}: {error}"
        return
    yield from bench_lib.contradictions(bench, lambda method: [bench.tuning(method)])


def is_nll(task: str) -> bool:
    """Whether a data set asks for every step and has NLL per frame, not accuracy."""
    return datasets.DATASETS[task].output_loss.every_step


def scores(task: str, config: Config, found: Evaluations) -> np.ndarray:
    """Accuracy, or NLL, at each evaluation of a member, `[R]`."""
    if is_nll(task):
        return found.loss
    return 1 - found.num_errors / config.num_validation


def choose(task: str, config: Config, found: Sequence[Evaluations]) -> Choice | None:
    """The setting and the number of updates with the best mean over the tuning seeds.

    A member that had no error stays as it was; from the update on at which one of its
    seeds diverged, a setting is no candidate. Of equals, the one with the fewest
    updates, and then the first, is chosen.

    Args:
      task: name of the data set.
      config: of phase 1.
      found: of each member.

    Returns:
      None where no setting has an evaluation before it diverges.
    """
    every, most = config.eval_every, config.max_steps
    steps = np.array([*range(every, most, every), most])

    def on_steps(member: Evaluations) -> np.ndarray:
        place = np.searchsorted(member.step, steps, side="right") - 1
        values = scores(task, config, member)[place].astype(float)
        if member.status == "diverged":
            values[steps > member.step[-1]] = np.nan
        return values

    seeds = len(config.seeds)  # they vary fastest
    every_seed = np.stack([on_steps(member) for member in found])
    means = every_seed.reshape(-1, seeds, len(steps)).mean(axis=1)
    sign = 1 if is_nll(task) else -1
    order = np.where(np.isnan(means), np.inf, sign * means)
    if np.isinf(order).all():
        return None
    step, setting = np.unravel_index(np.argmin(order.T), order.T.shape)
    member = [*config.members()][setting * seeds]
    left_out = ("seed", "task", "seq_len")
    return Choice(
        setting={k: v for k, v in member.items() if k not in left_out},
        updates=int(steps[step]),
        score=float(means[setting, step]),
    )


def compare(runner: Runner, bench: Bench, method: str) -> Outcome:
    """Both phases of a method."""
    tuning = bench.tuning(method)
    choice = choose(bench.task, tuning, runner.evaluations(tuning))
    if choice is None:
        return Outcome(None, [], 0)
    final = bench.final(method, choice)
    found = runner.evaluations(final)
    return Outcome(
        choice,
        [float(scores(bench.task, final, member)[-1]) for member in found],
        sum(member.status == "diverged" for member in found),
    )


def row_of(bench: Bench, method: str, outcome: Outcome) -> Row:
    """What came of a method."""
    mean, interval = None, None
    if outcome.test:
        mean, interval = summary.mean_interval(outcome.test)
    choice = outcome.choice
    return {
        "name": f"{method} {bench.name}",
        "bench": bench.name,
        "data": datasets.DATASETS[bench.task].title,
        "seq_len": datasets.find(bench.task).min_seq_len,
        "method": bench.methods[method]["label"],
        "measure": "nll" if is_nll(bench.task) else "accuracy",
        "validation": choice.score if choice else None,
        "updates": choice.updates if choice else None,
        "test": mean,
        "interval_95": interval,
        "seeds": len(bench.seeds),
        "diverged": outcome.diverged,
        "max_steps": bench.max_steps,
        "settings": bench.num_trials,
        "tuning_seeds": len(bench.tuning_seeds),
        "setting": bench_lib.text(choice.setting) if choice else None,
        "test_by_seed": " ".join(f"{value:.4f}" for value in outcome.test),
    }


def page(rows: Sequence[Row]) -> str:
    """The table of one data set."""
    first = rows[0]
    unit = "NLL per frame" if first["measure"] == "nll" else "accuracy %"
    header = ["method", "chosen setting", "updates", f"validation {unit}"]
    header += [f"test {unit}", "n"]
    body = [
        [
            row["method"],
            row["setting"] or "every setting diverged",
            f"{row['updates']:,}" if row["updates"] else "–",
            "–" if row["validation"] is None else _value(row, row["validation"]),
            cell(row),
            str(row["seeds"]),
        ]
        for row in rows
    ]
    lines = (
        f"{first['data']}, T = {first['seq_len']}. Of {first['settings']} settings of "
        f"each method, and of up to {first['max_steps']:,} updates, those with the "
        f"best mean on the validation part over {first['tuning_seeds']} tuning seeds; "
        "then trained with other seeds on training and validation parts, and evaluated "
        "once on the test part.",
        _NOTE,
    )
    return markdown_table(header, body) + "\n" + "".join(f"- {x}\n" for x in lines)


_NOTE = (
    "Test: mean and 95 % interval (Student's t) over the n seeds, of which those that "
    "diverged count with their last finite weights."
)


def table(rows: Sequence[Row]) -> str:
    """Methods × data sets, of all that was run."""
    benches = {row["bench"]: row for row in rows}
    methods = dict.fromkeys(row["method"] for row in rows)
    by_place = {(row["method"], row["bench"]): row for row in rows}
    header = ["method"]
    for row in benches.values():
        unit = "NLL" if row["measure"] == "nll" else "%"
        header.append(f"{row['data']}, T = {row['seq_len']}, {unit}")
    body = [
        [
            method,
            *(
                cell(by_place[method, bench]) if (method, bench) in by_place else ""
                for bench in benches
            ),
        ]
        for method in methods
    ]
    for title, value in (
        ("*updates, at most*", lambda row: f"{row['max_steps']:,}"),
        (
            "*settings × tuning seeds*",
            lambda r: f"{r['settings']} × {r['tuning_seeds']}",
        ),
        ("*n*", lambda row: str(row["seeds"])),
    ):
        body.append([title, *(value(row) for row in benches.values())])
    return (
        markdown_table(header, body) + f"\n- {_NOTE} NLL: per frame, less is better.\n"
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


def all_rows(folder: pathlib.Path) -> list[Row]:
    """The rows of all data sets in a folder of results, in the order of `DATASETS`."""
    titles = [dataset.title for dataset in datasets.DATASETS.values()]
    found = [
        results.read_rows(path)
        for path in sorted(folder.glob("*.csv"))
        if path.stem != TABLE
    ]
    found.sort(key=lambda rows: titles.index(rows[0]["data"]))
    return [row for rows in found for row in rows]


def _run(console: rich.console.Console) -> int:
    bench = load(str(_CONFIG.value))
    machine.prepare()
    jax.config.update("jax_enable_x64", False)
    interruption = run.Interruption(
        console, ["python", "-m", "experiments.real", "--config", str(_CONFIG.value)]
    )
    runner = Runner(console, pathlib.Path("runs/real") / bench.name, interruption)
    try:
        rows = [row_of(bench, m, compare(runner, bench, m)) for m in bench.methods]
    except StoppedError as stop:
        interruption.say("Interrupted; what was finished is saved. To go on:")
        return 128 + stop.number
    RESULTS.mkdir(parents=True, exist_ok=True)
    results.write_rows(RESULTS / f"{bench.name}.csv", rows)
    text = page(rows)
    (RESULTS / f"{bench.name}.md").write_text(text, encoding="utf-8")
    every = all_rows(RESULTS)
    results.write_rows(RESULTS / f"{TABLE}.csv", every)
    results.write_by_name(RESULTS / f"{TABLE}.json", every)
    (RESULTS / f"{TABLE}.md").write_text(table(every), encoding="utf-8")
    console.print(text, soft_wrap=True, highlight=False, markup=False)
    run.draw(console, TABLE, RESULTS)
    return 0


def _check_flags() -> None:
    if _CONFIG.value is None:
        raise flags.Error("--config is missing, such as configs/real/digits_rows.toml")


parse = command_line.parser("experiments.real", _check_flags)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    errors = (ConfigError, machine.MachineError, store.RunFolderError, OSError)
    return command_line.exit_code(_run, errors)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
