"""The command line as a user meets it: one process per test, files and exit codes."""

import csv
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import pytest

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
# Hundreds of short chunks, for runs that are to be interrupted.
LONG = ("max_steps=1500", "grid.0.lr=[0.001]", "grid.0.gamma=[1]", "grid.0.lambda=[0]")


# Compiled programs are shared between the processes of a test session.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": tempfile.mkdtemp(prefix="lra_jax_test_"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


def command(folder, *arguments):
    return [
        sys.executable, "-m", "experiments.grid", "--config", str(folder / "my.toml"),
        "--out", os.path.relpath(folder / "run"), *arguments,
    ]  # fmt: skip


def start(folder, *arguments):
    return subprocess.Popen(
        command(folder, *arguments),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **ENVIRONMENT},
    )  # fmt: skip


def run(folder, *arguments, code=0):
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return out, err


def overrides(*values):
    return [word for value in values for word in ("--set", value)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my.toml").write_text(CONFIG)
    return tmp_path


def contents(path):
    """What a run's results are: the table, the curves and the report's table."""
    with np.load(path / "run/curves.npz") as curves:
        arrays = {name: curves[name] for name in curves.files}
    return (path / "run/results.csv").read_text(), arrays


def assert_same_results(a, b):
    assert a[0] == b[0]
    assert a[1].keys() == b[1].keys()
    for name in a[1]:
        np.testing.assert_array_equal(a[1][name], b[1][name])


def test_a_run_leaves_a_folder_with_everything_in_it(folder):
    out, err = run(folder)
    assert err == ""
    path = folder / "run"
    with (path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 34
    assert [row["member"] for row in rows] == [str(i) for i in range(34)]
    assert rows[-1]["rule"] == "readout_only"
    assert rows[-1]["gamma"] == ""
    assert {row["status"] for row in rows} <= {"exhausted", "solved"}
    with np.load(path / "curves.npz") as curves:
        for row in rows:
            mine = curves["member"] == int(row["member"])
            errors = curves["num_errors"][mine]
            assert int(row["final_num_errors"]) == errors[-1]
            assert float(row["best_accuracy"]) == pytest.approx(1 - errors.min() / 50)
            assert int(row["step"]) == curves["step"][mine][-1]
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["finished"]
    assert manifest["num_members"] == 34
    assert manifest["member_steps"] == sum(int(row["step"]) for row in rows)
    assert manifest["schema_version"] == 1
    report = (path / "report.md").read_text()
    for text in (
        "| K | λ |",
        "lra_diff",
        "readout_only",
        "± ",
        "python -m experiments",
    ):
        assert text in report
    for picture in ("accuracy", "heatmap"):
        for suffix in ("png", "svg"):
            file = path / f"figures/{picture}_temporal_order_T10.{suffix}"
            assert file.stat().st_size > 5000
    assert "member-steps/s" in out
    assert os.path.relpath(path / "report.md") in out
    assert not list(path.rglob("*.part"))


def test_resuming_a_finished_run_changes_nothing_and_another_config_is_refused(folder):
    run(folder)
    before = {
        file: file.read_bytes()
        for file in (folder / "run").rglob("*")
        if file.is_file() and file.suffix in {".csv", ".npz", ".toml", ".msgpack"}
    }
    _, err = run(folder, code=2)
    assert "holds this run already; add --resume" in err
    _, err = run(folder, *overrides("grid.0.gamma=[2]"), "--resume", code=2)
    assert "holds the run of another config" in err
    assert "here:  gamma = [2]" in err
    run(folder, "--resume")
    for file, data in before.items():
        assert file.read_bytes() == data, file


def test_a_folder_that_is_no_run_is_refused_and_untouched(folder):
    (folder / "run").mkdir()
    (folder / "run/thesis.tex").write_text("years of work")
    _, err = run(folder, "--resume", code=2)
    assert "exists and is not a run folder" in err
    assert [f.name for f in (folder / "run").iterdir()] == ["thesis.tex"]


def test_what_a_run_killed_before_its_first_save_leaves_can_be_resumed(folder):
    (folder / "run/checkpoint").mkdir(parents=True)
    (folder / "run/config.resolved.toml").write_text("half of a r")
    (folder / "run/.manifest.json.part").write_text("{")
    run(folder, *overrides("max_steps=5"), "--resume")
    assert json.loads((folder / "run/manifest.json").read_text())["finished"]


def test_a_damaged_checkpoint_is_named_and_kept(folder):
    run(folder)
    checkpoint = folder / "run/checkpoint/000.msgpack"
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    _, err = run(folder, "--resume", code=2)
    assert "000.msgpack cannot be read as a checkpoint" in err
    assert checkpoint.stat().st_size == 100


def test_dry_run_says_what_would_run_and_writes_nothing(folder):
    out, _ = run(folder, "--dry-run")
    assert "34 members in 2 compiled group(s)" in out
    assert "MiB" in out
    assert not (folder / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "grid.0.gama=1"], "did you mean 'gamma'"),
        (
            ["--set", "seq_len=5"],
            "seq_len = 5: task 'temporal_order' needs at least 10",
        ),
        (["--sett", "x"], "Unknown command line flag 'sett'"),
        (["more"], "unexpected argument 'more'"),
        (["--max-parallel", "0"], "max_parallel"),
        (["--config", "none.toml"], "none.toml: 1 problem\n  cannot be read"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(folder, arguments, expected):
    out, err = run(folder, *arguments, code=2)
    assert expected in err
    assert "Traceback" not in err
    assert out == ""
    assert not (folder / "run").exists()


def wait_for(path, seconds=120):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_says_how_to_go_on_and_ends_the_same(folder, number):
    process = start(folder, *overrides(*LONG))
    wait_for(folder / "run/checkpoint/000.msgpack")
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    words = out.strip().splitlines()[-1].split()
    assert words[-1] == "--resume"
    manifest = json.loads((folder / "run/manifest.json").read_text())
    assert not manifest["finished"]
    run(folder, *overrides(*LONG), "--resume")
    resumed = contents(folder)
    (folder / "run").rename(folder / "resumed")
    run(folder, *overrides(*LONG))
    assert_same_results(resumed, contents(folder))


def test_a_run_killed_at_random_moments_ends_the_same_and_repeats_no_chunk(folder):
    generator = random.Random(0)
    checkpoint = folder / "run/checkpoint/000.msgpack"
    done = -1
    for _ in range(3):
        process = start(folder, *overrides(*LONG), "--resume")
        wait_for(checkpoint)
        time.sleep(generator.uniform(0, 4))
        process.kill()
        process.communicate(timeout=60)
        # Whatever the moment, every file is whole, and no finished chunk is lost.
        _, curves = contents(folder)
        json.loads((folder / "run/manifest.json").read_text())
        rows = curves["member"].size
        assert rows >= done
        done = rows
    run(folder, *overrides(*LONG), "--resume")
    killed = contents(folder)
    pairs = list(zip(killed[1]["member"], killed[1]["step"], strict=True))
    assert len(set(pairs)) == len(pairs)
    (folder / "run").rename(folder / "killed")
    run(folder, *overrides(*LONG))
    assert_same_results(killed, contents(folder))


def test_float64_runs_in_float64(folder):
    run(folder, *overrides("dtype=float64", "grid.0.lambda=[0.1]", "max_steps=5"))
    data = pathlib.Path(folder / "run/manifest.json").read_text()
    assert json.loads(data)["dtype"] == "float64"


def test_the_readmes_example_is_the_example_file():
    readme = pathlib.Path("README.md").read_text()
    example = pathlib.Path("examples/train_step.py").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    assert example.endswith(code)
    done = subprocess.run(
        [sys.executable, "examples/train_step.py"],
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": "."},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.endswith(" 0 errors of 10,000 at T = 30\n")
