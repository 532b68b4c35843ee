"""The smallest and the emptiest, known values in traced functions, and jit disabled."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from rule_cases import others_slow

import lra_jax
from lra_jax import RULES, member, rnn, sweep, validation
from lra_jax.experiment import Experiment
from lra_jax.paper.released import evaluate_released

T, B, X, H, Y = 4, 2, 3, 4, 3
REQUIRED = {"lra_diff": {"gamma": 2.0}, "lra_released": {"gamma": 2.0}}
WITH_STARTS = [rule for rule in RULES if rule != "lra_released"]
rules_with_starts = pytest.mark.parametrize("rule", WITH_STARTS)


def make(rule, **more):
    return RULES[rule](**REQUIRED.get(rule, {}), **more)


WEIGHTS = lra_jax.Params(
    *(
        np.random.default_rng(0).normal(size=shape).astype(np.float32)
        for shape in ((X, H), (H, H), (H,), (H, Y), (Y,))
    )
)


def batch_of(seq_len=T, batch_size=B, start=None):
    inputs = np.arange(seq_len * batch_size).reshape(seq_len, batch_size) % X
    return lra_jax.Batch(inputs, np.arange(batch_size) % Y, start)


def state_of(rule):
    return lra_jax.init_train_state(
        jax.random.key(1), WEIGHTS, make(rule), optax.sgd(0.1)
    )


# A start that is known where all else is traced.


@rules_with_starts
def test_a_batch_with_starts_may_be_closed_over(rule):
    """Full-batch training: the comparison of concrete starts would be traced."""
    state = jax.eval_shape(lambda: state_of(rule))
    batch = jax.tree.map(jnp.asarray, batch_of(start=np.array([0, 2], np.int32)))
    step = functools.partial(
        lra_jax.train_step, rule=make(rule), optimizer=optax.sgd(0.1)
    )

    def update(state, _=None):
        return step(state, batch)[0], None

    def loss(params):
        return lra_jax.evaluate(params, batch).loss

    shapes = functools.partial(jax.tree.map, lambda x: (x.shape, x.dtype))
    for function in (
        jax.jit(lambda s: update(s)[0]),
        lambda s: lax.scan(update, s, length=3)[0],
        lambda s: lax.fori_loop(0, 3, lambda _, s: update(s)[0], s),
        lambda s: lax.while_loop(lambda s: s.step < 3, lambda s: update(s)[0], s),
        lambda s: lax.cond(s.step < 3, lambda s: update(s)[0], lambda s: s, s),
        jax.checkpoint(lambda s: update(s)[0]),
    ):
        assert shapes(jax.eval_shape(function, state)) == shapes(state)
    many = jax.tree.map(lambda x: jax.ShapeDtypeStruct((5, *x.shape), x.dtype), state)
    jax.eval_shape(jax.vmap(lambda s: update(s)[0]), many)
    jax.eval_shape(jax.jit(jax.grad(loss)), state.params)


def test_starts_that_are_closed_over_are_checked_and_count():
    params = WEIGHTS
    right = jnp.array([0, 2])
    batch = batch_of(start=right)
    inside = jax.jit(lambda p: lra_jax.forward(p, batch.inputs, start=right))(params)
    outside = lra_jax.forward(params, batch.inputs, start=np.array([0, 2]))
    np.testing.assert_allclose(inside.z, outside.z, atol=1e-6)
    assert not np.any(inside.z[:2, 1])
    for wrong in (jnp.array([0, T]), jnp.array([-1, 0]), jnp.uint8([0, 200])):
        with pytest.raises(ValueError, match=r"^start: expected 0 to T-1 = 3, got \["):
            jax.jit(lambda p, s=wrong: lra_jax.forward(p, batch.inputs, start=s))(
                params
            )


def test_a_flax_model_is_read_inside_of_a_traced_function():
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)
    cell, readout = nnx.SimpleCell(X, H, rngs=rngs), nnx.Linear(H, Y, rngs=rngs)
    found = jax.eval_shape(lambda _: lra_jax.params_from_flax(cell, readout), 0)
    assert found.w_xh.shape == (X, H)


# Nothing at all.


def empty(axis, kind):
    sizes = {"T": T, "B": B} | {axis: 0}
    shape = (sizes["T"], sizes["B"])
    inputs = (
        np.zeros(shape, np.int32)
        if kind == "symbols"
        else np.zeros((*shape, X), np.float32)
    )
    return lra_jax.Batch(inputs, np.zeros(sizes["B"], int))


@pytest.mark.parametrize("kind", ["symbols", "vectors"])
@pytest.mark.parametrize("axis", ["T", "B"])
def test_an_empty_batch_is_refused(axis, kind):
    params, batch = WEIGHTS, empty(axis, kind)
    text = r"^inputs: expected .* with T ≥ 1 and B ≥ 1, got "
    functions = [
        lambda: lra_jax.evaluate(params, batch),
        lambda: evaluate_released(params, batch),
        lambda: lra_jax.forward(params, batch.inputs),
        lambda: rnn.final_logits(params, batch.inputs),
    ]
    for rule in RULES:
        made = make(rule)
        state = jax.eval_shape(made.init, jax.random.key(0), params)
        functions.append(
            lambda made=made, state=state: jax.eval_shape(
                made.grads, jax.random.key(0), params, state, batch
            )
        )
    for function in functions:
        with pytest.raises(ValueError, match=text) as error:
            function()
        assert f"got {batch.inputs.dtype} {batch.inputs.shape}" in str(error.value)


def sized(num_inputs=X, num_hidden=H, num_outputs=Y):
    return lra_jax.Params(
        np.zeros((num_inputs, num_hidden), np.float32),
        np.zeros((num_hidden, num_hidden), np.float32),
        np.zeros((num_hidden,), np.float32),
        np.zeros((num_hidden, num_outputs), np.float32),
        np.zeros((num_outputs,), np.float32),
    )


WRONG_WEIGHTS = {
    "w_xh: expected [X, H] with X ≥ 1, H ≥ 1, got (0, 4)": sized(num_inputs=0),
    "w_xh: expected [X, H] with X ≥ 1, H ≥ 1, got (3, 0)": sized(num_hidden=0),
    "w_hy: expected [H, Y] with H ≥ 1, Y ≥ 1, got (4, 0)": sized(num_outputs=0),
    "w_hh: expected [H, H] = (4, 4), got (4, 5)": sized()._replace(
        w_hh=np.zeros((H, H + 1))
    ),
    "b_h: expected [H] = (4,), got (1,)": sized()._replace(b_h=np.zeros(1)),
    "w_hy: expected [H, Y] = (4, 4), got (3, 4)": sized()._replace(
        w_hy=np.zeros((Y, H))
    ),
    "b_y: expected [Y] = (3,), got ()": sized()._replace(b_y=np.zeros(())),
}


@pytest.mark.parametrize("text", WRONG_WEIGHTS)
def test_weights_that_do_not_fit_are_named(text):
    params = WRONG_WEIGHTS[text]
    for function in (
        lambda: lra_jax.evaluate(params, batch_of()),
        lambda: make("bptt").grads(
            jax.random.key(0), params, lra_jax.EmptyState(), batch_of()
        ),
    ):
        with pytest.raises(ValueError, match=r": expected") as error:
            function()
        assert str(error.value) == text


@pytest.mark.parametrize("name", ["inputs", "labels", "start"])
def test_a_list_is_no_array(name):
    batch = batch_of(start=np.zeros(B, int))
    batch = batch._replace(**{name: getattr(batch, name).tolist()})
    with pytest.raises(ValueError, match=rf"^{name}: expected an array, got list"):
        lra_jax.evaluate(WEIGHTS, batch)


def test_which_axis_is_time_is_said():
    with pytest.raises(ValueError, match=r"time-major \(time is the first axis\)"):
        lra_jax.forward(WEIGHTS, np.zeros((B, X, T), np.float32))
    with pytest.raises(ValueError, match=r"^start: .*time is the first axis$"):
        lra_jax.forward(WEIGHTS, batch_of().inputs, start=np.zeros(T, int))


# jit disabled, as for debugging: a scan over no steps is refused by JAX there.


def test_a_scan_over_no_steps_is_that_of_jax():
    def step(carry, x):
        return carry + x.sum(), {"twice": 2 * x, "carry": carry}

    for length in (0, 3):
        xs = np.ones((length, 2), np.float32)
        for reverse in (False, True):
            found = rnn.scan(step, jnp.float32(1), xs, reverse=reverse)
            exact = lax.scan(step, jnp.float32(1), xs, reverse=reverse)
            jax.tree.map(np.testing.assert_array_equal, found, exact)
            shapes = [
                jax.tree.map(lambda x: (x.shape, x.dtype), y) for y in (found, exact)
            ]
            assert shapes[0] == shapes[1]
    with jax.disable_jit(), pytest.raises(ValueError, match="zero-length scan"):
        lax.scan(step, jnp.float32(1), np.ones((0, 2), np.float32))


@pytest.mark.parametrize(
    ("rule", "seq_len"),
    [
        *(pytest.param(rule, 1, marks=others_slow(rule)) for rule in RULES),
        pytest.param("lra_released", 3, marks=pytest.mark.slow),
    ],
)
def test_a_rule_works_where_jit_is_disabled(rule, seq_len):
    batch, made = batch_of(seq_len), make(rule)
    with jax.disable_jit():
        state = made.init(jax.random.key(1), WEIGHTS)
        found = made.grads(jax.random.key(2), WEIGHTS, state, batch)
        metrics = lra_jax.evaluate(WEIGHTS, batch)
    np.testing.assert_allclose(metrics.loss, found[2].loss, rtol=1e-5)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(found))


def draw(key, batch_size, seq_len):
    start = jax.random.key_data(key)[0].astype(jnp.int32)
    inputs = jnp.arange(seq_len * batch_size).reshape(seq_len, batch_size) + start
    return lra_jax.Batch(inputs % X, inputs[0] % Y)


def experiment_of(num_validation):
    return Experiment(
        lra_jax.Task(draw, X, Y, min_seq_len=1, chance=0.5),
        lambda numbers: (lra_jax.bptt(), optax.sgd(numbers["lr"])),
        seq_len=1,
        hidden_size=H,
        batch_size=2,
        eval_every=1,
        num_validation=num_validation,
    )


def test_a_validation_works_where_jit_is_disabled():
    """Of a rest alone, and of one whole slice."""
    for total in (1, validation.SLICE):
        validate = functools.partial(
            member.validate, experiment_of(total), WEIGHTS, jnp.uint32(3)
        )
        with jax.disable_jit():
            found = validate()
        for mine, exact in zip(found, jax.jit(validate)(), strict=True):
            assert (mine.shape, mine.dtype) == (exact.shape, exact.dtype)
            np.testing.assert_allclose(mine, exact, rtol=1e-5)


@pytest.mark.slow
def test_a_sweep_works_where_jit_is_disabled():
    def run():
        return lra_jax.run_sweep(
            experiment_of(3),
            {"lr": [0.1]},
            [0],
            limits=sweep.Limits(max_steps=1),
            devices=jax.devices()[:1],
        )

    with jax.disable_jit():
        found = run()
    np.testing.assert_allclose(found.curves.loss, run().curves.loss, rtol=1e-5)
    assert found.members.step.tolist() == [1]
