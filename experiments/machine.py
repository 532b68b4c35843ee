"""The machine that a run is on: how JAX is set up for it, and what fits into it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import platform
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments import cache
from lra_jax import sweep
from lra_jax.member import Experiment
from lra_jax.sweep import Grid

# Members advanced by one chunk, for each device. On a CPU more are no faster, and make
# a chunk longer, whose end a stop has to wait for; other devices want many.
MAX_PARALLEL = {"cpu": 8, "gpu": 4096, "tpu": 4096}

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
    of_use = MAX_PARALLEL.get(jax.default_backend(), MAX_PARALLEL["gpu"])
    wanted = min(of_use * jax.device_count(), grid.seeds.size)
    free = free_memory()
    if free is None:
        return wanted
    slots = sweep.init_sweep(grid, max_parallel=wanted).slots
    need = sweep.memory_of_chunk(experiment, grid, slots)
    return -largest(-max(1, min(wanted, int(wanted * USABLE_MEMORY * free / need))))
