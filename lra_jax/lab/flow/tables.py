"""Tables of recordings: every observation, and the first and last of each setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lra_jax import diagnostics
from lra_jax.lab.flow.recording import MAGNITUDES, RELATIVE_NORM, Recording
from lra_jax.lab.reports.statistics import finite_mean_interval

Row = dict[str, Any]

# Columns of `by_step` per time step. Of magnitudes the mean over seeds is geometric,
# and the interval that of log₁₀.
COSINES = ("error_cosine", "w_hh_cosine", "error_label_swap")
# Columns of `by_step` for the whole network.
SUMS = ("w_hh_sum_cosine", "w_xh_sum_cosine", "w_hh_label_swap", "w_xh_label_swap")
WHOLE = ("loss", "accuracy", "decay", *SUMS)
COLUMNS = (*MAGNITUDES, *COSINES, *WHOLE)


def _magnitude(values: np.ndarray) -> tuple[float | None, float | None]:
    """Geometric mean over seeds, and the half-width of the interval of its log₁₀.

    A magnitude of 0 in any seed makes the mean 0.
    """
    if np.any(values == 0):
        return 0.0, None
    # A seed that diverged has left NaN.
    mean, half_width = finite_mean_interval(np.log10(values))
    return None if mean is None else 10**mean, half_width


def by_step(
    recordings: Sequence[Recording], columns: Sequence[str] = COLUMNS
) -> list[Row]:
    """Columns over seeds: a row per setting, step and t, and one without t.

    Rows whose t is None have those of `WHOLE`, rows with t have the others, each with
    its 95 % interval in `..._interval` (`..._log10_interval` of magnitudes). What has
    no meaning is None.
    """
    rows = []
    for recording in recordings:
        for index, step in enumerate(recording.steps):
            for t in (None, *range(recording.seq_len)):
                row: Row = {
                    "setting": recording.setting.name,
                    "rule": recording.setting.rule,
                    "step": int(step),
                    "t": t,
                }
                for name in columns:
                    values = recording.values(name)
                    mean = half_width = None
                    if values is not None and (name in WHOLE) == (t is None):
                        at = values[:, index] if t is None else values[:, index, t]
                        average = (
                            _magnitude if is_magnitude(name) else finite_mean_interval
                        )
                        mean, half_width = average(at)
                    row[name] = mean
                    row[interval_name(name)] = half_width
                rows.append(row)
    return rows


def is_magnitude(name: str) -> bool:
    """Whether means over seeds of a column are geometric."""
    return name in (*MAGNITUDES, RELATIVE_NORM)


def interval_name(name: str) -> str:
    """The column of `by_step` with the interval of another column."""
    return name + ("_log10_interval" if is_magnitude(name) else "_interval")


def summary(recordings: Sequence[Recording]) -> list[Row]:
    """A row per setting: its first and last observation, mean and 95 % interval.

    `diverged` counts the seeds whose loss is not finite at the end. Their accuracy is
    0, and the other means at the end are over the seeds that are left.

    `decades` is the decay per step, `vanished` the mean number of steps t ≥ 1 whose
    local loss is exactly 0, `span_...` the decades of a norm between t = T-1 and t = 1
    (positive: smaller at t = 1; None where one of them is 0).
    """
    rows = []
    for recording in recordings:
        setting = recording.setting
        row: Row = {
            "setting": setting.name,
            "rule": setting.rule,
            "options": ", ".join(f"{k}={v}" for k, v in setting.options.items()),
            "lr": setting.lr,
            "task": recording.task,
            "seq_len": recording.seq_len,
            "updates": int(recording.steps[-1]),
            "seeds": len(recording.seeds),
            "diverged": int(np.sum(recording.diverged)),
        }
        for when, index in (("init", 0), ("end", -1)):
            local_loss = recording.values("local_loss")
            count = None if local_loss is None else diagnostics.vanished(local_loss)
            columns = {"decades": recording.values("decay"), "vanished": count}
            for name in ("w_hh_grad_norm", "w_xh_grad_norm"):
                norms = recording.values(name)
                columns[f"span_{name}"] = None if norms is None else _span(norms)
            for name in (*SUMS, "loss", "accuracy"):
                columns[name] = recording.values(name)
            for name, values in columns.items():
                mean = half_width = None
                if values is not None:
                    mean, half_width = finite_mean_interval(values[:, index])
                row[f"{name}_{when}"] = mean
                row[f"{name}_{when}_interval"] = half_width
        rows.append(row)
    return rows


def _span(norms: np.ndarray) -> np.ndarray:
    """Decades between t = T-1 and t = 1 of `[..., T]`; NaN where one is 0."""
    first, last = norms[..., min(1, norms.shape[-1] - 1)], norms[..., -1]
    positive = (first > 0) & (last > 0)
    ratio = np.where(positive, last, 1) / np.where(positive, first, 1)
    return np.where(positive, np.log10(ratio), np.nan)
