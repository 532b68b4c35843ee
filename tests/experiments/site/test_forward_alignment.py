"""What `experiments.forward_alignment` records and shows."""

import numpy as np
import pytest
from command_line import call

from experiments.site import forward_alignment
from lra_jax.lab.reports import results

pytestmark = pytest.mark.end_to_end


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


def test_rows_table_and_figure(small, monkeypatch, tmp_path):
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
