"""The command line, in a process of its own or in this one, and what it leaves behind."""

import atexit
import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from unittest import mock

import numpy as np
from absl.testing import flagsaver

from lra_jax.lab.terminal import command_line

# Seconds after which a command hangs: no test depends on how fast the machine is.
HANGS = 3600

CONFIG = """
task = "temporal_order"
seq_len = 10
hidden_size = 8
batch_size = 4
num_validation = 50
eval_every = 5
max_steps = 20
patience = 0
seeds = [0, 1]

[[grid]]
rule = "lra_diff"
lr = [0.1, 0.3]
gamma = [1, 10]
num_refinements = [1, 2]
lambda = [0, 0.1]

[[grid]]
rule = "readout_only"
lr = [0.1]
"""

# Compiled programs are shared between the tests, and the commands, that a worker runs.
CACHE = tempfile.mkdtemp(prefix="lra_jax_test_")
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": CACHE,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}
# Programs this small take longer to compile than to run.
QUICK = ENVIRONMENT | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def command(folder, *arguments):
    return [
        sys.executable, "-m", "experiments.grid", "--config", str(folder / "my.toml"),
        "--out", os.path.relpath(folder / "run"), *arguments,
    ]  # fmt: skip


def start(words, environment=QUICK):
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip


def run(folder, *arguments, code=0, within=(), environment=QUICK):
    """What it printed; `within` is a command that runs the one given to it."""
    process = start([*within, *command(folder, *arguments)], environment)
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


def call(module, *words, **defaults):
    """What a program answers to these words in this process, which saves its start.

    For what ends before anything is set up or compiled. `defaults` are of its flags whose
    names are those of flags of other programs too: here, all are defined.
    """
    name = module.__name__
    check = getattr(module, "_check", lambda: None)
    parse = getattr(module, "parse", None) or command_line.parser(name, check)
    out, err = io.StringIO(), io.StringIO()
    with (
        flagsaver.flagsaver(**defaults),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch("lra_jax.lab.terminal.machine.prepare"),
    ):
        try:
            code = module.main(parse([name, *map(str, words)]))
        except SystemExit as error:
            code = error.code
    assert "Traceback" not in err.getvalue()
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def overrides(*values):
    return [word for value in values for word in ("--set", value)]


def contents(path):
    """What the results of a run folder are: the table and the curves."""
    return (path / "results.csv").read_text(), read_file(path / "curves.npz")


def assert_same_results(a, b):
    assert a[0] == b[0]
    assert a[1].keys() == b[1].keys()
    for name in a[1]:
        np.testing.assert_array_equal(a[1][name], b[1][name])


def read_file(path):
    """Parses a file of a run folder, by nothing but what is documented of it."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".csv":
        with path.open() as file:
            rows = list(csv.DictReader(file))
        assert all(None not in row and None not in row.values() for row in rows)
        return rows
    if path.suffix == ".npz":
        with np.load(path) as curves:
            arrays = {name: curves[name] for name in curves.files}
        assert len({array.size for array in arrays.values()}) == 1
        return arrays
    title, _, data = path.read_bytes().partition(b"\n")
    assert title.split()[-1].decode() == hashlib.sha256(data).hexdigest()
    return data
