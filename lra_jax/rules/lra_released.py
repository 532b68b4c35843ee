"""The authors' released code, as it behaves: the audit's rule. Do not train with it.

The paper's experiments come with a program that departs from the paper's algorithm in
twenty-one points. `lra_diff` is the algorithm. This file is the program, written anew
from a description of what it computes, so that a published number can be traced to the
one or to the other. docs/reproduction.md lists the points; those that show in a
gradient are named below where they happen, as (1), (2), ... of that list.

With T steps, the program descends for each l = T-1 .. 1 the total derivative of a local
loss Λₗ through the network's whole history:

    Λ_{T-1} = φ( z_{T-1}, tanh(h_{T-1} - D_{T-1}) )
    Λₗ      = φ( zₗ₊₁, tanh( tanh(hₗ - Dₗ) W_hh + xₗ₊₁ W_xh + b_h ) )         l < T-1

φ(p, q) is the mean of ℓ(p - q) over all B·H entries, and Dₗ = hₗ - h̄ₗ, what K target
steps have moved, the only constant. Derivatives are in closed form. Differences are
taken as the program takes them: what float32 loses there is part of the behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike

from lra_jax import devices, gradients, losses, numerics, refinements, rnn, types
from lra_jax.numerics import matmul
from lra_jax.rules import arguments, card

# The chains of errors through the history are as long as l: those of similar l run
# together, in so many groups, which leaves little of the square of T to zeros.
_NUM_GROUPS = 4

# In the program, float32 squares are 0 of numbers below 2.6e-23; on CPUs, XLA takes
# subnormal numbers for 0, and squares are 0 below 1.1e-19. Numbers times this factor
# have squares that are 0 below 2.6e-23 again: Ω is 0/0 for the same u.
_SUBNORMAL = 2.0**12


class Released(NamedTuple):
    """What the released code computes of one batch.

    l is a step t; the program has no part for l = 0 (12), where all values are 0.

    Attributes:
      grads: what the program's optimizer gets.
      loss: `[]` E of the network.
      target_loss: `[]` E at the target of h_{T-1}, after K steps: what the program
        reports as its global loss (16).
      local_loss: `[T]` Λₗ. Below the top it is the residual of zₗ₊₁, not of zₗ (4).
      target_step_norm: `[T]` mean over the batch of ‖Δhₜ‖, the last target step, which
        the program does not record (18).
      w_hh_grad_norm: `[T]` Frobenius norm of step l's part of the gradient.
      w_xh_grad_norm: `[T]` the same for W_xh.
      b_h_grad_norm: `[T]` the same for b_h.
    """

    grads: types.Params
    loss: jax.Array
    target_loss: jax.Array
    local_loss: jax.Array
    target_step_norm: jax.Array
    w_hh_grad_norm: jax.Array
    w_xh_grad_norm: jax.Array
    b_h_grad_norm: jax.Array


def lra_released(
    *,
    gamma: ArrayLike,
    num_refinements: arguments.Count = 1,
    lambda_: ArrayLike = 0.0,
    c: ArrayLike = 0.0,
    local_loss: Literal["mse", "log_penalty"] = "mse",
    descend_local_loss: bool = True,
    output_loss: types.OutputLoss = losses.cross_entropy,
) -> types.LearningRule:
    """The authors' released code as a rule, for the audit: do not train with it.

    It is not local, its errors shrink doubly exponentially from step to step, and with
    λ > 0 float32 may make NaN of the first update; docs/reproduction.md says why.
    `lra_diff` is the algorithm of the paper.

    E and the local losses carry 1/B here (3): **gamma is B times that of `lra_diff`**.
    An update costs time in T² and memory in T²BH, as every step's error goes through
    all of the past.

    Args:
      gamma: γ of the program, size of a target's step.
      num_refinements: K ≥ 1, steps per target.
      lambda_: λ, weight of Ω in targets, W_xh and W_hy. A plain Python 0 leaves Ω out
        of the compiled program; a traced 0 gives the same numbers. Ω needs B ≤ H (6).
      c: bound of norms, one for Δh and weights (20); 0 is none.
      local_loss: ℓ(e) = e² or log(1 + e²).
      descend_local_loss: whether Λₗ moves the weights. Without it Ω alone does, and
        W_xh only: a control that the program does not have.
      output_loss: E. The program has cross entropy only, and its gradient is NaN as
        soon as a probability is too small for the number type.

    Returns:
      A rule without state. `RuleInfo.loss` is E before the update, as for every
      rule; `Released` says what the others are.

    Raises:
      ValueError: an unknown choice, a number that is not a scalar, or known and out of
        its range, or a loss of every step. From `grads`: B > H with Ω, a `start`, or
        weights of 16 bits.

    Note: the program ends when Λ_{T-1} is NaN, and goes on with NaN in the steps below
    (21); here a run ends at the first weight that is no number.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 100, 8, 100)
      >>> batch = lra_jax.TASKS["random_permutation"].sample(jax.random.key(1), 5, 4)
      >>> rule = lra_jax.lra_released(gamma=10.0, c=1.0)
      >>> state = rule.init(jax.random.key(2), params)
      >>> grads, state, info = rule.grads(jax.random.key(3), params, state, batch)
      >>> bool(info.local_loss[3] > info.local_loss[2]), info.local_loss[0].item()
      (True, 0.0)
    """
    arguments.check_choices(lra_released, locals())
    arguments.check_numbers(lra_released, locals())
    arguments.check_last_step(lra_released, output_loss)

    @devices.divided(gradients.result_sharding)
    def grads(
        key: jax.Array,
        params: types.Params,
        rule_state: types.EmptyState,
        batch: types.Batch,
    ) -> tuple[types.Params, types.EmptyState, types.RuleInfo]:
        del key
        found = released_gradients(
            params,
            batch,
            gamma=gamma,
            num_refinements=num_refinements,
            lambda_=lambda_,
            c=c,
            local_loss=local_loss,
            descend_local_loss=descend_local_loss,
            output_loss=output_loss,
        )
        info = types.RuleInfo(
            loss=found.loss,
            local_loss=found.local_loss,
            target_step_norm=found.target_step_norm,
            w_hh_grad_norm=found.w_hh_grad_norm,
            w_xh_grad_norm=found.w_xh_grad_norm,
        )
        return found.grads, rule_state, info

    return types.LearningRule(types.init_empty, grads)


@devices.divided(lambda *_, **options: PartitionSpec())
def evaluate_released(
    params: types.Params,
    batch: types.Batch,
    *,
    output_loss: types.OutputLoss = losses.cross_entropy,
) -> types.Metrics:
    """`train.evaluate` from the initial state of the released code's validation (13).

        z₋₁ = x₀ W_xh + b_h

    instead of 0 as in training: x₀ enters twice, the second time unbounded.

    Args:
      params: the weights.
      batch: see `Batch`.
      output_loss: E and what counts as an error.

    Raises:
      ValueError: inputs or labels do not fit the parameters or the output loss, or a
        `start`.
    """

    def step(z_prev: jax.Array, x_t: jax.Array) -> tuple[jax.Array, None]:
        x_w = rnn.project_inputs(params, x_t[None])[0]
        return jnp.tanh(matmul(z_prev, params.w_hh) + x_w), None

    _check_no_start(batch)
    inputs = rnn.index_symbols(params, batch.inputs)
    start = rnn.project_inputs(params, inputs[:1])[0]
    z_last, _ = lax.scan(step, start, inputs)
    logits = rnn.readout(params, z_last)
    return types.Metrics(
        loss=jnp.mean(output_loss.value(logits, batch.labels)),
        num_errors=jnp.sum(output_loss.is_error(logits, batch.labels), dtype=jnp.int32),
    )


def released_gradients(
    params: types.Params,
    batch: types.Batch,
    *,
    gamma: ArrayLike,
    num_refinements: ArrayLike,
    lambda_: ArrayLike,
    c: ArrayLike,
    local_loss: Literal["mse", "log_penalty"],
    descend_local_loss: bool = True,
    output_loss: types.OutputLoss = losses.cross_entropy,
) -> Released:
    """Everything that the released code computes of one batch; see `lra_released`.

    Raises:
      ValueError: inputs or labels do not fit, B > H with Ω, or a `start`.
    """
    _check_no_start(batch)
    rnn.check_inputs(params, batch.inputs)
    dtype = params.w_hh.dtype
    if jnp.finfo(dtype).bits < 32:
        raise ValueError(
            "params: expected weights of float32 or float64, as the released code "
            f"has, got {dtype}"
        )
    without_omega = isinstance(lambda_, int | float) and lambda_ == 0
    numbers = _Numbers(
        gamma=jnp.asarray(gamma, dtype),
        num_refinements=refinements.count(num_refinements),
        lambda_=None if without_omega else jnp.asarray(lambda_, dtype),
        c=jnp.asarray(c, dtype),
        loss=_LOCAL_LOSSES[local_loss],
    )
    trace = rnn.forward(params, batch.inputs)
    z = trace.z
    seq_len, batch_size, hidden_size = z.shape
    loss = jnp.mean(output_loss.value(trace.logits, batch.labels))
    if numbers.lambda_ is not None and batch_size > hidden_size:
        raise ValueError(
            f"inputs: expected a batch of at most H = {hidden_size}, as Ω of the "
            f"released code reads the states' diagonal, got {batch_size}"
        )

    output = _softmax_then_log(output_loss)

    def output_grad(logits: jax.Array) -> jax.Array:
        return output.grad(logits, batch.labels) / batch_size

    pi = output.grad(trace.logits, batch.labels)
    w_hy, b_y = _readout_gradients(params, trace, pi, numbers)
    top = _top_target(params, trace, output_grad, numbers)
    logits = rnn.readout(params, jnp.tanh(trace.h[-1] - top.d))
    target_loss = jnp.mean(output.value(logits, batch.labels))

    # Step l = 0 trains nothing of its own (12).
    hidden = _Hidden(
        *(jnp.zeros((*w.shape[:-1], 1, hidden_size), dtype) for w in params[:3])
    )
    local = jnp.zeros((0,), dtype)
    step_norm = top.step_norm[None]
    if seq_len > 1:
        x_w = rnn.project_inputs(params, batch.inputs)
        x = _vectors(params, batch.inputs)
        residuals, step_norm = _propagate(params.w_hh, trace, x_w, top, numbers)
        errors = residuals
        if not descend_local_loss:
            nothing = jnp.zeros_like(residuals.a)
            errors = residuals._replace(a=nothing, b=nothing, g=nothing)
        hidden = _weight_gradients(params, x, trace.z, errors, numbers)
        local = residuals.loss

    def per_step(values: jax.Array) -> jax.Array:
        values = values.reshape(-1)
        return jnp.pad(values, (seq_len - values.size, 0))

    # One norm for each l; b_h is summed as it is (11).
    w_xh = numerics.clip(hidden.w_xh, numbers.c, axis=(0, 2))
    w_hh = numerics.clip(hidden.w_hh, numbers.c, axis=(0, 2))
    return Released(
        grads=types.Params(
            w_xh=jnp.sum(w_xh.value, axis=1),
            w_hh=jnp.sum(w_hh.value, axis=1),
            b_h=jnp.sum(hidden.b_h, axis=0),
            w_hy=w_hy,
            b_y=b_y,
        ),
        loss=loss,
        target_loss=target_loss,
        local_loss=per_step(local),
        target_step_norm=per_step(step_norm),
        w_hh_grad_norm=per_step(w_hh.norm),
        w_xh_grad_norm=per_step(w_xh.norm),
        b_h_grad_norm=per_step(numerics.norm(hidden.b_h, axis=1)),
    )


def _check_no_start(batch: types.Batch) -> None:
    """Raises ValueError where sequences have starts: the program knows none."""
    if batch.start is not None:
        raise ValueError(
            "start: expected None, as the released code has sequences of one length "
            f"only, got {batch.start.dtype} {batch.start.shape}"
        )


def _vectors(params: types.Params, inputs: jax.Array) -> jax.Array:
    """The inputs as real vectors, `[T, B, X]`: one-hot where they are symbols."""
    if rnn.check_inputs(params, inputs):
        indices = rnn.index_symbols(params, inputs)
        return jax.nn.one_hot(indices, params.w_xh.shape[0], dtype=params.w_xh.dtype)
    return inputs.astype(params.w_xh.dtype)


class _LocalLoss(NamedTuple):
    """ℓ, ℓ', and whether the mean of ℓ is exactly 0 in the program's arithmetic."""

    value: Callable[[jax.Array], jax.Array]
    derivative: Callable[[jax.Array], jax.Array]
    vanishes: Callable[[jax.Array], jax.Array]


def _log_penalty(e: jax.Array) -> jax.Array:
    """log(1 + e²), not log1p: in float32 it is 0 for |e| < 2.4e-4 (17)."""
    return jnp.log(1 + e * e)


_LOCAL_LOSSES = {
    "mse": _LocalLoss(
        value=jnp.square,
        derivative=losses.mse.derivative,
        vanishes=lambda e: _norm(e) == 0,
    ),
    "log_penalty": _LocalLoss(
        value=_log_penalty,
        derivative=losses.log_penalty.derivative,
        vanishes=lambda e: jnp.mean(_log_penalty(e)) == 0,
    ),
}


class _Numbers(NamedTuple):
    """The rule's numbers and local loss."""

    gamma: jax.Array  # [] γ
    num_refinements: int | jax.Array  # K, int32 `[]` where it is traced
    lambda_: jax.Array | None  # [] λ; None leaves Ω out of the program
    c: jax.Array  # []
    loss: _LocalLoss

    def add_omega(self, grad: jax.Array, omega: jax.Array) -> jax.Array:
        """`grad + λ omega`; at λ = 0 `grad`, even where omega is NaN."""
        if self.lambda_ is None:
            return grad
        return _add(grad, self.lambda_, omega)

    def omega(
        self,
        u: jax.Array,
        product: jax.Array,
        h: jax.Array,
        skipped: jax.Array | None = None,
    ) -> _Omega:
        """`_omega`, whose derivatives are not taken where it is not used.

        They may be 0/0 there as it is itself, which times 0 is NaN.
        """
        unused = self.lambda_ == 0 if skipped is None else skipped | (self.lambda_ == 0)
        return _omega(*(_constant_where(unused, x) for x in (u, product, h)))

    def bound(self, grad: jax.Array) -> jax.Array:
        """One norm over the whole array, the batch included."""
        return numerics.clip(grad, self.c).value


@jax.custom_jvp
def _add(grad: jax.Array, lambda_: jax.Array, omega: jax.Array) -> jax.Array:
    """grad + λ omega, or grad at λ = 0; ∂/∂λ is omega there, where that is a number."""
    return jnp.where(lambda_ == 0, grad, grad + lambda_ * omega)


@_add.defjvp
def _add_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    (_, lambda_, omega), (d_grad, d_lambda, d_omega) = primals, tangents
    unused = lambda_ == 0
    slope = jnp.where(unused & ~jnp.isfinite(omega), 0, omega)
    d_used = jnp.where(unused, 0, lambda_ * d_omega)
    return _add(*primals), d_grad + d_lambda * slope + d_used


@jax.custom_jvp
def _constant_where(unused: jax.Array, x: jax.Array) -> jax.Array:
    """x, a constant to differentiation where it is not used."""
    del unused
    return x


@_constant_where.defjvp
def _constant_where_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return primals[1], jnp.where(primals[0], 0, tangents[1])


@jax.custom_jvp
def _direction(v: jax.Array, n: jax.Array) -> jax.Array:
    """v / n, and 0 with derivatives 0 where n = 0."""
    return jnp.where(n == 0, 0, v / n)


@_direction.defjvp
def _direction_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    n = primals[1]
    value = _direction(*primals)
    return value, _direction(tangents[0] - value * tangents[1], n)


def _norm(x: jax.Array) -> jax.Array:
    return numerics.root(jnp.sum((x * _SUBNORMAL) ** 2)) / _SUBNORMAL


def _back(w: jax.Array, *errors: jax.Array) -> list[jax.Array]:
    """Each error times wᵀ, as one product of matrices."""
    return jnp.split(matmul(jnp.concatenate(errors), w.T), len(errors))


class _Omega(NamedTuple):
    """The derivatives of Ω, `[B, H]`."""

    product: jax.Array  # ∂Ω/∂(u Wᵀ): ∂Ω/∂W is its transpose times u
    h: jax.Array  # ∂Ω/∂h


def _omega(u: jax.Array, product: jax.Array, h: jax.Array) -> _Omega:
    """Ω = (n / ‖u‖ - 1)²,  n = ‖diag(m) u Wᵀ‖,  m_b = σ'(h[b, b]).

    The norms are over the whole batch, and u is a constant (10). m is what a diagonal
    makes of a state `[B, H]` (6): one unit of each sample, the b-th, scales all units
    of that sample. u = 0 is 0/0 (17).

    Args:
      u: `[B, .]`.
      product: u Wᵀ `[B, H]`.
      h: `[B, H]`, B ≤ H.
    """
    z = jnp.tanh(jnp.diagonal(h))[:, None]
    m = 1 - z**2
    v = m * product
    n, size = _norm(v), _norm(u)
    quotient = numerics.quotient
    to_v = quotient(2 * (quotient(n, size) - 1), size) * _direction(v, n)
    to_m = jnp.sum(to_v * product, axis=1, keepdims=True)
    diagonal = jnp.eye(h.shape[0], h.shape[1], dtype=bool)
    return _Omega(m * to_v, jnp.where(diagonal, -2 * z * m * to_m, 0))


# The output layer.


def _softmax_then_log(output_loss: types.OutputLoss) -> types.OutputLoss:
    """Cross entropy as a softmax, its logarithm, and that times a one-hot vector.

    Where a probability is too small for the number type, that is 0 · log 0, and the
    derivatives of that sample are 0/0. Other losses stay as they are.
    """
    if output_loss is not losses.cross_entropy:
        return output_loss

    def underflows(logits: jax.Array) -> jax.Array:
        # Half of the smallest subnormal number, which is zero on some machines.
        least = np.log(np.finfo(logits.dtype).smallest_subnormal) - np.log(2)
        return jnp.any(jax.nn.log_softmax(logits) < float(least), axis=1)

    def value(logits: jax.Array, labels: jax.Array) -> jax.Array:
        found = output_loss.value(logits, labels)
        return jnp.where(underflows(logits), jnp.nan, found)

    def grad(logits: jax.Array, labels: jax.Array) -> jax.Array:
        found = output_loss.grad(logits, labels)
        return jnp.where(underflows(logits)[:, None], jnp.nan, found)

    return types.OutputLoss(value, grad, output_loss.is_error)


def _readout_gradients(
    params: types.Params, trace: types.Trace, pi: jax.Array, numbers: _Numbers
) -> tuple[jax.Array, jax.Array]:
    """∇W_hy with Ω and bounded, ∇b_y with neither (11)."""
    w_hy, b_y = gradients.readout_gradients(trace.z, pi)
    if numbers.lambda_ is not None:
        u = pi / pi.shape[0]
        omega = numbers.omega(u, matmul(u, params.w_hy.T), trace.h[-1])
        w_hy = numbers.add_omega(w_hy, matmul(omega.product.T, u))
    return numbers.bound(w_hy), b_y


class _Target(NamedTuple):
    """A target, and the last step to it."""

    d: jax.Array  # [B, H], h - h̄
    delta: jax.Array  # [B, H], Δh

    @property
    def step_norm(self) -> jax.Array:
        """Mean over the batch of ‖Δh‖, `[]`."""
        return jnp.mean(numerics.norm(self.delta, axis=-1))


def _top_target(
    params: types.Params,
    trace: types.Trace,
    grad: Callable[[jax.Array], jax.Array],
    numbers: _Numbers,
) -> _Target:
    """K times  h̄ ← h̄ - γ N( ∂E/∂h̄ + λ ∂Ω/∂h̄ ),  from h̄ = h_{T-1}.

    Args:
      params: the weights.
      trace: of the forward pass.
      grad: logits `[B, Y]` to ∂E/∂logits, which has 1/B in it (3).
      numbers: of the rule.
    """
    h = trace.h[-1]

    def step(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        h_bar, _ = carry
        z_bar = jnp.tanh(h_bar)
        u = grad(rnn.readout(params, z_bar))
        product = matmul(u, params.w_hy.T)
        delta = product * (1 - z_bar**2)
        if numbers.lambda_ is not None:
            delta = numbers.add_omega(delta, numbers.omega(u, product, h_bar).h)
        delta = numbers.bound(delta)
        return h_bar - numbers.gamma * delta, delta

    h_bar, delta = refinements.repeat(
        step,
        (h, jnp.zeros_like(h)),
        numbers.num_refinements,
        done=0,
        rule="lra_released",
    )
    return _Target(h - h_bar, delta)


# The hidden layer: targets.


class _Level(NamedTuple):
    """A step l, the state below it and the step above it; `[B, H]` each."""

    h_prev: jax.Array
    h: jax.Array
    z: jax.Array
    x_w: jax.Array  # xₗ W_xh + b_h
    z_next: jax.Array
    x_w_next: jax.Array


class _Residual(NamedTuple):
    """Λₗ and its derivatives, `[B, H]` each.

    Attributes:
      loss: `[]` Λₗ.
      g: ∂Λₗ/∂hₗ, on all ways: the error that goes on to all earlier steps.
      u: ∂Λₗ/∂zₗ, on the way through zₗ₊₁ only (7).
      a: ∂Λₗ/∂hₗ₊₁ through zₗ₊₁, 0 at the top.
      b: ∂Λₗ/∂p, p the pre-activation of the second argument of φ, 0 at the top.
      z_hat: tanh(hₗ - Dₗ), from which p comes.
      omega: ∂Ω/∂hₗ in W_xh's part, None without Ω.
    """

    loss: jax.Array
    g: jax.Array
    u: jax.Array
    a: jax.Array
    b: jax.Array
    z_hat: jax.Array
    omega: jax.Array | None


def _top_residual(
    d: jax.Array, h: jax.Array, z: jax.Array, numbers: _Numbers
) -> _Residual:
    """Λ_{T-1} = φ( z, tanh(h - D) ).

    The target moves with h (1): ∂Λ/∂h = ℓ'(e) ⊙ (σ'(h) - σ'(h - D)) / BH. The first
    order in D cancels; the error below is quadratic in the one above.
    """
    z_hat = jnp.tanh(h - d)
    e = z - z_hat
    u = numbers.loss.derivative(e) / e.size
    zeros = jnp.zeros_like(h)
    return _Residual(
        loss=jnp.mean(numbers.loss.value(e)),
        g=u * (1 - z**2) - u * (1 - z_hat**2),
        u=u,
        a=zeros,
        b=zeros,
        z_hat=z_hat,
        omega=None if numbers.lambda_ is None else zeros,
    )


def _residual(
    w_hh: jax.Array, d: jax.Array, level: _Level, numbers: _Numbers
) -> _Residual:
    """Λₗ = φ( zₗ₊₁, tanh( tanh(hₗ - Dₗ) W_hh + xₗ₊₁ W_xh + b_h ) ), one step off (4).

    hₗ is in both arguments (1).
    """
    z_hat = jnp.tanh(level.h - d)
    z_new = jnp.tanh(matmul(z_hat, w_hh) + level.x_w_next)
    e = level.z_next - z_new
    error = numbers.loss.derivative(e) / e.size
    a = error * (1 - level.z_next**2)
    b = -error * (1 - z_new**2)
    a_back, b_back = _back(w_hh, a, b)
    omega = None
    if numbers.lambda_ is not None:
        # Skipped where Λₗ is exactly 0 (17): in float32, where it is small.
        skipped = numbers.loss.vanishes(e)
        found = numbers.omega(a, a_back, level.h, skipped)
        omega = jnp.where(skipped, 0, found.h)
    return _Residual(
        loss=jnp.mean(numbers.loss.value(e)),
        g=a_back * (1 - level.z**2) + b_back * (1 - z_hat**2),
        u=a_back,
        a=a,
        b=b,
        z_hat=z_hat,
        omega=omega,
    )


def _target_below(
    w_hh: jax.Array,
    residual: _Residual,
    h_prev: jax.Array,
    z: jax.Array,
    x_w: jax.Array,
    numbers: _Numbers,
) -> _Target:
    """The target of hₗ₋₁:  K times  h̄ ← h̄ - γ N( Δ + λ ∂Ω(u)/∂h̄ ),  from h̄ = hₗ₋₁.

        k = 1:  Δ = ∂Λₗ/∂hₗ₋₁,          u = ∂Λₗ/∂zₗ
        k ≥ 2:  Δ = ∂φ(zₗ, p)/∂h̄,       u = ∂φ(zₗ, p)/∂p,
                p = tanh( tanh(h̄) W_hh + xₗ W_xh + b_h )

    From the second step on, h̄ is pulled back to where it came from (5). Float32 gets
    there, u is 0, and Ω is 0/0 (17). u is in other spaces than at the top (7).
    """

    def move(
        h_bar: jax.Array, z_bar: jax.Array, error: jax.Array, u: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        if numbers.lambda_ is None:
            delta = matmul(error, w_hh.T) * (1 - z_bar**2)
        else:
            error_back, product = _back(w_hh, error, u)
            omega = numbers.omega(u, product, h_bar).h
            delta = numbers.add_omega(error_back * (1 - z_bar**2), omega)
        delta = numbers.bound(delta)
        return h_bar - numbers.gamma * delta, delta

    def step(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        h_bar, _ = carry
        z_bar = jnp.tanh(h_bar)
        p = jnp.tanh(matmul(z_bar, w_hh) + x_w)
        e = z - p
        u = -numbers.loss.derivative(e) / e.size
        return move(h_bar, z_bar, u * (1 - p**2), u)

    first = move(h_prev, jnp.tanh(h_prev), residual.g, residual.u)
    h_bar, delta = refinements.repeat(
        step, first, numbers.num_refinements, done=1, rule="lra_released"
    )
    return _Target(h_prev - h_bar, delta)


def _propagate(
    w_hh: jax.Array,
    trace: types.Trace,
    x_w: jax.Array,
    top: _Target,
    numbers: _Numbers,
) -> tuple[_Residual, jax.Array]:
    """The local losses of l = 1 .. T-1, from the top down (12: none of l = 0).

    The target of h₀ would train nothing, and is left out.

    Args:
      w_hh: the recurrent weights.
      trace: of the forward pass, T ≥ 2.
      x_w: `[T, B, H]`, xₜ W_xh + b_h.
      top: the target of h_{T-1}.
      numbers: of the rule.

    Returns:
      The residuals, arrays `[T-1, ...]`, and the targets' step norms, `[T]`.
    """
    h, z = trace.h, trace.z
    residual = _top_residual(top.d, h[-1], z[-1], numbers)
    residuals = [jax.tree.map(lambda x: x[None], residual)]
    step_norms = [top.step_norm[None]]

    def below(d: jax.Array, level: _Level) -> tuple[jax.Array, Any]:
        residual = _residual(w_hh, d, level, numbers)
        target = _target_below(
            w_hh, residual, level.h_prev, level.z, level.x_w, numbers
        )
        return target.d, (residual, target.step_norm)

    if h.shape[0] > 2:
        target = _target_below(w_hh, residual, h[-2], z[-1], x_w[-1], numbers)
        levels = _Level(h[:-2], h[1:-1], z[1:-1], x_w[1:-1], z[2:], x_w[2:])
        lowest = jax.tree.map(lambda x: x[0], levels)
        upper = jax.tree.map(lambda x: x[1:], levels)
        d, (found, norms) = rnn.scan(below, target.d, upper, reverse=True)
        last = _residual(w_hh, d, lowest, numbers)
        residuals = [jax.tree.map(lambda x: x[None], last), found, *residuals]
        step_norms = [norms, target.step_norm[None], *step_norms]
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *residuals)
    norms = jnp.concatenate(step_norms)
    return joined, jnp.pad(norms, (h.shape[0] - norms.shape[0], 0))


# The hidden layer: weights.


class _Hidden(NamedTuple):
    """Gradients of the hidden layer's weights, one of each l: `[..., L, H]`."""

    w_xh: jax.Array  # [X, L, H]
    w_hh: jax.Array  # [H, L, H]
    b_h: jax.Array  # [L, H]


def _weight_gradients(
    params: types.Params,
    x: jax.Array,
    z: jax.Array,
    residuals: _Residual,
    numbers: _Numbers,
) -> _Hidden:
    """∂Λₗ/∂(W_xh, W_hh, b_h) for l = 1 .. T-1, through the whole history (2).

    Ω is added to W_xh alone (8), from hₗ back to the first input (9).

    Args:
      params: the weights.
      x: `[T, B, X]`.
      z: `[T, B, H]`.
      residuals: arrays `[T-1, ...]`.
      numbers: of the rule.
    """
    num_chains = z.shape[0] - 1
    size = -(-num_chains // _NUM_GROUPS)
    parts = [
        _chains(
            params,
            x,
            z,
            residuals,
            numbers,
            range(low, min(low + size, num_chains + 1)),
        )
        for low in range(1, num_chains + 1, size)
    ]
    w_xh, w_hh, b_h = (jnp.concatenate(p, axis=-2) for p in zip(*parts, strict=True))
    # p's own share: of tanh(hₗ - Dₗ), xₗ₊₁ and b_h. At the top b is 0, whatever the x.
    b = residuals.b
    x_next = jnp.concatenate([x[2:], x[-1:]])
    return _Hidden(
        w_xh + jnp.swapaxes(matmul(jnp.swapaxes(x_next, 1, 2), b), 0, 1),
        w_hh + jnp.swapaxes(matmul(jnp.swapaxes(residuals.z_hat, 1, 2), b), 0, 1),
        b_h + jnp.sum(b, axis=1),
    )


def _chains(
    params: types.Params,
    x: jax.Array,
    z: jax.Array,
    residuals: _Residual,
    numbers: _Numbers,
    chains: range,
) -> _Hidden:
    """The gradients of Λₗ for l in `chains`, without p's own share.

    The errors ∂Λₗ/∂hⱼ of all l go back through time together: from hₗ₊₁, which has aₗ,
    and hₗ, which has gₗ, down to j = 0. Gradients of the weights are formed after: one
    product over all j and samples, as zⱼ is the same for all l.
    """
    seq_len, batch_size, hidden_size = z.shape
    top = min(chains.stop, seq_len - 1)
    at = jnp.arange(chains.start, chains.stop)
    # At step j, chain j has gⱼ, and chain j - 1 has aⱼ₋₁. With Ω, W_xh has errors of
    # its own beside those of W_hh.
    start, lead = residuals.g[:, :, None], residuals.a[:, :, None]
    if residuals.omega is not None:
        own = numbers.add_omega(residuals.g, residuals.omega)
        start = jnp.stack([residuals.g, own], axis=2)
        lead = jnp.stack([residuals.a, residuals.a], axis=2)
    kinds = start.shape[2]
    start = jnp.pad(start, [(1, 0), (0, 0), (0, 0), (0, 0)])[: top + 1]
    lead = jnp.pad(lead, [(2, 0), (0, 0), (0, 0), (0, 0)])[: top + 1]

    def step(q: jax.Array, level: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        j, dz, g, a = level
        rows = matmul(q.reshape(-1, hidden_size), params.w_hh.T)
        q = rows.reshape(q.shape) * dz[:, None, None]
        q = jnp.where((at == j)[:, None], g[:, :, None], q)
        q = jnp.where((at == j - 1)[:, None], a[:, :, None], q)
        return q, q

    shape = (batch_size, kinds, len(chains), hidden_size)
    levels = (jnp.arange(top + 1), 1 - z[: top + 1] ** 2, start, lead)
    nothing = devices.varying_as(jnp.zeros(shape, z.dtype), start)
    _, q = lax.scan(step, nothing, levels, reverse=True)

    def product(left: jax.Array, errors: jax.Array) -> jax.Array:
        rows = left.reshape(-1, left.shape[-1])
        flat = matmul(rows.T, errors.reshape(rows.shape[0], -1))
        return flat.reshape(-1, len(chains), hidden_size)

    return _Hidden(
        w_xh=product(x[: top + 1], q[:, :, -1]),
        w_hh=product(z[:top], q[1:, :, 0]),
        b_h=jnp.sum(q[:, :, 0], axis=(0, 1)),
    )


LRA_RELEASED_CARD = card.RuleCard(
    title="the paper's released program, for the audit only",
    family=card.THROUGH_W_HH,
    errors_arrive="gradients of the Lₜ, unrolled",
    transports=("W_hhᵀ", "W_hyᵀ"),
    stores=card.EVERY_STATE,
    every_step=False,
    reference="the paper's program",
)
