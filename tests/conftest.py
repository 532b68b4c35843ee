"""Strict flags for all tests; float64 tests run in a process of their own.

`pytest` runs everything but `tests/x64`; `JAX_ENABLE_X64=1 pytest` runs `tests/x64`.
"""

import gc
import pathlib

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
# Most of the time goes into compiling. What the compiler makes of a program when it tries
# is tested by the tests that run commands.
jax.config.update("jax_disable_most_optimizations", True)
# Virtual devices: dividing a grid among them is tested on any machine.
jax.config.update("jax_num_cpu_devices", 8)


def pytest_ignore_collect(collection_path, config):
    del config
    if collection_path.suffix == ".py" and collection_path.name.startswith("test_"):
        return ("x64" in collection_path.parts) != jax.config.jax_enable_x64
    return None


@pytest.fixture(autouse=True)
def optimized(request):
    """With the marker, programs are compiled as a user's are."""
    if request.node.get_closest_marker("optimized") is None:
        yield
        return
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()


MAPS = pathlib.Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Every compiled program takes some maps of memory; a process has 65,530."""
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > 25_000:
        jax.clear_caches()
        gc.collect()
