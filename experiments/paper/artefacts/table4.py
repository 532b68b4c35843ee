"""Table IV: the bounds c0 and c1 for each K."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.paper import configs
from experiments.paper.artefacts.making import Artefact, Request
from experiments.paper.artefacts.texts import cell_text, grid_text
from lra_jax.lab.benches import published
from lra_jax.lab.benches.cells import cell_of
from lra_jax.lab.reports import markdown
from lra_jax.lab.reports.results import Row


def make_table4(request: Request) -> Artefact:
    """Table IV, on temporal order."""
    config = configs.table4_config(request.budget, request.seeds)
    rows = request.runner.rows(config)
    best = ", ".join(
        f"{key} = {value:g}" for key, value in published.TABLE4_BEST.items()
    )
    return Artefact(
        table=bounds_table(rows) + bounds_summary(rows),
        notes=(
            f"The paper's winner for every K is {best} with "
            f"{100 * published.TABLE4_ACCURACY:.2f} %.",
            f"Temporal order, T = {request.budget.table4.seq_len}, "
            f"{config.max_steps:,} updates at most; {grid_text(config)}.",
        ),
        rows={"": bounds_rows(rows, config.max_steps)},
    )


def bounds_table(rows: Sequence[Row]) -> str:
    """c0 × c1 for each K, the best of lr and γ in each cell."""
    parts = []
    for k in sorted({row["num_refinements"] for row in rows}):
        of_k = [row for row in rows if row["num_refinements"] == k]
        c0s, c1s = (sorted({row[c] for row in of_k}) for c in ("c0", "c1"))
        body = [
            [f"c0 = {c0:g}", *(cell_text(cell_of(_at(of_k, c0, c1))) for c1 in c1s)]
            for c0 in c0s
        ]
        table = markdown.table([f"K = {k}", *(f"c1 = {c:g}" for c in c1s)], body)
        parts.append(table)
    return "\n".join(parts)


def _at(rows: Sequence[Row], c0: float, c1: float) -> list[Row]:
    return [row for row in rows if (row["c0"], row["c1"]) == (c0, c1)]


def bounds_summary(rows: Sequence[Row]) -> str:
    """The best bounds of each K, and where the paper's winner stands."""
    lines = []
    for k in sorted({row["num_refinements"] for row in rows}):
        of_k = [row for row in rows if row["num_refinements"] == k]
        cells = {
            bounds: cell_of(_at(of_k, *bounds))
            for bounds in dict.fromkeys((row["c0"], row["c1"]) for row in of_k)
        }
        ranked = sorted(
            cells, key=lambda b: (cells[b].solved, cells[b].accuracy), reverse=True
        )
        best = ranked[0]
        text = f"K = {k}: best is c0 = {best[0]:g}, c1 = {best[1]:g} with "
        text += cell_text(cells[best])
        printed = (published.TABLE4_BEST["c0"], published.TABLE4_BEST["c1"])
        if printed in cells:
            text += (
                f"; the paper's c0 = {printed[0]:g}, c1 = {printed[1]:g} has "
                f"{cell_text(cells[printed])}, rank {1 + ranked.index(printed)} of "
                f"{len(ranked)}"
            )
        lines.append(text + ".")
    return "\n" + "\n".join(lines) + "\n"


def bounds_rows(rows: Sequence[Row], max_steps: int) -> list[dict[str, Any]]:
    """Table IV for CSV: a row for each K, lr, γ, c0 and c1."""
    keys = ("num_refinements", "lr", "gamma", "c0", "c1")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    records = []
    for values, members in groups.items():
        cell = cell_of(members)
        records.append(
            {"name": " ".join(f"{value:g}" for value in values)}
            | dict(zip(keys, values, strict=True))
            | {
                **cell.columns(),
                "max_steps": max_steps,
                "updates_to_solve": cell.updates,
            }
        )
    return records
