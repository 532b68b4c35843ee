"""A user's program, for a type checker: `make wheel-test` checks it against the wheel.

The last two calls are wrong; were they not found, the checker would say that what
excuses them is unused.
"""

import jax
import optax  # type: ignore[import-untyped]

import lra_jax

task: lra_jax.Task = lra_jax.TASKS["temporal_order"]
rule: lra_jax.LearningRule = lra_jax.lra_diff(gamma=50.0, c1=1.0)
params: lra_jax.Params = lra_jax.init_params(jax.random.key(0), 6, 8, 4)
w_hh: jax.Array = params.w_hh
optimizer = optax.sgd(0.1)
state = lra_jax.init_train_state(jax.random.key(1), params, rule, optimizer)
batch: lra_jax.Batch = task.sample(jax.random.key(2), 20, 10)
state, info = lra_jax.train_step(state, batch, rule=rule, optimizer=optimizer)
loss: jax.Array = info.loss
norms: jax.Array | None = info.w_hh_grad_norm
found = lra_jax.run_sweep(
    lra_jax.Experiment(task, lambda hp: (rule, optax.sgd(hp["lr"])), seq_len=10),
    {"lr": [0.1]},
    [0],
    limits=lra_jax.Limits(max_steps=0),
    on_chunk=lambda state, weights: None,
)

lra_jax.lra_diff(gamma=1.0, local_loss="mae")  # type: ignore[arg-type]
lra_jax.train_step(state, batch)  # type: ignore[call-arg]
