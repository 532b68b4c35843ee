"""From errors at the hidden units to gradients of the weights.

Learning rules differ in how an error reaches step t. What follows is the same for
all: with qₜ `[B, H]`, the error at hₜ per sample, and zₜ₋₁ constant,

    ∇W_hhᵗ = mean_b zₜ₋₁ᵀ qₜ     ∇W_xhᵗ = mean_b xₜᵀ qₜ     ∇b_hᵗ = mean_b qₜ

of the tanh network, and mean_b (∂sₜ/∂p)ᵀ qₜ for each array p of any, summed over
t = 0 .. T-1: all steps at once (`sum_at_once`), or, where each array of each step is
bounded on its own, one after the other (`sum_bounded`). The readout gets the exact
gradients of E.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from lra_jax import devices, matrices, numerics, rnn, types
from lra_jax.networks.network import Cell, Network, Place, Term
from lra_jax.numerics import Normalized, clip, matmul

# Steps whose norms are computed together, where somebody reads them: a single step is
# little work for so many operations.
NORMS_AT_ONCE = 10


class SummedGrads(NamedTuple):
    """Gradients of a cell summed over t, and the norms of each step's part.

    Attributes:
      grads: like the cell.
      norms: `[T]` for each array of it.
    """

    grads: Cell
    norms: Any


def mean_outer(left: jax.Array, right: jax.Array) -> jax.Array:
    """mean_b leftᵀ right = (leftᵀ right) / B: `[B, I]`, `[B, J]` to `[I, J]`.

    Of `[T, B, I]` and `[T, B, J]`, the sum over t.
    """
    rows_left, rows_right = (x.reshape(-1, x.shape[-1]) for x in (left, right))
    return matmul(rows_left.T, rows_right) / left.shape[-2]


def no_gradients(cell: Cell, q: jax.Array) -> Cell:
    """Zeros: the sum over no steps, of errors q.

    16 bits do not hold a sum of many steps, so it has 32 of them at least until all
    are added.
    """
    return jax.tree.map(lambda w: no_sum(w, q), cell)


def no_sum(w: jax.Array, q: jax.Array) -> jax.Array:
    """Zeros like `w`, wide enough for a sum over steps of errors q."""
    zeros = jnp.zeros(w.shape, matrices.wide(w.dtype))
    return devices.varying_as(zeros, q)


def result_sharding(
    key: jax.Array,
    params: types.Params,
    rule_state: types.RuleState,
    batch: types.Batch,
) -> tuple[types.Params, types.RuleState, PartitionSpec]:
    """How the results of a rule's `grads` are divided on a mesh with Explicit axes.

    Gradients are divided as the weights are, the state as it was, and each device has
    all of what is reported.
    """
    del key, batch
    return devices.like(params), devices.like(rule_state), PartitionSpec()


def without_frozen(network: Network, cell: Cell, grads: Cell) -> Cell:
    """Gradients, 0 for the arrays of the cell that are frozen."""
    return jax.tree.map(
        lambda g, still: jnp.zeros_like(g) if still else g,
        grads,
        network.is_frozen(cell),
    )


def bound_step(
    network: Network,
    cell: Cell,
    term: Term,
    normalize: Callable[..., Normalized],
) -> tuple[Cell, Any]:
    """Normalize(∇ᵗ) of one step, and the norm of each array's part."""
    units, scales = network.weigh_term(cell, term)
    leaves, tree = jax.tree.flatten(without_frozen(network, cell, units))
    parts = [
        normalize(g, scale=scale)
        for g, scale in zip(leaves, jax.tree.leaves(scales), strict=True)
    ]
    bounded = jax.tree.unflatten(tree, [part.value for part in parts])
    return bounded, jax.tree.unflatten(tree, [part.norm.reshape(()) for part in parts])


def add_step(
    network: Network,
    cell: Cell,
    total: Cell,
    term: Term,
    normalize: Callable[..., Normalized],
) -> tuple[Cell, Any]:
    """total + Normalize(∇ᵗ) of one step, and the norm of each array's part."""
    bounded, norms = bound_step(network, cell, term, normalize)
    return jax.tree.map(jnp.add, total, bounded), norms


def sum_bounded(
    network: Network, cell: Cell, terms: Term, normalize: Callable[..., Normalized]
) -> SummedGrads:
    """Σₜ Normalize(∇ᵗ), in memory that does not grow with T.

    Args:
      network: says what an error asks of the weights.
      cell: its weights.
      terms: arrays `[T, ...]`.
      normalize: `(gradient, scale=...) -> Normalized`, for each array of a step.
    """
    total, norms = lax.scan(
        lambda total, term: add_step(network, cell, total, term, normalize),
        no_gradients(cell, terms.q),
        terms,
    )
    return SummedGrads(numerics.with_type(total, terms.q.dtype), norms)


def sum_at_once(
    network: Network, cell: Cell, place: Place, q: jax.Array
) -> SummedGrads:
    """Σₜ ∇ᵗ of steps that have no bounds: products over all steps and samples.

    The norms of the single steps are a pass of their own, which a compiler leaves out
    where nobody reads them.

    Args:
      network: says what an error asks of the weights.
      cell: its weights.
      place: the steps, `[T, ...]`.
      q: `[T, B, D]`, the errors at their states.
    """
    norms = step_norms(network, cell, place, q)
    # As in `no_gradients`, of a sum over rows.
    wide = numerics.with_type((cell, place, q), matrices.wide(q.dtype))
    total = network.weigh_all(*wide)
    total = jax.tree.map(lambda g: g / q.shape[1], total)
    total = without_frozen(network, cell, total)
    return SummedGrads(numerics.with_type(total, q.dtype), norms)


def step_norms(network: Network, cell: Cell, place: Place, q: jax.Array) -> Any:
    """‖∇ᵗ‖ `[T]` for each array of the cell."""
    unbounded = functools.partial(clip, c=0.0)
    return lax.map(
        lambda term: bound_step(network, cell, term, unbounded)[1],
        Term(place, q),
        batch_size=NORMS_AT_ONCE,
    )


def norms_of_role(
    network: Network, cell: Cell, norms: Any, role: str
) -> jax.Array | None:
    """`[T]`, the norm of all arrays of a role together; None where there are none."""
    roles = jax.tree.leaves(network.roles(cell))
    chosen = [
        norm
        for norm, each in zip(jax.tree.leaves(norms), roles, strict=True)
        if each == role
    ]
    if len(chosen) < 2:
        return chosen[0] if chosen else None
    return numerics.norm(jnp.stack(chosen), axis=0)[0]


def previous(z: jax.Array) -> jax.Array:
    """zₜ₋₁ for all t, with z₋₁ = 0: `[T, B, H]` to `[T, B, H]`."""
    return jnp.concatenate([jnp.zeros_like(z[:1]), z[:-1]])


def readout_gradients(z: jax.Array, pi: jax.Array) -> tuple[jax.Array, jax.Array]:
    """∇W_hy = mean_b z_{T-1}ᵀ π,  ∇b_y = mean_b π: the gradients of E.

    With a loss of every step, mean_b Σₜ zₜᵀ πₜ and mean_b Σₜ πₜ.

    Args:
      z: `[T, B, H]` of the forward pass.
      pi: `[B, Y]`, or `[T, B, Y]`.
    """
    w_hy = mean_outer(rnn.read_states(z, pi), pi)
    return w_hy, jnp.mean(pi if pi.ndim == 2 else jnp.sum(pi, axis=0), axis=0)
