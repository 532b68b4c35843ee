"""Figures 2 to 4, and "decay": how errors fall on their way back through the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.paper.artefacts.making import Artefact, Request
from experiments.paper.artefacts.texts import mean_text
from experiments.paper.rows import LAMBDA
from lra_jax.lab.reports import markdown
from lra_jax.lab.reports.results import Row
from lra_jax.lab.reports.summary import percent


def make_flow_figure(name: str, request: Request) -> Artefact:
    """One of Figures 2 to 4, in float64: local losses reach 1e-30 and below.

    Args:
      name: "figure2", "figure3" or "figure4".
      request: what it is made with.
    """
    flow = request.budget.flow
    recording, summary = request.runner.flow(
        name, request.budget, request.seeds, flow.num_steps, flow.every
    )
    diverged = []
    if num_diverged(summary):
        diverged = [
            "Diverged: seeds whose loss is not finite at the end. Their accuracy "
            "is 0; the other means at the end are over the seeds that are left."
        ]
    return Artefact(
        table=flow_table(summary),
        notes=(
            f"Random permutation, T = 10, {flow.num_steps:,} updates, float64; "
            "before training → at the end. ± is the 95 % interval over seeds.",
            "Decay: decades that the local loss falls per step back from the top, over "
            "the last five steps; steps whose loss is exactly 0 are counted apart and "
            "are not in the fit. Label swap: cosine between the gradients for true and "
            "for swapped labels; +1 knows nothing of the label.",
            f"λ is {LAMBDA:g} where it is not 0.",
            *diverged,
        ),
        rows={"_summary": [{"name": row["setting"], **row} for row in summary]},
        recording=recording,
    )


def make_decay(request: Request) -> Artefact:
    """Local losses of one untrained pass, from the released code to what works."""
    recording, summary = request.runner.flow(
        "decay", request.budget, request.seeds, 1, 1
    )
    by_setting = profile_rows(recording, summary)
    return Artefact(
        table=profile_table(by_setting),
        notes=(
            "Random permutation, T = 10, before training, float64, MSE, no bounds. "
            "L is a geometric mean over seeds; decay as in the figures' tables.",
        ),
        rows={"": by_setting},
    )


def flow_table(summary: Sequence[Mapping[str, Any]]) -> str:
    """Figures 2 to 4 in numbers: a row per setting, before training → at the end.

    Has a column of diverged seeds where there are any.
    """

    def both(row: Mapping[str, Any], name: str, digits: int = 2) -> str:
        texts = (
            mean_text(row[f"{name}_{when}"], row[f"{name}_{when}_interval"], digits)
            for when in ("init", "end")
        )
        return " → ".join(dict.fromkeys(texts))

    header = [
        "setting",
        "decay of L",
        "steps with L = 0",
        "cos ∇W_hh, BPTT",
        "cos ∇W_xh, BPTT",
        "label swap ∇W_hh",
        "label swap ∇W_xh",
        "accuracy %",
    ]
    body = [
        [
            row["setting"],
            both(row, "decades"),
            both(row, "vanished", 0),
            both(row, "w_hh_sum_cosine"),
            both(row, "w_xh_sum_cosine"),
            both(row, "w_hh_label_swap"),
            both(row, "w_xh_label_swap"),
            f"{percent(row['accuracy_end'], row['accuracy_end_interval'])}",
        ]
        for row in summary
    ]
    if num_diverged(summary):
        header.append("diverged")
        for cells, row in zip(body, summary, strict=True):
            cells.append(f"{num_diverged([row])}/{row['seeds']}")
    return markdown.table(header, body)


def num_diverged(summary: Sequence[Mapping[str, Any]]) -> int:
    """Seeds of all settings that diverged; older summaries do not count them."""
    return sum(row.get("diverged") or 0 for row in summary)


def profile_rows(rows: Sequence[Row], summary: Sequence[Row]) -> list[dict[str, Any]]:
    """The local loss at each t before training, and its decay: a row per setting."""
    profiles = []
    for overview in summary:
        setting = overview["setting"]
        losses = {
            f"local_loss_{row['t']}": row["local_loss"]
            for row in rows
            if (row["setting"], row["step"]) == (setting, 0) and row["t"] is not None
        }
        profiles.append(
            {
                "name": setting,
                "decades": overview["decades_init"],
                "decades_interval": overview["decades_init_interval"],
                "vanished": overview["vanished_init"],
                "w_hh_cosine": overview["w_hh_sum_cosine_init"],
                "w_hh_cosine_interval": overview["w_hh_sum_cosine_init_interval"],
                **losses,
            }
        )
    return profiles


def profile_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The local loss from the top step back, for each setting."""
    top = max(
        int(key.rsplit("_", 1)[1]) for row in rows for key in row if "loss" in key
    )
    shown = range(top, max(top - 5, 0), -1)
    body = [
        [
            row["name"],
            *(_loss_text(row[f"local_loss_{t}"]) for t in shown),
            mean_text(row["decades"], row["decades_interval"]),
            mean_text(row["w_hh_cosine"], row["w_hh_cosine_interval"]),
        ]
        for row in rows
    ]
    header = ["variant", *(f"L, t = {t}" for t in shown)]
    return markdown.table([*header, "decades per step", "cos ∇W_hh, BPTT"], body)


def _loss_text(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1e}" if value else "0"
