# Two commands on a fresh machine with Python 3.11 and make:
#   make compare   the main job on the embedded data, ends with runs/compare/report.html
#   make test      the quick tests, in minutes; make test-all: these and the rest

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/python -m pip install -q --disable-pip-version-check

.PHONY: compare test test-all lint lock docs links bench conformance frameworks wheel clean

compare: $(INSTALLED)
	$(BIN)/flatmin compare

# One thread per process: the tests keep all cores busy as it is.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test: $(READY)
	$(PYTEST) -m "not everything" --cov --cov-report= --cov-fail-under=0

# The rest; covered lines are counted over both.
test-all: test
	$(PYTEST) -m everything --cov --cov-append --cov-report=term:skip-covered

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/codespell

# The newest versions that fit together, for an environment that can be built again.
lock:
	uv pip compile pyproject.toml --all-extras --universal \
		--python-version 3.11 --custom-compile-command "make lock" --upgrade -q \
		--output-file requirements-dev.lock

docs: $(READY)
	$(BIN)/sphinx-build -W -n -q -b html docs docs/_build/html
	$(BIN)/sphinx-build -W -n -q -b doctest docs docs/_build/doctest

# Asks every site that the documents name; needs a network.
links: $(READY)
	$(BIN)/sphinx-build -n -q -b linkcheck docs docs/_build/linkcheck

bench: $(READY)
	$(BIN)/python benchmarks/step_cost.py

conformance: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/conformance.py

frameworks: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/frameworks.py

wheel: $(READY)
	rm -rf dist build
	$(BIN)/python -m build -q
	$(PYTHON) .ci/check_wheel.py dist

# What users need, and what developers need besides.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[experiments]"
	touch $@

$(READY): $(INSTALLED)
	$(PIP) -e ".[experiments,docs,dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist docs/_build
