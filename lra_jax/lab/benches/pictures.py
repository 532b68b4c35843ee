"""Pictures of the tables of benches, drawn from their CSVs."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import rich.console

from lra_jax.lab.reports import canvas, results
from lra_jax.lab.reports.results import Row
from lra_jax.lab.terminal import screen

if TYPE_CHECKING:  # the extra `plot`
    from matplotlib.figure import Figure

# Of a table: file names without suffix, and what draws them.
Figures = dict[str, Callable[[Sequence[Row]], "Figure"]]


def figures_of(name: str) -> Figures:
    """The figures of a bench's table; needs matplotlib.

    Args:
      name: of the CSV.
    """
    from lra_jax.lab.benches import bench_figures

    figures: dict[str, Figures] = {
        "reach": {"reach": bench_figures.reach_of_bench},
        "refinements": {"refinements": bench_figures.refinements},
        "table": {"table": bench_figures.real},
        "alignment": {"alignment": bench_figures.alignment},
    }
    return figures.get(name, {})


def draw(name: str, folder: pathlib.Path) -> list[str]:
    """Draws what there is for a bench's table, each figure as PNG and SVG.

    Args:
      name: of the CSV.
      folder: has it.

    Returns:
      File names of the PNGs.
    """
    return draw_figures(figures_of(name), name, folder)


def draw_figures(figures: Figures, name: str, folder: pathlib.Path) -> list[str]:
    """Draws figures of the rows of `NAME.csv` beside it; returns the PNGs' names."""
    from lra_jax.lab.reports.figures import save

    rows = results.read_rows(folder / f"{name}.csv")
    with canvas.style():
        for picture, make in figures.items():
            save(make(rows), folder / f"{picture}.png")
    return [f"{picture}.png" for picture in figures]


def show(
    console: rich.console.Console,
    name: str,
    folder: pathlib.Path,
    draw: Callable[[str, pathlib.Path], list[str]] = draw,
) -> None:
    """Draws, where matplotlib is there, and says what.

    Args:
      console: to say it.
      name: of the CSV.
      folder: has it.
      draw: as `draw` of this file.
    """
    note = canvas.missing()
    drawn: list[str] = []
    if note is None:
        try:
            drawn = draw(name, folder)
        except OSError as error:
            error.filename = error.filename or str(folder)
            raise
        except Exception as error:  # of matplotlib, and whatever it is made of
            note = canvas.failure(error)
    if note is not None:
        screen.say(console, screen.plain(note))
    for picture in drawn:
        screen.say(console, f"  {screen.printable(folder / picture)}")
