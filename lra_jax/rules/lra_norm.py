"""LRA with norm-preserving targets, and a cost of activity in proportion to them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lra_jax import error_signals, losses, numerics, rnn, settings, types
from lra_jax.feedback import FeedbackLike
from lra_jax.networks import Network
from lra_jax.networks.network import Place
from lra_jax.rules import arguments, card

LRA_NORM_CARD = card.RuleCard(
    title="targets that keep their norm, and a cost of activity",
    error=(
        "BPTT's error, rescaled so that each sample's error keeps its length; plus a "
        "small pull of states towards 0, the *cost of activity*"
    ),
    choose_for=(
        "T = 60 with `optax.adam(1e-3)`, T = 300 with the optimizer of "
        '`examples/long_sequences.py`; with `feedback="mirror"` it transports nothing'
    ),
    family=card.THROUGH_W_HH,
    errors_arrive="step by step: BPTT's, rescaled",
    transports=("W_hhᵀ", "W_hyᵀ"),
    stores=card.EVERY_STATE,
    every_step=True,
    networks=card.ALL_NETWORKS,
    reference="this project",
    variants=(card.Variant("exponent", 0, {"errors_arrive": "step by step: BPTT's"}),),
    feedback=card.BOTH_WEIGHTS,
)


def displacement_below(d: jax.Array, v: jax.Array, exponent: jax.Array) -> jax.Array:
    """dₜ₋₁ = v (‖dₜ‖ / ‖v‖)^p, `[B, D]`, of v = (∂sₜ/∂sₜ₋₁)ᵀ dₜ."""
    kept, grown = (numerics.norm(x, axis=-1) for x in (d, v))
    # 0 stays 0. No power of 0 is differentiated: its derivative may be infinite.
    moves = ~((kept == 0) | (grown == 0))
    kept, grown = (jnp.where(moves, x, 1) for x in (kept, grown))
    size = jnp.where(moves, kept**exponent * grown ** (1 - exponent), 0)
    return numerics.force(v, size, axis=-1).value


def error_at(d: jax.Array, active: jax.Array, activity: jax.Array) -> jax.Array:
    """qₜ = dₜ + μ ‖dₜ‖ zₜ, `[..., D]`; `active` is `Network.activity`, zₜ of tanh."""
    return d + activity * numerics.norm(d, axis=-1) * active


def lra_norm(
    *,
    exponent: settings.Fraction = 1.0,
    activity: ArrayLike = 0.02,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
    feedback: FeedbackLike = "transpose",
) -> types.LearningRule:
    """Displacements that keep their size on the way back, and shrink what they pass.

    The displacement dₜ₋₁ of a target ĥₜ₋₁ from hₜ₋₁ has the direction that a gradient
    step on ½‖hₜ - ĥₜ‖² gives it, and the size of the displacement above, for each
    sample:

        d_{T-1} = (π W_hyᵀ) ⊙ σ'_{T-1}
        v = (dₜ W_hhᵀ) ⊙ σ'ₜ₋₁,   dₜ₋₁ = v (‖dₜ‖ / ‖v‖)^p
        qₜ = dₜ + μ ‖dₜ‖ zₜ

    and with a loss of every step + (πₜ₋₁ W_hyᵀ) ⊙ σ'ₜ₋₁ in dₜ₋₁: what comes from above
    keeps its size, and the step's own error is added to it.

    Of another network v = (∂sₜ/∂sₜ₋₁)ᵀ dₜ and d_{T-1} = (∂z/∂s)ᵀ (π W_hyᵀ). The cost of
    activity descends ½‖zₜ‖² there: (∂z/∂s)ᵀ zₜ stands in place of zₜ.

    The second term of qₜ descends (μ/2) ‖dₜ‖ ‖hₜ‖² for small states: it knows nothing
    of the label, and draws every state towards 0, the more the larger the error is.
    There tanh is linear, and an orthogonal W_hh forgets nothing. docs/long_sequences.md
    has the derivation, what is known of its reach, and when it fails.

    Args:
      exponent: p, from 0 to 1. 1 keeps norms; 0 is BPTT, with the cost of activity.
      activity: μ.
      max_norm: as for `bptt`.
      output_loss: E.
      network: what is trained, any of `lra_jax.networks`.
      feedback: what errors go through in place of W_hhᵀ and W_hyᵀ, a word or a
        `Feedback`. Other than "transpose" it needs known recurrent weights.

    Returns:
      A rule without state, or with feedback weights. Of `RuleInfo`,
      `target_step_norm` is ‖dₜ‖; there is no local loss.

    Raises:
      ValueError: a number that is not a scalar, or known and out of its range; an
        unknown feedback, or one in place of W_hhᵀ for a network whose recurrent weights
        are not known.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.lra_norm(activity=0.0)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> size = info.target_step_norm  # ‖dₜ‖: the same at all steps
      >>> bool(jnp.allclose(size, size[-1], rtol=1e-5))
      True
    """
    arguments.check(lra_norm, locals())

    def signals(
        key: jax.Array, rule_state: types.RuleState, forward: error_signals.Forward
    ) -> tuple[error_signals.Signals, types.RuleState]:
        del key
        place, z = forward.place, forward.trace.z
        p, mu = (jnp.asarray(x, z.dtype) for x in (exponent, activity))

        def below(d: jax.Array, place: Place) -> jax.Array:
            return displacement_below(d, forward.pull(d, place), p)

        d = error_signals.chain(below, forward.top, forward.above)
        size = numerics.norm(d, axis=-1)[..., 0]
        q = error_at(d, network.activity(forward.cell, place.s, z), mu)
        return error_signals.Signals(q, target_step_norm=size), rule_state

    return error_signals.make_rule(
        types.init_empty,
        signals,
        max_norm=max_norm,
        output_loss=output_loss,
        network=network,
        feedback=feedback,
    )
