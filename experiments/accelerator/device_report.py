"""What a person sees of `experiments.device`: tables in Markdown, and a figure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from experiments.accelerator.device_cells import ENGINE, LOOPED, MAPPED, WAYS, Method
from experiments.speed.benchmark_report import number
from lra_jax.lab.reports import markdown

if TYPE_CHECKING:  # the extra `plot`
    from matplotlib.figure import Figure

NO_TIME = "no time"  # the status of a cell that the minutes had no room for
NUM_KERNELS = 8  # of a trace, in the table
LIMITS = {
    "products": "products",
    "memory": "memory traffic",
    "launches": "starting kernels",
}
_EXPLANATION = """\
A member-step is one update of one of the N members.

The columns with percentages are of the engine, and the largest says what bounds it.
Products and memory traffic compare with the best rates above: multiply-adds, and the
bytes that products need if no cache keeps any (above 100 %, caches do). Starting
kernels is the number that it starts at least, times a step of a loop, as a part of its
time. MB is the compiler's account for a device.
"""
COLUMNS = {ENGINE: "engine", MAPPED: "vmap", LOOPED: "loop"}


def _share(row: Mapping[str, Any], limit: str) -> float:
    """In percent, for a figure; not a number where it is not known."""
    share = (row["shares"] or {}).get(limit)
    return math.nan if share is None else 100 * share


def _percent(x: float | None) -> str:
    return "-" if x is None else f"{100 * x:.2g} %" if x < 0.1 else f"{100 * x:.0f} %"


def _method(row: dict[str, Any]) -> str:
    return Method(row["rule"], row["num_refinements"]).name


def _rate(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return number(row["rate"]) if row["status"] == "measured" else row["status"]


def _by_case(
    cells: Iterable[dict[str, Any]],
) -> dict[tuple[str, int, int], dict[str, dict[str, Any]]]:
    """Rows of all ways, by method, T and N."""
    found: dict[tuple[str, int, int], dict[str, dict[str, Any]]] = {}
    for row in cells:
        case = _method(row), row["seq_len"], row["members"]
        found.setdefault(case, {})[row["way"]] = row
    return found


def rates(document: dict[str, Any]) -> str:
    """Member-steps per second of all cells, and what bounds the engine."""
    order = {Method(*x).name: i for i, x in enumerate(document["methods"])}
    found = _by_case(document["cells"])
    body = []
    for case in sorted(found, key=lambda case: (order[case[0]], *case[1:])):
        ways = found[case]
        if all(row["status"] == NO_TIME for row in ways.values()):
            continue
        engine = ways.get(ENGINE)
        shares = (engine or {}).get("shares") or {}
        body.append(
            [
                case[0],
                *(f"{x:,}" for x in case[1:]),
                *(_rate(ways.get(way)) for way in WAYS),
                *(_percent(shares.get(limit)) for limit in LIMITS),
                number((engine or {}).get("compile_seconds")),
                _memory(engine),
            ]
        )
    header = [
        *("rule", "T", "N"),
        *COLUMNS.values(),
        *(f"of {name}" for name in LIMITS.values()),
        *("compile s", "MB"),
    ]
    return markdown.table(header, body)


def _memory(row: dict[str, Any] | None) -> str:
    size = row and row.get("bytes")
    return number(size / 1e6) if size else "-"


def page(document: dict[str, Any]) -> str:
    """All of it."""
    on, versions = document["machine"], document["versions"]
    parts = [
        f"# {on['count']} × {on['kind']}\n",
        f"JAX {versions['jax']}, Python {versions['python']}, {on['cores']} CPU cores. "
        f"{document['task']}, H = {document['hidden_size']}, "
        f"B = {document['batch_size']}, float32 at the highest precision. "
        f"{document['seconds']:.0f} of {60 * document['minutes']:.0f} seconds"
        + (".\n" if document["finished"] else "; **not finished**.\n"),
        _agreement(document.get("agreement")),
        _roofline(document.get("roofline")),
    ]
    if document["cells"]:
        parts += [
            "## Member-steps per second\n",
            _EXPLANATION,
            rates(document),
        ]
    parts += [_not_measured(document["cells"]), *map(_trace, document["traces"])]
    if document["notes"]:
        parts += ["## Notes\n", markdown.notes(document["notes"])]
    return "\n".join(part for part in parts if part)


def _agreement(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    said = {True: "yes", False: "**no**", None: "not known"}
    body = [
        [
            row["name"],
            said[row["passed"]],
            "-" if row["difference"] is None else f"{row['difference']:.1g}",
            f"{row['tolerance']:g}",
            row["note"] or "",
        ]
        for row in found["rows"]
    ]
    header = ["what", "agrees", "difference", "tolerance", "note"]
    return (
        f"## Agreement with {found['compared_with']}\n\n"
        "The largest difference, in units of the largest value of its array.\n\n"
        + markdown.table(header, body)
    )


def _roofline(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    best = found["best"]
    body = [
        ["a large product", number(2e-12 * best["product_rate"], " TFLOP/s")],
        [
            "an update's products",
            number(2e-12 * best["small_product_rate"], " TFLOP/s"),
        ],
        ["memory, read and written", number(1e-9 * best["byte_rate"], " GB/s")],
        ["a step of a loop", number(1e6 * best["kernel_seconds"], " µs")],
        [
            "if its length is not known",
            number(1e6 * best["unknown_step_seconds"], " µs"),
        ],
        ["a call from Python", number(1e6 * best["call_seconds"], " µs")],
    ]
    return "## What the device can do\n\n" + markdown.table(["what", "best"], body)


def _not_measured(cells: Iterable[dict[str, Any]]) -> str:
    cells = list(cells)
    rows = [row for row in cells if row["status"] not in ("measured", NO_TIME)]
    late = sum(row["status"] == NO_TIME for row in cells)
    said = f"There was no time for {late} of {len(cells)} cells.\n" if late else ""
    body = [
        [
            _method(row),
            row["way"],
            *(f"{row[key]:,}" for key in ("seq_len", "members")),
            row["status"],
            row["note"] or "",
        ]
        for row in rows
    ]
    header = ["rule", "way", "T", "N", "why", "note"]
    said += "\n" * bool(late and body) + (markdown.table(header, body) if body else "")
    return said and "## Not measured\n\n" + said


def _trace(found: dict[str, Any]) -> str:
    title = f"## Longest kernels: {found['name']}\n\n"
    if "error" in found:
        return title + f"No trace: {found['error']}\n"
    body = [
        [row["name"], f"{row['count']:,}", _percent(row["share"])]
        for row in found["kernels"][:NUM_KERNELS]
    ]
    return (
        title + f"{found['count']:,} kernels in {found['updates']} updates of all "
        f"members; the device was busy {_percent(found['busy'])} of the time.\n\n"
        + markdown.table(["kernel", "how many", "of the busy time"], body)
    )


def draw(document: dict[str, Any]) -> Figure:
    """Member-steps per second over N, for each T; below, what bounds the engine."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from lra_jax.lab.reports import canvas, figures

    names = [Method(*x).name for x in document["methods"]]
    colors = dict(zip(names, figures.COLORS, strict=False))
    styles = dict(zip(WAYS, ("o-", "s--", "^:"), strict=True))
    measured = [row for row in document["cells"] if row["status"] == "measured"]
    lengths = sorted({row["seq_len"] for row in measured})
    members = sorted({row["members"] for row in measured})
    with canvas.style():
        figure = Figure(figsize=(2.6 * len(lengths) + 2.2, 5.4), layout="constrained")
        panels = figure.subplots(
            2, len(lengths), squeeze=False, sharex=True, sharey="row"
        )
        for column, seq_len in enumerate(lengths):
            upper, lower = panels[:, column]
            for name in names:
                for way in WAYS:
                    rows = _rows(measured, name, way, seq_len)
                    upper.plot(
                        [row["members"] for row in rows],
                        [row["rate"] for row in rows],
                        *(styles[way],),
                        color=colors[name],
                        ms=4,
                    )
            rows = _rows(measured, names[0], ENGINE, seq_len)
            for limit, color in zip(LIMITS, figures.COLORS[3:], strict=False):
                lower.plot(
                    [row["members"] for row in rows],
                    [_share(row, limit) for row in rows],
                    "o-",
                    color=color,
                    ms=4,
                    label=LIMITS[limit],
                )
            upper.set_title(f"T = {seq_len:,}", fontsize=9)
            for axes in (upper, lower):
                axes.set_xscale("log")
                axes.set_yscale("log")
                axes.set_xticks(members, [f"{n:,}" for n in members], fontsize=8)
                axes.minorticks_off()
                axes.grid(alpha=0.3, lw=0.5)
            lower.axhline(100, color="k", lw=0.8, ls=":")
            lower.set_xlabel("N, members")
        panels[0, 0].set_ylabel("member-steps/s")
        panels[1, 0].set_ylabel(f"% of a limit\n({names[0]}, engine)")
        lines = [Line2D([], [], color=colors[name], label=name) for name in names]
        lines += [
            Line2D([], [], color="k", ls=style[1:], marker=style[0], ms=4, label=way)
            for way, style in styles.items()
        ]
        beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "fontsize": 8}
        panels[0, -1].legend(handles=lines, frameon=False, **beside)
        panels[1, -1].legend(frameon=False, **beside)
        on = document["machine"]
        figure.suptitle(
            f"{on['count']} × {on['kind']}: {document['task']}, "
            f"H = {document['hidden_size']}, B = {document['batch_size']}",
            fontsize=9,
        )
    return figure


def _rows(
    rows: Iterable[dict[str, Any]], name: str, way: str, seq_len: int
) -> list[dict[str, Any]]:
    chosen = [
        row
        for row in rows
        if (_method(row), row["way"], row["seq_len"]) == (name, way, seq_len)
    ]
    return sorted(chosen, key=lambda row: row["members"])
