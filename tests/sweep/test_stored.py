"""Recorded data as arguments of a program."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lra_jax
from lra_jax import sweep
from lra_jax.sweep import bookkeeping, program, stored

ONE = jax.devices()[:1]


def build(numbers):
    return lra_jax.bptt(), optax.sgd(numbers["lr"])


def recorded(count=2000):
    """A task of arrays, of which the training part has more than 64 kB."""
    inputs = np.random.default_rng(0).normal(size=(count, 10, 6)).astype(np.float32)
    labels = np.arange(count) % 4
    return lra_jax.Task.from_arrays(inputs, labels, validation=0.1)


def test_recorded_data_are_arguments_of_the_program_and_no_constants_of_it():
    experiment = sweep.Experiment(recorded(), build, hidden_size=8, eval_every=5)
    grid = sweep.make_grid(experiment, {"lr": [0.1, 0.3]}, seeds=[0, 1])
    slots = np.array([[0, 1]], np.int32)
    limits = sweep.Limits(max_steps=10, patience=0)
    runs = sweep.run_shapes(experiment, grid, slots)
    arguments = limits, np.ones(1, bool), grid.arguments(slots), runs
    chunk = sweep.make_program(experiment, tuple(ONE)).chunk
    assert isinstance(chunk, stored.StoredProgram)
    text = chunk.lower(*arguments).as_text()
    assert "1800x10x6xf32>" in text  # the training part
    assert len(text) < 400_000
    # The same function with its constants in the program: the same numbers, from a text
    # that has all data in it.
    plain = jax.jit(chunk._function)
    assert len(plain.lower(*arguments).as_text()) > 2 * 1800 * 10 * 6 * 4
    compiled = sweep.make_program(experiment, tuple(ONE))
    seeds = bookkeeping.evaluate_seeds(compiled, grid, slots[0], np.zeros(0, int))
    fresh = np.ones((1, 2), bool)
    start = compiled.start(
        grid.arguments(slots), seeds.initial, seeds.row[slots], fresh, None
    )
    for one, other in zip(
        jax.tree.leaves(compiled.chunk(*arguments[:3], start)),
        jax.tree.leaves(plain(*arguments[:3], start)),
        strict=True,
    ):
        np.testing.assert_array_equal(raw(one), raw(other))


@pytest.mark.parametrize(("data", "count"), [("drawn", 1), ("recorded", 2)])
def test_the_program_that_is_measured_is_the_one_that_runs(data, count, monkeypatch):
    """Else each group of a run would be compiled twice."""
    task = lra_jax.TASKS["temporal_order"] if data == "drawn" else recorded()
    experiment = sweep.Experiment(
        task,
        lambda numbers: (lra_jax.readout_only(), optax.sgd(numbers["lr"])),
        seq_len=10,
        hidden_size=8,
        eval_every=1,
        num_validation=50 if data == "drawn" else None,
    )
    devices = jax.devices()[:count]
    members = sweep.make_grid(experiment, {"lr": [0.1] * 8}, seeds=range(8))
    state = sweep.init_sweep(members, max_parallel=4, tile_width=2, devices=devices)
    measured = program._lower_chunk(experiment, members, state.slots, devices)
    compiled, ran = sweep.make_program(experiment, tuple(devices)), []

    def chunk(*arguments):
        ran.append(compiled.chunk.lower(*arguments).as_text())
        return compiled.chunk(*arguments)

    watched = compiled._replace(chunk=chunk)
    monkeypatch.setattr(program, "make_program", lambda *_: watched)
    options = {"limits": sweep.Limits(max_steps=2), "devices": devices}
    for _ in range(2):  # the second time as a run that goes on, whose members move
        advanced = sweep.iterate_sweep(experiment, members, state, **options)
        state = sweep.gather(next(advanced))
    for _ in sweep.iterate_sweep(experiment, members, state, **options):
        pass
    assert len(ran) == 4
    assert {*ran} == {measured.as_text()}


def raw(x):
    """The numbers of an array, also of keys."""
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def test_all_programs_share_one_copy_and_the_last_one_lets_go_of_it():
    large = jnp.arange(1 << 15, dtype=jnp.float32)
    everywhere = jax.sharding.SingleDeviceSharding(ONE[0])
    programs = [
        stored.StoredProgram(function, everywhere)
        for function in (lambda x: large[:2] + x, lambda x: large[2:4] * x)
    ]
    np.testing.assert_array_equal(programs[0](1.0), [1, 2])
    np.testing.assert_array_equal(programs[1](2.0), [4, 6])
    ((first,), (second,)) = (
        data for program in programs for _, data in program._programs.values()
    )
    assert first is second
    kept = weakref.ref(first)
    key = id(large), everywhere
    del first, second, programs
    gc.collect()
    assert kept() is None
    assert key not in stored._PLACED


def test_a_trace_is_of_its_precision():
    large = jnp.ones((1 << 15,), jnp.float32)
    everywhere = jax.sharding.SingleDeviceSharding(ONE[0])
    program = stored.StoredProgram(lambda x: large[:2] * x, everywhere)
    assert program(2.0).dtype == jnp.float32
    with jax.default_matmul_precision("bfloat16"):
        program(2.0)
    assert len(program._programs) == 2


def test_data_are_placed_once_for_all_shapes():
    large = jnp.arange(1 << 15, dtype=jnp.float32)
    traced = []

    def function(x):
        traced.append(1)
        return large[: x.shape[0]] + x

    everywhere = jax.sharding.SingleDeviceSharding(ONE[0])
    program = stored.StoredProgram(function, everywhere)
    for size in (2, 3, 2):
        np.testing.assert_array_equal(program(jnp.ones(size)), np.arange(size) + 1)
    assert len(traced) == 2  # one for each shape
    (first, second) = (data for _, data in program._programs.values())
    assert first[0] is second[0]
