"""Texts of the cells and notes that several artefacts have."""

from __future__ import annotations

from typing import Any

from lra_jax.lab.benches.cells import Cell
from lra_jax.lab.config import Config
from lra_jax.lab.reports.summary import percent

_SYMBOLS = {
    "lr": "α",
    "gamma": "γ",
    "num_refinements": "K",
    "lambda": "λ",
    "local_loss": "loss",
}


def grid_text(config: Config) -> str:
    """What a run searches over, and what else its rule is given."""
    (axes,) = config.grid
    return "; ".join(
        f"{_SYMBOLS.get(key, key)} {', '.join(_value(value) for value in values)}"
        for key, values in axes.items()
        if key != "seq_len"
    )


def _value(value: Any) -> str:
    return f"{value:g}" if type(value) in (int, float) else str(value).lower()


def cell_text(cell: Cell) -> str:
    """A cell for people: accuracy, or ✓ where all seeds are solved."""
    count = f"{cell.solved}/{cell.num_seeds}"
    if cell.solved == cell.num_seeds:
        return f"✓ {count}"
    return f"{percent(cell.accuracy, cell.interval)} ({count})"


def mean_text(mean: float | None, interval: float | None, digits: int = 2) -> str:
    """A mean over seeds and its interval, where there are any."""
    if mean is None:
        return "–"
    text = f"{mean:.{digits}f}"
    return text if interval is None else f"{text} ± {interval:.{digits}f}"
