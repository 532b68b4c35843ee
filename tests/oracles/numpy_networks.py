"""Networks beyond one tanh layer in plain float64 NumPy, by their equations.

Leaky rate units and two tanh layers, sample by sample and step by step: what a step and
a state are, and how errors go back through them, is written out by hand. The rules are
loops over that, and have direct differences, as `numpy_lra` has.
"""

from typing import NamedTuple

import numpy as np

from oracles.numpy_lra import cross_entropy, local_loss_and_slope, normalize


class Layer(NamedTuple):
    """Weights of one layer of units, or gradients of them."""

    w_xh: np.ndarray  # [X, H]
    w_hh: np.ndarray  # [H, H]
    b_h: np.ndarray  # [H]


# f and f' at s.
NONLINEARITIES = {
    "tanh": (np.tanh, lambda s: 1 - np.tanh(s) ** 2),
    "softplus": (lambda s: np.log1p(np.exp(s)), lambda s: 1 / (1 + np.exp(-s))),
    "sigmoid": (
        lambda s: 1 / (1 + np.exp(-s)),
        lambda s: np.exp(-s) / (1 + np.exp(-s)) ** 2,
    ),
}


class Leaky:
    """s' = (1-α) s + α (f(s) W + x W_xh + b),  W_ij = |w_ij| sign_i mask_ij."""

    def __init__(self, cell, alpha, nonlinearity, signs=None, mask=None):
        self.cell, self.alpha = cell, alpha
        self.f, self.df = NONLINEARITIES[nonlinearity]
        self.signs, self.mask = signs, mask
        self.size = len(cell.b_h)
        self.w, self.dw = np.zeros_like(cell.w_hh), np.zeros_like(cell.w_hh)
        for i in range(self.size):
            for j in range(self.size):
                w, slope = cell.w_hh[i, j], 1.0
                if signs is not None:
                    w, slope = abs(w) * signs[i], np.sign(w) * signs[i]
                allowed = 1.0 if mask is None else mask[i][j]
                self.w[i, j], self.dw[i, j] = w * allowed, slope * allowed

    def step(self, s, x):
        current = self.f(s) @ self.w + x @ self.cell.w_xh + self.cell.b_h
        return (1 - self.alpha) * s + self.alpha * current

    def emit(self, s):
        return self.f(s)

    def error_of_z(self, s, e):
        """An error at z, at s."""
        return e * self.df(s)

    def back(self, s, x, q):
        """An error after the step, before it."""
        del x
        return (1 - self.alpha) * q + self.alpha * self.df(s) * (q @ self.w.T)

    def gradients(self, s, x, q):
        a = self.alpha
        w_hh = a * np.outer(self.f(s), q) * self.dw
        return [Layer(a * np.outer(x, q), w_hh, a * q)]


class TwoLayers:
    """h' = tanh(h) W + x W_xh + b,  g' = tanh(g) V + tanh(h') U + c;  s = (h, g)."""

    def __init__(self, first, second):
        self.first, self.second = first, second
        self.hidden = len(first.b_h)
        self.size = 2 * self.hidden

    def _split(self, s):
        return s[: self.hidden], s[self.hidden :]

    def step(self, s, x):
        h, g = self._split(s)
        w_xh, w_hh, b_h = self.first
        h_new = np.tanh(h) @ w_hh + x @ w_xh + b_h
        u, v, c = self.second
        return np.concatenate([h_new, np.tanh(g) @ v + np.tanh(h_new) @ u + c])

    def emit(self, s):
        return np.tanh(self._split(s)[1])

    def error_of_z(self, s, e):
        _, g = self._split(s)
        return np.concatenate([np.zeros(self.hidden), e * (1 - np.tanh(g) ** 2)])

    def _down(self, s, x, q):
        """Errors at h', by itself and through g', and at g'."""
        h_new, _ = self._split(self.step(s, x))
        q_h, q_g = self._split(q)
        return q_h + (q_g @ self.second.w_xh.T) * (1 - np.tanh(h_new) ** 2), q_g

    def back(self, s, x, q):
        h, g = self._split(s)
        q_h, q_g = self._down(s, x, q)
        return np.concatenate(
            [
                (q_h @ self.first.w_hh.T) * (1 - np.tanh(h) ** 2),
                (q_g @ self.second.w_hh.T) * (1 - np.tanh(g) ** 2),
            ]
        )

    def gradients(self, s, x, q):
        h, g = self._split(s)
        z_new = np.tanh(self._split(self.step(s, x))[0])
        q_h, q_g = self._down(s, x, q)
        return [
            Layer(np.outer(x, q_h), np.outer(np.tanh(h), q_h), q_h),
            Layer(np.outer(z_new, q_g), np.outer(np.tanh(g), q_g), q_g),
        ]


def forward(network, x):
    """s and z of all steps, of one sample's inputs [T,X]; s_{-1} = 0."""
    states = []
    s = np.zeros(network.size)
    for x_t in x:
        s = network.step(s, x_t)
        states.append(s)
    return np.array(states), np.array([network.emit(s) for s in states])


class Readout(NamedTuple):
    w_hy: np.ndarray  # [H, Y]
    b_y: np.ndarray  # [Y]


def output_error(network, readout, s, label):
    """∂E_b/∂s of a state that is read out."""
    _, pi = cross_entropy(network.emit(s) @ readout.w_hy + readout.b_y, label)
    return network.error_of_z(s, pi @ readout.w_hy.T)


# What a rule makes of one sample: q [T,D], the errors at its states.


def bptt(network, readout, x, label):
    s, _ = forward(network, x)
    q = np.zeros_like(s)
    q[-1] = output_error(network, readout, s[-1], label)
    for t in reversed(range(1, len(s))):
        q[t - 1] = network.back(s[t - 1], x[t], q[t])
    return q


def lra_norm(network, readout, x, label, *, exponent=1.0, activity=0.02):
    """d_{t-1} = v (‖d_t‖/‖v‖)^p, v = back(d_t);  q_t = d_t + μ ‖d_t‖ (∂z/∂s)ᵀ z_t."""
    s, z = forward(network, x)
    d = np.zeros_like(s)
    d[-1] = output_error(network, readout, s[-1], label)
    for t in reversed(range(1, len(s))):
        v = network.back(s[t - 1], x[t], d[t])
        d[t - 1] = v * (np.linalg.norm(d[t]) / np.linalg.norm(v)) ** exponent
    shrink = [network.error_of_z(*here) for here in zip(s, z, strict=True)]
    return d + activity * np.linalg.norm(d, axis=1, keepdims=True) * np.array(shrink)


def lra_diff(network, readout, x, label, *, gamma, num_refinements, c1=0.0):
    """Algorithm 1 with targets of states, ℓ = e², s = 1/H and no bound of gradients."""
    s, z = forward(network, x)
    s_hat, u = np.zeros_like(s), np.zeros_like(s)
    s_bar = s[-1]
    for _ in range(num_refinements):
        delta = output_error(network, readout, s_bar, label)
        s_bar = s_bar - gamma * normalize(delta, c1)
    s_hat[-1] = s_bar
    for t in reversed(range(len(s))):
        z_hat = network.emit(s_hat[t])
        _, slope = local_loss_and_slope(z[t], z_hat, "mse", "mean")
        u[t] = network.error_of_z(s[t], slope)
        if t == 0:
            break
        s_bar = s[t - 1]
        for _ in range(num_refinements):
            p = network.step(s_bar, x[t])
            _, slope = local_loss_and_slope(network.emit(p), z_hat, "mse", "mean")
            delta = network.back(s_bar, x[t], network.error_of_z(p, slope))
            s_bar = s_bar - gamma * normalize(delta, c1)
        s_hat[t - 1] = s_bar
    return u


def gradients(errors, network, readout, inputs, labels, **numbers):
    """E, a `Layer` of gradients for each layer, and a `Readout` of the readout's.

    Args:
      errors: one of the rules above.
      network: of this module.
      readout: its weights.
      inputs: `[T, B, X]`.
      labels: `[B]`.
      **numbers: of the rule.
    """
    length, batch, _ = inputs.shape
    loss, layers = 0.0, None
    w_hy, b_y = np.zeros_like(readout.w_hy), np.zeros_like(readout.b_y)
    for b in range(batch):
        x, label = inputs[:, b], labels[b]
        s, z = forward(network, x)
        loss_b, pi = cross_entropy(z[-1] @ readout.w_hy + readout.b_y, label)
        loss += loss_b / batch
        w_hy += np.outer(z[-1], pi) / batch
        b_y += pi / batch
        q = errors(network, readout, x, label, **numbers)
        for t in range(length):
            before = s[t - 1] if t >= 1 else np.zeros(network.size)
            parts = network.gradients(before, x[t], q[t])
            if layers is None:
                layers = [Layer(*map(np.zeros_like, part)) for part in parts]
            for total, part in zip(layers, parts, strict=True):
                for array, more in zip(total, part, strict=True):
                    array += more / batch
    return loss, layers, Readout(w_hy, b_y)
