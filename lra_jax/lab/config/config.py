"""A config: what a file may say, resolved.

    task = "temporal_order"        # top level: one value for the whole run
    seq_len = 10
    seeds = [0, 1, 2]

    [grid]                         # lists are axes; their product, times seeds, is run
    lr = [0.1, 0.01]
    gamma = [1, 10]                # arguments of the rule and of the optimizer
    lambda = [0, 0.1]
    local_loss = "mse"             # a single value is an axis of one
    c0 = { log_uniform = [1e-3, 10], num = 64 }    # drawn, see `draws`

`[[grid]]`, several times, is the union of several products: a rule and its controls in
one run. The settings in `AXES` may stand at the top level or be axes. What the keys of
a grid may be is read off the signatures of the rules and optimizers themselves.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from lra_jax import RULES, validation
from lra_jax.lab.config import tasks
from lra_jax.lab.config.arguments import arguments_of
from lra_jax.lab.config.draws import Draws
from lra_jax.lab.config.optimizers import OPTIMIZERS
from lra_jax.lab.data.datasets import Part
from lra_jax.networks import NETWORKS

# Settings that may be axes of a grid as well: each changes the compiled program.
AXES = (
    "task", "seq_len", "rule", "optimizer", "hidden_size", "batch_size", "network",
    "num_layers",
)  # fmt: skip

# Those that only a run of other networks than the paper's has, by their defaults.
NETWORK_AXES: dict[str, Any] = {"network": "tanh", "num_layers": 1}

# Settings that files of run folders did not always have. `Config.request_digest` leaves
# them out where they say what was done before: by their defaults, or as in `BEFORE`.
ADDED = (
    "input_gain", "split", "save_params", "steps_after_solved", "import_",
    "update_every", "validation_stages",
)  # fmt: skip

# What a setting was in folders that do not say it, where that is not today's default.
BEFORE: dict[str, Any] = {"validation_stages": ()}


@dataclasses.dataclass(frozen=True)
class Config:
    """A run, resolved: every setting has a value.

    Attributes:
      name: of the run; the run folder's default name.
      task, seq_len, rule, optimizer, hidden_size, batch_size: see `AXES`; None only
        where every table of the grid says it.
      network: a name of `lra_jax.networks.NETWORKS`.
      num_layers: how many layers of it.
      update_every: steps of a sequence after which weights move, for rules that run
        forward in time; None is all of them.
      input_gain: W_xh begins as a random orthogonal matrix times this.
      max_steps: most updates of a member.
      eval_every: updates between two evaluations.
      patience: evaluations without a better one that end a member; 0 is off.
      num_validation: samples of the validation set; of recorded data, all there are.
      validation_stages: how many of them an evaluation looks at before it goes on, see
        `lra_jax.validation`; () looks at all every time.
      split: part of recorded data that is evaluated on: for "validation" the training
        part is trained on, for "test" training and validation together.
      validation: "released" evaluates from the released code's initial state, see
        `lra_jax.paper.released`.
      steps_after_solved: updates for which a member goes on after its first evaluation
        without an error.
      race: whether the first of a group's members with one seed and one K that is
        solved ends the others.
      save_params: whether the run folder keeps each member's last weights.
      seeds: each setting of the grid runs with each of them.
      dtype: of weights and arithmetic.
      matmul_precision: of products of float32 matrices where the hardware has several.
      import_: `import` in a file; modules that add rules, tasks or optimizers, see
        `extensions`.
      grid: one table or more; axis name to its values.
    """

    name: str
    task: str | None = None
    seq_len: int | None = None
    rule: str | None = "lra_diff"
    optimizer: str | None = "sgd"
    hidden_size: int | None = 100
    batch_size: int | None = 20
    network: str | None = "tanh"
    num_layers: int | None = 1
    update_every: int | None = None
    input_gain: float = 1.0
    max_steps: int = 100_000
    eval_every: int = 100
    patience: int = 30
    steps_after_solved: int = 0
    num_validation: int = 10_000
    validation_stages: tuple[int, ...] = validation.STAGES
    split: Part = "validation"
    validation: Literal["standard", "released"] = "standard"
    race: bool = False
    save_params: bool = False
    seeds: tuple[int, ...] = (0,)
    dtype: Literal["float32", "float64"] = "float32"
    matmul_precision: Literal["highest", "high", "default"] = "highest"
    import_: tuple[str, ...] = ()
    grid: tuple[dict[str, tuple[Any, ...]], ...] = ()

    def to_toml(self) -> str:
        """The config as a file that `load` reads back to the same value.

        Its last tables, `[defaults.rule.NAME]`, `[defaults.optimizer.NAME]` and
        `[defaults.network.NAME]`, are what the grid leaves to the defaults of the code.
        A run that says nothing of networks has nothing of them, as before there were
        any: its digest is the same.
        """
        lines = [self._request(left_out=())]
        for kind, factories in self.defaults().items():
            for name, values in factories.items():
                if not values:
                    continue
                lines.append(f"[defaults.{kind}.{_toml_key(name)}]")
                lines += [f"{_toml_key(k)} = {toml_of(x)}" for k, x in values.items()]
                lines.append("")
        return "\n".join(lines).rstrip() + "\n"

    def _request(self, left_out: Sequence[str]) -> str:
        """The settings and the grid as TOML.

        Args:
          left_out: settings that are not in it where they have their defaults.
        """
        lines = [
            f"{key_of(field)} = {toml_of(value)}"
            for field in dataclasses.fields(self)
            if field.name != "grid"
            and (field.name not in NETWORK_AXES or self.says_networks)
            and (value := getattr(self, field.name)) is not None
            and not (field.name in left_out and value == before(field))
        ]
        for table in self.grid:
            lines += ["", "[[grid]]"]
            lines += [f"{_toml_key(k)} = {toml_of(x)}" for k, x in table.items()]
        return "\n".join(lines) + "\n"

    @property
    def says_networks(self) -> bool:
        """Whether it has another network than the paper's, or says a number of it."""
        said = {*NETWORK_AXES} | {*arguments_of(NETWORKS["tanh"])}
        top = {key: getattr(self, key) for key in NETWORK_AXES}
        return top != NETWORK_AXES or any(said & {*table} for table in self.grid)

    def defaults(self) -> dict[str, dict[str, dict[str, Any]]]:
        """What is left to the defaults of rules, optimizers and networks.

        Returns:
          For each of the three the names that the grid has, and for each of these the
          arguments that some table with it does not give, with their defaults.
        """
        kinds = ["rule", "optimizer"] + ["network"] * self.says_networks
        found: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in kinds}
        for table in self.grid:
            for kind, of_kind in found.items():
                for name in table.get(kind, (getattr(self, kind),)):
                    mine = of_kind.setdefault(name, {})
                    for key, argument in arguments_of(TABLES[kind][name]).items():
                        is_set = argument.required or key in table or argument.is_added
                        is_set |= bool(argument.needs) and argument.needs not in table
                        if not is_set and argument.default is not None:
                            mine[key] = argument.default
        return found

    def digest(self) -> str:
        """SHA-256 of all that the results depend on; the name is not."""
        text = dataclasses.replace(self, name="").to_toml()
        return hashlib.sha256(text.encode()).hexdigest()

    def request_digest(self) -> str:
        """SHA-256 of what was asked for, without what is left to defaults.

        It is what `digest` was in run folders that do not say their defaults.
        """
        text = dataclasses.replace(self, name="")._request(left_out=ADDED)
        return hashlib.sha256(text.encode()).hexdigest()

    def members(self) -> Iterator[dict[str, Any]]:
        """Each member's settings and hyper-parameters; the seed varies fastest."""
        left_out = {} if self.says_networks else NETWORK_AXES
        fixed = {key: getattr(self, key) for key in AXES if key not in left_out}
        for table in self.grid:
            for values in _product(table):
                for seed in self.seeds:
                    yield {**fixed, **values, "seed": seed}


def before(field: dataclasses.Field[Any]) -> Any:
    """What a setting was in folders that do not say it."""
    return BEFORE.get(field.name, field.default)


def key_of(field: dataclasses.Field[Any]) -> str:
    """A field's name in a file: that of a keyword of Python has no underscore."""
    return field.name.rstrip("_")


def _product(table: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """A table's settings: the product of its lists with the rows of what is drawn."""
    drawn = [key for key, values in table.items() if isinstance(values, Draws)]
    axes = [[{key: x} for x in table[key]] for key in table if key not in drawn]
    if drawn:
        rows = zip(*(table[key] for key in drawn), strict=True)
        axes.append([dict(zip(drawn, row, strict=True)) for row in rows])
    for parts in itertools.product(*axes):
        found = {key: value for part in parts for key, value in part.items()}
        yield {key: found[key] for key in table}


def toml_of(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Draws):
        return value.to_toml()
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")  # TOML has it no other way


def _toml_key(key: str) -> str:
    return key if re.fullmatch("[A-Za-z0-9_-]+", key) else toml_of(key)


TABLES: dict[str, Mapping[str, Any]] = {
    "task": tasks.KNOWN,
    "rule": RULES,
    "optimizer": OPTIMIZERS,
    "network": NETWORKS,
}
