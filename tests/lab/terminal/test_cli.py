"""The command line as a user meets it: one process per test, files and exit codes."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from command_line import (
    CONFIG,
    ENVIRONMENT,
    HANGS,
    command,
    overrides,
    read_file,
    run,
    start,
)

import lra_jax
from lra_jax import member
from lra_jax.lab import config as config_lib
from lra_jax.lab.runs import groups

pytestmark = pytest.mark.end_to_end

# For what any rule shows: two rules that are compiled in no time.
SMALL = (
    CONFIG.partition("[[grid]]")[0].replace("[0, 1]", "[0]")
    + """
[[grid]]
rule = "bptt"
lr = [0.1, 0.3]

[[grid]]
rule = "readout_only"
lr = [0.1]
"""
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my.toml").write_text(CONFIG)
    return tmp_path


def test_a_run_leaves_a_folder_with_everything_in_it(folder):
    out, err = run(folder, environment=ENVIRONMENT)  # compiled as a user's are
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
    assert manifest["schema_version"] == 2
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
    page = (path / "report.html").read_text()
    assert page.count("<tr><th scope=row>") == 34
    assert page.count("<svg") == 2
    assert "refresh" not in page
    assert "member-steps/s" in out
    words = out.splitlines()
    assert words[1].startswith("compiling group 1 of 2: rule lra_diff")
    assert "compiling group 2 of 2: rule readout_only" in words
    for name in ("report.md", "report.html"):
        assert os.path.relpath(path / name) in out
    assert not list(path.rglob("*.part"))
    assert report.startswith(say([sys.executable, "-m", "experiments.report", path]))


def say(words):
    """What a command prints."""
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.run(
        words, env=environment, capture_output=True, text=True, check=True
    ).stdout


def test_the_page_of_a_run_is_live_if_asked(folder):
    path = folder / "run/report.html"
    words = command(folder, *overrides("max_steps=1000000"), "--live")
    process = start(words)
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    page = path.read_text()
    assert '<meta http-equiv="refresh" content="5">' in page
    assert "34 members: 34 pending." in page
    assert "<svg" not in page
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=HANGS)
    assert process.returncode == 130
    assert "--live --resume\n" in out
    assert "\nNot finished: members that run are not in the table.\n" in out
    page = path.read_text()
    assert "refresh" not in page
    # As many run as the machine has room for.
    assert "<strong>Not finished.</strong> 34 members: " in page
    assert page.count("<td>running</td>") + page.count("<td>pending</td>") == 34
    assert "<td>5</td>" in page


def test_the_last_weights_of_members_are_kept_if_asked(folder):
    (folder / "my.toml").write_text("save_params = true\n" + SMALL)
    run(folder)
    paths = sorted((folder / "run" / "params").iterdir())
    names = [f"{member:06d}.safetensors" for member in range(3)]
    assert [path.name for path in paths] == names
    rows = read_file(folder / "run" / "results.csv")
    config = config_lib.load(folder / "run" / "config.resolved.toml")
    assert config.save_params
    for path, row, setting in zip(paths, rows, config.members(), strict=True):
        with safetensors.safe_open(path, "numpy") as file:
            assert file.metadata() == {
                "member": row["member"], **{k: str(v) for k, v in setting.items()}
            }  # fmt: skip
        params = lra_jax.Params(**safetensors.numpy.load_file(path))
        (group, *_) = groups.make_groups(config)
        metrics = member.validate(group.experiment, params, jnp.uint32(0))
        assert metrics.num_errors == int(row["final_num_errors"])


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
        (["--max-parallel", "0"], "max-parallel"),
        (["--config", "none.toml"], "none.toml: 1 problem\n  cannot be read"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(folder, arguments, expected):
    out, err = run(folder, *arguments, code=2)
    assert expected in err
    assert "Traceback" not in err
    assert out == ""
    assert not (folder / "run").exists()


def test_float64_runs_in_float64(folder):
    (folder / "my.toml").write_text(SMALL.rpartition("[[grid]]")[0])
    run(folder, *overrides("dtype=float64"))
    data = pathlib.Path(folder / "run/manifest.json").read_text()
    assert json.loads(data)["dtype"] == "float64"


def test_the_readmes_example_is_the_example_file():
    readme = pathlib.Path("README.md").read_text()
    example = pathlib.Path("examples/train_step.py").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    assert example.endswith(code)  # and `make wheel-test` runs it
