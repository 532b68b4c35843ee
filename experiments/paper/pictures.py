"""Pictures of the reproduction's tables, drawn from their CSVs."""

from __future__ import annotations

import pathlib

from lra_jax.lab.benches import pictures
from lra_jax.lab.reports import results


def draw_artefact(name: str, folder: pathlib.Path) -> list[str]:
    """Draws what there is for a table of `results/`, each figure as PNG and SVG.

    Args:
      name: of the CSV, also of a bench's.
      folder: has it.

    Returns:
      File names of the PNGs.
    """
    from experiments.paper import figures
    from lra_jax.lab.benches import bench_figures
    from lra_jax.lab.flow import figures as flow_figures

    if name in ("figure2", "figure3", "figure4"):
        rows = results.read_rows(folder / f"{name}.csv")
        return flow_figures.draw(
            folder, rows, prefix=name, title="random permutation, T = 10"
        )
    figures_of_table: dict[str, pictures.Figures] = {
        "table5": {"table5": bench_figures.reach},
        "warm": {"warm": bench_figures.reach},
        "figure5": {
            "figure5": figures.slopes,
            "figure5_accuracy": figures.strength,
        },
        "released": {"released": figures.released_curves},
    }
    own = figures_of_table.get(name)
    if own is None:
        return pictures.draw(name, folder)
    return pictures.draw_figures(own, name, folder)
