"""What every learning rule promises, on every task and on some networks.

Nothing here knows a rule by its name, but for `EXEMPT`: example arguments come from the
factory's signature, so that a new row of RULES is covered unasked.
"""

import functools
import inspect
import typing

import closeness
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_identical
from jax.typing import ArrayLike
from jaxpr import matmul_precisions
from rule_cases import others_slow

import lra_jax
from lra_jax import RULES, TASKS, networks

T, B, H = 10, 4, 8
N = 4  # members
HIGHEST = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)

# Rule and test to why the rule does not promise what the test asks.
EXEMPT = {
    (
        "lra_released",
        "test_training_lowers_the_loss_of_every_member",
    ): "with λ > 0 and K > 1 the released code divides 0 by 0 once float32 refinements "
    "come back to a state exactly; without Ω, see test_lra_released.py",
}

all_rules = pytest.mark.parametrize("rule", RULES)
# Of symbols and of vectors: for all else, the tasks' programs differ in sizes alone, and
# are traced but not compiled.
KINDS = ("temporal_order", "adding")
kinds_of_tasks = pytest.mark.parametrize("task", KINDS)
# Of weights of steps, and of weights of outputs.
WEIGHTED = ("perceptual_decision", "flip_flop")
# The others with the slow tests, where only sizes differ.
MOST_SLOW = [
    pytest.param(t, marks=() if t in KINDS else pytest.mark.slow) for t in TASKS
]
all_tasks = pytest.mark.parametrize("task", MOST_SLOW)
one_task = pytest.mark.parametrize("task", KINDS[:1])

# One with a state that is longer than z, with layers and with noise; and one of which
# nothing is known but its step.
NETWORKS = {
    "tanh": networks.tanh(),
    "lstm, leaky": networks.stack(networks.lstm(), networks.leaky(noise=0.1)),
    "own": networks.from_step(
        init=networks.relu().init,
        step=lambda p, s, x: jnp.sin(s) @ p.w_hh + x @ p.w_xh + p.b_h[None],
    ),
}


def trains(rule, network):
    """Whether the rule's card says so."""
    found = NETWORKS[network]
    return {
        "all": True,
        "of known recurrent weights": found.has_recurrent,
        "tanh": isinstance(found, networks.Tanh),
    }[lra_jax.rule_card(rule).networks]


PAIRS = [(r, n) for r in RULES for n in NETWORKS if trains(r, n)]


def takes(rule, task):
    """Whether a rule takes the loss of a task."""
    return lra_jax.rule_card(rule).every_step or not TASKS[task].output_loss.every_step


def is_usual(task):
    return task in WEIGHTED or not TASKS[task].output_loss.every_step


def cases(tasks):
    """Of tanh on these tasks, and of the others on one task of each kind."""
    return pytest.mark.parametrize(
        ("rule", "network", "task"),
        [
            pytest.param(r, n, t, marks=() if is_usual(t) else pytest.mark.slow)
            for r, n in PAIRS
            for t in (tasks if n == "tanh" else KINDS)
            if takes(r, t)
        ],
    )


all_cases = pytest.mark.parametrize(
    ("rule", "network", "task"),
    [
        pytest.param(r, n, t, marks=() if t in KINDS else pytest.mark.slow)
        for r, n in PAIRS
        for t in (TASKS if n == "tanh" else KINDS)
        if takes(r, t)
    ],
)
compiled_cases = pytest.mark.parametrize(
    ("rule", "network", "task"),
    [
        pytest.param(
            rule,
            network,
            task,
            marks=() if network == "tanh" else others_slow(rule),
        )
        for rule, network in PAIRS
        for task in (KINDS if network == "tanh" else KINDS[:1])
        if network != "own"
    ],
)


class Arguments:
    """A factory's arguments, sorted by their annotations."""

    def __init__(self, factory):
        hints = typing.get_type_hints(factory)
        parameters = inspect.signature(factory).parameters
        self.choices = {
            name: typing.get_args(hint)
            for name, hint in hints.items()
            if typing.get_origin(hint) is typing.Literal
        }
        self.required_choices = {
            name: allowed[0]
            for name, allowed in self.choices.items()
            if parameters[name].default is inspect.Parameter.empty
        }
        self.numbers = {
            name: self._values(name, parameters[name].default)
            for name, hint in hints.items()
            if hint == ArrayLike
        }

    @staticmethod
    def _values(name, default):
        """`[N]` different values; a name of num_* is a count, of max_* a bound.

        A bound lets steps through that are large enough to learn by.
        """
        if name.startswith("num_"):
            return np.arange(N, dtype=np.int32) % 3 + 1
        if name.startswith("max_"):
            return np.arange(N, dtype=np.float32)
        if default is inspect.Parameter.empty:
            return np.geomspace(0.5, 50, N, dtype=np.float32)
        return np.asarray(default + 0.03 * np.arange(N), np.float32)

    @property
    def floats(self):
        return [
            name
            for name, values in self.numbers.items()
            if np.issubdtype(values.dtype, np.floating)
        ]


class Problem:
    """A task, N members' weights and keys, and a batch that they share."""

    def __init__(self, task, network):
        self.task = TASKS[task]
        self.network = NETWORKS[network]
        self.keys = jax.random.split(jax.random.key(1), N)
        sizes = (self.task.input_size, H, self.task.output_size)

        @jax.jit
        def draw(keys):
            params = jax.vmap(
                lambda key: lra_jax.init_params(key, *sizes, network=self.network)
            )(keys)
            seq_len = max(T, self.task.min_seq_len)
            batch = self.task.sample(jax.random.key(2), B, seq_len)
            loss = lra_jax.evaluate(
                member(params, 0),
                batch,
                output_loss=self.task.output_loss,
                network=self.network,
            ).loss
            return params, batch, loss

        self.params, self.batch, self.loss = jax.device_get(draw(self.keys))


class Case:
    """A rule on a task, with its programs: one member, and N of them."""

    def __init__(self, rule, task, network):
        problem = problem_of(task, network)
        self.factory, self.task, self.batch = RULES[rule], problem.task, problem.batch
        self.arguments = Arguments(self.factory)
        self.expected_loss = problem.loss
        self.traces = 0
        self.numbers, self.problem = self.arguments.numbers, problem
        self.alone = jax.jit(self.grads)
        self.together = jax.jit(jax.vmap(self.counted_grads, (0, 0, 0, 0, None)))

    def make(self, numbers):
        choices = dict(self.arguments.required_choices)
        choices["output_loss"] = self.task.output_loss
        if self.problem.network != networks.tanh():  # the default
            choices["network"] = self.problem.network
        return self.factory(**choices, **numbers)

    def init(self, numbers, key, params):
        return self.make(numbers).init(key, params)

    def grads(self, numbers, key, params, rule_state, batch):
        """The factory is called inside the mapped function: numbers are tracers."""
        return self.make(numbers).grads(key, params, rule_state, batch)

    def counted_grads(self, *arguments):
        self.traces += 1
        return self.grads(*arguments)

    def run(self, *members):
        """The members' results, on the host: there, slices compile nothing."""
        return jax.device_get(self.together(*members, self.batch))

    def member(self, index):
        return member(self.members, index)

    @functools.cached_property
    def members(self):
        arguments = self.numbers, self.problem.keys, self.problem.params
        states = jax.jit(jax.vmap(self.init))(*arguments)
        return (*arguments, jax.device_get(states))

    @functools.cached_property
    def results(self):
        return self.run(*self.members)

    @functools.cached_property
    def abstract_member(self):
        """Member 0; of its state there are shapes and dtypes only."""
        found = member((self.numbers, self.problem.keys, self.problem.params), 0)
        return (*found, jax.eval_shape(self.init, *found))

    def abstract_grads(self, batch, *, python_numbers=False):
        """Traces grads without compiling it."""
        numbers, *arguments = self.abstract_member
        if python_numbers:
            rule = self.make({name: x.item() for name, x in numbers.items()})
            return jax.eval_shape(rule.grads, *arguments, batch)
        return jax.eval_shape(self.grads, numbers, *arguments, batch)


def member(tree, index):
    """One member, or several, of arrays `[N, ...]`."""
    return jax.tree.map(lambda x: x[np.asarray(index)], tree)


problem_of = functools.cache(Problem)
cached_case = functools.cache(Case)


def case_of(rule, task, network="tanh"):
    return cached_case(rule, task, network)


@pytest.fixture
def network():
    """For tests that ask nothing of others."""
    return "tanh"


@pytest.fixture
def case(rule, task, network, request):
    if rule == "lra_released" and task not in KINDS:
        pytest.skip("for the audit only, and slow to compile: one task of each kind")
    if not takes(rule, task):
        pytest.skip("takes losses of the last step only")
    if (reason := EXEMPT.get((rule, request.function.__name__))) is not None:
        pytest.skip(reason)
    return case_of(rule, task, network)


def without_reversal_error(tree):
    """That is rounding itself, and no two programs have the same."""
    return jax.tree.map(
        lambda x: (
            x._replace(reversal_error=None) if isinstance(x, lra_jax.RuleInfo) else x
        ),
        tree,
        is_leaf=lambda x: isinstance(x, lra_jax.RuleInfo),
    )


def assert_close(actual, expected, tolerance=1e-4):
    closeness.assert_close(
        *map(without_reversal_error, (actual, expected)), tolerance=tolerance
    )


def with_nan(x):
    """Member 1 is not a number."""
    return np.concatenate([x[:1], np.full_like(x[1:2], np.nan), x[2:]])


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


# The protocol.


@all_rules
@one_task
def test_init_and_grads_have_the_protocols_argument_names(case):
    rule = case.make(case.abstract_member[0])
    assert list(inspect.signature(rule.init).parameters) == ["key", "params"]
    assert list(inspect.signature(rule.grads).parameters) == [
        "key",
        "params",
        "rule_state",
        "batch",
    ]


@cases(TASKS)
def test_grads_and_state_have_the_structure_shapes_and_dtypes_they_had(case):
    _, _, params, before = case.abstract_member
    grads, after, info = case.abstract_grads(case.batch)
    assert shapes(grads) == shapes(params)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert shapes(after) == shapes(before)
    assert info.loss.shape == ()


@compiled_cases
def test_grads_and_info_are_finite_and_info_has_the_loss_and_values_per_step(case):
    grads, state, info = case.alone(*case.member(0), case.batch)
    assert shapes(grads) == shapes(case.member(0)[2])
    assert shapes(state) == shapes(case.member(0)[3])
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))
    network = case.problem.network
    is_tanh = network == networks.tanh()
    assert type(info) is (lra_jax.RuleInfo if is_tanh else lra_jax.NetworkInfo)
    assert info.loss.shape == ()
    if not network.is_noisy:
        np.testing.assert_allclose(info.loss, case.expected_loss, rtol=1e-6)
    for name, field in info._asdict().items():
        for values in jax.tree.leaves(field):
            one = name in ("loss", "reversal_error")
            assert values.shape == (() if one else (T,))
            assert np.all(np.isfinite(values))
            assert np.all(values >= 0)


@compiled_cases
def test_grads_depend_on_their_arguments_only(case):
    first = case.alone(*case.member(0), case.batch)
    case.alone(*case.member(1), case.batch)
    assert_identical(case.alone(*case.member(0), case.batch), first)


# Members of a vmap.


@compiled_cases
def test_a_member_is_what_it_is_alone_at_any_position(case):
    for index in range(N):
        assert_close(
            member(case.results, index),
            case.alone(*case.member(index), case.batch),
        )


@compiled_cases
def test_permuting_the_members_permutes_the_results_bit_for_bit(case):
    order = [2, 0, 3, 1]
    permuted = case.run(*member(case.members, order))
    assert_identical(permuted, member(case.results, order))


@compiled_cases
def test_one_trace_serves_all_values(case):
    numbers, keys, params, states = case.members
    other = {name: x[::-1] + np.ones((), x.dtype) for name, x in numbers.items()}
    moved = jax.tree.map(lambda x: 2 * x, params)
    first = case.run(*case.members)
    traces = case.traces
    second = case.run(other, keys, moved, states)
    assert case.traces == traces > 0
    assert not np.array_equal(first[0].w_hy, second[0].w_hy)


@compiled_cases
def test_a_member_with_nan_weights_leaves_the_others_bit_identical(case):
    numbers, keys, params, states = case.members
    sick = jax.tree.map(with_nan, params)
    results = case.run(numbers, keys, sick, states)
    others = [0, 2, 3]
    assert_identical(member(results, others), member(case.results, others))
    assert np.isnan(results[2].loss[1])
    assert np.all(np.isnan(results[0].w_hy[1]))


@compiled_cases
def test_a_member_with_a_nan_hyperparameter_leaves_the_others_bit_identical(case):
    numbers, *arguments = case.members
    others = [0, 2, 3]
    for name in case.arguments.floats:
        sick = numbers | {name: with_nan(numbers[name])}
        results = case.run(sick, *arguments)
        assert_identical(member(results, others), member(case.results, others))


@all_rules
@kinds_of_tasks
def test_training_lowers_the_loss_of_every_member(case):
    numbers, keys, params, states = case.members
    losses = []
    for _ in range(150):
        grads, states, info = case.run(numbers, keys, params, states)
        params = jax.tree.map(lambda p, g: p - np.float32(0.03) * g, params, grads)
        losses.append(info.loss)
    assert np.all(np.isfinite(losses))
    assert np.all(losses[-1] < 0.98 * losses[0])


# Programs.


@all_cases
@pytest.mark.parametrize("python_numbers", [False, True], ids=["traced", "python"])
@pytest.mark.parametrize("real", [False, True], ids=["as drawn", "real"])
def test_dtypes_are_never_promoted_implicitly(case, python_numbers, real):
    inputs = case.batch.inputs
    if real:
        size = case.task.input_size
        inputs = inputs if inputs.ndim == 3 else np.eye(size, dtype=np.float32)[inputs]
    with jax.numpy_dtype_promotion("strict"):
        grads, _, _ = case.abstract_grads(
            case.batch._replace(inputs=inputs), python_numbers=python_numbers
        )
    assert shapes(grads) == shapes(case.abstract_member[2])


@all_cases
def test_every_matrix_product_has_the_highest_precision(case):
    assert matmul_precisions(case.grads, *case.abstract_member, case.batch) == {HIGHEST}


@cases(KINDS)
def test_train_steps_can_be_scanned(case):
    """What a step returns has the types of what it was given, weak ones included."""
    numbers, key, params, _ = case.abstract_member
    rule, optimizer = case.make(numbers), optax.sgd(0.1, momentum=0.9)

    def train(key, params, batches):
        start = lra_jax.init_train_state(key, params, rule, optimizer)
        step = functools.partial(lra_jax.train_step, rule=rule, optimizer=optimizer)
        return start, jax.lax.scan(step, start, batches)

    batches = jax.tree.map(lambda x: np.stack([x] * 3), case.batch)
    before, (after, infos) = jax.eval_shape(train, key, params, batches)
    assert shapes(after) == shapes(before)
    assert infos.loss.shape == (3,)


# A rule without state, and those whose state learns; one of them has random numbers.
@pytest.mark.parametrize("rule", ["bptt", "rec_lra", "tptt"])
@one_task
def test_train_steps_in_a_scan_are_the_steps_of_a_loop(case):
    numbers, key, params, _ = case.member(0)
    rule, optimizer = case.make(numbers), optax.sgd(0.1, momentum=0.9)
    start = lra_jax.init_train_state(key, params, rule, optimizer)
    sample = jax.jit(jax.vmap(lambda key: case.task.sample(key, B, T)))
    batches = jax.device_get(sample(jax.random.split(jax.random.key(3), 3)))
    step = functools.partial(lra_jax.train_step, rule=rule, optimizer=optimizer)
    scanned, infos = jax.jit(functools.partial(jax.lax.scan, step))(start, batches)
    infos = jax.device_get(infos)

    rule_state, opt_state = start.rule_state, start.opt_state
    for i in range(3):
        grads, rule_state, info = case.alone(
            numbers,
            jax.random.fold_in(start.key, i),
            params,
            rule_state,
            member(batches, i),
        )
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        assert_close(member(infos, i), info, 1e-4)
    assert_close(scanned.params, params, 1e-5)
    assert_close(scanned.rule_state, rule_state, 1e-5)
    assert_close(scanned.opt_state, opt_state, 1e-4)
    assert scanned.step == 3


# Errors.

WRONG_INPUTS = {
    "real without channels": lambda x, size: np.zeros(x.shape[:2], np.float32),
    "symbols with channels": lambda x, size: np.zeros((*x.shape[:2], size), np.int32),
    "another number of channels": lambda x, size: np.zeros(
        (*x.shape[:2], size + 1), np.float32
    ),
    "booleans": lambda x, size: np.zeros(x.shape[:2], bool),
    "one axis": lambda x, size: np.zeros(x.shape[:1], np.int32),
    "no steps": lambda x, size: x[:0],
}

WRONG_LABELS = {
    "fewer samples": lambda y: y[:-1],
    "one axis more": lambda y: y[:, None],
    "no axis": lambda y: y.ravel()[:1].reshape(()),
}


def with_labels(batch, change):
    """The batch with other labels, and these; weights stay as they are."""
    if isinstance(batch.labels, lra_jax.Weighted):
        labels = change(batch.labels.labels)
        return batch._replace(labels=batch.labels._replace(labels=labels)), labels
    labels = change(batch.labels)
    return batch._replace(labels=labels), labels


def assert_says(error, argument, array):
    """The message has the argument, what was expected, and what it got."""
    message = str(error.value)
    assert message.startswith(f"{argument}: expected ")
    assert message.endswith(f"got {array.dtype} {array.shape}")


@all_rules
@all_tasks
@pytest.mark.parametrize("wrong", WRONG_INPUTS)
def test_wrong_inputs_are_named(case, wrong):
    inputs = WRONG_INPUTS[wrong](case.batch.inputs, case.task.input_size)
    with pytest.raises(ValueError, match="inputs: expected") as error:
        case.abstract_grads(case.batch._replace(inputs=inputs))
    assert_says(error, "inputs", inputs)


@all_rules
@all_tasks
@pytest.mark.parametrize("wrong", WRONG_LABELS)
def test_labels_of_wrong_shape_are_named(case, wrong):
    batch, labels = with_labels(case.batch, WRONG_LABELS[wrong])
    with pytest.raises(ValueError, match="labels: expected") as error:
        case.abstract_grads(batch)
    assert_says(error, "labels", labels)


@all_rules
@pytest.mark.parametrize(
    "task", [p for p in MOST_SLOW if p.values[0] not in ("adding", "flip_flop", "sine")]
)
def test_labels_that_are_no_integers_are_named(case):
    for dtype in (np.float32, bool):
        batch, labels = with_labels(case.batch, lambda y: y.astype(dtype))  # noqa: B023
        with pytest.raises(ValueError, match="labels: expected integer") as error:
            case.abstract_grads(batch)
        assert_says(error, "labels", labels)


def arguments_of(kind):
    return [
        pytest.param(RULES[rule], name, id=f"{rule}-{name}")
        for rule in RULES
        for name in getattr(Arguments(RULES[rule]), kind)
    ]


def valid_arguments(factory):
    """Python values for what the factory requires."""
    arguments, parameters = Arguments(factory), inspect.signature(factory).parameters
    return arguments.required_choices | {
        name: values[0].item()
        for name, values in arguments.numbers.items()
        if parameters[name].default is inspect.Parameter.empty
    }


@pytest.mark.parametrize(("factory", "name"), arguments_of("choices"))
def test_an_unknown_choice_names_the_allowed_and_the_nearest(factory, name):
    for value in Arguments(factory).choices[name]:
        misspelt = value[:-1] + "~"
        with pytest.raises(ValueError, match=f"^{name}: expected one of ") as error:
            factory(**valid_arguments(factory) | {name: misspelt})
        message = str(error.value)
        assert f"got {misspelt!r}" in message
        assert message.endswith(f"did you mean {value!r}?")
        for allowed in Arguments(factory).choices[name]:
            assert repr(allowed) in message


@pytest.mark.parametrize(("factory", "name"), arguments_of("choices"))
def test_a_choice_like_none_of_them_has_no_suggestion(factory, name):
    with pytest.raises(ValueError, match=f"^{name}: expected one of ") as error:
        factory(**valid_arguments(factory) | {name: "0123456789"})
    assert str(error.value).endswith("got '0123456789'")


@pytest.mark.parametrize("make", [np.ones, jnp.ones], ids=["numpy", "jax"])
@pytest.mark.parametrize(("factory", "name"), arguments_of("numbers"))
def test_a_number_must_be_a_scalar(factory, name, make):
    for shape in ((2,), (1,)):
        with pytest.raises(ValueError, match=f"^{name}: expected a scalar") as error:
            factory(**valid_arguments(factory) | {name: make(shape)})
        assert f"shape {shape}" in str(error.value)


@pytest.mark.parametrize("value", [0, -1, np.int32(0), 1.5], ids=repr)
@pytest.mark.parametrize(
    ("factory", "name"),
    [p for p in arguments_of("numbers") if p.values[1].startswith("num_")],
)
def test_a_count_must_be_a_positive_integer(factory, name, value):
    with pytest.raises(ValueError, match=f"^{name}: expected .*, got "):
        factory(**valid_arguments(factory) | {name: value})


def test_exemptions_are_of_rules_and_tests_that_exist():
    for rule, test in EXEMPT:
        assert rule in RULES
        assert test in globals()


# Each rule as the special case of another.


@jax.jit
@jax.grad
def exact_gradient(params, batch):
    logits = lra_jax.forward(params, batch.inputs).logits
    return jnp.mean(lra_jax.cross_entropy.value(logits, batch.labels))


def test_bptt_is_automatic_differentiation():
    case = case_of("bptt", "temporal_order")
    _, key, params, state = case.member(0)
    grads, _, _ = case.alone(
        {"max_norm": np.float32(0)}, key, params, state, case.batch
    )
    assert_close(grads, exact_gradient(params, case.batch), 1e-5)


def test_bptt_clips_one_norm_over_all_gradients():
    case = case_of("bptt", "temporal_order")
    _, *arguments = case.member(0)

    def grads(max_norm):
        numbers = {"max_norm": np.float32(max_norm)}
        return case.alone(numbers, *arguments, case.batch)[0]

    exact = grads(0.0)
    norm = np.sqrt(sum(np.sum(g * g) for g in exact))
    assert norm > 0.5
    assert_close(grads(0.5), jax.tree.map(lambda g: 0.5 * g / norm, exact), 1e-6)
    assert_identical(grads(1.01 * norm), exact)


def test_readout_only_is_bptt_without_the_hidden_layer():
    case = case_of("readout_only", "temporal_order")
    _, _, params, _ = case.member(0)
    grads, _, info = case.alone(*case.member(0), case.batch)
    exact = exact_gradient(params, case.batch)
    hidden = {name: jnp.zeros_like(getattr(exact, name)) for name in exact._fields[:3]}
    assert_close(grads, exact._replace(**hidden), 1e-5)
    assert info[1:] == (None,) * 5


@pytest.mark.parametrize("name", sorted(lra_jax.RULES))
def test_what_is_no_loss_is_one_message_in_every_rule(name):
    options = (
        {"gamma": 1.0} if "gamma" in lra_jax.RULES[name].__code__.co_varnames else {}
    )
    for wrong in ("mse", lra_jax.TASKS["temporal_order"]):
        with pytest.raises(
            ValueError, match=r"output_loss: expected a lra_jax\.Output"
        ):
            lra_jax.RULES[name](output_loss=wrong, **options)


def test_a_switch_is_true_or_false():
    with pytest.raises(ValueError, match="descend_local_loss: expected True or False"):
        lra_jax.lra_diff(gamma=1.0, descend_local_loss="no")


def test_the_state_that_units_emit_before_the_first_step_counts_for_synapses():
    """Sigmoid units emit 1/2 of a state of 0."""
    network = lra_jax.networks.leaky(alpha=0.3, nonlinearity="sigmoid")
    params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, network=network)
    batch = lra_jax.TASKS["random_permutation"].sample(jax.random.key(1), 5, 1)
    batch = batch._replace(inputs=batch.inputs % 6, labels=batch.labels % 4)
    rule = lra_jax.lra_e(network=network, feedback_lr=0.1)
    state = rule.init(jax.random.key(2), params)
    _, after, _ = rule.grads(jax.random.key(3), params, state, batch)
    assert np.abs(after.a - state.a).max() > 0
