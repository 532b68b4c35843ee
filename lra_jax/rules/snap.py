"""SnAp: the influence of weights, as far as it gets in some steps."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.typing import ArrayLike

from lra_jax import eligibility, influence, losses, rnn, settings, types
from lra_jax.feedback import FeedbackLike
from lra_jax.networks import Network
from lra_jax.networks.network import Cell
from lra_jax.rules import arguments, card

SNAP_CARD = card.RuleCard(
    title="sparse n-step approximation of real-time recurrent learning",
    error=(
        "nothing comes back: what each weight did to its own unit is carried "
        "forwards, by the unit's own W_jj, and multiplied by the output's error"
    ),
    choose_for=(
        "no sequence stored: `snap(network=networks.gru(), max_norm=1)`, "
        "`optax.adam(0.01)`, T = 30"
    ),
    family=card.FORWARD,
    errors_arrive="forward in time, n steps wide",
    transports=("W_hh", "W_hyᵀ"),
    stores=card.LAST_STATE,
    every_step=True,
    networks=card.KNOWN_RECURRENT,
    reference="Menick et al. 2021",
    feedback=card.READOUT_WEIGHTS,
)


def snap(
    *,
    order: settings.Size = 1,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
    feedback: FeedbackLike = "transpose",
) -> types.LearningRule:
    """SnAp-n (Menick et al. 2021): J is kept where a weight gets to within n steps.

        Jₜ = mask ⊙ (Aₜ Jₜ₋₁ + Mₜ),   ∇p = Σₜ mean_b ℓₜ Jₜ

    Order 1 keeps what stays within the unit that a weight ends at. Of tanh, ℓ at h,

        eₜ[i, j] = zₜ₋₁[i] + W_jj σ'ₜ₋₁[j] eₜ₋₁[i, j]
        ∇W_hh[i, j] = Σₜ mean_b ℓₜ[j] eₜ[i, j]

    and of a state of several numbers all of the same unit. Its traces are B·H·(H+X+1)
    numbers a gate. In a stack each layer has traces of its own.

    From order 2 on a dense network reaches every unit: it is `rtrl`, at its cost. With
    the mask of `leaky` it is sparse.

    Args:
      order: n, a Python integer.
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
      >>> rule = lra_jax.snap()
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> grads.w_hh.shape, state
      ((8, 8), EmptyState())
    """
    arguments.check(snap, locals())
    local = eligibility.local_influence(network, own_weight=True)
    return influence.make_rule(
        local
        if order == 1
        else influence.whole_influence(network, _reached(network, order)),
        max_norm=max_norm,
        output_loss=output_loss,
        network=network,
        feedback=feedback,
    )


def _reached(network: Network, order: int) -> Callable[[Cell], Cell | None]:
    """Where J is kept: the units that a weight gets to in time; None is all."""

    def mask(cell: Cell) -> Cell | None:
        size = jax.tree.leaves(cell)[0].shape[-1]
        kept = network.reaches(size, order - 1)
        if kept is None:
            return None
        return jax.tree.map(
            lambda w: kept.T.reshape(size, *(1,) * (w.ndim - 1), size), cell
        )

    return mask
