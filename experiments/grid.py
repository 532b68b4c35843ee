"""Trains a hyper-parameter grid: `python -m experiments.grid --config configs/x.toml`.

Reads the config, splits its members into groups that share a compiled program, trains
each group as one batched computation, and leaves a run folder behind. Exit codes: 0
done, 1 an unexpected failure, 2 bad input or a folder that cannot be used or written,
130 and 143 interrupted (by Ctrl-C or SIGTERM). Every finished chunk is saved in any
case (docs/reliability.md).
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import rich.box
import rich.console
import rich.table
from absl import app, flags

from experiments import command_line, machine, report, store
from experiments import config as config_lib
from experiments import groups as groups_lib
from experiments.progress import Progress
from lra_jax import sweep
from lra_jax.member import Limits
from lra_jax.sweep import SweepState

_CONFIG = flags.DEFINE_string("config", None, "TOML file that describes the run.")
_SET = flags.DEFINE_multi_string(
    "set", [], "KEY=VALUE over the config, such as grid.gamma=[1,10]; repeatable."
)
_OUT = flags.DEFINE_string("out", None, "Run folder; default runs/NAME.")
_RESUME = flags.DEFINE_boolean(
    "resume", False, "Go on with the run that --out holds, if it holds one."
)
_DRY_RUN = flags.DEFINE_boolean(
    "dry_run", False, "Show members, compiled groups and memory, and stop."
)
_MAX_PARALLEL = flags.DEFINE_string(
    "max_parallel",
    "auto",
    "Most members advanced at once; auto: as many as are of use, and fit into memory.",
)
flags.register_validator(
    "max_parallel",
    lambda text: text == "auto" or re.fullmatch("[1-9][0-9]{0,8}", text) is not None,
    "expected auto or a number of at least 1",
)
_DISTRIBUTED = flags.DEFINE_boolean(
    "distributed", False, "This is one of several processes that share the run."
)
_PROCESS = flags.DEFINE_string(
    "process", None, "I/N, which of them, where no cluster manager tells."
)
flags.register_validator(
    "process",
    lambda text: text is None or re.fullmatch("[0-9]{1,6}/[1-9][0-9]{0,6}", text),
    "expected I/N, such as 0/2",
)


class Interruption:
    """Remembers SIGINT and SIGTERM; a second one ends the process at once.

    A thread hears of them: Python's own handlers wait until a compiled chunk ends.

    Args:
      console: to say what happens.
      command: that goes on with the run.
    """

    def __init__(self, console: rich.console.Console, command: str):
        self.signal: int | None = None
        self._console = console
        self._command = command
        self._ear, mouth = os.pipe()
        os.set_blocking(mouth, False)
        signal.set_wakeup_fd(mouth)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        self.signal = os.read(self._ear, 1)[0]
        self._console.print("Finishing this chunk; once more leaves at once.")
        number = os.read(self._ear, 1)[0]
        self._console.show_cursor()
        self.say("Left at once; every finished chunk is saved. To go on:")
        os._exit(128 + number)

    def say(self, text: str) -> None:
        """Says what happened, and how to go on."""
        self._console.print(text, soft_wrap=True, highlight=False)
        self._console.print(f"  {self._command}", soft_wrap=True, highlight=False)


def _init_sweep(group: groups_lib.Group) -> SweepState:
    text = _MAX_PARALLEL.value
    most = (
        machine.max_parallel(group.experiment, group.grid)
        if text == "auto"
        else int(text)
    )
    return sweep.init_sweep(group.grid, max_parallel=most)


def _all_members(found: Sequence[sweep.Members]) -> sweep.Members:
    """The members of all groups, one after the other."""
    return sweep.Members(
        *(np.concatenate(columns) for columns in zip(*found, strict=True))
    )


def _dry_run(console: rich.console.Console, groups: Sequence[groups_lib.Group]) -> None:
    table = rich.table.Table(box=rich.box.SIMPLE)
    for column in ("group", "members", "at once", "memory", "compiled for"):
        table.add_column(
            column, justify="left" if column == "compiled for" else "right"
        )
    first = groups[0].statics
    same = {
        key: value
        for key, value in first.items()
        if all(group.statics.get(key) == value for group in groups)
    }
    for index, group in enumerate(groups):
        slots = _init_sweep(group).slots
        memory = sweep.memory_of_chunk(group.experiment, group.grid, slots)
        own = {k: v for k, v in group.statics.items() if k not in same}
        table.add_row(
            str(index),
            str(len(group.members)),
            str(slots.size),
            f"{memory * jax.device_count() / 2**20:,.0f} MiB",
            ", ".join(f"{k} {v}" for k, v in own.items()) or "all of the below",
        )
    total = sum(len(group.members) for group in groups)
    console.print(f"{total} members in {len(groups)} compiled group(s)")
    console.print(table)
    console.print(", ".join(f"{k} {v}" for k, v in same.items()), soft_wrap=True)


def _command(path: pathlib.Path, *, resume: bool) -> str:
    """The command that makes or continues this run."""
    words = ["python", "-m", "experiments.grid", "--config", str(_CONFIG.value)]
    for override in _SET.value:
        words += ["--set", override]
    words += ["--out", str(path)]
    if _MAX_PARALLEL.value != "auto":
        words += ["--max-parallel", _MAX_PARALLEL.value]
    words += ["--distributed"] * _DISTRIBUTED.value + ["--resume"] * resume
    return shlex.join(words)


def _train(
    console: rich.console.Console,
    config: config_lib.Config,
    groups: Sequence[groups_lib.Group],
    states: list[SweepState | None],
    folder: store.RunFolder,
    manifest: dict[str, Any],
    interruption: Interruption,
) -> int:
    """Advances all groups' states and saves every chunk.

    Returns:
      The number of the signal that any process was stopped by; 0 at the end.
    """
    limits = Limits(config.max_steps, config.patience)
    found = [
        (state or sweep.init_sweep(group.grid)).members
        for group, state in zip(groups, states, strict=True)
    ]
    members = _all_members(found)
    writes = machine.is_first()
    before, began = manifest["seconds"], time.monotonic()
    # A run that was killed may have saved a chunk that its manifest does not count.
    manifest["chunks"] = max(manifest["chunks"], folder.num_chunks)
    if writes:
        folder.save(groups, states, manifest)
    with Progress(console, limits, config.num_validation, members) as progress:
        for index, group in enumerate(groups):
            state = states[index]
            if state is None:
                state = _init_sweep(group)
            for advanced in sweep.iterate_sweep(
                group.experiment, group.grid, state, limits=limits
            ):
                states[index] = sweep.gather(advanced)
                found[index] = advanced.members
                members = _all_members(found)
                manifest["chunks"] += 1
                manifest["seconds"] = round(before + time.monotonic() - began, 1)
                manifest["member_steps"] = int(members.step.sum())
                if writes:
                    folder.save(groups, states, manifest, changed=index)
                progress.show(members)
                number = machine.largest(interruption.signal or 0)
                if number:
                    if writes:
                        folder.save(groups, states, manifest)
                    return number
        progress.show(members, last=True)
    manifest["finished"] = True
    if writes:
        folder.save(groups, states, manifest)
    return 0


def _finish(
    console: rich.console.Console,
    config: config_lib.Config,
    groups: Sequence[groups_lib.Group],
    folder: store.RunFolder,
    manifest: dict[str, Any],
    states: Sequence[SweepState | None],
) -> None:
    """Writes the report and the figures, and shows the table."""
    rows = store.result_rows(config, groups, states)
    notes = [
        f"{manifest['member_steps']:,} updates in {manifest['seconds']:,.0f} s on "
        f"{manifest['device']['cores']} cores, {manifest['device']['kind']}, "
        f"{config.dtype}, JAX {manifest['versions']['jax']}.",
    ]
    if not manifest["finished"]:
        notes.insert(0, "**Not finished**: members that run are not in the table.")
    can_draw = importlib.util.find_spec("matplotlib") is not None
    if not can_draw:
        notes.append(
            "No figures: matplotlib is missing (`pip install 'lra_jax[plot]'`)."
        )
    page = report.markdown(
        config.name, _command(folder.path, resume=False), rows, notes
    )
    folder.write_text("report.md", page)
    header, lines = report.table(rows)
    table = rich.table.Table(*header, box=rich.box.SIMPLE)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False)
    pictures: list[str] = []
    if can_draw:
        from experiments import figures

        curves = store.curve_columns(groups, states)
        try:
            pictures = figures.draw(folder.path, rows, curves, config.num_validation)
        except OSError as error:
            raise store.RunFolderError(
                f"{folder.path / 'figures'} cannot be written: {error.strerror}. The "
                "results are saved"
            ) from None
        links = (f"\n![{pathlib.Path(name).stem}]({name})\n" for name in pictures)
        folder.write_text("report.md", page + "".join(links))
    for name in ("report.md", "results.csv", *pictures):
        console.print(f"  {folder.path / name}", soft_wrap=True, highlight=False)


def _open(folder: store.RunFolder) -> dict[str, Any]:
    """The manifest so far. The first process asks, and all go on or none."""
    problem, manifest = None, {}
    if machine.is_first():
        try:
            manifest = folder.open(resume=_RESUME.value)
        except store.RunFolderError as error:
            problem = error
    if machine.largest(problem is not None):
        raise problem or store.RunFolderError("the first process cannot use the folder")
    return manifest


def _run(console: rich.console.Console) -> int:
    config = config_lib.load(str(_CONFIG.value), _SET.value)
    machine.prepare()
    if _DISTRIBUTED.value:
        machine.join_processes(_PROCESS.value)
        console.quiet = not machine.is_first()
    jax.config.update("jax_enable_x64", config.dtype == "float64")
    groups = groups_lib.make_groups(config)
    with jax.default_matmul_precision(config.matmul_precision):
        if _DRY_RUN.value:
            _dry_run(console, groups)
            return 0
        path = pathlib.Path(_OUT.value or f"runs/{config.name}")
        folder = store.RunFolder(path, config)
        manifest = {
            "seconds": 0.0,
            "chunks": 0,
            "member_steps": 0,
            **_open(folder),
            **store.describe_environment(config),
            "num_members": sum(len(group.members) for group in groups),
            "groups": [group.statics for group in groups],
            "finished": False,
        }
        states = folder.load_states(groups)
        go_on = _command(path, resume=True)
        interruption = Interruption(console, go_on)
        console.print(
            f"{config.name}: {manifest['num_members']} members in {len(groups)} "
            f"compiled group(s), {path}",
            soft_wrap=True,
            highlight=False,
        )
        try:
            number = _train(
                console, config, groups, states, folder, manifest, interruption
            )
            if machine.is_first():
                _finish(console, config, groups, folder, manifest, states)
        except store.RunFolderError as error:
            raise store.RunFolderError(f"{error}. To go on:\n  {go_on}") from None
        finally:
            folder.close()
    if number:
        interruption.say("Interrupted; everything is saved. To go on:")
        return 128 + number
    return 0


def _check_flags() -> None:
    if _CONFIG.value is None:
        raise flags.Error("--config is missing, such as --config configs/demo.toml")


parse = command_line.parser("experiments.grid", _check_flags)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    console = command_line.console()
    try:
        return _run(console)
    except (
        config_lib.ConfigError,
        machine.MachineError,
        store.RunFolderError,
    ) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
