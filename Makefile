# What one does with this project. Each target makes what it needs, in environments of the project's own (.venv*).
# Logic longer than a few lines is in tools/.

PYTHON ?= python3
SECONDS ?= 10
# Passed on to pytest: make test TESTS="tests/cli -k port"
TESTS ?= tests
# How many tests run side by side; 0 runs them one after another, in one process.
export WORKERS ?= 4
# Passed on to pytest: make doors DOORS="tests/doors -k gunicorn"
DOORS ?= tests/doors
# Passed on to tools/test_all.py: make test-all ALL="--only 3.12 3.15"
ALL ?=

VENV := .venv
BIN := $(VENV)/bin
ENVIRONMENT := $(PYTHON) tools/environment.py $(VENV)

# Where tools/parts.py puts the programs that this machine does not have.
export PATH := $(PATH):$(CURDIR)/.parts/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help docs fields doors demo stack test parts test-all conformance bench lint dashboards pictures format wheel clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name what; do \
	  printf '  %-18s %s\n' "$$name" "$$what"; done
	@echo
	@echo '  PYTHON=python3.13 chooses the interpreter (3.11 to 3.15), SECONDS=10 the length of the demo.'

demo: ## a FastAPI application on an observed loop, with requests: what blocks it, and where
	@$(ENVIRONMENT) demo
	@$(BIN)/python demo/run.py --seconds $(SECONDS)

stack: ## the demo with Prometheus, Grafana, Alertmanager, collector and traces, in containers (needs docker compose)
	@docker compose -p obsloop -f deploy/compose.yaml up --build

test: ## every test, on this machine's interpreter
	@$(ENVIRONMENT) test clients
	@$(PYTHON) tools/parts.py
	@$(PYTHON) tools/phoenix.py
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(TESTS)

parts: ## the programs that the tests need and this machine does not have, unpacked into .parts; nothing is installed
	@$(ENVIRONMENT) test
	@$(PYTHON) tools/parts.py

# tests/clients only on this machine's interpreter: the others get no clients (tools/test_all.py says so in their runs).
test-all: ## tests and conformance on every interpreter that is found, on both cores, and a table
	@$(ENVIRONMENT) test clients
	@$(PYTHON) tools/parts.py
	@$(PYTHON) tools/phoenix.py
	@$(PYTHON) tools/test_all.py $(ALL)

# In an environment of its own: pyproject.toml says why.
doors: ## real servers through kills and reloads, and tools that change asyncio (about four minutes)
	@$(PYTHON) tools/environment.py $(VENV)-doors test clients doors
	@$(PYTHON) tools/parts.py
	@$(VENV)-doors/bin/python -m pytest $(DOORS)

conformance: ## CPython's own asyncio tests on our loop, on this machine's interpreter
	@$(ENVIRONMENT) test
	@$(BIN)/python tests/conformance/run.py

bench: ## CPU time against the stock loop and uvloop, and the reports; fails where BENCHMARKS.md was better (half an hour; QUICK=1: 3 minutes)
	@$(ENVIRONMENT) test
	@$(BIN)/python -m tests.bench --limits $(if $(QUICK),--quick) $(if $(WRITE),--write)

lint: ## linter, format, types by two checkers in strict mode, and whether generated files are fresh
	@$(ENVIRONMENT) lint test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/python tools/fields.py --check
	@$(BIN)/python dashboards/build.py --check
	@$(PYTHON) deploy/build.py --check

fields: ## write the compiled core's counters from the table in obsloop/metrics/counters.py
	@$(PYTHON) tools/fields.py

docs: ## the API reference from the docstrings, as HTML in build/api; a warning is an error
	@$(ENVIRONMENT) docs
	@$(BIN)/python tools/api.py build/api

dashboards: ## make dashboards/generated from the catalogue and dashboards/config.py, and what Kubernetes gets of it
	@$(ENVIRONMENT) test
	@$(BIN)/python dashboards/build.py
	@$(PYTHON) deploy/build.py

# Needs chromium, node, npm and prometheus; not part of the CI.
pictures: ## draw the dashboards from live data in headless Chromium (6 minutes), and keep the README's two
	@$(ENVIRONMENT) pictures
	@$(BIN)/python tools/pictures/make.py

format: ## let ruff format the code and mend what it can
	@$(ENVIRONMENT) lint
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

wheel: ## build the wheel, and try it in an empty environment, away from the checkout
	@$(ENVIRONMENT) test
	@$(BIN)/python tools/try_wheel.py dist

clean: ## remove what the other targets made, interpreters and environments included
	rm -rf .venv .venv-* .pythons .parts .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist tests/bench/results tools/pictures/node_modules obsloop/hotpath/compiled/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
