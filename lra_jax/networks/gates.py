"""Layers of units with gates: GRU and LSTM."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lra_jax.networks import initial
from lra_jax.networks.network import Network, Product
from lra_jax.networks.tanh import LayerCell, project
from lra_jax.numerics import matmul


class GRUCell(NamedTuple):
    """Weights of a GRU; the parts of the three gates r, u, n stand side by side.

    Attributes:
      w_xh: `[X, 3H]`, from the inputs.
      w_hh: `[H, 3H]`, from the state before.
      b_h: `[3H]`.
      b_n: `[H]`, what r multiplies of n, beside the state's part.
    """

    w_xh: jax.Array
    w_hh: jax.Array
    b_h: jax.Array
    b_n: jax.Array


@dataclasses.dataclass(frozen=True)
class GRU(Network):
    """See `networks.gru`."""

    w_hh_init: str = "orthogonal"
    w_hh_gain: Any = 1.0

    @property
    def is_elementwise(self) -> bool:
        return True

    @property
    def takes_symbols(self) -> bool:
        return True

    def __post_init__(self) -> None:
        initial.check(self.w_hh_init, self.w_hh_gain)

    def init(
        self,
        key: jax.Array,
        input_size: int,
        hidden_size: int,
        dtype: jnp.dtype | None = None,
    ) -> GRUCell:
        sizes = initial.Sizes(input_size, hidden_size, dtype)
        layer = initial.layer(key, sizes, self.w_hh_init, self.w_hh_gain, gates=3)
        return GRUCell(*layer, b_n=jnp.zeros_like(layer[2][:hidden_size]))

    def drive(self, p: GRUCell, x: jax.Array) -> jax.Array:
        projected = project(p.w_xh, x)
        return projected + p.b_h[(None,) * (projected.ndim - 1)]

    def recurrent(self, p: GRUCell) -> tuple[jax.Array, ...]:
        return (p.w_hh,)

    def advance(
        self,
        p: GRUCell,
        s_prev: jax.Array,
        drive: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        key: jax.Array | None = None,
        product: Product = matmul,
    ) -> jax.Array:
        del key, z_prev
        current = product(s_prev, p.w_hh)
        r_in, u_in, n_in = jnp.split(drive, 3, axis=-1)
        r_back, u_back, n_back = jnp.split(current, 3, axis=-1)
        r = jax.nn.sigmoid(r_in + r_back)
        u = jax.nn.sigmoid(u_in + u_back)
        n = jnp.tanh(n_in + r * (n_back + p.b_n[None]))
        return (1 - u) * n + u * s_prev

    def emit(self, p: GRUCell, s: jax.Array) -> jax.Array:
        del p
        return s


@dataclasses.dataclass(frozen=True)
class LSTM(Network):
    """See `networks.lstm`."""

    w_hh_init: str = "orthogonal"
    w_hh_gain: Any = 1.0
    forget_bias: Any = 1.0

    @property
    def takes_symbols(self) -> bool:
        return True

    def __post_init__(self) -> None:
        initial.check(self.w_hh_init, self.w_hh_gain)

    def state_size(self, hidden_size: int) -> int:
        return 2 * hidden_size

    def shown(self, hidden_size: int) -> slice:
        return slice(hidden_size, 2 * hidden_size)

    def init(
        self,
        key: jax.Array,
        input_size: int,
        hidden_size: int,
        dtype: jnp.dtype | None = None,
    ) -> LayerCell:
        sizes = initial.Sizes(input_size, hidden_size, dtype)
        w_xh, w_hh, b_h = initial.layer(
            key, sizes, self.w_hh_init, self.w_hh_gain, gates=4
        )
        forget = jnp.asarray(self.forget_bias, b_h.dtype)
        return LayerCell(w_xh, w_hh, b_h.at[hidden_size : 2 * hidden_size].set(forget))

    def drive(self, p: LayerCell, x: jax.Array) -> jax.Array:
        projected = project(p.w_xh, x)
        return projected + p.b_h[(None,) * (projected.ndim - 1)]

    def recurrent(self, p: LayerCell) -> tuple[jax.Array, ...]:
        return (p.w_hh,)

    def advance(
        self,
        p: LayerCell,
        s_prev: jax.Array,
        drive: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        key: jax.Array | None = None,
        product: Product = matmul,
    ) -> jax.Array:
        del key, z_prev
        c_prev, h_prev = jnp.split(s_prev, 2, axis=-1)
        i, f, g, o = jnp.split(product(h_prev, p.w_hh) + drive, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c_prev + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jnp.concatenate([c, jax.nn.sigmoid(o) * jnp.tanh(c)], axis=-1)

    def emit(self, p: LayerCell, s: jax.Array) -> jax.Array:
        del p
        return s[..., s.shape[-1] // 2 :]
