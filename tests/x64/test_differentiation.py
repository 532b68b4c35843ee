"""Training can be differentiated: both modes against difference quotients."""

import functools
import inspect
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.typing import ArrayLike

import lra_jax
from lra_jax import settings

EVERY_STEP = {
    "bptt", "fa", "lra_diff", "lra_norm", "random_error", "readout_only", "tpri", "tptt",
}  # fmt: skip
GENERIC = {
    "activity": 0.3,
    "beta": 0.7,
    "c": 0.4,
    "c0": 0.02,
    "c1": 0.1,
    "exponent": 0.6,
    "feedback_lr": 0.4,
    "feedback_momentum": 0.5,
    "gamma": 2.0,
    "lambda_": 0.2,
    "max_norm": 0.3,
    "noise_std": 0.1,
    "ridge": 0.8,
    "target_lr": 0.6,
}
EDGES = [{}, {"exponent": 1.0}, {"ridge": 1.0}]
X, H, Y, B, T = 3, 4, 3, 4, 3


def numbers(factory):
    """The names of a rule's real numbers, read from its signature."""
    hints = typing.get_type_hints(factory, include_extras=True)
    return [
        name
        for name in inspect.signature(factory).parameters
        if hints[name] != settings.Count
        and ArrayLike in (hints[name], *typing.get_args(hints[name])[:1])
    ]


def static(factory):
    names = inspect.signature(factory).parameters
    return {"num_refinements": 2} if "num_refinements" in names else {}


def problem(name, general):
    """Weights and a batch; vectors, starts and losses of every step where they can be."""
    key = jax.random.key(3)
    params = lra_jax.init_params(key, X, H, Y)
    params = jax.tree.map(lambda w: 0.8 * w + 0.1, params)
    labels = jnp.arange(B) % Y
    inputs = jax.random.randint(jax.random.key(1), (T, B), 0, X)
    if not general:
        return params, lra_jax.Batch(inputs, labels), {}
    start = jnp.array([0, 1, 0, 1])
    vectors = jax.random.normal(jax.random.key(2), (T, B, X))
    vectors = jnp.where(
        (jnp.arange(T)[:, None] < start[None])[..., None], jnp.nan, vectors
    )
    if name not in EVERY_STEP:
        return params, lra_jax.Batch(vectors, labels, start), {}
    asked = jnp.array([1, 1, 0], bool)[:, None]
    loss = lra_jax.cross_entropy_every_step
    labels = jnp.where(asked, labels[None], -1)
    return params, lra_jax.Batch(vectors, labels, start), {"output_loss": loss}


def program(name, general):
    """lr and a rule's numbers to E after one and two updates, and its derivatives."""
    factory = lra_jax.RULES[name]
    params, batch, loss = problem(name, general)

    def after(values, params, batch):
        lr, *rest = values
        named = dict(zip(numbers(factory), rest, strict=True))
        choice = {
            "rule": factory(**named, **static(factory), **loss),
            "optimizer": optax.sgd(lr),
        }
        state = lra_jax.init_train_state(jax.random.key(2), params, **choice)

        def update(state, _):
            state, _ = lra_jax.train_step(state, batch, **choice)
            return state, lra_jax.evaluate(state.params, batch, **loss).loss

        return jax.lax.scan(update, state, length=2)[1]

    def all_of_it(values, params, batch):
        # One program of forward mode: along each number, and at the points of a
        # central difference with an error of the fourth order.
        step, size = 2e-4, len(values)
        eye = jnp.eye(size)
        moves = jnp.array([0.0, -2.0, -1.0, 1.0, 2.0])[:, None, None] * step * eye[None]
        found, along = jax.lax.map(
            lambda line: jax.jvp(lambda x: after(x, params, batch), *line),
            (
                ((values[None, None] + moves).reshape(-1, size),),
                (jnp.tile(eye, (5, 1)),),
            ),
        )
        weights = jnp.array([0.0, 1.0, -8.0, 8.0, -1.0]) / (12 * step)
        quotient = jnp.einsum("k,kno->on", weights, found.reshape(5, size, -1))
        return along[:size].T, jax.jacrev(after)(values, params, batch), quotient

    return functools.partial(jax.jit(all_of_it), batch=batch), params


CASES = [(name, True) for name in lra_jax.RULES if name != "lra_released"]
CASES += [
    ("lra_diff", False),
    pytest.param("lra_released", False, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "general"), CASES)
def test_both_modes_are_the_difference_quotient_in_every_number(name, general):
    run, params = program(name, general)
    named = numbers(lra_jax.RULES[name])
    generic = jnp.array([0.5, *(GENERIC[n] for n in named)])
    forward, reverse, quotient = run(generic, params)
    assert np.abs(quotient[:, 0]).min() > 1e-4  # something is learned
    np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(forward, quotient, rtol=1e-6, atol=1e-8)
    # Where numbers are 0, and bounds and powers of 0 stand.
    for edge in EDGES:
        values = dict.fromkeys(named, 0.0) | {"ridge": 1e-3}
        values |= {n: value for n, value in edge.items() if n in values}
        forward, reverse, _ = run(jnp.array([0.0, *(values[n] for n in named)]), params)
        assert np.isfinite(forward).all(), (edge, forward)
        np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-12)
    # States, errors and gradients that are 0, and states at the limits of tanh.
    nothing = jax.tree.map(jnp.zeros_like, params)._replace(w_hh=params.w_hh)
    for weights in (nothing, params._replace(w_xh=40 * params.w_xh)):
        forward, reverse, quotient = run(generic, weights)
        if name == "lra_released" and np.isnan(quotient).all():
            continue  # Ω is 0/0 there, as in the program that it repeats
        assert np.isfinite(forward).all()
        np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["lra_diff", "lra_released"])
def test_a_traced_k_is_named_in_reverse_mode(name):
    params, batch, _ = problem(name, general=False)

    def loss(gamma, k):
        rule = lra_jax.RULES[name](gamma=gamma, num_refinements=k)
        grads, _, _ = rule.grads(jax.random.key(0), params, lra_jax.EmptyState(), batch)
        return jnp.sum(grads.w_hh**2)

    message = (
        f"^{name}: num_refinements is traced, and reverse-mode differentiation "
        r"\(jax.grad, jax.jacrev\) has to know it: give a Python integer, or use "
        r"forward mode \(jax.jvp, jax.jacfwd\)"
    )
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(jax.grad(loss), 2.0, 2)
    # In a map over K as well, and forward mode is not refused in either.
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(jax.vmap(jax.grad(loss), (None, 0)), 2.0, jnp.array([1, 2]))
    slopes = jax.vmap(jax.jacfwd(loss), (None, 0))
    assert jax.eval_shape(slopes, 2.0, jnp.array([1, 2])).shape == (2,)
    for k in (1, np.int32(2), jnp.int32(2)):
        assert jax.eval_shape(jax.grad(lambda x, k=k: loss(x, k)), 2.0).shape == ()


def test_second_derivatives_are_finite():
    params, batch, _ = problem("bptt", general=False)

    def after(lr):
        choice = {"rule": lra_jax.bptt(max_norm=0.3), "optimizer": optax.sgd(lr)}
        state = lra_jax.init_train_state(jax.random.key(2), params, **choice)
        for _ in range(2):
            state, _ = lra_jax.train_step(state, batch, **choice)
        return lra_jax.evaluate(state.params, batch).loss

    slope = jax.jit(jax.grad(after))
    quotient = (slope(0.5001) - slope(0.4999)) / 2e-4
    np.testing.assert_allclose(jax.jit(jax.hessian(after))(0.5), quotient, rtol=1e-5)
