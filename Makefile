# Everything that a person or CI does. `make run` and `make test` set up the environment when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROMPT ?= Explain in two sentences why the sky is blue.
MODEL ?= smollm2
# Processes that share out the files of tests. Each takes some gigabytes, as Mesa's software GPU keeps what it compiles.
WORKERS ?= 2

.PHONY: run chat test slow clients nvidia check lint types fix bench wheel clean

run: $(VENV)/.installed
	$(BIN)/lacewing run $(MODEL) "$(PROMPT)"

chat: $(VENV)/.installed
	$(BIN)/lacewing chat $(MODEL)

# Many tests start Python, which compiles all of ours each time where bytecode may not be kept, as in most containers.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/.driver $(VENV)/.browser
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --max-worker-restart 0

slow: $(VENV)/.driver $(VENV)/.browser $(VENV)/.clients
	$(BIN)/python -m pytest -m slow

clients: $(VENV)/.clients
	$(BIN)/python -m pytest -m "clients and not slow"

nvidia: $(VENV)/.driver
	$(BIN)/python -m pytest -m nvidia tests/backends/cuda

check: lint types test

lint: $(VENV)/.developer
	$(BIN)/ruff format --check src tests tools benchmarks examples
	$(BIN)/ruff check src tests tools benchmarks examples

types: $(VENV)/.developer
	$(BIN)/mypy

fix: $(VENV)/.developer
	$(BIN)/ruff format src tests tools benchmarks examples
	$(BIN)/ruff check --fix src tests tools benchmarks examples

# PEER: a directory with llama.cpp's shared libraries; benchmarks/compare.py says how to get one.
bench: $(VENV)/.developer
	$(BIN)/python -m benchmarks.compare --peer "$(PEER)" $(FLAGS)

wheel: $(VENV)/.developer
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lacewing needs Python 3.11 or newer; set PYTHON=python3.12, say")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check --editable .
	touch $@

# pip learnt dependency groups in 25.1; until it is everywhere the group is read by hand.
$(VENV)/.developer: $(VENV)/.installed
	$(BIN)/python -c 'import tomllib; print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"]))' > $(VENV)/dev.txt
	$(BIN)/python -m pip install --disable-pip-version-check --requirement $(VENV)/dev.txt
	touch $@

# Node comes from PyPI, so that any machine has it; its packages stay beside their scripts, where Node looks for them.
$(VENV)/.clients: pyproject.toml tests/server/clients/package-lock.json | $(VENV)/.developer
	$(BIN)/python -c 'import tomllib; print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["clients"]))' > $(VENV)/clients.txt
	$(BIN)/python -m pip install --disable-pip-version-check --requirement $(VENV)/clients.txt
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/npm ci --prefix tests/server/clients --ignore-scripts --no-audit --no-fund
	touch $@

# The GPU tests run on the system's driver, or on Mesa's software adapter, fetched without root.
$(VENV)/.driver: $(VENV)/.developer
	$(BIN)/python tools/software_gpu.py
	touch $@

# The tests of the web page run in Chromium; this says what to install where there is none.
$(VENV)/.browser: $(VENV)/.developer
	$(BIN)/python tools/chromium.py
	touch $@

clean:
	rm -rf $(VENV) dist tests/server/clients/node_modules
