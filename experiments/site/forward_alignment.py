"""How near rules that run forward in time come to the gradient.

`python -m experiments.forward_alignment [--out DIR]`. The task asks at every step for
the symbol of `DELAY` steps before. Each rule trains tanh, leaky rate units and a GRU
with Adam; of four learning rates the one with the lowest loss on two seeds is chosen,
and five others are counted. At regular intervals the rule's gradient of the cell is
compared with the exact one, of the same weights and batch: the cosine of the two as one
vector.

Writes `forward.csv` (every seed and interval), `forward.md` and `forward.png`, when all
is there. The rows of each rule and network are kept in runs/forward_alignment/ before,
and the command goes on where it stood.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich.console
from absl import flags
from jax.flatten_util import ravel_pytree

import lra_jax
from experiments.site import in_parts
from lra_jax import diagnostics, networks, rnn
from lra_jax.lab.reports import markdown, results
from lra_jax.lab.reports.statistics import mean_interval
from lra_jax.lab.terminal import command_line, machine

if TYPE_CHECKING:  # the extra `plot`
    from matplotlib.figure import Figure

_OUT = flags.DEFINE_string(
    "out", "results/forward", "Folder for the table and the figure.",
    allow_override=True,
)  # fmt: skip

DELAY, NUM_SYMBOLS, SEQ_LEN, HIDDEN_SIZE, BATCH_SIZE = 5, 4, 50, 32, 10
NUM_STEPS, NUM_LOOKS = 1600, 8
RATES = (0.03, 0.01, 0.003, 0.001)
TUNING_SEEDS, SEEDS = (100, 101), (0, 1, 2, 3, 4)
LOSS = lra_jax.cross_entropy_every_step

RULES: dict[str, dict[str, Any]] = {
    "bptt": {},
    "snap": {},
    "eprop": {},
    "rflo": {},
    "uoro": {},
    "readout_only": {},
}
NETWORKS = {
    "tanh": networks.tanh(),
    "leaky": networks.leaky(alpha=0.3),
    "gru": networks.gru(),
}


def draw(key: jax.Array) -> lra_jax.Batch:
    """Symbols, and at each step the one of `DELAY` steps before."""
    shape = (SEQ_LEN, BATCH_SIZE)
    symbols = jax.random.randint(key, shape, 0, NUM_SYMBOLS)
    nothing = jnp.full((DELAY, BATCH_SIZE), -1, symbols.dtype)
    return lra_jax.Batch(symbols, jnp.concatenate([nothing, symbols[:-DELAY]]))


def curves(
    rule: str, network: networks.Network, rate: jax.Array, seed: jax.Array
) -> dict[str, jax.Array]:
    """The loss and the cosine of one run at all looks, `[NUM_LOOKS + 1]` each."""
    made, exact = (
        lra_jax.RULES[name](output_loss=LOSS, network=network, **RULES[name])
        for name in (rule, "bptt")
    )
    optimizer = optax.adam(rate)
    keys = jax.random.split(jax.random.key(seed), 4)
    params = lra_jax.init_params(
        keys[0], NUM_SYMBOLS, HIDDEN_SIZE, NUM_SYMBOLS, network=network
    )
    state = lra_jax.init_train_state(keys[1], params, made, optimizer)

    def look(state: lra_jax.TrainState) -> dict[str, jax.Array]:
        batch = draw(jax.random.fold_in(keys[2], state.step))
        found, _, info = made.grads(keys[3], state.params, state.rule_state, batch)
        empty = lra_jax.EmptyState()
        best, _, _ = exact.grads(keys[3], state.params, empty, batch)
        a, b = (ravel_pytree(rnn.cell_of(each))[0] for each in (found, best))
        # 0 where there is no gradient.
        cosine = jnp.nan_to_num(diagnostics.cosine(a, b))
        return {"loss": info.loss, "cosine": cosine}

    return in_parts.follow(
        state,
        lambda step: draw(jax.random.fold_in(keys[3], step)),
        look,
        rule=made,
        optimizer=optimizer,
        num_intervals=NUM_LOOKS,
        every=NUM_STEPS // NUM_LOOKS,
    )


def record(rule: str, network: str) -> list[results.Row]:
    """The rows of a rule on a network: every counted seed at every look."""
    run = jax.jit(jax.vmap(functools.partial(curves, rule, NETWORKS[network]), (0, 0)))
    pairs = [(rate, seed) for rate in RATES for seed in TUNING_SEEDS]
    rates, seeds = (np.array(column) for column in zip(*pairs, strict=True))
    losses = np.asarray(run(rates, seeds)["loss"])[:, -1].reshape(len(RATES), -1)
    losses = np.where(np.isfinite(losses), losses, np.inf).mean(axis=1)
    rate = RATES[int(np.argmin(losses))]
    seen = run(np.full(len(SEEDS), rate), np.array(SEEDS))
    every = NUM_STEPS // NUM_LOOKS
    return [
        {
            "network": network,
            "rule": rule,
            "lr": rate,
            "seed": seed,
            "updates": every * i,
            "loss": float(seen["loss"][k, i]),
            "cosine": float(seen["cosine"][k, i]),
        }
        for k, seed in enumerate(SEEDS)
        for i in range(NUM_LOOKS + 1)
    ]


def table(rows: Sequence[results.Row]) -> str:
    """The loss at the end, and cosines at the start, in the middle and at the end."""
    looks = (0, NUM_STEPS // 2, NUM_STEPS)
    body = []
    for network in NETWORKS:
        for rule in RULES:
            mine = [r for r in rows if (r["network"], r["rule"]) == (network, rule)]
            if not mine:
                continue

            def at(column: str, step: int, mine: Sequence[results.Row] = mine) -> str:
                values = [r[column] for r in mine if r["updates"] == step]
                mean, half = mean_interval(values)
                return f"{mean:z.2f} ± {half or 0:.2f}"

            cosines = (
                ["–"] * 3
                if rule == "readout_only"
                else [at("cosine", step) for step in looks]
            )
            rate = f"{mine[0]['lr']:g}"
            body.append([network, rule, rate, at("loss", NUM_STEPS), *cosines])
    header = ["network", "rule", "lr", "loss at the end", "cosine before", "middle"]
    text = (
        f"Say the symbol of {DELAY} steps before, of {NUM_SYMBOLS}, at each of "
        f"{SEQ_LEN} steps: a guess has a loss of {np.log(NUM_SYMBOLS):.2f}. "
        f"H = {HIDDEN_SIZE}, batches of {BATCH_SIZE}, Adam, {NUM_STEPS:,} updates, "
        f"{len(SEEDS)} seeds that were not tuned on; the best of {len(RATES)} learning "
        f"rates on {len(TUNING_SEEDS)} others. ± is the 95 % interval.",
        "Cosine: of the cell's gradient and the exact one, of the same weights and "
        "batch, on the way of the rule's own training.",
    )
    return markdown.table([*header, "end"], body) + "\n" + markdown.notes(text)


def draw_figure(rows: Sequence[results.Row]) -> Figure:
    """Losses and cosines over training, a column for each network."""
    from matplotlib.figure import Figure

    shown = [n for n in NETWORKS if any(r["network"] == n for r in rows)]
    figure = Figure(figsize=(3 * len(shown) + 2, 5), layout="constrained")
    axes = figure.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False)
    for column, network in zip(axes.T, shown, strict=True):
        column[0].set_title(network)
        column[1].set_xlabel("updates")
        for axis, name in zip(column, ("loss", "cosine"), strict=True):
            for rule in RULES:
                if name == "cosine" and rule == "readout_only":
                    continue
                mine = [r for r in rows if (r["network"], r["rule"]) == (network, rule)]
                steps = sorted({r["updates"] for r in mine})
                means = [
                    np.mean([r[name] for r in mine if r["updates"] == s]) for s in steps
                ]
                axis.plot(steps, means, label=rule, marker=".")
            axis.set_ylabel(f"{name} to the gradient" if name == "cosine" else name)
            axis.label_outer()
    axes[1, 0].set_ylim(-0.1, 1.05)
    lines = axes[0, 0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside right upper", frameon=False)
    return figure


def _run(console: rich.console.Console) -> int:
    makers = {
        f"{network} by {rule}": functools.partial(record, rule, network)
        for network in NETWORKS
        for rule in RULES
    }
    stem = pathlib.Path(_OUT.value) / "forward"
    return in_parts.make(console, __name__, makers, stem, draw_figure, table)


parse = command_line.parser(__name__)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    errors = (machine.MachineError, OSError)
    return command_line.exit_code(_run, errors, command_line.program(__name__))
