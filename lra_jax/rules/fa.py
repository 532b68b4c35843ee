"""Feedback alignment: the chain of BPTT through a fixed random matrix."""

from __future__ import annotations

from typing import Literal

from jax.typing import ArrayLike

from lra_jax import error_signals, losses, rnn, types
from lra_jax.feedback import Feedback, FeedbackLike
from lra_jax.networks import Network
from lra_jax.rules import arguments, card
from lra_jax.rules.bptt import signals

FA_CARD = card.RuleCard(
    title="feedback alignment through time",
    error="BPTT's recursion through fixed random weights",
    choose_for="comparisons: BPTT with random feedback",
    family=card.OWN_FEEDBACK,
    errors_arrive="step by step",
    transports=("W_hyᵀ",),
    stores=card.EVERY_STATE,
    every_step=True,
    networks=card.KNOWN_RECURRENT,
    reference="Lillicrap et al. 2016",
    variants=(card.Variant("readout", "random", {"transports": ()}),),
    feedback=card.BOTH_WEIGHTS,
    feedback_networks=card.ALL_NETWORKS,
)


def fa(
    *,
    readout: Literal["transpose", "random"] = "transpose",
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
    feedback: FeedbackLike | None = None,
) -> types.LearningRule:
    """Feedback alignment (Lillicrap et al. 2016), through time.

        q_{T-1} = (π W_hyᵀ) ⊙ σ'_{T-1};   qₜ₋₁ = (qₜ A) ⊙ σ'ₜ₋₁

    and with a loss of every step + (πₜ₋₁ W_hyᵀ) ⊙ σ'ₜ₋₁. Of networks with gates or a
    leak, A stands in place of each recurrent matrix; what a unit does to itself past
    them, and what the layers of a stack do to each other within a step, stays.

    Args:
      readout: "transpose", or "random": a fixed E_y in place of W_hyᵀ as well.
      max_norm: as for `bptt`.
      output_loss: E.
      network: what is trained, one of known recurrent weights.
      feedback: other feedback weights than these, as for `bptt`, which say what is in
        place of W_hyᵀ too; `readout` is left out then.

    Returns:
      A rule whose state is A, and with readout="random" E_y, which never change.
      `RuleInfo` is as that of `bptt`.

    Raises:
      ValueError: an unknown choice, or a number that is not a scalar, or known and
        out of its range; `readout="random"` beside `feedback`; a network whose
        recurrent weights are not known.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.fa()
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> jax.tree.map(jnp.shape, state)
      FeedbackWeights(a=(8, 8), e_y=None, seen=None, num_updates=None)
    """
    arguments.check(fa, locals())
    if feedback is None:
        feedback = Feedback(recurrent="random", readout=readout)
    elif readout != "transpose":
        raise ValueError(
            f"readout: not beside feedback, which says it too, got {readout!r} and "
            f"{feedback!r}"
        )
    return error_signals.make_rule(
        types.init_empty,
        signals,
        max_norm=max_norm,
        output_loss=output_loss,
        network=network,
        feedback=feedback,
    )
