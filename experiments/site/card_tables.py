"""Tables of the learning rules, made of their cards: a row for each rule there is."""

from __future__ import annotations

from collections.abc import Callable

from lra_jax import RULES, RuleCard, rule_card
from lra_jax.lab.reports import markdown
from lra_jax.settings import did_you_mean

Column = tuple[str, Callable[[RuleCard], str]]
_CHOOSE_FOR: Column = "choose it for", lambda card: card.choose_for
_ERROR: Column = "the error of a step", lambda card: card.error
_TRANSPORTS: Column = "transports", lambda card: card.transported
_STORES: Column = "stores", lambda card: card.stores
TABLES: dict[str, list[Column]] = {
    "choose": [_CHOOSE_FOR, _TRANSPORTS],
    "errors": [_ERROR, _TRANSPORTS, _STORES],
}


def table(name: str) -> str:
    """A table of `TABLES`: a row for each rule, those of a family together.

    Raises:
      ValueError: there is no such table.
    """
    if name not in TABLES:
        raise ValueError(
            f"cards/{name}: expected one of {', '.join(TABLES)}"
            f"{did_you_mean(name, TABLES)}"
        )
    columns = TABLES[name]
    families = list(dict.fromkeys(rule_card(rule).family for rule in RULES))
    rows = [
        [f"`{rule}`", *(text(rule_card(rule)) for _, text in columns)]
        for family in families
        for rule in RULES
        if rule_card(rule).family == family
    ]
    return markdown.table(["rule", *(head for head, _ in columns)], rows)
