"""Figure 5: accuracy against λ, the weight of Ω."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.paper import configs
from experiments.paper.artefacts.making import Artefact, Request
from experiments.paper.artefacts.texts import grid_text
from lra_jax.lab.benches.cells import cell_of
from lra_jax.lab.benches.published import TITLES
from lra_jax.lab.reports import markdown
from lra_jax.lab.reports.results import Row
from lra_jax.lab.reports.summary import percent


def make_figure5(request: Request) -> Artefact:
    """Figure 5 in numbers, for both rules that have Ω."""
    budget = request.budget
    records: list[dict[str, Any]] = []
    searched = {}
    for task in budget.tasks:
        for rule in ("lra_diff", "lra_released"):
            if f"figure5.{rule}" in budget.left_out:
                continue
            config = configs.figure5_config(rule, task, budget, request.seeds)
            searched[rule] = grid_text(config)
            members = request.runner.rows(config)
            records += strength_rows(rule, task, members, config.max_steps)
    return Artefact(
        table=strength_table(records),
        notes=(
            "The paper prints ΔAccuracy/Δλ as bars without numbers, and finds small λ "
            "best. Here the best of γ for each seed and λ, K and loss as in the "
            "released grid search.",
            f"{budget.figure5.max_steps:,} updates at most.",
        ),
        rows={"": records},
        searched=searched,
    )


def strength_rows(
    label: str, task: str, rows: Sequence[Row], max_steps: int
) -> list[dict[str, Any]]:
    """Figure 5 for CSV: a row for each γ and λ, and the best γ of each λ (γ empty)."""
    records = []
    strengths = sorted({row["lambda"] for row in rows})
    for gamma in (None, *sorted({row["gamma"] for row in rows})):
        for strength in strengths:
            members = [
                row
                for row in rows
                if row["lambda"] == strength and gamma in (None, row["gamma"])
            ]
            cell = cell_of(members)
            records.append(
                {
                    "name": f"{label} {task} λ{strength:g}"
                    + ("" if gamma is None else f" γ{gamma:g}"),
                    "task": task,
                    "rule": label,
                    "seq_len": members[0]["seq_len"],
                    "num_refinements": members[0]["num_refinements"],
                    "gamma": gamma,
                    "lambda": strength,
                    **cell.columns(),
                    "max_steps": max_steps,
                    "updates_to_solve": cell.updates,
                }
            )
    return records


def strength_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rules × λ, the best γ of each seed."""
    best = [row for row in rows if row["gamma"] is None]
    strengths = sorted({row["lambda"] for row in best})
    body = []
    for task, rule in dict.fromkeys((row["task"], row["rule"]) for row in best):
        by_strength = {
            row["lambda"]: row
            for row in best
            if (row["task"], row["rule"]) == (task, rule)
        }
        first = next(iter(by_strength.values()))
        cells = [
            f"{percent(row['accuracy'], row['interval_95'])} "
            f"({row['solved']}/{row['seeds']})"
            for row in (by_strength[strength] for strength in strengths)
        ]
        body.append([TITLES[task], str(first["seq_len"]), rule, *cells])
    header = ["task", "T", "rule", *(f"λ = {strength:g}" for strength in strengths)]
    return markdown.table(header, body)
