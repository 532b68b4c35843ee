"""TPTT: target propagation through time with a learned inverse, in z-space."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lra_jax import (
    devices,
    error_signals,
    gradients,
    losses,
    networks,
    numerics,
    rnn,
    settings,
    types,
)
from lra_jax.networks import Network
from lra_jax.networks.layer import project
from lra_jax.networks.network import over_time
from lra_jax.numerics import matmul, tanh_difference
from lra_jax.rules import arguments, card
from lra_jax.rules.bptt import backward

TPTT_CARD = card.RuleCard(
    title="target propagation through time by a learned inverse",
    error="a target through an inverse that is learned",
    choose_for=(
        "no W_hhᵀ: `tptt(target_lr=10, feedback_lr=0.1)`, the optimizer of "
        "`examples/long_sequences.py`, T = 150"
    ),
    family=card.THROUGH_INVERSE,
    errors_arrive="step by step",
    transports=("W_hyᵀ",),
    stores=card.EVERY_STATE,
    every_step=True,
    networks=card.ALL_NETWORKS,
    reference="Manchev & Spratling 2020",
    variants=(
        card.Variant(
            "w_xh_update",
            "bptt",
            {"transports": card.BOTH_WEIGHTS, "networks": card.TANH_ALONE},
        ),
    ),
)


class Inverse(NamedTuple):
    """The learned inverse G(x, z) = tanh(x W_xh + z V + c)."""

    v: jax.Array  # [H, H] V
    c: jax.Array  # [H]


class StateInverse(NamedTuple):
    """The learned inverse of other networks than tanh: G(x, s) = x U + s V + c."""

    u: jax.Array  # [X, D] U
    v: jax.Array  # [D, D] V
    c: jax.Array  # [D]


class TPTTState(NamedTuple):
    """The inverse and the velocity of its Nesterov momentum."""

    inverse: Any
    velocity: Any


def sample_noise(
    key: jax.Array, shape: tuple[int, ...], std: ArrayLike, dtype: jnp.dtype
) -> jax.Array:
    """n ~ N(0, std²), what the inverse is trained around."""
    return jnp.asarray(std, dtype) * rnn.normal(key, shape, dtype)


def inverse_gradients(
    params: types.Params,
    inverse: Inverse,
    projected: jax.Array,
    z: jax.Array,
    noise: jax.Array,
    started: jax.Array | None = None,
) -> Inverse:
    """∇V and ∇c of the loss of reconstruction, its inputs constant.

        z̃ₜ₋₁ = zₜ₋₁ + nₜ,  fₜ = F(xₜ, z̃ₜ₋₁),   loss = Σₜ mean_{b,i} (G(xₜ, fₜ) - z̃ₜ₋₁)²
        gₜ = 2/(B H) (Gₜ - z̃ₜ₋₁) ⊙ (1 - Gₜ²);   ∇V = Σₜ fₜᵀ gₜ;   ∇c = Σₜ Σ_b gₜ

    Args:
      params: the weights; G shares W_xh.
      inverse: V and c.
      projected: `[T, B, H]`, xₜ W_xh + b_h.
      z: `[T, B, H]` of the forward pass.
      noise: `[T, B, H]`.
      started: bool `[T, B]`, which steps count; None is all.
    """
    noisy = gradients.previous(z) + noise
    f = jnp.tanh(matmul(noisy, params.w_hh) + projected)
    x_w = projected - params.b_h[None, None]
    g_out = jnp.tanh(x_w + matmul(f, inverse.v) + inverse.c[None, None])
    batch_size, hidden_size = z.shape[1:]
    g = 2 / (batch_size * hidden_size) * (g_out - noisy) * (1 - g_out**2)
    g = rnn.silence(g, started)
    rows = (-1, hidden_size)
    return Inverse(
        v=matmul(f.reshape(rows).T, g.reshape(rows)), c=jnp.sum(g, axis=(0, 1))
    )


def state_inverse_gradients(
    forward: error_signals.Forward, inverse: StateInverse, noise: jax.Array
) -> StateInverse:
    """∇U, ∇V and ∇c of the loss of reconstruction, as `inverse_gradients` of states.

        s̃ₜ₋₁ = sₜ₋₁ + nₜ,   fₜ = step(s̃ₜ₋₁, xₜ)
        loss = Σₜ mean_{b,i} (G(xₜ, fₜ) - s̃ₜ₋₁)²

    Args:
      forward: of the batch.
      inverse: U, V and c.
      noise: `[T, B, D]`.
    """
    network, cell, place = forward.network, forward.cell, forward.place
    noisy = place.s_prev + noise

    def step(s: jax.Array, drive: Any, key: jax.Array | None) -> jax.Array:
        return network.advance(cell, s, drive, key=key)

    f = over_time(step, noisy)(noisy, place.drive, place.key)

    def reconstruct(inverse: StateInverse) -> jax.Array:
        g = project(inverse.u, place.x) + matmul(f, inverse.v)
        return g + inverse.c[None, None]

    found, back = jax.vjp(reconstruct, devices.each_own(inverse, f))
    g = 2 / (noisy.shape[1] * noisy.shape[2]) * (found - noisy)
    return back(rnn.silence(g, forward.started))[0]


def descend(
    state: TPTTState, gradient: Any, lr: ArrayLike, momentum: ArrayLike
) -> TPTTState:
    """Nesterov: velocity ← μ velocity - lr ∇;   (V, c) ← (V, c) + μ velocity - lr ∇."""
    dtype = gradient.c.dtype
    mu = jnp.asarray(momentum, dtype)
    step = jax.tree.map(lambda g: jnp.asarray(lr, dtype) * g, gradient)
    velocity = jax.tree.map(lambda w, s: mu * w - s, state.velocity, step)
    inverse = jax.tree.map(
        lambda p, w, s: p + mu * w - s, state.inverse, velocity, step
    )
    return TPTTState(inverse, velocity)


def errors(
    params: types.Params,
    inverse: Inverse,
    projected: jax.Array,
    z: jax.Array,
    own: jax.Array,
) -> jax.Array:
    """zₜ - ẑₜ for all t, carried as the difference that it is.

    Args:
      params: the weights; G shares W_xh.
      inverse: V and c.
      projected: `[T, B, H]`, xₜ W_xh + b_h.
      z: `[T, B, H]` of the forward pass.
      own: `[B, H]`, of the last step, or `[T, B, H]`, of each: see `chain`.

    Returns:
      `[T, B, H]`.
    """

    def step(error: jax.Array, place: tuple[jax.Array, jax.Array]) -> jax.Array:
        x_w, z_t = place
        # G(xₜ, zₜ) - G(xₜ, ẑₜ), whose pre-activations differ by (zₜ - ẑₜ) V.
        a = x_w + matmul(z_t, inverse.v) + inverse.c[None]
        d = matmul(error, inverse.v)
        return tanh_difference(jnp.tanh(a), jnp.tanh(a - d), d)

    x_w = projected - params.b_h[None, None]
    return error_signals.chain(step, own, (x_w[1:], z[1:]))


def tptt(
    *,
    target_lr: ArrayLike = 0.1,
    feedback_lr: ArrayLike = 0.001,
    noise_std: ArrayLike = 0.0,
    feedback_momentum: settings.BelowOne = 0.9,
    w_xh_update: Literal["tptt", "bptt"] = "tptt",
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
) -> types.LearningRule:
    """Difference target propagation through time (Manchev & Spratling, JMLR 2020).

        F(x, z) = tanh(z W_hh + x W_xh + b_h)       G(x, z) = tanh(x W_xh + z V + c)
        ẑ_{T-1} = z_{T-1} - target_lr ∂E/∂z_{T-1}
        ẑₜ₋₁ = zₜ₋₁ - G(xₜ, zₜ) + G(xₜ, ẑₜ),   t = T-1 .. 1
        L_b = (1/H) ‖zₜ - ẑₜ‖²,   qₜ = (2/H) (zₜ - ẑₜ) ⊙ σ'ₜ,   zₜ₋₁ and ẑₜ constant

    and with a loss of every step - target_lr ∂E/∂zₜ₋₁ in ẑₜ₋₁, E's own output of t-1.

    Of other networks targets are states, as these need not be bounded as z of tanh is,
    and the inverse is affine, with input weights U of its own, which begin at 0:

        G(x, s) = x U + s V + c,   ŝ_{T-1} = s_{T-1} - target_lr ∂E/∂s_{T-1}
        L_b = (1/D) ‖sₜ - ŝₜ‖²,   qₜ = (2/D) (sₜ - ŝₜ)

    One call trains the inverse on the batch first, and uses it updated. Like the
    original, ∂E/∂z carries the 1/B of the batch mean.

    Args:
      target_lr: size of the top target's step.
      feedback_lr: learning rate of V and c.
      noise_std: standard deviation of the noise that the inverse is trained with.
      feedback_momentum: Nesterov momentum of V and c.
      w_xh_update: "tptt", the shared formula, or "bptt", the exact gradient of E; that
        of tanh alone.
      output_loss: E.
      network: what is trained, any of `lra_jax.networks`.

    Returns:
      A rule whose state is V, c and their velocities. All fields of `RuleInfo` but
      `reversal_error` are set; `target_step_norm` is ‖ẑₜ - zₜ‖.

    Raises:
      ValueError: an unknown choice, a number that is not a scalar, or known and out of
        its range, or `w_xh_update="bptt"` with another network than tanh.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.tptt(feedback_lr=0.1)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> bool((state.inverse.c != 0).any()), state.inverse.v.shape  # c began at 0
      (True, (8, 8))
    """
    arguments.check(tptt, locals())
    rnn.check_network(network)
    is_tanh = isinstance(network, networks.Tanh)
    if w_xh_update == "bptt":
        arguments.check_tanh(tptt, network, 'with w_xh_update="bptt" knows its W_xh')

    def init(key: jax.Array, params: types.AnyParams) -> TPTTState:
        dtype = params.w_hy.dtype
        size = network.state_size(params.w_hy.shape[0])
        v, c = rnn.orthogonal(key, (size, size), dtype), jnp.zeros((size,), dtype)
        inverse: Any = Inverse(v, c)
        if not is_tanh:
            input_size = rnn.input_size(params, network)
            if input_size is None:
                raise ValueError(
                    "network: expected one whose weights tell how many inputs it has, "
                    f"as tptt's inverse has weights for them, got {network.name}"
                )
            inverse = StateInverse(jnp.zeros((input_size, size), dtype), v, c)
        return TPTTState(inverse, jax.tree.map(jnp.zeros_like, inverse))

    @devices.divided(gradients.result_sharding)
    def grads(
        key: jax.Array,
        params: types.AnyParams,
        rule_state: TPTTState,
        batch: types.Batch,
    ) -> tuple[types.AnyParams, TPTTState, types.RuleInfo]:
        forward = error_signals.run_forward(params, batch, output_loss, network, key)
        place, started = forward.place, forward.started
        s = place.z if is_tanh else place.s  # where targets are
        noise = sample_noise(key, s.shape, noise_std, s.dtype)
        if is_tanh:
            learned: Any = inverse_gradients(
                params, rule_state.inverse, place.drive, place.z, noise, started
            )
        else:
            learned = state_inverse_gradients(forward, rule_state.inverse, noise)
        state = descend(rule_state, learned, feedback_lr, feedback_momentum)
        rate = jnp.asarray(target_lr, s.dtype) / s.shape[1]
        own = rate * matmul(forward.pi, params.w_hy.T)
        if is_tanh:
            e = errors(params, state.inverse, place.drive, place.z, own)
        else:
            # G(xₜ, sₜ) - G(xₜ, ŝₜ) of an affine G.
            v = state.inverse.v
            e = error_signals.chain(
                lambda error, _: matmul(error, v), forward.slope(own), forward.above
            )
        e = rnn.silence(e, started)
        q = 2 / s.shape[-1] * e
        if is_tanh:
            q = q * (1 - place.z**2)
        summed = gradients.sum_at_once(network, forward.cell, place, q)
        if w_xh_update == "bptt":
            exact_q = rnn.silence(backward(forward), started)
            exact = gradients.sum_at_once(network, forward.cell, place, exact_q)
            summed = gradients.SummedGrads(
                summed.grads._replace(w_xh=exact.grads.w_xh),
                summed.norms._replace(w_xh=exact.norms.w_xh),
            )
        info = error_signals.report(
            network,
            forward.cell,
            summed.norms,
            loss=forward.loss,
            local_loss=jnp.mean(jnp.sum(e * e, axis=-1), axis=1) / s.shape[-1],
            target_step_norm=jnp.mean(numerics.norm(e, axis=-1)[..., 0], axis=1),
        )
        readout = gradients.readout_gradients(place.z, forward.pi)
        return rnn.join(network, summed.grads, *readout), state, info

    return types.LearningRule(init, grads)
