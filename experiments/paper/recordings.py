"""Recordings, warm starts and label swaps, each made once and kept beside the runs."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import rich.console

from experiments.paper import configs, curriculum
from experiments.paper.budgets import PaperBudget
from lra_jax.lab.benches import published
from lra_jax.lab.flow import recording
from lra_jax.lab.flow import tables as flow_tables
from lra_jax.lab.reports import results, statistics
from lra_jax.lab.reports.results import Row
from lra_jax.lab.runs import fingerprint, provenance, run, store
from lra_jax.lab.runs.runner import Runner
from lra_jax.lab.terminal import machine, screen


class PaperRunner(Runner):
    """Trains, records, and keeps what it has recorded for other artefacts.

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
        budget: PaperBudget,
        seeds: Sequence[int],
        num_steps: int,
        every: int,
    ) -> tuple[list[Row], list[Row]]:
        """The table and the summary of a recording, made now if it is not there yet."""
        settings = configs.flow_settings(name, budget)
        path = self.folder / name
        key = f"{settings} {budget.hidden_size} {list(seeds)} {num_steps} {every}"
        files = [path / "settings.txt", path / "table.csv", path / "summary.csv"]
        code = path / "code.json"
        if files[0].is_file() and files[0].read_text("utf-8") == key:
            self._check_code(path, code)
        else:
            path.mkdir(parents=True, exist_ok=True)
            files[0].unlink(missing_ok=True)  # it vouches for the others
            with machine.in_float64():
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

    def warm_lengths(
        self, name: str, task: str, budget: PaperBudget, seeds: Sequence[int]
    ) -> list[Row]:
        """`curriculum.grow_lengths` of a method: a row for each T and member."""
        path = self.folder / f"warm.{name}.{task}.csv"
        made_with = path.with_suffix(".made_with.csv")
        first = configs.reach_config(name, task, 10, budget, seeds)
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

        by_length = curriculum.grow_lengths(
            lambda t: configs.reach_config(name, task, t, budget, seeds),
            budget.reach.seq_len,
            say,
        )
        rows = [
            {"key": key, "seq_len": t, **row}
            for t, members in by_length.items()
            for row in members
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        results.write_rows(made_with, [_made_with(f"warm.{name}.{task}", "float32")])
        code.write_text(json.dumps(_code(), indent=0), "utf-8")
        results.write_rows(path, rows)  # last: it vouches for the others
        self.recorded += store.read_rows(made_with)
        return store.read_rows(path)

    def label_swap(
        self, name: str, task: str, budget: PaperBudget, seeds: Sequence[int]
    ) -> Row:
        """Cosines of a row's untrained gradients for true and swapped labels."""
        setting = configs.first_setting(name, budget)
        seq_len = budget.tables.label_swap_seq_len
        path = self.folder / f"label_swap.{name}.{task}.csv"
        key = f"{setting} {seq_len} {budget.hidden_size} {list(seeds)}"
        code = path.with_suffix(".code.json")
        if path.is_file() and (row := store.read_rows(path)[0])["key"] == key:
            self._check_code(path, code)
            return row
        self.stop_if_asked()
        with machine.in_float64():
            cosines = recording.label_swap(
                setting,
                task=task,
                seq_len=seq_len,
                seeds=seeds,
                hidden_size=budget.hidden_size,
            )
        w_xh, w_hh = map(statistics.finite_mean_interval, cosines)
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
            kept = json.loads(code.read_text("utf-8"))
        except (OSError, ValueError):
            kept = None
        if changed := fingerprint.changes(kept, _code()):
            store.refuse_old_code(
                str(path),
                changed,
                accept=self.accept_old_code,
                otherwise="move it away to record it anew",
            )

    def _record(
        self,
        setting: recording.Setting,
        budget: PaperBudget,
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


def _code() -> dict[str, str]:
    """The fingerprint of the code that makes recordings."""
    modules = [recording, flow_tables, statistics, curriculum]
    return fingerprint.ours() | fingerprint.of_files(
        pathlib.Path(str(module.__file__)) for module in modules
    )


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
