# Two commands on a fresh machine with Python 3.11 and make:
#   make compare   the main job on the embedded data, ends with runs/compare/report.html
#   make test      the tests

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: compare test lint docs bench conformance wheel clean

compare: $(READY)
	$(BIN)/flatmin compare

# One thread per process: the tests keep all cores busy as it is.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term:skip-covered

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

docs: $(READY)
	$(BIN)/sphinx-build -W -n -q -b html docs docs/_build/html
	$(BIN)/sphinx-build -W -n -q -b doctest docs docs/_build/doctest

bench: $(READY)
	$(BIN)/python benchmarks/step_time.py

conformance: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/conformance.py

wheel: $(READY)
	rm -rf dist build
	$(BIN)/python -m build -q
	$(PYTHON) .ci/check_wheel.py dist

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[experiments,docs,dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist docs/_build
