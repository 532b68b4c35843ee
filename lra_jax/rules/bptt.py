"""Backpropagation through time: the exact gradient of E, the baseline."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from lra_jax import gradients, losses, numerics, rnn, types
from lra_jax.numerics import matmul
from lra_jax.rules import arguments


def backward(params: types.Params, trace: types.Trace, pi: jax.Array) -> jax.Array:
    """qₜ = ∂E_b/∂hₜ for all t, `[T, B, H]`.

        q_{T-1} = (π W_hyᵀ) ⊙ σ'_{T-1};   qₜ₋₁ = (qₜ W_hhᵀ) ⊙ σ'ₜ₋₁

    Args:
      params: the weights.
      trace: of the forward pass.
      pi: `[B, Y]`, ∂E_b/∂logits.
    """

    def step(q: jax.Array, dz_prev: jax.Array) -> tuple[jax.Array, jax.Array]:
        q_prev = matmul(q, params.w_hh.T) * dz_prev
        return q_prev, q_prev

    dz = 1 - trace.z**2
    q_top = matmul(pi, params.w_hy.T) * dz[-1]
    _, q = lax.scan(step, q_top, dz[:-1], reverse=True)
    return jnp.concatenate([q, q_top[None]])


def bptt(
    *,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
) -> types.LearningRule:
    """The exact gradient of E, optionally clipped.

    Args:
      max_norm: g ← g max_norm / ‖g‖ where ‖g‖ > max_norm, one norm over all five
        gradients; 0 is none. May be traced.
      output_loss: E.

    Returns:
      A rule without state. `RuleInfo` has the norms of each step's part of ∇W_hh and
      ∇W_xh before clipping, and no local losses or targets.
    """
    arguments.check_scalars(max_norm=max_norm)

    def grads(
        key: jax.Array,
        params: types.Params,
        rule_state: types.EmptyState,
        batch: types.Batch,
    ) -> tuple[types.Params, types.EmptyState, types.RuleInfo]:
        del key
        trace = rnn.forward(params, batch.inputs)
        pi = output_loss.grad(trace.logits, batch.labels)
        q = backward(params, trace, pi)
        summed = gradients.sum_local_gradients(params, batch.inputs, trace.z, q)
        readout = gradients.readout_gradients(trace.z[-1], pi)
        exact = types.Params(*summed.grads, *readout)
        flat, unravel = ravel_pytree(exact)
        info = types.RuleInfo(
            loss=jnp.mean(output_loss.value(trace.logits, batch.labels)),
            w_hh_grad_norm=summed.w_hh_norm,
            w_xh_grad_norm=summed.w_xh_norm,
        )
        return unravel(numerics.clip(flat, max_norm).value), rule_state, info

    return types.LearningRule(types.init_empty, grads)
