# Headrace. `make` alone prints the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
PARALLEL ?= -n 2 --dist worksteal
# Tests on a broker wait for it more than they work.
PARALLEL_WAITING ?= -n 4 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install demo test tools check schemas-check unit property broker spark chaos chaos-tables bench pyfiles clean compose-up compose-demo compose-down

help: ## print the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## install everything into .venv (Python packages and the broker's and Spark's jars)

$(STAMP): requirements/all.lock requirements/build.lock pyproject.toml setup.py $(wildcard pipeline/compiled/*.[ch]) pipeline/local/jars.lock.json
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headrace needs Python 3.11 or newer; set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --require-hashes -r requirements/all.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	$(BIN)/python -m pipeline.local.jars fetch
	@touch $(STAMP)

demo: install ## the main job on real data, from nothing to proof
	$(BIN)/headrace demo

test: install tools check unit property broker spark chaos chaos-tables ## check, then run all tests

tools: install ## what the tests need besides Python: a C compiler, Prometheus, Alertmanager, Go (installed where missing)
	@bash tests/tools.sh
	@$(BIN)/python -c "import pipeline.compiled._core" 2>/dev/null || \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .

check: install schemas-check ## ruff, mypy, import-linter, schemas
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

schemas-check: install ## a schema that cannot read what its released versions wrote fails
	$(BIN)/headrace schema check schemas

unit: install ## tests without I/O
	$(PYTEST) $(PARALLEL) tests/unit

property: install ## random schemas, values, schedules
	$(PYTEST) $(PARALLEL) tests/property

broker: install ## tests on a real broker and registry
	$(PYTEST) $(PARALLEL_WAITING) tests/broker

spark: install ## tests on Spark and Delta
	$(PYTEST) $(PARALLEL) tests/spark

CHAOS = $(if $(SEED),HEADRACE_CHAOS_SEED=$(SEED)) $(if $(MINUTES),HEADRACE_CHAOS_SECONDS=$$(( $(MINUTES) * 60 ))) $(PYTEST) -s
CHAOS_TABLES := tests/chaos/test_spark_crashes.py

chaos: install ## producers, consumers, resharder, brokers killed and frozen; SEED=… MINUTES=… for a longer run
	$(CHAOS) tests/chaos --ignore $(CHAOS_TABLES)

chaos-tables: install ## Spark drivers, executors and the broker killed; SEED=… MINUTES=… for a longer run
	$(CHAOS) $(CHAOS_TABLES)

.venv-peers/.installed: requirements/peers.lock
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/peers.lock
	@touch $@

bench: install .venv-peers/.installed ## our figures beside the plain way and beside peers
	$(BIN)/python -m bench

pyfiles: install ## dist/headrace-pyfiles.zip, for spark-submit --py-files on a cluster
	$(BIN)/python -m jobs.pyfiles

compose-up: ## docker/compose.yaml: Kafka, registry, object store, Spark, Prometheus, Grafana (THREE=1: three brokers)
	docker compose $(if $(THREE),--env-file docker/three.env) -f docker/compose.yaml up --build --detach --wait

compose-demo: compose-up ## the demo's producer inside it; Grafana is at http://localhost:3000
	docker compose $(if $(THREE),--env-file docker/three.env) -f docker/compose.yaml --profile demo up --detach producer

compose-down: ## stop it; volumes stay
	docker compose $(if $(THREE),--env-file docker/three.env) -f docker/compose.yaml --profile demo down

clean: ## remove what was built, the embedded stack's data included
	-$(BIN)/headrace down
	rm -rf $(VENV) .venv-peers .headrace build dist *.egg-info pipeline/compiled/*.so
