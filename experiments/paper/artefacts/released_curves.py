"""Training curves of the authors' code, beside those of `lra_released`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.paper import configs
from experiments.paper.artefacts.making import Artefact, Request
from lra_jax.lab.benches import published
from lra_jax.lab.benches.published import TITLES
from lra_jax.lab.reports import markdown
from lra_jax.lab.reports.summary import percent


class CurveSet(NamedTuple):
    """Training curves of `lra_released` and of the code that it stands for."""

    task: str
    seq_len: int
    printed: published.ReleasedCurve
    curves: Mapping[int, Sequence[tuple[int, float]]]  # by seed: updates, accuracy


def make_released_curves(request: Request) -> Artefact:
    """The curves of each run of the authors' code that the budget has."""
    budget = request.budget
    sets = []
    for (task, seq_len), printed in published.RELEASED_CURVES.items():
        if task not in budget.tasks or seq_len not in budget.tables.seq_len:
            continue
        config = configs.curve_config(task, seq_len, budget, request.seeds)
        curves = request.runner.curves(config)
        sets.append(CurveSet(task, seq_len, printed, curves))
    return Artefact(
        table=curve_table(sets),
        notes=(
            "α = 0.1, γ = 1, K = 10, c = 1, λ = 0, MSE, the released validation; the "
            "authors' code was run once, with seed 1234 (tests/golden).",
        ),
        rows={"": curve_rows(sets)},
    )


def curve_rows(sets: Sequence[CurveSet]) -> list[dict[str, Any]]:
    """The curves for CSV: a row for each evaluation."""
    return [
        {
            "name": f"{curves.task} T{curves.seq_len} seed{seed} {step}",
            "task": curves.task,
            "seq_len": curves.seq_len,
            "seed": seed,
            "step": step,
            "accuracy": accuracy,
        }
        for curves in sets
        for seed, points in curves.curves.items()
        for step, accuracy in points
    ]


def curve_table(sets: Sequence[CurveSet]) -> str:
    """Peak and end of each curve."""
    body = []
    for curves in sets:
        where = [TITLES[curves.task], str(curves.seq_len)]
        printed = curves.printed
        body.append(
            [
                *where,
                "authors' code, seed 1234",
                f"{percent(printed.peak)} at {printed.peak_step:,}",
                f"{percent(printed.last)} at {printed.last_step:,}",
            ]
        )
        for seed, points in curves.curves.items():
            peak = max(points, key=lambda point: (point[1], -point[0]))
            body.append(
                [
                    *where,
                    f"lra_released, seed {seed}",
                    f"{percent(peak[1])} at {peak[0]:,}",
                    f"{percent(points[-1][1])} at {points[-1][0]:,}",
                ]
            )
    return markdown.table(["task", "T", "run", "peak, updates", "end, updates"], body)
