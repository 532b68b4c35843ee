"""The figures of the reproduction, drawn from the rows of its CSVs; see `pictures`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from matplotlib.figure import Figure

from lra_jax.lab.benches import published
from lra_jax.lab.benches.bench_figures import panels_of
from lra_jax.lab.benches.published import TITLES
from lra_jax.lab.reports.figures import COLORS, DASHES
from lra_jax.lab.reports.results import Row


def strength(rows: Sequence[Row]) -> Figure:
    """Accuracy against λ, the best γ of each seed; `slopes` is the paper's Figure 5."""
    best = [row for row in rows if row["gamma"] is None]
    panels = panels_of(best, 3.2)
    rules = list(dict.fromkeys(row["rule"] for row in best))
    for task, ax, of_task in panels:
        for index, rule in enumerate(rules):
            points = [row for row in of_task if row["rule"] == rule]
            places = range(len(points))
            ax.errorbar(
                places,
                [100 * row["accuracy"] for row in points],
                yerr=[100 * (row["interval_95"] or 0) for row in points],
                color=COLORS[index],
                linestyle=DASHES[index],
                marker="os"[index % 2],
                markersize=4,
                capsize=2,
                label=rule,
            )
            ax.set_xticks(places, [f"{row['lambda']:g}" for row in points])
        low, high = ax.get_ylim()
        ax.set_ylim(low, min(high, 100 + 0.05 * (100 - low)))
        ax.set_title(f"{TITLES[task]}, T = {of_task[0]['seq_len']}")
        ax.set_xlabel("λ")
    panels[0][1].set_ylabel("best accuracy, %")
    panels[0][1].legend(frameon=False)
    figure = panels[0][1].figure
    assert isinstance(figure, Figure)
    return figure


def slopes(rows: Sequence[Row]) -> Figure:
    """Figure 5 in the paper's layout: ΔAccuracy/Δλ from each λ to the next."""
    best = [row for row in rows if row["gamma"] is None]
    panels = panels_of(best, 3.2)
    rules = list(dict.fromkeys(row["rule"] for row in best))
    for task, ax, of_task in panels:
        for index, rule in enumerate(rules):
            points = [row for row in of_task if row["rule"] == rule]
            pairs = list(itertools.pairwise(points))
            heights = [
                100
                * (right["accuracy"] - left["accuracy"])
                / (right["lambda"] - left["lambda"])
                for left, right in pairs
            ]
            width = 0.8 / len(rules)
            ax.bar(
                [place + index * width for place in range(len(pairs))],
                heights,
                width,
                align="edge",
                color=COLORS[index],
                label=rule,
            )
            names = [f"{a['lambda']:g} → {b['lambda']:g}" for a, b in pairs]
            ax.set_xticks([place + 0.4 for place in range(len(pairs))], names)
        ax.axhline(0, color="0.5", linewidth=0.8)
        ax.set_title(f"{TITLES[task]}, T = {of_task[0]['seq_len']}")
        ax.set_xlabel("λ")
    panels[0][1].set_ylabel("ΔAccuracy / Δλ, points")
    panels[0][1].legend(frameon=False)
    figure = panels[0][1].figure
    assert isinstance(figure, Figure)
    return figure


def released_curves(rows: Sequence[Row]) -> Figure:
    """Training curves of `lra_released`, and peak and end of the authors' own run."""
    panels = list(dict.fromkeys((row["task"], row["seq_len"]) for row in rows))
    figure = Figure(figsize=(3.4 * len(panels), 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for (task, seq_len), ax in zip(panels, axes, strict=True):
        of_panel = [r for r in rows if (r["task"], r["seq_len"]) == (task, seq_len)]
        for index, seed in enumerate(dict.fromkeys(row["seed"] for row in of_panel)):
            points = [
                (r["step"], 100 * r["accuracy"]) for r in of_panel if r["seed"] == seed
            ]
            ax.plot(
                *zip(*points, strict=True),
                color=COLORS[0],
                alpha=0.6,
                linewidth=1,
                label="lra_released, a line per seed" if index == 0 else None,
            )
        printed = published.RELEASED_CURVES[task, seq_len]
        last = max(row["step"] for row in of_panel)
        marks = [(printed.peak_step, printed.peak), (printed.last_step, printed.last)]
        marks = [mark for mark in marks if mark[0] <= last]
        ax.plot(
            [step for step, _ in marks],
            [100 * value for _, value in marks],
            "D",
            color=COLORS[1],
            label="authors' code: peak, end",
        )
        ax.set_ylim(0, 103)
        ax.set_title(f"{TITLES[task]}, T = {seq_len}")
        ax.set_xlabel("updates")
    axes[0].set_ylabel("validation accuracy, %")
    axes[0].legend(frameon=False, loc="lower right")
    return figure
