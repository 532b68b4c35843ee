"""The types that everything else speaks in, and the dictionary of names.

Letters for axes: `T` time, `B` batch, `X` inputs, `H` hidden units, `Y` outputs.
Arrays are time-major, vectors are rows, and time is 0-based: t = 0 .. T-1.

    code                 the paper
    -------------------  --------------------------------------------------------
    lr                   α, learning rate of the weights
    gamma                γ, size of a target's step
    lambda_              λ, weight of Ω (`lambda` in a config file)
    num_refinements      K, iterations per target
    c0, c1               bounds of Normalize: of weight gradients, of Δh
    h, z                 hₜ pre-activation, zₜ = tanh(hₜ)
    h_hat, z_hat         ĥₜ, ẑₜ targets
    h_bar                h̄ₜ, iterate of the K loop
    d, d_bar             hₜ - ĥₜ, hₜ - h̄ₜ: displacements (what the code carries)
    u, v, rho            ∂L/∂hₜ, (u W_hhᵀ) ⊙ σ'(hₜ₋₁), ‖v‖ / ‖u‖
    loss, local_loss     E, Lₜ
    norm_preservation    Ω
    pi                   π = ∂E_b/∂logits; πₜ of step t with a loss of every step
    w_xh, w_hh, w_hy     W_xh, W_hh, W_hy, with biases b_h, b_y
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax


class Params(NamedTuple):
    """Weights of the network; gradients have the same type.

    Row-vector convention: hₜ = zₜ₋₁ W_hh + xₜ W_xh + b_h.

    Attributes:
      w_xh: `[X, H]`, from the inputs.
      w_hh: `[H, H]`, from the state before.
      b_h: `[H]`, bias of the hidden units.
      w_hy: `[H, Y]`, to the outputs.
      b_y: `[Y]`, bias of the outputs.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> jax.tree.map(jnp.shape, params)
      Params(w_xh=(6, 8), w_hh=(8, 8), b_h=(8,), w_hy=(8, 4), b_y=(4,))
    """

    w_xh: jax.Array
    w_hh: jax.Array
    b_h: jax.Array
    w_hy: jax.Array
    b_y: jax.Array


class NetworkParams(NamedTuple):
    """Weights of any network of `lra_jax.networks`; gradients have the same type.

    The paper's network, tanh, has `Params` instead.

    Attributes:
      cell: the network's own, any pytree of arrays.
      w_hy: `[H, Y]`, to the outputs.
      b_y: `[Y]`, bias of the outputs.

    Example:
      >>> network = lra_jax.networks.gru()
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, network=network)
      >>> params.cell.w_hh.shape, params.w_hy.shape
      ((8, 24), (8, 4))
    """

    cell: Any
    w_hy: jax.Array
    b_y: jax.Array


AnyParams = Any  # `Params` of tanh, `NetworkParams` of other networks


class Weighted(NamedTuple):
    """Labels of a loss of every step, and how much each of them counts.

    With w_bt the weight of a step, 0 where nothing is asked, and E_bt its loss,

        E_b = Σₜ w_bt E_bt / Σₜ w_bt

    With a weight of each output, w_bty, and E_bt = Σ_y e_bty,

        E_b = Σₜ Σ_y w_bty e_bty / Σₜ (mean over y of w_bty)

    Weights of 1 are the loss without weights. E_b is 0 where all weights are. Labels do
    not say by being below 0 that nothing is asked: the weights alone say it, and what
    stands at a weight of 0 may be anything.

    In `Task.from_arrays` both have the axes of the arrays that are given there.

    Attributes:
      labels: as the loss expects them, `[T, B]` or `[T, B, Y]`.
      weights: real `[T, B]`, or `[T, B, Y]` for a loss that is a sum or a mean over
        outputs; ≥ 0. One that is below 0 or not finite makes the loss and the gradients
        NaN.

    Example:
      >>> logits, labels = jnp.zeros((3, 1, 2)), jnp.array([[-1], [0], [1]])
      >>> weighted = lra_jax.Weighted(labels, jnp.array([[0.0], [1.0], [3.0]]))
      >>> lra_jax.cross_entropy_every_step.grad(logits, weighted).tolist()
      [[[0.0, 0.0]], [[-0.125, 0.125]], [[0.375, -0.375]]]
    """

    labels: Any  # an array of JAX or of NumPy
    weights: Any


Labels = Any  # an array, or `Weighted`


class Batch(NamedTuple):
    """Sequences and what to answer at their end, or at every step.

    Arrays are time-major: the first axis of `inputs` is time, the second the batch.
    Arrays that are batch-first, `[B, T, X]`, need `inputs.swapaxes(0, 1)`;
    `Task.from_arrays` takes them as they are.

    Sequences of different lengths are aligned at their ends: the network does nothing
    before step `start`, sₜ = 0 there and zₜ what it emits of it (0, but for units such
    as sigmoid ones), whatever the inputs are, and z_{T-1} is the last state of all.

    Attributes:
      inputs: `[T, B]` integer symbols (one-hot vectors by their index; what is none of
        the X makes NaN), or `[T, B, X]` real vectors.
      labels: `[B]` integer classes, or what the task's `OutputLoss` expects; of a loss
        of every step also `Weighted`. What is no label makes the loss and all gradients
        NaN.
      start: `[B]` integers, 0 ≤ start < T, the first step of each sample; None is 0 for
        all, and costs nothing. With a loss of every step, labels before it have to be
        below 0, or their weights 0.

    Example:
      >>> inputs = jnp.array([[0, 1], [2, 3], [4, 5]])  # T = 3, B = 2
      >>> batch = lra_jax.Batch(inputs, jnp.array([3, 0]), start=jnp.array([0, 2]))
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> trace = lra_jax.forward(params, batch.inputs, start=batch.start)
      >>> (trace.z != 0).any(axis=2).tolist()
      [[True, False], [True, False], [True, True]]
    """

    inputs: jax.Array
    labels: Labels
    start: jax.Array | None = None


class Trace(NamedTuple):
    """What a forward pass leaves behind.

    Attributes:
      h: `[T, B, H]`, pre-activations; of other networks than tanh the states
        `[T, B, D]`.
      z: `[T, B, H]`, tanh(h); of other networks what they emit.
      logits: `[B, Y]` of the last step, or `[T, B, Y]` of every step.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> trace = lra_jax.forward(params, jnp.array([[0, 1], [2, 3], [4, 5]]))
      >>> jax.tree.map(jnp.shape, trace)
      Trace(h=(3, 2, 8), z=(3, 2, 8), logits=(2, 4))
    """

    h: jax.Array
    z: jax.Array
    logits: jax.Array


class OutputLoss(NamedTuple):
    """The global loss E of a task, per sample, and what counts as an error.

    With `every_step` the readout answers at every step: logits are `[T, B, Y]`, labels
    `[T, B, ...]`, and a label below 0 asks nothing (of labels `[T, B, Y]`, all Y are).
    With n_b the number of steps at which sample b is asked, E_b = (1/n_b) Σ E_bt over
    these; 0 where there are none. Labels with weights are `Weighted`.

    Attributes:
      value: `(logits [B, Y], labels) -> [B]`, E_b.
      grad: `(logits [B, Y], labels) -> [B, Y]`, π = ∂E_b/∂logits, without 1/B.
      is_error: `(logits [B, Y], labels) -> bool [B]`; true where the output is
        wrong or not a number, with `every_step` at any step that asks.
      every_step: whether the readout answers at every step, or at the last one.

    Example:
      >>> distance = lra_jax.OutputLoss(
      ...     value=lambda logits, labels: jnp.abs(logits - labels).sum(axis=1),
      ...     grad=lambda logits, labels: jnp.sign(logits - labels),
      ...     is_error=lambda logits, labels: jnp.any(logits != labels, axis=1),
      ... )
      >>> distance.value(jnp.array([[2.0]]), jnp.array([[0.5]])).tolist()
      [1.5]
    """

    value: Callable[[jax.Array, Labels], jax.Array]
    grad: Callable[[jax.Array, Labels], jax.Array]
    is_error: Callable[[jax.Array, Labels], jax.Array]
    every_step: bool = False


class RuleInfo(NamedTuple):
    """What a person wants to see of one update; the next update needs none of it.

    A field that has no meaning for a rule is None. Means are over all B samples: one
    that has not started yet counts as 0.

    Attributes:
      loss: `[]` E, mean over the batch, before the update.
      local_loss: `[T]` mean over the batch of L(zₜ, ẑₜ).
      target_step_norm: `[T]` mean over the batch of ‖Δhₜ‖, the last refinement's
        step after Ω and Normalize. For rules with targets in z: of ‖ẑₜ - zₜ‖.
      w_hh_grad_norm: `[T]` Frobenius norm of step t's part of the gradient.
      w_xh_grad_norm: `[T]` the same for W_xh.
      reversal_error: `[]` of states that are computed back: mean over the batch of the
        norm of the state before the first step, which is 0 but for rounding.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.lra_diff(gamma=1.0)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> info.loss.shape, info.local_loss.shape
      ((), (10,))
    """

    loss: jax.Array
    local_loss: jax.Array | None = None
    target_step_norm: jax.Array | None = None
    w_hh_grad_norm: jax.Array | None = None
    w_xh_grad_norm: jax.Array | None = None
    reversal_error: jax.Array | None = None


class NetworkInfo(NamedTuple):
    """`RuleInfo` of other networks than tanh: its fields, and one more.

    Attributes:
      loss: as of `RuleInfo`.
      local_loss: as of `RuleInfo`.
      target_step_norm: as of `RuleInfo`, of states.
      w_hh_grad_norm: `[T]` norm of step t's part of the gradients of all recurrent
        weights; None where the network has none that are called so.
      w_xh_grad_norm: `[T]` the same for all weights from inputs.
      reversal_error: None.
      cell_grad_norms: `[T]` for each array of the cell, a pytree like it.

    Example:
      >>> network = lra_jax.networks.gru()
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4, network=network)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> rule = lra_jax.lra_diff(gamma=1.0, network=network)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> info.cell_grad_norms.b_n.shape
      (10,)
    """

    loss: jax.Array
    local_loss: jax.Array | None = None
    target_step_norm: jax.Array | None = None
    w_hh_grad_norm: jax.Array | None = None
    w_xh_grad_norm: jax.Array | None = None
    reversal_error: jax.Array | None = None
    cell_grad_norms: Any = None


class EmptyState(NamedTuple):
    """The state of a rule that carries nothing from one update to the next.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> lra_jax.bptt().init(jax.random.key(1), params)
      EmptyState()
    """


def init_empty(key: jax.Array, params: AnyParams) -> EmptyState:
    """The `InitRule` of a rule without state."""
    del key, params
    return EmptyState()


RuleState = Any  # a pytree of the rule's own


class InitRule(Protocol):
    """`(key, params) -> rule_state`; `key` is consumed."""

    def __call__(self, key: jax.Array, params: AnyParams) -> RuleState: ...


class Grads(Protocol):
    """`(key, params, rule_state, batch) -> (grads, rule_state, info)`.

    `key` is consumed. `grads` has the structure, shapes and dtypes of `params` and
    is what an optimizer descends.
    """

    def __call__(
        self, key: jax.Array, params: AnyParams, rule_state: RuleState, batch: Batch
    ) -> tuple[AnyParams, RuleState, Any]: ...


class Piece(NamedTuple):
    """Some steps of a batch's sequences, for rules that run forward in time.

    Attributes:
      inputs: `[K, B]` or `[K, B, X]`, as of `Batch`.
      labels: of these steps, `[K, B, ...]`; with a loss of the last step `[B, ...]`.
      started: bool `[K, B]`, which steps are a sample's own; None is all.
      num_asked: `[B]`, by which a sample's loss is divided: at how many steps it is
        asked in its whole sequence, or the sum of their weights; None is in this piece.

    Example:
      >>> inputs, labels = jnp.zeros((5, 2, 3)), jnp.zeros((5, 2), int)
      >>> lra_jax.Piece(inputs, labels).started is None
      True
    """

    inputs: jax.Array
    labels: Labels
    started: jax.Array | None = None
    num_asked: jax.Array | None = None


class Stream(NamedTuple):
    """How a rule goes through a sequence piece by piece, with updates in between.

    Attributes:
      begin: `(params, batch) -> carry`, before the first step; of the batch the number
        of samples counts.
      cut: `(batch, size) -> Piece` of arrays `[T / size, size, ...]`: all pieces.
      grads: `(key, params, rule_state, carry, piece) -> (grads, rule_state, carry,
        info)`; the key is consumed.
    """

    begin: Callable[[AnyParams, Batch], Any]
    cut: Callable[[Batch, int], Piece]
    grads: Callable[..., tuple[AnyParams, RuleState, Any, Any]]


class LearningRule(NamedTuple):
    """A learning rule is a pair of pure functions; see `InitRule` and `Grads`.

    Attributes:
      init: `(key, params) -> rule_state`, a pytree of the rule's own.
      grads: `(key, params, rule_state, batch) -> (grads, rule_state, info)`; `grads` is
        what an optimizer descends, a pytree like the weights.
      stream: of rules that run forward in time, for updates inside a sequence; None of
        others.

    Raises:
      ValueError: from `grads`, where a batch does not fit the parameters or the output
        loss.

    Example:
      >>> exact = lra_jax.bptt()
      >>> def signs(key, params, rule_state, batch):
      ...     grads, rule_state, info = exact.grads(key, params, rule_state, batch)
      ...     return jax.tree.map(jnp.sign, grads), rule_state, info
      >>> rule = lra_jax.LearningRule(exact.init, signs)
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> lra_jax.init_train_state(jax.random.key(1), params, rule, optax.sgd(0.1)).step
      Array(0, dtype=int32)
    """

    init: InitRule
    grads: Grads
    stream: Stream | None = None


class TrainState(NamedTuple):
    """All that the next update needs.

    Attributes:
      params: the weights.
      opt_state: the optimizer's state.
      rule_state: the learning rule's state.
      key: the rule's stream of randomness; step i uses `fold_in(key, i)`.
      step: `[]` int32, number of updates done.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> rule, optimizer = lra_jax.bptt(), optax.sgd(0.1)
      >>> state = lra_jax.init_train_state(jax.random.key(1), params, rule, optimizer)
      >>> state.rule_state, state.step.item()
      (EmptyState(), 0)
    """

    params: AnyParams
    opt_state: Any
    rule_state: RuleState
    key: jax.Array
    step: jax.Array


class Metrics(NamedTuple):
    """What an evaluation returns.

    Attributes:
      loss: `[]` E, mean over the samples.
      num_errors: `[]` int32, samples that the output loss calls an error.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> batch = lra_jax.TASKS["temporal_order"].sample(jax.random.key(1), 5, 10)
      >>> metrics = lra_jax.evaluate(params, batch)
      >>> bool(metrics.loss > 0), 0 <= metrics.num_errors.item() <= 5
      (True, True)
    """

    loss: jax.Array
    num_errors: jax.Array
