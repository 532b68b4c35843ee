"""Recordings, warm starts and label swaps, each made once and kept beside the runs."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console

from experiments.paper import configs, curriculum, parts
from experiments.paper.budgets import PaperBudget
from lra_jax.lab.benches import published
from lra_jax.lab.flow import recording
from lra_jax.lab.flow import tables as flow_tables
from lra_jax.lab.reports import results, statistics
from lra_jax.lab.reports.results import Row
from lra_jax.lab.runs import fingerprint, provenance, run, store
from lra_jax.lab.runs.runner import Runner
from lra_jax.lab.terminal import files, machine, screen


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
        """The table and the summary of a recording, made now if it is not there yet.

        Raises:
          StoppedError: a signal came first; the settings that were recorded are kept.
          store.RunFolderError: what is kept is damaged, or of other code.
        """
        settings = configs.flow_settings(name, budget)
        path = self.folder / name
        vouches, code = path / "settings.txt", path / "code.json"
        tables = [path / f"{kept}.csv" for kept in ("table", "summary", "made_with")]
        shown = f"{settings} {budget.hidden_size} {list(seeds)} {num_steps} {every}"
        key = shown.encode()
        is_kept = vouches.is_file() and vouches.read_bytes() == key
        if is_kept and all(found := [store.read_rows(table) for table in tables]):
            self._check_code(path, parts.load(code))
        else:
            vouches.unlink(missing_ok=True)
            how = {
                "task": published.PERMUTATION,
                "seq_len": 10,
                "seeds": [*seeds],
                "num_steps": num_steps,
                "every": every,
                "hidden_size": budget.hidden_size,
                "num_validation": min(1000, budget.num_validation),
            }
            halves = [path / f"part{index}.json" for index in range(len(settings))]
            made = [
                self._record(half, name, setting, how)
                for half, setting in zip(halves, settings, strict=True)
            ]
            makers = [part["made_with"] for part in made]
            found = [
                [row for part in made for row in part["table"]],
                [row for part in made for row in part["summary"]],
                _distinct(makers),
            ]
            for table, rows in zip(tables, found, strict=True):
                results.write_rows(table, rows)
            _write_codes(code, _distinct([part["code"] for part in made]))
            files.write(vouches, key)
            for half in halves:
                half.unlink(missing_ok=True)
            found = [store.read_rows(table) for table in tables]
        self.recorded += found[2]
        return found[0], found[1]

    def warm_lengths(
        self, name: str, task: str, budget: PaperBudget, seeds: Sequence[int]
    ) -> list[Row]:
        """`curriculum.grow_lengths` of a method: a row for each T and member.

        Raises:
          StoppedError: a signal came first; the lengths that were trained are kept.
          store.RunFolderError: what is kept is damaged, or of other code.
        """
        path = self.folder / f"warm.{name}.{task}.csv"
        made_with = path.with_suffix(".made_with.csv")
        first = configs.reach_config(name, task, 10, budget, seeds)
        code = path.with_suffix(".code.json")
        key = f"{first.request_digest()} {budget.reach.seq_len}"
        if rows := _rows_of(path, key):
            self._check_code(path, parts.load(code))
            self.recorded += store.read_rows(made_with)
            return rows
        self.stop_if_asked()
        screen.say(self.console, f"warm start: {name}, {task}")
        half = path.with_suffix(".part.json")
        part = parts.read(half, key)
        begun, makers, codes = None, list[Row](), list[Any]()
        if part is not None:
            self._check_code(half, part["codes"])
            begun = curriculum.Grown.from_json(part["grown"])
            makers, codes = part["made_with"], part["codes"]
        makers = _distinct([*makers, _made_with(f"warm.{name}.{task}", "float32")])
        codes = _distinct([*codes, _code()])

        def keep(grown: curriculum.Grown) -> None:
            content = {"made_with": makers, "grown": grown.to_json()}
            parts.write(half, key, codes=codes, **content)

        def say(text: str) -> None:
            screen.say(self.console, text)
            self.stop_if_asked()

        by_length = curriculum.grow_lengths(
            lambda t: configs.reach_config(name, task, t, budget, seeds),
            budget.reach.seq_len,
            say,
            begun=begun,
            keep=keep,
        )
        rows = [
            {"key": key, "seq_len": t, **row}
            for t, members in by_length.items()
            for row in members
        ]
        results.write_rows(made_with, makers)
        _write_codes(code, codes)
        results.write_rows(path, rows)  # last: it vouches for the others
        half.unlink(missing_ok=True)
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
        if rows := _rows_of(path, key):
            self._check_code(path, parts.load(code))
            return rows[0]
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
        _write_codes(code, [_code()])
        results.write_rows(path, [row])
        return store.read_rows(path)[0]

    def _check_code(self, path: pathlib.Path, codes: Any) -> None:
        """Sees to it that what is kept was made by the code of today.

        Args:
          path: of what is kept.
          codes: the fingerprint of what made it, or those of all that did; None where
            it is not known.

        Raises:
          store.OldCodeError: it was made by other code.
        """
        for code in codes if isinstance(codes, list) else [codes]:
            if changed := fingerprint.changes(code, _code()):
                store.refuse_old_code(
                    str(path),
                    changed,
                    accept=self.accept_old_code,
                    otherwise="move it away to record it anew",
                )

    def _record(
        self,
        half: pathlib.Path,
        name: str,
        setting: recording.Setting,
        how: Mapping[str, Any],
    ) -> dict[str, Any]:
        """A setting's rows of the table and the summary: recorded now, or before.

        Args:
          half: where they are kept.
          name: of the recording that they are a part of.
          setting: to be recorded.
          how: arguments of `recording.record`.
        """
        key = f"{setting} {how}"
        part = parts.read(half, key)
        if part is not None:
            self._check_code(half, part["code"])
            return part
        self.stop_if_asked()
        screen.say(self.console, f"recording {setting.name}")
        with machine.in_float64():
            recorded = recording.record(setting, **how)
        content = {
            "code": _code(),
            "made_with": _made_with(name, "float64"),
            "table": flow_tables.by_step([recorded]),
            "summary": flow_tables.summary([recorded]),
        }
        parts.write(half, key, **content)
        return content


def _rows_of(path: pathlib.Path, key: str) -> list[Row]:
    """The rows that are kept under a key; none where there is nothing, or no such."""
    rows = store.read_rows(path) if path.is_file() else []
    return rows if rows and rows[0].get("key") == key else []


def _distinct(values: Sequence[Any]) -> list[Any]:
    """Each value once, in their order; they need no hash."""
    return [x for i, x in enumerate(values) if x not in values[:i]]


def _write_codes(path: pathlib.Path, codes: Sequence[Any]) -> None:
    """Writes the fingerprints of all code that made a recording."""
    files.write_text(path, json.dumps([*codes], indent=0))


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
