"""README and docs/: their code runs, their commands exist, and the site builds."""

import ast
import collections
import csv
import dataclasses
import doctest
import functools
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import NamedTuple

import docstrings
import pytest
from command_line import QUICK, read_file

import lra_jax
from lra_jax import RULES
from lra_jax.lab import config as config_lib
from lra_jax.lab.__main__ import COMMANDS
from lra_jax.lab.config import arguments as arguments_lib
from lra_jax.lab.config import tasks
from lra_jax.lab.config.optimizers import OPTIMIZERS
from lra_jax.networks import NETWORKS

ROOT = Path(lra_jax.__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
EXPERIMENTS = {path.stem: path for path in (ROOT / "experiments").glob("*.py")}
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for folder in ("lra_jax/lab", "experiments")
    for path in (ROOT / folder).rglob("*.py")
}

# Commands of others, which nothing here can check.
OTHERS = {"export", "gcloud", "git", "kubectl", "sbatch", "srun"}

all_pages = pytest.mark.parametrize(
    "path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix()
)


class Block(NamedTuple):
    """A fenced block of a page.

    `<!-- needs NAME -->` on the line before it says which package it needs, `<!-- file
    NAME -->` that the reader saves it as a file.
    """

    line: int  # of its first line of text
    language: str
    text: str
    needs: str | None
    file: str | None = None

    @property
    def can_run(self):
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


def blocks(path):
    """The fenced blocks of a page, but for directives, which are Sphinx's."""
    page = path.read_text("utf8")
    fence = (
        r"(?:^<!-- (?:needs (?P<needs>\w+)|file (?P<file>[\w.]+)) -->\n)?"
        r"^```(?P<language>[^\n`]*)\n(?P<text>.*?)^```$"
    )
    for match in re.finditer(fence, page, re.MULTILINE | re.DOTALL):
        if not match["language"].startswith("{"):
            line = page.count("\n", 0, match.start("text")) + 1
            yield Block(line, *match.group("language", "text", "needs", "file"))


# Code.


@pytest.fixture
def tables():
    """What a page adds to the tables of rules and tasks is gone after it."""
    kept = [(table, dict(table)) for table in (lra_jax.RULES, lra_jax.TASKS)]
    yield
    for table, before in kept:
        table.clear()
        table.update(before)


def save_files(path, folder):
    """Saves what a page says to save, and returns the names of the Python modules."""
    for block in blocks(path):
        if block.file:
            (folder / block.file).write_text(block.text, "utf8")
    return [file.name for file in folder.glob("*.py")]


@pytest.mark.end_to_end
@all_pages
def test_the_code_of_a_page_runs(path, tables, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    modules = save_files(path, tmp_path)
    namespace = {"__name__": "__main__"}
    for block in blocks(path):
        if block.file in modules:
            name = block.file.removesuffix(".py")
            monkeypatch.setitem(sys.modules, name, None)  # gone after the test
            del sys.modules[name]
            importlib.import_module(name)
        elif block.language == "python" and block.can_run:
            # Tracebacks have the lines of the page.
            text = "\n" * (block.line - 1) + block.text
            with warnings.catch_warnings():
                if block.needs:  # what a package warns of is its own
                    warnings.simplefilter("ignore")
                exec(compile(text, str(path), "exec"), namespace)
        elif block.language == "toml":
            load(block.text, f"{path.name}:{block.line}")
    if path.name == "README.md":
        assert capsys.readouterr().out.endswith(" 0 errors of 10,000 at T = 30\n")


@pytest.mark.parametrize(
    ("page", "package"),
    sorted({(p.name, b.needs) for p in PAGES for b in blocks(p) if b.needs}),
)
def test_a_package_that_a_page_needs_is_there(page, package):
    """Skipped, with the name, where blocks of the page were not run."""
    pytest.importorskip(package, reason=f"blocks of {page} that need {package} not run")


def test_a_block_says_what_it_needs(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- needs no_such -->\n```python\nx\n```\n<!-- needs json -->\n\n"
        "```python\ny\n```\n<!-- needs json -->\n```python\nz\n```\n"
    )
    found = [(b.line, b.text, b.needs, b.can_run) for b in blocks(page)]
    assert found == [
        (4, "x\n", "no_such", False),
        (9, "y\n", None, True),  # a line is between both
        (13, "z\n", "json", True),
    ]


@pytest.mark.end_to_end
def test_a_rule_of_the_page_is_saved_and_trained(tmp_path):
    """As a stranger does it, with fewer updates."""
    path = ROOT / "docs/add_a_rule.md"
    assert save_files(path, tmp_path) == ["my_rules.py"]
    (words,) = (
        words
        for block in blocks(path)
        if block.language == "bash"
        for words in map(str.split, commands(block.text))
        if words[:1] == ["lra-jax"]
    )
    subprocess.run(
        [sys.executable, "-m", "lra_jax.lab", *words[1:], "--set", "max_steps=5"],
        cwd=tmp_path, env={**os.environ, **QUICK, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    rows = read_file(tmp_path / "runs/my/results.csv")
    counts = collections.Counter(row["rule"] for row in rows)
    assert counts == {"sign_feedback": 8, "bptt": 4, "readout_only": 4}
    assert {row["gain"] for row in rows} == {"0.5", "1", ""}


def load(text, name):
    """Checks a config; what a fragment of one leaves out is temporal order at T = 10.

    Of a file of a bench, each method's grid is a config.
    """
    raw = tomllib.loads(text)
    tables = [method["grid"] for method in raw.pop("methods", {}).values()]
    for grid in tables or [raw.pop("grid", {"gamma": 1, "lr": 1})]:
        settings = {"name": "page", "task": "temporal_order", "seq_len": 10} | raw
        if "seq_len" not in raw and tasks.is_own(settings["task"]):
            del settings["seq_len"]
        config_lib.resolve(settings | {"grid": grid}, name)


def test_a_wrong_config_of_a_page_is_found():
    with pytest.raises(config_lib.ConfigError, match="gama"):
        load("[grid]\ngama = 1\nlr = 1\n", "page")
    with pytest.raises(config_lib.ConfigError, match="bptt2"):
        load('[methods.a]\ngrid = { rule = "bptt2", lr = 1 }\n', "page")


# Commands.


def commands(text):
    """The commands of a block, one line each, without comments.

    A line goes on after a backslash, and where the next one is indented.
    """
    text = re.sub(r"\\\n", " ", text)
    lines = (re.sub(r"(^|\s+)#.*", "", line) for line in text.split("\n"))
    return re.sub(r"\n(?=[ \t]+\S)", " ", "\n".join(lines)).split("\n")


def problems_of(command):
    """What is wrong with a command, as texts."""
    words = command.split()
    while words and re.match(r"[A-Z_0-9]+=", words[0]):  # of its environment
        words = words[1:]
    if not words:
        return
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        yield from (f"no target {word!r}" for word in words[1:] if word not in targets)
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))
        extras = extras["project"]["optional-dependencies"]
        for found in re.findall(r"(?:lra_jax|\.)\[([\w,]+)\]", command):
            yield from (f"no extra {x!r}" for x in found.split(",") if x not in extras)
    elif words[0] == "lra-jax":
        if words[1:2] and words[1] not in COMMANDS:
            yield f"lra-jax has no command {words[1]!r}"
        elif words[1:2]:
            yield from problems_of_module("experiments", words[1], " ".join(words[2:]))
    elif words[0] == "python" and words[1] != "-m":
        if not (ROOT / words[1]).is_file():
            yield f"no file {words[1]!r}"
    elif words[0] not in {*OTHERS, "python"}:
        yield f"unknown command {words[0]!r}"
    # Also within the commands of others.
    for match in re.finditer(r"python -m (\w+)(?:\.(\w+))?([^'&;]*)", command):
        yield from problems_of_module(*match.groups())


def problems_of_module(package, name, rest):
    if package != "experiments":
        if importlib.util.find_spec(package) is None:
            yield f"no module {package!r}"
        return
    if name is None:  # `python -m experiments COMMAND`
        name = (rest.split() or ["__main__"])[0]
    if name not in EXPERIMENTS:
        yield f"no module experiments.{name}"
        return
    known = flags_of(name)
    for flag in re.findall(r"(?<![\w-])--([a-z][\w-]*)", rest):
        if flag.replace("-", "_") not in known:
            yield f"experiments.{name} has no flag --{flag}"
    for file in re.findall(r"--config[ =](\S+\.toml)", rest):
        if not (ROOT / file).is_file() and not re.search("[A-Z]{2}", file):
            yield f"no file {file!r}"


@functools.cache
def flags_of(name):
    """Names of the flags of a command and of all that it imports."""
    found, waiting, seen = set(), {f"experiments.{name}"}, set()
    while waiting:
        seen.add(module := waiting.pop())
        for node in ast.walk(ast.parse(SOURCES[module].read_text("utf8"))):
            if isinstance(node, ast.Call) and "flags.DEFINE_" in ast.unparse(node.func):
                found.add(node.args[0].value)
            elif isinstance(node, ast.ImportFrom):
                parts = {f"{node.module}.{alias.name}" for alias in node.names}
                waiting |= ({node.module} | parts) & set(SOURCES) - seen
    return found


@all_pages
def test_the_commands_of_a_page_exist(path):
    """Those of its blocks, and those of this repository within its text."""
    found = [
        (block.line, command)
        for block in blocks(path)
        if block.language in ("", "bash")
        for command in commands(block.text)
    ]
    saved = {f"no file {block.file!r}" for block in blocks(path)}
    page = path.read_text("utf8")
    for match in re.finditer(r"(?<!`)`((?:make|lra-jax|python -m) [^`]+)`(?!`)", page):
        line = page.count("\n", 0, match.start()) + 1
        found.append((line, " ".join(match[1].split())))
    problems = [
        f"{path.name}:{line}: {command}: {problem}"
        for line, command in found
        for problem in problems_of(command)
        if problem not in saved
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("make dmo", "no target 'dmo'"),
        ("pip install '.[date]'", "no extra 'date'"),
        ("python examples/no.py", "no file 'examples/no.py'"),
        ("python -m experiments.gird", "no module experiments.gird"),
        ("python -m experiments.grid --confg x", "no flag --confg"),
        ("srun python -m experiments.grid --config configs/no.toml", "no file"),
        ("x 'cd a && python -m experiments.grid --no-such'", "no flag --no-such"),
        ("lra-jax gird", "no command 'gird'"),
        ("lra-jax reproduce all", "no command 'reproduce'"),
        ("lra-jax grid --confg x", "no flag --confg"),
        ("conda install lra_jax", "unknown command 'conda'"),
    ],
)
def test_a_wrong_command_is_found(command, problem):
    assert any(problem in found for found in problems_of(command))


@all_pages
def test_a_block_says_what_it_is(path):
    assert {block.language for block in blocks(path)} <= {
        *("", "bash", "python", "toml", "text")
    }


# Docstrings.


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    "test",
    [test for name in docstrings.MODULES for test in docstrings.examples(name)],
    ids=lambda test: test.name.removeprefix("lra_jax."),
)
def test_an_example_gives_what_it_says(test):
    said = io.StringIO()
    results = doctest.DocTestRunner().run(test, out=said.write)
    assert results.attempted > 0
    assert results.failed == 0, said.getvalue()


def test_the_reference_says_what_examples_may_use():
    (imports,) = blocks(ROOT / "docs/api.md")
    namespace = {}
    exec(imports.text, namespace)
    del namespace["__builtins__"]
    assert namespace == docstrings.NAMES


def test_the_reference_has_every_public_name():
    directives = re.findall(
        r"^\.\. auto(?:class|data|function):: (?:[\w.]+\.)?(\w+)$",
        (ROOT / "docs/api.md").read_text("utf8"),
        re.MULTILINE,
    )
    modules = {*docstrings.SWEEP, *docstrings.DIAGNOSTICS, *docstrings.NETWORKS}
    assert sorted(directives) == sorted({*lra_jax.__all__, *modules})


# Links, and the site.


INCLUDE = re.compile(r"^```\{literalinclude\} (\S+)\n((?::.*\n)*)```", re.MULTILINE)


def included(path, text):
    """The lines of code that a page includes, by its options; what is not there raises."""
    for name, options in INCLUDE.findall(text):
        said = dict(re.findall(r"^:([\w-]+): ?(.*)$", options, re.MULTILINE))
        source = (path.parent / name).read_text("utf8")
        node = ast.parse(source)
        for part in filter(None, said.get("pyobject", "").split(".")):
            (node,) = (n for n in node.body if getattr(n, "name", None) == part)
        if "pyobject" in said:
            source = ast.get_source_segment(source, node)
        for option in ("start-at", "end-at", "end-before"):
            assert said.get(option, "").strip('"') in source, (name, said)
        yield source


def test_the_code_that_a_page_includes_is_there():
    path = ROOT / "docs/algorithm.md"
    text = path.read_text("utf8")
    assert len(list(included(path, text))) == text.count("{literalinclude}") > 15
    wrong = text.replace(":start-at: def move", ":start-at: def moved")
    assert wrong != text
    with pytest.raises(AssertionError):
        list(included(path, wrong))
    with pytest.raises(ValueError, match="not enough values"):
        list(included(path, text.replace(":pyobject: refine", ":pyobject: refined")))


@all_pages
def test_links_to_files_of_the_repository_resolve(path):
    targets = re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf8"))
    files = [t.split("#")[0] for t in targets if not t.startswith(("http", "#"))]
    assert not [file for file in files if not (path.parent / file).is_file()]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    for name in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(name, reason=f"{name} is not installed: the extra `docs`")
    process = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n"),
            *(str(ROOT / "docs"), str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=3600,
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "index.html").is_file()
    # The code beside the equations is there.
    page = (tmp_path / "algorithm.html").read_text("utf8")
    assert "def backward_step" in re.sub("<[^>]+>", "", page)
    # Equations are in the page itself, and nothing of it comes from afar.
    assert page.count("<math") > 100
    for path in tmp_path.glob("*.html"):
        found = path.read_text("utf8")
        assert not re.search(r"<(script|link|img)[^>]*(src|href)=\"(https?:)?//", found)
        assert "cdn." not in found


def shown(argument):
    """A default as docs/configs.md has it."""
    if argument.default is None:
        return "none"
    if argument.kind == "choice":
        return f'"{argument.default}"'
    if argument.kind == "flag":
        return str(argument.default).lower()
    return f"{argument.default:g}"


FACTORIES = {**RULES, **OPTIMIZERS, **NETWORKS}


@pytest.mark.parametrize("name", FACTORIES)
def test_configs_of_the_page_have_every_argument_and_its_default(name):
    arguments = arguments_lib.arguments_of(FACTORIES[name])
    needed = ", ".join(f"`{key}`" for key, a in arguments.items() if a.required)
    others = ", ".join(
        f"`{key}` ({shown(a)})"
        for key, a in arguments.items()
        if not a.required and not a.needs
    )
    page = (ROOT / "docs/configs.md").read_text("utf8")
    assert f"| `{name}` | {needed} | {others} |\n" in page


def test_configs_of_the_page_have_what_feedback_needs():
    page = (ROOT / "docs/configs.md").read_text("utf8")
    arguments = arguments_lib.arguments_of(RULES["bptt"])
    others = ", ".join(
        f"`{key}` ({shown(a)})" for key, a in arguments.items() if a.needs
    )
    assert f"With `feedback` a table may have {others}." in " ".join(page.split())


@pytest.mark.parametrize("name", RULES)
def test_the_page_of_rules_has_every_rule(name):
    page = (ROOT / "docs/choose_a_rule.md").read_text("utf8")
    assert f"\n| `{name}` |" in page


def test_configs_of_the_page_have_every_setting_and_its_default():
    page = (ROOT / "docs/configs.md").read_text("utf8")
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| .+ \|$", page, re.MULTILINE)
    found = {key: default.strip("`") for key, default in rows if key not in RULES}
    for field in dataclasses.fields(config_lib.Config):
        if field.name != "grid":
            default = found[field.name.rstrip("_")]
            if field.name not in ("name", "task", "seq_len"):
                value = json.loads(default)
                value = tuple(value) if isinstance(value, list) else value
                assert value == field.default, field.name


def claims():
    """The rows of the table of docs/claims.md, as lists of cells."""
    text = (ROOT / "docs/claims.md").read_text("utf8")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_claims_name_files_that_are_there():
    text = (ROOT / "docs/claims.md").read_text("utf8")
    named = re.findall(r"`((?:configs|results|tests)/[^`*]+)`", text)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("row", claims(), ids=lambda row: row[1].strip("`"))
def test_claims_name_a_table_with_each_seed(row):
    if row[4].startswith("not stored"):
        return
    with (ROOT / row[4].strip("`")).open(encoding="utf8") as file:
        columns = next(csv.reader(file))
    assert {"updates_by_seed", "test_by_seed", "seed"} & {*columns}


@pytest.mark.parametrize("row", claims(), ids=lambda row: row[1].strip("`"))
def test_claims_say_the_hours_and_seeds_of_their_configs(row):
    path = ROOT / row[1].strip("`")
    header = re.search(r"^# Minutes: +(.*(?:\n# {5,}.*)*)", path.read_text(), re.M)
    assert row[5] in " ".join(header[1].replace("#", " ").split())
    config = tomllib.loads(path.read_text("utf8"))
    every = config.get("seeds", [0, 1, 2, 3, 4])
    # In a grid for `rule_table` those of 100 and above choose the setting.
    seeds = [seed for seed in every if seed < 100]
    assert row[2].partition(";")[0] == f"{seeds[0]} to {seeds[-1]}"
    tuning = [seed for seed in every if seed >= 100]
    if "tuning_seeds" in config or path.parent.name == "real":
        tuning = config.get("tuning_seeds", [100, 101])
    if tuning:
        assert f"; {', '.join(map(str, tuning))}" in row[2]
