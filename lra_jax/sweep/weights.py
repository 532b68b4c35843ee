"""The weights of members: of those that end, and of each at one of its evaluations."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import numpy as np

from lra_jax import types
from lra_jax.member import RunState
from lra_jax.sweep import processes
from lra_jax.sweep.state import Members, Weights
from lra_jax.tiles import EMPTY

Evaluation = Literal["last", "best"]


def of_ended(runs: RunState, before: np.ndarray, after: np.ndarray) -> Weights:
    """The weights of the members that a chunk took out of the slots."""
    left = (before != EMPTY) & (after == EMPTY)
    if not left.any():
        return {}
    params = _of_slots(runs, left)
    return {
        int(member): jax.tree.map(lambda x, i=i: x[i], params)
        for i, member in enumerate(before[left])
    }


def _of_slots(runs: RunState, mask: np.ndarray) -> types.AnyParams:
    """`[n, ...]`: the weights in the n slots of the mask, NumPy arrays."""
    params = jax.device_get(processes.local(runs.train.params))
    return jax.tree.map(lambda x: np.asarray(x)[mask], params)


class KeptWeights:
    """The weights of every member at its last or at its best evaluation so far.

    They are on the host: the compiled program is the same with and without them.

    Attributes:
      params: `[N, ...]` NumPy arrays, NaN where a member has not started; None before
        the first starts.

    Raises:
      ValueError: `evaluation` is neither "last" nor "best".
    """

    def __init__(self, evaluation: Evaluation, num_members: int):
        if evaluation not in get_args(Evaluation):
            raise ValueError(
                f"keep_params: expected None, 'last' or 'best', got {evaluation!r}"
            )
        self.params: types.AnyParams | None = None
        self._is_best = evaluation == "best"
        self._num_members = num_members

    def note_start(
        self, joining: np.ndarray, row: np.ndarray, initial: types.AnyParams
    ) -> None:
        """Notes the weights that members start from: their evaluation is the first.

        Args:
          joining: `[n]` members.
          row: `[n]`, where they are in `initial`.
          initial: `[S, ...]`, on the devices.
        """
        params = jax.device_get(processes.local(initial))
        self._write(joining, jax.tree.map(lambda x: x[row], params))

    def note_chunk(
        self, members: Members, runs: RunState, before: np.ndarray, after: np.ndarray
    ) -> None:
        """Notes the weights at the evaluation that a chunk ends with.

        Args:
          members: after the chunk.
          runs: `[tiles, width, ...]`, after the chunk.
          before: `[tiles, width]`, the members that it advanced.
          after: `[tiles, width]`, those of them that go on.
        """
        mask = before != EMPTY
        if self._is_best:
            mask &= members.best_step[before] == members.step[before]
        else:
            mask &= after == EMPTY
        if mask.any():
            self._write(before[mask], _of_slots(runs, mask))

    def _write(self, index: np.ndarray, params: types.AnyParams) -> None:
        if self.params is None:
            size = (self._num_members,)
            self.params = jax.tree.map(
                lambda x: np.full(size + x.shape[1:], np.nan, x.dtype), params
            )
        columns = jax.tree.leaves(self.params)
        for column, values in zip(columns, jax.tree.leaves(params), strict=True):
            column[index] = values
