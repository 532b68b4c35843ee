"""What `experiments.forward_alignment` records and shows."""

import sys
from unittest import mock

import numpy as np
import pytest
from command_line import call

from experiments.site import forward_alignment, in_parts
from lra_jax.lab.reports import results

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def interruption(monkeypatch, tmp_path):
    """Nobody interrupts; what is kept is kept in a folder of the test's."""
    found = mock.Mock(signal=None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(in_parts.run, "Interruption", lambda *_: found)
    return found


@pytest.fixture
def small(monkeypatch):
    sizes = {"DELAY": 2, "SEQ_LEN": 8, "HIDDEN_SIZE": 6, "BATCH_SIZE": 3}
    budget = {"NUM_STEPS": 20, "NUM_LOOKS": 2, "RATES": (0.03, 1e-6)}
    for name, value in (sizes | budget).items():
        monkeypatch.setattr(forward_alignment, name, value)


def test_what_is_asked_is_the_symbol_of_some_steps_before(small):
    batch = forward_alignment.draw(forward_alignment.jax.random.key(0))
    assert (batch.labels[:2] == -1).all()
    np.testing.assert_array_equal(batch.labels[2:], batch.inputs[:-2])


def test_rows_table_and_figure(small, monkeypatch, tmp_path, interruption):
    rules = {"bptt": {}, "eprop": {}, "readout_only": {}}
    chosen = {"leaky": forward_alignment.NETWORKS["leaky"]}
    monkeypatch.setattr(forward_alignment, "RULES", rules)
    monkeypatch.setattr(forward_alignment, "NETWORKS", chosen)
    done = call(forward_alignment, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = results.read_rows(tmp_path / "forward.csv")
    assert len(rows) == 3 * 5 * 3
    for row in rows:
        assert row["updates"] in (0, 10, 20)
        expected = {"bptt": 1.0, "readout_only": 0.0}.get(row["rule"])
        if expected is None:
            assert 0.3 < row["cosine"] < 0.999
        else:
            assert row["cosine"] == pytest.approx(expected, abs=1e-5)
        if row["rule"] != "readout_only":
            assert row["lr"] == 0.03  # the other one learns nothing
    text = (tmp_path / "forward.md").read_text()
    assert "| leaky | bptt | 0.03 |" in text
    assert "| – | – | – |" in text
    assert (tmp_path / "forward.png").stat().st_size > 1000


def test_a_signal_leaves_the_files_of_before_and_no_part_is_trained_twice(
    monkeypatch, tmp_path, interruption
):
    trained = []

    def record(rule, network):
        trained.append((network, rule))
        if len(trained) == 2:
            interruption.signal = 2
        seen = {"loss": 1.0, "cosine": 0.5}
        place = {"network": network, "rule": rule, "lr": 0.1, "seed": 0}
        steps = (0, forward_alignment.NUM_STEPS // 2, forward_alignment.NUM_STEPS)
        return [place | {"updates": step} | seen for step in steps]

    monkeypatch.setattr(forward_alignment, "record", record)
    names = ("forward.csv", "forward.md", "forward.png")
    for name in names:
        (tmp_path / name).write_text("of before")
    done = call(forward_alignment, "--out", str(tmp_path))
    assert done.returncode == 130
    (said,) = interruption.say.call_args.args
    assert said == "Interrupted; what was trained is kept. To go on:"
    assert {(tmp_path / name).read_text() for name in names} == {"of before"}
    first = [*trained]
    interruption.signal = None
    done = call(forward_alignment, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    every = [
        (n, r) for n in forward_alignment.NETWORKS for r in forward_alignment.RULES
    ]
    assert len(first) == 2
    assert trained == every
    rows = results.read_rows(tmp_path / "forward.csv")
    assert [(row["network"], row["rule"]) for row in rows[::3]] == every


def test_the_figure_is_drawn_without_pyplot(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    row = {"network": "gru", "rule": "bptt", "updates": 0, "loss": 1.0, "cosine": 0.5}
    figure = forward_alignment.draw_figure([row, row | {"updates": 10}])
    assert len(figure.axes) == 2
