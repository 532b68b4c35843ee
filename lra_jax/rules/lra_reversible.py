"""lra_norm without stored states: each is computed back from the one after it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from lra_jax import (
    devices,
    error_signals,
    gradients,
    losses,
    matrices,
    numerics,
    rnn,
    settings,
    types,
)
from lra_jax.networks import Network
from lra_jax.networks.network import Place, Term
from lra_jax.numerics import matmul
from lra_jax.rules import arguments, card
from lra_jax.rules.lra_norm import displacement_below, error_at

LRA_REVERSIBLE_CARD = card.RuleCard(
    title="lra_norm without stored states",
    error="as `lra_norm`, with states computed back instead of stored",
    choose_for=(
        "memory that does not grow with T: `init_params(..., input_gain=0.03)` and the "
        "optimizer of `examples/long_sequences.py`"
    ),
    family=card.THROUGH_W_HH,
    errors_arrive="as lra_norm; states computed back",
    transports=("W_hhᵀ", "W_hh⁻¹", "W_hyᵀ"),
    stores=card.LAST_STATE,
    every_step=False,
    networks=card.TANH_ALONE,
    reference="this project",
    variants=(
        card.Variant("exponent", 0, {"errors_arrive": "BPTT's; states computed back"}),
    ),
)

# tanh⁻¹ is taken of states no nearer to ±1 than this many roundings of 1.
MIN_ROUNDINGS = 8


def lra_reversible(
    *,
    exponent: settings.Fraction = 1.0,
    activity: ArrayLike = 0.02,
    max_norm: ArrayLike = 0.0,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
) -> types.LearningRule:
    """`lra_norm` in memory that does not grow with T, but for the inputs.

    The forward pass keeps its last state. The way back inverts the network:

        zₜ₋₁ = (tanh⁻¹(zₜ) - xₜ W_xh - b_h) W_hh⁻¹

    and finds dₜ, qₜ and the gradients of step t as `lra_norm` does, with these states.

    What rounding does to zₜ reaches zₜ₋₁ divided by σ'ₜ and times W_hh⁻¹. Where states
    are small and W_hh is nearly orthogonal that is nothing, over thousands of steps.
    With W_xh as `init_params` makes it, it grows by 7 % a step, and what the first
    steps of T = 300 add is noise: use `input_gain=0.1` or less. z₋₁ = 0 has to come
    back as 0, and `reversal_error` says how far it does not. A step has one product
    more than one of `lra_norm`, and an update one inverse of W_hh.

    Args:
      exponent: p, as for `lra_norm`. p = 0 and μ = 0 are BPTT, without stored states.
      activity: μ, as for `lra_norm`.
      max_norm: as for `bptt`.
      output_loss: E, of the last step.
      network: tanh alone: no other one has an inverse of its step here.

    Returns:
      A rule without state. `RuleInfo` is as that of `lra_norm`, and has
      `reversal_error`.

    Raises:
      ValueError: a number that is not a scalar, or known and out of its range, or a
        loss of every step.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, input_gain=0.1)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> arguments = jax.random.key(2), params, lra_jax.EmptyState(), batch
      >>> grads, _, _ = lra_jax.lra_reversible().grads(*arguments)
      >>> stored, _, _ = lra_jax.lra_norm().grads(*arguments)
      >>> bool(jnp.allclose(grads.w_hh, stored.w_hh, atol=1e-5))
      True
    """
    arguments.check(lra_reversible, locals())
    arguments.check_tanh(
        lra_reversible,
        network,
        "computes a state back from the next one in closed form",
    )
    arguments.check_last_step(lra_reversible, output_loss)

    @devices.divided(gradients.result_sharding)
    def grads(
        key: jax.Array,
        params: types.Params,
        rule_state: types.EmptyState,
        batch: types.Batch,
    ) -> tuple[types.Params, types.EmptyState, types.RuleInfo]:
        del key
        z_last = rnn.final_state(params, batch.inputs, start=batch.start)
        logits = rnn.readout(params, z_last)
        pi = output_loss.grad(logits, batch.labels)
        cell = rnn.cell_of(params)
        w_inverse = matrices.inverse(params.w_hh)
        p, mu = (jnp.asarray(x, z_last.dtype) for x in (exponent, activity))
        started = rnn.has_started(batch.inputs, batch.start)
        inputs = rnn.silence(rnn.index_symbols(params, batch.inputs), started)
        # Before the first step z is 0, and so it is before a sample's own.
        begun = jnp.arange(len(inputs))[:, None] >= 0 if started is None else started
        started_before = gradients.previous(begun)

        limit = 1 - MIN_ROUNDINGS * float(jnp.finfo(z_last.dtype).eps)
        no_bound = functools.partial(numerics.clip, c=0.0)

        def back(carry: Any, place: Any) -> tuple[Any, Any]:
            z, d, total = carry
            x, started, begun, started_before = place
            h = jnp.arctanh(jnp.clip(z, -limit, limit))
            z_prev = matmul(h - rnn.project_inputs(params, x[None])[0], w_inverse)
            first = begun & ~started_before
            wrong = rnn.silence(numerics.norm(z_prev, axis=-1)[:, 0], first)
            z_prev = rnn.silence(jnp.clip(z_prev, -limit, limit), started_before)
            q = rnn.silence(error_at(d, z, mu), started)
            here = Place(x, z_prev, s_prev=jnp.arctanh(z_prev), s=h, z=z)
            total, norms = gradients.add_step(
                network, cell, total, Term(here, q), no_bound
            )
            size = jnp.mean(rnn.silence(numerics.norm(d, axis=-1)[:, 0], started))
            v = matmul(d, params.w_hh.T) * (1 - z_prev**2)
            return (z_prev, displacement_below(d, v, p), total), (
                size,
                norms,
                jnp.mean(wrong),
            )

        (_, _, total), seen = lax.scan(
            back,
            (
                z_last,
                matmul(pi, params.w_hy.T) * (1 - z_last**2),
                gradients.no_gradients(cell, z_last),
            ),
            (inputs, started, begun, started_before),
            reverse=True,
        )
        total = numerics.with_type(total, z_last.dtype)
        readout = gradients.readout_gradients(z_last[None], pi)
        size, norms, wrong = seen
        info = error_signals.report(
            network,
            cell,
            norms,
            loss=jnp.mean(output_loss.value(logits, batch.labels)),
            target_step_norm=size,
            reversal_error=jnp.sum(wrong),
        )
        grads = rnn.join(network, total, *readout)
        return error_signals.bounded(grads, max_norm), rule_state, info

    return types.LearningRule(types.init_empty, grads)
