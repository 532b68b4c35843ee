"""`python -m experiments`: what there is, help, and words that are no command."""

import ast
import importlib.util
import pathlib
import subprocess
import sys

import pytest

import experiments
from experiments.__main__ import COMMANDS, main, usage

FOLDER = pathlib.Path(experiments.__file__).parent


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "experiments", *words],
        capture_output=True, text=True, check=False, cwd=FOLDER.parent,
    )  # fmt: skip


def test_every_program_is_a_command():
    programs = {
        path.stem
        for path in FOLDER.glob("*.py")
        if 'if __name__ == "__main__"' in path.read_text("utf8")
    }
    assert programs - {"__main__"} == set(COMMANDS)
    for name in COMMANDS:
        assert importlib.util.find_spec(f"experiments.{name}")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_list_has_a_line_for_each(words, capsys):
    assert main(words) == 0
    said = capsys.readouterr()
    assert said.out == usage() + "\n"
    lines = usage().splitlines()
    assert [line.split()[0] for line in lines[2:-2]] == list(COMMANDS)
    assert max(map(len, lines)) <= 80


def test_a_wrong_word_is_one_message_with_the_nearest_command(capsys):
    assert main(["gird", "--config", "x"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    first = said.err.splitlines()[0]
    assert first == "experiments: no command 'gird'; did you mean grid?"
    assert usage() in said.err


def flags_of(name):
    """Names of the flags that a module defines, as a user types them."""
    tree = ast.parse((FOLDER / f"{name}.py").read_text("utf8"))
    return {
        node.args[0].value.replace("_", "-")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and "flags.DEFINE_" in ast.unparse(node.func)
    }


@pytest.mark.parametrize(
    ("name", "modules"),
    [("grid", ["grid", "command_line"]), ("reach", ["bench", "command_line"]),
     ("refinements", ["refinements"]), ("wall_time", ["wall_time"])],
)  # fmt: skip
def test_help_has_the_flags_of_the_command_and_no_others(name, modules):
    done = run(name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    shown = {
        line.strip()[2:] for line in done.stdout.splitlines() if line.startswith("  --")
    }
    assert shown == set().union(*map(flags_of, modules))
    assert f"python -m experiments.{name}" in done.stdout.splitlines()[0]


def test_a_command_has_its_own_exit_code_and_message():
    done = run("grid", "--confg", "x")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("experiments.grid: Unknown command line flag 'confg'")
    assert "Did you mean: config" in done.stderr
