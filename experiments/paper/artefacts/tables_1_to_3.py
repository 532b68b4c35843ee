"""Tables I to III: accuracy of each row at each K and T, and the label swap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.paper import configs
from experiments.paper.artefacts.making import Artefact, Request
from experiments.paper.artefacts.texts import cell_text, grid_text, mean_text
from experiments.paper.budgets import PaperBudget
from experiments.paper.rows import ROWS
from lra_jax.lab.benches import published
from lra_jax.lab.benches.cells import Cell, cell_of, verdict
from lra_jax.lab.benches.published import TITLES
from lra_jax.lab.reports import markdown
from lra_jax.lab.reports.results import Row

# What each table shows: names of `ROWS`, and what they are compared with.
_CONTROLS = ("readout_only", "omega_only", "overwrite", "late_start", "bptt")
TABLE_ROWS: dict[str, tuple[tuple[str, published.Table], ...]] = {
    "table1": tuple(
        (name, published.TABLE1)
        for name in ("lra_diff", "printed", "lra_diff_wide", "lra_released", *_CONTROLS)
    ),
    "table2": (
        ("lra_diff_log", published.TABLE2["log_penalty"]),
        ("lra_diff", published.TABLE2["mse"]),
        ("lra_released_log", published.TABLE2["log_penalty"]),
        ("lra_released", published.TABLE2["mse"]),
        ("lra_diff_wide", published.TABLE2["mse"]),
        *((name, published.TABLE2["mse"]) for name in _CONTROLS),
    ),
    "table3": (
        ("lra_diff_unbounded", published.TABLE3["none"]),
        ("lra_diff", published.TABLE3["normalisation"]),
        ("lra_released_unbounded", published.TABLE3["none"]),
        ("lra_released", published.TABLE3["normalisation"]),
        ("lra_diff_wide", published.TABLE3["normalisation"]),
        *((name, published.TABLE3["normalisation"]) for name in _CONTROLS),
    ),
}


class Line(NamedTuple):
    """A line of Tables I to III.

    Attributes:
      name: of the row, in `ROWS`.
      label: for people.
      task: a name of `lra_jax.TASKS`.
      num_refinements: K; None where the rule has none.
      max_steps: most updates of its members.
      cells: by T; missing where nothing was run.
      printed: by T, what the paper has for this task, K and T, or, where it has no such
        K, for its first; missing where it has no such T.
    """

    name: str
    label: str
    task: str
    num_refinements: int | None
    max_steps: int
    cells: dict[int, Cell]
    printed: dict[int, float]


def lines_asked(
    name: str, budget: PaperBudget
) -> list[tuple[str, str, published.Table]]:
    """What a table is made of: rows, tasks, and what they are compared with."""
    return [
        (row, task, printed)
        for task in budget.tasks
        for row, printed in TABLE_ROWS[name]
        if not {row, f"{row}.{task}"} & budget.left_out
    ]


def make_table(name: str, request: Request) -> Artefact:
    """One of Tables I to III, by its name in `TABLE_ROWS`."""
    budget, seeds, runner = request.budget, request.seeds, request.runner
    lines: list[Line] = []
    searched = {}
    asked = lines_asked(name, budget)
    for row, task, printed in asked:
        config = configs.table_config(row, task, budget, seeds)
        members = runner.rows(config)
        label = ROWS[row].label
        searched[label] = grid_text(config)
        lines += lines_of(row, label, task, members, config.max_steps, printed)
    swaps = {
        (row, task): runner.label_swap(row, task, budget, seeds)
        for row, task, _ in asked
    }
    return Artefact(
        table=paper_table(lines) + label_swap_table(swaps),
        notes=(
            "Each seed has the best of its settings, chosen on the validation set; the "
            "first setting that solves a cell ends the others. ± is the 95 % interval "
            "over seeds.",
            "A verdict compares with the number printed for the same K, or for K = 10 "
            "where the row has another K or none. It is `agrees` within the interval "
            "of one more seed, √(n + 1) times the ± of n, or a point, whichever is "
            "larger.",
            "Label swap: the rule with the first value of each of its axes, untrained; "
            "+1 knows nothing of the label, a rule that does is where BPTT is.",
            "γ of lra_released is in the units of the released code: B = 20 times "
            "those of lra_diff.",
        ),
        rows={"": paper_rows(lines), "_label_swap": list(swaps.values())},
        searched=searched,
    )


def lines_of(
    name: str,
    label: str,
    task: str,
    rows: Sequence[Row],
    max_steps: int,
    printed: published.Table,
) -> list[Line]:
    """The lines of a run: one for each K."""
    lines = []
    for k in sorted({row.get("num_refinements") for row in rows}, key=lambda k: k or 0):
        of_k = [row for row in rows if row.get("num_refinements") == k]
        lengths = sorted({row["seq_len"] for row in of_k})
        compared = k if k in published.NUM_REFINEMENTS else published.NUM_REFINEMENTS[0]
        lines.append(
            Line(
                name=name,
                label=label,
                task=task,
                num_refinements=k,
                max_steps=max_steps,
                cells={
                    t: cell_of([row for row in of_k if row["seq_len"] == t])
                    for t in lengths
                },
                printed={
                    t: printed[task, compared, t]
                    for t in lengths
                    if (task, compared, t) in printed
                },
            )
        )
    return lines


def paper_table(lines: Sequence[Line]) -> str:
    """A block for each task, K × T."""
    parts = []
    for task in dict.fromkeys(line.task for line in lines):
        of_task = [line for line in lines if line.task == task]
        lengths = sorted({t for line in of_task for t in line.cells})
        header = ["row", "K", "updates ≤"]
        for t in lengths:
            header += [f"T = {t}: paper", "ours", "verdict"]
        body = []
        for line in of_task:
            k = "–" if line.num_refinements is None else str(line.num_refinements)
            cells = [line.label, k, f"{line.max_steps:,}"]
            for t in lengths:
                cell, value = line.cells.get(t), line.printed.get(t)
                cells += [
                    "–" if value is None else _printed_text(value),
                    "not run" if cell is None else cell_text(cell),
                    _verdict(value, cell),
                ]
            body.append(cells)
        parts.append(f"**{TITLES[task]}**\n\n{markdown.table(header, body)}")
    return "\n".join(parts)


def _printed_text(value: float) -> str:
    """A published number as the paper prints it."""
    return "✓" if value == 1 else f"{100 * value:.2f}"


def _verdict(value: float | None, cell: Cell | None) -> str:
    if value is None or cell is None:
        return "–"
    return verdict(value, cell)


def paper_rows(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Tables I, II and III for CSV: a row for each cell."""
    return [
        {
            "name": _cell_name(line, t),
            "task": line.task,
            "row": line.label,
            "num_refinements": line.num_refinements,
            "seq_len": t,
            "published": line.printed.get(t),
            **cell.columns(),
            "settings": cell.num_settings,
            "max_steps": line.max_steps,
            "updates_to_solve": cell.updates,
            "verdict": _verdict(line.printed.get(t), cell),
        }
        for line in lines
        for t, cell in line.cells.items()
    ]


def _cell_name(line: Line, seq_len: int) -> str:
    """A cell's name, by which pages ask for it."""
    k = "" if line.num_refinements is None else f" K{line.num_refinements}"
    return f"{line.name} {line.task}{k} T{seq_len}"


def label_swap_table(swaps: Mapping[tuple[str, str], Row]) -> str:
    """The label swap of each row and task: ∇W_hh / ∇W_xh."""
    names, tasks = (list(dict.fromkeys(column)) for column in zip(*swaps, strict=True))
    first = next(iter(swaps.values()))

    def text(row: Row) -> str:
        if row["w_xh"] is None:
            return "none"
        return " / ".join(
            "none"
            if row[matrix] is None
            else mean_text(row[matrix], row[f"{matrix}_interval"])
            for matrix in ("w_hh", "w_xh")
        )

    body = [
        [
            ROWS[name].label,
            *(
                text(swaps[name, task]) if (name, task) in swaps else "not run"
                for task in tasks
            ),
        ]
        for name in names
    ]
    header = ["row", *(TITLES[task] for task in tasks)]
    title = f"**Label swap** of ∇W_hh / ∇W_xh, T = {first['seq_len']}"
    return f"\n{title}\n\n{markdown.table(header, body)}"
