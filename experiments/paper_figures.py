"""The paper's figures, and ours of its tables, drawn from the CSVs in `results/`."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import gradient_flow_figures, published, results
from experiments.figures import COLORS, DASHES, STYLE, save
from experiments.published import TITLES
from experiments.results import Row

MARKERS = "osD^vP*Xhd"  # of methods, in their order


def draw(name: str, folder: pathlib.Path) -> list[str]:
    """Draws what there is for an artefact, each as PNG and SVG.

    Args:
      name: of the artefact.
      folder: has its CSV.

    Returns:
      File names of the PNGs.
    """
    rows = results.read_rows(folder / f"{name}.csv")
    if name in ("figure2", "figure3", "figure4"):
        return gradient_flow_figures.draw(
            folder, rows, prefix=name, title="random permutation, T = 10"
        )
    figures: dict[str, dict[str, Callable[[Sequence[Row]], Figure]]] = {
        "table5": {"table5": reach},
        "reach": {"reach": reach_of_bench},
        "refinements": {"refinements": refinements},
        "warm": {"warm": reach},
        "figure5": {"figure5": slopes, "figure5_accuracy": strength},
        "released": {"released": released},
        "table": {"table": real},
        "alignment": {"alignment": gradient_flow_figures.alignment},
    }
    mine = figures.get(name, {})
    with mpl.rc_context(STYLE):
        for picture, make in mine.items():
            save(make(rows), folder / f"{picture}.png")
    return [f"{picture}.png" for picture in mine]


def _panels(rows: Sequence[Row], height: float) -> list[tuple[str, Axes, list[Row]]]:
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
    panels = _panels(rows, 4.2)
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


def reach_of_bench(rows: Sequence[Row]) -> Figure:
    """What methods reach: lines where there are lengths for them, else every seed."""
    lengths = {row["seq_len"] for row in rows}
    return reach(rows) if len(lengths) > 2 else seeds(rows)


def seeds(rows: Sequence[Row]) -> Figure:
    """What each seed took to solve T: a row for each method, a panel for each task."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    panels = _panels(rows, 1.5 + 0.27 * len(methods))
    lengths = sorted({row["seq_len"] for row in rows})
    looks: dict[int, dict[str, Any]] = {
        length: {"color": COLORS[1], "fillstyle": "none", "markersize": 4}
        for length in lengths
    }
    looks[lengths[-1]] |= {"color": COLORS[0], "fillstyle": "full"}
    for task, ax, mine in panels:
        unsolved = 1.6 * max(row["max_steps"] for row in mine)
        for row in mine:
            side = 1 if row["seq_len"] == lengths[-1] else -1
            place = methods.index(row["method"]) + 0.16 * side
            found = str(row["updates_by_seed"]).split()
            for number, text in enumerate(found):
                solved = text != "–"
                ax.plot(
                    float(text) if solved else unsolved,
                    # Seeds, and lengths, side by side.
                    place + 0.04 * (number - (len(found) - 1) / 2),
                    "o" if solved else "x",
                    **looks[row["seq_len"]],
                )
        ax.set_xscale("log")
        ax.axvline(unsolved / 1.27, color="0.8", linewidth=0.8)
        ax.set_title(TITLES.get(task, task))
        ax.set_xlabel("updates (✕: not solved)")
        ax.set_yticks(range(len(methods)), [""] * len(methods))
        ax.set_ylim(len(methods) - 0.5, -0.5)
        ax.grid(axis="y", color="0.93")
    first = panels[0][1]
    first.set_yticks(range(len(methods)), methods)
    figure = first.figure
    assert isinstance(figure, Figure)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width + 3, height)  # for the names of the methods
    for length, look in looks.items():
        first.plot([], [], "o", label=f"T = {length:,}", **look)
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center",
                  ncols=2, frameon=False)  # fmt: skip
    return figure


def refinements(rows: Sequence[Row]) -> Figure:
    """γ × K for each refinement: what it took, in colour where all seeds are solved."""
    names = list(dict.fromkeys(row["refinement"] for row in rows))
    gammas = sorted({row["gamma"] for row in rows})
    counts = sorted({row["num_refinements"] for row in rows})
    figure = Figure(figsize=(3.6 * len(names), 3.4), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    costs = [r["cost_to_solve"] for r in rows if r["solved"] == r["seeds"]] or [1.0]
    norm = mpl.colors.LogNorm(min(costs), max(*costs, 1.1 * min(costs)))
    image = mpl.cm.ScalarMappable(norm, "cividis_r")
    for name, ax in zip(names, panels, strict=True):
        values = np.full((len(gammas), len(counts)), np.nan)
        for row in rows:
            # K = 1 has no second refinement: one row stands in all panels.
            if row["refinement"] != name and row["num_refinements"] > 1:
                continue
            place = gammas.index(row["gamma"]), counts.index(row["num_refinements"])
            text, dark = f"{100 * row['accuracy']:.1f} %", False
            if row["solved"]:
                text = f"{row['solved']}/{row['seeds']}\n{row['cost_to_solve']:,.0f}"
            if row["solved"] == row["seeds"]:
                values[place] = row["cost_to_solve"]
                dark = norm(values[place]) > 0.5
            ax.text(
                *place[::-1],
                text,
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "black",
            )
        ax.imshow(values, image.cmap, norm, aspect="auto", origin="lower")
        ax.set_xticks(range(len(counts)), counts)
        ax.set_yticks(range(len(gammas)), [f"{gamma:g}" for gamma in gammas])
        ax.set_xlabel("K")
        ax.set_title(f'refinement = "{name}"')
    panels[0].set_ylabel("γ", rotation=0)
    bar = figure.colorbar(image, ax=panels, label="products, in updates at K = 1")
    bar.ax.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.minorticks_off()
    return figure


def strength(rows: Sequence[Row]) -> Figure:
    """Accuracy against λ, the best γ of each seed; `slopes` is the paper's Figure 5."""
    best = [row for row in rows if row["gamma"] is None]
    panels = _panels(best, 3.2)
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
    panels = _panels(best, 3.2)
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


def real(rows: Sequence[Row]) -> Figure:
    """A panel for each data set: what each method reaches on its test part."""
    benches = list(dict.fromkeys(row["bench"] for row in rows))
    methods = list(dict.fromkeys(row["method"] for row in rows))
    width = min(4, len(benches))
    height = -(-len(benches) // width)
    figure = Figure(
        figsize=(1.6 + 2.1 * width, height * (0.9 + 0.24 * len(methods))),
        layout="constrained",
    )
    panels = figure.subplots(height, width, squeeze=False, sharey=True)
    for ax in panels.flat[len(benches) :]:
        ax.set_visible(False)
    for bench, ax in zip(benches, panels.flat, strict=False):
        mine = [row for row in rows if row["bench"] == bench]
        is_accuracy = mine[0]["measure"] == "accuracy"
        scale = 100 if is_accuracy else 1
        for row in mine:
            if row["test"] is None:
                continue
            place = methods.index(row["method"])
            ax.errorbar(
                scale * row["test"],
                place,
                xerr=scale * (row["interval_95"] or 0),
                color=COLORS[place % len(COLORS)],
                marker=MARKERS[place % len(MARKERS)],
                markersize=4,
                capsize=2,
            )
        ax.set_title(f"{mine[0]['data']}, T {mine[0]['lengths']}", fontsize=8)
        ax.set_xlabel("test accuracy, %" if is_accuracy else "test NLL per frame")
        ax.grid(axis="x", color="0.9")
    panels[0][0].set_yticks(range(len(methods)), methods)
    panels[0][0].set_ylim(len(methods) - 0.5, -0.5)
    return figure
