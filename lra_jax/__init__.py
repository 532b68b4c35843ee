"""Recurrent networks trained without backpropagation through time, in JAX."""

from lra_jax.losses import LOCAL_LOSSES, cross_entropy, squared_error
from lra_jax.rnn import forward, init_params
from lra_jax.rules import (
    RULES,
    bptt,
    dfa,
    fa,
    lra_diff,
    lra_e,
    lra_fdbk,
    lra_norm,
    lra_released,
    readout_only,
    rec_lra,
    tpri,
    tptt,
)
from lra_jax.tasks import TASKS, Task
from lra_jax.train import evaluate, init_train_state, train_step
from lra_jax.types import (
    Batch,
    EmptyState,
    LearningRule,
    Metrics,
    OutputLoss,
    Params,
    RuleInfo,
    Trace,
    TrainState,
)

__version__ = "0.1.0"

__all__ = [
    "LOCAL_LOSSES",
    "RULES",
    "TASKS",
    "Batch",
    "EmptyState",
    "LearningRule",
    "Metrics",
    "OutputLoss",
    "Params",
    "RuleInfo",
    "Task",
    "Trace",
    "TrainState",
    "bptt",
    "cross_entropy",
    "dfa",
    "evaluate",
    "fa",
    "forward",
    "init_params",
    "init_train_state",
    "lra_diff",
    "lra_e",
    "lra_fdbk",
    "lra_norm",
    "lra_released",
    "readout_only",
    "rec_lra",
    "squared_error",
    "tpri",
    "tptt",
    "train_step",
]
