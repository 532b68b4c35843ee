"""Which member stands where: slots, in tiles, on devices.

A *slot* has room for one member. A *tile* is a row of slots that a device advances in
lockstep, as one batched computation; a device goes through its tiles one after another
and leaves out those that are empty. All tiles are one array `[tiles, width]` of member
numbers, a block of rows for each device. All members of a tile agree in the
hyper-parameters that set how long the program runs (their *kind*), so none pays for
another's larger K.

Everything here is bookkeeping on the host, in NumPy.
"""

from __future__ import annotations

import numpy as np

from lra_jax import settings

EMPTY = -1  # a slot without a member

# Narrower tiles are not worth another compilation.
MIN_NARROWED = 16


# Slots of a tile on a CPU, where nobody says another number, of small members and of
# all others (docs/notes/speed.md has the measurements). Products of small matrices are
# quicker for many at once; the states of larger members have to stay in a core's cache.
SMALL_BYTES = 2048  # of a member's weights: H = 16 and fewer in the paper's networks
WIDTH_OF_SMALL = 32
WIDTH_OF_LARGE = 4


def width_on_cpu(weight_bytes: int | None) -> int:
    """How many members a CPU advances in lockstep.

    Args:
      weight_bytes: of one member; None where it is not known.

    Example:
      >>> from lra_jax import tiles
      >>> tiles.width_on_cpu(656), tiles.width_on_cpu(43_000), tiles.width_on_cpu(None)
      (32, 4, 4)
    """
    is_small = weight_bytes is not None and weight_bytes <= SMALL_BYTES
    return WIDTH_OF_SMALL if is_small else WIDTH_OF_LARGE


def make(
    kind: np.ndarray, num_devices: int, max_parallel: int | None, width: int | None
) -> np.ndarray:
    """Empty tiles for members of these kinds.

    Args:
      kind: `[N]`, the members' kinds.
      num_devices: tiles come as a multiple of it.
      max_parallel: most members advanced at once, rounded up to full tiles on every
        device; None is no bound.
      width: most slots of a tile; None is no bound.

    Returns:
      `[tiles, width]` int32 of `EMPTY`. Without a bound on the members advanced at
      once, `fill` finds a slot for each of them.

    Raises:
      ValueError: a bound is no integer of at least 1.
    """
    max_parallel, width = (
        bound if bound is None else settings.check_size(name, bound)
        for name, bound in (("max_parallel", max_parallel), ("tile_width", width))
    )
    total = min(kind.size, max_parallel or kind.size)
    per_device = -(-total // num_devices)
    counts = np.unique(kind, return_counts=True)[1]
    same = -(-int(counts.max()) // num_devices)
    width = min(per_device, same, width or same)
    rows = -(-per_device // width)
    if max_parallel is None:  # no two kinds share a tile
        rows = -(-int((-(-counts // width)).sum()) // num_devices)
    return np.full((rows * num_devices, width), EMPTY, np.int32)


def fill(
    slots: np.ndarray, kind: np.ndarray, queue: np.ndarray, num_devices: int
) -> np.ndarray:
    """Puts members into empty slots: first beside their kind, then into empty tiles.

    Args:
      slots: `[tiles, width]`.
      kind: `[N]`.
      queue: `[Q]` members that wait, in the order in which they are to be taken.
      num_devices: empty tiles are taken from each device in turn.

    Returns:
      New slots; those that had a member keep it.
    """
    slots = slots.copy()
    rows = np.arange(len(slots)).reshape(num_devices, -1).T.ravel()
    free = slots[rows] == EMPTY
    used = ~free.all(axis=1)
    # Of each kind, no more than there are free places: the queue may be long.
    queue = _heads(kind, queue, int(free.sum()))
    waiting = np.argsort(kind[queue], kind="stable")  # places in the queue
    waits = kind[queue[waiting]]
    beside, places = np.nonzero(free & used[:, None])
    tile = rows[beside]
    # Of its kind, the first free place gets the first member, and so on.
    wanted = kind[slots[tile].max(axis=1)]
    order = np.argsort(wanted, kind="stable")
    wanted = wanted[order]
    source = np.searchsorted(waits, wanted) + _rank(wanted)
    fits = source < np.searchsorted(waits, wanted, side="right")
    source, order = source[fits], order[fits]
    slots[tile[order], places[order]] = queue[waiting[source]]
    # The rest fill empty tiles, full but for the last of each kind. A tile's turn comes
    # with the first of its members.
    rest = np.delete(waiting, source)
    rank = _rank(kind[queue[rest]])
    width = slots.shape[1]
    first = np.flatnonzero(rank % width == 0)
    size = np.diff(np.append(first, rest.size))
    empty = rows[~used]
    chosen = np.argsort(rest[first])[: empty.size]
    row = np.full(first.size, EMPTY)
    row[chosen] = empty[: chosen.size]
    row = np.repeat(row, size)
    taken = row != EMPTY
    slots[row[taken], rank[taken] % width] = queue[rest[taken]]
    return slots


def _heads(kind: np.ndarray, queue: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of each kind: the first in the queue, in its order."""
    kinds = kind[queue]
    order = None  # a sweep's queue is sorted, and may be long
    if (kinds[1:] < kinds[:-1]).any():
        order = np.argsort(kinds, kind="stable")
        kinds = kinds[order]
    first = np.append(0, np.flatnonzero(kinds[1:] != kinds[:-1]) + 1)
    size = np.minimum(np.diff(np.append(first, queue.size)), most)
    start = np.repeat(first - np.append(0, np.cumsum(size)[:-1]), size)
    taken = start + np.arange(start.size)
    return queue[taken if order is None else np.sort(order[taken])]


def _rank(values: np.ndarray) -> np.ndarray:
    """How many equal ones stand before each of sorted values."""
    first = np.flatnonzero(np.diff(values, prepend=-1))
    size = np.diff(np.append(first, values.size))
    return np.arange(values.size) - np.repeat(first, size)


def compact(
    slots: np.ndarray, kind: np.ndarray, num_devices: int, *, narrow: bool
) -> np.ndarray:
    """Moves members together where that makes a chunk shorter.

    The busiest device sets the time of a chunk: what counts is how many slots are in
    its tiles that are not empty.

    Args:
      slots: `[tiles, width]`.
      kind: `[N]`.
      num_devices: each has a block of tiles.
      narrow: whether tiles may be halved, once or more, down to `MIN_NARROWED` slots.
        That is another program to compile: it happens at most log₂(width) times.

    Returns:
      New slots, or the same ones where nothing is gained.
    """

    def cost(slots: np.ndarray) -> int:
        used = (slots != EMPTY).any(axis=1).reshape(num_devices, -1)
        return int(used.sum(axis=1).max()) * slots.shape[1]

    members = np.sort(slots[slots != EMPTY])
    queue = members[np.argsort(kind[members], kind="stable")]
    best, width = slots, slots.shape[1]
    while len(slots) * width >= members.size:
        empty = np.full((len(slots), width), EMPTY, np.int32)
        packed = fill(empty, kind, queue, num_devices)
        if (packed != EMPTY).sum() < members.size:
            break  # members of different kinds need tiles of their own
        if cost(packed) < cost(best):
            best = packed
        if not narrow or width < 2 * MIN_NARROWED:
            break
        width //= 2
    return best


def halve(slots: np.ndarray) -> np.ndarray:
    """Twice as many tiles of half the width, with the same members."""
    odd = np.full((len(slots), slots.shape[1] % 2), EMPTY, np.int32)
    return np.concatenate([slots, odd], axis=1).reshape(2 * len(slots), -1)
