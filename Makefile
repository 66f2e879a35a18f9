# `make demo` shows the pipeline, and `make test` tests it. Both first set up what they need; the only requirements are
# Python 3.11 to 3.13 and make.

PYTHON ?= python3
VENV   := .venv
CLOUD  := .venv-cloud
LINT   := .venv-lint
NODE   := tests/linters/node
SUPPLY := .venv-supply
BIN    := $(VENV)/bin
SOAK_UPLOADS ?= 10000
SOAK_SEED    ?= 1
FILES        ?= 20000
SEED         ?= 1
LARGE        ?= 0
UV     := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header

# Tests start hundreds of processes, and without bytecode on disk each of them would compile its modules again.
unexport PYTHONDONTWRITEBYTECODE

# The files that checkov checks.
REVIEWED = $(wildcard deployment/aws/*.yaml .github/workflows/*.yml) container/Dockerfile

# The image: `make image BUILDER=podman BASE_IMAGE=python:3.11-slim-bookworm@sha256:...`
BUILDER    ?= docker
BASE_IMAGE ?= python:3.11-slim-bookworm
IMAGE      ?= sluice:local

.DEFAULT_GOAL := help
.PHONY: help setup demo up clean distclean test quick quick-tests quick-lint environments suites locks lint types arrows unit prefect infra runs chain large-files faults faults-all privileges browser image-tests image sizes sbom scan cases round-trip bench-refine bench-start bench-memory bench-prefect bench-burst bench-latency screenshots soak lock

help: ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

# --- environments -----------------------------------------------------------------------------------------
# The stamp file is touched last, so an interrupted setup starts again.

setup: $(VENV)/.installed $(VENV)/.steps $(CLOUD)/.ready ## create both environments from the hash-locked requirements

# Create an environment in the folder $(1) from the lock file $(2). pip only unpacks; then all cores compile bytecode, except
# for the packages' tests. Errors are ignored, because some packages contain files for other Python versions.
define environment
	@$(PYTHON) deployment/check_python.py
	@$(PYTHON) -m venv --clear $(1)
	@$(1)/bin/python -m pip install -qq --disable-pip-version-check --no-compile --require-hashes -r $(2)
	@$(1)/bin/python -m compileall -q -j 0 -x /tests/ $(1)/lib >/dev/null 2>&1 || true
	@touch $(1)/.ready
endef

$(VENV)/.installed: $(VENV)/.ready pyproject.toml
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The packages that the custom steps of datasets need.
$(VENV)/.steps: $(VENV)/.ready flows/contracts/requirements.txt flows/contracts/requirements.lock
	@$(BIN)/python -m deployment.step_requirements
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r flows/contracts/requirements.lock
	@touch $@

$(VENV)/.ready: deployment/locks/project.lock
	@echo "Setting up the project's environment in $(VENV) (takes a minute or two, only once)"
	$(call environment,$(VENV),$<)

$(CLOUD)/.ready: deployment/locks/ministack.lock
	@echo "Setting up the local AWS emulator's environment in $(CLOUD)"
	$(call environment,$(CLOUD),$<)

$(LINT)/.ready: deployment/locks/linters.lock
	@echo "Setting up the linters' environment in $(LINT)"
	$(call environment,$(LINT),$<)

# asl-validator comes from npm. Without npm, its tests are skipped with a message.
$(NODE)/.ready: $(NODE)/package-lock.json
	@if command -v npm >/dev/null; then npm ci --prefix $(NODE) --silent --no-audit --no-fund && touch $@; fi

$(SUPPLY)/.ready: deployment/locks/supply_chain.lock
	@echo "Setting up the environment for make sbom and make scan in $(SUPPLY)"
	$(call environment,$(SUPPLY),$<)

# --- use --------------------------------------------------------------------------------------------------

demo: setup ## run sample files through the whole pipeline and show the results
	@$(BIN)/sluice demo

up: setup ## run the local cloud (an AWS emulator and Prefect) until Ctrl-C
	@$(BIN)/sluice up

clean: ## delete the local cloud's state (uploads, receipts and flow runs)
	@if [ -x $(BIN)/sluice ]; then $(BIN)/sluice clean; else rm -rf .sluice; fi

distclean: clean ## also remove the environments
	@rm -rf $(VENV) $(CLOUD) $(LINT) $(SUPPLY) $(NODE)/node_modules $(NODE)/.ready build

# --- the gate ---------------------------------------------------------------------------------------------

# Four independent suites run at the same time, those that wait most first; each prints its output when it ends. A suite
# that uses a local cloud mostly waits, so two workers share its files, each with a separate local cloud. The unit tests
# never wait, and run at a lower priority, so that they use the time in which the others wait.
BY_FILE := -n 2 --dist loadfile

# With COVERAGE, a suite writes which lines of the code it reached.
REACHED := .pytest_cache/reached
measured = $(if $(COVERAGE),-m slipcover --json --out $(REACHED)/$(1))

# `make test TEST=tests/unit/blocks/test_settings.py::test_name` runs one test.
test: ## run everything that the gate checks, or one test: make test TEST=path::name
ifdef TEST
	@$(MAKE) --no-print-directory -j 3 environments
	@$(BIN)/pytest -q $(TEST)
else
	@$(MAKE) --no-print-directory -j 3 environments
	@echo "Running checks and tests, four suites at a time; each prints its output when it ends"
	@rm -rf .pytest_cache/calls $(REACHED)
	@mkdir -p $(REACHED)
	@$(MAKE) --no-print-directory --keep-going -j 4 --output-sync=target suites COVERAGE=1
	@$(MAKE) --no-print-directory privileges
	@echo "Coverage of the product code by the unit tests and the tests with a Prefect server (for information)"
	@$(BIN)/python -m slipcover --merge $(REACHED)/* --out $(REACHED)/all
endif

quick: setup ## fast checks: format, lint, types, import rules, unit tests without Great Expectations
	@$(MAKE) --no-print-directory --keep-going -j 4 --output-sync=target quick-tests quick-lint types arrows

environments: setup $(LINT)/.ready $(NODE)/.ready

suites: image-tests faults chain infra unit runs prefect browser types lint arrows locks

quick-tests: setup
	@$(BIN)/pytest -q -n 2 --dist worksteal --quick tests/unit

quick-lint: setup
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@$(BIN)/python -m tests.linters.plain_english

lint: setup $(LINT)/.ready ## run the formatter, linters, template and secret checks, and the plain English check
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(LINT)/bin/checkov --quiet --compact --skip-download --framework cloudformation dockerfile github_actions \
		$(addprefix -f ,$(REVIEWED))
	@$(LINT)/bin/hadolint container/Dockerfile
	@$(LINT)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/python -m tests.linters.secrets
	@$(BIN)/python -m tests.linters.plain_english

types: setup ## run the type checker in strict mode
	@$(BIN)/mypy

arrows: setup ## check which folders import which
	@$(BIN)/lint-imports

locks: setup ## check that the locked packages have wheels for every supported Python
	@for python in 3.12 3.13; do for lock in container/requirements.lock deployment/locks/project.lock deployment/locks/ministack.lock; do \
		$(BIN)/uv pip install -q --dry-run --python-version $$python --only-binary :all: --require-hashes \
			--target build/no-such-folder -r $$lock || exit 1; \
	done; done; echo "The locks resolve with wheels on Python 3.12 and 3.13"

unit: setup ## run the unit tests
	@nice -n 5 $(BIN)/python $(call measured,unit) -m pytest -q -n 2 --dist worksteal tests/unit

prefect: setup ## test what Prefect shows and sends, with a real Prefect server
	@$(BIN)/python $(call measured,prefect) -m pytest -q tests/prefect

# In alphabetical order, because the files with the fewest tests, which would come last, take longest.
infra: setup $(LINT)/.ready $(NODE)/.ready ## test the templates, the deployment and the packaging
	@$(BIN)/pytest -q $(BY_FILE) --no-loadscope-reorder tests/infra --ignore tests/infra/test_runs.py

runs: setup ## test the state machine and the dispatcher in the local cloud
	@$(BIN)/pytest -q -n 3 --dist worksteal tests/infra/test_runs.py

chain: setup ## test end-to-end uploads in the local cloud, with IAM enforced
	@$(BIN)/pytest -q $(BY_FILE) -m "not slow" tests/chain

large-files: setup ## test 500 MB files in the local cloud (takes about 10 minutes and 5 GB of disk)
	@$(BIN)/pytest -q -m slow tests/chain/test_large_files.py

faults: setup ## test injected faults
	@$(BIN)/pytest -q $(BY_FILE) -m "not slow" tests/faults

faults-all: setup ## test injected faults, including those that are too slow for the gate
	@$(BIN)/pytest -q tests/faults

privileges: setup ## compare what the roles did in infra, runs, chain and faults, which must run first, with their policies
	@$(BIN)/python -m tests.privileges

browser: setup ## test the real Prefect UI in Chromium (skipped without Chromium)
	@$(BIN)/pytest -q tests/browser

image-tests: setup ## build the image and run it as a task that processes uploads (skipped without a container engine)
	@$(BIN)/pytest -q tests/image

# --- the image --------------------------------------------------------------------------------------------

image: ## build the image (BUILDER=docker or podman; for a release, BASE_IMAGE=... with a digest)
	@$(BUILDER) build -f container/Dockerfile --build-arg BASE_IMAGE=$(BASE_IMAGE) -t $(IMAGE) .

sizes: ## show the layers of the image that make image built, and its 20 largest packages in KiB
	@$(BUILDER) history --format '{{.Size}} {{.CreatedBy}}' $(IMAGE)
	@$(BUILDER) run --rm --entrypoint sh $(IMAGE) -c \
		'du -sk /opt/sluice/lib/python3*/site-packages/* /app | sort -rn | head -n 20'

sbom: setup $(SUPPLY)/.ready ## write the image's bill of materials (CycloneDX) to build/sluice.cdx.json
	@mkdir -p build
	@$(BIN)/python -m container.lock | PYTHONWARNINGS=ignore $(SUPPLY)/bin/cyclonedx-py requirements \
		--output-reproducible --spec-version 1.6 --pyproject pyproject.toml --output-file build/sluice.cdx.json -
	@echo "build/sluice.cdx.json"

scan: setup $(SUPPLY)/.ready ## list known vulnerabilities of the image's packages (exit code 3 if not all could be checked)
	@$(BIN)/python -m container.scan $(SUPPLY)/bin/pip-audit

# --- measuring --------------------------------------------------------------------------------------------

cases: setup ## process realistic input files, and compare the results with the correct ones
	@$(BIN)/python -m tests.cases

round-trip: setup ## check that the rows of random files in all formats are published unchanged (FILES=20000 SEED=1)
	@$(BIN)/python -m tests.cases.round_trip --files $(FILES) --seed $(SEED)

bench-refine: setup ## measure CPU, wall time and memory of refine, compared with hand-written pandas and stock GX
	@$(BIN)/python -m tests.benchmarks.bench_refine

bench-start: setup ## measure CPU and wall time from a task's start to its first upload, compared with bare imports
	@$(BIN)/python -m tests.benchmarks.bench_start

bench-memory: setup ## measure the peak memory of a task by format and file size (LARGE=10000 adds a CSV file of 10 GB; RECORD=1 plots it in docs/performance.md)
	@$(BIN)/python -m tests.benchmarks.bench_memory --large $(LARGE) $(if $(RECORD),--record)
	@$(if $(RECORD),$(BIN)/python -m tests.unit.docs.doc_tables)

bench-burst: FILES = 1000
bench-burst: setup ## measure tasks, requests, time and cost of one file, then of 1,000 at once (FILES=1000, about 15 minutes)
	@$(BIN)/python -m tests.benchmarks.bench_burst --files $(FILES) --floor $(if $(RECORD),--record)

bench-latency: setup ## measure the time from upload to receipt, with and without a running task (about 8 minutes)
	@$(BIN)/python -m tests.benchmarks.bench_latency

soak: setup ## process 10,000 small uploads despite injected faults; must end with lost=0 doubled=0
	@$(BIN)/python -m tests.faults.soak --uploads $(SOAK_UPLOADS) --seed $(SOAK_SEED)

bench-prefect: setup ## measure a Prefect server's requests and CPU per upload, on SQLite and on PostgreSQL
	@$(BIN)/python -m tests.benchmarks.bench_prefect

# --- upkeep -----------------------------------------------------------------------------------------------

screenshots: setup ## take the screenshots in docs/images
	@$(BIN)/python -m tests.browser.screenshots

lock: setup ## update the lock files
	@$(UV) -o container/requirements.lock pyproject.toml
	@$(UV) -c container/requirements.lock --group dev -o deployment/locks/project.lock pyproject.toml
	@$(UV) -o deployment/locks/ministack.lock deployment/locks/ministack.in
	@$(UV) -o deployment/locks/linters.lock deployment/locks/linters.in
	@npm install --prefix $(NODE) --package-lock-only --omit-lockfile-registry-resolved --silent --no-audit --no-fund
	@$(UV) -o deployment/locks/supply_chain.lock deployment/locks/supply_chain.in
