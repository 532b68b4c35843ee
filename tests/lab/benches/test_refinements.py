"""γ against K with the same matrix products."""

import errno
import os
from unittest import mock

import pytest
from command_line import call

from lra_jax.lab.benches import pictures, refinements
from lra_jax.lab.config import Config

pytestmark = pytest.mark.end_to_end

BUDGET = refinements.BUDGETS["standard"]


@pytest.mark.parametrize("k", BUDGET.num_refinements)
def test_every_k_may_spend_the_same_products(k):
    config = refinements.config_of("fixed", k, BUDGET)
    assert isinstance(config, Config)
    all_products = config.max_steps * refinements.products(k)
    assert all_products == pytest.approx(3 * BUDGET.updates, rel=0.01)
    assert sum(1 for _ in config.members()) == 6 * 2 * 5


def row(seed, gamma, lr, status, step):
    accuracy = 1.0 if status == "solved" else 0.8
    return {"seed": seed, "gamma": gamma, "lr": lr, "status": status, "step": step,
            "best_accuracy": accuracy}  # fmt: skip


def test_a_cell_has_the_best_rate_of_each_seed_and_counts_cost_in_updates_of_k_1():
    found = [
        row(0, 1, 0.3, "solved", 100),
        row(0, 1, 0.1, "solved", 60),
        row(1, 1, 0.3, "exhausted", 200),
        row(1, 1, 0.1, "solved", 140),
        row(0, 10, 0.3, "diverged", 5),
        row(0, 10, 0.1, "exhausted", 200),
        row(1, 10, 0.3, "exhausted", 200),
        row(1, 10, 0.1, "exhausted", 200),
    ]
    good, bad = refinements.cells("fixed", found, 10)
    assert (good["gamma"], good["solved"], good["seeds"]) == (1, 2, 2)
    assert good["updates_to_solve"] == 100
    assert good["cost_to_solve"] == pytest.approx(100 * 21 / 3)
    assert (bad["solved"], bad["cost_to_solve"]) == (0, None)
    assert bad["accuracy"] == pytest.approx(0.8)
    assert bad["diverged"] == 0.25
    page = refinements.page([good, bad], BUDGET)
    assert "2/2 at 700" in page
    assert "80.00" in page


def test_a_full_disk_is_a_message_with_the_file_and_the_command(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    interruption = mock.Mock(command="the command", signal=None)
    monkeypatch.setattr(refinements.run, "Interruption", lambda *_: interruption)
    monkeypatch.setattr(refinements.Runner, "rows", lambda *_: [])
    monkeypatch.setattr(os, "fsync", full)
    done = call(refinements, budget="smoke", out=str(tmp_path))
    assert done.returncode == 2
    path = tmp_path / "results/refinements/smoke/refinements.csv"
    assert done.stderr == (
        f"experiments.refinements: {path}: No space left on device. To go on:\n"
        "  the command\n"
    )


def test_a_picture_that_cannot_be_written_says_where(tmp_path):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as error:
        pictures.show(mock.Mock(), "refinements", tmp_path, full)
    assert error.value.filename == str(tmp_path)
