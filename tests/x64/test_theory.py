"""What the specification derives about lra_diff: section 9.3, limits and locality."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import numpy_lra as oracle

import lra_jax
from lra_jax import (
    error_signals,
    gradients,
    losses,
    numerics,
    regularizer,
    rnn,
    targets,
)
from x64.problems import (
    Sizes,
    assert_close,
    assert_identical,
    distance,
    random_problem,
    run,
    step_inputs,
)

SIZES = Sizes(length=6, batch=3, inputs=6, hidden=5, outputs=3)
HIDDEN_GRADS = ("w_xh", "w_hh", "b_h")


def lra_grads(problem, **options):
    numbers = {"num_refinements": 1, "lambda_": 0.0, "c0": 0.0, "c1": 0.0}
    return run(lra_jax.lra_diff, problem, **numbers | options)


def scaled_readout(problem, scale):
    """The same with W_hy times `scale`: the size of q_{T-1}, so of the top target."""
    params = problem.params
    return problem._replace(params=params._replace(w_hy=scale * params.w_hy))


def bptt_and_slopes(problem):
    """BPTT's q_t and σ'_t = 1 - z_t², both [T,B,H], by the oracle."""
    params, inputs, labels = problem.params, problem.inputs, problem.labels
    _, z, _ = oracle.forward(params, inputs)
    _, pi, _, _ = oracle.output_layer(params, z, labels, oracle.cross_entropy)
    return oracle.bptt_errors(params, z, pi), 1 - z**2


def first_order_errors(problem, gamma, s):
    """u_t [T,B,H] to first order in d (section 9.3).

    d_{T-1} = γ q_{T-1},   u_t = 2s σ'_t² ⊙ d_t,   d_{t-1} = γ (u_t W_hh^T) ⊙ σ'_{t-1}.
    """
    q, slope = bptt_and_slopes(problem)
    u, d = np.zeros_like(q), gamma * q[-1]
    for t in reversed(range(len(q))):
        u[t] = 2 * s * slope[t] ** 2 * d
        d = gamma * (u[t] @ problem.params.w_hh.T) * slope[t - 1]
    return u


# First order: LRA with K = 1 is BPTT times 2γs σ'² per time step.


@pytest.mark.parametrize(
    ("reduction", "local_loss"),
    [("mean", "mse"), ("mean", "log_penalty"), ("sum", "mse")],
)
@pytest.mark.parametrize("factor", [1.0, 0.3])
@pytest.mark.parametrize("scale", [1e-6, 1e-9])
def test_small_displacements_follow_the_first_order_chain(
    scale, factor, reduction, local_loss
):
    """Row t of ∇W_xh is mean_b u_t; factor = 2γs.

    The second order is of d's size, and d_{T-1} is `scale` times q_{T-1}, which is
    below 1 here: the smaller d, the closer to the theory.
    """
    s = 1 / SIZES.hidden if reduction == "mean" else 1.0
    gamma = factor / (2 * s)
    problem = step_inputs(orthogonal_problem(5))
    problem = scaled_readout(problem, scale / gamma)
    options = {"reduction": reduction, "local_loss": local_loss}
    grads, _ = lra_grads(problem, gamma=gamma, **options)
    u = first_order_errors(problem, gamma, s)
    for t in range(SIZES.length):
        assert distance(grads.w_xh[t], u[t].mean(axis=0)) < scale
    _, z, _ = oracle.forward(problem.params, problem.inputs)
    w_hh = sum(z[t - 1].T @ u[t] / SIZES.batch for t in range(1, SIZES.length))
    assert distance(grads.w_hh, w_hh) < scale
    assert distance(grads.b_h, u.mean(axis=1).sum(axis=0)) < scale


@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_a_linear_network_gives_bptt_times_2_gamma_s_per_step(factor):
    """σ' = 1 up to 1e-10 where z ~ 1e-6; one factor per step below E: (2γs)^(T-t)."""
    problem = scaled_readout(step_inputs(random_problem(2, SIZES)), 1e-9)
    params = problem.params
    problem = problem._replace(
        params=params._replace(w_xh=1e-6 * params.w_xh, b_h=np.zeros_like(params.b_h))
    )
    grads, _ = lra_grads(problem, gamma=factor * SIZES.hidden / 2)
    exact, _ = run(lra_jax.bptt, problem)
    powers = factor ** np.arange(SIZES.length, 0, -1)
    assert distance(grads.w_xh, powers[:, None] * exact.w_xh) < 2e-9
    if factor == 1:
        assert_close(
            grads._replace(w_xh=exact.w_xh, w_hh=exact.w_hh, b_h=exact.b_h),
            exact,
            1e-13,
        )
        for name in HIDDEN_GRADS:
            assert distance(getattr(grads, name), getattr(exact, name)) < 2e-9, name


def test_saturation_costs_sigma_prime_squared_per_step():
    """2γs = 1: |u_t| falls below BPTT's |q_t|, and further at t = 0."""
    problem = orthogonal_problem(1)
    q, _ = bptt_and_slopes(problem)
    u = first_order_errors(problem, gamma=0.5, s=1.0)
    ratio = np.linalg.norm(u, axis=(1, 2)) / np.linalg.norm(q, axis=(1, 2))
    assert np.all(ratio < 1)
    assert ratio[0] < 0.6 * ratio[-1]


def orthogonal_problem(seed):
    """As at initialisation: orthogonal W_hh and zero biases (section 1)."""
    problem = random_problem(seed, SIZES)
    params = problem.params
    q, _ = np.linalg.qr(params.w_hh)
    return problem._replace(
        params=params._replace(w_hh=q, w_xh=0.5 * params.w_xh, b_h=0 * params.b_h)
    )


# Options that coincide.


def test_fixed_and_overwrite_agree_at_one_refinement_only():
    problem = random_problem(3, SIZES)
    options = {"gamma": 3.0, "c0": 0.1, "c1": 0.5, "lambda_": 0.2}

    def both(num_refinements):
        return [
            lra_grads(
                problem, **options, num_refinements=num_refinements, refinement=name
            )
            for name in ("fixed", "overwrite")
        ]

    (fixed, info_fixed), (overwrite, info_overwrite) = both(1)
    assert_identical(fixed, overwrite)
    assert_identical(info_fixed, info_overwrite)
    (fixed, info_fixed), (overwrite, info_overwrite) = both(3)
    assert distance(overwrite.w_hh, fixed.w_hh) > 0.01
    # The top target has no target of its own: it is the same.
    assert info_fixed.local_loss[-1] == info_overwrite.local_loss[-1]


@pytest.mark.parametrize("lambda_", [0.0, 0.3])
def test_large_bounds_equal_no_bounds(lambda_):
    problem = random_problem(4, SIZES)
    options = {"gamma": 3.0, "num_refinements": 2, "lambda_": lambda_}
    free, free_info = lra_grads(problem, **options)
    for c in (1e9, -1.0):
        bounded, info = lra_grads(problem, **options, c0=c, c1=c)
        assert_identical(bounded, free)
        assert_identical(info, free_info)
    forced, _ = lra_grads(problem, **options, normalization="force")
    assert_close(forced, free, 1e-14)


@pytest.mark.parametrize("refinement", ["fixed", "overwrite"])
def test_traced_zero_lambda_equals_the_python_zero(refinement):
    problem = random_problem(5, SIZES)
    options = {"gamma": 3.0, "num_refinements": 3, "refinement": refinement, "c1": 0.3}
    options["c0"] = 0.1
    without, info = run(lra_jax.lra_diff, problem, static={"lambda_": 0}, **options)
    traced, traced_info = run(lra_jax.lra_diff, problem, lambda_=0.0, **options)
    assert_close(traced, without, 1e-14)
    assert_close(traced_info, info, 1e-14)


def test_force_gives_every_step_the_norm_c1():
    problem = random_problem(6, SIZES)
    for lambda_ in (0.0, 0.5):
        _, info = lra_grads(
            problem,
            gamma=0.5,
            num_refinements=2,
            lambda_=lambda_,
            c1=0.7,
            normalization="force",
        )
        np.testing.assert_allclose(info.target_step_norm, 0.7, rtol=1e-14)
    grads, info = lra_grads(problem, gamma=0.5, c0=0.2, normalization="force")
    np.testing.assert_allclose(info.w_xh_grad_norm, 0.2, rtol=1e-14)
    np.testing.assert_allclose(info.w_hh_grad_norm[1:], 0.2, rtol=1e-14)
    assert info.w_hh_grad_norm[0] == 0  # z_{-1} = 0: 0 stays 0
    assert np.all(np.isfinite(grads.w_hh))


def test_small_gamma_makes_the_two_losses_agree():
    """log(1 + e²) = e² - e⁴/2: their gradients differ by a factor 1 - e² + ..."""
    problem, difference = random_problem(7, SIZES), {}
    for gamma in (1e-2, 1e-3):
        (mse, _), (log_penalty, _) = (
            lra_grads(problem, gamma=gamma, reduction="sum", local_loss=name)
            for name in ("mse", "log_penalty")
        )
        difference[gamma] = distance(log_penalty.w_hh, mse.w_hh)
        assert 0 < difference[gamma] < 10 * gamma**2
    assert difference[1e-3] == pytest.approx(difference[1e-2] / 100, rel=0.1)


@pytest.mark.parametrize("lambda_", [0.0, 0.5])
@pytest.mark.parametrize("normalization", ["clip", "force"])
def test_gamma_zero_leaves_the_hidden_layer_alone(lambda_, normalization):
    """No displacement, no local error; the guard max|u| < 1e-30 silences Ω as well."""
    problem = random_problem(8, SIZES)
    grads, info = lra_grads(
        problem,
        gamma=0.0,
        num_refinements=3,
        lambda_=lambda_,
        c0=0.5,
        c1=0.5,
        normalization=normalization,
    )
    for name in HIDDEN_GRADS:
        assert np.all(np.asarray(getattr(grads, name)) == 0), name
    assert np.all(np.asarray(info.local_loss) == 0)
    assert np.all(np.asarray(info.w_hh_grad_norm) == 0)
    assert np.all(np.asarray(info.w_xh_grad_norm) == 0)
    exact, _ = run(lra_jax.bptt, problem)
    assert_close(grads._replace(w_xh=exact.w_xh, w_hh=exact.w_hh, b_h=exact.b_h), exact)


@pytest.mark.parametrize(
    "options",
    [
        {"c0": 0.01, "c1": 0.01},
        {"normalization": "force", "c0": 0.5, "c1": 0.5, "reduction": "sum"},
        {"num_refinements": 3, "refinement": "overwrite", "lambda_": 1.0},
        {"local_loss": "log_penalty", "update_first_step": False},
    ],
    ids=str,
)
def test_the_readout_always_gets_the_gradient_of_the_loss(options):
    """∇W_hy, ∇b_y are never normalised and never regularised (section 4)."""
    problem = random_problem(9, SIZES)
    exact, exact_info = run(lra_jax.bptt, problem)
    grads, info = lra_grads(problem, gamma=2.0, **options)
    assert distance(grads.w_hy, exact.w_hy) < 1e-14
    assert distance(grads.b_y, exact.b_y) < 1e-14
    assert float(info.loss) == pytest.approx(float(exact_info.loss), rel=1e-14)


def test_update_first_step_adds_the_step_of_the_first_input():
    """Row 0 of ∇W_xh belongs to t = 0 alone; ∇W_hh has no part there (z_{-1} = 0)."""
    problem = step_inputs(random_problem(10, SIZES))
    options = {"gamma": 3.0, "num_refinements": 2, "c1": 0.5}
    full, _ = lra_grads(problem, **options)
    printed, info = lra_grads(problem, **options, update_first_step=False)
    assert not np.any(printed.w_xh[0])
    assert np.any(full.w_xh[0])
    assert_identical([printed.w_xh[1:]], [full.w_xh[1:]])
    assert distance(printed.w_hh, full.w_hh) < 1e-15
    assert distance(printed.b_h, full.b_h - full.w_xh[0]) < 1e-13
    assert info.w_xh_grad_norm[0] == 0


# Samples do not see one another.


@pytest.mark.parametrize("c1", [0.0, 0.2])
@pytest.mark.parametrize("lambda_", [0.0, 0.3])
def test_a_batch_of_two_is_the_mean_of_two_batches_of_one(lambda_, c1):
    problem = random_problem(11, SIZES._replace(batch=2))
    options = {"gamma": 3.0, "num_refinements": 2, "lambda_": lambda_, "c1": c1}
    together, info = lra_grads(problem, **options)
    parts = [
        lra_grads(
            problem._replace(
                inputs=problem.inputs[:, b : b + 1], labels=problem.labels[b : b + 1]
            ),
            **options,
        )
        for b in range(2)
    ]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *parts)
    assert_close(together, mean[0], 1e-13)
    for name in ("loss", "local_loss", "target_step_norm"):
        assert distance(getattr(info, name), getattr(mean[1], name)) < 1e-13


def test_the_order_of_the_samples_does_not_matter():
    problem, order = random_problem(12, SIZES), np.array([2, 0, 1])
    shuffled = problem._replace(
        inputs=problem.inputs[:, order], labels=problem.labels[order]
    )
    options = {"gamma": 3.0, "num_refinements": 2, "lambda_": 0.3}
    options |= {"c0": 0.1, "c1": 0.2}
    grads, info = lra_grads(problem, **options)
    grads_shuffled, info_shuffled = lra_grads(shuffled, **options)
    assert_close(grads_shuffled, grads, 1e-13)
    assert_close(info_shuffled, info, 1e-13)


# K large: "fixed" reaches the target, "overwrite" returns to where it was.


def decades_per_step(info):
    """Decay of the local loss from t = T-1 to t = 0."""
    ratio = info.local_loss[-1] / info.local_loss[0]
    return float(np.log10(ratio)) / (len(info.local_loss) - 1)


def test_many_refinements_keep_the_error_alive_with_fixed_targets_only():
    """K = 30, 2γs = 1: d^(k+1) = (I - 2γs JᵀJ) d^(k) contracts with "overwrite"."""
    problem = orthogonal_problem(13)
    decay = {
        (refinement, num_refinements): decades_per_step(
            lra_grads(
                problem,
                gamma=0.5,
                reduction="sum",
                num_refinements=num_refinements,
                refinement=refinement,
            )[1]
        )
        for refinement in ("fixed", "overwrite")
        for num_refinements in (1, 30)
    }
    assert decay["fixed", 1] == decay["overwrite", 1]
    assert decay["fixed", 30] < min(0.1, decay["fixed", 1])
    assert decay["overwrite", 30] > decay["overwrite", 1] + 1


def test_many_refinements_with_fixed_targets_invert_the_step():
    """tanh(ẑ_{t-1} W_hh + x_t W_xh + b_h) -> ẑ_t (least squares; W_hh invertible)."""
    problem = scaled_readout(orthogonal_problem(1), 1e-6)
    trace, found = found_targets(problem, SIZES.hidden / 2, num_refinements=1000)
    h_hat = np.asarray(trace.h - found.d)
    w_xh, w_hh, b_h, *_ = problem.params
    for t in range(1, SIZES.length):
        reached = np.tanh(h_hat[t - 1]) @ w_hh + w_xh[problem.inputs[t]] + b_h
        displacement = np.max(np.abs(found.d[t]))
        assert displacement > 1e-3
        assert np.max(np.abs(reached - h_hat[t])) < 1e-10 * displacement


# Locality.


def target_step(gamma, num_refinements=1):
    """mse, reduction="mean", no bounds and no Ω."""
    return targets.TargetStep(
        gamma=jnp.asarray(gamma),
        num_refinements=num_refinements,
        lambda_=None,
        schedule=regularizer.SCHEDULES["constant"],
        local_loss=losses.mse,
        scale=1 / SIZES.hidden,
        normalize=functools.partial(numerics.clip, c=0.0, axis=-1),
        refinement="fixed",
    )


@functools.partial(jax.jit, static_argnames="num_refinements")
def propagate(params, batch, gamma, num_refinements=1, changes=None):
    """The states, with changes `[T, B, H]` of h, and their targets."""
    step = target_step(gamma, num_refinements)
    forward = error_signals.run_forward(params, batch, lra_jax.cross_entropy)
    if changes is not None:
        place = forward.place
        h = place.s + changes
        z = jnp.where(changes == 0, place.z, jnp.tanh(h))
        place = place._replace(
            s=h, z=z, s_prev=gradients.previous(h), z_prev=gradients.previous(z)
        )
        trace = forward.trace._replace(h=h, z=z)
        forward = forward._replace(place=place, trace=trace)
    found = targets.propagate(forward, batch.labels, lra_jax.cross_entropy, step)
    return forward.trace, found


def found_targets(problem, gamma, num_refinements=1):
    params, batch = problem.library
    return propagate(params, batch, gamma, num_refinements)


def test_weight_gradients_are_functions_of_one_step():
    """∇^t from (z_{t-1}, x_t, h_t, d_t) alone, in NumPy, is what the rule sums."""
    problem, gamma = random_problem(15, SIZES), 4.0
    trace, found = found_targets(problem, gamma)
    h, z, d = (np.asarray(a) for a in (trace.h, trace.z, found.d))
    z_prev = np.concatenate([np.zeros_like(z[:1]), z[:-1]])
    x = oracle.as_vectors(problem.inputs, problem.params)
    batch, hidden = SIZES.batch, SIZES.hidden

    def step_gradients(z_prev, x, h, d):
        u = 2 / hidden * (np.tanh(h) - np.tanh(h - d)) * (1 - np.tanh(h) ** 2)
        return x.T @ u / batch, z_prev.T @ u / batch, u.mean(axis=0)

    steps = [step_gradients(*now) for now in zip(z_prev, x, h, d, strict=True)]
    grads, info = lra_grads(problem, gamma=gamma)
    for name, parts in zip(HIDDEN_GRADS, zip(*steps, strict=True), strict=True):
        assert distance(getattr(grads, name), sum(parts)) < 1e-12, name
    norms = [[np.linalg.norm(part) for part in step[:2]] for step in steps]
    assert distance(info.w_xh_grad_norm, [n[0] for n in norms]) < 1e-12
    assert distance(info.w_hh_grad_norm, [n[1] for n in norms]) < 1e-12


def step_losses(params, problem, d, stop_target, stop_history):
    """mean_b L_b of all t, a graph that may be cut at the targets and at z_{t-1}."""

    def stop(x, where):
        return jax.lax.stop_gradient(x) if where else x

    z = jnp.zeros_like(d[0])
    losses_per_step = []
    for t in range(SIZES.length):
        z_prev = stop(z, stop_history)
        h = z_prev @ params.w_hh + params.w_xh[problem.inputs[t]] + params.b_h[None]
        z = jnp.tanh(h)
        z_hat = jnp.tanh(stop(h, stop_target) - d[t])
        losses_per_step.append(jnp.mean(jnp.mean((z - z_hat) ** 2, axis=1)))
    return jnp.stack(losses_per_step)


def autodiff(problem, d, *, stop_target, stop_history):
    params, _ = problem.library
    return jax.jacrev(step_losses)(params, problem, d, stop_target, stop_history)


def test_the_rule_is_the_gradient_of_local_losses_cut_at_targets_and_history():
    """Equal to autodiff with both stop-gradients, and far from it without either."""
    problem, gamma = step_inputs(random_problem(16, SIZES)), 4.0
    _, found = found_targets(problem, gamma)
    grads, _ = lra_grads(problem, gamma=gamma)
    graph = {
        (target, history): autodiff(
            problem, found.d, stop_target=target, stop_history=history
        )
        for target in (True, False)
        for history in (True, False)
    }

    def error(graph, name):
        return distance(graph._asdict()[name].sum(axis=0), getattr(grads, name))

    for name in HIDDEN_GRADS:
        assert error(graph[True, True], name) < 1e-12, name
        for cut in ((True, False), (False, True), (False, False)):
            assert error(graph[cut], name) > 0.1, (cut, name)
    # Step t's part of ∇W_xh is row t, alone: no other step's loss reaches that symbol.
    for t in range(SIZES.length):
        local = graph[True, True].w_xh[t]
        assert distance(local[t], grads.w_xh[t]) < 1e-12
        assert not np.any(np.delete(local, t, axis=0))
        # Differentiation through the history does reach the earlier symbols.
        if t >= 1:
            assert np.max(np.abs(graph[True, False].w_xh[t][:t])) > 1e-4


def test_local_errors_do_not_depend_on_the_states_of_other_steps():
    """The Jacobian of u_t with respect to h_r, z_r, d_r is exactly zero for r ≠ t."""
    problem, gamma = random_problem(17, SIZES._replace(length=4, hidden=3)), 2.0
    trace, found = found_targets(problem, gamma)
    jacobians = jax.jacobian(
        lambda d, h, z: targets.local_error(
            rnn.TANH, problem.library[0], d, h, z, target_step(gamma)
        )[1],
        argnums=(0, 1, 2),
    )(found.d, trace.h, trace.z)
    for jacobian in jacobians:
        # [t, b, i, r, c, j]: only t = r, b = c, i = j.
        blocks = np.abs(np.asarray(jacobian))
        assert np.all(np.einsum("tbitbi->tbi", blocks) > 0)
        np.einsum("tbitbi->tbi", blocks)[...] = 0
        assert np.all(blocks == 0)


def test_targets_below_a_step_do_not_reach_the_step_above():
    """h_r, z_r of r < t - 1 changed at random: d_t .. d_{T-1}, u_t stay as they are."""
    problem, gamma, t = random_problem(18, SIZES), 4.0, 3
    trace, found = found_targets(problem, gamma)
    params, batch = problem.library
    rng = np.random.default_rng(0)
    changes = np.zeros(trace.h.shape)
    changes[: t - 1] = rng.normal(size=trace.h[: t - 1].shape)
    _, other = propagate(params, batch, gamma, changes=changes)
    for name in ("d", "u", "local_loss", "step_norm"):
        before, after = getattr(found, name), getattr(other, name)
        assert_identical([after[t - 1 :]], [before[t - 1 :]])
        assert distance(after[: t - 1], before[: t - 1]) > 0.01
