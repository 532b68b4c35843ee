"""Times one update in all the ways to do it: `python -m experiments.benchmark`.

The unit is a *member-step*: one update of one member of a grid, its data drawn as part
of it. Measured are the engine and what a user would write instead (`variants`), and the
`ceiling`: the time that the unavoidable products and tanh (`workload`) would take at
the best rates this machine reached in the same run; and memory.

All is measured in one process (`timings`). Compilation is timed apart, without JAX's
cache of compiled programs. Exit codes: 0 done, 2 bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import rich.console
import rich.text
from absl import flags

from experiments.speed import benchmark_report, timings, variants
from experiments.speed.ceiling import Ceiling, product_timings, tanh_timings
from experiments.speed.timings import Timing
from experiments.speed.workload import Settings, operations
from lra_jax import TASKS, sweep
from lra_jax.experiment import Experiment
from lra_jax.lab.reports import canvas
from lra_jax.lab.terminal import command_line, files, machine, screen
from lra_jax.sweep import Grid

_TASK = flags.DEFINE_enum("task", "temporal_order", sorted(TASKS), "What to learn.")
_SEQ_LEN = flags.DEFINE_integer("seq_len", 10, "T.", lower_bound=1)
_NUM_REFINEMENTS = flags.DEFINE_integer("num_refinements", 10, "K.", lower_bound=1)
_MEMBERS = flags.DEFINE_integer("members", 45, "N, members.", lower_bound=1)
_HIDDEN_SIZE = flags.DEFINE_integer("hidden_size", 100, "H.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 20, "B.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "Rounds of timings.", lower_bound=1)
_SECONDS = flags.DEFINE_float(
    "seconds", 0.5, "Least length of a timing, about.", lower_bound=0.001
)
_JSON = flags.DEFINE_boolean("json", False, "One JSON document instead of tables.")
_SCAN = flags.DEFINE_boolean(
    "scan", False, "Also time other N, T, K and H, and draw them."
)
_OUT = flags.DEFINE_string(  # experiments.grid has a flag of this name
    "out",
    None,
    "Folder for benchmark.json and benchmark.png; default with --scan runs/benchmark.",
    allow_override=True,
)

LAMBDA = 0.1
NUM_VALIDATION = 10_000  # the usual evaluation
SCANNED: dict[str, tuple[int, ...]] = {
    "members": (1, 4, 16, 45, 128, 512),
    "seq_len": (10, 20, 50, 100),
    "num_refinements": (1, 3, 10, 30),
    "hidden_size": (50, 100, 200),
}
SCAN_REPEATS = 2
MEMORY_SEQ_LENS = (10, 55, 100)


def _load() -> float | None:
    """Processes that wanted a core in the last minute, this one included."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def memory(settings: Settings, width: int) -> dict[str, Any]:
    """Bytes that a chunk needs on each device, and how they grow with T.

    Three points on a line through T, and two on that of twice the batch. What grows
    with T and B are arrays [T, B, H]; what grew with T alone would be a stack of
    gradients [T, H, H]. Evaluation, whose slices need the same at every B, is left out.

    Args:
      settings: what is timed.
      width: slots of a tile: a device holds the arrays of one tile at a time.
    """

    def need(seq_len: int, batch_size: int) -> int:
        changed = dataclasses.replace(settings, seq_len=seq_len, batch_size=batch_size)
        experiment = variants.make_experiment(changed, eval_every=variants.EVAL_EVERY)
        grid = variants.make_grid(
            experiment, [settings.num_refinements] * settings.members
        )
        return sweep.memory_of_chunk(experiment, grid, variants.place(grid))

    batch, hidden = settings.batch_size, settings.hidden_size
    first, middle, last = MEMORY_SEQ_LENS
    found = {seq_len: need(seq_len, batch) for seq_len in MEMORY_SEQ_LENS}
    slope = (found[last] - found[first]) / (last - first)
    early = (found[middle] - found[first]) / (middle - first)
    doubled = (need(last, 2 * batch) - need(first, 2 * batch)) / (last - first)
    matrices = (2 * slope - doubled) / (4 * width * hidden**2)
    return {
        "bytes": {str(seq_len): size for seq_len, size in found.items()},
        "tile_width": width,
        "bytes_per_step": slope,
        "hidden_arrays_per_step": slope / (4 * width * batch * hidden),
        "matrices_per_step": matrices,
        "linear": abs(early - slope) <= 0.1 * slope,
        "no_matrix_stack": matrices < 0.5,
    }


def _engine_costs(
    chunks: variants.Chunks, experiment: Experiment, settings: Settings
) -> dict[str, list[Timing]]:
    """The engine's timings of which the document's costs are made."""
    k, size = settings.num_refinements, settings.members

    def engine(name: str, grid: Grid, members: np.ndarray | None = None) -> Timing:
        return chunks.engine(f"engine, {name}", experiment, grid, members)

    regularized = variants.make_grid(experiment, [k] * size, LAMBDA)
    single = variants.make_grid(experiment, [1] * size)
    mixed = variants.make_grid(experiment, [1] * (size // 2) + [k] * (size - size // 2))
    parts = [np.flatnonzero(mixed.kind == kind) for kind in np.unique(mixed.kind)]
    return {
        "lambda": [engine(f"λ = {LAMBDA}", regularized)],
        "one_refinement": [engine("K = 1", single)],
        "mixed_refinements": [engine("mixed K", mixed)],
        "parts": [
            engine(f"mixed K: part {index + 1}", mixed, part)
            for index, part in enumerate(parts)
        ],
    }


def run(
    settings: Settings, *, scan: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measures everything, and returns the JSON document."""
    k, size = settings.num_refinements, settings.members
    load = _load()
    say("compiling the variants")
    chunks = variants.Chunks()
    updates = variants.make_experiment(
        settings, eval_every=variants.eval_every_of(settings)
    )
    evaluated = variants.make_experiment(
        settings, eval_every=variants.EVAL_EVERY, num_validation=NUM_VALIDATION
    )
    grid = variants.make_grid(updates, [k] * size)
    plain, update = variants.start_plain(updates, grid), variants.updater(updates, k)
    engine = chunks.engine("engine", updates, grid)
    ways = [
        engine,
        chunks.engine("engine, with evaluation", evaluated, grid),
        variants.mapped(update, plain),
        variants.looped(update, plain),
        *variants.eager(updates, plain, k),
    ]
    costs = _engine_costs(chunks, updates, settings)
    others = list(itertools.chain(*costs.values()))
    say("compiling products and tanh")
    products, tanh = product_timings(settings), tanh_timings(settings)

    rows = [*ways, *others, *products, *tanh]
    timings.measure(rows, settings.repeats, settings.seconds, say)

    needed = operations(settings)
    ceiling = Ceiling(timings.best_rate(products), timings.best_rate(tanh))
    engine_rate = timings.best_rate([engine])
    compared = dict.fromkeys(("lambda", "one_refinement"), engine.unit_seconds)
    parts = costs.pop("parts")
    compared["mixed_refinements"] = sum(part.unit_seconds for part in parts)
    document: dict[str, Any] = {
        "settings": dataclasses.asdict(settings),
        "machine": machine.describe(),
        "versions": machine.versions("jax", "jaxlib", "numpy", "optax", "torch"),
        "load": {"before": load, "after": _load()},
        "variants": [
            x.describe() | {"ratio": x.rate and x.rate / engine_rate} for x in ways
        ],
        "others": [x.describe() for x in others],
        "products": [x.describe() for x in products],
        "tanh": [x.describe() for x in tanh],
        "operations": needed._asdict(),
        "ceiling": ceiling._asdict()
        | {
            "rate": ceiling.rate(needed),
            "fraction": engine_rate / ceiling.rate(needed),
        },
        "costs": {
            key: timing.unit_seconds / compared[key] for key, (timing,) in costs.items()
        }
        | {"seq_len_100_over_10": None},
        "scan": None,
    }
    say("memory")
    document["memory"] = memory(settings, variants.place(grid).shape[1])
    if scan:
        document["scan"] = _scan(settings, ceiling, say)
        times = {x["value"]: x["rate"] for x in document["scan"]["seq_len"]}
        document["costs"]["seq_len_100_over_10"] = times[10] / times[100]
    return document


def _scan(
    settings: Settings, ceiling: Ceiling, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """The engine's rate with one setting changed at a time."""
    chunks = variants.Chunks()
    found: dict[str, list[tuple[int, Settings, Timing]]] = {}
    for name, values in SCANNED.items():
        for value in values:
            say(f"compiling {name} = {value}")
            change: dict[str, Any] = {name: value}
            changed = dataclasses.replace(settings, **change)
            # All K share a program, and so its number of updates.
            slowest = dataclasses.replace(
                changed,
                num_refinements=max(
                    SCANNED["num_refinements"]
                    if name == "num_refinements"
                    else [settings.num_refinements]
                ),
            )
            experiment = variants.make_experiment(
                changed, eval_every=variants.eval_every_of(slowest)
            )
            grid = variants.make_grid(
                experiment, [changed.num_refinements] * changed.members
            )
            timing = chunks.engine(f"{name} = {value}", experiment, grid)
            found.setdefault(name, []).append((value, changed, timing))
    timings.measure(
        [timing for points in found.values() for *_, timing in points],
        min(SCAN_REPEATS, settings.repeats),
        settings.seconds,
        say,
    )
    return {
        name: [
            timing.describe()
            | {"value": value, "ceiling": ceiling.rate(operations(changed))}
            for value, changed, timing in points
        ]
        for name, points in found.items()
    }


def _save(folder: pathlib.Path, document: dict[str, Any]) -> list[str]:
    """Writes what there is, and returns the names of the files."""
    path = folder / "benchmark.json"
    files.write_text(path, json.dumps(document, indent=1) + "\n")
    names = [str(path)]
    if document["scan"] is not None:
        note = canvas.missing()
        if note is None:
            try:
                with canvas.style():
                    figure = benchmark_report.draw(document)
                    figure.savefig(folder / "benchmark.png", dpi=150)
                names.append(str(folder / "benchmark.png"))
            except OSError:
                raise  # the folder's
            except Exception as error:  # of matplotlib, and whatever it is made of
                note = canvas.failure(error)
        if note is not None:
            names.append(screen.plain(note))
    return names


def _check() -> None:
    least = TASKS[_TASK.value].min_seq_len
    if _SEQ_LEN.value < least:
        raise flags.Error(f"--seq-len: {_TASK.value} needs at least {least}")
    timings.check_seconds(_SECONDS.value)


def _run(console: rich.console.Console) -> int:
    notes = screen.console(stderr=True)
    machine.prepare()
    # A program that an earlier run has compiled would look compiled in no time.
    jax.config.update("jax_enable_compilation_cache", False)
    settings = Settings(
        task=_TASK.value,
        seq_len=_SEQ_LEN.value,
        num_refinements=_NUM_REFINEMENTS.value,
        members=_MEMBERS.value,
        hidden_size=_HIDDEN_SIZE.value,
        batch_size=_BATCH_SIZE.value,
        repeats=_REPEATS.value,
        seconds=_SECONDS.value,
    )
    folder = _OUT.value or ("runs/benchmark" if _SCAN.value else None)
    out = None if folder is None else pathlib.Path(folder)
    if out is not None:  # before hours of work, not after
        out.mkdir(parents=True, exist_ok=True)
    try:
        with notes.status("starting") as status:
            document = run(
                settings,
                scan=_SCAN.value,
                say=lambda text: status.update(rich.text.Text(text)),
            )
    except KeyboardInterrupt:
        name = command_line.program(__name__)
        screen.say(
            notes, f"{name}: interrupted before all was timed; nothing is written"
        )
        return 130
    if _JSON.value:
        print(json.dumps(document, indent=1))
    else:
        benchmark_report.show(console, document)
    for path in () if out is None else _save(out, document):
        screen.say(notes, f"  {screen.printable(path)}")
    return 0


parse = command_line.parser(__name__, _check)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    return command_line.exit_code(_run, (OSError,), command_line.program(__name__))
