"""The names and signatures that the project has settled."""

import functools
import inspect
import re

import docstrings
import jax
import jax.numpy as jnp
import optax
import pytest

import lra_jax
from lra_jax import losses, regularizer, rules, sweep, tasks

KEYWORD, POSITIONAL = (
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
REQUIRED = inspect.Parameter.empty
CROSS_ENTROPY = losses.cross_entropy
BOUND_AND_LOSS = {"max_norm": 0.0, "output_loss": CROSS_ENTROPY}

# name -> positional arguments, then keyword-only arguments with their defaults
SIGNATURES = {
    "init_params": (
        ["key", "input_size", "hidden_size", "output_size"],
        {"input_gain": 1.0, "dtype": None},
    ),
    "forward": (["params", "inputs"], {"start": None, "every_step": False}),
    "init_train_state": (["key", "params", "rule", "optimizer"], {}),
    "train_step": (["state", "batch"], {"rule": REQUIRED, "optimizer": REQUIRED}),
    "evaluate": (["params", "batch"], {"output_loss": CROSS_ENTROPY}),
    "lra_diff": (
        [],
        {
            "gamma": REQUIRED,
            "num_refinements": 1,
            "lambda_": 0.0,
            "c0": 0.0,
            "c1": 0.0,
            "local_loss": "mse",
            "reduction": "mean",
            "normalization": "clip",
            "refinement": "fixed",
            "update_first_step": True,
            "descend_local_loss": True,
            "schedule": "constant",
            "output_loss": CROSS_ENTROPY,
        },
    ),
    "lra_released": (
        [],
        {
            "gamma": REQUIRED,
            "num_refinements": 1,
            "lambda_": 0.0,
            "c": 0.0,
            "local_loss": "mse",
            "descend_local_loss": True,
            "output_loss": CROSS_ENTROPY,
        },
    ),
    "bptt": ([], BOUND_AND_LOSS),
    "readout_only": ([], {"output_loss": CROSS_ENTROPY}),
    "soft_orthogonality": (["strength"], {}),
    "fa": ([], {"readout": "transpose", **BOUND_AND_LOSS}),
    "dfa": ([], {"feedback": "random", **BOUND_AND_LOSS}),
    "lra_fdbk": ([], {"gamma": 50.0, "c1": 0.0, **BOUND_AND_LOSS}),
    "lra_e": ([], {"beta": 1.0, "feedback_lr": 0.0, **BOUND_AND_LOSS}),
    "lra_norm": ([], {"exponent": 1.0, "activity": 0.02, **BOUND_AND_LOSS}),
    "lra_reversible": (
        [],
        {"exponent": 1.0, "activity": 0.02, **BOUND_AND_LOSS},
    ),
    "rec_lra": (
        [],
        {"beta": 1.0, "num_steps_per_skip": 5, "feedback_lr": 0.0, **BOUND_AND_LOSS},
    ),
    "tpri": ([], {"target_lr": 0.01, "ridge": 10.0, **BOUND_AND_LOSS}),
    "tptt": (
        [],
        {
            "target_lr": 0.1,
            "feedback_lr": 0.001,
            "noise_std": 0.0,
            "feedback_momentum": 0.9,
            "w_xh_update": "tptt",
            "output_loss": CROSS_ENTROPY,
        },
    ),
}

FIELDS = {
    "Params": ["w_xh", "w_hh", "b_h", "w_hy", "b_y"],
    "Batch": ["inputs", "labels", "start"],
    "Trace": ["h", "z", "logits"],
    "OutputLoss": ["value", "grad", "is_error", "every_step"],
    "LearningRule": ["init", "grads"],
    "RuleInfo": [
        "loss",
        "local_loss",
        "target_step_norm",
        "w_hh_grad_norm",
        "w_xh_grad_norm",
        "reversal_error",
    ],
    "EmptyState": [],
    "Samples": ["size", "take"],
    "TrainState": ["params", "opt_state", "rule_state", "key", "step"],
    "Metrics": ["loss", "num_errors"],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_functions_have_their_settled_signatures(name):
    positional, keyword = SIGNATURES[name]
    parameters = inspect.signature(getattr(lra_jax, name)).parameters
    assert list(parameters) == [*positional, *keyword]
    for argument in positional:
        assert parameters[argument].kind == POSITIONAL
        assert parameters[argument].default is REQUIRED
    for argument, default in keyword.items():
        assert parameters[argument].kind == KEYWORD
        assert parameters[argument].default == default
        assert type(parameters[argument].default) is type(default)


@pytest.mark.parametrize("name", FIELDS)
def test_types_have_their_settled_fields(name):
    kind = getattr(lra_jax, name)
    assert issubclass(kind, tuple)
    assert list(kind._fields) == FIELDS[name]


def test_a_rules_report_needs_its_loss_only():
    assert lra_jax.RuleInfo._field_defaults == dict.fromkeys(FIELDS["RuleInfo"][1:])


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
    assert public >= {*SIGNATURES, *FIELDS, "RULES", "TASKS", "LOCAL_LOSSES", "Task"}


@pytest.mark.parametrize("name", [*lra_jax.__all__, *docstrings.SWEEP])
def test_every_public_name_has_an_example(name):
    constants = {}
    for module in docstrings.MODULES:
        constants |= docstrings.of_constants(module)
    text = constants.get(name)
    if text is None:
        place = lra_jax if name in lra_jax.__all__ else sweep
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
