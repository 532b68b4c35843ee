"""Temporal order at T = 300 with a local rule: `python examples/long_sequences.py`.

Prints the errors of three seeds among 10,000 samples every 250 updates, until each has
had none. Takes about two minutes on two cores. docs/long_sequences.md says why the
rates are what they are.
"""

import jax
import jax.numpy as jnp
import optax

import lra_jax

SEQ_LEN, HIDDEN_SIZE, BATCH_SIZE, CHECK_EVERY = 300, 100, 20, 250
TASK = lra_jax.TASKS["temporal_order"]
RULE = lra_jax.lra_norm()
RATES = lra_jax.Params(w_xh=1, w_hh=0.003, b_h=1, w_hy=30, b_y=30)
OPTIMIZER = optax.chain(
    optax.adam(lambda n: 1e-3 / jnp.sqrt(1 + n / 500), b2=0.99),
    optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, RATES)),
    lra_jax.soft_orthogonality(0.02),
)


def init(seed):
    """A network of its own for each seed."""
    key, key_rule = jax.random.key(seed), jax.random.key(seed + 9000)
    params = lra_jax.init_params(key, TASK.input_size, HIDDEN_SIZE, TASK.output_size)
    return lra_jax.init_train_state(key_rule, params, RULE, OPTIMIZER)


@jax.jit
@jax.vmap
def advance(state, seed):
    """Some updates, and the errors after them."""

    def update(state, _):
        key = jax.random.fold_in(jax.random.key(seed + 1000), state.step)
        batch = TASK.sample(key, BATCH_SIZE, SEQ_LEN)
        return lra_jax.train_step(state, batch, rule=RULE, optimizer=OPTIMIZER)

    state, _ = jax.lax.scan(update, state, length=CHECK_EVERY)
    samples = TASK.sample(jax.random.key(seed + 5000), 10_000, SEQ_LEN)
    return state, lra_jax.evaluate(state.params, samples).num_errors


seeds = jnp.arange(3)
state = jax.vmap(init)(seeds)
was_solved = jnp.zeros(seeds.shape, bool)
while not was_solved.all() and state.step[0] < 10_000:
    state, errors = advance(state, seeds)
    was_solved |= errors == 0
    print(f"{state.step[0]} updates, errors of 10,000: {errors}", flush=True)
