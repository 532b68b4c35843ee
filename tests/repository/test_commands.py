"""`lra-jax` and `python -m experiments`: what there is, help, and wrong words."""

import ast
import collections
import importlib
import pathlib
import subprocess
import sys

import pytest

import experiments
import lra_jax
from experiments.__main__ import COMMANDS
from lra_jax.lab import __main__ as lab
from lra_jax.lab.terminal import command_line

ROOT = pathlib.Path(lra_jax.__file__).parent.parent
DOORS = pathlib.Path(experiments.__file__).parent
PROGRAMS = {
    "python -m experiments": ("experiments", COMMANDS),
    "lra-jax": ("lra_jax.lab", lab.COMMANDS),
}
SOURCES = [
    *(ROOT / "lra_jax/lab").rglob("*.py"),
    *(path for path in DOORS.rglob("*.py") if path.parent != DOORS),
]
each_program = pytest.mark.parametrize("program", PROGRAMS)


def run(program, *words):
    module, _ = PROGRAMS[program]
    return subprocess.run(
        [sys.executable, "-m", module, *words],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


def test_every_door_is_a_command():
    doors = {
        path.stem: path.read_text("utf8")
        for path in DOORS.glob("*.py")
        if 'if __name__ == "__main__"' in path.read_text("utf8")
    }
    del doors["__main__"]
    assert {*doors} == {*COMMANDS}
    assert all(len(text.splitlines()) <= 80 for text in doors.values())
    for name in lab.COMMANDS:
        room = lab.ROOMS.get(name, "lra_jax.lab.benches")
        assert f"from {room}.{name} import main, parse\n" in doors[name]


def test_commands_may_be_imported_in_any_order():
    """Of the definitions of one flag, all but one may be replaced by another's."""
    fixed = collections.Counter(
        node.args[0].value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text("utf8")))
        if isinstance(node, ast.Call)
        and "flags.DEFINE_" in ast.unparse(node.func)
        and "allow_override" not in {keyword.arg for keyword in node.keywords}
    )
    assert len(fixed) > 10
    assert set(fixed.values()) == {1}, fixed.most_common(3)


@each_program
@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_list_has_a_line_for_each(program, words, capsys):
    _, commands = PROGRAMS[program]
    with pytest.raises(SystemExit) as end:
        command_line.choose(program, commands, words)
    assert not end.value.code
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{program} COMMAND")
    assert [line.split()[0] for line in lines[2:-2]] == list(commands)
    assert max(map(len, lines)) <= 80


@each_program
def test_the_version_is_that_of_the_library(program, capsys):
    with pytest.raises(SystemExit) as end:
        command_line.choose(program, PROGRAMS[program][1], ["--version"])
    assert not end.value.code
    assert capsys.readouterr().out.startswith(f"lra_jax {lra_jax.__version__}, JAX ")


@each_program
def test_a_wrong_word_is_one_message_with_the_nearest_command(program, capsys):
    with pytest.raises(SystemExit) as end:
        command_line.choose(program, PROGRAMS[program][1], ["gird", "--config", "x"])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    first, _, rest = said.err.partition("\n")
    short = program.removeprefix("python -m ")
    assert first == f"{short}: no command 'gird'; did you mean 'grid'?"
    assert f"{program} COMMAND" in rest


def flags_of(name):
    """Names of the flags that a module defines, as a user types them."""
    (path,) = (p for p in SOURCES if p.stem == name)
    tree = ast.parse(path.read_text("utf8"))
    return {
        node.args[0].value.replace("_", "-")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and "flags.DEFINE_" in ast.unparse(node.func)
    }


@pytest.mark.parametrize(
    ("program", "name", "modules"),
    [("lra-jax", "grid", ["grid", "command_line"]),
     ("python -m experiments", "reach", ["bench", "command_line"]),
     ("python -m experiments", "refinements", ["refinements"]),
     ("python -m experiments", "wall_time", ["wall_time"])],
)  # fmt: skip
def test_help_has_the_flags_of_the_command_and_no_others(program, name, modules):
    done = run(program, name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    shown = {
        line.strip()[2:] for line in done.stdout.splitlines() if line.startswith("  --")
    }
    assert shown == set().union(*map(flags_of, modules))
    words = f"lra-jax {name}" if program == "lra-jax" else f"{program}.{name}"
    assert words in done.stdout.splitlines()[0]


@pytest.mark.parametrize("name", lab.COMMANDS)
def test_the_help_of_the_wheels_commands_names_nothing_of_the_clone(name, monkeypatch):
    room = lab.ROOMS.get(name, "lra_jax.lab.benches")
    module = importlib.import_module(f"{room}.{name}")
    monkeypatch.setattr(sys, "argv", [f"lra-jax {name}"])
    text = command_line.usage(module.__name__)
    assert f"lra-jax {name}" in text
    assert "experiments" not in text


@pytest.mark.parametrize(
    ("program", "name"),
    [("lra-jax", "lra-jax grid"), ("python -m experiments", "experiments.grid")],
)
def test_a_command_has_its_own_exit_code_and_message(program, name):
    done = run(program, "grid", "--confg", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{name}: Unknown command line flag 'confg'")
    assert "Did you mean: config" in done.stderr
