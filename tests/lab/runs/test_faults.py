"""What may happen to a run: it goes on, and ends with the same results to the bit.

`python -m pytest -m faults -s` does all of it at length, and prints the table of
`docs/reliability.md`.
"""

import collections
import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

import flax.serialization
import pytest
import rich.console
from command_line import (
    CONFIG,
    HANGS,
    assert_same_results,
    command,
    contents,
    overrides,
    read_file,
    run,
    start,
)

from lra_jax.lab import config as config_lib
from lra_jax.lab.runs import run as training

pytestmark = pytest.mark.end_to_end

FILES = [
    "manifest.json",
    "results.csv",
    "curves.npz",
    *(f"checkpoint/00{i}.{turn}.msgpack" for i in (0, 1) for turn in ("even", "odd")),
]
CAN_MOUNT = (
    shutil.which("unshare") is not None
    and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
)


# The command, which saves every chunk, so that most faults meet a save.
EVERY_CHUNK = """
import sys
from absl import app
from lra_jax.lab import grid
from lra_jax.lab.runs import store

store.SAVE_SHARE = float("inf")
sys.argv[0] = "experiments.grid"
app.run(grid.main, flags_parser=grid.parse)
"""


def settings(max_steps):
    """Hundreds of chunks of a few milliseconds, in two groups.

    Members end at different times, and others wait for their slots.
    """
    values = (
        f"max_steps={max_steps}", f"patience={max_steps // 10}",
        "grid.0.lr=[0.001,0.01]", "grid.0.gamma=[1]", "grid.0.lambda=[0]",
        "grid.1.lr=[0.01,0.1]",
    )  # fmt: skip
    return [*overrides(*values), "--max-parallel", "4"]


def saved_states(path):
    """The files of each group's saved states, by the number of chunks behind them."""
    found = collections.defaultdict(dict)
    for name in FILES[3:]:
        with contextlib.suppress(FileNotFoundError):
            content = flax.serialization.msgpack_restore(read_file(path / name))
            found[content["group"]][content["chunks"]] = path / name
    return list(found.values())


def num_chunks(path):
    return sum(max(states) for states in saved_states(path))


class Reader(threading.Thread):
    """Opens random files of a run all the time; what has once been there stays."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.seen = collections.Counter()
        self.failures = []
        self.ended = threading.Event()

    def run(self):
        generator = random.Random(1)
        while not self.ended.wait(0.002):
            name = generator.choice(FILES)
            try:
                read_file(self.path / name)
            except Exception as error:
                if name in self.seen or not isinstance(error, FileNotFoundError):
                    self.failures.append(f"{name}: {error!r}")
            else:
                self.seen[name] += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()


class Ordeal:
    """A run to which things happen, seen from outside."""

    def __init__(self, folder, max_steps, advance, seed=0, saves_every_chunk=False):
        self.folder, self.path = folder, folder / "run"
        self.settings = settings(max_steps)
        self.advance = advance  # chunks from one fault to the next, at most
        self.generator = random.Random(seed)
        self.again = 0  # saved chunks that were damaged
        self.while_writing = 0  # kills
        self.saves_every_chunk = saves_every_chunk
        self.command = None  # that goes on, as the run itself printed it
        (folder / "my.toml").write_text(CONFIG)

    def begin(self, within=()):
        words = command(self.folder, *self.settings, "--resume")
        if self.saves_every_chunk:
            words[1:3] = ["-c", EVERY_CHUNK]
        return start([*within, *words])

    def manifest(self):
        return read_file(self.path / "manifest.json")

    def begin_and_advance(self):
        """A process at a random moment of its training."""
        began = time.time_ns()
        process = self.begin()
        target = None
        while target is None or self.manifest()["chunks"] < target:
            assert process.poll() is None, process.communicate()
            time.sleep(0.004)
            with contextlib.suppress(FileNotFoundError):
                if target is None and self.path.stat() and self.is_newer(began):
                    more = self.generator.randrange(self.advance)
                    target = self.manifest()["chunks"] + more
        time.sleep(self.generator.uniform(0, 0.015))
        return process

    def is_newer(self, began):
        return (self.path / "manifest.json").stat().st_mtime_ns > began

    def end(self, process, code, least):
        """What it printed; all files are whole, and no finished chunk is lost."""
        out, err = process.communicate(timeout=HANGS)
        assert process.returncode == code, (out, err)
        assert "Traceback" not in err
        for name in FILES:
            with contextlib.suppress(FileNotFoundError):
                read_file(self.path / name)
        assert self.saved() >= least
        return out, err

    def saved(self):
        return num_chunks(self.path)

    def kill(self):
        if self.generator.random() < 0.2:  # at any moment of its start
            process = self.begin()
            time.sleep(self.generator.uniform(0, 2))
        else:
            process = self.begin_and_advance()
        least = self.saved()
        process.kill()
        self.end(process, -signal.SIGKILL, least)
        self.while_writing += any(self.path.rglob("*.part"))

    def interrupt(self, *numbers):
        process = self.begin_and_advance()
        least = self.saved()
        for number in numbers:
            process.send_signal(number)
            time.sleep(self.generator.uniform(0.02, 0.1))
        out, _ = self.end(process, 128 + numbers[-1], least)
        self.command = shlex.split(out.strip().splitlines()[-1])
        assert self.command[0] == "python"
        self.command[0] = sys.executable
        assert not self.manifest()["finished"]

    def forget(self):
        """What a kill leaves between the writing of a state and of the manifest."""
        manifest = self.manifest()
        manifest["chunks"] -= 1
        aside = self.folder / "aside"  # the reader may be at work
        aside.write_text(json.dumps(manifest))
        aside.replace(self.path / "manifest.json")

    def stop(self, number=None):
        either = self.generator.choice([signal.SIGINT, signal.SIGTERM])
        self.interrupt(number or either)
        # The tables have all that the states have.
        steps = [int(row["step"]) for row in read_file(self.path / "results.csv")]
        assert sum(steps) == self.manifest()["member_steps"]
        assert (self.path / "report.md").exists()

    def stop_at_once(self):
        self.interrupt(signal.SIGINT, signal.SIGTERM)

    def begin_twice(self):
        process = self.begin_and_advance()
        process.send_signal(signal.SIGSTOP)
        _, err = run(self.folder, *self.settings, "--resume", code=2)
        assert f"{os.path.relpath(self.path)} is in use by process {process.pid}" in err
        least = self.saved()
        process.kill()  # the lock that it leaves is in nobody's way
        self.end(process, -signal.SIGKILL, least)

    def damage(self, change):
        """Damages a state; the run goes on from the one before or after it."""
        pairs = [states for states in saved_states(self.path) if len(states) == 2]
        states = self.generator.choice(pairs)
        chunks = self.generator.choice(list(states))
        # What is computed again lies between the two saves.
        again = chunks - min(states)
        least = self.saved() - again
        damaged = change(states[chunks].read_bytes())
        states[chunks].write_bytes(damaged)
        process = self.begin_and_advance()
        process.kill()
        _, err = self.end(process, -signal.SIGKILL, least)
        aside = states[chunks].with_suffix(".damaged")
        assert aside.read_bytes() == damaged
        for text in (f"{os.path.relpath(states[chunks])} is ", aside.name, "Going on"):
            assert text in err
        aside.unlink()
        self.again += again

    def flip(self):
        def change(data):
            bit = self.generator.randrange(8 * len(data))
            byte = data[bit // 8] ^ 1 << bit % 8
            return data[: bit // 8] + bytes([byte]) + data[bit // 8 + 1 :]

        self.damage(change)

    def truncate(self):
        self.damage(lambda data: data[: self.generator.randrange(len(data))])

    def refuse(self, *within):
        """A run that cannot write; how it says so."""
        least = self.saved()
        _, err = self.end(self.begin(within), 2, least)
        text = "All that was written before is whole. To go on:\n  python -m"
        assert text in err, err
        assert err.strip().endswith(" --resume")
        assert not list(self.path.rglob("*.part"))
        return err

    def limit(self):
        """No file may be much larger than the largest one that is written first."""
        files = (*(self.path / "checkpoint").iterdir(), self.path / "manifest.json")
        largest = max(file.stat().st_size for file in files)
        limit = largest // 1024 + self.generator.randrange(1, 3)
        err = self.refuse("bash", "-c", f'ulimit -f {limit} && exec "$@"', "-")
        assert "cannot be written: File too large" in err

    def fill(self):
        """A disk of its own with little more room than the run takes already."""
        for part in self.path.rglob("*.part"):  # that a kill has left
            part.unlink()
        left = self.folder / "left"
        used = sum(-(-f.stat().st_size // 4096) for f in self.path.rglob("*"))
        size = 4 * (used + self.generator.randrange(8, 14))
        script = (
            f"cp -a {self.path} {left} && mount -t tmpfs -o size={size}k tmpfs "
            f'{self.path} && cp -a {left}/. {self.path} && "$@"; code=$?; '
            f"rm -r {left}; cp -a {self.path} {left}; exit $code"
        )
        err = self.refuse("unshare", "-m", "bash", "-c", script, "-")
        assert "cannot be written: No space left on device" in err
        shutil.rmtree(self.path)
        left.rename(self.path)

    def finish(self, expected):
        """Goes on to the end, which must be that of a run to which nothing happened."""
        process = start(self.command) if self.command else self.begin()
        self.end(process, 0, self.saved())
        assert_same_results(contents(self.path), contents(expected))
        _, curves = contents(self.path)
        rows = list(zip(curves["member"], curves["step"], strict=True))
        assert len(set(rows)) == len(rows)
        # No saved chunk was computed twice, but for those that were damaged.
        total = read_file(expected / "manifest.json")["chunks"]
        assert self.saved() == num_chunks(expected) == total
        assert 0 <= self.manifest()["chunks"] - total <= self.again
        assert not list(self.path.rglob("*.part"))


FAULTS = {
    Ordeal.kill: "SIGKILL at a random moment",
    Ordeal.stop: "SIGINT or SIGTERM",
    Ordeal.stop_at_once: "SIGINT, then SIGTERM at once",
    Ordeal.begin_twice: "second run into the folder; then SIGKILL, a stale lock",
    Ordeal.flip: "one flipped bit in a checkpoint",
    Ordeal.truncate: "truncated checkpoint",
    Ordeal.limit: "limit on the size of files (RLIMIT_FSIZE)",
    Ordeal.fill: "full disk (tmpfs)",
}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Run folders to which nothing happens, by their number of steps."""
    found = {}

    def make(max_steps):
        if max_steps not in found:
            folder = tmp_path_factory.mktemp("uninterrupted")
            (folder / "my.toml").write_text(CONFIG)
            run(folder, *settings(max_steps))
            found[max_steps] = folder / "run"
        return found[max_steps]

    return make


@pytest.fixture(scope="module")
def table():
    """What was tried, printed at the end."""
    rows = []
    yield rows
    print("\n\n| fault | tried | same results in the end | finished chunks lost |")
    print("| --- | ---: | ---: | --- |")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")


@pytest.mark.slow
def test_a_run_survives_one_of_each(tmp_path, uninterrupted):
    ordeal = Ordeal(tmp_path, 1500, advance=40, saves_every_chunk=True)
    expected = uninterrupted(1500)
    with Reader(ordeal.path) as reader:
        for fault in (Ordeal.kill, Ordeal.begin_twice, Ordeal.limit):
            fault(ordeal)
        ordeal.saves_every_chunk = False
        ordeal.forget()
        ordeal.stop(signal.SIGTERM)
    assert not reader.failures
    assert sum(reader.seen.values()) > 100
    ordeal.flip()
    ordeal.finish(expected)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (Ordeal.kill, 50),
        (Ordeal.stop, 10),
        (Ordeal.stop_at_once, 10),
        (Ordeal.begin_twice, 10),
        (Ordeal.flip, 10),
        (Ordeal.truncate, 10),
        (Ordeal.limit, 5),
        pytest.param(
            Ordeal.fill, 5,
            marks=pytest.mark.skipif(not CAN_MOUNT, reason="needs root, for a tmpfs"),
        ),
    ],
)  # fmt: skip
def test_a_run_survives_many(tmp_path, uninterrupted, table, fault, times):
    expected = uninterrupted(6000)
    ordeal = Ordeal(tmp_path, 6000, advance=2000 // times, saves_every_chunk=True)
    reader = Reader(ordeal.path)
    with reader if fault is Ordeal.kill else contextlib.nullcontext():
        if fault is not Ordeal.kill:
            ordeal.kill()
        for _ in range(times):
            fault(ordeal)
    assert not reader.failures
    ordeal.finish(expected)
    lost = "none"
    if fault in (Ordeal.flip, Ordeal.truncate):
        lost = f"none; {ordeal.again} damaged ones computed again"
    table.append((FAULTS[fault], times, times, lost))
    if fault is Ordeal.kill:
        print(
            f"\n{ordeal.while_writing} kills left a file half written aside; "
            f"{sum(reader.seen.values())} files read meanwhile, all whole"
        )


def test_a_second_signal_does_not_wait_for_a_long_chunk(tmp_path):
    (tmp_path / "my.toml").write_text(CONFIG)
    arguments = (*settings(10**8), *overrides("eval_every=100_000_000"))
    process = start(command(tmp_path, *arguments))
    while not (tmp_path / "run/curves.npz").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=HANGS)
    # The chunk would have taken hours, and is not among those that are finished.
    assert read_file(tmp_path / "run/manifest.json")["chunks"] == 0
    assert (process.returncode, err) == (128 + signal.SIGTERM, "")
    lines = out.strip().splitlines()[-3:]
    assert lines[0] == "Finishing this chunk; once more leaves at once."
    assert lines[1].startswith("Left at once; every finished chunk is saved.")
    assert lines[2].endswith(" --resume")


def read_only(folder):
    """A command that runs another one, for which the folder is read-only."""
    if os.geteuid() == 0:
        if not CAN_MOUNT:
            pytest.skip("root writes everywhere, and cannot mount")
        script = f'mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} && exec "$@"'
    else:
        script = (
            f'chmod -R a-w {folder}; "$@"; code=$?; chmod -R u+w {folder}; exit $code'
        )
    return [
        *(["unshare", "-m"] if os.geteuid() == 0 else []),
        "bash",
        "-c",
        script,
        "-",
    ]


def test_a_read_only_folder_is_a_message_and_untouched(tmp_path, uninterrupted):
    path = tmp_path / "run"
    (tmp_path / "my.toml").write_text(CONFIG)
    _, err = run(tmp_path, code=2, within=read_only(tmp_path))
    assert f"{os.path.relpath(path)}: " in err
    assert not path.exists()
    shutil.copytree(uninterrupted(1500), path)
    arguments = (*settings(1500), "--resume")
    _, err = run(tmp_path, *arguments, code=2, within=read_only(path))
    assert f"{os.path.relpath(path)}: " in err
    assert_same_results(contents(path), contents(uninterrupted(1500)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("figures", "figures cannot be written: File exists. The results are saved"),
        ("report.md/x", "report.md cannot be written: Is a directory"),
    ],
)
def test_a_report_that_cannot_be_written_costs_no_result(
    tmp_path, uninterrupted, name, expected
):
    (tmp_path / "my.toml").write_text(CONFIG)
    path = tmp_path / "run"
    shutil.copytree(
        uninterrupted(1500), path, ignore=shutil.ignore_patterns("figures", "report.md")
    )
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text("")
    _, err = run(tmp_path, *settings(1500), "--resume", code=2)
    assert expected in err
    assert "To go on:\n  python -m experiments.grid" in err
    assert_same_results(contents(path), contents(uninterrupted(1500)))


def test_a_checkpoint_of_another_run_is_not_gone_on_from(tmp_path, uninterrupted):
    (tmp_path / "my.toml").write_text(CONFIG)
    path = tmp_path / "run"
    shutil.copytree(uninterrupted(1500), path)
    arguments = (*settings(1500), *overrides("grid.0.lr=[0.002]"), "--resume")
    (path / "manifest.json").unlink()  # so that only the checkpoints tell
    _, err = run(tmp_path, *arguments, code=2)
    for name in ("000.even.msgpack", "000.odd.msgpack"):
        assert f"{name} is of another config or group" in err
    assert "Nothing was changed. Put back copies" in err
    assert_same_results(contents(path), contents(uninterrupted(1500)))


def test_a_signal_between_two_groups_is_heard_before_the_next(tmp_path, monkeypatch):
    (tmp_path / "my.toml").write_text(
        CONFIG.replace("[0, 0.1]", "0").replace("[1, 2]", "1")
    )
    config = config_lib.load(tmp_path / "my.toml", ["hidden_size=4", "max_steps=5"])
    interruption = mock.Mock(signal=None)
    begin, begun = training.init_sweep, []

    def init_sweep(group, max_parallel):
        begun.append(group)
        if len(begun) == 2:
            interruption.signal = signal.SIGINT
        return begin(group, max_parallel)

    monkeypatch.setattr(training, "init_sweep", init_sweep)
    number = training.train(
        rich.console.Console(quiet=True), config, tmp_path / "run", resume=False,
        command=["x"], interruption=interruption,
    )  # fmt: skip
    assert number == signal.SIGINT
    assert len(begun) == 2
    statuses = {
        row["rule"]: row["status"] for row in read_file(tmp_path / "run/results.csv")
    }
    assert statuses == {"lra_diff": "exhausted", "readout_only": "pending"}
