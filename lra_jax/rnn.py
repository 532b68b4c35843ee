"""The forward pass: a recurrent network, and a linear readout of what it emits.

sₜ = step(sₜ₋₁, xₜ),   zₜ = emit(sₜ),   s₋₁ = 0,   t = 0 .. T-1
logits = z_{T-1} W_hy + b_y,   or at every step   logitsₜ = zₜ W_hy + b_y

The default is the paper's network, a layer of tanh units, whose state is called h:

hₜ = zₜ₋₁ W_hh + xₜ W_xh + b_h,   zₜ = tanh(hₜ)

A sample with a `start` has sₜ = 0 before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike, DTypeLike

from lra_jax import devices, matrices, networks, settings, symbols, types
from lra_jax.networks import Network, weights
from lra_jax.networks.network import Cell, Place
from lra_jax.numerics import matmul, with_type

TANH = networks.tanh()  # the default everywhere

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
    network: Network = TANH,
) -> Any:
    """Initial weights: orthogonal matrices, semi-orthogonal if not square, zero biases.

    A network may have others.

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
      network: any of `lra_jax.networks`, whose cell's weights are drawn as it says.

    Returns:
      `Params` of that type; for another network than tanh, `NetworkParams`.

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
    check_network(network)
    cell = with_type(network.init(key, input_size, hidden_size, kind), kind)
    network.is_frozen(cell)  # names of arrays that there are not
    if not (isinstance(input_gain, int | float) and input_gain == 1):
        if "input" not in jax.tree.leaves(network.roles(cell)):
            raise ValueError(
                "input_gain: expected 1, as no weights of the network "
                f"{network.name} have the role 'input', got {input_gain!r}"
            )
        cell = network.scale_inputs(cell, input_gain)
    key_hy = jax.random.split(key, 3)[2]  # the others are the cell's
    w_hy = orthogonal(key_hy, (hidden_size, output_size), kind)
    return join(network, cell, w_hy, jnp.zeros((output_size,), kind))


def join(network: Network, cell: Cell, w_hy: jax.Array, b_y: jax.Array) -> Any:
    """`Params` of tanh, `NetworkParams` of other networks."""
    if isinstance(network, networks.Tanh):
        return types.Params(cell.w_xh, cell.w_hh, cell.b_h, w_hy, b_y)
    return types.NetworkParams(cell, w_hy, b_y)


def cell_of(params: types.AnyParams) -> Cell:
    """The weights of the cell: all but the readout's."""
    if isinstance(params, types.NetworkParams):
        return params.cell
    return networks.LayerCell(params.w_xh, params.w_hh, params.b_h)


def check_network(network: Any) -> None:
    """Raises ValueError for what is no network."""
    if not isinstance(network, Network):
        raise ValueError(
            "network: expected one of lra_jax.networks, such as networks.gru(), "
            f"got {network!r}"
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
    kept = jax.dtypes.canonicalize_dtype(found)
    if kept != found and dtype not in (None, float, "float"):
        raise ValueError(
            f"dtype: expected one that JAX has, got {found.name}, for which "
            'jax.config.update("jax_enable_x64", True) comes first'
        )
    return kept


def check_input_gain(input_gain: ArrayLike) -> None:
    """Raises ValueError where it is known and no positive number."""
    settings.check_number(
        "input_gain", input_gain, "positive", expected="a positive number"
    )


def check_params(params: types.AnyParams, network: Network = TANH) -> None:
    """Raises ValueError where weights are not the network's, or do not fit."""
    check_network(network)
    if isinstance(network, networks.Tanh):
        _check_tanh(params)
        return
    if not isinstance(params, types.NetworkParams):
        raise ValueError(
            f"params: expected NetworkParams of the network {network.name}, "
            f"got {type(params).__name__}: init_params has an argument network, too"
        )
    if params.w_hy.ndim != 2 or 0 in params.w_hy.shape:
        raise ValueError(
            f"w_hy: expected [H, Y] with H ≥ 1, Y ≥ 1, got {params.w_hy.shape}"
        )
    hidden_size, output_size = params.w_hy.shape
    if params.b_y.shape != (output_size,):
        raise ValueError(
            f"b_y: expected [Y] = {(output_size,)}, got {params.b_y.shape}"
        )
    input_size = networks.input_size(network, params.cell, hidden_size)
    shapes = networks.shapes(network, input_size or 1, hidden_size)
    expected = jax.tree.map(jnp.shape, shapes)
    got = jax.tree.map(jnp.shape, params.cell)
    structure: Any = jax.tree.structure(params.cell)
    same = structure == jax.tree.structure(shapes)
    if got != expected or not same:
        raise ValueError(
            f"params.cell: expected the weights of {network.name} for "
            f"H = {hidden_size}, {expected}, got {got}"
        )
    dtype = params.w_hy.dtype
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating) or leaf.dtype != dtype:
            raise ValueError(
                f"params{jax.tree_util.keystr(path)}: expected {dtype}, as w_hy, "
                f"got {leaf.dtype}"
            )


def _check_tanh(params: types.Params) -> None:
    if not isinstance(params, types.Params):
        raise ValueError(
            f"params: expected Params, of the network tanh, got "
            f"{type(params).__name__}: give network= for weights of another one"
        )
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


def check_inputs(
    params: types.AnyParams, inputs: jax.Array, network: Network = TANH
) -> bool:
    """Whether `inputs` are symbols (else real vectors).

    Raises:
      ValueError: `inputs` is neither int `[T, B]` nor float `[T, B, X]` with T ≥ 1 and
        B ≥ 1, or the weights do not fit each other.
    """
    check_params(params, network)
    settings.check_array("inputs", inputs)
    size = input_size(params, network)
    are_symbols = jnp.issubdtype(inputs.dtype, jnp.integer) and inputs.ndim == 2
    are_vectors = (
        jnp.issubdtype(inputs.dtype, jnp.floating)
        and inputs.ndim == 3
        and size in (inputs.shape[2], None)
    )
    if not (are_symbols or are_vectors) or 0 in inputs.shape[:2]:
        raise ValueError(
            "inputs: expected integer symbols [T, B] or real "
            f"[T, B, {'X' if size is None else size}], "
            "time-major (time is the first axis), with T ≥ 1 and B ≥ 1, "
            f"got {inputs.dtype} {inputs.shape}"
        )
    return bool(are_symbols)


def input_size(params: types.AnyParams, network: Network) -> int | None:
    """X; None where the weights do not tell."""
    if isinstance(params, types.Params):
        return params.w_xh.shape[0]
    return networks.input_size(network, params.cell, params.w_hy.shape[0])


def index_symbols(
    params: types.AnyParams, inputs: jax.Array, network: Network = TANH
) -> jax.Array:
    """Inputs whose symbols, of any integer type, are int32; vectors as they are.

    For a network that knows no symbols they become one-hot vectors, NaN for what is
    none.

    Raises:
      ValueError: see `check_inputs`; or the weights do not tell how many there are.
    """
    if not check_inputs(params, inputs, network):
        return inputs
    size = input_size(params, network)
    if size is None:
        raise ValueError(weights.no_number_of_symbols(network))
    indices = symbols.as_index(inputs, size)
    if network.takes_symbols:
        return indices
    return symbols.one_hot(indices, size, params.w_hy.dtype)


def project_inputs(params: types.Params, inputs: jax.Array) -> jax.Array:
    """xₜ W_xh + b_h for all t, of tanh: a row gather for symbols, else a product.

    Args:
      params: the weights.
      inputs: int `[T, B]` or float `[T, B, X]`.

    Returns:
      `[T, B, H]`; NaN where a symbol is none of the X.

    Raises:
      ValueError: `inputs` is neither of the two.
    """
    check_inputs(params, inputs)
    return TANH.drive(params, inputs)


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


def read_states(z: jax.Array, pi: jax.Array) -> jax.Array:
    """The states that the readout reads, z_{T-1} or all, for what it gives there.

    Args:
      z: `[T, B, H]`.
      pi: `[B, Y]`, or `[T, B, Y]` with a loss of every step: π, or logits.

    Returns:
      `[B, H]`, or `[T, B, H]`.
    """
    return z if pi.ndim == 3 else z[-1]


def readout(params: types.AnyParams, z: jax.Array) -> jax.Array:
    """logits = z W_hy + b_y, `[..., Y]`, of states z `[..., H]`."""
    b_y = jnp.expand_dims(params.b_y, tuple(range(z.ndim - 1)))
    return matmul(z, params.w_hy) + b_y


def _trace_sharding(
    params: types.AnyParams,
    inputs: jax.Array,
    *,
    start: jax.Array | None = None,
    every_step: bool = False,
    network: Network = TANH,
    key: jax.Array | None = None,
) -> types.Trace:
    """How a trace is divided on a mesh with Explicit axes: as the samples are."""
    del params, start, network, key
    (batch,) = devices.spec(inputs, axis=1)
    every = PartitionSpec(None, batch)
    logits = every if every_step else PartitionSpec(batch)
    return types.Trace(h=every, z=every, logits=logits)  # type: ignore[arg-type]


@devices.divided(_trace_sharding)
def forward(
    params: types.AnyParams,
    inputs: jax.Array,
    *,
    start: jax.Array | None = None,
    every_step: bool = False,
    network: Network = TANH,
    key: jax.Array | None = None,
) -> types.Trace:
    """The forward pass with everything that a learning rule needs of it.

    Args:
      params: the weights.
      inputs: int `[T, B]` or float `[T, B, X]`.
      start: int `[B]`, the first step of each sample, as in `Batch`.
      every_step: whether every state is read out, as `OutputLoss.every_step`.
      network: whose weights they are.
      key: of the network's noise; None is none.

    Returns:
      `Trace(h [T, B, H], z [T, B, H], logits)`, logits `[B, Y]` of the last state or
      `[T, B, Y]` of every one.

    Raises:
      ValueError: `inputs` or `start` has another type or shape, or the weights are not
        the network's.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> inputs = jnp.array([[0, 1], [2, 3], [4, 5]])  # T = 3, B = 2
      >>> trace = lra_jax.forward(params, inputs, every_step=True)
      >>> trace.z.shape, trace.logits.shape
      ((3, 2, 8), (3, 2, 4))
      >>> lra_jax.forward(params, jax.nn.one_hot(inputs, 6)).logits.shape  # vectors
      (2, 4)
    """
    read = index_symbols(params, inputs, network)
    started = has_started(inputs, start)
    read = silence(read, started)
    place = run(params, read, network=network, started=started, key=key)
    z = place.z
    logits = readout(params, z if every_step else z[-1])
    return types.Trace(h=place.s, z=z, logits=logits)


def run(
    params: types.AnyParams,
    inputs: jax.Array,
    *,
    network: Network,
    started: jax.Array | None,
    key: jax.Array | None = None,
) -> Place:
    """All that is known of the network at all steps, `[T, B, ...]`.

    Args:
      params: the weights.
      inputs: from `index_symbols`, silent before a sample's start.
      network: whose weights they are.
      started: from `has_started`.
      key: of the network's noise; None is none.
    """
    cell = cell_of(params)
    drive = network.drive(cell, inputs)
    keys = _noise_keys(network, key, len(inputs))
    s_first = first_state(params, network, inputs, drive)
    z_first = network.emit_first(cell, s_first)
    check_emitted(params, network, z_first)

    def step(
        before: tuple[jax.Array, jax.Array],
        now: tuple[Any, jax.Array | None, jax.Array | None],
    ) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        drive, key, started = now
        s = network.advance(cell, before[0], drive, z_prev=before[1], key=key)
        s = silence(checked_state(network, s, before[0]), started)
        z = network.emit(cell, s)
        return (s, z), (s, z)

    _, (s, z) = lax.scan(step, (s_first, z_first), (drive, keys, started))
    return Place(
        s_prev=jnp.concatenate([s_first[None], s[:-1]]),
        z_prev=jnp.concatenate([z_first[None], z[:-1]]),
        s=s,
        z=z,
        x=inputs,
        drive=drive,
        key=keys,
    )


def first_state(
    params: types.AnyParams, network: Network, inputs: jax.Array, drive: Any = None
) -> jax.Array:
    """s₋₁ = 0, `[B, D]`, of inputs `[T, B, ...]`, and maybe what they add to steps."""
    size = network.state_size(params.w_hy.shape[0])
    if isinstance(drive, jax.Array) and drive.shape[2:] == (size,):
        return jnp.zeros_like(drive[0])
    zeros = jnp.zeros((inputs.shape[1], size), params.w_hy.dtype)
    return devices.varying_as(zeros, inputs)


def _noise_keys(
    network: Network, key: jax.Array | None, seq_len: int
) -> jax.Array | None:
    """A key for the noise of each step, `[T]`; None without."""
    if key is None or not network.is_noisy:
        return None
    return jax.random.split(key, seq_len)


def checked_state(network: Network, s: jax.Array, s_prev: jax.Array) -> jax.Array:
    """A step's state; ValueError where it is another array than the one before."""
    if s.shape != s_prev.shape or s.dtype != s_prev.dtype:
        raise ValueError(
            f"network: expected a step of {network.name} to return the next state, "
            f"{s_prev.dtype} [B, D] = {s_prev.shape} like the weights of the readout "
            f"and the state before, got {s.dtype} {s.shape}"
        )
    return s


def check_emitted(params: types.AnyParams, network: Network, z: jax.Array) -> None:
    """Raises ValueError where a network emits what its readout cannot read."""
    hidden_size, dtype = params.w_hy.shape[0], params.w_hy.dtype
    if z.ndim != 2 or z.shape[1] != hidden_size or z.dtype != dtype:
        raise ValueError(
            f"network: expected {network.name} to emit {dtype} [B, H] with "
            f"H = {hidden_size}, as the readout reads, got {z.dtype} {z.shape}"
        )


def final_state(
    params: types.AnyParams,
    inputs: jax.Array,
    *,
    start: jax.Array | None = None,
    network: Network = TANH,
    key: jax.Array | None = None,
) -> jax.Array:
    """`forward(...).z[-1]`, in memory that does not grow with T·H.

    Arguments and errors as for `forward`.
    """
    read = index_symbols(params, inputs, network)
    started = has_started(inputs, start)
    inputs, cell = silence(read, started), cell_of(params)
    keys = _noise_keys(network, key, len(inputs))

    def step(
        before: tuple[jax.Array, jax.Array],
        now: tuple[jax.Array, jax.Array | None, jax.Array | None],
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        x, key, started = now
        drive = network.drive_one(cell, x)
        s = network.advance(cell, before[0], drive, z_prev=before[1], key=key)
        s = silence(checked_state(network, s, before[0]), started)
        return (s, network.emit(cell, s)), None

    now = (inputs, keys, started)
    first = jax.tree.map(lambda x: x[:1], now)
    drive = network.drive(cell, first[0])
    s_first = first_state(params, network, inputs, drive)
    here = jax.tree.map(lambda x: x[0], (drive, *first[1:]))
    s = network.first(cell, here[0], s_first, key=here[1])
    s = silence(checked_state(network, s, s_first), here[2])
    rest = jax.tree.map(lambda x: x[1:], now)
    z = network.emit(cell, s)
    check_emitted(params, network, z)
    (_, z), _ = scan(step, (s, z), rest)
    return z


def final_logits(
    params: types.AnyParams,
    inputs: jax.Array,
    *,
    start: jax.Array | None = None,
    network: Network = TANH,
    key: jax.Array | None = None,
) -> jax.Array:
    """`forward(...).logits` of the last state; see `final_state`."""
    z = final_state(params, inputs, start=start, network=network, key=key)
    return readout(params, z)
