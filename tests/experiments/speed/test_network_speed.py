"""What `experiments.network_speed` times: the controls compute what they replace."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import call

from experiments.speed import network_speed as speed
from lra_jax import networks

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("symbols", [True, False])
def test_the_gru_that_is_written_by_hand_is_the_derived_one(symbols):
    derived, written = networks.gru(), speed.WrittenGRU()
    p = derived.init(jax.random.key(0), 3, 4)
    p = jax.tree.map(lambda w: w + 0.1, p)  # no bias of 0
    keys = jax.random.split(jax.random.key(1), 3)
    s, q = (jax.random.normal(key, (5, 4)) for key in keys[:2])
    x = jax.random.normal(keys[2], (5, 3))
    if symbols:
        x = jnp.array([0, 2, 1, 1, 0])
    np.testing.assert_allclose(
        written.pull(p, s, x, q), derived.pull(p, s, x, q), rtol=1e-5, atol=1e-6
    )
    for found, expected in zip(
        written.weigh(p, s, x, q), derived.weigh(p, s, x, q), strict=True
    ):
        assert jnp.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_products_that_an_update_cannot_avoid(monkeypatch):
    """Two layers: 2 products of 3 steps before, 1 of 4 steps, each for three uses."""
    monkeypatch.setattr(speed, "HIDDEN_SIZE", 5)
    monkeypatch.setattr(speed, "BATCH_SIZE", 2)
    found = speed.operations(speed.PARTS["two layers of tanh"], seq_len=4)
    assert found.multiply_adds == 3 * (2 * 3 + 4) * 2 * 5 * 5
    assert found.tanh == 2 * 4 * 2 * 5


def test_tanh_that_is_derived_is_tanh():
    derived, p = speed.derived_tanh(), networks.tanh().init(jax.random.key(0), 3, 4)
    s, x = jnp.full((2, 4), 0.3), jnp.array([[0.1, 0.2, 0.3], [1.0, 0.0, -1.0]])
    np.testing.assert_allclose(
        derived.step(p, s, x), networks.tanh().step(p, s, x), rtol=1e-6
    )


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_seconds_that_are_no_number_are_one_message(value):
    done = call(speed, "--seconds", value, out=None)
    assert done.returncode == 2
    said = f"--seconds: expected a number, got {value}"
    assert done.stderr == f"experiments.network_speed: {said}\n"


def test_a_folder_that_cannot_be_made_is_said_before_anything_is_measured(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(speed, "measure", lambda rule: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    done = call(speed, out=str(tmp_path / "file"))
    assert done.returncode == 2
    assert done.stderr.startswith("experiments.network_speed: ")
    assert done.stderr.count("\n") == 1


ROW = {
    "network": "tanh", "seq_len": 10, "engine": 2.0, "vmap": 1.0, "ceiling": 4.0,
    "compile_seconds": 0.1, "bytes_per_step": 1e3,
}  # fmt: skip


@pytest.fixture
def before(tmp_path):
    """Files of before, which a part does not replace."""
    for name in ("speed.json", "speed.md"):
        (tmp_path / name).write_text("of before")


def assert_of_before(folder):
    for name in ("speed.json", "speed.md"):
        assert (folder / name).read_text() == "of before"


def test_what_was_measured_is_kept_aside_when_somebody_interrupts(
    monkeypatch, tmp_path, before
):
    def measure(rule):
        if rule == "lra_norm":
            raise KeyboardInterrupt
        return [ROW | {"rule": rule}]

    monkeypatch.setattr(speed, "measure", measure)
    done = call(speed, out=str(tmp_path))
    assert done.returncode == 130
    path = tmp_path / "speed.part.json"
    says = f"interrupted after 2 of 3 rules; {path} has them"
    assert done.stderr == f"experiments.network_speed: {says}\n"
    rows = [ROW | {"rule": rule} for rule in ("bptt", "lra_diff")]
    assert done.stdout == speed.table(rows)
    assert json.loads(path.read_text())["rows"] == rows
    assert_of_before(tmp_path)
    monkeypatch.setattr(speed, "measure", lambda rule: [ROW | {"rule": rule}])
    assert call(speed, out=str(tmp_path)).returncode == 0
    assert {p.name for p in tmp_path.iterdir()} == {"speed.json", "speed.md"}
    assert len(json.loads((tmp_path / "speed.json").read_text())["rows"]) == 3


def test_a_full_disk_leaves_the_files_of_before_and_the_table(
    monkeypatch, tmp_path, before
):
    def write(path, *data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(speed, "measure", lambda rule: [ROW | {"rule": rule}])
    monkeypatch.setattr(speed.files, "write", write)
    done = call(speed, out=str(tmp_path))
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert done.stdout == speed.table([ROW | {"rule": "bptt"}])
    assert_of_before(tmp_path)


@pytest.mark.slow
def test_each_network_gets_a_row(tmp_path, monkeypatch):
    for name, value in {"SEQ_LEN": 10, "HIDDEN_SIZE": 4, "BATCH_SIZE": 2}.items():
        monkeypatch.setattr(speed, name, value)
    monkeypatch.setattr(speed, "MEMBERS", 2)
    monkeypatch.setattr(speed, "LONGER", (20,))
    monkeypatch.setattr(speed, "EVAL_EVERY", 2)
    monkeypatch.setattr(speed, "MEMORY_SEQ_LEN", (10, 20))
    monkeypatch.setattr(speed, "RULES", {"bptt": {}})
    chosen = {name: speed.NETWORKS[name] for name in ("tanh", "gru")}
    monkeypatch.setattr(speed, "NETWORKS", chosen)
    done = call(speed, "--out", str(tmp_path), "--repeats", "1", "--seconds", "0")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["network"] for row in rows] == ["tanh", "gru", "tanh"]
    assert [row["seq_len"] for row in rows] == [10, 10, 20]
    for row in rows:
        assert min(row["engine"], row["vmap"], row["bytes_per_step"]) > 0
        assert row["ceiling"] > row["engine"]
    lines = (tmp_path / "speed.md").read_text().splitlines()
    assert len(lines) == 5
    assert "| 1.00 |" in lines[2]  # tanh in units of itself
