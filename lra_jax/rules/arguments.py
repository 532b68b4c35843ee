"""What a rule's factory checks of its arguments, before anything is traced."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lra_jax import types

# What a number may be where it is not any of at least 0, for whoever reads a factory's
# signature, as configs do.
Count = Annotated[ArrayLike, "count"]  # an integer of at least 1
Fraction = Annotated[ArrayLike, "fraction"]  # from 0 to 1
BelowOne = Annotated[ArrayLike, "below one"]  # from 0, 1 is not one
Positive = Annotated[ArrayLike, "positive"]


def check_choices(factory: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Raises ValueError where a `Literal` argument of `factory` is none of its values.

    The message has the allowed values and the nearest one.
    """
    for name, hint in typing.get_type_hints(factory).items():
        if typing.get_origin(hint) is not typing.Literal:
            continue
        allowed, value = typing.get_args(hint), values[name]
        if value not in allowed:
            near = difflib.get_close_matches(str(value), allowed, n=1)
            hint_text = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{name}: expected one of {', '.join(map(repr, allowed))}, "
                f"got {value!r}{hint_text}"
            )


def check_scalars(**values: ArrayLike) -> None:
    """Raises ValueError where a value is not a scalar (traced ones count by shape)."""
    for name, value in values.items():
        if jnp.ndim(value) != 0:
            raise ValueError(
                f"{name}: expected a scalar, got an array of shape {jnp.shape(value)}; "
                "to try several values, make the rule inside a vmapped function"
            )


def check_count(**values: ArrayLike) -> None:
    """Raises ValueError where a value is no integer scalar, or a known one below 1."""
    check_scalars(**values)
    for name, value in values.items():
        if not jnp.issubdtype(jnp.result_type(value), jnp.integer):
            traced = isinstance(value, jax.core.Tracer)
            found = jnp.result_type(value) if traced else repr(value)
            raise ValueError(f"{name}: expected an integer, got {found}")
        if not isinstance(value, jax.core.Tracer) and int(np.asarray(value)) < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")


def check_last_step(factory: Callable[..., Any], output_loss: types.OutputLoss) -> None:
    """Raises ValueError where E is a loss of every step.

    For a rule that has no place for errors of its own at every step: docs/every_step.md
    says which they are.
    """
    if output_loss.every_step:
        raise ValueError(
            f"output_loss: expected a loss of the last step, which {factory.__name__} "
            "learns from alone, got one of every step"
        )
