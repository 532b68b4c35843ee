"""Layers of units with gates: GRU and LSTM."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from lra_jax.networks.layer import Layer, LayerCell
from lra_jax.networks.network import Product
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
class GRU(Layer):
    """See `networks.gru`."""

    gates: ClassVar[int] = 3

    def init(
        self,
        key: jax.Array,
        input_size: int,
        hidden_size: int,
        dtype: jnp.dtype | None = None,
    ) -> GRUCell:
        w_xh, w_hh, b_h = super().init(key, input_size, hidden_size, dtype)
        return GRUCell(w_xh, w_hh, b_h, b_n=jnp.zeros_like(b_h[:hidden_size]))

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
class LSTM(Layer):
    """See `networks.lstm`."""

    gates: ClassVar[int] = 4

    forget_bias: Any = 1.0

    @property
    def is_elementwise(self) -> bool:
        return False

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
        layer = super().init(key, input_size, hidden_size, dtype)
        forget = slice(hidden_size, 2 * hidden_size)
        bias = jnp.asarray(self.forget_bias, layer.b_h.dtype)
        return layer._replace(b_h=layer.b_h.at[forget].set(bias))

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
