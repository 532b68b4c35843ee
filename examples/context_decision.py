"""Decisions that depend on context: `python examples/context_decision.py`.

A trial shows two noisy streams, motion and colour, and names the one that counts. The
answer is its sign (after Mante et al. 2013). A rate network with Dale's law and noise
learns it by four rules. Prints their accuracies and draws psychometric curves. Takes
about two minutes on two cores. docs/neuroscience.md has the results.
"""

import argparse
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import lra_jax

SEQ_LEN, HIDDEN_SIZE, BATCH_SIZE, NUM_TRIALS = 30, 64, 64, 4_000
COHERENCES, EVIDENCE_NOISE = jnp.array([0.05, 0.1, 0.2, 0.4]), 0.5
NETWORK = lra_jax.networks.leaky(alpha=0.2, nonlinearity="retanh", noise=0.05, dale=0.8)
OPTIMIZER = optax.adam(3e-3)
RULES = {
    "bptt": lra_jax.bptt(network=NETWORK),
    "lra_norm": lra_jax.lra_norm(network=NETWORK),
    "dfa": lra_jax.dfa(network=NETWORK),
    "readout_only": lra_jax.readout_only(network=NETWORK),
}
STYLES = {  # Okabe and Ito's colours
    "bptt": ("#000000", "o"),
    "lra_norm": ("#0072B2", "s"),
    "dfa": ("#D55E00", "^"),
    "readout_only": ("#999999", "v"),
}


class Trials(NamedTuple):
    """Some trials, and what is behind them."""

    inputs: jax.Array  # [T, B, 4]: motion, colour, and which of them counts
    coherence: jax.Array  # [B, 2]: the means of motion and colour
    context: jax.Array  # int [B]: 0 where motion counts, 1 where colour does


def draw_trials(key, batch_size, seq_len):
    """Independent trials."""
    key_context, key_size, key_sign, key_noise = jax.random.split(key, 4)
    context = jax.random.randint(key_context, (batch_size,), 0, 2)
    size = jax.random.choice(key_size, COHERENCES, (batch_size, 2))
    coherence = size * jax.random.rademacher(key_sign, size.shape, size.dtype)
    noise = jax.random.normal(key_noise, (seq_len, batch_size, 2))
    evidence = coherence[None] + EVIDENCE_NOISE * noise
    cue = jnp.broadcast_to(jax.nn.one_hot(context, 2)[None], evidence.shape)
    return Trials(jnp.concatenate([evidence, cue], axis=-1), coherence, context)


def by_relevance(trials):
    """The coherence of the stream that counts, and of the other, each `[B]`."""
    motion, colour = trials.coherence.T
    first = trials.context == 0
    return jnp.where(first, motion, colour), jnp.where(first, colour, motion)


def draw_batch(key, batch_size, seq_len):
    """Trials with their answers: 1, "right", where what counts is above 0."""
    trials = draw_trials(key, batch_size, seq_len)
    relevant, _ = by_relevance(trials)
    return lra_jax.Batch(trials.inputs, labels=(relevant > 0).astype(jnp.int32))


TASK = lra_jax.Task(draw_batch, input_size=4, output_size=2, min_seq_len=1, chance=0.5)


def train(rule, seed, num_updates):
    """Weights after some updates on batches of their own."""
    key_params, key_state, key_data = jax.random.split(jax.random.key(seed), 3)
    sizes = (TASK.input_size, HIDDEN_SIZE, TASK.output_size)
    params = lra_jax.init_params(key_params, *sizes, network=NETWORK)
    state = lra_jax.init_train_state(key_state, params, rule, OPTIMIZER)

    def update(state, _):
        key = jax.random.fold_in(key_data, state.step)
        batch = TASK.sample(key, BATCH_SIZE, SEQ_LEN)
        return lra_jax.train_step(state, batch, rule=rule, optimizer=OPTIMIZER)

    return jax.lax.scan(update, state, length=num_updates)[0].params


class Choices(NamedTuple):
    """What a trained network answers; N trials."""

    relevant: jax.Array  # [N]: the coherence of the stream that counts
    other: jax.Array  # [N]
    is_right: jax.Array  # bool [N]: whether the answer is "right"
    activity: jax.Array  # [T, H]: z in the first trial


def run(rule, seeds, num_updates):
    """The choices of a network for each seed, trained by a rule; [S, ...]."""

    @jax.vmap
    def of_seed(seed):
        params = train(rule, seed, num_updates)
        key_trials, key_noise = jax.random.split(jax.random.key(seed + 5000))
        trials = draw_trials(key_trials, NUM_TRIALS, SEQ_LEN)
        trace = lra_jax.forward(params, trials.inputs, network=NETWORK, key=key_noise)
        is_right = trace.logits.argmax(axis=-1) == 1
        return Choices(*by_relevance(trials), is_right, trace.z[:, 0])

    return jax.tree.map(np.asarray, jax.jit(of_seed)(seeds))


def percent_correct(choices):
    """Of each seed."""
    return 100 * (choices.is_right == (choices.relevant > 0)).mean(axis=-1)


def psychometric(coherence, is_right):
    """Signed coherences, and the fraction of answers "right" at each."""
    values = np.unique(coherence)
    return values, [is_right[coherence == value].mean() for value in values]


def draw(found, file):
    """Psychometric curves of all seeds of each rule, and one trial of `lra_norm`."""
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    by_relevant, by_other, in_time = figure.subplots(1, 3)
    limits = (-0.03, 1.03)
    for name, choices in found.items():
        color, marker = STYLES[name]
        style = {"color": color, "marker": marker, "ms": 4, "label": name}
        is_right = choices.is_right
        by_relevant.plot(*psychometric(choices.relevant, is_right), **style)
        by_other.plot(*psychometric(choices.other, is_right), **style)
    by_relevant.set(xlabel="coherence of the stream that counts", ylim=limits)
    by_relevant.set_ylabel('fraction of answers "right"')
    by_other.legend(frameon=False, loc="upper left")
    by_other.set(xlabel="coherence of the other stream", ylim=limits)

    shown = found["lra_norm"]
    activity = shown.activity[0]
    excites = NETWORK.signs(HIDDEN_SIZE) > 0
    for kind, units, color in (
        ("excite", activity[:, excites], "#0072B2"),
        ("inhibit", activity[:, ~excites], "#D55E00"),
    ):
        most_active = units[:, np.argsort(-units.mean(axis=0))[:5]]
        in_time.plot(most_active, color=color, lw=1, label=[kind, *[None] * 4])
    in_time.set(xlabel="step of one trial", ylabel="z of ten units", ylim=(0, 1))
    in_time.legend(frameon=False, loc="upper left")
    coherences = shown.relevant[0, 0], shown.other[0, 0]
    title = "lra_norm: {:+g} counts, {:+g} does not".format(*coherences)
    in_time.set_title(title, fontsize=9)
    for axes in (by_relevant, by_other, in_time):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=100)


def at_least_1(text):
    """An integer from the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer ≥ 1, got {text!r}")
    return int(text)


def picture(text):
    """A file from the command line, before it is there."""
    path = pathlib.Path(text)
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"expected a .png, .pdf or .svg, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no folder {str(path.parent)!r}")
    return path


def main(arguments=None):
    """Trains, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument(
        "--out", type=picture, default="context_decision.png", metavar="FILE"
    )
    parser.add_argument("--updates", type=at_least_1, default=500, metavar="N")
    parser.add_argument("--seeds", type=at_least_1, default=5, metavar="N")
    given = parser.parse_args(arguments)
    seeds, found = jnp.arange(10, 10 + given.seeds), {}
    for name, rule in RULES.items():
        found[name] = run(rule, seeds, given.updates)
        correct = percent_correct(found[name])
        each = " ".join(f"{x:.1f}" for x in correct)
        print(f"{name:<12}  {correct.mean():.1f} % correct; seeds {each}", flush=True)
    draw(found, given.out)


if __name__ == "__main__":
    main()
