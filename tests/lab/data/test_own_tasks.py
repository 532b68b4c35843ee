"""One's own data in a config: a file of arrays, or a task of a module."""

import contextlib
import json
import shutil
import sys

import jax
import numpy as np
import pytest

import lra_jax
from lra_jax.lab import config as config_lib
from lra_jax.lab.benches import real
from lra_jax.lab.config import ConfigError, extensions, tasks
from lra_jax.lab.data import own_arrays
from lra_jax.lab.data.sources import DatasetError
from lra_jax.lab.reports import run_view
from lra_jax.lab.runs import fingerprint, groups, provenance, store
from lra_jax.lab.terminal import machine

RANDOM = np.random.default_rng(0)
N, T = 40, 6
SYMBOLS = RANDOM.integers(0, 5, (N, T))
CLASSES = np.arange(N) % 4
VECTORS = RANDOM.normal(size=(N, T, 2))
OTHER = {
    "validation_inputs": RANDOM.integers(0, 5, (8, T)),
    "validation_labels": np.array([0, 0, 0, 0, 1, 1, 2, 3]),
}
CONFIG = """
task = "{}"
hidden_size = 4
[grid]
rule = ["bptt", "readout_only"]
lr = [0.1, 0.3]
"""
MODULE = """
import numpy as np
import lra_jax

CALLS = []
random = np.random.default_rng(0)
inputs, labels = random.integers(0, 5, (40, 6)), np.arange(40) % 4
one = lra_jax.Task.from_arrays(inputs, labels, validation=0.25)


def made():
    CALLS.append(1)
    return lra_jax.Task.from_arrays(inputs, labels, validation=0.25, test=0.25)


def broken():
    raise ValueError("the disk is full")


def with_argument(size):
    return one
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current directory, with a file, a module, and nothing left in the end."""
    monkeypatch.setattr(extensions, "_files", {})
    monkeypatch.setattr(machine, "prepare", lambda: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    np.savez("own.npz", inputs=SYMBOLS, labels=CLASSES, validation=0.25, test=0.25)
    (tmp_path / "my_data.py").write_text(MODULE)
    known = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - known:
        if name.startswith("my_"):
            del sys.modules[name]


def write(task, path="my.toml"):
    with open(path, "w") as file:
        file.write(CONFIG.format(task))
    return path


def problems(task, *overrides):
    with pytest.raises(ConfigError) as error:
        config_lib.load(write(task), overrides)
    return error.value.problems


def whole(samples):
    return jax.device_get(samples.take(np.arange(samples.size)))


# Files of arrays.


def test_a_file_is_the_task_of_its_arrays():
    task = tasks.find("own.npz")
    expected = lra_jax.Task.from_arrays(SYMBOLS, CLASSES, validation=0.25, test=0.25)
    for part in ("training", "validation", "test"):
        for a, b in zip(
            whole(getattr(task, part)), whole(getattr(expected, part)), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    assert task.chance == expected.chance
    assert tasks.find("own.npz") is task  # it is read once
    test = tasks.find("own.npz", "test")
    assert test.validation is task.test


def test_a_fifth_is_held_out_where_the_file_says_nothing():
    np.savez("own.npz", inputs=SYMBOLS, labels=CLASSES)
    task = tasks.find("own.npz")
    assert (task.validation.size, task.training.size) == (8, 32)
    with pytest.raises(DatasetError, match=r"^has no test part$"):
        tasks.find("own.npz", "test")


def test_a_file_may_have_parts_lengths_and_options():
    lengths = 1 + np.arange(N) % T
    np.savez(
        "own.npz", inputs=SYMBOLS, labels=CLASSES, lengths=lengths, **OTHER,
        test_inputs=SYMBOLS[:3, ::-1] % 3, test_labels=CLASSES[:3],
        test_lengths=[6, 2, 1], input_size=9, output_size=7,
    )  # fmt: skip
    task = tasks.find("own.npz")
    assert (task.input_size, task.output_size, task.chance) == (9, 7, 0.5)
    assert whole(task.test).start.tolist() == [0, 4, 5]
    np.savez(
        "own.npz", inputs=SYMBOLS.T, labels=SYMBOLS.T % 2, batch_first=False, seed=3,
        output_loss="cross_entropy_every_step", validation=0.5,
    )  # fmt: skip
    task = tasks.find("own.npz")
    assert task.output_loss == lra_jax.cross_entropy_every_step
    other = lra_jax.Task.from_arrays(SYMBOLS, SYMBOLS % 2, validation=0.5, seed=3)
    np.testing.assert_array_equal(
        whole(task.validation).inputs, whole(other.validation).inputs
    )


def test_a_file_may_have_weights():
    """Of all parts; another weight is another run."""
    values = VECTORS[:, :, :1] - 0.5
    columns = {
        "inputs": VECTORS,
        "labels": values,
        "weights": RANDOM.uniform(size=(N, T)),
        "output_loss": "squared_error_every_step",
        "test_inputs": VECTORS[:7] + 1,
        "test_labels": values[:7],
        "test_weights": np.arange(7 * T).reshape(7, T),
        "test_lengths": np.full(7, T - 2),
    }
    np.savez("own.npz", **columns)
    task = tasks.find("own.npz")
    labels = lra_jax.Weighted(columns["labels"], columns["weights"])
    expected = lra_jax.Task.from_arrays(
        VECTORS, labels, validation=0.2, output_loss=lra_jax.squared_error_every_step
    )
    for part in ("training", "validation"):
        a, b = (whole(getattr(each, part)) for each in (task, expected))
        jax.tree.map(np.testing.assert_array_equal, a, b)
    weights = whole(task.test).labels.weights
    assert weights[:, 1].tolist() == [0, 0, *range(T, 2 * T - 2)]
    before = fingerprint.of(config_lib.load(write("own.npz")))
    columns["weights"][3, 2] += 1
    np.savez("own.npz", **columns)
    after = fingerprint.of(config_lib.load(write("own.npz")))
    assert fingerprint.changes_of_data(before, after) == [
        "the data of own.npz are others"
    ]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({}, "own.npz: inputs: missing; the file has seed"),
        ({"inputs": SYMBOLS}, "own.npz: labels: missing; the file has seed, inputs"),
        ({"lables": CLASSES}, "own.npz: lables: unknown; expected some of inputs, labels, weights, lengths, validation_inputs, validation_labels, validation_weights, validation_lengths, test_inputs, test_labels, test_weights, test_lengths, validation, test, seed, batch_first, output_loss, input_size, output_size; did you mean 'labels'?"),
        ({"inputs": SYMBOLS, "labels": CLASSES[:3]}, "own.npz: labels: expected N = 40 integer classes"),
        ({"inputs": SYMBOLS, "labels": CLASSES, "validation": [0.5]}, "own.npz: validation: expected one value, got float64 (1,); arrays of a part are validation_inputs and validation_labels"),
        ({"inputs": SYMBOLS, "labels": CLASSES, "seed": [1]}, "own.npz: seed: expected one value, got int64 (1,)"),
        ({"inputs": SYMBOLS, "labels": CLASSES, "output_loss": "mse"}, "own.npz: output_loss: expected one of cross_entropy, squared_error, cross_entropy_every_step, binary_cross_entropy_every_step, squared_error_every_step, got 'mse'"),
        ({"inputs": SYMBOLS, "labels": CLASSES, "test_labels": CLASSES}, "own.npz: test_inputs: missing beside test_labels"),
        ({"inputs": SYMBOLS, "labels": SYMBOLS, "weights": np.ones((N, T)), **OTHER}, "own.npz: validation_weights: missing beside weights"),
        ({"inputs": SYMBOLS, "labels": SYMBOLS, "validation_weights": np.ones((8, T)), **OTHER}, "own.npz: weights: missing beside validation_weights"),
        ({"inputs": SYMBOLS, "labels": SYMBOLS, "weights": np.ones((N, 2))}, "own.npz: labels.weights: expected real numbers [N, T] = (40, 6), got float64 (40, 2)"),
        ({"inputs": SYMBOLS, "labels": CLASSES, "weights": np.ones(N)}, "own.npz: labels.weights: expected no weights, as the labels of cross_entropy are integer classes [N], got float64 (40,)"),
        ({"inputs": SYMBOLS, "labels": CLASSES, "validation": 0.5, **OTHER}, "own.npz: validation: expected a fraction or arrays, got both"),
        ({"inputs": SYMBOLS, "labels": np.array([None] * N)}, "own.npz cannot be read: it holds Python objects; expected arrays of numbers"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_task_gets_a_reason(columns, said):
    np.savez("own.npz", **({"seed": 0} | columns))
    with pytest.raises(DatasetError) as error:
        tasks.find("own.npz")
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 damaged", None])
def test_a_damaged_file_is_one_message(folder, content):
    data = (folder / "own.npz").read_bytes()
    (folder / "own.npz").write_bytes(data[:300] if content is None else content)
    (problem,) = problems("own.npz")
    assert problem.startswith('task = "own.npz": own.npz cannot be read: ')


def test_one_array_is_no_file_of_arrays(folder):
    with open("own.npz", "wb") as file:
        np.save(file, CLASSES)
    with pytest.raises(
        DatasetError, match=r"it is one array; numpy\.savez writes several"
    ):
        own_arrays.read_task(folder / "own.npz")


def test_a_file_that_is_not_there_gets_the_nearest_name():
    (problem,) = problems("onw.npz")
    assert problem == (
        'task = "onw.npz": onw.npz: there is no such file, beside the config or in the '
        "current directory; did you mean own.npz?"
    )


def test_the_nearest_name_is_sought_beside_the_config(folder):
    (folder / "configs").mkdir()
    (folder / "own.npz").rename("configs/own.npz")
    with pytest.raises(ConfigError) as error:
        config_lib.load(write("onw.npz", "configs/my.toml"))
    assert error.value.problems[0].endswith("; did you mean configs/own.npz?")


def test_a_flipped_bit_of_a_file_is_a_message_or_no_harm(folder):
    np.savez("own.npz", inputs=np.zeros(2), labels=np.zeros(2))
    path = folder / "own.npz"
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with contextlib.suppress(DatasetError):
            own_arrays._read(path)


# Paths.


def test_a_path_is_beside_the_config_or_in_the_current_directory(folder):
    (folder / "configs").mkdir()
    assert config_lib.load(write("own.npz", "configs/my.toml")).task == "own.npz"
    shutil.copy("own.npz", "configs/own.npz")
    config = config_lib.load(write("own.npz", "configs/my.toml"))
    assert config.task == "configs/own.npz"
    absolute = config_lib.load(folder / "configs/my.toml")
    assert absolute.task == "configs/own.npz"  # however the config is named
    # The resolved config of a run, in another folder, means the same.
    (folder / "runs").mkdir()
    (folder / "runs/config.resolved.toml").write_text(config.to_toml())
    again = config_lib.load("runs/config.resolved.toml")
    assert again.digest() == config.digest()


def test_a_path_outside_of_the_current_directory_is_whole(folder, monkeypatch):
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    config = config_lib.load(write("own.npz", "../my.toml"))
    assert config.task == (folder / "own.npz").as_posix()


# Modules.


@pytest.mark.parametrize("name", ["my_data:one", "my_data:made"])
def test_a_task_of_a_module(name):
    config = config_lib.load(write(name))
    assert (config.task, config.num_validation) == (name, 10)
    assert all(table["seq_len"] == (T,) for table in config.grid)
    assert config.import_ == ()
    for group in groups.make_groups(config):
        assert group.experiment.task is tasks.find(name)
    # A function is called once.
    assert len(sys.modules["my_data"].CALLS) == (name == "my_data:made")
    assert [path.name for path in extensions.imported_files()] == ["my_data.py"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_data:mode", "module 'my_data' has no 'mode'; did you mean 'made'?"),
        ("my_dat:one", "module 'my_dat' cannot be imported: ModuleNotFoundError: No module named 'my_dat'"),
        ("my_data:broken", "broken() failed: ValueError: the disk is full (my_data.py, line "),
        ("my_data:with_argument", "with_argument() failed: TypeError: with_argument() missing 1 required positional argument: 'size'"),
        ("my_data:labels", "labels: expected a lra_jax.Task, or a function without arguments that returns one, got ndarray"),
        ("my_data.py:one", "expected MODULE:NAME, such as my_data:task; 'my_data.py': expected the name of a module; write my_data"),
        ("my_data:", "expected MODULE:NAME, such as my_data:task"),
        (":", "expected MODULE:NAME, such as my_data:task"),
    ],
)  # fmt: skip
def test_what_is_no_task_of_a_module_is_one_message(name, said):
    assert f'task = "{name}": {said}' in "\n".join(problems(name))
    assert len(problems(name)) == 1


def test_a_name_that_is_nobodys_says_how_own_data_are_named():
    (problem,) = problems("qqqq")
    assert problem.endswith(
        "; one of your own: FILE.npz, MODULE:NAME or --import MODULE"
    )


# Configs.


def test_the_length_and_the_size_of_the_validation_set_are_the_datas():
    config = config_lib.load(write("own.npz"))
    assert config.num_validation == 10
    assert config.grid[0]["seq_len"] == (T,)
    assert problems("own.npz", "seq_len=7") == [
        "seq_len = 7: task 'own.npz' has 6; it may be left out"
    ]
    assert problems("own.npz", "num_validation=7") == [
        "num_validation = 7: task 'own.npz' has 10; it may be left out"
    ]
    test = config_lib.load("my.toml", ["split=test"])
    (first, _) = groups.make_groups(test)
    assert first.experiment.task.validation is tasks.find("own.npz").test


def test_own_tasks_may_be_an_axis():
    override = 'grid.task=["own.npz", "my_data:made"]'
    config = config_lib.load(write("own.npz"), [override])
    assert len([*config.members()]) == 8
    assert {m["task"] for m in config.members()} == {"own.npz", "my_data:made"}


def test_numbers_of_a_run_in_float64_are_not_rounded():
    np.savez("own.npz", inputs=VECTORS, labels=CLASSES)
    narrow = tasks.find("own.npz")
    with machine.in_float64():
        wide = tasks.find("own.npz")
        values = whole(wide.validation).inputs
        assert values.dtype == np.float64
        assert {*values.ravel()} <= {*VECTORS.ravel()}
    assert whole(narrow.validation).inputs.dtype == np.float32


def test_a_registered_task_may_have_any_name(monkeypatch):
    for name in ("noise:0.1", "noise.npz"):
        monkeypatch.setitem(lra_jax.TASKS, name, lra_jax.TASKS["adding"])
        assert not tasks.is_own(name)
        assert tasks.find(name) is lra_jax.TASKS["adding"]
    assert tasks.is_own("noise:0.2")


def test_reports_know_the_chance_and_names_of_files_are_plain():
    np.savez("own.npz", inputs=SYMBOLS, labels=CLASSES, **OTHER)
    assert run_view.chance("own.npz", {"own.npz": 0.5}) == 0.5
    assert run_view.chance("own.npz", {}) is None  # a report reads no data of others
    assert run_view.chance("temporal_order", {}) == 0.25
    assert run_view.chance("gone.npz", {}) is None
    assert run_view.chance("my_none:x", {}) is None
    assert tasks.file_name("data/own.npz") == "data-own"
    assert tasks.file_name("my_data:made") == "my_data-made"
    assert tasks.file_name("temporal_order") == "temporal_order"


# What a run folder knows of the data.


@pytest.mark.parametrize("name", ["own.npz", "my_data:made"])
def test_the_fingerprint_has_the_data(name, folder):
    config = config_lib.load(write(name))
    before = fingerprint.of(config)
    key = f"data of {name}"
    assert {*before} - {*fingerprint.ours()} == {key}
    assert fingerprint.of(config_lib.load("my.toml")) == before
    np.savez(
        "own.npz", inputs=SYMBOLS, labels=CLASSES[::-1], validation=0.25, test=0.25
    )
    after = fingerprint.of(config)
    is_file = name == "own.npz"
    assert fingerprint.changes(before, after) == []
    assert (
        fingerprint.changes_of_data(before, after)
        == [f"the {key} are others"] * is_file
    )
    assert fingerprint.changes_of_data({}, after) == []  # an older folder


def test_a_run_of_other_data_is_another_run(folder):
    config = config_lib.load(write("own.npz"))
    described = provenance.describe_environment(config, ["grid"])
    for labels, says in (
        (CLASSES, None),
        (CLASSES[::-1], "the data of own.npz are others"),
    ):
        run = store.RunFolder(folder / "run", config, accept_old_code=True)
        np.savez("own.npz", inputs=SYMBOLS, labels=labels, validation=0.25, test=0.25)
        if says is None:
            run.open(resume=False)
            text = json.dumps(described | {"finished": True})
            (folder / "run/manifest.json").write_text(text)
            assert run.is_finished()
        else:
            assert not run.is_finished()
            with pytest.raises(store.OtherRunError, match=says):
                run.open(resume=True)
        run.close()


def test_the_fingerprint_of_a_registered_task_has_its_data(monkeypatch):
    digests = set()
    for labels in (CLASSES, CLASSES[::-1]):
        task = lra_jax.Task.from_arrays(SYMBOLS, labels, validation=0.25)
        monkeypatch.setitem(lra_jax.TASKS, "mine", task)
        config = config_lib.load(write("mine"))
        digests.add(fingerprint.of(config)["data of mine"])
    assert len(digests) == 2
    usual = config_lib.load(write("temporal_order"), ["seq_len=10"])
    assert fingerprint.of(usual) == fingerprint.ours()


# A bench.

BENCH = """
name = "b"
task = "{}"
num_trials = 1
[methods.bptt]
label = "BPTT"
grid = {{ rule = "bptt", lr = 0.1 }}
"""


@pytest.mark.parametrize("name", ["own.npz", "my_data:made"])
def test_a_bench_of_real_data_takes_a_task_of_ones_own(name, folder):
    (folder / "benches").mkdir()
    (folder / "benches/b.toml").write_text(BENCH.format(name))
    bench = real.load("benches/b.toml")
    assert (bench.task, real.title_of(bench.task)) == (name, name)
    assert bench.tuning("bptt").num_validation == 10
    assert not real.varies(name)
    assert not real.is_nll(name)
    shutil.copy("own.npz", "benches/own.npz")
    moved = real.load("benches/b.toml").task
    assert moved == ("benches/own.npz" if name == "own.npz" else name)


def test_a_bench_needs_a_test_part(folder):
    (folder / "b.toml").write_text(BENCH.format("my_data:one"))
    with pytest.raises(ConfigError, match="task = my_data:one: has no test part"):
        real.load("b.toml")
