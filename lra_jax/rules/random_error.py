"""A control: errors of the right size, at the right steps, in random directions."""

from __future__ import annotations

import jax
from jax.typing import ArrayLike

from lra_jax import error_signals, losses, numerics, rnn, types
from lra_jax.networks import Network
from lra_jax.rules import arguments, card

RANDOM_ERROR_CARD = card.RuleCard(
    title="random errors that keep their norm, a control",
    error="at the last step BPTT's; before it a random direction, of the same norm",
    choose_for="a reference: what random errors, or random targets, reach",
    family=card.DIRECT,
    errors_arrive="in random directions",
    transports=("W_hyᵀ",),
    stores=card.EVERY_STATE,
    every_step=True,
    networks=card.ALL_NETWORKS,
    reference="a control",
)

# An update's key, folded with this, is that of the directions.
DIRECTIONS = 0x64697265


def random_error(
    *,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
) -> types.LearningRule:
    """A control for rules that send errors back: theirs must do better than random.

        q_{T-1} = (∂z/∂s)ᵀ (π W_hyᵀ),   qₜ₋₁ = ‖qₜ‖ ξₜ / ‖ξₜ‖,   ξₜ ~ N(0, I)

    and with a loss of every step + (∂z/∂s)ᵀ (πₜ₋₁ W_hyᵀ) in qₜ₋₁. ξₜ is another one for
    each update, step and sample, so nothing can align with it, as it does with the
    fixed random weights of `fa` and `dfa`. A target that is a random step away from a
    state has such an error.

    What `lra_norm`, whose errors keep their norm as well, reaches beyond `readout_only`
    and this is due to the direction of its errors. Those of other rules differ in size
    too: on the way back they shrink or grow.

    Args:
      max_norm: as for `bptt`.
      output_loss: E.
      network: what is trained, any of `lra_jax.networks`.

    Returns:
      A rule without state. Of `RuleInfo`, `target_step_norm` is ‖qₜ‖.

    Raises:
      ValueError: a number that is not a scalar, or known and out of its range.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.random_error()
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> size = info.target_step_norm  # ‖qₜ‖: the same at all steps
      >>> bool(jnp.allclose(size, size[-1], rtol=1e-5))
      True
    """
    arguments.check(random_error, locals())

    def signals(
        key: jax.Array, rule_state: types.RuleState, forward: error_signals.Forward
    ) -> tuple[error_signals.Signals, types.RuleState]:
        key = jax.random.fold_in(key, DIRECTIONS)
        keys = jax.random.split(key, forward.place.s.shape[0] - 1)

        def turned(q: jax.Array, key: jax.Array) -> jax.Array:
            xi = rnn.normal(key, q.shape, q.dtype)
            return numerics.norm(q, axis=-1) * xi / numerics.norm(xi, axis=-1)

        q = error_signals.chain(turned, forward.top, keys)
        size = numerics.norm(q, axis=-1)[..., 0]
        return error_signals.Signals(q, target_step_norm=size), rule_state

    return error_signals.make_rule(
        types.init_empty,
        signals,
        max_norm=max_norm,
        output_loss=output_loss,
        network=network,
    )
