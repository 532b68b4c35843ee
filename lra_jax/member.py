"""One training run: what a grid has many of.

A *member* draws its data, trains, is evaluated on a fixed validation set every
`eval_every` updates, and ends as solved, diverged, stalled or exhausted. All of it is
a pure function of hyper-parameters, seed and state; this file knows time and batch and
nothing of a grid.

Randomness comes from (seed, purpose, step): runs of one seed see the same initial
weights, the same data and the same validation set, whatever else differs.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lra_jax import settings, train, types, validation
from lra_jax.experiment import (
    NO_HYPERPARAMETERS,
    Experiment,
    Hyperparameters,
    streams,
)
from lra_jax.validation import Best, Evaluation


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


class Limits(NamedTuple):
    """When a member ends unsolved; numbers, not part of the compiled program.

    Attributes:
      max_steps: most updates.
      patience: evaluations without a better one that end a member; 0 is off. Without
        stages a better one has strictly fewer errors, see `lra_jax.validation`.
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
    num_samples: jax.Array  # [] int32, that it looked at
    best: Best  # evaluation so far
    stale_evals: jax.Array  # [] int32, evaluations since the best one


class Check(NamedTuple):
    """What an evaluation shows of a member."""

    train_loss: jax.Array  # [] E, mean over the updates since the last evaluation
    loss: jax.Array  # [] E, mean over the samples that the evaluation looked at


def _evaluate_slice(
    experiment: Experiment,
    params: types.AnyParams,
    seed: jax.Array,
    hyperparameters: Hyperparameters,
) -> validation.EvaluateSlice:
    """`(index, size) -> Metrics` on a slice of the seed's fixed validation set.

    The set is drawn anew from its key, slice by slice: nothing of it is stored. A task
    with a validation set of its own has that one for all seeds.
    """
    key, recorded = streams(seed).validation, experiment.task.validation
    order = None
    if recorded is not None and experiment.validation_stages:
        order = validation.spread(recorded.size)

    def evaluate(index: jax.Array, size: int) -> types.Metrics:
        if recorded is None:
            key_slice = jax.random.fold_in(key, index)
            batch = experiment.task.sample(key_slice, size, experiment.seq_len)
        else:
            at = index * validation.SLICE + jnp.arange(size)
            batch = recorded.take(at if order is None else jnp.asarray(order)[at])
        return experiment.evaluate_batch(params, batch, hyperparameters)

    return evaluate


def validate(
    experiment: Experiment,
    params: types.AnyParams,
    seed: jax.Array,
    hyperparameters: Hyperparameters = NO_HYPERPARAMETERS,
) -> types.Metrics:
    """Loss and number of errors on the whole of the seed's fixed validation set.

    Args:
      experiment: what all members have in common.
      params: the weights.
      seed: `[]` integer.
      hyperparameters: of `network_numbers` at least.
    """
    evaluate = _evaluate_slice(experiment, params, seed, hyperparameters)
    found = validation.on_first(evaluate, experiment.num_validation, ())
    return types.Metrics(found.loss, found.num_errors)


class Initial(NamedTuple):
    """What all members of a seed start from, and its evaluation at the first stage."""

    params: types.AnyParams
    evaluation: Evaluation


def initial(
    experiment: Experiment,
    seed: jax.Array,
    hyperparameters: Hyperparameters = NO_HYPERPARAMETERS,
    params: types.AnyParams | None = None,
) -> Initial:
    """Draws a seed's initial weights, and evaluates them at the first stage.

    Args:
      experiment: what all members have in common.
      seed: `[]` integer.
      hyperparameters: of `network_numbers` at least.
      params: other weights to start from.
    """
    if params is None:
        params = experiment.init_params(streams(seed).params, hyperparameters)
    evaluate = _evaluate_slice(experiment, params, seed, hyperparameters)
    stages = experiment.validation_stages
    first = (*stages, experiment.num_validation)[0]
    return Initial(params, validation.on_first(evaluate, first, stages))


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
        params = experiment.init_params(streams(seed).params, hyperparameters)
    return train.init_train_state(streams(seed).rule, params, rule, optimizer)


def draw_batch(experiment: Experiment, seed: jax.Array, step: jax.Array) -> types.Batch:
    """The batch of a seed's update, `step` of them after the first."""
    key = jax.random.fold_in(streams(seed).data, step)
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
    found = initial.evaluation
    return RunState(
        train=first_state(experiment, hyperparameters, seed, initial.params),
        status=jnp.asarray(Status.RUNNING, jnp.int32),
        num_errors=found.num_errors,
        num_samples=found.num_samples,
        best=Best(found.num_errors, found.num_samples, found.stage_errors),
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

    def was_solved(best: Best) -> jax.Array:
        return (best.num_errors == 0) & (best.num_samples == experiment.num_validation)

    is_held = goes_on & was_solved(run.best)

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
    evaluate = _evaluate_slice(experiment, state.params, seed, hyperparameters)
    total, stages = experiment.num_validation, experiment.validation_stages
    if stages:
        goes = run.status == Status.RUNNING
        found = validation.in_stages(evaluate, total, stages, run.best, goes)
    else:
        found = validation.on_first(evaluate, total, stages)
    improved = validation.is_better(found, run.best)
    best = _select(improved, Best(*found[1:]), run.best)
    solved = (found.num_errors == 0) & (found.num_samples == total)
    stale_evals = jnp.where(improved, 0, run.stale_evals + 1)
    patient = (limits.patience <= 0) | (stale_evals < limits.patience)
    # Evaluations since the best one: since the first without errors, once there is one.
    steps_since = stale_evals * experiment.eval_every
    waited = (status != Status.RUNNING) | (steps_since >= limits.steps_after_solved)
    is_held = goes_on & was_solved(best)
    ended = jnp.select(
        [
            is_held & waited,
            is_held,
            status != Status.RUNNING,
            solved,
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
        num_errors=found.num_errors,
        num_samples=found.num_samples,
        best=best,
        stale_evals=stale_evals,
    )
    count = jnp.maximum(jnp.sum(live), 1).astype(losses.dtype)
    check = Check(
        train_loss=jnp.sum(jnp.where(live, losses, 0)) / count, loss=found.loss
    )
    return _select(run.status == Status.RUNNING, new_run, run), check
