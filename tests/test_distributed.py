"""Two processes share a run; one is interrupted, both resume: the same results file."""

import os
import signal
import socket
import time

import pytest
from command_line import CONFIG, HANGS, command, run, start


def start_two(folder):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address}
    return [
        start(
            ["env", *(f"{k}={v}" for k, v in shared.items()),
             *command(folder, "--resume", "--distributed", "--process", f"{i}/2")]
        )
        for i in range(2)
    ]  # fmt: skip


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for folder in (alone, shared):
        folder.mkdir()
        (folder / "my.toml").write_text(
            CONFIG.replace("max_steps = 20", "max_steps = 200")
        )
    run(alone)

    processes = start_two(shared)
    while not list((shared / "run" / "checkpoint").glob("*.odd.msgpack")):
        assert [process.poll() for process in processes] == [None, None]
        time.sleep(0.05)
    # Only the second is told to stop; env has become the program itself.
    os.kill(processes[1].pid, signal.SIGTERM)
    first, second = (process.communicate(timeout=HANGS) for process in processes)
    assert [process.returncode for process in processes] == [143, 143]
    assert "Interrupted; everything is saved" in first[0]
    assert "--distributed --resume" in first[0]
    assert "Interrupted" not in second[0]

    processes = start_two(shared)
    for process in processes:
        _, err = process.communicate(timeout=HANGS)
        assert process.returncode == 0, err
    expected = (alone / "run" / "results.csv").read_bytes()
    assert (shared / "run" / "results.csv").read_bytes() == expected


def test_a_folder_that_only_the_first_can_refuse_ends_both(tmp_path):
    (tmp_path / "my.toml").write_text(CONFIG)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "note.txt").write_text("mine")
    processes = start_two(tmp_path)
    messages = [process.communicate(timeout=HANGS)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert "is not a run folder" in messages[0]
    assert "the first process cannot use the folder" in messages[1]


def test_no_processes_found_is_a_message(tmp_path):
    (tmp_path / "my.toml").write_text(CONFIG)
    _, err = run(tmp_path, "--distributed", code=2)
    assert "JAX_COORDINATOR_ADDRESS" in err
    assert "--process I/N" in err
    _, err = run(tmp_path, "--process", "one", code=2)
    assert "expected I/N, such as 0/2" in err
