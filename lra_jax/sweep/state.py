"""Where a sweep is: results, curves, and the members in their slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from lra_jax import types
from lra_jax.member import RunState


class Curves(NamedTuple):
    """Evaluations of all members, one row each, in the order they were made.

    Attributes:
      member: `[R]` int32, whose evaluation it is.
      step: `[R]` int32, updates done.
      train_loss: `[R]` float32, mean since the member's last row; NaN at step 0.
      loss: `[R]` float32, E, mean over the samples that the evaluation looked at.
      num_errors: `[R]` int32, among these. It is 0 only where all were looked at and
        at step 0.
      num_samples: `[R]` int32, how many these are, see `lra_jax.validation`.

    Example:
      `run_sweep` has one.
    """

    member: np.ndarray
    step: np.ndarray
    train_loss: np.ndarray
    loss: np.ndarray
    num_errors: np.ndarray
    num_samples: np.ndarray


class Members(NamedTuple):
    """Where each member is, arrays `[N]` of int32; -1 is not known yet.

    Attributes:
      status: a `Status`.
      step: updates done.
      num_errors: at the last evaluation.
      num_samples: that it looked at.
      best_num_errors: at the best evaluation, see `lra_jax.validation`; without stages
        the fewest of all.
      best_num_samples: that it looked at.
      best_step: updates done at the first such evaluation.

    Example:
      `run_sweep` has one.
    """

    status: np.ndarray
    step: np.ndarray
    num_errors: np.ndarray
    num_samples: np.ndarray
    best_num_errors: np.ndarray
    best_num_samples: np.ndarray
    best_step: np.ndarray


class SweepState(NamedTuple):
    """All that is needed to go on, between two chunks.

    Attributes:
      slots: `[tiles, width]` int32, the member in each slot, or `EMPTY`.
      runs: arrays `[tiles, width, ...]`; None when all slots are empty.
      members: results so far.
      curves: evaluations so far.
      params: `[N, ...]` NumPy arrays, the weights that `run_sweep` was asked to keep;
        None without that, and before its end.

    Example:
      `run_sweep` has one.
    """

    slots: np.ndarray
    runs: RunState | None
    members: Members
    curves: Curves
    params: types.AnyParams | None = None


Weights = Mapping[int, types.AnyParams]  # members to NumPy arrays


OnChunk = Callable[[SweepState, Weights], None]
