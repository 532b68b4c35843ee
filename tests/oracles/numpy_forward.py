"""Rules that run forward in time in plain float64 NumPy, loop by loop.

Of leaky rate units (tanh units are those with α = 1 whose state is h) and of a GRU, one
sample at a time. A trace has a number for each weight: how far the unit that it ends at
was moved by it, as far as the rule knows.
"""

import numpy as np

from oracles.numpy_networks import Layer


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class LeakyTraces:
    """Traces of `numpy_networks.Leaky`: of each weight, at the unit that it ends at.

    e[i, j] ← (1-α + α w_jj f'(s_j)) e[i, j] + α f(s_i);  without w_jj where it is not
    `own`.
    """

    def __init__(self, network, inputs, own):
        self.network, self.own = network, own
        size = network.size
        self.w_xh = np.zeros((inputs, size))
        self.w_hh = np.zeros((size, size))
        self.b_h = np.zeros(size)

    def step(self, s, x):
        net = self.network
        for j in range(net.size):
            kept = 1 - net.alpha
            if self.own:
                kept += net.alpha * net.w[j, j] * net.df(s)[j]
            for i in range(net.size):
                seen = net.alpha * net.f(s)[i] * net.dw[i, j]
                self.w_hh[i, j] = kept * self.w_hh[i, j] + seen
            for i in range(len(x)):
                self.w_xh[i, j] = kept * self.w_xh[i, j] + net.alpha * x[i]
            self.b_h[j] = kept * self.b_h[j] + net.alpha

    def gradients(self, ell):
        """What an error at the state asks of the weights."""
        return Layer(self.w_xh * ell, self.w_hh * ell, self.b_h * ell)


class GRUTraces:
    """Traces of a GRU, by the derivatives of its three gates, written out.

    r, u = σ(a_r + i_r), σ(a_u + i_u);  n = tanh(a_n + r (i_n + b_n))
    s' = (1-u) n + u s,   a = x W_x + b,   i = s W_h
    """

    def __init__(self, cell, own):
        self.w_xh, self.w_hh, self.b_h, self.b_n = cell
        self.own = own
        self.size = len(self.b_n)
        self.e_x, self.e_h, self.e_b, self.e_n = map(np.zeros_like, cell)

    def _gates(self, s, x):
        a = np.split(x @ self.w_xh + self.b_h, 3)
        i = np.split(s @ self.w_hh, 3)
        r, u = sigmoid(a[0] + i[0]), sigmoid(a[1] + i[1])
        n = np.tanh(a[2] + r * (i[2] + self.b_n))
        return i, r, u, n

    def next(self, s, x):
        _, _, u, n = self._gates(s, x)
        return (1 - u) * n + u * s

    def step(self, s, x):
        i, r, u, n = self._gates(s, x)
        size = self.size
        for j in range(size):
            dn = (1 - u[j]) * (1 - n[j] ** 2)
            by_r = dn * (i[2][j] + self.b_n[j]) * r[j] * (1 - r[j])
            by_u = (s[j] - n[j]) * u[j] * (1 - u[j])
            arrives = {0: by_r, 1: by_u, 2: dn * r[j]}  # through recurrent weights
            driven = {0: by_r, 1: by_u, 2: dn}  # from the inputs
            kept = u[j]
            if self.own:
                for gate, slope in arrives.items():
                    kept += slope * self.w_hh[j, gate * size + j]
            for gate in range(3):
                c = gate * size + j
                for k in range(size):
                    new = arrives[gate] * s[k]
                    self.e_h[k, c] = kept * self.e_h[k, c] + new
                for k in range(len(x)):
                    new = driven[gate] * x[k]
                    self.e_x[k, c] = kept * self.e_x[k, c] + new
                self.e_b[c] = kept * self.e_b[c] + driven[gate]
            self.e_n[j] = kept * self.e_n[j] + dn * r[j]

    def gradients(self, ell):
        three = np.tile(ell, 3)
        return self.e_x * three, self.e_h * three, self.e_b * three, self.e_n * ell
