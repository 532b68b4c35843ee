"""A frozen reservoir with a trained readout: the control of every claim."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lra_jax import devices, error_signals, gradients, losses, rnn, types
from lra_jax.networks import Network
from lra_jax.rules import arguments, card

READOUT_ONLY_CARD = card.RuleCard(
    title="a frozen hidden layer with a trained readout: the control",
    error="none: the hidden layer stays as it began",
    choose_for="a reference: a frozen network with a trained readout",
    family=card.DIRECT,
    errors_arrive="not at all",
    transports=(),
    stores=card.EVERY_STATE,
    every_step=True,
    networks=card.ALL_NETWORKS,
    reference="this project",
)


def readout_only(
    *,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
) -> types.LearningRule:
    """∇W_hy and ∇b_y of E; all other gradients are 0.

    What a rule reaches beyond this is what its hidden weights have learned.

    Args:
      output_loss: E.
      network: what is kept as it is, any of `lra_jax.networks`.

    Returns:
      A rule without state, which knows no local loss: of `RuleInfo`, or
      `NetworkInfo`, the loss is set.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.readout_only()
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> bool(grads.w_hh.any()), bool(grads.w_hy.any())
      (False, True)
    """
    arguments.check(readout_only, locals())
    rnn.check_network(network)

    @devices.divided(gradients.result_sharding)
    def grads(
        key: jax.Array,
        params: types.AnyParams,
        rule_state: types.EmptyState,
        batch: types.Batch,
    ) -> tuple[types.AnyParams, types.EmptyState, types.RuleInfo]:
        forward = error_signals.run_forward(params, batch, output_loss, network, key)
        w_hy, b_y = gradients.readout_gradients(forward.trace.z, forward.pi)
        frozen = jax.tree.map(jnp.zeros_like, params)
        info = error_signals.report(network, forward.cell, None, loss=forward.loss)
        return frozen._replace(w_hy=w_hy, b_y=b_y), rule_state, info

    return types.LearningRule(types.init_empty, grads)
