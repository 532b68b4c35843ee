"""The figures of the reproduction, drawn from the rows of its CSVs; see `pictures`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import published
from experiments.figures import COLORS, DASHES
from experiments.published import TITLES
from experiments.results import Row

MARKERS = "osD^vP*Xhd"  # of methods, in their order


def panels_of(rows: Sequence[Row], height: float) -> list[tuple[str, Axes, list[Row]]]:
    """A panel for each task, side by side."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure = Figure(figsize=(3.4 * len(tasks), height), layout="constrained")
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    return [
        (task, ax, [row for row in rows if row["task"] == task])
        for task, ax in zip(tasks, axes, strict=True)
    ]


def reach(rows: Sequence[Row]) -> Figure:
    """Table V as curves: the fraction of seeds that solve T, for each method."""
    panels = panels_of(rows, 4.2)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for task, ax, mine in panels:
        for index, method in enumerate(methods):
            points = [
                (row["seq_len"], row["solved"] / row["seeds"])
                for row in mine
                if row["method"] == method
            ]
            ax.plot(
                *zip(*points, strict=True),
                color=COLORS[index % len(COLORS)],
                linestyle=DASHES[(index // len(COLORS)) % len(DASHES)],
                marker=MARKERS[index % len(MARKERS)],
                markersize=4,
                label=method,
            )
            printed = [r["published_reach"] for r in mine if r["method"] == method]
            if printed and printed[0]:
                ax.axvline(
                    printed[0],
                    color=COLORS[index % len(COLORS)],
                    linewidth=0.8,
                    linestyle=":",
                )
        ax.set_xscale("log")
        ticks = sorted({row["seq_len"] for row in rows})
        apart = 1.9 if len(ticks) > 8 else 1.4  # labels must not touch
        shown = ticks[:1]
        for t in ticks:
            if t >= apart * shown[-1]:
                shown.append(t)
        ax.set_xticks(shown)
        ax.xaxis.set_major_formatter(matplotlib.ticker.ScalarFormatter())
        ax.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        ax.set_ylim(-0.04, 1.04)
        ax.set_title(TITLES.get(task, task))
        dotted = any(row["published_reach"] for row in mine)
        ax.set_xlabel("T (dotted: published reach)" if dotted else "T")
    first = panels[0][1]
    first.set_ylabel("fraction of seeds that solve T")
    figure = first.figure
    assert isinstance(figure, Figure)
    found: dict[str, Any] = {}
    for _, ax, _ in panels:
        handles, labels = ax.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(
        found.values(), found.keys(), loc="outside lower center", ncols=3, frameon=False
    )
    return figure


def strength(rows: Sequence[Row]) -> Figure:
    """Accuracy against λ, the best γ of each seed; `slopes` is the paper's Figure 5."""
    best = [row for row in rows if row["gamma"] is None]
    panels = panels_of(best, 3.2)
    rules = list(dict.fromkeys(row["rule"] for row in best))
    for task, ax, mine in panels:
        for index, rule in enumerate(rules):
            points = [row for row in mine if row["rule"] == rule]
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
        ax.set_title(f"{TITLES[task]}, T = {mine[0]['seq_len']}")
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
    for task, ax, mine in panels:
        for index, rule in enumerate(rules):
            points = [row for row in mine if row["rule"] == rule]
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
        ax.set_title(f"{TITLES[task]}, T = {mine[0]['seq_len']}")
        ax.set_xlabel("λ")
    panels[0][1].set_ylabel("ΔAccuracy / Δλ, points")
    panels[0][1].legend(frameon=False)
    figure = panels[0][1].figure
    assert isinstance(figure, Figure)
    return figure


def released(rows: Sequence[Row]) -> Figure:
    """Training curves of `lra_released`, and peak and end of the authors' own run."""
    panels = list(dict.fromkeys((row["task"], row["seq_len"]) for row in rows))
    figure = Figure(figsize=(3.4 * len(panels), 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for (task, seq_len), ax in zip(panels, axes, strict=True):
        mine = [r for r in rows if (r["task"], r["seq_len"]) == (task, seq_len)]
        for index, seed in enumerate(dict.fromkeys(row["seed"] for row in mine)):
            points = [
                (r["step"], 100 * r["accuracy"]) for r in mine if r["seed"] == seed
            ]
            ax.plot(
                *zip(*points, strict=True),
                color=COLORS[0],
                alpha=0.6,
                linewidth=1,
                label="lra_released, a line per seed" if index == 0 else None,
            )
        printed = published.RELEASED_CURVES[task, seq_len]
        last = max(row["step"] for row in mine)
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
