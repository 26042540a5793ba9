# All that people and CI do here. To begin, a fresh Debian 12 with make and git is enough: as root, `make demo`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
BIN := .venv/bin

.PHONY: help setup demo test lint types docs bench lock clean

help: ## Say what there is
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

setup: ## Install the Debian packages, .venv and the engines' roots; quick when they are there
	@tools/packages.sh
	@tools/venv.sh
	@tools/engine.sh
	@SUITE=bookworm ENGINE=.engine7 tools/engine.sh

demo: setup ## Compile topology.yaml, prove it for all packets, bring it up as a lab and hold its firewalls against it
	$(BIN)/netpolicy check topology.yaml
	$(BIN)/netpolicy compile topology.yaml --out build
	$(BIN)/netpolicy prove topology.yaml --build build
	$(BIN)/netpolicy conform topology.yaml --build build --report out

test: setup ## Run the tests of the toolkit itself
	$(BIN)/pytest --numprocesses auto --no-loadscope-reorder --durations 10

lint: setup ## Check style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: setup ## Check types
	$(BIN)/mypy

docs: setup ## Generate what is generated in docs/, and fail if that changed anything
	$(BIN)/python tools/docs.py

bench: setup ## Run every benchmark
	@for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python "$$benchmark"; done

lock: ## Renew requirements.lock from pyproject.toml
	tools/lock.sh

clean: ## Remove all that was made here
	rm -rf .venv .engine .engine7 .setuptools build out .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
