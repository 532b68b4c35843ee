"""A grid of training runs as one batched computation.

A compiled *chunk* advances the members in its slots by `eval_every` updates and
evaluates them. The host loop puts members into slots, takes them out when they end,
fills their slots with members that wait, and moves the last ones together
(`lra_jax.tiles`). The compiled program stays the same, and an ended member costs
nothing.

Hyper-parameters are arrays `[N]`. Those named in `Experiment.shared` set how long the
program runs (K does). They are a scalar for each tile of slots.

The modules, each importing only those before it:

    grid         the members, and the arrays that tell them apart
    state        results, curves, and the members in their slots
    processes    the devices of a sweep, and the processes that share it
    stored       recorded data as arguments of a program
    program      the compiled program
    weights      of members that end, and those that are kept
    bookkeeping  what a chunk changes
    loop         chunk after chunk, until all members have ended
"""

from lra_jax.experiment import Experiment, Hyperparameters
from lra_jax.member import Check, Initial, Limits, RunState, Status
from lra_jax.sweep.grid import Arguments, Grid, make_grid
from lra_jax.sweep.loop import (
    DEFAULT_LIMITS,
    init_sweep,
    iterate_sweep,
    run_sweep,
)
from lra_jax.sweep.processes import gather
from lra_jax.sweep.program import Program, make_program, memory_of_chunk, run_shapes
from lra_jax.sweep.state import Curves, Members, OnChunk, SweepState, Weights
from lra_jax.tiles import EMPTY

__all__ = [
    "DEFAULT_LIMITS",
    "EMPTY",
    "Arguments",
    "Check",
    "Curves",
    "Experiment",
    "Grid",
    "Hyperparameters",
    "Initial",
    "Limits",
    "Members",
    "OnChunk",
    "Program",
    "RunState",
    "Status",
    "SweepState",
    "Weights",
    "gather",
    "init_sweep",
    "iterate_sweep",
    "make_grid",
    "make_program",
    "memory_of_chunk",
    "run_shapes",
    "run_sweep",
]
