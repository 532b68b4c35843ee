"""The commands, by name: `lra-jax grid --config my.toml`, from any folder.

`lra-jax` lists them; `python -m lra_jax.lab` is the same.
"""

from __future__ import annotations

import importlib
import sys

from absl import app

from lra_jax.lab.terminal import command_line

COMMANDS = {
    "grid": "train a config's grid into a run folder",
    "report": "show or compare run folders, as text, LaTeX or a web page",
    "reach": "the longest T that rules solve, with equal tuning",
    "stability": "how long what a bench of reach solved stays solved",
    "refinements": "does a tuned γ replace K?",
    "alignment": "where the errors of every rule point, beside BPTT's",
    "real": "rules on recorded data",
}
ROOMS = {"grid": "lra_jax.lab", "report": "lra_jax.lab"}


def main() -> int:
    """Runs the command that the command line names."""
    name, rest = command_line.choose("lra-jax", COMMANDS, sys.argv[1:])
    sys.argv = [f"lra-jax {name}", *rest]
    room = ROOMS.get(name, "lra_jax.lab.benches")
    command = importlib.import_module(f"{room}.{name}")
    app.run(command.main, flags_parser=command.parse)
    return 0


if __name__ == "__main__":
    sys.exit(main())
