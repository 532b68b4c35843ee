"""Rules that run forward in time: they carry what weights did to the state.

    Jₜ = Aₜ Jₜ₋₁ + Mₜ,   Aₜ = ∂sₜ/∂sₜ₋₁,   Mₜ = ∂sₜ/∂p at fixed sₜ₋₁,   J₋₁ = 0
    ∇p = Σₜ mean_b ℓₜ Jₜ,   ℓₜ = ∂E_b/∂sₜ of the output at t alone

Jₜ is the *influence* of the weights p on the state, for each sample. Rules differ in
how much of it they keep. What follows from it is the same for all, and is here: nothing
is stored over t, and with a loss of every step the weights may move inside a sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lra_jax import (
    devices,
    error_signals,
    gradients,
    losses,
    numerics,
    rnn,
    symbols,
    types,
)
from lra_jax import feedback as feedback_lib
from lra_jax.networks.network import Cell, Network, Place
from lra_jax.numerics import matmul

# An update's key, folded with this, is that of a rule's own randomness.
DRAWS = 0x64726177


class Influence(NamedTuple):
    """What a rule keeps of Jₜ: a trace, any pytree of arrays `[B, ...]`.

    Attributes:
      begin: `(cell, s `[B, D]`) -> trace` of J = 0.
      step: `(key, cell, trace, place) -> trace` of the step `place`; the key is the
        rule's own, of the step.
      weigh: `(cell, trace, ell, place) -> gradients` like the cell, Σ_b ℓ_b J_b of
        ℓ `[B, D]`.
    """

    begin: Callable[[Cell, jax.Array], Any]
    step: Callable[[jax.Array, Cell, Any, Place], Any]
    weigh: Callable[[Cell, Any, jax.Array, Place], Cell]


class Carry(NamedTuple):
    """What goes on from one piece of a sequence to the next.

    Attributes:
      s: `[B, D]`, the state.
      trace: of the rule's `Influence`.
    """

    s: jax.Array
    trace: Any


def make_rule(
    influence: Influence,
    *,
    max_norm: ArrayLike,
    output_loss: types.OutputLoss,
    network: Network,
    feedback: feedback_lib.FeedbackLike = "transpose",
) -> types.LearningRule:
    """The rule that descends Σₜ mean_b ℓₜ Jₜ, and E in the readout.

    Args:
      influence: what it keeps of J.
      max_norm: as for `error_signals.make_rule`.
      output_loss: E.
      network: what is trained.
      feedback: what stands in place of W_hyᵀ in ℓ; nothing is sent back through
        recurrent weights.
    """
    choice = feedback_lib.of_readout(feedback, network)

    def begin(params: types.AnyParams, batch: types.Batch) -> Carry:
        if output_loss.every_step:
            _check_labels(output_loss, params, batch.inputs, batch.labels)
        inputs = rnn.index_symbols(params, batch.inputs, network)
        s = rnn.first_state(params, network, inputs)
        return Carry(s, influence.begin(rnn.cell_of(params), s))

    def stream(
        key: jax.Array,
        params: types.AnyParams,
        rule_state: types.RuleState,
        carry: Carry,
        piece: types.Piece,
    ) -> tuple[types.AnyParams, types.RuleState, Carry, Any]:
        back = feedback_lib.back_of(choice, rule_state)
        steps = _Steps(influence, network, output_loss, params, back)
        carry, total, loss = steps.run(key, carry, piece)
        rule_state = feedback_lib.learned(
            key, choice, rule_state, params, network, None
        )
        info = error_signals.report(network, None, None, loss=loss)
        return error_signals.bounded(total, max_norm), rule_state, carry, info

    @devices.divided(gradients.result_sharding)
    def grads(
        key: jax.Array,
        params: types.AnyParams,
        rule_state: types.RuleState,
        batch: types.Batch,
    ) -> tuple[types.AnyParams, types.RuleState, Any]:
        carry = begin(params, batch)
        piece = piece_of(batch, output_loss)
        found, rule_state, _, info = stream(key, params, rule_state, carry, piece)
        return found, rule_state, info

    init = feedback_lib.init_of(choice, network, types.init_empty)

    def cut(batch: types.Batch, size: int) -> types.Piece:
        if not output_loss.every_step:
            raise ValueError(
                "update_every: expected all steps, as a loss of the last step has no "
                f"errors before it, got {size}"
            )
        return _cut(piece_of(batch, output_loss), size)

    return types.LearningRule(init, grads, types.Stream(begin, cut, stream))


def piece_of(batch: types.Batch, output_loss: types.OutputLoss) -> types.Piece:
    """A whole batch as one piece."""
    count = None
    if output_loss.every_step:
        count = losses.num_asked(symbols.saturated(batch.labels))
    started = rnn.has_started(batch.inputs, batch.start)
    return types.Piece(batch.inputs, batch.labels, started, count)


def _check_labels(
    output_loss: types.OutputLoss,
    params: types.AnyParams,
    inputs: jax.Array,
    labels: types.Labels,
) -> None:
    """Raises the loss's ValueError of all steps; of one it would have another shape."""
    shape = (*inputs.shape[:2], params.w_hy.shape[1])
    logits = jax.ShapeDtypeStruct(shape, params.w_hy.dtype)
    jax.eval_shape(output_loss.value, logits, symbols.saturated(labels))


def _cut(piece: types.Piece, size: int) -> types.Piece:
    """The pieces of one, `[T / size, size, ...]`; each has its `num_asked`."""
    length = len(piece.inputs)
    if length % size:
        raise ValueError(
            f"update_every: expected a divisor of T = {length}, got {size}"
        )
    count = length // size
    parts = jax.tree.map(
        lambda x: x.reshape(count, size, *x.shape[1:]), piece._replace(num_asked=None)
    )
    asked = piece.num_asked
    assert asked is not None
    return parts._replace(num_asked=jnp.broadcast_to(asked, (count, *asked.shape)))


class _Total(NamedTuple):
    """Sums over the steps so far."""

    cell: Cell
    w_hy: jax.Array
    b_y: jax.Array
    loss: jax.Array


class _Steps(NamedTuple):
    """The steps of a piece of a sequence."""

    influence: Influence
    network: Network
    output_loss: types.OutputLoss
    params: types.AnyParams
    back: feedback_lib.Back

    def run(
        self, key: jax.Array, carry: Carry, piece: types.Piece
    ) -> tuple[Carry, types.AnyParams, jax.Array]:
        """The carry after a piece, its gradients, and its part of the loss."""
        network, params = self.network, self.params
        cell = rnn.cell_of(params)
        read = rnn.index_symbols(params, piece.inputs, network)
        inputs = rnn.silence(read, piece.started)
        noise = None
        if network.is_noisy:
            noise = jax.random.split(
                jax.random.fold_in(key, error_signals.NOISE), len(inputs)
            )
        draws = jax.random.split(jax.random.fold_in(key, DRAWS), len(inputs))
        every = self.output_loss.every_step
        labels = asked = None
        if every:
            labels, asked = symbols.saturated(piece.labels), piece.num_asked
            _check_labels(self.output_loss, params, piece.inputs, labels)
            asked = losses.num_asked(labels) if asked is None else asked
        total = _Total(
            gradients.no_gradients(cell, carry.s),
            *(
                gradients.no_sum(x, carry.s)
                for x in (params.w_hy, params.b_y, params.b_y[0])
            ),
        )

        def go(
            before: tuple[Carry, jax.Array, _Total], now: Any
        ) -> tuple[tuple[Carry, jax.Array, _Total], Place]:
            (s_prev, trace), z_prev, total = before
            x, noise, draw, started, labels = now
            drive = network.drive_one(cell, x)
            s = network.advance(cell, s_prev, drive, z_prev=z_prev, key=noise)
            s = rnn.silence(rnn.checked_state(network, s, s_prev), started)
            z = network.emit(cell, s)
            place = Place(x, z_prev, s_prev, s, z, drive, noise)
            trace = self.influence.step(draw, cell, trace, place)
            trace = jax.tree.map(lambda x: rnn.silence(x, started), trace)
            if every:
                total = self._add(total, trace, place, labels, asked)
            return (Carry(s, trace), z, total), place

        z = network.emit(cell, carry.s)
        rnn.check_emitted(params, network, z)
        now = (inputs, noise, draws, piece.started, labels)
        # The last step apart: of a loss of the last step it alone has an error.
        first = jax.tree.map(lambda x: x[:-1], now)
        last = jax.tree.map(lambda x: x[-1], now)
        before, _ = rnn.scan(
            lambda before, now: (go(before, now)[0], None), (carry, z, total), first
        )
        (carry, _, total), place = go(before, last)
        if not every:
            total = self._add(total, carry.trace, place, piece.labels, None)
        total = numerics.with_type(total, carry.s.dtype)
        found = gradients.without_frozen(network, cell, total.cell)
        return carry, rnn.join(network, found, total.w_hy, total.b_y), total.loss

    def _add(
        self,
        total: _Total,
        trace: Any,
        place: Place,
        labels: types.Labels,
        asked: jax.Array | None,
    ) -> _Total:
        """The sums with what the output of a step adds."""
        network, params = self.network, self.params
        cell, size = rnn.cell_of(params), place.s.shape[0]
        logits = rnn.readout(params, place.z)
        if asked is None:
            value = self.output_loss.value(logits, labels)
            pi = self.output_loss.grad(logits, labels)
        else:
            value = losses.value_of_step(self.output_loss, asked)(logits, labels)
            pi = losses.grad_of_step(self.output_loss, asked)(logits, labels)
        e = matmul(pi, self.back.readout_of(params))
        ell = network.slope(cell, place.s, e, z=place.z)
        found = self.influence.weigh(cell, trace, ell, place)
        return _Total(
            jax.tree.map(lambda g, more: g + more / size, total.cell, found),
            total.w_hy + gradients.mean_outer(place.z, pi),
            total.b_y + jnp.mean(pi, axis=0),
            total.loss + jnp.mean(value),
        )


def whole_influence(network: Network, mask: Any = None) -> Influence:
    """J itself, `[B, D, ...]` for each array of the cell; with `mask` a part of it.

    Args:
      network: any.
      mask: of the cell to bool arrays `[D, ...]`, where J is kept, or to None: all.
    """

    def cut(cell: Cell, trace: Cell) -> Cell:
        kept = None if mask is None else mask(cell)
        if kept is None:
            return trace
        return jax.tree.map(lambda j, keep: jnp.where(keep, j, 0), trace, kept)

    def begin(cell: Cell, s: jax.Array) -> Cell:
        size, samples = s.shape[1], s.shape[0]
        return jax.tree.map(
            lambda w: devices.varying_as(
                jnp.zeros((samples, size, *w.shape), w.dtype), s
            ),
            cell,
        )

    def step(key: jax.Array, cell: Cell, trace: Cell, place: Place) -> Cell:
        del key
        units = jnp.eye(place.s.shape[1], dtype=place.s.dtype)

        def direct(unit: jax.Array) -> Cell:
            return network.weigh_each(
                cell,
                place.s_prev,
                place.x,
                jnp.broadcast_to(unit[None], place.s.shape),
                z_prev=place.z_prev,
                key=place.key,
            )

        def moved(j: jax.Array) -> jax.Array:
            """A J, `[B, D, ...]`."""
            columns = jnp.moveaxis(j.reshape(*j.shape[:2], -1), -1, 0)
            push = jax.vmap(lambda d: network.push(cell, place, d))
            return jnp.moveaxis(push(columns), 0, -1).reshape(j.shape)

        new = jax.vmap(direct, out_axes=1)(units)  # M, [B, D, ...]
        return cut(cell, jax.tree.map(lambda j, m: moved(j) + m, trace, new))

    def weigh(cell: Cell, trace: Cell, ell: jax.Array, place: Place) -> Cell:
        del cell, place

        def one(j: jax.Array) -> jax.Array:
            flat = matmul(ell.reshape(1, -1), j.reshape(ell.size, -1))
            return flat.reshape(j.shape[2:])

        return jax.tree.map(one, trace)

    return Influence(begin, step, weigh)
