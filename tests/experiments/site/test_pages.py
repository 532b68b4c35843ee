"""The numbers of README.md and docs/ are those of results/, and how they get there."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import call

import lra_jax
from experiments.site import pages, pictures
from experiments.speed import wall_time
from lra_jax.lab import config
from lra_jax.lab.reports import results as results_lib

ROOT = Path(lra_jax.__file__).parent.parent
RESULTS = ROOT / "results"
PAGES = sorted((ROOT / "docs").rglob("*.md"))

all_pages = pytest.mark.parametrize(
    "path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix()
)


@all_pages
def test_a_page_agrees_with_the_results(path):
    text = path.read_text("utf8")
    places = pages.places(text, RESULTS)
    stale = [place for place in places if place.old != place.new]
    assert not stale, f"to mend it: {pages.COMMAND}"
    assert pages.fill(text, RESULTS) == text


def test_readme_is_what_its_template_makes():
    template = (ROOT / pages.TEMPLATE).read_text("utf8")
    readme = (ROOT / "README.md").read_text("utf8")
    assert readme == pages.render(template, RESULTS), f"to mend it: {pages.COMMAND}"


def test_the_table_of_readme_is_of_the_bench():
    rows = results_lib.read_rows(RESULTS / "reach/one_setting/reach.csv")
    text = (RESULTS / "reach/headline.md").read_text("utf8")
    assert pictures.table(rows) == text, f"to mend it: {pages.COMMAND} --draw"
    with pytest.raises(ValueError, match="no method 'lra_norm' with temporal_order"):
        pictures.table([row for row in rows if row["method"] != "lra_norm"])


def test_the_picture_of_readme(tmp_path):
    rows = results_lib.read_rows(RESULTS / "reach/rules/reach.csv")
    pictures.draw_reach(rows, tmp_path / "reach.png")
    assert (tmp_path / "reach.png").read_bytes().startswith(b"\x89PNG")
    last = [row for row in rows if row["method"] == "TPTT"][-1]
    other = [row | {"solved": 4} if row is last else row for row in rows]
    with pytest.raises(ValueError, match="LRA-diff, lra_norm, TPTT"):
        pictures.draw_reach(other, tmp_path / "reach.png")


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", *PAGES],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_results_that_a_page_mentions_are_there(path):
    pattern = r"(?<![\w/.-])results/(?:[a-z0-9_-]+/)*[\w-]+\.\w+"
    for name in re.findall(pattern, path.read_text("utf8")):
        assert (ROOT / name).is_file(), name


def test_the_wall_times_are_those_of_the_benchmarks_rates():
    document = json.loads((RESULTS / "benchmark.json").read_text("utf8"))
    found = wall_time.describe(
        config.load(ROOT / "configs/paper_temporal_order.toml"), document
    )
    kept = json.loads((RESULTS / "wall_time.json").read_text("utf8"))
    # Versions of Python differ in the last digits of a sum.
    for row, other in zip(found["rows"], kept["rows"], strict=True):
        assert row.pop("days") == pytest.approx(other.pop("days"), rel=1e-12)
    assert found == kept
    found = wall_time.describe(
        config.load(ROOT / "configs/paper_temporal_order.toml"), document
    )
    assert wall_time.table(found) == (RESULTS / "wall_time.md").read_text("utf8")


NUMBERS = {
    "rate": 1329.8186,
    "share": 0.4651,
    "count": 135,
    "bad": float("nan"),
    "ok": True,
    "rows": [
        {"name": "engine", "rate": 7.5},
        {"name": "engine, λ = 0.1: a/b", "rate": 2},
        {"rate": 3},
    ],
    "by_c": {"0.1": {"c1/c0": 5}},
}


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results"
    (folder / "standard").mkdir(parents=True)
    (folder / "numbers.json").write_text(json.dumps(NUMBERS))
    (folder / "standard" / "numbers.json").write_text('{"accuracy": 0.8}')
    (folder / "standard" / "table.md").write_text("| a | b |\n| - | - |\n| 1 | 2 |\n")
    (folder / "broken.json").write_text("{")
    (folder / "marked.md").write_text("a\n<!-- end -->\n")
    return folder


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("numbers:count", "135"),
        ("numbers:rate:,.0f", "1,330"),
        ("numbers:rate/1e3:.2f", "1.33"),
        ("numbers:share:.0%", "47 %"),
        ("numbers:share:6.2f", "  0.47"),
        ("standard/numbers:accuracy:.2f", "0.80"),
        ("numbers:rows[engine].rate", "7.5"),
        ("numbers:rows[engine, λ = 0.1: a/b].rate", "2"),
        ("numbers:rows[2].rate", "3"),
        ("numbers:rows.2.rate", "3"),
        ("numbers:by_c[0.1][c1/c0]", "5"),
    ],
)
def test_a_number(results, key, expected):
    page = f"a <!-- = {key} -->old<!-- / --> b <!-- = {key} --><!-- / -->\n"
    filled = f"a <!-- = {key} -->{expected}<!-- / --> b <!-- = {key} -->{expected}<!-- / -->\n"
    assert pages.fill(page, results) == filled
    assert pages.fill(filled, results) == filled


BLOCK = "<!-- begin results/standard/table.md -->\n"
TABLE = "| a | b |\n| - | - |\n| 1 | 2 |\n"


@pytest.mark.parametrize("old", ["", "\n", "one\n\ntwo\n", TABLE])
def test_a_block(results, old):
    page = f"x\n{BLOCK}{old}<!-- end -->\ny\n\n{BLOCK}{old}<!-- end -->"
    filled = f"x\n{BLOCK}{TABLE}<!-- end -->\ny\n\n{BLOCK}{TABLE}<!-- end -->"
    assert pages.fill(page, results) == filled
    assert pages.fill(filled, results) == filled
    assert [place.line for place in pages.places(filled, results)] == [2, 9]


@pytest.mark.parametrize(
    ("name", "mine", "plain"),
    [
        ("choose", "| a test | none |", "| not said | not said |"),
        ("errors", r"| a\|b | none | not said |", "| not said | not said | not said |"),
    ],
)
def test_a_new_rule_has_its_row_by_itself(results, name, mine, plain, own_rules):
    page = f"x\n<!-- begin cards/{name} -->\n<!-- end -->\ny\n"
    before = pages.fill(page, results)
    card = lra_jax.RuleCard(
        family=lra_jax.rule_card("bptt").family,
        error="a|b",
        choose_for="a test",
        transports=(),
    )
    lra_jax.register_rule("mine", lra_jax.fa, card)
    lra_jax.register_rule("plain", lra_jax.fa)
    rows = pages.fill(page, results).splitlines()
    assert rows[-3:] == [f"| `plain` {plain}", "<!-- end -->", "y"]
    # The last of its family.
    assert rows.index(f"| `mine` {mine}") == rows.index("<!-- end -->") - 1 - sum(
        lra_jax.rule_card(rule).family != card.family for rule in lra_jax.RULES
    )
    assert set(before.splitlines()) == {*rows[:-3], *rows[-2:]} - {f"| `mine` {mine}"}


@pytest.mark.parametrize("page", ["", "a\n", "a <!-- a comment --> b\n\n\n", "a\n\tb"])
def test_what_is_not_marked_stays(results, page):
    assert pages.fill(page, results) == page


def number(key, before="a "):
    return f"{before}<!-- = {key} -->1<!-- / -->\n"


def block(name):
    return f"<!-- begin results/{name} -->\n<!-- end -->\n"


@pytest.mark.parametrize(
    ("page", "says"),
    [
        (number("number:count"), r"1: results/number\.json: No such .*'numbers\.json'"),
        (number("broken:count"), r"1: results/broken\.json: Expecting"),
        (number("numbers:cuont"), r"1: numbers:cuont: no 'cuont'.* 'count'"),
        (number("numbers:rows[engin].rate"), "no 'engin'.* mean 'engine'"),
        (number("numbers:rows[3].rate"), "no '3' there"),
        (number("numbers:count.x"), "nothing has a name where 'x'"),
        (number("numbers:rows"), "expected a number, got"),
        (number("numbers:rows[0].name"), 'expected a number, got "engine"'),
        (number("numbers:ok"), "expected a number, got true"),
        (number("numbers:bad"), "is nan"),
        (number("numbers:rate:.0q"), "1: numbers:rate:.0q: .*'q'"),
        (number("numbers:rate/0"), "division by zero"),
        (number("numbers:rate/k"), "could not convert"),
        (number("numbers"), r"expected FILE:PATH\["),
        (number("numbers:rows[0"), r"expected FILE:PATH\["),
        (number("numbers:rate|.2f"), r"without \|"),
        (number("numbers:count", ""), "cannot begin a line"),
        (number("numbers:count", "a\n  "), "2: .*cannot begin a line"),
        (number("numbers:count", "> - "), "cannot begin a line"),
        ("a <!-- = numbers:count -->1\n", "1: <!-- =: expected"),
        ("a <!-- = numbers:count -->1\n<!-- / -->", "1: <!-- =: .*\n2: <!-- / -->: "),
        ("a <!-- = numbers:count", "1: <!-- =: expected"),
        ("a <!-- = a -->1 " + number("numbers:count"), "1: <!-- =: expected"),
        ("a <!--= numbers:count-->1<!--/-->\n", "1: <!--=: expected"),
        (block("standard/tabel.md"), r"1: results/standard/tabel\.md: .*/table\.md'"),
        (block("standard"), "1: results/standard: Is a directory"),
        (block("../cards/chose"), r"1: results/\.\./cards/chose: No such"),
        ("<!-- begin cards/chose -->\n<!-- end -->\n", "1: cards/chose: .*'choose'"),
        (block("marked.md"), r"1: results/marked\.md: has markers itself"),
        (block("my table.md"), "1: <!-- begin: expected"),
        ("a " + BLOCK + "<!-- end -->\n", "1: <!-- begin: expected"),
        (BLOCK + "a\n", "1: <!-- begin: expected"),
        (BLOCK + "a <!-- end -->\n", "1: <!-- begin: .*\n2: <!-- end"),
        ("\n<!-- end -->\n", "2: <!-- end: expected"),
        (BLOCK + BLOCK + "<!-- end -->\n", "^1: <!-- begin: [^\n]*$"),
        (BLOCK + BLOCK + 2 * "<!-- end -->\n", "^1: <!-- begin: .*\n4: <!-- end"),
        (BLOCK + number("numbers:count") + "<!-- end -->", "2: <!-- =: .*\n2: <!-- /"),
        (number("a:b") + number("c:d"), "1: results/a.*\n2: results/c"),
    ],
)
def test_what_is_wrong_is_said(results, page, says):
    with pytest.raises(pages.PageError, match=says):
        pages.fill(page, results)


def command(folder, *arguments):
    with contextlib.chdir(folder):
        return call(pages, *arguments)


def test_a_template_loses_its_markers(results):
    template = f"x\n{BLOCK}<!-- end -->\ny " + number("numbers:rate:,.0f")
    expected = f"{pages.NOTE}x\n{TABLE}y a 1,330\n"
    assert pages.render(template, results) == expected


@pytest.fixture
def stale(results):
    """A folder with a page and README.md, both not what they are to be."""
    root = results.parent
    (root / "docs").mkdir()
    (root / pages.TEMPLATE).parent.mkdir(parents=True)
    (root / pages.TEMPLATE).write_text("α\n" + number("numbers:count"), "utf8")
    (root / "docs/a.md").write_text(number("numbers:count"), "utf8")
    (root / "README.md").write_text("of before")
    return root


def assert_of_before(root):
    assert (root / "README.md").read_text() == "of before"
    assert (root / "docs/a.md").read_text() == number("numbers:count")


@pytest.mark.parametrize("kind", ["read-only", "folder"])
def test_a_page_that_cannot_be_written_is_said_before_any_is(stale, monkeypatch, kind):
    page = stale / "docs/b.md"
    page.write_text(number("numbers:count"))
    what = "docs/b.md"
    if kind == "folder":
        what = "README.md"
        (stale / what).unlink()
        (stale / what).mkdir()
    # Root, which tests may be, can write everything.
    can = kind == "folder"
    monkeypatch.setattr(pages.os, "access", lambda path, _: can or path.name != "b.md")
    done = command(stale)
    assert done.returncode == 2
    assert done.stderr == f"experiments.pages: {what}: cannot be written\n"
    assert done.stdout == ""
    assert (stale / "docs/a.md").read_text() == number("numbers:count")
    assert command(stale, "--check").returncode == 1


def test_a_page_that_is_no_text_is_one_message(stale):
    (stale / "docs/b.md").write_bytes(b"\xff")
    done = command(stale)
    assert done.returncode == 2
    assert done.stderr == "experiments.pages: docs/b.md: not UTF-8\n"
    assert_of_before(stale)


def test_a_readme_that_is_no_text_is_made_anew(stale):
    (stale / "README.md").write_bytes(b"\xff")
    assert command(stale).returncode == 0
    assert (stale / "README.md").read_text("utf8") == f"{pages.NOTE}α\na 135\n"


def test_a_full_disk_leaves_every_page_whole(stale, monkeypatch):
    def write(path, *data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(pages.files, "write", write)
    done = command(stale)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert_of_before(stale)


def test_what_cannot_be_drawn_is_one_message(stale, monkeypatch):
    for name in ("one_setting", "rules"):
        folder = stale / "results/reach" / name
        folder.mkdir(parents=True)
        shutil.copy(RESULTS / "reach" / name / "reach.csv", folder)
    (stale / "docs/images").mkdir()
    path = stale / "results/reach/rules/reach.csv"
    rows = results_lib.read_rows(path)

    def says(text):
        done = command(stale, "--draw")
        assert done.returncode == 2
        assert done.stderr.startswith("experiments.pages: --draw: ")
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
        assert_of_before(stale)
        assert not (stale / "results/reach/headline.md").exists()

    others = [row for row in rows if row["method"] != "LRA-diff regularised"]
    results_lib.write_rows(path, others)
    says("no published reach of 'LRA-diff regularised' in the results")
    without = [{k: v for k, v in row.items() if k != "seeds"} for row in rows]
    results_lib.write_rows(path, without)
    says("rules/reach.csv: expected a table with the columns method, ")
    path.write_text("method,seq_len\nBPTT\n")
    says("rules/reach.csv is damaged: row 1 has 1 fields")
    monkeypatch.setattr(pictures.canvas, "missing", lambda: pictures.canvas.MISSING)
    says("No figures: matplotlib is missing (pip install 'lra_jax[plot]').")


def test_the_command(results):
    root = results.parent
    readme, template, page = (
        root / "README.md",
        root / pages.TEMPLATE,
        root / "docs/a.md",
    )
    page.parent.mkdir()
    template.parent.mkdir(parents=True)
    template.write_text("α\n" + number("numbers:rate:,.0f"), "utf8")
    page.write_text(BLOCK + "<!-- end -->\n" + number("numbers:count"))

    stale = command(root, "--check")
    assert (stale.returncode, stale.stderr) == (1, "")
    assert stale.stdout.splitlines() == [
        f"README.md: is not what {pages.TEMPLATE} makes",
        "docs/a.md:1: standard/table.md: is another text",
        "docs/a.md:3: numbers:count: 1 is 135",
        "Not what results/ says. To write them anew:",
        f"  {pages.COMMAND}",
    ]
    assert not readme.exists()
    assert page.read_text().startswith(BLOCK + "<!-- end -->\n")

    assert command(root).returncode == 0
    assert readme.read_text("utf8") == f"{pages.NOTE}α\na 1,330\n"
    assert page.read_text().startswith(BLOCK + TABLE + "<!-- end -->\na <!-- = n")
    assert "1,330" not in template.read_text("utf8")

    agrees = command(root, "--check")
    assert agrees.returncode == 0
    assert agrees.stdout == "The pages agree with results/.\n"

    template.write_text(number("numbers:rate"))
    page.write_text(number("numbers:no") + "\n<!-- end -->\n")
    wrong = command(root)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("experiments.pages: docs/a.md:1: numbers:no: ")
    assert "\n  docs/a.md:3: <!-- end: expected" in wrong.stderr
    assert readme.read_text("utf8") == f"{pages.NOTE}α\na 1,330\n"

    template.unlink()
    assert "readme_template.md: No such file" in command(root, "--draw").stderr
    assert "--draw: " in command(root, "--draw").stderr
    done = subprocess.run(
        [sys.executable, "-m", "experiments.pages", "--chekc"],
        cwd=root, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(
        "experiments.pages: Unknown command line flag 'chekc'"
    )
