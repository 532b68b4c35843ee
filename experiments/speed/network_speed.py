"""What networks cost: `python -m experiments.network_speed --out results/networks`.

For each network, and an update by bptt, lra_diff and lra_norm: member-steps per second
of the engine and of `jit(vmap(train_step))`, the seconds of a compilation, and the
memory of an update over T. All are timed in turn, round after round, beside tanh and
beside two controls: tanh without its closed forms, and a GRU with hand-written ones.
The ceiling of a row is the time of the products and functions that it cannot avoid, at
the best rates that this machine reached in the same run (`experiments.benchmark`).
tanh is timed at longer T, too.

Writes `speed.json` and the table `speed.md` when all is measured; what there is before
is in `speed.part.json`. Exit codes: 0 done, 2 bad input, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.console
from absl import flags

import lra_jax
from experiments.speed import timings, variants
from experiments.speed.ceiling import Ceiling, product_timings, tanh_timings
from experiments.speed.workload import Operations, Settings
from lra_jax import member, networks, sweep, types
from lra_jax.lab.reports import markdown
from lra_jax.lab.terminal import command_line, files, machine
from lra_jax.networks.gates import GRU, GRUCell
from lra_jax.networks.layer import project
from lra_jax.networks.network import Place
from lra_jax.numerics import matmul

_OUT = flags.DEFINE_string(
    "out", None, "Folder for speed.json and speed.md; none by default.",
    allow_override=True,
)  # fmt: skip
_REPEATS = flags.DEFINE_integer("repeats", 5, "Rounds.", 1, allow_override=True)
_SECONDS = flags.DEFINE_float("seconds", 0.5, "Of a timing.", 0, allow_override=True)

TASK, SEQ_LEN, HIDDEN_SIZE, BATCH_SIZE, MEMBERS = "temporal_order", 20, 100, 20, 16
LONGER = (100, 300)  # T, of tanh
EVAL_EVERY = 20
MEMORY_SEQ_LEN = (100, 1000)
RULES: dict[str, dict[str, Any]] = {
    "bptt": {},
    "lra_diff": {"gamma": HIDDEN_SIZE / 2, "c0": 1.0, "c1": 1.0},
    "lra_norm": {},
}


class Parts(NamedTuple):
    """What a step of a network cannot avoid.

    Attributes:
      recurrent: products of [B, H] and [H, H] with states of the step before.
      upward: the same with states of the same step.
      functions: evaluations of tanh or a sigmoid, for each unit.
    """

    recurrent: int = 1
    upward: int = 0
    functions: int = 1


def operations(parts: Parts, seq_len: int) -> Operations:
    """Of an update: each product has one for its error and one for its weights.

    Products of the input and the readout, of symbols and few classes, are left out,
    and what LRA evaluates at targets: the ceiling is a bit too high.
    """
    products = parts.recurrent * (seq_len - 1) + parts.upward * seq_len
    unit = BATCH_SIZE * HIDDEN_SIZE
    return Operations(
        multiply_adds=3 * products * unit * HIDDEN_SIZE,
        tanh=parts.functions * seq_len * unit,
        bytes=0,
    )


@dataclasses.dataclass(frozen=True)
class WrittenGRU(GRU):
    """A GRU whose `pull` and `weigh` are written by hand: what derived ones cost."""

    def _errors(
        self, p: GRUCell, s: jax.Array, drive: jax.Array, q: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Errors at what inputs add, at what states add `[B, 3H]`, and past both."""
        r_in, u_in, n_in = jnp.split(drive, 3, axis=-1)
        r_back, u_back, n_back = jnp.split(matmul(s, p.w_hh), 3, axis=-1)
        r, u = jax.nn.sigmoid(r_in + r_back), jax.nn.sigmoid(u_in + u_back)
        m = n_back + p.b_n[None]
        n = jnp.tanh(n_in + r * m)
        at_n = q * (1 - u) * (1 - n**2)
        at_u = q * (s - n) * u * (1 - u)
        at_r = at_n * m * r * (1 - r)
        inputs = jnp.concatenate([at_r, at_u, at_n], axis=-1)
        states = jnp.concatenate([at_r, at_u, at_n * r], axis=-1)
        return inputs, states, q * u

    def weigh_all(self, p: GRUCell, place: Place, q: jax.Array) -> GRUCell:
        s_prev, x, q = (
            each.reshape(-1, *each.shape[2:]) for each in (place.s_prev, place.x, q)
        )
        return self.weigh(p, s_prev, x, q)

    def pull(
        self,
        p: GRUCell,
        s_prev: jax.Array,
        x: jax.Array,
        q: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        drive: Any = None,
        key: jax.Array | None = None,
    ) -> jax.Array:
        drive = self.drive_one(p, x) if drive is None else drive
        _, states, own = self._errors(p, s_prev, drive, q)
        return own + matmul(states, p.w_hh.T)

    def weigh(
        self,
        p: GRUCell,
        s_prev: jax.Array,
        x: jax.Array,
        q: jax.Array,
        *,
        z_prev: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> GRUCell:
        inputs, states, _ = self._errors(p, s_prev, self.drive_one(p, x), q)
        w_xh = jax.linear_transpose(lambda w: project(w, x), p.w_xh)(inputs)[0]
        size = p.b_n.shape[0]
        return GRUCell(
            w_xh,
            matmul(s_prev.T, states),
            jnp.sum(inputs, axis=0),
            jnp.sum(states[:, 2 * size :], axis=0),
        )


def derived_tanh() -> networks.Network:
    """The paper's network from two functions, without its closed forms."""

    def step(p: Any, s: jax.Array, x: jax.Array) -> jax.Array:
        return matmul(jnp.tanh(s), p.w_hh) + matmul(x, p.w_xh) + p.b_h[None]

    return networks.from_step(
        init=networks.tanh().init, step=step, emit=lambda p, s: jnp.tanh(s)
    )


NETWORKS: dict[str, networks.Network] = {
    "tanh": networks.tanh(),
    "tanh, derived": derived_tanh(),
    "relu": networks.relu(),
    "leaky": networks.leaky(),
    "leaky, noise and Dale's law": networks.leaky(noise=0.1, dale=0.8),
    "gru": networks.gru(),
    "gru, written by hand": WrittenGRU(),
    "lstm": networks.lstm(),
    "two layers of tanh": networks.stack(networks.tanh(), networks.tanh()),
}
PARTS = {
    "relu": Parts(functions=0),
    "gru": Parts(recurrent=3, functions=3),
    "gru, written by hand": Parts(recurrent=3, functions=3),
    "lstm": Parts(recurrent=4, functions=5),
    "two layers of tanh": Parts(recurrent=2, upward=1, functions=2),
}


def make_experiment(rule: str, network: networks.Network, seq_len: int) -> Any:
    """One member's program, for some T."""

    def build(numbers: Any) -> Any:
        factory = lra_jax.RULES[rule]
        return factory(**RULES[rule], network=network), optax.sgd(numbers["lr"])

    return sweep.Experiment(
        lra_jax.TASKS[TASK],
        build,
        seq_len=seq_len,
        hidden_size=HIDDEN_SIZE,
        batch_size=BATCH_SIZE,
        eval_every=EVAL_EVERY,
        num_validation=200,
        network=network,
    )


def _states(rule: str, network: networks.Network, seq_len: int) -> Any:
    """An update, `MEMBERS` states of it and as many batches."""
    experiment = make_experiment(rule, network, seq_len)
    numbers: Any = {"lr": 0.01}
    built, optimizer = experiment.build(numbers)

    def start(seed: jax.Array) -> tuple[types.TrainState, types.Batch]:
        state = member.first_state(experiment, numbers, seed)
        return state, member.draw_batch(experiment, seed, state.step)

    update = functools.partial(lra_jax.train_step, rule=built, optimizer=optimizer)
    return update, *jax.jit(jax.vmap(start))(jnp.arange(MEMBERS))


def _mapped(rule: str, name: str, seq_len: int) -> timings.Timing:
    update, states, batches = _states(rule, NETWORKS[name], seq_len)
    step, seconds = timings.compile_jitted(
        jax.jit(jax.vmap(lambda state, batch: update(state, batch)[0])), states, batches
    )

    def run(calls: int) -> None:
        now = states
        for _ in range(calls):
            now = step(now, batches)
        jax.block_until_ready(now)

    return timings.Timing(name, run, MEMBERS, seconds)


def _engine(rule: str, name: str, seq_len: int) -> timings.Timing:
    experiment = make_experiment(rule, NETWORKS[name], seq_len)
    lr = np.full(MEMBERS, 0.01, np.float32)
    grid = sweep.make_grid(experiment, {"lr": lr}, np.arange(MEMBERS))
    return variants.Chunks().engine(name, experiment, grid)


@functools.cache
def bytes_per_step(rule: str, name: str) -> float:
    """Memory that an update of one member needs for each step of T."""

    def memory(seq_len: int) -> int:
        update, states, batches = _states(rule, NETWORKS[name], seq_len)
        one = jax.tree.map(lambda x: x[0], (states, batches))
        analysis = jax.jit(update).lower(*one).compile().memory_analysis()
        assert analysis is not None
        return int(analysis.temp_size_in_bytes)

    short, long = MEMORY_SEQ_LEN
    return (memory(long) - memory(short)) / (long - short)


def measure(rule: str) -> list[dict[str, Any]]:
    """A row for each network and T, timed in turn."""
    cases = [(name, SEQ_LEN) for name in NETWORKS]
    cases += [(name, seq_len) for name in ("tanh",) for seq_len in LONGER]
    engine = [_engine(rule, *case) for case in cases]
    mapped = [_mapped(rule, *case) for case in cases]
    settings = Settings(members=MEMBERS, hidden_size=HIDDEN_SIZE, batch_size=BATCH_SIZE)
    products, tanh = product_timings(settings), tanh_timings(settings)
    timings.measure(
        [*engine, *mapped, *products, *tanh],
        _REPEATS.value,
        _SECONDS.value,
        lambda text: print(f"{rule}: {text}", file=sys.stderr),
    )
    ceiling = Ceiling(timings.best_rate(products), timings.best_rate(tanh))
    return [
        {
            "rule": rule,
            "network": name,
            "seq_len": seq_len,
            "engine": by_engine.rate,
            "vmap": by_vmap.rate,
            "ceiling": ceiling.rate(operations(PARTS.get(name, Parts()), seq_len)),
            "compile_seconds": by_vmap.compile_seconds,
            "bytes_per_step": bytes_per_step(rule, name),
        }
        for (name, seq_len), by_engine, by_vmap in zip(
            cases, engine, mapped, strict=True
        )
    ]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """In Markdown; times are those of tanh in the same rule, at the first T."""
    of_tanh: dict[str, float] = {}
    for row in rows:
        if row["network"] == "tanh":
            of_tanh.setdefault(row["rule"], row["engine"])
    return markdown.table(
        ["rule", "network", "T", "engine, member-steps/s", "jit(vmap)",
         "of the ceiling", "time of tanh's", "compilation, s", "memory, kB a step"],
        [
            [
                row["rule"], row["network"], str(row["seq_len"]),
                f"{row['engine']:,.0f}", f"{row['vmap']:,.0f}",
                f"{row['engine'] / row['ceiling']:.2f}",
                f"{of_tanh[row['rule']] / row['engine']:.2f}",
                f"{row['compile_seconds']:.1f}", f"{row['bytes_per_step'] / 1e3:.0f}",
            ]
            for row in rows
        ],
    )  # fmt: skip


def _write(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    document = {"machine": machine.describe(), "rows": rows}
    files.write_text(path, json.dumps(document, indent=1) + "\n")


def _run(console: rich.console.Console) -> int:
    """Measures, writes both files and prints the table, also of a part."""
    del console
    machine.prepare()
    folder = pathlib.Path(str(_OUT.value or ""))
    part = folder / "speed.part.json"
    rows: list[dict[str, Any]] = []
    if _OUT.value is not None:  # before all that is measured, not after
        folder.mkdir(parents=True, exist_ok=True)
    try:
        for rule in RULES:
            rows += measure(rule)
            if _OUT.value is not None:
                _write(part, rows)
        if _OUT.value is not None:
            _write(folder / "speed.json", rows)
            files.write_text(folder / "speed.md", table(rows))
            part.unlink()
    except KeyboardInterrupt:
        done = len({row["rule"] for row in rows})
        where = f"; {part} has them" if done and _OUT.value is not None else ""
        print(
            f"{command_line.program(__name__)}: interrupted after {done} of "
            f"{len(RULES)} rules{where}",
            file=sys.stderr,
        )
        return 130
    finally:
        print(table(rows) if rows else "", end="")
    return 0


def _check() -> None:
    timings.check_seconds(_SECONDS.value)


parse = command_line.parser(__name__, _check)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    errors = (machine.MachineError, OSError)
    return command_line.exit_code(_run, errors, command_line.program(__name__))
