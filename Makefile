# `make demo` and `make test` do their own set-up, in .venv, with the versions of constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
DATA ?= digits
# A test that hangs says where, and ends the run.
PYTEST := $(BIN)/python -m pytest -o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true

.PHONY: help setup demo test test-slow lint docs clean

help:
	@echo 'make demo [DATA=digits|fashion-mnist|cifar10]  run the quickstart'
	@echo 'make test        run the tests (under 10 minutes)'
	@echo 'make test-slow   run the tests that take longer'
	@echo 'make lint        ruff and mypy'
	@echo 'make docs        build the documentation into docs/_build/html'

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/python examples/quickstart.py --data $(DATA)

test: setup
	$(PYTEST) -m 'not slow'

test-slow: setup
	$(PYTEST) -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

clean:
	rm -rf .venv build dist docs/_build .pytest_cache .hypothesis .mypy_cache .ruff_cache
