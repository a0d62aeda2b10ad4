# On a fresh machine, each target first installs what it needs, into the virtual environment .venv, or $(VENV) if set.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt

.PHONY: quickstart test test-all fuzz test-versions system-packages format clean

# The whole workflow on the built-in synthetic sample; about ten minutes on two cores, including installation.
quickstart: $(VENV)/installed
	$(BIN)/python examples/quickstart.py

# Formatting, type checks and tests; under twelve minutes on two cores. There are more processes than cores because some
# tests mostly wait.
PYTEST := pytest -q --numprocesses 4 --no-loadscope-reorder

test: $(VENV)/installed-dev system-packages
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/$(PYTEST) -m 'not exhaustive'

# All tests, including those marked exhaustive, which repeat the check of another test in one more variant.
test-all: $(VENV)/installed-dev system-packages
	$(BIN)/$(PYTEST)

# Run the fuzz and hypothesis tests on new random examples, twenty times as many as `make test`. A failure is printed
# with its seed; add it to its test as an @example.
SEED := $(or $(SEED),$(shell date +%s))

fuzz: $(VENV)/installed-dev
	@echo 'seed $(SEED); to repeat these examples: make fuzz SEED=$(SEED)'
	$(BIN)/$(PYTEST) -m 'hypothesis or fuzz' --timeout 3600 --hypothesis-profile fresh --hypothesis-seed $(SEED)

# Run the tests with other versions of Python, torch, Triton and numpy. Each file in tests/versions is a set of versions
# with its own environment in .versions, which takes 6 to 7 GB because its torch is built for CUDA.
# `make test-torch-2.9` runs a single set.
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

# The first pin of a package counts, so the version file overrides constraints.txt.
.versions/%.txt: tests/versions/%.txt constraints.txt
	mkdir -p .versions
	awk -F== '!seen[$$1]++' $^ > $@

# The programs that tests start: root installs the missing ones; for other users they are only listed.
system-packages:
	@tests/system_packages.sh

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Install torch first, with the pinned version: pip's own choice would download gigabytes of CUDA libraries on a machine
# without a GPU.
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
