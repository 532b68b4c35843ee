"""Which measurements a given time has room for, for `experiments.device`.

They come in an order of importance. What would take a large part of the time that is
left waits, and what does not fit at last is dropped: the longest.

How long one takes is not known before. From one that was measured follows a bound for
others of the same kind: twice the work takes at most twice as long, and fewer members
at once take no longer.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")

# Of the time that is left, what one may take while others wait.
SHARE = 0.15


class Load(NamedTuple):
    """How much something is that is repeated.

    Attributes:
      kind: what bounds of one hold for the others of.
      members: advanced at once.
      each: work for one of them.
    """

    kind: Hashable
    members: int
    each: float


class Bounds:
    """Upper bounds of quantities that grow with a load, from those measured."""

    def __init__(self) -> None:
        self._measured: list[tuple[Load, float]] = []

    def learn(self, load: Load, value: float) -> None:
        """Notes what was measured."""
        self._measured.append((load, value))

    def bound(self, load: Load) -> float | None:
        """The lowest bound that follows, first from its own kind; None from nothing."""
        same = [x for x in self._measured if x[0].kind == load.kind]
        found = [
            value
            * max(1.0, load.each / known.each)
            * max(1.0, load.members / known.members)
            for known, value in same or self._measured
        ]
        return min(found, default=None)


def typical(values: Sequence[float], otherwise: float) -> float:
    """Their median, or something else where there are none."""
    return statistics.median(values) if values else otherwise


def take(
    waiting: Sequence[T], cost: Callable[[T], float], left: float, count: int
) -> list[T]:
    """What is next, in its order; none where nothing fits any more.

    Args:
      waiting: in the order of importance.
      cost: seconds that one takes, at most about.
      left: seconds that are left.
      count: how many may be taken at once.
    """
    taken: list[T] = []
    for one in waiting:
        if len(taken) < count and cost(one) <= SHARE * left:
            taken.append(one)
            left -= cost(one)
    if taken or not waiting:
        return taken
    shortest = min(waiting, key=cost)
    return [shortest] if cost(shortest) <= left else []
