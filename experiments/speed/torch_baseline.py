"""RNN-LRA-diff in eager PyTorch, one member at a time: what grids are compared with.

Written from the paper's Algorithm 1 for the benchmark, the way it is usually written:
Python loops over t and k, and every gradient by autograd. It computes what
`lra_jax.lra_diff` with its default choices does (MSE, mean over H, fixed targets, t = 0
trained, λ = 0), which a test asserts.

Not part of the library: PyTorch is needed for this file only (`lra_jax[bench]`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch.nn import functional

from lra_jax import types

Tensor: TypeAlias = torch.Tensor

# What PyTorch takes by itself: the cores, or OMP_NUM_THREADS.
NUM_THREADS: int = torch.get_num_threads()


class Weights(NamedTuple):
    """`lra_jax.types.Params` as tensors; gradients have the same type."""

    w_xh: Tensor  # [X, H]
    w_hh: Tensor  # [H, H]
    b_h: Tensor  # [H]
    w_hy: Tensor  # [H, Y]
    b_y: Tensor  # [Y]


class Settings(NamedTuple):
    """The numbers of the rule."""

    gamma: float
    num_refinements: int
    c0: float
    c1: float


def weights(params: types.Params) -> Weights:
    """Copies of the weights."""
    return Weights(*(torch.tensor(np.asarray(p)) for p in params))


def batch(arrays: types.Batch) -> tuple[Tensor, Tensor]:
    """Inputs, int `[T, B]` or float `[T, B, X]`, and labels."""
    inputs, labels = (torch.tensor(np.asarray(x)) for x in arrays[:2])
    return (
        inputs if inputs.is_floating_point() else inputs.long(),
        labels if labels.is_floating_point() else labels.long(),
    )


def _clip(delta: Tensor, c: float, norm: Tensor) -> Tensor:
    """Δ ← c Δ / ‖Δ‖ where ‖Δ‖ ≥ c > 0, else Δ."""
    return torch.where(norm >= c, delta * (c / norm), delta) if c > 0 else delta


def _clip_samples(delta: Tensor, c: float) -> Tensor:
    return _clip(delta, c, torch.linalg.vector_norm(delta, dim=-1, keepdim=True))


def _clip_matrix(delta: Tensor, c: float) -> Tensor:
    return _clip(delta, c, torch.linalg.vector_norm(delta))


def _output_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Σ_b E_b: cross entropy of classes, squared error of real labels."""
    if labels.is_floating_point():
        return ((logits - labels) ** 2).mean(dim=1).sum()
    return functional.cross_entropy(logits, labels, reduction="sum")


def _local_loss(z: Tensor, target: Tensor) -> Tensor:
    """Σ_b L_b(z, ẑ), L_b = 1/H Σᵢ (zᵢ - ẑᵢ)²."""
    return ((z - target) ** 2).mean(dim=1).sum()


def _refine(
    h: Tensor, loss: Callable[[Tensor], Tensor], settings: Settings
) -> tuple[Tensor, Tensor]:
    """K times  h̄ ← h̄ - γ Normalize(∂loss/∂h̄, c1),  from h̄ = h; returns tanh(h̄)."""
    h_bar = h.detach()
    for _ in range(settings.num_refinements):
        h_bar.requires_grad_()
        (delta,) = torch.autograd.grad(loss(torch.tanh(h_bar)), h_bar)
        h_bar = h_bar.detach() - settings.gamma * _clip_samples(delta, settings.c1)
    return torch.tanh(h_bar)


def gradients(
    weights: Weights, inputs: Tensor, labels: Tensor, settings: Settings
) -> Weights:
    """The gradients that `lra_jax.lra_diff` hands to an optimizer.

    Args:
      weights: leaves of autograd, or plain tensors.
      inputs: int `[T, B]` or float `[T, B, X]`.
      labels: int `[B]` or float `[B, Y]`.
      settings: γ, K, c0 and c1.
    """
    leaves = Weights(*(w.detach().requires_grad_() for w in weights))
    w_xh, w_hh, b_h, w_hy, b_y = (w.detach() for w in weights)
    seq_len, batch_size = inputs.shape[:2]

    def project(w: Tensor, x: Tensor) -> Tensor:
        return x @ w if x.is_floating_point() else w[x]

    # Forward. Each step's graph reaches its weights only: zₜ₋₁ is constant.
    h, z = [], []
    z_prev = w_hh.new_zeros(batch_size, w_hh.shape[0])
    for t in range(seq_len):
        h.append(z_prev @ leaves.w_hh + project(leaves.w_xh, inputs[t]) + leaves.b_h)
        z.append(torch.tanh(h[t]))
        z_prev = z[t].detach()

    # Output layer, and the target of the last state.
    error = _output_loss(z_prev @ leaves.w_hy + leaves.b_y, labels) / batch_size
    d_w_hy, d_b_y = torch.autograd.grad(error, (leaves.w_hy, leaves.b_y))
    target = _refine(
        h[-1], lambda z_bar: _output_loss(z_bar @ w_hy + b_y, labels), settings
    )

    total = [torch.zeros_like(w) for w in (w_xh, w_hh, b_h)]
    for t in reversed(range(seq_len)):
        local = torch.autograd.grad(
            _local_loss(z[t], target) / batch_size,
            (leaves.w_xh, leaves.w_hh, leaves.b_h),
        )
        for sum_, gradient in zip(total, local, strict=True):
            sum_ += _clip_matrix(gradient, settings.c0)
        if t == 0:
            break
        x_w = project(w_xh, inputs[t]) + b_h

        def loss(z_bar: Tensor, x_w: Tensor = x_w, target: Tensor = target) -> Tensor:
            return _local_loss(torch.tanh(z_bar @ w_hh + x_w), target)

        target = _refine(h[t - 1], loss, settings)
    return Weights(*(*total, d_w_hy, d_b_y))


def train_step(
    weights: Weights, inputs: Tensor, labels: Tensor, settings: Settings, lr: float
) -> None:
    """One update by gradient descent, in place."""
    found = gradients(weights, inputs, labels, settings)
    for weight, gradient in zip(weights, found, strict=True):
        weight -= lr * gradient


def with_threads(count: int, run: Callable[[int], None]) -> Callable[[int], None]:
    """The same with so many threads of PyTorch's."""

    def threaded(calls: int) -> None:
        torch.set_num_threads(count)
        run(calls)

    return threaded


def make_products(
    count: int, batch_size: int, hidden_size: int, length: int
) -> Callable[[], Any]:
    """`length` chained products `[count, B, H] × [count, H, H]`, as one call."""
    w = torch.linalg.qr(torch.randn(count, hidden_size, hidden_size))[0].contiguous()
    a = torch.randn(count, batch_size, hidden_size)
    b = torch.empty_like(a)

    def call() -> None:
        x, y = a, b
        for _ in range(length):
            torch.bmm(x, w, out=y)
            x, y = y, x

    return call


def make_tanh(size: int, length: int) -> Callable[[], Any]:
    """`length` chained tanh of `size` numbers, as one call."""
    x = torch.linspace(-2, 2, size)

    def call() -> None:
        for _ in range(length):
            torch.tanh(x, out=x)

    return call
