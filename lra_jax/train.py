"""One update, and one evaluation: what a user's own loop calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from lra_jax import devices, losses, rnn, settings, types
from lra_jax.networks import Network


def init_train_state(
    key: jax.Array,
    params: types.AnyParams,
    rule: types.LearningRule,
    optimizer: optax.GradientTransformation,
) -> types.TrainState:
    """The state before the first update.

    Args:
      key: consumed; the rule's initial state and its later randomness come of it.
      params: the initial weights.
      rule: any learning rule.
      optimizer: any optax optimizer, one with extra arguments too.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> rule, optimizer = lra_jax.fa(), optax.adam(1e-3)
      >>> state = lra_jax.init_train_state(jax.random.key(1), params, rule, optimizer)
      >>> state.rule_state.a.shape, state.step.item()
      ((8, 8), 0)
    """
    key_init, key_updates = jax.random.split(key)
    return types.TrainState(
        params=params,
        opt_state=optimizer.init(params),
        rule_state=rule.init(key_init, params),
        key=key_updates,
        step=jnp.zeros((), jnp.int32),
    )


def _asked(optimizer: optax.GradientTransformation, **extra: Any) -> dict[str, Any]:
    """What of `extra` the optimizer's `update` has an argument for.

    The three that every `update` has may be called anything.
    """
    try:
        accepted = [*inspect.signature(optimizer.update).parameters.values()]
    except ValueError:  # it does not tell
        return {}
    by_position = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    own = [p.name for p in accepted if p.kind in by_position][:3]
    if any(p.kind is p.VAR_KEYWORD for p in accepted):
        return {name: value for name, value in extra.items() if name not in own}
    names = {p.name for p in accepted if p.kind is not p.POSITIONAL_ONLY} - {*own}
    return {name: value for name, value in extra.items() if name in names}


def train_step(
    state: types.TrainState,
    batch: types.Batch,
    *,
    rule: types.LearningRule,
    optimizer: optax.GradientTransformation,
    update_every: int | None = None,
) -> tuple[types.TrainState, types.RuleInfo]:
    """One update of the weights, or several inside of its sequences.

    Pure: wrap it as `jax.jit(functools.partial(train_step, rule=rule,
    optimizer=optimizer))`, or call it inside a function of hyper-parameters and vmap
    that.

    Args:
      state: from `init_train_state` or the last call.
      batch: see `Batch`.
      rule: gives the gradients.
      optimizer: any optax optimizer; turns the gradients into an update. One that
        asks for more gets it: `value`, E of the batch before the update; `grad`, the
        rule's gradients; `value_fn` and `obj_fn`, weights to E of this batch;
        `grad_fn`, weights and a number to the rule's gradients. A line search that
        differentiates `value_fn` gets the gradient of E, whatever the rule is.
      update_every: steps of a sequence after which the weights move, a divisor of T,
        for rules that run forward in time with a loss of every step; states and traces
        go on. None is T.

    Returns:
      The next state, and what the rule reports of this update.

    Raises:
      ValueError: inputs, starts or labels do not fit the parameters or the output loss;
        or the rule's gradients or loss have other shapes than promised; or it cannot
        update inside of sequences, or not so.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> choice = {"rule": lra_jax.lra_diff(gamma=4.0), "optimizer": optax.sgd(0.1)}
      >>> state = lra_jax.init_train_state(jax.random.key(2), params, **choice)
      >>> for _ in range(2):
      ...     state, info = lra_jax.train_step(state, batch, **choice)
      >>> metrics = lra_jax.evaluate(state.params, batch)
      >>> state.step.item(), bool(metrics.loss < info.loss)
      (2, True)
    """
    if update_every is not None:
        settings.check_size("update_every", update_every)
        if update_every != len(batch.inputs):
            return _train_pieces(state, batch, rule, optimizer, update_every)
    key = _key_of(state)

    def compute(params: types.AnyParams) -> tuple[types.AnyParams, Any, Any]:
        grads, rule_state, info = rule.grads(key, params, state.rule_state, batch)
        return grads, info, rule_state

    moved, info, rule_state = _update(state, compute, optimizer)
    return moved._replace(rule_state=rule_state, step=state.step + 1), info


def _key_of(state: types.TrainState) -> jax.Array:
    """The key of the next update."""
    return jax.random.fold_in(state.key, state.step)


def _train_pieces(
    state: types.TrainState,
    batch: types.Batch,
    rule: types.LearningRule,
    optimizer: optax.GradientTransformation,
    update_every: int,
) -> tuple[types.TrainState, Any]:
    """`train_step` with updates inside of sequences; the loss is that of the whole."""
    stream = _stream_of(rule)
    carry = stream.begin(state.params, batch)  # sees what is wrong with the batch
    pieces = stream.cut(batch, update_every)
    key = _key_of(state)

    def step(
        before: tuple[types.TrainState, Any], now: tuple[jax.Array, types.Piece]
    ) -> tuple[tuple[types.TrainState, Any], Any]:
        index, piece = now
        return _along(*before, jax.random.fold_in(key, index), piece, stream, optimizer)

    count = jnp.arange(len(pieces.inputs))
    (moved, _), infos = jax.lax.scan(step, (state, carry), (count, pieces))
    info = infos._replace(loss=jnp.sum(infos.loss))
    return moved._replace(step=state.step + 1), info


def stream_step(
    state: types.TrainState,
    carry: Any,
    piece: types.Piece,
    *,
    rule: types.LearningRule,
    optimizer: optax.GradientTransformation,
) -> tuple[types.TrainState, Any, Any]:
    """One update for the next piece of a sequence that need not end.

    Args:
      state: from `init_train_state` or the last call.
      carry: from `rule.stream.begin` or the last call: the network's state, and what
        the rule keeps of its past.
      piece: the next steps, with labels of every step; of one step if you like.
      rule: one that runs forward in time, with a loss of every step.
      optimizer: as for `train_step`.

    Returns:
      The next state, the next carry, and what the rule reports; the loss is the mean
      over this piece's steps that ask.

    Raises:
      ValueError: the rule needs whole sequences, or as for `train_step`.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> loss = lra_jax.cross_entropy_every_step
      >>> choice = {"rule": lra_jax.snap(output_loss=loss), "optimizer": optax.sgd(0.1)}
      >>> state = lra_jax.init_train_state(jax.random.key(1), params, **choice)
      >>> piece = lra_jax.Piece(jnp.zeros((1, 2), int), jnp.zeros((1, 2), int))
      >>> carry = choice["rule"].stream.begin(params, piece)
      >>> for _ in range(3):
      ...     state, carry, info = lra_jax.stream_step(state, carry, piece, **choice)
      >>> state.step.item(), carry.s.shape
      (3, (2, 8))
    """
    key = _key_of(state)
    (moved, carry), info = _along(state, carry, key, piece, _stream_of(rule), optimizer)
    return moved._replace(step=state.step + 1), carry, info


def _stream_of(rule: types.LearningRule) -> types.Stream:
    if rule.stream is None:
        raise ValueError(
            "rule: expected one that runs forward in time, such as snap or eprop, for "
            "updates inside of a sequence, got one that needs whole sequences"
        )
    return rule.stream


def check_stream(rule: types.LearningRule, batch: types.Batch, every: int) -> None:
    """Raises ValueError where a rule cannot update every so many steps of a batch."""
    _stream_of(rule).cut(batch, every)


def _along(
    state: types.TrainState,
    carry: Any,
    key: jax.Array,
    piece: types.Piece,
    stream: types.Stream,
    optimizer: optax.GradientTransformation,
) -> tuple[tuple[types.TrainState, Any], Any]:
    """One update for a piece: the state but for its `step`, and the carry."""

    def compute(params: types.AnyParams) -> tuple[types.AnyParams, Any, Any]:
        grads, rule_state, after, info = stream.grads(
            key, params, state.rule_state, carry, piece
        )
        return grads, info, (rule_state, after)

    moved, info, (rule_state, after) = _update(state, compute, optimizer)
    return (moved._replace(rule_state=rule_state), after), info


def _update(
    state: types.TrainState,
    compute: Callable[[types.AnyParams], tuple[types.AnyParams, Any, Any]],
    optimizer: optax.GradientTransformation,
) -> tuple[types.TrainState, Any, Any]:
    """The state with moved weights, and what came of the gradients.

    Args:
      state: before the update.
      compute: of weights, gradients, what is reported, and anything else.
      optimizer: turns the gradients into an update.
    """

    def loss(params: types.AnyParams, obj_fn: Any = None, grad_fn: Any = None) -> Any:
        # A line search hands on what it was given and has no use for.
        del obj_fn, grad_fn
        return compute(params)[1].loss

    grads, info, rest = compute(state.params)
    _check_rule(state.params, grads, info)
    asked = _asked(
        optimizer,
        value=info.loss,
        grad=grads,
        value_fn=loss,
        obj_fn=loss,
        grad_fn=lambda params, _: compute(params)[0],
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, **asked)
    params = optax.apply_updates(state.params, updates)
    return state._replace(params=params, opt_state=opt_state), info, rest


def _check_rule(
    params: types.AnyParams, grads: types.AnyParams, info: types.RuleInfo
) -> None:
    """A rule may be a user's: gradients like the weights, and one loss."""
    try:
        chex.assert_trees_all_equal_shapes(params, grads)
        chex.assert_rank(info.loss, 0)
    except AssertionError:
        expected, got = (jax.tree.map(jnp.shape, tree) for tree in (params, grads))
        raise ValueError(
            f"rule: expected gradients {expected} and a loss (), "
            f"got {got} and {jnp.shape(info.loss)}"
        ) from None


@devices.divided(lambda *_, **options: PartitionSpec())
def evaluate(
    params: types.AnyParams,
    batch: types.Batch,
    *,
    output_loss: types.OutputLoss = losses.cross_entropy,
    network: Network = rnn.TANH,
    key: jax.Array | None = None,
) -> types.Metrics:
    """The loss and the number of errors on a batch, from z₋₁ = 0 as in training.

    With a loss of every step the memory grows with T·H, as in training.

    Args:
      params: the weights.
      batch: see `Batch`.
      output_loss: E and what counts as an error; a task's is `task.output_loss`.
      network: whose weights they are, as in training.
      key: of the network's noise; None is an evaluation without.

    Returns:
      `Metrics(loss [], num_errors [] int32)`. Errors are counted, not averaged: a
      float32 rate below 1e-4 can hide an error among 10,000.

    Raises:
      ValueError: inputs, starts or labels do not fit the parameters or the output loss.

    Example:
      >>> task = lra_jax.TASKS["adding"]
      >>> params = lra_jax.init_params(jax.random.key(0), task.input_size, 8, 1)
      >>> batch = task.sample(jax.random.key(1), 20, 10)
      >>> metrics = lra_jax.evaluate(params, batch, output_loss=task.output_loss)
      >>> metrics.num_errors.dtype, 0 <= metrics.num_errors.item() <= 20
      (dtype('int32'), True)
    """
    losses.check_loss(output_loss)
    if output_loss.every_step:
        trace = rnn.forward(
            params,
            batch.inputs,
            start=batch.start,
            every_step=True,
            network=network,
            key=key,
        )
        logits = trace.logits
    else:
        logits = rnn.final_logits(
            params, batch.inputs, start=batch.start, network=network, key=key
        )
    value = output_loss.value(logits, batch.labels)
    is_error = output_loss.is_error(logits, batch.labels)
    try:  # an output loss may be a user's
        chex.assert_shape([value, is_error], (logits.shape[-2],))
    except AssertionError:
        raise ValueError(
            f"output_loss: expected a value and an error for each sample "
            f"[B] = {(logits.shape[-2],)}, got {value.shape} and {is_error.shape}"
        ) from None
    return types.Metrics(
        loss=jnp.mean(value), num_errors=jnp.sum(is_error, dtype=jnp.int32)
    )
