"""Which samples are held out: by a fraction of each class, or given by the caller."""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np

from lra_jax import types
from lra_jax.tasks.reading import Records

_FORMS = "a fraction between 0 and 1, (inputs, labels) or (inputs, labels, lengths)"


def is_fraction(name: str, value: Any) -> bool:
    """Whether a part is given by a fraction; otherwise by a tuple of arrays.

    Raises:
      ValueError: by neither.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        if 0 < float(value) < 1:
            return True
    elif isinstance(value, types.Weighted):
        pass  # labels alone
    elif isinstance(value, tuple | list) and len(value) in (2, 3):
        return False
    got = repr(value)
    if not isinstance(value, numbers.Real | str | None):
        size = f" of {len(value)}" if isinstance(value, tuple | list) else ""
        got = f"a {type(value).__name__}{size}"
    raise ValueError(f"{name}: expected {_FORMS}, got {got}")


def divide(
    records: Records, fractions: dict[str, float], seed: int, by_class: bool
) -> list[Records]:
    """Training, and a part for each fraction: always the same for a seed.

    A class with n samples gives fraction · n of them, rounded down or up, so that the
    whole part has as nearly fraction · N as can be. One sample of each class at least
    stays in training.

    Args:
      records: all of them.
      fractions: by the name of the part.
      seed: of the order.
      by_class: whether labels are classes `[N]`.

    Raises:
      ValueError: a part is empty, or `seed` is out of range.
    """
    integer = isinstance(seed, int | np.integer) and not isinstance(seed, bool)
    if not integer or not 0 <= seed < 2**32:
        raise ValueError(f"seed: expected an integer from 0 to 2³² - 1, got {seed!r}")
    count = len(records.inputs)
    classes = records.labels if by_class else np.zeros(count, np.int32)
    order = _order(count, int(seed))
    order = order[np.argsort(classes[order], kind="stable")]  # class after class
    counts = np.unique(classes, return_counts=True)[1]
    begin = np.cumsum(counts) - counts  # of what is left of each class, in `order`
    room = counts - 1
    left = count
    parts = []
    for name, fraction in fractions.items():
        number = round(fraction * count)
        left -= number
        prefix = f"{name}: a fraction of {fraction} of N = {count} samples"
        if number == 0:
            raise ValueError(f"{prefix} leaves it empty")
        if left <= 0:
            raise ValueError(f"{prefix} leaves no sample for training")
        taken = _shares(counts, fraction, number, room)
        if not taken.any():
            raise ValueError(f"{prefix} leaves it empty: its classes have too few each")
        runs = zip(begin, taken, strict=True)
        parts.append(np.concatenate([order[b : b + n] for b, n in runs]))
        begin, room = begin + taken, room - taken
    rest = np.setdiff1d(np.arange(count), np.concatenate([[], *parts]))
    return [records.part(np.sort(indices)) for indices in (rest, *parts)]


def _order(count: int, seed: int) -> np.ndarray:
    """A random order of `count` indices, by SplitMix64 of seed and index."""
    x = np.arange(count, dtype=np.uint64) + np.uint64(seed << 32)
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(x ^ (x >> np.uint64(31)), kind="stable")


def _shares(
    counts: np.ndarray, fraction: float, number: int, room: np.ndarray
) -> np.ndarray:
    """`number` in parts of fraction · counts each, rounded, and at most `room`."""
    exact = fraction * counts
    shares = np.minimum(np.floor(exact + 1e-9).astype(int), room)
    rest = exact - shares
    may = np.flatnonzero((rest > 1e-9) & (shares < room))
    may = may[np.argsort(-rest[may], kind="stable")]
    shares[may[: max(number - int(shares.sum()), 0)]] += 1
    return shares


def check_held_out(
    name: str,
    given: Any,
    records: Records,
    other: str,
    other_given: Any,
    other_records: Records,
) -> None:
    """Refuses a part that is another one once more, or some samples of it.

    Args:
      name: of the part.
      given: its inputs, as the caller has them.
      records: the same, read.
      other: name of the part that it must not be.
      other_given: its inputs, as the caller has them.
      other_records: the same, read.

    Raises:
      ValueError: both share memory, are equal, or all samples of the part are among
        those of the other one, which are all different.
    """
    expected = f"{name}: expected data that are held out, got "
    if given is other_given:
        raise ValueError(f"{expected}the {other} inputs themselves")
    if _share_memory(np.asarray(given), np.asarray(other_given)):
        raise ValueError(f"{expected}inputs that share memory with the {other} inputs")
    if np.array_equal(records.inputs, other_records.inputs):
        raise ValueError(f"{expected}a copy of the {other} inputs")
    known = set(map(hash, _rows(other_records)))
    distinct = len(known) == len(other_records.inputs)
    if distinct and known.issuperset(map(hash, _rows(records))):
        raise ValueError(f"{expected}samples that are all among the {other} samples")


def _share_memory(a: np.ndarray, b: np.ndarray) -> bool:
    try:
        return np.shares_memory(a, b, max_work=100_000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return False


def _rows(records: Records) -> Iterator[bytes]:
    """Each sequence, without what it is padded with."""
    dtype = np.int32 if records.inputs.ndim == 2 else np.float32
    for index, x in enumerate(records.inputs):
        length = len(x) if records.lengths is None else records.lengths[index]
        yield x[:length].astype(dtype).tobytes()
