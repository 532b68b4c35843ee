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
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.speed import workload
from lra_jax.lab import config as config_lib
from lra_jax.lab.reports import canvas, markdown
from lra_jax.lab.terminal import command_line, screen

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


def main(argv: Sequence[str]) -> int:
    """Prints the table and draws the picture."""
    del argv
    try:
        config = config_lib.load(str(_CONFIG.value))
        document = json.loads(pathlib.Path(str(_BENCHMARK.value)).read_text())
        found = describe(config, document)
    except (config_lib.ConfigError, OSError) as error:
        print(f"experiments.wall_time: {error}", file=sys.stderr)
        return 2
    except (KeyError, TypeError, ValueError):
        print(
            f"experiments.wall_time: expected members of lra_diff in {_CONFIG.value}, "
            f"and in {_BENCHMARK.value} what `experiments.benchmark --out` wrote",
            file=sys.stderr,
        )
        return 2
    title = (
        f"{found['grid']}: {found['members']} networks, {found['max_steps']:,} updates "
        "each"
    )
    print(f"{title}\n\n{table(found)}", end="")
    try:
        if _OUT.value is not None:
            folder = pathlib.Path(str(_OUT.value))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "wall_time.md").write_text(table(found), "utf8")
            text = json.dumps(found, indent=1) + "\n"
            (folder / "wall_time.json").write_text(text, "utf8")
        if _PICTURE.value is not None:
            days = {row["name"]: row["days"] for row in found["rows"]}
            cores = document["machine"]["cores"]
            if (note := canvas.missing()) is not None:
                print(screen.plain(note), file=sys.stderr)
                return 2  # it was asked for
            with canvas.style({}):
                _draw(pathlib.Path(str(_PICTURE.value)), days, cores, title)
    except OSError as error:
        print(f"experiments.wall_time: {error}", file=sys.stderr)
        return 2
    return screen.finish(0, "experiments.wall_time")


parse = command_line.parser(__name__)
