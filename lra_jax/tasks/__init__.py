"""The tasks: one file per family, and the one table of them."""

from lra_jax.tasks.adding import adding
from lra_jax.tasks.random_permutation import random_permutation
from lra_jax.tasks.task import Samples, Task
from lra_jax.tasks.temporal_order import temporal_order, temporal_order_3bit

TASKS: dict[str, Task] = {
    "adding": adding,
    "random_permutation": random_permutation,
    "temporal_order": temporal_order,
    "temporal_order_3bit": temporal_order_3bit,
}

__all__ = ["TASKS", "Samples", "Task"]
