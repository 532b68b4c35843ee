"""Means over seeds, and how certain they are."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Iterable, Sequence


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and the half-width of its 95 % interval, by Student's t.

    The half-width is t(0.975, n - 1) · s / √n, for n values of standard deviation s.
    It is None for one value, and where a value is not finite.

    Args:
      values: `[n]` with n ≥ 1.
    """
    mean = statistics.fmean(values)
    if len(values) < 2 or not math.isfinite(mean):
        return mean, None
    deviation = statistics.stdev(values)
    return mean, _quantile(len(values) - 1) * deviation / math.sqrt(len(values))


def finite_mean_interval(
    values: Iterable[float],
) -> tuple[float | None, float | None]:
    """`mean_interval` of the values that are finite.

    The mean is None where there are none, and the half-width where there are fewer
    than two.
    """
    finite = [float(x) for x in values if math.isfinite(x)]
    return mean_interval(finite) if finite else (None, None)


@functools.cache
def _quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t."""
    import scipy.special  # a third of a second, which only reports need to spend

    return float(scipy.special.stdtrit(degrees, 0.975))
