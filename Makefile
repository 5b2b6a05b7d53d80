# Two commands on a fresh machine do all set-up: `make demo` and `make test`. `make check` takes seconds.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.docs-installed

.PHONY: agreed demo check unit test test-library test-service load chaos fuzz coverage matrix docs browser-test bench compose-test proto format clean

demo: $(INSTALLED)
	$(BIN)/python -m deploy.demo.run

# Format, lint, types and contracts.
check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(INSTALLED)
	$(BIN)/pytest tests/unit

# What CI runs: two halves side by side, with one thread each for linear algebra.
test test-library test-service: export OMP_NUM_THREADS = 1
test: check
	$(MAKE) --jobs=2 --output-sync=target test-library test-service

test-library: $(INSTALLED)
	$(BIN)/pytest --durations=15 tests/unit tests/cases tests/benchmarks tests/load tests/docs tests/browser

test-service: $(INSTALLED)
	$(BIN)/pytest --durations=15 tests/security tests/integration

# Each prints a table of what was aimed at and what was measured; a quarter of an hour or so each. `make test` has short
# versions of the last two. `load` needs h2load (apt-get install nghttp2-client).
load: $(INSTALLED)
	$(BIN)/python -m tests.load.load 60 2

chaos: $(INSTALLED)
	$(BIN)/python -m tests.load.chaos 200 30

fuzz: $(INSTALLED)
	$(BIN)/python -m tests.load.fuzz 1000000 50000

# `make unit` on every Python 3.10 to 3.14 that this machine has.
matrix:
	$(PYTHON) tests/matrix.py

# Generates the reference, builds the site into site/, fails on a dead link. Needs Python 3.11 or later.
docs: $(INSTALLED) $(DOCS_INSTALLED)
	$(BIN)/python deploy/docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean --config-file deploy/docs/mkdocs.yml

# The page in a real browser. Needs Chromium (apt-get install chromium) and Node for axe-core's rules.
browser-test: $(INSTALLED)
	npm install --prefix tests/browser --no-package-lock --no-audit --no-fund
	$(BIN)/pytest tests/browser

# Lines that no test runs, also in processes that tests start.
coverage: $(INSTALLED)
	$(BIN)/pytest --cov --cov-report=term-missing:skip-covered --cov-report=html:coverage-output

bench: $(INSTALLED)
	$(BIN)/sealign-lab bench --output bench-output

# The composed containers, end to end. Skipped with a reason where no container engine can be started.
compose-test: $(INSTALLED)
	$(BIN)/pytest -m container -rs -s tests/containers

proto: $(INSTALLED)
	$(BIN)/python proto/generate.py

# Says anew what other implementations can rely on; needs buf.
agreed: $(INSTALLED)
	cd proto && $(abspath $(VENV))/node_modules/.bin/buf build -o agreed.binpb --as-file-descriptor-set

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .matrix site demo-output bench-output coverage-output dist .coverage

$(INSTALLED): pyproject.toml constraints.txt deploy/demo/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps --requirement deploy/demo/requirements.txt
	# buf lints the wire contract; where npm or its registry is out of reach, the tests that need it are skipped.
	if command -v npm >/dev/null; then \
	    npm install --silent --no-audit --no-fund --fetch-retries=1 --fetch-timeout=20000 --prefix $(VENV) \
	        @bufbuild/buf@1.75.0 || echo "buf was not installed"; fi
	touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@
