"""What is set from outside: what hyper-parameters, sizes and seeds have to be.

A value that is known, because it is not traced, is checked when it is given. One that
is traced is data, and counts by its shape and type alone.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

# What a number may be where it is not any of at least 0, for whoever reads a factory's
# signature, as configs do.
Count = Annotated[ArrayLike, "count"]  # an integer of at least 1
Fraction = Annotated[ArrayLike, "fraction"]  # from 0 to 1
BelowOne = Annotated[ArrayLike, "below one"]  # from 0, 1 is not one
Positive = Annotated[ArrayLike, "positive"]
Share = Annotated[float, "share"]  # above 0 to 1, known when a program is compiled
Size = Annotated[int, "size"]  # at least 1, known when a program is compiled

MAX_INT = 2**31 - 1


def nearest(word: Any, known: Iterable[str], least: float = 0.6) -> str | None:
    """The name that is most like a wrong one, or None.

    Args:
      word: the wrong name; what is no text is compared as `str` writes it.
      known: the names that are right.
      least: how like it must be, from 0 (not at all) to 1 (equal).
    """
    # The comparison takes time that grows with the square of the length.
    near = difflib.get_close_matches(str(word)[:60], known, n=1, cutoff=least)
    return near[0] if near else None


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """The end of a message about a wrong name: the nearest one, or nothing."""
    near = nearest(word, known)
    return "" if near is None else f"; did you mean {near!r}?"


# Of narrower real numbers: what else has to be, and how that is said.
_NARROWER: dict[str, tuple[Callable[[float], bool], str]] = {
    "": (lambda x: True, ""),
    "fraction": (lambda x: x <= 1, "from 0 to 1"),
    "below one": (lambda x: x < 1, "below 1"),
    "positive": (lambda x: x > 0, "above 0"),
    "share": (lambda x: 0 < x <= 1, "above 0 and at most 1"),
}


def known(value: Any) -> np.ndarray | None:
    """A value as NumPy has it; None where it is traced, or in another process.

    A concrete `jax.Array` is read without an operation of JAX's: inside of `jax.jit` or
    `lax.scan` even a comparison of concrete arrays is traced.
    """
    if isinstance(value, jax.core.Tracer):
        return None
    if isinstance(value, jax.Array) and not value.is_fully_addressable:
        return None
    return np.asarray(value)


def wrong_integer(value: int, least: int) -> str | None:
    """What an integer should be that is out of range, or None."""
    if value < least:
        return f"expected an integer of at least {least}"
    return None if value <= MAX_INT else "expected an integer below 2³¹"


def wrong_number(
    value: float, kind: str = "", *, dtype: str | None = None
) -> str | None:
    """What a real number should be that is out of range, or None.

    Args:
      value: may be NaN, which is no number of any kind.
      kind: "fraction", "below one", "positive" or "share"; "" is any number of at
        least 0.
      dtype: the number type that has to hold it; None is that of Python.
    """
    largest = np.finfo(dtype or float).max
    if not 0 <= value <= float(largest):  # nor is NaN
        holds = f" that {dtype} can hold" if dtype else ""
        return f"expected a finite number of at least 0{holds}"
    fits, text = _NARROWER[kind]
    return None if fits(value) else f"expected a number {text}"


def check_number(
    name: str, value: ArrayLike, kind: str = "", *, expected: str | None = None
) -> None:
    """Raises ValueError where a hyper-parameter is not what its kind has to be.

    Args:
      name: of the hyper-parameter, for the message.
      value: `[]`. Of a traced one, shape and type are checked.
      kind: "count", or one of `wrong_number`.
      expected: in place of what the kind says in the message.
    """
    found = as_array(value)
    is_traced = found is None and isinstance(value, jax.Array)
    shape = getattr(value if is_traced else found, "shape", ())
    if shape:
        raise ValueError(
            f"{name}: expected a scalar, got shape {shape}; to try several values, "
            "make the rule or optimizer inside a vmapped function"
        )
    dtype = getattr(value if is_traced else found, "dtype", np.dtype(object))
    is_integer = jnp.issubdtype(dtype, jnp.integer) or _is_integer(value)
    is_real = is_integer or jnp.issubdtype(dtype, jnp.floating)
    shown = dtype if is_traced else repr(value)
    if not (is_integer if kind == "count" else is_real):
        noun = "an integer" if kind == "count" else "a number"
        raise ValueError(f"{name}: expected {expected or noun}, got {shown}")
    if found is None:
        return
    if kind == "count":
        text = wrong_integer(int(found), 1)
    else:
        text = wrong_number(_as_float(found), kind)
    if text is not None:
        text = f"expected {expected}" if expected else text
        raise ValueError(f"{name}: {text}, got {shown}")


def _as_float(value: Any) -> float:
    """A number of any size; infinity where Python's floats cannot hold it."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def check_choice(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Raises ValueError, with the nearest one, where a value is none of some."""
    if value not in allowed:
        raise ValueError(
            f"{name}: expected one of {', '.join(map(repr, allowed))}, "
            f"got {value!r}{did_you_mean(value, allowed)}"
        )


def check_array(name: str, value: Any) -> None:
    """Raises ValueError where a value is no array, as a list is not."""
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        raise ValueError(f"{name}: expected an array, got {type(value).__name__}")


def check_size(
    name: str, value: Any, least: int = 1, *, expected: str | None = None
) -> int:
    """A size as a Python integer.

    Args:
      name: of the size, for the message.
      value: an integer of Python, NumPy or JAX, but no bool.
      least: the smallest value.
      expected: in place of "an integer of at least ..." in the message.

    Raises:
      ValueError: it is no integer, below `least` or above 2³¹ - 1, or traced.
    """
    found = as_array(value)
    size = None
    if _is_integer(value):
        size = int(value)
    elif found is not None and jnp.issubdtype(found.dtype, jnp.integer):
        size = int(found) if found.ndim == 0 else None
    text = None if size is None else wrong_integer(size, least)
    if size is not None and text is None:
        return size
    if size is None or size < least:
        text = f"expected {expected or f'an integer of at least {least}'}"
    is_traced = found is None and isinstance(value, jax.Array)
    shown = "a traced value" if is_traced else repr(value)
    raise ValueError(f"{name}: {text}, got {shown}")


def check_seeds(values: Any) -> np.ndarray:
    """Seeds as `[N]` uint32.

    Raises:
      ValueError: they are no integers `[N]` from 0 to 2³² - 1, or N is 0.
    """
    seeds = as_array(values)
    if seeds is None or seeds.ndim != 1 or seeds.size < 1:
        shape = "" if seeds is None else f"shape {seeds.shape}"
        raise ValueError(f"seeds: expected [N] with N ≥ 1, got {shape or repr(values)}")
    if not np.issubdtype(seeds.dtype, np.integer) or _has_bool(values):
        wrong = True
    else:
        wrong = int(seeds.min()) < 0 or int(seeds.max()) >= 2**32
    if wrong:
        raise ValueError(
            f"seeds: expected integers from 0 to 2³² - 1, got {_some(values, seeds)}"
        )
    return seeds.astype(np.uint32)


def check_values(name: str, values: Any, num_members: int) -> np.ndarray:
    """The values of a hyper-parameter, one of each member, as `[N]` numbers.

    NaN and infinity are data, as every value of a sweep is.

    Raises:
      ValueError: they are no real numbers, or integers that JAX cannot hold, or not N.
    """
    found = as_array(values)
    if found is None or found.shape != (num_members,):
        shape = repr(values) if found is None else found.shape
        raise ValueError(
            f"{name}: expected one value per member, shape {(num_members,)}, "
            f"got {shape}"
        )
    dtype = found.dtype
    is_integer = jnp.issubdtype(dtype, jnp.integer)
    if not (is_integer or jnp.issubdtype(dtype, jnp.floating)) or _has_bool(values):
        raise ValueError(f"{name}: expected numbers, got {_some(values, found)}")
    if dtype.kind == "f" and dtype.itemsize > 8:  # more than JAX knows
        found = found.astype(np.float64)
    held = jax.dtypes.canonicalize_dtype(found.dtype)
    if is_integer:
        limits = jnp.iinfo(held)
        if int(found.min()) < limits.min or int(found.max()) > limits.max:
            raise ValueError(
                f"{name}: expected numbers that {held} can hold, "
                f"got {_some(values, found)}"
            )
    return found


def as_array(values: Any) -> np.ndarray | None:
    """Known values as an array; None where they are traced, or make no array."""
    try:
        return known(values)
    except (ValueError, TypeError):  # rows of different lengths
        return None


def _is_integer(value: Any) -> bool:
    """Whether it is an integer of Python, of any size; a bool is none."""
    return isinstance(value, int) and not isinstance(value, bool)


def _has_bool(values: Any) -> bool:
    """Whether a sequence has a bool in it, which NumPy counts as 0 or 1."""
    return isinstance(values, list | tuple) and any(
        isinstance(x, bool | np.bool_) for x in values
    )


def _some(values: Any, found: np.ndarray) -> str:
    """The first values, and their type where they have one of NumPy's."""
    some = found.tolist() if not isinstance(values, list | tuple) else list(values)
    text = repr(some[:4])[:-1] + (", ...]" if len(some) > 4 else "]")
    return text if isinstance(values, list | tuple) else f"{found.dtype} {text}"
