# `make demo` trains prompts on real pictures and ends with a report; `make test` is for every change;
# `make test-all` runs the slow tests, too. All work on a bare machine with Python (3.10 to 3.13) and
# make, and create .venv.

PYTHON ?= python3
PYTEST ?=
EXTRAS ?= dev
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-all lint types install clean

install: $(INSTALLED)

$(INSTALLED): requirements.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python -m tools.demo $(DEMO)

test: lint types
	$(BIN)/python -m pytest -n auto -m "not slow" $(PYTEST)

test-all: lint types
	$(BIN)/python -m pytest -n auto $(PYTEST)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis output
