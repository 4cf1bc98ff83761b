# Every target that needs it sets the checkout up first: `make test` works from a fresh clone.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; exit; }; done; echo python3)
BIN := .venv/bin
ARGS ?=
# Most of the tests' time is waiting for guests and leases: two files of tests run at a time. WORKERS=0: one after the other.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help setup proto fmt check test test-long bench run demo clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what is missing, make the virtual environment and the stubs
	@$(PYTHON) -m scripts.setup

proto: setup ## Generate the Python stubs from protos/ (only when they changed)
	@$(BIN)/python -m scripts.proto

fmt: setup ## Format Python and protos
	@$(BIN)/ruff check --quiet --fix-only . && $(BIN)/ruff format . && $(BIN)/python -m scripts.check --fix

check: setup ## Lint, types, import contracts, contract of the API: exactly what CI runs before the tests
	@$(BIN)/python -m scripts.check

test: setup ## Run the tests (all but the long ones); ARGS='-k name' is passed on to pytest
	@$(PYTEST) -m "not long" $(ARGS)

test-long: setup ## Run the long tests too
	@$(PYTEST) $(ARGS)

bench: setup ## Run the benchmarks; ONLY=<prefix> selects some
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY)) $(ARGS)

run: setup ## Start a whole cloud on this machine (moln dev up); ARGS='--sim-hosts 10' is passed on
	@$(BIN)/moln dev up $(ARGS)

demo: setup ## Three guests from nothing to running and back, explained in plain words
	@$(BIN)/python -m services.devstack.demo $(ARGS)

clean: ## Remove what was built: virtual environment, stubs, caches (a stack's state folder stays)
	@rm -rf .venv protos/gen .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	@rm -rf examples/*/gen examples/node/node_modules examples/go/moln-client
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
