"""What a device runs for a compiled program: counted in its text, or seen in a trace.

A device gets its work in *kernels*, one operation of the compiled program each. To
start one takes some microseconds, however little it does: many small ones leave a
device idle.
"""

from __future__ import annotations

import collections
import gzip
import json
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

# Operations of a compiled program that start no kernel. Of its copies some are left
# out when it runs, and some are not: none are counted.
_FREE = {
    "copy",
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
    *("partition-id", "replica-id", "opt-barrier", "add-dependency", "domain"),
    *("copy-done", "async-done", "all-reduce-done", "custom-call-done"),
}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_OPERATION = re.compile(r"^  (?:ROOT )?%?[\w.\-]+ = .*?[\]})] ([a-z][\w\-]*)\(")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Count(NamedTuple):
    """Kernels of one call of a program.

    Attributes:
      kernels: that are started.
      has_unknown_loops: whether some loop's length is known only when it runs.
    """

    kernels: int
    has_unknown_loops: bool


def count(text: str, unknown_trips: int) -> Count:
    """Counts what a compiled program starts at least, loops as often as they run.

    Of the branches of a condition, that with most counts.

    Args:
      text: from `compiled.as_text()`.
      unknown_trips: of a loop whose length the compiler does not know.

    Raises:
      ValueError: the text has no entry.
    """
    bodies: dict[str, list[tuple[str, str]]] = {}
    entry, lines = None, None
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            lines = bodies.setdefault(match[2], [])
            entry = match[2] if match[1] else entry
        elif lines is not None and (match := _OPERATION.match(line)):
            lines.append((match[1], line))
    if entry is None:
        raise ValueError("expected the text of a compiled program, found no entry")
    unknown = False

    def called(line: str, key: str) -> list[str]:
        match = re.search(rf"\b{key}=(?:%?([\w.\-]+)|\{{([^}}]*)\}})", line)
        if not match:
            return []
        return [name.strip().lstrip("%") for name in (match[1] or match[2]).split(",")]

    def total(name: str) -> int:
        nonlocal unknown
        sum_ = 0
        for operation, line in bodies.get(name, ()):
            if operation == "while":
                trips = _TRIPS.search(line)
                unknown = unknown or not trips
                inside = sum(map(total, called(line, "body")))
                if not trips:  # its condition is evaluated on the device
                    inside += sum(map(total, called(line, "condition")))
                sum_ += inside * (int(trips[1]) if trips else unknown_trips)
            elif operation == "conditional":
                branches = called(line, "branch_computations") or [
                    *called(line, "true_computation"),
                    *called(line, "false_computation"),
                ]
                sum_ += max(map(total, branches), default=0)
            elif operation == "call":
                sum_ += sum(map(total, called(line, "to_apply")))
            elif operation not in _FREE:
                sum_ += 1
        return sum_

    return Count(total(entry), unknown)


class Trace(NamedTuple):
    """What a device did while a program ran.

    Attributes:
      kernels: `(name, how many, seconds)`, the longest first.
      number: of all.
      busy_seconds: sum of all kernels' times.
      window_seconds: from the first one's beginning to the last one's end.
    """

    kernels: list[tuple[str, int, float]]
    number: int
    busy_seconds: float
    window_seconds: float


def trace(run: Callable[[], Any]) -> Trace:
    """Runs something, which waits for its results, under JAX's profiler.

    Raises:
      ValueError: no trace, or one without kernels. The profiler raises what it likes.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        with jax.profiler.trace(name):
            run()
        return _read(pathlib.Path(name))


def _read(folder: pathlib.Path) -> Trace:
    paths = sorted(folder.rglob("*.trace.json.gz"))
    if not paths:
        raise ValueError("the profiler wrote no trace")
    with gzip.open(paths[-1], "rt", encoding="utf-8") as file:
        return summarize(json.load(file)["traceEvents"])


def summarize(events: list[dict[str, Any]]) -> Trace:
    """The kernels among the events of a trace, as Chrome's viewer has them.

    Raises:
      ValueError: there are none.
    """
    processes: dict[Any, str] = {}
    threads: dict[Any, str] = {}
    for event in events:
        if event.get("ph") == "M":
            name = event.get("args", {}).get("name", "")
            if event.get("name") == "process_name":
                processes[event["pid"]] = name
            elif event.get("name") == "thread_name":
                threads[event["pid"], event.get("tid")] = name
    on_device = {pid for pid, name in processes.items() if "/device:" in name}
    lines = {key: name for key, name in threads.items() if key[0] in on_device}
    # A device's other lines repeat its work by module and step.
    chosen = {key for key, name in lines.items() if name.startswith("Stream")} or {
        key for key, name in lines.items() if name == "XLA Ops"
    }

    def is_kernel(event: dict[str, Any]) -> bool:
        if on_device:
            return (event["pid"], event.get("tid")) in chosen
        # On a CPU, operations of programs, but not those that have others in them.
        operation = event.get("args", {}).get("hlo_op", "")
        return bool(operation) and not operation.startswith(
            ("while", "call", "conditional")
        )

    found = [event for event in events if event.get("ph") == "X" and is_kernel(event)]
    if not found:
        raise ValueError("the profiler's trace has no kernels")
    times: dict[str, float] = collections.defaultdict(float)
    counts: collections.Counter[str] = collections.Counter()
    for event in found:
        name = str(event["name"])
        counts[name] += 1
        times[name] += 1e-6 * event.get("dur", 0.0)
    begin = min(event["ts"] for event in found)
    end = max(event["ts"] + event.get("dur", 0.0) for event in found)
    ordered = sorted(times, key=lambda name: (-times[name], name))
    return Trace(
        kernels=[(name, counts[name], times[name]) for name in ordered],
        number=len(found),
        busy_seconds=sum(times.values()),
        window_seconds=1e-6 * (end - begin),
    )
