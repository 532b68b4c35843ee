"""One training run: what a grid has many of.

A *member* draws its data, trains, is evaluated on a fixed validation set every
`eval_every` updates, and ends as solved, diverged, stalled or exhausted. All of it is
a pure function of hyper-parameters, seed and state; this file knows time and batch and
nothing of a grid.

Randomness comes from (seed, purpose, step): runs of one seed see the same initial
weights, the same data and the same validation set, whatever else differs.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from lra_jax import networks, rnn, settings, train, types
from lra_jax.networks import Network
from lra_jax.tasks import Task

Hyperparameters = Mapping[str, jax.Array]
Build = Callable[
    [Hyperparameters], tuple[types.LearningRule, optax.GradientTransformation]
]
MakeNetwork = Callable[[Hyperparameters], Network]

NUM_VALIDATION = 10_000  # samples of a validation set that is drawn

# Validation runs in slices of this many samples: the states of a tile stay in a core's
# cache, which is twice as fast as 1,000.
VALIDATION_SLICE = 200


_NONE: Hyperparameters = MappingProxyType({})


class Status(enum.IntEnum):
    """Where a member is.

    Attributes:
      PENDING: not started.
      RUNNING: between two evaluations.
      SOLVED: no error on the validation set.
      DIVERGED: a loss, weight or state was no longer a finite number.
      STALLED: no better evaluation within the patience.
      EXHAUSTED: the maximum number of updates was reached.
      OUTRUN: another member of its race was solved first.

    Example:
      >>> sweep.Status(2).name, sweep.Status.RUNNING < sweep.Status.SOLVED
      ('SOLVED', True)
    """

    PENDING = 0
    RUNNING = 1
    SOLVED = 2
    DIVERGED = 3
    STALLED = 4
    EXHAUSTED = 5
    OUTRUN = 6


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What all members of one compiled program have in common (static).

    Attributes:
      task: what to learn.
      build: hyper-parameters (scalars, traced) to a rule and an optimizer; called
        inside the mapped function. The rule is one of `network`.
      seq_len: T; None is the task's, where it has one T.
      hidden_size: H.
      input_gain: of the initial weights, see `rnn.init_params`.
      batch_size: B.
      eval_every: updates between two evaluations.
      num_validation: samples of the fixed validation set; None is the size of the
        task's own, and 10,000 where one is drawn.
      evaluate: as `train.evaluate`, which it is but for `lra_released`. It gets
        `network=` where that is another one than tanh.
      network: what is trained; or `network_numbers`, traced, to it, called inside the
        mapped function.
      network_numbers: names of the hyper-parameters that a function `network` reads.
        Members that have them and the seed in common start from the same weights.
      update_every: as of `train.train_step`; None is the whole sequence.
      shared: names of hyper-parameters that set how long the program runs, as K
        does: equal for all members that are advanced together.

    Raises:
      ValueError: a size is no integer, too small, or impossible for the task; or
        `input_gain` is no positive number; or `network` is neither a network of Python
        numbers nor a function.

    Example:
      >>> def build(hyperparameters):
      ...     rule = lra_jax.lra_diff(gamma=hyperparameters["gamma"])
      ...     return rule, optax.sgd(hyperparameters["lr"])
      >>> task = lra_jax.TASKS["temporal_order"]
      >>> experiment = sweep.Experiment(task, build, seq_len=10, hidden_size=8)
      >>> experiment.batch_size, experiment.num_validation, experiment.shared
      (20, 10000, ('num_refinements',))
    """

    task: Task
    build: Build
    seq_len: int = None  # type: ignore[assignment]  # never None: see below
    hidden_size: int = 100
    input_gain: float = 1.0
    batch_size: int = 20
    eval_every: int = 100
    num_validation: int = None  # type: ignore[assignment]
    evaluate: Callable[..., types.Metrics] = train.evaluate
    network: Network | MakeNetwork = rnn.TANH
    network_numbers: tuple[str, ...] = ()
    update_every: int | None = None
    shared: tuple[str, ...] = ("num_refinements",)

    def __post_init__(self) -> None:
        task, recorded = self.task, self.task.validation
        if self.num_validation is None:
            size = NUM_VALIDATION if recorded is None else recorded.size
            object.__setattr__(self, "num_validation", size)
        checked: dict[str, Any] = {"seq_len": task.check_seq_len(self.seq_len)}
        for name in ("hidden_size", "batch_size", "eval_every", "num_validation"):
            checked[name] = settings.check_size(name, getattr(self, name))
        if recorded is not None and checked["num_validation"] != recorded.size:
            raise ValueError(
                f"num_validation: expected the task's {recorded.size}, "
                f"got {self.num_validation!r}"
            )
        rnn.check_input_gain(self.input_gain)
        _check_network(self.network)
        checked["input_gain"] = float(self.input_gain)
        for name in ("shared", "network_numbers"):
            names = getattr(self, name)
            if isinstance(names, str):
                raise ValueError(f"{name}: expected a tuple of names, got {names!r}")
            checked[name] = tuple(names)
        if self.update_every is not None:
            size = settings.check_size("update_every", self.update_every)
            if checked["seq_len"] % size:
                raise ValueError(
                    "update_every: expected a divisor of T = "
                    f"{checked['seq_len']}, got {size}"
                )
            checked["update_every"] = size
        for name, value in checked.items():  # of Python's types, which can be hashed
            object.__setattr__(self, name, value)

    def network_of(self, hyperparameters: Hyperparameters) -> Network:
        """The network of a member.

        Args:
          hyperparameters: name to scalar; of `network_numbers` at least.
        """
        if isinstance(self.network, Network):
            return self.network
        numbers = {name: hyperparameters[name] for name in self.network_numbers}
        return self.network(numbers)

    def init_params(
        self, key: jax.Array, hyperparameters: Hyperparameters
    ) -> types.AnyParams:
        """Initial weights of a member; the key is consumed."""
        return rnn.init_params(
            key,
            self.task.input_size,
            self.hidden_size,
            self.task.output_size,
            input_gain=self.input_gain,
            network=self.network_of(hyperparameters),
        )

    def evaluate_batch(
        self,
        params: types.AnyParams,
        batch: types.Batch,
        hyperparameters: Hyperparameters,
    ) -> types.Metrics:
        """`evaluate` of a member's weights."""
        network = self.network_of(hyperparameters)
        options = {} if isinstance(network, networks.Tanh) else {"network": network}
        return self.evaluate(
            params, batch, output_loss=self.task.output_loss, **options
        )


def _check_network(network: Any) -> None:
    if not isinstance(network, Network):
        if not callable(network):
            rnn.check_network(network)
        return
    try:
        hash(network)
    except TypeError:
        raise ValueError(
            "network: expected one whose numbers are Python's, or a function of "
            "hyper-parameters that returns one, got a network with arrays in it"
        ) from None


class Limits(NamedTuple):
    """When a member ends unsolved; numbers, not part of the compiled program.

    Attributes:
      max_steps: most updates.
      patience: evaluations without strictly fewer errors that end a member; 0 is off.
      steps_after_solved: updates that a member goes on for after its first evaluation
        without an error, whatever the other two say. It ends as solved, and its curve
        shows whether it stayed so.

    Example:
      >>> sweep.Limits(max_steps=500)
      Limits(max_steps=500, patience=30, steps_after_solved=0)
    """

    max_steps: int = 100_000
    patience: int = 30
    steps_after_solved: int = 0


def check_limits(limits: Limits) -> Limits:
    """The limits as Python integers.

    Raises:
      ValueError: `max_steps` is no integer of at least 1, or one of the others none of
        at least 0.
    """
    least = Limits(max_steps=1, patience=0, steps_after_solved=0)
    return Limits(*map(settings.check_size, Limits._fields, limits, least))


class RunState(NamedTuple):
    """One member's run, between two evaluations."""

    train: types.TrainState
    status: jax.Array  # [] int32, a `Status`
    num_errors: jax.Array  # [] int32, at the last evaluation
    best_num_errors: jax.Array  # [] int32
    stale_evals: jax.Array  # [] int32, evaluations since the best one


class Check(NamedTuple):
    """What an evaluation shows of a member."""

    train_loss: jax.Array  # [] E, mean over the updates since the last evaluation
    loss: jax.Array  # [] E on the validation set


class _Keys(NamedTuple):
    """A seed's streams of randomness."""

    params: jax.Array
    data: jax.Array
    rule: jax.Array
    validation: jax.Array


def _keys(seed: jax.Array) -> _Keys:
    key = jax.random.key(seed, impl="threefry2x32")
    return _Keys(*(jax.random.fold_in(key, purpose) for purpose in range(4)))


def validate(
    experiment: Experiment,
    params: types.AnyParams,
    seed: jax.Array,
    hyperparameters: Hyperparameters = _NONE,
) -> types.Metrics:
    """Loss and number of errors on the seed's fixed validation set.

    The set is drawn anew from its key, slice by slice: nothing of it is stored. A task
    with a validation set of its own has that one for all seeds.

    Args:
      experiment: what all members have in common.
      params: the weights.
      seed: `[]` integer.
      hyperparameters: of `network_numbers` at least.

    Raises:
      ValueError: the task has a validation set of another size.
    """
    key, total = _keys(seed).validation, experiment.num_validation
    task, recorded = experiment.task, experiment.task.validation
    if recorded is not None and recorded.size != total:
        raise ValueError(
            f"num_validation: expected the task's {recorded.size}, got {total}"
        )

    def evaluate(index: jax.Array, size: int) -> types.Metrics:
        if recorded is None:
            key_slice = jax.random.fold_in(key, index)
            batch = task.sample(key_slice, size, experiment.seq_len)
        else:
            batch = recorded.take(index * VALIDATION_SLICE + jnp.arange(size))
        metrics = experiment.evaluate_batch(params, batch, hyperparameters)
        return metrics._replace(loss=metrics.loss * (size / total))

    whole, rest = divmod(total, VALIDATION_SLICE)
    found = []
    if whole:
        slices = lax.map(lambda i: evaluate(i, VALIDATION_SLICE), jnp.arange(whole))
        found.append(jax.tree.map(functools.partial(jnp.sum, axis=0), slices))
    if rest:
        found.append(evaluate(jnp.asarray(whole), rest))
    metrics = jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *found)
    return types.Metrics(metrics.loss, metrics.num_errors.astype(jnp.int32))


class Initial(NamedTuple):
    """What all members of a seed start from, and its evaluation."""

    params: types.AnyParams
    metrics: types.Metrics


def initial(
    experiment: Experiment, seed: jax.Array, hyperparameters: Hyperparameters = _NONE
) -> Initial:
    """Draws and evaluates a seed's initial weights.

    Args:
      experiment: what all members have in common.
      seed: `[]` integer.
      hyperparameters: of `network_numbers` at least.
    """
    params = experiment.init_params(_keys(seed).params, hyperparameters)
    return Initial(params, validate(experiment, params, seed, hyperparameters))


def first_state(
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    seed: jax.Array,
    params: types.AnyParams | None = None,
) -> types.TrainState:
    """Weights, rule and optimizer before a member's first update.

    Args:
      experiment: what all members have in common.
      hyperparameters: name to scalar, may be traced.
      seed: `[]` integer.
      params: to begin with; None is the seed's.
    """
    rule, optimizer = experiment.build(hyperparameters)
    if params is None:
        params = experiment.init_params(_keys(seed).params, hyperparameters)
    return train.init_train_state(_keys(seed).rule, params, rule, optimizer)


def draw_batch(experiment: Experiment, seed: jax.Array, step: jax.Array) -> types.Batch:
    """The batch of a seed's update, `step` of them after the first."""
    key = jax.random.fold_in(_keys(seed).data, step)
    return experiment.task.sample(key, experiment.batch_size, experiment.seq_len)


def start(
    experiment: Experiment,
    hyperparameters: Hyperparameters,
    seed: jax.Array,
    initial: Initial,
) -> RunState:
    """A member before its first update.

    Args:
      experiment: what all members have in common.
      hyperparameters: name to scalar, may be traced.
      seed: `[]` integer.
      initial: of the seed. Its evaluation sets the best number of errors, and cannot
        solve.
    """
    errors = initial.metrics.num_errors
    return RunState(
        train=first_state(experiment, hyperparameters, seed, initial.params),
        status=jnp.asarray(Status.RUNNING, jnp.int32),
        num_errors=errors,
        best_num_errors=errors,
        stale_evals=jnp.zeros((), jnp.int32),
    )


def _select(condition: jax.Array, new: Any, old: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def _all_finite(tree: Any) -> jax.Array:
    finite = [
        jnp.all(jnp.isfinite(x))
        for x in jax.tree.leaves(tree)
        if jnp.issubdtype(x.dtype, jnp.inexact)
    ]
    return jnp.all(jnp.stack(finite))


def advance(
    experiment: Experiment,
    limits: Limits,
    hyperparameters: Hyperparameters,
    seed: jax.Array,
    run: RunState,
) -> tuple[RunState, Check]:
    """`eval_every` updates, an evaluation, and what follows from it.

    A member that has ended, or ends on the way, stays as it is at that point.

    Args:
      experiment: what all members have in common.
      limits: when to give up.
      hyperparameters: name to scalar, may be traced.
      seed: `[]` integer.
      run: from `start` or the last call.
    """
    rule, optimizer = experiment.build(hyperparameters)
    goes_on = limits.steps_after_solved > 0
    is_held = goes_on & (run.best_num_errors == 0)

    def update(
        carry: tuple[types.TrainState, jax.Array], _: None
    ) -> tuple[tuple[types.TrainState, jax.Array], tuple[jax.Array, jax.Array]]:
        state, status = carry
        batch = draw_batch(experiment, seed, state.step)
        new, info = train.train_step(
            state,
            batch,
            rule=rule,
            optimizer=optimizer,
            update_every=experiment.update_every,
        )
        allowed = is_held | (state.step < limits.max_steps)
        live = (status == Status.RUNNING) & allowed
        finite = jnp.isfinite(info.loss) & _all_finite(new)
        status = jnp.where(live & ~finite, jnp.int32(Status.DIVERGED), status)
        return (_select(live & finite, new, state), status), (live, info.loss)

    (state, status), (live, losses) = lax.scan(
        update, (run.train, run.status), length=experiment.eval_every
    )
    metrics = validate(experiment, state.params, seed, hyperparameters)
    improved = metrics.num_errors < run.best_num_errors
    stale_evals = jnp.where(improved, 0, run.stale_evals + 1)
    patient = (limits.patience <= 0) | (stale_evals < limits.patience)
    best = jnp.minimum(run.best_num_errors, metrics.num_errors)
    # Evaluations since the best one: since the first without errors, once there is one.
    steps_since = stale_evals * experiment.eval_every
    waited = (status != Status.RUNNING) | (steps_since >= limits.steps_after_solved)
    is_held = goes_on & (best == 0)
    ended = jnp.select(
        [
            is_held & waited,
            is_held,
            status != Status.RUNNING,
            metrics.num_errors == 0,
            ~patient,
            state.step >= limits.max_steps,
        ],
        [
            jnp.int32(Status.SOLVED),
            jnp.int32(Status.RUNNING),
            status,
            jnp.int32(Status.SOLVED),
            jnp.int32(Status.STALLED),
            jnp.int32(Status.EXHAUSTED),
        ],
        jnp.int32(Status.RUNNING),
    )
    new_run = RunState(
        train=state,
        status=ended,
        num_errors=metrics.num_errors,
        best_num_errors=best,
        stale_evals=stale_evals,
    )
    count = jnp.maximum(jnp.sum(live), 1).astype(losses.dtype)
    check = Check(
        train_loss=jnp.sum(jnp.where(live, losses, 0)) / count, loss=metrics.loss
    )
    return _select(run.status == Status.RUNNING, new_run, run), check
