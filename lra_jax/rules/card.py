"""A rule's card: what tables and messages say of a rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from lra_jax.feedback import Feedback

NOT_SAID = "not said"


class Variant(NamedTuple):
    """What a card says differently where an option has a value.

    Attributes:
      option: an argument of the rule's factory.
      value: for which the card differs.
      changes: fields of the card, with what they are then.
    """

    option: str
    value: Any
    changes: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class RuleCard:
    """What a rule is, as data: tables of rules and benches are made of cards.

    All fields have defaults. A text that is left out is "not said" in tables.

    Attributes:
      title: what it is, in a few words.
      error: the error of a step, in a phrase of Markdown.
      choose_for: when to choose it and what to begin with, likewise.
      family: rules whose errors take the same way; benches draw a family together.
      errors_arrive: how an error reaches a step: "step by step", "from the output",
        "forward in time", or a few words more.
      transports: the forward weights that errors go through, such as "W_hhᵀ"; () is
        none. A rule that uses weights only to run the network forwards transports none.
        It is said of one layer: within a step of a stack, the errors of a layer come
        through the input weights W_xhᵀ of the layers above it, with every rule.
      stores: of the states zₜ that an update keeps in memory: "every state", or "the
        last state".
      every_step: whether it learns from losses of every step.
      networks: which ones it trains: "all", "tanh", "tanh, relu and leaky", or those
        "of known recurrent weights".
      reference: where it is from.
      variants: what differs with options of the rule.
      feedback: the weights in whose place errors go through what the rule's argument
        `feedback` says, of "W_hhᵀ" and "W_hyᵀ"; () where it has no such argument.
      feedback_networks: which networks it trains with that argument, where they are
        others than `networks`; "all" is those of known recurrent weights where W_hhᵀ
        is replaced.

    Example:
      >>> card = lra_jax.RuleCard(title="signs of W_hhᵀ", transports=("sign W_hhᵀ",))
      >>> card.transported, card.errors_arrive
      ('sign W_hhᵀ', 'not said')
    """

    title: str = NOT_SAID
    error: str = NOT_SAID
    choose_for: str = NOT_SAID
    family: str = NOT_SAID
    errors_arrive: str = NOT_SAID
    transports: tuple[str, ...] | None = None
    stores: str = NOT_SAID
    every_step: bool | None = None
    networks: str = NOT_SAID
    reference: str = NOT_SAID
    variants: tuple[Variant, ...] = ()
    feedback: tuple[str, ...] = ()
    feedback_networks: str | None = None

    @property
    def transported(self) -> str:
        """`transports` as a text for tables."""
        if self.transports is None:
            return NOT_SAID
        return ", ".join(self.transports) or "none"

    def of(self, options: Mapping[str, Any]) -> RuleCard:
        """The card of the rule with some options.

        Args:
          options: arguments of the factory; others are ignored, and those left out
            have their defaults.
        """
        card = self
        for option, value, changes in self.variants:
            if option in options and options[option] == value:
                card = dataclasses.replace(card, **changes)
        if self.feedback and options.get("feedback") is not None:
            card = card._through(_ways(options))
        return card

    def _through(self, ways: Mapping[str, str]) -> RuleCard:
        """The card of the rule with feedback in place of some weights."""
        others = [name for name in self.transports or () if name not in self.feedback]
        kept = [name for name in self.feedback if ways[name] == "transpose"]
        found = dataclasses.replace(
            self,
            transports=(*others, *kept),
            networks=self.feedback_networks or self.networks,
        )
        recurrent = ways["W_hhᵀ"]
        if recurrent == "transpose" or "W_hhᵀ" not in self.feedback:
            return found
        words = {"kolen_pollack": "Kolen-Pollack"}.get(recurrent, recurrent)
        return dataclasses.replace(
            found,
            errors_arrive=f"{self.errors_arrive}; {words} feedback",
            networks=KNOWN_RECURRENT
            if found.networks == ALL_NETWORKS
            else found.networks,
        )


def _ways(options: Mapping[str, Any]) -> dict[str, str]:
    """How errors go through recurrent and output weights, of a rule's options."""
    feedback = options["feedback"]
    if isinstance(feedback, Feedback):
        return {"W_hhᵀ": feedback.recurrent, "W_hyᵀ": feedback.readout}
    readout = options.get("readout_feedback", feedback)
    return {"W_hhᵀ": feedback, "W_hyᵀ": readout}


THROUGH_W_HH = "through W_hhᵀ"
OWN_FEEDBACK = "own feedback weights"
DIRECT = "direct, or not at all"
BOTH_WEIGHTS = ("W_hhᵀ", "W_hyᵀ")
READOUT_WEIGHTS = ("W_hyᵀ",)
FORWARD = "forward in time"
THROUGH_INVERSE = "through an inverse"
EVERY_STATE = "every state"
LAST_STATE = "the last state"
ALL_NETWORKS = "all"
TANH_ALONE = "tanh"
KNOWN_RECURRENT = "of known recurrent weights"
ONE_MATRIX = "tanh, relu and leaky"
