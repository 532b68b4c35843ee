"""A bench: methods with equally many settings, chosen with seeds that do not count.

What `experiments.reach` and `experiments.real` have in common: their command line,
reading the file of a bench, and all that can be wrong with it.
"""

from __future__ import annotations

import dataclasses
import pathlib
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Any, NamedTuple, Protocol, TypeVar

import jax
import rich.console
from absl import flags

from lra_jax.lab import config as config_lib
from lra_jax.lab.config import AXES, Config, ConfigError, tasks
from lra_jax.lab.config.config import NETWORK_AXES
from lra_jax.lab.runs import groups, run, store
from lra_jax.lab.runs.runner import Runner, StoppedError
from lra_jax.lab.terminal import command_line, machine, screen
from lra_jax.settings import did_you_mean

_CONFIG = flags.DEFINE_string(  # other programs have flags of these names
    "config", None, "TOML file that describes the bench.", allow_override=True
)
_OUT = flags.DEFINE_string(
    "out", ".", "Folder in which runs/ and results/ are.", allow_override=True
)
_ACCEPT_OLD_CODE = flags.DEFINE_boolean(
    "accept_old_code",
    False,
    "Use results that other code than today's has made.",
    allow_override=True,
)

_NEEDED = {"label", "grid"}  # of a method
_OF_A_METHOD = {"rule", "optimizer", *NETWORK_AXES}  # the axes that its grid may have


class Bench(Protocol):
    """What every bench has; a frozen dataclass whose fields are the keys of its file.

    Attributes:
      name: of the bench, and of its files and folders.
      methods: name to a table of `label`, `grid` and, if it is not 1, `input_gain`; the
        last two as in a config of `experiments.grid`, where a grid may be several. Of
        the settings in `AXES`, a grid says only the rule, the optimizer, the network
        and its layers.
      seeds: that are counted.
      tuning_seeds: that choose a setting.
      num_trials: settings of each method, the same for all.
    """

    @property
    def name(self) -> str: ...
    @property
    def methods(self) -> dict[str, dict[str, Any]]: ...
    @property
    def seeds(self) -> list[int]: ...
    @property
    def tuning_seeds(self) -> list[int]: ...
    @property
    def num_trials(self) -> int: ...

    def tunings(self, method: str) -> Iterable[Config]:
        """The longest run of all settings of a method, on each task."""
        ...


AnyBench = TypeVar("AnyBench", bound=Bench)


class Program(NamedTuple):
    """What `app.run` needs."""

    parse: Callable[[list[str]], list[str]]
    main: Callable[[Sequence[str]], int]


def program(
    module: str,
    example: str,
    load: Callable[[str], AnyBench],
    work: Callable[[Runner, AnyBench, pathlib.Path], None],
) -> Program:
    """The program of a kind of bench, with `--config` and `--out`.

    Args:
      module: of the command, whose last name is that of its folder among the runs.
      example: a file that `--config` may name.
      load: reads a bench.
      work: trains it, and writes what came of it into the folder of results.
    """
    name = module.rpartition(".")[2]

    def check_flags() -> None:
        if _CONFIG.value is None:
            raise flags.Error(f"--config is missing, such as --config {example}")

    def train(console: rich.console.Console) -> int:
        path, out = str(_CONFIG.value), pathlib.Path(_OUT.value)
        config_lib.load_extensions(command_line.imports(), path)
        machine.prepare()
        jax.config.update("jax_enable_x64", False)
        bench = load(path)
        check_refusals(bench)
        command = command_line.started_as(module)
        command += screen.option("config", path) + command_line.imports_again()
        if out != pathlib.Path("."):
            command += screen.option("out", str(out))
        accept = _ACCEPT_OLD_CODE.value
        command += ["--accept-old-code"] * accept
        interruption = run.Interruption(console, command)
        folder = out / "runs" / name / bench.name
        runner = Runner(console, folder, interruption, accept_old_code=accept)
        try:
            work(runner, bench, out / "results" / name)
        except StoppedError as stop:
            interruption.say("Interrupted; what was finished is saved. To go on:")
            return 128 + stop.number
        except OSError as error:
            raise run.unfinished(error, interruption.command) from None
        return 0

    def main(argv: Sequence[str]) -> int:
        """Runs the command; errors of the user's are one message and exit code 2."""
        del argv
        errors = (ConfigError, machine.MachineError, store.RunFolderError, OSError)
        return command_line.exit_code(train, errors)

    parse = command_line.parser(module, check_flags, takes_imports=True)
    return Program(parse, main)


def load(
    path: str,
    kind: type[AnyBench],
    contradictions: Callable[[AnyBench], Iterable[str]],
) -> AnyBench:
    """Reads and checks a bench.

    Args:
      path: of a TOML file.
      kind: a dataclass.
      contradictions: what is wrong with values of the right types.

    Raises:
      ConfigError: with all problems of one kind at once.
    """
    raw = config_lib.read(path)
    own = raw.pop("import", [])
    if (problem := config_lib.check_setting("import", own)) is not None:
        raise ConfigError(path, [f"import = {str(own)[:60]}: {problem}"])
    config_lib.load_extensions([own] if isinstance(own, str) else own, path)
    tasks.locate(raw, pathlib.Path(path).parent)
    problems = [*_misfits(raw, kind)]
    if problems:
        raise ConfigError(path, problems)
    bench = kind(**raw)
    problems = [*contradictions(bench)]
    if problems:
        raise ConfigError(path, problems)
    return bench


_TYPES = {
    bool: "true or false",
    int: "an integer",
    str: "a text",
    list: "a list",
    dict: "tables",
}
_PLURALS = {int: "integers", str: "texts"}


def _misfits(raw: dict[str, Any], kind: Any) -> Iterator[str]:
    """Unknown keys, values of another type, and keys that are missing."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key, value in raw.items():
        if key not in fields:
            hint = did_you_mean(key, fields)
            yield f"{key}: unknown; expected one of {', '.join(fields)}{hint}"
            continue
        type_ = typing.get_origin(hints[key]) or hints[key]
        items = typing.get_args(hints[key])
        fits = type(value) is type_
        if fits and type_ is list:
            may_be_empty = fields[key].default_factory is list
            fits = bool(value) or may_be_empty
            fits = fits and all(type(item) is items[0] for item in value)
        if not fits:
            of = f" of {_PLURALS[items[0]]}" if type_ is list else ""
            yield f"{key} = {str(value)[:60]}: expected {_TYPES[type_]}{of}"
    for key, field in fields.items():
        is_required = field.default is field.default_factory is dataclasses.MISSING
        if is_required and key not in raw:
            yield f"{key}: missing"


def contradictions(
    bench: Bench,
    configs: Callable[[str], Iterable[Config]],
    possible: Set[str] = frozenset({"input_gain"}),
) -> Iterator[str]:
    """What is wrong with the seeds and the methods of a bench.

    Args:
      bench: whose values have the right types.
      configs: a method's name to the runs of all its settings.
      possible: what a method may say besides what it has to.
    """
    if shared := sorted(set(bench.seeds) & set(bench.tuning_seeds)):
        yield f"tuning_seeds: {shared} are among seeds, which have to be new"
    for key in ("seeds", "tuning_seeds"):
        values = getattr(bench, key)
        if config_lib.check_setting("seeds", values) is not None:
            yield f"{key} = {values}: expected different integers from 0 to 2³² - 1"
    if (problem := config_lib.check_setting("name", bench.name)) is not None:
        yield f"name = {bench.name}: {problem}"
    if not bench.methods:
        yield "methods: expected at least one"
    tables = [method for method in bench.methods.values() if isinstance(method, dict)]
    labels = [str(method["label"]) for method in tables if "label" in method]
    if len(set(labels)) < len(labels):
        yield f"methods: two have the same label, of {', '.join(labels)}"
    for name, method in bench.methods.items():
        where = f"methods.{name}"
        if not isinstance(method, dict) or {*method} - possible != _NEEDED:
            yield (
                f"{where}: expected a table with label, grid and maybe "
                f"{', '.join(sorted(possible))}"
            )
            continue
        if type(method["label"]) is not str:
            yield f"{where}.label = {method['label']}: expected a text"
        grids = method["grid"] if isinstance(method["grid"], list) else [method["grid"]]
        said = {key for grid in grids if isinstance(grid, dict) for key in grid}
        if shared_keys := sorted((said & {*AXES}) - _OF_A_METHOD):
            yield f"{where}.grid: {', '.join(shared_keys)} is the same for all methods"
            continue
        try:
            found = [*configs(name)]
        except ConfigError as error:
            yield from (f"{where}: {problem}" for problem in error.problems)
            continue
        for config in found[:1]:
            count = sum(1 for _ in config.members()) // len(config.seeds)
            if count != bench.num_trials:
                yield f"{where}: {count} settings; num_trials is {bench.num_trials}"


def check_refusals(bench: Bench) -> None:
    """Asks all rules for their programs, before the first of them trains.

    Raises:
      ConfigError: what rules have against their sizes, or their networks.
    """
    found: list[str] = []
    for method in bench.methods:
        for config in bench.tunings(method):
            try:
                groups.make_groups(config)
            except ConfigError as error:
                found += (f"methods.{method}: {text}" for text in error.problems)
    if found:
        raise ConfigError(bench.name, [*dict.fromkeys(found)])


def setting_of(member: dict[str, Any]) -> dict[str, Any]:
    """What a member's method has chosen: all but what the bench says of each run."""
    return {k: v for k, v in member.items() if k not in ("seed", "task", "seq_len")}


def text(setting: dict[str, Any]) -> str:
    """A setting for people; sizes are the bench's."""
    left_out = ("rule", "hidden_size", "batch_size")
    return ", ".join(f"{k} {v}" for k, v in setting.items() if k not in left_out)
