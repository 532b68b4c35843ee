"""What a person sees of `experiments.benchmark`: tables on a screen, and a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import rich.console
import rich.table
import rich.text

from lra_jax.lab.reports import canvas
from lra_jax.lab.terminal import screen

if TYPE_CHECKING:  # the extra `plot`
    from matplotlib.figure import Figure


def number(x: float | None, unit: str = "") -> str:
    """Three digits, with thousands apart; a dash for None."""
    if x is None:
        return "-"
    if x == 0 or not math.isfinite(x):
        return f"{x:g}{unit}"
    digits = max(0, 2 - math.floor(math.log10(abs(x))))
    return f"{x:,.{digits}f}{unit}"


def show(console: rich.console.Console, document: dict[str, Any]) -> None:
    """Prints what `benchmark.json` has."""
    settings = document["settings"]
    screen.say(
        console,
        "{task}, T = {seq_len}, K = {num_refinements}, N = {members}, "
        "H = {hidden_size}, B = {batch_size}, {repeats} round(s)".format(**settings),
    )
    on, load = document["machine"], document["load"]
    screen.say(
        console,
        f"{on['count']} × {on['kind']}, {on['cores']} cores, load "
        f"{number(load['before'])} before and {number(load['after'])} after the "
        f"timings; JAX {document['versions']['jax']}",
    )
    header = ("variant", "compile s", "member-steps/s", "× engine")
    body = []
    for row in document["variants"]:
        cells = [number(row[x]) for x in ("compile_seconds", "rate", "ratio")]
        if row["missing"]:
            cells = ["-", f"{row['missing']} not installed", "-"]
        body.append([row["name"], *cells])
    screen.show_table(console, header, body, left=header[:1])

    needed, ceiling = document["operations"], document["ceiling"]
    costs, need = document["costs"], document["memory"]
    lines = [
        (
            "multiply-adds of a member-step",
            number(needed["multiply_adds"] / 1e6) + " M",
        ),
        ("tanh of a member-step", number(needed["tanh"] / 1e3) + " k"),
        ("bytes of a member-step", number(needed["bytes"] / 1e3) + " kB"),
        ("product rate", _rate(document["products"], "G", "multiply-adds")),
        ("tanh rate", _rate(document["tanh"], "G", "tanh")),
        ("ceiling", f"{number(ceiling['rate'])} member-steps/s"),
        ("engine, of the ceiling", f"{100 * ceiling['fraction']:.1f} %"),
        ("cost of λ > 0 over λ = 0", number(costs["lambda"])),
        (
            f"cost of K = 1 over K = {settings['num_refinements']}",
            number(costs["one_refinement"]),
        ),
        (
            "cost of mixed K over the sum of its parts",
            number(costs["mixed_refinements"]),
        ),
        (
            "cost of T = 100 over T = 10",
            "with --scan"
            if costs["seq_len_100_over_10"] is None
            else number(costs["seq_len_100_over_10"]),
        ),
        (
            f"memory of a device at T = {', '.join(need['bytes'])}",
            ", ".join(f"{x / 1e6:.1f} MB" for x in need["bytes"].values()),
        ),
        (
            "its growth with T",
            f"{'linear' if need['linear'] else 'NOT LINEAR'}, per step and member "
            f"{need['hidden_arrays_per_step']:.1f} arrays [B, H] in all, "
            f"{need['matrices_per_step']:.2f} arrays [H, H]"
            + ("" if need["no_matrix_stack"] else ": A STACK OF MATRICES"),
        ),
    ]
    table = rich.table.Table(box=None, show_header=False)
    for name, value in lines:
        table.add_row(rich.text.Text(name), rich.text.Text(value))
    console.print(table, highlight=False)


def _rate(rows: Sequence[dict[str, Any]], prefix: str, unit: str) -> str:
    """The best rate, and what else there was."""
    present = [row for row in rows if row["rate"] is not None]
    best = max(present, key=lambda row: row["rate"])
    text = f"{number(best['rate'] / 1e9)} {prefix} {unit}/s ({best['name']})"
    missing = {row["missing"] for row in rows if row["missing"]}
    return text + "".join(f"; {name} not installed" for name in sorted(missing))


def draw(document: dict[str, Any]) -> Figure:
    """Member-steps per second over N, and the time of one over T, K and H."""
    import matplotlib as mpl
    import matplotlib.ticker
    from matplotlib.figure import Figure

    from lra_jax.lab.reports import figures

    letters = dict(zip(document["scan"], "NTKH", strict=True))
    with canvas.style():
        figure = Figure(figsize=(7.2, 5.2), layout="constrained")
        for axes, (name, letter) in zip(
            figure.subplots(2, 2).flat, letters.items(), strict=True
        ):
            points = document["scan"][name]
            values = [point["value"] for point in points]
            for key, style in (("rate", "o-"), ("ceiling", "--")):
                rates = np.array([point[key] for point in points])
                color = figures.COLORS[key == "ceiling"]
                label = {"rate": "engine"}.get(key, key)
                height = rates if letter == "N" else 1e3 / rates
                axes.plot(values, height, style, color=color, ms=4, label=label)
            axes.set_xscale("log")
            axes.set_xticks(values, [str(value) for value in values])
            axes.set_xlabel(letter)
            if letter == "N":
                axes.set_ylabel("member-steps/s")
                axes.set_ylim(bottom=0)
            else:
                axes.set_ylabel("ms / member-step")
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        figure.axes[0].legend(frameon=False, fontsize=8)
        settings = document["settings"]
        figure.suptitle(
            "{task}: T = {seq_len}, K = {num_refinements}, N = {members}, "
            "H = {hidden_size}, B = {batch_size} where not said".format(**settings)
            + f"\n{document['machine']['count']} × {document['machine']['kind']}",
            fontsize=9,
        )
    return figure
