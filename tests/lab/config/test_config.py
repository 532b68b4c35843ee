"""Configs: what they mean, and one message for everything that is wrong with one."""

import dataclasses
import itertools
import pathlib
import re
from typing import Literal

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import ArrayLike

from lra_jax import RULES, TASKS, losses, networks, rnn, train
from lra_jax.lab import config as config_lib
from lra_jax.lab.config import arguments as arguments_lib
from lra_jax.lab.config import checks
from lra_jax.lab.config.draws import Draws
from lra_jax.lab.config.optimizers import OPTIMIZERS
from lra_jax.lab.runs import groups
from lra_jax.paper.released import evaluate_released

GOOD = """
task = "temporal_order"
seq_len = 10
seeds = [0, 1]

[grid]
lr = [0.1, 0.01]
gamma = [1, 10]
num_refinements = [1, 3]
lambda = 0.1
"""


OLD_DIGEST = "5a0b8f94aa16f865bc6c1801ff2410d218cb50c0526f046d2edf85e873e78212"


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "my.toml"
        path.write_text(text)
        return path

    return write


def problems_of(write, text, *overrides):
    with pytest.raises(config_lib.ConfigError) as caught:
        config_lib.load(write(text), overrides)
    return caught.value.problems


def test_a_config_is_the_product_of_its_axes_times_seeds(write):
    config = config_lib.load(write(GOOD))
    members = list(config.members())
    assert config.name == "my"
    assert len(members) == 16
    assert members[0] == {
        "task": "temporal_order", "seq_len": 10, "rule": "lra_diff",
        "optimizer": "sgd", "hidden_size": 100, "batch_size": 20,
        "lr": 0.1, "gamma": 1, "num_refinements": 1, "lambda": 0.1, "seed": 0,
    }  # fmt: skip
    assert members[1]["seed"] == 1
    assert (members[2]["num_refinements"], members[4]["gamma"]) == (3, 10)


def test_members_with_equal_statics_are_one_group_whatever_their_k(write):
    (group,) = groups.make_groups(config_lib.load(write(GOOD)))
    assert set(group.grid.shared) == {"num_refinements"}
    assert group.grid.shared["num_refinements"].dtype == np.int32
    assert set(group.grid.mapped) == {"lr", "gamma", "lambda"}
    assert group.grid.mapped["gamma"].dtype == np.float32
    np.testing.assert_array_equal(group.members, np.arange(16))


def test_statics_split_groups_and_keep_the_members_order(write):
    text = GOOD + 'local_loss = ["mse", "log_penalty"]\nseq_len = [10, 12]\n'
    found = groups.make_groups(config_lib.load(write(text)))
    assert [(g.statics["local_loss"], g.statics["seq_len"]) for g in found] == [
        ("mse", 10), ("mse", 12), ("log_penalty", 10), ("log_penalty", 12),
    ]  # fmt: skip
    assert sorted(np.concatenate([g.members for g in found])) == list(range(64))


def test_several_tables_are_a_union(write):
    text = GOOD.replace("[grid]", "[[grid]]") + '[[grid]]\nrule = "bptt"\nlr = 0.1\n'
    config = config_lib.load(write(text))
    assert [m["rule"] for m in config.members()] == ["lra_diff"] * 16 + ["bptt"] * 2
    assert len(groups.make_groups(config)) == 2


def test_the_resolved_config_reads_back_as_itself(write, tmp_path):
    config = config_lib.load(write(GOOD))
    copy = tmp_path / "copy.toml"
    copy.write_text(config.to_toml())
    again = config_lib.load(copy)
    assert again == config
    assert again.digest() == config.digest()


def test_texts_and_keys_of_any_letters_read_back_as_themselves(monkeypatch, tmp_path):
    def rule(
        *, γ: ArrayLike = 1.0, 𐐨: ArrayLike = 2.0, way: Literal["𝛾\x7f", "é"] = "é"
    ) -> None:
        raise NotImplementedError

    monkeypatch.setitem(RULES, "𝛿 mine", rule)
    top = {"name": "é𝛾", "task": "temporal_order", "seq_len": 10}
    grid = {"rule": "𝛿 mine", "lr": 0.1, "γ": [1, 2], "way": ["𝛾\x7f", "é"]}
    config = config_lib.resolve(top | {"grid": grid}, "x")
    path = tmp_path / "again.toml"
    path.write_text(config.to_toml(), "utf-8")
    again = config_lib.load(path)
    assert again == config
    assert again.digest() == config.digest()
    assert again.defaults()["rule"] == {"𝛿 mine": {"𐐨": 2.0}}


def test_what_is_drawn_is_written_as_it_was_asked_for(write, tmp_path):
    config = config_lib.load(write(DRAWN))
    path = tmp_path / "again.toml"
    path.write_text(config.to_toml())
    assert "lr = { log_uniform = [0.0001, 1], num = 3 }\n" in path.read_text()
    assert config_lib.load(path) == config


def test_the_digest_is_of_all_but_the_name(write):
    config = config_lib.load(write(GOOD))
    assert config_lib.load(write(GOOD), ["name=other"]).digest() == config.digest()
    for override in (
        "input_gain=0.1",
        "max_steps=7",
        "grid.gamma=[1]",
        "seeds=[1, 0]",
        "patience=0",
    ):
        assert config_lib.load(write(GOOD), [override]).digest() != config.digest()


def test_a_setting_that_older_files_do_not_have_is_no_other_request(write):
    config = config_lib.load(write(GOOD), ["input_gain=1"])
    assert config == config_lib.load(write(GOOD))
    assert "input_gain = 1.0\n" in config.to_toml()
    small = config_lib.load(write(GOOD), ["input_gain=0.1"])
    assert config_lib.load(write(small.to_toml())) == small
    assert small.request_digest() != config.request_digest()


def test_the_digest_of_old_run_folders_is_what_it_was(write):
    """Of GOOD, as version 2 of the run folder had it: evaluations had no stages."""
    assert config_lib.load(write(GOOD)).request_digest() != OLD_DIGEST
    whole = "validation_stages = []\n" + GOOD
    assert config_lib.load(write(whole)).request_digest() == OLD_DIGEST


def test_the_resolved_config_says_what_is_left_to_defaults(write):
    text = config_lib.load(write(GOOD)).to_toml()
    assert text.endswith(
        '[defaults.rule.lra_diff]\nc0 = 0.0\nc1 = 0.0\nlocal_loss = "mse"\n'
        'reduction = "mean"\nnormalization = "clip"\nrefinement = "fixed"\n'
        "update_first_step = true\ndescend_local_loss = true\n"
        'schedule = "constant"\n\n[defaults.optimizer.sgd]\ndecay_steps = 0.0\n'
        "w_hh_rate = 1.0\nreadout_rate = 1.0\northogonality = 0.0\n"
    )


def test_an_argument_is_a_default_where_some_table_leaves_it_out(write):
    first = '[[grid]]\nrule = "bptt"\nlr = 0.1\nmax_norm = 1.0\n'
    second = '[[grid]]\nrule = ["bptt", "fa"]\nlr = 0.1\n'
    head = GOOD.partition("[grid]")[0]
    alone = config_lib.load(write(head + first)).defaults()
    assert alone["rule"] == {"bptt": {}}
    both = config_lib.load(write(head + first + second)).defaults()
    fa = {"readout": "transpose", "max_norm": 0.0}
    assert both["rule"] == {"bptt": {"max_norm": 0.0}, "fa": fa}


def rule_with(default):
    def rule(*, lr_scale: ArrayLike = default) -> None:
        raise NotImplementedError

    return rule


MINE = GOOD.partition("[grid]")[0] + '[grid]\nrule = "mine"\nlr = 0.1\n'


def test_another_default_is_another_digest_and_the_same_request(write, monkeypatch):
    monkeypatch.setitem(RULES, "mine", rule_with(1.0))
    before = config_lib.load(write(MINE))
    digests = before.digest(), before.request_digest()
    given = config_lib.load(write(MINE + "lr_scale = 1.0\n"))
    assert given.digest() != digests[0]
    text = before.to_toml()
    monkeypatch.setitem(RULES, "mine", rule_with(2.0))
    after = config_lib.load(write(MINE))
    assert after.digest() != digests[0]
    assert after.request_digest() == digests[1]
    assert problems_of(write, text) == [
        "defaults.rule.mine.lr_scale = 1.0: the default is 2.0; give lr_scale in the "
        "grid, or take [defaults] out of the file to have today's"
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("defaults = 1", "defaults = 1: expected tables, as in a resolved config"),
        (
            "[defaults.rules]",
            "defaults.rules: expected tables of rule, optimizer and network",
        ),
        (
            "[defaults.rule.lra_diff]\nc9 = 0",
            "defaults.rule.lra_diff.c9 = 0: lra_diff has no such argument; take "
            "[defaults] out of the file to have today's",
        ),
        (
            "[defaults.optimizer.momentum]\nnesterov = 0",
            "defaults.optimizer.momentum.nesterov = 0: the default is false; give "
            "nesterov in the grid, or take [defaults] out of the file to have today's",
        ),
        (
            "[defaults.optimizer.sgd]\nlr = 0.1",
            "defaults.optimizer.sgd.lr = 0.1: lr has no default; give it in the grid",
        ),
    ],
)
def test_defaults_that_are_not_the_codes_are_a_problem(write, text, says):
    parts = (text, GOOD) if text.startswith("defaults") else (GOOD, text)
    assert problems_of(write, "\n".join(parts)) == [says]


def test_defaults_of_what_the_config_does_not_use_are_in_nobodys_way(write):
    text = "[defaults.rule.somebodys]\nx = 1\n[defaults.rule.lra_diff]\nc0 = 0\n"
    assert config_lib.load(write(GOOD + text)) == config_lib.load(write(GOOD))


def test_the_input_gain_reaches_the_experiment(write):
    config = config_lib.load(write(GOOD), ["input_gain=0.1"])
    assert groups.make_groups(config)[0].experiment.input_gain == 0.1


DRAWN = GOOD.replace("[0.1, 0.01]", "{ log_uniform = [1e-4, 1], num = 3 }").replace(
    "[1, 10]", "{ uniform = [1, 50], num = 3, seed = 7 }"
)


def test_drawn_axes_are_one_axis_together(write):
    members = list(config_lib.load(write(DRAWN)).members())
    assert len(members) == 3 * 2 * 2  # draws, K, seeds
    pairs = {(m["lr"], m["gamma"]) for m in members}
    assert pairs == {
        (0.00227287, 3.58863), (0.0101391, 3.01071), (0.00582262, 25.8517)
    }  # fmt: skip
    assert list(members[0]) == [
        "task", "seq_len", "rule", "optimizer", "hidden_size", "batch_size", "lr",
        "gamma", "num_refinements", "lambda", "seed",
    ]  # fmt: skip


def test_draws_depend_on_name_and_seed_alone_and_go_on(write):
    few = Draws.make("lr", {"log_uniform": [1e-3, 10], "num": 400})
    assert few[:3] == Draws.make("lr", {"log_uniform": [1e-3, 10], "num": 3})
    for other in (
        Draws.make("c0", {"log_uniform": [1e-3, 10], "num": 3}),
        Draws.make("lr", {"log_uniform": [1e-3, 10], "num": 3, "seed": 1}),
    ):
        assert not set(other) & set(few)
    # Even over four decades: a hundred in each, give or take three deviations.
    counts = np.histogram(np.log10(few), bins=[-3, -2, -1, 0, 1])[0]
    assert counts.sum() == 400
    assert np.all(np.abs(counts - 100) < 3 * np.sqrt(75))


def test_overrides(write):
    overrides = ["grid.gamma=[5]", "seq_len=20", "task=random_permutation"]
    config = config_lib.load(write(GOOD), overrides)
    assert config.grid[0]["gamma"] == (5,)
    assert (config.seq_len, config.task) == (20, "random_permutation")
    tables = GOOD.replace("[grid]", "[[grid]]") + '[[grid]]\nrule = "bptt"\nlr = 0.1\n'
    config = config_lib.load(write(tables), ["grid.lr=1", "grid.1.max_norm=[1]"])
    assert [table["lr"] for table in config.grid] == [(1,), (1,)]
    assert config.grid[1]["max_norm"] == (1,)


def test_words_of_overrides_are_plain_texts(write):
    words = ["task=adding", "dtype=float64", "matmul_precision=highest", "name=x"]
    words += ["validation=standard", "optimizer=adam", "grid.local_loss=mse"]
    config = config_lib.load(write(GOOD), words)
    settings = [*dataclasses.astuple(config), *config.grid[0]["local_loss"]]
    texts = [x for x in settings if isinstance(x, str)]
    assert {"adding", "float64", "highest", "x", "adam", "mse"} <= {*texts}
    assert {type(text) for text in texts} == {str}


def test_validation_is_the_librarys_unless_the_released_codes_is_asked_for(write):
    standard = config_lib.load(write(GOOD))
    released = config_lib.load(write('validation = "released"\n' + GOOD))
    assert released.digest() != standard.digest()
    for config, evaluate in ((standard, train.evaluate), (released, evaluate_released)):
        (group,) = groups.make_groups(config)
        assert group.experiment.evaluate is evaluate


def test_the_released_rule_is_a_row_of_a_grid(write):
    text = GOOD.replace("[grid]", '[grid]\nrule = "lra_released"\nc = [0, 1]')
    (group,) = groups.make_groups(config_lib.load(write(text)))
    assert group.statics["rule"] == "lra_released"
    assert set(group.grid.mapped) == {"lr", "gamma", "lambda", "c"}
    assert set(group.grid.shared) == {"num_refinements"}


def test_a_rule_that_refuses_its_sizes_is_a_problem_of_the_config(write):
    text = GOOD.replace("[grid]", '[grid]\nrule = "lra_released"\nbatch_size = 120')
    config = config_lib.load(write(text))
    said = r"rule 'lra_released': .*at most H = 100"
    with pytest.raises(config_lib.ConfigError, match=said):
        groups.make_groups(config)


def test_updates_that_do_not_divide_the_sequence_are_a_problem_of_the_config(write):
    text = GOOD.replace("[grid]", "update_every = 3\n\n[grid]")
    config = config_lib.load(write(text))
    with pytest.raises(config_lib.ConfigError, match="expected a divisor of T = "):
        groups.make_groups(config)


def test_validation_that_refuses_the_data_is_a_problem_of_the_config(
    write, monkeypatch
):
    """That of the released code knows no sequences of different lengths."""
    task = TASKS["temporal_order"]

    def draw(key, batch_size, seq_len):
        batch = task.draw(key, batch_size, seq_len)
        return batch._replace(start=jnp.zeros(batch_size, int))

    varied = dataclasses.replace(task, draw=draw)
    monkeypatch.setattr(groups.tasks, "find", lambda *_: varied)
    config = config_lib.load(write('validation = "released"\n' + GOOD))
    with pytest.raises(config_lib.ConfigError, match="start: expected None"):
        groups.make_groups(config)


@pytest.mark.parametrize("rule", RULES)
def test_every_argument_of_a_rule_can_be_an_axis(write, rule):
    """Of numbers two values, as one group; of others all, each a group."""
    arguments = arguments_lib.arguments_of(RULES[rule])
    lines = [f'task = "temporal_order"\nseq_len = 10\n[grid]\nrule = "{rule}"\nlr = 1']
    count = 1
    for name, argument in arguments.items():
        values = {"choice": argument.choices, "flag": (True, False)}.get(argument.kind)
        if values is not None:
            value = values[0] if isinstance(values[0], str) else str(values[0]).lower()
            lines.append(f"{name} = {value!r}".replace("True", "true"))
        elif argument.narrower == "count":
            lines.append(f"{name} = [2, 3]")
            count *= 2
        elif argument.narrower == "size":
            lines.append(f"{name} = 2")
        elif count < 4:
            lines.append(f"{name} = [0.25, 0.5]")
            count *= 2
        else:
            lines.append(f"{name} = 0.5")
    config = config_lib.load(write("\n".join(lines).replace("'true'", "true")))
    (group,) = groups.make_groups(config)
    assert group.members.size == count
    numbers = {**group.grid.mapped, **group.grid.shared}
    assert set(numbers) == {"lr"} | {
        name for name, argument in arguments.items() if argument.kind == "number"
    }
    for name, values in numbers.items():
        is_count = name != "lr" and arguments[name].narrower == "count"
        assert values.dtype == (np.int32 if is_count else np.float32)


# Config text to the problems that must be reported, as regular expressions.
BAD = {
    "seq_len = 10": [
        "^task: missing", "grid.gamma: missing; rule 'lra_diff'", "grid.lr: missing",
    ],
    GOOD + "gama = 1": [r"grid.gama = 1: unknown key; did you mean 'gamma'\?"],
    "gamma = 3\n" + GOOD: ["gamma = 3: unknown key.*it belongs under .grid.: grid.gamma"],
    "epochs = 3\n" + GOOD: ["epochs = 3: unknown key .known here: .*max_steps"],
    GOOD.replace('"temporal_order"', '"temporal_ordre"'): [
        r'task = "temporal_ordre": expected one of .*did you mean \'temporal_order\''
    ],
    GOOD.replace("seq_len = 10", "seq_len = 9"): [
        "seq_len = 9: task 'temporal_order' needs at least 10"
    ],
    DRAWN.replace("1e-4", "0"): ["grid.lr = .*expected two positive numbers, the smaller"],
    DRAWN.replace("1e-4", "1" + "0" * 400): ["grid.lr = .*two positive numbers"],
    DRAWN.replace("[1, 50]", "[50, 1]"): ["grid.gamma = .*expected two numbers, the smal"],
    DRAWN.replace("num = 3 }", "num = 2 }"): ["grid: drawn axes .* the same num, got 2, 3"],
    DRAWN.replace("num = 3 }", "num = 0 }"): ["grid.lr = .*num: expected an integer from 1"],
    DRAWN.replace("seed = 7", "seed = -7"): ["grid.gamma = .*seed: expected an integer"],
    DRAWN.replace("log_uniform", "lognormal"): [
        "grid.lr = .*expected one of uniform, log_uniform, and num, such as .* num = 64"
    ],
    DRAWN.replace("[1, 3]", "{ uniform = [1, 3], num = 3 }"): [
        "grid.num_refinements = .*only real numbers can be drawn; expected a list"
    ],
    DRAWN + "rule = { uniform = [1, 3], num = 3 }": [
        "grid.rule = .*only real numbers can be drawn; expected a list"
    ],
    DRAWN.replace("num = 3", "num = 1_000_000"): [
        "grid: 4,000,000 members; at most 1,000,000"
    ],
    GOOD.replace("[1, 10]", "[]"): ["grid.gamma = ..: expected at least one value"],
    GOOD.replace("[1, 10]", "[1, nan]"): ["grid.gamma = .*expected a finite number"],
    GOOD.replace("[1, 10]", "[1, 1e39]"): ["that float32 can hold, got 1e.39"],
    GOOD.replace("[1, 10]", '["1e-3"]'): ["write numbers without quotes"],
    GOOD.replace("[1, 10]", "[true]"): ["expected a number, got true"],
    GOOD.replace("[1, 10]", "[1, 1]"): ["grid.gamma = .1, 1.: the same value twice"],
    GOOD.replace("[1, 3]", "[0, 2.5]"): ["integer of at least 1, got 0", "got 2.5"],
    GOOD.replace("[0, 1]", "[0, -1]"): ["seeds = .0, -1.: expected a list of different"],
    GOOD.replace("[0, 1]", "3"): ["seeds = 3: expected a list"],
    "batch_size = 0\nmax_steps = 1.5\n" + GOOD: [
        "batch_size = 0: expected an integer of at least 1", "max_steps = 1.5"
    ],
    GOOD + 'local_loss = "mae"': ["grid.local_loss = .*expected one of mse, log_penalty"],
    GOOD + 'rule = ["lra_diff", "bptt"]': [
        f"grid.{key} = .*rule 'bptt' has no such argument; use ..grid"
        for key in ("gamma", "num_refinements", "lambda")
    ],
    "input_gain = 0\n" + GOOD: ["input_gain = 0: expected a positive number"],
    'validation = "release"\n' + GOOD: [
        'validation = "release": expected one of standard, released'
    ],
    GOOD + 'optimizer = "sdg"': ["did you mean 'sgd'"],
    GOOD + 'optimizer = "momentum"\nmomentum = 1.0': ["expected a number below 1"],
    'task = "temporal_order"\nseq_len = 10\n[grid]\nlr = 1\nrule = "lra_norm"\n'
    "exponent = 5": ["grid.exponent = 5: expected a number from 0 to 1"],
    'task = "temporal_order"\nseq_len = 10\n[grid]\nlr = 1\nrule = "tpri"\n'
    "ridge = 0\ntarget_lr = 1": ["grid.ridge = 0: expected a number above 0"],
    'task = "temporal_order"\nseq_len = 10\n[grid]\nlr = 1\nrule = "rec_lra"\n'
    "num_steps_per_skip = 2.5": [
        "grid.num_steps_per_skip = 2.5: expected an integer of at least 1"
    ],
    "hidden_size = [8, 16]\n" + GOOD: [
        r"hidden_size = \[8, 16\]: expected .*; a list stands under .grid.: grid.hidden_size"
    ],
    "batch_size = 2147483648\n" + GOOD: ["batch_size = .*: expected an integer below 2³¹"],
    "hidden_size = 1_000_000_000\n" + GOOD: [
        "hidden_size = 1000000000: one member needs at least 3,725,291,043 GiB; at most 1,024"
    ],
    GOOD + '"\\u001b[2J" = 1': [r'grid\."\\u001b\[2J" = 1: unknown key'],
    GOOD.replace("[1, 10]", "1" * 2000): ["1,000 digits or more .at line 8"],
    "a." * 200 + "a = 1": ["more than 100 dots .at line 1"],
    "x = " + "[" * 5000: ["nested too deeply"],
    GOOD.replace("[1, 10]", "0x" + "f" * 5000): [
        "grid.gamma = .thousands of digits.: expected a finite number"
    ],
    f'name = "{"é" * 128}"\n' + GOOD: ["name = .*expected a name for a folder, of at most 255"],
    "grid = 3": ["grid = .*expected a table"],
    "task = ": ["is not valid TOML"],
    GOOD.replace("[0.1, 0.01]", str(list(range(1000)))).replace(
        "[1, 10]", str(list(range(1000)))
    ): ["grid: 4,000,000 members; at most 1,000,000"],
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD.items(), ids=range(len(BAD)))
def test_each_problem_is_named_with_what_is_allowed(write, text, expected):
    problems = problems_of(write, text)
    assert len(problems) == len(expected), problems
    for problem, pattern in zip(problems, expected, strict=True):
        assert re.search(pattern, problem), problem


def test_all_problems_come_at_once(write):
    text = GOOD.replace("seq_len = 10", "seq_len = 9").replace("gamma", "gama")
    problems = problems_of(write, "epochs = 1\n" + text, "grid.lr=[x", "batch_size")
    assert len(problems) == 6, problems


@pytest.mark.parametrize(
    "override",
    [
        "gamma", "=3", "grid.2.gamma=1", "grid.0.x.y=1", "optimizer.lr=1", "grid.².lr=1",
        "grid.gamma=[1", "grid.gamma=1\nseq_len=12",
    ],
)  # fmt: skip
def test_a_bad_override_is_quoted(write, override):
    (problem,) = problems_of(write, GOOD, override)
    assert problem.startswith(f"--set {override}:".replace("\n", "\\n"))


def test_no_more_problems_than_fit_on_a_screen(write):
    text = "".join(f"key_{i} = 1\n" for i in range(1000)) + GOOD
    with pytest.raises(config_lib.ConfigError) as caught:
        config_lib.load(write(text))
    lines = str(caught.value).splitlines()
    assert len(caught.value.problems) == 30
    assert lines[0].endswith("my.toml: at least 30 problems")
    assert lines[1].startswith("  key_0 = 1: unknown key")
    assert lines[-1] == "  ... and more"
    assert len(lines) == 38
    assert max(map(len, lines)) <= 120


def test_tables_that_miss_arguments_fill_a_screen_at_most(write):
    text = 'task = "temporal_order"\nseq_len = 10\n' + "[[grid]]\n" * 40
    problems = problems_of(write, text)  # two of each table
    assert len(problems) == 30
    assert problems[-1] == "grid.14.lr: missing; optimizer 'sgd' needs it"


def test_a_missing_file_is_one_problem(tmp_path):
    with pytest.raises(config_lib.ConfigError, match="cannot be read: No such file"):
        config_lib.load(tmp_path / "none.toml")


def test_every_argument_of_every_factory_is_readable_by_a_config():
    kinds = {
        name: {k: a.kind for k, a in arguments_lib.arguments_of(factory).items()}
        for name, factory in {**RULES, **OPTIMIZERS, **networks.NETWORKS}.items()
    }
    assert kinds["lra_diff"] == {
        "gamma": "number", "num_refinements": "number", "lambda": "number",
        "c0": "number", "c1": "number", "local_loss": "choice", "reduction": "choice",
        "normalization": "choice", "refinement": "choice", "update_first_step": "flag",
        "descend_local_loss": "flag", "schedule": "choice", "feedback": "choice",
        "readout_feedback": "choice", "mirror_rate": "number",
        "readout_mirror_rate": "number", "mirror_samples": "constant",
        "mirror_source": "choice", "mirror_updates": "number",
    }  # fmt: skip
    assert kinds["readout_only"] == {}
    assert kinds["momentum"]["nesterov"] == "flag"
    assert kinds["leaky"] == {
        "alpha": "number", "nonlinearity": "choice", "noise": "number",
        "dale": "constant", "w_hh_init": "choice", "w_hh_gain": "number",
    }  # fmt: skip
    assert kinds["lstm"]["forget_bias"] == "number"
    tables = (RULES, OPTIMIZERS, networks.NETWORKS)  # a key must mean one thing
    for one, other in itertools.combinations(tables, 2):
        for a, b in itertools.product(one, other):
            assert not set(kinds[a]) & set(kinds[b])


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["lr", "gamma", "x", "uniform", "log_uniform", "num"]),
            inner, max_size=3,
        )
    ),
    max_leaves=6,
)  # fmt: skip
KEYS = st.sampled_from(
    [*config_lib.Config.__dataclass_fields__, "gamma", "lambda", "lr", "x"]
)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    top=st.dictionaries(KEYS, JUNK, max_size=4),
    table=st.dictionaries(
        st.sampled_from(["lr", "gamma", "rule", "seq_len", "local_loss", "c0", "y"]),
        JUNK, max_size=4,
    ),
)  # fmt: skip
def test_junk_is_problems_and_never_an_exception(top, table):
    raw = {"task": "adding", "seq_len": 10, "grid": dict(table), "name": "x", **top}
    problems = []
    config = checks._resolve(raw, problems)
    assert (config is None) == bool(problems)
    assert all(problem.isprintable() for problem in problems)


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(text=st.text(max_size=60) | st.binary(max_size=60))
def test_a_file_of_anything_is_a_config_error(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("junk") / "junk.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(config_lib.ConfigError):
        config_lib.load(path)


NUMBER = st.floats(0, 1e30, allow_nan=False) | st.integers(0, 1000)


@hypothesis.settings(max_examples=100, deadline=None)
@hypothesis.given(
    gamma=st.lists(NUMBER, min_size=1, max_size=4, unique=True),
    lr=st.lists(NUMBER, min_size=1, max_size=4, unique=True),
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3, unique=True),
    name=st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=9),
)
def test_any_good_config_survives_being_written(
    tmp_path_factory, gamma, lr, seeds, name
):
    config = config_lib.Config(
        name=name, task="adding", seq_len=10, seeds=tuple(seeds),
        grid=({"lr": tuple(lr), "gamma": tuple(gamma)},),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("good") / "good.toml"
    path.write_text(config.to_toml())
    assert config_lib.load(path) == config
    assert len(list(config.members())) == len(gamma) * len(lr) * len(seeds)


@pytest.mark.parametrize(
    "path", sorted(pathlib.Path("configs").glob("*.toml")), ids=lambda p: p.stem
)
def test_every_config_of_the_repository_is_good_and_has_a_header(path):
    config = config_lib.load(path)
    assert groups.make_groups(config)
    header = path.read_text().split("\n\n")[0]
    assert header.startswith("#")
    assert f"--config configs/{path.name}" in header
    for word in ("Machine", "Minutes", "Expect"):
        assert word in header, f"{path}: its header does not say {word!r}"


def test_a_byte_order_mark_is_no_part_of_a_config(tmp_path):
    path = tmp_path / "my.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    marked = config_lib.load(path)
    path.write_text(GOOD)
    assert marked == config_lib.load(path)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("grid.lr=.5", "grid.lr = .5: expected a number; write 0.5"),
        ("grid.lr=5.", "grid.lr = 5.: expected a number; write 5.0"),
        ("grid.lr=0.1,0.3",
         "grid.lr = 0.1,0.3: expected a number; write [0.1,0.3]"),
        ("grid.lr=0,1", "grid.lr = 0,1: expected a number; write [0,1]"),
        ("grid.lr=0.1 .3",
         "grid.lr = 0.1 .3: expected a number; write [0.1,0.3]"),
        ("grid.lr=(0.1, 0.3)",
         "grid.lr = (0.1, 0.3): expected a number; write [0.1,0.3]"),
        ("grid.lr=True", "grid.lr = True: expected a number"),
        ("grid.lr=fast", "grid.lr = fast: expected a number"),
        ('grid.lr="0.5"',
         'grid.lr = "0.5": expected a number; write numbers without quotes: '
         "0.5"),
        ("grid.num_refinements=01",
         "grid.num_refinements = 01: expected an integer of at least 1; write 1"),
        ("race=True", "race = True: expected true or false; write true"),
        ("race=1", "race = 1: expected true or false"),
        ("seeds=0,1",
         "seeds = 0,1: expected a list of different integers from 0 to 2³² - 1; write "
         "[0,1]"),
        ("max_steps=1,000",
         "max_steps = 1,000: expected an integer of at least 1; write 1000"),
        ("max_steps=1e3", "max_steps = 1000.0: expected an integer of at least 1"),
        ("grid.optimizer=[sgd,adam]",
         "--set grid.optimizer=[sgd,adam]: the value is not valid TOML: Invalid value "
         "(at line 1, column 10); write --set 'grid.optimizer=[\"sgd\",\"adam\"]'"),
        ("grid.lr=[.1 .3]",
         "--set grid.lr=[.1 .3]: the value is not valid TOML: Invalid value "
         "(at line 1, column 10); write --set 'grid.lr=[0.1,0.3]'"),
    ],
)  # fmt: skip
def test_what_is_almost_toml_is_told_how_to_be_it(write, override, problem):
    assert problems_of(write, GOOD, override) == [problem]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("lr = .1", "lr = .1; write lr = 0.1"),
        ("lr = [0.1 0.3]", "lr = [0.1 0.3]; write lr = [0.1,0.3]"),
        ("lr: 0.1", "lr: 0.1; write lr = 0.1"),
        ("rule = bptt", 'rule = bptt; write rule = "bptt"'),
        ("nesterov = True", "nesterov = True; write nesterov = true"),
        ("lr = range(3)", "lr = range(3)"),
        ("lr", "lr"),
    ],
)
def test_a_line_that_is_no_toml_is_shown_with_what_may_be_meant(write, line, hint):
    (problem,) = problems_of(write, f'task = "adding"\n[grid]\n{line}\n')
    assert problem.startswith("is not valid TOML: ")
    assert problem.endswith(f": {hint}")
    assert "(at line 3, " in problem


@pytest.mark.parametrize(
    "text",
    [
        'rule = "lra_dif"\noptimizer = "sdg"\ntask = "temporal_ordre"\nseq_len = 5\n'
        "max_steps = 0\n[grid]\ngama = 1\nc0 = -1\nmomentun = 2\n",
        'seq_len = 5\ntask = "temporal_ordre"\n[[grid]]\nrule = ["lra_dif", "bptt"]\n'
        'optimizer = "adaam"\nb1 = 3\nlr = "x"\nmax_norm = -1\n',
    ],
)
def test_a_second_round_has_no_new_problems(write, text):
    """Names that are nobody's hide nothing, where there is one that they are like."""
    first = problems_of(write, text)
    for wrong, right in (
        ("lra_dif", "lra_diff"), ("sdg", "sgd"), ("adaam", "adam"),
        ("temporal_ordre", "temporal_order"),
    ):  # fmt: skip
        text = text.replace(f'"{wrong}"', f'"{right}"')
    second = problems_of(write, text)
    assert second
    assert {*second} < {*first}


def test_a_name_that_is_like_no_other_hides_only_what_may_be_its_own(write):
    text = GOOD.replace("[grid]", '[grid]\nrule = "zzz"\ngamm = 3\nquux = 1\nc0 = -1')
    problems = problems_of(write, text)
    keys = [problem.split(" = ")[0] for problem in problems]
    assert keys == ["grid.rule", "grid.gamm", "grid.c0"]


NETWORKS_OF_A_GRID = """
task = "temporal_order"
seq_len = 10
hidden_size = 8
[[grid]]
network = ["gru", "lstm"]
num_layers = [1, 2]
w_hh_gain = [0.9, 1.1]
lr = 0.1
gamma = 1
[[grid]]
network = "leaky"
nonlinearity = "relu"
dale = [0.75, 1]
alpha = { uniform = [0.1, 0.9], num = 3 }
rule = "bptt"
lr = 0.1
"""


def test_networks_and_their_words_are_groups_and_their_numbers_are_not(write):
    config = config_lib.load(write(NETWORKS_OF_A_GRID))
    found = groups.make_groups(config)
    named = [(g.statics["network"], g.statics["num_layers"]) for g in found]
    assert named == [
        ("gru", 1), ("gru", 2), ("lstm", 1), ("lstm", 2), ("leaky", 1), ("leaky", 1),
    ]  # fmt: skip
    assert [len(g.members) for g in found] == [2, 2, 2, 2, 3, 3]
    assert [*found[0].grid.mapped] == ["w_hh_gain", "lr", "gamma"]
    assert found[0].experiment.network_numbers == ("w_hh_gain",)
    gain = {"w_hh_gain": 0.9}
    assert found[0].experiment.network_of(gain) == networks.gru(w_hh_gain=0.9)
    two = networks.stack(*[networks.lstm(w_hh_gain=0.9)] * 2)
    assert found[3].experiment.network_of(gain) == two
    leaky = networks.leaky(alpha=0.5, nonlinearity="relu", dale=1.0)
    assert found[5].experiment.network_of({"alpha": 0.5}) == leaky
    assert config_lib.load(write(config.to_toml())) == config


def test_a_network_without_numbers_is_a_value(write):
    (group,) = groups.make_groups(config_lib.load(write(GOOD)))
    assert group.experiment.network == rnn.TANH
    assert "network" not in group.statics
    (group,) = groups.make_groups(config_lib.load(write('network = "gru"\n' + GOOD)))
    assert group.experiment.network == networks.gru()
    assert group.experiment.network_numbers == ()


def test_a_config_of_the_papers_network_says_nothing_of_networks(write):
    config = config_lib.load(write(GOOD))
    same = config_lib.load(write(GOOD), ['network="tanh"', "num_layers=1"])
    assert same == config
    assert "network" not in config.to_toml()
    assert "network" not in next(config.members())
    for override in ('network="gru"', "num_layers=2", "grid.w_hh_gain=1.0"):
        other = config_lib.load(write(GOOD), [override])
        assert other.digest() != config.digest()
        assert next(other.members())["num_layers"] in (1, 2)
    assert other.defaults()["network"] == {"tanh": {"w_hh_init": "orthogonal"}}
    assert "[defaults.network.tanh]\n" in other.to_toml()


@pytest.mark.parametrize(
    ("rule", "network", "said"),
    [
        ("tpri", "gru", "rule 'tpri': network: expected tanh, .*got gru"),
        ("lra_reversible", "lstm", "rule 'lra_reversible': network: expected tanh, as"),
        ("mine", "gru", "rule 'mine': network: .*no argument network, got gru"),
    ],
)
def test_a_rule_that_refuses_its_network_is_a_problem_of_the_config(
    write, monkeypatch, rule, network, said
):
    def mine(*, output_loss=losses.cross_entropy):
        return RULES["bptt"](output_loss=output_loss)

    monkeypatch.setitem(RULES, "mine", mine)
    text = f'rule = "{rule}"\ntask = "temporal_order"\nseq_len = 10\n[grid]\nlr = 0.1\n'
    assert groups.make_groups(config_lib.load(write(text)))  # tanh it takes
    config = config_lib.load(write(f'network = "{network}"\n' + text))
    with pytest.raises(config_lib.ConfigError, match=said):
        groups.make_groups(config)


def test_the_released_codes_validation_is_of_tanh_alone(write):
    config = config_lib.load(write('validation = "released"\nnetwork = "gru"\n' + GOOD))
    with pytest.raises(config_lib.ConfigError, match="expected tanh, from whose"):
        groups.make_groups(config)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ('network="gur"', "did you mean 'gru'?"),
        ("num_layers=0", "expected an integer of at least 1"),
        ("grid.alpha=0.1", "grid.alpha = 0.1: unknown key; network leaky has it"),
        ("grid.w_hh_gian=1", "unknown key; did you mean 'w_hh_gain'?"),
    ],
)
def test_what_is_wrong_with_a_network_is_said(write, override, said):
    (problem,) = problems_of(write, GOOD, override)
    assert problem.endswith(said)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dale = 1.5", "expected a number above 0 and at most 1"),
        ("dale = { uniform = [0.1, 0.9], num = 2 }", "only real numbers can be drawn"),
        ("alpha = 1.5", "expected a number from 0 to 1"),
        ("noise = -1", "of at least 0"),
        ('nonlinearity = "rel"', "did you mean 'relu'?"),
        ("mask = 1", "grid.mask = 1: unknown key"),
    ],
)
def test_what_is_wrong_with_a_number_of_a_network_is_said(write, line, said):
    text = GOOD.replace("[grid]", f'[grid]\nnetwork = "leaky"\n{line}')
    (problem,) = problems_of(write, text)
    assert said in problem


def test_of_many_choices_those_are_named_that_leave_room_for_the_nearest():
    names = [
        f"name_of_a_task_{i:02}" for i in range(40)
    ]  # 19 characters each, with ", "
    shown = ", ".join(names[:15])
    assert arguments_lib.check_choice("name_of_a_task_3x", names).startswith(
        f"expected one of {shown} and 25 more; did you mean 'name_of_a_task_3"
    )
    assert arguments_lib.check_choice("x", names[:15]) == f"expected one of {shown}"
    long = "n" * 400
    assert (
        arguments_lib.check_choice("x", [long, "m"])
        == f"expected one of {long} and 1 more"
    )


@pytest.mark.parametrize(
    "name",
    [
        *("demo", "temporal_order_long", "networks/at_30", "networks/adding_30"),
        *("networks/flip_flop_30", "tasks/cards", "tasks/cards_leaky"),
        "tasks/far",
        *("paper_temporal_order", "paper_temporal_order_3bit"),
        "paper_random_permutation",
    ],
)
def test_configs_with_recorded_accuracies_look_at_all_samples(name):
    """Their numbers and pictures are of evaluations without stages."""
    config = config_lib.load(pathlib.Path(f"configs/{name}.toml"))
    assert config.validation_stages == ()
