"""Trains a hyper-parameter grid: `python -m experiments.grid --config configs/x.toml`.

Reads the config, splits its members into groups that share a compiled program, trains
each group as one batched computation, and leaves a run folder behind. Exit codes: 0
done, 1 an unexpected failure, 2 bad input or a folder that cannot be used or written,
130 and 143 interrupted (by Ctrl-C or SIGTERM). Whatever happens, the run goes on from
its last save (docs/reliability.md).
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

import jax
import rich.console
from absl import flags

from lra_jax import sweep
from lra_jax.lab import config as config_lib
from lra_jax.lab.runs import groups as groups_lib
from lra_jax.lab.runs import run, store
from lra_jax.lab.terminal import command_line, machine, screen

_CONFIG = flags.DEFINE_string("config", None, "TOML file that describes the run.")
_SET = flags.DEFINE_multi_string(
    "set",
    [],
    "KEY=VALUE over the config, such as grid.gamma=[1,10]; of several [[grid]] tables "
    "those that have the key, or grid.1.gamma=[1,10] the second",
)
_OUT = flags.DEFINE_string("out", None, "Run folder; default runs/NAME.")
_RESUME = flags.DEFINE_boolean(
    "resume", False, "Go on with the run that --out holds, if it holds one."
)
_ACCEPT_OLD_CODE = flags.DEFINE_boolean(
    "accept_old_code",
    False,
    "Go on with a run that other code than today's has made.",
    allow_override=True,  # other commands have a flag of this name
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
_LIVE = flags.DEFINE_boolean(
    "live", False, "Keep report.html up to date while the run goes on."
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


def _dry_run(console: rich.console.Console, groups: Sequence[groups_lib.Group]) -> None:
    header = ("group", "members", "at once", "memory", "compiled for")
    lines = []
    first = groups[0].statics
    same = {
        key: value
        for key, value in first.items()
        if all(group.statics.get(key) == value for group in groups)
    }
    for index, group in enumerate(groups):
        slots = run.init_sweep(group, _MAX_PARALLEL.value).slots
        memory = sweep.memory_of_chunk(group.experiment, group.grid, slots)
        own = {k: v for k, v in group.statics.items() if k not in same}
        line = (
            str(index),
            str(len(group.members)),
            str(min(slots.size, len(group.members))),
            f"{memory * jax.device_count() / 2**20:,.0f} MiB",
            ", ".join(f"{k} {v}" for k, v in own.items()) or "all of the below",
        )
        lines.append(line)
    total = sum(len(group.members) for group in groups)
    screen.say(console, f"{total} members in {len(groups)} compiled group(s)")
    text = header[-1:]
    screen.show_table(console, header, lines, left=text, wrapped=text)
    screen.say(console, ", ".join(f"{k} {v}" for k, v in same.items()))


def _command(path: pathlib.Path, *, resume: bool) -> list[str]:
    """The command that makes or continues this run."""
    words = command_line.started_as(__name__)
    words += screen.option("config", str(_CONFIG.value))
    words += command_line.imports_again()
    for override in _SET.value:
        words += screen.option("set", override)
    words += screen.option("out", str(path))
    if _MAX_PARALLEL.value != "auto":
        words += ["--max-parallel", _MAX_PARALLEL.value]
    words += ["--live"] * _LIVE.value + ["--distributed"] * _DISTRIBUTED.value
    if _PROCESS.value is not None:
        words += ["--process", _PROCESS.value]
    words += ["--accept-old-code"] * _ACCEPT_OLD_CODE.value
    return words + ["--resume"] * resume


def _run(console: rich.console.Console) -> int:
    own = command_line.imports()
    config = config_lib.load(str(_CONFIG.value), _SET.value, *([own] if own else []))
    machine.prepare()
    if _DISTRIBUTED.value:
        machine.join_processes(_PROCESS.value)
        console.quiet = not machine.is_first()
    jax.config.update("jax_enable_x64", config.dtype == "float64")
    if _DRY_RUN.value:
        with jax.default_matmul_precision(config.matmul_precision):
            _dry_run(console, groups_lib.make_groups(config))
        return 0
    path = pathlib.Path(_OUT.value or f"runs/{config.name}")
    interruption = run.Interruption(console, _command(path, resume=True))
    number = run.train(
        console,
        config,
        path,
        resume=_RESUME.value,
        command=_command(path, resume=False),
        interruption=interruption,
        max_parallel=_MAX_PARALLEL.value,
        live=_LIVE.value,
        accept_old_code=_ACCEPT_OLD_CODE.value,
    )
    if number:
        interruption.say("Interrupted; everything is saved. To go on:")
        return 128 + number
    return 0


def _check_flags() -> None:
    if _CONFIG.value is None:
        raise flags.Error("--config is missing, such as --config configs/demo.toml")
    if _PROCESS.value is not None and not _DISTRIBUTED.value:
        raise flags.Error("--process needs --distributed")


parse = command_line.parser(__name__, _check_flags, takes_imports=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    errors = (
        config_lib.ConfigError, machine.MachineError, store.RunFolderError, OSError
    )  # fmt: skip
    return command_line.exit_code(
        lambda console: machine.run_together(lambda: _run(console), errors), errors
    )
