"""Target propagation by a regularised inverse of W_hh."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lra_jax import error_signals, losses, matrices, rnn, settings, types
from lra_jax.networks import Network
from lra_jax.numerics import matmul
from lra_jax.rules import arguments, card

TPRI_CARD = card.RuleCard(
    title="target propagation by a regularised inverse",
    error="a target through the regularised inverse of W_hh",
    choose_for="comparisons: an inverse that is computed",
    family=card.THROUGH_INVERSE,
    errors_arrive="step by step",
    transports=("W_hh⁻¹", "W_hyᵀ"),
    stores=card.EVERY_STATE,
    every_step=True,
    networks=card.TANH_ALONE,
    reference="Roulet & Harchaoui 2021",
)

# tanh' is divided by: states nearer to ±1 than this, or than a rounding of 1, count as
# this near.
MIN_DISTANCE = 1e-3


def regularised_inverse(w_hh: jax.Array, ridge: jax.Array) -> jax.Array:
    """W_hhᵀ (W_hh W_hhᵀ + r I)⁻¹, `[H, H]`: W_hh⁻¹ where r = 0."""
    return matrices.ridge_solve(w_hh, ridge, w_hh).T


def tpri(
    *,
    target_lr: ArrayLike = 0.01,
    ridge: settings.Positive = 10.0,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
) -> types.LearningRule:
    """Target propagation via regularised inversion (Roulet & Harchaoui 2021), local.

        e_{T-1} = target_lr π W_hyᵀ,   eₜ = zₜ - ẑₜ
        eₜ₋₁ = (eₜ ⊘ σ'ₜ) W_hhᵀ (W_hh W_hhᵀ + r I)⁻¹
        qₜ = eₜ ⊙ σ'ₜ

    and with a loss of every step + target_lr πₜ₋₁ W_hyᵀ in eₜ₋₁.

    Where σ' divides, |zₜ| counts as 1 - 10⁻³ at most.

    Args:
      target_lr: size of the top target's step. The defaults are its authors' for
        temporal order at T = 60, where the weights have a learning rate of 0.1.
      ridge: r > 0 of the inverse.
      max_norm: as for `bptt`.
      output_loss: E.
      network: tanh alone: no other one has an inverse of its step here.

    Returns:
      A rule without state. Of `RuleInfo`, `local_loss` is (1/H) ‖eₜ‖² and
      `target_step_norm` is ‖eₜ‖.

    Raises:
      ValueError: a number that is not a scalar, or known and out of its range, or
        another network than tanh.

    Note: the authors' program differentiates the sum of local losses through the
    unrolled network; here zₜ₋₁ and ẑₜ are constants of step t.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.tpri(ridge=1.0)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> info.local_loss.shape, bool(info.local_loss[-1] > info.local_loss[0])
      ((10,), True)
    """
    arguments.check(tpri, locals())
    arguments.check_tanh(tpri, network, "inverts a step's derivative in closed form")

    def signals(
        key: jax.Array, rule_state: types.EmptyState, forward: error_signals.Forward
    ) -> tuple[error_signals.Signals, types.EmptyState]:
        del key
        params, z = forward.params, forward.trace.z
        dtype = z.dtype
        limit = 1 - max(MIN_DISTANCE, float(jnp.finfo(dtype).eps))
        dz = 1 - jnp.clip(z, -limit, limit) ** 2
        inverse = regularised_inverse(params.w_hh, jnp.asarray(ridge, dtype))
        own = jnp.asarray(target_lr, dtype) * matmul(forward.pi, params.w_hy.T)
        # The chain carries eₜ ⊘ σ'ₜ: the σ' of a step is at hand where it is made.
        scaled = error_signals.chain(
            lambda r, dz_prev: matmul(r, inverse) / dz_prev,
            own / rnn.read_states(dz, forward.pi),
            dz[:-1],
        )
        e = scaled * dz
        return error_signals.with_targets(e * (1 - z**2), e), rule_state

    return error_signals.make_rule(
        types.init_empty,
        signals,
        max_norm=max_norm,
        output_loss=output_loss,
        network=network,
    )
