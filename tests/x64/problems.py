"""Random problems for the oracle and for the library, and how to compare them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from oracles import numpy_lra as oracle

import lra_jax

OUTPUT_LOSSES = {
    "cross_entropy": (lra_jax.cross_entropy, oracle.cross_entropy),
    "squared_error": (lra_jax.squared_error, oracle.squared_error),
}


EVERY_STEP_LOSSES = {
    "binary_cross_entropy_every_step": (
        lra_jax.binary_cross_entropy_every_step,
        oracle.EveryStep(oracle.binary_cross_entropy),
    ),
    "cross_entropy_every_step": (
        lra_jax.cross_entropy_every_step,
        oracle.EveryStep(oracle.cross_entropy),
    ),
}
# Of which labels without weights do not say what is asked.
WEIGHTED_LOSSES = {
    "squared_error_every_step": (
        lra_jax.squared_error_every_step,
        oracle.EveryStep(oracle.squared_error, is_mean=True),
    ),
}
ALL_LOSSES = OUTPUT_LOSSES | EVERY_STEP_LOSSES | WEIGHTED_LOSSES


class Sizes(NamedTuple):
    length: int = 5
    batch: int = 3
    inputs: int = 4
    hidden: int = 4
    outputs: int = 3


class Problem(NamedTuple):
    params: oracle.Params
    inputs: np.ndarray
    labels: np.ndarray
    output: str = "cross_entropy"
    start: np.ndarray | None = None

    @property
    def library(self):
        """`Params` and `Batch` of the library."""
        params = lra_jax.Params(*map(jnp.asarray, self.params))
        labels = self.labels
        if isinstance(labels, oracle.Weighted):
            labels = lra_jax.Weighted(*labels)
        batch = lra_jax.Batch(self.inputs, labels, self.start)
        return params, jax.tree.map(jnp.asarray, batch)

    @property
    def library_loss(self):
        return ALL_LOSSES[self.output][0]

    @property
    def oracle_loss(self):
        return ALL_LOSSES[self.output][1]


def random_problem(seed, sizes=None, *, tokens=True, output="cross_entropy"):
    """Weights that are not orthogonal, biases that are not zero."""
    length, batch, inputs, hidden, outputs = sizes or Sizes()
    rng = np.random.default_rng(seed)
    params = oracle.Params(
        w_xh=rng.normal(size=(inputs, hidden)) * 0.7,
        w_hh=rng.normal(size=(hidden, hidden)) * 1.2 / np.sqrt(hidden),
        b_h=rng.normal(size=hidden) * 0.3,
        w_hy=rng.normal(size=(hidden, outputs)),
        b_y=rng.normal(size=outputs) * 0.3,
    )
    x = (
        rng.integers(inputs, size=(length, batch))
        if tokens
        else rng.normal(size=(length, batch, inputs))
    )
    labels = (
        rng.integers(outputs, size=batch)
        if output == "cross_entropy"
        else rng.normal(size=(batch, outputs))
    )
    return Problem(params, x, labels, output)


@functools.cache
def task_problem(name, length=10, batch=3, hidden=5):
    """A batch of a task, with such weights."""
    task = lra_jax.TASKS[name]
    output = next(
        k for k, (loss, _) in OUTPUT_LOSSES.items() if loss == task.output_loss
    )
    sizes = Sizes(length, batch, task.input_size, hidden, task.output_size)
    drawn = task.sample(jax.random.key(0), batch, length)
    problem = random_problem(14, sizes, output=output)
    return problem._replace(
        inputs=np.asarray(drawn.inputs), labels=np.asarray(drawn.labels)
    )


def step_inputs(problem):
    """The same problem where symbol t stands at step t and nowhere else.

    Row t of ∇W_xh is then mean_b u_t: each step's part can be read off.
    """
    length, batch = problem.inputs.shape
    assert problem.params.w_xh.shape[0] >= length
    return problem._replace(inputs=np.tile(np.arange(length)[:, None], (1, batch)))


@functools.cache
def compiled(factory, **static):
    """A rule's update with its numbers traced: one program for many settings."""

    def update(params, batch, numbers):
        rule = factory(**static, **numbers)
        key = jax.random.key(0)
        before = rule.init(key, params)
        grads, after, info = rule.grads(key, params, before, batch)
        return grads, info, before, after

    return jax.jit(update)


def run(factory, problem, /, **options):
    """(grads, info) of a rule, with the options of `update`."""
    return update(factory, problem, **options)[:2]


def update(factory, problem, /, *, static=(), **options):
    """(grads, info, state before, state after) of a rule, with strict promotion.

    Choices and `static`, a dict, are Python values; all other options are traced.
    """
    static = dict(static) | {
        name: options.pop(name)
        for name, value in list(options.items())
        if isinstance(value, str | bool)
    }
    with jax.numpy_dtype_promotion("strict"):
        program = compiled(factory, **static, output_loss=problem.library_loss)
        return program(*problem.library, options)


def distance(actual, expected):
    """The largest difference, relative to the largest entry of `expected`."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert actual.dtype == np.float64
    assert np.all(np.isfinite(actual))
    assert np.all(np.isfinite(expected))
    return np.max(np.abs(actual - expected)) / max(np.max(np.abs(expected)), 1e-300)


def assert_close(actual, expected, tolerance=1e-10):
    """Equal to `tolerance` relative to each array's largest entry; None equals None."""
    assert type(actual)._fields == type(expected)._fields
    for name, a, b in zip(type(expected)._fields, actual, expected, strict=True):
        assert (a is None) == (b is None), name
        if b is not None:
            found = distance(a, b)
            assert found <= tolerance, f"{name}: {found:.2e}\n{a}\n{b}"


def assert_identical(actual, expected):
    """Equal bit for bit."""
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)
