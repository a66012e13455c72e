# `make demo` shows prompts learning on real pictures, `make test` checks everything.
# Both work on a bare machine with Python (3.10 to 3.13) and make; each prepares .venv by itself.

PYTHON ?= python3
PYTEST ?= -n auto
EXTRAS ?= dev
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint types pytest install clean

install: $(INSTALLED)

$(INSTALLED): requirements.txt setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python -m tools.demo $(DEMO)

test: lint types pytest

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

pytest: $(INSTALLED)
	$(BIN)/python -m pytest $(PYTEST)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis output
