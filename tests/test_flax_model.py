"""A Flax NNX model and ours: the same numbers forward, and a way there and back."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import lra_jax

TASK = lra_jax.TASKS["temporal_order"]
X, H, Y = TASK.input_size, 16, TASK.output_size


class Classifier(nnx.Module):
    """What a user of Flax would write."""

    def __init__(self, rngs, **options):
        self.rnn = nnx.RNN(nnx.SimpleCell(X, H, rngs=rngs, **options))
        self.readout = nnx.Linear(H, Y, rngs=rngs)

    def __call__(self, inputs):  # [B, T, X]
        return self.readout(self.rnn(inputs)[:, -1])


@pytest.fixture
def model():
    model = Classifier(nnx.Rngs(0))
    model.rnn.cell.dense_i.bias[...] = jnp.linspace(-0.3, 0.3, H)
    model.readout.bias[...] = jnp.linspace(-1, 1, Y)
    return model


def logits_of(model, batch):
    inputs = jax.nn.one_hot(batch.inputs, X).swapaxes(0, 1)
    with jax.default_matmul_precision("highest"):
        return model(inputs)


def test_the_forward_pass_is_flaxs(model):
    batch = TASK.sample(jax.random.key(1), 5, 12)
    params = lra_jax.params_from_flax(model.rnn.cell, model.readout)
    chex.assert_trees_all_close(
        lra_jax.forward(params, batch.inputs).logits,
        logits_of(model, batch),
        rtol=1e-6,
        atol=1e-6,
    )


def test_weights_go_there_and_back(model):
    key = jax.random.key(2)
    params = lra_jax.init_params(key, X, H, Y)
    lra_jax.params_to_flax(params, model.rnn.cell, model.readout)
    found = lra_jax.params_from_flax(model.rnn.cell, model.readout)
    chex.assert_trees_all_equal(found, params)


def test_a_flax_model_is_trained_by_a_rule(model):
    rule, optimizer = lra_jax.lra_diff(gamma=50.0, c0=1.0, c1=1.0), optax.sgd(0.1)
    key = jax.random.key(3)
    params = lra_jax.params_from_flax(model.rnn.cell, model.readout)
    state = lra_jax.init_train_state(key, params, rule, optimizer)
    batch = TASK.sample(key, 20, 10)

    def loss():
        logits = logits_of(model, batch)
        labels = optax.softmax_cross_entropy_with_integer_labels
        return float(labels(logits, batch.labels).mean())

    before = loss()
    for _ in range(5):
        state, info = lra_jax.train_step(state, batch, rule=rule, optimizer=optimizer)
    lra_jax.params_to_flax(state.params, model.rnn.cell, model.readout)
    np.testing.assert_allclose(
        loss(), lra_jax.evaluate(state.params, batch).loss, rtol=1e-5
    )
    assert loss() < info.loss < before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"residual": True}, "cell: expected residual=False, got True"),
        ({"activation_fn": nnx.relu}, "cell: expected activation_fn=tanh"),
    ],
)
def test_other_cells_are_refused(options, said):
    model = Classifier(nnx.Rngs(0), **options)
    with pytest.raises(ValueError, match=said):
        lra_jax.params_from_flax(model.rnn.cell, model.readout)


def test_a_readout_without_bias_and_other_sizes_are_refused(model):
    plain = nnx.Linear(H, Y, use_bias=False, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="readout: expected use_bias=True"):
        lra_jax.params_from_flax(model.rnn.cell, plain)
    params = lra_jax.init_params(jax.random.key(0), X, H + 1, Y)
    with pytest.raises(ValueError, match=r"w_xh: the model's has shape \(6, 16\), got"):
        lra_jax.params_to_flax(params, model.rnn.cell, model.readout)
