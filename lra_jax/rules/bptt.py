"""Backpropagation through time: the exact gradient of E, the baseline."""

from __future__ import annotations

import jax
from jax.typing import ArrayLike

from lra_jax import error_signals, losses, types
from lra_jax.numerics import matmul
from lra_jax.rules import arguments, card

BPTT_CARD = card.RuleCard(
    title="backpropagation through time, the exact gradient",
    family=card.THROUGH_W_HH,
    errors_arrive="gradient of E, unrolled",
    transports=("W_hhᵀ", "W_hyᵀ"),
    stores=card.EVERY_STATE,
    every_step=True,
    reference="Werbos 1990",
)


def backward(params: types.Params, trace: types.Trace, pi: jax.Array) -> jax.Array:
    """qₜ = ∂E_b/∂hₜ for all t, `[T, B, H]`.

        q_{T-1} = (π W_hyᵀ) ⊙ σ'_{T-1};   qₜ₋₁ = (qₜ W_hhᵀ) ⊙ σ'ₜ₋₁

    and with a loss of every step + (πₜ₋₁ W_hyᵀ) ⊙ σ'ₜ₋₁.

    Args:
      params: the weights.
      trace: of the forward pass.
      pi: `[B, Y]`, or `[T, B, Y]`, ∂E_b/∂logits.
    """
    return error_signals.chain(
        lambda q, z_prev: matmul(q, params.w_hh.T) * (1 - z_prev**2),
        error_signals.top(params, trace, pi),
        trace.z[:-1],
    )


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

    Raises:
      ValueError: a number that is not a scalar, or known and out of its range.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.bptt(max_norm=0.1)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> f"{sum(jnp.sum(g**2) for g in grads):.4f}"  # 0.1²
      '0.0100'
    """
    arguments.check_numbers(bptt, locals())

    def signals(
        key: jax.Array, rule_state: types.EmptyState, forward: error_signals.Forward
    ) -> tuple[error_signals.Signals, types.EmptyState]:
        del key
        q = backward(forward.params, forward.trace, forward.pi)
        return error_signals.Signals(q), rule_state

    return error_signals.make_rule(
        types.init_empty, signals, max_norm=max_norm, output_loss=output_loss
    )
