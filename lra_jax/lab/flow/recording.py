"""How far errors travel back in time: recorded as a rule learns, for Figures 2-4.

A rule is trained with several seeds at once, and at regular intervals is asked for
everything that it would do next: the local losses and norms of its `RuleInfo`, and
three things that the paper does not show, which tell a flow that teaches from one that
is only large (`lra_jax.diagnostics` measures them):

- the **cosine to BPTT** of its gradients, per time step and summed over t;
- the **decay** of the local loss, in decades per step back from the top;
- the **label swap**: the cosine between its gradients for the true and for swapped
  labels.

How far the errors themselves keep their size is their norm in units of the last step's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.typing import ArrayLike

from lra_jax import RULES, TASKS, bptt, diagnostics, member, types
from lra_jax.experiment import Experiment
from lra_jax.lab.config.optimizers import OPTIMIZERS
from lra_jax.train import train_step

# Of `RuleInfo`, per time step.
MAGNITUDES = ("local_loss", "target_step_norm", "w_hh_grad_norm", "w_xh_grad_norm")
# A magnitude too, which the paper's figures do not have: ‖qₜ‖ / ‖q_{T-1}‖.
RELATIVE_NORM = "relative_error_norm"


@dataclasses.dataclass(frozen=True)
class Setting:
    """A learning rule with its hyper-parameters, and a name for figures.

    Attributes:
      name: as figures and tables call it.
      rule: a name of `lra_jax.RULES`.
      options: keyword arguments of the rule, without `output_loss`.
      lr: learning rate.
      optimizer: a name of `lra_jax.lab.config.optimizers.OPTIMIZERS`.
      optimizer_options: keyword arguments of the optimizer, without `lr`.
    """

    name: str
    rule: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    lr: float = 0.1
    optimizer: str = "sgd"
    optimizer_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Observation(NamedTuple):
    """What a rule would do next, at one point of training.

    A recording stacks these, with axes `[S, R]` in front: seeds and points. Every
    cosine is NaN where a vector is 0.

    Attributes:
      loss: `[]` E of the training batch, before the update.
      accuracy: `[]` fraction that is right of the fixed validation set.
      info: of the rule, for that batch; fields without a meaning are None.
      error_cosine: `[T]` mean over the batch of cos(qₜ, BPTT's qₜ), see
        `diagnostics.hidden_errors`.
      error_norm: `[T]` mean over the batch of ‖qₜ‖.
      w_hh_cosine: `[T]` cosine of zₜ₋₁ᵀ qₜ to BPTT's; NaN at t = 0, where z₋₁ = 0.
      error_label_swap: `[T]` mean over the batch of cos(qₜ, qₜ for swapped labels).
      w_hh_sum_cosine: `[]` cosine of the whole gradient of W_hh to BPTT's.
      w_xh_sum_cosine: `[]` the same for W_xh.
      w_hh_label_swap: `[]` cosine of the whole gradient of W_hh to that for swapped
        labels.
      w_xh_label_swap: `[]` the same for W_xh.
    """

    loss: Any
    accuracy: Any
    info: types.RuleInfo | types.NetworkInfo
    error_cosine: Any
    error_norm: Any
    w_hh_cosine: Any
    error_label_swap: Any
    w_hh_sum_cosine: Any
    w_xh_sum_cosine: Any
    w_hh_label_swap: Any
    w_xh_label_swap: Any


@dataclasses.dataclass(frozen=True)
class Recording:
    """The observations of one setting, NumPy arrays `[S, R, ...]`.

    Attributes:
      setting: what was trained.
      task: a name of `lra_jax.TASKS`.
      seq_len: T.
      seeds: `[S]`.
      steps: `[R]`, updates done at each observation; the first is 0.
      seen: stacked observations.
    """

    setting: Setting
    task: str
    seq_len: int
    seeds: np.ndarray
    steps: np.ndarray
    seen: Observation

    @property
    def diverged(self) -> np.ndarray:
        """`[S]` bool, whether the loss is no longer finite at the end."""
        return ~np.isfinite(self.seen.loss[:, -1])

    def values(self, name: str) -> np.ndarray | None:
        """A column of `tables.by_step`, for each seed: `[S, R, T]`, or `[S, R]`.

        None where it has no meaning for the rule.
        """
        if name == "decay":
            loss = self.seen.info.local_loss
            return None if loss is None else diagnostics.decay(np.asarray(loss))
        if name == RELATIVE_NORM:
            norm = np.asarray(self.seen.error_norm)
            last = norm[..., -1:]
            return norm / np.where(last > 0, last, np.nan)
        holder = self.seen.info if name in MAGNITUDES else self.seen
        values = getattr(holder, name)
        return None if values is None else np.asarray(values)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What all seeds of a setting have in common: one compiled program."""

    rule: types.LearningRule
    optimizer: optax.GradientTransformation
    experiment: Experiment


def _make_run(
    setting: Setting,
    task: str,
    seq_len: int,
    hidden_size: int,
    batch_size: int,
    num_validation: int,
    dtype: str,
) -> _Run:
    default = jnp.zeros(()).dtype
    if default != dtype:
        raise ValueError(
            f"dtype: JAX works in {default} here, asked for {dtype}; "
            "set jax_enable_x64 before"
        )
    chosen = TASKS[task]
    rule = RULES[setting.rule](**setting.options, output_loss=chosen.output_loss)
    optimizer = OPTIMIZERS[setting.optimizer](
        lr=setting.lr, **setting.optimizer_options
    )
    experiment = Experiment(
        task=chosen,
        build=lambda _: (rule, optimizer),
        seq_len=seq_len,
        hidden_size=hidden_size,
        batch_size=batch_size,
        num_validation=num_validation,
    )
    return _Run(rule, optimizer, experiment)


def _advance(
    run: _Run, seed: jax.Array, state: types.TrainState, num_steps: ArrayLike
) -> types.TrainState:
    """The state after `num_steps` updates."""

    def update(_: Any, state: types.TrainState) -> types.TrainState:
        batch = member.draw_batch(run.experiment, seed, state.step)
        return train_step(state, batch, rule=run.rule, optimizer=run.optimizer)[0]

    return lax.fori_loop(0, num_steps, update, state)


def _observe_both(
    run: _Run, state: types.TrainState, batch: types.Batch
) -> tuple[diagnostics.Update, diagnostics.Update]:
    """The next update, and what it would be with swapped labels."""
    key = jax.random.fold_in(state.key, state.step)

    def of(labels: types.Labels) -> diagnostics.Update:
        labelled = batch._replace(labels=labels)
        return diagnostics.observe(
            run.rule, key, state.params, state.rule_state, labelled
        )

    swapped = diagnostics.swap_labels(run.experiment.task, batch.labels)
    labels = jax.tree.map(lambda *each: jnp.stack(each), batch.labels, swapped)
    both = jax.vmap(of)(labels)
    first, second = (jax.tree.map(lambda x, i=i: x[i], both) for i in (0, 1))
    return first, second


def _observe(run: _Run, seed: jax.Array, state: types.TrainState) -> Observation:
    """What the rule would do next."""
    batch = member.draw_batch(run.experiment, seed, state.step)
    exact = diagnostics.observe(
        bptt(output_loss=run.experiment.task.output_loss),
        jax.random.fold_in(state.key, state.step),
        state.params,
        types.EmptyState(),
        batch,
    )
    update, swapped = _observe_both(run, state, batch)
    to_bptt = diagnostics.compare(update, exact)
    to_swapped = diagnostics.compare(update, swapped)
    metrics = member.validate(run.experiment, state.params, seed)
    return Observation(
        loss=update.info.loss,
        accuracy=1 - metrics.num_errors / run.experiment.num_validation,
        info=update.info,
        error_cosine=to_bptt.errors,
        error_norm=update.error_norm,
        w_hh_cosine=to_bptt.w_hh_steps,
        error_label_swap=to_swapped.errors,
        w_hh_sum_cosine=to_bptt.grads.w_hh,
        w_xh_sum_cosine=to_bptt.grads.w_xh,
        w_hh_label_swap=to_swapped.grads.w_hh,
        w_xh_label_swap=to_swapped.grads.w_xh,
    )


def record(
    setting: Setting,
    *,
    task: str,
    seq_len: int,
    seeds: Sequence[int],
    num_steps: int,
    every: int,
    hidden_size: int = 100,
    batch_size: int = 20,
    num_validation: int = 1000,
    dtype: str = "float64",
) -> Recording:
    """Trains all seeds as one computation, and observes them as they learn.

    A seed sees the initial weights, batches and validation set that it has in a grid
    (`lra_jax.member`) of the same dtype. Nothing ends a run: a solved one goes on, and
    one that diverged stays not finite.

    Args:
      setting: what to train.
      task: a name of `lra_jax.TASKS`.
      seq_len: T.
      seeds: one run each.
      num_steps: updates.
      every: updates between two observations; divides `num_steps`.
      hidden_size: H.
      batch_size: B.
      num_validation: samples behind `accuracy`.
      dtype: of weights and arithmetic. The caller sets `jax_enable_x64`; this is
        checked. Local losses of 1e-40 and less need float64.

    Raises:
      ValueError: another dtype, or `every` does not divide `num_steps`.
    """
    if every < 1 or num_steps < 0 or num_steps % every:
        raise ValueError(f"every: {every} does not divide num_steps = {num_steps}")
    run = _make_run(
        setting, task, seq_len, hidden_size, batch_size, num_validation, dtype
    )
    counts = np.full(num_steps // every + 1, every, np.int32)
    counts[0] = 0

    def train(seed: jax.Array) -> Observation:
        def interval(
            state: types.TrainState, count: jax.Array
        ) -> tuple[types.TrainState, Observation]:
            state = _advance(run, seed, state, count)
            return state, _observe(run, seed, state)

        first = member.first_state(run.experiment, {}, seed)
        return lax.scan(interval, first, jnp.asarray(counts))[1]

    seen = jax.jit(jax.vmap(train))(jnp.asarray(seeds, jnp.int32))
    return Recording(
        setting=setting,
        task=task,
        seq_len=seq_len,
        seeds=np.asarray(seeds),
        steps=np.cumsum(counts),
        seen=jax.tree.map(np.asarray, seen),
    )


class LabelSwap(NamedTuple):
    """Cosines between gradients for true and for swapped labels, one per seed.

    NaN where a rule leaves a matrix alone, as `readout_only` does.
    """

    w_xh: np.ndarray  # [S]
    w_hh: np.ndarray  # [S]


def label_swap(
    setting: Setting,
    *,
    task: str,
    seq_len: int,
    seeds: Sequence[int],
    params: types.Params | None = None,
    num_steps: int = 0,
    hidden_size: int = 100,
    batch_size: int = 20,
    dtype: str = "float64",
) -> LabelSwap:
    """Whether a rule's hidden gradients know the labels: +1 is not at all.

    Untrained, BPTT has about -1/(Y-1): compare with its row, not with -1.

    Args:
      setting: the rule.
      task: a name of `lra_jax.TASKS`.
      seq_len: T.
      seeds: a batch each, and initial weights unless given.
      params: weights `[S, ...]`; None are the seeds' initial ones.
      num_steps: updates before the measurement, on the batch after them.
      hidden_size: H.
      batch_size: B.
      dtype: see `record`.

    Raises:
      ValueError: another dtype.
    """
    run = _make_run(setting, task, seq_len, hidden_size, batch_size, 1, dtype)

    def measure(seed: jax.Array, params: types.Params | None) -> types.Params:
        state = member.first_state(run.experiment, {}, seed, params)
        if num_steps:
            state = _advance(run, seed, state, num_steps)
        both = _observe_both(
            run, state, member.draw_batch(run.experiment, seed, state.step)
        )
        return diagnostics.compare(*both).grads

    cosines = jax.jit(jax.vmap(measure))(jnp.asarray(seeds, jnp.int32), params)
    return LabelSwap(np.asarray(cosines.w_xh), np.asarray(cosines.w_hh))
