# Shortcuts. What each runs is ordinary: recoup, dagster, dbt, pytest (see README, "Without make").
# The environment in .venv is installed from constraints.txt by uv, or by pip if there is no uv. `demo` and `dev` install
# what Recoup runs on; `test`, `soak`, `lint` and `bench` add the developers' tools.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
WORKERS ?= 3
KEPT := secrets integrations.toml webhook_queue.sqlite webhook_queue.sqlite-wal webhook_queue.sqlite-shm changes.csv

.PHONY: help setup tools demo dev test test-fast screens soak soak-serve lint types sql bench clean cleanall

help:
	@echo "make demo    a simulated Stripe account, synced, modelled, published: the summary at the end"
	@echo "make dev     Dagster's UI on your accounts, or on the simulated one"
	@echo "make test    all tests"
	@echo "make test-fast  the unit tests only, half a minute"
	@echo "make screens write the screens of all commands again, in tests/integration/screens.txt"
	@echo "make soak    thousands of random histories, faults and kills (CASES=5000)"
	@echo "make soak-serve  recoup serve for twenty minutes: what grows, what fails (SECONDS=1200)"
	@echo "make lint    ruff, mypy, sqlfluff"
	@echo "make bench   speed and memory against a baseline of the same run"
	@echo "make setup   only the environment in .venv, as Recoup needs it"
	@echo "make tools   the same, and the tools for tests and linters"
	@echo "make clean   delete tables, demo and run history in data/; keys, connections and webhook events stay"
	@echo "make cleanall  delete everything in data/, also the keys; asks first"

setup: $(READY)

tools: $(READY_DEV)

$(READY): pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" .ci/make-environment $(VENV)
	@touch $@

$(READY_DEV): pyproject.toml constraints.txt
	@PYTHON="$(PYTHON)" .ci/make-environment $(VENV) dev
	@touch $(READY) $@

demo: setup
	@$(BIN)/recoup demo

dev: setup
	@$(BIN)/recoup dev

test: tools
	@.ci/install-browser
	@.ci/install-postgres
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-fast: tools
	@$(BIN)/python -m pytest -q -n $(WORKERS) tests/unit

screens: tools
	@RECOUP_WRITE_SCREENS=1 $(BIN)/python -m pytest -q tests/integration/test_screens.py

soak: tools
	@RECOUP_CASES=$(or $(CASES),5000) $(BIN)/python -m pytest -n $(WORKERS) --timeout 0 tests/property

soak-serve: tools
	@RECOUP_SOAK_SECONDS=$(or $(SECONDS),1200) $(BIN)/python -m tests.bench.soak

lint: tools
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory --jobs 2 --output-sync types sql

types:
	@$(BIN)/mypy

sql:
	@cd dbt_project && RECOUP_WAREHOUSE_PATH=:memory: DBT_TARGET_PATH=../data/dbt/lint DBT_LOG_PATH=../data/dbt/lint \
		../$(BIN)/sqlfluff lint --disable-progress-bar models tests/*.sql

bench: tools
	@$(BIN)/python -m tests.bench

# API keys, tokens, connections and the webhook queue cannot be had again from Stripe: `clean` keeps them.
clean:
	@find data -mindepth 1 -maxdepth 1 $(foreach name,README.md $(KEPT),! -name '$(name)') -exec rm -rf {} +
	@echo "Deleted the tables, the demo and the run history in data/. The next sync reads the whole history again."
	@cd data && for kept in $(KEPT); do if [ -e "$$kept" ]; then echo "Kept: data/$$kept"; fi; done

cleanall:
	@echo "This deletes all of data/: API keys, tokens, connections, and webhook events that were not loaded yet."
	@printf "Type yes to delete it: "; read -r answer || answer=; \
		if [ "$$answer" != yes ]; then echo "Nothing was deleted."; exit 1; fi; \
		find data -mindepth 1 ! -name README.md -delete; echo "Deleted."
