"""The learning rules: a factory and a card in each file, and the one table of them.

`lra_released`, of `lra_jax.paper`, is no rule to train with: it is evidence, what the
paper's published program computes.
"""

from collections.abc import Callable

from lra_jax import settings, types
from lra_jax.paper.released import LRA_RELEASED_CARD, lra_released
from lra_jax.rules.bptt import BPTT_CARD, bptt
from lra_jax.rules.card import RuleCard
from lra_jax.rules.dfa import DFA_CARD, dfa
from lra_jax.rules.eprop import EPROP_CARD, eprop
from lra_jax.rules.fa import FA_CARD, fa
from lra_jax.rules.lra_diff import LRA_DIFF_CARD, lra_diff
from lra_jax.rules.lra_e import LRA_E_CARD, lra_e
from lra_jax.rules.lra_fdbk import LRA_FDBK_CARD, lra_fdbk
from lra_jax.rules.lra_norm import LRA_NORM_CARD, lra_norm
from lra_jax.rules.lra_reversible import LRA_REVERSIBLE_CARD, lra_reversible
from lra_jax.rules.random_error import RANDOM_ERROR_CARD, random_error
from lra_jax.rules.readout_only import READOUT_ONLY_CARD, readout_only
from lra_jax.rules.rec_lra import REC_LRA_CARD, rec_lra
from lra_jax.rules.rflo import RFLO_CARD, rflo
from lra_jax.rules.rtrl import RTRL_CARD, rtrl
from lra_jax.rules.snap import SNAP_CARD, snap
from lra_jax.rules.tpri import TPRI_CARD, tpri
from lra_jax.rules.tptt import TPTT_CARD, tptt
from lra_jax.rules.uoro import UORO_CARD, uoro

RuleFactory = Callable[..., types.LearningRule]

_TABLE: dict[str, tuple[RuleFactory, RuleCard]] = {
    "bptt": (bptt, BPTT_CARD),
    "dfa": (dfa, DFA_CARD),
    "eprop": (eprop, EPROP_CARD),
    "fa": (fa, FA_CARD),
    "lra_diff": (lra_diff, LRA_DIFF_CARD),
    "lra_e": (lra_e, LRA_E_CARD),
    "lra_fdbk": (lra_fdbk, LRA_FDBK_CARD),
    "lra_norm": (lra_norm, LRA_NORM_CARD),
    "lra_released": (lra_released, LRA_RELEASED_CARD),  # evidence, see `lra_jax.paper`
    "lra_reversible": (lra_reversible, LRA_REVERSIBLE_CARD),
    "random_error": (random_error, RANDOM_ERROR_CARD),
    "readout_only": (readout_only, READOUT_ONLY_CARD),
    "rec_lra": (rec_lra, REC_LRA_CARD),
    "rflo": (rflo, RFLO_CARD),
    "rtrl": (rtrl, RTRL_CARD),
    "snap": (snap, SNAP_CARD),
    "tpri": (tpri, TPRI_CARD),
    "tptt": (tptt, TPTT_CARD),
    "uoro": (uoro, UORO_CARD),
}

RULES: dict[str, RuleFactory] = {name: row[0] for name, row in _TABLE.items()}
"""The learning rules by name.

Each is a factory, `(*, ...) -> LearningRule`. Configs, the bench and the shared tests
know a rule by its row here.

Example:
  >>> rule = lra_jax.RULES["bptt"](max_norm=1.0)
  >>> isinstance(rule, lra_jax.LearningRule)
  True
"""

_CARDS: dict[str, tuple[RuleFactory | None, RuleCard]] = dict(_TABLE)


def register_rule(
    name: str, factory: RuleFactory, card: RuleCard | None = None
) -> None:
    """Adds a rule of your own to `RULES`, with what tables say of it.

    `RULES[name] = factory` does the same without a card.

    Args:
      name: for configs and tables.
      factory: `(*, ..., output_loss) -> LearningRule`.
      card: what the rule is; None leaves tables with "not said".

    Raises:
      ValueError: the library has a rule of this name, the name is no identifier, or the
        factory or the card is something else.

    Example:
      >>> def signs(*, output_loss=lra_jax.cross_entropy):
      ...     return lra_jax.bptt(output_loss=output_loss)
      >>> card = lra_jax.RuleCard(title="an example", transports=("W_hhᵀ", "W_hyᵀ"))
      >>> lra_jax.register_rule("signs", signs, card)
      >>> lra_jax.rule_card("signs").title
      'an example'
      >>> del lra_jax.RULES["signs"]
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"name: expected an identifier, got {name!r}")
    if name in _TABLE:
        raise ValueError(
            f"name: expected one that is not taken, got {name!r}, which is a rule of "
            "the library"
        )
    if not callable(factory):
        raise ValueError(
            f"factory: expected a function that returns a LearningRule, got {factory!r}"
        )
    if card is not None and not isinstance(card, RuleCard):
        raise ValueError(f"card: expected a RuleCard, got {card!r}")
    RULES[name] = factory
    _CARDS[name] = factory, RuleCard() if card is None else card


def rule_card(name: str) -> RuleCard:
    """What a rule of `RULES` is: how its errors arrive, which weights they go through.

    Args:
      name: of the rule.

    Returns:
      Its card; one that says nothing where the rule came without.

    Raises:
      ValueError: there is no such rule.

    Example:
      >>> card = lra_jax.rule_card("fa")
      >>> card.errors_arrive, card.transports
      ('step by step', ('W_hyᵀ',))
      >>> card.of({"readout": "random"}).transported
      'none'
    """
    if name not in RULES:
        raise ValueError(
            f"name: expected one of {', '.join(RULES)}, got {name!r}"
            f"{settings.did_you_mean(name, RULES)}"
        )
    factory, card = _CARDS.get(name, (None, RuleCard()))
    return card if RULES[name] is factory else RuleCard()


__all__ = [
    "RULES",
    "RuleCard",
    "bptt",
    "dfa",
    "eprop",
    "fa",
    "lra_diff",
    "lra_e",
    "lra_fdbk",
    "lra_norm",
    "lra_released",
    "lra_reversible",
    "random_error",
    "readout_only",
    "rec_lra",
    "register_rule",
    "rflo",
    "rtrl",
    "rule_card",
    "snap",
    "tpri",
    "tptt",
    "uoro",
]
