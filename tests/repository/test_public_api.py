"""The names that the project has settled."""

import functools
import inspect
import re

import docstrings
import jax
import jax.numpy as jnp
import optax
import pytest

import lra_jax
from lra_jax import regularizer, rules, sweep, tasks


def test_a_rules_report_needs_its_loss_only():
    assert lra_jax.RuleInfo._field_defaults == dict.fromkeys(
        lra_jax.RuleInfo._fields[1:]
    )


def test_choices_are_the_readings_of_the_algorithm():
    choices = {
        "local_loss": ["mse", "log_penalty"],
        "reduction": ["mean", "sum"],
        "normalization": ["clip", "force"],
        "refinement": ["fixed", "overwrite"],
        "schedule": list(regularizer.SCHEDULES),
    }
    for name, allowed in choices.items():
        for value in allowed:
            lra_jax.lra_diff(gamma=1.0, **{name: value})
        with pytest.raises(ValueError, match=", ".join(map(repr, allowed))):
            lra_jax.lra_diff(gamma=1.0, **{name: "another"})
    for value in ("tptt", "bptt"):
        lra_jax.tptt(w_xh_update=value)
    with pytest.raises(ValueError, match="'tptt', 'bptt'"):
        lra_jax.tptt(w_xh_update="another")


def test_the_tables_have_their_settled_names():
    assert set(lra_jax.RULES) >= {
        "bptt",
        "dfa",
        "fa",
        "lra_diff",
        "lra_e",
        "lra_fdbk",
        "lra_norm",
        "lra_reversible",
        "lra_released",
        "random_error",
        "readout_only",
        "rec_lra",
        "tpri",
        "tptt",
    }
    assert set(lra_jax.TASKS) >= {
        "adding",
        "random_permutation",
        "temporal_order",
        "temporal_order_3bit",
    }
    assert [*lra_jax.networks.NETWORKS] == ["tanh", "relu", "leaky", "gru", "lstm"]
    for name, factory in lra_jax.networks.NETWORKS.items():
        assert getattr(lra_jax.networks, name) is factory
    assert set(lra_jax.LOCAL_LOSSES) == {"mse", "log_penalty"}
    for name, factory in lra_jax.RULES.items():
        assert factory.__name__ == name
        assert getattr(lra_jax, name) is factory


def test_a_task_is_sampled_by_key_batch_size_and_length():
    parameters = inspect.signature(lra_jax.Task.sample).parameters
    assert list(parameters) == ["self", "key", "batch_size", "seq_len"]
    for task in lra_jax.TASKS.values():
        assert isinstance(task, lra_jax.Task)
        assert isinstance(task.output_loss, lra_jax.OutputLoss)


@pytest.mark.parametrize("module", [lra_jax, rules, tasks], ids=lambda m: m.__name__)
def test_all_is_sorted(module):
    def place(name):
        """Constants, then types, then functions, each by the alphabet."""
        return (not name.isupper(), not name[0].isupper(), name)

    assert module.__all__ == sorted(set(module.__all__), key=place)
    assert all(hasattr(module, name) for name in module.__all__)


def test_all_is_complete():
    public = {
        name
        for name, value in vars(lra_jax).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(lra_jax.__all__)


@pytest.mark.parametrize(
    "name", [*lra_jax.__all__, *docstrings.SWEEP, *docstrings.DIAGNOSTICS]
)
def test_every_public_name_has_an_example(name):
    constants = {}
    for module in docstrings.MODULES:
        constants |= docstrings.of_constants(module)
    text = constants.get(name)
    if text is None:
        places = (lra_jax, sweep, lra_jax.diagnostics)
        place = next(place for place in places if hasattr(place, name))
        text = inspect.getdoc(getattr(place, name))
    assert re.search(r"^Example:\n  \S", text, re.MULTILINE)


def test_the_version_is_a_version():
    assert all(part.isdigit() for part in lra_jax.__version__.split("."))


def test_the_library_works_by_its_public_names_alone():
    task = lra_jax.TASKS["temporal_order"]
    params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
    rule, optimizer = lra_jax.lra_diff(gamma=4.0), optax.sgd(0.1)
    step = functools.partial(lra_jax.train_step, rule=rule, optimizer=optimizer)
    step = jax.jit(step)
    state = lra_jax.init_train_state(jax.random.key(1), params, rule, optimizer)
    batch = task.sample(jax.random.key(2), batch_size=20, seq_len=10)
    seen = []
    for _ in range(3):
        state, info = step(state, batch)
        seen.append(float(info.loss))
    assert seen[0] > seen[1] > seen[2]
    metrics = lra_jax.evaluate(state.params, batch)
    assert metrics.loss < seen[2]
    assert 0 <= metrics.num_errors <= 20
    assert state.step == 3
    assert jnp.isfinite(state.params.w_hh).all()
