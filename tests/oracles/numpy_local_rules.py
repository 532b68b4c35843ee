"""The rules of section 8 in plain float64 NumPy, from their formulas alone.

A rule says what q_t is, sample by sample and step by step; the gradients of the weights
are the shared formula for all. Random feedback weights are arguments: the fields of the
library's rule state, flat. Each returns (result, new state).
"""

import numpy as np

from oracles.numpy_lra import (
    Info,
    Params,
    Result,
    as_vectors,
    clip_together,
    cross_entropy,
    first_step,
    forward,
    normalize,
    output_layer,
    previous,
    shared_formula,
)


class Network:
    """One forward pass, and what a rule makes of its errors."""

    def __init__(self, params, inputs, labels, start, output_loss):
        self.params, self.x = params, as_vectors(inputs, params)
        self.h, self.z, _ = forward(params, inputs, start)
        self.output = output_layer(params, self.z, labels, output_loss)
        self.pi_of_steps = self.output[1]  # [T,B,Y]
        self.pi = self.pi_of_steps[-1]  # [B,Y]
        self.length, self.batch, self.hidden = self.z.shape
        self.start = start

    def first(self, b):
        return first_step(self.start, b)

    def slope(self, t, b):
        return 1 - self.z[t, b] ** 2

    def error(self, t, b, d):
        """e = z - ẑ where ẑ = tanh(h - d)."""
        return self.z[t, b] - np.tanh(self.h[t, b] - d)

    def result(self, q, max_norm, e=None):
        """The shared formula; with errors e = z - ẑ [T,B,H], L_t and ‖e_t‖ as well."""
        hidden, w_hh_norm, w_xh_norm = shared_formula(self.params, self.x, self.z, q)
        loss, _, w_hy, b_y = self.output
        local_loss = step_norm = None
        if e is not None:
            sizes = np.linalg.norm(e, axis=2)
            local_loss = np.mean(sizes**2, axis=1) / self.hidden
            step_norm = np.mean(sizes, axis=1)
        grads = clip_together(Params(*hidden, w_hy, b_y), max_norm)
        return Result(grads, Info(loss, local_loss, step_norm, w_hh_norm, w_xh_norm))


def fa(
    params,
    state,
    inputs,
    labels,
    start=None,
    *,
    readout="transpose",
    max_norm=0.0,
    output_loss=cross_entropy,
):
    """q_{T-1} = (π W_hy^T) ⊙ σ'_{T-1};  q_{t-1} = (q_t A) ⊙ σ'_{t-1}."""
    network = Network(params, inputs, labels, start, output_loss)
    a, e_y = state if readout == "random" else (state[0], None)
    top = {"transpose": params.w_hy.T, "random": e_y}[readout]
    q = np.zeros_like(network.z)
    for b in range(network.batch):
        q[-1, b] = (network.pi[b] @ top) * network.slope(-1, b)
        for t in reversed(range(network.first(b), network.length - 1)):
            own = network.pi_of_steps[t, b] @ top
            q[t, b] = (q[t + 1, b] @ a + own) * network.slope(t, b)
    return network.result(q, max_norm), state


def dfa(
    params,
    state,
    inputs,
    labels,
    start=None,
    *,
    readout="random",
    max_norm=0.0,
    output_loss=cross_entropy,
):
    """q_t = (π E_y) ⊙ σ'_t."""
    network = Network(params, inputs, labels, start, output_loss)
    (e_y,) = state
    down = {"random": e_y, "transpose": params.w_hy.T}[readout]
    q = np.zeros_like(network.z)
    for b in range(network.batch):
        for t in range(network.first(b), network.length):
            q[t, b] = (network.pi[b] @ down) * network.slope(t, b)
    return network.result(q, max_norm), state


def lra_fdbk(
    params,
    state,
    inputs,
    labels,
    start=None,
    *,
    gamma=1.0,
    c1=0.0,
    max_norm=0.0,
    output_loss=cross_entropy,
):
    """d_{T-1} from the output, d_{t-1} = γ Normalize(q_t A, c1), one σ', that of t."""
    network = Network(params, inputs, labels, start, output_loss)
    (a,) = state
    e, q = np.zeros_like(network.z), np.zeros_like(network.z)
    for b in range(network.batch):
        gradient = (network.pi[b] @ params.w_hy.T) * network.slope(-1, b)
        d = gamma * normalize(gradient, c1)
        for t in reversed(range(network.first(b), network.length)):
            e[t, b] = network.error(t, b, d)
            q[t, b] = 2 / network.hidden * e[t, b] * network.slope(t, b)
            d = gamma * normalize(q[t, b] @ a, c1)
    return network.result(q, max_norm, e), state


def synapse_updates(network, e):
    """Σ_t mean_b e_t^T z_{t-1} and mean_b π^T z_{T-1}: what A and E_y descend."""
    a = np.zeros((network.hidden, network.hidden))
    e_y = np.zeros((network.pi.shape[1], network.hidden))
    for b in range(network.batch):
        e_y += np.outer(network.pi[b], network.z[-1, b]) / network.batch
        for t in range(network.first(b), network.length):
            a += np.outer(e[t, b], previous(network.z, t, b)) / network.batch
    return e_y, a


def rec_lra(
    params,
    state,
    inputs,
    labels,
    start=None,
    *,
    num_steps_per_skip=5,
    beta=1.0,
    feedback_lr=0.0,
    max_norm=0.0,
    output_loss=cross_entropy,
):
    """lra_e, where every j-th step before the last hears the output, not t+1."""
    network = Network(params, inputs, labels, start, output_loss)
    e_y, a, e_skip = state
    e = np.zeros_like(network.z)
    for b in range(network.batch):
        e[-1, b] = network.error(-1, b, beta * network.pi[b] @ e_y)
        for t in reversed(range(network.first(b), network.length - 1)):
            skips = (network.length - 1 - t) % num_steps_per_skip == 0
            heard = network.pi[b] @ e_skip if skips else e[t + 1, b] @ a
            e[t, b] = network.error(t, b, beta * heard)
    down_y, down_a = synapse_updates(network, e)
    state = (e_y - feedback_lr * down_y, a - feedback_lr * down_a, e_skip)
    return network.result(e, max_norm, e), state


def lra_e(params, state, inputs, labels, start=None, **options):
    """e_{T-1} = z - tanh(h - β π E_y), e_{t-1} = z - tanh(h - β e_t A), q_t = e_t."""
    no_skip = {"num_steps_per_skip": len(inputs)}
    result, state = rec_lra(
        params, (*state, None), inputs, labels, start, **no_skip, **options
    )
    return result, state[:2]


def tpri(
    params,
    state,
    inputs,
    labels,
    start=None,
    *,
    target_lr=0.01,
    ridge=10.0,
    max_norm=0.0,
    output_loss=cross_entropy,
):
    """e_{t-1} = (e_t ⊘ σ'_t) W_hh^T (W_hh W_hh^T + r I)^{-1};  q_t = e_t ⊙ σ'_t.

    Where σ' divides, |z| is at most 1 - 1e-3.
    """
    network = Network(params, inputs, labels, start, output_loss)
    gram = params.w_hh @ params.w_hh.T + ridge * np.eye(network.hidden)
    inverse = params.w_hh.T @ np.linalg.inv(gram)
    e, q = np.zeros_like(network.z), np.zeros_like(network.z)
    for b in range(network.batch):
        for t in reversed(range(network.first(b), network.length)):
            e[t, b] = target_lr * network.pi_of_steps[t, b] @ params.w_hy.T
            if t < network.length - 1:
                divisor = 1 - np.minimum(np.abs(network.z[t + 1, b]), 1 - 1e-3) ** 2
                e[t, b] += (e[t + 1, b] / divisor) @ inverse
            q[t, b] = e[t, b] * network.slope(t, b)
    return network.result(q, max_norm, e), state


def lra_norm(
    params,
    state,
    inputs,
    labels,
    start=None,
    *,
    exponent=1.0,
    activity=0.02,
    max_norm=0.0,
    output_loss=cross_entropy,
):
    """d_{t-1} = v (‖d_t‖/‖v‖)^p, v = (d_t W_hh^T) ⊙ σ'_{t-1};  q_t = d_t + μ ‖d_t‖ z_t."""
    network = Network(params, inputs, labels, start, output_loss)
    d = np.zeros_like(network.z)
    for b in range(network.batch):
        for t in reversed(range(network.first(b), network.length)):
            d[t, b] = (network.pi_of_steps[t, b] @ params.w_hy.T) * network.slope(t, b)
            if t == network.length - 1:
                continue
            v = (d[t + 1, b] @ params.w_hh.T) * network.slope(t, b)
            if np.any(v):
                ratio = np.linalg.norm(d[t + 1, b]) / np.linalg.norm(v)
                d[t, b] += v * ratio**exponent
    size = np.linalg.norm(d, axis=2, keepdims=True)
    result = network.result(d + activity * size * network.z, max_norm)
    step_norm = np.mean(size[..., 0], axis=1)
    return result._replace(info=result.info._replace(target_step_norm=step_norm)), state
