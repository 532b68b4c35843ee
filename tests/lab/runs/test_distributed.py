"""Two processes share a run; one is interrupted, both resume: the same results file."""

import os
import signal
import socket
import sys
import time

import pytest
from command_line import CONFIG, HANGS, command, read_file, run, start

pytestmark = pytest.mark.end_to_end

# Runs the command with something that goes wrong in one of the processes.
DRIVER = """
import errno, os, sys
import jax
from absl import app
from lra_jax.lab import grid
from lra_jax.sweep import bookkeeping, program

what, process = sys.argv[1], sys.argv[2]
mine = sys.argv[sys.argv.index("--process") + 1].startswith(process)
made, calls = program.make_program, []

def failing(number, error):
    def wrap(function):
        def wrapped(*arguments):
            calls.append(1)
            if mine and len(calls) == number:
                raise error
            return function(*arguments)
        return wrapped
    return wrap

if what == "disk":
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync = failing(9, full)(os.fsync)  # of the first checkpoint
elif what == "memory":
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    def make_program(*arguments):
        compiled = made(*arguments)
        return compiled._replace(chunk=failing(2, error)(compiled.chunk))
    program.make_program = make_program
elif what == "fault":
    fault = ZeroDivisionError("what nobody expected")
    bookkeeping.collect = failing(2, fault)(bookkeeping.collect)
sys.argv = ["experiments.grid", *sys.argv[3:]]
app.run(grid.main, flags_parser=grid.parse)
"""


# Little to compile, and tiles of two members.
SMALL = """
task = "temporal_order"
seq_len = 10
hidden_size = 4
batch_size = 2
num_validation = 20
eval_every = 2
max_steps = 8
patience = 0
seeds = [0, 1, 2, 3]
[grid]
rule = "readout_only"
lr = [0.1, 0.3]
"""


def free_address():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def start_two(folder, *failure):
    shared = {"JAX_COORDINATOR_ADDRESS": free_address()}
    found = []
    for i in range(2):
        words = command(folder, "--resume", "--distributed", "--process", f"{i}/2")
        if failure:  # in place of `-m experiments.grid`
            words[1:3] = ["-c", DRIVER, *failure]
            words += ["--max-parallel", "8"]
        found.append(start(["env", *(f"{k}={v}" for k, v in shared.items()), *words]))
    return found


def ends(folder, *failure):
    """Exit codes and what was said to stderr, of both."""
    return wait_for(start_two(folder, *failure))


def wait_for(processes):
    try:
        said = [process.communicate(timeout=200)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


# Two processes of which one fails while the other waits for it in a computation.
WAITING = """
import sys
from lra_jax.lab.terminal import command_line, machine

process, fails, kind = sys.argv[1:]

def run(console):
    machine.join_processes(f"{process}/2")
    machine.largest(0)
    if process == fails:
        raise {"user": machine.MachineError, "fault": ZeroDivisionError}[kind]("what")
    return machine.largest(0)

errors = (machine.MachineError,)
sys.exit(command_line.exit_code(
    lambda console: machine.run_together(lambda: run(console), errors), errors
))
"""


@pytest.mark.parametrize(
    ("fails", "kind", "code"),
    [("0", "user", 2), pytest.param("1", "fault", 1, marks=pytest.mark.slow)],
)
def test_who_waits_for_a_process_that_failed_ends_with_its_message(fails, kind, code):
    address = f"JAX_COORDINATOR_ADDRESS={free_address()}"
    words = ["env", address, sys.executable, "-c", WAITING]
    codes, said = wait_for([start([*words, i, fails, kind]) for i in "01"])
    assert codes == [code, code], said
    mine, other = said[int(fails)], said[1 - int(fails)]
    text = "what\n" if kind == "user" else "ZeroDivisionError: what\n"
    assert mine.endswith(text)
    assert ("Traceback" in mine) == (kind == "fault")
    assert f"process {fails} of 2 failed, and all end: " in other
    assert other.endswith(text)
    assert "failed, and all end" not in mine


@pytest.mark.slow
@pytest.mark.parametrize("process", ["0", "1"])
def test_what_nobody_expected_in_one_process_ends_both(tmp_path, process):
    (tmp_path / "my.toml").write_text(SMALL)
    codes, said = ends(tmp_path, "fault", process)
    assert codes == [1, 1], said
    mine, other = int(process), 1 - int(process)
    assert said[mine].rstrip().endswith("ZeroDivisionError: what nobody expected")
    assert f"process {process} of 2 failed, and all end: Traceback" in said[other]
    assert "ZeroDivisionError: what nobody expected" in said[other]


@pytest.mark.slow
def test_a_full_disk_is_a_message_of_both(tmp_path):
    (tmp_path / "my.toml").write_text(SMALL)
    codes, said = ends(tmp_path, "disk", "0")
    assert codes == [2, 2], said
    for text in said:
        assert "cannot be written: No space left on device. All that was" in text
        assert "To go on:\n  python -m experiments.grid --config" in text
        assert "Traceback" not in text
    assert "process 0 of 2 failed, and all end: " in said[1]


@pytest.mark.slow
@pytest.mark.parametrize("process", ["0", "1"])
def test_a_memory_too_small_in_one_process_halves_the_tiles_of_both(tmp_path, process):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for folder in (alone, shared):
        folder.mkdir()
        (folder / "my.toml").write_text(SMALL)
    run(alone)
    codes, said = ends(shared, "memory", process)
    assert codes == [0, 0], said
    found, expected = (
        [
            {key: row[key] for key in ("member", "status", "step")}
            for row in read_file(folder / "run" / "results.csv")
        ]
        for folder in (shared, alone)
    )
    assert found == expected


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
    assert "--distributed --process 0/2 --resume\n" in first[0]
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
