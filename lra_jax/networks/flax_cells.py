"""Flax NNX cells as networks.

sₜ, zₜ = cell(sₜ₋₁, xₜ)       the state is the cell's carry, its arrays side by side
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lra_jax.networks.network import Cell, Network, Product, at_highest_precision
from lra_jax.numerics import matmul


class _Structure(NamedTuple):
    """What a cell is beside its weights."""

    graph: Any  # of the module
    weights: Any  # nnx.State, whose values are replaced
    rest: Any  # variables that are no weights: constants
    carry: Any  # pytree structure of the carry
    sizes: tuple[int, ...]  # of the carry's arrays
    shown: int  # which of them is the output


@dataclasses.dataclass(frozen=True)
class Flax(Network):
    """See `networks.from_flax`."""

    make: Callable[..., Any]

    @property
    def name(self) -> str:
        return "from_flax"

    def init(
        self,
        key: jax.Array,
        input_size: int,
        hidden_size: int,
        dtype: jnp.dtype | None = None,
    ) -> Cell:
        from flax import nnx

        del dtype
        rngs = nnx.Rngs(jax.random.fold_in(key, 0))
        return from_cell(_make(self.make, input_size, hidden_size, rngs))

    def state_size(self, hidden_size: int) -> int:
        return sum(_structure(self.make, 1, hidden_size).sizes)

    def shown(self, hidden_size: int) -> slice:
        return _part(_structure(self.make, 1, hidden_size))

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
        from flax import nnx

        del z_prev, key, product
        found = _structure(
            self.make, drive.shape[-1], self._hidden_size(s_prev.shape[-1])
        )
        weights = jax.tree.unflatten(
            jax.tree.structure(found.weights), jax.tree.leaves(p)
        )
        cell = nnx.merge(found.graph, weights, found.rest)
        ends = list(itertools.accumulate(found.sizes))[:-1]
        carry = jax.tree.unflatten(found.carry, jnp.split(s_prev, ends, axis=-1))
        with at_highest_precision():
            carry, _ = cell(carry, drive)
        return jnp.concatenate(jax.tree.leaves(carry), axis=-1)

    def emit(self, p: Cell, s: jax.Array) -> jax.Array:
        del p
        hidden_size = self._hidden_size(s.shape[-1])
        return s[..., _part(_structure(self.make, 1, hidden_size))]

    def _hidden_size(self, state_size: int) -> int:
        """H of D: a carry is some arrays of H numbers."""
        hidden_size = state_size // self.state_size(1)
        if self.state_size(hidden_size) != state_size:
            raise ValueError(
                f"s: expected states of {self.make!r}, got D = {state_size}"
            )
        return hidden_size


def _make(
    make: Callable[..., Any], input_size: int, hidden_size: int, rngs: Any
) -> Any:
    """The cell; Flax's own classes take `rngs` by keyword alone."""
    function = make.__init__ if inspect.isclass(make) else make
    parameter = inspect.signature(function).parameters.get("rngs")
    if parameter is not None and parameter.kind is parameter.KEYWORD_ONLY:
        return make(input_size, hidden_size, rngs=rngs)
    return make(input_size, hidden_size, rngs)


def from_cell(cell: Any) -> Cell:
    """The weights of an NNX cell, a dictionary of arrays as `from_flax` has them.

    Args:
      cell: any `flax.nnx.RNNCellBase`.
    """
    from flax import nnx

    return nnx.to_pure_dict(nnx.state(cell, nnx.Param))


def to_cell(p: Cell, cell: Any) -> None:
    """Puts weights into an NNX cell, in place.

    Args:
      p: weights as `from_cell` gives them.
      cell: the cell.

    Raises:
      ValueError: the names or shapes are not the cell's.
    """
    from flax import nnx

    state = nnx.state(cell, nnx.Param)
    expected = nnx.to_pure_dict(state)
    if jax.tree.map(jnp.shape, p) != jax.tree.map(jnp.shape, expected):
        raise ValueError(
            f"p: expected weights {jax.tree.map(jnp.shape, expected)}, "
            f"got {jax.tree.map(jnp.shape, p)}"
        )
    nnx.replace_by_pure_dict(state, p)
    nnx.update(cell, state)


def _part(structure: _Structure) -> slice:
    """Where the output is in the state."""
    begin = sum(structure.sizes[: structure.shown])
    return slice(begin, begin + structure.sizes[structure.shown])


@functools.lru_cache(maxsize=256)
def _structure(
    make: Callable[..., Any], input_size: int, hidden_size: int
) -> _Structure:
    """Makes a cell and looks at it: once for each of its sizes.

    Raises:
      ValueError: what is made is no cell, its carry does not begin at 0 or consists of
        other arrays than `[B, n]`, or its output is none of them.
    """
    from flax import nnx

    with jax.ensure_compile_time_eval():
        cell = _make(make, input_size, hidden_size, nnx.Rngs(0))
        if not isinstance(cell, nnx.RNNCellBase):
            raise ValueError(
                "make: expected a function that returns a flax.nnx.RNNCellBase, "
                f"got {type(cell).__name__}"
            )
        carry = cell.initialize_carry((2, input_size), nnx.Rngs(0))
        leaves = jax.tree.leaves(carry)
        if any(leaf.ndim != 2 or leaf.shape[0] != 2 for leaf in leaves):
            raise ValueError(
                "make: expected a cell whose carry consists of arrays [B, n], "
                f"got {jax.tree.map(jnp.shape, carry)} for B = 2"
            )
        if any(bool(jnp.any(leaf != 0)) for leaf in leaves):
            raise ValueError(
                "make: expected a cell whose carry begins at 0, got another carry_init"
            )
        x = jnp.sin(jnp.arange(1, 2 * input_size + 1).reshape(2, input_size))
        after, output = cell(carry, x.astype(leaves[0].dtype))
        shown = [
            i
            for i, leaf in enumerate(jax.tree.leaves(after))
            if leaf.shape == output.shape and bool(jnp.all(leaf == output))
        ]
        if not shown:
            raise ValueError(
                "make: expected a cell whose output is an array of its carry, "
                "got another output"
            )
        graph, weights, rest = nnx.split(cell, nnx.Param, ...)
    return _Structure(
        graph,
        weights,
        rest,
        jax.tree.structure(carry),
        tuple(leaf.shape[1] for leaf in leaves),
        shown[-1],
    )
