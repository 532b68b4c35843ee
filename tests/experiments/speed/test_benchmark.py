"""The benchmark: what it counts, what it compares with, and that it runs."""

import copy
import dataclasses
import io
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import rich.console
from command_line import call

from experiments.speed import (
    benchmark,
    benchmark_report,
    ceiling,
    timings,
    variants,
    wall_time,
    workload,
)
from lra_jax import TASKS, lra_diff, rnn
from lra_jax.lab.config import load

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize(
    ("task", "seq_len", "batch_size", "hidden_size", "k", "gamma", "c0", "c1"),
    [
        ("temporal_order", 12, 5, 16, 10, 20.0, 0.01, 0.05),
        ("random_permutation", 7, 6, 100, 1, 10.0, 0.0, 0.0),
        ("adding", 10, 6, 8, 2, 10.0, 0.02, 0.1),
    ],
)
def test_the_pytorch_baseline_is_lra_diff(
    task, seq_len, batch_size, hidden_size, k, gamma, c0, c1
):
    pytest.importorskip("torch")
    from experiments.speed import torch_baseline

    task = TASKS[task]
    params = rnn.init_params(
        jax.random.key(0), task.input_size, hidden_size, task.output_size
    )
    batch = task.sample(jax.random.key(1), batch_size, seq_len)
    rule = lra_diff(
        gamma=gamma, num_refinements=k, c0=c0, c1=c1, output_loss=task.output_loss
    )
    key = jax.random.key(2)
    expected, _, _ = jax.jit(rule.grads)(key, params, rule.init(key, params), batch)
    weights = torch_baseline.weights(params)
    settings = torch_baseline.Settings(gamma, k, c0, c1)
    found = torch_baseline.gradients(weights, *torch_baseline.batch(batch), settings)
    for name, one, other in zip(expected._fields, expected, found, strict=True):
        largest = float(np.abs(one).max())
        assert largest > 0, name
        np.testing.assert_allclose(
            other.numpy(), one, rtol=1e-4, atol=1e-5 * largest, err_msg=name
        )
    torch_baseline.train_step(weights, *torch_baseline.batch(batch), settings, lr=0.5)
    np.testing.assert_allclose(
        weights.w_hh.numpy(), params.w_hh - 0.5 * expected.w_hh, rtol=1e-4, atol=1e-6
    )


def test_operations_of_a_small_case():
    # B = 2, H = 3, so a product with W_hh is 18 multiply-adds, with W_hy (Y = 4) 24.
    settings = workload.Settings(
        seq_len=10, num_refinements=2, members=1, hidden_size=3, batch_size=2
    )
    found = workload.operations(settings)
    # Each of t = 1..9: forward, u W_hhᵀ at k = 1, r and u W_hhᵀ at k = 2, ∇W_hh.
    hidden = 9 * (1 + 1 + 2 + 1) * 18
    # logits; π W_hyᵀ at k = 1; logits and π W_hyᵀ at k = 2; ∇W_hy.
    readout = (1 + 1 + 2 + 1) * 24
    assert found.multiply_adds == hidden + readout
    # z and ẑ at 10 steps; at k = 2 z̄ of the top target, z̄ and ẑ' of 9 others.
    assert found.tanh == (10 + 10 + 1 + 9 * 2) * 2 * 3
    weights = 6 * 3 + 3 * 3 + 3 + 3 * 4 + 4
    assert found.bytes == 2 * 4 * weights


def test_operations_of_real_inputs():
    settings = workload.Settings(
        task="adding", seq_len=10, num_refinements=1, hidden_size=3, batch_size=2
    )
    inputs = 2 * 10 * 2 * 2 * 3  # x W_xh and xᵀ u, X = 2
    assert workload.operations(settings).multiply_adds == (
        9 * 3 * 18 + 3 * (2 * 3 * 1) + inputs
    )


def test_a_rate_is_the_median():
    timing = timings.Timing("", lambda calls: None, work=10, calls=3)
    assert timing.rate is None
    timing.seconds = [1.0, 9.0, 2.0]
    assert timing.rate == 15


def test_the_ceiling_adds_the_times():
    highest = ceiling.Ceiling(product_rate=100, tanh_rate=10)
    needed = workload.Operations(multiply_adds=50, tanh=5, bytes=0)
    assert highest.rate(needed) == 1


# The program, but for what makes its numbers good: many updates and samples.
SCRIPT = """
import sys
from absl import app
from experiments.speed import benchmark, variants
benchmark.NUM_VALIDATION, variants.EVAL_EVERY = 100, 2
app.run(benchmark.main, sys.argv, flags_parser=benchmark.parse)
"""


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "OMP_NUM_THREADS": "1",  # spinning threads starve other tests
        },
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--members", "0", "--task=nothing"], "members"),
        (["--seq-len", "5"], "--seq-len: temporal_order needs at least 10"),
        (["--seconds", "nan"], "--seconds: expected a number, got nan"),
        (["--seconds", "inf"], "--seconds: expected a number, got inf"),
    ],
)
def test_bad_flags_are_one_message(arguments, says):
    done = call(benchmark, *arguments, out=None)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.startswith("experiments.benchmark: ")
    assert not done.stdout


def test_a_folder_that_cannot_be_made_is_one_message():
    done = command("--out", __file__)
    assert done.returncode == 2
    assert "test_benchmark.py" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


@pytest.fixture(scope="module")
def document():
    """That of the repository, from a run as below."""
    path = pathlib.Path(benchmark.__file__).parents[2] / "results/benchmark.json"
    return json.loads(path.read_text("utf8"))


@pytest.mark.slow  # it compiles some twenty programs
def test_a_run_measures_everything(tmp_path, document):
    stored, folder = document, tmp_path / "benchmark"
    done = command(
        "--members=2", "--hidden-size=8", "--num-refinements=2", "--repeats=1",
        "--batch-size=4", "--seconds=0.001", "--json", f"--out={folder}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert json.loads((folder / "benchmark.json").read_text()) == found
    assert found.keys() == stored.keys()
    document = found
    names = [row["name"] for row in document["variants"]]
    assert names[:4] == [
        "engine",
        "engine, with evaluation",
        "jit(vmap(train_step))",
        "loop of jit(train_step)",
    ]
    engine = document["variants"][0]
    for row in (*document["variants"], *document["others"]):
        if row["missing"]:
            assert row["rate"] is None
            continue
        assert len(row["seconds"]) == 1
        assert row["seconds"][0] > 0
        assert row["rate"] == pytest.approx(row["work"] / row["seconds"][0])
        if "ratio" in row:
            assert row["ratio"] == pytest.approx(row["rate"] / engine["rate"])
    for rows, best in (("products", "product_rate"), ("tanh", "tanh_rate")):
        rates = [row["rate"] for row in document[rows] if not row["missing"]]
        assert min(rates) > 0
        assert document["ceiling"][best] == max(rates)
    assert document["ceiling"]["fraction"] == pytest.approx(
        engine["rate"] / document["ceiling"]["rate"]
    )
    assert document["ceiling"]["fraction"] > 0
    for name in ("lambda", "one_refinement", "mixed_refinements"):
        assert document["costs"][name] > 0


def test_ctrl_c_is_one_message_and_leaves_what_was_there(monkeypatch, tmp_path):
    def run(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "run", run)
    (tmp_path / "benchmark.json").write_text("of before")
    cache = jax.config.jax_enable_compilation_cache
    try:
        done = call(benchmark, out=str(tmp_path))
    finally:
        jax.config.update("jax_enable_compilation_cache", cache)
    assert done.returncode == 130
    said = "interrupted before all was timed; nothing is written"
    assert f"experiments.benchmark: {said}\n" in done.stderr
    assert (tmp_path / "benchmark.json").read_text() == "of before"


def test_a_full_disk_leaves_the_document_of_before(document, monkeypatch, tmp_path):
    path = tmp_path / "benchmark.json"
    path.write_text("of before")

    def replace(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(benchmark.files.os, "replace", replace)
    with pytest.raises(OSError, match="No space"):
        benchmark._save(tmp_path, document)
    assert path.read_text() == "of before"


def test_memory_grows_linearly_and_without_matrices():
    settings = workload.Settings(
        members=2, hidden_size=8, num_refinements=2, batch_size=4
    )
    need = benchmark.memory(settings, width=2)
    assert need["linear"]
    assert need["no_matrix_stack"]
    assert 0 < need["bytes"]["10"] < need["bytes"]["100"]


def shown(document):
    console = rich.console.Console(file=io.StringIO(), width=160)
    benchmark_report.show(console, document)
    return console.file.getvalue()


def test_what_is_missing_is_said(document, monkeypatch):
    monkeypatch.setattr(timings, "has_torch", lambda: False)
    (first, *_) = variants.eager(None, None, 1)
    timings.measure([first], 1, 0.1, lambda text: None)
    without = copy.deepcopy(document)
    without["variants"][4:] = [first.describe() | {"ratio": first.rate}]
    assert "torch not installed" in shown(without)
    products = ceiling.product_timings(workload.Settings(members=2, hidden_size=4))
    assert {row.missing for row in products} == {None, "torch"}


def test_table_and_figure(document, tmp_path):
    pytest.importorskip("matplotlib")
    text = shown(document)
    for row in document["variants"]:
        assert row["name"] in text
    assert "NOT LINEAR" not in text
    drawn = copy.deepcopy(document)
    drawn["scan"] = {
        name: [{"value": v, "rate": 10.0 * v, "ceiling": 20.0 * v} for v in values]
        for name, values in benchmark.SCANNED.items()
    }
    for axes in benchmark_report.draw(drawn).axes:
        low, high = axes.get_ylim()
        heights = np.concatenate([line.get_ydata() for line in axes.lines])
        assert low < heights.min() < heights.max() < high
    names = benchmark._save(tmp_path, drawn)
    assert [os.path.basename(name) for name in names] == [
        "benchmark.json",
        "benchmark.png",
    ]
    assert (tmp_path / "benchmark.png").read_bytes()[:4] == b"\x89PNG"


def test_a_grids_wall_time_is_its_operations_over_the_rate(tmp_path):
    """One update at the benchmark's T and K counts as one; others by their products."""
    text = """
    task = "temporal_order"
    max_steps = 10
    [grid]
    seq_len = [10, 19]
    lr = 0.1
    gamma = 1
    num_refinements = [10, 1]
    """
    (tmp_path / "my.toml").write_text(text)
    settings = dataclasses.asdict(workload.Settings())
    found = wall_time.equivalent_updates(load(tmp_path / "my.toml"), settings)
    readout = 4 / 100  # [B, H] x [H, 4] in units of [B, H] x [H, H]
    one = (9 + readout) * 21
    expected = (
        one + (9 + readout) * 3 + (18 + readout) * 21 + (18 + readout) * 3
    ) / one
    assert found == pytest.approx(10 * expected)


def wall_times(folder, document, *words):
    """What `experiments.wall_time` answers to a benchmark's document."""
    path = folder / "benchmark.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    config = pathlib.Path(benchmark.__file__).parents[2] / "configs"
    grid = ("--grid", config / "paper_temporal_order.toml", "--rates", path)
    return call(wall_time, *grid, *words, out=str(folder / "out"))


@pytest.mark.parametrize("change", ["no machine", "no rates", "no text", "a list"])
def test_wall_times_of_something_else_are_one_message(document, tmp_path, change):
    others = [row | {"name": "another way"} for row in document["variants"]]
    given = {
        "no machine": {k: v for k, v in document.items() if k != "machine"},
        "no rates": document | {"variants": others},
        "no text": "",
        "a list": [document],
    }[change]
    done = wall_times(tmp_path, given, "--picture", tmp_path / "x.png")
    assert done.returncode == 2
    assert done.stderr.startswith("experiments.wall_time: ")
    assert done.stderr.count("\n") == 1
    assert "benchmark.json" in done.stderr
    says = (
        "expected a rate of 'eager PyTorch" if change == "no rates" else "lra_diff in"
    )
    assert says in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "out").exists()


def test_a_picture_of_another_kind_is_one_message(document, tmp_path):
    pytest.importorskip("matplotlib")
    done = wall_times(tmp_path, document, "--picture", tmp_path / "x.txt")
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"experiments.wall_time: --picture {tmp_path}/x.txt: "
    )
    assert "txt" in done.stderr.partition("x.txt")[2]
    assert done.stderr.count("\n") == 1
    assert "eager PyTorch, 1 thread" in done.stdout
    assert (tmp_path / "out/wall_time.json").is_file()
    done = wall_times(tmp_path, document, "--picture", tmp_path / "x.png")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
