"""The machine that a run is on: how JAX is set up for it, and what fits into it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import pathlib
import platform
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from lra_jax import sweep, tiles
from lra_jax.experiment import Experiment
from lra_jax.lab.terminal import cache
from lra_jax.sweep import Grid

# Members advanced by one chunk, for each device. On a CPU it is a few tiles: more are
# no faster, and make a chunk longer, whose end a stop has to wait for. Other devices
# want many.
TILES_OF_CPU = 2
MAX_PARALLEL = 4096  # of any other device

# Of the memory that is free: the compiler's account leaves out its own work space.
USABLE_MEMORY = 0.8


class MachineError(Exception):
    """What was asked of the machine and is not there."""


def prepare() -> None:
    """Sets JAX up; to be called before it does anything.

    What a user has set (JAX's environment variables and `XLA_FLAGS`) stays as it is.

    - A CPU becomes one device for each core, among which the tiles of a grid are
      divided: no core waits for another between two small products.
    - Processors with AVX-512 use all of its width: XLA's default is half of it.
    - Compiled programs are kept in a folder, one for each kind of processor, and found
      there by the next run. Where no folder can be written, they are not kept.
    """
    config: Any = jax.config  # its values are not declared to type checkers
    flags = os.environ.get("XLA_FLAGS", "")
    counted = "xla_force_host_platform_device_count" in flags
    if not counted and config.jax_num_cpu_devices < 1:
        config.update("jax_num_cpu_devices", num_cores())
    features = _processor()
    if "avx512f" in features and "xla_cpu_prefer_vector_width" not in flags:
        wide = "--xla_cpu_prefer_vector_width=512"
        os.environ["XLA_FLAGS"] = f"{flags} {wide}".strip()
    if config.jax_compilation_cache_dir is None:
        kind = hashlib.sha256(features.encode()).hexdigest()[:12]
        kept = cache.folder()
        folder = None if kept is None else kept / "xla" / kind
        if folder is not None and cache.writable(folder):
            config.update("jax_compilation_cache_dir", str(folder))
            config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def in_float64() -> contextlib.AbstractContextManager[None]:
    """Everything inside is in float64; JAX 0.7 has this by another name."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    jax_0_7: Any = importlib.import_module("jax.experimental")
    return jax_0_7.enable_x64(True)


def join_processes(process: str | None) -> None:
    """Joins the processes that share this run, on one host or several.

    Args:
      process: "I/N", this one's number and how many there are, with
        JAX_COORDINATOR_ADDRESS set to HOST:PORT of process 0. None: JAX finds out from
        SLURM, a TPU pod, Kubernetes or Open MPI.

    Raises:
      MachineError: no such processes were found.
    """
    place: dict[str, Any] = {}
    if process is not None:
        index, _, count = process.partition("/")
        place = {"process_id": int(index), "num_processes": int(count)}
    try:
        jax.distributed.initialize(**place)
    except (ValueError, RuntimeError) as error:
        raise MachineError(
            f"--distributed: {error} Without a cluster manager, set "
            "JAX_COORDINATOR_ADDRESS=HOST:PORT and give --process I/N"
        ) from None
    threading.Thread(target=_listen, daemon=True).start()


# How the processes of a run hear of it where one of them fails.
_FAILURE, _LEFT = "lra_jax/failure", "lra_jax/left"
LISTEN_EVERY = 1.0  # seconds
GRACE = 2.0  # seconds in which a process that has failed alike says so itself
MOST_WAITED = 20.0  # seconds for the others to leave

_is_ending = threading.Event()


def run_together(run: Callable[[], int], errors: tuple[type[Exception], ...]) -> int:
    """Runs a program that may be one of several processes: if one fails, all end.

    A process that fails says why to the others, which may wait for it in a computation
    that all of them share: there is no other way out of that. Each ends with the
    message and with the exit code of the one that failed. One that is killed says
    nothing; JAX ends the others when it has not heard of it for 100 seconds.

    Args:
      run: the program; gives an exit code.
      errors: that are the user's to mend, with exit code 2. All others are a traceback
        and exit code 1.

    Raises:
      Exception: of `run`, where there are no other processes.
    """
    try:
        code = run()
        if jax.distributed.is_initialized():
            largest(0)  # whoever ends first hears of the others
        return code
    except Exception as error:
        if not jax.distributed.is_initialized():
            raise
        _is_ending.set()
        is_known = isinstance(error, errors)
        # Who waited for a process that is gone finds a lost connection.
        if not is_known and (failure := _failure()) is not None:
            _repeat(failure)
        code = 2 if is_known else 1
        text = str(error) if is_known else traceback.format_exc().rstrip()
        print(text, file=sys.stderr, flush=True)
        message = {"process": jax.process_index(), "code": code, "text": text[:10_000]}
        with contextlib.suppress(Exception):  # another one was first
            _client().key_value_set(_FAILURE, json.dumps(message))
        _leave(code)


def _client() -> Any:
    """What the processes share texts by; None where this JAX has no such thing."""
    return getattr(distributed.global_state, "client", None)


def _leave(code: int) -> NoReturn:
    """Ends this process at once: JAX would wait for all others to end as usual.

    The first process leaves last, because it keeps what the others hear.
    """
    client, me, end = _client(), jax.process_index(), time.monotonic() + MOST_WAITED
    with contextlib.suppress(Exception):
        client.key_value_set(f"{_LEFT}/{me}", "")
        while me == 0 and time.monotonic() < end:
            if len(client.key_value_dir_get(_LEFT)) == jax.process_count():
                time.sleep(1)  # in which the last of them ends
                break
            time.sleep(0.1)
    sys.stdout.flush()
    os._exit(code)


def _failure() -> dict[str, Any] | None:
    """What another process has said when it failed; None if none has."""
    try:
        message: dict[str, Any] = json.loads(_client().key_value_try_get(_FAILURE))
    except Exception:  # also where nobody is there any more
        return None
    return None if message["process"] == jax.process_index() else message


def _repeat(failure: Mapping[str, Any]) -> NoReturn:
    """Ends this process with the message of the one that failed."""
    print(
        f"process {failure['process']} of {jax.process_count()} failed, and all end: "
        f"{failure['text']}",
        file=sys.stderr,
        flush=True,
    )
    _leave(failure["code"])


def _listen() -> None:
    """Ends this process when another one has failed."""
    while not _is_ending.wait(LISTEN_EVERY):
        if (failure := _failure()) is not None and not _is_ending.wait(GRACE):
            _repeat(failure)


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def largest(number: int) -> int:
    """The largest of what the processes have: they decide alike, or wait for ever."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    """The processor's features, where the system tells them, else its name."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return platform.machine() + platform.processor()
    lines = (line for line in text.splitlines() if line.startswith(("flags", "Feat")))
    return next(lines, platform.machine())


def describe() -> dict[str, Any]:
    """What a result's time depends on."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "count": jax.device_count(),
        "processes": jax.process_count(),
        "machine": platform.machine(),
        "cores": num_cores(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def versions(*names: str) -> dict[str, str | None]:
    """Of Python and of these packages; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def free_memory() -> int | None:
    """Bytes that each device has left; None where nobody tells.

    Of a CPU: what the host has, and what a container's limit leaves.
    """
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    left = [
        x for x in (_free_memory_of_host(), free_memory_of_container()) if x is not None
    ]
    return min(left) // jax.local_device_count() if left else None


def _free_memory_of_host() -> int | None:
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        sizes = dict(line.split(":") for line in lines)
        return 1024 * int(sizes["MemAvailable"].split()[0])
    except (OSError, ValueError, KeyError):
        return None


# Of a control group: its limit, what it uses, and what of that is a cache of files.
_MEMORY_FILES = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def free_memory_of_container(root: pathlib.Path = pathlib.Path("/")) -> int | None:
    """Bytes that the limits of control groups leave to this process.

    A limit holds for a group and all below it: the narrowest one counts. Files that
    can be dropped from memory do not.

    Args:
      root: of the filesystem.

    Returns:
      None where there is no limit.
    """
    left = [
        free
        for version, folder in _control_groups(root)
        if (free := _free_memory_of_group(folder, *_MEMORY_FILES[version])) is not None
    ]
    return max(0, min(left)) if left else None


def _control_groups(root: pathlib.Path) -> Iterator[tuple[int, pathlib.Path]]:
    """Version and folder of each group of memory that this process is in."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "memory" not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        mount = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        inside = pathlib.PurePosixPath(path.lstrip("/"))
        # In a container the path may be the host's, of which only the top is seen.
        for part in (inside, *inside.parents):
            yield version, mount / part


def _free_memory_of_group(
    folder: pathlib.Path, limit: str, used: str, cached: str
) -> int | None:
    try:
        text = (folder / limit).read_text().strip()
        if text == "max":
            return None
        left = int(text) - int((folder / used).read_text())
    except (OSError, ValueError):
        return None
    with contextlib.suppress(OSError, ValueError):
        stats = dict(
            x.split() for x in (folder / "memory.stat").read_text().splitlines()
        )
        left += int(stats.get(cached, 0))
    return left


def max_parallel(experiment: Experiment, grid: Grid) -> int:
    """Members advanced by one chunk: as many as are of use, and fit into memory."""
    of_use = MAX_PARALLEL
    if jax.default_backend() == "cpu":
        of_use = TILES_OF_CPU * tiles.width_on_cpu(grid.weight_bytes)
    wanted = min(of_use * jax.device_count(), grid.seeds.size)
    free = free_memory()
    if free is None:
        return wanted
    slots = sweep.init_sweep(grid, max_parallel=wanted).slots
    need = sweep.memory_of_chunk(experiment, grid, slots)
    return -largest(-max(1, min(wanted, int(wanted * USABLE_MEMORY * free / need))))
