"""Fills tables and numbers of README.md and docs/: `python -m experiments.pages`.

The pages of docs/ are filled where they stand. README.md is made from
`experiments/site/readme_template.md` and has no markers; edit the template. Marked
places are between HTML comments, which no reader sees. Three kinds:

A file of results, whole, between two lines:

    <!-- begin results/wall_time.md -->
    | how | member-steps/s | wall time |
    <!-- end -->

A table of the cards of rules, likewise, between `<!-- begin cards/choose -->` and
`<!-- end -->`; `card_tables.TABLES` has their names.

A number of a JSON file, in one line; this one is in `results/benchmark.json`:

    at <!-- = benchmark:variants[engine].rate:,.0f -->1,330<!-- / --> member-steps/s

Its key is FILE:PATH[/UNIT][:FORMAT]. FILE is below results/, without `.json`. PATH has
the keys of objects, between dots, or in brackets those with dots, slashes or colons; in
brackets also the position of an item in a list, or the "name" of the one that has it.
The number is divided by UNIT, and FORMAT is Python's: `...rate/1e3:.2f` is 1.33. `.0%`
gives `47 %`, with a space. A key has no `|`, which would end a table's cell.

With --draw, README's picture and its table of T = 300 are made anew first. With --check
no page is written. Exit codes: 0 the pages agree with results/, 1 they did
not (--check), 2 something in a page or in results/ is wrong, and no page was written.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import rich.console
from absl import flags

from experiments.site import card_tables, pictures
from lra_jax.lab.runs import store
from lra_jax.lab.terminal import command_line, files
from lra_jax.settings import did_you_mean

_DRAW = flags.DEFINE_boolean("draw", False, "Make README's picture and table anew.")
_CHECK = flags.DEFINE_boolean("check", False, "Say what is stale, and write nothing.")

COMMAND = "python -m experiments.pages"
TEMPLATE = "experiments/site/readme_template.md"
NOTE = f"<!-- Made from {TEMPLATE} by {COMMAND}: edit that file. -->\n"

_PLACE = re.compile(
    r"""
    ^<!--[ ]begin[ ](?P<source>results|cards)/(?P<file>\S+)[ ]-->\n
        (?P<block>(?:(?!<!--[ ]begin[ ]).*\n)*?)
    (?P<end><!--[ ]end[ ]-->)$
    |
    <!--[ ]=[ ](?P<key>(?:(?!-->).)+)[ ]-->
        (?P<text>(?:(?!<!--).)*)
    (?P<slash><!--[ ]/[ ]-->)
    """,
    re.VERBOSE | re.MULTILINE,
)
# All that looks like a marker.
_MARKER = re.compile(r"<!--\s*(?:=|/\s*-->|begin\b|end\b)")
# Where a comment makes HTML of its whole line, in which Markdown means nothing.
_LINE_START = re.compile(r"\s*(?:(?:[-*+>]|\d+[.)])\s+)*")

_STEP = r"[^][.:/]+"
_KEY = re.compile(
    rf"(?P<file>[^:]+):(?P<path>(?:{_STEP}|\[[^]]*\])(?:\.{_STEP}|\[[^]]*\])*)"
    r"(?:/(?P<unit>[^:/]+))?(?::(?P<format>.+))?"
)


class PageError(ValueError):
    """All that is wrong in a page: a line each, which begins with its number."""


class Place(NamedTuple):
    """A marked place of a page, and what belongs there."""

    line: int
    name: str  # as in the marker
    start: int  # of the text between the markers
    old: str
    new: str


def places(page: str, results: pathlib.Path) -> list[Place]:
    """The marked places of a page, filled from the folder `results`."""
    found: list[Place] = []
    problems: list[tuple[int, str]] = []
    paired: set[int] = set()
    for match in _PLACE.finditer(page):
        line = page.count("\n", 0, match.start()) + 1
        is_block = match["key"] is None
        paired |= {match.start(), match.start("end" if is_block else "slash")}
        try:
            if is_block:
                name, part = match["file"], "block"
                is_table = match["source"] == "cards"
                new = card_tables.table(name) if is_table else _block(results, name)
            else:
                name, part, new = match["key"], "text", _number(results, match["key"])
                before = page[page.rfind("\n", 0, match.start()) + 1 : match.start()]
                if _LINE_START.fullmatch(before):
                    raise ValueError(f"{name}: a number cannot begin a line")
        except ValueError as error:
            problems.append((line, str(error)))
        else:
            found.append(Place(line, name, match.start(part), match[part], new))
    problems += [
        (
            page.count("\n", 0, match.start()) + 1,
            f"{match[0]}: expected `<!-- = KEY -->text<!-- / -->` in one line, or a "
            "line `<!-- begin results/FILE -->`, or with cards/TABLE, and below it a "
            "line `<!-- end -->`; neither has another in it",
        )
        for match in _MARKER.finditer(page)
        if match.start() not in paired
    ]
    if problems:
        problems.sort(key=lambda problem: problem[0])
        raise PageError("\n".join(f"{line}: {what}" for line, what in problems))
    return found


def fill(page: str, results: pathlib.Path) -> str:
    """A page with its marked places filled from the folder `results`."""
    return _put(page, places(page, results))


def render(template: str, results: pathlib.Path) -> str:
    """README.md: a template, filled from the folder `results` and without its markers.

    Raises:
      PageError: something in the template or in the results is wrong.
    """
    return NOTE + _PLACE.sub(
        lambda match: match["text"] if match["key"] else match["block"].rstrip("\n"),
        fill(template, results),
    )


def _put(page: str, found: Sequence[Place]) -> str:
    for place in reversed(found):
        end = place.start + len(place.old)
        page = page[: place.start] + place.new + page[end:]
    return page


def _read(results: pathlib.Path, name: str) -> str:
    try:
        return (results / name).read_text("utf8")
    except (OSError, UnicodeDecodeError) as error:
        files = [path.relative_to(results).as_posix() for path in results.rglob("*.*")]
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        hint = did_you_mean(name, files)
        raise ValueError(f"results/{name}: {reason}{hint}") from None


def _block(results: pathlib.Path, name: str) -> str:
    text = _read(results, name).strip("\n") + "\n"
    if _MARKER.search(text):
        raise ValueError(f"results/{name}: has markers itself")
    return text


def _number(results: pathlib.Path, key: str) -> str:
    match = _KEY.fullmatch(key)
    if match is None or "|" in key:
        raise ValueError(f"{key}: expected FILE:PATH[/UNIT][:FORMAT], without |")
    name = f"{match['file']}.json"
    try:
        value = json.loads(_read(results, name))
    except json.JSONDecodeError as error:
        raise ValueError(f"results/{name}: {error}") from None
    for step in re.findall(rf"\[[^]]*\]|{_STEP}", match["path"]):
        value = _get(value, step.strip("[]"), key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key}: expected a number, got {json.dumps(value)[:60]}")
    if not math.isfinite(value):
        raise ValueError(f"{key}: is {value}")
    try:
        if match["unit"] is not None:
            value /= float(match["unit"])
        # As everywhere here, 47 % has a space.
        return format(value, match["format"] or "").replace("%", " %")
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f"{key}: {error}") from None


def _get(value: Any, step: str, key: str) -> Any:
    """What a step of a path leads to: a value of an object, or an item of a list."""
    if isinstance(value, list):
        named = {row.get("name"): row for row in value if isinstance(row, dict)}
        value = {str(index): item for index, item in enumerate(value)} | named
    if not isinstance(value, dict):
        raise ValueError(f"{key}: nothing has a name where {step!r} is looked for")
    if step not in value:
        hint = did_you_mean(step, map(str, value))
        raise ValueError(f"{key}: no {step!r} there{hint}")
    return value[step]


def _run(console: rich.console.Console) -> int:
    """Fills the pages below the working directory."""
    del console
    root = pathlib.Path()
    texts: dict[pathlib.Path, str] = {}
    problems: list[str] = []
    stale: list[str] = []
    try:
        if _DRAW.value:
            pictures.draw(root)
    except (OSError, ValueError, store.RunFolderError) as error:
        problems.append(f"--draw: {error}")
    template, readme = root / TEMPLATE, root / "README.md"
    for path in [template, *sorted((root / "docs").rglob("*.md"))]:
        try:
            text = path.read_text("utf8")
            if path == template:
                made = render(text, root / "results")
                if _text_of(readme) != made:
                    texts[readme] = made
                    stale.append(f"{readme}: is not what {TEMPLATE} makes")
                continue
            found = places(text, root / "results")
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
        except UnicodeDecodeError:
            problems.append(f"{path}: not UTF-8")
        except PageError as error:
            problems += [f"{path}:{line}" for line in str(error).splitlines()]
        else:
            changed = [place for place in found if place.old != place.new]
            if changed:
                texts[path] = _put(text, found)
            stale += [f"{path}:{_change(place)}" for place in changed]
    for path in () if _CHECK.value else texts:
        if path.exists() and not (path.is_file() and os.access(path, os.W_OK)):
            problems.append(f"{path}: cannot be written")
    if problems:
        raise PageError("\n  ".join(problems))
    print("\n".join(stale) or "The pages agree with results/.")
    if stale and _CHECK.value:
        print(f"Not what results/ says. To write them anew:\n  {COMMAND}")
        return 1
    for path, text in texts.items():
        files.write_text(path, text)
    return 0


def _text_of(path: pathlib.Path) -> str | None:
    """What a page says; None where it is not there. What is no UTF-8 is �."""
    return path.read_text("utf8", errors="replace") if path.is_file() else None


def _change(place: Place) -> str:
    """A line that says what is stale."""
    change = "is another text"
    if "\n" not in place.old + place.new:
        change = f"{place.old} is {place.new}"
    return f"{place.line}: {place.name}: {change}"


parse = command_line.parser(__name__)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    errors = (PageError, OSError)
    return command_line.exit_code(_run, errors, command_line.program(__name__))
