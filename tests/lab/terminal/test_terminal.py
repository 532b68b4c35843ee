"""What programs print, wherever it goes, and lines that are to be pasted into a shell."""

import ast
import errno
import io
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import rich.console
from absl import flags

import lra_jax
from lra_jax import sweep
from lra_jax.lab import grid
from lra_jax.lab.terminal import command_line, files, progress, screen
from lra_jax.member import Status

ROOT = pathlib.Path(lra_jax.__file__).parent.parent
SOURCES = [*(ROOT / "lra_jax/lab").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
HARMLESS = {"markup": False, "emoji": False, "highlight": False}


# One console.


def calls(tree, name):
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(name)
    ]


def test_there_is_one_place_that_makes_consoles_and_one_of_tables():
    """So that no text of a user's is ever read as markup."""
    trees = {path.stem: ast.parse(path.read_text("utf8")) for path in SOURCES}
    makers = {name for name, tree in trees.items() if calls(tree, ".Console")}
    assert makers == {"screen"}
    for tree in trees.values():
        for call in calls(tree, ".TextColumn"):
            assert "markup=False" in ast.unparse(call)
        for call in [*calls(tree, ".from_markup"), *calls(tree, ".render_markup")]:
            raise AssertionError(ast.unparse(call))


NASTY = "a[b] [/b] [bold]c[/bold] :smile: [link=x]1.5"


def printing(monkeypatch, encoding="utf-8", width=None):
    """A console on a stream of some encoding, and what it is given."""
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, encoding, errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", screen.Outlet(stream))
    console = screen.console()
    if width is not None:
        console.width = width
    return console, lambda: data.getvalue().decode(encoding)


def test_text_is_printed_as_it_is(monkeypatch):
    console, said = printing(monkeypatch)
    screen.say(console, NASTY)
    console.print(NASTY, soft_wrap=True)
    console.rule(NASTY)
    screen.show_table(console, [NASTY, "b"], [[NASTY, "[/x]"]])
    assert said().count(NASTY) == 5
    assert "[/x]" in said()
    wrong = rich.console.Console(file=io.StringIO(), width=200)
    wrong.print(NASTY)  # the control: rich's own way
    assert NASTY not in wrong.file.getvalue()


HEADER = ("rule", "best setting", "solved", "accuracy %")
LINES = [["lra_diff", "lr 0.1, gamma 10, c0 1, c1 1", "2/3", "75.00 ± 107.58"]]


@pytest.mark.parametrize("width", [1, 20, 40, 60, 80, 120])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_every_cell_is_shown_at_any_width(monkeypatch, width, encoding):
    console, said = printing(monkeypatch, encoding, width)
    screen.show_table(console, HEADER, LINES, wrapped=("best setting",))
    text = said()
    accuracy = "75.00 ± 107.58"
    accuracy = accuracy.encode(encoding, "backslashreplace").decode(encoding)
    for cell in ("lra_diff", "2/3", accuracy, "gamma"):
        assert cell in text
    assert "…" not in text
    is_table = "accuracy %: " not in text
    assert is_table == (width >= 60)
    if is_table:
        assert len({len(line) for line in text.splitlines() if line}) == 1


# Streams that cannot be written.


class Broken(io.StringIO):
    """A stream that fails as it is told to, after some characters."""

    encoding = "utf-8"

    def __init__(self, error, room=0):
        super().__init__()
        self.broken = error
        self.room = room

    def write(self, text):
        if len(self.getvalue()) + len(text) > self.room:
            raise self.broken
        return super().write(text)


def error(number):
    return OSError(number, os.strerror(number))


LOST = [
    BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)),
    error(errno.ENOSPC),
    error(errno.EIO),
    ValueError("I/O operation on closed file"),
]


@pytest.mark.parametrize("failure", LOST, ids=str)
def test_a_stream_that_fails_is_said_once_and_ends_nothing(
    monkeypatch, capsys, failure
):
    broken = Broken(failure, room=6)
    monkeypatch.setattr(sys, "stdout", screen.Outlet(broken))
    screen.say_loss("gone ({})")
    print("first")
    for _ in range(3):
        print("more than there is room for")
        sys.stdout.flush()
    assert broken.getvalue() == "first\n"
    assert screen.is_lost()
    reason = getattr(failure, "strerror", None) or failure
    assert capsys.readouterr().err == f"gone ({reason})\n"
    assert screen.finish(0) == 0  # the program was for something else


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (LOST[0], 0, ""),
        (LOST[1], 1, "me: stdout cannot be written: No space left on device\n"),
    ],
)
def test_output_that_is_lost_is_a_failure_but_for_a_reader_that_has_enough(
    monkeypatch, capsys, failure, code, said
):
    monkeypatch.setattr(sys, "stdout", screen.Outlet(Broken(failure)))
    assert command_line.exit_code(lambda _: print("text") or 0, (), "me") == code
    assert capsys.readouterr().err == said


def test_a_process_may_begin_without_streams(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    screen.protect()
    print("x")
    print("y", file=sys.stderr)
    assert sys.stdout.error.errno == errno.EBADF
    assert not sys.stdout.isatty()
    screen.say(screen.console(), "z")


def test_what_an_encoding_lacks_becomes_backslashes(monkeypatch):
    console, said = printing(monkeypatch, "ascii")
    screen.say(console, "λ \udcff ±")
    assert said() == "\\u03bb \\udcff \\xb1\n"


def test_real_streams(tmp_path):
    """A pipe that nobody reads and a full device, with Python's own exit."""
    script = (
        "from lra_jax.lab.terminal import screen; screen.protect();"
        "screen.say_loss('gone: {}');"
        "[print('x' * 10_000, flush=True) for _ in range(50)]; print('end')"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(
        ["bash", "-c", '"$@" | true; exit ${PIPESTATUS[0]}', "-", *words],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "gone: Broken pipe\n")
    if os.path.exists("/dev/full"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
        assert (done.returncode, done.stderr) == (0, "gone: No space left on device\n")
    done = subprocess.run(
        ["bash", "-c", '"$@" >&- 2>&-', "-", *words], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Commands for a shell.

WORDS = [
    "plain", "a b", "lr[b]", "[/b]", "a'b", 'a"b', "$HOME", "`ls`", "$(ls)", "a\\b",
    "new\nline", "tab\there", "bell\a", "ü λ 🙂", "bytes\udcff\udcfe", "!history", "*?",
    "-x", "--out", "=x", "~", "#", "a;b", "{a,b}", "\u202eright", "", "é\udce9", ":smile:",
]  # fmt: skip


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_shell_reads_the_words_that_were_meant(encoding):
    line = screen.shell(WORDS, encoding)
    assert line.isprintable()
    line.encode(encoding)
    said = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True
    ).stdout
    assert said.split(b"\0")[:-1] == [word.encode("utf8", "surrogateescape") for word in WORDS]  # fmt: skip


@pytest.fixture
def parsed():
    """Parses a command line of `grid`; all flags are as before in the end."""
    values = flags.FLAGS.flag_values_dict()
    was = {name: flags.FLAGS[name].present for name in values}

    def parse(*words):
        for name in ("config", "set", "out", "resume", "live", "import"):
            flags.FLAGS[name].value = flags.FLAGS[name].default
            flags.FLAGS[name].present = 0
        return grid.parse(["grid", *words])

    yield parse
    for name, value in values.items():
        flags.FLAGS[name].value = value
        flags.FLAGS[name].present = was[name]


@pytest.mark.parametrize("path", [word for word in WORDS if word])
def test_the_command_to_go_on_is_that_of_this_run(parsed, path):
    parsed(
        f"--config={path}", "--out", path, f"--set=name={path}", "--set", "grid.lr=[1, 2]",
        "--live", "--import", "my_rules",
    )  # fmt: skip
    words = grid._command(pathlib.Path(path), resume=True)
    parsed(*words[3:])
    found = flags.FLAGS
    assert (found.config, found.out) == (path, str(pathlib.Path(path)))
    assert found.set == [f"name={path}", "grid.lr=[1, 2]"]
    assert found["import"].value == ["my_rules"]
    assert (found.live, found.resume) == (True, True)


def test_only_the_names_of_flags_have_underscores():
    words = ["grid", "--max-parallel", "--a-b", "--out=a-b", "--dry-run", "--no-live"]
    assert command_line.underscored(words) == [
        "grid", "--max_parallel", "--a-b", "--out=a-b", "--dry_run", "--no_live",
    ]  # fmt: skip
    words = ["grid", "--dry-run", "a-b", "--", "--max-parallel"]
    assert command_line.underscored(words) == ["grid", "--dry_run", *words[2:]]


def test_a_file_that_several_processes_write_has_an_aside_for_each(tmp_path):
    """Else one would rename what another has half written."""
    path = tmp_path / "kept.npz"
    others = tmp_path / ".kept.npz.part"
    others.write_bytes(b"half")
    files.write(path, b"a", b"b", shared=True)
    assert (path.read_bytes(), others.read_bytes()) == (b"ab", b"half")
    files.write(path, b"c")
    assert path.read_bytes() == b"c"
    assert [*tmp_path.iterdir()] == [path]  # the name that is not shared was taken


def test_a_text_is_written_whole_and_an_error_names_its_file(tmp_path, monkeypatch):
    path = tmp_path / "page.md"
    files.write_text(path, "γ \ud800\n")
    assert path.read_bytes() == "γ \\ud800\n".encode()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        files.write_text(path, "more")
    assert files.described(error.value) == f"{path}: No space left on device"
    assert path.read_bytes() == "γ \\ud800\n".encode()
    assert [*tmp_path.iterdir()] == [path]
    assert files.described(OSError("of a library")) == "of a library"


def test_an_error_of_the_system_is_one_line_and_exit_code_2(tmp_path, capsys):
    path = tmp_path / "no" / "a.csv"
    for program, begins in (("x", "x: "), ("", "")):
        code = command_line.exit_code(
            lambda _: files.write(path, b""), (OSError,), program
        )
        assert code == 2
        said = f"{begins}{path}: No such file or directory\n"
        assert capsys.readouterr().err == said


def test_windows_sets_nothing_that_it_does_not_have(monkeypatch):
    monkeypatch.delattr(os, "set_blocking")
    screen.set_blocking(1, blocking=False)


# Progress.


@pytest.mark.parametrize(
    ("seconds", "left"),
    [(1, "1:39 left"), (60, "1:39:00 left"), (3600, "99:00:00 left")],
)
def test_the_time_left_has_hours_where_there_are_any(monkeypatch, seconds, left):
    """One update of 100 in so many seconds; 99 are left."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    console, printed = printing(monkeypatch)

    def members(step):
        values = (Status.RUNNING, step, 5, 10, 5, 10, 0)
        return [sweep.Members(*(np.array([value]) for value in values))]

    limits = lra_jax.Limits(max_steps=100)
    shown = progress.Progress(console, limits, members(0))
    shown.show(members(0))  # what was compiled does not count
    now[0] += seconds
    shown.show(members(1), last=True)
    assert printed().rstrip().endswith(f"at most {left}")
