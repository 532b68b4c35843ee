"""Rules where D is not H, or z not tanh of s, against their equations in NumPy.

A network is two functions here, of rows and of any weights, complex ones too: all its
derivatives are those of a complex step, exact to rounding. A rule is a loop over its
docstring's lines. Each test has a control beside it: the same comparison with one
factor of the loop changed fails by far.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_cases import H, Y, own, random_batch, random_params

import lra_jax
from lra_jax import networks
from x64.problems import distance

TOLERANCE = 1e-12
CONTROL = 1e-4  # a changed factor is seen as this at least
SMALL = 1e-30  # of complex steps

# Networks by their equations: rows s [R, D] and x [R, X].


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def relu(a):
    return np.where(a.real > 0, a, 0)


class Twin(NamedTuple):
    """s' = step(p, s, x), z = emit(s); `shown`: which numbers of s z is made of."""

    size: int
    step: object
    emit: object
    shown: slice
    as_is: bool = True  # whether zᵢ is a function of one number of s


def leaky_twin(alpha, f):
    def step(p, s, x):
        w_xh, w_hh, b_h = p
        return (1 - alpha) * s + alpha * (f(s) @ w_hh + x @ w_xh + b_h)

    return Twin(H, step, f, slice(0, H))


def gru_step(p, s, x):
    w_xh, w_hh, b_h, b_n = p
    r_x, u_x, n_x = np.split(x @ w_xh + b_h, 3, axis=1)
    r_s, u_s, n_s = np.split(s @ w_hh, 3, axis=1)
    r, u = sigmoid(r_x + r_s), sigmoid(u_x + u_s)
    return (1 - u) * np.tanh(n_x + r * (n_s + b_n)) + u * s


def lstm_step(p, s, x):
    w_xh, w_hh, b_h = p
    c, h = s[:, :H], s[:, H:]
    i, f, g, o = np.split(x @ w_xh + h @ w_hh + b_h, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return np.concatenate([c, sigmoid(o) * np.tanh(c)], axis=1)


def own_step(p, s, x):
    seen = np.concatenate([x, s[:, H:]], axis=1)
    return np.sin(seen @ p["a"]) * np.tile(p["tau"], 2) + 0.3 * s


def stacked(below, above):
    def step(p, s, x):
        first = below.step(p[0], s[:, : below.size], x)
        read = below.emit(first)
        return np.concatenate(
            [first, above.step(p[1], s[:, below.size :], read)], axis=1
        )

    def emit(s):
        return above.emit(s[:, below.size :])

    shown = slice(below.size + above.shown.start, below.size + above.shown.stop)
    return Twin(below.size + above.size, step, emit, shown)


GRU = Twin(H, gru_step, lambda s: s, slice(0, H))
LSTM = Twin(2 * H, lstm_step, lambda s: s[:, H:], slice(H, 2 * H))
OWN = Twin(2 * H, own_step, lambda s: np.arctan(s[:, H:]), slice(H, 2 * H), False)
PAIRS = {
    "leaky": (networks.leaky(alpha=0.4), leaky_twin(0.4, np.tanh)),
    "leaky sigmoid": (
        networks.leaky(alpha=0.3, nonlinearity="sigmoid"),
        leaky_twin(0.3, sigmoid),
    ),
    "relu": (networks.relu(), leaky_twin(1.0, relu)),
    "gru": (networks.gru(), GRU),
    "lstm": (networks.lstm(), LSTM),
    "leaky, lstm": (
        networks.stack(networks.leaky(alpha=0.4), networks.lstm()),
        stacked(leaky_twin(0.4, np.tanh), LSTM),
    ),
    "lstm, relu": (
        networks.stack(networks.lstm(), networks.relu()),
        stacked(LSTM, leaky_twin(1.0, relu)),
    ),
    "own": (own(), OWN),
}


def weigh(twin, cell, s_prev, x, q):
    """Σ over rows of (∂s/∂p)ᵀ q, like the cell."""
    leaves, tree = jax.tree.flatten(cell)
    found = []
    for i, leaf in enumerate(leaves):
        gradient = np.zeros_like(leaf)
        for index in np.ndindex(leaf.shape):
            moved = [w.astype(complex) for w in leaves]
            moved[i][index] += SMALL * 1j
            s = twin.step(jax.tree.unflatten(tree, moved), s_prev, x)
            gradient[index] = np.sum(q * s.imag) / SMALL
        found.append(gradient)
    return jax.tree.unflatten(tree, found)


def slope(twin, s, e):
    """(∂z/∂s)ᵀ e of rows."""
    found = np.zeros_like(s)
    for k in range(s.shape[1]):
        moved = s.astype(complex)
        moved[:, k] += SMALL * 1j
        found[:, k] = np.sum(e * twin.emit(moved).imag, axis=1) / SMALL
    return found


def spread(twin, s, e, change=""):
    """e at the numbers of s that z shows, as they are; else by ∂z/∂s."""
    if not twin.as_is and change != "σ' left out":
        return slope(twin, s, e)
    found = np.zeros_like(s)
    if change == "another part of s":
        found[:, : e.shape[1]] = e
    else:
        found[:, twin.shown] = e
    return found


# A problem, and what all rules have in common.


class Problem(NamedTuple):
    cell: object
    w_hy: np.ndarray
    x: np.ndarray  # [T, B, X]
    started: np.ndarray  # bool [T, B]
    s: np.ndarray  # [T, B, D]
    s_prev: np.ndarray
    z: np.ndarray  # [T, B, H]
    z_prev: np.ndarray
    pi: np.ndarray  # [T, B, Y], 0 where nothing is asked


def arrays(tree):
    return jax.tree.map(np.asarray, tree)


def problem_of(twin, params, batch):
    """The forward pass, and ∂E_b/∂logits of cross entropy."""
    cell, w_hy, b_y = arrays(params)
    x, labels = np.asarray(batch.inputs), np.asarray(batch.labels)
    length, size, _ = x.shape
    starts = np.zeros(size, int) if batch.start is None else np.asarray(batch.start)
    started = np.arange(length)[:, None] >= starts
    x = x * started[..., None]
    s = np.zeros((length + 1, size, twin.size))
    for t in range(length):
        s[t + 1] = twin.step(cell, s[t], x[t]) * started[t][:, None]
    z = np.array([twin.emit(each) for each in s])
    logits = z[1:] @ w_hy + b_y
    share = np.exp(logits) / np.sum(np.exp(logits), axis=-1, keepdims=True)
    if labels.ndim == 1:  # of the last step
        pi = np.zeros_like(share)
        pi[-1] = share[-1] - np.eye(Y)[labels]
    else:
        asked = labels >= 0
        pi = (share - np.eye(Y)[labels]) * (asked / asked.sum(axis=0))[..., None]
    return Problem(cell, w_hy, x, started, s[1:], s[:-1], z[1:], z[:-1], pi)


def gradients_of(twin, problem, q):
    """Σₜ mean_b (∂sₜ/∂p)ᵀ qₜ, and those of E in the readout."""
    q = q * problem.started[..., None]
    size = problem.x.shape[1]
    s_prev, x, q = (
        a.reshape(-1, a.shape[-1]) for a in (problem.s_prev, problem.x, q / size)
    )
    w_hy = np.einsum("tbh,tby->hy", problem.z, problem.pi) / size
    b_y = problem.pi.sum(axis=(0, 1)) / size
    return weigh(twin, problem.cell, s_prev, x, q), w_hy, b_y


def worst(found, expected):
    """The largest distance of all arrays."""
    found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
    return max(distance(a, b) for a, b in zip(found, expected, strict=True))


def of_info(info):
    return info.local_loss, info.target_step_norm


@functools.cache
def setting(name, every_step=False, starts=False):
    network, twin = PAIRS[name]
    params = random_params(network)
    batch = random_batch(vectors=True, start=np.array([1, 0, 3]) if starts else None)
    if every_step:
        labels = np.random.default_rng(5).integers(Y, size=batch.inputs.shape[:2])
        batch = batch._replace(labels=jnp.asarray(labels))
    return params, batch, problem_of(twin, params, batch)


# tptt: of the docstring, with U, V, c and their Nesterov momentum.

RATES = {"target_lr": 3.0, "feedback_lr": 0.2, "noise_std": 0.3}
MOMENTUM = 0.8


def tptt_twin(twin, problem, inverse, velocity, noise, change=""):
    """Gradients, the new inverse and its velocity, local losses and ‖sₜ - ŝₜ‖."""
    s, s_prev, x = problem.s, problem.s_prev, problem.x
    length, size, width = s.shape
    mean = 2 / (size * (H if change == "a mean over H" else width))
    noisy = s_prev + noise
    f = np.array(
        [twin.step(problem.cell, *here) for here in zip(noisy, x, strict=True)]
    )
    u, v, c = inverse
    g = mean * (x @ u + f @ v + c - noisy) * problem.started[..., None]
    down = (
        np.einsum("tbx,tbd->xd", x, g),
        np.einsum("tbe,tbd->ed", noisy if change == "f of s̃" else f, g),
        g.sum(axis=(0, 1)),
    )
    step = [RATES["feedback_lr"] * each for each in down]
    velocity = [MOMENTUM * w - each for w, each in zip(velocity, step, strict=True)]
    ahead = 0 if change == "no look ahead" else MOMENTUM
    learned = [
        p + (ahead * w - each if ahead else w)
        for p, w, each in zip(inverse, velocity, step, strict=True)
    ]
    u, v, c = inverse if change == "the inverse before" else learned
    if change == "Vᵀ":
        v = v.T
    rate = RATES["target_lr"] / (1 if change == "no 1/B" else size)
    own = rate * np.array(
        [
            slope(twin, *here)
            for here in zip(s, problem.pi @ problem.w_hy.T, strict=True)
        ]
    )
    s_hat = np.zeros_like(s)
    s_hat[-1] = s[-1] - own[-1]
    for t in reversed(range(1, length)):
        back = (x[t] @ u + s[t] @ v + c) - (x[t] @ u + s_hat[t] @ v + c)
        s_hat[t - 1] = s[t - 1] - back - own[t - 1]
    e = (s - s_hat) * problem.started[..., None]
    q = 2 / (H if change == "q = (2/H) e" else width) * e
    sizes = np.linalg.norm(e, axis=2)
    info = np.mean(sizes**2, axis=1) / width, np.mean(sizes, axis=1)
    return gradients_of(twin, problem, q), learned, velocity, info


@functools.cache
def tptt_updates(name, every_step, starts):
    """What two updates of the library give, with all that the twin needs."""
    network, _ = PAIRS[name]
    params, batch, problem = setting(name, every_step, starts)
    loss = lra_jax.cross_entropy_every_step if every_step else lra_jax.cross_entropy
    rule = lra_jax.tptt(
        **RATES, feedback_momentum=MOMENTUM, output_loss=loss, network=network
    )
    grads, state, found = jax.jit(rule.grads), rule.init(jax.random.key(7), params), []
    for key in jax.random.split(jax.random.key(8), 2):
        before = arrays((tuple(state.inverse), tuple(state.velocity)))
        noise = RATES["noise_std"] * jax.random.normal(key, problem.s.shape)
        update, state, info = grads(key, params, state, batch)
        after = tuple(state.inverse), tuple(state.velocity)
        found.append(((*before, np.asarray(noise)), (update, *after, of_info(info))))
    return found


def tptt_errors(name, every_step=False, starts=False, change="", twin=None):
    """Of the second update, in which no part of the inverse or velocity is 0."""
    problem = setting(name, every_step, starts)[2]
    given, found = tptt_updates(name, every_step, starts)[1]
    assert min(np.abs(w).max() for w in jax.tree.leaves(given)) > 1e-3
    expected = tptt_twin(twin or PAIRS[name][1], problem, *given, change)
    return [worst(a, b) for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize(
    ("name", "every_step", "starts"),
    [
        ("leaky", False, True),
        ("leaky", True, False),
        ("relu", False, False),
        ("gru", False, False),
        ("lstm", False, True),
        ("lstm", True, False),
        ("leaky, lstm", False, False),
    ],
)
def test_tptt_of_states_and_an_affine_inverse(name, every_step, starts):
    assert max(tptt_errors(name, every_step, starts)) < TOLERANCE


def test_tptt_begins_with_no_input_weights_of_the_inverse():
    """U = 0 and c = 0, V orthogonal, and no velocity."""
    (given, _), _ = tptt_updates("lstm", False, True)
    (u, v, c), velocity, _ = given
    assert (u.shape, v.shape) == ((6, 2 * H), (2 * H, 2 * H))
    assert not any(np.any(w) for w in (u, c, *velocity))
    np.testing.assert_allclose(v @ v.T, np.eye(2 * H), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "which"),
    [  # gradients, inverse, velocity, info
        ("q = (2/H) e", "1000"),
        ("no 1/B", "1001"),
        ("Vᵀ", "1001"),
        ("the inverse before", "1001"),
        ("a mean over H", "1111"),
        ("f of s̃", "1111"),
        ("no look ahead", "1101"),
    ],
)
def test_tptt_is_not_that_of_a_changed_factor(change, which):
    """And the change is seen in what it concerns alone."""
    for error, is_seen in zip(tptt_errors("lstm", change=change), which, strict=True):
        assert error > CONTROL if is_seen == "1" else error < TOLERANCE


def test_tptt_of_leaky_knows_its_leak():
    assert max(tptt_errors("leaky", twin=leaky_twin(0.41, np.tanh))) > CONTROL


# Rules with feedback weights of their own.


def error_at(twin, s, d):
    """e = z - ẑ,  ẑ = emit(s - d), of rows."""
    return twin.emit(s) - twin.emit(s - d)


def dfa(twin, problem, state, change=""):
    """qₜ = (∂z/∂s)ᵀ (π E_y)."""
    (e_y,) = state
    e = problem.pi[-1] @ e_y
    back = spread if change == "σ' left out" else slope
    given = (change,) if change == "σ' left out" else ()
    q = np.array([back(twin, s, e, *given) for s in problem.s])
    if change == "the last step alone":
        q[:-1] = 0
    return q, None, state


def lra_e(twin, problem, state, change="", *, beta, feedback_lr, skip=None):
    """lra_e, and with j steps per skip rec_lra.

    e_{T-1} = z - emit(s - β π E_y),   eₜ₋₁ = z - emit(s - β eₜ A),   qₜ = eₜ where z
    shows s;   A ← A - κ Σₜ mean_b eₜᵀ zₜ₋₁,   E_y ← E_y - κ mean_b πᵀ z_{T-1}.
    """
    (e_y, a), e_skip = state[:2], state[-1]
    length, size, _ = problem.s.shape
    pi = problem.pi[-1]
    e = np.zeros_like(problem.z)
    e[-1] = error_at(twin, problem.s[-1], beta * pi @ e_y)
    for t in reversed(range(length - 1)):
        back = length - 1 - t + (change == "skips a step later")
        jumps = skip is not None and back % skip == 0
        received = pi @ e_skip if jumps else e[t + 1] @ a
        e[t] = error_at(twin, problem.s[t], beta * received)
    e *= problem.started[..., None]
    at = functools.partial(spread, twin, change=change)
    q = np.array([at(*here) for here in zip(problem.s, e, strict=True)])
    down_a, down_y = np.zeros_like(a), pi.T @ at(problem.s[-1], problem.z[-1]) / size
    before = problem.z_prev
    if change == "z₋₁ = 0":
        before = before * np.any(problem.s_prev, axis=2, keepdims=True)
    for t in range(length):
        down_a += e[t].T @ at(problem.s_prev[t], before[t]) / size
    learned = (e_y - feedback_lr * down_y, a - feedback_lr * down_a)
    return q, e, learned + tuple(state[2:])


def rec_lra(twin, problem, state, change="", *, num_steps_per_skip, **numbers):
    return lra_e(twin, problem, state, change, skip=num_steps_per_skip, **numbers)


def lra_fdbk(twin, problem, state, change="", *, gamma, c1):
    """dₜ₋₁ = γ Normalize(qₜ A, c1),  qₜ = (2/H) (∂z/∂s)ᵀ eₜ."""
    (a,) = state
    length, _, width = problem.s.shape
    e, q = np.zeros_like(problem.z), np.zeros_like(problem.s)
    step = slope(twin, problem.s[-1], problem.pi[-1] @ problem.w_hy.T)
    for t in reversed(range(length)):
        norm = np.linalg.norm(step, axis=1, keepdims=True)
        if c1 and change != "no bound":
            step = np.where(norm >= c1, step * c1 / norm, step)
        e[t] = error_at(twin, problem.s[t], gamma * step)
        q[t] = slope(twin, problem.s[t], 2 / (width if change == "2/D" else H) * e[t])
        step = q[t] @ (a.T if change == "Aᵀ" else a)
    return q, e * problem.started[..., None], state


TWINS = {"dfa": dfa, "lra_e": lra_e, "rec_lra": rec_lra, "lra_fdbk": lra_fdbk}
SETTINGS = {
    "dfa": {},
    "lra_e": {"beta": 1.5, "feedback_lr": 0.3},
    "rec_lra": {"beta": 1.5, "feedback_lr": 0.3, "num_steps_per_skip": 2},
    "lra_fdbk": {"gamma": 4.0, "c1": 0.2},
}


@functools.cache
def found_of(rule, name, starts):
    """Gradients, local losses and the state after, of the library; the state before."""
    network, _ = PAIRS[name]
    params, batch, _ = setting(name, starts=starts)
    made = lra_jax.RULES[rule](**SETTINGS[rule], network=network)
    state = made.init(jax.random.key(2), params)
    grads, after, info = jax.jit(made.grads)(jax.random.key(3), params, state, batch)
    return arrays(jax.tree.leaves(state)), (grads, of_info(info), after)


def errors_of(rule, name, starts=False, change=""):
    """How far gradients, what is reported, and the state after are from the twin's."""
    twin, problem = PAIRS[name][1], setting(name, starts=starts)[2]
    before, (grads, info, after) = found_of(rule, name, starts)
    q, e, state = TWINS[rule](twin, problem, before, change, **SETTINGS[rule])
    expected = None, None
    if e is not None:
        sizes = np.linalg.norm(e, axis=2)
        expected = np.mean(sizes**2, axis=1) / H, np.mean(sizes, axis=1)
    assert (info == (None, None)) == (e is None)
    return (
        worst(grads, gradients_of(twin, problem, q)),
        0.0 if e is None else worst(info, expected),
        worst(after, state),
    )


@pytest.mark.parametrize("rule", TWINS)
@pytest.mark.parametrize(
    ("name", "starts"), [("lstm", True), ("leaky, lstm", False), ("lstm, relu", False)]
)
def test_rules_with_feedback_of_their_own_where_z_is_a_part_of_the_state(
    rule, name, starts
):
    assert max(errors_of(rule, name, starts)) < TOLERANCE


@pytest.mark.parametrize("rule", TWINS)
def test_rules_with_feedback_of_their_own_where_z_is_no_part_of_the_state(rule):
    assert max(errors_of(rule, "own")) < TOLERANCE


@pytest.mark.parametrize("rule", ["lra_e", "rec_lra"])
def test_error_synapses_learn_from_what_is_emitted_before_the_first_step(rule):
    """Of sigmoid units that is 1/2."""
    assert max(errors_of(rule, "leaky sigmoid", True)) < TOLERANCE


@pytest.mark.parametrize(
    ("rule", "shapes"),
    [
        ("dfa", [(Y, H)]),
        ("lra_e", [(Y, 3 * H), (H, 3 * H)]),
        ("rec_lra", [(Y, 3 * H), (H, 3 * H), (Y, 3 * H)]),
        ("lra_fdbk", [(3 * H, 3 * H)]),
    ],
)
def test_feedback_weights_end_at_all_of_the_state(rule, shapes):
    before, _ = found_of(rule, "leaky, lstm", False)
    assert [w.shape for w in before] == shapes


@pytest.mark.parametrize(
    ("rule", "name", "change", "which"),
    [  # gradients, info, state
        ("dfa", "own", "σ' left out", "100"),
        ("dfa", "lstm", "the last step alone", "100"),
        ("lra_e", "own", "σ' left out", "101"),
        ("lra_e", "leaky, lstm", "another part of s", "101"),
        ("lra_e", "leaky sigmoid", "z₋₁ = 0", "001"),
        ("rec_lra", "lstm", "another part of s", "101"),
        ("rec_lra", "lstm", "skips a step later", "111"),
        ("lra_fdbk", "lstm", "2/D", "110"),
        ("lra_fdbk", "leaky, lstm", "Aᵀ", "110"),
        ("lra_fdbk", "leaky, lstm", "no bound", "110"),
    ],
)
def test_they_are_not_those_of_a_changed_factor(rule, name, change, which):
    """And the change is seen in what it concerns alone."""
    starts = name == "lstm" or (rule, name) == ("lra_e", "leaky sigmoid")
    errors = errors_of(rule, name, starts, change)
    for error, is_seen in zip(errors, which, strict=True):
        assert error > CONTROL if is_seen == "1" else error < TOLERANCE
