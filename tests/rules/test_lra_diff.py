"""lra_diff in float32: tiny displacements, limits, switches and the regulariser."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close, assert_identical
from oracles import numpy_lra as oracle

import lra_jax
from lra_jax import error_signals, losses, numerics, regularizer, targets

T, B, X, H, Y = 10, 5, 6, 16, 4
CHOICES = (
    "local_loss",
    "reduction",
    "normalization",
    "refinement",
    "update_first_step",
    "descend_local_loss",
    "schedule",
)
HIDDEN = ("w_xh", "w_hh", "b_h")
SCHEDULES = tuple(regularizer.SCHEDULES)


def lra_diff(params, batch, **arguments):
    """(grads, info) of the rule."""
    rule = lra_jax.lra_diff(**arguments)
    grads, _, info = rule.grads(jax.random.key(0), params, lra_jax.EmptyState(), batch)
    return grads, info


jitted = jax.jit(lra_diff, static_argnames=CHOICES)


def run(params, batch, **arguments):
    """(grads, info) with all numbers traced: one program for each set of choices.

    λ is the exception: left out, Ω is not in the program.
    """
    numbers = {"num_refinements": 1, "c0": 0.0, "c1": 0.0}
    return jax.device_get(jitted(params, batch, **numbers | arguments))


@functools.cache
def problem():
    """Weights that are not orthogonal and biases that are not 0, and a batch."""
    rng = np.random.default_rng(3)
    params = lra_jax.Params(
        w_xh=rng.normal(size=(X, H)) * 0.5,
        w_hh=rng.normal(size=(H, H)) * 1.1 / np.sqrt(H),
        b_h=rng.normal(size=H) * 0.2,
        w_hy=rng.normal(size=(H, Y)),
        b_y=rng.normal(size=Y) * 0.2,
    )
    batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(0), B, T)
    return jax.tree.map(lambda w: jnp.asarray(w, jnp.float32), params), batch


def in_float64(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def hidden(grads):
    return {name: getattr(grads, name) for name in HIDDEN}


def largest(tree):
    return max(np.abs(x).max() for x in jax.tree.leaves(tree))


# The whole rule against float64.

SETTINGS = {
    "plain": {"gamma": 5.0},
    "K = 3": {"gamma": 5.0, "num_refinements": 3},
    "overwrite": {"gamma": 5.0, "num_refinements": 3, "refinement": "overwrite"},
    "log_penalty, sum": {
        "gamma": 0.5,
        "num_refinements": 2,
        "local_loss": "log_penalty",
        "reduction": "sum",
    },
    "clip": {"gamma": 20.0, "num_refinements": 2, "c0": 0.02, "c1": 0.05},
    "force": {"gamma": 1.0, "c0": 0.5, "c1": 0.1, "normalization": "force"},
    "omega": {"gamma": 10.0, "num_refinements": 2, "lambda_": 0.3, "c1": 0.1},
    "matched": {"gamma": 5.0, "lambda_": 0.3, "schedule": "matched"},
    "shrinkage": {"gamma": 5.0, "lambda_": 0.3, "schedule": "shrinkage"},
    "error_ratio": {"gamma": 5.0, "lambda_": 0.3, "schedule": "error_ratio"},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_float32_agrees_with_float64_numpy(setting):
    params, batch = problem()
    arguments = SETTINGS[setting]
    # The oracle takes direct differences, which float64 can afford at this size.
    expected = oracle.lra_diff(in_float64(params), *batch, **arguments)
    grads, info = run(params, batch, **arguments)
    assert_close(tuple(grads), tuple(expected.grads), 1e-4)
    assert_close(tuple(info), tuple(expected.info), 1e-4)


# The limit without a target step.


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"local_loss": "log_penalty", "refinement": "overwrite", "reduction": "sum"},
        {"normalization": "force", "update_first_step": False},
    ],
    ids=str,
)
def test_without_a_target_step_hidden_gradients_are_exactly_zero(choices):
    params, batch = problem()
    numbers = {"gamma": 0.0, "num_refinements": 3, "c0": 1.0, "c1": 1.0}
    grads, info = run(params, batch, **numbers, **choices)
    for gradient in hidden(grads).values():
        np.testing.assert_array_equal(gradient, 0)
    np.testing.assert_array_equal(info.local_loss, 0)
    np.testing.assert_array_equal(info.w_hh_grad_norm, 0)
    np.testing.assert_array_equal(info.w_xh_grad_norm, 0)
    assert info.target_step_norm[-1] > 0


def found_targets(
    params,
    batch,
    gamma,
    num_refinements,
    refinement="fixed",
    lambda_=None,
    schedule="constant",
):
    step = targets.TargetStep(
        gamma=jnp.asarray(gamma, jnp.float32),
        num_refinements=num_refinements,
        lambda_=lambda_,
        schedule=regularizer.SCHEDULES[schedule],
        local_loss=losses.mse,
        scale=1 / H,
        normalize=functools.partial(numerics.clip, c=0.0, axis=-1),
        refinement=refinement,
    )
    forward = error_signals.run_forward(params, batch, lra_jax.cross_entropy)
    return targets.propagate(forward, batch.labels, lra_jax.cross_entropy, step)


def test_without_a_target_step_targets_are_the_states():
    found = jax.jit(functools.partial(found_targets, num_refinements=3))
    params, batch = problem()
    np.testing.assert_array_equal(found(params, batch, 0.0).d, 0)
    np.testing.assert_array_equal(found(params, batch, 0.0).u, 0)
    assert np.all(np.any(found(params, batch, 1.0).d != 0, axis=-1))


def test_readout_gradients_are_those_of_bptt():
    params, batch = problem()
    grads = jax.jit(lra_jax.bptt().grads)
    exact, _, _ = grads(jax.random.key(0), params, lra_jax.EmptyState(), batch)
    for setting in SETTINGS.values():
        grads, _ = run(params, batch, **setting)
        assert_close((grads.w_hy, grads.b_y), (exact.w_hy, exact.b_y))


# Tiny displacements.


def first_order(params, batch, gamma, num_refinements):
    """d, and the hidden gradients, to first order in d; float64, with fixed targets.

    With d so small, tanh(h) - tanh(h - d) is σ' d, and both local losses are e²:
        u = 2s σ'_t² (d_t - (σ'_{t-1} d̄) W_hh),   d̄ ← d̄ + γ (u W_hhᵀ) σ'_{t-1}
    """
    params, inputs, labels = in_float64(params), batch.inputs, batch.labels
    _, z, logits = oracle.forward(params, inputs)
    slope, s = 1 - z**2, 1 / H
    samples = zip(logits, labels, strict=True)
    pi = np.array([oracle.cross_entropy(*sample)[1] for sample in samples])
    d = np.zeros_like(z)
    d[-1] = num_refinements * gamma * (pi @ params.w_hy.T) * slope[-1]
    for t in range(T - 1, 0, -1):
        for _ in range(num_refinements):
            rest = d[t] - (slope[t - 1] * d[t - 1]) @ params.w_hh
            u = 2 * s * slope[t] ** 2 * rest
            d[t - 1] += gamma * (u @ params.w_hh.T) * slope[t - 1]
    u = 2 * s * slope**2 * d
    z_prev = np.concatenate([np.zeros_like(z[:1]), z[:-1]])
    x = np.eye(X)[np.asarray(inputs)]
    w_xh, w_hh = np.einsum("tbi,tbj->tij", x, u), np.einsum("tbi,tbj->tij", z_prev, u)
    grads = {"w_xh": w_xh, "w_hh": w_hh, "b_h": u.sum(axis=1)}
    return d, {name: g / B for name, g in grads.items()}


@pytest.mark.parametrize("local_loss", ["mse", "log_penalty"])
@pytest.mark.parametrize("size", [1e-12, 1e-17, 1e-21, 1e-25])
def test_tiny_displacements_survive(size, local_loss):
    params, batch = problem()
    params = params._replace(w_hy=size * params.w_hy)
    for num_refinements in (1, 3):
        # γ = H/2 makes 2γs = 1: displacements keep their size on the way back.
        numbers = {"gamma": H / 2, "num_refinements": num_refinements}
        grads, info = run(params, batch, **numbers, local_loss=local_loss)
        d, expected = first_order(params, batch, **numbers)
        assert size * 1e-3 < np.abs(d).max(axis=-1).min()
        assert np.abs(d).max() < size * 1e2
        assert_close(
            hidden(grads),
            {name: g.sum(axis=0) for name, g in expected.items()},
            1e-4,
        )
        for norm, g in (
            (info.w_hh_grad_norm, expected["w_hh"]),
            (info.w_xh_grad_norm, expected["w_xh"]),
        ):
            each_step = np.sqrt(np.sum(g**2, axis=(1, 2)))
            np.testing.assert_allclose(norm, each_step, rtol=1e-4)


@pytest.mark.parametrize("gamma", [1e-4, 1e-8, 1e-12])
def test_targets_that_shrink_by_orders_per_step_survive(gamma):
    params, batch = problem()
    found = jax.jit(functools.partial(found_targets, num_refinements=1))
    d = np.asarray(found(params, batch, gamma).d)
    expected, _ = first_order(params, batch, gamma, 1)
    # Float32 ends at 1e-38; entries far smaller than their row's largest do not count.
    rows = np.abs(expected).max(axis=-1) > 1e-33
    assert rows.sum() >= 2 * B
    scale = np.abs(expected).max(axis=-1, keepdims=True)
    tolerance = np.broadcast_to(1e-4 + 10 * gamma, scale.shape) * scale
    assert np.all((np.abs(d - expected) <= tolerance)[rows])


def test_displacements_below_the_rounding_of_the_states_move_targets():
    params, batch = problem()
    gradients = [
        hidden(run(params._replace(w_hy=params.w_hy * size), batch, gamma=H / 2)[0])
        for size in (2.0**-50, 2.0**-70)
    ]
    # π no longer depends on the weights' size, so that all else is linear in it.
    larger, smaller = gradients
    assert_close(larger, jax.tree.map(lambda g: 2.0**20 * g, smaller), 1e-5)
    assert largest(smaller) > 0


# Equal programs.


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_traced_zero_lambda_is_the_program_without_omega(schedule):
    params, batch = problem()
    numbers = {"gamma": 20.0, "num_refinements": 3, "c0": 0.05, "c1": 0.05}
    assert_close(
        run(params, batch, lambda_=0.0, schedule=schedule, **numbers),
        run(params, batch, **numbers),
    )


def test_with_one_refinement_fixed_is_overwrite():
    params, batch = problem()

    def w_hh(num_refinements, refinement):
        numbers = {"gamma": 5.0, "num_refinements": num_refinements}
        return run(params, batch, **numbers, refinement=refinement)[0].w_hh

    assert_close(w_hh(1, "fixed"), w_hh(1, "overwrite"))
    difference = w_hh(2, "fixed") - w_hh(2, "overwrite")
    assert largest(difference) > 1e-2 * largest(w_hh(2, "fixed"))


def test_a_traced_number_of_refinements_is_a_static_one():
    params, batch = problem()
    for number in (1, 3):
        static = jax.jit(functools.partial(lra_diff, num_refinements=number))
        assert_close(
            run(params, batch, gamma=5.0, num_refinements=number),
            static(params, batch, gamma=5.0),
        )


@pytest.mark.parametrize("refinement", ["fixed", "overwrite"])
def test_members_of_different_numbers_of_refinements_are_what_each_is_alone(refinement):
    params, batch = problem()
    counts = jnp.array([4, 1, 2], jnp.int32)

    def member(num_refinements):
        numbers = {"num_refinements": num_refinements, "c0": 0.0, "c1": 0.0}
        return jitted(params, batch, gamma=5.0, **numbers, refinement=refinement)

    together = jax.device_get(jax.jit(jax.vmap(member))(counts))
    for index, count in enumerate(counts.tolist()):
        assert_close(
            jax.tree.map(lambda x, i=index: x[i], together), member(count), 1e-5
        )


def test_defaults_are_one_refinement_without_bounds():
    params, batch = problem()
    # Nothing but γ given: all else is as `run` has it.
    assert_close(jitted(params, batch, gamma=20.0), run(params, batch, gamma=20.0))


def test_many_refinements_keep_fixed_targets_and_lose_overwritten_ones():
    params, batch = problem()

    def first_local_loss(num_refinements, refinement):
        numbers = {"gamma": 5.0, "num_refinements": num_refinements}
        _, info = run(params, batch, **numbers, refinement=refinement)
        return info.local_loss[0]

    one = first_local_loss(1, "fixed")
    assert first_local_loss(100, "fixed") > 1e3 * one
    assert first_local_loss(100, "overwrite") < 1e-3 * one


# Bounds.


def test_force_gives_every_target_step_the_same_norm():
    params, batch = problem()
    numbers = {"gamma": 1.0, "c0": 0.5, "c1": 0.1}
    _, info = run(params, batch, **numbers, normalization="force")
    np.testing.assert_allclose(info.target_step_norm, 0.1, rtol=1e-6)
    np.testing.assert_allclose(info.w_xh_grad_norm, 0.5, rtol=1e-6)
    np.testing.assert_allclose(info.w_hh_grad_norm[1:], 0.5, rtol=1e-6)
    assert info.w_hh_grad_norm[0] == 0  # z₋₁ = 0: nothing to force


def test_clip_bounds_every_norm_and_large_bounds_do_nothing():
    params, batch = problem()
    free, free_info = run(params, batch, gamma=20.0)
    bounded, info = run(params, batch, gamma=20.0, c0=0.01, c1=0.05)
    assert np.all(info.target_step_norm <= 0.05 * (1 + 1e-6))
    assert np.all(info.w_hh_grad_norm <= 0.01)
    assert np.all(info.w_xh_grad_norm <= 0.01)
    assert free_info.target_step_norm.max() > 0.05
    assert free_info.w_hh_grad_norm.max() > 0.01
    assert np.abs(bounded.w_hh - free.w_hh).max() > 0.1 * np.abs(free.w_hh).max()
    assert_close(run(params, batch, gamma=20.0, c0=1e9, c1=1e9), (free, free_info))


def test_a_batch_is_the_mean_of_its_samples():
    params, batch = problem()
    numbers = {"gamma": 20.0, "lambda_": 0.3, "c1": 0.05}
    grads, info = run(params, batch, **numbers)
    samples = [
        run(
            params,
            lra_jax.Batch(batch.inputs[:, [b]], batch.labels[jnp.array([b])]),
            **numbers,
        )
        for b in range(B)
    ]
    mean = jax.tree.map(lambda *x: sum(x) / B, *samples)
    assert_close(grads, mean[0], 1e-5)
    assert_close(info[:3], mean[1][:3], 1e-5)


# The first step.


def test_the_first_step_trains_the_weights_only_if_asked():
    params, batch = problem()
    numbers = {"gamma": 20.0, "num_refinements": 2}
    with_first, info = run(params, batch, **numbers)
    without, info_without = run(params, batch, **numbers, update_first_step=False)
    # z₋₁ = 0: W_hh has no part of t = 0.
    assert_close(with_first.w_hh, without.w_hh)
    assert_close(info.local_loss, info_without.local_loss)
    assert_close(info.w_xh_grad_norm[1:], info_without.w_xh_grad_norm[1:])
    assert info.w_xh_grad_norm[0] > 0
    assert info_without.w_xh_grad_norm[0] == 0
    # What is missing is the part of t = 0: at each input x₀, mean over its samples.
    found = jax.jit(functools.partial(found_targets, num_refinements=2))
    u = np.asarray(found(params, batch, 20.0).u[0], np.float64)
    x = np.eye(X)[np.asarray(batch.inputs[0])]
    assert_close(with_first.w_xh - without.w_xh, x.T @ u / B, 1e-4)
    assert_close(with_first.b_h - without.b_h, u.mean(axis=0), 1e-4)


def test_without_the_first_step_only_omega_reaches_the_first_input():
    params, batch = problem()
    # As in random permutation: symbols 0 and 1 occur at t = 0 only.
    inputs = jnp.where(batch.inputs < 2, 2, batch.inputs)
    batch = batch._replace(inputs=inputs.at[0].set(jnp.arange(B) % 2))

    def rows(**arguments):
        grads, _ = run(params, batch, gamma=5.0, **arguments)
        return np.asarray(grads.w_xh)[:2]

    np.testing.assert_array_equal(rows(update_first_step=False), 0)
    assert np.all(np.any(rows() != 0, axis=1))
    regularized = rows(update_first_step=False, lambda_=0.1)
    assert np.all(np.any(regularized != 0, axis=1))


def test_omega_alone_leaves_the_targets_as_they_are():
    """Without bounds the two parts of the weights' gradients add up."""
    params, batch = problem()
    both, info = run(params, batch, gamma=5.0, lambda_=0.3)
    omega, alone = run(params, batch, gamma=5.0, lambda_=0.3, descend_local_loss=False)
    assert_close(info.local_loss, alone.local_loss)
    assert_close(info.target_step_norm, alone.target_step_norm)
    found = jax.jit(functools.partial(found_targets, num_refinements=1, lambda_=0.3))
    u = found(params, batch, 5.0).u
    assert_close(both.b_h - omega.b_h, jnp.sum(jnp.mean(u, axis=1), axis=0), 1e-4)
    assert np.any(np.asarray(omega.w_xh) != 0)


def test_nothing_at_all_moves_hidden_weights_without_loss_and_omega():
    params, batch = problem()
    still, _ = run(params, batch, gamma=5.0, descend_local_loss=False)
    exact, _ = run(params, batch, gamma=5.0)
    for name in HIDDEN:
        np.testing.assert_array_equal(getattr(still, name), 0)
    assert_close(still.w_hy, exact.w_hy)


# Ω.


def test_lambda_reaches_every_hidden_weight_and_no_readout():
    params, batch = problem()
    plain, _ = run(params, batch, gamma=5.0, lambda_=0.0)
    regularized, _ = run(params, batch, gamma=5.0, lambda_=0.5)
    for name in HIDDEN:
        difference = getattr(regularized, name) - getattr(plain, name)
        assert np.abs(difference).max() > 0.1 * np.abs(getattr(plain, name)).max()
    assert_identical(regularized.w_hy, plain.w_hy)
    assert_identical(regularized.b_y, plain.b_y)


def test_lambda_is_constant_unless_asked():
    params, batch = problem()
    numbers = {"gamma": 5.0, "lambda_": 0.3}
    assert_identical(
        run(params, batch, **numbers),
        run(params, batch, **numbers, schedule="constant"),
    )


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_shrinkage_regularises_only_where_the_norm_shrinks(factor):
    """W_hh a multiple of an orthogonal one, and σ' nearly 1: ρ is that multiple."""
    params, batch = problem()
    w_hh = factor * lra_jax.init_params(jax.random.key(0), X, H, Y).w_hh
    small = {name: 0.05 * getattr(params, name) for name in ("w_xh", "b_h")}
    short = batch._replace(inputs=batch.inputs[:3])
    params = params._replace(w_hh=w_hh, **small)
    numbers = {"gamma": 1.0, "schedule": "shrinkage", "lambda_": 0.5}
    grads, info = run(params, short, **numbers)
    plain, plain_info = run(params, short, **numbers | {"lambda_": 0.0})
    if factor > 1:
        assert_identical((grads, info), (plain, plain_info))
    else:
        assert largest(grads.w_hh - plain.w_hh) > 0.02


@pytest.mark.parametrize("size", [1.0, 1e-25])
def test_matched_steps_of_omega_are_lambda_times_the_neighbours_error(size):
    params, batch = problem()
    params = params._replace(w_hy=size * params.w_hy)
    step = {"num_refinements": 1, "lambda_": jnp.float32(0.3), "schedule": "matched"}
    found = jax.jit(functools.partial(found_targets, **step))(params, batch, H / 2)
    norms = functools.partial(numerics.norm, axis=-1)
    u, a = norms(found.u[1:]), norms(found.omega.a[1:])
    assert np.all(u > 1e-4 * size)
    np.testing.assert_allclose(a, 0.3 * u, rtol=1e-5)


@pytest.mark.parametrize("lambda_", [0.0, 0.1])
def test_tiny_errors_beside_omega_are_brought_to_c0(lambda_):
    """States of 0, where Ω asks nothing of W_xh and b_h, and much of W_hh."""
    params, batch = problem()
    params = params._replace(
        w_xh=0 * params.w_xh, b_h=0 * params.b_h, w_hy=1e-25 * params.w_hy
    )
    short = batch._replace(inputs=batch.inputs[:2])
    numbers = {"gamma": H / 2, "c0": 0.5, "normalization": "force", "lambda_": lambda_}
    grads, info = run(params, short, **numbers)
    assert np.all(info.w_xh_grad_norm > 0)
    # The sum of two steps of norm 0.5, which W_hh turns only so far.
    for name in ("w_xh", "b_h"):
        assert 0.3 < np.linalg.norm(getattr(grads, name)) < 1.001


@jax.jit
def omega_of(u, w_hh, z_prev):
    return regularizer.norm_preservation(u, u @ w_hh.T, z_prev)


@functools.cache
def pair():
    """u, W_hh and z of a pair of steps."""
    rng = np.random.default_rng(0)
    sizes = ((B, H), (H, H), (B, H))
    u, w_hh, h = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in sizes)
    return u, w_hh / np.sqrt(H), jnp.tanh(h)


def test_omega_and_its_gradients_are_those_of_the_definition():
    u, w_hh, z = pair()
    h = jnp.arctanh(z)

    def value(w_hh, h):
        v = (u @ w_hh.T) * (1 - jnp.tanh(h) ** 2)
        rho = jnp.linalg.norm(v, axis=1) / jnp.linalg.norm(u, axis=1)
        return (rho - 1) ** 2

    omega = omega_of(u, w_hh, z)
    assert_close(omega.value, value(w_hh, h), 1e-5)
    d_w, d_h = jax.jit(jax.grad(lambda w, h: value(w, h).sum(), (0, 1)))(w_hh, h)
    assert_close(omega.a, d_h, 1e-4)
    assert_close(omega.left.T @ omega.right, d_w, 1e-4)


@pytest.mark.parametrize("scale", [1e-28, 1e-19, 1e-7, 1e7, 1e28])
def test_omega_does_not_change_with_the_size_of_the_error(scale):
    u, w_hh, z = pair()
    scaled, omega = omega_of(scale * u, w_hh, z), omega_of(u, w_hh, z)
    assert_close(scaled, omega, 1e-5)


def test_omega_of_a_vanished_error_is_zero():
    _, w_hh, z = pair()
    for u in (jnp.zeros((B, H)), jnp.full((B, H), 1e-31), jnp.full((B, H), -1e-38)):
        omega = omega_of(u, w_hh, z)
        for part in (omega.value, omega.a, omega.left):
            np.testing.assert_array_equal(part, 0)
        assert np.all(np.isfinite(omega.right))


def test_omega_of_saturated_states_is_one_without_a_gradient():
    u, w_hh, z = pair()
    omega = omega_of(u, w_hh, jnp.sign(z))
    np.testing.assert_array_equal(omega.value, 1)
    np.testing.assert_array_equal(omega.a, 0)
    np.testing.assert_array_equal(omega.left, 0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_only_a_constant_lambda_is_left_where_the_error_vanished(schedule):
    _, w_hh, z = pair()
    omega, size = omega_of(jnp.zeros((B, H)), w_hh, z), jnp.zeros((B, 1))
    weight = regularizer.SCHEDULES[schedule](jnp.float32(0.3), omega, size, size + 1)
    expected = 0.3 if schedule == "constant" else 0.0
    np.testing.assert_array_equal(weight, np.full((B, 1), expected, np.float32))


def test_error_ratio_follows_the_error_and_is_bounded():
    omega = omega_of(*pair())
    size = jnp.array([[2.0], [1.0], [1e-25], [1.0], [1e-30]])
    size_next = jnp.array([[1.0], [3.0], [5e-25], [50.0], [1.0]])
    weight = regularizer.SCHEDULES["error_ratio"](
        jnp.float32(0.2), omega, size, size_next
    )
    np.testing.assert_allclose(weight[:, 0], [0.1, 0.6, 1.0, 2.0, 2.0], rtol=1e-6)


def test_omega_keeps_a_nan_in_its_own_sample():
    u, w_hh, z = pair()
    expected = omega_of(u, w_hh, z)
    omega = omega_of(u.at[2].set(jnp.nan), w_hh, z)
    others = np.array([0, 1, 3, 4])
    assert np.isnan(omega.value[2])
    assert np.all(np.isnan(omega.a[2]))
    assert_identical(
        jax.tree.map(lambda x: x[others], omega),
        jax.tree.map(lambda x: x[others], expected),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 0.0},
        {"w_xh": 1e4},
        {"w_hh": 1e4},
        {"w_hh": 0.0},
        {"w_hy": 0.0},
        {"w_hy": 1e-33},
        {"w_hy": 1e30},
    ],
    ids=str,
)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_regularized_update_is_finite_whatever_has_died_or_saturated(
    change, schedule
):
    params, batch = problem()
    numbers = {"gamma": 5.0, "num_refinements": 3, "lambda_": 1.0, "c0": 1.0, "c1": 1.0}
    numbers |= {name: x for name, x in change.items() if name in numbers}
    numbers["schedule"] = schedule
    scaled = {
        name: x * getattr(params, name)
        for name, x in change.items()
        if name not in numbers
    }
    grads, info = run(params._replace(**scaled), batch, **numbers)
    for x in jax.tree.leaves((hidden(grads), info)):
        assert np.all(np.isfinite(x))
