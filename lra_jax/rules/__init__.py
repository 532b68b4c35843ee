"""The learning rules: one factory per file, and the one table of them.

`lra_released`, of `lra_jax.paper`, is no rule to train with: it is evidence, what the
paper's published program computes.
"""

from collections.abc import Callable

from lra_jax import types
from lra_jax.paper.released import lra_released
from lra_jax.rules.bptt import bptt
from lra_jax.rules.dfa import dfa
from lra_jax.rules.fa import fa
from lra_jax.rules.lra_diff import lra_diff
from lra_jax.rules.lra_e import lra_e
from lra_jax.rules.lra_fdbk import lra_fdbk
from lra_jax.rules.lra_norm import lra_norm
from lra_jax.rules.lra_reversible import lra_reversible
from lra_jax.rules.readout_only import readout_only
from lra_jax.rules.rec_lra import rec_lra
from lra_jax.rules.tpri import tpri
from lra_jax.rules.tptt import tptt

RULES: dict[str, Callable[..., types.LearningRule]] = {
    "bptt": bptt,
    "dfa": dfa,
    "fa": fa,
    "lra_diff": lra_diff,
    "lra_e": lra_e,
    "lra_fdbk": lra_fdbk,
    "lra_norm": lra_norm,
    "lra_released": lra_released,  # evidence, see `lra_jax.paper`
    "lra_reversible": lra_reversible,
    "readout_only": readout_only,
    "rec_lra": rec_lra,
    "tpri": tpri,
    "tptt": tptt,
}
"""The learning rules by name.

Each is a factory, `(*, ...) -> LearningRule`. Configs, the bench and the shared tests
know a rule by its row here.

Example:
  >>> rule = lra_jax.RULES["bptt"](max_norm=1.0)
  >>> isinstance(rule, lra_jax.LearningRule)
  True
"""

__all__ = [
    "RULES",
    "bptt",
    "dfa",
    "fa",
    "lra_diff",
    "lra_e",
    "lra_fdbk",
    "lra_norm",
    "lra_released",
    "lra_reversible",
    "readout_only",
    "rec_lra",
    "tpri",
    "tptt",
]
