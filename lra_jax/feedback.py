"""What stands in place of W_hhᵀ and W_hyᵀ where errors are sent back.

A rule whose errors travel step by step multiplies them by the transposed weights. No
synapse knows the weight of another one, so this is called *weight transport*. Feedback
weights of their own, A in place of W_hhᵀ and E_y in place of W_hyᵀ, need none:

    "transpose"       W_hhᵀ and W_hyᵀ themselves
    "random"          drawn once, and fixed (Lillicrap et al. 2016)
    "mirror"          learned from noise that is sent forwards (Akrout et al. 2019)
    "kolen_pollack"   change as the forward weights do, and both decay (Kolen & Pollack
                      1994, Akrout et al. 2019)

`Feedback` is the choice, as a value; any rule with an argument `feedback` takes it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from lra_jax import rnn, settings, types
from lra_jax.networks.network import Cell, Network, Place
from lra_jax.networks.stack import Stack
from lra_jax.numerics import matmul

Way = Literal["transpose", "random", "mirror", "kolen_pollack"]

# An update's key, folded with this, is that of the mirror's noise.
MIRROR = 0x6D697272


@dataclasses.dataclass(frozen=True)
class Feedback:
    """How errors are sent back: a value for rules' argument `feedback`.

    A word in its place, such as `feedback="mirror"`, is that for both, with the
    defaults below. In a config `recurrent` is called `feedback`, and `readout`
    `readout_feedback`; left out, it is as the other one.

    A noise mirror has, in each update,

        ξ ~ N(0, 1) `[n, H]`:   A ← (1-η) A + η (ξ W_hh)ᵀ ξ / n

    and so E_y of W_hy. W is used forwards alone, and each synapse of A sees what
    arrives at its two ends. The relative error of A settles near √(H η / 2n). With
    `mirror_source="network"` there is no phase of its own: what the network's noise
    does to zₜ stands for ξ, and what the next step receives for ξ W_hh.

    Kolen-Pollack feedback sees by how much each weight changed, and has

        A ← (1-κ) A + (ΔW_hh + κ W_hh)ᵀ,   which is ΔW_hh without its decay,

    so A - W_hhᵀ shrinks by 1-κ an update. The optimizer has to let weights decay by κ:
    `optax.chain(optimizer, optax.add_decayed_weights(-κ))`.

    Attributes:
      recurrent: in place of W_hhᵀ, and of other networks of all recurrent weights.
      readout: in place of W_hyᵀ.
      mirror_rate: η.
      readout_mirror_rate: η of E_y.
      mirror_samples: n, of each update.
      mirror_source: "phase", noise of its own, or "network", that of the forward pass
        of a noisy layer.
      mirror_updates: after as many updates a mirror stays as it is; 0 is never.
      weight_decay: κ of Kolen-Pollack feedback.

    Raises:
      ValueError: an unknown word, or a number that is out of its range.

    Example:
      >>> feedback = lra_jax.Feedback(recurrent="mirror", readout="random")
      >>> rule = lra_jax.lra_norm(feedback=feedback)
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> state = rule.init(jax.random.key(2), params)
      >>> state.a.shape, state.e_y.shape
      ((8, 8), (4, 8))
    """

    recurrent: Way = "transpose"
    readout: Way = "transpose"
    mirror_rate: settings.Fraction = 0.01
    readout_mirror_rate: settings.Fraction = 0.2
    mirror_samples: settings.Size = 4000
    mirror_source: Literal["phase", "network"] = "phase"
    mirror_updates: ArrayLike = 0
    weight_decay: settings.Fraction = 0.0

    def __post_init__(self) -> None:
        for name in ("recurrent", "readout"):
            settings.check_choice(name, getattr(self, name), get_args(Way))
        sources = ("phase", "network")
        settings.check_choice("mirror_source", self.mirror_source, sources)
        for name in ("mirror_rate", "readout_mirror_rate", "weight_decay"):
            settings.check_number(name, getattr(self, name), "fraction")
        settings.check_number("mirror_updates", self.mirror_updates)
        settings.check_size("mirror_samples", self.mirror_samples)

    @property
    def is_transposed(self) -> bool:
        """Whether errors go through the forward weights alone."""
        return self.recurrent == self.readout == "transpose"


FeedbackLike = Way | Feedback
TRANSPOSED = Feedback()


class FeedbackWeights(NamedTuple):
    """Feedback weights: the state of a rule that has some.

    Attributes:
      a: `[H, H]` in place of W_hhᵀ; of a network with several recurrent matrices a
        tuple, `[C, H]` for each `[H, C]`; None where these are transposed.
      e_y: `[Y, H]` in place of W_hyᵀ; None where it is transposed.
      seen: the weights of the last update, for Kolen-Pollack feedback alone.
      num_updates: `[]` int32, updates so far; of what learns alone.

    Example:
      >>> params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
      >>> state = lra_jax.bptt(feedback="random").init(jax.random.key(1), params)
      >>> state.a.shape, state.e_y.shape, state.num_updates
      ((8, 8), (4, 8), None)
    """

    a: Any = None
    e_y: jax.Array | None = None
    seen: Any = None
    num_updates: jax.Array | None = None


class Back(NamedTuple):
    """What errors of one update are multiplied by; None is the transposed weights.

    Attributes:
      recurrent: `[C, H]` for each of the network's recurrent matrices.
      readout: `[Y, H]`.
    """

    recurrent: tuple[jax.Array, ...] | None = None
    readout: jax.Array | None = None

    def pull(
        self,
        network: Network,
        p: Cell,
        s_prev: jax.Array,
        x: jax.Array,
        q: jax.Array,
        **given: Any,
    ) -> jax.Array:
        """`Network.pull`, with A in place of the transposed recurrent weights."""
        if self.recurrent is None:
            return network.pull(p, s_prev, x, q, **given)
        return network.pull_through(self.recurrent, p, s_prev, x, q, **given)

    def readout_of(self, params: types.AnyParams) -> jax.Array:
        """`[Y, H]`, W_hyᵀ or what stands in its place."""
        return params.w_hy.T if self.readout is None else self.readout


NO_WEIGHTS = Back()


def _value(feedback: Any) -> Feedback:
    """A word is that for recurrent and output weights."""
    if isinstance(feedback, str):
        settings.check_choice("feedback", feedback, get_args(Way))
        return Feedback(recurrent=feedback, readout=feedback)  # type: ignore[arg-type]
    if isinstance(feedback, Feedback):
        return feedback
    words = ", ".join(map(repr, get_args(Way)))
    raise ValueError(
        f"feedback: expected one of {words} or a Feedback, got {feedback!r}"
    )


def of(feedback: Any, network: Network) -> Feedback:
    """The value of an argument `feedback`.

    Raises:
      ValueError: it is neither one of the words nor a `Feedback`, or the network does
        not have what it needs.
    """
    feedback = _value(feedback)
    rnn.check_network(network)
    if feedback.recurrent != "transpose" and not network.has_recurrent:
        raise ValueError(
            "network: expected tanh, relu, leaky, gru, lstm or a stack of them, as "
            "feedback weights stand in place of the recurrent ones, which have to be "
            f"known, got {network.name}"
        )
    has_mirror = "mirror" in (feedback.recurrent, feedback.readout)
    if has_mirror and feedback.mirror_source == "network":
        if not network.is_noisy:
            raise ValueError(
                "mirror_source: expected 'phase', as a network without noise has none "
                "that a mirror could learn from, got 'network'; "
                "networks.leaky(noise=...) has"
            )
        if isinstance(network, Stack):
            raise ValueError(
                "mirror_source: expected 'phase', as the noise of a layer reaches many "
                "units of the layer above at once, of which a mirror there would learn "
                f"a mixture, got 'network' and {network.name}"
            )
    return feedback


def of_readout(feedback: Any, network: Network) -> Feedback:
    """As `of`, for a rule that sends nothing back through recurrent weights.

    Raises:
      ValueError: as `of`; or it is a `Feedback` about recurrent weights alone; or the
        mirror has no phase of its own, as its source has to be stored over time.
    """
    asked = _value(feedback)
    if asked.recurrent != "transpose" and asked.readout == "transpose":
        raise ValueError(
            "feedback: expected one with another readout than 'transpose', as nothing "
            f"is sent back through recurrent weights, got {feedback!r}"
        )
    choice = of(dataclasses.replace(asked, recurrent="transpose"), network)
    if choice.readout == "mirror" and choice.mirror_source == "network":
        raise ValueError(
            "mirror_source: expected 'phase', as a rule that runs forward in time "
            "stores no states, got 'network'"
        )
    return choice


def init_of(
    feedback: Feedback, network: Network, own: types.InitRule
) -> types.InitRule:
    """The `InitRule` of a rule: its own where errors go through forward weights."""
    if feedback.is_transposed:
        return own
    return lambda key, params: draw(key, params, network, feedback)


def draw(
    key: jax.Array, params: types.AnyParams, network: Network, feedback: Feedback
) -> FeedbackWeights:
    """Random (semi-)orthogonal feedback weights, independent of the forward ones.

    Args:
      key: consumed.
      params: the weights.
      network: whose weights they are.
      feedback: the choice.
    """
    key_a, key_y = jax.random.split(key)
    dtype, weights = params.w_hy.dtype, _recurrent(params, network)
    a = e_y = None
    if feedback.recurrent != "transpose":
        keys = [key_a] if len(weights) == 1 else jax.random.split(key_a, len(weights))
        drawn = tuple(
            rnn.orthogonal(key, (w.shape[1], w.shape[0]), dtype)
            for key, w in zip(keys, weights, strict=True)
        )
        a = drawn[0] if len(drawn) == 1 else drawn
    if feedback.readout != "transpose":
        e_y = rnn.orthogonal(key_y, (params.w_hy.shape[1], params.w_hy.shape[0]), dtype)
    ways = (feedback.recurrent, feedback.readout)
    seen = (weights, params.w_hy) if "kolen_pollack" in ways else None
    learns = seen is not None or "mirror" in ways
    num_updates = jnp.zeros((), jnp.int32) if learns else None
    return FeedbackWeights(a, e_y, seen, num_updates)


def _recurrent(params: types.AnyParams, network: Network) -> tuple[jax.Array, ...]:
    """The recurrent matrices as a step multiplies states by them."""
    return network.recurrent(rnn.cell_of(params))


def _as_tuple(a: Any) -> tuple[jax.Array, ...]:
    return a if isinstance(a, tuple) else (a,)


def back_of(feedback: Feedback, state: Any) -> Back:
    """What an update's errors are multiplied by, of the rule's state."""
    if feedback.is_transposed:
        return NO_WEIGHTS
    return Back(None if state.a is None else _as_tuple(state.a), state.e_y)


def learned(
    key: jax.Array,
    feedback: Feedback,
    state: Any,
    params: types.AnyParams,
    network: Network,
    place: Place | None,
    started: jax.Array | None = None,
) -> Any:
    """The rule's state of the next update, with what feedback weights learn.

    An update's errors go through the weights of its own state. So they depend on the
    forward weights through the forward pass alone.

    Args:
      key: of the update.
      feedback: the choice.
      state: this update's.
      params: the weights.
      network: whose weights they are.
      place: the forward pass, for a mirror without a phase of its own; None is none.
      started: bool `[T, B]`, its steps that count; None is all.
    """
    if feedback.is_transposed or state.num_updates is None:
        return state
    weights, count = _recurrent(params, network), state.num_updates
    if "mirror" in (feedback.recurrent, feedback.readout):
        until = jnp.asarray(feedback.mirror_updates)
        learns = (until <= 0) | (count < until)
        measure = _from_phase if feedback.mirror_source == "phase" else _from_network
        noise = measure(
            jax.random.fold_in(key, MIRROR), feedback, params, network, place, started
        )
    a, e_y = state.a, state.e_y
    if feedback.recurrent == "mirror":
        found = noise.recurrent
        a = _each(a, found, lambda a, w: _towards(a, w, feedback.mirror_rate, learns))
    if feedback.readout == "mirror":
        e_y = _towards(e_y, noise.readout, feedback.readout_mirror_rate, learns)
    if state.seen is not None:
        # Nothing has been seen to change before the first update.
        decay = jnp.asarray(feedback.weight_decay, params.w_hy.dtype)
        kept = 1 - jnp.where(count == 0, 0, decay)
        before, readout = state.seen
        if feedback.recurrent == "kolen_pollack":
            changes = tuple(
                w - kept * old for w, old in zip(weights, before, strict=True)
            )
            a = _each(a, changes, lambda a, change: kept * a + change.T)
        if feedback.readout == "kolen_pollack":
            e_y = kept * e_y + (params.w_hy - kept * readout).T
        state = state._replace(seen=(weights, params.w_hy))
    return state._replace(a=a, e_y=e_y, num_updates=count + 1)


def _each(a: Any, others: Any, change: Any) -> Any:
    """`change` of each of the feedback matrices and its other one."""
    if not isinstance(a, tuple):
        return change(a, others[0])
    return tuple(change(x, other) for x, other in zip(a, others, strict=True))


def _towards(a: jax.Array, w: Any, rate: ArrayLike, learns: jax.Array) -> jax.Array:
    """(1-η) A + η of what is measured, while it learns."""
    eta = jnp.asarray(rate, a.dtype)
    return jnp.where(learns, (1 - eta) * a + eta * w, a)


class _Measured(NamedTuple):
    """Estimates of the transposed weights, of what synapses see at their ends."""

    recurrent: tuple[jax.Array, ...]
    readout: jax.Array


def _from_phase(
    key: jax.Array,
    feedback: Feedback,
    params: types.AnyParams,
    network: Network,
    place: Place | None,
    started: jax.Array | None,
) -> _Measured:
    """(ξ W)ᵀ ξ / n, of noise at the units and what the weights make of it."""
    del place, started
    hidden_size, n = params.w_hy.shape[0], feedback.mirror_samples

    def seen(xi: jax.Array, w: jax.Array) -> jax.Array:
        return matmul(matmul(xi, w).T, xi) / n

    weights = _recurrent(params, network)
    xi = rnn.normal(key, (n, hidden_size), params.w_hy.dtype)
    readout = seen(xi, params.w_hy) if feedback.readout == "mirror" else None
    if feedback.recurrent != "mirror":
        return _Measured((), readout)  # type: ignore[arg-type]
    return _Measured(tuple(seen(xi, w) for w in weights), readout)  # type: ignore[arg-type]


def _from_network(
    key: jax.Array,
    feedback: Feedback,
    params: types.AnyParams,
    network: Network,
    place: Place | None,
    started: jax.Array | None,
) -> _Measured:
    """iᵀ ζ / Σ ζ²: what its noise does to a unit, and what the next one receives.

    ζ = zₜ minus what it would be without the noise of step t. Noise of different units
    is independent, and of the rest of the state: the mean of iₜ₊₁ ζₜ is W var(ζ).
    Before its start a sample has none.
    """
    del key, feedback
    assert place is not None  # `of_readout` refuses it
    cell = rnn.cell_of(params)

    def own(place: Place) -> tuple[jax.Array, jax.Array]:
        """What noise did to s and to z."""
        quiet = network.advance(cell, place.s_prev, place.drive, z_prev=place.z_prev)
        d = place.s - quiet
        return d, network.gap(cell, place.s, d, z=place.z)

    noise, zeta = (rnn.silence(x, started) for x in jax.vmap(own)(place))
    after = jax.tree.map(lambda x: x[1:], place)

    def sent(place: Place, s: jax.Array) -> list[jax.Array]:
        return network.sent(cell, s, place.drive, key=place.key)

    with_noise = jax.vmap(sent)(after, place.s[:-1])
    without = jax.vmap(sent)(after, place.s[:-1] - noise[:-1])
    pairs = zip(with_noise, without, _recurrent(params, network), strict=True)
    begun = None if started is None else started[:-1]
    recurrent = tuple(
        _regressed(matmul(z, w), z - quiet, begun) for z, quiet, w in pairs
    )
    return _Measured(recurrent, _regressed(matmul(place.z, params.w_hy), zeta, started))


def _regressed(
    received: jax.Array, zeta: jax.Array, started: jax.Array | None
) -> jax.Array:
    """Wᵀ `[C, H]` as far as ζ `[T, B, H]` tells, of what arrives `[T, B, C]`."""
    count: Any = received[..., 0].size if started is None else jnp.sum(started)
    received = rnn.silence(received, started)
    zeta, received = (x.reshape(-1, x.shape[-1]) for x in (zeta, received))
    received = received - jnp.sum(received, axis=0)[None] / jnp.maximum(count, 1)
    power = jnp.sum(zeta**2, axis=0)
    power = jnp.where(power == 0, 1, power)
    return matmul(received.T, zeta) / power[None]
