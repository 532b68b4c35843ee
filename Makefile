# Each target sets up what it needs: a virtual environment in .venv, made once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test end-to-end slow lint docs wheel-test compat compat-short notebooks clean

demo: .venv/installed
	$(BIN)/python -m experiments.grid --config configs/demo.toml --out runs/demo --resume

# Both halves, float32 and float64, whatever the first says.
test: .venv/installed
	@status=0; set -x; \
	$(BIN)/python -m pytest -n 2 --dist loadfile || status=1; \
	JAX_ENABLE_X64=1 $(BIN)/python -m pytest -n 2 --dist loadfile || status=1; \
	exit $$status

# Whole commands, the code of all pages, the examples of all docstrings, the notebooks.
end-to-end: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "end_to_end and not slow and not faults"

# What is too long for every change: the smallest budget of the whole reproduction, and more.
slow: .venv/installed
	@status=0; set -x; \
	$(BIN)/python -m pytest -m slow || status=1; \
	JAX_ENABLE_X64=1 $(BIN)/python -m pytest -n 2 -m slow || status=1; \
	exit $$status

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation site, build/docs/index.html; a warning is an error.
docs: .venv/installed
	$(BIN)/python -m sphinx -W --keep-going -n docs build/docs

# The installed wheel, from an empty folder, in an environment of its own: it runs, and its
# types are seen from outside.
wheel-test: .venv/installed
	rm -rf dist build/lib build/bdist.* build/wheel-test && mkdir -p build/wheel-test/empty
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv build/wheel-test/venv
	build/wheel-test/venv/bin/pip install --quiet dist/*.whl
	cd build/wheel-test/empty && ../venv/bin/python - < ../../../examples/train_step.py
	cp tests/outside/small.toml build/wheel-test/empty/my.toml
	cd build/wheel-test/empty && rm -rf runs && ../venv/bin/lra-jax grid --config my.toml
	cd build/wheel-test/empty && ../venv/bin/lra-jax grid --config my.toml --resume
	cd build/wheel-test/empty && ../venv/bin/lra-jax report runs/my --format csv
	cd build/wheel-test/empty && ../../../$(BIN)/mypy --strict --config-file /dev/null \
		--python-executable ../venv/bin/python ../../../tests/outside/user.py

# The oldest supported packages and the newest, and Colab's: see .ci/compat.py. The short
# form runs a part of the tests with the oldest and with the newest.
compat:
	$(PYTHON) .ci/compat.py oldest newest colab

compat-short:
	$(PYTHON) .ci/compat.py oldest newest --short

# Runs the notebooks, and stores what they show.
notebooks: .venv/installed
	$(BIN)/python .ci/notebooks.py

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist
