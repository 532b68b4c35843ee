"""Backpropagation through time: the exact gradient of E, the baseline."""

from __future__ import annotations

import jax
from jax.typing import ArrayLike

from lra_jax import error_signals, losses, rnn, types
from lra_jax.feedback import FeedbackLike
from lra_jax.networks import Network
from lra_jax.rules import arguments, card

BPTT_CARD = card.RuleCard(
    title="backpropagation through time, the exact gradient",
    error="the exact gradient",
    choose_for="a reference: the exact gradient",
    family=card.THROUGH_W_HH,
    errors_arrive="gradient of E, unrolled",
    transports=("W_hhᵀ", "W_hyᵀ"),
    stores=card.EVERY_STATE,
    every_step=True,
    networks=card.ALL_NETWORKS,
    reference="Werbos 1990",
    feedback=card.BOTH_WEIGHTS,
)


def backward(forward: error_signals.Forward) -> jax.Array:
    """qₜ = ∂E_b/∂sₜ for all t, `[T, B, D]`.

        q_{T-1} = (∂z/∂s)ᵀ (π W_hyᵀ);   qₜ₋₁ = (∂sₜ/∂sₜ₋₁)ᵀ qₜ

    which of tanh is

        q_{T-1} = (π W_hyᵀ) ⊙ σ'_{T-1};   qₜ₋₁ = (qₜ W_hhᵀ) ⊙ σ'ₜ₋₁

    and with a loss of every step + (∂z/∂s)ᵀ (πₜ₋₁ W_hyᵀ).
    """
    return error_signals.chain(forward.pull, forward.top, forward.above)


def signals(
    key: jax.Array, rule_state: types.RuleState, forward: error_signals.Forward
) -> tuple[error_signals.Signals, types.RuleState]:
    """`backward`, as rules say it."""
    del key
    return error_signals.Signals(backward(forward)), rule_state


def bptt(
    *,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
    feedback: FeedbackLike = "transpose",
) -> types.LearningRule:
    """The exact gradient of E, optionally clipped.

    Args:
      max_norm: g ← g max_norm / ‖g‖ where ‖g‖ > max_norm, one norm over all
        gradients; 0 is none. May be traced.
      output_loss: E.
      network: what is trained, any of `lra_jax.networks`.
      feedback: what errors go through in place of W_hhᵀ and W_hyᵀ, a word or a
        `Feedback`. Other than "transpose" it needs known recurrent weights.

    Returns:
      A rule without state, or with feedback weights. `RuleInfo` has the norms of each
      step's part of ∇W_hh and ∇W_xh before clipping, and no local losses or targets.

    Raises:
      ValueError: a number that is not a scalar, or known and out of its range; an
        unknown feedback, or one in place of W_hhᵀ for a network whose recurrent weights
        are not known.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.bptt(max_norm=0.1)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> f"{sum(jnp.sum(g**2) for g in grads):.4f}"  # 0.1²
      '0.0100'
    """
    arguments.check(bptt, locals())

    return error_signals.make_rule(
        types.init_empty,
        signals,
        max_norm=max_norm,
        output_loss=output_loss,
        network=network,
        feedback=feedback,
    )
