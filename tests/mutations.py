"""Small faults in the library, each of which the tests have to catch.

    python -m tests.mutations            all of them, one after the other
    python -m tests.mutations --list     what they are
    python -m tests.mutations bptt 12    those of which a word or the number is given
    python -m tests.mutations --tree X   with the library and the tests of another tree

A fault is put into a copy of the tree, never into the checkout, and pytest runs the
files of tests that have to notice. It is caught where a test fails; any other end, such
as an error of collection, does not count. The exit code is 1 where a fault survives, or
where the text that it replaces is no longer in its file. All take about ten minutes.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
# What the tests read of a tree.
PARTS = (
    "lra_jax", "experiments", "tests", "configs", "examples", "docs", "results",
    "pyproject.toml", "README.md", "CONTRIBUTING.md", "Makefile",
)  # fmt: skip


class Mutation(NamedTuple):
    """A fault.

    Attributes:
      what: the fault, in a few words.
      file: of the library, below `lra_jax`.
      old: the text that it replaces, which is in the file once.
      new: what it puts there.
      tests: a file below `tests`; those of x64 run in float64. After `-k`, what the tests'
        names have in them, where all of the file would take long.
    """

    what: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = [
    # The network.
    Mutation(
        "two matrices are drawn with one key", "networks/initial.py",
        "key_xh, key_hh, _ = jax.random.split(key, 3)",
        "key_xh, _, key_hh = jax.random.split(key, 3)", "core/test_rnn.py",
    ),
    Mutation(
        "a sample begins one step late", "rnn.py",
        "steps[:, None] >= start", "steps[:, None] > start", "core/test_start.py",
    ),
    Mutation(
        "an unknown symbol is the last one", "networks/layer.py",
        'mode="fill", fill_value=jnp.nan, wrap_negative_indices=False', 'mode="clip"',
        "core/test_rnn.py -k symbol",
    ),
    # Networks.
    Mutation(
        "differences by the derivative, however large", "networks/network.py",
        "keepdims=True) < least", "keepdims=True) >= 0", "networks/test_networks.py -k difference",
    ),
    Mutation(
        "small differences at the end, not in the middle", "networks/network.py",
        "(a - d / 2,), (d,)", "(a,), (d,)", "networks/test_networks.py -k difference",
    ),
    Mutation(
        "errors go back through another noise", "networks/network.py",
        "lambda s: self.advance(p, s, drive, key=key), s_prev)",
        "lambda s: self.advance(p, s, drive), s_prev)",
        "x64/test_networks.py -k automatic",
    ),
    Mutation(
        "Ω does not reach the weights through the step before", "networks/network.py",
        "ask(term.before, omega.a / divisor),", "ask(term.before, 0 * omega.a),",
        "x64/test_networks.py -k omega",
    ),
    Mutation(
        "Dale's signs are of what a unit receives", "networks/units.py",
        "jnp.abs(w) * jnp.asarray(signs, w.dtype)[:, None]",
        "jnp.abs(w) * jnp.asarray(signs, w.dtype)[None]", "networks/test_networks.py -k dale",
    ),
    Mutation(
        "excitation and inhibition balance in the mean alone", "networks/units.py",
        "jnp.where(is_inhibitory, w * factor[None], w)", "w",
        "networks/test_networks.py -k balance",
    ),
    Mutation(
        "sparse weights have 15 outputs, not inputs", "networks/initial.py",
        ".argsort(axis=0).argsort(axis=0)", ".argsort(axis=1).argsort(axis=1)",
        "networks/test_networks.py -k sparse",
    ),
    Mutation(
        "an LSTM's gates stand in another order", "networks/gates.py",
        "i, f, g, o = jnp.split(", "f, i, g, o = jnp.split(",
        "networks/test_networks.py -k gates",
    ),
    Mutation(
        "a layer reads the state of the step before", "networks/stack.py",
        "z = layer.emit(q, s)", "z = layer.emit(q, before)", "networks/test_networks.py -k layer",
    ),
    Mutation(
        "a cell of Flax shows the first array of its carry", "networks/flax_cells.py",
        "sum(structure.sizes[: structure.shown])", "0", "networks/test_networks.py -k flax",
    ),
    Mutation(
        "what is frozen in a layer moves in a stack", "networks/stack.py",
        "jax.tree.map(operator.or_, own, theirs)",
        "jax.tree.map(operator.and_, own, theirs)", "networks/test_networks.py -k frozen",
    ),
    # Losses.
    Mutation(
        "the squared error's gradient without 1/Y", "losses.py",
        "_difference(logits, labels) / logits.shape[1]", "_difference(logits, labels)",
        "core/test_losses.py",
    ),
    Mutation(
        "a logit that is NaN is no error", "losses.py",
        "| jnp.any(jnp.isnan(logits), axis=-1)", "",
        "core/test_losses.py",
    ),
    Mutation(
        "log penalty's derivative with a wrong sign in its denominator", "losses.py",
        "2 * e / (1 + e * e)\n", "2 * e / (1 - e * e)\n", "core/test_losses.py",
    ),
    Mutation(
        "the mean over asked steps is a sum", "losses.py",
        "return total / num_asked(labels).astype(total.dtype)", "return total",
        "x64/test_every_step.py",
    ),
    # Arithmetic.
    Mutation(
        "a difference of tanh by the derivative", "numerics.py",
        "jnp.tanh(d) * (1 - z_a * z_b)", "jnp.tanh(d) * (1 - z_a * z_a)",
        "core/test_numerics.py",
    ),
    Mutation(
        "products in the precision of the device", "numerics.py",
        "precision=lax.Precision.HIGHEST if asked is None else None", "precision=None",
        "core/test_numerics.py",
    ),
    # From errors to gradients.
    Mutation(
        "a sum over the batch in place of the mean", "networks/tanh.py",
        "scale = q_scale / count", "scale = q_scale", "x64/test_oracle.py",
    ),
    Mutation(
        "the first step has the first state below it", "gradients.py",
        "jnp.concatenate([jnp.zeros_like(z[:1]), z[:-1]])",
        "jnp.concatenate([z[:1], z[:-1]])", "x64/test_oracle.py",
    ),
    Mutation(
        "the sum over steps is no mean over the batch", "gradients.py",
        "lambda g: g / q.shape[1], total", "lambda g: g, total", "x64/test_oracle.py",
    ),
    Mutation(
        "steps that fill no piece are left out", "networks/network.py",
        "(slice(size + rest), slice(size + rest, None))",
        "(slice(size), slice(size + rest, None))", "x64/test_networks.py",
    ),
    Mutation(
        "sums over steps in 16 bits", "gradients.py",
        "matrices.wide(q.dtype)", "q.dtype", "core/test_dtypes.py",
    ),
    Mutation(
        "a network's own weigh is not asked", "networks/network.py",
        "single = type(self).weigh is not Network.weigh or noisy", "single = noisy",
        "networks/test_networks.py",
    ),
    Mutation(
        "noise of a step is drawn anew with that of others", "networks/network.py",
        "single = type(self).weigh is not Network.weigh or noisy",
        "single = type(self).weigh is not Network.weigh", "networks/test_networks.py",
    ),
    Mutation(
        "the slope of tanh without σ'", "networks/tanh.py",
        "return e * (1 - z**2)", "return e * jnp.ones_like(z)",
        "x64/test_oracle.py",
    ),
    Mutation(
        "each step has its neighbour's own error", "error_signals.py",
        "(own[-1], own[:-1])", "(own[-1], own[1:])", "x64/test_every_step.py",
    ),
    Mutation(
        "errors before a sample's start count", "error_signals.py",
        "lambda x: rnn.silence(x, forward.started), errors",
        "lambda x: rnn.silence(x, None), errors", "core/test_start.py",
    ),
    # Diagnostics.
    Mutation(
        "hidden errors are divided by B", "diagnostics.py",
        "return size * _w_xh(grads, network)", "return _w_xh(grads, network)",
        "core/test_diagnostics.py",
    ),
    Mutation(
        "a card says less than an error needs", "rules/fa.py",
        'transports=("W_hyᵀ",)', "transports=()", "rules/test_rule_cards.py -k go_through",
    ),
    # Rules.
    Mutation(
        "tanh pulls through W_hh in place of its transpose", "networks/tanh.py",
        "self.pull_through((p.w_hh.T,),", "self.pull_through((p.w_hh,),", "rules/test_rules.py -k bptt",
    ),
    Mutation(
        "fa: the random readout is the transpose", "feedback.py",
        "return params.w_hy.T if self.readout is None else self.readout",
        "return params.w_hy.T", "x64/test_oracle.py -k fa",
    ),
    Mutation(
        "a mirror's estimate is a sum over its noise", "feedback.py",
        "return matmul(matmul(xi, w).T, xi) / n", "return matmul(matmul(xi, w).T, xi)",
        "core/test_feedback.py -k settles",
    ),
    Mutation(
        "Kolen-Pollack feedback does not decay", "feedback.py",
        "lambda a, change: kept * a + change.T", "lambda a, change: a + change.T",
        "core/test_feedback.py -k kolen",
    ),
    Mutation(
        "what a mirror measures of noise has its mean", "feedback.py",
        "power = jnp.where(power == 0, 1, power)", "power = jnp.mean(power) * jnp.ones_like(power) * 2",
        "core/test_feedback.py -k noise_that",
    ),
    Mutation(
        "snap: without a unit's own weight", "eligibility.py",
        "if own_weight:", "if not own_weight:", "x64/test_forward_rules.py -k loops",
    ),
    Mutation(
        "a stack's lower layer gets the error of its own output alone", "eligibility.py",
        "if found:  # the error of the layer above, at what it reads",
        "if False:", "x64/test_forward_rules.py -k within_a_step",
    ),
    Mutation(
        "uoro: noise of another size than its product's", "rules/uoro.py",
        "rho_1[:, None] * nu", "nu", "x64/test_forward_rules.py -k uoro",
    ),
    Mutation(
        "influence of steps before a sample's start", "influence.py",
        "lambda x: rnn.silence(x, started), trace", "lambda x: rnn.silence(x, None), trace",
        "x64/test_forward_rules.py -k rtrl",
    ),
    Mutation(
        "a piece's loss is divided by its own steps", "influence.py",
        "asked = losses.num_asked(labels) if asked is None else asked",
        "asked = losses.num_asked(labels)", "x64/test_forward_rules.py -k pieces",
    ),
    Mutation(
        "dfa: without σ'", "rules/dfa.py",
        "network.slope(forward.cell, place.s, e, z=z)", "e",
        "rules/test_error_signals.py -k dfa",
    ),
    Mutation(
        "lra_fdbk: σ' of the step below", "rules/lra_fdbk.py",
        "q = at_state(e, here.s, here.z)", "q = at_state(e, here.s_prev, here.z_prev)", "x64/test_oracle.py -k lra_fdbk",
    ),
    Mutation(
        "lra_e: synapses learn from the state of the same step", "rules/lra_e.py",
        "before = network.spread(cell, place.s_prev, place.z_prev)", "before = seen",
        "x64/test_oracle.py -k lra_e",
    ),
    Mutation(
        "rec_lra: skips stand one step too early", "rules/rec_lra.py",
        "(back % num_steps_per_skip == 0)", "((back + 1) % num_steps_per_skip == 0)",
        "rules/test_error_signals.py -k rec_lra",
    ),
    Mutation(
        "lra_norm: p and 1 - p swapped", "rules/lra_norm.py",
        "kept**exponent * grown ** (1 - exponent)",
        "kept ** (1 - exponent) * grown**exponent", "rules/test_error_signals.py -k lra_norm",
    ),
    Mutation(
        "lra_norm: the cost of activity with the wrong sign", "rules/lra_norm.py",
        "return d + activity * numerics.norm", "return d - activity * numerics.norm",
        "rules/test_error_signals.py -k activity",
    ),
    Mutation(
        "lra_reversible: the bias is forgotten on the way back", "rules/lra_reversible.py",
        "matmul(h - rnn.project_inputs(params, x[None])[0], w_inverse)",
        "matmul(h - rnn.project_inputs(params, x[None])[0] + params.b_h, w_inverse)",
        "rules/test_lra_reversible.py",
    ),
    Mutation(
        "tpri: the inverse is transposed", "rules/tpri.py",
        "w_hh, ridge, w_hh).T", "w_hh, ridge, w_hh)", "x64/test_oracle.py -k tpri",
    ),
    Mutation(
        "tptt: momentum is not Nesterov's", "rules/tptt.py",
        "p + mu * w - s", "p + w", "x64/test_oracle.py -k tptt",
    ),
    Mutation(
        "tptt: the top target's step without 1/B", "rules/tptt.py",
        "jnp.asarray(target_lr, s.dtype) / s.shape[1]", "jnp.asarray(target_lr, s.dtype)",
        "x64/test_oracle.py -k tptt",
    ),
    Mutation(
        "lra_diff: c0 and c1 swapped", "rules/lra_diff.py",
        "functools.partial(normalize, c=c1, axis=-1)",
        "functools.partial(normalize, c=c0, axis=-1)", "rules/test_lra_diff.py",
    ),
    Mutation(
        "lra_diff: the last step is left out in place of the first", "rules/lra_diff.py",
        "u.at[0].set(0)", "u.at[-1].set(0)", "rules/test_lra_diff.py",
    ),
    Mutation(
        "lra_diff: Ω's error of t-1 with the state of t-1", "rules/lra_diff.py",
        "zeros = gradients.previous(place.z_prev)", "zeros = place.z_prev", "rules/test_lra_diff.py",
    ),
    Mutation(
        "lra_released: the error below with the wrong sign", "paper/hidden_layer.py",
        "b = -error * (1 - z_new**2)", "b = error * (1 - z_new**2)",
        "paper/test_lra_released.py",
    ),
    # Targets.
    Mutation(
        "one refinement too many", "targets.py",
        "done=1,", "done=0,", "rules/test_lra_diff.py",
    ),
    Mutation(
        "targets on the wrong side of the state", "targets.py",
        "d_bar + step.gamma * delta", "d_bar - step.gamma * delta", "rules/test_lra_diff.py",
    ),
    Mutation(
        '"fixed" and "overwrite" swapped', "targets.py",
        '"fixed": (d, z_hat),\n        "overwrite": (jnp.zeros_like(d), place.z),',
        '"overwrite": (d, z_hat),\n        "fixed": (jnp.zeros_like(d), place.z),',
        "rules/test_lra_diff.py",
    ),
    Mutation(
        "the displacements of steps are one step off", "targets.py",
        "d = jnp.concatenate([d, d_top[None]])", "d = jnp.concatenate([d_top[None], d])",
        "rules/test_lra_diff.py",
    ),
    # Ω.
    Mutation(
        "Ω as printed in Algorithm 2, which promotes vanishing", "regularizer.py",
        "2 * (rho - 1) /", "2 * rho /", "rules/test_lra_diff.py -k numpy",
    ),
    Mutation(
        "the bound of the error ratio is upside down", "regularizer.py",
        "ratio = size_next / jnp.where(size == 0, 1, size)",
        "ratio = size / jnp.where(size_next == 0, 1, size_next)",
        "rules/test_lra_diff.py -k error_ratio",
    ),
    # Training.
    Mutation(
        "all updates have one key", "train.py",
        "jax.random.fold_in(state.key, state.step)", "state.key", "core/test_train.py -k key",
    ),
    Mutation(
        "an evaluation ignores starts", "train.py",
        "params, batch.inputs, start=batch.start, network=network, key=key",
        "params, batch.inputs, network=network, key=key", "core/test_start.py",
    ),
    Mutation(
        "soft orthogonality away from the orthogonal matrices", "orthogonality.py",
        "return update - (steps[0]", "return update + (steps[0]", "core/test_orthogonality.py",
    ),
    # A member of a grid.
    Mutation(
        "the maximum of updates is off by one", "member.py",
        "(state.step < limits.max_steps)", "(state.step <= limits.max_steps)",
        "sweep/test_sweep.py -k patience",
    ),
    Mutation(
        "patience is off by one", "member.py",
        "(stale_evals < limits.patience)", "(stale_evals <= limits.patience)",
        "sweep/test_sweep.py -k patience",
    ),
    Mutation(
        "every update draws the same batch", "member.py",
        "jax.random.fold_in(streams(seed).data, step)", "streams(seed).data", "sweep/test_sweep.py -k share_weights",
    ),
    Mutation(
        "a diverged member moves on", "member.py",
        "(_select(live & finite, new, state), status)",
        "(_select(live, new, state), status)", "sweep/test_sweep.py -k diverge",
    ),
    Mutation(
        "the last slice of the validation set is forgotten", "validation.py",
        "    if rest:\n        parts", "    if rest and not whole:\n        parts",
        "sweep/test_sweep.py -k validation",
    ),
    Mutation(
        "an evaluation in stages forgets the last slice", "validation.py",
        "    if rest:\n        metrics", "    if rest and not whole:\n        metrics",
        "sweep/test_validation.py",
    ),
    Mutation(
        "an evaluation goes on where it is only as good", "validation.py",
        "(errors < best.stage_errors)", "(errors <= best.stage_errors)",
        "sweep/test_validation.py",
    ),
    Mutation(
        "what went less far counts as better", "validation.py",
        "    return further | (as_far & (evaluation",
        "    return further | ((as_far | True) & (evaluation",
        "sweep/test_validation.py",
    ),
    Mutation(
        "recorded data are constants of the program", "sweep/program.py",
        "        if experiment.task.validation is None:\n",
        "        if True:\n",
        "sweep/test_stored.py",
    ),
    # The grid.
    Mutation(
        "the last of equally good evaluations is the best one",
        "sweep/bookkeeping.py",
        "best_errors < before.best_num_errors[ran]",
        "best_errors <= before.best_num_errors[ran]", "sweep/test_sweep.py",
    ),
    Mutation(
        "a race leaves the members that wait",
        "sweep/bookkeeping.py",
        "(status <= Status.RUNNING)", "(status == Status.RUNNING)", "sweep/test_sweep.py -k race",
    ),
    Mutation(
        "members move to the slots of others",
        "sweep/bookkeeping.py",
        "np.where(slots == EMPTY, 0, place[slots])",
        "np.where(slots == EMPTY, 0, place[slots[::-1]])", "sweep/test_sweep.py",
    ),
    Mutation(
        "the best weights are the last ones", "sweep/weights.py",
        "mask &= members.best_step[before] == members.step[before]",
        "mask &= members.best_step[before] <= members.step[before]", "sweep/test_sweep.py -k kept",
    ),
    Mutation(
        "a tile takes members of the next kind", "tiles.py",
        "fits = source < ", "fits = source <= ", "core/test_tiles.py",
    ),
    Mutation(
        "halved tiles lose a slot of odd ones", "tiles.py",
        "slots.shape[1] % 2), EMPTY", "-slots.shape[1] % 1), EMPTY", "core/test_tiles.py",
    ),
    Mutation(
        "tiles are packed though nothing is gained", "tiles.py",
        "if cost(packed) < cost(best):", "if cost(packed) <= cost(best):", "core/test_tiles.py",
    ),
    # Tasks.
    Mutation(
        "temporal order: the label reads the bits backwards", "tasks/temporal_order.py",
        "jnp.sum(weights[:, None] * values", "jnp.sum(weights[::-1, None] * values",
        "tasks/test_tasks.py",
    ),
    Mutation(
        "random permutation: noise may be the label's symbol",
        "tasks/random_permutation.py",
        "(seq_len, batch_size), 2, NUM_SYMBOLS", "(seq_len, batch_size), 1, NUM_SYMBOLS",
        "tasks/test_tasks.py",
    ),
    Mutation(
        "adding: the second mark may stand before the first's range", "tasks/adding.py",
        "place_1 = width + jax", "place_1 = 0 * width + jax", "tasks/test_tasks.py",
    ),
    Mutation(
        "a go that is one step too late is right", "tasks/timing.py",
        "late = step >= go + tolerance", "late = step > go + tolerance",
        "tasks/test_trials.py -k interval_that_was_shown",
    ),
    Mutation(
        "members that move leave another program", "sweep/processes.py",
        "PartitionSpec(\"grid\") if x.size else PartitionSpec()", "PartitionSpec(\"grid\")",
        "sweep/test_stored.py -k measured",
    ),
    Mutation(
        "a run is finished before its tables are whole",
        "lab/runs/store.py", 'if manifest.get("finished"):', "if False:",
        "lab/runs/test_store.py -k whole_tables",
    ),
    Mutation(
        "a program places its own copy of the data",
        "sweep/stored.py", "if placed is None:", "if True:",
        "sweep/test_stored.py -k share_one_copy",
    ),
    Mutation(
        "members start from the weights of another block of seeds",
        "sweep/loop.py", "or (seeds.row[joining] < 0).any()", "or False",
        "sweep/test_sweep.py -k in_blocks",
    ),
    Mutation(
        "a sweep that goes on draws the seeds of all members",
        "sweep/bookkeeping.py", "wanted = np.concatenate([joining, queue])",
        "wanted = np.arange(grid.seeds.size)",
        "sweep/test_sweep.py -k wait_alone",
    ),
    Mutation(
        "memory is measured of another program than the one that runs",
        "sweep/program.py", "sharding=processes.division(mesh, x),", "",
        "sweep/test_stored.py -k measured",
    ),
    Mutation(
        "the order of pixels is not the hashed one", "lab/data/sources.py",
        "flat = flat[:, hashed_order(flat.shape[1])]", "flat = flat[:, ::-1]",
        "lab/data/test_datasets.py -k one_other_order",
    ),
]  # fmt: skip


def copy_of(tree: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """The parts of a tree that tests read, without anything compiled."""
    for name in PARTS:
        if (tree / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(tree / name, folder / name, ignore=ignored)
        elif (tree / name).exists():
            shutil.copy(tree / name, folder / name)
    return folder


def run_tests(tree: pathlib.Path, tests: str) -> tuple[int, str]:
    """The exit code of pytest, and the last line that names a test."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("JAX_ENABLE_X64", None)
    if tests.startswith("x64/"):
        environment["JAX_ENABLE_X64"] = "1"
    file, chosen_by, word = tests.partition(" -k ")
    files = [f"tests/{file}", *(["-k", word] if chosen_by else [])]
    words = ["-m", "pytest", "-x", "-n", "0", "-p", "no:cacheprovider", "--tb=line"]
    words += ["-m", "not slow and not faults"]
    done = subprocess.run(
        [sys.executable, *words, *files],
        cwd=tree, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [x for x in done.stdout.splitlines() if x.startswith(("FAILED", "ERROR"))]
    return done.returncode, (lines or done.stdout.splitlines() or [""])[-1]


def outcome(tree: pathlib.Path, mutation: Mutation) -> tuple[str, str]:
    """What became of a fault, and what said so; the tree is as it was after it."""
    path = tree / "lra_jax" / mutation.file
    text = path.read_text("utf8") if path.exists() else ""
    if text.count(mutation.old) != 1:
        return "NOT FOUND", f"{text.count(mutation.old)} times in {mutation.file}"
    try:
        path.write_text(text.replace(mutation.old, mutation.new), "utf8")
        code, line = run_tests(tree, mutation.tests)
    finally:
        path.write_text(text, "utf8")
    if code == 1 and line.startswith("FAILED"):
        return "caught", line.partition(" - ")[0].removeprefix("FAILED ")
    return ("SURVIVED" if code == 0 else f"ERROR {code}"), line


def chosen(words: list[str]) -> list[tuple[int, Mutation]]:
    """The mutations, with their numbers, that any of the words names; none is all."""
    return [
        (number, mutation)
        for number, mutation in enumerate(MUTATIONS, 1)
        if not words
        or any(
            word == str(number)
            or (not word.isdigit() and word in f"{mutation.what} {mutation.file}")
            for word in words
        )
    ]


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.mutations", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("words", nargs="*", help="numbers, or words of what or where")
    parser.add_argument("--list", action="store_true", help="only say what they are")
    parser.add_argument("--tree", type=pathlib.Path, default=ROOT)
    parser.add_argument(
        "--control", action="store_true", help="the tests without faults"
    )
    options = parser.parse_args()
    found = chosen(options.words)
    if options.list:
        for number, mutation in found:
            print(f"{number:3} {mutation.file}: {mutation.what}; {mutation.tests}")
        return 0
    bad = 0
    with tempfile.TemporaryDirectory(prefix="lra_jax_mutations_") as folder:
        tree = copy_of(options.tree.resolve(), pathlib.Path(folder))
        if options.control:
            for tests in sorted({mutation.tests for _, mutation in found}):
                code, line = run_tests(tree, tests)
                bad += code != 0
                print(
                    f"{'passes' if code == 0 else 'FAILS'}: {tests}: {line}", flush=True
                )
        for number, mutation in found:
            began = time.monotonic()
            result, line = outcome(tree, mutation)
            bad += result != "caught"
            took = time.monotonic() - began
            print(f"{number:3} {result:9} {took:4.0f} s  {mutation.file}: {mutation.what}"
                  f"\n      {line}", flush=True)  # fmt: skip
    print(f"{len(found)} faults, {bad} not as they should be")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
