"""Layers of networks: one step of time goes up through all of them."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import operator
from typing import Any

import jax
import jax.numpy as jnp

from lra_jax.networks.network import Cell, Network, Product
from lra_jax.numerics import matmul


@dataclasses.dataclass(frozen=True)
class Stack(Network):
    """See `networks.stack`. A cell is a tuple of the layers' cells."""

    layers: tuple[Network, ...]

    @property
    def name(self) -> str:
        return f"stack({', '.join(layer.name for layer in self.layers)})"

    @property
    def has_recurrent(self) -> bool:
        return all(layer.has_recurrent for layer in self.layers)

    @property
    def is_noisy(self) -> bool:
        return any(layer.is_noisy for layer in self.layers)

    @property
    def takes_symbols(self) -> bool:
        return self.layers[0].takes_symbols

    def state_size(self, hidden_size: int) -> int:
        return sum(layer.state_size(hidden_size) for layer in self.layers)

    def shown(self, hidden_size: int) -> slice | None:
        top = self.layers[-1].shown(hidden_size)
        if top is None:
            return None
        below = sum(layer.state_size(hidden_size) for layer in self.layers[:-1])
        return slice(below + top.start, below + top.stop)

    def init(
        self,
        key: jax.Array,
        input_size: int,
        hidden_size: int,
        dtype: jnp.dtype | None = None,
    ) -> Cell:
        sizes = [input_size] + [hidden_size] * (len(self.layers) - 1)
        return tuple(
            layer.init(jax.random.fold_in(key, i), size, hidden_size, dtype)
            for i, (layer, size) in enumerate(zip(self.layers, sizes, strict=True))
        )

    def scale_inputs(self, p: Cell, gain: Any) -> Cell:
        """Of the first layer alone: the others' inputs are states."""
        return (self.layers[0].scale_inputs(p[0], gain), *p[1:])

    def roles(self, p: Cell) -> Any:
        return tuple(layer.roles(q) for layer, q in zip(self.layers, p, strict=True))

    def is_frozen(self, p: Cell) -> Any:
        own = super().is_frozen(p)
        theirs = tuple(
            layer.is_frozen(q) for layer, q in zip(self.layers, p, strict=True)
        )
        return jax.tree.map(operator.or_, own, theirs)

    def drive(self, p: Cell, x: jax.Array) -> Any:
        return self.layers[0].drive(p[0], x)

    def recurrent(self, p: Cell) -> tuple[jax.Array, ...]:
        found = [layer.recurrent(q) for layer, q in zip(self.layers, p, strict=True)]
        return tuple(itertools.chain(*found))

    def parts(self, s: jax.Array) -> list[jax.Array]:
        """The states of the layers."""
        # All state sizes are multiples of H, or what `state_size` makes of it.
        sizes = self._sizes(s.shape[-1])
        ends = list(itertools.accumulate(sizes))[:-1]
        return jnp.split(s, ends, axis=-1)

    def _sizes(self, total: int) -> list[int]:
        possible = range(1, total + 1)  # for which the state grows
        place = bisect.bisect_left(possible, total, key=self.state_size)
        if place == total or self.state_size(possible[place]) != total:
            raise ValueError(f"s: expected states of {self.name}, got D = {total}")
        return [layer.state_size(possible[place]) for layer in self.layers]

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
        del z_prev
        states: list[jax.Array] = []
        z = None
        for i, (layer, q, before) in enumerate(
            zip(self.layers, p, self.parts(s_prev), strict=True)
        ):
            here = drive if z is None else layer.drive_one(q, z)
            own = None if key is None else jax.random.fold_in(key, i)
            s = layer.advance(q, before, here, key=own, product=product)
            states.append(s)
            z = layer.emit(q, s)
        return jnp.concatenate(states, axis=-1)

    def emit(self, p: Cell, s: jax.Array) -> jax.Array:
        return self.layers[-1].emit(p[-1], self.parts(s)[-1])
