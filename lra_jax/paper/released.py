"""The authors' released code, as it behaves: the audit's rule. Do not train with it.

The paper's experiments come with a program that departs from the paper's algorithm in
twenty-one points. `lra_diff` is the algorithm. This package is the program, written
anew from a description of what it computes, so that a published number can be traced to
the one or to the other. docs/reproduction.md lists the points; those that show in a
gradient are named where they happen, as (1), (2), ... of that list.

With T steps, the program descends for each l = T-1 .. 1 the total derivative of a local
loss Λₗ through the network's whole history:

    Λ_{T-1} = φ( z_{T-1}, tanh(h_{T-1} - D_{T-1}) )
    Λₗ      = φ( zₗ₊₁, tanh( tanh(hₗ - Dₗ) W_hh + xₗ₊₁ W_xh + b_h ) )         l < T-1

φ(p, q) is the mean of ℓ(p - q) over all B·H entries, and Dₗ = hₗ - h̄ₗ, what K target
steps have moved, the only constant. Derivatives are in closed form. Differences are
taken as the program takes them: what float32 loses there is part of the behaviour.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from lra_jax import (
    devices,
    gradients,
    losses,
    networks,
    numerics,
    refinements,
    rnn,
    settings,
    types,
)
from lra_jax.networks import Network
from lra_jax.numerics import matmul
from lra_jax.paper.arithmetic import PROGRAM_LOSSES, Numbers
from lra_jax.paper.hidden_layer import (
    HiddenGradients,
    hidden_residuals,
    weight_gradients,
)
from lra_jax.paper.output_layer import (
    bounded_readout_gradients,
    program_top_target,
    softmax_then_log,
)
from lra_jax.rules import arguments, card


class Released(NamedTuple):
    """What the released code computes of one batch.

    l is a step t; the program has no part for l = 0 (12), where all values are 0.

    Attributes:
      grads: what the program's optimizer gets.
      loss: `[]` E of the network.
      target_loss: `[]` E at the target of h_{T-1}, after K steps: what the program
        reports as its global loss (16).
      local_loss: `[T]` Λₗ. Below the top it is the residual of zₗ₊₁, not of zₗ (4).
      target_step_norm: `[T]` mean over the batch of ‖Δhₜ‖, the last target step, which
        the program does not record (18).
      w_hh_grad_norm: `[T]` Frobenius norm of step l's part of the gradient.
      w_xh_grad_norm: `[T]` the same for W_xh.
      b_h_grad_norm: `[T]` the same for b_h.
    """

    grads: types.Params
    loss: jax.Array
    target_loss: jax.Array
    local_loss: jax.Array
    target_step_norm: jax.Array
    w_hh_grad_norm: jax.Array
    w_xh_grad_norm: jax.Array
    b_h_grad_norm: jax.Array


def lra_released(
    *,
    gamma: ArrayLike,
    num_refinements: settings.Count = 1,
    lambda_: ArrayLike = 0.0,
    c: ArrayLike = 0.0,
    local_loss: Literal["mse", "log_penalty"] = "mse",
    descend_local_loss: bool = True,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
) -> types.LearningRule:
    """The authors' released code as a rule, for the audit: do not train with it.

    It is not local, its errors shrink doubly exponentially from step to step, and with
    λ > 0 float32 may make NaN of the first update; docs/reproduction.md says why.
    `lra_diff` is the algorithm of the paper.

    E and the local losses carry 1/B here (3): **gamma is B times that of `lra_diff`**.
    An update costs time in T² and memory in T²BH, as every step's error goes through
    all of the past.

    Args:
      gamma: γ of the program, size of a target's step.
      num_refinements: K ≥ 1, steps per target.
      lambda_: λ, weight of Ω in targets, W_xh and W_hy. A plain Python 0 leaves Ω out
        of the compiled program; a traced 0 gives the same numbers. Ω needs B ≤ H (6).
      c: bound of norms, one for Δh and weights (20); 0 is none.
      local_loss: ℓ(e) = e² or log(1 + e²).
      descend_local_loss: whether Λₗ moves the weights. Without it Ω alone does, and
        W_xh only: a control that the program does not have.
      output_loss: E. The program has cross entropy only, and its gradient is NaN as
        soon as a probability is too small for the number type.
      network: tanh alone: the program has no other.

    Returns:
      A rule without state. `RuleInfo.loss` is E before the update, as for every
      rule; `Released` says what the others are.

    Raises:
      ValueError: an unknown choice, a number that is not a scalar, or known and out of
        its range, or a loss of every step. From `grads`: B > H with Ω, a `start`, or
        weights of 16 bits.

    Note: the program ends when Λ_{T-1} is NaN, and goes on with NaN in the steps below
    (21); here a run ends at the first weight that is no number.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 100, 8, 100)
      >>> batch = lra_jax.TASKS["random_permutation"].sample(jax.random.key(1), 5, 4)
      >>> rule = lra_jax.lra_released(gamma=10.0, c=1.0)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> bool(info.local_loss[3] > info.local_loss[2]), info.local_loss[0].item()
      (True, 0.0)
    """
    arguments.check(lra_released, locals())
    arguments.check_last_step(lra_released, output_loss)
    arguments.check_tanh(lra_released, network, "is the paper's program")

    @devices.divided(gradients.result_sharding)
    def grads(
        key: jax.Array,
        params: types.Params,
        rule_state: types.EmptyState,
        batch: types.Batch,
    ) -> tuple[types.Params, types.EmptyState, types.RuleInfo]:
        del key
        computed = released_gradients(
            params,
            batch,
            gamma=gamma,
            num_refinements=num_refinements,
            lambda_=lambda_,
            c=c,
            local_loss=local_loss,
            descend_local_loss=descend_local_loss,
            output_loss=output_loss,
        )
        info = types.RuleInfo(
            loss=computed.loss,
            local_loss=computed.local_loss,
            target_step_norm=computed.target_step_norm,
            w_hh_grad_norm=computed.w_hh_grad_norm,
            w_xh_grad_norm=computed.w_xh_grad_norm,
        )
        return computed.grads, rule_state, info

    return types.LearningRule(types.init_empty, grads)


@devices.divided(lambda *_, **options: PartitionSpec())
def evaluate_released(
    params: types.Params,
    batch: types.Batch,
    *,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
) -> types.Metrics:
    """`train.evaluate` from the initial state of the released code's validation (13).

        z₋₁ = x₀ W_xh + b_h

    instead of 0 as in training: x₀ enters twice, the second time unbounded.

    Args:
      params: the weights.
      batch: see `Batch`.
      output_loss: E and what counts as an error.
      network: has to be tanh.

    Raises:
      ValueError: inputs or labels do not fit the parameters or the output loss, a
        `start`, or another network than tanh.
    """
    rnn.check_network(network)
    if not isinstance(network, networks.Tanh):
        raise ValueError(
            "network: expected tanh, from whose initial state the released code's "
            f"validation begins, got {network.name}"
        )

    def step(z_prev: jax.Array, x_t: jax.Array) -> tuple[jax.Array, None]:
        x_w = rnn.project_inputs(params, x_t[None])[0]
        return jnp.tanh(matmul(z_prev, params.w_hh) + x_w), None

    _check_no_start(batch)
    inputs = rnn.index_symbols(params, batch.inputs)
    start = rnn.project_inputs(params, inputs[:1])[0]
    z_last, _ = lax.scan(step, start, inputs)
    logits = rnn.readout(params, z_last)
    return types.Metrics(
        loss=jnp.mean(output_loss.value(logits, batch.labels)),
        num_errors=jnp.sum(output_loss.is_error(logits, batch.labels), dtype=jnp.int32),
    )


def released_gradients(
    params: types.Params,
    batch: types.Batch,
    *,
    gamma: ArrayLike,
    num_refinements: ArrayLike,
    lambda_: ArrayLike,
    c: ArrayLike,
    local_loss: Literal["mse", "log_penalty"],
    descend_local_loss: bool = True,
    output_loss: types.OutputLoss = losses.cross_entropy,
) -> Released:
    """Everything that the released code computes of one batch; see `lra_released`.

    Raises:
      ValueError: inputs or labels do not fit, B > H with Ω, or a `start`.
    """
    _check_no_start(batch)
    rnn.check_inputs(params, batch.inputs)
    dtype = params.w_hh.dtype
    if jnp.finfo(dtype).bits < 32:
        raise ValueError(
            "params: expected weights of float32 or float64, as the released code "
            f"has, got {dtype}"
        )
    without_omega = isinstance(lambda_, int | float) and lambda_ == 0
    numbers = Numbers(
        gamma=jnp.asarray(gamma, dtype),
        num_refinements=refinements.count(num_refinements),
        lambda_=None if without_omega else jnp.asarray(lambda_, dtype),
        c=jnp.asarray(c, dtype),
        loss=PROGRAM_LOSSES[local_loss],
    )
    trace = rnn.forward(params, batch.inputs)
    z = trace.z
    seq_len, batch_size, hidden_size = z.shape
    loss = jnp.mean(output_loss.value(trace.logits, batch.labels))
    if numbers.lambda_ is not None and batch_size > hidden_size:
        raise ValueError(
            f"inputs: expected a batch of at most H = {hidden_size}, as Ω of the "
            f"released code reads the states' diagonal, got {batch_size}"
        )

    output = softmax_then_log(output_loss)

    def output_grad(logits: jax.Array) -> jax.Array:
        return output.grad(logits, batch.labels) / batch_size

    pi = output.grad(trace.logits, batch.labels)
    w_hy, b_y = bounded_readout_gradients(params, trace, pi, numbers)
    top = program_top_target(params, trace, output_grad, numbers)
    logits = rnn.readout(params, jnp.tanh(trace.h[-1] - top.d))
    target_loss = jnp.mean(output.value(logits, batch.labels))

    # Step l = 0 trains nothing of its own (12).
    hidden = HiddenGradients(
        *(jnp.zeros((*w.shape[:-1], 1, hidden_size), dtype) for w in params[:3])
    )
    local = jnp.zeros((0,), dtype)
    step_norm = top.step_norm[None]
    if seq_len > 1:
        x_w = rnn.project_inputs(params, batch.inputs)
        x = _vectors(params, batch.inputs)
        residuals, step_norm = hidden_residuals(params.w_hh, trace, x_w, top, numbers)
        errors = residuals
        if not descend_local_loss:
            nothing = jnp.zeros_like(residuals.a)
            errors = residuals._replace(a=nothing, b=nothing, g=nothing)
        hidden = weight_gradients(params, x, trace.z, errors, numbers)
        local = residuals.loss

    def per_step(values: jax.Array) -> jax.Array:
        values = values.reshape(-1)
        return jnp.pad(values, (seq_len - values.size, 0))

    # One norm for each l; b_h is summed as it is (11).
    w_xh = numerics.clip(hidden.w_xh, numbers.c, axis=(0, 2))
    w_hh = numerics.clip(hidden.w_hh, numbers.c, axis=(0, 2))
    return Released(
        grads=types.Params(
            w_xh=jnp.sum(w_xh.value, axis=1),
            w_hh=jnp.sum(w_hh.value, axis=1),
            b_h=jnp.sum(hidden.b_h, axis=0),
            w_hy=w_hy,
            b_y=b_y,
        ),
        loss=loss,
        target_loss=target_loss,
        local_loss=per_step(local),
        target_step_norm=per_step(step_norm),
        w_hh_grad_norm=per_step(w_hh.norm),
        w_xh_grad_norm=per_step(w_xh.norm),
        b_h_grad_norm=per_step(numerics.norm(hidden.b_h, axis=1)),
    )


def _check_no_start(batch: types.Batch) -> None:
    """Raises ValueError where sequences have starts: the program knows none."""
    if batch.start is not None:
        raise ValueError(
            "start: expected None, as the released code has sequences of one length "
            f"only, got {batch.start.dtype} {batch.start.shape}"
        )


def _vectors(params: types.Params, inputs: jax.Array) -> jax.Array:
    """The inputs as real vectors, `[T, B, X]`: one-hot where they are symbols."""
    if rnn.check_inputs(params, inputs):
        indices = rnn.index_symbols(params, inputs)
        return jax.nn.one_hot(indices, params.w_xh.shape[0], dtype=params.w_xh.dtype)
    return inputs.astype(params.w_xh.dtype)


LRA_RELEASED_CARD = card.RuleCard(
    title="the paper's released program, for the audit only",
    error="what the authors' released code computes",
    choose_for="the audit of the paper, not for training",
    family=card.THROUGH_W_HH,
    errors_arrive="gradients of the Lₜ, unrolled",
    transports=("W_hhᵀ", "W_hyᵀ"),
    stores=card.EVERY_STATE,
    every_step=False,
    networks=card.TANH_ALONE,
    reference="the paper's program",
)
