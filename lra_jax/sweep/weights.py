"""The weights of members: as they end, and those that are kept."""

from __future__ import annotations

import jax
import numpy as np

from lra_jax import types
from lra_jax.member import RunState
from lra_jax.sweep import processes
from lra_jax.sweep.state import Weights
from lra_jax.tiles import EMPTY


def of_ended(runs: RunState, before: np.ndarray, after: np.ndarray) -> Weights:
    """The weights of the members that a chunk took out of the slots."""
    left = np.argwhere((before != EMPTY) & (after == EMPTY))
    if not left.size:
        return {}
    params = jax.device_get(processes.local(runs.train.params))
    return {
        int(before[tile, slot]): types.Params(*(x[tile, slot] for x in params))
        for tile, slot in left
    }
