"""RNN-LRA-diff: Algorithm 1 of the paper, and with λ > 0 its Algorithm 2."""

from __future__ import annotations

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lra_jax import (
    devices,
    error_signals,
    gradients,
    losses,
    numerics,
    refinements,
    regularizer,
    rnn,
    settings,
    targets,
    types,
)
from lra_jax import feedback as feedback_lib
from lra_jax.feedback import FeedbackLike
from lra_jax.networks import Network
from lra_jax.networks.network import Term
from lra_jax.rules import arguments, card

LRA_DIFF_CARD = card.RuleCard(
    title="local representation alignment: Algorithm 1; with λ > 0 Algorithm 2",
    error=(
        "the distance of the state from a target, found from the step above; with "
        "`lambda_ > 0` the paper's regulariser Ω"
    ),
    choose_for=(
        "the paper's algorithm: `lra_diff(gamma=50, c0=1, c1=1)`, `optax.sgd(0.1)`, "
        "T = 30"
    ),
    family=card.THROUGH_W_HH,
    errors_arrive="step by step",
    transports=("W_hhᵀ", "W_hyᵀ"),
    stores=card.EVERY_STATE,
    every_step=True,
    networks=card.ALL_NETWORKS,
    reference="the paper",
    feedback=card.BOTH_WEIGHTS,
)


def _without_first(u: jax.Array, started: jax.Array | None) -> jax.Array:
    """uₜ, 0 at the first step of each sequence."""
    if started is None:
        return u.at[0].set(0)
    return rnn.silence(u, gradients.previous(started))


def _terms(forward: error_signals.Forward, u: jax.Array, omega: Any) -> Term:
    """What the weight gradients of all steps sum over: uₜ, and ∂Ωₜ."""
    place = forward.place
    if omega is None:
        return Term(place, u)
    # Via sₜ₋₁, ∂Ωₜ is the shared formula one step earlier. Ω of a first step is 0: what
    # stands there for the step before does not matter.
    before = jax.tree.map(lambda x: jnp.concatenate([x[:1], x[:-1]]), place)
    zeros = gradients.previous(place.z_prev)
    return Term(place, u, before._replace(z_prev=zeros), omega)


def lra_diff(
    *,
    gamma: ArrayLike,
    num_refinements: settings.Count = 1,
    lambda_: ArrayLike = 0.0,
    c0: ArrayLike = 0.0,
    c1: ArrayLike = 0.0,
    local_loss: Literal["mse", "log_penalty"] = "mse",
    reduction: Literal["mean", "sum"] = "mean",
    normalization: Literal["clip", "force"] = "clip",
    refinement: Literal["fixed", "overwrite"] = "fixed",
    update_first_step: bool = True,
    descend_local_loss: bool = True,
    schedule: Literal["constant", "matched", "shrinkage", "error_ratio"] = "constant",
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
    feedback: FeedbackLike = "transpose",
) -> types.LearningRule:
    """Difference target propagation by gradient steps: local representation alignment.

    Every state hₜ gets a target ĥₜ, found by K descent steps on the local loss of the
    step above it; the weights of step t descend the local loss L(zₜ, ẑₜ), with ẑₜ and
    zₜ₋₁ constant. Per step t, uₜ = s ℓ'(zₜ - ẑₜ) ⊙ σ'(hₜ):

        ∇W_hhᵗ = Normalize( mean_b zₜ₋₁ᵀ uₜ + λ ∂Ωₜ/∂W_hh, c0 )      and so W_xh, b_h

    Of other networks zₜ₋₁ᵀ uₜ is (∂sₜ/∂W)ᵀ uₜ and σ' is ∂z/∂s: docs/networks.md has the
    general form.

    With a loss of every step each target descends its own output's error as well:
    docs/every_step.md.

    Numbers may be traced arrays: make the rule inside a vmapped function and its
    hyper-parameters are data.

    Args:
      gamma: γ, size of a target's step.
      num_refinements: K ≥ 1, descent steps per target.
      lambda_: λ, weight of Ω in targets and weights. A plain Python 0 leaves Ω out of
        the compiled program; a traced 0 gives the same numbers.
      c0: bound of the weight gradients of each step (Frobenius); 0 is none.
      c1: bound of each sample's Δhₜ (Euclidean); 0 is none.
      local_loss: ℓ(e) = e² or log(1 + e²).
      reduction: s = 1/H, as eq. 8, or s = 1, the plain sum of the original LRA.
      normalization: "clip" bounds norms, "force" sets them (the paper's Fig. 3).
      refinement: "fixed" keeps the target of the step above during the K loop, as in
        the original LRA; "overwrite" is Algorithm 1's lines 24-25 as printed.
      update_first_step: whether t = 0, or a sample's `start`, trains the weights too.
      descend_local_loss: whether Lₜ moves the weights. Without it Ω alone does, in the
        directions of the same targets: a control.
      schedule: λ of each step and sample, one of `regularizer.SCHEDULES`; all but
        "constant" are of this project.
      output_loss: E.
      network: what is trained, any of `lra_jax.networks`.
      feedback: what errors go through in place of W_hhᵀ and W_hyᵀ, as for `bptt`. Ω is
        a norm of what W_hhᵀ gives, so it takes feedback="transpose" and λ = 0 alone
        otherwise.

    Returns:
      A rule without state, or with feedback weights. All fields of its `RuleInfo`
      but `reversal_error` are set.

    Raises:
      ValueError: an unknown choice, or a number that is not a scalar, or known and
        out of its range; an unknown feedback, or one in place of W_hhᵀ together with
        λ > 0, or for a network whose recurrent weights are not known.

    Note: Algorithm 1's loop ends at t = 1, which leaves the first input untrained;
    eq. 1 counts it. `update_first_step=False` is the loop as printed.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> def w_hh_norm(gamma):
      ...     rule = lra_jax.lra_diff(gamma=gamma, num_refinements=2)
      ...     state = rule.init(jax.random.key(2), params)
      ...     grads, _, _ = rule.grads(jax.random.key(3), params, state, batch)
      ...     return jnp.linalg.norm(grads.w_hh)
      >>> norms = jax.vmap(w_hh_norm)(jnp.array([0.0, 1.0, 10.0]))
      >>> norms[0].item(), bool(norms[0] < norms[1] < norms[2])
      (0.0, True)
    """
    arguments.check(lra_diff, locals())
    choice = feedback_lib.of(feedback, network)
    normalize = numerics.NORMALIZATIONS[normalization]
    without_omega = isinstance(lambda_, int | float) and lambda_ == 0
    if choice.recurrent != "transpose" and not without_omega:
        raise ValueError(
            "lambda_: expected 0, as Ω asks for W_hhᵀ and feedback is "
            f"{choice.recurrent!r}, got {lambda_!r}"
        )

    @devices.divided(gradients.result_sharding)
    def grads(
        key: jax.Array,
        params: types.AnyParams,
        rule_state: types.RuleState,
        batch: types.Batch,
    ) -> tuple[types.AnyParams, types.RuleState, types.RuleInfo]:
        hidden_size, dtype = params.w_hy.shape[0], params.w_hy.dtype
        weight = None if without_omega else jnp.asarray(lambda_, dtype)
        back = feedback_lib.back_of(choice, rule_state)
        step = targets.TargetStep(
            gamma=jnp.asarray(gamma, dtype),
            num_refinements=refinements.count(num_refinements),
            lambda_=weight,
            schedule=regularizer.SCHEDULES[schedule],
            local_loss=losses.LOCAL_LOSSES[local_loss],
            scale={"mean": 1 / hidden_size, "sum": 1.0}[reduction],
            normalize=functools.partial(normalize, c=c1, axis=-1),
            refinement=refinement,
            back=back,
        )
        forward = error_signals.run_forward(
            params, batch, output_loss, network, key, back
        )
        local = targets.propagate(forward, batch.labels, output_loss, step)
        u = local.u if descend_local_loss else jnp.zeros_like(local.u)
        if not update_first_step:
            u = _without_first(u, forward.started)
        summed = gradients.sum_bounded(
            network,
            forward.cell,
            _terms(forward, u, local.omega),
            functools.partial(normalize, c=c0),
        )
        readout = gradients.readout_gradients(forward.trace.z, forward.pi)
        info = error_signals.report(
            network,
            forward.cell,
            summed.norms,
            loss=forward.loss,
            local_loss=jnp.mean(local.local_loss, axis=1),
            target_step_norm=jnp.mean(local.step_norm, axis=1),
        )
        rule_state = feedback_lib.learned(
            key, choice, rule_state, params, network, forward.place, forward.started
        )
        return rnn.join(network, summed.grads, *readout), rule_state, info

    init = feedback_lib.init_of(choice, network, types.init_empty)
    return types.LearningRule(init, grads)
