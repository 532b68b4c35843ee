"""Tables come back as they were written, whatever their texts look like."""

import csv
import io
import math
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lra_jax.lab.reports import results

NASTY = ["812931207e14", "1e5", "nan", "inf", "-inf", "NaN", "True", "False", "007",
         "1_000", " 1", "", "None", "0.10", "+1", ".5", "1.", "٣", "a,b", 'say "x"',
         "two\nlines", "\r", "\ufefflabel", "1" * 400]  # fmt: skip


def read(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode())
    return results.read_rows(path)


@pytest.mark.parametrize("name", ["code", "name", "anything", "gamma", "local_loss"])
def test_a_text_stays_a_text_in_every_column(tmp_path, name):
    rows = [{name: text, "other": 1} for text in NASTY]
    results.write_rows(tmp_path / "table.csv", rows)
    assert results.read_rows(tmp_path / "table.csv") == rows
    alone = [{name: text} for text in NASTY]
    for row in alone:
        assert results.parse_rows(results.csv_text([row])) == [row]


def test_a_commit_that_looks_like_a_number_is_a_text_without_quotes_too(tmp_path):
    text = "run,code,jax,seconds\n007,812931207e14,0.11,1e5\n1,1234567,nan,2\n"
    assert read(tmp_path, text) == [
        {"run": "007", "code": "812931207e14", "jax": "0.11", "seconds": 1e5},
        {"run": "1", "code": "1234567", "jax": "nan", "seconds": 2},
    ]


def test_a_column_is_of_numbers_only_if_all_of_it_is(tmp_path):
    found = read(tmp_path, "a,b,c,d\n1,1,,True\n2.5,x,nan,False\n,,1e400,\n")
    assert [row["a"] for row in found] == [1, 2.5, None]
    assert type(found[0]["a"]) is int
    assert [row["b"] for row in found] == ["1", "x", None]
    assert found[0]["c"] is None
    assert math.isnan(found[1]["c"])
    assert found[2]["c"] == math.inf
    assert [row["d"] for row in found] == [True, False, None]


def test_numbers_have_six_digits_or_all(tmp_path):
    rows = [{"x": 1 / 3, "n": 123456789, "y": 2.0}]
    assert results.csv_text(rows, digits=6) == "x,n,y\n0.333333,123456789,2\n"
    assert results.csv_text(rows) == "x,n,y\n0.3333333333333333,123456789,2.0\n"
    results.write_rows(tmp_path / "t.csv", rows)
    assert (tmp_path / "t.csv").read_text() == results.csv_text(rows, digits=6)


def test_a_row_without_a_column_has_nothing_there():
    rows = [{"a": 1, "b": ""}, {"a": None}, {"b": "x"}]
    assert results.csv_text(rows) == 'a,b\n1,""\n,\n,x\n'
    assert results.parse_rows(results.csv_text(rows)) == [
        {"a": 1, "b": ""}, {"a": None, "b": None}, {"a": None, "b": "x"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n3\n", "row 2 has 1 fields; there are 2 columns"),
        ("a\n1,2\n", "row 1 has 2 fields; there are 1 columns"),
        ('a\n"x"y\n', "a quote is out of place"),
        ('a\n"x\n', "a quote is out of place"),
    ],
)
def test_what_is_no_table_says_where(text, says):
    with pytest.raises(ValueError, match=says):
        results.parse_rows(text)


@pytest.mark.parametrize("text", ["", "a,b\n", "a,b"])
def test_a_table_without_rows_has_none(text):
    assert results.parse_rows(text) == []


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(NASTY)
)  # fmt: skip
NAMES = st.lists(
    st.sampled_from(["a", "b,c", 'q"', "x\ny", "λ", "gamma"]),
    min_size=1, max_size=4, unique=True,
)  # fmt: skip


@given(st.data())
def test_every_table_comes_back_as_it_was(data):
    names = data.draw(NAMES)
    row = st.fixed_dictionaries(dict.fromkeys(names, VALUES))
    rows = data.draw(st.lists(row, min_size=1, max_size=5))
    text = results.csv_text(rows, names)
    found = results.parse_rows(text)
    assert found == rows
    for before, after in zip(rows, found, strict=True):
        assert {n: type(x) for n, x in after.items()} == {
            n: type(x) for n, x in before.items()
        }
    # And other programs find the same fields.
    fields = [["" if row[n] is None else str(row[n]) for n in names] for row in rows]
    lines = csv.reader(io.StringIO(text, newline=""))
    assert [line or [""] for line in lines] == [names, *fields]


def test_the_tables_that_are_kept_have_one_type_a_column():
    """But for nothing; or the reader would take a number for a text."""
    paths = sorted(pathlib.Path("results").rglob("*.csv"))
    assert len(paths) > 30
    for path in paths:
        for name in (rows := results.read_rows(path))[0]:
            values = [row[name] for row in rows if row[name] is not None]
            is_text = {isinstance(value, str) for value in values}
            assert len(is_text) <= 1, (path, name)
            if is_text == {True}:
                assert name in {*results.TEXTS, "refinement"}, (path, name)
