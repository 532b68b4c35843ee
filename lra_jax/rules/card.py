"""A rule's card: what tables and messages say of a rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

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
      family: rules whose errors take the same way; benches draw a family together.
      errors_arrive: how an error reaches a step: "step by step", "from the output",
        "forward in time", or a few words more.
      transports: the forward weights that errors go through, such as "W_hhᵀ"; () is
        none. A rule that uses weights only to run the network forwards transports none.
      stores: of the states zₜ that an update keeps in memory: "every state", or "the
        last state".
      every_step: whether it learns from losses of every step.
      networks: which ones it trains: "all", "tanh", or those "of known recurrent
        weights".
      reference: where it is from.
      variants: what differs with options of the rule.

    Example:
      >>> card = lra_jax.RuleCard(title="signs of W_hhᵀ", transports=("sign W_hhᵀ",))
      >>> card.transported, card.errors_arrive
      ('sign W_hhᵀ', 'not said')
    """

    title: str = NOT_SAID
    family: str = NOT_SAID
    errors_arrive: str = NOT_SAID
    transports: tuple[str, ...] | None = None
    stores: str = NOT_SAID
    every_step: bool | None = None
    networks: str = NOT_SAID
    reference: str = NOT_SAID
    variants: tuple[Variant, ...] = ()

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
        return card


THROUGH_W_HH = "through W_hhᵀ"
OWN_FEEDBACK = "own feedback weights"
DIRECT = "direct, or not at all"
THROUGH_INVERSE = "through an inverse"
EVERY_STATE = "every state"
LAST_STATE = "the last state"
ALL_NETWORKS = "all"
TANH_ALONE = "tanh"
KNOWN_RECURRENT = "of known recurrent weights"
