"""Recorded data as arguments of a compiled program.

A task's recorded data are arrays that its functions close over. JAX would compile them
into the program as constants: the compiler copies and reads all of them, for every
program anew. Here they are arguments, and all programs have one copy on each device.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.extend
import numpy as np

# Smaller arrays stay constants, of which the compiler can make use.
MIN_BYTES = 1 << 16

# What a trace depends on besides its arguments.
_MODES = ("jax_default_matmul_precision", "jax_enable_x64")

# Arrays on the devices, by the identity of those that a function closes over and their
# sharding, as long as some program has them. Such a program also keeps the arrays that
# its function closes over, so no other array gets their identity meanwhile.
_PLACED: weakref.WeakValueDictionary[tuple[int, jax.sharding.Sharding], jax.Array] = (
    weakref.WeakValueDictionary()
)


class StoredProgram:
    """`jax.jit` of a function, in which large arrays that it closes over are arguments.

    Args:
      function: of arrays; not jitted, since a jitted one keeps its own constants.
      sharding: of the large arrays; all devices have all of them.
      options: of `jax.jit`.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        sharding: jax.sharding.Sharding,
        **options: Any,
    ):
        self._function = function
        self._sharding = sharding
        self._options = options
        self._programs: dict[Any, tuple[Any, list[jax.Array]]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        program, data = self._program(arguments)
        return program(data, *arguments)

    def lower(self, *arguments: Any) -> jax.stages.Lowered:
        """As of a jitted function; the data are its first argument.

        Args:
          arguments: arrays, or their shapes and dtypes.
        """
        program, data = self._program(arguments)
        return program.lower(data, *arguments)

    def _program(self, arguments: Any) -> tuple[Any, list[jax.Array]]:
        leaves, structure = jax.tree.flatten(arguments)
        kinds = tuple(map(_kind, leaves))
        modes = (getattr(jax.config, name) for name in _MODES)
        key = structure, kinds, *modes
        if key not in self._programs:
            self._programs[key] = self._make(arguments)
        return self._programs[key]

    def _make(self, arguments: Any) -> tuple[Any, list[jax.Array]]:
        closed, shapes = jax.make_jaxpr(self._function, return_shape=True)(*arguments)
        structure = jax.tree.structure(shapes)
        large = [i for i, x in enumerate(closed.consts) if _bytes(x) >= MIN_BYTES]
        data = [self._place(closed.consts[i]) for i in large]

        def program(data: list[jax.Array], *arguments: Any) -> Any:
            constants = list(closed.consts)
            for i, x in zip(large, data, strict=True):
                constants[i] = x
            whole = jax.extend.core.ClosedJaxpr(closed.jaxpr, constants)
            found = jax.extend.core.jaxpr_as_fun(whole)(*jax.tree.leaves(arguments))
            return jax.tree.unflatten(structure, found)

        return jax.jit(program, **self._options), data

    def _place(self, x: Any) -> jax.Array:
        """The array on all devices, once for all programs."""
        key = id(x), self._sharding
        placed = _PLACED.get(key)
        if placed is None:
            placed = jax.device_put(np.asarray(x), self._sharding)
            _PLACED[key] = placed
        return placed


def _bytes(x: Any) -> int:
    """Of an array; none of a key, which is never large."""
    return int(x.nbytes) if isinstance(x, (np.ndarray, jax.Array)) else 0


def _kind(x: Any) -> Any:
    """What a program depends on."""
    if isinstance(x, (bool, int, float, complex)):
        return type(x)
    return np.shape(x), x.dtype, getattr(x, "weak_type", False)
