"""The columns of a table of members, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lra_jax.lab.config import AXES


def columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The columns of a table of results: settings, hyper-parameters, seed, results."""
    outcomes = [key for key in rows[0] if key in _RESULT_KEYS]
    settings = [key for row in rows for key in row if key not in _RESULT_KEYS]
    names = list(dict.fromkeys(["member", *AXES, *settings, "seed", *outcomes]))
    names = [key for key in names if key != "seed" and key not in outcomes]
    return [*names, "seed", *outcomes]


_RESULT_KEYS = (
    "status",
    "step",
    "final_num_errors",
    "final_accuracy",
    "best_num_errors",
    "best_accuracy",
    "best_step",
)
