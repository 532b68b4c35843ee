"""Axes of a config that are drawn: `lr = { log_uniform = [1e-4, 1e-1], num = 64 }`.

A config's lists are axes of a product. Drawn axes of one table are one axis together,
as in a random search: member i has the i-th value of each.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self

MAX_NUM = 1_000_000
MAX_BOUND = 1e300


class Scale(NamedTuple):
    """Where values are spread evenly: `inverse(u)` with u uniform between images."""

    forward: Callable[[float], float]
    inverse: Callable[[float], float]


SCALES = {
    "uniform": Scale(float, float),
    "log_uniform": Scale(math.log, math.exp),
}
_FORM = "such as { log_uniform = [1e-4, 1e-1], num = 64 }"


class Draws(tuple[float, ...]):
    """Numbers that were drawn, of six digits, and what they were drawn from.

    Attributes:
      spec: as in a config: the name of a scale, `num`, and `seed`.
    """

    spec: dict[str, Any]

    @classmethod
    def make(cls, name: str, spec: Mapping[str, Any]) -> Self:
        """Draws the values of an axis.

        They depend on the axis's name and on `seed` (0 if it is not given) alone. With
        a larger `num`, more are drawn after the same first ones.

        Args:
          name: of the axis.
          spec: one of `SCALES` with the least and the greatest value, and `num`.

        Raises:
          ValueError: says what was expected.
        """
        names = [key for key in spec if key in SCALES]
        unknown = set(spec) - {*SCALES, "num", "seed"}
        if len(names) != 1 or unknown or "num" not in spec:
            raise ValueError(f"expected one of {', '.join(SCALES)}, and num, {_FORM}")
        bounds, scale = spec[names[0]], SCALES[names[0]]
        least = math.ulp(0.0) if names[0] == "log_uniform" else -math.inf
        if not _are_bounds(bounds, least):
            sign = "positive " if least > 0 else ""
            raise ValueError(f"expected two {sign}numbers, the smaller first, {_FORM}")
        num, seed = spec["num"], spec.get("seed", 0)
        if type(num) is not int or not 1 <= num <= MAX_NUM:
            raise ValueError(f"num: expected an integer from 1 to {MAX_NUM:,}")
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise ValueError("seed: expected an integer from 0 to 2³² - 1")
        low, high = (scale.forward(x) for x in bounds)
        # Python promises the same numbers for a seed, whatever its version.
        source = random.Random(f"{name} {seed}")
        draws = cls(
            float(f"{scale.inverse(low + (high - low) * source.random()):.6g}")
            for _ in range(num)
        )
        draws.spec = dict(spec)
        return draws

    def to_toml(self) -> str:
        """What a config says to draw the same."""
        inside = ", ".join(f"{key} = {json.dumps(x)}" for key, x in self.spec.items())
        return f"{{ {inside} }}"


def _are_bounds(bounds: Any, least: float) -> bool:
    return (
        isinstance(bounds, list)
        and len(bounds) == 2
        and all(type(x) in (int, float) and abs(x) <= MAX_BOUND for x in bounds)
        and least <= bounds[0] < bounds[1]
    )
