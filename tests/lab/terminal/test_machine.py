"""How JAX is set up for the machine, and how many members fit into it."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lra_jax
from lra_jax import sweep
from lra_jax.experiment import Experiment
from lra_jax.lab.terminal import machine


@pytest.fixture
def grid():
    experiment = Experiment(
        task=lra_jax.TASKS["temporal_order"],
        build=lambda h: (lra_jax.readout_only(), optax.sgd(h["lr"])),
        seq_len=10,
        hidden_size=16,
        batch_size=4,
        eval_every=2,
        num_validation=10,
    )
    values = {"lr": np.full(1000, 0.1, np.float32)}
    return experiment, sweep.make_grid(experiment, values, np.arange(1000))


@pytest.mark.parametrize(
    ("before", "processor", "after"),
    [
        ("", "fpu avx512f", "--xla_cpu_prefer_vector_width=512"),
        ("--a=1", "avx512f", "--a=1 --xla_cpu_prefer_vector_width=512"),
        ("", "fpu avx2", ""),
        ("--xla_cpu_prefer_vector_width=128", "avx512f", None),
    ],
)
def test_flags_are_added_only_where_they_help_and_are_not_set(
    monkeypatch, before, processor, after
):
    monkeypatch.setenv("XLA_FLAGS", before)
    monkeypatch.setattr(machine, "_processor", lambda: processor)
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    machine.prepare()
    assert os.environ["XLA_FLAGS"] == (before if after is None else after)


def test_what_the_user_has_set_stays(no_programs_kept, monkeypatch, tmp_path):
    updates = {}
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    machine.prepare()
    # The tests' own configuration has set a number of devices.
    assert "jax_num_cpu_devices" not in updates
    assert updates["jax_compilation_cache_dir"].startswith(str(tmp_path / "lra_jax"))
    updates.clear()
    with jax.default_device(None):
        monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=3")
        machine.prepare()
    assert "jax_num_cpu_devices" not in updates


def test_float64_is_of_the_block_alone():
    with machine.in_float64():
        assert jnp.ones(2).dtype == np.float64
    assert jnp.ones(2).dtype == np.float32


def test_as_many_members_as_are_of_use_and_fit(monkeypatch, grid):
    experiment, members = grid
    of_use = 2 * 32 * jax.device_count()  # two tiles of small members for each core
    assert machine.max_parallel(experiment, members) == of_use
    slots = sweep.init_sweep(members, max_parallel=of_use).slots
    need = sweep.memory_of_chunk(experiment, members, slots)
    monkeypatch.setattr(machine, "free_memory", lambda: need / 2)
    found = machine.max_parallel(experiment, members)
    assert found == int(of_use * machine.USABLE_MEMORY / 2)
    monkeypatch.setattr(machine, "free_memory", lambda: 1)
    assert machine.max_parallel(experiment, members) == 1
    monkeypatch.setattr(machine, "free_memory", lambda: None)
    assert machine.max_parallel(experiment, members) == of_use


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        # Version 2, inside of a container: its group is the root of what it sees.
        (
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/memory.max": "1000\n",
                "sys/fs/cgroup/memory.current": "300\n",
                "sys/fs/cgroup/memory.stat": "anon 100\ninactive_file 50\n",
            },
            750,
        ),
        # A group without a limit, in one with a limit.
        (
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/step/memory.max": "max\n",
                "sys/fs/cgroup/job/step/memory.current": "10\n",
                "sys/fs/cgroup/job/memory.max": "500\n",
                "sys/fs/cgroup/job/memory.current": "100\n",
            },
            400,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, None),
        # Version 1: the path is the host's, the folder shows the group itself.
        (
            {
                "proc/self/cgroup": "5:cpu:/\n4:hugetlb,memory:/docker/1f\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "2500",
                "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 900\n",
            },
            400,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "10",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "25",
            },
            0,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "?"}, None),
    ],
)
def test_the_limit_of_a_container_is_read(tmp_path, files, expected):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert machine.free_memory_of_container(tmp_path) == expected


def test_the_smaller_of_host_and_container_counts(monkeypatch):
    devices = jax.local_device_count()
    host = machine.free_memory()
    assert host > 0
    for limit in (1000 * devices, 0):
        monkeypatch.setattr(machine, "free_memory_of_container", lambda n=limit: n)
        assert machine.free_memory() == limit // devices
    monkeypatch.setattr(machine, "free_memory_of_container", lambda: 10**18)
    assert 1000 < machine.free_memory() < 10**15


def test_memory_grows_with_the_length_and_not_with_squares_of_it(grid):
    experiment, members = grid
    need = [
        sweep.memory_of_chunk(
            dataclasses.replace(experiment, seq_len=t),
            members,
            np.zeros((8, 4), np.int32),
        )
        for t in (20, 60, 100)
    ]
    assert need[2] - need[1] == pytest.approx(need[1] - need[0], rel=0.05)
