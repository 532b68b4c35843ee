"""One update, and one evaluation: what a user's own loop calls."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from lra_jax import losses, rnn, types


def init_train_state(
    key: jax.Array,
    params: types.Params,
    rule: types.LearningRule,
    optimizer: optax.GradientTransformation,
) -> types.TrainState:
    """The state before the first update.

    Args:
      key: consumed; the rule's initial state and its later randomness come of it.
      params: the initial weights.
      rule: any learning rule.
      optimizer: any optax optimizer.
    """
    key_init, key_updates = jax.random.split(key)
    return types.TrainState(
        params=params,
        opt_state=optimizer.init(params),
        rule_state=rule.init(key_init, params),
        key=key_updates,
        step=jnp.zeros((), jnp.int32),
    )


def train_step(
    state: types.TrainState,
    batch: types.Batch,
    *,
    rule: types.LearningRule,
    optimizer: optax.GradientTransformation,
) -> tuple[types.TrainState, types.RuleInfo]:
    """One update of the weights.

    Pure: wrap it as `jax.jit(functools.partial(train_step, rule=rule,
    optimizer=optimizer))`, or call it inside a function of hyper-parameters and vmap
    that.

    Args:
      state: from `init_train_state` or the last call.
      batch: see `Batch`.
      rule: gives the gradients.
      optimizer: turns them into an update.

    Returns:
      The next state, and what the rule reports of this update.

    Raises:
      ValueError: inputs, starts or labels do not fit the parameters or the output loss.
    """
    grads, rule_state, info = rule.grads(
        jax.random.fold_in(state.key, state.step),
        state.params,
        state.rule_state,
        batch,
    )
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    next_state = types.TrainState(
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        rule_state=rule_state,
        key=state.key,
        step=state.step + 1,
    )
    return next_state, info


def evaluate(
    params: types.Params,
    batch: types.Batch,
    *,
    output_loss: types.OutputLoss = losses.cross_entropy,
) -> types.Metrics:
    """The loss and the number of errors on a batch, from z₋₁ = 0 as in training.

    With a loss of every step the memory grows with T·H, as in training.

    Args:
      params: the weights.
      batch: see `Batch`.
      output_loss: E and what counts as an error; a task's is `task.output_loss`.

    Returns:
      `Metrics(loss [], num_errors [] int32)`. Errors are counted, not averaged: a
      float32 rate below 1e-4 can hide an error among 10,000.

    Raises:
      ValueError: inputs, starts or labels do not fit the parameters or the output loss.
    """
    if output_loss.every_step:
        trace = rnn.forward(params, batch.inputs, start=batch.start, every_step=True)
        logits = trace.logits
    else:
        logits = rnn.final_logits(params, batch.inputs, start=batch.start)
    return types.Metrics(
        loss=jnp.mean(output_loss.value(logits, batch.labels)),
        num_errors=jnp.sum(output_loss.is_error(logits, batch.labels), dtype=jnp.int32),
    )
