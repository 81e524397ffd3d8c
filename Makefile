# `make serve` and `make test` do all the set-up they need on a machine with Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup serve test test-long test-faults check check-javascript format fuzz bench bench-quick shots gallery quality container-test lock clean

# What running it needs.
$(VENV)/.serve: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

# What testing and checking it needs too.
$(VENV)/.dev: requirements-dev.lock $(VENV)/.serve
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.lock
	touch $@

setup: $(VENV)/.dev

serve: $(VENV)/.serve
	$(BIN)/darkroom serve

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile -m "not long"

test-long: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile -m long --ignore tests/faults --ignore tests/regions

# What is promised in seconds while a store or a region fails; needs a machine with nothing else to do.
test-faults: $(VENV)/.dev
	$(BIN)/python -m pytest -m long tests/faults tests/regions
	CHECK_SECONDS=1 $(BIN)/python -m pytest -m "not long" tests/storage tests/ops/test_cdn.py tests/rendering/test_pool.py

check: $(VENV)/.dev check-javascript
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The linter, the formatter and the type checker of service/web. The oldest Node.js that all of them run on is 20.
JAVASCRIPT := $(VENV)/javascript/node_modules
check-javascript:
	@if ! command -v npm >/dev/null; then echo "check-javascript: skipped, because Node.js and npm are not installed"; \
	elif ! node --eval "process.exit(Number(parseInt(process.versions.node) < 20))"; then \
		echo "check-javascript: skipped, because Node.js $$(node --version) is older than 20"; \
	else $(MAKE) --no-print-directory $(JAVASCRIPT)/.installed && \
		$(JAVASCRIPT)/.bin/biome check --config-path tests/web/tools service/web && \
		$(JAVASCRIPT)/.bin/tsc --project tests/web/tools; \
	fi

$(JAVASCRIPT)/.installed: tests/web/tools/package.json
	mkdir -p $(VENV)/javascript
	cp tests/web/tools/package.json $(VENV)/javascript/
	npm install --prefix $(VENV)/javascript --no-audit --no-fund --no-update-notifier --package-lock=false --ignore-scripts --silent
	touch $@

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(JAVASCRIPT)/.installed && \
		$(JAVASCRIPT)/.bin/biome check --write --config-path tests/web/tools service/web; fi

# Bad images and bad requests against a real server, and good ones in between: make fuzz SECONDS=1800 SEED=7
SECONDS ?= 300
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench

bench-quick: $(VENV)/.dev
	$(BIN)/python -m tests.bench --quick

# Takes the pictures of the README again.
shots: $(VENV)/.dev
	$(BIN)/python -m pytest tests/browser/test_playground.py --shots docs -k drawn

# Makes the contact sheet of every transform again.
gallery: $(VENV)/.dev
	$(BIN)/python -m tests.gallery docs/gallery.png

# Judges quality=auto and the default qualities by SSIMULACRA2, and writes the page that has the figures again; some minutes.
quality: $(VENV)/.dev
	$(BIN)/python -m tests.quality --page docs/quality.md

# Builds the image and runs it with a read-only root and no capabilities; as root it installs the Debian packages it lacks.
container-test:
	bash tests/deploy/container.sh

lock: $(VENV)/.dev
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra heic --extra jxl -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --all-extras -c requirements.lock -o requirements-dev.lock pyproject.toml

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
