"""Trains a hyper-parameter grid: `python -m experiments.grid --config configs/x.toml`.

Reads the config, splits its members into groups that share a compiled program, trains
each group as one batched computation, and leaves a run folder behind. Exit codes: 0
done, 1 an unexpected failure, 2 bad input, 130 and 143 interrupted (by Ctrl-C or
SIGTERM) with everything saved.
"""

from __future__ import annotations

import importlib.util
import pathlib
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

import jax
import numpy as np
import rich.box
import rich.console
import rich.table
from absl import app, flags, logging

from experiments import config as config_lib
from experiments import groups as groups_lib
from experiments import report, store
from experiments.progress import Progress
from lra_jax import sweep
from lra_jax.member import Limits
from lra_jax.sweep import SweepState

# On a CPU more members at once are no faster (BUILD_NOTES.md), and a member that ends
# makes room sooner among few.
MAX_PARALLEL = {"cpu": 16, "gpu": 1024, "tpu": 1024}

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
_MAX_PARALLEL = flags.DEFINE_integer(
    "max_parallel",
    None,
    f"Most members advanced at once; default {MAX_PARALLEL['cpu']} on a CPU, "
    f"{MAX_PARALLEL['gpu']} on a GPU or TPU.",
    lower_bound=1,
)


class Interruption:
    """Remembers SIGINT and SIGTERM; a second one ends the process at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal is not None:
            sys.exit(128 + number)
        self.signal = number


def _max_parallel() -> int:
    return _MAX_PARALLEL.value or MAX_PARALLEL.get(
        jax.default_backend(), MAX_PARALLEL["gpu"]
    )


def _all_members(
    groups: Sequence[groups_lib.Group], states: Sequence[SweepState | None]
) -> sweep.Members:
    """The members of all groups, one after the other."""
    found = [
        (state or sweep.init_sweep(group.grid)).members
        for group, state in zip(groups, states, strict=True)
    ]
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
        slots = sweep.num_slots(group.grid, _max_parallel())
        memory = sweep.memory_of_chunk(group.experiment, group.grid, slots)
        own = {k: v for k, v in group.statics.items() if k not in same}
        table.add_row(
            str(index),
            str(len(group.members)),
            str(slots),
            f"{memory / 2**20:,.0f} MiB",
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
    if _MAX_PARALLEL.value is not None:
        words += ["--max-parallel", str(_MAX_PARALLEL.value)]
    words += ["--resume"] * resume
    return shlex.join(words)


def _train(
    console: rich.console.Console,
    config: config_lib.Config,
    groups: Sequence[groups_lib.Group],
    folder: store.RunFolder,
    manifest: dict[str, Any],
    interruption: Interruption,
) -> list[SweepState | None]:
    """Advances all groups, saves at every chunk, and stops after one if interrupted."""
    states = folder.load_states(groups)
    limits = Limits(config.max_steps, config.patience)
    members = _all_members(groups, states)
    before, began = manifest["seconds"], time.monotonic()
    folder.save(groups, states, manifest)
    with Progress(console, limits, config.num_validation, members) as progress:
        for index, group in enumerate(groups):
            state = states[index]
            if state is None:
                state = sweep.init_sweep(group.grid, max_parallel=_max_parallel())
            for advanced in sweep.iterate_sweep(
                group.experiment, group.grid, state, limits=limits
            ):
                states[index] = advanced
                members = _all_members(groups, states)
                manifest["seconds"] = round(before + time.monotonic() - began, 1)
                manifest["member_steps"] = int(members.step.sum())
                folder.save(groups, states, manifest, changed=index)
                progress.show(members)
                if interruption.signal is not None:
                    return states
        progress.show(members, last=True)
    manifest["finished"] = True
    folder.save(groups, states, manifest)
    return states


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
        pictures = figures.draw(folder.path, rows, curves, config.num_validation)
        links = (f"\n![{pathlib.Path(name).stem}]({name})\n" for name in pictures)
        folder.write_text("report.md", page + "".join(links))
    for name in ("report.md", "results.csv", *pictures):
        console.print(f"  {folder.path / name}", soft_wrap=True, highlight=False)


def _run(console: rich.console.Console) -> int:
    config = config_lib.load(str(_CONFIG.value), _SET.value)
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
            "member_steps": 0,
            **folder.open(resume=_RESUME.value),
            **store.describe_environment(config),
            "num_members": sum(len(group.members) for group in groups),
            "groups": [group.statics for group in groups],
            "finished": False,
        }
        interruption = Interruption()
        console.print(
            f"{config.name}: {manifest['num_members']} members in {len(groups)} "
            f"compiled group(s), {path}",
            soft_wrap=True,
            highlight=False,
        )
        states = _train(console, config, groups, folder, manifest, interruption)
        _finish(console, config, groups, folder, manifest, states)
    if interruption.signal is not None:
        console.print("Interrupted; everything is saved. To go on:")
        console.print(
            "  " + _command(path, resume=True), soft_wrap=True, highlight=False
        )
        return 128 + interruption.signal
    return 0


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; `--dry-run` is `--dry_run`, and bad flags exit with code 2."""
    words = []
    for word in argv:
        name, equals, value = word.partition("=")
        words.append(
            name.replace("-", "_").replace("__", "--", 1) + equals + value
            if name.startswith("--")
            else word
        )
    try:
        rest = flags.FLAGS(words)
        if len(rest) > 1:
            raise flags.Error(f"unexpected argument {rest[1]!r}")
        if _CONFIG.value is None:
            raise flags.Error("--config is missing, such as --config configs/demo.toml")
    except flags.Error as error:
        print(f"experiments.grid: {error}", file=sys.stderr)
        sys.exit(2)
    return rest


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    logging.set_verbosity(logging.WARNING)
    console = rich.console.Console()
    if not console.is_terminal:
        console = rich.console.Console(width=120)
    try:
        return _run(console)
    except (config_lib.ConfigError, store.RunFolderError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
