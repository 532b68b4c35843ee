"""Trains a config's grid into a run folder: what the commands here have in common."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import jax
import rich.console

from lra_jax import sweep
from lra_jax.lab import config as config_lib
from lra_jax.lab.reports import canvas, markdown, run_view, summary, texts, web_page
from lra_jax.lab.runs import groups as groups_lib
from lra_jax.lab.runs import provenance, store, tables
from lra_jax.lab.terminal import files, machine, screen
from lra_jax.lab.terminal.progress import Progress
from lra_jax.member import Limits, Status
from lra_jax.sweep import SweepState


class Interruption:
    """Remembers SIGINT, SIGTERM and SIGHUP; a second one ends the process at once.

    A thread hears of them: Python's own handlers wait until a compiled chunk ends.

    Args:
      console: to say what happens.
      command: that goes on with the run.
    """

    def __init__(self, console: rich.console.Console, command: Sequence[str]):
        self.signal: int | None = None
        self.unsaved = 0  # finished chunks
        self._console = console
        self.command = screen.shell(command, console.encoding)
        screen.say_loss("stdout cannot be written ({}); the run goes on without it")
        self._ear, mouth = os.pipe()
        screen.set_blocking(mouth, blocking=False)
        signal.set_wakeup_fd(mouth)
        numbers = [signal.SIGINT, signal.SIGTERM]
        # Of a terminal that is closed; `nohup` has it ignored, Windows has none.
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
            numbers.append(hangup)
        for number in numbers:
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        self.signal = os.read(self._ear, 1)[0]
        self._say("Finishing this chunk; once more leaves at once.")
        number = os.read(self._ear, 1)[0]
        self._console.show_cursor()
        saved = f"all but the last {self.unsaved} finished chunks are saved"
        if not self.unsaved:
            saved = "every finished chunk is saved"
        self.say(f"Left at once; {saved}. To go on:")
        sys.stdout.flush()
        os._exit(128 + number)

    def say(self, text: str) -> None:
        """Says what happened, and how to go on."""
        self._say(text)
        self._say(f"  {self.command}")

    def _say(self, text: str) -> None:
        if screen.is_lost():
            print(text, file=sys.stderr)
        else:
            screen.say(self._console, text)


def init_sweep(group: groups_lib.Group, max_parallel: str) -> SweepState:
    """The state before a group's first chunk.

    Args:
      group: of members.
      max_parallel: most members advanced at once; "auto" is what is of use and fits.
    """
    most = (
        machine.max_parallel(group.experiment, group.grid)
        if max_parallel == "auto"
        else int(max_parallel)
    )
    return sweep.init_sweep(group.grid, max_parallel=most)


def _keeper(
    config: config_lib.Config, group: groups_lib.Group, folder: store.RunFolder
) -> sweep.OnChunk:
    """Saves the last weights of a group's members as they end."""
    settings = [*config.members()]

    def keep(state: SweepState, ended: sweep.Weights) -> None:
        del state
        for member in ended if machine.is_first() else ():
            number = int(group.members[member])
            folder.save_params(number, ended[member], settings[number])

    return keep


def _train(
    console: rich.console.Console,
    config: config_lib.Config,
    groups: Sequence[groups_lib.Group],
    states: list[SweepState | None],
    folder: store.RunFolder,
    manifest: dict[str, Any],
    interruption: Interruption,
    max_parallel: str,
) -> int:
    """Advances all groups' states and saves them.

    Every chunk is saved that takes long enough for it, and of short ones every few; the
    last one is saved in any case, of a group or before a signal stops the run.

    Returns:
      The number of the signal that any process was stopped by; 0 at the end.
    """
    limits = Limits(config.max_steps, config.patience, config.steps_after_solved)
    found = [
        (state or sweep.init_sweep(group.grid)).members
        for group, state in zip(groups, states, strict=True)
    ]
    writes = machine.is_first()
    before, began = manifest["seconds"], time.monotonic()
    # A run that was killed may have saved a chunk that its manifest does not count.
    manifest["chunks"] = max(manifest["chunks"], folder.num_chunks)
    interruption.unsaved = 0
    if writes:
        folder.save(groups, states, manifest)

    def save(index: int, advanced: SweepState) -> None:
        """Saves a group's state after chunks that are not saved yet."""
        states[index] = sweep.gather(advanced)
        manifest["chunks"] += interruption.unsaved
        manifest["seconds"] = round(before + time.monotonic() - began, 1)
        manifest["member_steps"] = sum(int(x.step.sum()) for x in found)
        if writes:
            chunks = interruption.unsaved
            folder.save(groups, states, manifest, changed=index, chunks=chunks)
        interruption.unsaved = 0

    def stop() -> int:
        """The signal that any process was stopped by."""
        return machine.largest(interruption.signal or 0)

    with Progress(console, limits, found) as progress:
        for index, group in enumerate(groups):
            state = states[index]
            if state is None or (state.members.status <= Status.RUNNING).any():
                progress.compiles(_compiling(index, groups))
            if state is None:
                state = init_sweep(group, max_parallel)
            elif (state.members.status <= Status.RUNNING).any():
                _say_kept(console, _named(index, groups), group, state, max_parallel)
            # Compiling takes long, and so does a chunk. The first one is always made: a
            # run that was begun has something to show.
            if index and (number := stop()):
                break
            number = 0
            chunks = sweep.iterate_sweep(
                group.experiment,
                group.grid,
                state,
                limits=limits,
                on_chunk=_keeper(config, group, folder) if config.save_params else None,
            )
            for state in chunks:
                found[index] = state.members
                interruption.unsaved += 1
                number = stop()
                if number or machine.largest(writes and folder.is_save_due()):
                    save(index, state)
                progress.show(found)
                if number:
                    break
            if interruption.unsaved:
                save(index, state)
            if number:
                break
        if not number:
            progress.show(found, last=True)
    manifest["finished"] = not number
    manifest["member_steps"] = sum(int(x.step.sum()) for x in found)
    if writes:
        folder.save(groups, states, manifest)
    return number


def _compiling(index: int, groups: Sequence[groups_lib.Group]) -> str:
    """What is compiled, and in what it differs from the other groups."""
    statics = groups[index].statics
    own = [
        f"{key} {value}"
        for key, value in statics.items()
        if any(group.statics.get(key) != value for group in groups)
    ]
    which = f": {', '.join(own)}" if own else ""
    return f"compiling {_named(index, groups)}{which}"


def _say_kept(
    console: rich.console.Console,
    name: str,
    group: groups_lib.Group,
    state: SweepState,
    max_parallel: str,
) -> None:
    """Says that a group that goes on keeps its slots, where others are asked for."""
    if max_parallel == "auto":
        return
    size = state.slots.size
    if init_sweep(group, max_parallel).slots.size != size:
        text = f"{name} has begun and keeps its {size} slots, whatever --max-parallel"
        screen.say(console, text)


def _named(index: int, groups: Sequence[groups_lib.Group]) -> str:
    return f"group {index + 1} of {len(groups)}"


def _live_page(rows: Sequence[dict[str, Any]], manifest: dict[str, Any]) -> str:
    refresh = None if manifest["finished"] else int(store.TABLES_INTERVAL)
    return web_page.page([run_view.view(rows, manifest)], refresh=refresh)


def _finish(
    console: rich.console.Console,
    config: config_lib.Config,
    groups: Sequence[groups_lib.Group],
    folder: store.RunFolder,
    manifest: dict[str, Any],
    states: Sequence[SweepState | None],
) -> None:
    """Writes the report, its web page and the figures, and shows the table."""
    rows = tables.result_rows(config, groups, states)
    view = run_view.view(rows, manifest)
    if (missing := canvas.missing()) is not None:
        view = view._replace(notes=[*view.notes, missing])
    page = texts.report(view)
    folder.write_text("report.md", page)
    folder.write_text("report.html", web_page.page([view]))
    header, lines = texts.cells(summary.summarize(rows))
    if lines:
        screen.show_table(console, header, lines, wrapped=("best setting",))
    if sentence := texts.conclusion(rows):
        screen.say(console, screen.plain(sentence))
    for note in view.notes:
        screen.say(console, screen.plain(note))
    drawn: dict[str, str] = {}
    if missing is None:
        from lra_jax.lab.reports import figures

        curves = tables.curve_columns(groups, states)
        try:
            drawn = figures.draw(
                folder.path, rows, curves, config.num_validation, view.chances
            )
            view = view._replace(drawings=figures.drawings(folder.path, drawn))
        except OSError as error:
            raise store.RunFolderError(
                f"{folder.path / 'figures'} cannot be written: "
                f"{error.strerror or error}. The results are saved"
            ) from None
        except Exception as error:  # of matplotlib, and whatever it is made of
            drawn = {}
            note = canvas.failure(error)
            view = view._replace(notes=[*view.notes, note], drawings=())
            page += markdown.notes([note])
            screen.say(console, screen.plain(note))
        links = (f"\n![{pathlib.Path(name).stem}]({name})\n" for name in drawn)
        folder.write_text("report.md", page + "".join(links))
        folder.write_text("report.html", web_page.page([view]))
    for name in ("report.md", "report.html", "results.csv", *drawn):
        screen.say(console, f"  {screen.printable(folder.path / name)}")


def _open(folder: store.RunFolder, *, resume: bool) -> dict[str, Any]:
    """The manifest so far. The first process asks, and all go on or none."""
    problem, manifest = None, {}
    if machine.is_first():
        try:
            manifest = folder.open(resume=resume)
        except store.RunFolderError as error:
            problem = error
    if machine.largest(problem is not None):
        raise problem or store.RunFolderError("the first process cannot use the folder")
    return manifest


def train(
    console: rich.console.Console,
    config: config_lib.Config,
    path: pathlib.Path,
    *,
    resume: bool,
    command: Sequence[str],
    interruption: Interruption,
    max_parallel: str = "auto",
    with_report: bool = True,
    live: bool = False,
    accept_old_code: bool = False,
) -> int:
    """Trains a config's grid and leaves a run folder.

    Args:
      console: where to say what happens.
      config: what to run.
      path: of the run folder.
      resume: whether to go on with the run that the folder holds, if it holds one.
      command: that makes this run.
      interruption: stops it after a chunk.
      max_parallel: most members advanced at once, or "auto".
      with_report: whether to write and show the report and draw the figures.
      live: whether to write the report's web page while it runs, too.
      accept_old_code: whether to go on with a run that other code than today's made.

    Returns:
      The number of the signal that stopped it; 0 at the end.

    Raises:
      store.RunFolderError: the folder cannot be used or written.
      config_lib.ConfigError: the config asks for what is not installed.
    """
    if config.save_params and importlib.util.find_spec("safetensors") is None:
        text = "save_params: needs safetensors: pip install 'lra_jax[export]'"
        raise config_lib.ConfigError(config.name, [text])
    groups = groups_lib.make_groups(config)
    folder = store.RunFolder(
        path, config, _live_page if live else None, accept_old_code=accept_old_code
    )
    before = _open(folder, resume=resume)
    described = provenance.describe_environment(config, command)
    manifest = {
        "seconds": 0.0,
        "chunks": 0,
        "member_steps": 0,
        **before,
        **described,
        **provenance.history(before, described),
        "num_members": sum(len(group.members) for group in groups),
        "groups": [group.statics for group in groups],
        "chance": {
            group.statics["task"]: float(group.experiment.task.chance)
            for group in groups
        },
        "finished": False,
    }
    states = folder.load_states(groups)
    try:
        with jax.default_matmul_precision(config.matmul_precision):
            screen.say(
                console,
                f"{config.name}: {manifest['num_members']} members in {len(groups)} "
                f"compiled group(s), {screen.printable(path)}",
            )
            number = _train(
                console,
                config,
                groups,
                states,
                folder,
                manifest,
                interruption,
                max_parallel,
            )
            if with_report and machine.is_first():
                _finish(console, config, groups, folder, manifest, states)
    except (store.RunFolderError, OSError) as error:
        raise unfinished(error, interruption.command) from None
    finally:
        folder.close()
    return number


def unfinished(error: Exception, command: str) -> store.RunFolderError:
    """What could not be read or written, with the command that goes on."""
    text = files.described(error) if isinstance(error, OSError) else str(error)
    return store.RunFolderError(f"{text}. To go on:\n  {command}")
