"""The page of runs: its structure, and what a browser makes of it."""

import collections
import html
import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from lra_jax.lab.reports import figures, run_view, web_page

VOID = {"input", "link", "meta"}


class Page(html.parser.HTMLParser):
    """What is on a page; fails where an element is not closed.

    Attributes:
      texts: of elements, by their name, in their order.
      attributes: (element, attribute, value) of all of them.
      rows: of all tables, each the texts of its cells.
    """

    def __init__(self, text):
        super().__init__()
        self.texts = collections.defaultdict(list)
        self.attributes = []
        self.rows = []
        self._open = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *attribute) for attribute in attributes]
        if tag not in VOID:
            self.texts[tag].append("")
            self._open.append((tag, len(self.texts[tag]) - 1))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.attributes += [(tag, *attribute) for attribute in attributes]

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for tag, place in self._open:
            self.texts[tag][place] += data
            if tag in ("td", "th"):
                self.rows[-1][-1] += data

    def values(self, name):
        """Of an attribute, wherever it is."""
        return [value for _, attribute, value in self.attributes if attribute == name]


def row(member, gamma, status="solved", step=100, errors=0, **settings):
    best = None if errors is None else 1 - errors / 10_000
    return {
        "member": member, "task": "temporal_order", "seq_len": 10, "rule": "lra_diff",
        "optimizer": "sgd", "hidden_size": 100, "batch_size": 20, "lr": 0.1,
        "gamma": gamma, **settings, "seed": 0, "status": status, "step": step,
        "final_num_errors": errors, "final_accuracy": best, "best_num_errors": errors,
        "best_accuracy": best, "best_step": None if errors is None else step,
    }  # fmt: skip


ROWS = [
    row(0, 10),
    row(1, None, rule="readout_only"),
    row(2, 2.5, "exhausted", 600, 1),
    row(3, 1e-05, "exhausted", 600, 7500),
    row(4, 10, "pending", 0, None),
    row(5, 100),
]
RUN = run_view.RunView(
    name="demo",
    command="python -m experiments.grid --config configs/demo.toml",
    rows=ROWS,
    notes=["1,900 updates in 3 s.", "**Not finished**: `some` run."],
    finished=False,
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The run with figures as matplotlib draws them."""
    folder = tmp_path_factory.mktemp("drawn")
    curves = {
        "member": np.repeat([0, 1, 2, 3, 5], 2),
        "step": np.array([0, 100, 0, 100, 0, 600, 0, 600, 0, 100]),
        "num_errors": np.array([7500, 0, 7500, 0, 7500, 1, 7500, 7500, 7500, 0]),
    }
    captions = figures.draw(folder, ROWS, curves, 10_000)
    return RUN._replace(drawings=figures.drawings(folder, captions))


def test_a_page_has_the_report_and_all_members():
    page = Page(web_page.page([RUN]))
    assert page.texts["title"] == page.texts["h1"] == ["demo"]
    assert page.texts["pre"] == [RUN.command]
    assert page.texts["h2"] == ["Best settings", "All members"]
    assert page.texts["p"][0].replace("\n", " ") == (
        "Not finished. 6 members: 2 exhausted, 1 pending, 3 solved. Chance: "
        "temporal_order 25.00 %."
    )
    assert page.texts["li"] == ["1,900 updates in 3 s.", "Not finished: some run."]
    assert "<strong>Not finished</strong>: <code>some</code>" in web_page.page([RUN])
    # Of one value in all rows: below the heading, not in the table.
    assert page.texts["p"][2] == (
        "All have task temporal_order, T 10, optimizer sgd, hidden_size 100, "
        "batch_size 20, lr 0.1."
    )
    assert page.rows == [
        ["rule", "K", "λ", "best setting", "of", "solved",
         "accuracy %", "final %", "updates"],
        ["lra_diff", "1", "0", "gamma 100", "4", "1/1", "100", "100", "100"],
        ["readout_only", "–", "–", "", "1", "1/1", "100", "100", "100"],
        ["member", "rule", "gamma", "seed", "status", "updates", "final errors",
         "final %", "best errors", "best %", "best at"],
        ["0", "lra_diff", "10", "0", "solved", "100", "0", "100", "0", "100", "100"],
        ["1", "readout_only", "", "0", "solved", "100", "0", "100", "0", "100", "100"],
        ["2", "lra_diff", "2.5", "0", "exhausted", "600",
         "1", "99.99", "1", "99.99", "600"],
        ["3", "lra_diff", "1e-05", "0", "exhausted", "600",
         "7500", "25.00", "7500", "25.00", "600"],
        ["4", "lra_diff", "10", "0", "pending", "0", "", "", "", "", ""],
        ["5", "lra_diff", "100", "0", "solved", "100", "0", "100", "0", "100", "100"],
    ]  # fmt: skip


def test_a_page_is_accessible_and_needs_nothing_else(drawn):
    text = web_page.page([drawn, drawn._replace(name="again")])
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert "http" not in re.sub("http-equiv", "", text)
    assert "@import" not in text
    page = Page(text)
    assert len(page.texts["figure"]) == len(page.texts["svg"]) == 4
    references = [
        value
        for _, name, value in page.attributes
        if name in ("href", "src", "xlink:href")
    ]
    assert {value[0] for value in references if not value.startswith("data:")} == {"#"}
    assert ("meta", "name", "viewport") in page.attributes
    heads = [a for a in page.attributes if a[0] == "th"]
    assert heads.count(("th", "scope", "col")) == 10 + 2 * (9 + 11)
    assert heads.count(("th", "scope", "row")) == 2 * 6
    assert (
        heads.count(("th", "aria-sort", "none")) == 2 * 11 == len(page.texts["button"])
    )
    labels = page.values("aria-label")
    assert all(labels)
    widths = [
        float(v[:-2])
        for tag, name, v in page.attributes
        if (tag, name) == ("svg", "width")
    ]
    assert len(widths) == 4
    for width in widths:
        assert f"min-width:{0.7 * width:.0f}pt" in page.values("style")
    for caption in page.texts["figcaption"]:
        assert labels.count(caption) == 4  # the figure and what scrolls it, in two runs


def test_figures_are_shown_before_the_long_table(drawn):
    assert Page(web_page.page([drawn])).texts["h2"] == [
        "Best settings", "Figures", "All members"
    ]  # fmt: skip
    text = web_page.page([drawn, drawn._replace(name="again")])
    assert Page(text).texts["h3"] == ["Best settings", "Figures", "All members"] * 2
    assert text.index("<svg") < text.index('class="members"') < text.rindex("<svg")
    assert text.count("<svg") == 4


def test_figures_keep_their_ids_apart(drawn):
    page = Page(web_page.page([drawn, drawn._replace(name="again")]))
    ids = page.values("id")
    assert len(ids) == len(set(ids)) > 100
    used = [value[1:] for value in page.values("xlink:href") if value[0] == "#"]
    clips = re.findall(r"url\(#(.*?)\)", " ".join(page.values("clip-path")))
    assert len(used) > 100
    assert len(clips) > 10
    assert set(used) | set(clips) <= set(ids)
    assert {name.split("-")[0] for name in used} == {"f0", "f1"}


def test_an_svg_file_becomes_an_element():
    text = """<?xml version="1.0" encoding="utf-8" standalone="no"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://www.w3.org/svg11.dtd">
<svg xmlns:xlink="http://www.w3.org/1999/xlink" width="9pt" xmlns="http://www.w3.org">
 <metadata>
  <rdf:RDF xmlns:cc="http://creativecommons.org/ns#"/>
 </metadata>
 <defs><style type="text/css">*{stroke-linejoin: round}</style></defs>
 <g id="axes"><!-- 10 --><use xlink:href="#a"/><image href="data:image/png;#a"/></g>
 <g clip-path="url(#axes)" style="fill: url(#a)"/>
</svg>
"""
    assert web_page.inline_svg(text, "f0-") == (
        '<svg width="9pt">\n<defs></defs>\n<g id="f0-axes"><use xlink:href="#f0-a"/>'
        '<image href="data:image/png;#a"/></g>\n'
        '<g clip-path="url(#f0-axes)" style="fill: url(#f0-a)"/>\n</svg>'
    )


def test_all_text_is_escaped():
    bad = "</title></script><script>alert('1')</script>\"&amp;`**"
    run = RUN._replace(
        name=bad,
        command=bad,
        notes=[bad],
        rows=[row(0, 1, local_loss=bad), row(1, 1, local_loss="mse")],
        drawings=[run_view.Drawing(bad, "<svg></svg>")],
    )
    for runs in ([run], [run, RUN]):
        page = Page(web_page.page(runs))
        assert len(page.texts["script"]) == 1
        assert page.texts["h1"][0].startswith(bad)
        assert page.texts["title"][0].startswith(bad)
        assert page.texts["pre"][0] == page.texts["li"][0] == bad
        assert page.texts["figcaption"] == [bad]
        assert page.values("aria-label").count(bad) == 2
        assert any(bad in cell for line in page.rows for cell in line)


def test_several_runs_are_compared():
    second = RUN._replace(name="second", rows=ROWS[:2], finished=True)
    page = Page(web_page.page([RUN, second]))
    assert page.texts["h1"] == ["demo, second"]
    assert page.texts["h2"] == ["Best settings", "demo", "second"]
    assert page.texts["h3"] == ["Best settings", "All members"] * 2
    assert [line[:2] for line in page.rows[:5]] == [
        ["run", "rule"],
        ["demo", "lra_diff"],
        ["demo", "readout_only"],
        ["second", "lra_diff"],
        ["second", "readout_only"],
    ]
    joined = run_view.join([RUN, second])
    assert joined.notes[1] == (
        "second, 2 members: 2 solved. 1,900 updates in 3 s. "
        "**Not finished**: `some` run."
    )


def test_a_page_of_a_run_that_has_just_begun():
    rows = [row(0, 1, "pending", 0, None), row(1, 2, "running", 0, None)]
    page = Page(web_page.page([RUN._replace(rows=rows)]))
    assert "No member has ended." in page.texts["p"]
    assert [line[:4] for line in page.rows] == [
        ["member", "gamma", "seed", "status"],
        ["0", "1", "0", "pending"],
        ["1", "2", "0", "running"],
    ]


def test_a_page_loads_itself_again_if_asked():
    assert "refresh" not in str(Page(web_page.page([RUN])).attributes)
    text = web_page.page([RUN], refresh=5)
    assert '<meta http-equiv="refresh" content="5">' in text
    assert "Running; this page loads itself again every 5 seconds." in text


def test_five_thousand_members_are_a_megabyte():
    rows = [
        row(
            i, [1, 10, 50][i % 3], "exhausted", 100_000, 7000 + i % 500,
            num_refinements=[10, 20, 30][i % 3], c1=1 + i % 2, **{"lambda": 0.1 * (i % 7)},
        )
        for i in range(5000)
    ]  # fmt: skip
    assert len(web_page.page([RUN._replace(rows=rows)]).encode()) < 1_050_000


def test_of_many_members_a_part_is_laid_out_and_all_are_there(monkeypatch):
    bad = "</script><b>"
    rows = [*ROWS, row(6, 1, local_loss=bad), row(7, 1, local_loss=bad)]
    whole = Page(web_page.page([RUN._replace(rows=rows)])).rows
    monkeypatch.setattr(web_page, "MAX_LINES", 3)
    text = web_page.page([RUN._replace(rows=rows)])
    page = Page(text)
    assert page.rows == whole[: -len(rows) + 3]
    packed, script = page.texts["script"]
    assert "<" not in packed
    columns = json.loads(packed)
    assert [*zip(*([x[i] for i in places] for x, places in columns), strict=True)] == [
        tuple(line) for line in whole[-len(rows) + 3 :]
    ]
    assert "replaceChildren" in script
    assert "The first 3 of 8: with JavaScript" in " ".join(page.texts["p"])


def test_a_page_of_ten_thousand_members_is_small():
    rows = [row(i, i % 7, "exhausted", 100, i) for i in range(10_000)]
    text = web_page.page([RUN._replace(rows=rows)])
    assert text.count("<tr>") < web_page.MAX_LINES + 10
    assert len(text.encode()) < 1_000_000


# In a browser.

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--virtual-time-budget=2000",
)  # fmt: skip

BEFORE = """<script>
const problems = [];
window.onerror = (message) => { problems.push(message); };
document.addEventListener("securitypolicyviolation", (event) => {
  problems.push(event.blockedURI);
});
</script>"""

# Presses and types what `see` names, and notes what is seen after each.
AFTER = """<pre id="seen"></pre><script>
const section = document.getElementById("members-0");
const input = section.querySelector("input");
const seen = [];
function press(name) {
  const button = [...section.querySelectorAll("th button")].find(
    (button) => button.textContent === name
  );
  button.focus();
  document.activeElement.click();
  see(name);
}
function type(text) {
  input.value = text;
  input.dispatchEvent(new Event("input"));
  see(text);
}
function see(what) {
  const rows = [...section.querySelectorAll("tbody tr")];
  seen.push([
    what,
    rows.filter((row) => row.offsetHeight).map((row) => +row.cells[0].textContent),
    section.querySelector("output").textContent,
    [...section.querySelectorAll("th[scope=col]")].map((head) => head.ariaSort),
  ]);
}
DO
const others = [...document.querySelectorAll("#members-1 tbody tr")];
setTimeout(() => {  // when what was begun has failed
  document.getElementById("seen").textContent = JSON.stringify([
    seen, others.map((row) => +row.cells[0].textContent), problems,
  ]);
}, 100);
</script>"""


@pytest.fixture
def browse(tmp_path):
    """What is seen on a page where JavaScript `do` was done, and what went wrong."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip(f"no browser: none of {', '.join(names)}")

    def run(text, do):
        path = tmp_path / "page.html"
        text = text.replace("<title>", f"{BEFORE}<title>")
        text = text.replace("</body>", f"{AFTER.replace('DO', do)}</body>")
        path.write_text(text)
        done = subprocess.run(
            [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
             path.as_uri()],
            capture_output=True, text=True, check=True, timeout=3600,
        )  # fmt: skip
        (_, found) = done.stdout.split('<pre id="seen">')
        return json.loads(html.unescape(found.split("</pre>")[0]))

    return run


@pytest.mark.slow
def test_members_are_sorted_and_filtered(browse, drawn):
    text = web_page.page([drawn, RUN._replace(name="again")])
    do = """
      see("start");
      press("gamma"); press("gamma"); press("status"); press("rule"); press("best %");
      press("best %"); type("READOUT"); type("solved 100"); press("member"); type("");
    """
    seen, others, problems = browse(text, do)
    assert problems == []
    assert others == [0, 1, 2, 3, 4, 5]
    orders = [(what, order) for what, order, *_ in seen]
    assert orders == [
        ("start", [0, 1, 2, 3, 4, 5]),
        ("gamma", [3, 2, 0, 4, 5, 1]),  # as numbers; 1 has none
        ("gamma", [5, 0, 4, 2, 3, 1]),
        ("status", [2, 3, 4, 5, 0, 1]),  # as they were, where equal
        ("rule", [2, 3, 4, 5, 0, 1]),
        ("best %", [3, 2, 5, 0, 1, 4]),
        ("best %", [5, 0, 1, 2, 3, 4]),
        ("READOUT", [1]),
        ("solved 100", [5, 0, 1]),
        ("member", [0, 1, 5]),
        ("", [0, 1, 2, 3, 4, 5]),
    ]
    assert [count for _, _, count, _ in seen] == ["6 of 6"] * 7 + [
        "1 of 6", "3 of 6", "3 of 6", "6 of 6",
    ]  # fmt: skip
    directions = [sorts for *_, sorts in seen]
    assert directions[0] == ["none"] * 11
    assert directions[1] == ["none", "none", "ascending", *["none"] * 8]
    assert directions[2] == ["none", "none", "descending", *["none"] * 8]
    assert directions[-1] == ["ascending", *["none"] * 10]


@pytest.mark.slow
def test_of_many_members_those_that_are_first_are_shown(browse, monkeypatch):
    monkeypatch.setattr(web_page, "MAX_LINES", 3)
    do = """
      see("start");
      press("gamma"); press("gamma"); type("lra_diff"); type("readout"); type("");
    """
    seen, others, problems = browse(web_page.page([RUN, RUN._replace(name="2")]), do)
    assert problems == []
    assert others == [0, 1, 2]
    assert [(what, order) for what, order, *_ in seen] == [
        ("start", [0, 1, 2]),
        ("gamma", [3, 2, 0]),
        ("gamma", [5, 0, 4]),
        ("lra_diff", [5, 0, 4]),
        ("readout", [1]),
        ("", [5, 0, 4]),
    ]
    shown = ", the first 3 are shown"
    assert [count for _, _, count, _ in seen] == [
        *3 * [f"6 of 6{shown}"], f"5 of 6{shown}", "1 of 6", f"6 of 6{shown}",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_page_that_is_loaded_again_looks_as_it_did(browse):
    do = """
      if (sessionStorage.getItem("again")) {
        see("again");
      } else {
        sessionStorage.setItem("again", "yes");
        press("gamma"); press("gamma"); type("lra_diff");
        location.reload();
      }
    """
    ((_, order, count, directions),), _, problems = browse(web_page.page([RUN]), do)
    assert problems == []
    assert order == [5, 0, 4, 2, 3]
    assert count == "5 of 6"
    assert directions[2] == "descending"


@pytest.mark.slow
def test_a_browser_loads_nothing_for_the_page(browse):
    do = """
      document.body.insertAdjacentHTML("beforeend", "<img src='other.png'>");
      fetch("https://nowhere.invalid/").catch(() => {});
    """
    _, _, problems = browse(web_page.page([RUN]), do)
    assert sorted(problems) == ["file", "https://nowhere.invalid/"]
