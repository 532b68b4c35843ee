"""The command that reports on run folders: what it prints, writes and refuses."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from command_line import call
from test_summary import ROWS

from lra_jax.lab import report
from lra_jax.lab.data import datasets, sources
from lra_jax.lab.reports import results, texts, web_page
from lra_jax.lab.runs import provenance, store
from lra_jax.lab.terminal import files

HEADER = (
    "| rule | K | λ | best setting | of | solved | accuracy % | final % | updates |"
)
LINE = "| lra_diff | 1 | 0 | gamma 10 | 2 | 2/3 | 75.00 ± 107.57 | 75.00 | 20 |"


def make(folder, rows=ROWS, **changes):
    """Writes what a report reads of a run folder."""
    folder.mkdir(parents=True)
    (folder / "config.resolved.toml").write_text("num_validation = 10000\n")
    members = np.repeat([r["member"] for r in rows], 2)
    steps = np.array([[0, r["step"]] for r in rows]).ravel()
    errors = np.array([[7500, r["best_num_errors"]] for r in rows]).ravel()
    np.savez(folder / "curves.npz", member=members, step=steps, num_errors=errors)
    results.write_rows(folder / "results.csv", rows)
    manifest = {
        "schema_version": provenance.SCHEMA_VERSION,
        "name": folder.name,
        "command": ["python", "-m", "experiments.grid", "--config", "my config.toml"],
        "member_steps": 12_300,
        "num_members": len(rows),
        "seconds": 45.6,
        "device": {"cores": 2, "kind": "cpu"},
        "dtype": "float32",
        "versions": {"jax": "0.10.2"},
        "finished": True,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    return folder


def run(*words, code=0):
    done = call(report, *words, out=None, format="md")
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def test_the_report_of_a_run(tmp_path):
    folder = make(tmp_path / "demo", finished=False)
    text = run(folder)
    assert text.startswith(
        "# demo\n\n```\npython -m experiments.grid --config 'my config.toml'\n```\n\n"
        "6 members: 1 diverged, 1 exhausted, 3 solved, 1 stalled. Chance: "
        "temporal_order 25.00 %.\n\n"
    )
    assert f"{HEADER}\n" in text
    assert f"\n{LINE}\n" in text
    assert text.endswith(
        "- **Not finished**: members that run are not in the table.\n"
        "- 12,300 updates in 46 s on 2 cores, cpu, float32, JAX 0.10.2.\n"
    )
    assert run(folder, "--out", tmp_path / "a.md") == f"{tmp_path / 'a.md'}\n"
    assert (tmp_path / "a.md").read_text() == text


def test_runs_are_compared_in_one_table(tmp_path):
    first, second = make(tmp_path / "a/demo"), make(tmp_path / "second", ROWS[3:5])
    assert run(first, second, "--format", "csv") == (
        "run,rule,num_refinements,lambda,gamma,settings,solved,seeds,outrun,"
        "accuracy,accuracy_interval_95,final_accuracy,updates\n"
        "demo,lra_diff,1,0,10,2,2,3,0,0.75,1.07566,0.75,20\n"
        "second,lra_diff,1,0,10,1,2,2,0,1,0,1,30\n"
    )
    lines = run(first, second, "--format=latex").splitlines()
    assert lines[4:6] == [
        r"demo & lra\_diff & 1 & 0 & gamma 10 & 2 & 2/3 & 75.00 $\pm$ 107.57 & 75.00 & 20 \\",
        r"second & lra\_diff & 1 & 0 & gamma 10 & 1 & 2/2 & 100 $\pm$ 0.00 & 100 & 30 \\",
    ]
    # Runs of one name are told apart by their folders.
    third = make(tmp_path / "b/demo", ROWS[3:5])
    text = run(first, third)
    assert text.startswith(f"# {first}, {third}\n")
    assert f"| {third} | lra_diff | 1 | 0 | gamma 10 | 1 | 2/2 |" in text
    assert f"- {third}, 2 members: 2 solved. 12,300 updates in 46 s on" in text


def test_the_page_of_a_run_and_of_several(tmp_path):
    first, second = make(tmp_path / "demo"), make(tmp_path / "second", ROWS[3:5])
    assert run(first, "--format", "html") == f"{first / 'report.html'}\n"
    page = (first / "report.html").read_text()
    assert page.count("<svg") == page.count("<figure>") == 2
    assert page.count("<tr>") == 2 + 7
    assert "refresh" not in page
    out = tmp_path / "two.html"
    run(first, second, "--format", "html", "--out", out)
    assert out.read_text().count("<svg") == 4
    assert not (second / "report.html").exists()
    err = run(first, second, "--format", "html", code=2)
    assert "--out is missing" in err


def test_a_run_that_goes_on_is_reported_on(tmp_path):
    """Its curves may be older than its results, or it has none at all."""
    running = [{**r, "status": "running", "best_accuracy": None} for r in ROWS[:2]]
    folder = make(tmp_path / "demo", [*running, *ROWS[2:]], finished=False)
    np.savez(folder / "curves.npz", member=[0, 2], step=[0, 60], num_errors=[9, 0])
    run(folder, "--format", "html")
    assert (folder / "report.html").read_text().count("<svg") == 2
    for r in running:
        r["status"] = "pending"
    text = run(make(tmp_path / "new", running), "--format", "csv")
    assert text == (
        "rule,num_refinements,lambda,settings,solved,seeds,outrun,"
        "accuracy,accuracy_interval_95,final_accuracy,updates\n"
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "expected a run folder, such as runs/demo"),
        (["demoo"], "demoo is no run folder: it does not exist; did you mean demo?"),
        (
            ["empty"],
            "empty is no run folder: it lacks config.resolved.toml, curves.npz",
        ),
        (["nowhere/demo"], "nowhere/demo is no run folder: it does not exist\n"),
        (["demo", "./demo"], "a run folder is given twice"),
        (["demo", "--format", "pdf"], "should be one of <md|csv|latex|html>"),
        (["demo", "--out", "nowhere/a"], "nowhere/a cannot be written: No such file"),
    ],
)
def test_bad_input_is_one_message(tmp_path, monkeypatch, words, expected):
    make(tmp_path / "demo")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    err = run(*words, code=2)
    assert expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("manifest.json", '"schema_version": 2', '"schema_version": 1',
         "has schema version 1, this is version 2"),
        ("manifest.json", "}", "", "manifest.json is damaged"),
        ("manifest.json", '"finished"', '"ended"', "manifest.json is damaged"),
        ("results.csv", "best_accuracy", "best", "results.csv is damaged"),
        ("results.csv", "0.25,0\n", "", "results.csv is damaged"),
        ("results.csv", "solved", "won", "results.csv is damaged"),
        ("manifest.json", '"num_members": 6', '"num_members": 7',
         "results.csv is damaged: it has 6 rows of 7"),
        ("manifest.json", '"num_members"', '"num"', "manifest.json is damaged"),
        ("config.resolved.toml", "=", "", "is not valid TOML"),
        ("config.resolved.toml", "num", "n", "its figures cannot be drawn"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_message(tmp_path, name, old, new, expected):
    folder = make(tmp_path / "demo")
    path = folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    err = run(folder, "--format", "html", code=2)
    assert expected in err
    assert str(folder) in err
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("cut", "says"),
    [
        (lambda text: "", "it has 0 rows of 6"),
        (lambda text: text.partition("\n")[0] + "\n", "it has 0 rows of 6"),
        (
            lambda text: text.rstrip("\n").rpartition("\n")[0] + "\n",
            "it has 5 rows of 6",
        ),
        (lambda text: text[:-1], "its last row is cut"),
    ],
)
def test_a_table_that_ends_too_early_is_one_message(tmp_path, cut, says):
    folder = make(tmp_path / "demo")
    path = folder / "results.csv"
    path.write_text(cut(path.read_text()))
    for kind in ("md", "csv", "html"):
        err = run(folder, "--format", kind, code=2)
        assert err.endswith(f"{path} is damaged: {says}\n")


def test_a_page_is_written_aside_and_a_pipe_as_it_is(tmp_path, monkeypatch):
    folder, out = make(tmp_path / "demo"), tmp_path / "a.md"
    out.write_text("of before")
    (tmp_path / "link.md").symlink_to(out)
    written = []
    real = files.write
    monkeypatch.setattr(files, "write", lambda *a: (written.append(a[0]), real(*a)))
    run(folder, "--out", tmp_path / "link.md")
    assert written == [out]
    assert (tmp_path / "link.md").is_symlink()
    assert out.read_text() == run(folder)
    run(folder, "--out", "/dev/null")
    assert written == [out]
    assert pathlib.Path("/dev/null").is_char_device()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_curves_are_one_message(tmp_path, damage):
    folder = make(tmp_path / "demo")
    path = folder / "curves.npz"
    with np.load(path) as columns:
        np.savez_compressed(path, **columns)  # as a run writes them
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[60] ^= 255
    path.write_bytes({"cut": whole[:-40], "flipped": flipped, "empty": b""}[damage])
    err = run(folder, "--format", "html", code=2)
    assert f"{path} is damaged" in err
    assert not (folder / "report.html").exists()


def test_help_says_how_it_is_used():
    text = subprocess.run(
        [sys.executable, "-m", "experiments.report", "--help"],
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "python -m experiments.report runs/a runs/b --format latex" in text
    assert "  --format\n" in text
    assert "  --out\n      File to write." in text


def test_a_folder_that_lacks_a_file_is_not_meant_instead_of_itself(tmp_path):
    folder = make(tmp_path / "part")
    (folder / "curves.npz").unlink()
    with pytest.raises(store.RunFolderError) as error:
        report.read(folder)
    assert str(error.value) == f"{folder} is no run folder: it lacks curves.npz"
    make(tmp_path / "whole")
    for name in report.FILES[:3]:
        (folder / name).unlink(missing_ok=True)
    assert report._near(folder) == f"; did you mean {tmp_path / 'whole'}?"


def test_a_report_needs_no_data_and_no_module_of_its_task(tmp_path, monkeypatch):
    rows = [{**row, "task": "mnist_rows", "rule": "my_own"} for row in ROWS]
    folder = make(tmp_path / "new", rows, chance={"mnist_rows": 0.125})
    old = make(tmp_path / "old", rows)
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda _: None)
    datasets.find.cache_clear()
    datasets._load.cache_clear()
    for path, said in ((folder, " Chance: mnist_rows 12.50 %."), (old, "")):
        view = report.read(path)
        text = texts.report(view)
        line = f"6 members: 1 diverged, 1 exhausted, 3 solved, 1 stalled.{said}\n"
        assert line in text
        assert f"{line.strip()}</p>" in web_page.page([view])
    with pytest.raises(sources.DatasetError):
        datasets.find("mnist_rows")
    datasets.find.cache_clear()
