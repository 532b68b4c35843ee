"""What may import what, and what the library must not do, read from its sources."""

import ast
import inspect
from pathlib import Path

import pytest

import lra_jax

ROOT = Path(lra_jax.__file__).parent.parent
LAB = ROOT / "lra_jax/lab"
PATHS = [p for p in sorted((ROOT / "lra_jax").rglob("*.py")) if LAB not in p.parents]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): ast.parse(path.read_text("utf8")) for path in PATHS}

# What each module of the library may import of it; a package stands for its modules.
LAYERS = [
    {"types", "settings", "symbols"},
    {"numerics", "devices", "refinements"},
    {"matrices", "regularizer"},
    {"networks"},
    {"losses", "rnn"},
    {"feedback"},
    {"gradients", "targets", "error_signals"},
    {"influence"},
    {"eligibility"},
    {"rules"},
]
LIBRARY = {
    name: set().union(*LAYERS[:level]) | (layer - {name})
    for level, layer in enumerate(LAYERS)
    for name in layer
}
ALLOWED = LIBRARY | {
    "networks": LIBRARY["networks"] | {"networks"},
    "rules": LIBRARY["rules"] | {"rules"},
    "paper": LIBRARY["rules"] | {"rules", "paper"},
    "tasks": {"types", "settings", "losses", "tasks"},
    "train": {"types", "settings", "devices", "losses", "networks", "rnn"},
    "validation": {"types", "settings"},
    "experiment": {
        *("types", "networks", "settings", "losses", "rnn", "train", "tasks"),
        "validation",
    },
    "member": {"types", "settings", "train", "validation", "experiment"},
    "diagnostics": LIBRARY["rules"] | {"rules", "tasks"},
    "predictions": {"types", "networks", "losses", "rnn", "tasks"},
    "orthogonality": {"types", "settings", "numerics", "networks"},
    "flax_model": {"types"},
    "tiles": {"settings"},
    "sweep": {"types", "settings", "experiment", "member", "tiles", "sweep"},
}

all_modules = pytest.mark.parametrize("name", MODULES)
parts = pytest.mark.parametrize("name", [name for name in MODULES if "." in name])


def imported(tree):
    """Full names of all that a module imports, its names included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_parts(name):
    """The direct parts of lra_jax that a module imports."""
    return {
        full.split(".")[1]
        for full in imported(MODULES[name])
        if full.startswith("lra_jax.")
    }


def attributes(tree):
    """All dotted names that occur, as text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            yield ast.unparse(node)
    yield from imported(tree)


@all_modules
def test_the_library_never_imports_the_lab_or_the_experiments(name):
    for full in imported(MODULES[name]):
        assert full.split(".")[0] != "experiments"
        assert not full.startswith("lra_jax.lab")


@parts
def test_imports_follow_the_direction_of_dependencies(name):
    part = name.split(".")[1]
    assert part in ALLOWED, "a new module: say above what it may import"
    # The table of the rules has the paper's rule too.
    above = {"paper"} if name == "lra_jax.rules" else set()
    assert imported_parts(name) <= ALLOWED[part] | above


def test_of_the_rules_the_paper_reads_arguments_and_cards_alone():
    for name, tree in MODULES.items():
        if name.startswith("lra_jax.paper"):
            read = {full for full in imported(tree) if full.startswith("lra_jax.rules")}
            assert read <= {"lra_jax.rules.arguments", "lra_jax.rules.card"}, name


def test_imports_have_no_cycles():
    full_names = {
        name: {
            module
            for full in imported(MODULES[name])
            for module in MODULES
            if full == module or full.startswith(f"{module}.")
        }
        - {name}
        for name in MODULES
    }
    # A package imports its modules, which may import the package's other modules.
    packages = {module_name(p) for p in PATHS if p.name == "__init__.py"}
    graph = {n: found - packages for n, found in full_names.items()}
    while graph:
        leaves = [name for name, found in graph.items() if not found & set(graph)]
        assert leaves, f"a cycle among {sorted(graph)}"
        for name in leaves:
            del graph[name]


def test_training_imports_no_rule():
    training = ("lra_jax.train", "lra_jax.member", "lra_jax.sweep")
    names = [name for name in MODULES if name.startswith(training)]
    assert len(names) > len(training)
    for name in names:
        assert "rules" not in imported_parts(name)


def test_only_the_sweep_has_a_grid_axis():
    mapping = {"vmap", "pmap", "shard_map"}
    having = {
        name
        for name, tree in MODULES.items()
        if mapping & {text.split(".")[-1] for text in attributes(tree)}
    }
    # A decomposition says what a map of it is: one at a time, or all at once.
    # A network's functions are for one step: `over_time` maps them over all, as does a
    # mirror that learns from them. RTRL pushes each weight's influence ahead.
    assert having == {
        "lra_jax.sweep.program", "lra_jax.matrices", "lra_jax.networks.network",
        "lra_jax.feedback", "lra_jax.influence",
    }  # fmt: skip


@all_modules
def test_the_library_does_no_input_output_and_has_no_clock(name):
    builtins = {"print", "open", "input", "breakpoint", "exec", "eval"}
    texts = set(attributes(MODULES[name]))
    assert not builtins & texts
    packages = {full.split(".")[0] for full in imported(MODULES[name])}
    assert not packages & {"time", "datetime", "os", "io", "pathlib", "logging"}
    assert not packages & {"sys", "shutil", "subprocess", "random", "pickle"}
    debugging = {t for t in texts if t.startswith(("jax.debug", "jax.experimental"))}
    # Processes that share a sweep decide together.
    assert debugging <= {"jax.experimental.multihost_utils"}


@all_modules
def test_the_library_never_changes_the_configuration(name):
    texts = set(attributes(MODULES[name]))
    assert not {t for t in texts if t.endswith(("config.update", "environ"))}
    stored = {
        ast.unparse(node)
        for node in ast.walk(MODULES[name])
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    assert not {t for t in stored if "config" in t}


@all_modules
def test_the_library_draws_no_global_randomness(name):
    assert not {t for t in attributes(MODULES[name]) if t.startswith("np.random")}


@all_modules
def test_every_module_says_what_it_is(name):
    docstring = ast.get_docstring(MODULES[name])
    assert docstring
    assert docstring.splitlines()[0].endswith((".", ":"))


@pytest.mark.parametrize("name", lra_jax.__all__)
def test_every_public_function_and_type_has_a_docstring(name):
    value = getattr(lra_jax, name)
    if inspect.isfunction(value) or inspect.isclass(value):
        first = (inspect.getdoc(value) or "").splitlines()[0]
        # A NamedTuple without one gets its signature for a docstring.
        assert not first.startswith(f"{name}(")
        assert len(first) > 10


@all_modules
def test_every_public_function_and_class_of_a_module_has_a_docstring(name):
    for node in MODULES[name].body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
            assert ast.get_docstring(node), node.name


# The rooms of the lab, and of the experiments; each imports those before it.
ROOMS = ["terminal", "data", "config", "reports", "runs", "flow", "benches"]
EXPERIMENTS = ["paper", "speed", "accelerator", "site"]


def room_of(full):
    """The room that a module, or a name of one, belongs to; None outside of rooms."""
    for package, rooms in (("lra_jax.lab.", ROOMS), ("experiments.", EXPERIMENTS)):
        name = full.removeprefix(package).split(".")[0]
        if full.startswith(package) and name in rooms:
            return name
    return None


def test_the_rooms_are_those_that_there_are():
    for folder, rooms in ((LAB, ROOMS), (ROOT / "experiments", EXPERIMENTS)):
        assert {p.parent.name for p in folder.glob("*/__init__.py")} == {*rooms}


@pytest.mark.parametrize("room", ROOMS + EXPERIMENTS)
def test_a_room_imports_only_those_before_it(room):
    order = ROOMS + EXPERIMENTS
    before = order[: order.index(room) + 1]
    folder = LAB / room if room in ROOMS else ROOT / "experiments" / room
    for path in folder.rglob("*.py"):
        for full in imported(ast.parse(path.read_text("utf8"))):
            if full.startswith(("lra_jax.lab", "experiments")):
                assert room_of(full) in before, (path.name, full)


def test_the_lab_never_imports_the_experiments():
    for path in LAB.rglob("*.py"):
        packages = {
            x.split(".")[0] for x in imported(ast.parse(path.read_text("utf8")))
        }
        assert "experiments" not in packages, path.name
