"""The hidden layer of the program: targets, local losses, gradients through history.

Numbers in brackets are the points of docs/reproduction.md.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from lra_jax import devices, refinements, rnn, types
from lra_jax.numerics import matmul
from lra_jax.paper.arithmetic import Numbers, times_transpose
from lra_jax.paper.output_layer import Target

# The chains of errors through the history are as long as l: those of similar l run
# together, in so many groups, which leaves little of the square of T to zeros.
_NUM_GROUPS = 4


class _Level(NamedTuple):
    """A step l, the state below it and the step above it; `[B, H]` each."""

    h_prev: jax.Array
    h: jax.Array
    z: jax.Array
    x_w: jax.Array  # xₗ W_xh + b_h
    z_next: jax.Array
    x_w_next: jax.Array


class Residual(NamedTuple):
    """Λₗ and its derivatives, `[B, H]` each.

    Attributes:
      loss: `[]` Λₗ.
      g: ∂Λₗ/∂hₗ, on all ways: the error that goes on to all earlier steps.
      u: ∂Λₗ/∂zₗ, on the way through zₗ₊₁ only (7).
      a: ∂Λₗ/∂hₗ₊₁ through zₗ₊₁, 0 at the top.
      b: ∂Λₗ/∂p, p the pre-activation of the second argument of φ, 0 at the top.
      z_hat: tanh(hₗ - Dₗ), from which p comes.
      omega: ∂Ω/∂hₗ in W_xh's part, None without Ω.
    """

    loss: jax.Array
    g: jax.Array
    u: jax.Array
    a: jax.Array
    b: jax.Array
    z_hat: jax.Array
    omega: jax.Array | None


def _top_residual(
    d: jax.Array, h: jax.Array, z: jax.Array, numbers: Numbers
) -> Residual:
    """Λ_{T-1} = φ( z, tanh(h - D) ).

    The target moves with h (1): ∂Λ/∂h = ℓ'(e) ⊙ (σ'(h) - σ'(h - D)) / BH. The first
    order in D cancels; the error below is quadratic in the one above.
    """
    z_hat = jnp.tanh(h - d)
    e = z - z_hat
    u = numbers.loss.derivative(e) / e.size
    zeros = jnp.zeros_like(h)
    return Residual(
        loss=jnp.mean(numbers.loss.value(e)),
        g=u * (1 - z**2) - u * (1 - z_hat**2),
        u=u,
        a=zeros,
        b=zeros,
        z_hat=z_hat,
        omega=None if numbers.lambda_ is None else zeros,
    )


def _residual(
    w_hh: jax.Array, d: jax.Array, level: _Level, numbers: Numbers
) -> Residual:
    """Λₗ = φ( zₗ₊₁, tanh( tanh(hₗ - Dₗ) W_hh + xₗ₊₁ W_xh + b_h ) ), one step off (4).

    hₗ is in both arguments (1).
    """
    z_hat = jnp.tanh(level.h - d)
    z_new = jnp.tanh(matmul(z_hat, w_hh) + level.x_w_next)
    e = level.z_next - z_new
    error = numbers.loss.derivative(e) / e.size
    a = error * (1 - level.z_next**2)
    b = -error * (1 - z_new**2)
    a_back, b_back = times_transpose(w_hh, a, b)
    omega = None
    if numbers.lambda_ is not None:
        # Skipped where Λₗ is exactly 0 (17): in float32, where it is small.
        skipped = numbers.loss.vanishes(e)
        own = numbers.omega(a, a_back, level.h, skipped)
        omega = jnp.where(skipped, 0, own.h)
    return Residual(
        loss=jnp.mean(numbers.loss.value(e)),
        g=a_back * (1 - level.z**2) + b_back * (1 - z_hat**2),
        u=a_back,
        a=a,
        b=b,
        z_hat=z_hat,
        omega=omega,
    )


def _target_below(
    w_hh: jax.Array,
    residual: Residual,
    h_prev: jax.Array,
    z: jax.Array,
    x_w: jax.Array,
    numbers: Numbers,
) -> Target:
    """The target of hₗ₋₁:  K times  h̄ ← h̄ - γ N( Δ + λ ∂Ω(u)/∂h̄ ),  from h̄ = hₗ₋₁.

        k = 1:  Δ = ∂Λₗ/∂hₗ₋₁,          u = ∂Λₗ/∂zₗ
        k ≥ 2:  Δ = ∂φ(zₗ, p)/∂h̄,       u = ∂φ(zₗ, p)/∂p,
                p = tanh( tanh(h̄) W_hh + xₗ W_xh + b_h )

    From the second step on, h̄ is pulled back to where it came from (5). Float32 gets
    there, u is 0, and Ω is 0/0 (17). u is in other spaces than at the top (7).
    """

    def move(
        h_bar: jax.Array, z_bar: jax.Array, error: jax.Array, u: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        if numbers.lambda_ is None:
            delta = matmul(error, w_hh.T) * (1 - z_bar**2)
        else:
            error_back, product = times_transpose(w_hh, error, u)
            omega = numbers.omega(u, product, h_bar).h
            delta = numbers.add_omega(error_back * (1 - z_bar**2), omega)
        delta = numbers.bound(delta)
        return h_bar - numbers.gamma * delta, delta

    def step(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        h_bar, _ = carry
        z_bar = jnp.tanh(h_bar)
        p = jnp.tanh(matmul(z_bar, w_hh) + x_w)
        e = z - p
        u = -numbers.loss.derivative(e) / e.size
        return move(h_bar, z_bar, u * (1 - p**2), u)

    first = move(h_prev, jnp.tanh(h_prev), residual.g, residual.u)
    h_bar, delta = refinements.repeat(
        step, first, numbers.num_refinements, done=1, rule="lra_released"
    )
    return Target(h_prev - h_bar, delta)


def hidden_residuals(
    w_hh: jax.Array,
    trace: types.Trace,
    x_w: jax.Array,
    top: Target,
    numbers: Numbers,
) -> tuple[Residual, jax.Array]:
    """The local losses of l = 1 .. T-1, from the top down (12: none of l = 0).

    The target of h₀ would train nothing, and is left out.

    Args:
      w_hh: the recurrent weights.
      trace: of the forward pass, T ≥ 2.
      x_w: `[T, B, H]`, xₜ W_xh + b_h.
      top: the target of h_{T-1}.
      numbers: of the rule.

    Returns:
      The residuals, arrays `[T-1, ...]`, and the targets' step norms, `[T]`.
    """
    h, z = trace.h, trace.z
    residual = _top_residual(top.d, h[-1], z[-1], numbers)
    residuals = [jax.tree.map(lambda x: x[None], residual)]
    step_norms = [top.step_norm[None]]

    def below(d: jax.Array, level: _Level) -> tuple[jax.Array, Any]:
        residual = _residual(w_hh, d, level, numbers)
        target = _target_below(
            w_hh, residual, level.h_prev, level.z, level.x_w, numbers
        )
        return target.d, (residual, target.step_norm)

    if h.shape[0] > 2:
        target = _target_below(w_hh, residual, h[-2], z[-1], x_w[-1], numbers)
        levels = _Level(h[:-2], h[1:-1], z[1:-1], x_w[1:-1], z[2:], x_w[2:])
        lowest = jax.tree.map(lambda x: x[0], levels)
        upper = jax.tree.map(lambda x: x[1:], levels)
        d, (between, norms) = rnn.scan(below, target.d, upper, reverse=True)
        last = _residual(w_hh, d, lowest, numbers)
        residuals = [jax.tree.map(lambda x: x[None], last), between, *residuals]
        step_norms = [norms, target.step_norm[None], *step_norms]
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *residuals)
    norms = jnp.concatenate(step_norms)
    return joined, jnp.pad(norms, (h.shape[0] - norms.shape[0], 0))


class HiddenGradients(NamedTuple):
    """Gradients of the hidden layer's weights, one of each l: `[..., L, H]`."""

    w_xh: jax.Array  # [X, L, H]
    w_hh: jax.Array  # [H, L, H]
    b_h: jax.Array  # [L, H]


def weight_gradients(
    params: types.Params,
    x: jax.Array,
    z: jax.Array,
    residuals: Residual,
    numbers: Numbers,
) -> HiddenGradients:
    """∂Λₗ/∂(W_xh, W_hh, b_h) for l = 1 .. T-1, through the whole history (2).

    Ω is added to W_xh alone (8), from hₗ back to the first input (9).

    Args:
      params: the weights.
      x: `[T, B, X]`.
      z: `[T, B, H]`.
      residuals: arrays `[T-1, ...]`.
      numbers: of the rule.
    """
    num_chains = z.shape[0] - 1
    size = -(-num_chains // _NUM_GROUPS)
    parts = [
        _chains(
            params,
            x,
            z,
            residuals,
            numbers,
            range(low, min(low + size, num_chains + 1)),
        )
        for low in range(1, num_chains + 1, size)
    ]
    w_xh, w_hh, b_h = (jnp.concatenate(p, axis=-2) for p in zip(*parts, strict=True))
    # p's own share: of tanh(hₗ - Dₗ), xₗ₊₁ and b_h. At the top b is 0, whatever the x.
    b = residuals.b
    x_next = jnp.concatenate([x[2:], x[-1:]])
    return HiddenGradients(
        w_xh + jnp.swapaxes(matmul(jnp.swapaxes(x_next, 1, 2), b), 0, 1),
        w_hh + jnp.swapaxes(matmul(jnp.swapaxes(residuals.z_hat, 1, 2), b), 0, 1),
        b_h + jnp.sum(b, axis=1),
    )


def _chains(
    params: types.Params,
    x: jax.Array,
    z: jax.Array,
    residuals: Residual,
    numbers: Numbers,
    chains: range,
) -> HiddenGradients:
    """The gradients of Λₗ for l in `chains`, without p's own share.

    The errors ∂Λₗ/∂hⱼ of all l go back through time together: from hₗ₊₁, which has aₗ,
    and hₗ, which has gₗ, down to j = 0. Gradients of the weights are formed after: one
    product over all j and samples, as zⱼ is the same for all l.
    """
    seq_len, batch_size, hidden_size = z.shape
    top = min(chains.stop, seq_len - 1)
    at = jnp.arange(chains.start, chains.stop)
    # At step j, chain j has gⱼ, and chain j - 1 has aⱼ₋₁. With Ω, W_xh has errors of
    # its own beside those of W_hh.
    start, lead = residuals.g[:, :, None], residuals.a[:, :, None]
    if residuals.omega is not None:
        own = numbers.add_omega(residuals.g, residuals.omega)
        start = jnp.stack([residuals.g, own], axis=2)
        lead = jnp.stack([residuals.a, residuals.a], axis=2)
    kinds = start.shape[2]
    start = jnp.pad(start, [(1, 0), (0, 0), (0, 0), (0, 0)])[: top + 1]
    lead = jnp.pad(lead, [(2, 0), (0, 0), (0, 0), (0, 0)])[: top + 1]

    def step(q: jax.Array, level: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        j, dz, g, a = level
        rows = matmul(q.reshape(-1, hidden_size), params.w_hh.T)
        q = rows.reshape(q.shape) * dz[:, None, None]
        q = jnp.where((at == j)[:, None], g[:, :, None], q)
        q = jnp.where((at == j - 1)[:, None], a[:, :, None], q)
        return q, q

    shape = (batch_size, kinds, len(chains), hidden_size)
    levels = (jnp.arange(top + 1), 1 - z[: top + 1] ** 2, start, lead)
    nothing = devices.varying_as(jnp.zeros(shape, z.dtype), start)
    _, q = lax.scan(step, nothing, levels, reverse=True)

    def product(left: jax.Array, errors: jax.Array) -> jax.Array:
        rows = left.reshape(-1, left.shape[-1])
        flat = matmul(rows.T, errors.reshape(rows.shape[0], -1))
        return flat.reshape(-1, len(chains), hidden_size)

    return HiddenGradients(
        w_xh=product(x[: top + 1], q[:, :, -1]),
        w_hh=product(z[:top], q[1:, :, 0]),
        b_h=jnp.sum(q[:, :, 0], axis=(0, 1)),
    )
