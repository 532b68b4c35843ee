"""Local targets: the K-step refinement of one, and the pass of them back through time.

This is lines 8-13 and 19-27 of Algorithm 1. A target ĥₜ is carried as its
displacement dₜ = hₜ - ĥₜ: float32 loses h - γΔ for small Δ, but not d + γΔ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lra_jax import (
    gradients,
    losses,
    refinements,
    regularizer,
    rnn,
    symbols,
    types,
)
from lra_jax.losses import LocalLoss
from lra_jax.numerics import Normalized, matmul, norm, tanh_difference

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


class Targets(NamedTuple):
    """Displacements and local errors at every step.

    Attributes:
      d: `[T, B, H]`, hₜ - ĥₜ.
      u: `[T, B, H]`, ∂L_b/∂hₜ with the target constant.
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
    omega: regularizer.NormPreservation | None


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
    d: jax.Array, h: jax.Array, z: jax.Array, step: TargetStep
) -> tuple[jax.Array, jax.Array]:
    """L_b(z, ẑ) and u = ∂L_b/∂h = s ℓ'(z - ẑ) ⊙ σ'(h), the target constant.

    Args:
      d: `[..., B, H]`, h - ĥ.
      h: `[..., B, H]`.
      z: `[..., B, H]`, tanh(h).
      step: the local loss and its scale s.

    Returns:
      `[..., B]` and `[..., B, H]`.
    """
    e = tanh_difference(z, jnp.tanh(h - d), d)
    value = step.scale * jnp.sum(step.local_loss.value(e), axis=-1)
    return value, step.scale * step.local_loss.derivative(e) * (1 - z**2)


class Output(NamedTuple):
    """What the readout gives at one step, and what it is asked there."""

    logits: jax.Array  # [B, Y]
    labels: jax.Array  # [B, ...]


# (logits [B, Y], labels [B, ...]) -> [B, Y], π of one step.
OutputGrad = Callable[[jax.Array, jax.Array], jax.Array]


def own_error(
    params: types.Params, z: jax.Array, output: Output, output_grad: OutputGrad
) -> jax.Array:
    """(π W_hyᵀ) ⊙ σ', `[B, H]`: ∂E_b/∂h through the output of the state z `[B, H]`."""
    pi = output_grad(output.logits, output.labels)
    return gradients.output_error(params, z, pi)


def top_target(
    params: types.Params,
    h: jax.Array,
    z: jax.Array,
    output: Output,
    output_grad: OutputGrad,
    step: TargetStep,
) -> tuple[jax.Array, jax.Array]:
    """The target of h_{T-1}, which descends E (lines 8-13).

        Δ = Normalize( (π(z̄) W_hyᵀ) ⊙ (1 - z̄²), c1 ),   z̄ = tanh(h̄)

    Note: line 13 prints z where ẑ is meant, and omits h̄ ← ĥ; read literally, all K
    iterations would be the same. Line 10 prints no Normalize: c1 bounds every Δh.

    Args:
      params: the weights.
      h: `[B, H]`, h_{T-1}.
      z: `[B, H]`, z_{T-1}.
      output: of step T-1.
      output_grad: π of step T-1.
      step: γ, K and Normalize.

    Returns:
      d_{T-1} `[B, H]` and ‖Δh_{T-1}‖ `[B]`.
    """

    def direction(d_bar: jax.Array) -> jax.Array:
        z_bar = jnp.tanh(h - d_bar)
        moved = output._replace(logits=rnn.readout(params, z_bar))
        return own_error(params, z_bar, moved, output_grad)

    return refine(own_error(params, z, output, output_grad), direction, step)


class _Level(NamedTuple):
    """A step t ≥ 1 and the state below it, whose target is wanted."""

    h: jax.Array
    z: jax.Array
    h_prev: jax.Array
    z_prev: jax.Array
    output: Output | None  # of t-1, with a loss of every step


def _target_below(
    params: types.Params,
    output_grad: OutputGrad,
    d: jax.Array,
    size_next: jax.Array,
    level: _Level,
    step: TargetStep,
) -> tuple[jax.Array, jax.Array, jax.Array, regularizer.NormPreservation | None]:
    """The target of hₜ₋₁, which brings zₜ nearer to ẑₜ (lines 19-27).

        p = tanh(h̄) W_hh + xₜ W_xh + b_h,   ẑ' = tanh(p)
        u = s ℓ'(ẑ' - τ) ⊙ (1 - ẑ'²)
        Δ = Normalize( (u W_hhᵀ) ⊙ (1 - tanh²(h̄)) + λ ∂Ω/∂h̄, c1 )

    With a loss of every step, + (πₜ₋₁(tanh(h̄)) W_hyᵀ) ⊙ (1 - tanh²(h̄)) in Normalize:
    the target descends Lₜ and E of its own output together.

    λ follows the step's schedule, for which `size_next` is ‖uₜ₊₁‖ `[B, 1]`; the third
    result is ‖uₜ‖, for the next call.

    τ is ẑₜ, the target, with refinement="fixed". Lines 24-25 as printed overwrite it:
    with "overwrite" τ is zₜ from the second iteration on.
    """
    z_hat = jnp.tanh(level.h - d)
    # hₜ minus the pre-activation whose tanh is τ, and τ, for the iterations k ≥ 2.
    d_tau, tau = {
        "fixed": (d, z_hat),
        "overwrite": (jnp.zeros_like(d), level.z),
    }[step.refinement]

    def descent(
        u: jax.Array, z_bar: jax.Array, output: Output | None
    ) -> tuple[jax.Array, regularizer.NormPreservation | None]:
        u_back = matmul(u, params.w_hh.T)
        v = u_back * (1 - z_bar**2)
        if output is not None:
            v += own_error(params, z_bar, output, output_grad)
        if step.lambda_ is None:
            return v, None
        omega = regularizer.norm_preservation(u, u_back, z_bar)
        weight = step.schedule(step.lambda_, omega, norm(u, axis=-1), size_next)
        omega = omega._replace(a=weight * omega.a, right=weight * omega.right)
        return v + omega.a, omega

    def direction(d_bar: jax.Array) -> jax.Array:
        z_bar = jnp.tanh(level.h_prev - d_bar)
        # r = hₜ - p, from the difference of the states: no cancellation.
        r = matmul(tanh_difference(level.z_prev, z_bar, d_bar), params.w_hh)
        z_new = jnp.tanh(level.h - r)
        e = tanh_difference(z_new, tau, d_tau - r)
        u = step.scale * step.local_loss.derivative(e) * (1 - z_new**2)
        output = level.output
        if output is not None:
            output = output._replace(logits=rnn.readout(params, z_bar))
        return descent(u, z_bar, output)[0]

    # At k = 1, ẑ' is zₜ, and u the error that the weights of step t descend.
    _, u = local_error(d, level.h, level.z, step)
    first, omega = descent(u, level.z_prev, level.output)
    d_prev, step_norm = refine(first, direction, step)
    return d_prev, step_norm, norm(u, axis=-1), omega


def propagate(
    params: types.Params,
    trace: types.Trace,
    labels: jax.Array,
    output_loss: types.OutputLoss,
    step: TargetStep,
    started: jax.Array | None = None,
) -> Targets:
    """Targets of all steps, from t = T-1 down to 0.

    Only values pass from step to step: nothing is differentiated through the
    network's history, and ẑₜ and zₜ₋₁ are constants of step t.

    Args:
      params: the weights.
      trace: of the forward pass.
      labels: as `output_loss` expects them.
      output_loss: E, of the last step or of every one.
      step: the choices and numbers of a target's refinement.
      started: bool `[T, B]`, where a sample has started; None is everywhere. Before
        that there are no targets, and all is 0.
    """

    def backward_step(
        carry: tuple[jax.Array, jax.Array], level: _Level
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[Any, ...]]:
        d, step_norm, size, omega = _target_below(
            params, output_grad, *carry, level, step
        )
        return (d, size), (d, step_norm, omega)

    h, z = trace.h, trace.z
    output_grad, top = output_loss.grad, Output(trace.logits, labels)
    earlier = None
    if output_loss.every_step:
        labels = symbols.saturated(labels)
        output_grad = losses.grad_of_step(output_loss, labels)
        earlier = Output(trace.logits[:-1], labels[:-1])
        top = Output(trace.logits[-1], labels[-1])
    d_top, norm_top = top_target(params, h[-1], z[-1], top, output_grad, step)
    _, u_top = local_error(d_top, h[-1], z[-1], step)
    levels = _Level(h[1:], z[1:], h_prev=h[:-1], z_prev=z[:-1], output=earlier)
    _, (d, step_norm, omega) = rnn.scan(
        backward_step, (d_top, norm(u_top, axis=-1)), levels, reverse=True
    )
    # What the scan gives of step t is of the state below it, and of the pair of both.
    before = None if started is None else started[:-1]
    d, step_norm, omega = jax.tree.map(
        lambda x: rnn.silence(x, before), (d, step_norm, omega)
    )
    d = jnp.concatenate([d, d_top[None]])
    value, u = local_error(d, h, z, step)
    return Targets(
        d=d,
        u=u,
        local_loss=value,
        step_norm=jnp.concatenate([step_norm, norm_top[None]]),
        omega=jax.tree.map(
            lambda x: jnp.pad(x, [(1, 0)] + [(0, 0)] * (x.ndim - 1)), omega
        ),
    )
