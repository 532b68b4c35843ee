"""Which forward weights an update's errors go through, on networks other than tanh.

Gradients are a function of the states of the forward pass, and of the weights that
errors go through. Here the former are held: a network whose products of states and
weights have the values of the first weights, and the derivatives of those that are
given. π is held by a loss whose derivative is a constant. Nothing is patched.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from network_cases import Y, random_batch, random_params

import lra_jax
from lra_jax import networks
from x64.problems import distance

B = 3
SAME, CHANGED = 1e-12, 1e-2
PI = np.random.default_rng(0).normal(size=(B, Y))
HELD = lra_jax.OutputLoss(
    value=lambda logits, labels: jnp.sum(PI * logits, axis=1),
    grad=lambda logits, labels: jnp.asarray(PI),
    is_error=lambda logits, labels: jnp.zeros(len(logits), bool),
)


def with_value(there, value):
    """`value`, exactly, with the derivatives of `there`."""
    return lax.stop_gradient(value) + (there - lax.stop_gradient(there))


def remade(network, methods):
    """The network with methods of a class of its own."""
    made = type("Held", (type(network),), methods)
    fields = [field.name for field in dataclasses.fields(network)]
    return made(**{name: getattr(network, name) for name in fields})


def holding_recurrent(network, cell):
    """What arrives through recurrent weights is what the first cell makes of it."""
    if isinstance(network, networks.Stack):
        layers = zip(network.layers, cell, strict=True)
        return networks.stack(*(holding_recurrent(*layer) for layer in layers))
    (first,) = network.recurrent(cell)

    def advance(self, p, s_prev, drive, *, product=jnp.matmul, **given):
        def held(z, w):
            return with_value(product(z, w), z @ first)

        step = super(type(self), self).advance
        return step(p, s_prev, drive, product=held, **given)

    return remade(network, {"advance": advance})


def holding_inputs(network, cell):
    """What the inputs add is what the first cell makes of them."""

    def drive(self, p, x):
        ask = super(type(self), self).drive
        return with_value(ask(p, x), ask(cell, x))

    return remade(network, {"drive": drive})


NETWORKS = {
    "leaky": networks.leaky(alpha=0.3),
    "gru": networks.gru(),
    "lstm": networks.lstm(),
    "gru, leaky": networks.stack(networks.gru(), networks.leaky(alpha=0.3)),
}
RULES = {
    "lra_norm, mirror": ("lra_norm", {"feedback": "mirror"}),
    "lra_norm, mirror of W_hh": (
        "lra_norm",
        {"feedback": lra_jax.Feedback("mirror", "transpose")},
    ),
    "dfa": ("dfa", {}),
    "dfa, readout": ("dfa", {"readout": "transpose"}),
    "rec_lra": ("rec_lra", {"num_steps_per_skip": 2}),
    "lra_e": ("lra_e", {}),
    "rflo": ("rflo", {}),
    "eprop": ("eprop", {}),
    "bptt": ("bptt", {}),
}
NOTHING = ["lra_norm, mirror", "dfa", "rec_lra", "lra_e", "rflo"]


def moved(w, seed=4):
    return w + 0.3 * jax.random.normal(jax.random.key(seed), w.shape)


def with_w_hh(params):
    """Other recurrent weights, of all layers."""

    def change(cell):
        if hasattr(cell, "w_hh"):
            return cell._replace(w_hh=moved(cell.w_hh))
        return tuple(map(change, cell))

    return params._replace(cell=change(params.cell))


def with_w_hy(params):
    return params._replace(w_hy=moved(params.w_hy))


@functools.cache
def gradients(rule, name, is_held=True):
    """Those of the first weights, of another W_hh and of another W_hy."""
    network = NETWORKS[name]
    params, batch = random_params(network), random_batch(6, B)
    if is_held:
        network = holding_recurrent(network, params.cell)
    factory, options = RULES[rule]
    made = lra_jax.RULES[factory](**options, network=network, output_loss=HELD)
    state = made.init(jax.random.key(2), params)

    @jax.jit
    def of(params):
        return made.grads(jax.random.key(3), params, state, batch)[0]

    return [of(p) for p in (params, with_w_hh(params), with_w_hy(params))]


def change(after, before):
    """The largest of all arrays, relative to each array's largest entry."""
    return max(
        distance(a, b)
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_held_is_the_network_and_does_not_move(name):
    network = NETWORKS[name]
    params, batch = random_params(network), random_batch(6, B)
    held = holding_recurrent(network, params.cell)

    def states(params, network):
        return lra_jax.forward(params, batch.inputs, network=network).h

    first = states(params, network)
    np.testing.assert_array_equal(states(with_w_hh(params), held), states(params, held))
    assert distance(states(params, held), first) < 1e-14
    assert distance(states(with_w_hh(params), network), first) > CHANGED
    # And so are derivatives: BPTT of it is BPTT.
    plain, there = (gradients("bptt", name, is_held)[0] for is_held in (False, True))
    assert change(there, plain) < SAME


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rule", NOTHING)
def test_rules_without_transport_do_not_know_the_weights(rule, name):
    """Not one gradient changes with W_hh or W_hy while the states are held."""
    first, other_w_hh, other_w_hy = gradients(rule, name)
    assert min(jnp.max(jnp.abs(g)) for g in jax.tree.leaves(first)) > 1e-4
    assert change(other_w_hh, first) < SAME
    assert change(other_w_hy, first) < SAME


@pytest.mark.parametrize("name", NETWORKS)
def test_bptt_knows_both(name):
    first, other_w_hh, other_w_hy = gradients("bptt", name)
    assert change(other_w_hh, first) > CHANGED
    assert change(other_w_hy, first) > CHANGED


@pytest.mark.parametrize("rule", ["lra_norm, mirror of W_hh", "dfa, readout", "eprop"])
def test_rules_that_go_through_w_hy_alone_know_it(rule):
    first, other_w_hh, other_w_hy = gradients(rule, "gru")
    assert change(other_w_hh, first) < SAME
    assert change(other_w_hy, first) > CHANGED


@pytest.mark.parametrize("rule", ["lra_norm, mirror", "rec_lra"])
def test_without_what_is_held_all_change(rule):
    """Through the states: what the tests above leave out is there."""
    first, other_w_hh, _ = gradients(rule, "gru", False)
    assert change(other_w_hh, first) > CHANGED


# Within a step errors go down through the input weights of upper layers.


@functools.cache
def of_layers(rule):
    """Gradients of both layers, of the first weights and of another upper W_xh."""
    lower, upper = NETWORKS["gru, leaky"].layers
    params, batch = random_params(NETWORKS["gru, leaky"]), random_batch(6, B)
    network = networks.stack(lower, holding_inputs(upper, params.cell[1]))
    factory, options = RULES[rule]
    made = lra_jax.RULES[factory](**options, network=network, output_loss=HELD)
    state = made.init(jax.random.key(2), params)
    above = params.cell[1]._replace(w_xh=moved(params.cell[1].w_xh))
    of = jax.jit(lambda p: made.grads(jax.random.key(3), p, state, batch)[0].cell)
    return of(params), of(params._replace(cell=(params.cell[0], above)))


@pytest.mark.parametrize("rule", NOTHING)
def test_errors_of_a_lower_layer_go_through_the_input_weights_above(rule):
    """Of every rule, those without transport too; errors of the upper one do not."""
    first, other = of_layers(rule)
    assert change(other[0], first[0]) > CHANGED
    if rule != "lra_norm, mirror":  # whose length is that of both layers' errors
        assert change(other[1], first[1]) < SAME
