"""Rules on networks: `python -m experiments.network_table --run runs/at_30 --out DIR`.

Reads the results of a grid whose tables are rules on networks. For each pair, the seeds
100 and above choose a setting: the one that solves most of them, in the fewest updates,
or that is the most accurate. The other seeds are counted for it. Writes `NAME.csv` and
`NAME.md`; pairs that the run has not finished are left out.
"""

from __future__ import annotations

import pathlib
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from absl import flags

from lra_jax.lab.reports import markdown, results, summary
from lra_jax.lab.terminal import command_line, screen

_RUN = flags.DEFINE_string("run", "runs/at_30", "Folder of the run.")
_OUT = flags.DEFINE_string(
    "out", None, "Folder for the tables; none by default.", allow_override=True
)
_NAME = flags.DEFINE_string("name", "at", "Of the tables' files.", allow_override=True)

FIRST_TUNING_SEED = 100
Row = dict[str, Any]


def network_of(row: Row) -> str:
    """The network of a member, as tables name it."""
    layers = int(row.get("num_layers") or 1)
    name = str(row.get("network") or "tanh")
    return name if layers == 1 else f"{layers} layers of {name}"


def choose(rows: Sequence[Row]) -> list[Row]:
    """The counted seeds of the setting that the tuning seeds choose."""
    settings = defaultdict(list)
    for row in rows:
        key = tuple((k, v) for k, v in row.items() if k not in summary.OUTCOMES)
        settings[key].append(row)

    def merit(members: Sequence[Row]) -> tuple[float, float, float]:
        tuned = [r for r in members if int(r["seed"]) >= FIRST_TUNING_SEED]
        solved = [int(r["step"]) for r in tuned if r["status"] == "solved"]
        mean = statistics.fmean(solved) if solved else 0.0
        accuracy = statistics.fmean(float(r["best_accuracy"]) for r in tuned)
        return len(solved), -mean, accuracy

    best = max(settings.values(), key=merit)
    return [r for r in best if int(r["seed"]) < FIRST_TUNING_SEED]


def pairs(rows: Sequence[Row]) -> list[Row]:
    """A row for each rule and network that is finished."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["rule"], network_of(row)].append(row)
    found = []
    for (rule, network), members in groups.items():
        if any(r["status"] in ("pending", "running") for r in members):
            continue
        counted = choose(members)
        steps = [int(r["step"]) for r in counted if r["status"] == "solved"]
        accuracy = statistics.fmean(float(r["best_accuracy"]) for r in counted)
        varied = {
            k: v
            for k, v in counted[0].items()
            if len({r[k] for r in members}) > 1 and k not in summary.OUTCOMES
        }
        found.append(
            {
                "name": f"{rule} {network}",
                "rule": rule,
                "network": network,
                "solved": len(steps),
                "seeds": len(counted),
                "median_updates": statistics.median(steps) if steps else None,
                "accuracy": accuracy,
                "setting": ", ".join(f"{k} {v}" for k, v in varied.items()),
            }
        )
    return found


def table(found: Sequence[Row]) -> str:
    """In Markdown: rules by networks."""
    networks = list(dict.fromkeys(row["network"] for row in found))
    cells = {(row["rule"], row["network"]): row for row in found}
    lines = []
    for rule in dict.fromkeys(row["rule"] for row in found):
        line = [rule]
        for network in networks:
            row = cells.get((rule, network))
            if row is None:
                line.append("")
                continue
            after = (
                f"in {row['median_updates']:,.0f}"
                if row["solved"]
                else f"({summary.percent(row['accuracy'])} %)"
            )
            line.append(f"{row['solved']}/{row['seeds']} {after}")
        lines.append(line)
    return markdown.table(["rule", *networks], lines)


def main(argv: Sequence[str]) -> int:
    """Prints the table and writes both files."""
    del argv
    run = pathlib.Path(str(_RUN.value))
    try:
        found = pairs(results.read_rows(run / "results.csv"))
        if not found:
            raise ValueError(f"{run}: no rule has finished on any network")
        if _OUT.value is not None:
            folder = pathlib.Path(str(_OUT.value))
            folder.mkdir(parents=True, exist_ok=True)
            results.write_rows(folder / f"{_NAME.value}.csv", found)
            (folder / f"{_NAME.value}.md").write_text(table(found), encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"experiments.network_table: {error}", file=sys.stderr)
        return 2
    print(table(found), end="")
    return screen.finish(0, "experiments.network_table")


parse = command_line.parser(__name__)
