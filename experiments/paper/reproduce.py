"""Runs the paper's protocol and compares: `python -m experiments.reproduce table1`.

Artefacts are the paper's Tables I to V and Figures 2 to 5; `released`, training curves
of the authors' code beside those of `lra_released`; `decay`, how the local loss falls
over the steps of one untrained pass, change by change; `warm`, Table V with weights
kept from one length to the next; or `all`. Runs go into `runs/reproduce/`, a folder for
each budget and number of seeds, are shared between artefacts, and go on where they
stand. What comes of them goes into `results/BUDGET/`: a page, a CSV and pictures for
each artefact, the configs, and what the runs were made with. `--tasks`, `--rows` and
`--longest` make a part of Tables I to III or V, in `results/BUDGET_part/`. Exit codes
are those of `experiments.grid`.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

import jax
import rich.console
from absl import flags

from experiments.paper import budgets, rows
from experiments.paper.artefacts import ARTEFACTS
from experiments.paper.artefacts.making import Request, write_artefact
from experiments.paper.artefacts.table5 import methods_asked
from experiments.paper.artefacts.tables_1_to_3 import TABLE_ROWS, lines_asked
from experiments.paper.pictures import draw_artefact
from experiments.paper.recordings import PaperRunner
from lra_jax.lab.benches import pictures
from lra_jax.lab.benches.published import TASKS
from lra_jax.lab.config import ConfigError, arguments
from lra_jax.lab.runs import run, store
from lra_jax.lab.runs.runner import StoppedError
from lra_jax.lab.terminal import command_line, machine, screen

_BUDGET = flags.DEFINE_enum(
    "budget", "standard", [*budgets.BUDGETS], "How much is trained."
)
_SEEDS = flags.DEFINE_integer(
    "seeds", 5, "Seeds of each setting.", lower_bound=1, upper_bound=1000
)
_RUNS = flags.DEFINE_string("runs", "runs/reproduce", "Where run folders go.")
_RESULTS = flags.DEFINE_string("results", "results", "Where tables and figures go.")
_TASKS = flags.DEFINE_list(
    "tasks", [], "Only these tasks, with commas between them; default: all."
)
_ROWS = flags.DEFINE_list(
    "rows",
    [],
    "Only these rows of Tables I to III and V, with commas: bptt, tptt, lra_diff ...; "
    "default: all.",
)
_LONGEST = flags.DEFINE_integer(
    "longest",
    None,
    "No longer sequences than this in Table V, whose range then is open; default: all.",
    lower_bound=10,
)
_ACCEPT_OLD_CODE = flags.DEFINE_boolean(
    "accept_old_code",
    False,
    "Use results that other code than today's has made.",
    allow_override=True,  # other commands have a flag of this name
)


def _run(console: rich.console.Console, names: Sequence[str]) -> int:
    machine.prepare()
    jax.config.update("jax_enable_x64", False)
    budget = rows.only(
        budgets.BUDGETS[_BUDGET.value],
        tasks=_chosen("task", _TASKS.value, TASKS),
        rows=_chosen("row", _ROWS.value, [*rows.ROWS | rows.REACH_ROWS]),
        longest=_LONGEST.value,
    )
    _check_part(names, budget)
    command = [*command_line.started_as(__name__), *sys.argv[1:]]
    interruption = run.Interruption(console, command)
    runs = pathlib.Path(_RUNS.value) / f"{budget.name}_{_SEEDS.value}_seeds"
    folder = pathlib.Path(_RESULTS.value) / (budget.name + "_part" * bool(budget.part))
    for name in names:
        accept = _ACCEPT_OLD_CODE.value
        runner = PaperRunner(console, runs, interruption, accept_old_code=accept)
        request = Request(budget, range(_SEEDS.value), runner)
        try:
            artefact = ARTEFACTS[name](request)
        except StoppedError as stop:
            interruption.say("Interrupted; what was finished is saved. To go on:")
            return 128 + stop.number
        page = write_artefact(name, artefact, request, folder)
        console.rule(name)
        screen.say(console, page)
        pictures.show(console, name, folder, draw_artefact)
    return 0


def _check_part(names: Sequence[str], budget: budgets.PaperBudget) -> None:
    """Looks at the part that is asked for.

    Args:
      names: of artefacts.
      budget: without what is in no part that is asked for.

    Raises:
      flags.Error: an artefact has no parts, or nothing is left of it.
    """
    chosen = _ROWS.value
    asked = {"rows": chosen, "tasks": _TASKS.value, "longest": _LONGEST.value}
    known: dict[str, Sequence[str]] = {
        **{name: [row for row, _ in lines] for name, lines in TABLE_ROWS.items()},
        "table5": [*rows.REACH_ROWS],
    }
    for flag, value in asked.items():
        parted = ["table5"] if flag == "longest" else [*known]
        for name in names if value else ():
            if name not in parted:
                raise flags.Error(f"--{flag}: of {', '.join(parted)}, not of {name}")
    for name in names if chosen else ():
        if not set(chosen) & set(known[name]):
            raise flags.Error(
                f"--rows: {name} has none of them, but {', '.join(known[name])}"
            )
    for name in names if budget.part else ():
        left = methods_asked(budget) if name == "table5" else lines_asked(name, budget)
        if not left:
            raise flags.Error(
                f"--budget {budget.name}: nothing of {name} is made for {budget.part}; "
                "--budget full makes all"
            )


def _chosen(noun: str, names: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """What the command line names.

    Raises:
      flags.Error: an unknown name.
    """
    for name in names:
        if problem := arguments.check_choice(name, known):
            raise flags.Error(f"unknown {noun} {name!r}: {problem}")
    return names


def _names(words: Sequence[str]) -> list[str]:
    """The artefacts that the command line names.

    Raises:
      flags.Error: an unknown one, or none.
    """
    known = (*ARTEFACTS, "all")
    if not words:
        raise flags.Error(f"expected one of {', '.join(known)}")
    asked = _chosen("artefact", words, known)
    return [name for name in ARTEFACTS if name in asked or "all" in asked]


parse = command_line.parser(__name__, takes_words=True)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    errors = (
        ConfigError,
        machine.MachineError,
        store.RunFolderError,
        flags.Error,
        OSError,
    )
    return command_line.exit_code(
        lambda console: _run(console, _names(argv[1:])),
        errors,
        command_line.program(__name__),
    )
