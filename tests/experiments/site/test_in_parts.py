"""Tables that are made part by part: what is kept, until when, and whose it is."""

import io
import json
import pathlib
from unittest import mock

import pytest
import rich.console

from experiments.site import feedback_error, in_parts
from lra_jax.lab.reports import results

MODULE = feedback_error.__name__


@pytest.fixture
def interruption(monkeypatch, tmp_path):
    found = mock.Mock(signal=None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(in_parts.run, "Interruption", lambda *_: found)
    monkeypatch.setattr(in_parts.pictures, "show", lambda *_: None)
    return found


def make(makers):
    """The exit code, what was said, and the rows in the end."""
    console = rich.console.Console(file=io.StringIO(), width=200)
    code = in_parts.make(
        console, MODULE, makers, pathlib.Path("out/table"), lambda rows: None
    )
    path = pathlib.Path("out/table.csv")
    rows = results.read_rows(path) if path.exists() else None
    return code, console.file.getvalue(), rows


def rows_of(number):
    return lambda: [{"name": "x", "accuracy": number}]


def fails():
    raise AssertionError("is trained again")


def test_what_is_kept_is_used_until_all_is_there(interruption):
    def stopped():
        interruption.signal = 2
        return rows_of(0.25)()

    code, _, rows = make({"a": rows_of(0.5), "b": stopped, "c": fails})
    assert (code, rows) == (130, None)
    interruption.signal = None
    code, said, rows = make({"a": fails, "b": fails, "c": rows_of(1.0)})
    assert code == 0
    assert "a is kept in runs/feedback_error/0.json" in said
    assert "training c" in said
    assert [row["accuracy"] for row in rows] == [0.5, 0.25, 1.0]
    # Nothing is left with which a later run would only say that it has trained.
    assert not [*pathlib.Path("runs/feedback_error").iterdir()]
    assert make({"a": rows_of(0.75)})[2] == [{"name": "x", "accuracy": 0.75}]


def test_a_signal_in_the_last_part_changes_nothing(interruption):
    def last():
        interruption.signal = 2
        return rows_of(0.5)()

    assert make({"a": rows_of(0.25), "b": last})[0] == 0


@pytest.mark.parametrize("key", ["name", "code", "jax", "device"])
def test_what_something_else_made_is_made_again(interruption, key):
    def stop():
        interruption.signal = 2
        return []

    assert make({"a": rows_of(0.5), "b": stop, "c": fails})[0] == 130
    interruption.signal = None
    path = pathlib.Path("runs/feedback_error/0.json")
    document = json.loads(path.read_text())
    document["key"][key] = "another"
    path.write_text(json.dumps(document))
    rows = make({"a": rows_of(0.125), "b": fails, "c": rows_of(1.0)})[2]
    assert [row["accuracy"] for row in rows] == [0.125, 1.0]


def test_what_is_damaged_is_made_again(interruption):
    def stop():
        interruption.signal = 2
        return []

    assert make({"a": rows_of(0.5), "b": stop, "c": fails})[0] == 130
    interruption.signal = None
    pathlib.Path("runs/feedback_error/0.json").write_text("{")
    rows = make({"a": rows_of(0.125), "b": fails, "c": rows_of(1.0)})[2]
    assert [row["accuracy"] for row in rows] == [0.125, 1.0]
