"""Measures an accelerator: `python -m experiments.device --out DIR`.

On whatever device JAX finds, within the minutes given: whether it computes what a CPU
does (`agreement`), what it can do at most (`roofline`), and the member-steps per second
of the engine, of `jit(vmap(train_step))` and of a loop, over rules, N and T, with
memory, compile time and what bounds them. The most important first; what there is no
time for is said. DIR gets device.json, device.md and device.png, and the first two
after every measurement: to stop it at any time loses one at most.

Exit codes: 0 done, 1 done and the device does not agree with a CPU, 2 bad input, 130
stopped by Ctrl-C.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import gc
import json
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import rich.console
from absl import flags

from experiments.accelerator import (
    agreement,
    device_cells,
    device_report,
    kernels,
    roofline,
    schedule,
)
from experiments.accelerator.device_cells import ENGINE, Cell, Prepared
from experiments.speed import timings
from experiments.speed.timings import Timing
from lra_jax import RULES
from lra_jax.lab.reports import canvas
from lra_jax.lab.terminal import command_line, files, machine, screen

_OUT = flags.DEFINE_string(  # other commands have a flag of this name
    "out", None, "Folder for the results; it has to be given.", allow_override=True
)
_MINUTES = flags.DEFINE_float("minutes", 8.0, "Time that it may take, about.")
_QUICK = flags.DEFINE_boolean("quick", False, "Small sizes: to try the command.")

MIN_WIDTH = 8  # of tiles that are halved because of memory
MARGIN = 0.05  # of the time is for the last table and the figure
FIRST_COMPILATION = 5.0  # seconds, before any is measured


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is measured, and how long.

    Attributes:
      cells: which there are.
      limits: sizes of what is measured of the device itself.
      rules: whose gradients are compared with a CPU's.
      traced: N of the first method's engine at the first T, of which a trace is taken.
      repeats: of each timing.
      seconds: least length of each.
      threads: that compile at once.
    """

    cells: device_cells.Sizes = dataclasses.field(default_factory=device_cells.Sizes)
    limits: roofline.Sizes = dataclasses.field(default_factory=roofline.Sizes)
    rules: tuple[str, ...] = tuple(RULES)
    traced: tuple[int, ...] = (256, 4096)
    repeats: int = 3
    seconds: float = 0.2
    threads: int = 1


QUICK = Plan(
    cells=device_cells.Sizes(
        methods=(device_cells.METHODS[0], device_cells.METHODS[1]),
        members=(1, 4),
        seq_lens=(10,),
        hidden_size=8,
        batch_size=2,
    ),
    limits=roofline.Sizes(matrix=64, floats=1024, members=(4,)),
    rules=("bptt", "lra_diff"),
    traced=(4,),
    repeats=1,
    seconds=0.01,
)


def plan_of(quick: bool) -> Plan:
    """As much as is sensible for the device and the cores beside it."""
    plan = QUICK if quick else Plan()
    if jax.default_backend() == "cpu":
        if quick:
            return plan
        # More takes minutes, and a core has neither the memory nor the rate.
        small = roofline.Sizes(matrix=1024, floats=2**24, members=(4, 256))
        return dataclasses.replace(plan, limits=small, traced=(16,))
    threads = max(1, min(4, machine.num_cores() // 4))
    return dataclasses.replace(plan, threads=threads)


class Measurement:
    """One run of the command: what it has found, and how much time is left."""

    def __init__(
        self,
        plan: Plan,
        minutes: float,
        save: Callable[[dict[str, Any]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._plan, self._say, self._save_document = plan, say, save
        self._clock, self._began = clock, clock()
        self._seconds = schedule.Bounds()
        self._bytes = schedule.Bounds()
        self._compilations: list[float] = []
        sizes = plan.cells
        self.document: dict[str, Any] = {
            "format": 1,
            "finished": False,
            "minutes": minutes,
            "seconds": 0.0,
            "machine": machine.describe(),
            "versions": machine.versions("jax", "jaxlib", "numpy", "optax", "flax"),
            "task": sizes.task,
            "hidden_size": sizes.hidden_size,
            "batch_size": sizes.batch_size,
            "methods": [list(method) for method in sizes.methods],
            "compile_threads": plan.threads,
            "memory_limit": machine.free_memory(),
            "agreement": None,
            "roofline": None,
            "cells": [],
            "traces": [],
            "notes": [],
        }

    def left(self) -> float:
        """Seconds for measurements."""
        total = 60 * self.document["minutes"] * (1 - MARGIN)
        return total - (self._clock() - self._began)

    def save(self) -> None:
        """Writes what there is."""
        self.document["seconds"] = round(self._clock() - self._began, 1)
        self._save_document(self.document)

    def run(self) -> None:
        """Measures all that there is time for."""
        self.save()
        for step in (self._agree, self._bound, self._measure_cells):
            step()
            self.save()
        self.document["finished"] = True
        self.save()

    def _agree(self) -> None:
        plan = self._plan
        self.document["agreement"] = agreement.check(
            rules=plan.rules, threads=plan.threads, say=self._say
        )

    def _bound(self) -> None:
        plan, sizes = self._plan, self._plan.cells
        try:
            best, rows = roofline.measure(
                plan.limits,
                sizes.batch_size,
                sizes.hidden_size,
                repeats=plan.repeats,
                seconds=plan.seconds,
                say=self._say,
            )
        except Exception as error:  # the rates are worth more than their limits
            self.document["notes"].append(f"No limits of the device: {_reason(error)}")
            return
        self.document["roofline"] = {"best": dataclasses.asdict(best), "rows": rows}

    def _measure_cells(self) -> None:
        waiting = self._plan.cells.cells()
        while waiting:
            chosen = schedule.take(waiting, self.cost, self.left(), self._plan.threads)
            if not chosen:
                break
            waiting = [cell for cell in waiting if cell not in chosen]
            with concurrent.futures.ThreadPoolExecutor(len(chosen)) as pool:
                futures = [pool.submit(self._prepare, cell) for cell in chosen]
            for cell, future in zip(chosen, futures, strict=True):
                self._record(cell, self._try(cell, future.result))
        for cell in waiting:
            needed = f"takes about {self.cost(cell):.0f} s"
            self._record(cell, {"status": device_report.NO_TIME, "note": needed})

    # Costs, before they are known.

    def _update_seconds(self, cell: Cell) -> float:
        """Of one update of all members, or of one in a loop: a bound, or a guess."""
        sizes = self._plan.cells
        known = self._seconds.bound(sizes.load(cell))
        if known is not None:
            return known
        found = self.document["roofline"]
        rate = found["best"]["small_product_rate"] if found else 1e9
        step = found["best"]["kernel_seconds"] if found else 1e-5
        load = sizes.load(cell)
        kernels_of_step = 20 * (1 + (cell.method.num_refinements or 1))
        work = load.members * load.each / (0.1 * rate * _devices_of(cell))
        return work + step * kernels_of_step * cell.seq_len

    def _calls(self, cell: Cell) -> tuple[float, int]:
        """Seconds of one call, and how often it is timed."""
        one = self._update_seconds(cell)
        if cell.way == ENGINE:
            one *= device_cells.updates_of(one)
        return one, self._plan.repeats if one <= 2 else 1

    def cost(self, cell: Cell) -> float:
        """Seconds that a cell takes, at most about."""
        one, repeats = self._calls(cell)
        compilation = schedule.typical(self._compilations, FIRST_COMPILATION)
        return compilation + (1 + repeats) * max(one, self._plan.seconds)

    # Memory.

    def _width(self, cell: Cell) -> int | None:
        """Members in lockstep that fit, as far as is known.

        Raises:
          MemoryError: the cell does not fit, and cannot be divided.
        """
        free = machine.free_memory()
        width: int | None = None
        while free is not None:
            lockstep = min(cell.members, width or cell.members)
            load = self._plan.cells.steps_load(cell, lockstep)
            need = self._bytes.bound(load) or 0.0
            if need <= machine.USABLE_MEMORY * free or cell.way == device_cells.LOOPED:
                break
            if cell.way != ENGINE:
                raise MemoryError(_too_large(need, free, "estimated"))
            if lockstep <= MIN_WIDTH:
                break
            width = lockstep // 2
        return width

    # One cell.

    def _prepare(self, cell: Cell) -> Prepared:
        """Compiles a cell, in tiles that fit; on any thread."""
        width = self._width(cell)
        while True:
            prepared = device_cells.prepare(
                self._plan.cells,
                cell,
                width=width,
                seconds=self._update_seconds(cell),
            )
            free = machine.free_memory()
            if free is None or prepared.bytes <= free:
                return prepared
            if cell.way != ENGINE or prepared.width <= MIN_WIDTH:
                raise MemoryError(
                    _too_large(prepared.bytes, free, "compiler's account")
                )
            width = prepared.width // 2

    def _try(self, cell: Cell, prepare: Callable[[], Prepared]) -> dict[str, Any]:
        """Measures a cell; what goes wrong with it is a result."""
        self._say(cell.name)
        try:
            prepared = prepare()
            while True:
                try:
                    return self._measure(cell, prepared)
                except (jax.errors.JaxRuntimeError, MemoryError) as error:
                    small = cell.way != ENGINE or prepared.width <= MIN_WIDTH
                    if not _is_memory(error) or small:
                        raise
                gc.collect()
                # As a sweep does: the same members, half as many in lockstep.
                prepared = device_cells.prepare(
                    self._plan.cells,
                    cell,
                    width=prepared.width // 2,
                    seconds=self._update_seconds(cell),
                )
        except Exception as error:
            gc.collect()
            status = "out of memory" if _is_memory(error) else "failed"
            return {"status": status, "note": _reason(error)}

    def _measure(self, cell: Cell, prepared: Prepared) -> dict[str, Any]:
        sizes = self._plan.cells
        _, repeats = self._calls(cell)
        width = self._plan.cells.steps_load(cell, prepared.width)
        self._bytes.learn(width, prepared.bytes)
        self._compilations.append(prepared.compile_seconds)
        timing = prepared.start()
        timings.measure([timing], repeats, self._plan.seconds, lambda text: None)
        call = timing.unit_seconds
        self._seconds.learn(sizes.load(cell), call / prepared.updates)
        self._trace(cell, prepared, timing)
        assert timing.rate is not None
        stats = jax.local_devices()[0].memory_stats() or {}
        count = prepared.kernels
        return {
            "status": "measured",
            "rate": timing.rate,
            "seconds": timing.seconds,
            "calls": timing.calls,
            "updates": prepared.updates,
            "tile_width": prepared.width,
            "compile_seconds": prepared.compile_seconds,
            "bytes": prepared.bytes,
            "peak_bytes_so_far": stats.get("peak_bytes_in_use"),
            "kernels": count and count.kernels,
            "has_unknown_loops": count and count.has_unknown_loops,
            "cost_analysis": prepared.cost,
            "shares": self._shares(cell, prepared, call, timing.rate),
            "note": None,
        }

    def _shares(
        self, cell: Cell, prepared: Prepared, call: float, rate: float
    ) -> dict[str, float | None] | None:
        """How much of each limit is used."""
        if self.document["roofline"] is None:
            return None
        best, sizes = self.document["roofline"]["best"], self._plan.cells
        devices = _devices_of(cell)
        kernels_ = prepared.kernels
        started = kernels_ and kernels_.kernels * best["kernel_seconds"]
        products = max(best["product_rate"], best["small_product_rate"])
        return {
            "products": rate * sizes.multiply_adds(cell) / (devices * products),
            "memory": rate * sizes.bytes(cell) / (devices * best["byte_rate"]),
            "launches": started and (started + best["call_seconds"]) / call,
        }

    def _trace(self, cell: Cell, prepared: Prepared, timing: Timing) -> None:
        """Of some cells; what goes wrong is a note."""
        sizes = self._plan.cells
        first = (sizes.methods[0], ENGINE, sizes.seq_lens[0])
        if (cell.method, cell.way, cell.seq_len) != first:
            return
        if cell.members not in self._plan.traced:
            return
        found: dict[str, Any] = {"name": cell.name, "updates": prepared.updates}
        try:
            seen = kernels.trace(lambda: timing.run(1))
        except Exception as error:
            found["error"] = _reason(error)
        else:
            devices = _devices_of(cell) if jax.default_backend() != "cpu" else 1
            found |= {
                "count": seen.number,
                "busy_seconds": seen.busy_seconds,
                "window_seconds": seen.window_seconds,
                "busy": seen.busy_seconds / (devices * seen.window_seconds),
                "kernels": [
                    {"name": name, "count": count, "share": seconds / seen.busy_seconds}
                    for name, count, seconds in seen.kernels[:20]
                ],
            }
        self.document["traces"].append(found)

    def _record(self, cell: Cell, found: dict[str, Any]) -> None:
        place = {
            "rule": cell.method.rule,
            "num_refinements": cell.method.num_refinements,
            "way": cell.way,
            "members": cell.members,
            "seq_len": cell.seq_len,
            "rate": None,
        }
        self.document["cells"].append(place | found)
        self.save()


def _devices_of(cell: Cell) -> int:
    """Devices that a cell uses."""
    return jax.device_count() if cell.way == ENGINE else 1


def _is_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, MemoryError) or any(
        words in text for words in ("RESOURCE_EXHAUSTED", "ut of memory")
    )


def _too_large(need: float, free: float, how: str) -> str:
    return f"{need / 1e9:.1f} GB ({how}) of {free / 1e9:.1f} GB"


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:300]


def write(folder: pathlib.Path, document: dict[str, Any]) -> None:
    """Writes the JSON and the page aside, and renames them: neither is ever half."""
    texts = {
        "device.json": json.dumps(document, indent=1, ensure_ascii=False) + "\n",
        "device.md": device_report.page(document),
    }
    for name, text in texts.items():
        files.write_text(folder / name, text)


def draw(folder: pathlib.Path, document: dict[str, Any]) -> str:
    """Draws the figure; returns its path, or why there is none."""
    if (missing := canvas.missing()) is not None:
        return missing
    if all(row["status"] != "measured" for row in document["cells"]):
        return "no figure: nothing was measured"
    try:
        path = folder / "device.png"
        device_report.draw(document).savefig(path, dpi=150)
    except Exception as error:  # what was measured is there
        return canvas.failure(error)
    return str(path)


def _check() -> None:
    if _OUT.value is None:
        raise flags.Error("--out: expected a folder for the results, got none")
    if not (math.isfinite(_MINUTES.value) and _MINUTES.value > 0):
        raise flags.Error(
            f"--minutes: expected a positive number, got {_MINUTES.value:g}"
        )


def _run(console: rich.console.Console) -> int:
    notes = screen.console(stderr=True)
    folder = pathlib.Path(str(_OUT.value))
    folder.mkdir(parents=True, exist_ok=True)
    machine.prepare()
    # A program that an earlier run has compiled would look compiled in no time.
    jax.config.update("jax_enable_compilation_cache", False)
    measurement = Measurement(
        plan_of(_QUICK.value),
        _MINUTES.value,
        lambda document: write(folder, document),
        say=lambda text: screen.say(notes, text),
    )
    stopped = False
    try:
        measurement.run()
    except KeyboardInterrupt:
        stopped = True
    document = measurement.document
    drawn = draw(folder, document)
    for line in (folder / "device.json", folder / "device.md", drawn):
        screen.say(console, f"  {screen.printable(line)}")
    if stopped:
        return 130
    return 0 if document["agreement"]["passed"] else 1


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    return command_line.exit_code(_run, (OSError,), command_line.program(__name__))


parse = command_line.parser(__name__, _check)
