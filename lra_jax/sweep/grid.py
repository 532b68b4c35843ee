"""Which members there are, and the arrays that tell them apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from lra_jax import settings
from lra_jax.experiment import Experiment, Hyperparameters
from lra_jax.tiles import EMPTY


class Arguments(NamedTuple):
    """What tells the members in some slots apart.

    Attributes:
      shared: name to `[tiles]`, hyper-parameters that are a scalar for each tile.
      mapped: name to `[tiles, width]`, all others.
      seeds: `[tiles, width]` uint32.
    """

    shared: Any
    mapped: Any
    seeds: Any

    @property
    def hyperparameters(self) -> Hyperparameters:
        """Of one slot, all."""
        return {**self.shared, **self.mapped}


class Grid(NamedTuple):
    """The members of a sweep.

    Attributes:
      shared: name to `[N]`, hyper-parameters that are a scalar for each tile.
      mapped: name to `[N]`, all others.
      seeds: `[N]` uint32.
      kind: `[N]` int, equal for members that may be in one tile: a number for each
        different combination of shared values, in increasing order.
      race: `[N]` int, equal for members of which the first that is solved ends the
        others; None if all run to their own end.
      weight_bytes: of one member, which set how wide a tile is; None is not known.

    Example:
      `make_grid` has one.
    """

    shared: dict[str, np.ndarray]
    mapped: dict[str, np.ndarray]
    seeds: np.ndarray
    kind: np.ndarray
    race: np.ndarray | None = None
    weight_bytes: int | None = None

    def occupants(self, slots: np.ndarray) -> np.ndarray:
        """The member that each slot computes, `[tiles, width]`.

        An empty slot computes a copy of another one of its tile, and is ignored.
        """
        some = np.maximum(slots.max(axis=1, keepdims=True), 0)
        return np.where(slots == EMPTY, some, slots)

    def arguments(self, slots: np.ndarray) -> Arguments:
        """Of the members in the slots, `[tiles, width]`; see `occupants`."""
        members = self.occupants(slots)
        return Arguments(
            {name: x[members.max(axis=1)] for name, x in self.shared.items()},
            {name: x[members] for name, x in self.mapped.items()},
            self.seeds[members],
        )


def make_grid(
    experiment: Experiment, hyperparameters: Mapping[str, ArrayLike], seeds: ArrayLike
) -> Grid:
    """Checks and sorts out the arrays of a grid.

    Args:
      experiment: knows which hyper-parameters are shared.
      hyperparameters: name to `[N]` values.
      seeds: `[N]` integers from 0 to 2³² - 1.

    Raises:
      ValueError: the arrays do not have one value per member, hyper-parameters are no
        real numbers, seeds no integers from 0 to 2³² - 1, or a number of the network
        is none of the hyper-parameters.

    Example:
      >>> experiment = sweep.Experiment(
      ...     lra_jax.TASKS["temporal_order"],
      ...     lambda numbers: (lra_jax.readout_only(), optax.sgd(numbers["lr"])),
      ...     seq_len=10, hidden_size=8, eval_every=5, num_validation=50,
      ... )
      >>> numbers = {"lr": [0.1, 0.3], "num_refinements": [1, 2]}
      >>> grid = sweep.make_grid(experiment, numbers, seeds=[0, 0])
      >>> sorted(grid.mapped), sorted(grid.shared), grid.kind.tolist()
      (['lr'], ['num_refinements'], [0, 1])
    """
    seeds = settings.check_seeds(seeds)
    arrays = {
        name: settings.check_values(name, values, seeds.size)
        for name, values in hyperparameters.items()
    }
    for name in experiment.network_numbers:
        if name not in arrays:
            raise ValueError(
                f"network_numbers: expected names of hyper-parameters, got {name!r}"
                f"{settings.did_you_mean(name, arrays)}"
            )
    shared = {n: x for n, x in arrays.items() if n in experiment.shared}
    values = np.stack([np.zeros(seeds.shape), *shared.values()], axis=1)
    return Grid(
        shared=shared,
        mapped={n: x for n, x in arrays.items() if n not in experiment.shared},
        seeds=seeds,
        kind=np.unique(values, axis=0, return_inverse=True)[1].reshape(-1),
        weight_bytes=_weight_bytes(experiment, arrays),
    )


def _weight_bytes(experiment: Experiment, arrays: Mapping[str, np.ndarray]) -> int:
    """Of one member's weights. Nothing is computed."""
    numbers = {name: arrays[name][0] for name in experiment.network_numbers}
    key = jax.eval_shape(jax.random.key, 0)
    params = jax.eval_shape(experiment.init_params, key, numbers)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(params))
