"""Times one update in all the ways to do it: `python -m experiments.benchmark`.

The unit is a *member-step*: one update of one member of a grid, its data drawn as part
of it. Measured are the engine (the tiles of `lra_jax.sweep`), what a user would write
instead (vmap, a loop, eager PyTorch), and the ceiling: the time that the unavoidable
products and tanh would take at the best rates this machine reached in the same run.

All is measured in one process, in turn, round after round, and compared by medians:
what else the machine does hits all alike. Compilation is timed apart, without JAX's
cache of compiled programs. Exit codes: 0 done, 2 bad input.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import itertools
import json
import math
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.box
import rich.console
import rich.table
from absl import app, flags
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments import command_line, machine
from lra_jax import TASKS, lra_diff, numerics, rnn, sweep, tiles, train, types
from lra_jax.member import Experiment, Hyperparameters, Limits
from lra_jax.sweep import Grid
from lra_jax.tasks import Task

if TYPE_CHECKING:  # the extra `plot`
    from matplotlib.figure import Figure

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

# At this lr no member ends while it is timed.
HYPERPARAMETERS = {"lr": 1e-6, "c0": 1.0, "c1": 1.0}
LAMBDA = 0.1
NUM_SEEDS = 3
LIMITS = Limits(max_steps=10**9, patience=0)

EVAL_EVERY, NUM_VALIDATION = 100, 10_000  # the usual evaluation
SCANNED: dict[str, tuple[int, ...]] = {
    "members": (1, 4, 16, 45, 128, 512),
    "seq_len": (10, 20, 50, 100),
    "num_refinements": (1, 3, 10, 30),
    "hidden_size": (50, 100, 200),
}
SCAN_REPEATS = 2
MEMORY_SEQ_LENS = (10, 55, 100)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is timed."""

    task: str = "temporal_order"
    seq_len: int = 10
    num_refinements: int = 10
    members: int = 45
    hidden_size: int = 100
    batch_size: int = 20
    repeats: int = 5
    seconds: float = 0.5


class Operations(NamedTuple):
    """What one member-step cannot avoid."""

    multiply_adds: int  # of matrix products
    tanh: int  # evaluations
    bytes: int  # of weights, read once and written once


def operations(settings: Settings) -> Operations:
    """Counts the products and tanh of one update of lra_diff with λ = 0.

    Products of [B, H] and [H, H], B H² multiply-adds each; z₋₁ = 0 saves t = 0:

        forward T-1,   targets (T-1)(2K-1),   ∇W_hh T-1       together (T-1)(2K+1)

    and of the readout, B H Y each: logits 1, the top target 2K-1, ∇W_hy 1. At k = 1
    a target needs one product instead of two: h̄ is h, whose product is known. Real
    inputs need x W_xh and xᵀ u at every t; symbols are a gather and a scatter.

    tanh of B H units: z T times, ẑ T times; at every k ≥ 2 the top target's z̄, and of
    the T-1 others z̄ and ẑ'. The library evaluates more, to keep float32 accurate at
    small displacements; that is a choice, so it is not counted.
    """
    task = TASKS[settings.task]
    seq_len, k, batch, hidden = (
        settings.seq_len,
        settings.num_refinements,
        settings.batch_size,
        settings.hidden_size,
    )
    x, y = task.input_size, task.output_size
    products = (seq_len - 1) * (2 * k + 1) * batch * hidden**2
    products += (2 * k + 1) * batch * hidden * y
    if not _has_symbols(task):
        products += 2 * seq_len * batch * x * hidden
    weights = x * hidden + hidden**2 + hidden + hidden * y + y
    return Operations(
        multiply_adds=products,
        tanh=(2 * seq_len + (k - 1) * (2 * seq_len - 1)) * batch * hidden,
        bytes=2 * 4 * weights,
    )


def _has_symbols(task: Task) -> bool:
    shapes = jax.eval_shape(
        lambda: task.sample(jax.random.key(0), 1, max(1, task.min_seq_len))
    )
    return bool(jnp.issubdtype(shapes.inputs.dtype, jnp.integer))


@dataclasses.dataclass
class Timing:
    """Something that is timed again and again.

    Attributes:
      name: as tables show it.
      run: does `n` units, and waits for the last.
      work: in a unit: member-steps, or operations.
      compile_seconds: None where nothing is compiled.
      missing: the package without which it cannot run.
      calls: units in each timing.
      seconds: of each timing.
    """

    name: str
    run: Callable[[int], Any]
    work: float
    compile_seconds: float | None = None
    missing: str | None = None
    calls: int = 1
    seconds: list[float] = dataclasses.field(default_factory=list)

    @property
    def rate(self) -> float | None:
        """Work per second, the median of all timings."""
        if not self.seconds:
            return None
        return self.calls * self.work / statistics.median(self.seconds)

    def describe(self) -> dict[str, Any]:
        """For the JSON document."""
        return {
            "name": self.name,
            "missing": self.missing,
            "compile_seconds": self.compile_seconds,
            "work": self.calls * self.work,
            "seconds": self.seconds,
            "rate": self.rate,
        }


def _missing(name: str, package: str) -> Timing:
    return Timing(name, lambda n: None, 0, missing=package)


def _clock(run: Callable[[int], Any], calls: int) -> float:
    began = time.perf_counter()
    run(calls)
    return time.perf_counter() - began


def measure(
    timings: Iterable[Timing],
    repeats: int,
    seconds: float,
    say: Callable[[str], None],
) -> None:
    """Runs each in turn, `repeats` times, for at least about `seconds` each time."""
    present = [timing for timing in timings if timing.missing is None]
    for timing in present:
        say(f"warming up: {timing.name}")
        once = _clock(timing.run, 1)
        if once < seconds:
            once = _clock(timing.run, 1)
        timing.calls = max(1, round(seconds / once))
    for index in range(repeats):
        for timing in present:
            say(f"round {index + 1} of {repeats}: {timing.name}")
            timing.seconds.append(_clock(timing.run, timing.calls))


def _compile(function: Any, *arguments: Any) -> tuple[Any, float]:
    """A jitted function, compiled for its arguments, and the seconds that it took."""
    began = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    return compiled, time.perf_counter() - began


# The variants.


@functools.cache
def _builder(task: Task) -> Callable[[Hyperparameters], Any]:
    """`Experiment.build` of the benchmark; λ is not in the program unless given."""

    def build(
        hyperparameters: Hyperparameters,
    ) -> tuple[types.LearningRule, optax.GradientTransformation]:
        numbers: dict[str, Any] = dict(hyperparameters)
        optimizer = optax.sgd(numbers.pop("lr"))
        return lra_diff(**numbers, output_loss=task.output_loss), optimizer

    return build


def make_experiment(
    settings: Settings, *, eval_every: int, num_validation: int = 1
) -> Experiment:
    """Of the engine; with one sample, evaluation takes next to no time."""
    task = TASKS[settings.task]
    return Experiment(
        task=task,
        build=_builder(task),
        seq_len=settings.seq_len,
        hidden_size=settings.hidden_size,
        batch_size=settings.batch_size,
        eval_every=eval_every,
        num_validation=num_validation,
    )


def _gamma(hidden_size: int, num_refinements: Any) -> Any:
    """γ with 2 γ s K = 1: displacements keep their size, none becomes subnormal."""
    return hidden_size / (2 * num_refinements)


def make_grid(
    experiment: Experiment, num_refinements: Sequence[int], lambda_: float | None = None
) -> Grid:
    """Members with these K, and no other difference in what they cost."""
    size = len(num_refinements)
    arrays: dict[str, Any] = {
        name: np.full(size, value, np.float32)
        for name, value in HYPERPARAMETERS.items()
    }
    arrays["num_refinements"] = np.array(num_refinements, np.int32)
    gamma = _gamma(experiment.hidden_size, arrays["num_refinements"])
    arrays["gamma"] = gamma.astype(np.float32)
    if lambda_ is not None:
        arrays["lambda_"] = np.full(size, lambda_, np.float32)
    return sweep.make_grid(experiment, arrays, np.arange(size) % NUM_SEEDS)


def _place(grid: Grid, members: np.ndarray | None = None) -> np.ndarray:
    """Slots with room for all members of the grid, and some of them in it."""
    num_devices = jax.device_count()
    slots = sweep.init_sweep(grid).slots
    queue = np.argsort(grid.kind, kind="stable")
    while True:
        filled = tiles.fill(slots, grid.kind, queue, num_devices)
        if (filled != tiles.EMPTY).sum() == queue.size:
            break  # else members of different kinds need more tiles
        rows = np.full((num_devices, slots.shape[1]), tiles.EMPTY, np.int32)
        slots = np.concatenate([slots, rows])
    if members is None:
        return filled
    queue = queue[np.isin(queue, members)]
    return tiles.fill(slots, grid.kind, queue, num_devices)


class _Chunks:
    """The compiled chunks of the benchmark, by experiment and shapes."""

    def __init__(self) -> None:
        self._compiled: dict[Any, tuple[Any, float]] = {}

    def engine(
        self, name: str, experiment: Experiment, grid: Grid, slots: np.ndarray
    ) -> Timing:
        """What a sweep does between two evaluations, from the members' start."""
        program = sweep.make_program(experiment, tuple(jax.devices()))
        shared, mapped, seeds = grid.arguments(slots)
        unique = np.unique(grid.seeds)
        runs = program.start(
            shared,
            mapped,
            seeds,
            program.initial(jnp.asarray(unique)),
            np.searchsorted(unique, seeds),
            np.ones(slots.shape, bool),
            None,
        )
        used = (slots != tiles.EMPTY).any(axis=1)
        arguments = (LIMITS, used, shared, mapped, seeds, runs)
        key = (experiment, slots.shape, tuple(sorted(mapped)))
        if key not in self._compiled:
            self._compiled[key] = _compile(program.chunk, *arguments)
        chunk, compile_seconds = self._compiled[key]

        def run(calls: int) -> None:
            for _ in range(calls):
                after, _ = jax.block_until_ready(chunk(*arguments))
            step = np.asarray(after.train.step)[slots != tiles.EMPTY]
            if (step != experiment.eval_every).any():
                raise RuntimeError(f"{name}: a member ended while it was timed")

        size = int((slots != tiles.EMPTY).sum())
        return Timing(name, run, size * experiment.eval_every, compile_seconds)


def _eval_every(settings: Settings) -> int:
    """Updates of a chunk: so many that what it does only once takes no time.

    At most 100, and on a few cores not more than a few seconds' worth.
    """
    guess = 1.5e11 * settings.seconds / operations(settings).multiply_adds
    return int(np.clip(guess / settings.members, 2, EVAL_EVERY))


class _Plain(NamedTuple):
    """The members of a grid without the engine, arrays `[N, ...]` on one device."""

    hyperparameters: Hyperparameters
    seeds: jax.Array
    states: types.TrainState

    def each(self) -> list[_Plain]:
        """One by one, without the leading axis."""
        return [jax.tree.map(lambda x, i=i: x[i], self) for i in range(self.seeds.size)]


def _plain(experiment: Experiment, grid: Grid) -> _Plain:
    def start(hyperparameters: Hyperparameters, seed: jax.Array) -> types.TrainState:
        rule, optimizer = experiment.build(hyperparameters)
        task, key = experiment.task, jax.random.key(seed)
        params = rnn.init_params(
            key, task.input_size, experiment.hidden_size, task.output_size
        )
        return train.init_train_state(key, params, rule, optimizer)

    mapped, seeds = jax.tree.map(jnp.asarray, (grid.mapped, grid.seeds))
    return _Plain(mapped, seeds, jax.jit(jax.vmap(start))(mapped, seeds))


def _update(
    experiment: Experiment, num_refinements: int
) -> Callable[[_Plain], tuple[types.TrainState, jax.Array]]:
    """An update of one member, and E: what a user maps or loops over. K is static."""

    def update(member: _Plain) -> tuple[types.TrainState, jax.Array]:
        numbers: dict[str, Any] = {
            **member.hyperparameters,
            "num_refinements": num_refinements,
        }
        rule, optimizer = experiment.build(numbers)
        state = member.states
        key = jax.random.fold_in(jax.random.key(member.seeds), state.step)
        batch = experiment.task.sample(key, experiment.batch_size, experiment.seq_len)
        state, info = train.train_step(state, batch, rule=rule, optimizer=optimizer)
        return state, info.loss

    return update


def _mapped(update: Callable[[_Plain], Any], plain: _Plain) -> Timing:
    """One jitted call for each update of all members, on the first device."""
    step, compile_seconds = _compile(jax.jit(jax.vmap(update)), plain)

    def run(calls: int) -> None:
        now = plain
        for _ in range(calls):
            now = now._replace(states=step(now)[0])
        jax.block_until_ready(now)

    return Timing("jit(vmap(train_step))", run, plain.seeds.size, compile_seconds)


def _looped(update: Callable[[_Plain], Any], plain: _Plain) -> Timing:
    """One jitted call for each update of each member."""
    members = plain.each()
    step, compile_seconds = _compile(jax.jit(update), members[0])
    order = itertools.cycle(range(len(members)))

    def run(calls: int) -> None:
        for index in itertools.islice(order, calls):
            member = members[index]
            members[index] = member._replace(states=step(member)[0])
        jax.block_until_ready(members)

    return Timing("loop of jit(train_step)", run, 1, compile_seconds)


def _eager(experiment: Experiment, plain: _Plain, num_refinements: int) -> list[Timing]:
    """PyTorch with autograd; its batches are drawn before, in its favour.

    With one thread, and with as many as it takes by itself: on a busy machine threads
    that wait for each other at every small operation are slower than one.
    """
    names = ["eager PyTorch, 1 thread", "eager PyTorch, its threads"]
    if not _has_torch():
        return [_missing(name, "torch") for name in names]
    from experiments import torch_baseline

    counts = [1, torch_baseline.NUM_THREADS]
    members = [torch_baseline.weights(member.states.params) for member in plain.each()]
    task, sizes = experiment.task, (experiment.batch_size, experiment.seq_len)
    batches = [
        torch_baseline.batch(task.sample(jax.random.key(i), *sizes)) for i in range(8)
    ]
    numbers = dict(HYPERPARAMETERS)
    lr = numbers.pop("lr")
    gamma = _gamma(experiment.hidden_size, num_refinements)
    rule = torch_baseline.Settings(gamma, num_refinements, **numbers)
    order = itertools.cycle(itertools.product(batches, members))

    def run(calls: int) -> None:
        for (inputs, labels), weights in itertools.islice(order, calls):
            torch_baseline.train_step(weights, inputs, labels, rule, lr)

    return [
        Timing(name, torch_baseline.with_threads(count, run), 1)
        for name, count in zip(names, counts, strict=True)
    ]


def _has_torch() -> bool:
    return importlib.util.find_spec("torch") is not None


def _load() -> float | None:
    """Processes that wanted a core in the last minute, this one included."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


# The rates of which the ceiling is made.


def _chained(
    name: str, step: Callable[..., jax.Array], arrays: Sequence[Any], work: float
) -> Timing:
    """XLA's rate at x ← step(x, ...), on as many devices as x has blocks `[D, ...]`."""
    num_devices = arrays[0].shape[0]
    length = max(1, round(5e7 / work)) if work < 5e7 else 1

    def chain(x: jax.Array, *others: jax.Array) -> jax.Array:
        others = tuple(y[0] for y in others)
        return lax.fori_loop(0, length, lambda _, x: step(x, *others), x[0])[None]

    mesh = Mesh(np.array(jax.devices()[:num_devices]), ("grid",))
    spec = PartitionSpec("grid")
    mapped = jax.shard_map(
        chain, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )
    placed = [jax.device_put(x, NamedSharding(mesh, spec)) for x in arrays]
    compiled, compile_seconds = _compile(jax.jit(mapped), *placed)

    def run(calls: int) -> None:
        for _ in range(calls):
            jax.block_until_ready(compiled(*placed))

    return Timing(name, run, length * num_devices * work, compile_seconds)


def _device_counts() -> list[int]:
    return sorted({1, jax.device_count()})


def _products(settings: Settings) -> list[Timing]:
    """Batched products [n, B, H] × [n, H, H]; work in multiply-adds."""
    batch, hidden = settings.batch_size, settings.hidden_size
    rng = np.random.default_rng(0)
    orthogonal = np.linalg.qr(rng.standard_normal((hidden, hidden)))[0]

    def arrays(*counts: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.standard_normal((*counts, batch, hidden)).astype(np.float32)
        w = np.broadcast_to(orthogonal, (*counts, hidden, hidden)).astype(np.float32)
        return x, w

    each = batch * hidden**2
    found = []
    for devices, count in itertools.product(
        _device_counts(), sorted({1, 4, settings.members})
    ):
        name = f"XLA, {devices} device(s), [{count}, B, H] × [{count}, H, H]"
        found.append(
            _chained(name, numerics.matmul, arrays(devices, count), count * each)
        )
    for count in sorted({4 * machine.num_cores(), settings.members}):
        name = f"torch.bmm, its threads, [{count}, B, H] × [{count}, H, H]"
        if not _has_torch():
            found.append(_missing(name, "torch"))
            continue
        from experiments import torch_baseline

        length = max(1, round(5e7 / (count * each)))
        call = torch_baseline.make_products(count, batch, hidden, length)
        found.append(_threaded(name, call, length * count * each))
    return found


def _tanh(settings: Settings) -> list[Timing]:
    """Evaluations of tanh; work in their number."""
    unit = settings.batch_size * settings.hidden_size
    devices = jax.device_count()
    found = []
    for count in sorted({4, settings.members}):
        x = np.linspace(-2, 2, devices * count * unit, dtype=np.float32)
        name = f"XLA, {devices} device(s), [{count}, B, H]"
        # Times 8, so that a call takes about as long as one of products.
        found.append(
            _chained(name, jnp.tanh, [x.reshape(devices, -1)], 8 * count * unit)
        )
        found[-1].work /= 8
    for count in sorted({4 * devices, settings.members, 16 * settings.members}):
        name = f"torch.tanh, its threads, [{count}, B, H]"
        if not _has_torch():
            found.append(_missing(name, "torch"))
            continue
        from experiments import torch_baseline

        length = max(1, round(6e6 / (count * unit)))
        call = torch_baseline.make_tanh(count * unit, length)
        found.append(_threaded(name, call, length * count * unit))
    return found


def _threaded(name: str, call: Callable[[], Any], work: float) -> Timing:
    """Of PyTorch, with as many threads as it takes by itself."""
    from experiments import torch_baseline

    def run(calls: int) -> None:
        for _ in range(calls):
            call()

    return Timing(
        name, torch_baseline.with_threads(torch_baseline.NUM_THREADS, run), work
    )


class Ceiling(NamedTuple):
    """The member-steps per second that only the unavoidable operations allow.

    Note: an upper bound of this machine's rates at these shapes, reached by some
    program of this run. Element-wise work other than tanh, drawing data, and the slower
    products of the weight gradients are not in it.
    """

    product_rate: float  # multiply-adds per second
    tanh_rate: float  # evaluations per second

    def rate(self, needed: Operations) -> float:
        """Member-steps per second."""
        seconds = needed.multiply_adds / self.product_rate
        return 1 / (seconds + needed.tanh / self.tanh_rate)


def _best(timings: Iterable[Timing]) -> float:
    return max(timing.rate for timing in timings if timing.rate is not None)


# Memory.


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
        experiment = make_experiment(changed, eval_every=EVAL_EVERY)
        grid = make_grid(experiment, [settings.num_refinements] * settings.members)
        return sweep.memory_of_chunk(experiment, grid, _place(grid))

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


# The whole.


def run(
    settings: Settings, *, scan: bool, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measures everything, and returns the JSON document."""
    k, size = settings.num_refinements, settings.members
    load = _load()
    say("compiling the variants")
    chunks = _Chunks()
    updates = make_experiment(settings, eval_every=_eval_every(settings))
    evaluated = make_experiment(
        settings, eval_every=EVAL_EVERY, num_validation=NUM_VALIDATION
    )
    grid = make_grid(updates, [k] * size)
    plain, update = _plain(updates, grid), _update(updates, k)
    engine = chunks.engine("engine", updates, grid, _place(grid))
    variants = [
        engine,
        chunks.engine("engine, with evaluation", evaluated, grid, _place(grid)),
        _mapped(update, plain),
        _looped(update, plain),
        *_eager(updates, plain, k),
    ]

    regularized = make_grid(updates, [k] * size, LAMBDA)
    single = make_grid(updates, [1] * size)
    mixed = make_grid(updates, [1] * (size // 2) + [k] * (size - size // 2))
    parts = [np.flatnonzero(mixed.kind == kind) for kind in np.unique(mixed.kind)]
    others = {
        "omega": chunks.engine(
            f"engine, λ = {LAMBDA}", updates, regularized, _place(regularized)
        ),
        "single": chunks.engine("engine, K = 1", updates, single, _place(single)),
        "mixed": chunks.engine("engine, mixed K", updates, mixed, _place(mixed)),
    }
    for index, part in enumerate(parts):
        others[f"part {index}"] = chunks.engine(
            f"engine, mixed K: part {index + 1}", updates, mixed, _place(mixed, part)
        )
    say("compiling products and tanh")
    products, tanh = _products(settings), _tanh(settings)

    timings = [*variants, *others.values(), *products, *tanh]
    measure(timings, settings.repeats, settings.seconds, say)

    def seconds(timing: Timing) -> float:
        """Of one update of all its members."""
        return statistics.median(timing.seconds) / timing.calls

    whole = sum(seconds(x) for name, x in others.items() if name.startswith("part"))
    needed = operations(settings)
    ceiling = Ceiling(_best(products), _best(tanh))
    engine_rate = _best([engine])
    document: dict[str, Any] = {
        "settings": dataclasses.asdict(settings),
        "machine": machine.describe(),
        "versions": machine.versions("jax", "jaxlib", "numpy", "optax", "torch"),
        "load": {"before": load, "after": _load()},
        "variants": [
            x.describe() | {"ratio": x.rate and x.rate / engine_rate} for x in variants
        ],
        "others": [x.describe() for x in others.values()],
        "products": [x.describe() for x in products],
        "tanh": [x.describe() for x in tanh],
        "operations": needed._asdict(),
        "ceiling": ceiling._asdict()
        | {
            "rate": ceiling.rate(needed),
            "fraction": engine_rate / ceiling.rate(needed),
        },
        "costs": {
            "lambda": seconds(others["omega"]) / seconds(engine),
            "one_refinement": seconds(others["single"]) / seconds(engine),
            "mixed_refinements": seconds(others["mixed"]) / whole,
            "seq_len_100_over_10": None,
        },
        "scan": None,
    }
    say("memory")
    document["memory"] = memory(settings, _place(grid).shape[1])
    if scan:
        document["scan"] = _scan(settings, ceiling, say)
        times = {x["value"]: x["rate"] for x in document["scan"]["seq_len"]}
        document["costs"]["seq_len_100_over_10"] = times[10] / times[100]
    return document


def _scan(
    settings: Settings, ceiling: Ceiling, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """The engine's rate with one setting changed at a time."""
    chunks = _Chunks()
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
            experiment = make_experiment(changed, eval_every=_eval_every(slowest))
            grid = make_grid(experiment, [changed.num_refinements] * changed.members)
            timing = chunks.engine(f"{name} = {value}", experiment, grid, _place(grid))
            found.setdefault(name, []).append((value, changed, timing))
    measure(
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


# What a person sees of it.


def _number(x: float | None) -> str:
    """Three digits, with thousands apart."""
    if x is None:
        return "-"
    if x == 0 or not math.isfinite(x):
        return f"{x:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(x))))
    return f"{x:,.{digits}f}"


def _show(console: rich.console.Console, document: dict[str, Any]) -> None:
    settings = document["settings"]
    console.print(
        "{task}, T = {seq_len}, K = {num_refinements}, N = {members}, "
        "H = {hidden_size}, B = {batch_size}, {repeats} round(s)".format(**settings),
        highlight=False,
    )
    on, load = document["machine"], document["load"]
    console.print(
        f"{on['count']} × {on['kind']}, {on['cores']} cores, load "
        f"{_number(load['before'])} before and {_number(load['after'])} after the "
        f"timings; JAX {document['versions']['jax']}",
        highlight=False,
    )
    table = rich.table.Table(box=rich.box.SIMPLE)
    for column in ("variant", "compile s", "member-steps/s", "× engine"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for row in document["variants"]:
        cells = [_number(row[x]) for x in ("compile_seconds", "rate", "ratio")]
        if row["missing"]:
            cells = ["-", f"{row['missing']} not installed", "-"]
        table.add_row(row["name"], *cells)
    console.print(table)

    needed, ceiling = document["operations"], document["ceiling"]
    costs, need = document["costs"], document["memory"]
    lines = [
        (
            "multiply-adds of a member-step",
            _number(needed["multiply_adds"] / 1e6) + " M",
        ),
        ("tanh of a member-step", _number(needed["tanh"] / 1e3) + " k"),
        ("bytes of a member-step", _number(needed["bytes"] / 1e3) + " kB"),
        ("product rate", _rate(document["products"], "G", "multiply-adds")),
        ("tanh rate", _rate(document["tanh"], "G", "tanh")),
        ("ceiling", f"{_number(ceiling['rate'])} member-steps/s"),
        ("engine, of the ceiling", f"{100 * ceiling['fraction']:.1f} %"),
        (f"cost of λ = {LAMBDA} over λ = 0", _number(costs["lambda"])),
        (
            f"cost of K = 1 over K = {settings['num_refinements']}",
            _number(costs["one_refinement"]),
        ),
        (
            "cost of mixed K over the sum of its parts",
            _number(costs["mixed_refinements"]),
        ),
        (
            "cost of T = 100 over T = 10",
            "with --scan"
            if costs["seq_len_100_over_10"] is None
            else _number(costs["seq_len_100_over_10"]),
        ),
        (
            f"memory of a device at T = {', '.join(need['bytes'])}",
            ", ".join(f"{x / 1e6:.1f} MB" for x in need["bytes"].values()),
        ),
        (
            "its growth with T",
            f"{'linear' if need['linear'] else 'NOT LINEAR'}, per step and member "
            f"{need['hidden_arrays_per_step']:.1f} arrays [B, H] in all, "
            f"{need['matrices_per_step']:.2f} arrays [H, H]"
            + ("" if need["no_matrix_stack"] else ": A STACK OF MATRICES"),
        ),
    ]
    table = rich.table.Table(box=None, show_header=False)
    for line in lines:
        table.add_row(*line)
    console.print(table, highlight=False)


def _rate(rows: Sequence[dict[str, Any]], prefix: str, unit: str) -> str:
    """The best rate, and what else there was."""
    present = [row for row in rows if row["rate"] is not None]
    best = max(present, key=lambda row: row["rate"])
    text = f"{_number(best['rate'] / 1e9)} {prefix} {unit}/s ({best['name']})"
    missing = {row["missing"] for row in rows if row["missing"]}
    return text + "".join(f"; {name} not installed" for name in sorted(missing))


def draw(document: dict[str, Any]) -> Figure:
    """Member-steps per second over N, and the time of one over T, K and H."""
    import matplotlib as mpl
    import matplotlib.ticker
    from matplotlib.figure import Figure

    from experiments import figures

    letters = dict(zip(SCANNED, "NTKH", strict=True))
    with mpl.rc_context(figures.STYLE):
        figure = Figure(figsize=(7.2, 5.2), layout="constrained")
        for axes, (name, letter) in zip(
            figure.subplots(2, 2).flat, letters.items(), strict=True
        ):
            points = document["scan"][name]
            values = [point["value"] for point in points]
            for key, style in (("rate", "o-"), ("ceiling", "--")):
                rates = np.array([point[key] for point in points])
                color = figures.COLORS[key == "ceiling"]
                label = {"rate": "engine"}.get(key, key)
                height = rates if letter == "N" else 1e3 / rates
                axes.plot(values, height, style, color=color, ms=4, label=label)
            axes.set_xscale("log")
            axes.set_xticks(values, [str(value) for value in values])
            axes.set_xlabel(letter)
            if letter == "N":
                axes.set_ylabel("member-steps/s")
                axes.set_ylim(bottom=0)
            else:
                axes.set_ylabel("ms / member-step")
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        figure.axes[0].legend(frameon=False, fontsize=8)
        settings = document["settings"]
        figure.suptitle(
            "{task}: T = {seq_len}, K = {num_refinements}, N = {members}, "
            "H = {hidden_size}, B = {batch_size} where not said".format(**settings)
            + f"\n{document['machine']['count']} × {document['machine']['kind']}",
            fontsize=9,
        )
    return figure


def _save(folder: pathlib.Path, document: dict[str, Any]) -> list[str]:
    """Writes what there is, and returns the names of the files."""
    path = folder / "benchmark.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    names = [str(path)]
    if document["scan"] is not None:
        if importlib.util.find_spec("matplotlib") is None:
            names.append("no figure: matplotlib is not installed")
        else:
            draw(document).savefig(folder / "benchmark.png", dpi=150)
            names.append(str(folder / "benchmark.png"))
    return names


def _check() -> None:
    least = TASKS[_TASK.value].min_seq_len
    if _SEQ_LEN.value < least:
        raise flags.Error(f"--seq-len: {_TASK.value} needs at least {least}")
    if not math.isfinite(_SECONDS.value):
        raise flags.Error(f"--seconds: expected a number, got {_SECONDS.value}")


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    console = command_line.console()
    notes = rich.console.Console(stderr=True)
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
    name = _OUT.value or ("runs/benchmark" if _SCAN.value else None)
    out = None if name is None else pathlib.Path(name)
    try:
        if out is not None:  # before hours of work, not after
            out.mkdir(parents=True, exist_ok=True)
        with notes.status("starting") as status:
            document = run(settings, scan=_SCAN.value, say=status.update)
        if _JSON.value:
            print(json.dumps(document, indent=1))
        else:
            _show(console, document)
        for path in () if out is None else _save(out, document):
            notes.print(f"  {path}", soft_wrap=True, highlight=False)
    except OSError as error:
        print(f"experiments.benchmark: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parser("experiments.benchmark", _check))
