"""Environments of neurogym as recorded tasks: trials that are drawn once, by a seed.

task = "neurogym:PerceptualDecisionMaking-v0"

A trial is what the environment shows if nothing is ever answered, with the ground truth
of each step, whose 0 is to fixate. Trials are aligned at their ends. Steps of fixation
have the weight 1, and the others together as much as these. A trial is right as in
`lra_jax.tasks.trials`: fixation wherever it is asked for, and the right class at the
last step that asks for another one.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lra_jax import Batch, Samples, Task, Weighted
from lra_jax.lab.data.sources import DatasetError, MissingDatasetError
from lra_jax.tasks.trials import fixate_then_answer

PREFIX = "neurogym:"
NUM_TRAINING, NUM_VALIDATION, SEED = 4000, 1000, 0


@functools.cache
def find(
    name: str,
    num_training: int = NUM_TRAINING,
    num_validation: int = NUM_VALIDATION,
    seed: int = SEED,
) -> Task:
    """The task of an environment.

    Args:
      name: of the environment, as neurogym registers it.
      num_training: trials to train on.
      num_validation: trials to evaluate on.
      seed: of all trials.

    Raises:
      DatasetError: neurogym is not installed, or knows no such environment, or its
        answers are no classes of every step.
    """
    trials = _draw(name, num_training + num_validation, seed)
    seq_len = max(len(truth) for _, truth in trials)
    padded = [_pad(*trial, seq_len) for trial in trials]
    x, labels, weights, start = (
        np.stack(arrays) for arrays in zip(*padded, strict=True)
    )
    num_classes = int(labels.max()) + 1
    training = _samples(x, labels, weights, start, slice(num_training))
    validation = _samples(x, labels, weights, start, slice(num_training, None))

    def draw(key: jax.Array, batch_size: int, seq_len: int) -> Batch:
        del seq_len  # there is one
        return training.take(jax.random.randint(key, (batch_size,), 0, num_training))

    answers = labels[num_training:].max(axis=1)
    return Task(
        draw=draw,
        input_size=x.shape[2],
        output_size=max(2, num_classes),
        min_seq_len=seq_len,
        max_seq_len=seq_len,
        chance=float(np.bincount(answers).max() / num_validation),
        output_loss=fixate_then_answer,
        validation=validation,
        training=training,
    )


def _draw(name: str, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Observations `[L, X]` and ground truths `[L]` of trials."""
    try:
        import neurogym
    except ImportError as error:
        raise MissingDatasetError(
            f"needs neurogym: pip install 'lra_jax[neurogym]'; {error}"
        ) from None
    except Exception as error:  # of one that is older than what it is made of
        raise DatasetError(
            f"neurogym cannot be imported ({type(error).__name__}: {error})"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Gymnasium, about its metadata
            env = neurogym.make(name).unwrapped
            env.reset(seed=seed)
        env.seed(seed)
    except Exception as error:
        raise DatasetError(f"neurogym makes no {name!r}: {error}") from None
    trials = []
    for _ in range(count):
        try:
            env.new_trial()
        except Exception as error:
            raise DatasetError(f"{name}: a trial failed: {error}") from None
        x, truth = (np.array(getattr(env, name, None)) for name in ("ob", "gt"))
        if x.ndim != 2 or truth.shape != x.shape[:1] or truth.dtype.kind not in "iu":
            raise DatasetError(
                f"{name}: expected observations [L, X] and classes [L], got "
                f"{x.dtype} {x.shape} and {truth.dtype} {truth.shape}"
            )
        trials.append((x.astype(np.float32), truth.astype(np.int32)))
    return trials


def _pad(x: np.ndarray, truth: np.ndarray, seq_len: int) -> tuple[Any, ...]:
    """A trial at the end of T steps: inputs, classes, weights, and where it starts."""
    start = seq_len - len(truth)
    fixate = truth == 0
    waits = int(np.count_nonzero(fixate))
    weights = np.where(fixate, 1, max(1, waits) / max(1, len(truth) - waits))
    before = ((start, 0),)
    return (
        np.pad(x, (*before, (0, 0))),
        np.pad(truth, before),
        np.pad(weights.astype(np.float32), before),
        np.int32(start),
    )


def _samples(
    x: np.ndarray, labels: np.ndarray, weights: np.ndarray, start: Any, part: slice
) -> Samples:
    """The trials of a part; they go to the device when the first are taken."""
    arrays = tuple(array[part] for array in (x, labels, weights, start))

    @functools.cache
    def stored() -> tuple[jax.Array, ...]:
        with jax.ensure_compile_time_eval():  # may be asked for within a program
            return tuple(jnp.asarray(array) for array in arrays)

    def take(indices: Any) -> Batch:
        inputs, classes, weighs, begin = (array[indices] for array in stored())
        real = jnp.result_type(float)
        return Batch(
            inputs=jnp.swapaxes(inputs, 0, 1).astype(real),
            labels=Weighted(classes.T, weighs.T.astype(real)),
            start=begin,
        )

    return Samples(len(arrays[0]), take)
