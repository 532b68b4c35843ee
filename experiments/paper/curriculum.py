"""Growing T with the same weights, for `reproduce warm`: reach from a warm start.

The paper begins each length with fresh weights, and so does Table V. Here a member that
has solved a length goes on to the next with the weights that solved it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lra_jax import member, sweep, tiles, types
from lra_jax.experiment import Experiment
from lra_jax.lab.config import Config
from lra_jax.lab.runs import groups
from lra_jax.member import Initial, Limits, Status


def train_from(
    experiment: Experiment,
    grid: sweep.Grid,
    limits: Limits,
    params: types.Params | None,
) -> tuple[np.ndarray, np.ndarray, types.Params]:
    """Trains members from given weights until all have ended.

    Args:
      experiment: what all members have in common.
      grid: the members.
      limits: when they end unsolved.
      params: `[N, ...]`; None are the initial ones of each member's seed.

    Returns:
      Status `[N]`, updates `[N]`, and the weights `[N, ...]` at the end.
    """
    devices = tuple(jax.devices())
    program = sweep.make_program(experiment, devices)
    initial = _initial(experiment, grid.seeds, params)
    empty = sweep.init_sweep(grid).slots
    queue = np.arange(grid.seeds.size)
    done: list[np.ndarray] = []
    ended: list[tuple[np.ndarray, np.ndarray, types.Params]] = []
    while queue.size:  # once, where the slots are enough for all
        slots = tiles.fill(empty, grid.kind, queue, len(devices))
        arguments = grid.arguments(slots)
        fresh = np.ones(slots.shape, bool)
        row = np.maximum(slots, 0)
        runs = program.start(arguments, initial, row, fresh, None)
        full = slots != tiles.EMPTY
        while True:
            live = full & (np.asarray(runs.status) == Status.RUNNING)
            if not live.any():
                break
            runs, _ = program.chunk(limits, live.any(axis=1), arguments, runs)
        done.append(slots[full])
        ended.append(
            jax.tree.map(
                lambda x, full=full: np.asarray(x)[full],
                (runs.status, runs.train.step, runs.train.params),
            )
        )
        queue = np.setdiff1d(queue, slots)
    order = np.argsort(np.concatenate(done))
    status, step, params = jax.tree.map(
        lambda *parts: np.concatenate(parts)[order], *ended
    )
    return status, step, params


def _initial(
    experiment: Experiment, seeds: np.ndarray, params: types.Params | None
) -> Initial:
    """What each member starts from, `[N]`, and its evaluation."""

    @jax.jit
    def every(seeds: jax.Array, params: types.Params | None) -> Initial:
        return jax.lax.map(
            lambda pair: member.initial(experiment, pair[0], params=pair[1]),
            (seeds, params),
        )

    return every(jnp.asarray(seeds), params)


class Grown(NamedTuple):
    """How far the members of a grid have got, between two lengths.

    Attributes:
      by_length: see `grow_lengths`.
      alive: `[N]`, positions in the grid of the members that solved the last length;
        None before the first one.
      params: `[N, ...]`, the weights that solved it.
    """

    by_length: dict[int, list[dict[str, int]]]
    alive: np.ndarray | None = None
    params: types.Params | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it in values of JSON; `from_json` has every bit of the weights."""
        alive, params = self.alive, self.params
        return {
            "by_length": [*self.by_length.items()],
            "alive": None if alive is None else alive.tolist(),
            "params": None if params is None else [x.tolist() for x in params],
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Grown:
        """What `to_json` was made of; weights are float32."""
        alive, params = kept["alive"], kept["params"]
        return cls(
            dict(kept["by_length"]),
            None if alive is None else np.array(alive, int),
            None
            if params is None
            else types.Params(*(jnp.asarray(x, jnp.float32) for x in params)),
        )


def grow_lengths(
    config_of: Callable[[int], Config],
    lengths: Sequence[int],
    say: Callable[[str], None] = lambda text: None,
    *,
    begun: Grown | None = None,
    keep: Callable[[Grown], None] = lambda grown: None,
) -> dict[int, list[dict[str, int]]]:
    """Grows T for every member of a grid, each from its own weights.

    Args:
      config_of: T to the config of the grid, one group; members are the same at each T.
      lengths: T in the order to be tried.
      say: hears of each length.
      begun: what `keep` was given before, to go on from; None begins anew.
      keep: is given what there is after each length, before `say` hears of it.

    Returns:
      By T, for each member that tried it: `seed`, `setting` (its position among the
      members of that seed), `updates`, and `solved`, 0 or 1.
    """
    by_length, alive, params = begun or Grown({})
    for seq_len in lengths:
        if seq_len in by_length:
            continue
        if alive is not None and not alive.size:
            break
        config = config_of(seq_len)
        (group,) = groups.make_groups(config)
        whole = group.grid
        if alive is None:
            alive = np.arange(whole.seeds.size)
        numbers = {**whole.shared, **whole.mapped}
        grid = sweep.make_grid(
            group.experiment,
            {name: x[alive] for name, x in numbers.items()},
            whole.seeds[alive],
        )
        limits = Limits(config.max_steps, config.patience)
        status, step, params = train_from(group.experiment, grid, limits, params)
        solved = status == Status.SOLVED
        by_length[seq_len] = [
            {
                "seed": int(whole.seeds[i]),
                "setting": int(np.sum(whole.seeds[:i] == whole.seeds[i])),
                "updates": int(updates),
                "solved": int(good),
            }
            for i, updates, good in zip(alive, step, solved, strict=True)
        ]
        alive = alive[solved]
        params = jax.tree.map(lambda x, solved=solved: x[solved], params)
        keep(Grown(by_length, alive, params))
        say(f"T = {seq_len}: {solved.sum()} of {solved.size} members solved")
    return by_length
