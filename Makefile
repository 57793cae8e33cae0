# `make` alone prints the help. Everything a target needs, it sets up itself: see .ci/setup.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Seeds the simulator plays; what runs by default is what has to pass.
SIM_SEEDS ?= 20000
# What `make test` runs, in this order: parts of this Makefile named test-…, or lint.
STEPS ?= rust behaviour python soak examples

CARGO ?= cargo
VENV := $(CURDIR)/.venv
PY := .venv/bin/python
TOOLS := .venv/.tools
BUILT := .venv/.dlock

# The caller's Python, pip and dlock settings are not ours: tests and demo see the same world everywhere.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE CONDA_PREFIX PIP_TARGET PIP_PREFIX PIP_USER
unexport PYTEST_ADDOPTS PYTEST_PLUGINS MYPYPATH
$(foreach name,$(filter DLOCK_%,$(.VARIABLES)),$(eval unexport $(name)))
export VIRTUAL_ENV := $(VENV)
export PYO3_PYTHON := $(VENV)/bin/python
export PROTOC := $(VENV)/bin/protoc

.PHONY: help setup build demo test test-rust test-sim test-behaviour test-python test-soak test-examples lint fmt bench clean

##@ To begin with
help: ## This page.
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ /  { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 } \
	  /^##  /  { printf "%24s%s\n", "", substr($$0, 5) }' $(firstword $(MAKEFILE_LIST))
	@printf '\nNeeded: Linux or macOS, Rust %s or newer, Python 3.10 or newer, a C compiler, make. The rest goes into\n' \
	  "$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"
	@printf '.venv and target, both of this folder. Missing Debian packages are installed only by root with apt; else named.\n'
	@printf 'Times are for two cores: the first number after a fresh clone, the second when nothing changed.\n\n'

demo: $(BUILT) ## See it work: four processes, one counter, without and with the lock.
##  Needs no server. 2 min, then 5 s.
	@$(PY) examples/demo.py

test: $(BUILT) ## Every test: Rust, simulator, behaviours in every language, Python, soak, examples.
##  Starts the servers it needs. 12 min, then 9 min. Closes with the sum of what passed and failed.
	@$(PY) .ci/steps.py $(patsubst test-lint,lint,$(addprefix test-,$(STEPS)))

##@ While working
setup: ## Toolchain check, missing packages, .venv with the pinned tools.
##  Every other target does it when needed. 30 s, then 1 s.
	@.ci/setup && touch $(TOOLS)

build: $(BUILT) ## The Python extension, optimised, into .venv (`.venv/bin/python` imports dlock).
##  2 min, then nothing.

lint: $(BUILT) ## rustfmt, clippy, rustdoc, ruff, mypy --strict, stubs against the built module.
##  1 min, then 10 s. Changes nothing.
	@.ci/lint

fmt: $(TOOLS) ## Formats Rust and Python, and repairs what ruff can.
	$(CARGO) fmt --all
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format --quiet .

bench: export CARGO_TARGET_DIR := $(CURDIR)/target
bench: $(BUILT) ## The workloads beside their raw baselines, as a table of ratios.
##  5 min on a quiet machine; figures of a busy one mean nothing.
	$(CARGO) build --release -p dlock-harness
	$(PY) tests/bench/bench.py

clean: ## Removes target, .venv and all caches; the next target builds anew.
	$(CARGO) clean
	rm -rf .venv dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f bindings-python/python/dlock/_dlock*.so
	find examples tests bindings-python -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Parts of `make test`
test-rust: $(TOOLS) ## Unit and core tests, doc tests, the simulator with SIM_SEEDS=20000, faults done to a Redis.
	DLOCK_SIM_SEEDS=$(SIM_SEEDS) $(CARGO) test --workspace --exclude dlock-python --no-fail-fast

test-sim: $(TOOLS) ## The simulator alone; `make test-sim SIM_SEEDS=100000` to look longer.
	DLOCK_SIM_SEEDS=$(SIM_SEEDS) $(CARGO) test -p dlock-core --test sim -- --nocapture

test-behaviour: $(BUILT) ## The texts in tests/cases through every language and backend, as a table.
	$(CARGO) run -p dlock-harness --bin dlock-suite -- --python $(PY)

test-python: $(BUILT) ## What only exists in Python: the lock protocol, asyncio, signals, fork, exits.
	$(PY) -m pytest tests/python

test-soak: $(BUILT) ## Processes of every language share locks on a Redis that fails; what they did is checked.
	$(CARGO) run -p dlock-harness --bin dlock-soak -- --python $(PY) --url redis --operations 20000 --faults 500 --shards 5 --slack 200ms

test-examples: $(BUILT) ## Everything in examples/ and the README's Python, run as a reader would.
	$(PY) .ci/examples.py

# Whatever isn't whole is made again: a .venv that was moved or lost its Python, a module that was deleted.
ifeq ($(shell test "$$(cat .venv/.home 2>/dev/null)" = '$(CURDIR)' && env -u PYTHONHOME .venv/bin/python -c 'print(1)' 2>/dev/null),)
.PHONY: $(TOOLS)
endif
ifeq ($(wildcard bindings-python/python/dlock/_dlock*.so),)
.PHONY: $(BUILT)
endif

$(TOOLS): requirements-dev.txt .ci/setup
	@.ci/setup && touch $@

# The package itself is installed as a link, so a change of a .py or .pyi needs no build.
RUST := $(shell find core/src bindings-python/src -type f 2>/dev/null)
$(BUILT): $(TOOLS) $(RUST) Cargo.toml $(wildcard Cargo.lock) core/Cargo.toml bindings-python/Cargo.toml pyproject.toml
	@echo "building the extension (optimised, so that demo and tests share it)"
	.venv/bin/maturin develop --release
	@touch $@
