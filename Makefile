# Everything a fresh machine needs is done by the first target that needs it. The environment is made in .venv, or in $(VENV).
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: quickstart test format clean

# The main job on the built-in synthetic sample: about ten minutes on two cores, installing included.
quickstart: $(VENV)/installed
	$(BIN)/python -m launch.quickstart

# Formatting, types, and every test.
test: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# torch first and pinned by the constraints: left to itself, pip would take gigabytes of CUDA on a machine without a GPU.
$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs shards/sample shards/sample-npz .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
