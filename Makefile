# `make serve` and `make test` do all the set-up they need on a machine with Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup serve test test-long test-faults test-caches promises audit sbom dist release-check check check-javascript check-workflows format fuzz fuzz-parsers bench bench-quick bench-growth peers overload soak dashboard shots gallery quality paint container-test lock clean

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

# Every server that a test starts would compile its modules again if the environment forbade it to keep them.
test test-long test-faults: export PYTHONDONTWRITEBYTECODE :=

# In the order of tests/conftest.py, where the longest files come first.
BY_FILE := --numprocesses 3 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(BY_FILE) -m "not long"

test-long: $(VENV)/.dev
	$(BIN)/python -m pytest $(BY_FILE) -m long --ignore tests/faults --ignore tests/regions

# What is promised while stores, regions, disks and clients fail, first the tests that mostly wait, and then those that need all cores.
# The seconds need a machine with nothing else to do: make test-faults CHECK_SECONDS= checks everything but them.
CHECK_SECONDS ?= 1
test-faults: export CHECK_SECONDS := $(CHECK_SECONDS)
test-faults: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 4 --dist worksteal -m "long and not exclusive" tests/faults tests/regions
	$(BIN)/python -m pytest -m exclusive tests/faults
	$(if $(CHECK_SECONDS),$(BIN)/python -m pytest -m "not long" tests/storage tests/ops/test_cdn.py tests/rendering/test_pool.py)

# Measures every promise, and writes the tables of docs/promises.md and of the README; ten minutes on a machine with nothing else to do.
promises: $(VENV)/.dev
	$(BIN)/python -m tests.promises

# The public suite of tests for HTTP caches, from a checkout with its packages: make test-caches CACHE_TESTS=/path/to/cache-tests
test-caches: $(VENV)/.dev
	@test -n "$(CACHE_TESTS)" || { echo "test-caches: set CACHE_TESTS to a checkout of https://github.com/http-tests/cache-tests in which npm install was run"; exit 2; }
	$(BIN)/python -m tests.caches.public_suite "$(CACHE_TESTS)" $(if $(UPDATE),--update)

check: $(VENV)/.dev check-javascript check-workflows
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

# Two linters and the schema of GitHub's workflows. actionlint is built with the hashes of tests/deploy/tools/go.sum, which Go 1.25 can do.
check-workflows: $(VENV)/.dev
	$(BIN)/python -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github/workflows
	@if ! command -v go >/dev/null; then echo "check-workflows: actionlint skipped, because Go is not installed"; \
	elif ! go -C tests/deploy/tools list >/dev/null 2>&1 && ! go -C tests/deploy/tools list -m >/dev/null 2>&1; then \
		echo "check-workflows: actionlint skipped, because $$(cd / && go version) is older than tests/deploy/tools/go.mod requires"; \
	else go -C tests/deploy/tools tool actionlint $(CURDIR)/.github/workflows/*.yml; fi

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(JAVASCRIPT)/.installed && \
		$(JAVASCRIPT)/.bin/biome check --write --config-path tests/web/tools service/web; fi

# Bad images and bad requests against a real server, and good ones in between: make fuzz SECONDS=1800 SEED=7
SECONDS ?= 300
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

# The parsers one by one, guided by their coverage: make fuzz-parsers SECONDS=3600, TARGETS="svg tiff" for some of them.
fuzz-parsers: $(VENV)/.dev
	$(BIN)/python -m tests.fuzz.parsers --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(TARGETS),--target $(TARGETS))

# Holds every figure against a bare limit in the same run, and writes the page that has them; half an hour on a machine with nothing else
# to do. bench-quick writes no page, has fewer rows and rounds, and takes less than a minute.
bench: $(VENV)/.dev
	$(BIN)/python -m tests.bench --page docs/benchmarks.md

bench-quick: $(VENV)/.dev
	$(BIN)/python -m tests.bench --quick

# How costs grow with entries, originals, clients and render processes, and the page and the picture of it; twenty minutes.
bench-growth: $(VENV)/.dev
	$(BIN)/python -m tests.bench.growth --page docs/growth.md

# Installs other image servers into a folder outside the checkout, for make bench PEERS=/path/to/folder; some minutes, and 1 GB.
peers: $(VENV)/.dev
	@test -n "$(PEERS)" || { echo "peers: set PEERS to a folder for the packages of other image servers"; exit 2; }
	$(BIN)/python -m tests.bench.peers "$(PEERS)"

# Offers half to ten times the renditions that the server can make, and draws what clients see; some minutes. OVERLOAD=… adds options.
overload: $(VENV)/.dev
	$(BIN)/python -m tests.bench.overload --page docs/overload.md $(OVERLOAD)

# Ten minutes of mixed load while the store, render processes and sources fail, and the page that has the figures: make soak SECONDS=120 STORE=disk BUSY=1
soak: SECONDS = 600
soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak --page docs/soak.md --seconds $(SECONDS) $(if $(STORE),--store $(STORE)) $(if $(BUSY),--busy)

# Watches a soak in which everything fails with Prometheus, and draws the panels of Grafana's dashboard; twelve minutes.
dashboard: $(VENV)/.dev
	$(BIN)/python -m tests.dashboard docs/dashboard.svg

# Takes the pictures of the README again.
shots: $(VENV)/.dev
	$(BIN)/python -m pytest tests/browser/test_playground.py --shots docs -k drawn

# Makes the contact sheet of every transform again.
gallery: $(VENV)/.dev
	$(BIN)/python -m tests.gallery docs/gallery.png

# Judges quality=auto and the default qualities by SSIMULACRA2, and writes the page that has the figures again; some minutes.
quality: $(VENV)/.dev
	$(BIN)/python -m tests.quality --page docs/quality.md

# Measures the largest contentful paint of a page of Next.js with different images, in a throttled Chromium; some ten minutes.
paint: $(VENV)/.dev
	$(BIN)/python -m tests.bench.paint

# Builds the image and runs it as deploy/compose.yaml does, with 25 renders of 24 megapixels at once; as root it installs the Debian
# packages that it lacks.
container-test: $(VENV)/.dev
	PYTHON=$(BIN)/python bash tests/deploy/container.sh

# Known vulnerabilities of the locked packages, which needs the network, and of the C libraries in their wheels.
audit: $(VENV)/.dev
	$(BIN)/python -m tests.audit

# The packages of the container with their hashes, as CycloneDX 1.6.
sbom: $(VENV)/.dev
	$(BIN)/python -W ignore -m cyclonedx_py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --sv 1.6 -o sbom.json

# The wheel, the source distribution and the npm package of a release, in dist/. REPOSITORY is the URL to which they link.
dist: $(VENV)/.dev
	$(BIN)/python -m tests.release.build dist $(if $(REPOSITORY),--repository $(REPOSITORY))

# Installs each of them into an empty place and uses it, then builds and runs the container; some minutes.
release-check: dist
	$(BIN)/python -m tests.release.check dist
	$(MAKE) --no-print-directory container-test

lock: $(VENV)/.dev
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra heic --extra jxl -o requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --all-extras -c requirements.lock -o requirements-dev.lock pyproject.toml

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
