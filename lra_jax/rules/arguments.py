"""What a rule's factory checks of its arguments, before anything is traced."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable, Mapping
from typing import Any

from jax.typing import ArrayLike

from lra_jax import losses, networks, rnn, settings, types
from lra_jax.networks.layer import Layer


def check(factory: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Raises ValueError where an argument is not what its annotation in `factory` says.

    A `Literal` is one of its values; a message has them, and the nearest one. A number
    is a scalar, `ArrayLike` of at least 0 and finite, and narrower kinds in their
    range. Traced ones may have any value. A switch is True or False.

    Args:
      factory: of a rule.
      values: its arguments by name, as `locals()` has them where it begins.
    """
    for name, hint in typing.get_type_hints(factory).items():
        if typing.get_origin(hint) is typing.Literal:
            settings.check_choice(name, values[name], typing.get_args(hint))
        elif hint is bool and not isinstance(values[name], bool):
            raise ValueError(f"{name}: expected True or False, got {values[name]!r}")
        elif hint is types.OutputLoss:
            losses.check_loss(values[name])
    for name, kind in _kinds(factory).items():
        if kind == "size":
            settings.check_size(name, values[name])
        else:
            settings.check_number(name, values[name], kind)


@functools.cache
def _kinds(factory: Callable[..., Any]) -> dict[str, str]:
    """The kinds of a factory's numbers; "" is any number of at least 0."""
    kinds = {}
    for name, hint in typing.get_type_hints(factory, include_extras=True).items():
        if hint == ArrayLike:
            kinds[name] = ""
        elif typing.get_origin(hint) is typing.Annotated:
            _, kinds[name] = typing.get_args(hint)
    return kinds


def check_tanh(factory: Callable[..., Any], network: Any, why: str) -> None:
    """Raises ValueError for another network than tanh, in a rule that knows no other.

    Args:
      factory: of the rule.
      network: what is to be trained.
      why: what the rule does that other networks have no answer to.
    """
    rnn.check_network(network)
    if not isinstance(network, networks.Tanh):
        raise ValueError(
            f"network: expected tanh, as {factory.__name__} {why}, got {network.name}"
        )


def check_one_matrix(factory: Callable[..., Any], network: Any) -> None:
    """Raises ValueError where states are not multiplied by one square matrix alone."""
    if not (isinstance(network, Layer) and network.gates == 1):
        raise ValueError(
            f"network: expected tanh, relu or leaky, as {factory.__name__} puts one "
            "square matrix of feedback weights in place of the recurrent one, got "
            f"{network.name}"
        )


def check_recurrent(factory: Callable[..., Any], network: Any) -> None:
    """Raises ValueError for a network that does not say which weights are recurrent."""
    rnn.check_network(network)
    if not network.has_recurrent:
        raise ValueError(
            "network: expected tanh, relu, leaky, gru, lstm or a stack of them, as "
            f"{factory.__name__} puts feedback weights in place of the recurrent ones "
            f"and has to know which they are, got {network.name}"
        )


def check_last_step(factory: Callable[..., Any], output_loss: types.OutputLoss) -> None:
    """Raises ValueError where E is a loss of every step.

    For a rule that has no place for errors of its own at every step: docs/every_step.md
    says which they are.
    """
    if output_loss.every_step:
        raise ValueError(
            f"output_loss: expected a loss of the last step, which {factory.__name__} "
            "learns from alone, got one of every step"
        )
