"""What is set from outside is checked where it is known, and passes where it is traced.

Hyper-parameters of all rules, sizes, limits, seeds and the values of a sweep.
"""

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
from lra_jax import RULES, TASKS, member, settings, sweep, tiles
from lra_jax.experiment import Experiment
from lra_jax.lab.config.arguments import arguments_of, check_argument
from lra_jax.lab.config.optimizers import OPTIMIZERS

REQUIRED = {"lra_diff": {"gamma": 4.0}, "lra_released": {"gamma": 4.0}}
FACTORIES = {
    name: functools.partial(RULES[name], **REQUIRED.get(name, {})) for name in RULES
}


def kinds_of(factory):
    """The kinds of a factory's numbers, read off its signature."""
    hints = typing.get_type_hints(factory, include_extras=True)
    found = {}
    for name in inspect.signature(factory).parameters:
        hint = hints[name]
        if hint == ArrayLike:
            found[name] = ""
        elif typing.get_origin(hint) is typing.Annotated:
            found[name] = typing.get_args(hint)[1]
    return {name: kind for name, kind in found.items() if kind != "size"}


NUMBERS = [
    pytest.param(rule, name, kind, id=f"{rule}-{name}")
    for rule in RULES
    for name, kind in kinds_of(RULES[rule]).items()
]
FINITE = "expected a finite number of at least 0"
WRONG = {
    "": [(-1.0, FINITE), (np.nan, FINITE), (np.inf, FINITE)],
    "fraction": [(-0.1, FINITE), (1.1, "expected a number from 0 to 1")],
    "below one": [(3.0, "expected a number below 1"), (1, "expected a number below 1")],
    "positive": [(0.0, "expected a number above 0"), (-1, FINITE)],
    "count": [
        (0, "expected an integer of at least 1"),
        (2**31, "expected an integer below 2³¹"),
        (1.0, "expected an integer"),
    ],
}
RIGHT = {
    "": [0, 0.5, 1e30],
    "fraction": [0, 1],
    "below one": [0, 0.99],
    "positive": [1e-9],
}
RIGHT["count"] = [1, 7]
NO_NUMBER = ["1", None, True, 1j, np.True_, [[1], [1, 2]], object]


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None, 2**31])
def test_a_size_is_a_positive_integer(value):
    with pytest.raises(ValueError, match=r"^order: expected an integer"):
        RULES["snap"](order=value)
    argument = arguments_of(RULES["snap"])["order"]
    assert check_argument(value, argument, "float32").startswith("expected an integer")
    assert check_argument(3, argument, "float32") is None


# Hyper-parameters.


@pytest.mark.parametrize(("rule", "name", "kind"), NUMBERS)
def test_a_known_number_out_of_range_is_named(rule, name, kind):
    for value, text in WRONG[kind]:
        forms = [value, np.asarray(value)]
        if isinstance(value, float):
            forms += [np.float32(value), jnp.asarray(value)]
        for given in forms:
            with pytest.raises(ValueError, match=rf"^{name}: expected ") as error:
                FACTORIES[rule](**{name: given})
            assert str(error.value) == f"{name}: {text}, got {given!r}"
    for value in RIGHT[kind]:
        FACTORIES[rule](**{name: value})
        FACTORIES[rule](**{name: jnp.asarray(value)})


@pytest.mark.parametrize(("rule", "name", "kind"), NUMBERS)
def test_a_traced_number_may_have_any_value(rule, name, kind):
    def make(value):
        FACTORIES[rule](**{name: value})
        return value

    dtype = jnp.int32 if kind == "count" else jnp.float32
    jax.eval_shape(make, jax.ShapeDtypeStruct((), dtype))
    for wrong in (jnp.bool_, jnp.complex64):
        with pytest.raises(ValueError, match=rf"^{name}: expected .*, got "):
            jax.eval_shape(make, jax.ShapeDtypeStruct((), wrong))


@pytest.mark.parametrize(("rule", "name", "kind"), NUMBERS)
def test_what_is_no_number_is_named(rule, name, kind):
    noun = "an integer" if kind == "count" else "a number"
    for value in NO_NUMBER:
        with pytest.raises(ValueError, match=rf"^{name}: expected {noun}, got ") as e:
            FACTORIES[rule](**{name: value})
        assert str(e.value).endswith(repr(value))


@pytest.mark.parametrize(("rule", "name", "kind"), NUMBERS)
def test_a_config_and_the_library_agree(rule, name, kind):
    """The same values are refused, in the same words."""
    argument = arguments_of(RULES[rule])[name.rstrip("_")]
    assert argument.narrower == kind
    for value, text in WRONG[kind]:
        said = check_argument(value, argument, "float32")
        assert said is not None
        assert said.startswith(text)
    for value in RIGHT[kind]:
        assert check_argument(value, argument, "float32") is None


def test_known_numbers_are_read_inside_of_a_traced_function():
    """The comparison of concrete arrays would be traced there."""
    right, wrong = jnp.asarray(0.5), jnp.asarray(-1.0)
    one, none = jnp.asarray(1), jnp.asarray(0)

    def make(gamma, count):
        def traced(x):
            lra_jax.lra_diff(gamma=gamma, num_refinements=count)
            lra_jax.soft_orthogonality(gamma)
            return x

        return jax.eval_shape(traced, 0.0)

    make(right, one)
    with pytest.raises(ValueError, match=r"^gamma: expected a finite"):
        make(wrong, one)
    with pytest.raises(ValueError, match=r"^num_refinements: expected an integer of"):
        make(right, none)


@pytest.mark.parametrize("strength", [-0.1, np.nan, np.inf, "1", None])
def test_a_strength_is_a_finite_number_of_at_least_zero(strength):
    with pytest.raises(ValueError, match=r"^strength: expected a .*number") as error:
        lra_jax.soft_orthogonality(strength)
    assert str(error.value).endswith(f"got {strength!r}")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_defaults_are_in_their_own_range(optimizer):
    for argument in arguments_of(OPTIMIZERS[optimizer]).values():
        if not argument.required:
            assert check_argument(argument.default, argument, "float32") is None


# Sizes.

SIZES = [3, np.int64(3), np.uint8(3), np.array(3), jnp.asarray(3), jnp.uint8(3)]
NO_SIZES = [0, -1, 2.0, np.float32(3), True, np.True_, "3", None, [3], np.array([3])]


@pytest.mark.parametrize("size", SIZES, ids=repr)
def test_a_size_is_an_integer_of_any_make(size):
    found = settings.check_size("size", size)
    assert found == 3
    assert type(found) is int
    params = jax.eval_shape(
        lambda key: lra_jax.init_params(key, size, size, size), jax.random.key(0)
    )
    assert params.w_xh.shape == (3, 3)
    draw = functools.partial(TASKS["random_permutation"].sample)
    batch = jax.eval_shape(lambda key: draw(key, size, size), jax.random.key(0))
    assert batch.inputs.shape == (3, 3)
    kind = np.zeros(5, int)
    assert tiles.make(kind, 1, size, size).shape == tiles.make(kind, 1, 3, 3).shape


@pytest.mark.parametrize("size", NO_SIZES, ids=repr)
def test_what_is_no_size_is_named(size):
    given = r"^{}: expected .* integer.*, got "
    with pytest.raises(ValueError, match=given.format("hidden_size")) as error:
        lra_jax.init_params(jax.random.key(0), 6, size, 4)
    assert str(error.value).endswith(repr(size))
    sample = TASKS["temporal_order"].sample
    with pytest.raises(ValueError, match=given.format("batch_size")):
        sample(jax.random.key(0), size, 10)
    with pytest.raises(ValueError, match=given.format("seq_len")):
        sample(jax.random.key(0), 5, size)
    kind = np.zeros(5, int)
    if size is not None:
        with pytest.raises(ValueError, match=given.format("max_parallel")):
            tiles.make(kind, 1, size, None)
        with pytest.raises(ValueError, match=given.format("tile_width")):
            tiles.make(kind, 1, None, size)


def test_a_size_cannot_be_traced():
    with pytest.raises(ValueError, match=r"^size: expected .* got a traced value"):
        jax.eval_shape(lambda n: settings.check_size("size", n), jnp.asarray(3))


def test_an_input_gain_may_be_traced_or_concrete():
    one = lra_jax.init_params(jax.random.key(0), 3, 4, 2, input_gain=0.5)
    gain, key = jnp.asarray(0.5), jax.random.key(0)
    for function in (
        jax.jit(lambda gain: lra_jax.init_params(key, 3, 4, 2, input_gain=gain)),
        jax.jit(lambda _: lra_jax.init_params(key, 3, 4, 2, input_gain=gain)),
    ):
        np.testing.assert_allclose(function(gain).w_xh, one.w_xh, rtol=1e-6)


# Experiments and limits.


def build(numbers):
    return lra_jax.readout_only(), optax.sgd(numbers["lr"])


EXPERIMENT = Experiment(
    TASKS["temporal_order"],
    build,
    seq_len=10,
    hidden_size=3,
    batch_size=2,
    eval_every=2,
    num_validation=4,
)
FIELDS = ["seq_len", "hidden_size", "batch_size", "eval_every", "num_validation"]


@pytest.mark.parametrize("name", FIELDS)
def test_an_experiment_checks_its_sizes_when_it_is_made(name):
    wrong = [0, -1, 10.0, True, "10", None, np.float32(10), jnp.asarray(10.0)]
    if name == "num_validation":  # the task's own
        wrong.remove(None)
    for size in wrong:
        with pytest.raises(ValueError, match=rf"^{name}: expected .*, got ") as error:
            make_experiment(**{name: size})
        assert str(error.value).endswith(repr(size))
    for size in (np.int64(12), np.array(12), jnp.asarray(12)):
        found = make_experiment(**{name: size})
        assert type(getattr(found, name)) is int
        assert found == make_experiment(**{name: 12})
        assert hash(found) == hash(make_experiment(**{name: 12}))


def make_experiment(**changes):
    fields = {name: getattr(EXPERIMENT, name) for name in FIELDS}
    return Experiment(EXPERIMENT.task, build, **fields | changes)


def test_an_experiment_checks_all_else():
    with pytest.raises(ValueError, match=r"^seq_len: .* at least 10, got 9$"):
        make_experiment(seq_len=9)
    for gain in (0, -1.0, np.nan, "1", None):
        with pytest.raises(ValueError, match=r"^input_gain: expected a positive"):
            make_experiment(input_gain=gain)
    assert type(make_experiment(input_gain=np.float32(0.5)).input_gain) is float
    with pytest.raises(ValueError, match=r"^shared: expected a tuple of names, got"):
        make_experiment(shared="num_refinements")


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "max_steps": [0, -1, 4.0, True, "4", None, 2**31],
        "patience": [-1, 0.0, False, "1", None],
        "steps_after_solved": [-1, 0.0, False, "1", None],
    }.items(),
)
def test_a_limit_is_an_integer(name, values):
    for value in values:
        limits = sweep.Limits()._replace(**{name: value})
        with pytest.raises(ValueError, match=rf"^{name}: expected an integer") as error:
            lra_jax.run_sweep(EXPERIMENT, {"lr": [0.1]}, [0], limits=limits)
        assert str(error.value).endswith(repr(value))
    found = member.check_limits(sweep.Limits(np.int64(3), jnp.asarray(0), np.uint8(7)))
    assert found == (3, 0, 7)
    assert {type(x) for x in found} == {int}


# Seeds.


@pytest.mark.parametrize(
    "seeds",
    [
        [0, 2**32],
        [-1, 2**32 - 1],
        [0.0, 1.0],
        [0, np.nan],
        [True, False],
        [0, True],
        np.array([True, False]),
        ["0", "1"],
        [0, None],
        [0, 2**63],
        [0, 2**64],
        [-(2**70), 1],
        np.array([0, 2**32], np.uint64),
        np.array([-1, 0], np.int8),
        jnp.asarray([0.0, 1.0]),
    ],
    ids=repr,
)
def test_seeds_are_integers_of_32_bits(seeds):
    text = r"^seeds: expected integers from 0 to 2³² - 1, got "
    with pytest.raises(ValueError, match=text):
        sweep.make_grid(EXPERIMENT, {"lr": [0.1, 0.1]}, seeds)
    with pytest.raises(ValueError, match=text):
        lra_jax.run_sweep(EXPERIMENT, {"lr": [0.1, 0.1]}, seeds)


@pytest.mark.parametrize("seeds", [[], 0, [[0, 1]], [[0], [0, 1]], None])
def test_seeds_have_one_axis(seeds):
    with pytest.raises(ValueError, match=r"^seeds: expected \[N\] with N ≥ 1, got "):
        sweep.make_grid(EXPERIMENT, {}, seeds)


@pytest.mark.parametrize(
    "seeds",
    [
        [0, 2**32 - 1],
        [7, 7],
        range(2),
        (np.uint8(3), 4),
        np.array([0, 2**32 - 1], np.uint64),
        np.array([0, 1], np.int8),
        jnp.asarray([0, 1]),
    ],
    ids=repr,
)
def test_seeds_of_any_type_are_the_same(seeds):
    grid = sweep.make_grid(EXPERIMENT, {"lr": [0.1, 0.1]}, seeds)
    assert grid.seeds.dtype == np.uint32
    assert grid.seeds.tolist() == [int(x) for x in seeds]


# Values of a sweep.


@pytest.mark.parametrize(
    "values",
    [
        ["adam", "sgd"],
        ["0.1", "0.2"],
        [0.1, None],
        [0.1, "0.2"],
        [0.1, ...],
        [True, False],
        [0.1, True],
        [0.1, 1j],
        [0, 2**70],
        [b"1", b"2"],
        np.array(["2020", "2021"], "datetime64[Y]"),
    ],
    ids=repr,
)
def test_values_of_a_sweep_are_numbers(values):
    with pytest.raises(ValueError, match=r"^opt: expected numbers, got ") as error:
        lra_jax.run_sweep(EXPERIMENT, {"lr": [0.1, 0.1], "opt": values}, [0, 0])
    if isinstance(values, list):
        assert str(error.value).endswith(repr(values))


@pytest.mark.parametrize("values", [0.1, [0.1], [[0.1, 0.2]], [[0.1], [0.1, 0.2]]])
def test_a_sweep_has_one_value_per_member(values):
    with pytest.raises(
        ValueError, match=r"^lr: expected one value per member, shape \(2,\), got "
    ):
        sweep.make_grid(EXPERIMENT, {"lr": values}, [0, 0])


def test_a_long_list_is_not_printed_whole():
    with pytest.raises(ValueError, match=r"got \['x', 'x', 'x', 'x', ...\]$"):
        sweep.make_grid(EXPERIMENT, {"lr": ["x"] * 1000}, [0] * 1000)


def test_an_integer_that_jax_would_wrap_is_refused():
    with pytest.raises(
        ValueError, match=r"^lr: expected numbers that int32 can hold, got \[0, 4294"
    ):
        sweep.make_grid(EXPERIMENT, {"lr": [0, 2**32 + 1]}, [0, 0])


def test_values_that_are_not_finite_are_data():
    values = [np.nan, np.inf, -1.0]
    grid = sweep.make_grid(EXPERIMENT, {"lr": values}, [0, 0, 0])
    np.testing.assert_array_equal(grid.mapped["lr"], values)
    for dtype in (np.float16, jnp.bfloat16, np.int8, np.uint32):
        found = np.array([1, 2, 3]).astype(dtype)
        grid = sweep.make_grid(EXPERIMENT, {"lr": found}, [0, 0, 0])
        assert grid.mapped["lr"].dtype == dtype


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("lra_dif", "; did you mean 'lra_diff'?"),
        ("bptt", "; did you mean 'bptt'?"),
        (7, ""),
        ("", ""),
        ("zzz", ""),
        ("lra_diff" + "x" * 10**6, ""),
    ],
)
def test_a_wrong_name_is_told_the_nearest(word, hint):
    assert settings.did_you_mean(word, RULES) == hint


def test_the_nearest_name_may_be_like_it_in_nothing():
    assert settings.nearest("zzz", ["abc"]) is None
    assert settings.nearest("zzz", ["abc"], least=0) == "abc"
