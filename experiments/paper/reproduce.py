"""Runs the paper's protocol and compares: `python -m experiments.reproduce table1`.

Artefacts are the paper's Tables I to V and Figures 2 to 5; `released`, training curves
of the authors' code beside those of `lra_released`; `decay`, how the local loss falls
over the steps of one untrained pass, change by change; `warm`, Table V with weights
kept from one length to the next; or `all`. Runs go into `runs/reproduce/`, a folder for
each budget and number of seeds, are shared between artefacts, and go on where they
stand. What comes of them goes into `results/BUDGET/`: a page, a CSV and pictures for
each artefact, the configs, and what the runs were made with. Exit codes are those of
`experiments.grid`.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import rich.console
from absl import flags

from experiments.paper import curriculum, protocol, tables
from experiments.paper.pictures import draw
from experiments.paper.protocol import Budget
from lra_jax.lab.benches import pictures, published
from lra_jax.lab.config import arguments
from lra_jax.lab.config.config import ConfigError
from lra_jax.lab.flow import recording
from lra_jax.lab.flow import tables as flow_tables
from lra_jax.lab.reports import markdown, results
from lra_jax.lab.reports.results import Row
from lra_jax.lab.runs import fingerprint, provenance, run, store
from lra_jax.lab.runs.runner import Runner, StoppedError
from lra_jax.lab.terminal import command_line, machine, screen

ARTEFACTS = (
    "table5",
    "figure2",
    "figure3",
    "figure4",
    "figure5",
    "table1",
    "table2",
    "table3",
    "table4",
    "released",
    "decay",
    "warm",
)

_BUDGET = flags.DEFINE_enum(
    "budget", "standard", [*protocol.BUDGETS], "How much is trained."
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 5, "Seeds of each setting.", lower_bound=1, upper_bound=1000
)
_RUNS = flags.DEFINE_string("runs", "runs/reproduce", "Where run folders go.")
_RESULTS = flags.DEFINE_string("results", "results", "Where tables and figures go.")
_ACCEPT_OLD_CODE = flags.DEFINE_boolean(
    "accept_old_code",
    False,
    "Use results that other code than today's has made.",
)


class PaperRunner(Runner):
    """What the paper's artefacts need besides: recordings, warm starts, label swaps.

    Args:
      console: where to say what happens.
      folder: where the run folders are.
      interruption: stops a run after a chunk.
      accept_old_code: whether results count that were made by other code than today's.

    Attributes:
      recorded: what recordings were made with.
    """

    def __init__(
        self,
        console: rich.console.Console,
        folder: pathlib.Path,
        interruption: run.Interruption,
        *,
        accept_old_code: bool = False,
    ):
        super().__init__(console, folder, interruption, accept_old_code=accept_old_code)
        self.recorded: list[Row] = []

    def flow(
        self,
        name: str,
        budget: Budget,
        seeds: Sequence[int],
        num_steps: int,
        every: int,
    ) -> tuple[list[Row], list[Row]]:
        """The table and the summary of a recording, made now if it is not there yet."""
        settings = protocol.flow_settings(name, budget)
        path = self.folder / name
        key = f"{settings} {budget.hidden_size} {list(seeds)} {num_steps} {every}"
        files = [path / "settings.txt", path / "table.csv", path / "summary.csv"]
        code = path / "code.json"
        if files[0].is_file() and files[0].read_text("utf-8") == key:
            self._check_code(path, code)
        else:
            path.mkdir(parents=True, exist_ok=True)
            files[0].unlink(missing_ok=True)  # it vouches for the others
            with jax.enable_x64(True):
                recordings = [
                    self._record(setting, budget, seeds, num_steps, every)
                    for setting in settings
                ]
            results.write_rows(files[1], flow_tables.by_step(recordings))
            results.write_rows(files[2], flow_tables.summary(recordings))
            results.write_rows(path / "made_with.csv", [_made_with(name, "float64")])
            code.write_text(json.dumps(_code(), indent=0), "utf-8")
            files[0].write_text(key, "utf-8")
        self.recorded += store.read_rows(path / "made_with.csv")
        return store.read_rows(files[1]), store.read_rows(files[2])

    def warm_reach(
        self, name: str, task: str, budget: Budget, seeds: Sequence[int]
    ) -> list[Row]:
        """`curriculum.reach` of a method: a row for each T and member that tried it."""
        path = self.folder / f"warm.{name}.{task}.csv"
        made_with = path.with_suffix(".made_with.csv")
        first = protocol.reach_config(name, task, 10, budget, seeds)
        code = path.with_suffix(".code.json")
        key = f"{first.request_digest()} {budget.reach.seq_len}"
        if path.is_file() and (rows := store.read_rows(path))[0]["key"] == key:
            self._check_code(path, code)
            self.recorded += store.read_rows(made_with)
            return rows
        screen.say(self.console, f"warm start: {name}, {task}")

        def say(text: str) -> None:
            screen.say(self.console, text)
            self.stop_if_asked()

        found = curriculum.reach(
            lambda t: protocol.reach_config(name, task, t, budget, seeds),
            budget.reach.seq_len,
            say,
        )
        rows = [
            {"key": key, "seq_len": t, **row}
            for t, mine in found.items()
            for row in mine
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        results.write_rows(made_with, [_made_with(f"warm.{name}.{task}", "float32")])
        code.write_text(json.dumps(_code(), indent=0), "utf-8")
        results.write_rows(path, rows)  # last: it vouches for the others
        self.recorded += store.read_rows(made_with)
        return store.read_rows(path)

    def label_swap(
        self, name: str, task: str, budget: Budget, seeds: Sequence[int]
    ) -> Row:
        """Cosines of a row's untrained gradients for true and swapped labels."""
        setting = protocol.first_setting(name, budget)
        seq_len = budget.tables.label_swap_seq_len
        path = self.folder / f"label_swap.{name}.{task}.csv"
        key = f"{setting} {seq_len} {budget.hidden_size} {list(seeds)}"
        code = path.with_suffix(".code.json")
        if path.is_file() and (row := store.read_rows(path)[0])["key"] == key:
            self._check_code(path, code)
            return row
        self.stop_if_asked()
        with jax.enable_x64(True):
            found = recording.label_swap(
                setting,
                task=task,
                seq_len=seq_len,
                seeds=seeds,
                hidden_size=budget.hidden_size,
            )
        w_xh, w_hh = map(flow_tables.mean_and_interval, found)
        row = {"key": key, "name": f"{name} {task}", "task": task, "seq_len": seq_len}
        row |= {"w_hh": w_hh[0], "w_hh_interval": w_hh[1]}
        row |= {"w_xh": w_xh[0], "w_xh_interval": w_xh[1]}
        self.folder.mkdir(parents=True, exist_ok=True)
        code.write_text(json.dumps(_code(), indent=0), "utf-8")
        results.write_rows(path, [row])
        return store.read_rows(path)[0]

    def _check_code(self, path: pathlib.Path, code: pathlib.Path) -> None:
        """Sees to it that what is kept was made by the code of today.

        Args:
          path: of what is kept.
          code: file with the fingerprint of what made it.

        Raises:
          store.OldCodeError: it was made by other code.
        """
        try:
            found = json.loads(code.read_text("utf-8"))
        except (OSError, ValueError):
            found = None
        if changed := fingerprint.changes(found, _code()):
            store.refuse_old_code(
                str(path),
                changed,
                accept=self.accept_old_code,
                otherwise="move it away to record it anew",
            )

    def _record(
        self,
        setting: recording.Setting,
        budget: Budget,
        seeds: Sequence[int],
        num_steps: int,
        every: int,
    ) -> recording.Recording:
        self.stop_if_asked()
        screen.say(self.console, f"recording {setting.name}")
        return recording.record(
            setting,
            task=published.PERMUTATION,
            seq_len=10,
            seeds=seeds,
            num_steps=num_steps,
            every=every,
            hidden_size=budget.hidden_size,
            num_validation=min(1000, budget.num_validation),
        )


def reach(
    runner: PaperRunner, name: str, task: str, budget: Budget, seeds: Sequence[int]
) -> dict[int, list[Row]]:
    """Longer and longer sequences, until no member of the grid solves one.

    A seed goes on as long as some setting solves its length, from fresh weights.

    Returns:
      The rows of each length that was tried.
    """
    found: dict[int, list[Row]] = {}
    for seq_len in protocol.reach_lengths(name, budget):
        config = protocol.reach_config(name, task, seq_len, budget, seeds)
        found[seq_len] = runner.rows(config)
        seeds = sorted({r["seed"] for r in found[seq_len] if r["status"] == "solved"})
        if not seeds:
            break
    return found


class Artefact:
    """One artefact in the making: its runs, and its files.

    Args:
      name: of `ARTEFACTS`.
      budget: how much is trained.
      seeds: of each setting.
      runner: trains.
      folder: of the results of this budget.
    """

    def __init__(
        self,
        name: str,
        budget: Budget,
        seeds: Sequence[int],
        runner: PaperRunner,
        folder: pathlib.Path,
    ):
        self.name = name
        self.budget = budget
        self.seeds = seeds
        self.runner = runner
        self.folder = folder
        self._searched: dict[str, str] = {}  # by row: its grid

    def make(self) -> str:
        """Trains what is missing and writes the files; returns the page."""
        self.folder.mkdir(parents=True, exist_ok=True)
        page = {
            "table1": self._table,
            "table2": self._table,
            "table3": self._table,
            "table4": self._table4,
            "table5": self._table5,
            "figure2": self._flow,
            "figure3": self._flow,
            "figure4": self._flow,
            "figure5": self._figure5,
            "released": self._released,
            "decay": self._decay,
            "warm": self._warm,
        }[self.name]()
        self._write(f"{self.name}.md", page)
        self.write_runs()
        return page

    def _table(self) -> str:
        """Tables I to III."""
        found = []
        for task in self.budget.tasks:
            for name, printed in self._rows(task):
                config = protocol.table_config(name, task, self.budget, self.seeds)
                rows = self.runner.rows(config)
                label = protocol.ROWS[name].label
                self._searched[label] = tables.grid_text(config)
                found += tables.lines(
                    name, label, task, rows, config.max_steps, printed
                )
        self._write_csv(tables.paper_rows(found))
        swaps = {
            (name, task): self.runner.label_swap(name, task, self.budget, self.seeds)
            for task in self.budget.tasks
            for name, _ in self._rows(task)
        }
        self._write_csv(list(swaps.values()), f"{self.name}_label_swap")
        page = tables.paper_table(found) + tables.label_swap_table(swaps)
        return page + self._notes(
            "Each seed has the best of its settings, chosen on the validation set; the "
            "first setting that solves a cell ends the others. ± is the 95 % interval "
            "over seeds.",
            "A verdict compares with the number printed for the same K, or for K = 10 "
            "where the row has another K or none. It is `agrees` within the interval "
            "of one more seed, √(n + 1) times the ± of n, or a point, whichever is "
            "larger.",
            "Label swap: the rule with the first value of each of its axes, untrained; "
            "+1 knows nothing of the label, a rule that does is where BPTT is.",
            "γ of lra_released is in the units of the released code: B = 20 times "
            "those of lra_diff.",
        )

    def _rows(self, task: str) -> list[tuple[str, published.Table]]:
        """The rows of a table of I to III, and what they are compared with."""
        return [
            (name, printed)
            for name, printed in tables.TABLE_ROWS[self.name]
            if not {name, f"{name}.{task}"} & self.budget.left_out
        ]

    def _table4(self) -> str:
        config = protocol.table4_config(self.budget, self.seeds)
        rows = self.runner.rows(config)
        self._write_csv(tables.bounds_rows(rows, config.max_steps))
        best = ", ".join(
            f"{key} = {value:g}" for key, value in published.TABLE4_BEST.items()
        )
        page = tables.bounds_table(rows) + tables.bounds_summary(rows)
        return page + self._notes(
            f"The paper's winner for every K is {best} with "
            f"{100 * published.TABLE4_ACCURACY:.2f} %.",
            f"Temporal order, T = {self.budget.table4.seq_len}, "
            f"{config.max_steps:,} updates at most; {tables.grid_text(config)}.",
        )

    def _table5(self) -> str:
        found = []
        for task in self.budget.reach.tasks:
            for name, row in protocol.REACH_ROWS.items():
                if f"reach.{name}.{task}" in self.budget.left_out:
                    continue
                first = protocol.reach_config(name, task, 10, self.budget, self.seeds)
                self._searched[row.label] = tables.grid_text(first)
                rows = reach(self.runner, name, task, self.budget, self.seeds)
                found.append(
                    tables.make_reach(
                        name,
                        row.label,
                        task,
                        rows,
                        len(self.seeds),
                        self.budget.reach.max_steps,
                    )
                )
        self._write_csv(tables.reach_rows(found))
        self._write(f"{self.name}_summary.md", tables.reach_summary(found))
        return tables.reach_table(found, self.budget) + self._notes(
            "Fresh weights at each T. A seed goes on to the next T when some setting "
            "of the method has solved this one; cells are the seeds that solve T.",
            f"At most {self.budget.reach.max_steps:,} updates at each T, an evaluation "
            f"every {self.budget.reach.eval_every}; lengths tried: "
            f"{_list(self.budget.reach.seq_len)}.",
            "The paper's columns for TPTT and BPTT are those of the TPTT paper, with "
            "100,000 updates. A verdict compares the printed reach with the range over "
            "our seeds, up to the next length that was tried.",
            "TPTT trains with Nesterov momentum of 0.9, as in its authors' code; all "
            "others with plain gradient descent, as the paper says. Axes that are not "
            "the paper's were chosen after first looks at T ≤ 30.",
            "Of the released behaviour nothing longer than "
            f"T = {self.budget.reach.released_seq_len} is tried: its cost grows as T².",
        )

    def _warm(self) -> str:
        found = []
        for task in self.budget.reach.tasks:
            for name in protocol.WARM_ROWS:
                if f"warm.{task}" in self.budget.left_out:
                    continue
                rows = self.runner.warm_reach(name, task, self.budget, self.seeds)
                label = f"{protocol.REACH_ROWS[name].label}, warm start"
                first = protocol.reach_config(name, task, 10, self.budget, self.seeds)
                self._searched[label] = tables.grid_text(first)
                found.append(
                    tables.make_warm_reach(
                        name,
                        label,
                        task,
                        rows,
                        len(self.seeds),
                        self.budget.reach.max_steps,
                    )
                )
        self._write_csv(tables.reach_rows(found))
        return tables.reach_table(found, self.budget) + self._notes(
            "**Warm start**: a member that has solved T goes on to the next T with its "
            "weights, and has the same number of updates again. Not the paper's "
            "protocol, and not comparable with Table V.",
            f"At most {self.budget.reach.max_steps:,} updates at each T.",
        )

    def _figure5(self) -> str:
        found = []
        for task in self.budget.tasks:
            for rule in ("lra_diff", "lra_released"):
                if f"figure5.{rule}" in self.budget.left_out:
                    continue
                config = protocol.figure5_config(rule, task, self.budget, self.seeds)
                self._searched[rule] = tables.grid_text(config)
                rows = self.runner.rows(config)
                found += tables.strength_rows(rule, task, rows, config.max_steps)
        self._write_csv(found)
        return tables.strength_table(found) + self._notes(
            "The paper prints ΔAccuracy/Δλ as bars without numbers, and finds small λ "
            "best. Here the best of γ for each seed and λ, K and loss as in the "
            "released grid search.",
            f"{self.budget.figure5.max_steps:,} updates at most.",
        )

    def _released(self) -> str:
        """Training curves of `lra_released`, beside what the authors' code did."""
        found = []
        for (task, seq_len), printed in published.RELEASED_CURVES.items():
            lengths = self.budget.tables.seq_len
            if task not in self.budget.tasks or seq_len not in lengths:
                continue
            config = protocol.curve_config(task, seq_len, self.budget, self.seeds)
            curves = self.runner.curves(config)
            found.append(tables.CurveSet(task, seq_len, printed, curves))
        self._write_csv(tables.curve_rows(found))
        return tables.curve_table(found) + self._notes(
            "α = 0.1, γ = 1, K = 10, c = 1, λ = 0, MSE, the released validation; the "
            "authors' code was run once, with seed 1234 (tests/golden).",
        )

    def _flow(self) -> str:
        """Figures 2 to 4, recorded in float64: local losses reach 1e-30 and below."""
        flow = self.budget.flow
        rows, summary = self.runner.flow(
            self.name, self.budget, self.seeds, flow.num_steps, flow.every
        )
        results.write_rows(self.folder / f"{self.name}.csv", rows)
        self._write_csv(
            [{"name": row["setting"], **row} for row in summary],
            f"{self.name}_summary",
        )
        diverged = []
        if tables.num_diverged(summary):
            diverged = [
                "Diverged: seeds whose loss is not finite at the end. Their accuracy "
                "is 0; the other means at the end are over the seeds that are left."
            ]
        return tables.flow_table(summary) + self._notes(
            f"Random permutation, T = 10, {flow.num_steps:,} updates, float64; "
            "before training → at the end. ± is the 95 % interval over seeds.",
            "Decay: decades that the local loss falls per step back from the top, over "
            "the last five steps; steps whose loss is exactly 0 are counted apart and "
            "are not in the fit. Label swap: cosine between the gradients for true and "
            "for swapped labels; +1 knows nothing of the label.",
            f"λ is {protocol.LAMBDA:g} where it is not 0.",
            *diverged,
        )

    def _decay(self) -> str:
        """Local losses of one untrained pass, from the released code to what works."""
        rows, summary = self.runner.flow(self.name, self.budget, self.seeds, 1, 1)
        by_setting = tables.profile_rows(rows, summary)
        self._write_csv(by_setting)
        return tables.profile_table(by_setting) + self._notes(
            "Random permutation, T = 10, before training, float64, MSE, no bounds. "
            "L is a geometric mean over seeds; decay as in the figures' tables.",
        )

    def _notes(self, *notes: str) -> str:
        """What is under every table."""
        budget = f"Budget `{self.budget.name}`, {len(self.seeds)} seeds."
        if self.budget is not protocol.FULL:
            budget += (
                " The paper has 100,000 updates, α of 0.1, 0.01, 0.001 and γ of 10, 1, "
                "0.1, 0.01, 0.001: what is lower here might still rise."
            )
        lines = [budget, *notes]
        lines += [f"{label}: {grid}." for label, grid in self._searched.items()]
        return "\n" + markdown.notes(lines)

    def write_runs(self) -> None:
        """Writes the configs, and what the runs were made with."""
        (self.folder / "configs").mkdir(exist_ok=True)
        for name, path in self.runner.used.items():
            # Of Table V the first length is enough: others differ in T and seeds alone.
            if not name.startswith("reach.") or name.endswith(".T10"):
                config = (path / "config.resolved.toml").read_text("utf-8")
                (self.folder / "configs" / f"{name}.toml").write_text(config, "utf-8")
        blank = {"members": None, "updates": None, "seconds": None}
        lines = self.runner.made_with()
        lines += [row | blank for row in self.runner.recorded]
        if lines:
            results.write_rows(self.folder / f"{self.name}_runs.csv", lines)

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def _write_csv(
        self, rows: Sequence[Mapping[str, Any]], name: str | None = None
    ) -> None:
        """Writes rows as CSV, and as JSON by name, from which pages take numbers."""
        path = self.folder / f"{name or self.name}.csv"
        results.write_rows(path, rows)
        results.write_by_name(path.with_suffix(".json"), rows)


def _code() -> dict[str, str]:
    """The fingerprint of the code that makes recordings."""
    files = [recording.__file__, flow_tables.__file__, curriculum.__file__]
    return fingerprint.ours() | fingerprint.of_files(map(pathlib.Path, files))


def _made_with(name: str, dtype: str) -> Row:
    """What a recording depends on besides its settings."""
    device = machine.describe()
    return {
        "run": name,
        "code": provenance.code_version(),
        "jax": machine.versions("jax")["jax"],
        "device": device["kind"],
        "cores": device["cores"],
        "dtype": dtype,
    }


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _run(console: rich.console.Console, names: Sequence[str]) -> int:
    machine.prepare()
    jax.config.update("jax_enable_x64", False)
    budget = protocol.BUDGETS[_BUDGET.value]
    command = [*command_line.started_as(__name__), *sys.argv[1:]]
    interruption = run.Interruption(console, command)
    runs = pathlib.Path(_RUNS.value) / f"{budget.name}_{_SEEDS.value}_seeds"
    folder = pathlib.Path(_RESULTS.value) / budget.name
    for name in names:
        accept = _ACCEPT_OLD_CODE.value
        runner = PaperRunner(console, runs, interruption, accept_old_code=accept)
        artefact = Artefact(name, budget, range(_SEEDS.value), runner, folder)
        try:
            page = artefact.make()
        except StoppedError as stop:
            interruption.say("Interrupted; what was finished is saved. To go on:")
            return 128 + stop.number
        console.rule(name)
        screen.say(console, page)
        pictures.show(console, artefact.name, artefact.folder, draw)
    return 0


def _names(words: Sequence[str]) -> list[str]:
    """The artefacts that the command line names.

    Raises:
      flags.Error: an unknown one, or none.
    """
    known = (*ARTEFACTS, "all")
    if not words:
        raise flags.Error(f"expected one of {', '.join(known)}")
    for word in words:
        if (problem := arguments.check_choice(word, known)) is not None:
            raise flags.Error(f"unknown artefact {word!r}: {problem}")
    return [name for name in ARTEFACTS if name in words or "all" in words]


parse = command_line.parser(__name__, takes_words=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    errors = (
        ConfigError,
        machine.MachineError,
        store.RunFolderError,
        flags.Error,
        OSError,
    )
    return command_line.exit_code(
        lambda console: _run(console, _names(argv[1:])),
        errors,
        command_line.program(__name__),
    )
