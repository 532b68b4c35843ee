"""The paper's tables in its own layout, ours beside each published number.

Everything here goes from cells to text: Markdown for people, rows for CSV.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.paper.protocol import ROWS, Budget
from lra_jax.lab.benches import published
from lra_jax.lab.benches.cells import Cell, cell_of, verdict
from lra_jax.lab.benches.published import TITLES
from lra_jax.lab.config import Config
from lra_jax.lab.reports import markdown
from lra_jax.lab.reports.results import Row
from lra_jax.lab.reports.summary import percent

# What each table shows: rows of `protocol.ROWS`, and what they are compared with.
_CONTROLS = ("readout_only", "omega_only", "overwrite", "late_start", "bptt")
TABLE_ROWS: dict[str, tuple[tuple[str, published.Table], ...]] = {
    "table1": tuple(
        (name, published.TABLE1)
        for name in ("lra_diff", "lra_diff_wide", "lra_released", *_CONTROLS)
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
      name: of the row, in `protocol.ROWS`.
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


def lines(
    name: str,
    label: str,
    task: str,
    rows: Sequence[Row],
    max_steps: int,
    printed: published.Table,
) -> list[Line]:
    """The lines of a run: one for each K."""
    found = []
    for k in sorted({row.get("num_refinements") for row in rows}, key=lambda k: k or 0):
        mine = [row for row in rows if row.get("num_refinements") == k]
        lengths = sorted({row["seq_len"] for row in mine})
        compared = k if k in published.NUM_REFINEMENTS else published.NUM_REFINEMENTS[0]
        found.append(
            Line(
                name=name,
                label=label,
                task=task,
                num_refinements=k,
                max_steps=max_steps,
                cells={
                    t: cell_of([row for row in mine if row["seq_len"] == t])
                    for t in lengths
                },
                printed={
                    t: printed[task, compared, t]
                    for t in lengths
                    if (task, compared, t) in printed
                },
            )
        )
    return found


_SYMBOLS = {
    "lr": "α",
    "gamma": "γ",
    "num_refinements": "K",
    "lambda": "λ",
    "local_loss": "loss",
}


def grid_text(config: Config) -> str:
    """What a run searches over, and what else its rule is given."""
    (axes,) = config.grid
    return "; ".join(
        f"{_SYMBOLS.get(key, key)} {', '.join(_value(value) for value in values)}"
        for key, values in axes.items()
        if key != "seq_len"
    )


def _value(value: Any) -> str:
    return f"{value:g}" if type(value) in (int, float) else str(value).lower()


def accuracy(value: float) -> str:
    """A published number as the paper prints it."""
    return "✓" if value == 1 else f"{100 * value:.2f}"


def cell_text(cell: Cell) -> str:
    """A cell for people: accuracy, or ✓ where all seeds are solved."""
    count = f"{cell.solved}/{cell.num_seeds}"
    if cell.solved == cell.num_seeds:
        return f"✓ {count}"
    return f"{percent(cell.accuracy, cell.interval)} ({count})"


def paper_table(found: Sequence[Line]) -> str:
    """Tables I, II and III: a block for each task, K × T."""
    parts = []
    for task in dict.fromkeys(line.task for line in found):
        mine = [line for line in found if line.task == task]
        lengths = sorted({t for line in mine for t in line.cells})
        header = ["row", "K", "updates ≤"]
        for t in lengths:
            header += [f"T = {t}: paper", "ours", "verdict"]
        body = []
        for line in mine:
            k = "–" if line.num_refinements is None else str(line.num_refinements)
            cells = [line.label, k, f"{line.max_steps:,}"]
            for t in lengths:
                cell, value = line.cells.get(t), line.printed.get(t)
                cells += [
                    "–" if value is None else accuracy(value),
                    "not run" if cell is None else cell_text(cell),
                    _verdict(value, cell),
                ]
            body.append(cells)
        parts.append(f"**{TITLES[task]}**\n\n{markdown.table(header, body)}")
    return "\n".join(parts)


def _name(row: str, task: str, num_refinements: int | None, seq_len: int) -> str:
    """A cell's name, by which pages ask for it."""
    k = "" if num_refinements is None else f" K{num_refinements}"
    return f"{row} {task}{k} T{seq_len}"


def _verdict(value: float | None, cell: Cell | None) -> str:
    if value is None or cell is None:
        return "–"
    return verdict(value, cell)


def paper_rows(found: Sequence[Line]) -> list[dict[str, Any]]:
    """Tables I, II and III for CSV: a row for each cell."""
    return [
        {
            "name": _name(line.name, line.task, line.num_refinements, t),
            "task": line.task,
            "row": line.label,
            "num_refinements": line.num_refinements,
            "seq_len": t,
            "published": line.printed.get(t),
            "accuracy": cell.accuracy,
            "interval_95": cell.interval,
            "solved": cell.solved,
            "seeds": cell.num_seeds,
            "settings": cell.num_settings,
            "max_steps": line.max_steps,
            "updates_to_solve": cell.updates,
            "verdict": _verdict(line.printed.get(t), cell),
        }
        for line in found
        for t, cell in line.cells.items()
    ]


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
            else _mean_text(row[matrix], row[f"{matrix}_interval"])
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


class Reach(NamedTuple):
    """The longest T that a method solves on a task.

    Attributes:
      name: of the method, in `protocol.REACH_ROWS`.
      label: for people.
      task: a name of `lra_jax.TASKS`.
      solved: by T, the seeds that some setting solved, of those that had solved all
        shorter ones.
      num_seeds: all seeds.
      num_settings: that were searched at each T.
      max_steps: most updates at each T.
      updates: by T, mean over these seeds of the fewest updates.
      printed: the paper's; None where T = 10 is not solved, or nothing is printed.
      is_printed: whether the paper has this method.
    """

    name: str
    label: str
    task: str
    solved: dict[int, tuple[int, ...]]
    num_seeds: int
    num_settings: int
    max_steps: int
    updates: dict[int, float | None]
    printed: int | None
    is_printed: bool

    @property
    def longest(self) -> list[int]:
        """For each seed the longest T solved; 0 is none."""
        return sorted(
            max((t for t, seeds in self.solved.items() if seed in seeds), default=0)
            for seed in range(self.num_seeds)
        )

    @property
    def is_open(self) -> bool:
        """Whether the longest T of the protocol was solved."""
        return bool(self.solved) and bool(self.solved[max(self.solved)])

    @property
    def verdict(self) -> str:
        """The paper's number against the range over seeds.

        Lengths between the last one solved and the next one tried are not known; it
        is "open" where nothing as long as the paper's number was tried and failed.
        Where the paper has none, it "agrees" if no seed has, and "partly" if some.
        """
        if not self.is_printed:
            return "–"
        least, most = self.longest[0], self.longest[-1]
        if not self.printed:
            return "agrees" if most == 0 else "partly" if least == 0 else "higher"
        if self.is_open and self.printed > most:
            return "open"
        failed = min((t for t in self.solved if t > most), default=math.inf)
        if least <= self.printed < failed:
            return "agrees"
        return "higher" if least > self.printed else "lower"


# Readings of the same algorithm are compared with the same column of the paper.
_COLUMNS = {
    "printed": "lra_diff",
    "printed_regularised": "lra_diff_regularised",
    "lra_released": "lra_diff",
    "lra_released_regularised": "lra_diff_regularised",
}


def make_reach(
    name: str,
    label: str,
    task: str,
    found: Mapping[int, Sequence[Row]],
    num_seeds: int,
    max_steps: int,
) -> Reach:
    """What came of a method's runs, by T."""
    cells = {t: cell_of(rows) for t, rows in found.items()}
    printed = published.TABLE5[task]
    column = _COLUMNS.get(name, name)
    return Reach(
        name=name,
        label=label,
        task=task,
        solved={
            t: tuple(sorted({r["seed"] for r in rows if r["status"] == "solved"}))
            for t, rows in found.items()
        },
        num_seeds=num_seeds,
        num_settings=max(cell.num_settings for cell in cells.values()),
        max_steps=max_steps,
        updates={t: cell.updates for t, cell in cells.items()},
        printed=printed.get(column),
        is_printed=column in printed,
    )


def make_warm_reach(
    name: str,
    label: str,
    task: str,
    rows: Sequence[Row],
    num_seeds: int,
    max_steps: int,
) -> Reach:
    """What came of `curriculum.reach`, which the paper does not have."""
    lengths = list(dict.fromkeys(row["seq_len"] for row in rows))
    winners = {
        t: [row for row in rows if row["seq_len"] == t and row["solved"]]
        for t in lengths
    }
    return Reach(
        name=f"{name} warm",
        label=label,
        task=task,
        solved={t: tuple(sorted({r["seed"] for r in w})) for t, w in winners.items()},
        num_seeds=num_seeds,
        num_settings=1 + max(row["setting"] for row in rows),
        max_steps=max_steps,
        updates={
            t: statistics.fmean(row["updates"] for row in w) if w else None
            for t, w in winners.items()
        },
        printed=None,
        is_printed=False,
    )


def reach_table(found: Sequence[Reach], budget: Budget) -> str:
    """Table V: methods × T, the seeds that solve it."""
    parts = []
    for task in dict.fromkeys(reach.task for reach in found):
        mine = [reach for reach in found if reach.task == task]
        tried = {t for reach in mine for t in reach.solved}
        lengths = [t for t in budget.reach.seq_len if t in tried]
        header = ["method", "paper", "ours: median (range)", "verdict", "settings"]
        header += [f"T = {t}" for t in lengths]
        body = [
            [
                reach.label,
                str(reach.printed or "–") if reach.is_printed else "",
                _range(reach),
                reach.verdict,
                str(reach.num_settings),
                *(_solved(reach, t) for t in lengths),
            ]
            for reach in mine
        ]
        parts.append(f"**{TITLES[task]}**\n\n{markdown.table(header, body)}")
    return "\n".join(parts)


def reach_summary(found: Sequence[Reach]) -> str:
    """Table V for people in a hurry: methods × tasks, paper → ours."""
    tasks = list(dict.fromkeys(reach.task for reach in found))
    by_name = {(reach.name, reach.task): reach for reach in found}
    labels = {reach.name: reach.label for reach in found}
    body = []
    for name, label in labels.items():
        cells = []
        for task in tasks:
            reach = by_name.get((name, task))
            if reach is None:
                cells.append("not run")
                continue
            printed = f"{reach.printed or '–'} → " if reach.is_printed else ""
            cells.append(f"{printed}{_range(reach)}")
        body.append([label, *cells])
    return markdown.table(["method", *(TITLES[task] for task in tasks)], body)


def _range(reach: Reach) -> str:
    longest = reach.longest

    def text(length: int) -> str:
        is_last = reach.is_open and length == longest[-1]
        return "≥ " * is_last + (str(length) if length else "–")

    middle = statistics.median_low(longest)
    return f"{text(middle)} ({text(longest[0])} to {text(longest[-1])})"


def _solved(reach: Reach, t: int) -> str:
    if t not in reach.solved:
        return ""
    return f"{len(reach.solved[t])}/{reach.num_seeds}"


def reach_rows(found: Sequence[Reach]) -> list[dict[str, Any]]:
    """Table V for CSV: a row for each method, task and T."""
    return [
        {
            "name": f"{reach.name} {reach.task} T{t}",
            "task": reach.task,
            "method": reach.label,
            "published_reach": reach.printed,
            "seq_len": t,
            "solved": len(seeds),
            "seeds": reach.num_seeds,
            "settings": reach.num_settings,
            "max_steps": reach.max_steps,
            "updates_to_solve": reach.updates[t],
            "least_reach": reach.longest[0],
            "median_reach": statistics.median_low(reach.longest),
            "most_reach": reach.longest[-1],
            "verdict_on_reach": reach.verdict,
        }
        for reach in found
        for t, seeds in reach.solved.items()
    ]


def bounds_table(rows: Sequence[Row]) -> str:
    """Table IV: c0 × c1 for each K, the best of lr and γ in each cell."""
    parts = []
    for k in sorted({row["num_refinements"] for row in rows}):
        mine = [row for row in rows if row["num_refinements"] == k]
        c0s, c1s = (sorted({row[c] for row in mine}) for c in ("c0", "c1"))
        body = [
            [
                f"c0 = {c0:g}",
                *(
                    cell_text(
                        cell_of([r for r in mine if (r["c0"], r["c1"]) == (c0, c1)])
                    )
                    for c1 in c1s
                ),
            ]
            for c0 in c0s
        ]
        table = markdown.table([f"K = {k}", *(f"c1 = {c:g}" for c in c1s)], body)
        parts.append(table)
    return "\n".join(parts)


def bounds_summary(rows: Sequence[Row]) -> str:
    """The best bounds of each K, and where the paper's winner stands."""
    lines = []
    for k in sorted({row["num_refinements"] for row in rows}):
        mine = [row for row in rows if row["num_refinements"] == k]
        cells = {
            bounds: cell_of([r for r in mine if (r["c0"], r["c1"]) == bounds])
            for bounds in dict.fromkeys((row["c0"], row["c1"]) for row in mine)
        }
        ranked = sorted(
            cells, key=lambda b: (cells[b].solved, cells[b].accuracy), reverse=True
        )
        best = ranked[0]
        text = f"K = {k}: best is c0 = {best[0]:g}, c1 = {best[1]:g} with "
        text += cell_text(cells[best])
        printed = (published.TABLE4_BEST["c0"], published.TABLE4_BEST["c1"])
        if printed in cells:
            text += (
                f"; the paper's c0 = {printed[0]:g}, c1 = {printed[1]:g} has "
                f"{cell_text(cells[printed])}, rank {1 + ranked.index(printed)} of "
                f"{len(ranked)}"
            )
        lines.append(text + ".")
    return "\n" + "\n".join(lines) + "\n"


def bounds_rows(rows: Sequence[Row], max_steps: int) -> list[dict[str, Any]]:
    """Table IV for CSV: a row for each K, lr, γ, c0 and c1."""
    keys = ("num_refinements", "lr", "gamma", "c0", "c1")
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    found = []
    for values, mine in groups.items():
        cell = cell_of(mine)
        found.append(
            {"name": " ".join(f"{value:g}" for value in values)}
            | dict(zip(keys, values, strict=True))
            | {
                "accuracy": cell.accuracy,
                "interval_95": cell.interval,
                "solved": cell.solved,
                "seeds": cell.num_seeds,
                "max_steps": max_steps,
                "updates_to_solve": cell.updates,
            }
        )
    return found


def strength_rows(
    label: str, task: str, rows: Sequence[Row], max_steps: int
) -> list[dict[str, Any]]:
    """Figure 5 for CSV: a row for each γ and λ, and the best γ of each λ (γ empty)."""
    found = []
    every = sorted({row["lambda"] for row in rows})
    for gamma in (None, *sorted({row["gamma"] for row in rows})):
        for strength in every:
            mine = [
                row
                for row in rows
                if row["lambda"] == strength and gamma in (None, row["gamma"])
            ]
            cell = cell_of(mine)
            found.append(
                {
                    "name": f"{label} {task} λ{strength:g}"
                    + ("" if gamma is None else f" γ{gamma:g}"),
                    "task": task,
                    "rule": label,
                    "seq_len": mine[0]["seq_len"],
                    "num_refinements": mine[0]["num_refinements"],
                    "gamma": gamma,
                    "lambda": strength,
                    "accuracy": cell.accuracy,
                    "interval_95": cell.interval,
                    "solved": cell.solved,
                    "seeds": cell.num_seeds,
                    "max_steps": max_steps,
                    "updates_to_solve": cell.updates,
                }
            )
    return found


def strength_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Figure 5 as a table: rules × λ, the best γ of each seed."""
    best = [row for row in rows if row["gamma"] is None]
    every = sorted({row["lambda"] for row in best})
    body = []
    for task, rule in dict.fromkeys((row["task"], row["rule"]) for row in best):
        mine = {
            row["lambda"]: row
            for row in best
            if (row["task"], row["rule"]) == (task, rule)
        }
        first = next(iter(mine.values()))
        cells = [
            f"{percent(row['accuracy'], row['interval_95'])} "
            f"({row['solved']}/{row['seeds']})"
            for row in (mine[strength] for strength in every)
        ]
        body.append([TITLES[task], str(first["seq_len"]), rule, *cells])
    header = ["task", "T", "rule", *(f"λ = {strength:g}" for strength in every)]
    return markdown.table(header, body)


def flow_table(summary: Sequence[Mapping[str, Any]]) -> str:
    """Figures 2 to 4 in numbers: a row per setting, before training → at the end.

    Has a column of diverged seeds where there are any.
    """

    def both(row: Mapping[str, Any], name: str, digits: int = 2) -> str:
        found = []
        for when in ("init", "end"):
            mean, interval = row[f"{name}_{when}"], row[f"{name}_{when}_interval"]
            text = "–" if mean is None else f"{mean:.{digits}f}"
            found.append(
                text if interval is None else f"{text} ± {interval:.{digits}f}"
            )
        return " → ".join(dict.fromkeys(found))

    header = [
        "setting",
        "decay of L",
        "steps with L = 0",
        "cos ∇W_hh, BPTT",
        "cos ∇W_xh, BPTT",
        "label swap ∇W_hh",
        "label swap ∇W_xh",
        "accuracy %",
    ]
    body = [
        [
            row["setting"],
            both(row, "decades"),
            both(row, "vanished", 0),
            both(row, "w_hh_sum_cosine"),
            both(row, "w_xh_sum_cosine"),
            both(row, "w_hh_label_swap"),
            both(row, "w_xh_label_swap"),
            f"{percent(row['accuracy_end'], row['accuracy_end_interval'])}",
        ]
        for row in summary
    ]
    if num_diverged(summary):
        header.append("diverged")
        for cells, row in zip(body, summary, strict=True):
            cells.append(f"{num_diverged([row])}/{row['seeds']}")
    return markdown.table(header, body)


def num_diverged(summary: Sequence[Mapping[str, Any]]) -> int:
    """Seeds of all settings that diverged; older summaries do not count them."""
    return sum(row.get("diverged") or 0 for row in summary)


class CurveSet(NamedTuple):
    """Training curves of `lra_released` and of the code that it stands for."""

    task: str
    seq_len: int
    printed: published.ReleasedCurve
    curves: Mapping[int, Sequence[tuple[int, float]]]  # by seed: updates, accuracy


def curve_rows(found: Sequence[CurveSet]) -> list[dict[str, Any]]:
    """The curves for CSV: a row for each evaluation."""
    return [
        {
            "name": f"{curves.task} T{curves.seq_len} seed{seed} {step}",
            "task": curves.task,
            "seq_len": curves.seq_len,
            "seed": seed,
            "step": step,
            "accuracy": accuracy,
        }
        for curves in found
        for seed, points in curves.curves.items()
        for step, accuracy in points
    ]


def curve_table(found: Sequence[CurveSet]) -> str:
    """Peak and end of each curve."""
    body = []
    for curves in found:
        where = [TITLES[curves.task], str(curves.seq_len)]
        printed = curves.printed
        body.append(
            [
                *where,
                "authors' code, seed 1234",
                f"{percent(printed.peak)} at {printed.peak_step:,}",
                f"{percent(printed.last)} at {printed.last_step:,}",
            ]
        )
        for seed, points in curves.curves.items():
            peak = max(points, key=lambda point: (point[1], -point[0]))
            body.append(
                [
                    *where,
                    f"lra_released, seed {seed}",
                    f"{percent(peak[1])} at {peak[0]:,}",
                    f"{percent(points[-1][1])} at {points[-1][0]:,}",
                ]
            )
    return markdown.table(["task", "T", "run", "peak, updates", "end, updates"], body)


def profile_rows(rows: Sequence[Row], summary: Sequence[Row]) -> list[dict[str, Any]]:
    """The local loss at each t before training, and its decay: a row per setting."""
    found = []
    for overview in summary:
        setting = overview["setting"]
        losses = {
            f"local_loss_{row['t']}": row["local_loss"]
            for row in rows
            if (row["setting"], row["step"]) == (setting, 0) and row["t"] is not None
        }
        found.append(
            {
                "name": setting,
                "decades": overview["decades_init"],
                "decades_interval": overview["decades_init_interval"],
                "vanished": overview["vanished_init"],
                "w_hh_cosine": overview["w_hh_sum_cosine_init"],
                "w_hh_cosine_interval": overview["w_hh_sum_cosine_init_interval"],
                **losses,
            }
        )
    return found


def profile_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The local loss from the top step back, for each setting."""
    top = max(
        int(key.rsplit("_", 1)[1]) for row in rows for key in row if "loss" in key
    )
    shown = range(top, max(top - 5, 0), -1)
    body = [
        [
            row["name"],
            *(_loss_text(row[f"local_loss_{t}"]) for t in shown),
            _mean_text(row["decades"], row["decades_interval"]),
            _mean_text(row["w_hh_cosine"], row["w_hh_cosine_interval"]),
        ]
        for row in rows
    ]
    header = ["variant", *(f"L, t = {t}" for t in shown)]
    return markdown.table([*header, "decades per step", "cos ∇W_hh, BPTT"], body)


def _loss_text(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1e}" if value else "0"


def _mean_text(mean: float | None, interval: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.2f}" if interval is None else f"{mean:.2f} ± {interval:.2f}"
