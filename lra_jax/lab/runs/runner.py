"""The runs of a bench or a reproduction, each in a folder, and what came of them."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import rich.console

from lra_jax.lab.config import Config
from lra_jax.lab.reports.results import Row
from lra_jax.lab.reports.summary import best_of_seeds
from lra_jax.lab.runs import run, store
from lra_jax.lab.terminal import command_line, screen


class StoppedError(Exception):
    """A signal stopped a run; what was finished is saved.

    Args:
      number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Evaluations(NamedTuple):
    """What the evaluations of a member found, in the order they were made.

    Attributes:
      status: of the member at its end.
      step: `[R]` updates done, the first 0.
      loss: `[R]`.
      num_errors: `[R]`.
      num_samples: `[R]`, among which these are.
    """

    status: str
    step: np.ndarray
    loss: np.ndarray
    num_errors: np.ndarray
    num_samples: np.ndarray


class Runner:
    """Trains configs, each in a run folder of its own, and knows what came of them.

    Args:
      console: where to say what happens.
      folder: where the run folders are.
      interruption: stops a run after a chunk.
      accept_old_code: whether runs count that were made by other code than today's.

    Attributes:
      used: run folders by name of the run, in the order they were asked for.
    """

    def __init__(
        self,
        console: rich.console.Console,
        folder: pathlib.Path,
        interruption: run.Interruption,
        *,
        accept_old_code: bool = False,
    ):
        self.used: dict[str, pathlib.Path] = {}
        self.console = console
        self.folder = folder
        self.accept_old_code = accept_old_code
        self._interruption = interruption

    def rows(self, config: Config) -> list[Row]:
        """The rows of a run's results, trained now where they are not there yet.

        Raises:
          StoppedError: a signal came first.
          store.RunFolderError: the run folder cannot be used or written.
        """
        path = self.folder / config.name
        accept = self.accept_old_code
        kept = store.RunFolder(path, config, accept_old_code=accept)
        if not kept.is_finished():
            toml = path / "config.resolved.toml"
            try:
                number = run.train(
                    self.console,
                    config,
                    path,
                    resume=True,
                    command=[*command_line.started_as("grid"), "--config", str(toml)],
                    interruption=self._interruption,
                    with_report=False,
                    accept_old_code=accept,
                )
            except store.OtherRunError as error:
                text = f"{error}\nTo train it anew, move {path} away"
                raise store.OtherRunError(text) from None
            if number:
                raise StoppedError(number)
        self.used[config.name] = path
        return self._rows_of(config, path)

    def _rows_of(self, config: Config, path: pathlib.Path) -> list[Row]:
        """The rows of a finished run.

        Raises:
          store.RunFolderError: they are not all there; how to get them.
        """
        try:
            return store.read_results(path, sum(1 for _ in config.members()))
        except store.RunFolderError as error:
            words = [
                *command_line.started_as("grid"),
                *screen.option("config", str(path / "config.resolved.toml")),
                *screen.option("out", str(path)),
                *["--accept-old-code"] * self.accept_old_code,
                "--resume",
            ]
            command = screen.shell(words, self.console.encoding)
            text = f"{error}. To write it again from the checkpoints:\n  {command}"
            raise store.RunFolderError(text) from None

    def curves(self, config: Config) -> dict[int, list[tuple[int, float]]]:
        """For each seed of a run of one setting: updates and validation accuracy."""
        return {
            seed: [
                (int(step), 1 - int(errors) / int(samples))
                for step, errors, samples in zip(
                    found.step, found.num_errors, found.num_samples, strict=True
                )
            ]
            for seed, found in zip(config.seeds, self.evaluations(config), strict=True)
        }

    def evaluations(self, config: Config) -> list[Evaluations]:
        """The evaluations of each member of a run, in the order of its results."""
        rows = self.rows(config)
        curves = store.read_curves(self.used[config.name] / "curves.npz")
        whole = np.full_like(curves["member"], config.num_validation)  # older folders
        found = [curves[key] for key in ("step", "loss", "num_errors")]
        found.append(curves.get("num_samples", whole))
        places = [store.of_member(curves, row["member"]) for row in rows]
        return [
            Evaluations(row["status"], *(x[place] for x in found))
            for row, place in zip(rows, places, strict=True)
        ]

    def made_with(self) -> list[Row]:
        """What each run was made with: code, machine, and how long it took."""
        lines = []
        for name, path in self.used.items():
            manifest = json.loads((path / "manifest.json").read_text("utf-8"))
            lines.append(
                {
                    "run": name,
                    "code": _codes(manifest),
                    "jax": manifest["versions"]["jax"],
                    "device": manifest["device"]["kind"],
                    "cores": manifest["device"]["cores"],
                    "dtype": manifest["dtype"],
                    "members": manifest["num_members"],
                    "updates": manifest["member_steps"],
                    "seconds": manifest["seconds"],
                }
            )
        return lines

    def seeds(self) -> list[Row]:
        """What each seed of each run reached: its best member at each T and K."""
        return [
            {"run": name, **row}
            for name, path in self.used.items()
            for row in best_of_seeds(store.read_rows(path / "results.csv"))
        ]

    def stop_if_asked(self) -> None:
        """Raises StoppedError if a signal came."""
        if self._interruption.signal:
            raise StoppedError(self._interruption.signal)


def _codes(manifest: Mapping[str, Any]) -> str | None:
    """The commits that made a run: several, where it was gone on with by other code."""
    makers = [manifest, *manifest.get("later", [])]
    codes = dict.fromkeys(maker["code"] for maker in makers)
    return (
        ", ".join(str(code) for code in codes) if len(codes) > 1 else manifest["code"]
    )
