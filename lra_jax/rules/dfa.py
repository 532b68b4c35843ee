"""Direct feedback: the output's error reaches every step at once, without a chain."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lra_jax import error_signals, losses, rnn, types
from lra_jax.networks import Network
from lra_jax.numerics import matmul
from lra_jax.rules import arguments, card

DFA_CARD = card.RuleCard(
    title="direct feedback alignment",
    error="the output's error through fixed random weights, directly",
    choose_for="nothing transported, and nothing sent back through time: T = 20",
    family=card.DIRECT,
    errors_arrive="from the output",
    transports=(),
    stores=card.EVERY_STATE,
    every_step=False,
    networks=card.ALL_NETWORKS,
    reference="Nøkland 2016",
    variants=(
        card.Variant("readout", "transpose", {"transports": card.READOUT_WEIGHTS}),
    ),
)


class DirectFeedback(NamedTuple):
    """The fixed feedback weights."""

    e_y: jax.Array  # [Y, H]


def dfa(
    *,
    readout: Literal["random", "transpose"] = "random",
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
) -> types.LearningRule:
    """Direct feedback alignment (Nøkland 2016), the same weights at every step.

        qₜ = (π E_y) ⊙ σ'ₜ,   E_y ~ N(0, 1/H) fixed

    and (∂z/∂s)ᵀ (π E_y) of other networks: the errors of a stack reach its last layer's
    states, and the weights of the layers below through the same step.

    Args:
      readout: "random", or "transpose": W_hyᵀ, as it is now, in place of E_y.
      max_norm: as for `bptt`.
      output_loss: E.
      network: what is trained, any of `lra_jax.networks`.

    Returns:
      A rule whose state is E_y, which never changes. `RuleInfo` is as that of `bptt`.

    Raises:
      ValueError: an unknown choice, a number that is not a scalar, or known and out of
        its range, or a loss of every step.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.dfa()
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> jax.tree.map(jnp.shape, state)
      DirectFeedback(e_y=(4, 8))
    """
    arguments.check(dfa, locals())
    arguments.check_last_step(dfa, output_loss)

    def init(key: jax.Array, params: types.Params) -> DirectFeedback:
        hidden_size, output_size = params.w_hy.shape
        draw = rnn.normal(key, (output_size, hidden_size), params.w_hy.dtype)
        return DirectFeedback(draw / jnp.sqrt(hidden_size).astype(draw.dtype))

    def signals(
        key: jax.Array, rule_state: DirectFeedback, forward: error_signals.Forward
    ) -> tuple[error_signals.Signals, DirectFeedback]:
        del key
        e_y = {"random": rule_state.e_y, "transpose": forward.params.w_hy.T}[readout]
        place, z = forward.place, forward.trace.z
        e = jnp.broadcast_to(matmul(forward.pi, e_y)[None], z.shape)
        q = network.slope(forward.cell, place.s, e, z=z)
        return error_signals.Signals(q), rule_state

    return error_signals.make_rule(
        init, signals, max_norm=max_norm, output_loss=output_loss, network=network
    )
