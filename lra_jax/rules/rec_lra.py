"""Rec-LRA: the error synapses of LRA-E, and skips from the output to earlier steps."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lra_jax import error_signals, losses, rnn, settings, types
from lra_jax.networks import Network
from lra_jax.numerics import matmul
from lra_jax.rules import arguments, card
from lra_jax.rules.lra_e import ErrorSynapses, error_synapses, init_synapses

REC_LRA_CARD = card.RuleCard(
    title="recursive LRA: error synapses, with skips from the output",
    error="as `lra_e`, and directly from the output every few steps",
    choose_for="nothing transported, over fewer steps back: T = 20",
    family=card.DIRECT,
    errors_arrive="step by step, and from the output",
    transports=(),
    stores=card.EVERY_STATE,
    every_step=False,
    networks=card.ALL_NETWORKS,
    reference="Ororbia et al. 2023",
)


class SkipSynapses(NamedTuple):
    """Error synapses of the chain, and those that skip it."""

    chain: ErrorSynapses
    e_skip: jax.Array  # [Y, D]


def rec_lra(
    *,
    beta: ArrayLike = 1.0,
    num_steps_per_skip: settings.Count = 5,
    feedback_lr: ArrayLike = 0.0,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
) -> types.LearningRule:
    """Recursive LRA (Ororbia et al. 2023), step by step through time.

        eₜ = zₜ - tanh(hₜ - β π E_skip)   at t = T-1 - j, T-1 - 2j, …

    in place of the neighbour's error, and all else as in `lra_e`: no error has more
    than j steps to go.

    Args:
      beta: β, size of a target's step.
      num_steps_per_skip: j ≥ 1.
      feedback_lr: learning rate of A and E_y; 0 leaves them as they are drawn.
      max_norm: as for `bptt`.
      output_loss: E.
      network: what is trained, any of `lra_jax.networks`.

    Returns:
      A rule whose state is E_y, A and E_skip, drawn orthogonal. `RuleInfo` is as that
      of `lra_e`.

    Raises:
      ValueError: a number that is not a scalar, or known and out of its range, or a
        loss of every step.

    Note: known to us from others' programs alone. One E_skip is shared by all skips, as
    A is by all steps, and does not learn. The original bounds each matrix's update, A's
    and E_y's too, where `max_norm` is one bound of all gradients; it mixes errors
    with their signs, which is left out; and a step that receives a skip also receives
    the error of its neighbour, which it does not here.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.rec_lra(num_steps_per_skip=3)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> state.e_skip.shape, info.local_loss.shape
      ((4, 8), (10,))
    """
    arguments.check(rec_lra, locals())
    arguments.check_last_step(rec_lra, output_loss)

    def init(key: jax.Array, params: types.Params) -> SkipSynapses:
        key_chain, key_skip = jax.random.split(key)
        hidden_size, output_size = params.w_hy.shape
        size = (output_size, network.state_size(hidden_size))
        return SkipSynapses(
            init_synapses(key_chain, params, network),
            rnn.orthogonal(key_skip, size, params.w_hy.dtype),
        )

    def signals(
        key: jax.Array, rule_state: SkipSynapses, forward: error_signals.Forward
    ) -> tuple[error_signals.Signals, SkipSynapses]:
        del key
        seq_len = forward.trace.z.shape[0]
        back = jnp.arange(seq_len)[::-1]  # T-1 - t
        has_skip = (back > 0) & (back % num_steps_per_skip == 0)
        skip = matmul(forward.pi, rule_state.e_skip)
        found, synapses = error_synapses(
            rule_state.chain, forward, beta, feedback_lr, (has_skip, skip)
        )
        return found, rule_state._replace(chain=synapses)

    return error_signals.make_rule(
        init, signals, max_norm=max_norm, output_loss=output_loss, network=network
    )
