"""The run folder: what a run leaves on disk, while it runs and at the end.

    config.resolved.toml   the config as it was run, as `--config` reads it
    manifest.json          versions, device, precision, seeds, config digest, the
                           fingerprint of the code, progress
    results.csv            a row per member
    curves.npz             a row per evaluation: member, step, train_loss, loss,
                           num_errors, num_samples
    report.md, report.html, figures/
                           see `lra_jax.lab.reports`
    params/NNNNNN.safetensors
                           the last weights of a member, with `save_params`
    checkpoint/NNN.even.msgpack, NNN.odd.msgpack
                           the state of each group of members at its last two saves,
                           to go on from
    checkpoint/NNN.curves  the evaluations of each group, to which every save appends
    .lock                  held by the process that uses the folder

`docs/run_folder.md` describes each field, `docs/reliability.md` what was tried against
it. Files are written aside and then renamed: none is ever half written.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

import jax
import numpy as np

from lra_jax.lab.config import Config, extensions
from lra_jax.lab.reports import results, summary
from lra_jax.lab.runs import checkpoint, comparison, fingerprint, provenance, tables
from lra_jax.lab.runs.curve_file import CurveFile
from lra_jax.lab.runs.groups import Group
from lra_jax.lab.terminal import files
from lra_jax.networks.weights import path_names
from lra_jax.sweep import SweepState
from lra_jax.types import AnyParams

TABLES_INTERVAL = 5.0  # seconds at least between two writings of the tables
TABLES_SHARE = 0.05  # of the time at most goes into them
SAVE_SHARE = 0.02  # of the time at most goes into checkpoints, where chunks are short


class RunFolderError(Exception):
    """A run folder that cannot be used as asked, and why."""


class OtherRunError(RunFolderError):
    """The folder holds something else than the run that was asked for."""


class OldCodeError(OtherRunError):
    """What was asked for is there, and was made by other code than today's."""


class RunFolder:
    """A folder that belongs to one config.

    Args:
      path: of the folder.
      config: what it belongs to.
      live_page: `report.html` of the results and the manifest, to be written with the
        tables; None is not to write it.
      accept_old_code: whether a run is taken for this one's that was made by other
        code than today's, or with other defaults.
    """

    def __init__(
        self,
        path: pathlib.Path,
        config: Config,
        live_page: Callable[[list[dict[str, Any]], dict[str, Any]], str] | None = None,
        *,
        accept_old_code: bool = False,
    ):
        self.path = path
        self.config = config
        self._live_page = live_page
        self._accept_old_code = accept_old_code
        self._digest = config.digest()
        self._digest_before: str | None = None  # of the manifest, of a run that goes on
        self._lock: IO[str] | None = None
        # By the index of a group: finished chunks, the newest checkpoint's turn, and
        # where evaluations go.
        self._chunks: dict[int, int] = {}
        self._turns: dict[int, int] = {}
        self._curve_files: dict[int, CurveFile] = {}
        self._save_due = self._tables_due = 0.0

    @property
    def num_chunks(self) -> int:
        """Chunks that the saved states are made of."""
        return sum(self._chunks.values())

    def open(self, *, resume: bool) -> dict[str, Any]:
        """Creates the folder, or accepts one that holds this config's run.

        It then belongs to this process, until `close` or the process's end.

        Returns:
          The manifest of the run so far; empty if it is new.

        Raises:
          RunFolderError: the folder is in use, holds something else, or a run that was
            not asked to be resumed. Nothing in it has been touched.
        """
        try:
            if not self._is_new() and not self._is_run():
                raise OtherRunError(
                    f"{self.path} exists and is not a run folder; choose another folder"
                )
            (self.path / "checkpoint").mkdir(parents=True, exist_ok=True)
            self._take_lock()
            # Asked again, because only now can nobody else begin a run here.
            if not self._is_new():
                manifest = self._accept(resume=resume)
                self._digest_before = manifest.get("config_digest")
                return manifest
            self._write_config()
        except OSError as error:
            self.close()
            raise RunFolderError(f"{self.path}: {error.strerror}") from None
        except RunFolderError:
            self.close()
            raise
        return {}

    def is_finished(self) -> bool:
        """Whether this config's run has ended here, by the code of today."""
        manifest = self._manifest() or {}
        if manifest.get("schema_version") != provenance.SCHEMA_VERSION:
            return False
        if manifest.get("finished") is not True:
            return False
        other, changed = self._differences(manifest)
        return not other and (self._accept_old_code or not changed)

    def close(self) -> None:
        """Lets other processes use the folder."""
        if self._lock is not None:
            self._lock.close()

    def _accept(self, *, resume: bool) -> dict[str, Any]:
        """The manifest of a run that may go on."""
        manifest = self._manifest()
        if manifest is not None:
            version = manifest.get("schema_version")
            if version != provenance.SCHEMA_VERSION:
                raise OtherRunError(
                    f"{self.path} has schema version {version}, this is version "
                    f"{provenance.SCHEMA_VERSION}; choose another folder"
                )
            other, changed = self._differences(manifest)
            if other:
                lines = "\n  ".join(other)
                raise OtherRunError(
                    f"{self.path} holds the run of another config; choose another "
                    f"folder. Differences:\n  {lines}"
                )
        if not resume:
            raise RunFolderError(
                f"{self.path} holds this run already; add --resume to go on with it, "
                "or choose another --out"
            )
        if manifest is None:
            _warn(
                f"{self.path / 'manifest.json'} cannot be read; its times and counts "
                "begin anew, the states are in the checkpoints"
            )
            return {}
        if changed:
            refuse_old_code(
                str(self.path),
                changed,
                accept=self._accept_old_code,
                otherwise="choose another folder",
            )
        self._compare_versions(manifest)
        return manifest

    def _write_config(self) -> None:
        self._write("config.resolved.toml", self.config.to_toml().encode())

    def _compare_versions(self, manifest: Mapping[str, Any]) -> None:
        """Says where JAX and its kin are of other versions than before."""
        before, now = manifest.get("versions", {}), provenance.versions()
        changed = [
            f"{name} {before[name]}, now {now[name]}"
            for name in ("jax", "jaxlib", "numpy", "optax")
            if before.get(name) not in (None, now[name])
        ]
        if changed:
            _warn(
                f"{self.path} was begun with {'; '.join(changed)}: the last digits of "
                "results may be others"
            )

    def _is_new(self) -> bool:
        """Whether nothing is there but what a run leaves that was killed at once."""
        if not self.path.is_dir():
            return not self.path.exists()
        before_manifest = {
            "checkpoint",
            "config.resolved.toml",
            ".config.resolved.toml.part",
            ".manifest.json.part",
            ".lock",
        }
        names = {path.name for path in self.path.iterdir()}
        started = any((self.path / "checkpoint").glob("*"))
        return names <= before_manifest and not started

    def _is_run(self) -> bool:
        """Whether a run began here, even if its manifest was damaged since."""
        return self._manifest() is not None or any(
            any((self.path / "checkpoint").glob(f"*.{turn}.msgpack"))
            for turn in checkpoint.TURNS
        )

    def _manifest(self) -> dict[str, Any] | None:
        """The manifest; None if it is not there or cannot be read."""
        try:
            manifest = json.loads((self.path / "manifest.json").read_text())
        except (OSError, ValueError):
            return None
        is_ours = isinstance(manifest, dict) and "config_digest" in manifest
        return manifest if is_ours else None

    def _take_lock(self) -> None:
        """Makes the folder this process's.

        The kernel lets go of the lock when the process ends, however it ends: what the
        file says may be stale, the lock never is.
        """
        self._lock = (self.path / ".lock").open("a+")
        self._lock.seek(0)
        try:
            files.lock(self._lock)
        except BlockingIOError:
            raise RunFolderError(
                f"{self.path} is in use by {self._lock.read() or 'another process'}; "
                "wait for it to end, or choose another folder"
            ) from None
        except OSError as error:
            _warn(
                f"{self.path} is on a filesystem without locks ({error.strerror}): see "
                "to it yourself that no other process uses it"
            )
        now = datetime.datetime.now().isoformat(" ", "seconds")
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} on {platform.node()} since {now}")
        self._lock.flush()

    def _differences(self, manifest: Mapping[str, Any]) -> tuple[list[str], list[str]]:
        """How the folder's run is not the one that was asked for.

        Returns:
          Where its config asks for something else, or its data were others; and where
          it was left to other defaults, or made by other code.
        """
        digest = manifest.get("config_digest")
        now = fingerprint.of(self.config, extensions.imported_files())
        code = fingerprint.changes(manifest.get("fingerprint"), now)
        data = fingerprint.changes_of_data(manifest.get("fingerprint"), now)
        for later in manifest.get("later", []):
            code += (
                f"gone on with: {line}"
                for line in fingerprint.changes(later["fingerprint"], now)
            )
        if digest in (self._digest, self.config.request_digest()):
            return data, code
        try:
            text = (self.path / "config.resolved.toml").read_text("utf-8")
            other, defaults = comparison.differences(text, self.config)
        except (OSError, ValueError):
            return ["config.resolved.toml cannot be read"], code
        return other + data, defaults + code

    def load_states(self, groups: Sequence[Group]) -> list[SweepState | None]:
        """The saved state of each group; None where it has not begun.

        A group has two checkpoints, written in turn. One that is damaged is set aside,
        with a warning, and the other one is gone on from; the results are the same.

        Raises:
          RunFolderError: all checkpoints of a group are damaged. They are as they were.
        """
        states = [self._load_state(i, group) for i, group in enumerate(groups)]
        if self._lock is not None:
            self._restore_config(any(state is not None for state in states))
        return states

    def _restore_config(self, is_ours: bool) -> None:
        """Writes the config where it is missing, or may be damaged.

        Args:
          is_ours: whether a checkpoint says that the run is of this config.
        """
        if self._digest_before is not None:
            # One of other defaults stays: they are those that the run was begun with.
            is_ours = self._digest_before == self._digest
        if is_ours or not (self.path / "config.resolved.toml").is_file():
            self._write_config()

    def _load_state(self, index: int, group: Group) -> SweepState | None:
        found: dict[int, checkpoint.Saved] = {}
        problems: dict[pathlib.Path, str] = {}
        digests = self._digests()
        for turn in (0, 1):
            path = self.path / checkpoint.name(index, turn)
            if not path.exists():
                continue
            try:
                found[turn] = checkpoint.read(path, index, group, digests)
            except checkpoint.UnusableError as error:
                problems[path] = str(error)
        reasons = "\n".join(f"{path} {problem}" for path, problem in problems.items())
        if problems and not found:
            raise RunFolderError(
                f"{reasons}\nNothing was changed. Put back copies, or remove these "
                f"files: then this group's {len(group.members)} members train anew"
            )
        if not found:
            return None
        turn, newest = max(found.items(), key=lambda item: item[1].chunks)
        self._chunks[index] = newest.chunks
        self._turns[index] = turn
        self._curve_files[index] = newest.curve_file
        # Of several processes in one run, the one that holds the folder does this.
        for path in problems if self._lock is not None else ():
            aside = path.with_suffix(".damaged")
            with _writing(aside):
                os.replace(path, aside)
            _warn(
                f"{reasons}\nIt is now {aside.name}. Going on from "
                f"{checkpoint.name(index, turn)}, the group's state after "
                f"{newest.chunks} chunks: at most what lies between two saves is "
                "computed again"
            )
        return newest.state

    def _digests(self) -> set[str]:
        """Of the config, as this folder's checkpoints may have it."""
        manifest = self._manifest() or {}
        makers = [manifest, *manifest.get("later", [])]
        found = {maker.get("config_digest", "") for maker in makers}
        return {self._digest, self.config.request_digest(), *found}

    def is_save_due(self) -> bool:
        """Whether a save now would take no more than its share of the time.

        A chunk that is longer than that is always saved.
        """
        return time.monotonic() >= self._save_due

    def save(
        self,
        groups: Sequence[Group],
        states: Sequence[SweepState | None],
        manifest: dict[str, Any],
        changed: int | None = None,
        chunks: int = 1,
    ) -> None:
        """Writes what chunks changed.

        The tables are derived from the states. After a chunk they are written only
        every few seconds; what they lack of a killed run is written when it goes on. A
        manifest that says that the run is finished comes last: then the tables are
        whole.

        Args:
          groups: all groups of the run.
          states: of each group, None where it has not begun.
          manifest: to be written.
          changed: index of the group that chunks advanced; None at the start and end.
          chunks: how many advanced it since its last save.
        """
        began = time.monotonic()
        if changed is not None and (state := states[changed]) is not None:
            self._write_checkpoint(changed, state, chunks)
        if manifest.get("finished"):
            self._write_tables(groups, states, manifest)
        # The manifest makes the folder a run's: what is left without it is no result.
        self._write("manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")
        ended = time.monotonic()
        self._save_due = ended + (ended - began) / SAVE_SHARE
        due = changed is None or ended >= self._tables_due
        if due and not manifest.get("finished"):
            self._write_tables(groups, states, manifest)
            done = time.monotonic()
            pause = max(TABLES_INTERVAL, (done - ended) / TABLES_SHARE)
            self._tables_due = done + pause

    def _write_tables(
        self,
        groups: Sequence[Group],
        states: Sequence[SweepState | None],
        manifest: dict[str, Any],
    ) -> None:
        """Writes the results, the curves and, where it is asked for, the live page."""
        rows = tables.result_rows(self.config, groups, states)
        text = results.csv_text(rows, summary.member_columns(rows))
        self._write("results.csv", text.encode())
        curves = io.BytesIO()
        arrays: dict[str, Any] = dict(tables.curve_columns(groups, states))
        np.savez_compressed(curves, **arrays)
        self._write("curves.npz", curves.getvalue())
        if self._live_page is not None:
            self.write_text("report.html", self._live_page(rows, manifest))

    def _write_checkpoint(self, index: int, state: SweepState, chunks: int) -> None:
        """Appends the evaluations, and replaces the older of the two checkpoints."""
        path = self.path / checkpoint.name_of_curves(index)
        curve_file = self._curve_files.setdefault(index, CurveFile(path))
        with _writing(path):
            mark = curve_file.extend(state.curves)
        total = self._chunks.get(index, 0) + chunks
        turn = 1 - self._turns.get(index, 0)
        data = checkpoint.pack(self._digest, index, total, state, mark)
        self._write(checkpoint.name(index, turn), checkpoint.title(data), b"\n", data)
        self._chunks[index], self._turns[index] = total, turn

    def save_params(
        self, member: int, params: AnyParams, settings: Mapping[str, Any]
    ) -> None:
        """Writes the weights of a member, with its settings as metadata.

        An array's name is its path in the weights, such as `w_hh` or `cell.0.w_hh`.

        Args:
          member: its number in the results.
          params: NumPy arrays.
          settings: as in `config.members()`.
        """
        import safetensors.numpy

        metadata = {key: str(value) for key, value in settings.items()}
        # The format has no strides: its arrays are whole.
        tensors = {
            ".".join(path_names(path)): np.ascontiguousarray(x)
            for path, x in jax.tree_util.tree_leaves_with_path(params)
        }
        data = safetensors.numpy.save(tensors, metadata | {"member": str(member)})
        with _writing(self.path / "params"):
            (self.path / "params").mkdir(exist_ok=True)
        self._write(f"params/{member:06d}.safetensors", data)

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file of the folder."""
        self._write(name, text.encode())

    def _write(self, name: str, *data: bytes) -> None:
        """Writes a file aside and renames it: whoever opens it finds it whole."""
        target = self.path / name
        with _writing(target):
            files.write(target, *data)


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
    """Says which file could not be written."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be written: {error.strerror}. All that was written "
            "before is whole"
        ) from None


def refuse_old_code(
    what: str, changed: Sequence[str], *, accept: bool, otherwise: str
) -> None:
    """Says that something was made by other code than today's.

    Args:
      what: was made.
      changed: how the code differs, as `fingerprint.changes` says it.
      accept: whether it is to be used all the same; then it is only said.
      otherwise: what else can be done.

    Raises:
      OldCodeError: it is not to be used.
    """
    lines = "\n  ".join(changed)
    if accept:
        _warn(f"{what} is used, made by other code than today's:\n  {lines}")
        return
    raise OldCodeError(
        f"{what} was made by other code than today's:\n  {lines}\nTo use it all the "
        f"same, add --accept-old-code; or {otherwise}"
    )


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def read_rows(path: pathlib.Path) -> list[results.Row]:
    """The rows of a table.

    Raises:
      RunFolderError: it cannot be read, or is damaged.
    """
    try:
        return results.read_rows(path)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # also of what is no text
        raise RunFolderError(f"{path} is damaged: {error}") from None


def read_results(folder: pathlib.Path, num_members: int) -> list[results.Row]:
    """The rows of a run's `results.csv`.

    Args:
      folder: of the run.
      num_members: how many rows there are in a whole one.

    Raises:
      RunFolderError: it cannot be read, is damaged, or ends too early.
    """
    path = folder / "results.csv"
    rows = read_rows(path)
    if len(rows) != num_members:
        text = f"{path} is damaged: it has {len(rows)} rows of {num_members}"
        raise RunFolderError(text)
    if not path.read_bytes().endswith(b"\n"):
        raise RunFolderError(f"{path} is damaged: its last row is cut")
    return rows


def read_curves(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The evaluations of a run, in the order of its members.

    Args:
      path: of `curves.npz`. Older ones do not have `num_samples`.

    Raises:
      RunFolderError: it cannot be read, or is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file) as columns:
            found = {name: columns[name] for name in columns.files}
        order = np.argsort(found["member"], kind="stable")
        return {name: column[order] for name, column in found.items()}
    except OSError as error:
        reason = error.strerror or error
        raise RunFolderError(f"{path} cannot be read: {reason}") from None
    except files.DAMAGE as error:
        raise RunFolderError(f"{path} is damaged: {error}") from None


def of_member(curves: Mapping[str, np.ndarray], member: int) -> slice:
    """Where the evaluations of a member stand in `read_curves`."""
    first, last = np.searchsorted(curves["member"], [member, member + 1])
    return slice(first, last)
