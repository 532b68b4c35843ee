"""What an update costs, for the tables of `reach`: its time, and memory over T."""

from __future__ import annotations

import functools
import time
from typing import Any, NamedTuple

import jax
from jax import lax

from lra_jax import member, train, types
from lra_jax.lab.config import Config
from lra_jax.lab.runs import groups

SEQ_LEN = (100, 1000)  # time is taken at the first, memory between the two
_ROUNDS, _UPDATES = 5, 10


class Cost(NamedTuple):
    """What an update costs.

    Attributes:
      seconds: of an update of one member.
      bytes_per_step: memory that an update needs for each step of T.
    """

    seconds: float
    bytes_per_step: float


def measure(short: Config, long: Config) -> Cost:
    """The cost of a config's first member, at the two lengths of `SEQ_LEN`."""
    first, second = _first_update(short), _first_update(long)
    growth = _memory(*second) - _memory(*first)
    return Cost(
        seconds=_seconds(*first),
        bytes_per_step=growth / (SEQ_LEN[1] - SEQ_LEN[0]),
    )


def _first_update(config: Config) -> tuple[Any, types.TrainState, types.Batch]:
    """An update of the first member, its state and a batch."""
    group = groups.make_groups(config)[0]
    experiment, grid = group.experiment, group.grid
    values = {name: x[0] for name, x in {**grid.mapped, **grid.shared}.items()}
    rule, optimizer = experiment.build(values)
    seed = grid.seeds[0]
    state = member.first_state(experiment, values, seed)
    update = functools.partial(train.train_step, rule=rule, optimizer=optimizer)
    return update, state, member.draw_batch(experiment, seed, state.step)


def _memory(update: Any, state: types.TrainState, batch: types.Batch) -> int:
    """Bytes that the compiled update takes besides its arguments and results.

    As in a grid, where nobody reads the norms of single steps.
    """
    trained = jax.jit(lambda state, batch: update(state, batch)[0])
    analysis = trained.lower(state, batch).compile().memory_analysis()
    assert analysis is not None  # all backends that we know have it
    return int(analysis.temp_size_in_bytes)


def _seconds(update: Any, state: types.TrainState, batch: types.Batch) -> float:
    """The least time of an update over some rounds."""

    @jax.jit
    def several(state: types.TrainState, batch: types.Batch) -> types.TrainState:
        return lax.scan(
            lambda s, _: (update(s, batch)[0], None), state, length=_UPDATES
        )[0]

    best = float("inf")
    jax.block_until_ready(several(state, batch))
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        jax.block_until_ready(several(state, batch))
        best = min(best, (time.perf_counter() - began) / _UPDATES)
    return best
