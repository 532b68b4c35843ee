"""The figures of benches, and of Table V, from the rows of their CSVs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lra_jax.lab.benches.published import TITLES
from lra_jax.lab.flow.figures import Column
from lra_jax.lab.flow.recording import RELATIVE_NORM
from lra_jax.lab.reports.figures import COLORS, DASHES
from lra_jax.lab.reports.results import Row

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


def reach_of_bench(rows: Sequence[Row]) -> Figure:
    """What methods reach: lines where there are lengths for them, else every seed."""
    lengths = {row["seq_len"] for row in rows}
    return reach(rows) if len(lengths) > 2 else seeds(rows)


def seeds(rows: Sequence[Row]) -> Figure:
    """What each seed took to solve T: a row for each method, a panel for each task."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    panels = panels_of(rows, 1.5 + 0.27 * len(methods))
    lengths = sorted({row["seq_len"] for row in rows})
    looks: dict[int, dict[str, Any]] = {
        length: {"color": COLORS[1], "fillstyle": "none", "markersize": 4}
        for length in lengths
    }
    looks[lengths[-1]] |= {"color": COLORS[0], "fillstyle": "full"}
    for task, ax, mine in panels:
        most = max(row["max_steps"] for row in mine)
        unsolved = 1.6 * most
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
        ticks = [m * 10**k for k in range(8) for m in (1, 2, 5)]
        ticks = [n for n in ticks if ax.get_xlim()[0] <= n < most / 1.4] + [most]
        ax.set_xticks(ticks, [f"{n:,}" for n in ticks])
        ax.minorticks_off()
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


def alignment(rows: Sequence[Row]) -> Figure:
    """Why rules work, from the rows of `experiments.alignment`: a column per family.

    Over t, at the start and at the end of training: the cosine of the errors to
    BPTT's, and their norms in units of the last step's; over training, the cosine of
    the whole gradient of W_hh, and the accuracy. A family's legend is above its column.
    A norm below a millionth of the last step's is below its panel.
    """
    families = list(dict.fromkeys(row["family"] for row in rows))
    lines: tuple[tuple[str, int | None, str], ...] = (
        ("error_cosine", 0, "cosine of $q_t$ to BPTT,\nbefore training"),
        ("error_cosine", -1, "cosine of $q_t$ to BPTT,\nafter training"),
        (RELATIVE_NORM, 0, r"$\|q_t\| / \|q_{T-1}\|$," + "\nbefore training"),
        (RELATIVE_NORM, -1, r"$\|q_t\| / \|q_{T-1}\|$," + "\nafter training"),
        ("w_hh_sum_cosine", None, "cosine of $\\nabla W_{hh}$\nto BPTT"),
        ("accuracy", None, "accuracy"),
    )
    colors = (*COLORS[:3], "black")  # the last is seen on top of any other
    figure = Figure(figsize=(2.3 * len(families) + 0.8, 10.6), layout="constrained")
    panels = figure.subplots(
        len(lines) + 1, len(families), sharey="row", squeeze=False,
        height_ratios=[0.55] + [1] * len(lines),
    )  # fmt: skip
    for family, column in zip(families, panels.T, strict=True):
        mine = [row for row in rows if row["family"] == family]
        settings = dict.fromkeys(row["setting"] for row in mine)
        for axes, (name, moment, _) in zip(column[1:], lines, strict=True):
            for index, setting in enumerate(settings):
                found = Column(mine, setting, name, by_t=moment is not None)
                x = found.steps if moment is None else np.arange(found.mean.shape[-1])
                nothing = "" if np.isfinite(found.mean).any() else " (none)"
                found.plot(
                    axes, x, np.s_[:] if moment is None else moment, colors[index],
                    lw=2.6 - 0.3 * index, ls=DASHES[index], label=setting + nothing,
                )  # fmt: skip
            axes.tick_params(labelsize=7)
            axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True))
            axes.set_xlabel("updates" if moment is None else "time step t", fontsize=8)
            if name == RELATIVE_NORM:
                axes.set_yscale("log")
                axes.set_ylim(1e-6, 1e2)
                axes.yaxis.set_major_locator(mpl.ticker.LogLocator(numticks=5))
                axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
                axes.axhline(1, color="0.6", lw=0.7, zorder=0)
            elif name == "accuracy":
                axes.set_ylim(-0.03, 1.03)
            else:
                axes.set_ylim(-1.08, 1.08)
                axes.set_yticks([-1, 0, 1])
                axes.axhline(0, color="0.6", lw=0.7, zorder=0)
        column[0].axis("off")
        column[0].set_title(f"{family}\nT = {mine[0]['seq_len']}", fontsize=9)
        column[0].legend(
            *column[1].get_legend_handles_labels(), loc="upper left", frameon=False,
            fontsize=8, borderaxespad=0,
        )  # fmt: skip
    for axes, (*_, label) in zip(panels[1:, 0], lines, strict=True):
        axes.set_ylabel(label, fontsize=8)
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
        length = f"T {mine[0]['lengths']}".replace(" ", "\N{NO-BREAK SPACE}")
        title = textwrap.fill(f"{mine[0]['data']}, {length}", 34)
        ax.set_title(title, fontsize=8)
        ax.set_xlabel("test accuracy, %" if is_accuracy else "test NLL per frame")
        ax.grid(axis="x", color="0.9")
    panels[0][0].set_yticks(range(len(methods)), methods)
    panels[0][0].set_ylim(len(methods) - 0.5, -0.5)
    return figure
