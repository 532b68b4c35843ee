# Each target sets up what it needs: a virtual environment in .venv, made once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test slow lint docs wheel-test clean

demo: .venv/installed
	$(BIN)/python -m experiments.grid --config configs/demo.toml --out runs/demo --resume

test: .venv/installed
	$(BIN)/python -m pytest -n 2
	JAX_ENABLE_X64=1 $(BIN)/python -m pytest -n 2

# What is too long for every change: the smallest budget of the whole reproduction, and more.
slow: .venv/installed
	$(BIN)/python -m pytest -m slow
	JAX_ENABLE_X64=1 $(BIN)/python -m pytest -n 2 -m slow

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
	rm -rf dist build/wheel-test && mkdir -p build/wheel-test/empty
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv build/wheel-test/venv
	build/wheel-test/venv/bin/pip install --quiet dist/*.whl
	cd build/wheel-test/empty && ../venv/bin/python - < ../../../examples/train_step.py
	cd build/wheel-test/empty && ../../../$(BIN)/mypy --strict --config-file /dev/null \
		--python-executable ../venv/bin/python ../../../tests/outside/user.py

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist
