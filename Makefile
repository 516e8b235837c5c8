# Needs make and any Python >= 3.11. Everything else is installed into .venv, by tools/environment.py, when it is missing.

.DEFAULT_GOAL := help
.PHONY: help run test check format coverage bench clean

# The first one that really runs: a version manager's shim may exist and fail.
PYTHON = $(shell for candidate in python3.13 python3.12 python3.11 python3; do \
	if $$candidate -c 'import ensurepip, sqlite3, ssl, sys, venv; assert sys.version_info >= (3, 11)' >/dev/null 2>&1; \
	then command -v $$candidate; break; fi; done)
ENVIRONMENT = @python="$(PYTHON)"; "$${python:?no Python >= 3.11 with venv and sqlite3 was found, name one with PYTHON=...}" tools/environment.py

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

run: ## watch a demo scheduler at work; ARGS="--for 20" ends it after 20 seconds
	$(ENVIRONMENT)
	@.venv/bin/python -m clepsydra demo $(ARGS)

test: ## run the tests; ARGS="-k timeline", ARGS=--long, ... are handed to pytest
	$(ENVIRONMENT) dev
	@.venv/bin/python -m pytest $(ARGS)

check: ## formatting, lint, types, docstring examples, contents of the wheel; ARGS="mypy pyright" for some of them
	$(ENVIRONMENT) dev
	@.venv/bin/python tools/check.py $(ARGS)

format: ## put the code into shape, and mend what the linter can mend
	$(ENVIRONMENT) dev
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

coverage: ## run the tests and list the lines that none of them reaches
	$(ENVIRONMENT) dev
	@.venv/bin/coverage run -m pytest $(ARGS)
	@.venv/bin/coverage report --show-missing --skip-covered

bench: ## measure beside the peers, into docs/performance/; ARGS="fan_out drain --rounds 7" for some questions, ARGS=--list
	$(ENVIRONMENT) bench
	@.venv/bin/python benchmarks $(ARGS)

clean: ## remove the environment and everything else that was made here
	rm -rf .venv build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
