"""e-prop: eligibility traces, and a learning signal from the output."""

from __future__ import annotations

from jax.typing import ArrayLike

from lra_jax import eligibility, influence, losses, rnn, types
from lra_jax.feedback import FeedbackLike
from lra_jax.networks import Network
from lra_jax.rules import arguments, card

EPROP_CARD = card.RuleCard(
    title="e-prop: eligibility traces without recurrent weights",
    error=(
        "nothing comes back: a leak or a gate keeps a trace of what each weight did, "
        "which is multiplied by the output's error"
    ),
    choose_for=(
        "no sequence stored: `eprop(network=networks.leaky(alpha=0.01), max_norm=1)`, "
        "`optax.adam(0.01)`, T = 100"
    ),
    family=card.FORWARD,
    errors_arrive="forward in time",
    transports=("W_hyᵀ",),
    stores=card.LAST_STATE,
    every_step=True,
    networks=card.KNOWN_RECURRENT,
    reference="Bellec et al. 2020",
    feedback=card.READOUT_WEIGHTS,
)


def eprop(
    *,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
    feedback: FeedbackLike = "transpose",
) -> types.LearningRule:
    """e-prop (Bellec et al. 2020), for units that do not spike.

        e ← D e + ∂s/∂w,   ∇w = Σₜ mean_b ℓₜ e

    D is what a unit does to itself past recurrent weights: 1-α of `leaky`, u of `gru`,
    the forget gate's path of `lstm`, with which all weights of the gates are trained.
    ℓₜ = (∂z/∂s)ᵀ (πₜ W_hyᵀ) is the learning signal.

    A tanh or relu layer does nothing to itself past its weights: D = 0, and a loss of
    the last step trains its last step alone.

    Args:
      max_norm: as for `bptt`.
      output_loss: E.
      network: what is trained: tanh, relu, leaky, gru, lstm, or a stack of them.
      feedback: what stands in place of W_hyᵀ in ℓ: "random" is broadcast alignment;
        "mirror" and "kolen_pollack" learn it; or a `Feedback`.

    Returns:
      A rule without state, or with feedback weights. Of `RuleInfo` there is the loss
      alone. It can update inside a sequence, see `train_step`.

    Raises:
      ValueError: another network, or a number that is not a scalar, or known and
        out of its range.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.eprop(feedback="random")
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> grads.w_hh.shape, state.e_y.shape
      ((8, 8), (4, 8))
    """
    arguments.check(eprop, locals())
    rnn.check_network(network)
    return influence.make_rule(
        eligibility.local_influence(network, own_weight=False),
        max_norm=max_norm,
        output_loss=output_loss,
        network=network,
        feedback=feedback,
    )
