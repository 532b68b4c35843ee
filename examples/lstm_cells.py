"""Why lra_diff fails on an LSTM: its local loss does not see the cells.

    python examples/lstm_cells.py    # a minute on two cores

The local loss of LRA compares what a network emits with a target. An LSTM emits h and
keeps its memory in c: what a target says of c is dropped at every step. Here c is
hidden, as usual, or emitted as well, by a network made of the same step.
"""

import argparse

import jax
import jax.numpy as jnp
import optax

import lra_jax
from lra_jax import networks

TASK, SEQ_LEN, EVERY = lra_jax.TASKS["temporal_order"], 30, 50
LSTM = networks.lstm()
# D = H = 100: 50 cells and 50 outputs, of which the readout sees all.
SHOWN = networks.from_step(
    init=lambda key, inputs, hidden: LSTM.init(key, inputs, hidden // 2),
    step=lambda weights, s, x: LSTM.step(weights, s, x),
)


def errors(network, hidden_size, seeds, updates):
    """Errors of 1,000 samples after every 50 updates, `[seeds, updates / 50]`."""
    rule = lra_jax.lra_diff(gamma=hidden_size / 2, c0=1.0, c1=1.0, network=network)
    optimizer = optax.adam(1e-3)

    def run(seed):
        keys = jax.random.split(jax.random.key(seed), 4)
        sizes = TASK.input_size, hidden_size, TASK.output_size
        params = lra_jax.init_params(keys[0], *sizes, network=network)
        state = lra_jax.init_train_state(keys[1], params, rule, optimizer)
        samples = TASK.sample(keys[2], 1000, SEQ_LEN)

        def update(state, step):
            batch = TASK.sample(jax.random.fold_in(keys[3], step), 20, SEQ_LEN)
            return lra_jax.train_step(state, batch, rule=rule, optimizer=optimizer)[
                0
            ], None

        def chunk(state, index):
            steps = EVERY * index + jnp.arange(EVERY)
            state, _ = jax.lax.scan(update, state, steps)
            found = lra_jax.evaluate(state.params, samples, network=network)
            return state, found.num_errors

        return jax.lax.scan(chunk, state, jnp.arange(updates // EVERY))[1]

    return jax.jit(jax.vmap(run))(jnp.arange(seeds))


def main():
    """Prints the fewest errors of each seed, with c hidden and with c shown."""
    parser = argparse.ArgumentParser(description="lra_diff on an LSTM.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=500)
    chosen = parser.parse_args()
    for name, network, hidden_size in (("hidden", LSTM, 50), ("shown", SHOWN, 100)):
        found = errors(network, hidden_size, chosen.seeds, chosen.updates)
        print(
            f"c {name}: fewest errors of 1,000 {found.min(axis=1).tolist()}", flush=True
        )


if __name__ == "__main__":
    main()
