"""Bookkeeping of slots: nobody lost, nobody twice, kinds apart, nothing idle."""

import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lra_jax
from lra_jax import networks, sweep, tiles
from lra_jax.tiles import EMPTY


def of(*rows):
    return np.array(rows, np.int32)


@pytest.mark.parametrize(
    ("kinds", "num_devices", "max_parallel", "width", "shape"),
    [
        ([0] * 45, 1, None, None, (1, 45)),
        ([0] * 45, 2, None, None, (2, 23)),
        ([0] * 45, 2, 16, 4, (4, 4)),
        ([0] * 45, 2, 17, 4, (6, 4)),  # rounded up to full tiles
        ([0] * 7 + [1] * 3, 1, None, None, (2, 7)),
        ([0] * 7 + [1] * 3, 1, 5, None, (1, 5)),
        ([0], 8, None, 4, (8, 1)),
        ([0, 1, 2], 1, None, 4, (3, 1)),
        ([0] * 5 + [1] * 5 + [2] * 3, 1, None, 4, (5, 4)),  # a tile has one kind
        ([0] * 5 + [1] * 5 + [2] * 3, 2, None, 4, (6, 3)),
        ([0] * 5 + [1] * 5 + [2] * 3, 1, 13, 4, (4, 4)),
    ],
)
def test_shape(kinds, num_devices, max_parallel, width, shape):
    slots = tiles.make(np.array(kinds), num_devices, max_parallel, width)
    assert slots.shape == shape
    assert (slots == EMPTY).all()


def test_small_members_have_wide_tiles_on_a_cpu():
    task = lra_jax.TASKS["temporal_order"]
    widths = {}
    for hidden_size, network in [(8, "tanh"), (16, "tanh"), (17, "gru"), (32, "tanh")]:
        experiment = sweep.Experiment(
            task,
            lambda numbers: (lra_jax.readout_only(), optax.sgd(numbers["lr"])),
            seq_len=10,
            hidden_size=hidden_size,
            network=networks.NETWORKS[network](),
        )
        grid = sweep.make_grid(
            experiment, {"lr": np.full(200, 0.1)}, np.zeros(200, int)
        )
        n, hidden, outputs = task.input_size, hidden_size, task.output_size
        if network == "tanh":
            numbers = hidden * (n + hidden + 1 + outputs) + outputs
            assert grid.weight_bytes == 4 * numbers
        devices = jax.devices()[:1]
        widths[hidden_size] = sweep.init_sweep(grid, devices=devices).slots.shape[1]
    assert widths == {8: 32, 16: 32, 17: 4, 32: 4}


def test_members_go_beside_their_kind_then_to_each_device_in_turn():
    kind = np.array([0, 0, 0, 1, 1, 0])
    slots = of([EMPTY, EMPTY], [EMPTY, 3], [EMPTY, EMPTY], [EMPTY, EMPTY])
    filled = tiles.fill(slots, kind, np.array([0, 1, 2, 4, 5]), num_devices=2)
    # Two tiles a device: rows 0, 1 are the first's. 4 joins 3; then rows 0, 2, 3.
    np.testing.assert_array_equal(filled, of([0, 1], [4, 3], [2, 5], [EMPTY] * 2))


def test_tiles_are_emptied_where_members_fit_into_fewer():
    kind = np.zeros(8, int)
    slots = of([0, EMPTY], [1, EMPTY], [2, 3], [EMPTY, 4])
    found = tiles.compact(slots, kind, 2, narrow=False)
    np.testing.assert_array_equal(found, slots)  # each device has two tiles either way
    slots = of([0, EMPTY], [1, EMPTY], [2, EMPTY], [EMPTY, 4])
    found = tiles.compact(slots, kind, 2, narrow=False)
    np.testing.assert_array_equal(found, of([0, 1], [EMPTY] * 2, [2, 4], [EMPTY] * 2))


def test_a_half_empty_tile_becomes_narrower_when_no_member_waits():
    slots = np.full((1, 64), EMPTY, np.int32)
    slots[0, ::7] = np.arange(10)
    kind = np.zeros(10, int)
    np.testing.assert_array_equal(tiles.compact(slots, kind, 1, narrow=False), slots)
    narrow = tiles.compact(slots, kind, 1, narrow=True)
    assert narrow.shape == (1, 16)
    np.testing.assert_array_equal(narrow[0, :10], np.arange(10))
    smallest = tiles.compact(narrow[:, :3], kind, 1, narrow=True)
    assert smallest.shape == (1, 3)


@pytest.mark.parametrize(
    ("slots", "halves"),
    [
        (of([0, 1, 2, 3]), of([0, 1], [2, 3])),
        (of([0, 1, 2]), of([0, 1], [2, EMPTY])),
        (of([0, 1, EMPTY], [3, 4, 5]), of([0, 1], [EMPTY] * 2, [3, 4], [5, EMPTY])),
    ],
)
def test_a_tile_is_halved_with_an_empty_slot_where_it_is_odd(slots, halves):
    np.testing.assert_array_equal(tiles.halve(slots), halves)


@given(st.data())
def test_nobody_is_lost_or_doubled_and_kinds_stay_apart(data):
    size = data.draw(st.integers(1, 40))
    kind = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    )
    num_devices = data.draw(st.integers(1, 4))
    most = data.draw(st.none() | st.integers(1, 50))
    width = data.draw(st.none() | st.integers(1, 20))
    slots = tiles.make(kind, num_devices, most, width)
    queue = np.argsort(kind, kind="stable")
    ended: list[int] = []
    for _ in range(200):
        slots = tiles.fill(slots, kind, queue, num_devices)
        queue = queue[~np.isin(queue, slots)]
        present = set(slots[slots != EMPTY].tolist())
        slots = tiles.compact(slots, kind, num_devices, narrow=not queue.size)
        assert len(slots) % num_devices == 0
        members = slots[slots != EMPTY]
        assert set(members.tolist()) == present
        assert sorted([*members, *queue, *ended]) == list(range(size))
        for tile in slots:
            assert len(set(kind[tile[tile != EMPTY]])) <= 1
        if not members.size:
            break
        leaving = data.draw(st.sets(st.sampled_from(members.tolist()), min_size=1))
        ended += leaving
        slots = np.where(np.isin(slots, list(leaving)), EMPTY, slots)
    assert len(ended) == size


@given(st.data())
def test_without_a_bound_everybody_has_a_slot_at_once(data):
    sizes = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    kind = np.repeat(np.arange(len(sizes)), sizes)
    num_devices = data.draw(st.integers(1, 4))
    width = data.draw(st.none() | st.integers(1, 20))
    slots = tiles.make(kind, num_devices, None, width)
    queue = np.array(data.draw(st.permutations(range(kind.size))))
    filled = tiles.fill(slots, kind, queue, num_devices)
    assert sorted(filled[filled != EMPTY]) == list(range(kind.size))
    # And no more tiles than that needs, but for a multiple of the devices.
    assert len(slots) < num_devices + sum(-(-n // slots.shape[1]) for n in sizes)


def one_after_the_other(slots, kind, queue, num_devices):
    """`tiles.fill`, a member at a time."""
    slots, queue = slots.copy(), queue.tolist()
    rows = np.arange(len(slots)).reshape(num_devices, -1).T.ravel()
    used = (slots[rows] != EMPTY).any(axis=1)
    for row in (*rows[used], *rows[~used]):
        for place in np.flatnonzero(slots[row] == EMPTY):
            inside = slots[row][slots[row] != EMPTY]
            for member in queue:
                if not inside.size or kind[member] == kind[inside[0]]:
                    slots[row, place] = member
                    queue.remove(member)
                    break
    return slots


@given(st.data())
def test_members_are_taken_in_the_order_of_the_queue(data):
    size = data.draw(st.integers(1, 20))
    kind = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    )
    num_devices = data.draw(st.integers(1, 3))
    shape = (num_devices * data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
    queue = np.array(data.draw(st.permutations(range(size))))
    standing = data.draw(st.integers(0, size))
    empty = np.full(shape, EMPTY, np.int32)
    slots = one_after_the_other(empty, kind, queue[:standing], num_devices)
    leaving = data.draw(st.sets(st.integers(0, size - 1)))
    slots = np.where(np.isin(slots, list(leaving)), EMPTY, slots)
    rest = queue[standing:]
    np.testing.assert_array_equal(
        tiles.fill(slots, kind, rest, num_devices),
        one_after_the_other(slots, kind, rest, num_devices),
    )
