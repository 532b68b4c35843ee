"""LRA-E: targets by error synapses of their own, through a recurrent network."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lra_jax import error_signals, losses, rnn, types
from lra_jax.gradients import mean_outer
from lra_jax.networks import Network
from lra_jax.numerics import matmul
from lra_jax.rules import arguments, card

LRA_E_CARD = card.RuleCard(
    title="LRA-E: error synapses that can learn",
    error="through feedback weights of its own, which may learn (`feedback_lr`)",
    choose_for=(
        "nothing transported, step by step: T = 20 with fixed feedback; it may learn, "
        "with `feedback_lr`"
    ),
    family=card.OWN_FEEDBACK,
    errors_arrive="step by step",
    transports=(),
    stores=card.EVERY_STATE,
    every_step=False,
    networks=card.ALL_NETWORKS,
    reference="Ororbia & Mali 2019",
)


class ErrorSynapses(NamedTuple):
    """The weights that carry errors."""

    e_y: jax.Array  # [Y, D] from the output to the last state
    a: jax.Array  # [H, D] from each error to the state before, D = H of tanh


def lra_e(
    *,
    beta: ArrayLike = 1.0,
    feedback_lr: ArrayLike = 0.0,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
) -> types.LearningRule:
    """LRA-E (Ororbia & Mali 2019), step by step through time.

        e_{T-1} = z_{T-1} - tanh(h_{T-1} - β π E_y)
        eₜ₋₁ = zₜ₋₁ - tanh(hₜ₋₁ - β eₜ A)
        qₜ = eₜ                                     without σ'
        A ← A - feedback_lr Σₜ mean_b eₜᵀ zₜ₋₁
        E_y ← E_y - feedback_lr mean_b πᵀ z_{T-1}

    Args:
      beta: β, size of a target's step. The errors neither grow nor shrink where it is
        1 and A orthogonal, but for tanh.
      feedback_lr: learning rate of A and E_y; 0 leaves them as they are drawn.
      max_norm: as for `bptt`.
      output_loss: E.
      network: what is trained, any of `lra_jax.networks`.

    Returns:
      A rule whose state is E_y and A, drawn orthogonal. Of `RuleInfo`, `local_loss` is
      (1/H) ‖eₜ‖² and `target_step_norm` is ‖eₜ‖.

    Raises:
      ValueError: a number that is not a scalar, or known and out of its range, or a
        loss of every step.

    Note: the original is for feed-forward networks; one step of time is one layer here.
    It draws error synapses from N(0, 1) or N(0, .01), with β = .1: over many steps that
    leaves nothing, or too much.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.lra_e(feedback_lr=0.1)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> bool((state.a != rule.init(jax.random.key(2), params).a).any())  # it learns
      True
    """
    arguments.check(lra_e, locals())
    arguments.check_last_step(lra_e, output_loss)
    return error_signals.make_rule(
        lambda key, params: init_synapses(key, params, network),
        lambda key, state, forward: error_synapses(state, forward, beta, feedback_lr),
        max_norm=max_norm,
        output_loss=output_loss,
        network=network,
    )


def init_synapses(
    key: jax.Array, params: types.AnyParams, network: Network
) -> ErrorSynapses:
    """Random (semi-)orthogonal error synapses of the shapes that `params` needs."""
    key_y, key_a = jax.random.split(key)
    hidden_size, output_size = params.w_hy.shape
    state_size, dtype = network.state_size(hidden_size), params.w_hy.dtype
    return ErrorSynapses(
        e_y=rnn.orthogonal(key_y, (output_size, state_size), dtype),
        a=rnn.orthogonal(key_a, (hidden_size, state_size), dtype),
    )


def error_synapses(
    synapses: ErrorSynapses,
    forward: error_signals.Forward,
    beta: ArrayLike,
    feedback_lr: ArrayLike,
    skips: tuple[jax.Array, jax.Array] | None = None,
) -> tuple[error_signals.Signals, ErrorSynapses]:
    """The errors that synapses of their own carry back, and what these learn.

    Args:
      synapses: E_y and A.
      forward: the weights, the states and π.
      beta: β.
      feedback_lr: learning rate of A and E_y.
      skips: whether a skip reaches a step in place of its neighbour's error, `[T]`,
        and the skip, `[B, D]`, before β; None is none.
    """
    z, s = forward.trace.z, forward.trace.h
    network, cell = forward.network, forward.cell
    rate = jnp.asarray(beta, z.dtype)

    def error(received: jax.Array, s: jax.Array, z: jax.Array) -> jax.Array:
        return network.gap(cell, s, rate * received, z=z)

    def error_below(e: jax.Array, below: Any) -> jax.Array:
        s, z, is_skipped = below
        received = matmul(e, synapses.a)
        if skips is not None:
            received = jnp.where(is_skipped, skips[1], received)
        return error(received, s, z)

    e = error_signals.chain(
        error_below,
        error(matmul(forward.pi, synapses.e_y), s[-1], z[-1]),
        (s[:-1], z[:-1], None if skips is None else skips[0][:-1]),
    )
    # What A takes errors to: the places of the state that z shows.
    seen = network.spread(cell, s, z)
    # Nothing is learned before a sample's start; what is emitted before it is of s = 0.
    place = forward.place
    before = network.spread(cell, place.s_prev, place.z_prev)
    before = rnn.silence(before, forward.started)
    learned = mean_outer(e, before)
    gradient = ErrorSynapses(e_y=mean_outer(forward.pi, seen[-1]), a=learned)
    kappa = jnp.asarray(feedback_lr, z.dtype)
    synapses = jax.tree.map(lambda w, g: w - kappa * g, synapses, gradient)
    q = network.spread(cell, s, e)
    return error_signals.with_targets(q, e), synapses
