"""Programs of rules that run forward in time: memory, updates inside, what is refused.

That their numbers are right is tested in x64/test_forward_rules.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import lra_jax
from lra_jax import networks, sweep
from lra_jax.lab import config as config_lib
from lra_jax.lab.runs import groups

FORWARD = ("rtrl", "snap", "rflo", "eprop", "uoro")
T, B, H, X, Y = 12, 3, 8, 4, 4
LOSS = lra_jax.cross_entropy_every_step


def batch_of(length=T, seed=0):
    symbols = jax.random.randint(jax.random.key(seed), (length, B), 0, X)
    labels = jnp.concatenate([jnp.full((2, B), -1), symbols[:-2]])
    return lra_jax.Batch(symbols, labels.astype(jnp.int32))


def made(rule, network="leaky", hidden_size=H):
    network = networks.NETWORKS[network]()
    found = lra_jax.RULES[rule](output_loss=LOSS, network=network)
    params = lra_jax.init_params(jax.random.key(0), X, hidden_size, Y, network=network)
    state = lra_jax.init_train_state(jax.random.key(1), params, found, optax.sgd(0.1))
    return found, state


@pytest.mark.parametrize("rule", [*FORWARD, "bptt"])
def test_memory_does_not_grow_with_the_sequence(rule):
    """By the compiler's account, with a loss of every step; bptt is the control."""
    size = 8 if rule == "rtrl" else 32
    found, state = made(rule, hidden_size=size)
    step = functools.partial(lra_jax.train_step, rule=found, optimizer=optax.sgd(0.1))

    def memory(length):
        program = jax.jit(step).lower(state, batch_of(length)).compile()
        return program.memory_analysis().temp_size_in_bytes

    per_step = (memory(120) - memory(60)) / 60
    of_a_state = 4 * B * size
    # Keys and labels of a step remain.
    assert per_step < of_a_state / 2 or rule == "bptt"
    assert per_step > of_a_state or rule != "bptt"


def test_the_trace_of_snap_is_the_floor():
    """B·H·(H + X + 1) numbers of tanh, and no more."""
    network = networks.tanh()
    found = lra_jax.snap(output_loss=LOSS, network=network)
    params = lra_jax.init_params(jax.random.key(0), X, H, Y)
    carry = found.stream.begin(params, batch_of())
    assert sum(x.size for x in jax.tree.leaves(carry.trace)) == B * H * (H + X + 1)


# Updates inside a sequence.


@pytest.mark.parametrize("rule", FORWARD)
def test_updates_inside_a_sequence_are_one_program(rule):
    found, state = made(rule)
    step = jax.jit(
        functools.partial(
            lra_jax.train_step, rule=found, optimizer=optax.sgd(0.1), update_every=3
        )
    )
    first = None
    for _ in range(30):
        state, info = step(state, batch_of())
        first = info.loss if first is None else first
    assert info.loss.shape == ()
    assert info.loss < first
    assert state.step == 30


def test_a_sweep_updates_inside_of_sequences_as_a_loop_does():
    part, held_out = (
        tuple(np.asarray(x).T for x in batch_of(seed=seed)[:2]) for seed in (3, 4)
    )
    task = lra_jax.Task.from_arrays(*part, validation=held_out, output_loss=LOSS)
    network = networks.leaky()
    rule = lra_jax.snap(output_loss=LOSS, network=network)

    def build(numbers):
        return rule, optax.sgd(numbers["lr"])

    experiment = sweep.Experiment(
        task, build, hidden_size=H, batch_size=2, eval_every=5, network=network,
        update_every=4,
    )  # fmt: skip
    limits = sweep.Limits(max_steps=5, patience=0)
    found = sweep.run_sweep(
        experiment,
        {"lr": np.float32([0.1])},
        seeds=[7],
        limits=limits,
        keep_params="last",
    )
    (member,) = [jax.tree.map(lambda x: x[0], found.params)]
    keys = [
        jax.random.fold_in(jax.random.key(7, impl="threefry2x32"), i) for i in range(3)
    ]
    sizes = task.input_size, H, task.output_size
    params = lra_jax.init_params(keys[0], *sizes, network=network)
    state = lra_jax.init_train_state(keys[2], params, rule, optax.sgd(0.1))
    for i in range(5):
        batch = task.sample(jax.random.fold_in(keys[1], i), 2, T)
        state, _ = lra_jax.train_step(
            state, batch, rule=rule, optimizer=optax.sgd(0.1), update_every=4
        )
    for a, b in zip(*map(jax.tree.leaves, (member, state.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "loss", "every", "message"),
    [
        (
            "bptt",
            LOSS,
            3,
            "^rule: expected one that runs forward in time, such as snap",
        ),
        (
            "snap",
            lra_jax.cross_entropy,
            3,
            "^update_every: expected all steps, as a loss",
        ),
        ("snap", LOSS, 5, "^update_every: expected a divisor of T = 12, got 5"),
        ("snap", LOSS, 0, "^update_every: expected an integer of at least 1, got 0"),
        (
            "snap",
            LOSS,
            2.5,
            "^update_every: expected an integer of at least 1, got 2.5",
        ),
    ],
)
def test_updates_that_cannot_be_are_refused(rule, loss, every, message):
    found = lra_jax.RULES[rule](output_loss=loss)
    params = lra_jax.init_params(jax.random.key(0), X, H, Y)
    optimizer = optax.sgd(0.1)
    state = lra_jax.init_train_state(jax.random.key(1), params, found, optimizer)
    batch = batch_of()
    if loss is not LOSS:
        batch = batch._replace(labels=batch.labels[-1])
    with pytest.raises(ValueError, match=message):
        lra_jax.train_step(
            state, batch, rule=found, optimizer=optimizer, update_every=every
        )


def test_an_experiment_refuses_what_does_not_divide_its_sequences():
    with pytest.raises(
        ValueError, match=r"^update_every: expected a divisor of T = 10"
    ):
        sweep.Experiment(
            lra_jax.TASKS["temporal_order"], lambda _: None, seq_len=10, update_every=3
        )


CONFIG = """
task = "temporal_order"
seq_len = 10
update_every = 5
[grid]
lr = 0.1
"""


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("bptt", "rule 'bptt': rule: expected one that runs forward in time"),
        (
            "snap",
            "rule 'snap': update_every: expected all steps, as a loss of the last",
        ),
    ],
)
def test_a_config_says_what_cannot_update_inside(tmp_path, rule, message):
    path = tmp_path / "my.toml"
    path.write_text(CONFIG.replace("[grid]", f'[grid]\nrule = "{rule}"'))
    config = config_lib.load(path)
    assert config.update_every == 5
    with pytest.raises(config_lib.ConfigError, match=message):
        groups.make_groups(config)


@pytest.mark.parametrize("labels", [jnp.zeros(4, int), jnp.zeros((4, 6), int)])
def test_labels_that_do_not_fit_are_one_message_inside_of_sequences_too(labels):
    loss = lra_jax.cross_entropy_every_step
    rule, optimizer = lra_jax.snap(output_loss=loss), optax.sgd(0.1)
    params = lra_jax.init_params(jax.random.key(0), 3, 8, 4)
    state = lra_jax.init_train_state(jax.random.key(1), params, rule, optimizer)
    batch = lra_jax.Batch(jnp.zeros((6, 4, 3)), labels)
    with pytest.raises(ValueError, match="labels"):
        lra_jax.train_step(state, batch, rule=rule, optimizer=optimizer, update_every=2)


@pytest.mark.parametrize("name", ["snap", "lra_diff"])
def test_sums_over_many_steps_of_16_bits_do_not_stand_still(name):
    """Each of 1,000 steps adds less than half of the last bit of what is there."""
    loss = lra_jax.cross_entropy_every_step
    options = {"gamma": 1.0} if name == "lra_diff" else {}
    rule = lra_jax.RULES[name](output_loss=loss, **options)
    found = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        params = lra_jax.init_params(jax.random.key(0), 3, 4, 4, dtype=dtype)
        params = jax.tree.map(lambda x: x / 8, params)
        inputs = jnp.ones((1000, 1, 3), dtype)
        batch = lra_jax.Batch(inputs, jnp.ones((1000, 1), int))
        state = rule.init(jax.random.key(1), params)
        grads, _, info = rule.grads(jax.random.key(2), params, state, batch)
        assert grads.w_hy.dtype == info.loss.dtype == dtype
        found[dtype] = [info.loss, grads.b_y, grads.b_h]
    for exact, rounded in zip(*found.values(), strict=True):
        np.testing.assert_allclose(
            np.asarray(rounded, np.float32), exact, rtol=0.1, atol=2e-3
        )
