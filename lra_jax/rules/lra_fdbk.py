"""LRA-fdbk: local representation alignment with fixed random feedback."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lra_jax import error_signals, losses, numerics, rnn, types
from lra_jax import feedback as feedback_lib
from lra_jax.feedback import TRANSPOSED, FeedbackLike
from lra_jax.networks import Network
from lra_jax.networks.network import Place
from lra_jax.numerics import matmul
from lra_jax.rules import arguments, card

LRA_FDBK_CARD = card.RuleCard(
    title="local representation alignment with fixed random feedback",
    error="as LRA, through fixed feedback weights",
    choose_for="comparisons: LRA with random feedback",
    family=card.OWN_FEEDBACK,
    errors_arrive="step by step",
    transports=("W_hyᵀ",),
    stores=card.EVERY_STATE,
    every_step=False,
    networks=card.ALL_NETWORKS,
    reference="Ororbia et al. 2018",
    feedback=card.BOTH_WEIGHTS,
    feedback_networks=card.ONE_MATRIX,
)


class FixedFeedback(NamedTuple):
    """The feedback weights, shared by all steps."""

    a: jax.Array  # [D, D], D = H of tanh


def lra_fdbk(
    *,
    gamma: ArrayLike = 50.0,
    c1: ArrayLike = 0.0,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
    feedback: FeedbackLike | None = None,
) -> types.LearningRule:
    """Targets by random feedback instead of a gradient (Ororbia et al. 2018).

        d_{T-1} = γ Normalize( (π W_hyᵀ) ⊙ σ'_{T-1}, c1 )
        eₜ = zₜ - ẑₜ,   ẑₜ = tanh(hₜ - dₜ)
        qₜ = (2/H) eₜ ⊙ σ'ₜ
        dₜ₋₁ = γ Normalize( qₜ A, c1 )

    Args:
      gamma: γ, size of a target's step. As for `lra_diff`, small displacements keep
        their size on the way back where 2γ/H = 1, and far below vanish.
      c1: bound of each sample's step (Euclidean); 0 is none.
      max_norm: as for `bptt`.
      output_loss: E.
      network: what is trained, any of `lra_jax.networks`.
      feedback: other feedback weights than these, as for `bptt`; for tanh, relu and
        leaky, whose states are multiplied by one square matrix.

    Returns:
      A rule whose state is A ~ N(0, 1/D), which never changes, or other feedback
      weights. Of `RuleInfo`, `local_loss` is (1/H) ‖eₜ‖² and `target_step_norm` is
      ‖eₜ‖.

    Raises:
      ValueError: a number that is not a scalar, or known and out of its range; a loss
        of every step; an unknown feedback; with feedback, another network than tanh,
        relu and leaky.

    Note: known to us from descriptions alone. They agree that a displacement has one
    factor σ', and not on which: that of step t, here. They have A ~ N(0, 1), with
    which γ = H/2 makes displacements √H times larger at each step, until tanh stops
    them, whatever the error was.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.lra_fdbk(gamma=4.0)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> state.a.shape, info.local_loss.shape
      ((8, 8), (10,))
    """
    arguments.check(lra_fdbk, locals())
    arguments.check_last_step(lra_fdbk, output_loss)
    choice = TRANSPOSED
    if feedback is not None:
        choice = feedback_lib.of(feedback, network)
        arguments.check_one_matrix(lra_fdbk, network)

    def init(key: jax.Array, params: types.Params) -> FixedFeedback:
        size = network.state_size(params.w_hy.shape[0])
        normal = rnn.normal(key, (size, size), params.w_hy.dtype)
        return FixedFeedback(normal / jnp.sqrt(normal.shape[0]))

    def signals(
        key: jax.Array, rule_state: types.RuleState, forward: error_signals.Forward
    ) -> tuple[error_signals.Signals, types.RuleState]:
        del key
        if feedback is not None and choice.recurrent == "transpose":
            a = network.recurrent(forward.cell)[0].T
        else:
            a = rule_state.a
        place, cell = forward.place, forward.cell
        z = place.z

        def error(direction: jax.Array, s: jax.Array, z: jax.Array) -> jax.Array:
            step = numerics.clip(direction, c1, axis=-1).value
            return network.gap(cell, s, jnp.asarray(gamma, z.dtype) * step, z=z)

        def at_state(e: jax.Array, s: jax.Array, z: jax.Array) -> jax.Array:
            """(2/H) (∂z/∂s)ᵀ e."""
            scale = jnp.full_like(z, 2 / z.shape[-1])
            if network.is_elementwise:
                return e * network.slope(cell, s, scale, z=z)
            return network.slope(cell, s, scale * e, z=z)

        def error_below(e: jax.Array, here: Place) -> jax.Array:
            q = at_state(e, here.s, here.z)
            return error(matmul(q, a), here.s_prev, here.z_prev)

        e = error_signals.chain(
            error_below,
            error(forward.top, place.s[-1], z[-1]),
            forward.above,
        )
        return error_signals.with_targets(at_state(e, place.s, z), e), rule_state

    return error_signals.make_rule(
        init if feedback is None else types.init_empty,
        signals,
        max_norm=max_norm,
        output_loss=output_loss,
        network=network,
        feedback=choice,
    )
