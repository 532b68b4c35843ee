"""lra_released against the released code's own numbers, and against autodiff."""

import golden_cases as golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lra_jax.paper.released import released_gradients
from x64.problems import Sizes, distance, random_problem

FINITE = [name for name in golden.CASES if "nan" not in name]
NAN = [name for name in golden.CASES if "nan" in name and "float32" not in name]


def results(name, *, python_numbers=()):
    """The file's arrays, and the library's; its numbers are traced, but for some."""
    arrays = golden.load(name)
    numbers = golden.numbers_of(arrays)
    static = {key: numbers.pop(key) for key in python_numbers}

    @jax.jit
    def grads(params, batch, numbers):
        return golden.gradients_of(arrays, params, batch, numbers | static)

    with jax.numpy_dtype_promotion("strict"):
        found = grads(golden.params_of(arrays), golden.batch_of(arrays), numbers)
    return arrays, jax.device_get(found)


def tolerance(arrays, name):
    """That of the files' README; the spread of a bias's norms is that of the bias."""
    spread = arrays.get(f"spread_{name.replace('b_h_norms', 'b_h')}", 0.0)
    return 1e-13 * np.max(np.abs(arrays[name])) + 10 * spread


def assert_within(arrays, found):
    assert len(found) == 11
    for name, actual in found.items():
        assert actual.dtype == np.float64
        assert actual.shape == arrays[name].shape
        error = np.abs(actual - arrays[name])
        assert np.all(error <= tolerance(arrays, name)), (name, error)


@pytest.mark.parametrize("name", FINITE)
def test_the_released_codes_numbers(name):
    assert_within(*results(name))


def test_the_released_codes_numbers_with_numbers_of_python():
    """λ = 0 in case_06, which leaves Ω out of the program."""
    names = ("gamma", "num_refinements", "lambda_", "c")
    assert_within(*results("case_06", python_numbers=names))
    assert_within(*results("case_02", python_numbers=names))


@pytest.mark.optimized
@pytest.mark.parametrize("name", NAN)
def test_the_released_codes_nan(name):
    if name == "case_nan_01" and jax.__version_info__ >= (0, 12):
        pytest.skip(
            "0 / 0 where a refinement comes back to a state to the last bit, which it "
            "does not in the CPU code of JAX 0.12"
        )
    arrays, found = results(name)
    assert any(np.any(np.isnan(arrays[key])) for key in found)
    for key, actual in found.items():
        expected = arrays[key]
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected), key)
        number = ~np.isnan(expected)
        scale = np.max(np.abs(expected), where=number, initial=0)
        np.testing.assert_allclose(
            actual[number], expected[number], rtol=0, atol=1e-12 * scale, err_msg=key
        )


def test_all_files_are_compared():
    assert len(FINITE) == 9
    assert len(NAN) == 2
    assert len(golden.CASES) == 12  # the last one is in float32


# Autodiff: docs/reproduction.md's description of the program, as it is said there.

LOSSES = {"mse": jnp.square, "log_penalty": lambda e: jnp.log(1 + e**2)}


def norm(x):
    return jnp.sqrt(jnp.sum(x**2))


def bounded(grad, c):
    size = norm(grad)
    return grad * c / size if c != 0 and size >= c else grad


def omega(u, m, w):
    return (norm(m[:, None] * (u @ w.T)) / norm(u) - 1) ** 2


def m_of(h):
    return 1 - jnp.tanh(jnp.diagonal(h)) ** 2


def reference(
    params, x, labels, output, *, gamma, num_refinements, lambda_, c, loss, descend=True
):
    """The program with each derivative taken by `jax.grad`; x is `[T, B, X]`."""
    seq_len = len(x)
    theta = params[:3]
    ell = LOSSES[loss]

    def states(theta, at=None, shift=0.0):
        w_xh, w_hh, b_h = theta
        h, z = [], [jnp.zeros((x.shape[1], len(b_h)))]
        for t in range(seq_len):
            h.append(z[-1] @ w_hh + x[t] @ w_xh + b_h[None])
            if t == at:
                h[-1] += shift
            z.append(jnp.tanh(h[-1]))
        return h, z[1:]

    def global_loss(z, w_hy, b_y):
        return jnp.mean(output.value(z @ w_hy + b_y[None], labels))

    def phi(p, q):
        return jnp.mean(ell(p - q))

    def local(theta, step, *shift):
        w_xh, w_hh, b_h = theta
        h, z = states(theta, *shift)
        z_hat = jnp.tanh(h[step] - d[step])
        if step == seq_len - 1:
            return phi(z[step], z_hat)
        ahead = jnp.tanh(z_hat @ w_hh + x[step + 1] @ w_xh + b_h[None])
        return phi(z[step + 1], ahead)

    def argument(step):
        """The second argument of φ, as a number."""
        if step == seq_len - 1:
            return jnp.tanh(h[step] - d[step])
        z_hat = jnp.tanh(h[step] - d[step])
        return jnp.tanh(z_hat @ w_hh + x[step + 1] @ w_xh + b_h[None])

    w_xh, w_hh, b_h, w_hy, b_y = params
    h, z = states(theta)
    d = {}

    def output_u(z_bar):
        logits = z_bar @ w_hy + b_y[None]
        return jax.grad(lambda o: jnp.mean(output.value(o, labels)))(logits)

    g_hy, g_y = jax.grad(global_loss, (1, 2))(z[-1], w_hy, b_y)
    if lambda_ != 0:
        g_hy += lambda_ * jax.grad(omega, 2)(output_u(z[-1]), m_of(h[-1]), w_hy)
    h_bar = h[-1]
    for _ in range(num_refinements):
        delta = jax.grad(lambda v: global_loss(jnp.tanh(v), w_hy, b_y))(h_bar)
        if lambda_ != 0:
            u = output_u(jnp.tanh(h_bar))
            delta += lambda_ * jax.grad(lambda v, u: omega(u, m_of(v), w_hy))(h_bar, u)
        h_bar = h_bar - gamma * bounded(delta, c)
    d[seq_len - 1] = h[-1] - h_bar

    total = [jnp.zeros_like(w) for w in theta]
    logged = [0.0] * seq_len
    for step in range(seq_len - 1, 0, -1):
        top = step == seq_len - 1
        logged[step] = local(theta, step)
        parts = [w if descend else 0 * w for w in jax.grad(local)(theta, step)]
        above = step if top else step + 1
        to_z = jax.grad(phi)(z[above], argument(step))
        u = to_z if top else to_z * (1 - z[above] ** 2)
        if lambda_ != 0 and not top and logged[step] != 0:
            own = jax.grad(
                lambda theta, at, u: omega(u, m_of(states(theta)[0][at]), w_hh)
            )(theta, step, u)
            parts[0] += lambda_ * own[0]
        for i, part in enumerate(parts):
            total[i] += part if i == 2 else bounded(part, c)

        h_bar = h[step - 1]
        for k in range(num_refinements):
            if k == 0:
                delta = jax.grad(lambda s, at: local(theta, at, at - 1, s))(
                    jnp.zeros_like(h_bar), step
                )
                u = u if top else u @ w_hh.T
            else:

                def ahead(v, at):
                    return jnp.tanh(jnp.tanh(v) @ w_hh + x[at] @ w_xh + b_h[None])

                delta = jax.grad(lambda v, at: phi(z[at], ahead(v, at)))(h_bar, step)
                u = jax.grad(phi, 1)(z[step], ahead(h_bar, step))
            if lambda_ != 0:
                delta += lambda_ * jax.grad(lambda v, u: omega(u, m_of(v), w_hh))(
                    h_bar, u
                )
            h_bar = h_bar - gamma * bounded(delta, c)
        d[step - 1] = h[step - 1] - h_bar
    final = global_loss(jnp.tanh(h[-1] - d[seq_len - 1]), w_hy, b_y)
    return (*total, g_hy if c == 0 else bounded(g_hy, c), g_y), jnp.array(logged), final


SIZES = {
    "usual": Sizes(hidden=6),
    "T=1": Sizes(length=1),
    "T=2": Sizes(length=2),
    "T=3": Sizes(length=3),
    "B=1": Sizes(batch=1),
    "B=H": Sizes(batch=4, hidden=4),
}
NUMBERS = {
    "plain": {"gamma": 3.0, "num_refinements": 1, "lambda_": 0.0, "c": 0.0},
    "all": {"gamma": 2.0, "num_refinements": 3, "lambda_": 0.3, "c": 0.02},
}


# sizes, numbers, local loss, and what else the problem is.
PROBLEMS = [
    *((sizes, "all", "mse", {}) for sizes in SIZES),
    ("usual", "plain", "mse", {}),
    ("usual", "plain", "log_penalty", {}),
    ("usual", "all", "log_penalty", {}),
    ("usual", "all", "mse", {"tokens": False}),
    ("usual", "all", "mse", {"output": "squared_error"}),
    ("usual", "all", "log_penalty", {"descend": False}),
]


# The first has all parts; the audit's rule does not change.
@pytest.mark.parametrize(
    ("sizes", "numbers", "loss", "kind"),
    [PROBLEMS[0], *(pytest.param(*p, marks=pytest.mark.slow) for p in PROBLEMS[1:])],
)
def test_closed_forms_are_automatic_differentiation(sizes, numbers, loss, kind):
    descend = kind.get("descend", True)
    kind = {key: value for key, value in kind.items() if key != "descend"}
    problem = random_problem(7, SIZES[sizes], **kind)
    params, batch = problem.library
    tokens = kind.get("tokens", True)
    x = jnp.eye(len(params.w_xh))[batch.inputs] if tokens else batch.inputs
    grads, logged, final = reference(
        params,
        x,
        batch.labels,
        problem.library_loss,
        **NUMBERS[numbers],
        loss=loss,
        descend=descend,
    )

    @jax.jit
    def library(numbers):
        return released_gradients(
            params,
            batch,
            **numbers,
            local_loss=loss,
            descend_local_loss=descend,
            output_loss=problem.library_loss,
        )

    found = library(NUMBERS[numbers])
    for actual, expected in zip(found.grads, grads, strict=True):
        assert distance(actual, expected) < 1e-9
    assert distance(found.local_loss, logged) < 1e-9
    assert distance(found.target_loss, final) < 1e-12
