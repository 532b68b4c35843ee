"""The network: a simple recurrent layer of tanh units and a linear readout.

hₜ = zₜ₋₁ W_hh + xₜ W_xh + b_h,   zₜ = tanh(hₜ),   z₋₁ = 0,   t = 0 .. T-1
logits = z_{T-1} W_hy + b_y
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from lra_jax import types
from lra_jax.numerics import matmul


def orthogonal(
    key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype | None = None
) -> jax.Array:
    """A random (semi-)orthogonal matrix, Haar-distributed: QR with fixed signs.

    Under vmap the matrices are drawn one after the other. A batched QR on the CPU
    blocks a thread of XLA's pool while it waits for work queued on the same pool:
    with few cores, two of them at once wait for ever (jaxlib 0.10.2).
    """

    def draw(key: jax.Array) -> jax.Array:
        return jax.nn.initializers.orthogonal()(key, shape, dtype)

    return jax.custom_batching.sequential_vmap(draw)(key)


def init_params(
    key: jax.Array, input_size: int, hidden_size: int, output_size: int
) -> types.Params:
    """Orthogonal matrices (semi-orthogonal where not square), zero biases.

    Args:
      key: consumed.
      input_size: X, number of symbols or of input channels.
      hidden_size: H.
      output_size: Y, number of classes or of output channels.

    Returns:
      `Params` of JAX's default float type: float32, or float64 under x64.

    Raises:
      ValueError: a size is not a positive integer.
    """
    sizes = {
        "input_size": input_size,
        "hidden_size": hidden_size,
        "output_size": output_size,
    }
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name}: expected a positive integer, got {size!r}")
    key_xh, key_hh, key_hy = jax.random.split(key, 3)
    w_xh = orthogonal(key_xh, (input_size, hidden_size))
    return types.Params(
        w_xh=w_xh,
        w_hh=orthogonal(key_hh, (hidden_size, hidden_size)),
        b_h=jnp.zeros((hidden_size,), w_xh.dtype),
        w_hy=orthogonal(key_hy, (hidden_size, output_size)),
        b_y=jnp.zeros((output_size,), w_xh.dtype),
    )


def check_inputs(params: types.Params, inputs: jax.Array) -> bool:
    """Whether `inputs` are symbols (else real vectors).

    Raises:
      ValueError: `inputs` is neither int `[T, B]` nor float `[T, B, X]` with T ≥ 1.
    """
    input_size = params.w_xh.shape[0]
    symbols = jnp.issubdtype(inputs.dtype, jnp.integer) and inputs.ndim == 2
    vectors = (
        jnp.issubdtype(inputs.dtype, jnp.floating)
        and inputs.ndim == 3
        and inputs.shape[2] == input_size
    )
    if not (symbols or vectors) or inputs.shape[0] < 1:
        raise ValueError(
            f"inputs: expected integer symbols [T, B] or real [T, B, {input_size}] "
            f"with T ≥ 1, got {inputs.dtype} {inputs.shape}"
        )
    return bool(symbols)


def project_inputs(params: types.Params, inputs: jax.Array) -> jax.Array:
    """xₜ W_xh + b_h for all t: a row gather for symbols, a product for vectors.

    Args:
      params: the weights.
      inputs: int `[T, B]` or float `[T, B, X]`.

    Returns:
      `[T, B, H]`.

    Raises:
      ValueError: `inputs` is neither of the two.
    """
    if check_inputs(params, inputs):
        projected = jnp.asarray(params.w_xh)[inputs]
    else:
        projected = matmul(inputs.astype(params.w_xh.dtype), params.w_xh)
    return projected + params.b_h[None, None]


def readout(params: types.Params, z: jax.Array) -> jax.Array:
    """logits = z W_hy + b_y, `[B, Y]`, of a state z `[B, H]`."""
    return matmul(z, params.w_hy) + params.b_y[None]


def forward(params: types.Params, inputs: jax.Array) -> types.Trace:
    """The forward pass with everything that a learning rule needs of it.

    Args:
      params: the weights.
      inputs: int `[T, B]` or float `[T, B, X]`.

    Returns:
      `Trace(h [T, B, H], z [T, B, H], logits [B, Y])`.

    Raises:
      ValueError: `inputs` has another type or shape.
    """

    def step(
        z_prev: jax.Array, x_w: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        h = matmul(z_prev, params.w_hh) + x_w
        z = jnp.tanh(h)
        return z, (h, z)

    projected = project_inputs(params, inputs)
    _, (h, z) = lax.scan(step, jnp.zeros_like(projected[0]), projected)
    return types.Trace(h=h, z=z, logits=readout(params, z[-1]))


def final_logits(params: types.Params, inputs: jax.Array) -> jax.Array:
    """`forward(params, inputs).logits`, in memory that does not grow with T·H."""

    def step(z_prev: jax.Array, x_t: jax.Array) -> tuple[jax.Array, None]:
        x_w = project_inputs(params, x_t[None])[0]
        return jnp.tanh(matmul(z_prev, params.w_hh) + x_w), None

    check_inputs(params, inputs)
    z_0 = jnp.tanh(project_inputs(params, inputs[:1])[0])
    z_last, _ = lax.scan(step, z_0, inputs[1:])
    return readout(params, z_last)
