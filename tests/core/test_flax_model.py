"""A Flax NNX model and ours: the same numbers forward, and a way there and back."""

import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx, serialization

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
        ({"activation_fn": nnx.hard_tanh}, "cell: expected activation_fn=tanh"),
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


def test_a_training_state_goes_through_flaxs_serialization_and_pickle():
    task, rule, optimizer = TASK, lra_jax.fa(), optax.adam(1e-3)
    params = lra_jax.init_params(jax.random.key(0), X, H, Y)
    state = lra_jax.init_train_state(jax.random.key(1), params, rule, optimizer)
    batch = task.sample(jax.random.key(2), 5, 10)
    state, _ = lra_jax.train_step(state, batch, rule=rule, optimizer=optimizer)
    with pytest.raises(TypeError, match="PRNGKey"):
        serialization.to_bytes(state)
    saved = state._replace(key=jax.random.key_data(state.key))
    loaded = serialization.from_bytes(saved, serialization.to_bytes(saved))
    loaded = loaded._replace(key=jax.random.wrap_key_data(loaded.key))
    chex.assert_trees_all_equal(loaded, state)
    chex.assert_trees_all_equal(pickle.loads(pickle.dumps(state)), state)


class OtherCell(nnx.SimpleCell):
    """A cell of a user's own, which computes something else."""

    def __call__(self, carry, inputs):
        return carry, inputs


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda rngs: nnx.GRUCell(X, H, rngs=rngs), "GRUCell"),
        (lambda rngs: nnx.LSTMCell(X, H, rngs=rngs), "LSTMCell"),
        (lambda rngs: nnx.OptimizedLSTMCell(X, H, rngs=rngs), "OptimizedLSTMCell"),
        (lambda rngs: OtherCell(X, H, rngs=rngs), "OtherCell"),
        (lambda rngs: nnx.Linear(X, H, rngs=rngs), "Linear"),
        (lambda rngs: nnx.MultiHeadAttention(2, H, rngs=rngs), "MultiHeadAttention"),
        (lambda rngs: linen.SimpleCell(H), "flax.linen.recurrent.SimpleCell"),
        (lambda rngs: Classifier(rngs).rnn, "RNN; give its .cell"),
        (lambda rngs: None, "NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_simple_cell_is_named(make, got):
    rngs = nnx.Rngs(0)
    readout = nnx.Linear(H, Y, rngs=rngs)
    params = lra_jax.init_params(jax.random.key(0), X, H, Y)
    for call in (
        lambda cell: lra_jax.params_from_flax(cell, readout),
        lambda cell: lra_jax.params_to_flax(params, cell, readout),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011 -- compared as a whole
            call(make(rngs))
        assert str(error.value) == f"cell: expected flax.nnx.SimpleCell, got {got}"


def test_what_is_no_readout_of_the_cell_is_named(model):
    rngs = nnx.Rngs(0)
    with pytest.raises(
        ValueError, match=r"^cell: expected flax.nnx.SimpleCell, got Lin"
    ):
        lra_jax.params_from_flax(model.readout, model.rnn.cell)
    for readout, said in (
        (model.rnn.cell, "readout: expected flax.nnx.Linear, got SimpleCell"),
        (model.rnn, "readout: expected flax.nnx.Linear, got RNN"),
        (
            nnx.LoRALinear(H, Y, lora_rank=2, rngs=rngs),
            "readout: expected flax.nnx.Linear, got LoRALinear",
        ),
        (
            nnx.Linear(H + 1, Y, rngs=rngs),
            f"readout: expected in_features={H} as the cell's H, got {H + 1}",
        ),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011 -- compared as a whole
            lra_jax.params_from_flax(model.rnn.cell, readout)
        assert str(error.value) == said


def test_models_in_a_stack_are_refused():
    @nnx.vmap(in_axes=0, out_axes=0)
    def stacked(key):
        return Classifier(nnx.Rngs(key))

    models = stacked(jax.random.split(jax.random.key(0), 3))
    with pytest.raises(
        ValueError, match=r"^cell.dense_i: expected a kernel \[X, H\], g"
    ):
        lra_jax.params_from_flax(models.rnn.cell, models.readout)


@pytest.mark.filterwarnings("ignore:carry_init is provided")
def test_a_first_state_that_is_not_zero_is_refused(model):
    for init, good in ((nnx.initializers.ones_init(), False), (nnx.initializers.zeros_init(), True)):  # fmt: skip
        cell = nnx.SimpleCell(X, H, carry_init=init, rngs=nnx.Rngs(0))
        if good:
            lra_jax.params_from_flax(cell, model.readout)
            continue
        with pytest.raises(ValueError, match=r"^cell: expected carry_init=None"):
            lra_jax.params_from_flax(cell, model.readout)


def test_weights_are_read_inside_of_jit(model):
    @nnx.jit
    def logits(model, inputs):
        params = lra_jax.params_from_flax(model.rnn.cell, model.readout)
        return lra_jax.forward(params, inputs).logits

    batch = TASK.sample(jax.random.key(1), 5, 12)
    np.testing.assert_allclose(
        logits(model, batch.inputs), logits_of(model, batch), rtol=1e-5, atol=1e-5
    )
