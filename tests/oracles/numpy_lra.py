"""The learning rules in plain float64 NumPy, written from the specification alone.

One sample and one time step at a time, with the direct differences e = z - z_hat (the
library uses displacement identities). Row vectors, time-major arrays, t = 0..T-1 and
z_{-1} = 0, as in section 1. Slow, and meant to be read beside Algorithms 1 and 2.

`start` [B] is the first step of each sample: what is before it stays 0, by loops that
never go there. With `EveryStep` in place of an output loss, docs/every_step.md.
"""

from typing import NamedTuple

import numpy as np


class Params(NamedTuple):
    """Weights, or gradients of the same shapes."""

    w_xh: np.ndarray  # [X, H]
    w_hh: np.ndarray  # [H, H]
    b_h: np.ndarray  # [H]
    w_hy: np.ndarray  # [H, Y]
    b_y: np.ndarray  # [Y]


class Info(NamedTuple):
    """RuleInfo of section 4 (None where the rule does not define it)."""

    loss: float
    local_loss: np.ndarray | None = None  # [T]
    target_step_norm: np.ndarray | None = None  # [T]
    w_hh_grad_norm: np.ndarray | None = None  # [T]
    w_xh_grad_norm: np.ndarray | None = None  # [T]
    reversal_error: None = None  # of states computed back, which no twin does


class Result(NamedTuple):
    """What a rule returns, and the targets where it has some."""

    grads: Params
    info: Info
    z_hat: np.ndarray | None = None  # [T, B, H]
    h_hat: np.ndarray | None = None  # [T, B, H]


# Section 1: the network.


def forward(params, inputs, start=None):
    """Section 1: h [T,B,H], z [T,B,H] and logits [B,Y]."""
    x = as_vectors(inputs, params)
    length, batch, _ = x.shape
    h = np.zeros((length, batch, len(params.b_h)))
    z = np.zeros_like(h)
    for b in range(batch):
        for t in range(first_step(start, b), length):
            h[t, b] = (
                previous(z, t, b) @ params.w_hh + x[t, b] @ params.w_xh + params.b_h
            )
            z[t, b] = np.tanh(h[t, b])
    return h, z, z[-1] @ params.w_hy + params.b_y


def as_vectors(inputs, params):
    """Input vectors [T,B,X]: one-hot for int symbols [T,B], else unchanged."""
    inputs = np.asarray(inputs)
    if inputs.ndim == 3:
        return inputs.astype(np.float64)
    return np.eye(params.w_xh.shape[0])[inputs]


def first_step(start, b):
    """The first step of sample b."""
    return 0 if start is None else start[b]


def previous(z, t, b):
    """z_{t-1} of sample b, with z_{-1} = 0."""
    return z[t - 1, b] if t >= 1 else np.zeros_like(z[0, b])


def cross_entropy(logits, label):
    """E_b of one sample and pi = softmax - onehot (section 1)."""
    log_normalizer = np.max(logits) + np.log(np.sum(np.exp(logits - np.max(logits))))
    pi = np.exp(logits - log_normalizer)
    pi[label] -= 1.0
    return log_normalizer - logits[label], pi


def squared_error(outputs, label):
    """E_b of one sample, the mean square over the outputs, and pi = ∂E_b/∂outputs."""
    difference = outputs - label
    return np.mean(difference**2), 2 * difference / len(difference)


def binary_cross_entropy(logits, keys):
    """E_bt of one sample and step, by probabilities, and pi."""
    p = 1 / (1 + np.exp(-logits))
    return -np.sum(np.log(np.where(keys == 1, p, 1 - p))), p - keys


class EveryStep(NamedTuple):
    """An output loss of every step, by that of one."""

    of_step: object  # (logits [Y], label) -> (E_bt, pi)
    is_mean: bool = False  # whether E_bt is a mean over outputs, not a sum


class Weighted(NamedTuple):
    """Labels [T,B,...] and weights [T,B] or [T,B,Y], all ≥ 0."""

    labels: np.ndarray
    weights: np.ndarray

    def output_at(self, logits, t, b, output_loss):
        """w_bt E_bt / Σ_s w_bs and π; a weight of an output scales its part of E_bt."""
        total = sum(np.mean(w) for w in self.weights[:, b])
        w, label = self.weights[t, b], self.labels[t, b]
        loss, pi = 0.0, np.zeros_like(logits)
        if np.ndim(w) == 0:
            if w > 0:
                found, slope = output_loss.of_step(logits, label)
                loss, pi = w * found / total, w * slope / total
            return loss, pi
        share = 1 / len(logits) if output_loss.is_mean else 1
        for y in np.flatnonzero(w):
            found, slope = output_loss.of_step(logits[[y]], label[[y]])
            loss += share * w[y] * found / total
            pi[y] = share * w[y] * slope[0] / total
        return loss, pi


def output_at(params, z, t, b, labels, output_loss, length):
    """Step t's part of E_b at a state z [H], and π of it; 0 where nothing is asked."""
    logits = z @ params.w_hy + params.b_y
    if not isinstance(output_loss, EveryStep):
        if t == length - 1:
            return output_loss(logits, labels[b])
        return 0.0, np.zeros_like(logits)
    if isinstance(labels, Weighted):
        return labels.output_at(logits, t, b, output_loss)
    if np.any(labels[t, b] < 0):
        return 0.0, np.zeros_like(logits)
    num_asked = sum(np.all(labels[s, b] >= 0) for s in range(length))
    loss, pi = output_loss.of_step(logits, labels[t, b])
    return loss / num_asked, pi / num_asked


def output_layer(params, z, labels, output_loss):
    """E, π [T,B,Y] and the gradients of E with respect to w_hy and b_y (section 4)."""
    length, batch, _ = z.shape
    loss, pis = 0.0, np.zeros((length, batch, len(params.b_y)))
    w_hy, b_y = np.zeros_like(params.w_hy), np.zeros_like(params.b_y)
    for b in range(batch):
        for t in range(length):
            loss_t, pi = output_at(params, z[t, b], t, b, labels, output_loss, length)
            loss += loss_t / batch
            w_hy += np.outer(z[t, b], pi) / batch
            b_y += pi / batch
            pis[t, b] = pi
    return loss, pis, w_hy, b_y


def mean_loss(params, inputs, labels, start=None, output_loss=cross_entropy):
    """E = mean_b E_b."""
    _, z, _ = forward(params, inputs, start)
    return output_layer(params, z, labels, output_loss)[0]


# Section 4: Normalize and the local losses.


def normalize(delta, c, normalization="clip"):
    """Normalize(Δ, c) of section 4."""
    norm = np.sqrt(np.sum(delta**2))
    if c <= 0 or norm == 0:
        return delta
    if normalization == "force" or norm >= c:
        return c * delta / norm
    return delta


def local_loss_and_slope(z, z_hat, local_loss, reduction):
    """L_b(z, ẑ) = s Σ_i ℓ(e_i) with e = z - ẑ, and s ℓ'(e) (section 4)."""
    s = {"mean": 1 / len(z), "sum": 1.0}[reduction]
    e = z - z_hat
    if local_loss == "mse":
        return s * np.sum(e**2), s * 2 * e
    if local_loss == "log_penalty":
        return s * np.sum(np.log1p(e**2)), s * 2 * e / (1 + e**2)
    raise ValueError(local_loss)


# Section 5: the regulariser.


class Omega(NamedTuple):
    """Ω of one sample and its partial derivatives."""

    value: float
    v: np.ndarray
    rho: float
    omega: np.ndarray  # ∂Ω/∂v
    a: np.ndarray  # ∂Ω/∂h_{t-1}


def norm_preservation(w_hh, u, h_before):
    """Ω = (ρ - 1)², ρ = ‖v‖/‖u‖, v = (u W_hh^T) ⊙ σ'(h_{t-1}); u constant."""
    z_before = np.tanh(h_before)
    slope = 1 - z_before**2
    backward = u @ w_hh.T
    v = backward * slope
    if np.max(np.abs(u)) < 1e-30:
        return Omega(0.0, v, 1.0, np.zeros_like(v), np.zeros_like(v))
    norm_u, norm_v = np.linalg.norm(u), np.linalg.norm(v)
    rho = norm_v / norm_u
    omega = np.zeros_like(v)
    if norm_v > 0:
        omega = 2 * (rho - 1) * v / (norm_v * norm_u)
    a = omega * backward * (-2 * z_before * slope)
    return Omega((rho - 1) ** 2, v, rho, omega, a)


def omega_of_weights(w_xh, w_hh, b_h, u, x_before, z_before_that):
    """Ω_t through h_{t-1} = z_{t-2} W_hh + x_{t-1} W_xh + b_h; z_{t-2}, u constant."""
    h_before = z_before_that @ w_hh + x_before @ w_xh + b_h
    return norm_preservation(w_hh, u, h_before).value


def omega_weight_gradients(params, u, x_before, h_before, z_before_that):
    """One sample's ∂Ω_t/∂(w_xh, w_hh, b_h) of section 5."""
    omega = norm_preservation(params.w_hh, u, h_before)
    slope = 1 - np.tanh(h_before) ** 2
    direct = np.outer(omega.omega * slope, u)
    through_h = np.outer(z_before_that, omega.a)
    return np.outer(x_before, omega.a), direct + through_h, omega.a


def scheduled(lambda_, schedule, omega, u, size_next):
    """λ_t of one sample; size_next is ‖u_{t+1}‖, at t = T-1 ‖u_t‖ (section 8)."""
    size, size_a = np.linalg.norm(u), np.linalg.norm(omega.a)
    if schedule == "constant":
        return lambda_
    if schedule == "matched":
        return lambda_ * size / size_a if size_a > 0 else 0.0
    if schedule == "shrinkage":
        return lambda_ * max(0.0, 1 - omega.rho)
    if schedule == "error_ratio":
        return lambda_ * min(size_next / size, 10) if size > 0 else 0.0
    raise ValueError(schedule)


# Section 4: Algorithm 1.


def lra_diff(
    params,
    inputs,
    labels,
    start=None,
    *,
    gamma,
    num_refinements=1,
    lambda_=0.0,
    c0=0.0,
    c1=0.0,
    local_loss="mse",
    reduction="mean",
    normalization="clip",
    refinement="fixed",
    update_first_step=True,
    descend_local_loss=True,
    schedule="constant",
    output_loss=cross_entropy,
):
    """Algorithm 1 of the specification (section 4), with Ω of section 5."""
    w_xh, w_hh, b_h, w_hy, _ = params
    x = as_vectors(inputs, params)
    h, z, _ = forward(params, inputs, start)
    length, batch, _ = z.shape

    loss, _, grad_w_hy, grad_b_y = output_layer(params, z, labels, output_loss)

    z_hat, h_hat = np.zeros_like(z), np.zeros_like(h)
    step_norm = np.zeros((length, batch))

    def output_error(h_bar, t, b):
        """What step t's own output asks of h̄."""
        z_bar = np.tanh(h_bar)
        _, pi = output_at(params, z_bar, t, b, labels, output_loss, length)
        return (pi @ w_hy.T) * (1 - z_bar**2)

    # Lines 8-13: the target of the top step.
    for b in range(batch):
        h_bar = h[-1, b]
        for _ in range(num_refinements):
            delta = output_error(h_bar, length - 1, b)
            delta = normalize(delta, c1, normalization)
            h_bar = h_bar - gamma * delta
        h_hat[-1, b], z_hat[-1, b] = h_bar, np.tanh(h_bar)
        step_norm[-1, b] = np.linalg.norm(delta)

    grad_w_xh, grad_w_hh, grad_b_h = (np.zeros_like(w) for w in (w_xh, w_hh, b_h))
    local_losses, w_hh_norm, w_xh_norm = (np.zeros(length) for _ in range(3))
    u_size = np.zeros((length, batch))

    for t in reversed(range(length)):
        next_t = min(t + 1, length - 1)
        # Lines 15-18: the local weight gradients of step t.
        w_xh_t, w_hh_t, b_h_t = (np.zeros_like(w) for w in (w_xh, w_hh, b_h))
        for b in range(batch):
            first = first_step(start, b)
            if t < first:
                continue
            value, slope = local_loss_and_slope(
                z[t, b], z_hat[t, b], local_loss, reduction
            )
            local_losses[t] += value / batch
            u = slope * (1 - z[t, b] ** 2)
            u_size[t, b] = np.linalg.norm(u)
            if descend_local_loss and (t > first or update_first_step):
                w_xh_t += np.outer(x[t, b], u) / batch
                w_hh_t += np.outer(previous(z, t, b), u) / batch
                b_h_t += u / batch
            if t > first and lambda_ != 0:
                omega_w_xh, omega_w_hh, omega_b_h = omega_weight_gradients(
                    params, u, x[t - 1, b], h[t - 1, b], previous(z, t - 1, b)
                )
                omega = norm_preservation(w_hh, u, h[t - 1, b])
                weight = scheduled(lambda_, schedule, omega, u, u_size[next_t, b])
                w_xh_t += weight * omega_w_xh / batch
                w_hh_t += weight * omega_w_hh / batch
                b_h_t += weight * omega_b_h / batch
        w_xh_t = normalize(w_xh_t, c0, normalization)
        w_hh_t = normalize(w_hh_t, c0, normalization)
        grad_w_xh += w_xh_t
        grad_w_hh += w_hh_t
        grad_b_h += normalize(b_h_t, c0, normalization)
        w_xh_norm[t] = np.linalg.norm(w_xh_t)
        w_hh_norm[t] = np.linalg.norm(w_hh_t)

        # Lines 19-26: the target of step t - 1.
        for b in range(batch):
            if t <= first_step(start, b):
                continue
            h_bar = h[t - 1, b]
            for k in range(1, num_refinements + 1):
                prediction = np.tanh(np.tanh(h_bar) @ w_hh + x[t, b] @ w_xh + b_h)
                overwritten = refinement == "overwrite" and k >= 2
                target = z[t, b] if overwritten else z_hat[t, b]
                _, slope = local_loss_and_slope(
                    prediction, target, local_loss, reduction
                )
                u = slope * (1 - prediction**2)
                delta = (u @ w_hh.T) * (1 - np.tanh(h_bar) ** 2)
                delta = delta + output_error(h_bar, t - 1, b)
                if lambda_ != 0:
                    omega = norm_preservation(w_hh, u, h_bar)
                    weight = scheduled(lambda_, schedule, omega, u, u_size[next_t, b])
                    delta = delta + weight * omega.a
                delta = normalize(delta, c1, normalization)
                h_bar = h_bar - gamma * delta
            h_hat[t - 1, b], z_hat[t - 1, b] = h_bar, np.tanh(h_bar)
            step_norm[t - 1, b] = np.linalg.norm(delta)

    grads = Params(grad_w_xh, grad_w_hh, grad_b_h, grad_w_hy, grad_b_y)
    info = Info(loss, local_losses, step_norm.mean(axis=1), w_hh_norm, w_xh_norm)
    return Result(grads, info, z_hat, h_hat)


# Section 6: bptt and readout_only; section 8: the shared formula.


def bptt_errors(params, z, pi, start=None):
    """q_t = ∂E_b/∂h_t [T,B,H] of section 6, per sample (no 1/B); pi is [T,B,Y]."""
    q = np.zeros_like(z)
    length, batch, _ = z.shape
    for b in range(batch):
        for t in reversed(range(first_step(start, b), length)):
            to_z = pi[t, b] @ params.w_hy.T
            if t < length - 1:
                to_z = to_z + q[t + 1, b] @ params.w_hh.T
            q[t, b] = to_z * (1 - z[t, b] ** 2)
    return q


def shared_formula(params, x, z, q):
    """Section 8: Σ_t of the per-step gradients, and the per-step Frobenius norms."""
    length, batch, _ = z.shape
    w_xh, w_hh, b_h = (np.zeros_like(w) for w in params[:3])
    w_hh_norm, w_xh_norm = np.zeros(length), np.zeros(length)
    for t in range(length):
        w_xh_t, w_hh_t = np.zeros_like(w_xh), np.zeros_like(w_hh)
        for b in range(batch):
            w_xh_t += np.outer(x[t, b], q[t, b]) / batch
            w_hh_t += np.outer(previous(z, t, b), q[t, b]) / batch
            b_h += q[t, b] / batch
        w_xh += w_xh_t
        w_hh += w_hh_t
        w_xh_norm[t], w_hh_norm[t] = np.linalg.norm(w_xh_t), np.linalg.norm(w_hh_t)
    return (w_xh, w_hh, b_h), w_hh_norm, w_xh_norm


def clip_together(grads, max_norm):
    """One norm over all five arrays, at most max_norm; 0 is no bound (section 6)."""
    norm = np.sqrt(sum(np.sum(g**2) for g in grads))
    if max_norm > 0 and norm > max_norm:
        return Params(*(g * max_norm / norm for g in grads))
    return grads


def bptt(
    params, inputs, labels, start=None, *, max_norm=0.0, output_loss=cross_entropy
):
    """The exact gradient of E, clipped by one norm over all five arrays (section 6)."""
    x = as_vectors(inputs, params)
    _, z, _ = forward(params, inputs, start)
    loss, pi, w_hy, b_y = output_layer(params, z, labels, output_loss)
    q = bptt_errors(params, z, pi, start)
    hidden, w_hh_norm, w_xh_norm = shared_formula(params, x, z, q)
    grads = clip_together(Params(*hidden, w_hy, b_y), max_norm)
    info = Info(loss, w_hh_grad_norm=w_hh_norm, w_xh_grad_norm=w_xh_norm)
    return Result(grads, info)


def readout_only(params, inputs, labels, start=None, *, output_loss=cross_entropy):
    """Gradients of E for w_hy, b_y; zeros elsewhere (section 6)."""
    _, z, _ = forward(params, inputs, start)
    loss, _, w_hy, b_y = output_layer(params, z, labels, output_loss)
    hidden = (np.zeros_like(w) for w in params[:3])
    return Result(Params(*hidden, w_hy, b_y), Info(loss))


# Section 7: target propagation through time.


class Feedback(NamedTuple):
    """The feedback weights V, c of section 7 and their velocities."""

    v: np.ndarray  # [H, H]
    c: np.ndarray  # [H]
    velocity_v: np.ndarray
    velocity_c: np.ndarray


def feedback_gradients(params, feedback, inputs, noise, start=None):
    """Step 1 of section 7: ∇V and ∇c; noise is n [T,B,H]."""
    x = as_vectors(inputs, params)
    _, z, _ = forward(params, inputs, start)
    length, batch, hidden = z.shape
    grad_v, grad_c = np.zeros_like(feedback.v), np.zeros_like(feedback.c)
    for b in range(batch):
        for t in range(first_step(start, b), length):
            noisy = previous(z, t, b) + noise[t, b]
            drive = x[t, b] @ params.w_xh
            f = np.tanh(noisy @ params.w_hh + drive + params.b_h)
            g = np.tanh(drive + f @ feedback.v + feedback.c)
            error = 2 / (batch * hidden) * (g - noisy) * (1 - g**2)
            grad_v += np.outer(f, error)
            grad_c += error
    return grad_v, grad_c


def feedback_update(feedback, grads, *, feedback_lr, feedback_momentum):
    """Nesterov's momentum of section 7."""
    (grad_v, grad_c), mu = grads, feedback_momentum
    velocity_v = mu * feedback.velocity_v - feedback_lr * grad_v
    velocity_c = mu * feedback.velocity_c - feedback_lr * grad_c
    return Feedback(
        feedback.v + mu * velocity_v - feedback_lr * grad_v,
        feedback.c + mu * velocity_c - feedback_lr * grad_c,
        velocity_v,
        velocity_c,
    )


def tptt(
    params,
    feedback,
    inputs,
    labels,
    noise,
    start=None,
    *,
    target_lr=0.1,
    feedback_lr=0.001,
    feedback_momentum=0.9,
    w_xh_update="tptt",
    output_loss=cross_entropy,
):
    """Section 7: (result, new feedback weights). The noise n [T,B,H] is given."""
    x = as_vectors(inputs, params)
    _, z, _ = forward(params, inputs, start)
    length, batch, hidden = z.shape
    loss, pi, w_hy, b_y = output_layer(params, z, labels, output_loss)

    feedback = feedback_update(
        feedback,
        feedback_gradients(params, feedback, inputs, noise, start),
        feedback_lr=feedback_lr,
        feedback_momentum=feedback_momentum,
    )

    z_hat, u = np.zeros_like(z), np.zeros_like(z)
    local_losses, step_norm = np.zeros(length), np.zeros(length)
    for b in range(batch):
        first = first_step(start, b)
        for t in reversed(range(first, length)):
            z_hat[t, b] = z[t, b] - target_lr / batch * (pi[t, b] @ params.w_hy.T)
            if t == length - 1:
                continue
            drive = x[t + 1, b] @ params.w_xh + feedback.c
            inverse_of_z = np.tanh(drive + z[t + 1, b] @ feedback.v)
            inverse_of_target = np.tanh(drive + z_hat[t + 1, b] @ feedback.v)
            z_hat[t, b] += inverse_of_target - inverse_of_z
        for t in range(first, length):
            e = z[t, b] - z_hat[t, b]
            u[t, b] = 2 / hidden * e * (1 - z[t, b] ** 2)
            local_losses[t] += np.sum(e**2) / hidden / batch
            step_norm[t] += np.linalg.norm(e) / batch

    (w_xh, w_hh, b_h), w_hh_norm, w_xh_norm = shared_formula(params, x, z, u)
    if w_xh_update == "bptt":
        q = bptt_errors(params, z, pi, start)
        (w_xh, _, _), _, w_xh_norm = shared_formula(params, x, z, q)
    info = Info(loss, local_losses, step_norm, w_hh_norm, w_xh_norm)
    return Result(Params(w_xh, w_hh, b_h, w_hy, b_y), info, z_hat), feedback
