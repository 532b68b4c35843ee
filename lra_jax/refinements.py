"""The K refinements of a target: a loop whose length is a number, or is data.

A length that Python knows gives a loop of that length, or none, which both modes of
differentiation go through. A traced one, as in a grid, gives a loop that ends when the
data say so. Forward mode goes through it; reverse mode would have to store as many
states as nobody knows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import ArrayLike

State = TypeVar("State")


def count(num_refinements: ArrayLike) -> int | jax.Array:
    """K as a Python integer where its value is known, else as a traced int32."""
    if isinstance(num_refinements, jax.core.Tracer):
        return jnp.asarray(num_refinements, jnp.int32)
    return int(np.asarray(num_refinements))


def repeat(
    step: Callable[[State], State],
    state: State,
    num_times: int | jax.Array,
    *,
    done: int,
    rule: str,
) -> State:
    """`step`, applied `num_times - done` times.

    Args:
      step: from state to state.
      state: a pytree of arrays.
      num_times: K, from `count`.
      done: how many of the K have been made already.
      rule: the name of the learning rule, for an error.

    Raises:
      ValueError: when the result is differentiated in reverse mode and K is traced.
    """
    if isinstance(num_times, int):
        if num_times <= done:
            return state
        return lax.fori_loop(done, num_times, lambda _, x: step(x), state)
    state = lax.fori_loop(jnp.int32(done), num_times, lambda _, x: step(x), state)
    message = (
        f"{rule}: num_refinements is traced, and reverse-mode differentiation "
        "(jax.grad, jax.jacrev) has to know it: give a Python integer, or use forward "
        "mode (jax.jvp, jax.jacfwd)"
    )
    return jax.tree.map(lambda x: _forward_only.bind(x, message=message), state)


# The identity, of which the compiled program has nothing.
_forward_only = Primitive("forward_only")
_forward_only.def_impl(lambda x, *, message: x)
_forward_only.def_abstract_eval(lambda x, *, message: x)


def _refuse(cotangent: jax.Array, x: jax.Array, *, message: str) -> list[jax.Array]:
    del cotangent, x
    raise ValueError(message)


ad.deflinear2(_forward_only, _refuse)
batching.defvectorized(_forward_only)
mlir.register_lowering(_forward_only, lambda ctx, x, *, message: [x])
