"""A run's progress on the terminal: a live bar there, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
import rich.console
import rich.progress

from lra_jax.lab.terminal import screen
from lra_jax.member import Limits, Status
from lra_jax.sweep import Members

PLAIN_INTERVAL = 10.0  # seconds between plain lines
BAR_INTERVAL = 0.1  # seconds between two states of the bar, at least


class Progress:
    """Shows members by status, the best accuracy, speed, and the time left at most.

    The time left assumes that every running member uses all its updates; members that
    end early make it shorter.

    Args:
      console: where to.
      limits: of the run.
      start: members at the start, of each group.
    """

    def __init__(
        self,
        console: rich.console.Console,
        limits: Limits,
        start: Sequence[Members],
    ):
        self._console = console
        self._limits = limits
        self._first_steps = _steps(start)
        self._began = time.monotonic()
        self._compiles = True
        self._next = 0.0  # when there is more to show
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}", markup=False),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.TextColumn("{task.percentage:>3.0f}%", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)
        self._has_bar = console.is_terminal and not console.is_dumb_terminal

    def __enter__(self) -> Self:
        """Starts the bar, if there is a terminal."""
        if self._has_bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Removes the bar."""
        self._bar.stop()

    def compiles(self, text: str) -> None:
        """Says what is compiled, which may take minutes without another word."""
        if self._has_bar:
            self._bar.update(self._task, description=text)
        else:
            screen.say(self._console, text)

    def show(self, groups: Sequence[Members], *, last: bool = False) -> None:
        """Shows where the members of all groups are, if it is time to."""
        now = time.monotonic()
        if now < self._next and not last and not self._compiles:
            return
        members = Members(*map(np.concatenate, zip(*groups, strict=True)))
        text, done, total = self._describe(members)
        if self._compiles:  # the first group's program, which says nothing of the rest
            self._compiles = False
            self._first_steps = _steps(groups)
            self._began = now
        if self._has_bar:
            self._bar.update(self._task, description=text, completed=done, total=total)
        else:
            screen.say(self._console, text)
        self._next = now + (BAR_INTERVAL if self._has_bar else PLAIN_INTERVAL)

    def _describe(self, members: Members) -> tuple[str, int, int]:
        counts = {status: int((members.status == status).sum()) for status in Status}
        ended = members.status > Status.RUNNING
        left = int((self._limits.max_steps - members.step[~ended]).sum())
        total = members.step.size * self._limits.max_steps
        seconds = time.monotonic() - self._began
        rate = (int(members.step.sum()) - self._first_steps) / max(seconds, 1e-9)
        known = members.best_num_errors >= 0
        rates = members.best_num_errors[known] / members.best_num_samples[known]
        parts = [
            f"{counts[status]} {status.name.lower()}"
            for status in Status
            if counts[status] or status in (Status.RUNNING, Status.SOLVED)
        ]
        if rates.size:
            parts.append(f"best {100 * (1 - rates.min()):.2f} %")
        if rate and not self._compiles:
            parts.append(f"{rate:,.0f} member-steps/s")
        if rate and left and not self._compiles:
            minutes, rest = divmod(int(left / rate), 60)
            hours, minutes = divmod(minutes, 60)
            clock = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
            parts.append(f"at most {clock}:{rest:02d} left")
        return ", ".join(parts), total - left, total


def _steps(groups: Sequence[Members]) -> int:
    """Updates of all members together."""
    return sum(int(members.step.sum()) for members in groups)
