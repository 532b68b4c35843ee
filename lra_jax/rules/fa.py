"""Feedback alignment: the chain of BPTT through a fixed random matrix."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
from jax.typing import ArrayLike

from lra_jax import error_signals, losses, rnn, types
from lra_jax.networks import Network
from lra_jax.numerics import matmul
from lra_jax.rules import arguments, card

FA_CARD = card.RuleCard(
    title="feedback alignment through time",
    family=card.OWN_FEEDBACK,
    errors_arrive="step by step",
    transports=("W_hyᵀ",),
    stores=card.EVERY_STATE,
    every_step=True,
    networks=card.KNOWN_RECURRENT,
    reference="Lillicrap et al. 2016",
    variants=(card.Variant("readout", "random", {"transports": ()}),),
)


class Feedback(NamedTuple):
    """Fixed feedback weights, orthogonal."""

    a: Any  # [H, H], in place of W_hhᵀ; of other networks like their recurrent weights
    e_y: jax.Array  # [Y, H], in place of W_hyᵀ


def init_feedback(
    key: jax.Array, params: types.AnyParams, network: Network
) -> Feedback:
    """Random (semi-)orthogonal feedback weights, of the shapes that `params` needs.

    Raises:
      ValueError: the network does not say which its recurrent weights are.
    """
    key_a, key_y = jax.random.split(key)
    hidden_size, output_size = params.w_hy.shape
    dtype = params.w_hy.dtype
    weights = network.recurrent(rnn.cell_of(params))
    keys = [key_a] if len(weights) == 1 else jax.random.split(key_a, len(weights))
    a = tuple(
        rnn.orthogonal(key, (w.shape[1], w.shape[0]), dtype)
        for key, w in zip(keys, weights, strict=True)
    )
    return Feedback(
        a=a[0] if len(a) == 1 else a,
        e_y=rnn.orthogonal(key_y, (output_size, hidden_size), dtype),
    )


def fa(
    *,
    readout: Literal["transpose", "random"] = "transpose",
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
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
      network: what is trained, any of `lra_jax.networks`.

    Returns:
      A rule whose state is A and E_y, which never change. `RuleInfo` is as that of
      `bptt`.

    Raises:
      ValueError: an unknown choice, or a number that is not a scalar, or known and
        out of its range.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.fa()
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> jax.tree.map(jnp.shape, state)
      Feedback(a=(8, 8), e_y=(4, 8))
    """
    arguments.check_choices(fa, locals())
    arguments.check_numbers(fa, locals())
    arguments.check_recurrent(fa, network)

    def signals(
        key: jax.Array, rule_state: Feedback, forward: error_signals.Forward
    ) -> tuple[error_signals.Signals, Feedback]:
        del key
        back = {"transpose": forward.params.w_hy.T, "random": rule_state.e_y}[readout]
        a = rule_state.a
        feedback = a if isinstance(a, tuple) else (a,)
        q = error_signals.chain(
            lambda q, place: forward.pull_through(feedback, q, place),
            forward.slope(matmul(forward.pi, back)),
            forward.above,
        )
        return error_signals.Signals(q), rule_state

    return error_signals.make_rule(
        lambda key, params: init_feedback(key, params, network),
        signals,
        max_norm=max_norm,
        output_loss=output_loss,
        network=network,
    )
