"""Trains one network with `train_step` in a loop of one's own."""

import functools

import jax
import optax

import lra_jax

network = lra_jax.networks.tanh()
task = lra_jax.TASKS["temporal_order"]
rule = lra_jax.lra_diff(gamma=50.0, c0=1.0, c1=1.0, network=network)
optimizer = optax.sgd(0.1)
key_params, key_rule, key_data, key_samples = jax.random.split(jax.random.key(0), 4)
sizes = task.input_size, 100, task.output_size
params = lra_jax.init_params(key_params, *sizes, network=network)
state = lra_jax.init_train_state(key_rule, params, rule, optimizer)
step = jax.jit(functools.partial(lra_jax.train_step, rule=rule, optimizer=optimizer))
for i in range(500):
    batch = task.sample(jax.random.fold_in(key_data, i), 20, 30)
    state, info = step(state, batch)
samples = task.sample(key_samples, 10_000, 30)
metrics = lra_jax.evaluate(state.params, samples, network=network)
print(f"loss {info.loss:.4f}, {metrics.num_errors} errors of 10,000 at T = 30")
