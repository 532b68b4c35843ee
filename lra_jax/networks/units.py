"""Layers of units without gates: relu, and neuroscience's leaky rate units."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from lra_jax import matrices
from lra_jax.networks.layer import Layer, LayerCell
from lra_jax.networks.network import Product
from lra_jax.numerics import matmul

Nonlinearity = Literal["tanh", "relu", "softplus", "sigmoid", "retanh"]

NONLINEARITIES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "softplus": jax.nn.softplus,
    "sigmoid": jax.nn.sigmoid,
    "retanh": lambda s: jnp.tanh(jax.nn.relu(s)),
}
assert tuple(NONLINEARITIES) == get_args(Nonlinearity)


@dataclasses.dataclass(frozen=True)
class Relu(Layer):
    """See `networks.relu`."""

    def advance(
        self,
        p: LayerCell,
        s_prev: jax.Array,
        drive: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        key: jax.Array | None = None,
        product: Product = matmul,
    ) -> jax.Array:
        del key
        z_prev = jax.nn.relu(s_prev) if z_prev is None else z_prev
        return product(z_prev, p.w_hh) + drive

    def emit(self, p: LayerCell, s: jax.Array) -> jax.Array:
        del p
        return jax.nn.relu(s)


@dataclasses.dataclass(frozen=True)
class Leaky(Layer):
    """See `networks.leaky`."""

    alpha: Any
    nonlinearity: str
    noise: Any
    dale: tuple[float, ...] | float | None
    mask: tuple[tuple[float, ...], ...] | None

    @property
    def is_noisy(self) -> bool:
        return not (isinstance(self.noise, int | float) and self.noise == 0)

    @property
    def adds_noise(self) -> bool:
        return True

    def signs(self, hidden_size: int) -> np.ndarray | None:
        """±1 for each unit `[H]`: what all its outgoing weights have; None is free.

        Raises:
          ValueError: there are not H of them.
        """
        if self.dale is None:
            return None
        if isinstance(self.dale, float):
            excitatory = round(self.dale * hidden_size)
            return np.where(np.arange(hidden_size) < excitatory, 1.0, -1.0)
        if len(self.dale) != hidden_size:
            raise ValueError(
                f"dale: expected H = {hidden_size} signs, got {len(self.dale)}"
            )
        return np.asarray(self.dale)

    def _mask(self, hidden_size: int) -> np.ndarray | None:
        if self.mask is None:
            return None
        mask = np.asarray(self.mask)
        if mask.shape != (hidden_size, hidden_size):
            raise ValueError(
                f"mask: expected [H, H] = {(hidden_size, hidden_size)}, "
                f"got {mask.shape}"
            )
        return mask

    def reaches(self, hidden_size: int, steps: int) -> np.ndarray | None:
        if self.mask is None:
            return None
        found = np.eye(hidden_size, dtype=bool)
        for _ in range(steps):
            found = found | (found @ (self._mask(hidden_size) != 0))
        return found

    def init(
        self,
        key: jax.Array,
        input_size: int,
        hidden_size: int,
        dtype: jnp.dtype | None = None,
    ) -> LayerCell:
        p = super().init(key, input_size, hidden_size, dtype)
        return p._replace(w_hh=self._lawful(key, p.w_hh))

    def _lawful(self, key: jax.Array, w_hh: jax.Array) -> jax.Array:
        """W_hh that is drawn for the signs and the mask; as it is without."""
        size, dtype = w_hh.shape[0], w_hh.dtype
        signs, mask = self.signs(size), self._mask(size)
        if signs is not None:
            wide = matrices.wide(dtype)
            drawn = jax.random.normal(jax.random.split(key, 3)[1], (size, size), wide)
            by_row, radius = _balance(signs)
            scale = jnp.asarray(self.w_hh_gain, wide) / jnp.asarray(radius, wide)
            w_hh = scale * jnp.asarray(by_row, wide)[:, None] * jnp.abs(drawn)
        if mask is not None:
            # As much variance into each unit as without the mask.
            count = np.maximum((mask != 0).sum(axis=0), 1)
            kept = (mask != 0) * np.sqrt(size / count)[None]
            w_hh = w_hh * jnp.asarray(kept, w_hh.dtype)
        if signs is not None:
            w_hh = _balanced(
                w_hh, signs, np.ones((size, size)) if mask is None else mask
            )
        return w_hh.astype(dtype)

    def effective(self, p: LayerCell) -> jax.Array:
        w, size = p.w_hh, p.w_hh.shape[0]
        signs, mask = self.signs(size), self._mask(size)
        if signs is not None:
            w = jnp.abs(w) * jnp.asarray(signs, w.dtype)[:, None]
        return w if mask is None else w * jnp.asarray(mask, w.dtype)

    def advance(
        self,
        p: LayerCell,
        s_prev: jax.Array,
        drive: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        key: jax.Array | None = None,
        product: Product = matmul,
    ) -> jax.Array:
        alpha = jnp.asarray(self.alpha, s_prev.dtype)
        z_prev = self.emit(p, s_prev) if z_prev is None else z_prev
        s = (1 - alpha) * s_prev + alpha * (product(z_prev, self.effective(p)) + drive)
        if key is None or not self.is_noisy:
            return s
        wide = matrices.wide(s.dtype)
        xi = jax.random.normal(key, s.shape, wide).astype(s.dtype)
        return s + jnp.sqrt(2 * alpha) * jnp.asarray(self.noise, s.dtype) * xi

    def emit(self, p: LayerCell, s: jax.Array) -> jax.Array:
        del p
        return NONLINEARITIES[self.nonlinearity](s)


def _balance(signs: np.ndarray) -> tuple[np.ndarray, float]:
    """The sizes `[H]` of units' weights for signs in balance, and a spectral radius.

    It is that of |N(0, 1)| times the sizes and the signs, of many units.
    """
    num_excitatory, num_inhibitory = (signs > 0).sum(), (signs < 0).sum()
    balance = (
        num_excitatory / num_inhibitory if num_excitatory and num_inhibitory else 1
    )
    by_row = np.where(signs > 0, 1.0, balance)
    bulk = np.sqrt((1 - 2 / np.pi) * (by_row**2).sum())
    mean = np.sqrt(2 / np.pi) * abs((signs * by_row).sum())
    return by_row, max(bulk, mean)


def _balanced(w: jax.Array, signs: np.ndarray, mask: np.ndarray) -> jax.Array:
    """|W| such that each unit gets as much inhibition as excitation, if it gets both.

    Balance in the mean alone leaves some eigenvalues outside of the others' circle
    (Rajan & Abbott 2006).
    """
    is_inhibitory = jnp.asarray(signs < 0)[:, None]
    effective = w * jnp.asarray(mask, w.dtype)
    excitation = jnp.sum(jnp.where(is_inhibitory, 0, effective), axis=0)
    inhibition = jnp.sum(jnp.where(is_inhibitory, effective, 0), axis=0)
    both = (excitation > 0) & (inhibition > 0)
    factor = jnp.where(both, excitation / jnp.where(both, inhibition, 1), 1)
    return jnp.where(is_inhibitory, w * factor[None], w)
