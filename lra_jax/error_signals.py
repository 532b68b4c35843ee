"""What learning rules differ in: how an error reaches step t.

A rule of this family says what qₜ is, the error at hₜ per sample. The forward pass, the
gradients of the weights (`lra_jax.gradients`), a bound of them and what is reported are
the same for all, and are here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from lra_jax import devices, gradients, numerics, rnn, types


class Signals(NamedTuple):
    """Errors at all steps, and what a person wants to see of them.

    Attributes:
      q: `[T, B, H]`, the errors at h.
      local_loss: `[T, B]`, or None for a rule without targets.
      target_step_norm: `[T, B]`, or None.
    """

    q: jax.Array
    local_loss: jax.Array | None = None
    target_step_norm: jax.Array | None = None


class Forward(NamedTuple):
    """What every rule knows of a batch before it asks for errors.

    Attributes:
      params: the weights.
      trace: of the forward pass.
      pi: `[B, Y]` ∂E_b/∂logits, or `[T, B, Y]` of every step.
      loss: `[]` E, mean over the batch.
      inputs: symbols `[T, B]`, or vectors `[T, B, X]`, 0 before a sample's start.
      started: bool `[T, B]`, which steps are a sample's own; None is all.
    """

    params: types.Params
    trace: types.Trace
    pi: jax.Array
    loss: jax.Array
    inputs: jax.Array
    started: jax.Array | None


SignalsOf = Callable[
    [jax.Array, types.RuleState, Forward], tuple[Signals, types.RuleState]
]


def run_forward(
    params: types.Params, batch: types.Batch, output_loss: types.OutputLoss
) -> Forward:
    """Runs the network on a batch, and compares its outputs with the labels."""
    trace = rnn.forward(
        params, batch.inputs, start=batch.start, every_step=output_loss.every_step
    )
    started = rnn.has_started(batch.inputs, batch.start)
    return Forward(
        params,
        trace,
        pi=output_loss.grad(trace.logits, batch.labels),
        loss=jnp.mean(output_loss.value(trace.logits, batch.labels)),
        inputs=rnn.silence(rnn.index_symbols(params, batch.inputs), started),
        started=started,
    )


def top(params: types.Params, trace: types.Trace, pi: jax.Array) -> jax.Array:
    """q_{T-1} = ∂E_b/∂h_{T-1} = (π W_hyᵀ) ⊙ σ'_{T-1}, `[B, H]`.

    With a loss of every step, (πₜ W_hyᵀ) ⊙ σ'ₜ of all t, `[T, B, H]`.
    """
    return gradients.output_error(params, rnn.read_states(trace.z, pi), pi)


def chain(
    step: Callable[[jax.Array, Any], jax.Array], own: jax.Array, below: Any
) -> jax.Array:
    """From the last step to the first: what each step hands to the one before it.

        d_{T-1} = own,   dₜ₋₁ = step(dₜ)
        d_{T-1} = own_{T-1},   dₜ₋₁ = step(dₜ) + ownₜ₋₁        with a loss of every step

    Args:
      step: an error of t `[B, H]`, and what its place in `below` has, to the error of
        t-1.
      own: `[B, H]`, the error of T-1; or `[T, B, H]`, what each step has of the output
        that is its own.
      below: arrays `[T-1, ...]` for t = 1 .. T-1, as a rule the states zₜ₋₁.

    Returns:
      The errors of all steps, `[T, B, H]`.
    """
    last, earlier = (own[-1], own[:-1]) if own.ndim == 3 else (own, None)

    def back(error: jax.Array, place: Any) -> tuple[jax.Array, jax.Array]:
        below, own = place
        error = step(error, below) if own is None else step(error, below) + own
        return error, error

    _, errors = rnn.scan(back, last, (below, earlier), reverse=True)
    return jnp.concatenate([errors, last[None]])


def with_targets(q: jax.Array, e: jax.Array) -> Signals:
    """The signals of a rule with targets, of which e = z - ẑ `[T, B, H]` is known."""
    size = numerics.norm(e, axis=-1)[..., 0]
    return Signals(q, local_loss=size**2 / e.shape[-1], target_step_norm=size)


def make_rule(
    init: types.InitRule,
    signals: SignalsOf,
    *,
    max_norm: ArrayLike,
    output_loss: types.OutputLoss,
) -> types.LearningRule:
    """The rule that descends  Σₜ mean_b zₜ₋₁ᵀ qₜ  and its like, and E in the readout.

    What `signals` says of steps before a sample's start does not count: it is 0.

    Args:
      init: of the rule's state.
      signals: `(key, rule_state, forward) -> (Signals, rule_state)`; `key` is
        consumed.
      max_norm: g ← g max_norm / ‖g‖ where ‖g‖ > max_norm, one norm over all five
        gradients; 0 is none.
      output_loss: E.
    """

    @devices.divided(gradients.result_sharding)
    def grads(
        key: jax.Array,
        params: types.Params,
        rule_state: types.RuleState,
        batch: types.Batch,
    ) -> tuple[types.Params, types.RuleState, types.RuleInfo]:
        forward = run_forward(params, batch, output_loss)
        z = forward.trace.z
        errors, rule_state = signals(key, rule_state, forward)
        errors = jax.tree.map(lambda x: rnn.silence(x, forward.started), errors)
        summed = gradients.sum_local_gradients(params, forward.inputs, z, errors.q)
        readout = gradients.readout_gradients(z, forward.pi)
        info = types.RuleInfo(
            loss=forward.loss,
            local_loss=_over_batch(errors.local_loss),
            target_step_norm=_over_batch(errors.target_step_norm),
            w_hh_grad_norm=summed.w_hh_norm,
            w_xh_grad_norm=summed.w_xh_norm,
        )
        return bounded(summed.grads, readout, max_norm), rule_state, info

    return types.LearningRule(init, grads)


def bounded(
    hidden: gradients.HiddenGrads,
    readout: tuple[jax.Array, jax.Array],
    max_norm: ArrayLike,
) -> types.Params:
    """All five gradients, with `max_norm` for the one norm of them all; 0 is none."""
    flat, unravel = ravel_pytree(types.Params(*hidden, *readout))
    return unravel(numerics.clip(flat, max_norm).value)


def _over_batch(values: jax.Array | None) -> jax.Array | None:
    return None if values is None else jnp.mean(values, axis=1)
