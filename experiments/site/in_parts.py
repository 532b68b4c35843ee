"""What `forward_alignment` and `feedback_error` have in common.

Training with a look at regular intervals; and a table that is made part by part, each
of them kept, so that the command goes on where it stood.
"""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
import rich.console

import lra_jax
from experiments.paper import parts
from lra_jax.lab.benches import pictures
from lra_jax.lab.reports import results
from lra_jax.lab.reports.results import Row
from lra_jax.lab.runs import fingerprint, run
from lra_jax.lab.terminal import command_line, files, machine, screen


def follow(
    state: lra_jax.TrainState,
    sample: Callable[[jax.Array], lra_jax.Batch],
    look: Callable[[lra_jax.TrainState], dict[str, jax.Array]],
    *,
    rule: lra_jax.LearningRule,
    optimizer: optax.GradientTransformation,
    num_intervals: int,
    every: int,
) -> dict[str, jax.Array]:
    """Trains, and looks before the first update and at the end of every interval.

    Args:
      state: to begin with.
      sample: the number of updates before to the batch of the next one.
      look: a state to numbers.
      rule: that trains.
      optimizer: with which it does.
      num_intervals: how many there are.
      every: updates in each.

    Returns:
      What was seen, an array `[num_intervals + 1]` each.
    """

    def update(state: lra_jax.TrainState, _: None) -> tuple[lra_jax.TrainState, None]:
        batch = sample(state.step)
        return lra_jax.train_step(state, batch, rule=rule, optimizer=optimizer)[0], None

    def interval(
        state: lra_jax.TrainState, _: None
    ) -> tuple[lra_jax.TrainState, dict[str, jax.Array]]:
        seen = look(state)
        return jax.lax.scan(update, state, length=every)[0], seen

    state, seen = jax.lax.scan(interval, state, length=num_intervals)
    return jax.tree.map(lambda x, last: jnp.append(x, last), seen, look(state))


def make(
    console: rich.console.Console,
    module: str,
    makers: Mapping[str, Callable[[], list[Row]]],
    stem: pathlib.Path,
    draw: Callable[[Sequence[Row]], Any],
    page: Callable[[Sequence[Row]], str] | None = None,
) -> int:
    """Makes a table and its figure; the files of before stay until all is there.

    Args:
      console: to say what happens.
      module: name of the command's; it keeps its parts in a folder of runs/.
      makers: of the rows of each part, by what it is called.
      stem: of the files, without suffix.
      draw: the figure, of all rows.
      page: the table for people; none by default.

    Returns:
      The exit code: 0, or 128 and the number of a signal that came first.

    Raises:
      OSError: a file cannot be written.
    """
    machine.prepare()
    stem.parent.mkdir(parents=True, exist_ok=True)
    command = [*command_line.started_as(module), *sys.argv[1:]]
    interruption = run.Interruption(console, command)
    sources = map(pathlib.Path, (str(sys.modules[module].__file__), __file__))
    made_with = {
        "code": fingerprint.ours() | fingerprint.of_files(sources),
        "jax": machine.versions("jax")["jax"],
        "device": machine.describe()["kind"],
    }
    kept = pathlib.Path("runs") / module.rpartition(".")[2]
    paths = [kept / f"{index}.json" for index in range(len(makers))]
    rows: list[Row] = []
    for path, (name, maker) in zip(paths, makers.items(), strict=True):
        key = {"name": name, **made_with}
        part = parts.read(path, key)
        if part is not None:
            screen.say(console, f"{name} is kept in {screen.printable(path)}")
        elif interruption.signal:
            interruption.say("Interrupted; what was trained is kept. To go on:")
            return 128 + interruption.signal
        else:
            screen.say(console, f"training {name}")
            part = {"rows": maker()}
            parts.write(path, key, **part)
        rows += part["rows"]
    results.write_rows(stem.with_suffix(".csv"), rows)
    if page is not None:
        files.write_text(stem.with_suffix(".md"), page(rows))
        screen.say(console, page(rows))
    figures = functools.partial(pictures.draw_figures, {stem.name: draw})
    pictures.show(console, stem.name, stem.parent, figures)
    for path in paths:
        path.unlink(missing_ok=True)
    return 0
