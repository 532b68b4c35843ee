"""Figures of recordings: the layout of the paper's, and one of ours.

All are drawn from the rows of `tables.by_step`, so that they can be drawn again from
their CSV without training.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lra_jax.lab.flow.recording import MAGNITUDES
from lra_jax.lab.flow.tables import Row, interval_name, is_magnitude
from lra_jax.lab.reports import canvas
from lra_jax.lab.reports.figures import COLORS, save

MAX_PANELS = 9  # time steps across the paper's layout
_LABELS = {
    "local_loss": "$L_t$",
    "target_step_norm": r"$\|\Delta h_t\|$",
    "w_hh_grad_norm": r"$\|\nabla W_{hh}^t\|$",
    "w_xh_grad_norm": r"$\|\nabla W_{xh}^t\|$",
    "loss": "global loss",
    "accuracy": "accuracy",
    "decay": "decades of $L_t$\nper step back",
    "w_hh_sum_cosine": r"cosine of $\nabla W_{hh}$ to BPTT",
    "error_cosine": "error: cosine\nto BPTT",
    "error_label_swap": "error: cosine to\nswapped labels",
}


def draw(
    folder: pathlib.Path, rows: Sequence[Row], *, prefix: str, title: str
) -> list[str]:
    """Draws the paper's layout of every setting, and all settings side by side.

    A setting without any of the layout's quantities is only in the second.

    Args:
      folder: where to; exists.
      rows: of `tables.by_step`.
      prefix: of the file names.
      title: task and T.

    Returns:
      File names of the PNGs; an SVG is beside each.
    """
    names = []
    with canvas.style():
        for setting in _settings(rows):
            mine = [row for row in rows if row["setting"] == setting]
            if all(row[name] is None for row in mine for name in MAGNITUDES):
                continue
            latin = setting.replace("λ", "lambda").replace("γ", "gamma")
            slug = re.sub(r"\W+", "_", latin).strip("_")
            names.append(f"{prefix}_{slug}.png")
            save(layout(rows, setting, f"{title}: {setting}"), folder / names[-1])
        names.append(f"{prefix}_flow.png")
        save(flow(rows, title), folder / names[-1])
    return names


def _settings(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["setting"] for row in rows))


class Column:
    """Mean and interval of a column of one setting, `[R, T]`, or `[R]` without t."""

    def __init__(self, rows: Sequence[Row], setting: str, name: str, *, by_t: bool):
        mine = [
            row
            for row in rows
            if row["setting"] == setting and (row["t"] is not None) == by_t
        ]
        self.steps = np.array(sorted({row["step"] for row in mine}))
        shape = (len(self.steps), -1) if by_t else (len(self.steps),)

        def values(column: str) -> np.ndarray:
            ordered = sorted(mine, key=lambda row: (row["step"], row["t"] or 0))
            found = [np.nan if row[column] is None else row[column] for row in ordered]
            return np.array(found, float).reshape(shape)

        mean, half_width = values(name), np.nan_to_num(values(interval_name(name)))
        self.is_zero = mean == 0
        if is_magnitude(name):
            mean = np.where(mean > 0, mean, np.nan)  # 0 has no place on a log axis
            self.low, self.high = mean / 10**half_width, mean * 10**half_width
        else:
            self.low, self.high = mean - half_width, mean + half_width
        self.mean = mean

    def plot(
        self, axes: Axes, x: np.ndarray, at: Any, color: str, **style: Any
    ) -> None:
        """Draws `mean[at]` over x with its band."""
        axes.plot(x, self.mean[at], color=color, **style)
        axes.fill_between(x, self.low[at], self.high[at], color=color, alpha=0.2, lw=0)


def layout(rows: Sequence[Row], setting: str, title: str) -> Figure:
    """The paper's Figures 2-4: L, ‖Δh‖, ‖∇W_hh‖, ‖∇W_xh‖ of every t over training.

    A panel per quantity and t ≥ 1, rows with one scale each, and a last column for
    the whole network. Lines are means over seeds, bands their 95 % intervals. A panel
    says 0 where a quantity is exactly 0 in some seed, and a line ends there.
    """
    columns = [Column(rows, setting, name, by_t=True) for name in MAGNITUDES]
    length = columns[0].mean.shape[1]
    count = min(MAX_PANELS, length - 1)
    times = np.unique(np.linspace(1, length - 1, count).round().astype(int))
    figure = Figure(figsize=(1.15 * len(times) + 2.6, 5.6), layout="constrained")
    parts = figure.subfigures(1, 2, squeeze=False, width_ratios=[len(times) + 0.5, 2])
    left, right = parts.flat
    panels = left.subplots(
        len(MAGNITUDES), len(times), sharex=True, sharey="row", squeeze=False
    )
    for line, (name, column) in enumerate(zip(MAGNITUDES, columns, strict=True)):
        panels[line, 0].set_ylabel(_LABELS[name])
        for axes, t in zip(panels[line], times, strict=True):
            column.plot(axes, column.steps, np.s_[:, t], COLORS[line], lw=1.2)
            axes.tick_params(labelsize=7)
            if column.is_zero[:, t].all():
                _say(axes, "0")
            elif not np.isfinite(column.mean).any():
                _say(axes, "none")
            if line == 0:
                axes.set_title(f"t = {t}", fontsize=9)
        _scale(panels[line, 0], name, column)
    for axes in panels[-1]:
        _few_steps(axes, columns[0].steps)
    left.supxlabel("updates", fontsize=9)

    whole = ("loss", "accuracy", "decay", "w_hh_sum_cosine")
    side = right.subplots(len(whole), 1, sharex=True)
    for axes, name in zip(side, whole, strict=True):
        column = Column(rows, setting, name, by_t=False)
        column.plot(axes, column.steps, np.s_[:], COLORS[6], lw=1.2)
        axes.set_title(_LABELS[name].replace("\n", " "), fontsize=8)
        axes.tick_params(labelsize=7)
        _scale(axes, name, column)
    _few_steps(side[-1], columns[0].steps)
    right.supxlabel("updates", fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def flow(rows: Sequence[Row], title: str) -> Figure:
    """What flows back in time and whether it teaches: a column per setting.

    Over t, at the start, in the middle and at the end of training: L_t, ‖∇W_hhᵗ‖, and
    the cosines of the errors to BPTT's and to those for swapped labels.
    """
    settings = _settings(rows)
    names = ("local_loss", "w_hh_grad_norm", "error_cosine", "error_label_swap")
    figure = Figure(figsize=(1.6 * len(settings) + 1.2, 6.4), layout="constrained")
    panels = figure.subplots(
        len(names), len(settings), sharex=True, sharey="row", squeeze=False
    )
    for line, name in enumerate(names):
        panels[line, 0].set_ylabel(_LABELS[name])
        columns = [Column(rows, setting, name, by_t=True) for setting in settings]
        for axes, setting, column in zip(panels[line], settings, columns, strict=True):
            last = len(column.steps) - 1
            when = dict.fromkeys((0, last // 2, last))
            for layer, index in enumerate(when):
                # Later lines are thinner, so that equal ones stay visible.
                column.plot(
                    axes, np.arange(column.mean.shape[1]), index, COLORS[layer],
                    marker="o", ms=4.5 - 1.2 * layer, lw=2.6 - 0.8 * layer,
                    label=f"{column.steps[index]:,} updates",
                )  # fmt: skip
            axes.tick_params(labelsize=7)
            if not np.isfinite(column.mean).any():
                _say(axes, "none")
            elif name not in MAGNITUDES:
                axes.axhline(0, color="0.6", lw=0.7, zorder=0)
            if line == 0:
                axes.set_title(setting.replace(", ", "\n"), fontsize=8)
            if line == len(names) - 1:
                axes.set_xlabel("t")
                axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4, integer=True))
        _scale(panels[line, 0], name, *columns)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    for axes in panels.flat:
        if not handles:
            handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8
    )
    figure.suptitle(title, fontsize=10)
    return figure


def _say(axes: Axes, text: str) -> None:
    """Words where there is nothing to draw."""
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center",
        fontsize=8, color="0.4",
    )  # fmt: skip


def _few_steps(axes: Axes, steps: np.ndarray) -> None:
    """Three marks on an axis of updates."""
    last = int(steps[-1])
    marks = [0, last // 2, last] if last > 1 else [0, last]
    names = [f"{mark / 1000:g}k" if mark >= 1000 else str(mark) for mark in marks]
    axes.set_xticks(marks, names)


def _scale(axes: Axes, name: str, *columns: Column) -> None:
    """The vertical axis of a quantity, for all columns that share it."""
    if name in MAGNITUDES:
        # Bands count too, but a few wide ones do not squeeze the lines.
        ends = [
            np.clip(end, column.mean / 10, column.mean * 10).ravel()
            for column in columns
            for end in (column.low, column.high)
        ]
        finite = np.concatenate(ends)[np.isfinite(np.concatenate(ends))]
        if not finite.size:
            axes.set_yticks([])
            return
        axes.set_yscale("log")
        low, high = np.log10(finite.min()), np.log10(finite.max())
        # At least two decades: a flat line looks flat.
        middle, half = (low + high) / 2, max(1.0, 0.54 * (high - low))
        axes.set_ylim(10 ** (middle - half), 10 ** (middle + half))
        axes.yaxis.set_major_locator(mpl.ticker.LogLocator(numticks=5))
        axes.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    elif name == "accuracy":
        axes.set_ylim(-0.03, 1.03)
    elif name == "loss":
        axes.set_ylim(bottom=0)
    elif name == "decay":
        (column,) = columns
        below = np.nanmax(-column.low, initial=0)
        above = np.nanmax(column.high, initial=0.5)
        axes.set_ylim(-1.1 * below, 1.1 * above)
    else:
        axes.set_ylim(-1.08, 1.08)
        axes.set_yticks([-1, 0, 1])
