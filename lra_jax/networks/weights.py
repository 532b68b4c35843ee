"""What the weights of a cell are: their names, roles and sizes.

A network is anything with `init` here, see `lra_jax.networks.network`.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lra_jax import settings

Cell = Any  # the weights of a network's cell, a pytree of arrays


def path_names(path: tuple[Any, ...]) -> list[str]:
    """What the parts of a path in a pytree are called."""
    keys = ("name", "key", "idx")
    return [str(next((getattr(e, k) for k in keys if hasattr(e, k)), e)) for e in path]


def are_named(p: Cell, names: tuple[str, ...]) -> Any:
    """Whether an array has one of the names on its path: bool for each array.

    Raises:
      ValueError: a name is on no path.
    """
    if not names:
        return jax.tree.map(lambda _: False, p)
    paths = [path_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(p)]
    known = dict.fromkeys(itertools.chain(*paths))
    for name in names:
        if name not in known:
            raise ValueError(
                f"frozen: expected some of {', '.join(known)}, "
                f"got {name!r}{settings.did_you_mean(name, known)}"
            )
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not set(names).isdisjoint(path_names(path)), p
    )


def roles_by_name(tree: Any) -> Any:
    """What each array of weights or of a cell is for, by its names.

    "readout" for `w_hy` and `b_y`; "input", "recurrent" and "bias" by the names that
    this library, Flax's cells and most code use; "other".
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: _role(path), tree)


_PREFIXES = {"w_x": "input", "w_h": "recurrent", "b_": "bias"}
_NAMES = {
    **dict.fromkeys(("w_in", "kernel_in"), "input"),
    **dict.fromkeys(("w_rec", "kernel_rec"), "recurrent"),
    **dict.fromkeys(("b", "bias"), "bias"),
}
# The layers of Flax's cells, whose matrices are all called "kernel".
_KERNELS = {
    **dict.fromkeys(("dense_i", "ii", "if_", "ig", "io"), "input"),
    **dict.fromkeys(("dense_h", "hi", "hf", "hg", "ho"), "recurrent"),
}


def _role(path: tuple[Any, ...]) -> str:
    """The role of an array, by the last name on its path that says one."""
    if path and getattr(path[0], "name", None) in ("w_hy", "b_y"):
        return "readout"
    names = [name.lower() for name in path_names(path)]
    known = _NAMES | (_KERNELS if names[-1:] == ["kernel"] else {})
    for name in reversed(names):
        if name in known:
            return known[name]
        for prefix, role in _PREFIXES.items():
            if name.startswith(prefix):
                return role
    return "other"


def float_dtype(p: Cell) -> jnp.dtype:
    """The type of a cell's first array of floats."""
    types = (jnp.result_type(leaf) for leaf in jax.tree.leaves(p))
    return next(
        (t for t in types if jnp.issubdtype(t, jnp.floating)), jnp.result_type(float)
    )


def no_number_of_symbols(network: Any) -> str:
    """The message where symbols are given and the weights do not tell how many."""
    return (
        f"inputs: expected vectors [T, B, X], as no array of {network.name} tells how "
        "many symbols there are; got symbols"
    )


def shapes(network: Any, input_size: int, hidden_size: int) -> Any:
    """Shapes and types of a cell, a pytree like it; nothing is drawn."""
    try:
        return _known_shapes(network, input_size, hidden_size)
    except TypeError:  # a number of the network is traced, and has no hash
        return _known_shapes.__wrapped__(network, input_size, hidden_size)


@functools.lru_cache(maxsize=256)
def _known_shapes(network: Any, input_size: int, hidden_size: int) -> Any:
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(lambda key: network.init(key, input_size, hidden_size), key)


def input_size(network: Any, p: Cell, hidden_size: int | None = None) -> int | None:
    """X of a cell, from the shapes of its arrays; None where they do not tell.

    The shapes that `init` gives are linear in X and in H.

    Args:
      network: the network.
      p: the cell's weights.
      hidden_size: H, where it is known.
    """

    def numbers(tree: Any) -> np.ndarray:
        return np.array([n for leaf in jax.tree.leaves(tree) for n in jnp.shape(leaf)])

    given, least = numbers(p), 3 if hidden_size is None else hidden_size
    base, by_x = (numbers(shapes(network, x, least)) for x in (2, 3))
    if base.shape != given.shape or base.shape != by_x.shape:
        return None
    columns = [by_x - base]
    if hidden_size is None:
        columns.append(numbers(shapes(network, 2, least + 1)) - base)
    if not (by_x - base).any():
        return None
    solved = np.linalg.lstsq(np.stack(columns, axis=1), given - base, rcond=None)[0]
    return round(2 + solved[0])
