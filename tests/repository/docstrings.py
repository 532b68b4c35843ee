"""Docstrings of the library, those of constants as well, and their examples."""

import ast
import doctest
import functools
import importlib
import inspect
import pkgutil

import jax
import jax.numpy as jnp
import optax

import lra_jax
from lra_jax import sweep

# What an example may use without importing it; docs/api.md says so.
NAMES = {"jax": jax, "jnp": jnp, "optax": optax, "lra_jax": lra_jax, "sweep": sweep}

# The public names of `lra_jax.sweep`.
SWEEP = (
    "Curves",
    "Experiment",
    "Grid",
    "Limits",
    "Members",
    "Status",
    "SweepState",
    "init_sweep",
    "iterate_sweep",
    "make_grid",
    "run_sweep",
)

# The public names of `lra_jax.diagnostics`.
DIAGNOSTICS = (
    "Cosines",
    "FeedbackError",
    "Update",
    "compare",
    "cosine",
    "decay",
    "feedback_errors",
    "hidden_errors",
    "observe",
    "swap_labels",
    "vanished",
)

# The public names of `lra_jax.networks` that users call.
NETWORKS = (
    "GRUCell",
    "LayerCell",
    "NETWORKS",
    "Network",
    "cell_from_flax",
    "cell_to_flax",
    "freeze",
    "from_flax",
    "from_step",
    "gru",
    "leaky",
    "lstm",
    "register_network",
    "relu",
    "stack",
    "tanh",
)

MODULES = [
    module.name for module in pkgutil.walk_packages(lra_jax.__path__, "lra_jax.")
]


@functools.cache
def of_constants(module):
    """Name to docstring, of the constants of a module: the string below each."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    return {
        ast.unparse(getattr(node, "target", None) or node.targets[0]): below.value.value
        for node, below in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }


def examples(module):
    """The doctests of a module, one for each docstring that has any."""
    loaded = importlib.import_module(module)
    found = doctest.DocTestFinder().find(loaded, globs=NAMES)
    parser = doctest.DocTestParser()
    found += [
        parser.get_doctest(text, dict(NAMES), f"{module}.{name}", module, 0)
        for name, text in of_constants(module).items()
    ]
    return [test for test in found if test.examples]
