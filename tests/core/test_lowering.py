"""Programs for accelerators, lowered on a CPU: no operation is missing there.

`jax.export` makes the program that a GPU or TPU compiles, without one. What comes after
that (the compiler of the device, its memory, its speed) is not tested here.
"""

import re

import jax
import jax.export
import jax.numpy as jnp
import jax.scipy.linalg
import numpy as np
import optax
import pytest

import lra_jax
from experiments.speed import variants
from experiments.speed.workload import Settings
from lra_jax import RULES, TASKS, sweep

PLATFORMS = ("cuda", "tpu")
T, B, X, H, Y = 10, 2, 3, 4, 3
# Arguments without a default, and those with which a rule uses more operations.
ARGUMENTS = {
    "lra_diff": {"gamma": 2.0, "num_refinements": 2, "lambda_": 0.1, "c0": 1.0},
    "lra_released": {"gamma": 2.0, "num_refinements": 2, "lambda_": 0.1, "c": 1.0},
    "tptt": {"noise_std": 0.1},
}
REFUSED = {
    "starts": {"lra_released"},
    "every step": {
        *("dfa", "lra_e", "lra_fdbk", "lra_released", "lra_reversible", "rec_lra")
    },
}

both_platforms = pytest.mark.parametrize("platform", PLATFORMS)
all_rules = pytest.mark.parametrize("rule", RULES)


def targets(exported):
    """What the program calls that is no operation of its own."""
    return set(re.findall(r"custom_call @([\w.$]+)", exported.mlir_module()))


def lower(function, *arguments):
    """Lowers for each platform on its own, and looks for calls of a CPU's libraries."""
    for platform in PLATFORMS:
        exported = jax.export.export(jax.jit(function), platforms=(platform,))(
            *arguments
        )
        assert exported.platforms == (platform,)
        assert "stablehlo" in exported.mlir_module()
        assert not {x for x in targets(exported) if re.match("lapack|ducc|cpu", x)}


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def weights(input_size=X, output_size=Y):
    return lra_jax.Params(
        w_xh=shape(input_size, H),
        w_hh=shape(H, H),
        b_h=shape(H),
        w_hy=shape(H, output_size),
        b_y=shape(output_size),
    )


SYMBOLS = shape(T, B, dtype=jnp.int32)
VECTORS = shape(T, B, X)
CLASSES = shape(B, dtype=jnp.int32)
BATCHES = {
    "symbols": lra_jax.Batch(SYMBOLS, CLASSES),
    "vectors": lra_jax.Batch(VECTORS, CLASSES),
    "starts": lra_jax.Batch(SYMBOLS, CLASSES, start=CLASSES),
    "every step": lra_jax.Batch(VECTORS, SYMBOLS),
}


def updates(name, batches):
    """One update on each of the batches, from the start."""

    def update(key, params, batch, output_loss):
        rule = RULES[name](**ARGUMENTS.get(name, {}), output_loss=output_loss)
        optimizer = optax.adam(1e-3)
        state = lra_jax.init_train_state(key, params, rule, optimizer)
        return lra_jax.train_step(state, batch, rule=rule, optimizer=optimizer)

    def run(seed, params, batches):
        key = jax.random.key(seed)
        losses = {"every step": lra_jax.cross_entropy_every_step}
        return {
            kind: update(key, params, batch, losses.get(kind, lra_jax.cross_entropy))
            for kind, batch in batches.items()
        }

    return run, (shape(dtype=jnp.uint32), weights(), batches)


@all_rules
def test_an_update_of_a_rule(rule):
    refused = {kind for kind, rules in REFUSED.items() if rule in rules}
    taken = {kind: BATCHES[kind] for kind in BATCHES.keys() - refused}
    run, arguments = updates(rule, dict(sorted(taken.items())))
    lower(run, *arguments)


@pytest.mark.parametrize(
    ("kind", "rule"), [(k, rule) for k in REFUSED for rule in sorted(REFUSED[k])]
)
def test_what_is_left_out_is_what_a_rule_refuses(kind, rule):
    run, arguments = updates(rule, {kind: BATCHES[kind]})
    with pytest.raises(ValueError, match=r"start|every step"):
        jax.eval_shape(run, *arguments)


def test_updates_of_many_members():
    """Under vmap too: there, products and decompositions are others."""
    for name in ("lra_reversible", "tpri"):
        run, (seed, params, batches) = updates(name, {"symbols": BATCHES["symbols"]})
        many = jax.tree.map(lambda x: shape(3, *x.shape, dtype=x.dtype), (seed, params))
        lower(jax.vmap(run, in_axes=(0, 0, None)), *many, batches)


def test_initial_weights_one_and_many():
    def draw(seed):
        return lra_jax.init_params(jax.random.key(seed), X, H, Y)

    lower(draw, shape(dtype=jnp.uint32))
    lower(jax.vmap(draw), shape(3, dtype=jnp.uint32))


def test_draws_and_evaluations_of_all_tasks():
    def evaluate(seed, params):
        found = {}
        for name, task in TASKS.items():
            seq_len = max(T, task.min_seq_len)
            batch = task.sample(jax.random.key(seed), B, seq_len)
            metrics = lra_jax.evaluate(
                params[name], batch, output_loss=task.output_loss
            )
            found[name] = batch, metrics
        return found

    params = {
        name: weights(task.input_size, task.output_size) for name, task in TASKS.items()
    }
    lower(evaluate, shape(dtype=jnp.uint32), params)


@pytest.mark.parametrize("num_devices", [1, 2])
def test_the_chunk_of_a_sweep(num_devices):
    """As it is compiled, on one device and divided between two."""
    settings = Settings(num_refinements=2, members=4, hidden_size=H, batch_size=B)
    experiment = variants.make_experiment(settings, eval_every=2, num_validation=3)
    grid = variants.make_grid(experiment, [1, 1, 2, 2], lambda_=0.1)
    devices = tuple(jax.devices()[:num_devices])
    program = sweep.make_program(experiment, devices)
    slots = np.arange(4, dtype=np.int32).reshape(2, 2)
    arguments = (
        variants.LIMITS,
        np.ones(2, bool),
        grid.arguments(slots),
        sweep.run_shapes(experiment, grid, slots),
    )
    for platform in PLATFORMS:
        exported = jax.export.export(program.chunk, platforms=(platform,))(*arguments)
        assert exported.platforms == (platform,)
        assert exported.nr_devices == num_devices
        assert not {x for x in targets(exported) if x.startswith("lapack")}


# That the assertions can fail.


@both_platforms
def test_what_only_a_cpu_can_do_is_refused(platform):
    export = jax.export.export(jax.jit(jax.scipy.linalg.schur), platforms=(platform,))
    with pytest.raises(NotImplementedError, match=f"schur.*{platform}"):
        export(shape(H, H))


def test_calls_of_a_cpus_libraries_are_found():
    exported = jax.export.export(jax.jit(jnp.linalg.qr), platforms=("cpu",))
    assert any(x.startswith("lapack") for x in targets(exported(shape(H, H))))
