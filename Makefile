# Everything a newcomer or a contributor needs; no root, and but for hls-test no compiler. The packages go into .venv.
#
#   make demo       train a network on handwritten digits, in about a minute
#   make test       lint, types and all tests that are not marked slow
#   make test-all   the slow tests as well, and the oldest and newest protobuf
#   make hls-test   the HLS kernels in C-simulation, all of it; needs a C++ compiler (g++)
#   make lint       only lint and types
#   make clean      remove what these made
#
# PYTHON=/path/to/python3 chooses the interpreter; without it the first of the list that is fit is taken.

PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
    "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$name" && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-all hls-test lint clean
.DEFAULT_GOAL := test

demo: $(VENV)/demo.stamp
	$(BIN)/barista demo

test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-all: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal
	$(BIN)/python tools/check_protobuf_range.py

# Here a missing compiler is a failure; elsewhere these tests are skipped without one.
hls-test: $(VENV)/test.stamp
	BARISTA_REQUIRE_HLS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m hls

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is older than setup.cfg as soon as a dependency may have changed.
$(VENV)/demo.stamp: setup.cfg pyproject.toml | $(BIN)/python
	@echo 'Installing Barista and what it needs into $(VENV) ...'
	@$(PIP_INSTALL) --editable '.[digits]'
	@touch $@

$(VENV)/test.stamp: setup.cfg pyproject.toml | $(BIN)/python
	@echo 'Installing Barista, its extras and the tools of its tests into $(VENV) ...'
	@$(PIP_INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/demo.stamp

$(BIN)/python:
	@test -n '$(PYTHON)' || { echo 'Barista needs Python 3.11 or later with the modules venv and ensurepip, and found none.' \
	    'Install it (Debian, Ubuntu: the packages python3 and python3-venv; macOS, Windows: python.org)' \
	    'or name one: make PYTHON=/path/to/python3' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
