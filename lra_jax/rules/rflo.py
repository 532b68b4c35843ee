"""RFLO: random feedback, local and online."""

from __future__ import annotations

from jax.typing import ArrayLike

from lra_jax import eligibility, influence, losses, rnn, types
from lra_jax.feedback import FeedbackLike
from lra_jax.networks import Network
from lra_jax.rules import arguments, card

RFLO_CARD = card.RuleCard(
    title="random feedback local online learning",
    error="as `eprop`, with the output's error through fixed random weights",
    choose_for="no sequence stored, and nothing transported",
    family=card.FORWARD,
    errors_arrive="forward in time",
    transports=(),
    stores=card.LAST_STATE,
    every_step=True,
    networks=card.KNOWN_RECURRENT,
    reference="Murray 2019",
    feedback=card.READOUT_WEIGHTS,
)


def rflo(
    *,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
    feedback: FeedbackLike = "random",
) -> types.LearningRule:
    """Random feedback local online learning (Murray 2019).

        e ← (1-α) e + ∂s/∂w,   ∇w = Σₜ mean_b ℓₜ e,   ℓₜ = (∂z/∂s)ᵀ (πₜ E_y)

    Of what a unit does to itself it keeps the leak, which in `leaky` is all that there
    is past recurrent weights; the traces of gates are those of `eprop`. So the two
    differ in how an output's error reaches the units: here by fixed random weights.

    Args:
      max_norm: as for `bptt`.
      output_loss: E.
      network: what is trained: tanh, relu, leaky, gru, lstm, or a stack of them.
      feedback: what stands in place of W_hyᵀ in ℓ, a word or a `Feedback`.

    Returns:
      A rule without state, or with feedback weights. Of `RuleInfo` there is the loss
      alone. It can update inside a sequence, see `train_step`.

    Raises:
      ValueError: another network, or a number that is not a scalar, or known and
        out of its range.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.rflo()
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> grads.w_hh.shape, state.e_y.shape
      ((8, 8), (4, 8))
    """
    arguments.check(rflo, locals())
    rnn.check_network(network)
    return influence.make_rule(
        eligibility.local_influence(network, own_weight=False),
        max_norm=max_norm,
        output_loss=output_loss,
        network=network,
        feedback=feedback,
    )
