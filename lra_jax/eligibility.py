"""Local traces: of the influence of weights on states what stays within a unit.

A weight moves the state of the unit that it ends at. What this unit then does to itself
is kept, and what it does to other units is not:

    e ← D e + ∂s/∂w        D `[k, k]` of each unit, of the k numbers that its state has

Each weight has k numbers for each sample, whatever T is. What a unit does to itself
past recurrent weights, a leak or a gate's path, is in D; with `own_weight` also what it
does through its own recurrent weight W_jj.

The networks are those whose step is a function of what arrives at each unit: tanh,
relu, leaky, gru, lstm. In a stack each layer has traces of its own; within a step an
error goes down through the layers' input weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lra_jax import devices, symbols
from lra_jax.influence import Influence
from lra_jax.networks import Network, Stack
from lra_jax.networks.layer import Layer
from lra_jax.networks.network import Cell, Place
from lra_jax.numerics import matmul


class Traces(NamedTuple):
    """What is kept of a layer of H units, k numbers a unit, G gates; a leading `[B]`.

    Attributes:
      w_hh: `[B, k, H, G, H]`, of the recurrent weights from the first H to the second.
      w_xh: `[B, k, X, G, H]`.
      b_h: `[B, k, G, H]`.
      other: name to `[B, k, H]`, of what else units have one by one.
    """

    w_hh: jax.Array
    w_xh: jax.Array
    b_h: jax.Array
    other: dict[str, jax.Array]


class _Units(NamedTuple):
    """How the units of a layer depend, at a step, each on what is its own.

    Attributes:
      itself: `[B, k, k, H]`, of the numbers before (first k) to those after.
      current: `[B, k, G, H]`, of what arrives through recurrent weights.
      drive: `[B, k, G, H]`, of what arrives from the inputs.
      other: name to `[B, k, H]`.
      sent: `[B, H]`, what recurrent weights multiply.
    """

    itself: jax.Array
    current: jax.Array
    drive: jax.Array
    other: dict[str, jax.Array]
    sent: jax.Array


def _layers(network: Network) -> list[Layer]:
    """The layers of a network, each of which has local traces.

    Raises:
      ValueError: it is none of such.
    """
    layers = network.layers if isinstance(network, Stack) else (network,)
    if not all(isinstance(layer, Layer) for layer in layers):
        raise ValueError(
            "network: expected tanh, relu, leaky, gru, lstm or a stack of them, whose "
            f"traces are local, got {network.name}"
        )
    return list(layers)  # type: ignore[arg-type]


def _others(cell: Any) -> dict[str, jax.Array]:
    """The arrays `[H]` of a layer besides those that all layers have."""
    common = ("w_xh", "w_hh", "b_h")
    return {name: w for name, w in cell._asdict().items() if name not in common}


def _units(layer: Layer, cell: Any, place: Place, own_weight: bool) -> _Units:
    """The derivatives of a step, unit by unit: a push of ones reaches all at once."""
    size, width = cell.w_hh.shape[0], layer.gates
    (sent,) = layer.sent(cell, place.s_prev, place.drive, key=place.key)
    (weights,) = layer.recurrent(cell)
    current = matmul(sent, weights)
    others = _others(cell)

    def step(s: jax.Array, current: jax.Array, drive: jax.Array, others: Any) -> Any:
        own = cell._replace(**others)
        found = layer.receive(own, s, drive, [current], key=place.key)
        return found.reshape(len(found), -1, size)

    arrays: tuple[jax.Array, ...] = (place.s_prev, current, place.drive)
    at = (*arrays, others)

    def push(tangents: Any) -> jax.Array:
        return jax.jvp(step, at, tangents)[1]

    zeros = jax.tree.map(jnp.zeros_like, at)

    def ones(x: jax.Array, part: int) -> jax.Array:
        """1 at the part-th number of each unit, of arrays `[B, parts · H]`."""
        return jnp.zeros_like(x).at[:, part * size : (part + 1) * size].set(1)

    def along(position: int, parts: int) -> list[jax.Array]:
        found = []
        for part in range(parts):
            tangents: list[Any] = [*zeros]
            tangents[position] = ones(arrays[position], part)
            found.append(push(tuple(tangents)))
        return found

    numbers = place.s_prev.shape[1] // size
    by_current = jnp.stack(along(1, width), axis=2)
    by_itself = jnp.stack(along(0, numbers), axis=1)
    if own_weight:
        blocks = weights.reshape(size, width, size)
        through = jnp.einsum("jgj->gj", blocks)

        def send(s: jax.Array) -> jax.Array:
            return layer.sent(cell, s, place.drive, key=place.key)[0]

        for part in range(numbers):
            slope = jax.jvp(send, arrays[:1], (ones(arrays[0], part),))[1]
            arrives = jnp.sum(by_current * through[None, None], axis=2)
            by_itself = by_itself.at[:, part].add(arrives * slope[:, None])
    by_other = {
        name: push((*zeros[:3], {**zeros[3], name: jnp.ones_like(w)}))
        for name, w in others.items()
    }
    return _Units(by_itself, by_current, jnp.stack(along(2, width), 2), by_other, sent)


def _advance(trace: jax.Array, itself: jax.Array) -> jax.Array:
    """D e, of a trace `[B, k, ..., H]`."""
    numbers = itself.shape[1]
    between = (1,) * (trace.ndim - 3)
    total = []
    for after in range(numbers):
        parts = [
            itself[:, before, after].reshape(len(trace), *between, -1)
            * trace[:, before]
            for before in range(numbers)
        ]
        total.append(sum(parts[1:], parts[0]))
    return jnp.stack(total, axis=1)


def _begin(layer: Layer, cell: Any, s: jax.Array) -> Traces:
    samples, size = s.shape[0], cell.w_hh.shape[0]
    numbers, gates = s.shape[1] // size, layer.gates

    def zeros(*shape: int) -> jax.Array:
        empty = jnp.zeros((samples, numbers, *shape, size), s.dtype)
        return devices.varying_as(empty, s)

    return Traces(
        zeros(size, gates),
        zeros(cell.w_xh.shape[0], gates),
        zeros(gates),
        {name: zeros() for name in _others(cell)},
    )


def _step(
    layer: Layer, cell: Any, traces: Traces, place: Place, own_weight: bool
) -> Traces:
    units = _units(layer, cell, place, own_weight)
    x = place.x
    if jnp.issubdtype(x.dtype, jnp.integer):
        x = symbols.one_hot(x, cell.w_xh.shape[0], place.s.dtype)

    def of_rows(rows: jax.Array, slope: jax.Array) -> jax.Array:
        return rows.astype(slope.dtype)[:, None, :, None, None] * slope[:, :, None]

    def kept(trace: jax.Array) -> jax.Array:
        return _advance(trace, units.itself)

    return Traces(
        kept(traces.w_hh) + of_rows(units.sent, units.current),
        kept(traces.w_xh) + of_rows(x, units.drive),
        kept(traces.b_h) + units.drive,
        {name: kept(e) + units.other[name] for name, e in traces.other.items()},
    )


def _weigh(layer: Layer, cell: Any, traces: Traces, ell: jax.Array) -> Any:
    """Σ_b ℓ e, like the cell."""
    size = cell.w_hh.shape[0]
    ell = ell.reshape(len(ell), -1, size)

    def one(trace: jax.Array) -> jax.Array:
        between = (1,) * (trace.ndim - 3)
        found = jnp.sum(
            ell.reshape(*ell.shape[:2], *between, size) * trace, axis=(0, 1)
        )
        return found.reshape(*found.shape[:-2], -1) if between else found

    # From W_hh as a step uses it, with signs and mask, to what is trained.
    _, back = jax.vjp(layer.recurrent, devices.each_own(cell, ell))
    (found,) = back((one(traces.w_hh).reshape(cell.w_hh.shape),))
    others = {name: one(trace) for name, trace in traces.other.items()}
    return found._replace(
        w_xh=one(traces.w_xh).reshape(cell.w_xh.shape), b_h=one(traces.b_h), **others
    )


def local_influence(network: Network, *, own_weight: bool) -> Influence:
    """The traces of all layers, as an `Influence`.

    Args:
      network: of layers that this library has.
      own_weight: whether D has what a unit does to itself through W_jj.

    Raises:
      ValueError: another network.
    """
    layers = _layers(network)

    def each(cell: Cell) -> tuple[Any, ...]:
        return cell if isinstance(network, Stack) else (cell,)

    def parts(s: jax.Array) -> list[jax.Array]:
        return network.parts(s) if isinstance(network, Stack) else [s]

    def places(cell: Cell, place: Place) -> list[Place]:
        """Of each layer, what it reads and what it makes of it."""
        if not isinstance(network, Stack):
            return [place]
        found: list[Place] = []
        states = zip(parts(place.s_prev), parts(place.s), strict=True)
        for i, (layer, q, (before, s)) in enumerate(
            zip(layers, each(cell), states, strict=True)
        ):
            x = found[-1].z if found else place.x
            drive = layer.drive_one(q, x) if found else place.drive
            key = None if place.key is None else jax.random.fold_in(place.key, i)
            z_prev, z = layer.emit(q, before), layer.emit(q, s)
            found.append(Place(x, z_prev, before, s, z, drive, key))
        return found

    def begin(cell: Cell, s: jax.Array) -> tuple[Traces, ...]:
        pairs = zip(layers, each(cell), parts(s), strict=True)
        return tuple(_begin(layer, q, own) for layer, q, own in pairs)

    def step(
        key: jax.Array, cell: Cell, trace: tuple[Traces, ...], place: Place
    ) -> tuple[Traces, ...]:
        del key
        found = zip(layers, each(cell), trace, places(cell, place), strict=True)
        return tuple(
            _step(layer, q, traces, here, own_weight)
            for layer, q, traces, here in found
        )

    def weigh(
        cell: Cell, trace: tuple[Traces, ...], ell: jax.Array, place: Place
    ) -> Cell:
        cells, ells = each(cell), parts(ell)
        here = places(cell, place)
        found: list[Any] = []
        for i in reversed(range(len(layers))):
            layer, q = layers[i], cells[i]
            if found:  # the error of the layer above, at what it reads
                above, p, of = layers[i + 1], cells[i + 1], here[i + 1]

                def read(
                    z: jax.Array, above: Layer = above, p: Any = p, of: Place = of
                ) -> jax.Array:
                    drive = above.drive_one(p, z)
                    return above.advance(p, of.s_prev, drive, key=of.key)

                (error,) = jax.vjp(read, here[i].z)[1](ells[i + 1])
                ells[i] = ells[i] + layer.slope(q, here[i].s, error, z=here[i].z)
            found.append(_weigh(layer, q, trace[i], ells[i]))
        found.reverse()
        return tuple(found) if isinstance(network, Stack) else found[0]

    return Influence(begin, step, weigh)
