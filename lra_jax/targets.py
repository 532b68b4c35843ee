"""Local targets: the K-step refinement of one, and the pass of them back through time.

This is lines 8-13 and 19-27 of Algorithm 1. A target ĥₜ is carried as its
displacement dₜ = hₜ - ĥₜ: float32 loses h - γΔ for small Δ, but not d + γΔ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lra_jax import losses, refinements, regularizer, rnn, symbols, types
from lra_jax.error_signals import Forward
from lra_jax.feedback import NO_WEIGHTS, Back
from lra_jax.losses import LocalLoss
from lra_jax.networks.network import Cell, Network, Place
from lra_jax.numerics import Normalized, matmul, norm

REFINEMENTS = ("fixed", "overwrite")


class TargetStep(NamedTuple):
    """The choices and numbers of a target's refinement."""

    gamma: jax.Array  # [] γ
    num_refinements: int | jax.Array  # K, int32 `[]` where it is traced
    lambda_: jax.Array | None  # [] λ; None leaves Ω out of the program
    schedule: regularizer.Schedule  # λ of each step and sample
    local_loss: LocalLoss
    scale: float  # s of L = s Σᵢ ℓ(zᵢ - ẑᵢ)
    normalize: Callable[[jax.Array], Normalized]  # of Δh, per sample, with c1
    refinement: str  # one of REFINEMENTS
    back: Back = NO_WEIGHTS  # what errors are multiplied by


class Targets(NamedTuple):
    """Displacements and local errors at every step.

    Attributes:
      d: `[T, B, D]`, sₜ - ŝₜ; of tanh hₜ - ĥₜ.
      u: `[T, B, D]`, ∂L_b/∂sₜ with the target constant.
      local_loss: `[T, B]`, L_b(zₜ, ẑₜ).
      step_norm: `[T, B]`, ‖Δhₜ‖ of the last refinement.
      omega: Ω of the pairs (t-1, t) for t = 0 .. T-1, arrays `[T, ...]`, of which `a`
        and `right` are times λₜ; the pair of t = 0 does not exist and is 0. None
        without Ω.
    """

    d: jax.Array
    u: jax.Array
    local_loss: jax.Array
    step_norm: jax.Array
    omega: Any


def refine(
    first: jax.Array, direction: Callable[[jax.Array], jax.Array], step: TargetStep
) -> tuple[jax.Array, jax.Array]:
    """K times  h̄ ← h̄ - γ Normalize(Δ(h̄), c1),  starting from h̄ = h.

    Args:
      first: `[B, H]`, Δ at h̄ = h, which the caller has already.
      direction: d̄ = h - h̄ `[B, H]` to Δ `[B, H]`.
      step: γ, K and Normalize.

    Returns:
      d = h - ĥ `[B, H]`, and ‖Δ‖ `[B]` of the last refinement.
    """

    def move(d_bar: jax.Array, delta: jax.Array) -> tuple[jax.Array, jax.Array]:
        delta, norm = step.normalize(delta)
        return d_bar + step.gamma * delta, norm[:, 0]

    return refinements.repeat(
        lambda carry: move(carry[0], direction(carry[0])),
        move(jnp.zeros_like(first), first),
        step.num_refinements,
        done=1,
        rule="lra_diff",
    )


def local_error(
    network: Network,
    cell: Cell,
    d: jax.Array,
    s: jax.Array,
    z: jax.Array,
    step: TargetStep,
) -> tuple[jax.Array, jax.Array]:
    """L_b(z, ẑ) and u = ∂L_b/∂s = (∂z/∂s)ᵀ s ℓ'(z - ẑ), the target constant.

    Of tanh, u = s ℓ'(z - ẑ) ⊙ σ'(h).

    Args:
      network: says what a displacement of s is at z.
      cell: its weights.
      d: `[..., B, D]`, s - ŝ.
      s: `[..., B, D]`.
      z: `[..., B, H]`, emit(s).
      step: the local loss and its scale s.

    Returns:
      `[..., B]` and `[..., B, D]`.
    """
    e = network.gap(cell, s, d, z=z)
    value = step.scale * jnp.sum(step.local_loss.value(e), axis=-1)
    return value, network.slope(
        cell, s, step.scale * step.local_loss.derivative(e), z=z
    )


class Output(NamedTuple):
    """What the readout gives at one step, and what it is asked there."""

    logits: jax.Array  # [B, Y]
    labels: types.Labels  # [B, ...]


# (logits [B, Y], labels [B, ...]) -> [B, Y], π of one step.
OutputGrad = Callable[[jax.Array, types.Labels], jax.Array]


def own_error(
    network: Network,
    params: types.AnyParams,
    s: jax.Array,
    z: jax.Array,
    output: Output,
    output_grad: OutputGrad,
    back: Back,
) -> jax.Array:
    """(∂z/∂s)ᵀ (π W_hyᵀ), `[B, D]`: ∂E_b/∂s through the output of the state s."""
    e = matmul(output_grad(output.logits, output.labels), back.readout_of(params))
    return network.slope(rnn.cell_of(params), s, e, z=z)


def top_target(
    network: Network,
    params: types.AnyParams,
    s: jax.Array,
    z: jax.Array,
    output: Output,
    output_grad: OutputGrad,
    step: TargetStep,
) -> tuple[jax.Array, jax.Array]:
    """The target of s_{T-1}, which descends E (lines 8-13).

        Δ = Normalize( (∂z̄/∂s̄)ᵀ (π(z̄) W_hyᵀ), c1 ),   z̄ = emit(s̄)

    Note: line 13 prints z where ẑ is meant, and omits h̄ ← ĥ; read literally, all K
    iterations would be the same. Line 10 prints no Normalize: c1 bounds every Δh.

    Args:
      network: whose state it is.
      params: the weights.
      s: `[B, D]`, s_{T-1}; of tanh h_{T-1}.
      z: `[B, H]`, z_{T-1}.
      output: of step T-1.
      output_grad: π of step T-1.
      step: γ, K and Normalize.

    Returns:
      d_{T-1} `[B, D]` and ‖Δ‖ `[B]`.
    """
    cell = rnn.cell_of(params)

    def direction(d_bar: jax.Array) -> jax.Array:
        s_bar = s - d_bar
        z_bar = network.emit(cell, s_bar)
        moved = output._replace(logits=rnn.readout(params, z_bar))
        return own_error(network, params, s_bar, z_bar, moved, output_grad, step.back)

    first = own_error(network, params, s, z, output, output_grad, step.back)
    return refine(first, direction, step)


class _Level(NamedTuple):
    """A step t ≥ 1 and the state below it, whose target is wanted."""

    place: Place
    output: Output | None  # of t-1, with a loss of every step


def _target_below(
    network: Network,
    params: types.AnyParams,
    output_grad: OutputGrad,
    d: jax.Array,
    size_next: jax.Array,
    level: _Level,
    step: TargetStep,
) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
    """The target of sₜ₋₁, which brings zₜ nearer to ẑₜ (lines 19-27).

        p = step(s̄),   ẑ' = emit(p)
        u = (∂ẑ'/∂p)ᵀ s ℓ'(ẑ' - τ)
        Δ = Normalize( (∂p/∂s̄)ᵀ u + λ ∂Ω/∂s̄, c1 )

    which of tanh is

        p = tanh(h̄) W_hh + xₜ W_xh + b_h,   ẑ' = tanh(p)
        u = s ℓ'(ẑ' - τ) ⊙ (1 - ẑ'²)
        Δ = Normalize( (u W_hhᵀ) ⊙ (1 - tanh²(h̄)) + λ ∂Ω/∂h̄, c1 )

    With a loss of every step, + (∂z̄/∂s̄)ᵀ (πₜ₋₁(z̄) W_hyᵀ) in Normalize: the target
    descends Lₜ and E of its own output together.

    λ follows the step's schedule, for which `size_next` is ‖uₜ₊₁‖ `[B, 1]`; the third
    result is ‖uₜ‖, for the next call.

    τ is ẑₜ, the target, with refinement="fixed". Lines 24-25 as printed overwrite it:
    with "overwrite" τ is zₜ from the second iteration on.
    """
    cell, place = rnn.cell_of(params), level.place
    given = {"drive": place.drive, "key": place.key}
    z_hat = network.emit(cell, place.s - d)
    # sₜ minus the state that emits τ, and τ, for the iterations k ≥ 2.
    d_tau, tau = {
        "fixed": (d, z_hat),
        "overwrite": (jnp.zeros_like(d), place.z),
    }[step.refinement]

    def descent(
        u: jax.Array, s_bar: jax.Array, z_bar: jax.Array, output: Output | None
    ) -> tuple[jax.Array, Any]:
        at = (cell, s_bar, place.x, u)
        omega = None
        if step.lambda_ is None:
            v = step.back.pull(network, *at, z_prev=z_bar, **given)
        else:
            v, omega = network.norm_preservation(*at, z_prev=z_bar, **given)
        if output is not None:
            v += own_error(
                network, params, s_bar, z_bar, output, output_grad, step.back
            )
        if step.lambda_ is None or omega is None:
            return v, None
        weight = step.schedule(step.lambda_, omega, norm(u, axis=-1), size_next)
        omega = omega.times(weight)
        return v + omega.a, omega

    def direction(d_bar: jax.Array) -> jax.Array:
        s_bar = place.s_prev - d_bar
        z_bar = network.emit(cell, s_bar)
        # r = sₜ - p, from the difference of the states: no cancellation.
        r = network.move(
            cell,
            place.s_prev,
            place.x,
            d_bar,
            s=place.s,
            z_prev=place.z_prev,
            z_moved=z_bar,
            **given,
        )
        s_new = place.s - r
        z_new = network.emit(cell, s_new)
        e = network.gap(cell, s_new, d_tau - r, z=z_new, z_moved=tau)
        asked = step.scale * step.local_loss.derivative(e)
        u = network.slope(cell, s_new, asked, z=z_new)
        output = level.output
        if output is not None:
            output = output._replace(logits=rnn.readout(params, z_bar))
        return descent(u, s_bar, z_bar, output)[0]

    # At k = 1, ẑ' is zₜ, and u the error that the weights of step t descend.
    _, u = local_error(network, cell, d, place.s, place.z, step)
    first, omega = descent(u, place.s_prev, place.z_prev, level.output)
    d_prev, step_norm = refine(first, direction, step)
    return d_prev, step_norm, norm(u, axis=-1), omega


def propagate(
    forward: Forward,
    labels: types.Labels,
    output_loss: types.OutputLoss,
    step: TargetStep,
) -> Targets:
    """Targets of all steps, from t = T-1 down to 0.

    Only values pass from step to step: nothing is differentiated through the
    network's history, and ẑₜ and zₜ₋₁ are constants of step t.

    Before a sample's start there are no targets, and all is 0.

    Args:
      forward: of the batch.
      labels: as `output_loss` expects them.
      output_loss: E, of the last step or of every one.
      step: the choices and numbers of a target's refinement.
    """
    network, params, trace = forward.network, forward.params, forward.trace
    cell, started = forward.cell, forward.started

    def backward_step(
        carry: tuple[jax.Array, jax.Array], level: _Level
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[Any, ...]]:
        d, step_norm, size, omega = _target_below(
            network, params, output_grad, *carry, level, step
        )
        return (d, size), (d, step_norm, omega)

    s, z = trace.h, trace.z
    output_grad, top = output_loss.grad, Output(trace.logits, labels)
    earlier = None
    if output_loss.every_step:
        labels = symbols.saturated(labels)
        output_grad = losses.grad_of_step(output_loss, losses.num_asked(labels))
        every = Output(trace.logits, labels)
        earlier = jax.tree.map(lambda x: x[:-1], every)
        top = jax.tree.map(lambda x: x[-1], every)
    last = (s[-1], z[-1])
    d_top, norm_top = top_target(network, params, *last, top, output_grad, step)
    _, u_top = local_error(network, cell, d_top, *last, step)
    levels = _Level(forward.above, output=earlier)
    _, (d, step_norm, omega) = rnn.scan(
        backward_step, (d_top, norm(u_top, axis=-1)), levels, reverse=True
    )
    # What the scan gives of step t is of the state below it, and of the pair of both.
    before = None if started is None else started[:-1]
    d, step_norm, omega = jax.tree.map(
        lambda x: rnn.silence(x, before), (d, step_norm, omega)
    )
    d = jnp.concatenate([d, d_top[None]])
    value, u = local_error(network, cell, d, s, z, step)
    return Targets(
        d=d,
        u=u,
        local_loss=value,
        step_norm=jnp.concatenate([step_norm, norm_top[None]]),
        omega=jax.tree.map(
            lambda x: jnp.pad(x, [(1, 0)] + [(0, 0)] * (x.ndim - 1)), omega
        ),
    )
