"""The copying problem: recall ten symbols after a delay.

Of Hochreiter and Schmidhuber (1997, Neural Computation 9, 1735-1780), in the form of
Arjovsky, Shah and Bengio (2016, ICML, arXiv:1511.06464). With the delay N = T - 20:
the first 10 inputs are symbols 0..7, each U{0..7}; then N - 1 blanks, 8; then 9, which
asks for the symbols; then 10 blanks. The answer is class 0, nothing, at the first
N + 10 steps, and class 1 + (symbol i) at the last ten. All T steps count. Who knows
when, but not what, has the cross entropy 10 log(8) / T.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lra_jax import losses, types
from lra_jax.tasks.task import Task

NUM_SYMBOLS, LENGTH = 8, 10
BLANK, RECALL = NUM_SYMBOLS, NUM_SYMBOLS + 1


def _draw(key: jax.Array, batch_size: int, seq_len: int) -> types.Batch:
    shape = (LENGTH, batch_size)
    values = jax.random.randint(key, shape, 0, NUM_SYMBOLS, jnp.int32)
    blanks = jnp.full((seq_len - LENGTH, batch_size), BLANK, jnp.int32)
    inputs = jnp.concatenate([values, blanks]).at[seq_len - LENGTH - 1].set(RECALL)
    labels = jnp.concatenate([jnp.zeros_like(blanks), 1 + values])
    return types.Batch(inputs=inputs, labels=labels)


copying = Task(
    draw=_draw,
    input_size=NUM_SYMBOLS + 2,
    output_size=NUM_SYMBOLS + 1,
    min_seq_len=2 * LENGTH + 1,
    chance=NUM_SYMBOLS**-LENGTH,
    output_loss=losses.cross_entropy_every_step,
)
