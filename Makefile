# `make demo` and `make test` do everything, in a virtual environment of the project's own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := pyproject.toml setup.py $(wildcard kernels/*.pyx kernels/*.pxd kernels/*.h)

.PHONY: help install demo test lint format bench clean

help:
	@echo "make demo    phones type, the fleet learns, the keyboard predicts (ARGS='--quick', '--no-serve --json')"
	@echo "make test    all tests (ARGS='-k coordinator')"
	@echo "make lint    ruff"
	@echo "make bench   the kernels beside their peers"

install: $(STAMP)

$(STAMP): $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "kbdfl needs Python 3.11 or newer"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >&2 || \
		{ rm -rf $(VENV); echo "python3 -m venv failed; on Debian: apt install python3-venv python3-dev gcc"; exit 2; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[chat,test,lint]" >&2
	@touch $(STAMP)

demo: install
	@$(BIN)/kbdfl demo $(ARGS)

test: install
	@$(BIN)/python -m pytest $(ARGS)

lint: install
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: install
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: install
	@$(BIN)/kbdfl bench client $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info kernels/*.c kernels/*.so
