"""What learning rules differ in: how an error reaches step t.

A rule of this family says what qₜ is, the error at hₜ per sample. The forward pass, the
gradients of the weights (`lra_jax.gradients`), a bound of them and what is reported are
the same for all, and are here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from lra_jax import devices, gradients, numerics, rnn, types
from lra_jax import feedback as feedback_lib
from lra_jax.feedback import Back
from lra_jax.networks import Tanh
from lra_jax.networks.network import Cell, Network, Place
from lra_jax.numerics import matmul

# An update's key, folded with this, is that of the network's noise.
NOISE = 0x6E6F6973


class Signals(NamedTuple):
    """Errors at all steps, and what a person wants to see of them.

    Attributes:
      q: `[T, B, D]`, the errors at s.
      local_loss: `[T, B]`, or None for a rule without targets.
      target_step_norm: `[T, B]`, or None.
    """

    q: jax.Array
    local_loss: jax.Array | None = None
    target_step_norm: jax.Array | None = None


class Forward(NamedTuple):
    """What every rule knows of a batch before it asks for errors.

    Attributes:
      network: whose weights they are; says what an error asks of states and weights.
      place: the network's states and inputs at all steps, `[T, ...]`.
      params: the weights.
      trace: of the forward pass.
      pi: `[B, Y]` ∂E_b/∂logits, or `[T, B, Y]` of every step.
      loss: `[]` E, mean over the batch.
      started: bool `[T, B]`, which steps are a sample's own; None is all.
      back: what errors are multiplied by on their way back.
    """

    params: types.AnyParams
    trace: types.Trace
    pi: jax.Array
    loss: jax.Array
    started: jax.Array | None
    network: Network
    place: Place
    back: feedback_lib.Back = feedback_lib.NO_WEIGHTS

    @property
    def cell(self) -> Cell:
        """The weights of the network's cell."""
        return rnn.cell_of(self.params)

    @property
    def above(self) -> Place:
        """The steps t = 1 .. T-1, whose errors go to the step before."""
        return jax.tree.map(lambda x: x[1:], self.place)

    @property
    def output_states(self) -> tuple[jax.Array, jax.Array]:
        """s and z that the readout reads, `[B, ...]`, or `[T, B, ...]` of all steps."""
        reads = functools.partial(rnn.read_states, pi=self.pi)
        return reads(self.place.s), reads(self.place.z)

    def slope(self, e: jax.Array) -> jax.Array:
        """An error at what the readout reads, at the state: (∂z/∂s)ᵀ e."""
        s, z = self.output_states
        return self.network.slope(self.cell, s, e, z=z)

    @property
    def top(self) -> jax.Array:
        """q_{T-1} = ∂E_b/∂s_{T-1} = (∂z/∂s)ᵀ (π W_hyᵀ), `[B, D]`.

        With a loss of every step that of all t, `[T, B, D]`. With feedback weights
        E_y is in place of W_hyᵀ.
        """
        return self.slope(matmul(self.pi, self.back.readout_of(self.params)))

    def pull(self, q: jax.Array, place: Place) -> jax.Array:
        """(∂sₜ/∂sₜ₋₁)ᵀ q, `[B, D]`, for a step of `above`.

        With feedback weights A is in place of the transposed recurrent weights.
        """
        return self.back.pull(
            self.network,
            self.cell,
            place.s_prev,
            place.x,
            q,
            z_prev=place.z_prev,
            drive=place.drive,
            key=place.key,
        )

    def pull_through(
        self, matrices: tuple[jax.Array, ...], q: jax.Array, place: Place
    ) -> jax.Array:
        """`pull` with matrices of a rule's own for the transposed recurrent weights."""
        return self._replace(back=Back(matrices)).pull(q, place)


SignalsOf = Callable[
    [jax.Array, types.RuleState, Forward], tuple[Signals, types.RuleState]
]


def run_forward(
    params: types.AnyParams,
    batch: types.Batch,
    output_loss: types.OutputLoss,
    network: Network = rnn.TANH,
    key: jax.Array | None = None,
    back: feedback_lib.Back = feedback_lib.NO_WEIGHTS,
) -> Forward:
    """Runs the network on a batch, and compares its outputs with the labels.

    Args:
      params: the weights.
      batch: the samples.
      output_loss: E.
      network: whose weights they are.
      key: of the update; the network's noise comes of it.
      back: what errors will be multiplied by.
    """
    read = rnn.index_symbols(params, batch.inputs, network)
    started = rnn.has_started(batch.inputs, batch.start)
    inputs = rnn.silence(read, started)
    noise = None
    if key is not None and network.is_noisy:
        noise = jax.random.fold_in(key, NOISE)
    place = rnn.run(params, inputs, network=network, started=started, key=noise)
    z = place.z
    logits = rnn.readout(params, z if output_loss.every_step else z[-1])
    return Forward(
        params,
        types.Trace(h=place.s, z=z, logits=logits),
        pi=output_loss.grad(logits, batch.labels),
        loss=jnp.mean(output_loss.value(logits, batch.labels)),
        started=started,
        network=network,
        place=place,
        back=back,
    )


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
    network: Network = rnn.TANH,
    feedback: feedback_lib.FeedbackLike = "transpose",
) -> types.LearningRule:
    """The rule that descends  Σₜ mean_b zₜ₋₁ᵀ qₜ  and its like, and E in the readout.

    What `signals` says of steps before a sample's start does not count: it is 0.

    Args:
      init: of the rule's state.
      signals: `(key, rule_state, forward) -> (Signals, rule_state)`; `key` is
        consumed.
      max_norm: g ← g max_norm / ‖g‖ where ‖g‖ > max_norm, one norm over all
        gradients; 0 is none.
      output_loss: E.
      network: what is trained.
      feedback: what `Forward.pull` and `Forward.top` multiply errors by. With other
        weights than the transposed ones these are the rule's state, and `init` and
        `signals` those of a rule without one.
    """
    choice = feedback_lib.of(feedback, network)

    @devices.divided(gradients.result_sharding)
    def grads(
        key: jax.Array,
        params: types.AnyParams,
        rule_state: types.RuleState,
        batch: types.Batch,
    ) -> tuple[types.AnyParams, types.RuleState, types.RuleInfo]:
        back = feedback_lib.back_of(choice, rule_state)
        forward = run_forward(params, batch, output_loss, network, key, back)
        errors, rule_state = signals(key, rule_state, forward)
        rule_state = feedback_lib.learned(
            key, choice, rule_state, params, network, forward.place, forward.started
        )
        errors = jax.tree.map(lambda x: rnn.silence(x, forward.started), errors)
        summed = gradients.sum_at_once(network, forward.cell, forward.place, errors.q)
        readout = gradients.readout_gradients(forward.trace.z, forward.pi)
        info = report(
            network,
            forward.cell,
            summed.norms,
            loss=forward.loss,
            local_loss=_over_batch(errors.local_loss),
            target_step_norm=_over_batch(errors.target_step_norm),
        )
        grads = rnn.join(network, summed.grads, *readout)
        return bounded(grads, max_norm), rule_state, info

    return types.LearningRule(feedback_lib.init_of(choice, network, init), grads)


def report(network: Network, cell: Any, norms: Any, **fields: Any) -> Any:
    """What a person wants to see of an update.

    Args:
      network: what is trained.
      cell: its weights, of which it knows the roles.
      norms: `[T]` for each array of its cell, of each step's gradients; None is none.
      **fields: the other fields of `RuleInfo`.

    Returns:
      `RuleInfo`; of another network than tanh `NetworkInfo`.
    """
    if norms is not None:
        for name, role in (("w_hh", "recurrent"), ("w_xh", "input")):
            norm = gradients.norms_of_role(network, cell, norms, role)
            fields[f"{name}_grad_norm"] = norm
    if isinstance(network, Tanh):
        return types.RuleInfo(**fields)
    return types.NetworkInfo(cell_grad_norms=norms, **fields)


def bounded(grads: types.AnyParams, max_norm: ArrayLike) -> types.AnyParams:
    """Gradients with `max_norm` for the one norm of them all; 0 is none."""
    flat, unravel = ravel_pytree(grads)
    return unravel(numerics.clip(flat, max_norm).value)


def _over_batch(values: jax.Array | None) -> jax.Array | None:
    return None if values is None else jnp.mean(values, axis=1)
