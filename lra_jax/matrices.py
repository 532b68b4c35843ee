"""Decompositions of matrices, with derivatives of both modes.

On a CPU, LAPACK makes them one after the other. A batched decomposition blocks a thread
of XLA's pool while it waits for work queued on the same pool: with few cores, two of
them at once wait for ever (jaxlib 0.10.2). Other devices take a batch at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from lra_jax.numerics import matmul


def one_at_a_time(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`function`, which `vmap` calls for one after the other on a CPU.

    The platform is that of the program when it is lowered, not of the machine that
    lowers it. The result has no derivatives: see `inverse` for how it gets them.

    Args:
      function: of arrays, to one array.
    """
    single = jax.custom_batching.custom_vmap(function)

    @single.def_vmap
    def rule(
        axis_size: int, in_batched: Sequence[bool], *arguments: jax.Array
    ) -> tuple[jax.Array, bool]:
        del axis_size

        def in_turn(*arguments: jax.Array) -> jax.Array:
            batched = [x for x, has in zip(arguments, in_batched, strict=True) if has]

            def one(mapped: list[jax.Array]) -> jax.Array:
                rest = iter(mapped)
                return single(
                    *(
                        next(rest) if has else x
                        for x, has in zip(arguments, in_batched, strict=True)
                    )
                )

            return lax.map(one, batched)

        axes = tuple(0 if has else None for has in in_batched)
        together = jax.vmap(function, axes)
        found = lax.platform_dependent(*arguments, cpu=in_turn, default=together)
        return found, True

    return single


def wide(dtype: jnp.dtype) -> jnp.dtype:
    """The type of draws and decompositions: LAPACK has none of 16 bits."""
    found = jnp.dtype(dtype)
    return found if found.itemsize >= 4 else jnp.dtype(jnp.float32)


def orthogonal(
    key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype | None = None
) -> jax.Array:
    """A random (semi-)orthogonal matrix, Haar-distributed: QR with fixed signs."""
    dtype = jnp.result_type(float if dtype is None else dtype)

    def draw(key: jax.Array) -> jax.Array:
        return jax.nn.initializers.orthogonal()(key, shape, wide(dtype))

    return one_at_a_time(draw)(key).astype(dtype)


@jax.custom_jvp
def inverse(w: jax.Array) -> jax.Array:
    """W⁻¹, `[H, H]`;  ∂W⁻¹ = -W⁻¹ ∂W W⁻¹."""
    return one_at_a_time(jnp.linalg.inv)(w.astype(wide(w.dtype))).astype(w.dtype)


@inverse.defjvp
def _inverse_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    found = inverse(*primals)
    return found, -matmul(matmul(found, tangents[0]), found)


@jax.custom_jvp
def ridge_solve(w: jax.Array, ridge: jax.Array, b: jax.Array) -> jax.Array:
    """(W Wᵀ + r I)⁻¹ B, `[H, J]`: W `[H, H]`, r `[]`, B `[H, J]`.

    The derivative of the result X is (W Wᵀ + r I)⁻¹ (∂B - (∂W Wᵀ + W ∂Wᵀ + ∂r I) X).
    """

    def solve(w: jax.Array, ridge: jax.Array, b: jax.Array) -> jax.Array:
        eye = jnp.eye(w.shape[0], dtype=w.dtype)
        gram = matmul(w, w.T) + ridge * eye
        return jax.scipy.linalg.solve(gram, b, assume_a="pos")

    widened = (jnp.asarray(x, wide(w.dtype)) for x in (w, ridge, b))
    return one_at_a_time(solve)(*widened).astype(w.dtype)


@ridge_solve.defjvp
def _ridge_solve_jvp(
    primals: tuple[jax.Array, jax.Array, jax.Array],
    tangents: tuple[jax.Array, jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    (w, ridge, _), (dw, d_ridge, db) = primals, tangents
    found = ridge_solve(*primals)
    half = matmul(dw, w.T)
    moved = matmul(half + half.T, found) + d_ridge * found
    back = ridge_solve(w, ridge, jnp.eye(w.shape[0], dtype=w.dtype))
    return found, matmul(back, db - moved)
