"""How feedback weights come near the forward ones over training.

`python -m experiments.feedback_error [--out DIR]`. `lra_norm` learns temporal order
with each kind of feedback, by the setting of configs/reach/no_transport.toml. At
regular intervals ‖A - W_hhᵀ‖ / ‖W_hh‖ and the cosine of both are read off the rule's
state, and so of E_y; the accuracy is that on new samples.

Writes `feedback.csv` (every seed and interval) and `feedback.png`, when all is there.
The rows of each kind of feedback are kept in runs/feedback_error/ before, and the
command goes on where it stood.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax
import rich.console
from absl import flags

import lra_jax
from experiments.site import in_parts
from lra_jax import diagnostics
from lra_jax.lab.config.optimizers import adam
from lra_jax.lab.reports import results
from lra_jax.lab.terminal import command_line, machine

if TYPE_CHECKING:  # the extra `plot`
    from matplotlib.figure import Figure

_OUT = flags.DEFINE_string(
    "out", "results/reach/no_transport", "Folder for the numbers and the figure.",
    allow_override=True,
)  # fmt: skip

TASK, SEQ_LEN, HIDDEN_SIZE, BATCH_SIZE = "temporal_order", 100, 100, 20
NUM_STEPS, EVERY, NUM_SAMPLES, SEEDS = 1000, 25, 1000, (0, 1, 2)
DECAY = 1e-3
FEEDBACK: dict[str, Any] = {
    "mirror": lra_jax.Feedback("mirror", "mirror", mirror_samples=2000),
    "mirror, 500 updates": lra_jax.Feedback(
        "mirror", "mirror", mirror_samples=2000, mirror_updates=500
    ),
    "Kolen-Pollack": lra_jax.Feedback(
        "kolen_pollack", "kolen_pollack", weight_decay=DECAY
    ),
    "random": lra_jax.Feedback("random", "random"),
}


def optimizer_of(name: str) -> optax.GradientTransformation:
    """That of configs/reach/no_transport.toml."""
    return adam(
        lr=1e-3, b2=0.99, decay_steps=500, w_hh_rate=0.003, readout_rate=30,
        orthogonality=0.02, weight_decay=DECAY if name == "Kolen-Pollack" else 0.0,
    )  # fmt: skip


def curves(name: str, seed: jax.Array) -> dict[str, jax.Array]:
    """All that is shown of one run, an array `[NUM_STEPS / EVERY + 1]` each."""
    rule, optimizer = lra_jax.lra_norm(feedback=FEEDBACK[name]), optimizer_of(name)
    task = lra_jax.TASKS[TASK]
    keys = jax.random.split(jax.random.key(seed), 4)
    params = lra_jax.init_params(
        keys[0], task.input_size, HIDDEN_SIZE, task.output_size, input_gain=0.1
    )
    state = lra_jax.init_train_state(keys[1], params, rule, optimizer)

    def look(state: lra_jax.TrainState) -> dict[str, jax.Array]:
        (of_a,), of_e_y = diagnostics.feedback_errors(state.rule_state, state.params)
        assert of_e_y is not None
        samples = task.sample(keys[2], NUM_SAMPLES, SEQ_LEN)
        wrong = lra_jax.evaluate(state.params, samples).num_errors
        return {
            "accuracy": 1 - wrong / NUM_SAMPLES,
            "error of A": of_a.relative,
            "cosine of A": of_a.cosine,
            "error of E_y": of_e_y.relative,
            "cosine of E_y": of_e_y.cosine,
        }

    def sample(step: jax.Array) -> lra_jax.Batch:
        return task.sample(jax.random.fold_in(keys[3], step), BATCH_SIZE, SEQ_LEN)

    return in_parts.follow(
        state,
        sample,
        look,
        rule=rule,
        optimizer=optimizer,
        num_intervals=NUM_STEPS // EVERY,
        every=EVERY,
    )


def record(name: str) -> list[results.Row]:
    """The rows of a kind of feedback: every seed at every look."""
    found = jax.jit(jax.vmap(functools.partial(curves, name)))(np.array(SEEDS))
    return [
        {
            "feedback": name,
            "seed": seed,
            "updates": EVERY * i,
            **{what: float(values[k, i]) for what, values in found.items()},
        }
        for k, seed in enumerate(SEEDS)
        for i in range(NUM_STEPS // EVERY + 1)
    ]


def draw_figure(rows: Sequence[results.Row]) -> Figure:
    """Errors of A and E_y, and the accuracy, over training."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["feedback"] for row in rows))
    panels = {
        "error of A": "‖A - W_hhᵀ‖ / ‖W_hh‖",
        "error of E_y": "‖E_y - W_hyᵀ‖ / ‖W_hy‖",
        "accuracy": "accuracy",
    }
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (column, label) in zip(axes, panels.items(), strict=True):
        for index, name in enumerate(names):
            mine = [row for row in rows if row["feedback"] == name]
            for seed in sorted({row["seed"] for row in mine}):
                of_seed = [row for row in mine if row["seed"] == seed]
                axis.plot(
                    [row["updates"] for row in of_seed],
                    [row[column] for row in of_seed],
                    color=f"C{index}",
                    linewidth=1,
                    label=name if seed == mine[0]["seed"] else None,
                )
        axis.set_title(label)
        axis.set_xlabel("updates")
        if column != "accuracy":
            axis.set_yscale("log")
    axes[0].legend(fontsize="small")
    return figure


def _run(console: rich.console.Console) -> int:
    makers = {
        f"with feedback: {name}": functools.partial(record, name) for name in FEEDBACK
    }
    stem = pathlib.Path(_OUT.value) / "feedback"
    return in_parts.make(console, __name__, makers, stem, draw_figure)


parse = command_line.parser(__name__)


def main(argv: Sequence[str]) -> int:
    """Runs the command; errors of the user's are one message and exit code 2."""
    del argv
    errors = (machine.MachineError, OSError)
    return command_line.exit_code(_run, errors, command_line.program(__name__))
