"""Rule cards: complete, and true where they can be measured."""

import contextlib
import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lra_jax
from lra_jax import RULES, TASKS, diagnostics, networks, numerics, rnn
from lra_jax.lab.config.arguments import arguments_of
from lra_jax.rules import card as cards

T, B, H = 10, 3, 8
TASK = TASKS["temporal_order"]
OPTIONS = {
    # Without learning of its own: the inverse of tptt learns from the network run
    # forwards.
    "tptt": {"feedback_lr": 0.0},
    "lra_diff": {"gamma": 3.0},
    "lra_released": {"gamma": 3.0},
}
WAYS = (
    "transpose",
    "mirror",
    "kolen_pollack",
    lra_jax.Feedback("transpose", "random"),
    lra_jax.Feedback("mirror", "transpose", mirror_samples=10),
)


def ways_of(name):
    """All of one rule; of those that share its chain, and of forward ones, a few."""
    card = lra_jax.rule_card(name)
    if not card.feedback:
        return ()
    if "W_hhᵀ" not in card.feedback:
        return WAYS[3:4]  # of output weights alone
    return WAYS if name == "lra_norm" else WAYS[3:]


CASES = [
    (name, dict(options))
    for name in RULES
    for options in (
        {},
        *([(v.option, v.value)] for v in lra_jax.rule_card(name).variants),
        *([("feedback", way)] for way in ways_of(name)),
    )
]
all_cases = pytest.mark.parametrize(("name", "options"), CASES, ids=str)
all_rules = pytest.mark.parametrize("name", RULES)


@all_rules
def test_a_card_is_complete(name):
    card = lra_jax.rule_card(name)
    for field in dataclasses.fields(card):
        if field.name == "feedback_networks":  # as without feedback
            continue
        assert getattr(card, field.name) not in ("", cards.NOT_SAID, None), field.name
    assert card.stores in (cards.EVERY_STATE, cards.LAST_STATE)
    assert isinstance(card.every_step, bool)
    assert isinstance(card.transports, tuple)
    assert {w.rstrip("ᵀ⁻¹") for w in card.transports} <= {"W_hh", "W_hy"}
    assert bool(card.feedback) == ("mirror_rate" in arguments_of(RULES[name]))
    parameters = inspect.signature(RULES[name]).parameters
    for variant in card.variants:
        assert parameters[variant.option].default != variant.value


def test_titles_differ():
    titles = [lra_jax.rule_card(name).title for name in RULES]
    assert len(set(titles)) == len(titles)


def test_a_card_says_what_options_change():
    card = lra_jax.rule_card("lra_norm")
    assert card.of({"exponent": 1.0, "lr": 3}) == card
    assert card.of({"exponent": 0.0}).errors_arrive == "step by step: BPTT's"
    assert card.of({"exponent": 0.0}).transports == card.transports
    assert lra_jax.rule_card("fa").of({"exponent": 0}).errors_arrive == "step by step"
    assert lra_jax.rule_card("dfa").of({"readout": "transpose"}).transported == "W_hyᵀ"


# Which weights errors go through.


@functools.cache
def problem():
    params = lra_jax.init_params(
        jax.random.key(0), TASK.input_size, H, TASK.output_size
    )
    return params, TASK.sample(jax.random.key(1), B, T)


class SameStates(networks.Tanh):
    """Steps of the first weights; their derivatives are by those that are given."""

    def advance(self, p, s_prev, drive, *, product=numerics.matmul, **given):
        del given
        first, z = rnn.cell_of(problem()[0]), jnp.tanh(s_prev)
        there = product(z, p.w_hh) + drive
        states = numerics.matmul(z, first.w_hh) + drive
        return jax.lax.stop_gradient(states - there) + there


@pytest.fixture
def same_trace(monkeypatch):
    """The states and outputs of the network, whatever its weights are changed to."""
    params, batch = problem()
    monkeypatch.setattr(networks.Tanh, "advance", SameStates.advance)
    trace = rnn.forward(params, batch.inputs)
    final = rnn.final_state(params, batch.inputs)
    run = rnn.run

    def same_states(params, inputs, **options):
        place = run(problem()[0], batch.inputs, **options)
        return place._replace(x=inputs)

    monkeypatch.setattr(rnn, "run", same_states)
    monkeypatch.setattr(rnn, "final_state", lambda *_, **__: final)
    # Read out by lra_reversible and by rules that run forward in time.
    monkeypatch.setattr(rnn, "readout", lambda *_, **__: trace.logits)


def errors_of(rule, batch):
    """The rule's errors as a function of the weights, compiled once."""
    state = rule.init(jax.random.key(2), problem()[0])
    given = functools.partial(diagnostics.hidden_errors, rule, jax.random.key(3))
    return jax.jit(lambda params: given(params, state, batch))


@all_cases
def test_errors_go_through_the_weights_that_the_card_says(name, options, same_trace):
    params, batch = problem()
    rule = RULES[name](**OPTIONS.get(name, {}), **options)
    card = lra_jax.rule_card(name).of(options)
    errors = errors_of(rule, batch)
    before = errors(params)
    for matrix in ("w_hh", "w_hy"):
        noise = jax.random.normal(jax.random.key(4), getattr(params, matrix).shape)
        changed = params._replace(**{matrix: getattr(params, matrix) + 0.1 * noise})
        after = errors(changed)
        if any(weight.lower().startswith(matrix) for weight in card.transports):
            assert np.abs(after - before).max() > 1e-3 * np.abs(before).max()
        else:
            # To the last digit, which JAX 0.7 rounds in another way in one element.
            np.testing.assert_allclose(after, before, rtol=2e-7)


# What is stored. tests/core/test_every_step.py tests what is said of losses.


@all_rules
def test_memory_grows_with_the_states_that_the_card_says(name):
    rule = RULES[name](**OPTIONS.get(name, {}))
    params = lra_jax.init_params(
        jax.random.key(0), TASK.input_size, 64, TASK.output_size
    )
    state = rule.init(jax.random.key(2), params)

    def memory(seq_len):
        batch = TASK.sample(jax.random.key(1), B, seq_len)
        program = jax.jit(rule.grads).lower(jax.random.key(3), params, state, batch)
        return program.compile().memory_analysis().temp_size_in_bytes

    of_a_state = 4 * B * 64
    per_step = (memory(40) - memory(20)) / 20
    stores_all = lra_jax.rule_card(name).stores == cards.EVERY_STATE
    assert (per_step >= of_a_state) == stores_all


# Rules of one's own.


def test_a_rule_is_registered_with_a_card_or_without(own_rules):
    card = lra_jax.RuleCard(title="mine", transports=("W_hyᵀ",))
    lra_jax.register_rule("mine", lra_jax.fa, card)
    assert RULES["mine"] is lra_jax.fa
    assert lra_jax.rule_card("mine") is card
    RULES["mine"] = lra_jax.dfa
    assert lra_jax.rule_card("mine") == lra_jax.RuleCard()
    lra_jax.register_rule("mine", lra_jax.dfa)  # again, as in a notebook
    assert lra_jax.rule_card("mine") == lra_jax.RuleCard()
    RULES["plain"] = lra_jax.fa
    plain = lra_jax.rule_card("plain")
    assert (plain.errors_arrive, plain.transported) == ("not said", "not said")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bptt", lra_jax.fa), "^name: .*'bptt', which is a rule of the library"),
        (("my rule", lra_jax.fa), "^name: expected an identifier, got 'my rule'"),
        (("mine", 3), "^factory: expected a function .*, got 3"),
        (("mine", lra_jax.fa, "a card"), "^card: expected a RuleCard, got 'a card'"),
    ],
)
def test_what_cannot_be_registered_is_refused(own_rules, arguments, message):
    before = dict(RULES)
    with pytest.raises(ValueError, match=message):
        lra_jax.register_rule(*arguments)
    assert before == RULES


def test_an_unknown_rule_has_no_card():
    with pytest.raises(ValueError, match=r"^name: .*; did you mean 'bptt'\?"):
        lra_jax.rule_card("bppt")


# Which networks it trains.


@all_cases
def test_a_rule_trains_the_networks_that_its_card_says(name, options):
    own = networks.from_step(
        init=networks.relu().init, step=networks.relu().step, emit=networks.relu().emit
    )
    trained = []
    for network in (networks.tanh(), networks.relu(), networks.gru(), own):
        all_options = OPTIONS.get(name, {}) | options
        with contextlib.suppress(ValueError):
            RULES[name](**all_options, network=network)
            trained.append(network)
    names = [cards.TANH_ALONE, cards.ONE_MATRIX, cards.KNOWN_RECURRENT]
    names.append(cards.ALL_NETWORKS)
    said = lra_jax.rule_card(name).of(options).networks
    assert said == names[len(trained) - 1]
