# make test      the test suite            make example   the example crawl, ends with a table of handlers
# make lint      style, imports, paths     make types     mypy
# make docs      the documentation         make bench     the benchmarks; make bench-smoke: whether they work
# make soak      an hour of faults         make servers   crawls of all real servers
# make wheel     the wheel and the sdist, checked, installed and used
#
# Each makes .venv, when it is not there, and installs in it what it needs and nothing more. tox runs the same lines in
# environments of its own: it sets BIN and empties the READY variables.

VENV = .venv
BIN = $(VENV)/bin
PYTEST_ARGS = -n 2
SOAK_ARGS =
TEST_READY = $(VENV)/.ready-test
EXAMPLE_READY = $(VENV)/.ready-example
CHECK_READY = $(VENV)/.ready-check
DOCS_READY = $(VENV)/.ready-docs
RELEASE_READY = $(VENV)/.ready-release
BENCH_READY = $(VENV)/.ready-bench
BENCH_ARGS = --json bench.json --plot bench.png

# The first Python that is new enough and can make a virtual environment.
PYTHON = $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	$$python -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && echo $$python && break; done)
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Absolute paths of somebody's machine; the pattern does not match itself.
MACHINE_PATHS = (^|[^[:alnum:]_.-])/(home|root|work|Users)/

.PHONY: test example lint format types docs bench bench-smoke soak servers wheel
.DEFAULT_GOAL = test

test: $(TEST_READY)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

example: $(EXAMPLE_READY)
	cd example_project && $(abspath $(BIN))/python -m scrapy crawl books -a site=http
	cd example_project && $(abspath $(BIN))/python -m scrapy crawl books -a site=tls1
	cd example_project && $(abspath $(BIN))/python -m scrapy crawl books -a site=h2
	cd example_project && $(abspath $(BIN))/python -m scrapy crawl account -a books=200
	cd example_project && $(abspath $(BIN))/python -m scrapy crawl exits -a books=200
	cd example_project && $(abspath $(BIN))/python -m scrapy crawl compare
	@cd example_project && $(abspath $(BIN))/python -m bookshop.check

lint: $(CHECK_READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	! git grep --line-number --extended-regexp -I '$(MACHINE_PATHS)'

format: $(CHECK_READY)
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

types: $(CHECK_READY)
	$(BIN)/mypy

docs: $(DOCS_READY)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: $(BENCH_READY)
	$(BIN)/python -m bench.scheduler
	$(BIN)/python -m bench $(BENCH_ARGS)
	$(BIN)/python -m bench.rotation --plot rotation.png

bench-smoke: $(TEST_READY)
	$(BIN)/python -m bench --smoke
	$(BIN)/python -m bench.rotation --smoke

soak: $(TEST_READY)
	$(BIN)/python -m tests.reliability.soak $(SOAK_ARGS)

# -rs names each server that is not installed, and so not tried.
servers: $(TEST_READY)
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m 'servers or not servers' -rs tests/reliability/test_real_servers.py

# From its own folder the example finds the package where pip has put it, and not in this checkout.
wheel: $(RELEASE_READY)
	rm -rf dist build/wheel-venv
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip install --quiet --disable-pip-version-check "$$(echo dist/*.whl)[example]"
	cd example_project && ../build/wheel-venv/bin/python -c 'import scrapy_poolplus, sys; sys.exit(sys.prefix not in scrapy_poolplus.__file__)'
	cd example_project && ../build/wheel-venv/bin/python -m scrapy crawl books -a books=100
	cd example_project && ../build/wheel-venv/bin/python -m scrapy crawl pages

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo 'make needs Python >= 3.10 with its venv module (Debian: apt-get install python3-venv)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(TEST_READY): $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) --editable '.[test,compare,example,poet,socks]'
	@touch $@

$(EXAMPLE_READY): $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) --editable '.[example]'
	@touch $@

$(CHECK_READY): $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) --editable '.[check]'
	@touch $@

$(DOCS_READY): $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) --editable '.[docs]'
	@touch $@

$(RELEASE_READY): $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) --editable '.[release]'
	@touch $@

$(BENCH_READY): $(BIN)/python setup.cfg pyproject.toml
	$(INSTALL) --editable '.[bench]'
	@touch $@
