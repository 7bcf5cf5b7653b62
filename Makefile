# Everything needs Python 3.11+ and a package index: `make demo`, `make storefront` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo storefront test check unit wheel lowest prism soak kills bench faults openapi sync engines errors docs pictures dist clean
.DEFAULT_GOAL := test

# The library with what the demo shows; enough for `make demo`.
$(VENV)/.demo: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --editable '.[cli,report]'
	@touch $@

# Everything the checks need.
$(VENV)/.dev: $(VENV)/.demo
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

# A mock server of OpenAPI documents, which tests of docs/openapi.json run. It needs Node.js 18.20 or newer; without it
# those tests are skipped. Its dependencies are what they were on that day.
PRISM_DIR := $(VENV)/prism-5.14.2
export PRISM ?= $(shell ls $(abspath $(PRISM_DIR))/node_modules/.bin/prism 2>/dev/null)

$(PRISM_DIR)/.installed:
	@npm install --prefix $(PRISM_DIR) --before 2026-11-01 --ignore-scripts --omit optional --no-package-lock --no-audit \
		--no-fund --loglevel error @stoplight/prism-cli@5.14.2
	@touch $@

prism: $(PRISM_DIR)/.installed

demo: $(VENV)/.demo
	@$(BIN)/python examples/night_job.py

# A shop in the browser, and the sandbox that it sells from.
$(VENV)/.storefront: $(VENV)/.demo examples/storefront/requirements.txt
	@$(BIN)/python -m pip install --quiet --requirement examples/storefront/requirements.txt
	@touch $@

# OPTIONS="--port 8001 --sandbox-port 0 --folder shop" for other ports, and a book that is kept.
storefront: $(VENV)/.storefront
	@cd examples && exec ../$(BIN)/python -m storefront $(OPTIONS)

test: check wheel

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/zizmor --offline --quiet .github

# The tests against the source, while working on it.
unit: $(VENV)/.dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# The tests against the built wheel, in a clean environment of every supported Python found here; coverage on the first.
wheel: $(VENV)/.dev
	BIN=$(BIN) sh scripts/test-wheel

# The core's tests with the lowest version of each dependency that pyproject.toml allows.
lowest:
	PYTHON=$(PYTHON) sh scripts/test-lowest

# Every operation against a server that fails in every way: `make soak SECONDS=3600`.
SECONDS ?= 120
soak: $(VENV)/.dev
	$(BIN)/python tests/soak.py --seconds $(SECONDS)

# A refresh of 20,000 users, killed at 20 random moments: KILLS="--store postgresql://..." for another store, KILLS=--dask
# for one on two workers.
kills: $(VENV)/.dev
	$(BIN)/python tests/refresh_kills.py $(KILLS)

bench: $(VENV)/.dev
	@for question in decode bulk share single cached memory imports throttled shared_rate refresh storefront console million engines; do PYTHONPATH=examples $(BIN)/python -m benchmarks.$$question || exit 1; done

# What comes of every fault under every operation on every transport; WORDS="429" shows only some.
faults: $(VENV)/.dev
	@$(BIN)/python -m tests.faults $(WORDS)

# Writes docs/openapi.json and docs/sandbox-admin.json; tests hold them against the declarations.
openapi: $(VENV)/.dev
	$(BIN)/python scripts/build_openapi.py
	$(BIN)/python scripts/build_sandbox_admin.py

# Writes docs/errors.md from the classes; a test holds it against them.
errors: $(VENV)/.dev
	$(BIN)/python scripts/build_errors.py

# The site of documents, in site/. Its search needs a server: `python -m http.server --directory site`.
$(VENV)/.docs: $(VENV)/.demo
	@$(BIN)/python -m pip install --quiet --group docs
	@touch $@

docs: $(VENV)/.docs
	@$(BIN)/python scripts/build_site.py

# Writes docs/pictures, with Chromium; by hand, for they differ a little each time.
pictures: $(VENV)/.dev
	$(BIN)/python scripts/build_pictures.py

# What a release consists of: both distributions in dist/, and the SBOM of the wheel and all that it installs.
dist: $(VENV)/.demo
	@$(BIN)/python -m pip install --quiet --group release
	@sh scripts/build-release $(BIN)

# Writes phygitals_async/sync.py; a test holds it against the async client.
sync: $(VENV)/.dev
	$(BIN)/python scripts/build_sync.py

# Writes the table of engines in docs/transports.md; a test holds it against the kit.
engines: $(VENV)/.dev
	$(BIN)/python scripts/build_engines.py

clean:
	rm -rf $(VENV) dist build site .cache sbom.cdx.json .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
