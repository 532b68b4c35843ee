"""What `experiments.feedback_error` records and draws."""

import sys
from unittest import mock

import pytest
from command_line import call

from experiments.site import feedback_error, in_parts
from lra_jax.lab.reports import results

pytestmark = pytest.mark.end_to_end


def test_errors_are_followed_and_drawn(monkeypatch, tmp_path):
    sizes = {"SEQ_LEN": 10, "HIDDEN_SIZE": 16, "BATCH_SIZE": 3, "NUM_SAMPLES": 20}
    budget = {"NUM_STEPS": 60, "EVERY": 30, "SEEDS": (0,)}
    for name, value in (sizes | budget).items():
        monkeypatch.setattr(feedback_error, name, value)
    kept = {
        "mirror": feedback_error.lra_jax.Feedback(
            "mirror", "mirror", mirror_rate=0.1, mirror_samples=500
        ),
        "random": feedback_error.FEEDBACK["random"],
    }
    monkeypatch.setattr(feedback_error, "FEEDBACK", kept)
    monkeypatch.chdir(tmp_path)
    nobody = mock.Mock(signal=None)
    monkeypatch.setattr(in_parts.run, "Interruption", lambda *_: nobody)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    done = call(feedback_error, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    rows = results.read_rows(tmp_path / "feedback.csv")
    assert [row["updates"] for row in rows] == [0, 30, 60] * 2
    mirror, random = rows[:3], rows[3:]
    assert mirror[-1]["error of A"] < 0.15 < 1 < mirror[0]["error of A"]
    assert random[-1]["error of A"] == pytest.approx(random[0]["error of A"], rel=0.05)
    assert (tmp_path / "feedback.png").stat().st_size > 1000


def test_weights_decay_where_kolen_pollack_feedback_does():
    choice = feedback_error.FEEDBACK["Kolen-Pollack"]
    assert choice.weight_decay == feedback_error.DECAY
    params = feedback_error.lra_jax.init_params(
        feedback_error.jax.random.key(0), 2, 3, 2
    )
    nothing = feedback_error.jax.tree.map(lambda w: 0 * w, params)
    changes = []
    for name in ("Kolen-Pollack", "mirror"):
        optimizer = feedback_error.optimizer_of(name)
        updates, _ = optimizer.update(nothing, optimizer.init(params), params)
        changes.append(float(abs(updates.w_xh).max()))
    assert changes[0] > 1e-4
    assert changes[1] == 0
