"""How long a grid takes, by measured rates: `python -m experiments.wall_time`.

Reads a grid's config and a `benchmark.json`, and multiplies: every member with all of
its updates, each update costed by its multiply-adds against those of the benchmark's
setting. Nothing here is run; what members that end early save is not counted, for any
of the ways to run it. Prints a Markdown table. With --out also writes it to
`wall_time.md`, and its numbers to `wall_time.json`; with --picture draws it.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import rich.console
from absl import flags

from experiments.speed import workload
from lra_jax.lab import config as config_lib
from lra_jax.lab.reports import canvas, markdown
from lra_jax.lab.terminal import command_line, files, screen

_CONFIG = flags.DEFINE_string(
    "grid", "configs/paper_temporal_order.toml", "Config of the grid."
)
_BENCHMARK = flags.DEFINE_string(
    "rates", "results/benchmark.json", "From experiments.benchmark --out."
)
_PICTURE = flags.DEFINE_string("picture", None, "PNG to draw; none by default.")
_OUT = flags.DEFINE_string(  # experiments.benchmark has a flag of this name
    "out",
    None,
    "Folder for wall_time.md and wall_time.json; none by default.",
    allow_override=True,
)

DAY = 86_400.0
# Names of the benchmark's rows; the first is what people have today.
ROWS = (
    "eager PyTorch, 1 thread",
    "loop of jit(train_step)",
    "jit(vmap(train_step))",
    "engine, with evaluation",
)


def equivalent_updates(config: config_lib.Config, settings: dict[str, Any]) -> float:
    """All updates of a grid, in updates of the benchmark's setting."""

    def cost(seq_len: int, num_refinements: int) -> int:
        changed = settings | {"seq_len": seq_len, "num_refinements": num_refinements}
        return workload.operations(workload.Settings(**changed)).multiply_adds

    one = cost(settings["seq_len"], settings["num_refinements"])
    return sum(
        config.max_steps * cost(member["seq_len"], member["num_refinements"]) / one
        for member in config.members()
    )


def describe(config: config_lib.Config, document: dict[str, Any]) -> dict[str, Any]:
    """The grid, and how long it takes at the rates of a benchmark, as in the JSON."""
    updates = equivalent_updates(config, document["settings"])
    rates = {row["name"]: row["rate"] for row in document["variants"]}
    return {
        "grid": config.name,
        "members": sum(1 for _ in config.members()),
        "max_steps": config.max_steps,
        "rows": [
            {"name": name, "rate": rates[name], "days": updates / rates[name] / DAY}
            for name in ROWS
            if rates.get(name)
        ],
    }


def table(found: dict[str, Any]) -> str:
    """In Markdown."""
    rows = [
        [row["name"], f"{row['rate']:,.0f}", _show(row["days"])]
        for row in found["rows"]
    ]
    return markdown.table(["how", "member-steps/s", "wall time"], rows)


def _show(days: float) -> str:
    return f"{days:,.0f} days" if days >= 2 else f"{days * 24:,.0f} hours"


def _draw(path: pathlib.Path, days: dict[str, float], cores: int, title: str) -> None:
    from matplotlib.figure import Figure

    from lra_jax.lab.reports.figures import COLORS

    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    axes = figure.add_subplot()
    names = list(days)
    colors = [COLORS[-1]] * (len(names) - 1) + [COLORS[0]]
    bars = axes.barh(names, list(days.values()), color=colors, height=0.6)
    axes.bar_label(bars, [_show(x) for x in days.values()], padding=4)
    axes.set_xlim(0, 1.15 * max(days.values()))
    axes.invert_yaxis()
    axes.set_xlabel(f"days on {cores} CPU cores, extrapolated from measured rates")
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _load(config: config_lib.Config, path: pathlib.Path) -> tuple[dict[str, Any], int]:
    """What `describe` finds, and the cores that the benchmark had.

    Raises:
      ValueError: the config or the benchmark is of something else.
    """
    try:
        document = json.loads(path.read_text("utf8"))
        found, cores = describe(config, document), int(document["machine"]["cores"])
    except (ArithmeticError, KeyError, TypeError, ValueError):
        raise ValueError(
            f"expected members of lra_diff in {_CONFIG.value}, and in {path} what "
            "`experiments.benchmark --out` wrote"
        ) from None
    if not found["rows"]:
        raise ValueError(f"{path}: expected a rate of {' or '.join(map(repr, ROWS))}")
    return found, cores


def _run(console: rich.console.Console) -> int:
    """Prints the table and draws the picture."""
    del console
    config = config_lib.load(str(_CONFIG.value))
    found, cores = _load(config, pathlib.Path(str(_BENCHMARK.value)))
    title = (
        f"{found['grid']}: {found['members']} networks, {found['max_steps']:,} updates "
        "each"
    )
    print(f"{title}\n\n{table(found)}", end="")
    if _OUT.value is not None:
        folder = pathlib.Path(str(_OUT.value))
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / "wall_time.md", table(found))
        text = json.dumps(found, indent=1) + "\n"
        files.write_text(folder / "wall_time.json", text)
    if _PICTURE.value is not None:
        days = {row["name"]: row["days"] for row in found["rows"]}
        if (note := canvas.missing()) is not None:
            raise ValueError(f"--picture: {screen.plain(note)}")  # it was asked for
        try:
            with canvas.style({}):
                _draw(pathlib.Path(str(_PICTURE.value)), days, cores, title)
        except ValueError as error:  # such as a suffix that matplotlib does not know
            raise ValueError(f"--picture {_PICTURE.value}: {error}") from None
    return 0


parse = command_line.parser(__name__)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    errors = (config_lib.ConfigError, OSError, ValueError)
    return command_line.exit_code(_run, errors, command_line.program(__name__))
