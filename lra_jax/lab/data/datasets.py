"""The data sets that there are, and the task that each becomes.

A data set's task draws from its training part, with replacement, and is evaluated on a
fixed part. Values stay as small as the file has them until a batch of them is taken.
docs/real_data.md says how each is divided.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from lra_jax import Task, losses, types
from lra_jax.lab.data import sources
from lra_jax.lab.data.formats import Records
from lra_jax.lab.data.parts import Parts, divide
from lra_jax.lab.data.sources import DatasetError
from lra_jax.tasks import Samples

Part = Literal["validation", "test"]


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


def _images(
    name: str,
    title: str,
    read: Callable[[], Records],
    validation: int,
    test: int | None,
) -> dict[str, Dataset]:
    """Images of 28 x 28 pixels by rows, pixels, and eight pixels at a time."""
    forms = {
        "rows": ("rows", read),
        "pixels": ("pixels", sources.pixels(read)),
        "pixels_permuted": ("pixels, permuted", sources.pixels(read, permuted=True)),
        "eights": ("eight pixels a step", sources.pixels(read, 8)),
        "eights_permuted": (
            "eight pixels a step, permuted",
            sources.pixels(read, 8, permuted=True),
        ),
    }
    return {
        f"{name}_{form}": Dataset(
            f"{title}, {words}", reshaped, 10, validation, test, scale=255
        )
        for form, (words, reshaped) in forms.items()
    }


DATASETS: dict[str, Dataset] = {
    "digits_rows": Dataset("digits, rows", sources.digits, 10, 30, 30, scale=16),
    "digits_pixels": Dataset(
        "digits, pixels", sources.pixels(sources.digits), 10, 30, 30, scale=16
    ),
    "japanese_vowels": Dataset("Japanese vowels", sources.vowels, 9, 10, None),
    **_images("mnist", "MNIST-5k", sources.mnist, 50, 100),
    **_images("fashion", "Fashion-MNIST", sources.fashion, 500, None),
    "chorales": Dataset(
        "Bach chorales",
        sources.chorales,
        output_size=sources.NUM_KEYS,
        validation=50,
        test=50,
        output_loss=losses.binary_cross_entropy_every_step,
    ),
}


@functools.cache
def find(name: str, part: Part = "validation") -> Task:
    """The task of a data set.

    Args:
      name: of `DATASETS`.
      part: that is evaluated on: for "validation" the training part is trained on, for
        "test" training and validation together.

    Raises:
      KeyError: an unknown name.
      DatasetError: the data are not there, or not what was expected.
    """
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
        training=training,
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

    @functools.cache
    def stored() -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
        with jax.ensure_compile_time_eval():  # may be asked for within a program
            classes = None if labels is None else jnp.asarray(labels)
            begin = None if start is None else jnp.asarray(start)
            return jnp.asarray(inputs), classes, begin

    def take(indices: jax.Array) -> types.Batch:
        x, classes, begin = stored()
        begin = None if begin is None else begin[indices]
        x = jnp.swapaxes(x[indices], 0, 1).astype(jnp.float32) / dataset.scale
        if classes is not None:
            return types.Batch(x, classes[indices], begin)
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
