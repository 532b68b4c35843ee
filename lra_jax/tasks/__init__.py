"""The tasks: one file per family, and the one table of them."""

from lra_jax.tasks.adding import adding
from lra_jax.tasks.arrays import Samples
from lra_jax.tasks.epochs import batches
from lra_jax.tasks.random_permutation import random_permutation
from lra_jax.tasks.task import Task
from lra_jax.tasks.temporal_order import temporal_order, temporal_order_3bit

TASKS: dict[str, Task] = {
    "adding": adding,
    "random_permutation": random_permutation,
    "temporal_order": temporal_order,
    "temporal_order_3bit": temporal_order_3bit,
}
"""The tasks whose data are drawn, by name.

Example:
  >>> task = lra_jax.TASKS["temporal_order"]
  >>> task.input_size, task.output_size, task.min_seq_len
  (6, 4, 10)
  >>> batch = task.sample(jax.random.key(0), batch_size=2, seq_len=10)
  >>> batch.inputs.shape, batch.labels.shape
  ((10, 2), (2,))
"""

__all__ = ["TASKS", "Samples", "Task", "batches"]
