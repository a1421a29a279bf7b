# Everything is installed into .venv from hash-locked files; `make` alone lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PACKAGES := server clients common simulations
# Extras stay in the lock files: pip before 23.3 installs the newest `coverage[toml]`, not the pinned `coverage`.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url \
	--generate-hashes --no-header --no-annotate --no-strip-extras
FIND_PYTHON := for python in python3.13 python3.12 python3.11 python3; do \
	"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null && break; \
	python=; done; \
	if [ -z "$$python" ]; then \
	echo "shoal needs Python 3.11, 3.12 or 3.13 (TensorFlow and Ray have no packages for others);" >&2; \
	echo "found: $$(python3 --version 2>&1 || true). Install one, e.g. apt-get install python3.11 python3.11-venv" >&2; \
	exit 1; fi

.PHONY: help run pilot-demo test test-fast check bench lock docs proto wheel wheel-test install install-dev chromium clean

help: ## show this help
	@echo "make TARGET, where TARGET is"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: install ## train medical-thyroid, compare with local and pooled training, print the path of the report
	$(BIN)/shoal run medical-thyroid --compare

pilot-demo: install-dev ## run a server and three sites over mutual TLS, kill one, compare with the simulation
	$(BIN)/python -m benchmarks.pilot_demo

test: check chromium ## check, then run all tests with coverage
	rm -f .coverage .coverage.*
	$(BIN)/python -m pytest --cov --cov-report=term --durations=15

# Two processes for two cores, of about the same length: compiling models takes half of the time.
FAST := $(BIN)/python -m pytest -q -m "not slow"
COMPILING := tests/unit/test_trainer.py tests/unit/test_private_sgd.py

test-fast: install-dev ## a first look at a change: all but slow tests and, of whole runs, one; no Ray
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; status=0; \
	$(FAST) $(COMPILING) tests/contract tests/meta > "$$log" 2>&1 & other=$$!; \
	$(FAST) tests/unit tests/property tests/integration/test_run.py::test_what_a_run_leaves_behind \
		$(addprefix --ignore=,$(COMPILING)) || status=$$?; \
	wait "$$other" || status=$$?; cat "$$log"; exit "$$status"

check: install-dev ## lint, formatting, types, import contracts and structure
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q --no-header tests/meta/test_structure.py

bench: install-dev ## run all benchmarks (an hour) or one of them (BENCH=NAME)
	$(BIN)/python -m benchmarks $(or $(BENCH),all)
	$(BIN)/python -m benchmarks.plots
	$(BIN)/python -m benchmarks.page

lock: install-dev ## update the lock files (needs a package index)
	$(LOCK) --group dev --all-extras pyproject.toml -o requirements/dev.txt
	$(LOCK) -c requirements/dev.txt --group editable pyproject.toml -o requirements/run.txt

docs: install ## generate docs/config.md, docs/cli.md, docs/errors.md, docs/messages.md
	$(BIN)/python -m shoal.simulations.cli.reference_pages docs

proto: install-dev ## generate common/wire/wire_pb2.py from wire.proto
	$(BIN)/python -m grpc_tools.protoc -I common/wire --python_out=common/wire --pyi_out=common/wire \
		common/wire/wire.proto

wheel: install-dev ## build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m build --wheel --outdir dist . > /dev/null

wheel-test: wheel ## run the built wheel in a clean environment, outside the repository
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(BIN)/python -m venv "$$folder/venv"; \
	"$$folder/venv/bin/python" -m pip --disable-pip-version-check install --quiet --require-hashes \
		-r requirements/run.txt; \
	"$$folder/venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps \
		dist/*.whl; \
	cd "$$folder" && venv/bin/shoal run medical-thyroid --rounds 2; \
	echo "wheel-test: the installed wheel ran two rounds outside the repository"

install: .venv/.run

install-dev: .venv/.dev

.venv/.python:
	@$(FIND_PYTHON); \
	echo "making .venv with $$("$$python" --version)"; \
	if ! "$$python" -c 'import venv, ensurepip' 2> /dev/null; then \
	echo "$$python lacks venv or ensurepip. On Debian: apt-get install python3-venv" >&2; exit 1; fi; \
	"$$python" -m venv .venv
	@touch $@

.venv/.run: .venv/.python requirements/run.txt pyproject.toml
	@echo "installing the locked packages; the first time takes a few minutes"
	$(PIP) install --quiet --require-hashes -r requirements/run.txt
	$(PIP) install --quiet --no-deps --editable .
	@touch $@

# The dev lock contains everything in the run lock, at the same versions.
.venv/.dev: .venv/.python requirements/dev.txt pyproject.toml
	$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	$(PIP) install --quiet --no-deps --editable .
	@touch .venv/.run $@

# Only the screenshot test of the report needs a browser; without one, it is skipped with a note.
chromium:
	@command -v chromium > /dev/null || command -v google-chrome > /dev/null || { \
	sudo=; [ "$$(id -u)" = 0 ] || sudo="sudo -n"; \
	command -v apt-get > /dev/null && $$sudo apt-get update -qq > /dev/null 2>&1 \
	&& DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq chromium fonts-noto-cjk > /dev/null 2>&1; } \
	|| echo "note: no chromium here, and it could not be installed: the screenshot test is skipped"

clean: ## remove .venv, caches and builds (not runs/)
	rm -rf .venv dist build htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache \
		.hypothesis .import_linter_cache *.egg-info
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +
