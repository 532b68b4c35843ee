"""The commands, by name: `python -m experiments grid --config configs/demo.toml`.

`python -m experiments` lists them. Each is a module of its own as well:
`python -m experiments.grid` is the same as `python -m experiments grid`.
"""

from __future__ import annotations

import runpy
import sys

from lra_jax.lab import __main__ as lab
from lra_jax.lab.terminal import command_line

COMMANDS = lab.COMMANDS | {
    "reproduce": "the paper's tables and figures",
    "benchmark": "time one update in all the ways to do it",
    "device": "measure an accelerator: agreement, rates, limits",
    "wall_time": "how long a grid takes, by the benchmark's rates",
    "network_speed": "time an update of every network",
    "rule_table": "rules on networks or tasks, from one grid",
    "forward_alignment": "rules that run forward in time, beside the gradient",
    "feedback_error": "how feedback weights come near the forward ones",
    "leaderboard": "all methods that the bench of reach has measured",
    "pages": "put the numbers of results/ into README and docs/",
}


def main() -> int:
    """Runs the command that the command line names."""
    name, rest = command_line.choose("python -m experiments", COMMANDS, sys.argv[1:])
    sys.argv = [f"experiments {name}", *rest]
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
