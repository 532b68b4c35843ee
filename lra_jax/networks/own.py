"""Networks of a user's own: from functions."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lra_jax.networks.network import (
    Cell,
    Network,
    Product,
    at_highest_precision,
    over_time,
)
from lra_jax.numerics import matmul


@dataclasses.dataclass(frozen=True)
class Own(Network):
    """See `networks.from_step`."""

    init_cell: Callable[..., Cell]
    step_cell: Callable[..., jax.Array]
    emit_cell: Callable[..., jax.Array] | None = None
    size: Callable[[int], int] | None = None
    roles_of: Callable[[Cell], Any] | None = None
    activity_of: Callable[..., jax.Array] | None = None

    @property
    def name(self) -> str:
        return getattr(self.step_cell, "__name__", "from_step")

    @property
    def is_noisy(self) -> bool:
        return "key" in inspect.signature(self.step_cell).parameters

    def init(
        self,
        key: jax.Array,
        input_size: int,
        hidden_size: int,
        dtype: jnp.dtype | None = None,
    ) -> Cell:
        del dtype
        return self.init_cell(jax.random.fold_in(key, 0), input_size, hidden_size)

    def state_size(self, hidden_size: int) -> int:
        return hidden_size if self.size is None else self.size(hidden_size)

    def roles(self, p: Cell) -> Any:
        return super().roles(p) if self.roles_of is None else self.roles_of(p)

    def activity(self, p: Cell, s: jax.Array, z: jax.Array) -> jax.Array:
        if self.activity_of is None:
            return super().activity(p, s, z)
        activity_of = self.activity_of
        return over_time(lambda s, z: activity_of(p, s, z), s)(s, z)

    def advance(
        self,
        p: Cell,
        s_prev: jax.Array,
        drive: Any,
        *,
        z_prev: jax.Array | None = None,
        key: jax.Array | None = None,
        product: Product = matmul,
    ) -> jax.Array:
        del z_prev, product
        options = {"key": key} if self.is_noisy else {}
        with at_highest_precision():
            return self.step_cell(p, s_prev, drive, **options)

    def emit(self, p: Cell, s: jax.Array) -> jax.Array:
        if self.emit_cell is None:
            return s
        with at_highest_precision():
            return self.emit_cell(p, s)
