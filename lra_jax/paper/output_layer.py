"""The output layer of the program: its cross entropy, gradients, and the top target.

Numbers in brackets are the points of docs/reproduction.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lra_jax import gradients, losses, numerics, refinements, rnn, types
from lra_jax.numerics import matmul
from lra_jax.paper.arithmetic import Numbers


class Target(NamedTuple):
    """A target, and the last step to it."""

    d: jax.Array  # [B, H], h - h̄
    delta: jax.Array  # [B, H], Δh

    @property
    def step_norm(self) -> jax.Array:
        """Mean over the batch of ‖Δh‖, `[]`."""
        return jnp.mean(numerics.norm(self.delta, axis=-1))


def softmax_then_log(output_loss: types.OutputLoss) -> types.OutputLoss:
    """Cross entropy as a softmax, its logarithm, and that times a one-hot vector.

    Where a probability is too small for the number type, that is 0 · log 0, and the
    derivatives of that sample are 0/0. Other losses stay as they are.
    """
    if output_loss is not losses.cross_entropy:
        return output_loss

    def underflows(logits: jax.Array) -> jax.Array:
        # Half of the smallest subnormal number, which is zero on some machines.
        least = np.log(np.finfo(logits.dtype).smallest_subnormal) - np.log(2)
        return jnp.any(jax.nn.log_softmax(logits) < float(least), axis=1)

    def value(logits: jax.Array, labels: jax.Array) -> jax.Array:
        losses_of_samples = output_loss.value(logits, labels)
        return jnp.where(underflows(logits), jnp.nan, losses_of_samples)

    def grad(logits: jax.Array, labels: jax.Array) -> jax.Array:
        slopes = output_loss.grad(logits, labels)
        return jnp.where(underflows(logits)[:, None], jnp.nan, slopes)

    return types.OutputLoss(value, grad, output_loss.is_error)


def bounded_readout_gradients(
    params: types.Params, trace: types.Trace, pi: jax.Array, numbers: Numbers
) -> tuple[jax.Array, jax.Array]:
    """∇W_hy with Ω and bounded, ∇b_y with neither (11)."""
    w_hy, b_y = gradients.readout_gradients(trace.z, pi)
    if numbers.lambda_ is not None:
        u = pi / pi.shape[0]
        omega = numbers.omega(u, matmul(u, params.w_hy.T), trace.h[-1])
        w_hy = numbers.add_omega(w_hy, matmul(omega.product.T, u))
    return numbers.bound(w_hy), b_y


def program_top_target(
    params: types.Params,
    trace: types.Trace,
    grad: Callable[[jax.Array], jax.Array],
    numbers: Numbers,
) -> Target:
    """K times  h̄ ← h̄ - γ N( ∂E/∂h̄ + λ ∂Ω/∂h̄ ),  from h̄ = h_{T-1}.

    Args:
      params: the weights.
      trace: of the forward pass.
      grad: logits `[B, Y]` to ∂E/∂logits, which has 1/B in it (3).
      numbers: of the rule.
    """
    h = trace.h[-1]

    def step(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        h_bar, _ = carry
        z_bar = jnp.tanh(h_bar)
        u = grad(rnn.readout(params, z_bar))
        product = matmul(u, params.w_hy.T)
        delta = product * (1 - z_bar**2)
        if numbers.lambda_ is not None:
            delta = numbers.add_omega(delta, numbers.omega(u, product, h_bar).h)
        delta = numbers.bound(delta)
        return h_bar - numbers.gamma * delta, delta

    h_bar, delta = refinements.repeat(
        step,
        (h, jnp.zeros_like(h)),
        numbers.num_refinements,
        done=0,
        rule="lra_released",
    )
    return Target(h - h_bar, delta)
