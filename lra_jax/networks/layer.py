"""What the layers of this library have in common: their weights, and their inputs.

Each has `w_xh`, `w_hh` and `b_h`; the parts of a unit's gates stand side by side.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from lra_jax import symbols
from lra_jax.networks import initial
from lra_jax.networks.network import Network
from lra_jax.numerics import matmul


class LayerCell(NamedTuple):
    """Weights of one layer of units; gradients have the same type.

    Attributes:
      w_xh: `[X, H]`, from the inputs.
      w_hh: `[H, H]`, from the state before.
      b_h: `[H]`.
    """

    w_xh: jax.Array
    w_hh: jax.Array
    b_h: jax.Array


def project(w: jax.Array, x: jax.Array) -> jax.Array:
    """x W `[..., C]`: a row gather for symbols `[...]`, a product for `[..., X]`.

    NaN where a symbol is none of the X.
    """
    if not jnp.issubdtype(x.dtype, jnp.integer):
        return matmul(x.astype(w.dtype), w)
    rows = jnp.asarray(w).at[symbols.as_index(x, w.shape[0])]
    return rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


@dataclasses.dataclass(frozen=True)
class Layer(Network):
    """A layer of H units, whose state z shows one by one.

    Attributes:
      w_hh_init: of each gate's square part of W_hh, see `initial.square`.
      w_hh_gain: times it.
    """

    gates: ClassVar[int] = 1

    w_hh_init: str = dataclasses.field(default="orthogonal", kw_only=True)
    w_hh_gain: Any = dataclasses.field(default=1.0, kw_only=True)

    def __post_init__(self) -> None:
        initial.check(self.w_hh_init, self.w_hh_gain)

    @property
    def is_elementwise(self) -> bool:
        return True

    @property
    def takes_symbols(self) -> bool:
        return True

    def init(
        self,
        key: jax.Array,
        input_size: int,
        hidden_size: int,
        dtype: jnp.dtype | None = None,
    ) -> Any:
        sizes = initial.Sizes(input_size, hidden_size, dtype)
        layer = initial.layer(
            key, sizes, self.w_hh_init, self.w_hh_gain, gates=self.gates
        )
        return LayerCell(*layer)

    def drive(self, p: Any, x: jax.Array) -> jax.Array:
        projected = project(p.w_xh, x)
        return projected + p.b_h[(None,) * (projected.ndim - 1)]

    def recurrent(self, p: Any) -> tuple[jax.Array, ...]:
        return (self.effective(p),)

    def effective(self, p: Any) -> jax.Array:
        """W_hh as a step uses it."""
        return p.w_hh
