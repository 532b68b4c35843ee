"""What makes a network: a step, what it emits, and five questions that rules ask.

    sₜ = step(p, sₜ₋₁, xₜ)   `[B, D]`        zₜ = emit(p, sₜ)   `[B, H]`

s is the *state*, in which targets live: one array, whatever the network is. z is what
the readout reads, and what local losses compare. p are the cell's weights, any pytree.
t = 0 .. T-1, s₋₁ = 0.

A rule never looks into a network. It asks five questions of linear algebra:

    pull    (∂sₜ/∂sₜ₋₁)ᵀ q           an error at sₜ, at the state before
    weigh   Σ_b (∂sₜ/∂p)ᵀ q          what it asks of the weights
    move    step(s) - step(s - d)    a displacement of the state before, at sₜ
    slope   (∂z/∂s)ᵀ e               an error at z, at s
    gap     emit(s) - emit(s - d)    a displacement of s, at z

`Network` answers all five for any step and emit, by derivatives of the two for the
whole batch. A network that knows better says so: `tanh` has closed forms. `weigh_all`
is the sum of `weigh` over many steps.

What the caller has already it can hand in, and closed forms do not compute it again:
`z`, the emitted values of a state; `drive`, what the input adds to a step.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from lra_jax import devices, numerics, regularizer, symbols
from lra_jax.networks import weights
from lra_jax.numerics import matmul

# Steps whose gradients of derived networks are made together, or up to twice as many:
# a quarter (GRU) to a half (leaky) less time than one by one, in a core's cache.
STEPS_AT_ONCE = 50

Cell = Any  # the weights of a network's cell, a pytree of arrays
# (z [B, H], w [H, C]) -> [B, C]: a product of states and recurrent weights.
Product = Callable[[jax.Array, jax.Array], jax.Array]


class Place(NamedTuple):
    """What is known of the network at a step, or `[T, ...]` of all of them.

    Attributes:
      x: symbols `[B]` or vectors `[B, X]`, xₜ.
      z_prev: `[B, H]`, zₜ₋₁.
      s_prev: `[B, D]`, sₜ₋₁.
      s: `[B, D]`, sₜ.
      z: `[B, H]`, zₜ.
      drive: of xₜ, see `Network.drive`; None where closed forms need none.
      key: of the step's noise; None without.
    """

    x: jax.Array
    z_prev: jax.Array
    s_prev: jax.Array
    s: jax.Array
    z: jax.Array
    drive: Any = None
    key: jax.Array | None = None


class Term(NamedTuple):
    """What the weight gradients of a step are made of.

    Attributes:
      place: the step t.
      q: `[B, D]`, the error at sₜ.
      before: the step t-1, and
      omega: Ω of the pair (t-1, t), whose weights' gradients are added; None is none.
    """

    place: Place
    q: jax.Array
    before: Place | None = None
    omega: Any = None


class Scaled(NamedTuple):
    """Weight gradients: `scales` times `units`, whose squares do not vanish.

    Attributes:
      units: like the cell.
      scales: `[]` for each leaf.
    """

    units: Cell
    scales: Any


class Omega(NamedTuple):
    """Ω = (ρ - 1)² of a pair (t-1, t), per sample; 0 where u vanishes.

    Attributes:
      value: `[B]` Ω.
      rho: `[B, 1]` ρ = ‖pull(u)‖ / ‖u‖, 1 where u vanishes.
      a: `[B, D]` ∂Ω/∂sₜ₋₁.
      weight: `[B, 1]`, λ of the sample.
      u: `[B, D]`, u / max|u|.
    """

    value: jax.Array
    rho: jax.Array
    a: jax.Array
    weight: jax.Array
    u: jax.Array

    def times(self, weight: jax.Array) -> Omega:
        """The same with gradients that are times λ, `[B, 1]`."""
        return self._replace(a=weight * self.a, weight=weight * self.weight)


def difference(
    f: Callable[[jax.Array], jax.Array],
    a: jax.Array,
    d: jax.Array,
    value: jax.Array | None = None,
) -> jax.Array:
    """f(a) - f(a - d), `[B, K]`, without cancellation.

    For samples with max|d| < ε^(1/3) it is the derivative of f at a - d/2 along d,
    whose error is of the third order in d; for the others the direct difference.

    Args:
      f: from `[B, D]` to `[B, K]`, sample by sample.
      a: `[B, D]`.
      d: `[B, D]`, known better than a - d is.
      value: f(a), where the caller has it.
    """
    least = float(jnp.finfo(a.dtype).eps) ** (1 / 3)
    _, tangent = jax.jvp(f, (a - d / 2,), (d,))
    direct = (f(a) if value is None else value) - f(a - d)
    is_small = jnp.max(jnp.abs(d), axis=-1, keepdims=True) < least
    return jnp.where(is_small, tangent, direct)


def at_highest_precision() -> contextlib.AbstractContextManager[None]:
    """Products of code that is not ours, at the precision of `numerics.matmul`."""
    asked = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    if asked is None:
        return jax.default_matmul_precision("highest")
    return contextlib.nullcontext()


def over_time(function: Callable[..., Any], first: jax.Array) -> Callable[..., Any]:
    """`function` of one step's arrays, for arrays with axes of time before them."""
    for _ in range(first.ndim - 2):
        function = jax.vmap(function)
    return function


@dataclasses.dataclass(frozen=True)
class Network:
    """Any recurrent network: what a subclass has to say, and what follows from it.

    A subclass says `init`, `advance` and `emit`, and where they are not the defaults
    `state_size`, `drive`, `roles` and `is_noisy`.

    Attributes:
      frozen: names of arrays, or parts of the cell, that never get a gradient.
    """

    frozen: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    @property
    def name(self) -> str:
        """As in configs and messages."""
        return type(self).__name__.lower()

    @property
    def has_recurrent(self) -> bool:
        """Whether `recurrent` says which weights states are multiplied by."""
        return type(self).recurrent is not Network.recurrent

    @property
    def is_elementwise(self) -> bool:
        """Whether D = H, and each zᵢ is a function of sᵢ alone."""
        return False

    @property
    def is_noisy(self) -> bool:
        """Whether a step with a key differs from one without."""
        return False

    @property
    def takes_symbols(self) -> bool:
        """Whether `drive` reads symbols as they are, or as one-hot vectors."""
        return False

    def init(
        self,
        key: jax.Array,
        input_size: int,
        hidden_size: int,
        dtype: jnp.dtype | None = None,
    ) -> Cell:
        """Initial weights of the cell; of another type than asked for they are cast.

        Args:
          key: consumed, but for the third of its three parts: that is the readout's.
          input_size: X.
          hidden_size: H.
          dtype: of the weights; None is JAX's default.
        """
        raise NotImplementedError

    def state_size(self, hidden_size: int) -> int:
        """D, the length of a state, for H."""
        return hidden_size

    def drive(self, p: Cell, x: jax.Array) -> Any:
        """What the inputs add to steps, for `[T, B]` symbols or `[T, B, X]` vectors.

        By default the vectors themselves; symbols become one-hot vectors, and what is
        no symbol NaN.

        Raises:
          ValueError: no array of the weights tells how many symbols there are.
        """
        dtype = weights.float_dtype(p)
        if not jnp.issubdtype(x.dtype, jnp.integer):
            return x.astype(dtype)
        size = weights.input_size(self, p)
        if size is None:
            raise ValueError(weights.no_number_of_symbols(self))
        return symbols.one_hot(x, size, dtype)

    def advance(
        self,
        p: Cell,
        s_prev: jax.Array,
        drive: Any,
        *,
        z_prev: jax.Array | None = None,
        key: jax.Array | None = None,
        product: Product = matmul,
    ) -> jax.Array:
        """sₜ `[B, D]` of sₜ₋₁ `[B, D]` and what the input adds.

        Args:
          p: the cell's weights.
          s_prev: `[B, D]`.
          drive: of xₜ.
          z_prev: emit(s_prev), where the caller has it.
          key: of the step's noise; None is no noise.
          product: how states are multiplied by recurrent weights, once for each of
            `recurrent`, in that order.
        """
        raise NotImplementedError

    def emit(self, p: Cell, s: jax.Array) -> jax.Array:
        """z `[B, H]` of s `[B, D]`."""
        raise NotImplementedError

    def recurrent(self, p: Cell) -> tuple[jax.Array, ...]:
        """The matrices that `product` is asked for, in this order; () is unknown."""
        del p
        return ()

    def roles(self, p: Cell) -> Any:
        """What each array is for: "input", "recurrent", "bias" or "other".

        By default they go by names, see `weights.roles_by_name`. Optimizers give
        recurrent weights a rate of their own, and keep them orthogonal.
        """
        return weights.roles_by_name(p)

    def scale_inputs(self, p: Cell, gain: Any) -> Cell:
        """The cell with its weights from the inputs times a gain."""
        return jax.tree.map(
            lambda w, role: jnp.asarray(gain, w.dtype) * w if role == "input" else w,
            p,
            self.roles(p),
        )

    def is_frozen(self, p: Cell) -> Any:
        """Whether an array gets no gradient, a pytree of bool like the cell.

        Raises:
          ValueError: a name of `frozen` is none of the cell's.
        """
        return weights.are_named(p, self.frozen)

    def shown(self, hidden_size: int) -> slice | None:
        """Which of the D numbers z shows, one by one; None where it is none such."""
        size = self.state_size(hidden_size)
        return slice(0, size) if size == hidden_size else None

    def activity(self, p: Cell, s: jax.Array, z: jax.Array) -> jax.Array:
        """The direction in s that makes ½‖z‖² larger: what a cost of activity descends.

        Args:
          p: the cell's weights.
          s: `[..., D]`.
          z: `[..., H]`, emit(s).
        """
        return self.slope(p, s, z, z=z)

    def reaches(self, hidden_size: int, steps: int) -> np.ndarray | None:
        """Which units a unit gets to in some steps, bool `[H, H]`; None is unknown.

        Args:
          hidden_size: H.
          steps: 0 is itself alone.
        """
        del hidden_size, steps
        return None

    # What follows from the above.

    def step(
        self, p: Cell, s_prev: jax.Array, x: jax.Array, *, key: jax.Array | None = None
    ) -> jax.Array:
        """sₜ `[B, D]` of sₜ₋₁ `[B, D]` and xₜ, symbols `[B]` or vectors `[B, X]`."""
        return self.advance(p, s_prev, self.drive_one(p, x), key=key)

    def first(self, p: Cell, drive: Any, s_prev: jax.Array, **options: Any) -> Any:
        """s₀ of s₋₁ = 0."""
        return self.advance(p, s_prev, drive, **options)

    def emit_first(self, p: Cell, s_prev: jax.Array) -> jax.Array:
        """z₋₁ of s₋₁ = 0."""
        return self.emit(p, s_prev)

    def drive_one(self, p: Cell, x: jax.Array) -> Any:
        """`drive` of one step's inputs, `[B]` or `[B, X]`."""
        return jax.tree.map(lambda y: y[0], self.drive(p, x[None]))

    def spread(self, p: Cell, s: jax.Array, e: jax.Array) -> jax.Array:
        """e `[..., H]` at the places of s `[..., D]` that z shows, without derivatives.

        Where z shows no part of s one by one, it is `slope`.
        """
        shown = self.shown(e.shape[-1])
        if shown is None:
            return self.slope(p, s, e)
        before, after = shown.start, s.shape[-1] - shown.stop
        if not before and not after:
            return e
        return jnp.pad(e, [(0, 0)] * (e.ndim - 1) + [(before, after)])

    def sent(
        self, p: Cell, s_prev: jax.Array, drive: Any, *, key: jax.Array | None = None
    ) -> list[jax.Array]:
        """What each of `recurrent` multiplies in a step, `[B, H]`."""
        found: list[jax.Array] = []

        def product(z: jax.Array, w: jax.Array) -> jax.Array:
            found.append(z)
            return matmul(z, w)

        self.advance(p, s_prev, drive, key=key, product=product)
        return found

    def receive(
        self,
        p: Cell,
        s_prev: jax.Array,
        drive: Any,
        currents: list[jax.Array],
        *,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """sₜ of sₜ₋₁, and of what arrives through each of `recurrent`, `[B, C]`."""
        remaining = iter(currents)
        return self.advance(
            p, s_prev, drive, key=key, product=lambda z, w: next(remaining)
        )

    def pull(
        self,
        p: Cell,
        s_prev: jax.Array,
        x: jax.Array,
        q: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        drive: Any = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """(∂sₜ/∂sₜ₋₁)ᵀ q, `[B, D]` of q `[B, D]`."""
        del z_prev
        drive = self.drive_one(p, x) if drive is None else drive
        _, back = jax.vjp(lambda s: self.advance(p, s, drive, key=key), s_prev)
        return back(q)[0]

    def pull_through(
        self,
        feedback: tuple[jax.Array, ...],
        p: Cell,
        s_prev: jax.Array,
        x: jax.Array,
        q: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        drive: Any = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """`pull` with other matrices in place of the transposed recurrent weights.

        What a unit does to itself, past recurrent weights, stays.

        Args:
          feedback: `[C, H]` for each `[H, C]` of `recurrent`.
          p: the cell's weights.
          s_prev: `[B, D]`.
          x: xₜ.
          q: `[B, D]`.
          z_prev: emit(s_prev), where the caller has it.
          drive: of xₜ.
          key: of the step's noise.
        """
        del z_prev
        drive = self.drive_one(p, x) if drive is None else drive
        states, back_sent = jax.vjp(lambda s: self.sent(p, s, drive, key=key), s_prev)
        pairs = zip(states, self.recurrent(p), strict=True)
        currents = [matmul(z, w) for z, w in pairs]
        _, back = jax.vjp(
            lambda s, currents: self.receive(p, s, drive, currents, key=key),
            s_prev,
            currents,
        )
        own, errors = back(q)
        received = [matmul(e, a) for e, a in zip(errors, feedback, strict=True)]
        return own + back_sent(received)[0]

    def weigh(
        self,
        p: Cell,
        s_prev: jax.Array,
        x: jax.Array,
        q: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Cell:
        """Σ_b (∂sₜ/∂p)ᵀ q, a pytree like p."""
        del z_prev
        own = devices.each_own(p, q)
        _, back = jax.vjp(lambda p: self.step(p, s_prev, x, key=key), own)
        return back(q)[0]

    def weigh_all(self, p: Cell, place: Place, q: jax.Array) -> Cell:
        """Σₜ Σ_b (∂sₜ/∂p)ᵀ qₜ, a pytree like p: the sum of `weigh` over steps.

        Products over `STEPS_AT_ONCE` steps and their samples, in place of one for each
        step: what a step has computed on its way is in memory for so many. Where a
        network has a `weigh` of its own, or noise that is not added to a step, it is
        asked step by step.

        Args:
          p: the cell's weights.
          place: the steps, `[T, ...]`.
          q: `[T, B, D]`.
        """
        noisy = place.key is not None and self.is_noisy and not self.adds_noise
        single = type(self).weigh is not Network.weigh or noisy
        weigh = self._weigh_step if single else self._weigh_piece
        count = len(q) if single else max(1, len(q) // STEPS_AT_ONCE)
        size, rest = divmod(len(q), count)
        first, others = (
            jax.tree.map(lambda x, part=part: x[part], (place, q))
            for part in (slice(size + rest), slice(size + rest, None))
        )
        pieces = jax.tree.map(
            lambda x: x.reshape(count - 1, size, *x.shape[1:]), others
        )

        def add(total: Cell, piece: tuple[Place, jax.Array]) -> tuple[Cell, None]:
            return jax.tree.map(jnp.add, total, weigh(p, *piece)), None

        total = weigh(p, *first)
        return total if count == 1 else lax.scan(add, total, pieces)[0]

    def _weigh_step(self, p: Cell, place: Place, q: jax.Array) -> Cell:
        """`weigh` of a piece that is one step."""
        place, q = jax.tree.map(lambda x: x[0], (place, q))
        return self.weigh(
            p, place.s_prev, place.x, q, z_prev=place.z_prev, key=place.key
        )

    def _weigh_piece(self, p: Cell, place: Place, q: jax.Array) -> Cell:
        def states(p: Cell) -> jax.Array:
            return jax.vmap(
                lambda s_prev, drive, key: self.advance(p, s_prev, drive, key=key)
            )(place.s_prev, self.drive(p, place.x), place.key)

        _, back = jax.vjp(states, devices.each_own(p, q))
        return back(q)[0]

    @property
    def adds_noise(self) -> bool:
        """Whether noise is added to a step, so that its derivatives do not know it."""
        return False

    def weigh_each(
        self,
        p: Cell,
        s_prev: jax.Array,
        x: jax.Array,
        q: jax.Array,
        *,
        z_prev: jax.Array,
        key: jax.Array | None = None,
    ) -> Cell:
        """(∂sₜ/∂p)ᵀ q of each sample, a pytree like p of `[B, ...]`."""
        if key is None or self.adds_noise or not self.is_noisy:

            def one(s: jax.Array, x: jax.Array, q: jax.Array, z: jax.Array) -> Cell:
                s, x, q, z = (each[None] for each in (s, x, q, z))
                return self.weigh(p, s, x, q, z_prev=z)

            return jax.vmap(one)(s_prev, x, q, z_prev)

        # The noise of a sample depends on the place that it has in the batch.
        def alone(index: jax.Array) -> Cell:
            is_this = jnp.arange(len(q)) == index
            asked = jnp.where(is_this[:, None], q, 0)
            return self.weigh(p, s_prev, x, asked, z_prev=z_prev, key=key)

        return jax.vmap(alone)(jnp.arange(len(q)))

    def push(self, p: Cell, place: Place, d: jax.Array) -> jax.Array:
        """(∂sₜ/∂sₜ₋₁) d, `[B, D]` of d `[B, D]`."""
        _, moved = jax.jvp(
            lambda s: self.advance(p, s, place.drive, key=place.key),
            (place.s_prev,),
            (d,),
        )
        return moved

    def move(
        self,
        p: Cell,
        s_prev: jax.Array,
        x: jax.Array,
        d: jax.Array,
        *,
        s: jax.Array | None = None,
        z_prev: jax.Array | None = None,
        z_moved: jax.Array | None = None,
        drive: Any = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """step(s_prev) - step(s_prev - d), `[B, D]` of d `[B, D]`.

        Args:
          p: the cell's weights.
          s_prev: `[B, D]`.
          x: xₜ.
          d: `[B, D]`.
          s: step(s_prev), where the caller has it.
          z_prev: emit(s_prev), and
          z_moved: emit(s_prev - d), where the caller has them.
          drive: of xₜ.
          key: of the step's noise.
        """
        del z_prev, z_moved
        drive = self.drive_one(p, x) if drive is None else drive
        return difference(
            lambda each: self.advance(p, each, drive, key=key), s_prev, d, s
        )

    def slope(
        self, p: Cell, s: jax.Array, e: jax.Array, *, z: jax.Array | None = None
    ) -> jax.Array:
        """(∂z/∂s)ᵀ e, `[..., D]` of e `[..., H]`."""
        del z

        def one(s: jax.Array, e: jax.Array) -> jax.Array:
            return jax.vjp(lambda s: self.emit(p, s), s)[1](e)[0]

        return over_time(one, s)(s, e)

    def gap(
        self,
        p: Cell,
        s: jax.Array,
        d: jax.Array,
        *,
        z: jax.Array | None = None,
        z_moved: jax.Array | None = None,
    ) -> jax.Array:
        """emit(s) - emit(s - d), `[..., H]` of d `[..., D]`.

        Args:
          p: the cell's weights.
          s: `[..., D]`.
          d: `[..., D]`.
          z: emit(s), and
          z_moved: emit(s - d), where the caller has them.
        """
        del z, z_moved
        return over_time(lambda s, d: difference(lambda s: self.emit(p, s), s, d), s)(
            s, d
        )

    def norm_preservation(
        self,
        p: Cell,
        s_prev: jax.Array,
        x: jax.Array,
        u: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        drive: Any = None,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, Any]:
        """v = pull(u), and Ω of it, u constant: eq. 5-7 for any network.

        Returns:
          v `[B, D]` and an `Omega`; of a closed form something like it.
        """
        options = {"z_prev": z_prev, "drive": drive, "key": key}
        scale, alive = regularizer.error_scale(u)
        unit = u / scale

        def omega(s_prev: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
            # Not z_prev, which depends on s_prev.
            v = self.pull(p, s_prev, x, unit, drive=drive, key=key)
            value, rho = _omega(v, unit, alive)
            return jnp.sum(value), (value, rho)

        a, (value, rho) = jax.grad(omega, has_aux=True)(s_prev)
        found = Omega(value, rho, a, jnp.ones_like(rho), unit)
        return self.pull(p, s_prev, x, u, **options), found

    def weigh_term(self, p: Cell, term: Term) -> Scaled:
        """mean_b of what a step asks of the weights, at every scale of its errors.

        weigh(qₜ),   and with Ω + λ ∂Ωₜ/∂p + weigh(λ aₜ₋₁) of the step before
        """
        omega = term.omega
        scale = numerics.largest(term.q).reshape(())
        if omega is not None:
            sizes = [numerics.largest(x).reshape(()) for x in (omega.a, omega.weight)]
            scale = jnp.maximum(scale, jnp.maximum(*sizes))
        divisor = jnp.where(scale == 0, 1, scale)

        def ask(place: Place, q: jax.Array) -> Cell:
            return self.weigh(
                p, place.s_prev, place.x, q, z_prev=place.z_prev, key=place.key
            )

        total = ask(term.place, term.q / divisor)
        if omega is not None:
            assert term.before is not None
            parts = (
                ask(term.before, omega.a / divisor),
                self._direct(p, term.place, omega, omega.weight / divisor),
            )
            for part in parts:
                total = jax.tree.map(jnp.add, total, part)
        sizes = jax.tree.map(lambda g: numerics.largest(g).reshape(()), total)
        units = jax.tree.map(lambda g, m: g / jnp.where(m == 0, 1, m), total, sizes)
        scale = scale / term.q.shape[0]
        return Scaled(units, jax.tree.map(lambda m: m * scale, sizes))

    def _direct(self, p: Cell, place: Place, omega: Omega, weight: jax.Array) -> Cell:
        """Σ_b λ ∂Ωₜ/∂p, the state before constant."""
        _, alive = regularizer.error_scale(omega.u)

        def total(p: Cell) -> jax.Array:
            v = self.pull(p, place.s_prev, place.x, omega.u, key=place.key)
            return jnp.sum(weight[:, 0] * _omega(v, omega.u, alive)[0])

        return jax.grad(total)(devices.each_own(p, weight))


def _omega(
    v: jax.Array, unit: jax.Array, alive: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Ω `[B]` and ρ `[B, 1]` of v = pull(u), for u of unit size."""
    size = numerics.norm(jnp.where(alive, unit, 1), axis=-1)
    rho = jnp.where(alive, numerics.norm(v, axis=-1) / size, 1)
    return ((rho - 1) ** 2)[:, 0], rho
