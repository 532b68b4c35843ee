"""A run as every report shows it: its results, and notes that explain them."""

from __future__ import annotations

import collections
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lra_jax.lab.config import tasks as tasks_lib
from lra_jax.lab.config.config import NETWORK_AXES
from lra_jax.lab.data.sources import DatasetError
from lra_jax.lab.reports.summary import percent
from lra_jax.lab.terminal import screen


class Drawing(NamedTuple):
    """A figure: what it shows, and its SVG as matplotlib writes it."""

    caption: str
    svg: str


class RunView(NamedTuple):
    """A run as reports show it, or several runs that are joined.

    Attributes:
      name: of the run.
      command: that makes it again.
      rows: of the results, as `tables.result_rows` gives or `results.read_rows` reads.
      notes: lines in Markdown, see `notes`.
      finished: whether all members have ended.
      drawings: its figures.
      chances: of its tasks, as far as the run says; see `chance`.
    """

    name: str
    command: str
    rows: Sequence[dict[str, Any]]
    notes: Sequence[str]
    finished: bool
    drawings: Sequence[Drawing] = ()
    chances: Mapping[str, float] = types.MappingProxyType({})


def view(rows: Sequence[dict[str, Any]], manifest: Mapping[str, Any]) -> RunView:
    """A run from its results and its manifest, without figures."""
    return RunView(
        name=manifest["name"],
        command=screen.shell(manifest["command"]),
        rows=rows,
        notes=notes(manifest),
        finished=manifest["finished"],
        chances=dict(manifest.get("chance", {})),
    )


def join(runs: Sequence[RunView]) -> RunView:
    """Several runs as one, whose rows begin with `run`; one run stays as it is."""
    if len(runs) == 1:
        return runs[0]
    return RunView(
        name=", ".join(run.name for run in runs),
        command="\n".join(run.command for run in runs),
        rows=[{"run": run.name, **row} for run in runs for row in run.rows],
        notes=[
            f"{run.name}, {counts(run.rows)}. {' '.join(run.notes)}" for run in runs
        ],
        finished=all(run.finished for run in runs),
        chances={task: x for run in runs for task, x in run.chances.items()},
    )


def counts(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many members there are, and how many of each status."""
    by_status = collections.Counter(row["status"] for row in rows)
    return f"{len(rows)} members: " + ", ".join(
        f"{count} {status}" for status, count in sorted(by_status.items())
    )


def chance(task: str, chances: Mapping[str, float]) -> float | None:
    """The accuracy of a constant answer in a task; None where it is not known.

    Args:
      task: its name.
      chances: those that runs have recorded. Older runs recorded none; then a task of
        the library or a data set is asked. A run folder never makes a report import
        a module.
    """
    if task in chances:
        return chances[task]
    if task not in tasks_lib.KNOWN:
        return None
    try:
        return tasks_lib.find(task).chance
    except DatasetError:
        return None


def counted(rows: Sequence[Mapping[str, Any]], chances: Mapping[str, float]) -> str:
    """A line: how many members there are, and the chance of each task; see `chance`.

    Where all are of one network, and it is not tanh, the line says so.
    """
    found: list[dict[str, Any]] = [
        {key: row.get(key) or default for key, default in NETWORK_AXES.items()}
        for row in rows
    ]
    network = ""
    if found and found[0] != NETWORK_AXES and all(x == found[0] for x in found):
        layers = found[0]["num_layers"]
        network = f" Network: {found[0]['network']}"
        network += f", {layers} layers." if layers > 1 else "."
    by_task = {task: chance(task, chances) for task in {row["task"] for row in rows}}
    texts = [f"{t} {percent(x)} %" for t, x in sorted(by_task.items()) if x is not None]
    chances_of = f" Chance: {', '.join(texts)}." if texts else ""
    return f"{counts(rows)}.{network}{chances_of}"


def notes(manifest: Mapping[str, Any]) -> list[str]:
    """Lines in Markdown about a run: whether it has ended, its time and its device."""
    lines = []
    if not manifest["finished"]:
        lines.append("**Not finished**: members that run are not in the table.")
    lines.append(
        f"{manifest['member_steps']:,} updates in {manifest['seconds']:,.0f} s on "
        f"{manifest['device']['cores']} cores, {manifest['device']['kind']}, "
        f"{manifest['dtype']}, JAX {manifest['versions']['jax']}."
    )
    if later := manifest.get("later", []):
        codes = ", ".join(str(maker["code"]) for maker in later)
        lines.append(
            f"Several versions of the code made this run: {manifest['code']} began it, "
            f"and {codes} went on with it."
        )
    return lines


def explanations(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Paragraphs in Markdown that say how the table is to be read."""
    paragraphs = []
    keys = ("best_num_samples", "final_num_samples")
    looked = {n for row in rows for key in keys if (n := row.get(key)) is not None}
    if len(looked) > 1:
        paragraphs.append(
            "**Evaluations in stages**: an accuracy is of the samples that its "
            f"evaluation looked at, {min(looked):,} to {max(looked):,} of them; "
            "`results.csv` says how many. Solved is no error among all."
        )
    if any(row["status"] == "outrun" for row in rows):
        paragraphs.append(
            "**A race**: a member that was solved has ended all others of its seed and "
            "its K (`outrun`), which might have been solved as well. So `solved` "
            "counts races won, and a setting that won fewer races need not be worse. "
            "All other numbers leave out the members that were outrun. A line is left "
            "out if all its members were."
        )
    paragraphs.append(
        "Each line shows the best of its settings. The best has the largest solved "
        "fraction; ties are decided by the mean best accuracy, then by the fewest "
        "updates. The choice and the accuracies use the same validation set. `of` is "
        "the number of settings that the best was chosen from. "
        "`config.resolved.toml` has what these settings share. `accuracy` is the best "
        "over a member's evaluations, and `final` is the last. Intervals are 95 %, "
        "Student's t over seeds. `updates` is the mean number until a member ended."
    )
    return paragraphs
