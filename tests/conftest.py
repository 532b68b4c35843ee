"""Strict flags for all tests; float64 tests run in a process of their own.

`pytest` runs everything but `tests/x64`; `JAX_ENABLE_X64=1 pytest` runs `tests/x64`.
"""

import ctypes
import gc
import os
import pathlib
from unittest import mock

import command_line
import hypothesis
import jax
import pytest

import lra_jax

jax.config.update("jax_numpy_rank_promotion", "raise")
# Most of the time goes into compiling: nothing is optimized, and XLA's older emitters take
# half the time of the newer ones. What the compiler makes of a program when it tries is
# tested by those with the marker `optimized`, and by a run of the command in test_cli.py.
jax.config.update("jax_disable_most_optimizations", True)
# What was compiled before is read again: tests make the same small programs many times, and
# forget them when they take much memory.
jax.config.update("jax_compilation_cache_dir", command_line.CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# Virtual devices: dividing a grid among them is tested on any machine.
jax.config.update("jax_num_cpu_devices", 8)
FLAGS = "--xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):  # newer ones abort: they do not know the flag
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
with mock.patch.dict(os.environ, XLA_FLAGS=os.environ.get("XLA_FLAGS", FLAGS)):
    jax.devices()  # XLA reads its flags once

# No test fails because the machine is slow, and a failure comes again.
hypothesis.settings.register_profile(
    "tests", deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("tests")


def pytest_ignore_collect(collection_path, config):
    del config
    if collection_path.suffix == ".py" and collection_path.name.startswith("test_"):
        return ("x64" in collection_path.parts) != jax.config.jax_enable_x64
    return None


@pytest.fixture
def no_programs_kept():
    """JAX as it begins for a user, with no folder for compiled programs."""
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", command_line.CACHE)


@pytest.fixture
def own_rules(monkeypatch):
    """Rules that a test registers are gone after it."""
    monkeypatch.setattr(lra_jax.rules, "_CARDS", dict(lra_jax.rules._CARDS))
    kept = dict(lra_jax.RULES)
    yield
    lra_jax.RULES.clear()
    lra_jax.RULES.update(kept)


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


# Of several workers one does all tests of a file, or of a function of the few files in
# x64: what they share is compiled once. The longest come first, so that all end together.
LONGEST = [
    "test_documentation.py", "test_cli.py", "test_faults.py", "test_notebooks.py",
    "test_rules.py", "test_networks.py", "test_feedback.py", "test_sweep.py",
    "test_rule_cards.py", "test_network_programs.py", "test_edges.py",
    "test_error_signals.py", "test_lra_released.py", "test_labels.py",
    "test_dtypes.py", "test_lowering.py", "test_diagnostics.py", "test_lra_diff.py",
]  # fmt: skip


def place(item):
    name = item.path.name
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):
        items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return nodeid.partition("[" if "x64/" in nodeid else "::")[0]

        def _reschedule(self, node):
            # One that takes the place of one that died has collected nothing yet.
            if node in self.registered_collections:
                super()._reschedule(node)

    config.option.loadscopereorder = False
    return Scheduler(config, log)


# Memory: every compiled program takes some, and compiling one leaves more behind. Programs
# take maps of it as well, of which a process has 65,530.

MAX_BYTES = 1.2e9
MIN_BYTES = 0.3e9  # of programs; it is not worth the while to forget fewer
MAX_MAPS = 25_000
MAPS, MEMORY = pathlib.Path("/proc/self/maps"), pathlib.Path("/proc/self/statm")


def resident():
    """Bytes of this process in memory; 0 where the system does not say."""
    if not MEMORY.exists():
        return 0
    return int(MEMORY.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def give_back():
    """What was freed goes back to the system, where the C library can do that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


max_bytes = MAX_BYTES


def forget_programs():
    global max_bytes
    jax.clear_caches()
    gc.collect()
    give_back()
    max_bytes = max(MAX_BYTES, resident() + MIN_BYTES)


@pytest.fixture(autouse=True)
def little_memory():
    yield
    if resident() > max_bytes:
        give_back()
        if resident() > max_bytes - MIN_BYTES:
            forget_programs()


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MAX_MAPS:
        forget_programs()
