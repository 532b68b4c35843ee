"""The tasks: one file per family, and the one table of them."""

from lra_jax.tasks.adding import adding
from lra_jax.tasks.arrays import Samples
from lra_jax.tasks.copying import copying
from lra_jax.tasks.decisions import context_integration, perceptual_decision
from lra_jax.tasks.dynamics import flip_flop, sine
from lra_jax.tasks.epochs import batches
from lra_jax.tasks.memory import (
    delayed_comparison,
    delayed_match,
    delayed_nonmatch,
    go_nogo,
    memory_pro_anti,
)
from lra_jax.tasks.random_permutation import random_permutation
from lra_jax.tasks.task import Task
from lra_jax.tasks.temporal_order import temporal_order, temporal_order_3bit
from lra_jax.tasks.timing import ready_set_go

TASKS: dict[str, Task] = {
    "adding": adding,
    "random_permutation": random_permutation,
    "temporal_order": temporal_order,
    "temporal_order_3bit": temporal_order_3bit,
    "copying": copying,
    "perceptual_decision": perceptual_decision,
    "context_integration": context_integration,
    "delayed_match": delayed_match,
    "delayed_nonmatch": delayed_nonmatch,
    "delayed_comparison": delayed_comparison,
    "go_nogo": go_nogo,
    "memory_pro_anti": memory_pro_anti,
    "ready_set_go": ready_set_go,
    "flip_flop": flip_flop,
    "sine": sine,
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
