# Everything a fresh machine needs is done by the first target that needs it. The environment is made in .venv, or in $(VENV).
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt

.PHONY: quickstart test test-all fuzz test-versions system-packages format clean

# The main job on the built-in synthetic sample: about ten minutes on two cores, installing included.
quickstart: $(VENV)/installed
	$(BIN)/python examples/quickstart.py

# Formatting, types and the tests: under twelve minutes on two cores. Some tests wait, so that there are more processes than cores.
PYTEST := pytest -q --numprocesses 4 --no-loadscope-reorder

test: $(VENV)/installed-dev system-packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/$(PYTEST) -m 'not exhaustive'

# Those that are left out above as well, one more of a kind each.
test-all: $(VENV)/installed-dev system-packages
	$(BIN)/$(PYTEST)

# New random examples, twenty times as many as the tests try. What fails is printed with its seed and becomes an
# @example of its test.
SEED := $(or $(SEED),$(shell date +%s))

fuzz: $(VENV)/installed-dev
	@echo 'seed $(SEED); for the same examples again: make fuzz SEED=$(SEED)'
	$(BIN)/$(PYTEST) -m 'hypothesis or fuzz' --timeout 3600 --hypothesis-profile fresh --hypothesis-seed $(SEED)

# The tests with other versions of Python, torch, Triton and numpy. Each file in tests/versions names a set, whose environment of
# 6 to 7 GB, because torch comes built for CUDA, is made in .versions. `make test-torch-2.9` takes one set alone.
VERSIONS := $(patsubst tests/versions/%.txt,%,$(wildcard tests/versions/*.txt))

test-versions: $(VERSIONS:%=test-%)

$(VERSIONS:%=test-%): test-%: .versions/%.txt system-packages
	@wanted=$$(sed -n '1s/^# Python //p' tests/versions/$*.txt); \
	for python in python$$wanted $$HOME/.pyenv/versions/$$wanted.*/bin/python; do \
		if $$python --version >/dev/null 2>&1; then break; fi; python=; \
	done; \
	if [ -z "$$python" ]; then echo "$*: Python $$wanted is not installed" >&2; exit 1; fi; \
	$(MAKE) .versions/$*/installed-dev VENV=.versions/$* PYTHON=$$python CONSTRAINTS=$<
	.versions/$*/bin/$(PYTEST)

# The first pin of a package counts.
.versions/%.txt: tests/versions/%.txt constraints.txt
	mkdir -p .versions
	awk -F== '!seen[$$1]++' $^ > $@

# What the tests start for themselves: installed by root, named to anyone else.
system-packages:
	@tests/system_packages.sh

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# torch first and pinned by the constraints: left to itself, pip would take gigabytes of CUDA on a machine without a GPU.
$(VENV)/installed: setup.cfg pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) torch
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .versions runs shards/sample shards/sample-npz .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
