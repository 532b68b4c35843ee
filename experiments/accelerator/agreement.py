"""Whether a device computes what a CPU does, for `experiments.device`.

Small programs with fixed arguments: an update of every rule, initial weights, draws of
tasks whose bits every device has to give, evaluations, and a sweep whose members end in
different ways. Draws, numbers of errors and statuses have to be equal; for all else the
largest difference counts, in units of the largest value of its array.

The CPU's values are computed in the same process, or read from `STORED` where JAX sees
no CPU beside the device.
"""

from __future__ import annotations

import concurrent.futures
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from lra_jax import RULES, TASKS, Batch, Params, evaluate, init_params, sweep
from lra_jax.experiment import Experiment
from lra_jax.member import Limits
from lra_jax.tasks import Task

STORED = pathlib.Path(__file__).parents[2] / "tests/golden/agreement.npz"

# Of gradients, losses and weights: float32, other orders of sums, another tanh.
TOLERANCE = 1e-4
# Rules that amplify rounding: between two programs of one CPU they differ by 3e-5, and
# by 9e-5 where states are computed back, all others by 2e-6 or less.
TOLERANCES = {"lra_fdbk": 3e-3, "lra_reversible": 1e-2}
EXACT = ("draws", "statuses")

# Of integers and uniform numbers. Normal numbers, which trials have as noise, are
# rounded by each device in its own way.
DRAWN = ("adding", "random_permutation", "temporal_order", "temporal_order_3bit")

SEQ_LEN, BATCH_SIZE, HIDDEN_SIZE = 10, 4, 8
PROBLEMS = ("temporal_order", "adding")  # of symbols, and of vectors
# Arguments without a default, and those with which a rule uses more operations.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "lra_diff": {
        **{"gamma": 2.0, "num_refinements": 3, "lambda_": 0.1},
        **{"c0": 0.1, "c1": 0.1},
    },
    "lra_released": {"gamma": 2.0, "num_refinements": 2, "c": 0.1},
}

# Members of the sweep, which is two symbols long, by how they end.
LRS = {"diverged": 1e38, "solved": 2.0, "stalled": 0.0}

Values = dict[str, np.ndarray]
Group = Values | str  # arrays by name, or why there are none


def weights(task: Task) -> Params:
    """Small weights of a task, the same on every device: orthogonal W_hh."""
    draw = np.random.RandomState(0).standard_normal
    x, h, y = task.input_size, HIDDEN_SIZE, task.output_size
    found: tuple[Any, ...] = (
        draw((x, h)) / 2,
        np.linalg.qr(draw((h, h)))[0],
        draw(h) / 10,
        draw((h, y)),
        draw(y),
    )
    return Params(*(array.astype(np.float32) for array in found))


def batch(task: Task) -> Batch:
    """Inputs and labels, the same on every device."""
    random = np.random.RandomState(1)
    if task is TASKS["adding"]:
        vectors: Any = random.uniform(size=(SEQ_LEN, BATCH_SIZE, 2)).astype(np.float32)
        return Batch(vectors, vectors[0, :, 1:])
    sizes = (SEQ_LEN, BATCH_SIZE)
    symbols: Any = random.randint(task.input_size, size=sizes).astype(np.int32)
    labels: Any = random.randint(task.output_size, size=BATCH_SIZE).astype(np.int32)
    return Batch(symbols, labels)


def gradients(
    name: str, seed: Any, problems: Mapping[str, tuple[Params, Batch]]
) -> dict[str, Any]:
    """What a rule makes of each problem, by the problem's name and the weights'."""
    found: dict[str, Any] = {}
    for problem, (params, data) in problems.items():
        rule = RULES[name](
            **ARGUMENTS.get(name, {}), output_loss=TASKS[problem].output_loss
        )
        key = jax.random.key(seed, impl="threefry2x32")
        grads, _, info = rule.grads(key, params, rule.init(key, params), data)
        found |= {f"{problem}/{k}": x for k, x in grads._asdict().items()}
        found[f"{problem}/loss"] = info.loss
    return found


def draws(seed: Any) -> dict[str, Any]:
    """A batch of each task of `DRAWN`."""
    found: dict[str, Any] = {}
    for name in DRAWN:
        key = jax.random.key(seed, impl="threefry2x32")
        drawn = TASKS[name].sample(key, BATCH_SIZE, SEQ_LEN)
        found |= {f"{name}/inputs": drawn.inputs, f"{name}/labels": drawn.labels}
    return found


def initial(seed: Any) -> dict[str, Any]:
    """Initial weights."""
    key = jax.random.key(seed, impl="threefry2x32")
    return init_params(key, 6, HIDDEN_SIZE, 4)._asdict()


def evaluations(problems: Mapping[str, tuple[Params, Batch]]) -> dict[str, Any]:
    """Loss and number of errors of each problem."""
    found: dict[str, Any] = {}
    for name, (params, data) in problems.items():
        metrics = evaluate(params, data, output_loss=TASKS[name].output_loss)
        found |= {f"{name}/{k}": x for k, x in metrics._asdict().items()}
    return found


def _build(numbers: Mapping[str, Any]) -> Any:
    return RULES["bptt"](), optax.sgd(numbers["lr"])


def statuses(device: jax.Device) -> Values:
    """How the members of a small sweep end: one in each way."""
    experiment = Experiment(
        TASKS["random_permutation"],
        _build,
        seq_len=2,
        hidden_size=HIDDEN_SIZE,
        batch_size=20,
        eval_every=10,
        num_validation=20,
    )
    with jax.default_device(device):
        done = sweep.run_sweep(
            experiment,
            {"lr": np.array([*LRS.values()], np.float32)},
            seeds=np.zeros(len(LRS), np.uint32),
            limits=Limits(max_steps=200, patience=8),
            devices=[device],
        )
    return {"status": np.asarray(done.members.status)}


def values(
    device: jax.Device,
    *,
    rules: Sequence[str] = tuple(RULES),
    threads: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Group]:
    """All that is compared, computed on a device.

    Programs are lowered one after the other, and compiled by several threads. What
    fails is a text, and the others go on.
    """
    problems = {name: (weights(TASKS[name]), batch(TASKS[name])) for name in PROBLEMS}
    seed, problems = jax.device_put((np.uint32(1), problems), device)
    programs: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "draws": (draws, (seed,)),
        "initial weights": (initial, (seed,)),
        "evaluations": (evaluations, (problems,)),
    }
    for name in rules:

        def run(seed: Any, problems: Any, name: str = name) -> dict[str, Any]:
            return gradients(name, seed, problems)

        programs[name] = (run, (seed, problems))

    found: dict[str, Group] = {}
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        waiting = {}
        for name, (function, arguments) in programs.items():
            say(f"{name} on {device.platform}")
            try:
                lowered = jax.jit(function).lower(*arguments)
            except Exception as error:
                found[name] = _reason(error)
            else:
                waiting[name] = pool.submit(lowered.compile)
        for name, future in waiting.items():
            try:
                results = future.result()(*programs[name][1])
                found[name] = {k: np.asarray(x) for k, x in results.items()}
            except Exception as error:
                found[name] = _reason(error)
    say(f"a sweep on {device.platform}")
    try:
        found["statuses"] = statuses(device)
    except Exception as error:
        found["statuses"] = _reason(error)
    return found


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def cpu() -> jax.Device | None:
    """A CPU, if JAX has one beside the device that it uses."""
    if jax.default_backend() == "cpu":
        return None
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def store(path: pathlib.Path, found: Mapping[str, Group]) -> None:
    """Keeps values as a file."""
    flat: dict[str, Any] = {}
    for group, arrays in found.items():
        assert not isinstance(arrays, str), arrays
        flat |= {f"{group}/{name}": array for name, array in arrays.items()}
    np.savez_compressed(path, **flat)


def stored(path: pathlib.Path = STORED) -> dict[str, Group]:
    """The values of a file; none where it is not there."""
    found: dict[str, Values] = {}
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            for full in file.files:
                group, _, name = full.partition("/")
                found.setdefault(group, {})[name] = file[full]
    return {**found}


def compare(
    found: Mapping[str, Group], expected: Mapping[str, Group]
) -> list[dict[str, Any]]:
    """A row for each group of values.

    Returns:
      Dictionaries with `name`; `tolerance`, 0 where all has to be equal; `difference`,
      the largest, in units of its array's largest value; `passed`, None where nothing
      is known of what is expected; and `note`, where a reason can be given.
    """
    rows = []
    for name, arrays in found.items():
        tolerance = 0.0 if name in EXACT else TOLERANCES.get(name, TOLERANCE)
        row: dict[str, Any] = {"name": name, "tolerance": tolerance}
        row |= {"difference": None, "note": None}
        other = expected.get(name)
        if isinstance(arrays, str):
            row |= {"passed": False, "note": arrays}
        elif not isinstance(other, dict):
            row |= {"passed": None, "note": other or "no values of a CPU"}
        elif arrays.keys() != other.keys():
            row |= {"passed": False, "note": "other arrays than those of the CPU"}
        else:
            differences = {key: _difference(arrays[key], other[key]) for key in arrays}
            worst = max(differences, key=lambda key: differences[key])
            largest = differences[worst]
            row |= {
                # infinite where one is a number and the other is not
                "difference": largest if np.isfinite(largest) else None,
                "passed": bool(largest <= tolerance),
                "note": f"largest in {worst}" if largest > 0 else None,
            }
        rows.append(row)
    return rows


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """max |found - expected| / max |expected|; of integers 0 or infinite."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return np.inf
    if not np.issubdtype(found.dtype, np.floating):
        return 0.0 if np.array_equal(found, expected) else np.inf
    if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return np.inf
    number = np.isfinite(expected)
    if not number.any():
        return 0.0
    gap = np.abs(found[number].astype(np.float64) - expected[number]).max()
    scale = np.abs(expected[number]).max()
    return float(gap / scale) if scale else float(gap and np.inf)


def check(
    *,
    rules: Sequence[str] = tuple(RULES),
    threads: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Compares the device that JAX uses with a CPU, or with the stored values."""
    beside = cpu()
    found = values(jax.local_devices()[0], rules=rules, threads=threads, say=say)
    if beside is None:
        expected, source = stored(), STORED.name
    else:
        expected = values(beside, rules=rules, threads=threads, say=say)
        source = "a CPU in the same process"
    rows = compare(found, expected)
    passed = all(row["passed"] is not False for row in rows)
    return {"compared_with": source, "passed": passed, "rows": rows}
