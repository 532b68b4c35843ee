"""Figures of a run: validation accuracy over training, and a heat map of lr (and γ).

Colours are Okabe and Ito's, and cividis: readable for the colour-blind and in grey.
"""

from __future__ import annotations

import math
import pathlib
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lra_jax.lab.config import tasks
from lra_jax.lab.reports import canvas, run_view, summary

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")


def draw(
    folder: pathlib.Path,
    rows: Sequence[dict[str, Any]],
    curves: Mapping[str, np.ndarray],
    num_validation: int,
    chances: Mapping[str, float] = types.MappingProxyType({}),
) -> dict[str, str]:
    """Draws what the run has data for, each as PNG and SVG.

    Args:
      folder: whose `figures` they go into.
      rows: of the results.
      curves: as `tables.curve_columns` gives.
      num_validation: samples of the validation set.
      chances: of the tasks, as far as they are known; see `run_view.chance`.

    Returns:
      What each shows, by the file name of its PNG, relative to `folder`.
    """
    (folder / "figures").mkdir(exist_ok=True)
    captions = {}
    with canvas.style():
        for (task, seq_len), group in _by(rows, ("task", "seq_len")).items():
            if not summary.settings(group):
                continue
            suffix = f"{tasks.file_name(task)}_T{seq_len}"
            title = f"{task.replace('_', ' ')}, T = {seq_len}"
            figures = [
                (
                    "accuracy",
                    "validation accuracy over updates of each line's best setting: "
                    "its seeds (thin) and their mean",
                    _accuracy(
                        group,
                        curves,
                        num_validation,
                        title,
                        run_view.chance(task, chances),
                    ),
                )
            ]
            # Somebody's own optimizer may have no such number.
            placed = [row for row in group if row.get("lr") is not None]
            if summary.settings(placed):
                figures.append(_over_rates(placed, title))
            for kind, what, figure in figures:
                name = f"figures/{kind}_{suffix}.png"
                save(figure, folder / name)
                captions[name] = f"{title}: {what}."
    return captions


def _over_rates(rows: Sequence[dict[str, Any]], title: str) -> tuple[str, str, Figure]:
    """All settings over lr and γ: the kind of the figure, what it shows, itself."""
    has_gamma = any(row.get("gamma") is not None for row in rows)
    if _is_lattice(rows):
        over = "lr and γ" if has_gamma else "lr"
        what = (
            f"every setting over {over}: updates until all seeds were solved (✓), or "
            "the mean best accuracy"
        )
        return "heatmap", what, _heatmap(rows, title)
    where = "in lr and accuracy"
    if has_gamma:
        bare = {row["rule"] for row in rows if row.get("gamma") is None}
        where = "in lr and γ" + " (or accuracy, without γ)" * bool(bare)
    what = (
        f"every setting, where it is {where}: ● all seeds were solved, ✕ they were not"
    )
    return "scatter", what, _scatter(rows, title)


def drawings(
    folder: pathlib.Path, captions: Mapping[str, str]
) -> list[run_view.Drawing]:
    """The figures that `draw` wrote into a folder, for a web page."""
    return [
        run_view.Drawing(
            caption, (folder / name).with_suffix(".svg").read_text("utf-8")
        )
        for name, caption in captions.items()
    ]


def _by(
    rows: Sequence[dict[str, Any]], keys: Sequence[str]
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    return groups


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes a figure as PNG and SVG."""
    FigureCanvasAgg(figure)
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=150, bbox_inches="tight")


def _line_name(values: Mapping[str, Any]) -> str:
    """A rule with its K and λ, as the figures call it."""
    name = str(values["rule"])
    if (k := summary.line_value(values, "num_refinements")) is not None:
        name += f", K = {k}"
    if (lambda_ := summary.line_value(values, "lambda")) is not None:
        name += f", λ = {lambda_:g}"
    return name


def _accuracy(
    rows: Sequence[dict[str, Any]],
    curves: Mapping[str, np.ndarray],
    num_validation: int,
    title: str,
    chance: float | None,
) -> Figure:
    """Accuracy against updates: each line's best setting, its seeds and their mean.

    The axis is logarithmic in the errors, where these tasks are decided: 99 and 99.99 %
    are as far apart as 0 and 99 %.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.add_subplot()

    def height(rate: Any) -> Any:
        return -np.log10(np.maximum(rate, 0.5 / num_validation))

    rates = curves["num_errors"] / curves.get("num_samples", num_validation)

    order = np.argsort(curves["member"], kind="stable")
    members = curves["member"][order]
    for index, (setting, _) in enumerate(summary.best_settings(rows)):
        color = COLORS[index % len(COLORS)]
        dash = DASHES[(index // len(COLORS)) % len(DASHES)]
        seeds = []
        for row in setting.rows:
            begin, end = np.searchsorted(members, [row["member"], row["member"] + 1])
            at = order[begin:end]
            seeds.append((curves["step"][at], rates[at]))
            axes.plot(seeds[-1][0], height(seeds[-1][1]), dash, color=color, lw=0.6)
        # A member keeps its last accuracy when it has ended.
        steps = np.unique(np.concatenate([step for step, _ in seeds]))
        mean = np.mean([np.interp(steps, *seed) for seed in seeds], axis=0)
        label = (
            f"{_line_name(setting.values)} ({setting.num_solved}/{setting.num_seeds})"
        )
        # Later lines are thinner, so that equal ones stay visible.
        width = 4.0 / (1 + 0.35 * index)
        axes.plot(steps, height(mean), dash, color=color, lw=width, label=label)
        axes.plot(steps[-1], height(mean[-1:]), "o", color=color, ms=2 + width)
    if chance is not None:
        at = height(1 - chance)
        axes.axhline(at, color="0.5", lw=0.8, ls=":", label="chance")
    marks = [
        m for m in (0, 50, 90, 99, 99.9, 99.99) if (100 - m) * num_validation >= 99
    ]
    axes.set_yticks(
        [*(height(1 - m / 100) for m in marks),
         height(0)],
        [*(f"{m:g}" for m in marks), "no error"],
    )  # fmt: skip
    axes.set(title=title, xlabel="updates", ylabel="validation accuracy, %")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    figure.legend(
        loc="outside right upper", frameon=False, fontsize=8,
        title="best setting (solved seeds)",
    )  # fmt: skip
    return figure


def _heatmap(rows: Sequence[dict[str, Any]], title: str) -> Figure:
    """Every setting over lr × γ, a panel per rule, K and λ.

    A cell is the best of the settings that differ in anything else. It says ✓ and the
    mean number of updates if all its seeds are solved, else the mean best accuracy.
    Its colour is the accuracy; where most cells are solved, the number of updates of
    those that are.
    """
    panels = _panels(rows)
    cells = {name: _cells(settings) for name, settings in panels.items()}
    scale = _scale([cell for *_, best in cells.values() for cell in best.values()])
    image = scale.image
    columns = min(5, len(panels))
    lines = -(-len(panels) // columns)
    height = max(len(gammas) for _, gammas, _ in cells.values())
    width = max(len(rates) for rates, _, _ in cells.values())
    figure = Figure(
        figsize=(
            1.6 + columns * (0.55 + 0.55 * width),
            0.6 + lines * (1 + 0.5 * height),
        ),
        layout="constrained",
    )
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (name, (rates, gammas, best)) in zip(
        grid.flat, cells.items(), strict=False
    ):
        values = np.full((len(gammas), len(rates)), np.nan)
        for at, cell in best.items():
            accuracy = 100 * cell.mean("best_accuracy")
            values[at] = scale.value(cell)
            text = f"{math.floor(10 * accuracy) / 10:.1f}"  # 99.99 is not 100.0
            if cell.all_solved:
                text = f"✓ {cell.mean('step'):.0f}"
            red, green, blue, opaque = image.to_rgba(np.array([values[at]])).ravel()
            dark = opaque and 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
            axes.text(
                *reversed(at), text, ha="center", va="center", fontsize=7,
                color="white" if dark else "black",
            )  # fmt: skip
        axes.imshow(values, cmap=image.cmap, norm=image.norm, origin="lower")
        hidden = _hidden(panels[name])
        axes.set_title(name.replace(", K", "\nK") + hidden, fontsize=8)
        axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates], fontsize=7)
        axes.set_xlabel("lr", fontsize=8)
        if gammas == [None]:
            axes.set_yticks([])
        else:
            axes.set_yticks(range(len(gammas)), [f"{g:g}" for g in gammas], fontsize=7)
            axes.set_ylabel("γ", fontsize=8, rotation=0, labelpad=8, va="center")
        # Else cells without a colour have no border.
        axes.spines[:].set(visible=True, color="0.8")
        axes.tick_params(length=0)
    figure.suptitle(
        f"{title}: ✓ updates until solved, or best accuracy in %", fontsize=9
    )
    _bar(figure, grid, scale)
    return figure


class _Scale(NamedTuple):
    """Colours of settings.

    Attributes:
      image: knows the colour of a value.
      by_updates: whether the value is the number of updates, or the accuracy in %.
    """

    image: mpl.cm.ScalarMappable
    by_updates: bool

    def value(self, setting: summary.Setting) -> float:
        """What the setting's colour is of; NaN where it has none."""
        if not self.by_updates:
            return 100 * setting.mean("best_accuracy")
        return setting.mean("step") if setting.all_solved else math.nan


def _scale(settings: Sequence[summary.Setting]) -> _Scale:
    """By updates where most are solved; those that are not stay uncoloured then."""
    steps = [setting.mean("step") for setting in settings if setting.all_solved]
    if 2 * len(steps) > len(settings):
        most = max(*steps, 1.1 * min(steps))
        by_updates = mpl.colors.LogNorm(min(steps), most)
        return _Scale(mpl.cm.ScalarMappable(by_updates, "cividis_r"), True)
    by_accuracy = mpl.colors.Normalize(0, 100)
    return _Scale(mpl.cm.ScalarMappable(by_accuracy, "cividis"), False)


def _bar(figure: Figure, grid: Any, scale: _Scale) -> None:
    label = "updates" if scale.by_updates else "best accuracy, %"
    bar = figure.colorbar(scale.image, ax=grid, label=label, shrink=0.8)
    if scale.by_updates:
        bar.ax.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        bar.ax.yaxis.set_major_formatter("{x:g}")
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=7)


def _panels(rows: Sequence[dict[str, Any]]) -> dict[str, list[summary.Setting]]:
    """The settings of each rule, K and λ."""
    panels: dict[str, list[summary.Setting]] = {}
    for setting in summary.settings(rows):
        panels.setdefault(_line_name(setting.values), []).append(setting)
    return panels


def _hidden(settings: Sequence[summary.Setting]) -> str:
    """A line that says what settings differ in besides lr and γ, if anything."""
    keys = dict.fromkeys(key for setting in settings for key in setting.values)
    lines = (*summary.LINE_KEYS, "lr", "gamma")
    varying = [
        key
        for key in keys
        if key not in lines and len({s.values.get(key) for s in settings}) > 1
    ]
    return f"\nbest of {', '.join(varying)}" if varying else ""


def _is_lattice(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether settings, ended or not, fill most of lr × γ, or were drawn."""
    places: dict[str, set[tuple[Any, Any]]] = {}
    for row in rows:
        places.setdefault(_line_name(row), set()).add((row["lr"], row.get("gamma")))
    sizes = [tuple(len(set(x)) for x in zip(*p, strict=True)) for p in places.values()]
    filled = sum(map(len, places.values()))
    return 2 * filled > sum(map(math.prod, sizes)) and max(sizes)[0] <= 12


def _scatter(rows: Sequence[dict[str, Any]], title: str) -> Figure:
    """Settings that were drawn, over lr and γ; a panel per rule, K and λ."""
    panels = _panels(rows)
    scale = _scale([setting for settings in panels.values() for setting in settings])
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(
        figsize=(1.4 + 2.4 * columns, 0.6 + 2.3 * lines), layout="constrained"
    )
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (name, settings) in zip(grid.flat, panels.items(), strict=False):
        has_gamma = settings[0].values.get("gamma") is not None
        for solved, marker in ((False, "x"), (True, "o")):
            marked = [setting for setting in settings if setting.all_solved == solved]
            heights = [
                s.values["gamma"] if has_gamma else 100 * s.mean("best_accuracy")
                for s in marked
            ]
            values = np.array([scale.value(s) for s in marked])
            axes.scatter(
                [s.values["lr"] for s in marked],
                heights,
                c=np.where(np.isnan(values)[:, None], 0.6, scale.image.to_rgba(values)),
                marker=marker,
                s=26,
                linewidths=1.2 if marker == "x" else 0.5,
                edgecolors=None if marker == "x" else "0.2",
            )
        axes.set_xscale("log")
        if has_gamma:
            axes.set_yscale("log")
        axes.set_xlabel("lr", fontsize=8)
        axes.set_ylabel("γ" if has_gamma else "best accuracy, %", fontsize=8)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
    figure.suptitle(f"{title}: ● all seeds solved, ✕ not", fontsize=9)
    _bar(figure, grid, scale)
    return figure


def _cells(
    settings: Sequence[summary.Setting],
) -> tuple[list[float], list[Any], dict[tuple[int, int], summary.Setting]]:
    """Values of lr and γ ([None] without one), and the best setting at each (γ, lr)."""
    rates = sorted({s.values["lr"] for s in settings})
    gammas = sorted({s.values.get("gamma") for s in settings}, key=lambda g: g or 0)
    columns = {rate: index for index, rate in enumerate(rates)}
    lines = {gamma: index for index, gamma in enumerate(gammas)}
    best: dict[tuple[int, int], summary.Setting] = {}
    for setting in settings:
        at = (lines[setting.values.get("gamma")], columns[setting.values["lr"]])
        if at not in best or setting.rank() > best[at].rank():
            best[at] = setting
    return rates, gammas, best
