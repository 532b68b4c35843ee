"""UORO: the influence of weights as one product of two vectors, without bias."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lra_jax import devices, influence, losses, numerics, rnn, types
from lra_jax.feedback import FeedbackLike
from lra_jax.networks import Network
from lra_jax.networks.network import Cell, Place
from lra_jax.rules import arguments, card

UORO_CARD = card.RuleCard(
    title="unbiased online recurrent optimization",
    error=(
        "nothing comes back: a random product of two vectors stands for the "
        "influence of all weights on all units"
    ),
    choose_for=(
        "the gradient on average, no sequence stored, where `rtrl` is too large"
    ),
    family=card.FORWARD,
    errors_arrive="forward in time, as noise",
    transports=("W_hh", "W_hyᵀ"),
    stores=card.LAST_STATE,
    every_step=True,
    networks=card.ALL_NETWORKS,
    reference="Tallec & Ollivier 2018",
    feedback=card.READOUT_WEIGHTS,
)


class Product(NamedTuple):
    """J ≈ s̃ ⊗ θ̃ of each sample."""

    s: jax.Array  # [B, D]
    theta: Any  # like the cell, [B, ...]


def uoro(
    *,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
    feedback: FeedbackLike = "transpose",
) -> types.LearningRule:
    """Unbiased online recurrent optimization (Tallec & Ollivier 2018).

        s̃ ← ρ₀ Aₜ s̃ + ρ₁ ν,   θ̃ ← θ̃ / ρ₀ + νᵀ Mₜ / ρ₁,   ν ∈ {±1} `[D]`
        ρ₀ = √(‖θ̃‖ / ‖Aₜ s̃‖),   ρ₁ = √(‖νᵀ Mₜ‖ / ‖ν‖),   ∇p = Σₜ mean_b (ℓₜ s̃) θ̃

    The mean over ν is the gradient of `bptt`. A single draw is far from it: s̃ ⊗ θ̃ has
    one direction in place of D.

    Args:
      max_norm: as for `bptt`.
      output_loss: E.
      network: what is trained: any of `lra_jax.networks`.
      feedback: what stands in place of W_hyᵀ in ℓ, a word or a `Feedback`.

    Returns:
      A rule without state, or with feedback weights. Of `RuleInfo` there is the loss
      alone. It can update inside a sequence, see `train_step`.

    Raises:
      ValueError: a number that is not a scalar, or known and
        out of its range.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.uoro()
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> grads.w_hh.shape, state
      ((8, 8), EmptyState())
    """
    arguments.check(uoro, locals())
    rnn.check_network(network)
    return influence.make_rule(
        _products(network),
        max_norm=max_norm,
        output_loss=output_loss,
        network=network,
        feedback=feedback,
    )


def _products(network: Network) -> influence.Influence:
    """s̃ and θ̃ of each sample, as an `Influence`."""

    def begin(cell: Cell, s: jax.Array) -> Product:
        theta = jax.tree.map(
            lambda w: devices.varying_as(jnp.zeros((len(s), *w.shape), w.dtype), s),
            cell,
        )
        return Product(jnp.zeros_like(s), theta)

    def step(key: jax.Array, cell: Cell, trace: Product, place: Place) -> Product:
        nu = jax.random.rademacher(key, place.s.shape, place.s.dtype)
        nu = devices.varying_as(nu, place.s)
        pushed = network.push(cell, place, trace.s)
        direct = network.weigh_each(
            cell, place.s_prev, place.x, nu, z_prev=place.z_prev, key=place.key
        )
        rho_0 = _ratio(_sizes(trace.theta), numerics.norm(pushed, axis=-1)[:, 0])
        rho_1 = _ratio(_sizes(direct), numerics.norm(nu, axis=-1)[:, 0])
        theta = jax.tree.map(
            lambda old, new: old / _beside(rho_0, old) + new / _beside(rho_1, new),
            trace.theta,
            direct,
        )
        return Product(rho_0[:, None] * pushed + rho_1[:, None] * nu, theta)

    def weigh(cell: Cell, trace: Product, ell: jax.Array, place: Place) -> Cell:
        del cell, place
        weight = jnp.sum(ell * trace.s, axis=-1)
        return jax.tree.map(
            lambda theta: jnp.sum(_beside(weight, theta) * theta, axis=0), trace.theta
        )

    return influence.Influence(begin, step, weigh)


def _sizes(tree: Any) -> jax.Array:
    """`[B]`, the norm of all arrays `[B, ...]` of a pytree together."""
    parts = [
        numerics.norm(x.reshape(len(x), -1), axis=-1)[:, 0]
        for x in jax.tree.leaves(tree)
    ]
    return numerics.norm(jnp.stack(parts), axis=0)[0]


def _ratio(above: jax.Array, below: jax.Array) -> jax.Array:
    """√(above / below); 1 where either is 0, and what is divided by it nothing."""
    some = (above > 0) & (below > 0)
    return jnp.where(some, jnp.sqrt(above / jnp.where(some, below, 1)), 1)


def _beside(x: jax.Array, other: jax.Array) -> jax.Array:
    """x `[B]` with the axes of `other`, `[B, ...]`."""
    return x.reshape(-1, *(1,) * (other.ndim - 1))
