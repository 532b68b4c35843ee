"""examples/lstm_cells.py: one network is the other, with its cells shown."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import lra_jax

PATH = Path(lra_jax.__file__).parent.parent / "examples/lstm_cells.py"


def load():
    spec = importlib.util.spec_from_file_location("lstm_cells", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_networks_have_the_same_states():
    example = load()
    inputs = jax.random.randint(jax.random.key(0), (5, 3), 0, 6)
    hidden = lra_jax.init_params(jax.random.key(1), 6, 4, 2, network=example.LSTM)
    shown = lra_jax.init_params(jax.random.key(1), 6, 8, 2, network=example.SHOWN)
    shown = shown._replace(cell=hidden.cell)
    one = lra_jax.forward(hidden, inputs, network=example.LSTM)
    other = lra_jax.forward(shown, inputs, network=example.SHOWN)
    np.testing.assert_allclose(other.h, one.h, atol=1e-6)
    np.testing.assert_array_equal(other.z, other.h)
    assert one.z.shape == (5, 3, 4)


def test_the_local_loss_does_not_see_a_cell_that_is_hidden():
    example = load()
    cells = jnp.zeros((1, 8)).at[0, 0].set(0.1)  # a displacement of c alone
    hidden = lra_jax.init_params(jax.random.key(1), 6, 4, 2, network=example.LSTM)
    s = jnp.full((1, 8), 0.3)
    assert not example.LSTM.gap(hidden.cell, s, cells).any()
    np.testing.assert_allclose(
        example.SHOWN.gap(hidden.cell, s, cells), cells, atol=1e-7
    )


def test_errors_are_counted_for_each_seed():
    found = load().errors(load().SHOWN, 8, seeds=2, updates=100)
    assert found.shape == (2, 2)
    assert ((found >= 0) & (found <= 1000)).all()
