"""The ways to do an update that `experiments.benchmark` compares.

The engine (the tiles of `lra_jax.sweep`), and what a user would write instead: vmap, a
loop, eager PyTorch.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.speed import timings
from experiments.speed.timings import Timing
from experiments.speed.workload import Settings, operations
from lra_jax import TASKS, lra_diff, sweep, tiles, train, types
from lra_jax.experiment import Experiment, Hyperparameters
from lra_jax.member import Limits, RunState, draw_batch, first_state
from lra_jax.sweep import Grid
from lra_jax.tasks import Task

# At this lr no member ends while it is timed.
HYPERPARAMETERS = {"lr": 1e-6, "c0": 1.0, "c1": 1.0}
NUM_SEEDS = 3
LIMITS = Limits(max_steps=10**9, patience=0)

EVAL_EVERY = 100  # the usual evaluation, and the longest chunk


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


def place(grid: Grid, members: np.ndarray | None = None) -> np.ndarray:
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


class Chunks:
    """The compiled chunks of the benchmark, by experiment and shapes."""

    def __init__(self) -> None:
        self._compiled: dict[Any, tuple[Any, float]] = {}

    def engine(
        self,
        name: str,
        experiment: Experiment,
        grid: Grid,
        members: np.ndarray | None = None,
    ) -> Timing:
        """What a sweep does between two evaluations, from the members' start."""
        slots = place(grid, members)
        program = sweep.make_program(experiment, tuple(jax.devices()))
        numbers = grid.arguments(slots)
        unique = np.unique(grid.seeds)
        runs = program.start(
            numbers,
            program.initial(jnp.asarray(unique), {}),
            np.searchsorted(unique, numbers.seeds),
            np.ones(slots.shape, bool),
            None,
        )
        key = (experiment, slots.shape, tuple(sorted(numbers.mapped)))
        if key not in self._compiled:
            self._compiled[key] = compile_chunk(experiment, grid, slots, runs)
        return chunk_timing(name, experiment, grid, slots, runs, self._compiled[key])


def _chunk_arguments(grid: Grid, slots: np.ndarray, runs: RunState) -> tuple[Any, ...]:
    used = (slots != tiles.EMPTY).any(axis=1)
    return LIMITS, used, grid.arguments(slots), runs


def compile_chunk(
    experiment: Experiment, grid: Grid, slots: np.ndarray, runs: RunState
) -> tuple[Any, float]:
    """The program of a sweep's chunk, and the seconds that its compilation took."""
    program = sweep.make_program(experiment, tuple(jax.devices()))
    return timings.compile_jitted(program.chunk, *_chunk_arguments(grid, slots, runs))


def chunk_timing(
    name: str,
    experiment: Experiment,
    grid: Grid,
    slots: np.ndarray,
    runs: RunState,
    compiled: tuple[Any, float],
) -> Timing:
    """A compiled chunk, always from the same state of the members in the slots."""
    chunk, compile_seconds = compiled
    arguments = _chunk_arguments(grid, slots, runs)

    def run(calls: int) -> None:
        for _ in range(calls):
            after, _ = jax.block_until_ready(chunk(*arguments))
        step = np.asarray(after.train.step)[slots != tiles.EMPTY]
        if (step != experiment.eval_every).any():
            raise RuntimeError(f"{name}: a member ended while it was timed")

    size = int((slots != tiles.EMPTY).sum())
    return Timing(name, run, size * experiment.eval_every, compile_seconds)


def eval_every_of(settings: Settings) -> int:
    """Updates of a chunk: so many that what it does only once takes no time.

    At most 100, and on a few cores not more than a few seconds' worth.
    """
    guess = 1.5e11 * settings.seconds / operations(settings).multiply_adds
    return int(np.clip(guess / settings.members, 2, EVAL_EVERY))


class Plain(NamedTuple):
    """The members of a grid without the engine, arrays `[N, ...]` on one device."""

    hyperparameters: Hyperparameters
    seeds: jax.Array
    states: types.TrainState

    def each(self) -> list[Plain]:
        """One by one, without the leading axis."""
        return [jax.tree.map(lambda x, i=i: x[i], self) for i in range(self.seeds.size)]


def start_plain(experiment: Experiment, grid: Grid) -> Plain:
    """All members before their first update."""
    start = functools.partial(first_state, experiment)
    mapped, seeds = jax.tree.map(jnp.asarray, (grid.mapped, grid.seeds))
    return Plain(mapped, seeds, jax.jit(jax.vmap(start))(mapped, seeds))


def updater(
    experiment: Experiment, num_refinements: int
) -> Callable[[Plain], tuple[types.TrainState, jax.Array]]:
    """An update of one member, and E: what a user maps or loops over. K is static."""

    def update(member: Plain) -> tuple[types.TrainState, jax.Array]:
        numbers: dict[str, Any] = {
            **member.hyperparameters,
            "num_refinements": num_refinements,
        }
        rule, optimizer = experiment.build(numbers)
        state = member.states
        batch = draw_batch(experiment, member.seeds, state.step)
        state, info = train.train_step(state, batch, rule=rule, optimizer=optimizer)
        return state, info.loss

    return update


def mapped(
    update: Callable[[Plain], Any],
    plain: Plain,
    compiled: tuple[Any, float] | None = None,
) -> Timing:
    """One jitted call for each update of all members, on the first device.

    Args:
      update: see `updater`.
      plain: the members.
      compiled: `jit(vmap(update))`, and the seconds that it took; None compiles it.
    """
    step, compile_seconds = compiled or timings.compile_jitted(
        jax.jit(jax.vmap(update)), plain
    )

    def run(calls: int) -> None:
        now = plain
        for _ in range(calls):
            now = now._replace(states=step(now)[0])
        jax.block_until_ready(now)

    return Timing("jit(vmap(train_step))", run, plain.seeds.size, compile_seconds)


def looped(
    update: Callable[[Plain], Any],
    plain: Plain,
    compiled: tuple[Any, float] | None = None,
) -> Timing:
    """One jitted call for each update of each member; arguments as for `mapped`."""
    members = plain.each()
    step, compile_seconds = compiled or timings.compile_jitted(
        jax.jit(update), members[0]
    )
    order = itertools.cycle(range(len(members)))

    def run(calls: int) -> None:
        for index in itertools.islice(order, calls):
            member = members[index]
            members[index] = member._replace(states=step(member)[0])
        jax.block_until_ready(members)

    return Timing("loop of jit(train_step)", run, 1, compile_seconds)


def eager(experiment: Experiment, plain: Plain, num_refinements: int) -> list[Timing]:
    """PyTorch with autograd; its batches are drawn before, in its favour.

    With one thread, and with as many as it takes by itself: on a busy machine threads
    that wait for each other at every small operation are slower than one.
    """
    names = ["eager PyTorch, 1 thread", "eager PyTorch, its threads"]
    if not timings.has_torch():
        return [timings.missing(name, "torch") for name in names]
    from experiments.speed import torch_baseline

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
