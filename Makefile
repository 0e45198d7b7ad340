# Every target makes what it needs: the first call builds .venv from the pinned requirements, later calls start at once.
#   PYTHON=python3.12    the interpreter that .venv is made with (3.11 or newer)
#   TORCH=cpu            take PyTorch's CPU build, which is far smaller than the default one on Linux
#   ARGS="..."           passed on to the program that the target runs
#   WORKERS=3            processes that the test files are divided among; 0 runs them one after the other
#   WITHOUT=slow         of `make test-cluster`, leave the tests out that take minutes
#   WITHOUT=thorough     of `make test-slow`, leave the tests out of which a shorter form runs, and the further examples of properties
#   REQUIRE_SERVICES=1   a test that lacks InfluxDB or a browser fails instead of being skipped

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Images of containers set it. Each process of the tests, and each that a test starts, would compile what it imports again.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
TORCH ?= default
REQUIRE_SERVICES ?=
WORKERS ?= 3
WITHOUT ?=
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --require-virtualenv
QUIET := --quiet
# tests/conftest.py says which files go to the same process. In the order of the tree, for the last files have many short tests, which leave
# no process without work for long.
PARALLEL = --numprocesses $(WORKERS) --no-loadscope-reorder
# Of those that hold times, which wait more than they compute, each has a processor.
PARALLEL_ALONE = --numprocesses $(if $(filter 0,$(WORKERS)),0,2) --no-loadscope-reorder
# WITHOUT=thorough leaves those out of which a shorter form runs, and further examples of properties.
SLOW = $(if $(WITHOUT),slow and not $(WITHOUT),(slow or hypothesis))
# WITHOUT=slow leaves those out that take minutes. Those that hold times run one after another.
CLUSTER = cluster$(WITHOUT:%= and not %)
# Folders of which no test is quick: their imports would take seconds.
OF_PROCESSES := benchmarks integration learning
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: help demo test test-fast test-slow test-cluster figures learn bench bench-quick bench-peers compatibility algorithms check format protos dashboards docs lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## run the policy server and 64 trading episodes against it (ARGS="--help" shows the options)
	@$(BIN)/policy-pipeline demo $(ARGS)

learn: $(INSTALLED) ## train on the demo's problem for three seeds and on its controls; write docs/learning.md (ARGS=--learners: beside RLlib's defaults)
	@$(BIN)/python -m benchmarks.market.run $(ARGS)

test: $(INSTALLED) ## run the tests
	@REQUIRE_SERVICES=$(REQUIRE_SERVICES) $(BIN)/python -m pytest -m "not slow and not figures and not cluster" $(PARALLEL) $(ARGS)

test-fast: $(INSTALLED) ## run those tests that are quick and start no process of their own: about a minute
	@$(BIN)/python -m pytest -m "not slow and not figures and not cluster and not process and not long" $(PARALLEL) $(OF_PROCESSES:%=--ignore tests/%) $(ARGS)

test-slow: $(INSTALLED) ## run the tests that take minutes, and many more examples of properties; those that hold times after the others
	@REQUIRE_SERVICES=$(REQUIRE_SERVICES) $(BIN)/python -m pytest -m "$(SLOW) and not alone and not cluster" --hypothesis-profile many $(PARALLEL) $(ARGS) || [ $$? -eq 5 ]  # ARGS may name none of these
	@REQUIRE_SERVICES=$(REQUIRE_SERVICES) $(BIN)/python -m pytest -m "$(SLOW) and alone and not cluster" $(PARALLEL_ALONE) $(ARGS) || [ $$? -eq 5 ]

test-cluster: $(INSTALLED) ## run the tests of a server on a Ray cluster, on hosts that they make of namespaces (Linux, as root)
	@$(BIN)/python -m pytest -m "$(CLUSTER) and not alone" $(PARALLEL_ALONE) $(ARGS) tests/cluster || [ $$? -eq 5 ]
	@$(BIN)/python -m pytest -m "$(CLUSTER) and alone" $(ARGS) tests/cluster || [ $$? -eq 5 ]

figures: $(INSTALLED) ## check the speeds of recording and of the page, on a machine with nothing else to do
	@REQUIRE_SERVICES=$(REQUIRE_SERVICES) $(BIN)/python -m pytest -m figures -rP $(ARGS)

bench: $(INSTALLED) ## measure beside the peers (half an hour); print the table, write build/bench/*.json, docs/benchmarks.md and its plots
	@$(BIN)/python -m benchmarks.speed.run $(ARGS)

bench-quick: $(INSTALLED) ## measure the core in a minute and print the table; the status tells whether every bar was met
	@$(BIN)/python -m benchmarks.speed.run --quick $(ARGS)

bench-peers: ## build the environment of RLlib's old PolicyServerInput, which `make bench` then measures too (Python 3.11)
	@PYTHON="$(PYTHON)" TORCH_CPU_INDEX="$(TORCH_CPU_INDEX)" benchmarks/speed/peers/build.sh

compatibility: $(INSTALLED) ## run each algorithm on each kind of space and model; write docs/compatibility.md
	@$(BIN)/python -m benchmarks.compatibility.run $(ARGS)

algorithms: $(INSTALLED) ## let each algorithm learn alone and over gRPC, on the same seeds; write docs/algorithms.md
	@$(BIN)/python -m benchmarks.learning.run $(ARGS)

check: $(INSTALLED) ## format, lint, strict types, stubs current, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_stubs_current.py tests/test_architecture.py

format: $(INSTALLED) ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix --exit-zero .
	$(BIN)/ruff format .

protos: $(INSTALLED) ## regenerate the stubs after a change of a .proto file
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out=proto --pyi_out=proto --grpc_python_out=proto proto/policyserver/v1/*.proto

dashboards: $(INSTALLED) ## regenerate Grafana's dashboards, docs/metrics.md and docs/openmetrics.md after a change of a panel, of a figure or of monitoring/schema.py
	$(BIN)/python -m docs.site.metrics
	$(BIN)/python -m docs.site.openmetrics
	$(BIN)/python -m deploy.grafana.make_dashboards

docs: $(INSTALLED) ## build the site from docs/ and from the code into build/site; needs no network, and a warning is an error
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --builder html docs build/site $(ARGS)
	@echo "build/site/index.html"

lock: $(INSTALLED) ## install the newest versions that pyproject.toml allows and pin them in requirements.txt
	$(PIP) install --upgrade "pip>=25.1"
	$(PIP) install --upgrade --upgrade-strategy eager --editable ".[all]" --group dev
	{ sed -n '/^#/p' requirements.txt; $(PIP) freeze --exclude-editable | sed 's/+cpu$$//' | grep -v '^#'; } > .venv/requirements.txt
	mv .venv/requirements.txt requirements.txt

clean: ## remove .venv, build outputs and caches; recorded runs stay
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Python 3.11 or newer is needed, "$(PYTHON)" is '"$$($(PYTHON) --version 2>&1 || true). Name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@[ -x $(BIN)/python ] || { echo 'Making .venv and installing the pinned dependencies (once)'; $(PYTHON) -m venv .venv; }
ifeq ($(TORCH),cpu)
	@$(PIP) install $(QUIET) --index-url $(TORCH_CPU_INDEX) "$$(grep '^torch==' requirements.txt)"
endif
	@$(PIP) install $(QUIET) --requirement requirements.txt
	@$(PIP) install $(QUIET) --no-deps --no-build-isolation --editable .
	@touch $@
