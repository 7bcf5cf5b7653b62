# Two commands do everything on a machine with Python 3.11+ and a package index: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check unit wheel soak bench faults openapi engines clean
.DEFAULT_GOAL := test

# The library with what the demo shows; enough for `make demo`.
$(VENV)/.demo: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

# Everything the checks need.
$(VENV)/.dev: $(VENV)/.demo
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

demo: $(VENV)/.demo
	@$(BIN)/python examples/refresh_inventories.py

test: check wheel

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright

# The tests against the source, while working on it.
unit: $(VENV)/.dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# The tests against the built wheel, in a clean environment of every supported Python found here; coverage on the first.
wheel: $(VENV)/.dev
	BIN=$(BIN) sh scripts/test-wheel

# Every operation against a server that fails in every way: `make soak SECONDS=3600`.
SECONDS ?= 120
soak: $(VENV)/.dev
	$(BIN)/python tests/soak.py --seconds $(SECONDS)

bench: $(VENV)/.dev
	@for question in decode bulk single memory imports throttled; do $(BIN)/python -m benchmarks.$$question || exit 1; done

# What comes of every fault under every operation on every transport; WORDS="429" shows only some.
faults: $(VENV)/.dev
	@$(BIN)/python -m tests.faults $(WORDS)

# Writes docs/openapi.json; a test holds it against the declarations.
openapi: $(VENV)/.dev
	$(BIN)/python scripts/build_openapi.py

# Writes the table of engines in docs/transports.md; a test holds it against the kit.
engines: $(VENV)/.dev
	$(BIN)/python scripts/build_engines.py

clean:
	rm -rf $(VENV) dist .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
