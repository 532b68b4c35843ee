"""The run folder: what a run leaves on disk, at every chunk and at the end.

    config.resolved.toml   the config as it was run, as `--config` reads it
    manifest.json          versions, device, precision, seeds, config digest, the
                           fingerprint of the code, progress
    results.csv            a row per member
    curves.npz             a row per evaluation: member, step, train_loss, loss,
                           num_errors
    report.md, report.html, figures/
                           see `experiments.summary`, `web_page` and `figures`
    params/NNNNNN.safetensors
                           the last weights of a member, with `save_params`
    checkpoint/NNN.even.msgpack, NNN.odd.msgpack
                           the state of each group of members after its last two
                           chunks, to go on from
    .lock                  held by the process that uses the folder

`docs/run_folder.md` describes each field, `docs/reliability.md` what was tried against
it. Files are written aside and then renamed: none is ever half written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import hashlib
import io
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np

from experiments import extensions, fingerprint, machine, results
from experiments.config import AXES, Config
from experiments.draws import SCALES
from experiments.groups import Group
from lra_jax import Params, sweep
from lra_jax.member import Status
from lra_jax.sweep import SweepState

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

SCHEMA_VERSION = 2
TABLES_INTERVAL = 5.0  # seconds at least between two writings of the tables
TABLES_SHARE = 0.05  # of the time at most goes into them


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
        self._lock: IO[str] | None = None
        self._chunks: dict[int, int] = {}  # finished ones, by the index of their group
        self._tables_due = 0.0

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
                return self._accept(resume=resume)
            self._write("config.resolved.toml", self.config.to_toml().encode())
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
        if manifest.get("schema_version") != SCHEMA_VERSION:
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
            if version != SCHEMA_VERSION:
                raise OtherRunError(
                    f"{self.path} has schema version {version}, this is version "
                    f"{SCHEMA_VERSION}; choose another folder"
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

    def _compare_versions(self, manifest: Mapping[str, Any]) -> None:
        """Says where JAX and its kin are of other versions than before."""
        before, now = manifest.get("versions", {}), _versions()
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
            any((self.path / "checkpoint").glob(f"*.{turn}.msgpack")) for turn in _TURNS
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
            _lock(self._lock)
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
          Where its config asks for something else; and where it was left to other
          defaults, or made by other code.
        """
        digest = manifest.get("config_digest")
        now = fingerprint.of(self.config, extensions.imported_files())
        code = fingerprint.changes(manifest.get("fingerprint"), now)
        for later in manifest.get("later", []):
            code += (
                f"gone on with: {line}"
                for line in fingerprint.changes(later["fingerprint"], now)
            )
        if digest in (self._digest, self.config.request_digest()):
            return [], code
        try:
            text = (self.path / "config.resolved.toml").read_text("utf-8")
            there = _flat(tomllib.loads(text))
        except (OSError, ValueError):
            return ["config.resolved.toml cannot be read"], code
        here = _flat(tomllib.loads(self.config.to_toml()))
        fields = {field.name: field for field in dataclasses.fields(Config)}
        other, defaults = [], []
        for key in dict.fromkeys([*there, *here]):
            if key == "name" or there.get(key, _NOTHING) == here.get(key, _NOTHING):
                continue
            lines = [
                f"{where} {_line(key, found[key])}"
                for where, found in (("there:", there), ("here: ", here))
                if key in found
            ]
            if key.startswith("defaults."):
                defaults.append(", ".join(lines))
            elif key in there or key not in fields or here[key] != fields[key].default:
                other += lines  # settings that it does not say had their defaults
        if "defaults" not in {key.partition(".")[0] for key in there}:
            defaults = []  # older folders do not say them
        return other, defaults + code

    def load_states(self, groups: Sequence[Group]) -> list[SweepState | None]:
        """The saved state of each group; None where it has not begun.

        A group has two checkpoints, written in turn. One that is damaged is set aside,
        with a warning, and the other one is gone on from; the results are the same.

        Raises:
          RunFolderError: all checkpoints of a group are damaged. They are as they were.
        """
        return [self._load_state(i, group) for i, group in enumerate(groups)]

    def _load_state(self, index: int, group: Group) -> SweepState | None:
        states: dict[int, SweepState] = {}
        problems: dict[pathlib.Path, str] = {}
        for path in (self.path / _checkpoint_name(index, turn) for turn in (0, 1)):
            if not path.exists():
                continue
            try:
                chunks, state = self._read_checkpoint(path, index, group)
                states[chunks] = state
            except RunFolderError as error:
                problems[path] = str(error)
            except Exception as error:  # Flax and msgpack have no common one
                problems[path] = (
                    f"is of another program ({type(error).__name__}: {error})"
                )
        reasons = "\n".join(f"{path} {problem}" for path, problem in problems.items())
        if problems and not states:
            raise RunFolderError(
                f"{reasons}\nNothing was changed. Put back copies, or remove these "
                f"files: then this group's {len(group.members)} members train anew"
            )
        if not states:
            return None
        newest = max(states)
        self._chunks[index] = newest
        # Of several processes in one run, the one that holds the folder does this.
        for path in problems if self._lock is not None else ():
            aside = path.with_suffix(".damaged")
            os.replace(path, aside)
            _warn(
                f"{reasons}\nIt is now {aside.name}. Going on from "
                f"{_checkpoint_name(index, newest)}, the group's state after {newest} "
                "chunks: at most one chunk is computed again"
            )
        return states[newest]

    def _read_checkpoint(
        self, path: pathlib.Path, index: int, group: Group
    ) -> tuple[int, SweepState]:
        """The number of chunks a state is made of, and the state."""
        try:
            title, _, data = path.read_bytes().partition(b"\n")
        except OSError as error:
            raise RunFolderError(f"cannot be read: {error.strerror}") from None
        if not title.startswith(_TITLE):
            raise RunFolderError(
                f"is no checkpoint of version {SCHEMA_VERSION}, or damaged"
            )
        if title != _title(data):
            raise RunFolderError("is damaged: its checksum is not that of its content")
        raw = flax.serialization.msgpack_restore(data)
        if raw["config_digest"] not in self._digests() or raw["group"] != index:
            raise RunFolderError("is of another config or group")
        found = raw["state"]
        shapes = None
        if found["runs"] is not None:
            slots = found["slots"]
            shapes = sweep.run_shapes(group.experiment, group.grid, slots)
        template = sweep.init_sweep(group.grid)._replace(runs=shapes)
        state = flax.serialization.from_state_dict(template, found)
        state = state._replace(runs=jax.tree.map(_thaw, shapes, state.runs))
        return raw["chunks"], state

    def _digests(self) -> set[str]:
        """Of the config, as this folder's checkpoints may have it."""
        manifest = self._manifest() or {}
        makers = [manifest, *manifest.get("later", [])]
        found = {maker.get("config_digest", "") for maker in makers}
        return {self._digest, self.config.request_digest(), *found}

    def save(
        self,
        groups: Sequence[Group],
        states: Sequence[SweepState | None],
        manifest: dict[str, Any],
        changed: int | None = None,
    ) -> None:
        """Writes what a chunk changed.

        The tables are derived from the states. After a chunk they are written only
        every few seconds; what they lack of a killed run is written when it goes on.

        Args:
          groups: all groups of the run.
          states: of each group, None where it has not begun.
          manifest: to be written.
          changed: index of the group that a chunk advanced; None at the start and end.
        """
        if changed is not None:
            self._write_checkpoint(changed, states[changed])
        # The manifest makes the folder a run's: what is left without it is no result.
        self._write("manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")
        began = time.monotonic()
        if changed is None or began >= self._tables_due:
            rows = result_rows(self.config, groups, states)
            text = results.csv_text(rows, columns(rows))
            self._write("results.csv", text.encode())
            curves = io.BytesIO()
            arrays: dict[str, Any] = dict(curve_columns(groups, states))
            np.savez_compressed(curves, **arrays)
            self._write("curves.npz", curves.getvalue())
            if self._live_page is not None:
                self.write_text("report.html", self._live_page(rows, manifest))
            ended = time.monotonic()
            pause = max(TABLES_INTERVAL, (ended - began) / TABLES_SHARE)
            self._tables_due = ended + pause

    def _write_checkpoint(self, index: int, state: SweepState | None) -> None:
        """Replaces the older one of the group's two checkpoints."""
        chunks = self._chunks.get(index, 0) + 1
        frozen = jax.tree.map(_freeze, state)
        content = {
            "config_digest": self._digest,
            "group": index,
            "chunks": chunks,
            "state": flax.serialization.to_state_dict(frozen),
        }
        data = flax.serialization.msgpack_serialize(content)
        self._write(_checkpoint_name(index, chunks), _title(data), b"\n", data)
        self._chunks[index] = chunks

    def save_params(
        self, member: int, params: Params, settings: Mapping[str, Any]
    ) -> None:
        """Writes the weights of a member, with its settings as metadata.

        Args:
          member: its number in the results.
          params: NumPy arrays.
          settings: as in `config.members()`.
        """
        import safetensors.numpy

        metadata = {key: str(value) for key, value in settings.items()}
        # The format has no strides: its arrays are whole.
        tensors = {k: np.ascontiguousarray(x) for k, x in params._asdict().items()}
        data = safetensors.numpy.save(tensors, metadata | {"member": str(member)})
        (self.path / "params").mkdir(exist_ok=True)
        self._write(f"params/{member:06d}.safetensors", data)

    def write_text(self, name: str, text: str) -> None:
        """Writes a text file of the folder."""
        self._write(name, text.encode())

    def _write(self, name: str, *data: bytes) -> None:
        """Writes a file aside and renames it: whoever opens it finds it whole."""
        target = self.path / name
        aside = target.with_name(f".{target.name}.part")
        try:
            with aside.open("wb") as file:
                file.writelines(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, target)
            sync_folder(target.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise RunFolderError(
                f"{target} cannot be written: {error.strerror}. All that was written "
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


_NOTHING = object()  # what no config has


def _flat(table: Any, where: str = "") -> dict[str, Any]:
    """What a TOML file says, by its full keys: `seeds`, `grid.lr`, `grid.1.lr`."""
    if isinstance(table, list) and len(table) == 1 and isinstance(table[0], dict):
        return _flat(table[0], where)
    if isinstance(table, list) and table and isinstance(table[0], dict):
        table = {str(index): part for index, part in enumerate(table)}
    elif not isinstance(table, dict) or {*table} & {*SCALES}:
        return {where: table}
    prefix = f"{where}." if where else ""
    return {
        key: value
        for name, part in table.items()
        for key, value in _flat(part, prefix + name).items()
    }


def _line(key: str, value: Any) -> str:
    """What a config says, and in which of several tables of its grid."""
    table, _, name = key.removeprefix("grid.").rpartition(".")
    if not key.startswith("grid."):
        table, name = "", key
    text = f"{name} = {json.dumps(value, ensure_ascii=False)}"
    return f"{text} (grid.{table})" if table else text


_TURNS = ("even", "odd")
_TITLE = f"lra_jax checkpoint {SCHEMA_VERSION} ".encode()


def _title(data: bytes) -> bytes:
    """The first line of a checkpoint, by which damage to the rest is seen."""
    return _TITLE + hashlib.sha256(data).hexdigest().encode()


def _checkpoint_name(index: int, chunks: int) -> str:
    return f"checkpoint/{index:03d}.{_TURNS[chunks % 2]}.msgpack"


def _lock(file: IO[str]) -> None:
    """Locks a file for this process, until it closes it or ends.

    Raises:
      BlockingIOError: another process has it.
      OSError: the filesystem has no locks.
    """
    if sys.platform == "win32":
        position = file.tell()
        file.seek(_LOCKED_BYTE)  # what is locked there, nobody else can read
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLK):
                raise BlockingIOError(error.errno, error.strerror) from None
            raise
        finally:
            file.seek(position)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_LOCKED_BYTE = 2**20  # far behind what the file says


def sync_folder(path: pathlib.Path) -> None:
    """Makes the names in a folder outlive a loss of power, where the system can."""
    if sys.platform == "win32":
        return  # it opens no folders, and keeps their names itself
    with contextlib.suppress(OSError):  # some filesystems refuse it
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def _freeze(leaf: Any) -> Any:
    """A leaf as a NumPy array; typed keys become their data."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)


def _thaw(shape: jax.ShapeDtypeStruct, data: np.ndarray) -> jax.Array:
    """The inverse of `_freeze`, checked against what the program expects."""
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        leaf = jax.random.wrap_key_data(jnp.asarray(data), impl="threefry2x32")
    else:
        leaf = jnp.asarray(data)
    if leaf.shape != shape.shape or leaf.dtype != shape.dtype:
        raise ValueError(f"expected {shape.dtype} {shape.shape}, got {data.shape}")
    return leaf


def result_rows(
    config: Config, groups: Sequence[Group], states: Sequence[SweepState | None]
) -> list[dict[str, Any]]:
    """A row per member, in the order of `config.members()`.

    Accuracies are fractions of the validation set, of the weights as they were at the
    best and at the last evaluation.
    """
    rows = []
    found: dict[int, tuple[int, ...]] = {}
    for group, state in zip(groups, states, strict=True):
        state = state or sweep.init_sweep(group.grid)
        columns = list(zip(*(x.tolist() for x in state.members), strict=True))
        for i, member in enumerate(group.members):
            found[int(member)] = columns[i]
    for index, member in enumerate(config.members()):
        status, step, errors, best, best_step = found[index]
        total = config.num_validation
        rows.append(
            {
                "member": index,
                **member,
                "status": Status(status).name.lower(),
                "step": step,
                "final_num_errors": errors if errors >= 0 else None,
                "final_accuracy": 1 - errors / total if errors >= 0 else None,
                "best_num_errors": best if best >= 0 else None,
                "best_accuracy": 1 - best / total if best >= 0 else None,
                "best_step": best_step if best_step >= 0 else None,
            }
        )
    return rows


def curve_columns(
    groups: Sequence[Group], states: Sequence[SweepState | None]
) -> dict[str, np.ndarray]:
    """All groups' evaluations in one table; `member` as in the results."""
    parts = [
        state.curves._replace(member=group.members[state.curves.member])
        for group, state in zip(groups, states, strict=True)
        if state is not None
    ]
    names = sweep.Curves._fields
    if not parts:
        return {name: np.zeros(0) for name in names}
    return {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in names
    }


def columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns of a table of results: settings, hyper-parameters, seed, results."""
    outcomes = [key for key in rows[0] if key in _RESULT_KEYS]
    settings = [key for row in rows for key in row if key not in _RESULT_KEYS]
    names = list(dict.fromkeys(["member", *AXES, *settings, "seed", *outcomes]))
    names = [key for key in names if key != "seed" and key not in outcomes]
    return [*names, "seed", *outcomes]


_RESULT_KEYS = (
    "status",
    "step",
    "final_num_errors",
    "final_accuracy",
    "best_num_errors",
    "best_accuracy",
    "best_step",
)


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


def describe_environment(config: Config, command: Sequence[str]) -> dict[str, Any]:
    """What a result depends on besides the config, and the command that makes it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": config.name,
        "config_digest": config.digest(),
        "command": list(command),
        "versions": _versions(),
        "code": code_version(),
        "fingerprint": fingerprint.of(config, extensions.imported_files()),
        "device": machine.describe(),
        "dtype": config.dtype,
        "matmul_precision": config.matmul_precision,
        "seeds": list(config.seeds),
    }


_MAKER = ("config_digest", "fingerprint", "code", "versions")


def history(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of the code that made a run.

    Numbers belong to the code and the defaults that computed them. A run that other
    code goes on with keeps those that it began with, and notes the later ones: it is
    used again only by who accepts that.

    Args:
      before: the manifest so far; empty of a new run.
      now: from `describe_environment`.
    """
    same = ("config_digest", "fingerprint")
    later = list(before.get("later", []))
    if not before or (not later and all(before.get(k) == now[k] for k in same)):
        return {}
    mine = {key: now[key] for key in _MAKER}
    known = [*later, before]
    is_known = any(all(x.get(k) == now[k] for k in same) for x in known)
    if not before.get("finished") and not is_known:
        later.append(mine)
    return {key: before.get(key) for key in _MAKER} | {"later": later}


def _versions() -> dict[str, str | None]:
    return machine.versions("lra_jax", "jax", "jaxlib", "numpy", "optax", "flax")


def code_version() -> str | None:
    """The commit of the checkout, with `+` if it was changed; None outside of one."""
    here = pathlib.Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, cwd=here, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
