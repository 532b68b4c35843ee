"""The network: a simple recurrent layer of tanh units and a linear readout.

hₜ = zₜ₋₁ W_hh + xₜ W_xh + b_h,   zₜ = tanh(hₜ),   z₋₁ = 0,   t = 0 .. T-1
logits = z_{T-1} W_hy + b_y,   or at every step   logitsₜ = zₜ W_hy + b_y

A sample with a `start` has hₜ = zₜ = 0 before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from lra_jax import devices, matrices, settings, symbols, types
from lra_jax.numerics import matmul

WEIGHT_DTYPES = ("bfloat16", "float16", "float32", "float64")


def orthogonal(
    key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype | None = None
) -> jax.Array:
    """A random (semi-)orthogonal matrix, Haar-distributed: QR with fixed signs.

    Under vmap on a CPU the matrices are drawn one after the other
    (`lra_jax.matrices`).
    """
    return matrices.orthogonal(key, shape, dtype)


def normal(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """N(0, 1), of 16 bits as of 32: drawn with these, and rounded."""
    return jax.random.normal(key, shape, matrices.wide(dtype)).astype(dtype)


def init_params(
    key: jax.Array,
    input_size: int,
    hidden_size: int,
    output_size: int,
    *,
    input_gain: ArrayLike = 1.0,
    dtype: DTypeLike | None = None,
) -> types.Params:
    """Orthogonal matrices (semi-orthogonal where not square), zero biases.

    Args:
      key: consumed.
      input_size: X, number of symbols or of input channels.
      hidden_size: H.
      output_size: Y, number of classes or of output channels.
      input_gain: W_xh is multiplied by it. The smaller it is, the less tanh takes off
        what passes a step (docs/long_sequences.md). May be traced.
      dtype: of the weights: bfloat16, float16, float32 or float64; None is JAX's
        default float type, float32, or float64 under x64. What has 16 bits is drawn
        with 32.

    Returns:
      `Params` of that type.

    Raises:
      ValueError: a size is not a positive integer, `input_gain` not positive, or
        `dtype` none of the four.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, input_gain=0.1)
      >>> bool(jnp.allclose(params.w_hh @ params.w_hh.T, jnp.eye(8), atol=1e-5))
      True
      >>> bool(jnp.allclose(params.w_xh @ params.w_xh.T, 0.01 * jnp.eye(6), atol=1e-5))
      True
    """
    input_size, hidden_size, output_size = (
        settings.check_size(name, size, expected="a positive integer")
        for name, size in (
            ("input_size", input_size),
            ("hidden_size", hidden_size),
            ("output_size", output_size),
        )
    )
    check_input_gain(input_gain)
    kind = _weight_dtype(dtype)
    key_xh, key_hh, key_hy = jax.random.split(key, 3)
    w_xh = orthogonal(key_xh, (input_size, hidden_size), kind)
    return types.Params(
        w_xh=jnp.asarray(input_gain, kind) * w_xh,
        w_hh=orthogonal(key_hh, (hidden_size, hidden_size), kind),
        b_h=jnp.zeros((hidden_size,), kind),
        w_hy=orthogonal(key_hy, (hidden_size, output_size), kind),
        b_y=jnp.zeros((output_size,), kind),
    )


def _weight_dtype(dtype: DTypeLike | None) -> jnp.dtype:
    try:
        found = jnp.dtype(float if dtype is None else dtype)
    except TypeError:
        found = None
    if found is None or found.name not in WEIGHT_DTYPES:
        raise ValueError(
            f"dtype: expected one of {', '.join(WEIGHT_DTYPES)}, got {dtype!r}"
        )
    return jax.dtypes.canonicalize_dtype(found)


def check_input_gain(input_gain: ArrayLike) -> None:
    """Raises ValueError where it is known and no positive number."""
    settings.check_number(
        "input_gain", input_gain, "positive", expected="a positive number"
    )


def check_params(params: types.Params) -> None:
    """Raises ValueError where weights do not fit each other, are empty, or not real."""
    if params.w_xh.ndim != 2 or params.w_hy.ndim != 2:
        raise ValueError(
            "params: expected w_xh [X, H] and w_hy [H, Y], "
            f"got {params.w_xh.shape} and {params.w_hy.shape}"
        )
    (input_size, hidden_size), output_size = params.w_xh.shape, params.w_hy.shape[1]
    shapes = {
        "w_xh": ("[X, H]", (input_size, hidden_size)),
        "w_hh": ("[H, H]", (hidden_size, hidden_size)),
        "b_h": ("[H]", (hidden_size,)),
        "w_hy": ("[H, Y]", (hidden_size, output_size)),
        "b_y": ("[Y]", (output_size,)),
    }
    for (name, (axes, shape)), array in zip(shapes.items(), params, strict=True):
        if array.shape != shape or 0 in shape:
            least = ", ".join(f"{axis} ≥ 1" for axis in axes[1:-1].split(", "))
            expected = f"with {least}" if 0 in shape else f"= {shape}"
            raise ValueError(f"{name}: expected {axes} {expected}, got {array.shape}")
        if jnp.dtype(array.dtype).name not in WEIGHT_DTYPES:
            raise ValueError(
                f"{name}: expected weights of {', '.join(WEIGHT_DTYPES)}, "
                f"got {array.dtype}"
            )


def check_inputs(params: types.Params, inputs: jax.Array) -> bool:
    """Whether `inputs` are symbols (else real vectors).

    Raises:
      ValueError: `inputs` is neither int `[T, B]` nor float `[T, B, X]` with T ≥ 1 and
        B ≥ 1, or the weights do not fit each other.
    """
    check_params(params)
    settings.check_array("inputs", inputs)
    input_size = params.w_xh.shape[0]
    are_symbols = jnp.issubdtype(inputs.dtype, jnp.integer) and inputs.ndim == 2
    are_vectors = (
        jnp.issubdtype(inputs.dtype, jnp.floating)
        and inputs.ndim == 3
        and inputs.shape[2] == input_size
    )
    if not (are_symbols or are_vectors) or 0 in inputs.shape[:2]:
        raise ValueError(
            f"inputs: expected integer symbols [T, B] or real [T, B, {input_size}], "
            "time-major (time is the first axis), with T ≥ 1 and B ≥ 1, "
            f"got {inputs.dtype} {inputs.shape}"
        )
    return bool(are_symbols)


def index_symbols(params: types.Params, inputs: jax.Array) -> jax.Array:
    """Inputs whose symbols, of any integer type, are int32; vectors as they are."""
    if not check_inputs(params, inputs):
        return inputs
    return symbols.as_index(inputs, params.w_xh.shape[0])


def project_inputs(params: types.Params, inputs: jax.Array) -> jax.Array:
    """xₜ W_xh + b_h for all t: a row gather for symbols, a product for vectors.

    Args:
      params: the weights.
      inputs: int `[T, B]` or float `[T, B, X]`.

    Returns:
      `[T, B, H]`; NaN where a symbol is none of the X.

    Raises:
      ValueError: `inputs` is neither of the two.
    """
    if check_inputs(params, inputs):
        rows = jnp.asarray(params.w_xh).at[index_symbols(params, inputs)]
        projected = rows.get(
            mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
        )
    else:
        projected = matmul(inputs.astype(params.w_xh.dtype), params.w_xh)
    return projected + params.b_h[None, None]


def has_started(inputs: jax.Array, start: jax.Array | None) -> jax.Array | None:
    """t ≥ start_b, bool `[T, B]`; None for None.

    Args:
      inputs: `[T, B, ...]`.
      start: `[B]` integers, or None.

    Raises:
      ValueError: `start` is no integer array `[B]`, or where its values are known (it
        is no tracer), not from 0 to T-1.
    """
    if start is None:
        return None
    settings.check_array("start", start)
    seq_len, batch_size = inputs.shape[:2]
    if start.shape != (batch_size,) or not jnp.issubdtype(start.dtype, jnp.integer):
        raise ValueError(
            f"start: expected integers [B] = {(batch_size,)}, "
            f"got {start.dtype} {start.shape}; inputs are time-major, [T, B] or "
            "[T, B, X]: time is the first axis"
        )
    values = settings.known(start)
    if values is not None and not ((values >= 0) & (values < seq_len)).all():
        raise ValueError(f"start: expected 0 to T-1 = {seq_len - 1}, got {values}")
    steps = jnp.arange(seq_len, dtype=jnp.int32)
    return steps[:, None] >= start.astype(jnp.int32)[None]


def silence(x: jax.Array, started: jax.Array | None) -> jax.Array:
    """`x` where a sample has started, else 0, whatever `x` is there.

    Args:
      x: of the axes of `started`, and any others after them.
      started: from `has_started`, or one step of it; None leaves `x` as it is.
    """
    if started is None:
        return x
    axes = tuple(range(started.ndim, x.ndim))
    return jnp.where(jnp.expand_dims(started, axes), x, 0)


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    first: Any,
    steps: Any,
    *,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """`lax.scan`, also over no steps where `jax.jit` is disabled.

    Args:
      step: `(carry, one of steps) -> (carry, output)`.
      first: the carry before the first step.
      steps: arrays `[S, ...]`, S may be 0.
      reverse: whether the last one comes first.

    Returns:
      The last carry, and the outputs `[S, ...]`.
    """
    if len(jax.tree.leaves(steps)[0]):
        return lax.scan(step, first, steps, reverse=reverse)
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), steps)
    _, output = jax.eval_shape(step, first, one)
    nothing = jax.tree.map(lambda x: jnp.zeros((0, *x.shape), x.dtype), output)
    return first, nothing


def _known(inputs: jax.Array, started: jax.Array | None) -> jax.Array:
    """The inputs, 0 for vectors before a start: no derivative is NaN times 0."""
    are_symbols = jnp.issubdtype(inputs.dtype, jnp.integer)
    return inputs if are_symbols else silence(inputs, started)


def read_states(z: jax.Array, pi: jax.Array) -> jax.Array:
    """The states that the readout reads, z_{T-1} or all, for what it gives there.

    Args:
      z: `[T, B, H]`.
      pi: `[B, Y]`, or `[T, B, Y]` with a loss of every step: π, or logits.

    Returns:
      `[B, H]`, or `[T, B, H]`.
    """
    return z if pi.ndim == 3 else z[-1]


def readout(params: types.Params, z: jax.Array) -> jax.Array:
    """logits = z W_hy + b_y, `[..., Y]`, of states z `[..., H]`."""
    b_y = jnp.expand_dims(params.b_y, tuple(range(z.ndim - 1)))
    return matmul(z, params.w_hy) + b_y


def _trace_sharding(
    params: types.Params,
    inputs: jax.Array,
    *,
    start: jax.Array | None = None,
    every_step: bool = False,
) -> types.Trace:
    """How a trace is divided on a mesh with Explicit axes: as the samples are."""
    del params, start
    (batch,) = devices.spec(inputs, axis=1)
    every = PartitionSpec(None, batch)
    logits = every if every_step else PartitionSpec(batch)
    return types.Trace(h=every, z=every, logits=logits)  # type: ignore[arg-type]


@devices.divided(_trace_sharding)
def forward(
    params: types.Params,
    inputs: jax.Array,
    *,
    start: jax.Array | None = None,
    every_step: bool = False,
) -> types.Trace:
    """The forward pass with everything that a learning rule needs of it.

    Args:
      params: the weights.
      inputs: int `[T, B]` or float `[T, B, X]`.
      start: int `[B]`, the first step of each sample, as in `Batch`.
      every_step: whether every state is read out, as `OutputLoss.every_step`.

    Returns:
      `Trace(h [T, B, H], z [T, B, H], logits)`, logits `[B, Y]` of the last state or
      `[T, B, Y]` of every one.

    Raises:
      ValueError: `inputs` or `start` has another type or shape.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> inputs = jnp.array([[0, 1], [2, 3], [4, 5]])  # T = 3, B = 2
      >>> trace = lra_jax.forward(params, inputs, every_step=True)
      >>> trace.z.shape, trace.logits.shape
      ((3, 2, 8), (3, 2, 4))
      >>> lra_jax.forward(params, jax.nn.one_hot(inputs, 6)).logits.shape  # vectors
      (2, 4)
    """

    def step(
        z_prev: jax.Array, now: tuple[jax.Array, jax.Array | None]
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        x_w, started = now
        h = silence(matmul(z_prev, params.w_hh) + x_w, started)
        z = jnp.tanh(h)
        return z, (h, z)

    check_inputs(params, inputs)
    started = has_started(inputs, start)
    projected = project_inputs(params, _known(inputs, started))
    now = (projected, started)
    _, (h, z) = lax.scan(step, jnp.zeros_like(projected[0]), now)
    return types.Trace(h=h, z=z, logits=readout(params, z if every_step else z[-1]))


def final_state(
    params: types.Params, inputs: jax.Array, *, start: jax.Array | None = None
) -> jax.Array:
    """`forward(...).z[-1]`, in memory that does not grow with T·H.

    Arguments and errors as for `forward`.
    """

    def step(
        z_prev: jax.Array, now: tuple[jax.Array, jax.Array | None]
    ) -> tuple[jax.Array, None]:
        x_t, started = now
        x_w = project_inputs(params, x_t[None])[0]
        return jnp.tanh(silence(matmul(z_prev, params.w_hh) + x_w, started)), None

    inputs = index_symbols(params, inputs)
    started = has_started(inputs, start)
    now = (_known(inputs, started), started)
    x_0, started_0 = jax.tree.map(lambda x: x[:1], now)
    z_0 = jnp.tanh(silence(project_inputs(params, x_0), started_0)[0])
    z_last, _ = scan(step, z_0, jax.tree.map(lambda x: x[1:], now))
    return z_last


def final_logits(
    params: types.Params, inputs: jax.Array, *, start: jax.Array | None = None
) -> jax.Array:
    """`forward(...).logits` of the last state; see `final_state`."""
    return readout(params, final_state(params, inputs, start=start))
