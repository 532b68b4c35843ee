"""What a config may say of a rule, optimizer or network, read off its signature."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from jax.typing import ArrayLike

from lra_jax import RULES, Feedback, settings
from lra_jax.lab.config.optimizers import OPTIMIZERS
from lra_jax.networks import NETWORKS


@dataclasses.dataclass(frozen=True)
class Argument:
    """A keyword of a rule's, optimizer's or network's factory, as a config sees it.

    Attributes:
      kind: a number may have a narrower one of `lra_jax.settings`; the program
        is compiled for a constant.
      required: whether it has no default.
      choices: of a choice.
      narrower: "count", ...; "" is any number of at least 0.
      default: None where it is required.
      needs: another argument, without which it says nothing.
      is_added: whether factories did not always have it. Its default does what was
        done before, and no config has to say it.
    """

    kind: Literal["number", "constant", "choice", "flag"]
    required: bool
    choices: tuple[str, ...] = ()
    narrower: str = ""
    default: Any = None
    needs: str = ""
    is_added: bool = False

    @property
    def is_real(self) -> bool:
        """Whether it is a number, and no integer."""
        return self.kind == "number" and self.narrower != "count"


@functools.cache
def arguments_of(factory: Callable[..., Any]) -> dict[str, Argument]:
    """The keywords that a config may give, read off the factory's signature.

    Numbers are annotated `ArrayLike` or a narrower kind of `lra_jax.settings`,
    constants `settings.Share`, maybe among others, or `settings.Size`, choices
    `Literal`, switches `bool`. A trailing underscore (`lambda_`) is dropped. What the
    argument `feedback` of a rule may be is read off `Feedback`.
    """
    hints = typing.get_type_hints(factory, include_extras=True)
    found: dict[str, Argument] = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        hint, required = hints.get(name), parameter.default is inspect.Parameter.empty
        default = None if required else parameter.default
        narrower = ""
        if settings.Share in typing.get_args(hint):  # a union, of which it is a part
            hint = settings.Share
        if Feedback in typing.get_args(hint):
            found |= _of_feedback(default)
            continue
        if typing.get_origin(hint) is typing.Annotated:
            hint, narrower = typing.get_args(hint)
        if hint == ArrayLike:
            argument = Argument("number", required, (), narrower, default)
        elif hint in (float, int) and narrower:
            argument = Argument("constant", required, (), narrower, default)
        elif typing.get_origin(hint) is Literal:
            choices = typing.get_args(hint)
            argument = Argument("choice", required, choices, default=default)
        elif hint is bool:
            argument = Argument("flag", required, default=default)
        else:
            continue  # the output loss comes with the task
        is_added = name == "weight_decay"
        found[name.rstrip("_")] = dataclasses.replace(argument, is_added=is_added)
    return found


# Fields of `Feedback` by their names in configs; its decay is the optimizer's.
_FEEDBACK_KEYS = {"recurrent": "feedback", "readout": "readout_feedback"}


def _of_feedback(default: Any) -> dict[str, Argument]:
    """The keys with which a config says a rule's `feedback`."""
    found = {}
    for name, argument in arguments_of(Feedback).items():
        if name == "weight_decay":
            continue
        key = _FEEDBACK_KEYS.get(name, name)
        if key == "feedback":
            found[key] = dataclasses.replace(argument, default=default, is_added=True)
        else:
            own = None if name in _FEEDBACK_KEYS else argument.default
            found[key] = dataclasses.replace(argument, default=own, needs="feedback")
    return found


def feedback_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The argument `feedback` of a rule, of what a config gives; none without.

    Args:
      given: name to value, of the rule and of the optimizer.
    """
    if "feedback" not in given:
        return {}
    both = {"readout_feedback": given["feedback"], **given}
    fields = {_FEEDBACK_KEYS.get(f.name, f.name) for f in dataclasses.fields(Feedback)}
    names = {key: name for name, key in _FEEDBACK_KEYS.items()}
    chosen = {names.get(key, key): both[key] for key in fields if key in both}
    return {"feedback": Feedback(**chosen)}


def takes_feedback(factory: Callable[..., Any]) -> bool:
    """Whether a rule's errors go through a `Feedback` that it is given."""
    return "readout_feedback" in arguments_of(factory)


def all_arguments() -> set[str]:
    """The keywords of all rules, optimizers and networks."""
    factories = [*RULES.values(), *OPTIMIZERS.values(), *NETWORKS.values()]
    return {key for factory in factories for key in arguments_of(factory)}


def check_argument(value: Any, argument: Argument, dtype: str) -> str | None:
    """What is wrong with one value of a factory's argument, or None."""
    if argument.kind == "choice":
        return check_choice(value, argument.choices)
    if argument.kind == "flag":
        return None if isinstance(value, bool) else "expected true or false"
    if argument.narrower in ("count", "size"):
        return check_integer(value, 1)
    if type(value) not in (int, float):
        return "expected a number"
    return settings.wrong_number(value, argument.narrower, dtype=dtype)


def check_integer(value: Any, least: int) -> str | None:
    """What is wrong with an integer setting, or None."""
    if type(value) is not int:
        return f"expected an integer of at least {least}"
    return settings.wrong_integer(value, least)


# Characters of a list of choices in a message: `ConfigError` cuts it off after 460.
MAX_CHOICES = 300


def check_choice(value: Any, allowed: Sequence[str]) -> str | None:
    """What is wrong with a word that has to be one of some, or None."""
    if isinstance(value, str) and value in allowed:
        return None
    hint = settings.did_you_mean(value, allowed) if isinstance(value, str) else ""
    ends = itertools.accumulate(len(name) + 2 for name in allowed)
    shown = sum(end <= MAX_CHOICES for end in ends) or 1
    more = f" and {len(allowed) - shown} more" if shown < len(allowed) else ""
    return f"expected one of {', '.join(allowed[:shown])}{more}{hint}"
