"""Pictures of what is in `results/`, drawn again from its CSVs."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import rich.console

from experiments import canvas, results, terminal
from experiments.results import Row

if TYPE_CHECKING:  # the extra `plot`
    from matplotlib.figure import Figure


def draw(name: str, folder: pathlib.Path) -> list[str]:
    """Draws what there is for a table of results, each as PNG and SVG.

    Args:
      name: of the CSV.
      folder: has it.

    Returns:
      File names of the PNGs.
    """
    from experiments import bench_figures, gradient_flow_figures, paper_figures
    from experiments.figures import save

    rows = results.read_rows(folder / f"{name}.csv")
    if name in ("figure2", "figure3", "figure4"):
        return gradient_flow_figures.draw(
            folder, rows, prefix=name, title="random permutation, T = 10"
        )
    figures: dict[str, dict[str, Callable[[Sequence[Row]], Figure]]] = {
        "table5": {"table5": paper_figures.reach},
        "warm": {"warm": paper_figures.reach},
        "figure5": {
            "figure5": paper_figures.slopes,
            "figure5_accuracy": paper_figures.strength,
        },
        "released": {"released": paper_figures.released},
        "reach": {"reach": bench_figures.reach_of_bench},
        "refinements": {"refinements": bench_figures.refinements},
        "table": {"table": bench_figures.real},
        "alignment": {"alignment": gradient_flow_figures.alignment},
    }
    mine = figures.get(name, {})
    with canvas.style():
        for picture, make in mine.items():
            save(make(rows), folder / f"{picture}.png")
    return [f"{picture}.png" for picture in mine]


def show(console: rich.console.Console, name: str, folder: pathlib.Path) -> None:
    """Draws, where matplotlib is there, and says what."""
    note = canvas.missing()
    drawn: list[str] = []
    if note is None:
        try:
            drawn = draw(name, folder)
        except OSError:
            raise  # the folder's
        except Exception as error:  # of matplotlib, and whatever it is made of
            note = canvas.failure(error)
    if note is not None:
        terminal.say(console, terminal.plain(note))
    for picture in drawn:
        terminal.say(console, f"  {terminal.printable(folder / picture)}")
