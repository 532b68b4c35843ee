"""From a config to compiled programs: members that share all statics form a group."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import jax
import numpy as np
import optax

from lra_jax import RULES, networks, train, types
from lra_jax.experiment import Experiment, Hyperparameters
from lra_jax.lab.config import AXES, Config, ConfigError, tasks
from lra_jax.lab.config.arguments import arguments_of, feedback_of, takes_feedback
from lra_jax.lab.config.config import NETWORK_AXES
from lra_jax.lab.config.optimizers import OPTIMIZERS
from lra_jax.networks import NETWORKS, Network
from lra_jax.paper.released import evaluate_released
from lra_jax.sweep import Grid, make_grid

_EVALUATIONS = {"standard": train.evaluate, "released": evaluate_released}


@dataclasses.dataclass(frozen=True)
class Group:
    """Members that run in one compiled program.

    Attributes:
      statics: what they have in common and the program is compiled for.
      members: their indices in `config.members()`.
      experiment: the program.
      grid: their hyper-parameters and seeds, as arrays.
    """

    statics: dict[str, Any]
    members: np.ndarray
    experiment: Experiment
    grid: Grid


def make_groups(config: Config) -> list[Group]:
    """Splits the members of a config by everything that changes the program.

    Raises:
      ConfigError: a rule or a network refuses its sizes, or a rule its network, which
        no argument alone shows.
    """
    by_statics: dict[tuple[Any, ...], list[tuple[int, dict[str, Any]]]] = {}
    for index, member in enumerate(config.members()):
        numbers = _numbers(member)
        statics = {k: v for k, v in member.items() if k not in (*numbers, "seed")}
        key = (*sorted(statics.items()), *numbers)
        by_statics.setdefault(key, []).append((index, member))
    groups, problems = [], []
    for found in by_statics.values():
        try:
            group = _make_group(config, found)
            _check_group(group)
            groups.append(group)
        except ValueError as error:
            problems.append(f"rule {found[0][1]['rule']!r}: {error}")
    if problems:
        raise ConfigError(config.name, list(dict.fromkeys(problems)))
    return groups


def _check_group(group: Group) -> None:
    """Lets the group's rule see its sizes and its network; nothing is computed.

    Raises:
      ValueError: it refuses them.
    """
    experiment = group.experiment
    task = experiment.task

    def update(hyperparameters: Hyperparameters) -> Any:
        key = jax.random.key(0)
        rule, _ = experiment.build(hyperparameters)
        params = experiment.init_params(key, hyperparameters)
        batch = task.sample(key, experiment.batch_size, experiment.seq_len)
        experiment.evaluate_batch(params, batch, hyperparameters)
        every = experiment.update_every
        if every is not None and every != experiment.seq_len:
            train.check_stream(rule, batch, every)
        return rule.grads(key, params, rule.init(key, params), batch)

    numbers = {**group.grid.mapped, **group.grid.shared}
    jax.eval_shape(update, {name: x[0] for name, x in numbers.items()})


def _numbers(member: dict[str, Any]) -> dict[str, bool]:
    """The member's hyper-parameters that are data, not part of the program.

    Returns:
      Whether each is a real number, not an integer.
    """
    arguments = {
        **arguments_of(RULES[member["rule"]]),
        **arguments_of(OPTIMIZERS[member["optimizer"]]),
        **arguments_of(NETWORKS[member.get("network", "tanh")]),
    }
    return {
        key: arguments[key].is_real
        for key in member
        if key in arguments and arguments[key].kind == "number"
    }


def _make_group(config: Config, found: list[tuple[int, dict[str, Any]]]) -> Group:
    first = found[0][1]
    numbers = _numbers(first)
    statics = {k: v for k, v in first.items() if k not in (*numbers, "seed")}
    task = tasks.find(statics["task"], config.split)
    options = {k: v for k, v in statics.items() if k not in AXES}
    named: dict[str, Any] = NETWORK_AXES | statics
    make_network = NETWORKS[named["network"]]

    def make(factory: Any, numbers: Hyperparameters, **more: Any) -> Any:
        takes, parameters = arguments_of(factory), inspect.signature(factory).parameters
        known = {name.rstrip("_"): name for name in parameters}
        given = {**options, **numbers}
        mine = {
            known[key]: x for key, x in given.items() if key in takes and key in known
        }
        if takes_feedback(factory):
            mine |= feedback_of(given)
        return factory(**mine, **more)

    def network_of(numbers: Hyperparameters) -> Network:
        layer = make(make_network, numbers)
        count = named["num_layers"]
        return layer if count == 1 else networks.stack(*[layer] * count)

    def build(
        hyperparameters: Hyperparameters,
    ) -> tuple[types.LearningRule, optax.GradientTransformation]:
        factory = RULES[statics["rule"]]
        more: dict[str, Any] = {"output_loss": task.output_loss}
        network = network_of(hyperparameters)
        if not isinstance(network, networks.Tanh):
            _check_takes_network(factory, network)
            more["network"] = network
        rule = make(factory, hyperparameters, **more)
        return rule, make(OPTIMIZERS[statics["optimizer"]], hyperparameters)

    network_numbers = tuple(n for n in numbers if n in arguments_of(make_network))

    experiment = Experiment(
        task=task,
        build=build,
        seq_len=statics["seq_len"],
        hidden_size=statics["hidden_size"],
        input_gain=config.input_gain,
        batch_size=statics["batch_size"],
        eval_every=config.eval_every,
        num_validation=config.num_validation,
        validation_stages=config.validation_stages,
        evaluate=_EVALUATIONS[config.validation],
        network=network_of if network_numbers else network_of({}),
        update_every=config.update_every,
        network_numbers=network_numbers,
    )
    arrays = {
        name: np.array(
            [member[name] for _, member in found],
            config.dtype if is_real else np.int32,
        )
        for name, is_real in numbers.items()
    }
    seeds = np.array([member["seed"] for _, member in found])
    grid = make_grid(experiment, arrays, seeds)
    return Group(
        statics=statics,
        members=np.array([index for index, _ in found]),
        experiment=experiment,
        grid=grid._replace(race=_races(grid)) if config.race else grid,
    )


def _check_takes_network(factory: Any, network: Network) -> None:
    """Raises ValueError where a rule of a user's own knows of no networks."""
    parameters = inspect.signature(factory).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    if "network" not in parameters and inspect.Parameter.VAR_KEYWORD not in kinds:
        raise ValueError(
            f"network: expected tanh, as its factory has no argument network, "
            f"got {network.name}"
        )


def _races(grid: Grid) -> np.ndarray:
    """A number for each seed with each kind: K is no setting that may win a race."""
    pairs = np.stack([grid.seeds.astype(np.int64), grid.kind], axis=1)
    return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
