"""What all members of one compiled program have in common, and a seed's randomness."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import optax

from lra_jax import networks, rnn, settings, train, types, validation
from lra_jax.networks import Network
from lra_jax.tasks import Task

Hyperparameters = Mapping[str, jax.Array]
Build = Callable[
    [Hyperparameters], tuple[types.LearningRule, optax.GradientTransformation]
]
MakeNetwork = Callable[[Hyperparameters], Network]

NO_HYPERPARAMETERS: Hyperparameters = MappingProxyType({})

NUM_VALIDATION = 10_000  # samples of a validation set that is drawn


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What all members of one compiled program have in common (static).

    Attributes:
      task: what to learn.
      build: hyper-parameters (scalars, traced) to a rule and an optimizer; called
        inside the mapped function. The rule is one of `network`.
      seq_len: T; None is the task's, where it has one T.
      hidden_size: H.
      input_gain: of the initial weights, see `rnn.init_params`.
      batch_size: B.
      eval_every: updates between two evaluations.
      num_validation: samples of the fixed validation set; None is the size of the
        task's own, and 10,000 where one is drawn.
      validation_stages: how many samples an evaluation looks at before it goes on, see
        `lra_jax.validation`: increasing multiples of 200, of which those that are
        smaller than the validation set count. With () it looks at all samples. With
        some, such as (200, 1000), counts of errors are of `num_samples`.
      evaluate: as `train.evaluate`, which it is but for `lra_released`. It gets
        `network=` where that is another one than tanh.
      network: what is trained; or `network_numbers`, traced, to it, called inside the
        mapped function.
      network_numbers: names of the hyper-parameters that a function `network` reads.
        Members that have them and the seed in common start from the same weights.
      update_every: as of `train.train_step`; None is the whole sequence.
      shared: names of hyper-parameters that set how long the program runs, as K
        does: equal for all members that are advanced together.

    Raises:
      ValueError: a size is no integer, too small, or impossible for the task; or
        `input_gain` is no positive number; or the stages are no increasing multiples
        of 200; or `network` is neither a network of Python numbers nor a function.

    Example:
      >>> def build(hyperparameters):
      ...     rule = lra_jax.lra_diff(gamma=hyperparameters["gamma"])
      ...     return rule, optax.sgd(hyperparameters["lr"])
      >>> task = lra_jax.TASKS["temporal_order"]
      >>> experiment = sweep.Experiment(task, build, seq_len=10, hidden_size=8)
      >>> experiment.batch_size, experiment.num_validation, experiment.shared
      (20, 10000, ('num_refinements',))
    """

    task: Task
    build: Build
    seq_len: int = None  # type: ignore[assignment]  # never None: see below
    hidden_size: int = 100
    input_gain: float = 1.0
    batch_size: int = 20
    eval_every: int = 100
    num_validation: int = None  # type: ignore[assignment]
    validation_stages: tuple[int, ...] = ()
    evaluate: Callable[..., types.Metrics] = train.evaluate
    network: Network | MakeNetwork = rnn.TANH
    network_numbers: tuple[str, ...] = ()
    update_every: int | None = None
    shared: tuple[str, ...] = ("num_refinements",)

    def __post_init__(self) -> None:
        task, recorded = self.task, self.task.validation
        if self.num_validation is None:
            size = NUM_VALIDATION if recorded is None else recorded.size
            object.__setattr__(self, "num_validation", size)
        checked: dict[str, Any] = {"seq_len": task.check_seq_len(self.seq_len)}
        for name in ("hidden_size", "batch_size", "eval_every", "num_validation"):
            checked[name] = settings.check_size(name, getattr(self, name))
        if recorded is not None and checked["num_validation"] != recorded.size:
            raise ValueError(
                f"num_validation: expected the task's {recorded.size}, "
                f"got {self.num_validation!r}"
            )
        checked["validation_stages"] = validation.check_stages(
            self.validation_stages, checked["num_validation"]
        )
        rnn.check_input_gain(self.input_gain)
        _check_network(self.network)
        checked["input_gain"] = float(self.input_gain)
        for name in ("shared", "network_numbers"):
            names = getattr(self, name)
            if isinstance(names, str):
                raise ValueError(f"{name}: expected a tuple of names, got {names!r}")
            checked[name] = tuple(names)
        if self.update_every is not None:
            size = settings.check_size("update_every", self.update_every)
            if checked["seq_len"] % size:
                raise ValueError(
                    "update_every: expected a divisor of T = "
                    f"{checked['seq_len']}, got {size}"
                )
            checked["update_every"] = size
        for name, value in checked.items():  # of Python's types, which can be hashed
            object.__setattr__(self, name, value)

    def network_of(self, hyperparameters: Hyperparameters) -> Network:
        """The network of a member.

        Args:
          hyperparameters: name to scalar; of `network_numbers` at least.
        """
        if isinstance(self.network, Network):
            return self.network
        numbers = {name: hyperparameters[name] for name in self.network_numbers}
        return self.network(numbers)

    def init_params(
        self, key: jax.Array, hyperparameters: Hyperparameters
    ) -> types.AnyParams:
        """Initial weights of a member; the key is consumed."""
        return rnn.init_params(
            key,
            self.task.input_size,
            self.hidden_size,
            self.task.output_size,
            input_gain=self.input_gain,
            network=self.network_of(hyperparameters),
        )

    def evaluate_batch(
        self,
        params: types.AnyParams,
        batch: types.Batch,
        hyperparameters: Hyperparameters,
    ) -> types.Metrics:
        """`evaluate` of a member's weights."""
        network = self.network_of(hyperparameters)
        options = {} if isinstance(network, networks.Tanh) else {"network": network}
        return self.evaluate(
            params, batch, output_loss=self.task.output_loss, **options
        )


def _check_network(network: Any) -> None:
    if not isinstance(network, Network):
        if not callable(network):
            rnn.check_network(network)
        return
    try:
        hash(network)
    except TypeError:
        raise ValueError(
            "network: expected one whose numbers are Python's, or a function of "
            "hyper-parameters that returns one, got a network with arrays in it"
        ) from None


class Streams(NamedTuple):
    """A seed's streams of randomness."""

    params: jax.Array
    data: jax.Array
    rule: jax.Array
    validation: jax.Array


def streams(seed: jax.Array) -> Streams:
    """Of a seed; they are independent of each other."""
    key = jax.random.key(seed, impl="threefry2x32")
    return Streams(*(jax.random.fold_in(key, purpose) for purpose in range(4)))
