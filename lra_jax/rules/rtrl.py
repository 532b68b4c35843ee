"""Real-time recurrent learning: the exact gradient, forward in time."""

from __future__ import annotations

from jax.typing import ArrayLike

from lra_jax import influence, losses, rnn, types
from lra_jax.feedback import FeedbackLike
from lra_jax.networks import Network
from lra_jax.rules import arguments, card

RTRL_CARD = card.RuleCard(
    title="real-time recurrent learning, the exact gradient",
    error=(
        "nothing comes back: the influence of all weights on all units is carried "
        "forwards"
    ),
    choose_for="the exact gradient of a small network, no sequence stored",
    family=card.FORWARD,
    errors_arrive="forward in time",
    transports=("W_hh", "W_hyᵀ"),
    stores=card.LAST_STATE,
    every_step=True,
    networks=card.ALL_NETWORKS,
    reference="Williams & Zipser 1989",
    feedback=card.READOUT_WEIGHTS,
)


def rtrl(
    *,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
    feedback: FeedbackLike = "transpose",
) -> types.LearningRule:
    """Real-time recurrent learning (Williams & Zipser 1989).

        Jₜ = Aₜ Jₜ₋₁ + Mₜ,   ∇p = Σₜ mean_b ℓₜ Jₜ

    Aₜ = ∂sₜ/∂sₜ₋₁, Mₜ = ∂sₜ/∂p at fixed sₜ₋₁, ℓₜ = ∂E_b/∂sₜ of the output at t alone.
    It is the gradient of `bptt`, without stored states: but J has D·P numbers for each
    sample, for P weights of the cell, and a step costs D² P operations. For tests, and
    for networks of some tens of units.

    Args:
      max_norm: as for `bptt`.
      output_loss: E.
      network: what is trained, any of `lra_jax.networks`.
      feedback: what stands in place of W_hyᵀ in ℓ, a word or a `Feedback`.

    Returns:
      A rule without state, or with feedback weights. Of `RuleInfo` there is the loss
      alone. It can update inside a sequence, see `train_step`.

    Raises:
      ValueError: a number that is not a scalar, or known and out of its range.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> given = jax.random.key(2), params, lra_jax.EmptyState(), batch
      >>> forwards, backwards = (
      ...     rule.grads(*given)[0] for rule in (lra_jax.rtrl(), lra_jax.bptt())
      ... )
      >>> bool(jnp.allclose(forwards.w_hh, backwards.w_hh, atol=1e-6))
      True
    """
    arguments.check(rtrl, locals())
    rnn.check_network(network)
    return influence.make_rule(
        influence.whole_influence(network),
        max_norm=max_norm,
        output_loss=output_loss,
        network=network,
        feedback=feedback,
    )
