"""Timings of `experiments.benchmark`: many things in turn, round after round.

What else the machine does then hits all alike, and medians are compared.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any


@dataclasses.dataclass
class Timing:
    """Something that is timed again and again.

    Attributes:
      name: as tables show it.
      run: does `n` units, and waits for the last.
      work: in a unit: member-steps, or operations.
      compile_seconds: None where nothing is compiled.
      missing: the package without which it cannot run.
      calls: units in each timing.
      seconds: of each timing.
    """

    name: str
    run: Callable[[int], Any]
    work: float
    compile_seconds: float | None = None
    missing: str | None = None
    calls: int = 1
    seconds: list[float] = dataclasses.field(default_factory=list)

    @property
    def rate(self) -> float | None:
        """Work per second, the median of all timings."""
        if not self.seconds:
            return None
        return self.calls * self.work / statistics.median(self.seconds)

    @property
    def unit_seconds(self) -> float:
        """Of one unit, the median of all timings."""
        return statistics.median(self.seconds) / self.calls

    def describe(self) -> dict[str, Any]:
        """For the JSON document."""
        return {
            "name": self.name,
            "missing": self.missing,
            "compile_seconds": self.compile_seconds,
            "work": self.calls * self.work,
            "seconds": self.seconds,
            "rate": self.rate,
        }


def missing(name: str, package: str) -> Timing:
    """In place of something that cannot run without a package."""
    return Timing(name, lambda n: None, 0, missing=package)


def check_seconds(seconds: float) -> None:
    """Looks at the value of a flag --seconds, of which absl takes NaN and infinity.

    Raises:
      ValueError: it is neither a number nor finite.
    """
    if not math.isfinite(seconds):
        raise ValueError(f"--seconds: expected a number, got {seconds}")


def _clock(run: Callable[[int], Any], calls: int) -> float:
    began = time.perf_counter()
    run(calls)
    return time.perf_counter() - began


def measure(
    timings: Iterable[Timing],
    repeats: int,
    seconds: float,
    say: Callable[[str], None],
) -> None:
    """Runs each in turn, `repeats` times, for at least about `seconds` each time."""
    present = [timing for timing in timings if timing.missing is None]
    for timing in present:
        say(f"warming up: {timing.name}")
        once = _clock(timing.run, 1)
        if once < seconds:
            once = _clock(timing.run, 1)
        timing.calls = max(1, round(seconds / once))
    for index in range(repeats):
        for timing in present:
            say(f"round {index + 1} of {repeats}: {timing.name}")
            timing.seconds.append(_clock(timing.run, timing.calls))


def compile_jitted(function: Any, *arguments: Any) -> tuple[Any, float]:
    """A jitted function, compiled for its arguments, and the seconds that it took."""
    began = time.perf_counter()
    compiled = function.lower(*arguments).compile()
    return compiled, time.perf_counter() - began


def best_rate(timings: Iterable[Timing]) -> float:
    """The highest rate of those that ran."""
    return max(timing.rate for timing in timings if timing.rate is not None)


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None
