"""The cells that `experiments.device` measures: a rule, a way to run it, N and T.

The ways are those of `variants`: the engine's chunk, `jit(vmap(train_step))`, and one
call for each update of each member. Members begin from weights that are made on the
host: the programs that draw them are not what is measured.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.accelerator import kernels
from experiments.accelerator.schedule import Load
from experiments.speed import timings, variants, workload
from experiments.speed.timings import Timing
from lra_jax import RULES, Params, member, sweep, tiles, types
from lra_jax.experiment import Experiment
from lra_jax.member import Status
from lra_jax.sweep import Grid
from lra_jax.tasks import Task
from lra_jax.validation import UNKNOWN, Best

ENGINE, MAPPED, LOOPED = "engine", "jit(vmap(train_step))", "loop of jit(train_step)"
WAYS = (ENGINE, MAPPED, LOOPED)
# Updates of a chunk: as many as take about CHUNK_SECONDS, of these.
UPDATES = (50, 20, 5, 2)
CHUNK_SECONDS = 1.0


class Method(NamedTuple):
    """A rule and its K; None where it has none."""

    rule: str
    num_refinements: int | None = None

    @property
    def name(self) -> str:
        """As tables show it."""
        k = self.num_refinements
        return self.rule if k is None else f"{self.rule}, K = {k}"


METHODS = (
    Method("lra_diff", 10),
    Method("lra_norm"),
    Method("lra_diff", 1),
    Method("bptt"),
)


class Cell(NamedTuple):
    """What is measured once."""

    method: Method
    way: str
    members: int  # N
    seq_len: int  # T

    @property
    def name(self) -> str:
        """As messages show it."""
        return (
            f"{self.method.name}, {self.way}, N = {self.members:,}, "
            f"T = {self.seq_len:,}"
        )


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Which cells there are, and what they have in common.

    Attributes:
      methods: the most important first, as for the next two.
      members: N.
      seq_lens: T.
      loop_members: the largest N that a loop is measured with: each member costs it the
        same.
    """

    methods: tuple[Method, ...] = METHODS
    members: tuple[int, ...] = (1, 16, 256, 4096, 16384)
    seq_lens: tuple[int, ...] = (10, 100, 1000)
    loop_members: int = 256
    task: str = "temporal_order"
    hidden_size: int = 100
    batch_size: int = 20

    def cells(self) -> list[Cell]:
        """All cells, the most important first.

        That is the first method in the first way at the first T; every step away from
        it, in any of the three, counts alike, and of equals the smaller is first.
        """
        found = [
            (t + w + min(m, 1), n, m, w, Cell(method, way, members, seq_len))
            for m, method in enumerate(self.methods)
            for w, way in enumerate(WAYS)
            for n, members in enumerate(self.members)
            for t, seq_len in enumerate(self.seq_lens)
            if way != LOOPED or members <= self.loop_members
        ]
        return [cell for *_, cell in sorted(found, key=lambda x: x[:-1])]

    def settings(self, cell: Cell) -> workload.Settings:
        """What `workload` counts."""
        return workload.Settings(
            task=self.task,
            seq_len=cell.seq_len,
            num_refinements=cell.method.num_refinements or 1,
            members=cell.members,
            hidden_size=self.hidden_size,
            batch_size=self.batch_size,
        )

    def multiply_adds(self, cell: Cell) -> int:
        """Of a member-step: those of lra_diff, or forward, backward and gradients.

        These are three products for each step, as many as with K = 1.
        """
        return _multiply_adds(self.settings(cell))

    def bytes(self, cell: Cell) -> float:
        """What the products of a member-step read and write from far away.

        A product of `[B, H]` and `[H, H]` reads both and writes one: 4 (H² + 2 B H)
        bytes for B H² multiply-adds. What stays in a cache or is fused needs fewer.
        """
        each = 4 * (1 / self.batch_size + 2 / self.hidden_size)
        return each * self.multiply_adds(cell)

    def load(self, cell: Cell) -> Load:
        """Of one update of all members."""
        members = 1 if cell.way == LOOPED else cell.members
        return Load((cell.method.rule, cell.way), members, self.multiply_adds(cell))

    def steps_load(self, cell: Cell, width: int) -> Load:
        """Of the memory for so many members in lockstep."""
        return Load((cell.method.rule, cell.way), width, cell.seq_len)


@functools.cache
def _multiply_adds(settings: workload.Settings) -> int:
    return workload.operations(settings).multiply_adds


@functools.cache
def _builder(
    rule: str, task: Task
) -> Callable[
    [Mapping[str, Any]], tuple[types.LearningRule, optax.GradientTransformation]
]:
    """`Experiment.build`; a rule without refinements takes no number but lr."""

    def build(
        hyperparameters: Mapping[str, Any],
    ) -> tuple[types.LearningRule, optax.GradientTransformation]:
        numbers = dict(hyperparameters)
        optimizer = optax.sgd(numbers.pop("lr"))
        if rule != "lra_diff":
            numbers = {}
        return RULES[rule](**numbers, output_loss=task.output_loss), optimizer

    return build


def make_experiment(sizes: Sizes, cell: Cell, eval_every: int) -> Experiment:
    """Of the engine; with one sample, evaluation takes next to no time."""
    experiment = variants.make_experiment(sizes.settings(cell), eval_every=eval_every)
    build = _builder(cell.method.rule, experiment.task)
    return dataclasses.replace(experiment, build=build)


def make_grid(experiment: Experiment, cell: Cell) -> Grid:
    """N members of one cost."""
    if cell.method.num_refinements is not None:
        return variants.make_grid(
            experiment, [cell.method.num_refinements] * cell.members
        )
    lr = np.full(cell.members, variants.HYPERPARAMETERS["lr"], np.float32)
    seeds = np.arange(cell.members) % variants.NUM_SEEDS
    return sweep.make_grid(experiment, {"lr": lr}, seeds)


def _weights(experiment: Experiment, shape: tuple[int, ...]) -> Params:
    """Orthogonal matrices and no biases, `[*shape, ...]`, one kind for all members."""
    draw = np.random.RandomState(0).standard_normal

    def orthogonal(rows: int, columns: int) -> Any:
        long, short = max(rows, columns), min(rows, columns)
        q = np.linalg.qr(draw((long, short)))[0].astype(np.float32)
        return q if rows >= columns else q.T

    x, y = experiment.task.input_size, experiment.task.output_size
    h = experiment.hidden_size
    b_h: Any = np.zeros(h, np.float32)
    b_y: Any = np.zeros(y, np.float32)
    one = Params(orthogonal(x, h), orthogonal(h, h), b_h, orthogonal(h, y), b_y)
    return jax.tree.map(lambda a: np.broadcast_to(a, (*shape, *a.shape)), one)


def _begin(shapes: Any, experiment: Experiment, shape: tuple[int, ...]) -> Any:
    """A `TrainState` of these shapes: weights, keys, and zeros for all else."""

    def fill(leaf: Any) -> Any:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            keys = jax.random.split(jax.random.key(0), int(np.prod(leaf.shape)))
            return keys.reshape(leaf.shape)
        return np.zeros(leaf.shape, leaf.dtype)

    filled = jax.tree.map(fill, shapes._replace(params=None))
    return filled._replace(params=_weights(experiment, shape))


def _sharding() -> NamedSharding:
    return NamedSharding(
        Mesh(np.array(jax.devices()), ("grid",)), PartitionSpec("grid")
    )


def start_runs(experiment: Experiment, grid: Grid, slots: np.ndarray) -> Any:
    """The `RunState` of members in slots, on all devices."""
    shapes = sweep.run_shapes(experiment, grid, slots)
    zeros: Any = np.zeros(slots.shape, np.int32)
    errors = np.full_like(zeros, experiment.num_validation)
    stages = (*slots.shape, len(experiment.validation_stages))
    stage_errors: Any = np.full(stages, UNKNOWN, np.int32)
    runs = member.RunState(
        train=_begin(shapes.train, experiment, slots.shape),
        status=np.full_like(zeros, Status.RUNNING),
        num_errors=errors,
        num_samples=errors,
        best=Best(errors, errors, stage_errors),
        stale_evals=zeros,
    )
    return jax.device_put(runs, _sharding())


def _plain_shapes(experiment: Experiment, grid: Grid) -> variants.Plain:
    start = functools.partial(member.first_state, experiment)
    params = _weights(experiment, grid.seeds.shape)
    states = jax.eval_shape(jax.vmap(start), grid.mapped, grid.seeds, params)
    return variants.Plain(grid.mapped, grid.seeds, states)  # type: ignore[arg-type]


def start_plain(experiment: Experiment, grid: Grid) -> variants.Plain:
    """The members of a grid without the engine, on the first device."""
    plain = _plain_shapes(experiment, grid)
    states = _begin(plain.states, experiment, grid.seeds.shape)
    return jax.device_put(plain._replace(states=states), jax.local_devices()[0])


def slots_of(grid: Grid, width: int | None) -> np.ndarray:
    """All members of the grid in tiles of at most this width."""
    slots = sweep.init_sweep(grid, tile_width=width).slots
    return tiles.fill(slots, grid.kind, np.arange(grid.seeds.size), jax.device_count())


def updates_of(seconds: float | None) -> int:
    """Updates of a chunk, if one of all members takes about so long."""
    fit = (n for n in UPDATES if seconds is None or n * seconds <= CHUNK_SECONDS)
    return next(fit, UPDATES[-1])


class Prepared(NamedTuple):
    """A cell whose program is compiled.

    Attributes:
      bytes: that the program needs on a device, by the compiler's account.
      width: members in lockstep on a device.
      updates: of each member, in a call of the program.
      kernels: that a call starts at least, by its text; None where that fails.
      cost: what the compiler says of a call; of loops it counts one step.
      start: places the members, and makes what is timed.
    """

    bytes: int
    width: int
    updates: int
    kernels: kernels.Count | None
    cost: dict[str, float]
    compile_seconds: float
    start: Callable[[], Timing]


def prepare(
    sizes: Sizes, cell: Cell, *, width: int | None = None, seconds: float | None = None
) -> Prepared:
    """Compiles a cell's program. Nothing is on a device yet.

    Args:
      sizes: of all cells.
      cell: one of them.
      width: most members in lockstep, for the engine; None is the engine's own.
      seconds: that an update of all members takes, if something is known of it.
    """
    updates = updates_of(seconds) if cell.way == ENGINE else 1
    experiment = make_experiment(sizes, cell, updates)
    grid = make_grid(experiment, cell)
    k = cell.method.num_refinements or 1
    built: tuple[Any, float]
    if cell.way == ENGINE:
        slots = slots_of(grid, width)
        lockstep, sharding = slots.shape[1], _sharding()
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            sweep.run_shapes(experiment, grid, slots),
        )
        built = variants.compile_chunk(experiment, grid, slots, shapes)

        def start() -> Timing:
            runs = start_runs(experiment, grid, slots)
            return variants.chunk_timing(
                cell.name, experiment, grid, slots, runs, built
            )

    else:
        update = variants.updater(experiment, k)
        plain = _plain_shapes(experiment, grid)
        if cell.way == MAPPED:
            lockstep, make = cell.members, variants.mapped
            built = timings.compile_jitted(jax.jit(jax.vmap(update)), plain)
        else:
            lockstep, make = 1, variants.looped
            one = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), plain
            )
            built = timings.compile_jitted(jax.jit(update), one)

        def start() -> Timing:
            return make(update, start_plain(experiment, grid), built)

    compiled, compile_seconds = built
    return Prepared(
        bytes=_bytes(compiled),
        width=lockstep,
        updates=updates,
        kernels=_kernels(compiled, k - 1),
        cost=_cost(compiled),
        compile_seconds=compile_seconds,
        start=start,
    )


def _bytes(compiled: Any) -> int:
    account = compiled.memory_analysis()
    return int(
        account.argument_size_in_bytes
        + account.output_size_in_bytes
        + account.temp_size_in_bytes
    )


def _kernels(compiled: Any, unknown_trips: int) -> kernels.Count | None:
    try:
        return kernels.count(compiled.as_text(), unknown_trips)
    except Exception:  # another JAX may write programs in another way
        return None


def _cost(compiled: Any) -> dict[str, float]:
    """Operations and bytes, by the compiler's analysis; not every device has one."""
    try:
        found = compiled.cost_analysis()
    except Exception:
        return {}
    found = found[0] if isinstance(found, list) else found or {}
    names = ("flops", "transcendentals", "bytes accessed")
    return {name: float(found[name]) for name in names if name in found}
