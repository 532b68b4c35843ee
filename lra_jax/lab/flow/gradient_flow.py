"""How far errors travel back in time: what Figures 2-4 of the paper show, and why.

A rule is trained with several seeds at once, and at regular intervals is asked for
everything that it would do next: the local losses and norms of its `RuleInfo`, and
three things that the paper does not show, which tell a flow that teaches from one that
is only large:

- the **cosine to BPTT** of its gradients, per time step and summed over t;
- the **decay** of the local loss, in decades per step back from the top;
- the **label swap**: the cosine between its gradients for the true and for swapped
  labels. A gradient that flows whatever the label is stays as it is: +1. One that knows
  the label turns: to -1/(Y-1), the cosine of π for two labels, while all Y classes are
  equally likely to the network (and H ≥ Y), towards -1 when it is left with two.

All rules are treated alike. The error at hₜ of any rule is read off its gradient with
respect to xₜ W_xh: see `hidden_errors`. How far the errors themselves keep their size
is their norm in units of the last step's.
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

from lra_jax import RULES, TASKS, Task, bptt, gradients, member, numerics, rnn, types
from lra_jax.lab.config.optimizers import OPTIMIZERS
from lra_jax.lab.reports.statistics import finite_mean_interval
from lra_jax.train import train_step

Row = dict[str, Any]

# Columns of `table` per time step. Of magnitudes the mean over seeds is geometric, and
# the interval that of log₁₀.
MAGNITUDES = ("local_loss", "target_step_norm", "w_hh_grad_norm", "w_xh_grad_norm")
COSINES = ("error_cosine", "w_hh_cosine", "error_label_swap")
# Columns of `table` for the whole network.
SUMS = ("w_hh_sum_cosine", "w_xh_sum_cosine", "w_hh_label_swap", "w_xh_label_swap")
WHOLE = ("loss", "accuracy", "decay", *SUMS)
COLUMNS = (*MAGNITUDES, *COSINES, *WHOLE)
# A magnitude too, which the paper's figures do not have: ‖qₜ‖ / ‖q_{T-1}‖.
RELATIVE_NORM = "relative_error_norm"
DECAY_STEPS = 5


@dataclasses.dataclass(frozen=True)
class Setting:
    """A learning rule with its hyper-parameters, and a name for figures.

    Attributes:
      name: as figures and tables call it.
      rule: a name of `lra_jax.RULES`.
      options: keyword arguments of the rule, without `output_loss`.
      lr: learning rate.
      optimizer: a name of `experiments.optimizers.OPTIMIZERS`.
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
        `hidden_errors`.
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
    info: types.RuleInfo
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
        """A column of `table`, for each seed: `[S, R, T]`, or `[S, R]` if of `WHOLE`.

        None where it has no meaning for the rule.
        """
        if name == "decay":
            loss = self.seen.info.local_loss
            return None if loss is None else decay(np.asarray(loss))
        if name == RELATIVE_NORM:
            norm = np.asarray(self.seen.error_norm)
            last = norm[..., -1:]
            return norm / np.where(last > 0, last, np.nan)
        holder = self.seen.info if name in MAGNITUDES else self.seen
        values = getattr(holder, name)
        return None if values is None else np.asarray(values)


def hidden_errors(
    rule: types.LearningRule,
    key: jax.Array,
    params: types.Params,
    rule_state: Any,
    batch: types.Batch,
) -> jax.Array:
    """qₜ `[T, B, H]`, the error at hₜ that a rule's update of W_xh descends.

    Every rule's gradient of W_xh is Σₜ mean_b xₜᵀ qₜ, which mixes samples and steps.
    Here every sample and step has a symbol of its own, whose row of the matrix is what
    xₜ W_xh was for it: the network computes the same as before, and the row's gradient
    is qₜ / B. Of BPTT this is ∂E_b/∂hₜ, of lra_diff ∂L_b/∂hₜ. Of the released code it
    is what reaches hₜ from the losses of all later steps, through the history: there a
    flow of errors does not mean that the local losses flow.

    Bounds on the norm of a step's weight gradient (c0) see another norm: with them the
    directions are right and the lengths are not. What a regulariser adds through the
    states is in q (λ aₜ₊₁ of Ω); what it adds to W_hh alone is not.

    Args:
      rule: any rule.
      key: consumed, as by `rule.grads`.
      params: the weights.
      rule_state: the rule's state.
      batch: of any task.
    """
    length, size = batch.inputs.shape[:2]
    no_bias = params._replace(b_h=jnp.zeros_like(params.b_h))
    rows = rnn.project_inputs(no_bias, batch.inputs)
    symbols = jnp.arange(length * size, dtype=jnp.int32).reshape(length, size)
    grads, _, _ = rule.grads(
        key,
        params._replace(w_xh=rows.reshape(length * size, -1)),
        rule_state,
        batch._replace(inputs=symbols),
    )
    return size * grads.w_xh.reshape(length, size, -1)


def swap_labels(task: Task, labels: jax.Array) -> jax.Array:
    """Labels of the opposite meaning, of the same distribution.

    Of n equally likely classes 0 .. n-1 (n = 1 / chance: 2 in random permutation, 4
    and 8 in temporal order) label y becomes n - 1 - y, which flips every bit. A real
    label in [0, 1) becomes 1 - y.
    """
    if jnp.issubdtype(labels.dtype, jnp.integer):
        return round(1 / task.chance) - 1 - labels
    return 1 - labels


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine over the last axis, at every scale; NaN where a vector is 0."""
    unit_a, unit_b = (x / numerics.norm(x, axis=-1) for x in (a, b))
    return jnp.sum(unit_a * unit_b, axis=-1)


def decay(local_loss: np.ndarray, num_steps: int = DECAY_STEPS) -> np.ndarray:
    """Decades that the local loss falls per step back in time.

    The slope of the line through log₁₀ Lₜ of the top `num_steps` steps (fewer if T is
    less) by least squares. Steps with Lₜ = 0 are left out, which makes less of a decay
    that ends there: `vanished` counts them.

    Args:
      local_loss: `[..., T]`.
      num_steps: how many.

    Returns:
      `[...]`, NaN with fewer than two positive losses.
    """
    top = local_loss[..., -num_steps:]
    used = top > 0
    count = np.sum(used, axis=-1)
    height = np.log10(np.where(used, top, 1))
    time = np.broadcast_to(np.arange(top.shape[-1]), top.shape)
    mean = np.sum(time * used, axis=-1) / np.maximum(count, 1)
    offset = (time - mean[..., None]) * used
    slope = np.sum(offset * height, axis=-1)
    spread = np.sum(offset**2, axis=-1)
    return np.where(count >= 2, slope / np.where(spread > 0, spread, 1), np.nan)


def vanished(local_loss: np.ndarray) -> np.ndarray:
    """`[..., T]` to `[...]`, number of steps t ≥ 1 whose local loss is exactly 0.

    NaN where a local loss is not finite.
    """
    count = np.sum(local_loss[..., 1:] == 0, axis=-1)
    return np.where(np.isfinite(local_loss).all(axis=-1), count, np.nan)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What all seeds of a setting have in common: one compiled program."""

    rule: types.LearningRule
    optimizer: optax.GradientTransformation
    experiment: member.Experiment


def _make_run(
    setting: Setting,
    task: str,
    seq_len: int,
    hidden_size: int,
    batch_size: int,
    num_validation: int,
    dtype: str,
) -> _Run:
    found = jnp.zeros(()).dtype
    if found != dtype:
        raise ValueError(
            f"dtype: JAX works in {found} here, asked for {dtype}; "
            "set jax_enable_x64 before"
        )
    chosen = TASKS[task]
    rule = RULES[setting.rule](**setting.options, output_loss=chosen.output_loss)
    optimizer = OPTIMIZERS[setting.optimizer](
        lr=setting.lr, **setting.optimizer_options
    )
    experiment = member.Experiment(
        task=chosen,
        build=lambda _: (rule, optimizer),
        seq_len=seq_len,
        hidden_size=hidden_size,
        batch_size=batch_size,
        num_validation=num_validation,
    )
    return _Run(rule, optimizer, experiment)


def _start(
    run: _Run, seed: jax.Array, params: types.Params | None = None
) -> types.TrainState:
    """The state of the seed's member before its first update, or of other weights."""
    initial = member.initial(run.experiment, seed)
    if params is not None:
        initial = initial._replace(params=params)
    return member.start(run.experiment, {}, seed, initial).train


def _batch(run: _Run, seed: jax.Array, step: jax.Array) -> types.Batch:
    """The training batch of an update.

    Streams are those of `lra_jax.member`: `fold_in(key(seed), 1)` for data, then
    `fold_in(stream, step)`. A test compares them.
    """
    stream = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), 1)
    experiment = run.experiment
    return experiment.task.sample(
        jax.random.fold_in(stream, step), experiment.batch_size, experiment.seq_len
    )


def _advance(
    run: _Run, seed: jax.Array, state: types.TrainState, num_steps: ArrayLike
) -> types.TrainState:
    """The state after `num_steps` updates."""

    def update(_: Any, state: types.TrainState) -> types.TrainState:
        batch = _batch(run, seed, state.step)
        return train_step(state, batch, rule=run.rule, optimizer=run.optimizer)[0]

    return lax.fori_loop(0, num_steps, update, state)


class _Both(NamedTuple):
    """Gradients for the true labels (index 0) and for swapped ones (index 1)."""

    grads: types.Params  # [2, ...]
    info: types.RuleInfo  # [2, ...]


def _gradients(run: _Run, state: types.TrainState, batch: types.Batch) -> _Both:
    """What the next update would descend, and what it would with swapped labels."""
    key = jax.random.fold_in(state.key, state.step)

    def of(labels: jax.Array) -> _Both:
        grads, _, info = run.rule.grads(
            key, state.params, state.rule_state, batch._replace(labels=labels)
        )
        return _Both(grads, info)

    swapped = swap_labels(run.experiment.task, batch.labels)
    return jax.vmap(of)(jnp.stack([batch.labels, swapped]))


def _observe(run: _Run, seed: jax.Array, state: types.TrainState) -> Observation:
    """What the rule would do next."""
    task = run.experiment.task
    batch = _batch(run, seed, state.step)
    key = jax.random.fold_in(state.key, state.step)
    exact = bptt(output_loss=task.output_loss)

    def errors(labels: jax.Array) -> jax.Array:
        given = batch._replace(labels=labels)
        return hidden_errors(run.rule, key, state.params, state.rule_state, given)

    grads, info = _gradients(run, state, batch)
    exact_grads, _, _ = exact.grads(key, state.params, types.EmptyState(), batch)
    exact_q = hidden_errors(exact, key, state.params, types.EmptyState(), batch)
    swapped_labels = swap_labels(task, batch.labels)
    q, swapped_q = jax.vmap(errors)(jnp.stack([batch.labels, swapped_labels]))
    z_prev = gradients.previous(rnn.forward(state.params, batch.inputs).z)
    w_hh, exact_w_hh = (
        jax.vmap(gradients.mean_outer)(z_prev, errors) for errors in (q, exact_q)
    )
    metrics = member.validate(run.experiment, state.params, seed)
    return Observation(
        loss=info.loss[0],
        accuracy=1 - metrics.num_errors / run.experiment.num_validation,
        info=jax.tree.map(lambda x: x[0], info),
        error_cosine=jnp.nanmean(cosine(q, exact_q), axis=1),
        error_norm=jnp.mean(numerics.norm(q, axis=-1)[..., 0], axis=1),
        w_hh_cosine=_matrix_cosine(w_hh, exact_w_hh),
        error_label_swap=jnp.nanmean(cosine(q, swapped_q), axis=1),
        w_hh_sum_cosine=_matrix_cosine(grads.w_hh[0], exact_grads.w_hh),
        w_xh_sum_cosine=_matrix_cosine(grads.w_xh[0], exact_grads.w_xh),
        w_hh_label_swap=_matrix_cosine(*grads.w_hh),
        w_xh_label_swap=_matrix_cosine(*grads.w_xh),
    )


def _matrix_cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine of matrices `[..., I, J]`, as vectors."""
    return cosine(*(x.reshape(*x.shape[:-2], -1) for x in (a, b)))


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

        return lax.scan(interval, _start(run, seed), jnp.asarray(counts))[1]

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
        state = _start(run, seed, params)
        if num_steps:
            state = _advance(run, seed, state, num_steps)
        grads, _ = _gradients(run, state, _batch(run, seed, state.step))
        return jax.tree.map(lambda both: cosine(*both.reshape(2, -1)), grads)

    found = jax.jit(jax.vmap(measure))(jnp.asarray(seeds, jnp.int32), params)
    return LabelSwap(np.asarray(found.w_xh), np.asarray(found.w_hh))


def mean_and_interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """Mean over seeds and half-width of its 95 % interval, of the finite values.

    None for a mean of none, and for an interval of fewer than two.
    """
    return finite_mean_interval(values)


def _magnitude(values: np.ndarray) -> tuple[float | None, float | None]:
    """Geometric mean over seeds, and the half-width of the interval of its log₁₀.

    A magnitude of 0 in any seed makes the mean 0.
    """
    if np.any(values == 0):
        return 0.0, None
    # A seed that diverged has left NaN.
    mean, half_width = mean_and_interval(np.log10(values))
    return None if mean is None else 10**mean, half_width


def table(
    recordings: Sequence[Recording], columns: Sequence[str] = COLUMNS
) -> list[Row]:
    """Columns over seeds: a row per setting, step and t, and one without t.

    Rows whose t is None have those of `WHOLE`, rows with t have the others, each with
    its 95 % interval in `..._interval` (`..._log10_interval` of magnitudes). What has
    no meaning is None.
    """
    rows = []
    for recording in recordings:
        for index, step in enumerate(recording.steps):
            for t in (None, *range(recording.seq_len)):
                row: Row = {
                    "setting": recording.setting.name,
                    "rule": recording.setting.rule,
                    "step": int(step),
                    "t": t,
                }
                for name in columns:
                    values = recording.values(name)
                    mean = half_width = None
                    if values is not None and (name in WHOLE) == (t is None):
                        at = values[:, index] if t is None else values[:, index, t]
                        average = (
                            _magnitude if is_magnitude(name) else mean_and_interval
                        )
                        mean, half_width = average(at)
                    row[name] = mean
                    row[interval_name(name)] = half_width
                rows.append(row)
    return rows


def is_magnitude(name: str) -> bool:
    """Whether means over seeds of a column are geometric."""
    return name in (*MAGNITUDES, RELATIVE_NORM)


def interval_name(name: str) -> str:
    """The column of `table` with the interval of another column."""
    return name + ("_log10_interval" if is_magnitude(name) else "_interval")


def summary(recordings: Sequence[Recording]) -> list[Row]:
    """A row per setting: its first and last observation, mean and 95 % interval.

    `diverged` counts the seeds whose loss is not finite at the end. Their accuracy is
    0, and the other means at the end are over the seeds that are left.

    `decades` is the decay per step, `vanished` the mean number of steps t ≥ 1 whose
    local loss is exactly 0, `span_...` the decades of a norm between t = T-1 and t = 1
    (positive: smaller at t = 1; None where one of them is 0).
    """
    rows = []
    for recording in recordings:
        setting = recording.setting
        row: Row = {
            "setting": setting.name,
            "rule": setting.rule,
            "options": ", ".join(f"{k}={v}" for k, v in setting.options.items()),
            "lr": setting.lr,
            "task": recording.task,
            "seq_len": recording.seq_len,
            "updates": int(recording.steps[-1]),
            "seeds": len(recording.seeds),
            "diverged": int(np.sum(recording.diverged)),
        }
        for when, index in (("init", 0), ("end", -1)):
            local_loss = recording.values("local_loss")
            columns = {
                "decades": recording.values("decay"),
                "vanished": None if local_loss is None else vanished(local_loss),
            }
            for name in ("w_hh_grad_norm", "w_xh_grad_norm"):
                norms = recording.values(name)
                columns[f"span_{name}"] = None if norms is None else _span(norms)
            for name in (*SUMS, "loss", "accuracy"):
                columns[name] = recording.values(name)
            for name, values in columns.items():
                mean = half_width = None
                if values is not None:
                    mean, half_width = mean_and_interval(values[:, index])
                row[f"{name}_{when}"] = mean
                row[f"{name}_{when}_interval"] = half_width
        rows.append(row)
    return rows


def _span(norms: np.ndarray) -> np.ndarray:
    """Decades between t = T-1 and t = 1 of `[..., T]`; NaN where one is 0."""
    first, last = norms[..., min(1, norms.shape[-1] - 1)], norms[..., -1]
    positive = (first > 0) & (last > 0)
    ratio = np.where(positive, last, 1) / np.where(positive, first, 1)
    return np.where(positive, np.log10(ratio), np.nan)
