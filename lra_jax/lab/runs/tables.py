"""The tables of a run: a row per member, a row per evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lra_jax import sweep
from lra_jax.lab.config import Config
from lra_jax.lab.runs.groups import Group
from lra_jax.member import Status
from lra_jax.sweep import SweepState


def result_rows(
    config: Config, groups: Sequence[Group], states: Sequence[SweepState | None]
) -> list[dict[str, Any]]:
    """A row per member, in the order of `config.members()`.

    Accuracies are those of the weights at the best and at the last evaluation, as
    fractions of the samples that these looked at.
    """
    rows = []
    found: dict[int, tuple[int, ...]] = {}
    for group, state in zip(groups, states, strict=True):
        state = state or sweep.init_sweep(group.grid)
        columns = list(zip(*(x.tolist() for x in state.members), strict=True))
        for i, member in enumerate(group.members):
            found[int(member)] = columns[i]
    for index, member in enumerate(config.members()):
        status, step, errors, samples, best, best_samples, best_step = found[index]
        rows.append(
            {
                "member": index,
                **member,
                "status": Status(status).name.lower(),
                "step": step,
                "final_num_errors": errors if errors >= 0 else None,
                "final_num_samples": samples if errors >= 0 else None,
                "final_accuracy": 1 - errors / samples if errors >= 0 else None,
                "best_num_errors": best if best >= 0 else None,
                "best_num_samples": best_samples if best >= 0 else None,
                "best_accuracy": 1 - best / best_samples if best >= 0 else None,
                "best_step": best_step if best_step >= 0 else None,
            }
        )
    return rows


def curve_columns(
    groups: Sequence[Group], states: Sequence[SweepState | None]
) -> dict[str, np.ndarray]:
    """All groups' evaluations in one table; `member` as in the results."""
    parts = [
        state.curves._replace(member=group.members[state.curves.member])
        for group, state in zip(groups, states, strict=True)
        if state is not None
    ]
    names = sweep.Curves._fields
    if not parts:
        return {name: np.zeros(0) for name in names}
    return {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in names
    }
