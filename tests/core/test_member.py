"""A member before its first update, and the batches it sees."""

import jax
import numpy as np
import optax
import pytest

import lra_jax
from lra_jax import TASKS, member, networks

SEED = np.int32(3)


def experiment(**options):
    return member.Experiment(
        TASKS["temporal_order"],
        lambda numbers: (
            lra_jax.fa(network=options.get("network", networks.tanh())),
            optax.adam(numbers["lr"]),
        ),
        seq_len=10,
        hidden_size=8,
        batch_size=4,
        num_validation=5,
        **options,
    )


def same(a, b):
    leaves = (map(jax.random.key_data, jax.tree.leaves(x)) for x in (a.key, b.key))
    a, b = (jax.tree.leaves(x._replace(key=None)) for x in (a, b))
    return all(map(np.array_equal, *leaves)) and all(map(np.array_equal, a, b))


@pytest.mark.parametrize(
    "options", [{}, {"input_gain": 0.1}, {"network": networks.gru()}], ids=str
)
def test_the_first_state_is_that_of_a_grid(options):
    given, numbers = experiment(**options), {"lr": np.float32(0.1)}
    first = member.first_state(given, numbers, SEED)
    of_a_grid = member.start(given, numbers, SEED, member.initial(given, SEED, numbers))
    assert same(first, of_a_grid.train)
    assert first.step == 0
    assert not same(first, member.first_state(given, numbers, SEED + 1))


def test_the_first_state_of_other_weights_has_the_rest_of_the_seed():
    given, numbers = experiment(), {"lr": np.float32(0.1)}
    first = member.first_state(given, numbers, SEED)
    doubled = jax.tree.map(lambda w: 2 * w, first.params)
    other = member.first_state(given, numbers, SEED, doubled)
    assert same(other, first._replace(params=doubled))


def test_a_batch_is_of_the_seed_and_of_the_number_of_the_update():
    given = experiment()
    stream = jax.random.fold_in(jax.random.key(3, impl="threefry2x32"), 1)
    batches = [member.draw_batch(given, SEED, step) for step in (0, 7)]
    for step, found in zip((0, 7), batches, strict=True):
        expected = given.task.sample(jax.random.fold_in(stream, step), 4, 10)
        np.testing.assert_array_equal(found.inputs, expected.inputs)
        np.testing.assert_array_equal(found.labels, expected.labels)
    assert not np.array_equal(batches[0].inputs, batches[1].inputs)
