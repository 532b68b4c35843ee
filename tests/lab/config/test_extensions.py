"""Modules of a user's own that a config or a command names."""

import sys

import pytest
from absl import flags

import lra_jax
from lra_jax.lab import config as config_lib
from lra_jax.lab import grid
from lra_jax.lab.benches import bench, reach
from lra_jax.lab.config import ConfigError, extensions
from lra_jax.lab.runs import fingerprint, groups
from lra_jax.lab.terminal import machine

MODULE = """
from jax.typing import ArrayLike
import optax
import lra_jax
from lra_jax.lab.config.optimizers import OPTIMIZERS
import my_more

def mine(*, gain: ArrayLike = 1.0, output_loss=lra_jax.cross_entropy):
    return lra_jax.bptt(output_loss=output_loss)

def nadam(*, lr: ArrayLike):
    return optax.nadam(lr)

def slow(*, alpha: ArrayLike = 0.05):
    return lra_jax.networks.leaky(alpha=alpha)

lra_jax.networks.register_network("slow", slow)
lra_jax.RULES["mine"] = mine
lra_jax.register_rule("with_card", mine, lra_jax.RuleCard(transports=()))
lra_jax.TASKS["my_task"] = lra_jax.TASKS["temporal_order"]
OPTIMIZERS["nadam"] = nadam
"""
CONFIG = """
task = "my_task"
seq_len = 10
optimizer = "nadam"
[grid]
rule = "mine"
lr = 0.1
gain = [1, 2]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current directory, with nothing of a module left behind in the end."""
    tables = [(table, dict(table)) for table in extensions.TABLES.values()]
    monkeypatch.setattr(extensions, "_files", {})
    monkeypatch.setattr(extensions, "_rows", {})
    monkeypatch.setattr(machine, "prepare", lambda: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    known = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - known:
        if not name.startswith(("jax", "optax", "lra_jax", "experiments")):
            del sys.modules[name]
    for table, before in tables:
        table.clear()
        table.update(before)


@pytest.fixture
def module(folder):
    (folder / "my_rules.py").write_text(MODULE)
    (folder / "my_more.py").write_text("X = 1\n")
    (folder / "my.toml").write_text(CONFIG)
    return folder


@pytest.mark.parametrize("names", ['["my_rules"]', '"my_rules"'])
def test_a_config_names_a_module(module, names):
    (module / "my.toml").write_text(f"import = {names}\n{CONFIG}")
    config = config_lib.load("my.toml")
    assert config.import_ == ("my_rules",)
    (group,) = groups.make_groups(config)
    assert [*group.grid.mapped] == ["lr", "gain"]
    (module / "again.toml").write_text(config.to_toml())
    again = config_lib.load("again.toml")
    assert again.digest() == config.digest()
    assert 'import = ["my_rules"]\n' in config.to_toml()


def test_a_config_names_a_network_of_a_module(module):
    text = CONFIG.replace('"mine"', '"bptt"').replace("gain", "alpha")
    text = text.replace("[1, 2]", "[0.1, 0.2]")
    (module / "my.toml").write_text('network = "slow"\nnum_layers = 2\n' + text)
    config = config_lib.load("my.toml", imports=["my_rules"])
    assert "[defaults.network" not in config.to_toml()  # its one argument is given
    (group,) = groups.make_groups(config)
    one = lra_jax.networks.leaky(alpha=0.1)
    found = group.experiment.network_of({"alpha": 0.1})
    assert found == lra_jax.networks.stack(one, one)
    own = fingerprint.of(config)
    assert any(name.endswith("/my_rules.py") for name in own)


def test_without_the_module_each_name_is_a_problem(module):
    with pytest.raises(ConfigError) as error:
        config_lib.load("my.toml")
    said = "\n".join(error.value.problems)
    assert len(error.value.problems) == 3
    assert said.count("expected one of") == 3
    assert "uoro; one of your own: --import MODULE" in said


def test_a_module_that_is_given_besides_is_kept_in_the_config(module):
    config = config_lib.load("my.toml", imports=["my_rules"])
    assert config.import_ == ("my_rules",)
    (module / "my.toml").write_text('import = ["my_more"]\n' + CONFIG)
    config = config_lib.load("my.toml", imports=["my_rules", "my_more"])
    assert config.import_ == ("my_more", "my_rules")


def test_of_modules_that_were_imported_a_config_has_those_that_it_needs(module):
    extensions.load(["my_rules"])
    assert config_lib.load("my.toml").import_ == ("my_rules",)
    text = 'task = "temporal_order"\nseq_len = 10\n[grid]\nrule = "bptt"\nlr = 1\n'
    (module / "other.toml").write_text(text)
    assert config_lib.load("other.toml").import_ == ()


def test_names_of_a_module_are_among_those_that_are_expected(module):
    extensions.load(["my_rules"])
    with pytest.raises(ConfigError, match=r"mine.*did you\s+mean 'mine'"):
        config_lib.load("my.toml", ["grid.rule=mines"])


def test_the_files_of_a_module_and_of_what_is_beside_it(module):
    assert extensions.imported_files() == []
    extensions.load(["my_rules"])
    files = [path.name for path in extensions.imported_files()]
    assert files == ["my_more.py", "my_rules.py"]


def test_a_rule_of_a_module_has_a_card_where_it_gives_one(module):
    extensions.load(["my_rules"])
    assert lra_jax.rule_card("mine") == lra_jax.RuleCard()
    assert lra_jax.rule_card("with_card").transported == "none"
    grid = {"rule": "with_card", "lr": 1}
    raw = {"name": "x", "task": "temporal_order", "seq_len": 10, "grid": grid}
    (member,) = config_lib.resolve(raw, "x").members()
    assert member["rule"] == "with_card"


def test_a_bench_names_a_module(module):
    (module / "bench.toml").write_text(
        'import = "my_rules"\nname = "b"\ntasks = ["my_task"]\nseq_len = [10]\n'
        "num_trials = 1\n[methods.mine]\nlabel = 'mine'\n"
        "grid = { rule = 'mine', optimizer = 'nadam', lr = 0.1 }\n"
    )
    found = reach.load("bench.toml")
    assert found.tuning("mine", "my_task", 10).import_ == ("my_rules",)
    (module / "bad.toml").write_text("import = 3\n")
    with pytest.raises(ConfigError, match="import = 3: expected a list of names"):
        bench.load("bad.toml", reach.Bench, lambda _: [])


BAD = {
    "1/0": "module 'bad' cannot be imported: ZeroDivisionError: division by zero "
    "(bad.py, line 1)",
    "def f(:": "module 'bad' cannot be imported: SyntaxError: invalid syntax (bad.py, "
    "line 1)",
    "import sys; sys.exit(3)": "module 'bad' cannot be imported: SystemExit: 3",
    "import no_such": "module 'bad' cannot be imported: ModuleNotFoundError: No module "
    "named 'no_such'",
    "import lra_jax; lra_jax.RULES['x'] = 3": "module 'bad': rule 'x': expected a "
    "factory, got int",
    "import lra_jax; lra_jax.RULES['x'] = lambda: 3": "module 'bad': rule 'x': expected "
    "a factory with an argument output_loss",
    "import lra_jax; lra_jax.RULES['x'] = lambda a, output_loss: 3": "module 'bad': rule "
    "'x': argument a has no default, and no annotation",
    "import lra_jax; lra_jax.RULES['bptt'] = lra_jax.fa": "module 'bad': rule 'bptt' is "
    "there already; choose another name",
    "import lra_jax; lra_jax.TASKS['digits_rows'] = lra_jax.TASKS['adding']": "module "
    "'bad': task 'digits_rows' is there already; choose another name",
    "import lra_jax; lra_jax.TASKS['x'] = 'y'": "module 'bad': task 'x': expected a "
    "lra_jax.Task, got str",
    "def f(a: 'Nothing'): pass\nimport lra_jax\nlra_jax.RULES['x'] = f": "module 'bad': "
    "rule 'x': its signature cannot be read: NameError: name 'Nothing'",
    "import lra_jax; lra_jax.RULES['x'] = lra_jax.fa; 1/0": "module 'bad' cannot be "
    "imported: ZeroDivisionError: division by zero (bad.py, line 1)",
}


@pytest.mark.parametrize(("text", "said"), BAD.items(), ids=range(len(BAD)))
def test_a_module_that_cannot_be_used_is_one_message(module, text, said):
    (module / "bad.py").write_text(text)
    before = [dict(table) for table in extensions.TABLES.values()]
    for _ in range(2):  # the second time as the first
        with pytest.raises(ConfigError) as error:
            config_lib.load("my.toml", imports=["bad"])
        (problem,) = error.value.problems
        assert problem.startswith(f"import: {said}")
        assert "\n" not in problem
        assert [dict(table) for table in extensions.TABLES.values()] == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_rules.py", "expected the name of a module; write my_rules"),
        ("a/b.py", "expected the name of a module; write a.b"),
        ("a b", "expected the name of a module"),
        ("", "expected the name of a module"),
    ],
)
def test_what_is_no_name_of_a_module(module, name, said):
    with pytest.raises(ConfigError) as error:
        config_lib.load("my.toml", imports=[name])
    assert error.value.problems[0].endswith(said)


def test_the_command_line_names_modules(module, capsys):
    values = flags.FLAGS.flag_values_dict()
    try:
        grid.parse(["grid", "--config=my.toml", "--import=my_none", "--dry-run"])
        assert grid.main([]) == 2
    finally:
        for name in ("config", "import", "dry_run"):
            flags.FLAGS[name].value = values[name]
    assert capsys.readouterr().err == (
        "my.toml: 1 problem\n  import: module 'my_none' cannot be imported: "
        "ModuleNotFoundError: No module named 'my_none'\n"
    )


def test_an_argument_may_end_with_an_underscore_without_being_a_keyword(folder):
    (folder / "typed.py").write_text(
        "from typing import Literal\n"
        "import lra_jax\n"
        "given = []\n"
        "def typed(*, type_: Literal['a', 'b'] = 'a', feedback: str | lra_jax.Feedback"
        " = 'random', output_loss=lra_jax.cross_entropy):\n"
        "    given.append((type_, feedback))\n"
        "    return lra_jax.bptt(output_loss=output_loss)\n"
        "lra_jax.RULES['typed'] = typed\n"
    )
    text = CONFIG.replace("gain = [1, 2]", 'type = "b"').replace('"mine"', '"typed"')
    text = text.replace("my_task", "temporal_order").replace("nadam", "sgd")
    (folder / "my.toml").write_text(text)
    groups.make_groups(config_lib.load("my.toml", imports=["typed"]))
    assert {type_ for type_, _ in sys.modules["typed"].given} == {"b"}
