"""Recurrent networks trained without backpropagation through time, in JAX."""

from lra_jax import diagnostics as diagnostics
from lra_jax import networks as networks
from lra_jax.experiment import Experiment
from lra_jax.feedback import Feedback, FeedbackWeights
from lra_jax.flax_model import params_from_flax, params_to_flax
from lra_jax.losses import (
    LOCAL_LOSSES,
    binary_cross_entropy_every_step,
    cross_entropy,
    cross_entropy_every_step,
    squared_error,
    squared_error_every_step,
)
from lra_jax.member import Limits, Status
from lra_jax.orthogonality import soft_orthogonality
from lra_jax.predictions import accuracy, predict
from lra_jax.rnn import forward, init_params
from lra_jax.rules import (
    RULES,
    RuleCard,
    bptt,
    dfa,
    eprop,
    fa,
    lra_diff,
    lra_e,
    lra_fdbk,
    lra_norm,
    lra_released,
    lra_reversible,
    readout_only,
    rec_lra,
    register_rule,
    rflo,
    rtrl,
    rule_card,
    snap,
    tpri,
    tptt,
    uoro,
)
from lra_jax.sweep import run_sweep
from lra_jax.tasks import TASKS, Samples, Task, batches
from lra_jax.train import evaluate, init_train_state, stream_step, train_step
from lra_jax.types import (
    Batch,
    EmptyState,
    LearningRule,
    Metrics,
    NetworkInfo,
    NetworkParams,
    OutputLoss,
    Params,
    Piece,
    RuleInfo,
    Trace,
    TrainState,
    Weighted,
)

__version__ = "0.1.0"

__all__ = [
    "LOCAL_LOSSES",
    "RULES",
    "TASKS",
    "Batch",
    "EmptyState",
    "Experiment",
    "Feedback",
    "FeedbackWeights",
    "LearningRule",
    "Limits",
    "Metrics",
    "NetworkInfo",
    "NetworkParams",
    "OutputLoss",
    "Params",
    "Piece",
    "RuleCard",
    "RuleInfo",
    "Samples",
    "Status",
    "Task",
    "Trace",
    "TrainState",
    "Weighted",
    "accuracy",
    "batches",
    "binary_cross_entropy_every_step",
    "bptt",
    "cross_entropy",
    "cross_entropy_every_step",
    "dfa",
    "eprop",
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
    "lra_reversible",
    "params_from_flax",
    "params_to_flax",
    "predict",
    "readout_only",
    "rec_lra",
    "register_rule",
    "rflo",
    "rtrl",
    "rule_card",
    "run_sweep",
    "snap",
    "soft_orthogonality",
    "squared_error",
    "squared_error_every_step",
    "stream_step",
    "tpri",
    "tptt",
    "train_step",
    "uoro",
]
