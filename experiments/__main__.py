"""The commands, by name: `python -m experiments grid --config configs/demo.toml`.

`python -m experiments` lists them. Each is a module of its own as well:
`python -m experiments.grid` is the same as `python -m experiments grid`.
"""

from __future__ import annotations

import difflib
import runpy
import sys
from collections.abc import Sequence

from experiments import terminal

COMMANDS = {
    "grid": "train a config's grid into a run folder",
    "report": "show or compare run folders, as text, LaTeX or a web page",
    "reproduce": "the paper's tables and figures",
    "reach": "the longest T that rules solve, with equal tuning",
    "stability": "how long what a bench of reach solved stays solved",
    "refinements": "does a tuned γ replace K?",
    "alignment": "where the errors of every rule point, beside BPTT's",
    "real": "rules on recorded data",
    "benchmark": "time one update in all the ways to do it",
    "device": "measure an accelerator: agreement, rates, limits",
    "wall_time": "how long a grid takes, by the benchmark's rates",
    "pages": "put the numbers of results/ into README and docs/",
}


def usage() -> str:
    """What there is."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "python -m experiments COMMAND [--flag VALUE ...]",
            "",
            *lines,
            "",
            "python -m experiments COMMAND --help shows a command's flags.",
        ]
    )


def main(words: Sequence[str]) -> int:
    """Runs a command; what it returns.

    Args:
      words: of the command line, without the program.
    """
    terminal.protect()
    if not words or words[0] in ("help", "--help", "-h", "-help"):
        print(usage())
        return terminal.finish(0, "experiments")
    name, *rest = words
    name = name.replace("-", "_")
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        text = "".join(c if c.isprintable() else "?" for c in words[0])
        print(f"experiments: no command {text!r}{hint}\n\n{usage()}", file=sys.stderr)
        return 2
    sys.argv = [f"experiments {name}", *rest]
    runpy.run_module(f"experiments.{name}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
