"""Figures of a run: validation accuracy over training, and a heat map lr × γ.

Colours are Okabe and Ito's, and cividis: readable for the colour-blind and in grey.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments import report
from lra_jax import TASKS

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def draw(
    folder: pathlib.Path,
    rows: Sequence[dict[str, Any]],
    curves: Mapping[str, np.ndarray],
    num_validation: int,
) -> list[str]:
    """Draws what the run has data for, each as PNG and SVG.

    Returns:
      File names of the PNGs, relative to `folder`.
    """
    (folder / "figures").mkdir(exist_ok=True)
    names = []
    with mpl.rc_context(STYLE):
        for (task, seq_len), found in _by(rows, ("task", "seq_len")).items():
            if not report.settings(found):
                continue
            suffix = f"{task}_T{seq_len}"
            title = f"{task.replace('_', ' ')}, T = {seq_len}"
            for kind, figure in (
                ("accuracy", _accuracy(found, curves, num_validation, title)),
                ("heatmap", _heatmap(found, title)),
            ):
                names.append(f"figures/{kind}_{suffix}.png")
                _save(figure, folder / names[-1])
    return names


def _by(
    rows: Sequence[dict[str, Any]], keys: Sequence[str]
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    return groups


def _save(figure: Figure, path: pathlib.Path) -> None:
    FigureCanvasAgg(figure)
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=150, bbox_inches="tight")


def _line_name(values: Mapping[str, Any]) -> str:
    """A rule with its K and λ, as the figures call it."""
    name = str(values["rule"])
    if values.get("num_refinements") is not None:
        name += f", K = {values['num_refinements']}"
    if values.get("lambda") is not None:
        name += f", λ = {values['lambda']:g}"
    return name


def _accuracy(
    rows: Sequence[dict[str, Any]],
    curves: Mapping[str, np.ndarray],
    num_validation: int,
    title: str,
) -> Figure:
    """Accuracy against updates: each line's best setting, its seeds and their mean."""
    figure = Figure(figsize=(6.4, 3.8))
    axes = figure.add_subplot()
    best = report.best_settings(rows)
    longest = 1
    for index, (setting, _) in enumerate(best):
        color = COLORS[index % len(COLORS)]
        dash = DASHES[(index // len(COLORS)) % len(DASHES)]
        seeds = []
        for row in setting.rows:
            mine = curves["member"] == row["member"]
            step = curves["step"][mine]
            accuracy = 100 * (1 - curves["num_errors"][mine] / num_validation)
            axes.plot(step, accuracy, color=color, lw=0.7, alpha=0.35, ls=dash)
            seeds.append((step, accuracy))
        # A member keeps its last accuracy when it has ended.
        steps = np.unique(np.concatenate([step for step, _ in seeds]))
        mean = np.mean([np.interp(steps, *seed) for seed in seeds], axis=0)
        label = f"{_line_name(setting.values)} ({setting.num_solved}/{setting.num_seeds})"
        axes.plot(steps, mean, color=color, lw=1.8, ls=dash, label=label)
        axes.plot(steps[-1], mean[-1], "o", color=color, ms=4)
        longest = max(longest, int(steps[-1]))
    chance = 100 * TASKS[rows[0]["task"]].chance
    axes.axhline(chance, color="0.5", lw=0.8, ls=":", label="chance")
    axes.set(
        title=title,
        xlabel="updates",
        ylabel="validation accuracy, %",
        ylim=(0, 103),
        xlim=(0, 1.02 * longest),
    )
    axes.legend(
        frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1),
        title="best setting (solved seeds)",
    )  # fmt: skip
    return figure


def _heatmap(rows: Sequence[dict[str, Any]], title: str) -> Figure:
    """Mean best accuracy over lr × γ, a panel per rule, K and λ.

    A cell is the best of the settings that differ in anything else; a cell whose seeds
    are all solved shows the mean number of updates instead.
    """
    panels: dict[str, list[report.Setting]] = {}
    for setting in report.settings(rows):
        panels.setdefault(_line_name(setting.values), []).append(setting)
    rates = sorted({s.values["lr"] for found in panels.values() for s in found})
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    gammas = {
        name: sorted({s.values.get("gamma") or 0 for s in found})
        for name, found in panels.items()
    }
    height = max(len(g) for g in gammas.values())
    figure = Figure(
        figsize=(1.5 + columns * (0.9 + 0.62 * len(rates)), lines * (1.3 + 0.42 * height))
    )
    grid = figure.subplots(lines, columns, squeeze=False)
    image = None
    for axes, name in zip(grid.flat, panels, strict=False):
        cells = np.full((len(gammas[name]), len(rates)), np.nan)
        best: dict[tuple[int, int], report.Setting] = {}
        for setting in panels[name]:
            at = (
                gammas[name].index(setting.values.get("gamma") or 0),
                rates.index(setting.values["lr"]),
            )
            if at not in best or setting.rank() > best[at].rank():
                best[at] = setting
        for at, setting in best.items():
            cells[at] = 100 * setting.mean("best_accuracy")
        image = axes.imshow(
            cells, cmap="cividis", vmin=0, vmax=100, aspect="auto", origin="lower"
        )
        for (i, j), setting in best.items():
            solved = setting.num_solved == setting.num_seeds
            text = f"✓ {setting.mean('step'):.0f}" if solved else f"{cells[i, j]:.1f}"
            color = "black" if cells[i, j] > 55 else "white"
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color=color)
        axes.set_title(name, fontsize=8)
        axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates], fontsize=7)
        has_gamma = any("gamma" in s.values for s in panels[name])
        axes.set_yticks(
            range(len(gammas[name])),
            [f"{g:g}" for g in gammas[name]] if has_gamma else [""],
            fontsize=7,
        )
        axes.set_xlabel("lr", fontsize=8)
        axes.set_ylabel("γ" if has_gamma else "", fontsize=8)
        for spine in axes.spines.values():
            spine.set_visible(False)
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    figure.suptitle(f"{title}: best accuracy in %, or ✓ and updates until solved", fontsize=9)
    figure.subplots_adjust(hspace=0.75, wspace=0.45, top=0.86 if lines == 1 else 0.9)
    figure.colorbar(image, ax=grid, label="best accuracy, %", shrink=0.9, pad=0.02)
    return figure
