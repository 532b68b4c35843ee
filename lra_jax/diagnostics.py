"""Where a rule's errors point: what one update of a rule does, and how two compare.

`observe` asks a rule for one update and reads off the error that reached every step.
`compare` has the cosines between two updates of the same weights and inputs: those of a
rule and of BPTT, or those of a rule for true and for swapped labels.

All rules are treated alike, a user's own included, but for `hidden_errors` of rules
whose state has weights from the inputs: it knows those of `tptt` alone. Cosines and
norms are of arrays of any float type; errors of 1e-40 and less need float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lra_jax import error_signals, gradients, losses, numerics, rnn, types
from lra_jax.feedback import FeedbackWeights
from lra_jax.networks import Network, Stack
from lra_jax.networks.layer import project
from lra_jax.numerics import matmul
from lra_jax.rules.tptt import StateInverse
from lra_jax.tasks import Task

DECAY_STEPS = 5


class Update(NamedTuple):
    """What one update of a rule does.

    Attributes:
      errors: `[T, B, H]` qₜ, the error at hₜ; of another network than tanh `[T, B, C]`
        at what the inputs add. See `hidden_errors`.
      grads: what an optimizer would descend.
      info: what the rule reports.
      z: `[T, B, H]`, what the network emits in the forward pass.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> given = jax.random.key(2), params, lra_jax.EmptyState(), batch
      >>> update = lra_jax.diagnostics.observe(lra_jax.readout_only(), *given)
      >>> update.error_norm.shape, bool(update.error_norm.any())
      ((10,), False)
    """

    errors: jax.Array
    grads: Any  # like the weights
    info: Any  # `RuleInfo`, or `NetworkInfo` of another network than tanh
    z: jax.Array

    @property
    def error_norm(self) -> jax.Array:
        """`[T]` mean over the batch of ‖qₜ‖."""
        return jnp.mean(numerics.norm(self.errors, axis=-1)[..., 0], axis=-1)


class Cosines(NamedTuple):
    """Cosines between two updates; NaN where one of them is 0.

    Attributes:
      errors: `[T]` of qₜ, mean over the samples that have a cosine.
      w_hh_steps: `[T]` of mean_b zₜ₋₁ᵀ qₜ, which is step t's part of ∇W_hh for a layer
        of tanh, relu, leaky or lstm; NaN at t = 0, where z₋₁ is taken as 0.
      grads: `[]` each, of the whole gradient of each array.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> given = jax.random.key(2), params, lra_jax.EmptyState(), batch
      >>> frozen, exact = (
      ...     lra_jax.diagnostics.observe(rule, *given)
      ...     for rule in (lra_jax.readout_only(), lra_jax.bptt())
      ... )
      >>> cosines = lra_jax.diagnostics.compare(frozen, exact).grads
      >>> f"{cosines.w_hy:.3f} {cosines.w_hh}"
      '1.000 nan'
    """

    errors: jax.Array
    w_hh_steps: jax.Array
    grads: Any  # like the weights


def observe(
    rule: types.LearningRule,
    key: jax.Array,
    params: types.AnyParams,
    rule_state: Any,
    batch: types.Batch,
    *,
    network: Network = rnn.TANH,
) -> Update:
    """Asks a rule for an update, without making it.

    Args:
      rule: any rule.
      key: consumed, as by `rule.grads`.
      params: the weights.
      rule_state: the rule's state.
      batch: of any task.
      network: the rule's.

    Returns:
      The update, with the error of every step.

    Raises:
      ValueError: from the rule, where the batch does not fit; or of a network, see
        `hidden_errors`.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> given = jax.random.key(2), params, lra_jax.EmptyState(), batch
      >>> update = lra_jax.diagnostics.observe(lra_jax.lra_norm(activity=0.0), *given)
      >>> norm = update.error_norm  # the same at all steps
      >>> bool(jnp.allclose(norm, norm[-1], rtol=1e-5))
      True
    """
    grads, _, info = rule.grads(key, params, rule_state, batch)
    return Update(
        errors=hidden_errors(rule, key, params, rule_state, batch, network=network),
        grads=grads,
        info=info,
        z=rnn.forward(
            params,
            batch.inputs,
            start=batch.start,
            network=network,
            key=jax.random.fold_in(key, error_signals.NOISE),  # the rule's own noise
        ).z,
    )


def compare(update: Update, other: Update) -> Cosines:
    """The cosines between two updates of the same weights and inputs.

    Args:
      update: of one rule.
      other: of another rule, or of other labels.

    Returns:
      1 where both point the same way, 0 where they have nothing in common.

    Raises:
      ValueError: the updates have errors of different shapes.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> given = jax.random.key(2), params, lra_jax.EmptyState(), batch
      >>> ours, exact = (
      ...     lra_jax.diagnostics.observe(rule, *given)
      ...     for rule in (lra_jax.tpri(), lra_jax.bptt())
      ... )
      >>> cosines = lra_jax.diagnostics.compare(ours, exact).errors
      >>> f"{cosines[-1]:.3f}", bool(cosines[0] < 0.99)
      ('1.000', True)
    """
    if update.errors.shape != other.errors.shape:
        raise ValueError(
            f"other: expected an update of the same network and batch, with errors "
            f"{update.errors.shape}, got {other.errors.shape}"
        )
    steps = (
        matmul(jnp.swapaxes(gradients.previous(each.z), -1, -2), each.errors)
        / each.errors.shape[-2]
        for each in (update, other)
    )
    return Cosines(
        errors=jnp.nanmean(cosine(update.errors, other.errors), axis=-1),
        w_hh_steps=_matrix_cosine(*steps),
        grads=jax.tree.map(
            lambda a, b: cosine(a.reshape(-1), b.reshape(-1)), update.grads, other.grads
        ),
    )


def hidden_errors(
    rule: types.LearningRule,
    key: jax.Array,
    params: types.AnyParams,
    rule_state: Any,
    batch: types.Batch,
    *,
    network: Network = rnn.TANH,
) -> jax.Array:
    """qₜ `[T, B, C]`, the error at hₜ that a rule's update of W_xh descends.

    Every rule's gradient of W_xh is Σₜ mean_b xₜᵀ qₜ, which mixes samples and steps.
    Here every sample and step has a symbol of its own, whose row of the matrix is what
    xₜ W_xh was for it: the network computes the same as before, and the row's gradient
    is qₜ / B. Of BPTT this is ∂E_b/∂hₜ, of lra_diff ∂L_b/∂hₜ. Of the released code it
    is what reaches hₜ from the losses of all later steps, through the history: there a
    flow of errors does not mean that the local losses flow.

    Bounds on the norm of a step's weight gradient (c0) see another norm: with them the
    directions are right and the lengths are not. What a regulariser adds through the
    states is in q (λ aₜ₊₁ of Ω); what it adds to W_hh alone is not.

    Of `uoro`, whose random product has the norm of all weights in it, it is that of the
    rows, which do not add up to its own gradient of W_xh.

    Of another network it is the error at iₜ = xₜ W_xh + b, what the inputs add to a
    step, of all gates side by side; of a stack, at what they add to its first layer.

    Args:
      rule: any rule.
      key: consumed, as by `rule.grads`.
      params: the weights.
      rule_state: the rule's state.
      batch: of any task.
      network: the rule's.

    Returns:
      `[T, B, C]`, where `w_xh` is `[X, C]`.

    Raises:
      ValueError: the network's inputs do not reach it through a `w_xh` of this
        library's, or its `w_xh` is frozen.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> given = jax.random.key(2), params, lra_jax.EmptyState(), batch
      >>> lra_jax.diagnostics.hidden_errors(lra_jax.bptt(), *given).shape
      (10, 5, 8)
    """
    length, size = batch.inputs.shape[:2]
    rnn.check_inputs(params, batch.inputs, network)

    def rows(w: jax.Array) -> jax.Array:
        return project(w, batch.inputs).reshape(length * size, -1)

    symbols = jnp.arange(length * size, dtype=jnp.int32).reshape(length, size)
    # The inverse of `tptt` has input weights of its own.
    rule_state = jax.tree.map(
        lambda x: x._replace(u=rows(x.u)) if isinstance(x, StateInverse) else x,
        rule_state,
        is_leaf=lambda x: isinstance(x, StateInverse),
    )
    grads, _, _ = rule.grads(
        key,
        _with_w_xh(params, rows(_w_xh(params, network)), network),
        rule_state,
        batch._replace(inputs=symbols),
    )
    return size * _w_xh(grads, network).reshape(length, size, -1)


def _w_xh(params: types.AnyParams, network: Network) -> jax.Array:
    """The weights from the inputs, `[X, C]`.

    Raises:
      ValueError: they are none of this library's networks', or frozen.
    """
    cell = rnn.cell_of(params)
    frozen, first = network.is_frozen(cell), network
    while isinstance(first, Stack):
        cell, frozen, first = cell[0], frozen[0], first.layers[0]
    if not (first.takes_symbols and hasattr(cell, "w_xh")) or frozen.w_xh:
        raise ValueError(
            "network: expected tanh, relu, leaky, gru, lstm or a stack of them, whose "
            "w_xh is not frozen, as the errors are read off its gradient, "
            f"got {network.name}"
        )
    return cell.w_xh


def _with_w_xh(params: Any, w_xh: jax.Array, network: Network) -> Any:
    """The weights with others from the inputs."""

    def put(cell: Any, network: Network) -> Any:
        if isinstance(network, Stack):
            return (put(cell[0], network.layers[0]), *cell[1:])
        return cell._replace(w_xh=w_xh)

    if isinstance(params, types.NetworkParams):
        return params._replace(cell=put(params.cell, network))
    return params._replace(w_xh=w_xh)


def swap_labels(task: Task, labels: types.Labels) -> types.Labels:
    """Labels of the opposite meaning, of the same distribution.

    Of n equally likely classes 0 .. n-1 label y becomes n - 1 - y, which flips every
    bit: n = 1 / chance of tasks that draw (2 in random permutation, 4 and 8 in temporal
    order), and Y of recorded ones. A real label in [0, 1) becomes 1 - y.

    With a loss of every step class 0, to wait, stays as it is, and of the others 1 ..
    Y-1 y becomes Y - y; of two classes, 0 becomes 1 and 1 becomes 0. A 0 or 1 of a
    binary cross entropy becomes 1 - y, another real label -y. What asks nothing stays
    so.

    The cosine between a rule's gradients for true and for swapped labels says whether
    the rule knows the labels. A gradient that flows whatever the label is stays as it
    is: +1. One that knows the label turns: to -1/(Y-1), the cosine of π for two labels,
    while all Y classes are equally likely to the network (and H ≥ Y), towards -1 when
    it is left with two.

    Example:
      >>> task = lra_jax.TASKS["temporal_order"]
      >>> lra_jax.diagnostics.swap_labels(task, jnp.array([0, 1, 2, 3])).tolist()
      [3, 2, 1, 0]
    """
    if isinstance(labels, types.Weighted):
        return labels._replace(labels=_swap_steps(task, labels.labels))
    if task.output_loss.every_step:
        return jnp.where(labels < 0, labels, _swap_steps(task, labels))
    if jnp.issubdtype(labels.dtype, jnp.integer):
        num_classes = task.output_size
        if task.validation is None and task.chance > 0:
            num_classes = min(num_classes, round(1 / task.chance))
        return num_classes - 1 - labels
    return 1 - labels


def _swap_steps(task: Task, labels: jax.Array) -> jax.Array:
    if jnp.issubdtype(labels.dtype, jnp.integer):
        if task.output_size == 2:
            return 1 - labels
        return jnp.where(labels > 0, task.output_size - labels, labels)
    if task.output_loss == losses.binary_cross_entropy_every_step:
        return 1 - labels
    return -labels


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine over the last axis, at every scale; NaN where a vector is 0.

    Example:
      >>> a = jnp.array([[3.0, 4.0], [0.0, 0.0]])
      >>> lra_jax.diagnostics.cosine(1e-25 * a, a[:1]).round(3).tolist()
      [1.0, nan]
    """
    unit_a, unit_b = (x / numerics.norm(x, axis=-1) for x in (a, b))
    return jnp.sum(unit_a * unit_b, axis=-1)


def _matrix_cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine of matrices `[..., I, J]`, as vectors."""
    return cosine(*(x.reshape(*x.shape[:-2], -1) for x in (a, b)))


def decay(values: np.ndarray, num_steps: int = DECAY_STEPS) -> np.ndarray:
    """Decades that a positive quantity falls per step back in time.

    The slope of the line through log₁₀ of the last `num_steps` steps (fewer if T is
    less) by least squares. Steps with 0 are left out, which makes less of a decay that
    ends there: `vanished` counts them.

    Args:
      values: `[..., T]`, such as local losses or norms of errors.
      num_steps: how many, at least 2.

    Returns:
      `[...]`, NaN with fewer than two positive values.

    Raises:
      ValueError: fewer than two steps are asked for.

    Example:
      >>> norm = jnp.array([1e-4, 1e-2, 1.0])
      >>> round(lra_jax.diagnostics.decay(norm).item(), 3)
      2.0
    """
    if num_steps < 2:
        raise ValueError(f"num_steps: expected at least 2, got {num_steps}")
    top = np.asarray(values)[..., -num_steps:]
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

    Example:
      >>> lra_jax.diagnostics.vanished(jnp.array([0.0, 0.0, 1e-20, 1.0])).item()
      1.0
    """
    values = np.asarray(local_loss)
    count = np.sum(values[..., 1:] == 0, axis=-1)
    return np.where(np.isfinite(values).all(axis=-1), count, np.nan)


class FeedbackError(NamedTuple):
    """How far feedback weights are from the transposed forward weights.

    Attributes:
      relative: `[]` ‖A - Wᵀ‖ / ‖W‖.
      cosine: `[]` of A and Wᵀ.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> state = lra_jax.FeedbackWeights(e_y=2 * params.w_hy.T)
      >>> _, readout = lra_jax.diagnostics.feedback_errors(state, params)
      >>> f"{readout.relative:.3f}, {readout.cosine:.3f}"
      '1.000, 1.000'
    """

    relative: jax.Array
    cosine: jax.Array


def feedback_errors(
    state: FeedbackWeights, params: types.AnyParams, network: Network = rnn.TANH
) -> tuple[tuple[FeedbackError, ...], FeedbackError | None]:
    """How far a rule's feedback weights are from the transposed forward weights.

    Args:
      state: of a rule with feedback weights, `state.rule_state` of a `TrainState`.
      params: the forward weights.
      network: whose weights they are.

    Returns:
      Of each recurrent matrix, () where these are transposed; and of the readout, None
      where it is.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> rule = lra_jax.lra_norm(feedback="mirror")
      >>> state = rule.init(jax.random.key(1), params)
      >>> (recurrent,), _ = lra_jax.diagnostics.feedback_errors(state, params)
      >>> bool(abs(recurrent.cosine) < 0.5)
      True
    """

    def beside(a: jax.Array, w: jax.Array) -> FeedbackError:
        """A `[C, H]` beside W `[H, C]`."""
        off, size = (numerics.norm(x.ravel(), axis=-1)[0] for x in (a - w.T, w))
        return FeedbackError(
            off / jnp.where(size == 0, 1, size), _matrix_cosine(a, w.T)
        )

    recurrent: tuple[FeedbackError, ...] = ()
    if state.a is not None:
        matrices = state.a if isinstance(state.a, tuple) else (state.a,)
        weights = network.recurrent(rnn.cell_of(params))
        recurrent = tuple(map(beside, matrices, weights))
    return recurrent, None if state.e_y is None else beside(state.e_y, params.w_hy)
