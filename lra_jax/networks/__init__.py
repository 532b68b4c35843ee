"""Recurrent networks: what every rule of this library can train.

A network is a value, given as `network=` to `init_params`, `forward`, `evaluate` and to
rules. `lra_jax.networks.network` says what one has to be.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from lra_jax import settings
from lra_jax.networks import initial
from lra_jax.networks.flax_cells import Flax
from lra_jax.networks.flax_cells import from_cell as cell_from_flax
from lra_jax.networks.flax_cells import to_cell as cell_to_flax
from lra_jax.networks.gates import GRU, LSTM, GRUCell
from lra_jax.networks.layer import LayerCell
from lra_jax.networks.network import Network, difference
from lra_jax.networks.own import Own
from lra_jax.networks.stack import Stack
from lra_jax.networks.tanh import Tanh
from lra_jax.networks.units import NONLINEARITIES, Leaky, Nonlinearity, Relu
from lra_jax.networks.weights import input_size, shapes


def tanh(
    *, w_hh_init: initial.WHhInit = "orthogonal", w_hh_gain: ArrayLike = 1.0
) -> Network:
    """The paper's network, and the default.

        hₜ = zₜ₋₁ W_hh + xₜ W_xh + b_h,   zₜ = tanh(hₜ)

    Its parameters are `Params`, and the rules' questions have closed forms.

    Args:
      w_hh_init: "orthogonal", "glorot", "gaussian" (N(0, 1/H)) or "sparse" (15 inputs
        to each unit).
      w_hh_gain: W_hh is multiplied by it. May be traced.

    Raises:
      ValueError: an unknown name, or a gain that is no positive number.

    Example:
      >>> network = lra_jax.networks.tanh(w_hh_init="gaussian", w_hh_gain=1.5)
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, network=network)
      >>> params.w_hh.shape
      (8, 8)
    """
    return Tanh(w_hh_init=w_hh_init, w_hh_gain=w_hh_gain)


def relu(
    *, w_hh_init: initial.WHhInit = "orthogonal", w_hh_gain: ArrayLike = 1.0
) -> Network:
    """One layer of relu units: as `tanh`, with z = max(h, 0).

    Arguments and errors as for `tanh`. Weights are a `LayerCell(w_xh, w_hh, b_h)`.

    Example:
      >>> network = lra_jax.networks.relu()
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, network=network)
      >>> jax.tree.map(jnp.shape, params.cell)
      LayerCell(w_xh=(6, 8), w_hh=(8, 8), b_h=(8,))
    """
    return Relu(w_hh_init=w_hh_init, w_hh_gain=w_hh_gain)


def leaky(
    *,
    alpha: settings.Fraction = 0.2,
    nonlinearity: Nonlinearity = "tanh",
    noise: ArrayLike = 0.0,
    dale: settings.Share | ArrayLike | Sequence[int] | None = None,
    mask: ArrayLike | None = None,
    w_hh_init: initial.WHhInit = "orthogonal",
    w_hh_gain: ArrayLike = 1.0,
) -> Network:
    """Leaky rate units, computational neuroscience's standard.

        sₜ = (1-α) sₜ₋₁ + α (zₜ₋₁ W_hh + xₜ W_xh + b) + √(2α) σ ξₜ,   zₜ = f(sₜ)

    ξ ~ N(0, 1) comes of an update's key; where there is no key, as in `evaluate`, there
    is no noise.

    Args:
      alpha: α = dt/τ, from 0 to 1. May be traced.
      nonlinearity: f: "tanh", "relu", "softplus", "sigmoid" or "retanh" (tanh of relu).
      noise: σ. May be traced.
      dale: what a unit sends out is of one sign: W_hh is |W| times it, by rows. Signs
        ±1 `[H]`, or the fraction of units that excite, such as 0.8; None is no law.
      mask: `[H, H]`, times W_hh; connections from row to column. None is all.
      w_hh_init: as for `tanh`; with `dale` |N|, excitation and inhibition in balance.
      w_hh_gain: as for `tanh`.

    Returns:
      A network whose weights are a `LayerCell(w_xh, w_hh, b_h)`, before `dale` and
      `mask`; `network.effective(cell)` is W_hh after both.

    Raises:
      ValueError: an unknown name, a number out of its range, signs other than ±1, or
        where weights are drawn, signs or a mask that are not of H.

    Example:
      >>> network = lra_jax.networks.leaky(alpha=0.2, noise=0.1, dale=0.75)
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, network=network)
      >>> jnp.sign(network.effective(params.cell))[:, 0].astype(int).tolist()
      [1, 1, 1, 1, 1, 1, -1, -1]
    """
    settings.check_number("alpha", alpha, "fraction")
    settings.check_number("noise", noise)
    settings.check_choice("nonlinearity", nonlinearity, tuple(NONLINEARITIES))
    initial.check(w_hh_init, w_hh_gain)
    return Leaky(
        alpha,
        nonlinearity,
        noise,
        _signs(dale),
        _rows(mask),
        w_hh_init=w_hh_init,
        w_hh_gain=w_hh_gain,
    )


def _signs(dale: Any) -> tuple[float, ...] | float | None:
    """Signs as Python numbers, which can be hashed."""
    if dale is None:
        return None
    values = np.asarray(dale)
    if values.ndim == 0 and values.dtype.kind in "if" and 0 < float(values) <= 1:
        return float(values)
    if values.ndim != 1 or not np.isin(values, (-1, 1)).all():
        raise ValueError(
            "dale: expected signs ±1 [H], or the fraction of units that excite, "
            f"above 0 and at most 1, got {dale!r}"
        )
    return tuple(float(x) for x in values)


def _rows(mask: Any) -> tuple[tuple[float, ...], ...] | None:
    """A mask as Python numbers, which can be hashed."""
    if mask is None:
        return None
    values = np.asarray(mask)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ValueError(f"mask: expected an array [H, H], got shape {values.shape}")
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise ValueError(f"mask: expected finite numbers, got {values.dtype}")
    return tuple(tuple(float(x) for x in row) for row in values)


def gru(
    *, w_hh_init: initial.WHhInit = "orthogonal", w_hh_gain: ArrayLike = 1.0
) -> Network:
    """A gated recurrent unit (Cho et al. 2014), reset after the product.

        r, u = σ(xₜ W_x + sₜ₋₁ W_h + b),   n = tanh(xₜ W_n + b + r ⊙ (sₜ₋₁ V + b_n))
        sₜ = (1 - u) ⊙ n + u ⊙ sₜ₋₁,   zₜ = sₜ

    Arguments and errors as for `tanh`; each gate's square part is drawn so. Weights are
    a `GRUCell(w_xh, w_hh, b_h, b_n)`.

    Example:
      >>> network = lra_jax.networks.gru()
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, network=network)
      >>> params.cell.w_hh.shape
      (8, 24)
    """
    return GRU(w_hh_init=w_hh_init, w_hh_gain=w_hh_gain)


def lstm(
    *,
    w_hh_init: initial.WHhInit = "orthogonal",
    w_hh_gain: ArrayLike = 1.0,
    forget_bias: ArrayLike = 1.0,
) -> Network:
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with forget gates).

        i, f, g, o = xₜ W_xh + hₜ₋₁ W_hh + b
        cₜ = σ(f) ⊙ cₜ₋₁ + σ(i) ⊙ tanh(g),   hₜ = σ(o) ⊙ tanh(cₜ)

    The state is (c, h) side by side, D = 2H, and z = h.

    Args:
      w_hh_init: as for `gru`.
      w_hh_gain: as for `gru`.
      forget_bias: initial bias of f. May be traced.

    Returns:
      A network whose weights are a `LayerCell(w_xh, w_hh, b_h)` of 4H columns.

    Raises:
      ValueError: as for `tanh`.

    Example:
      >>> network = lra_jax.networks.lstm()
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, network=network)
      >>> inputs = jnp.array([[0, 1], [2, 3], [4, 5]])  # T = 3, B = 2
      >>> trace = lra_jax.forward(params, inputs, network=network)
      >>> trace.h.shape, trace.z.shape
      ((3, 2, 16), (3, 2, 8))
    """
    return LSTM(forget_bias, w_hh_init=w_hh_init, w_hh_gain=w_hh_gain)


def stack(*layers: Network) -> Network:
    """Layers, of H units each: one step of time goes up through all of them.

    Layer l reads what layer l-1 emits at the same step. The state is all their states
    side by side, and z what the last one emits.

    Args:
      *layers: networks, the first one reads the inputs.

    Returns:
      A network whose weights are a tuple of the layers' weights.

    Raises:
      ValueError: no layers, or something else than networks.

    Example:
      >>> gru, tanh = lra_jax.networks.gru(), lra_jax.networks.tanh()
      >>> network = lra_jax.networks.stack(gru, tanh)
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, network=network)
      >>> params.cell[1].w_xh.shape
      (8, 8)
    """
    if not layers or not all(isinstance(layer, Network) for layer in layers):
        raise ValueError(f"layers: expected networks, at least one, got {layers!r}")
    return Stack(layers)


def from_step(
    *,
    init: Callable[..., Any],
    step: Callable[..., jax.Array],
    emit: Callable[..., jax.Array] | None = None,
    state_size: Callable[[int], int] | None = None,
    roles: Callable[[Any], Any] | None = None,
    activity: Callable[..., jax.Array] | None = None,
) -> Network:
    """A network of your own, of functions for whole batches.

    Everything that rules ask of it is derived.

    Args:
      init: `(key, X, H) -> weights of the cell`, any pytree of arrays.
      step: `(weights, s_prev [B, D], x [B, X]) -> s [B, D]`. One with an argument `key`
        gets the key of the step's noise, or None where there is to be none. Symbols
        come as one-hot vectors.
      emit: `(weights, s [B, D]) -> z [B, H]`; None is z = s.
      state_size: D for H; None is D = H.
      roles: of weights, "input", "recurrent", "bias" or "other" for each array, for
        `input_gain` and the norms of `NetworkInfo`; None goes by names such as `w_xh`,
        `w_hh` and `b_h`. Optimizers always go by names.
      activity: `(weights, s [B, D], z [B, H]) -> [B, D]`, what the cost of activity of
        `lra_norm` descends; None is the derivative of ½‖z‖². Of `tanh` it is z.

    Raises:
      ValueError: `init` or `step` is no function.

    Example:
      >>> def init(key, input_size, hidden_size):
      ...     w_hh = 0.9 * jnp.eye(hidden_size)
      ...     return {"w_xh": jnp.ones((input_size, hidden_size)), "w_hh": w_hh}
      >>> def step(weights, s, x):
      ...     return jnp.sin(s) @ weights["w_hh"] + x @ weights["w_xh"]
      >>> network = lra_jax.networks.from_step(
      ...     init=init, step=step, emit=lambda weights, s: jnp.sin(s)
      ... )
      >>> rule = lra_jax.lra_diff(gamma=4.0, network=network)
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, network=network)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> grads.cell["w_hh"].shape
      (8, 8)
    """
    for name, function in {"init": init, "step": step}.items():
        if not callable(function):
            raise ValueError(f"{name}: expected a function, got {function!r}")
    return Own(init, step, emit, state_size, roles, activity)


def from_flax(make: Callable[..., Any]) -> Network:
    """Any cell of Flax NNX: GRUCell, LSTMCell, OptimizedLSTMCell, SimpleCell, your own.

    The state is the cell's carry, its arrays side by side; initial weights are the
    cell's own. Variables of it that are no `nnx.Param` stay as they are made.

    Args:
      make: `(X, H, rngs) -> cell`, such as the class of a cell: a
        `flax.nnx.RNNCellBase` whose carry begins at 0, and whose output is an array of
        it.

    Returns:
      A network whose weights are a dictionary of the cell's `nnx.Param` arrays;
      `cell_from_flax(cell)` and `cell_to_flax(weights, cell)` are the ways between.

    Raises:
      ValueError: `make` is no function; and where it is called first, that it makes
        another thing.

    Example:
      >>> from flax import nnx
      >>> network = lra_jax.networks.from_flax(nnx.GRUCell)
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, network=network)
      >>> inputs = jnp.array([[0, 1], [2, 3], [4, 5]])  # T = 3, B = 2
      >>> lra_jax.forward(params, inputs, network=network).logits.shape
      (2, 4)
    """
    if not callable(make):
        raise ValueError(f"make: expected a function, got {make!r}")
    return Flax(make)


def freeze(network: Network, *names: str) -> Network:
    """The network, of whose weights some never get a gradient.

    An optimizer that moves weights without one, as by weight decay, still moves them.

    Args:
      network: any.
      *names: of arrays or parts of the cell, such as "w_xh", or "0" for the first layer
        of a stack.

    Raises:
      ValueError: no names; and where weights are drawn or used, that there is no such
        name.

    Example:
      >>> network = lra_jax.networks.freeze(lra_jax.networks.gru(), "w_xh", "b_n")
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, network=network)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.bptt(network=network)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> bool(grads.cell.w_xh.any()), bool(grads.cell.w_hh.any())
      (False, True)
    """
    if not names:
        raise ValueError("names: expected at least one array or part of the cell")
    return dataclasses.replace(network, frozen=network.frozen + names)


_OURS: dict[str, Callable[..., Network]] = {
    "tanh": tanh,
    "relu": relu,
    "leaky": leaky,
    "gru": gru,
    "lstm": lstm,
}

NETWORKS: dict[str, Callable[..., Network]] = dict(_OURS)
"""The networks by name, for configs.

Example:
  >>> lra_jax.networks.NETWORKS["gru"]() == lra_jax.networks.gru()
  True
"""


def register_network(name: str, factory: Callable[..., Network]) -> None:
    """Adds a network of your own to `NETWORKS`: configs can name it.

    Args:
      name: for configs.
      factory: `(*, ...) -> Network`. A config may give its arguments that are annotated
        `ArrayLike`, a `Literal` or `bool`.

    Raises:
      ValueError: the library has a network of this name, the name is no identifier, or
        the factory is no function.

    Example:
      >>> def slow(*, alpha=0.05):
      ...     return lra_jax.networks.leaky(alpha=alpha, nonlinearity="relu")
      >>> lra_jax.networks.register_network("slow", slow)
      >>> lra_jax.networks.NETWORKS["slow"]().alpha
      0.05
      >>> del lra_jax.networks.NETWORKS["slow"]
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name: expected an identifier, got {name!r}")
    if name in _OURS:
        raise ValueError(
            f"name: expected one that is not taken, got {name!r}, which is a network "
            "of the library"
        )
    if not callable(factory):
        raise ValueError(
            f"factory: expected a function that returns a network, got {factory!r}"
        )
    NETWORKS[name] = factory


__all__ = [
    "NETWORKS",
    "GRUCell",
    "LayerCell",
    "Network",
    "Stack",
    "Tanh",
    "cell_from_flax",
    "cell_to_flax",
    "difference",
    "freeze",
    "from_flax",
    "from_step",
    "gru",
    "input_size",
    "leaky",
    "lstm",
    "register_network",
    "relu",
    "shapes",
    "stack",
    "tanh",
]
