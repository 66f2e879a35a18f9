# Two commands do everything: `make demo` shows the chain at work, `make test` proves it.
# Both set up what they need first. Python 3.11 to 3.13 and make are all that must be there.

PYTHON ?= python3
VENV   := .venv
CLOUD  := .venv-cloud
BIN    := $(VENV)/bin
SOAK_UPLOADS ?= 10000
SOAK_SEED    ?= 1
UV     := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header

.DEFAULT_GOAL := help
.PHONY: help setup demo up clean distclean test suites lint types arrows unit infra chain faults faults-all browser bench-refine screenshots soak lock

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

# --- environments -----------------------------------------------------------------------------------------
# A stamp is touched last, so a half-finished set-up is begun again.

setup: $(VENV)/.installed $(CLOUD)/.ready ## both environments, from the hash-locked requirements

$(VENV)/.installed: $(VENV)/.ready pyproject.toml
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.ready: deployment/locks/project.lock
	@$(PYTHON) deployment/check_python.py
	@echo "Setting up the project's environment in $(VENV) (a minute or two, once)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r deployment/locks/project.lock
	@touch $@

$(CLOUD)/.ready: deployment/locks/ministack.lock
	@$(PYTHON) deployment/check_python.py
	@echo "Setting up the embedded cloud's environment in $(CLOUD)"
	@$(PYTHON) -m venv --clear $(CLOUD)
	@$(CLOUD)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r deployment/locks/ministack.lock
	@touch $@

# --- use --------------------------------------------------------------------------------------------------

demo: setup ## runs real files through the whole chain and shows what happened
	@$(BIN)/sluice demo

up: setup ## keeps the embedded cloud and Prefect running until Ctrl-C
	@$(BIN)/sluice up

clean: ## forgets the local cloud's state (uploads, receipts, flow runs)
	@if [ -x $(BIN)/sluice ]; then $(BIN)/sluice clean; else rm -rf .sluice; fi

distclean: clean ## removes the environments too
	@rm -rf $(VENV) $(CLOUD)

# --- the gate ---------------------------------------------------------------------------------------------

# The suites mostly wait, for a cloud to start or a task to end: two at a time take little more than half as long. What a
# suite says appears when it has ended.
test: setup lint types arrows ## everything the gate checks
	@echo "Now the tests, two suites at a time; each shows its output when it has ended (about 12 minutes in all)"
	@$(MAKE) --no-print-directory -j 2 --output-sync=target suites

suites: unit infra chain faults browser

lint: setup ## formatter and linter
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: setup ## type checker, strict
	@$(BIN)/mypy

arrows: setup ## which folder may import which
	@$(BIN)/lint-imports

unit: setup ## unit tests
	@$(BIN)/pytest -q tests/unit

infra: setup ## template, state machine, packaging
	@$(BIN)/pytest -q tests/infra

chain: setup ## whole uploads through the embedded cloud, with IAM enforced
	@$(BIN)/pytest -q tests/chain

faults: setup ## injected faults
	@$(BIN)/pytest -q -m "not slow" tests/faults

faults-all: setup ## injected faults, also those that are too slow for the gate
	@$(BIN)/pytest -q tests/faults

browser: setup ## the real Prefect UI in Chromium (skipped, with the reason, where there is none)
	@$(BIN)/pytest -q tests/browser

# --- measuring --------------------------------------------------------------------------------------------

bench-refine: setup ## rows per second of validating and preprocessing, beside pandas by hand and stock GX
	@$(BIN)/python -m tests.benchmarks.bench_refine

soak: setup ## 10,000 small uploads under kills, lost answers, refusals and repetitions; ends with lost=0 doubled=0
	@$(BIN)/python -W "ignore:resource_tracker" -m tests.faults.soak --uploads $(SOAK_UPLOADS) --seed $(SOAK_SEED)

# --- upkeep -----------------------------------------------------------------------------------------------

screenshots: setup ## takes the pictures in docs/images anew
	@$(BIN)/python -m tests.browser.screenshots

lock: setup ## resolves the lock files anew
	@$(UV) -o container/requirements.lock pyproject.toml
	@$(UV) -c container/requirements.lock --group dev -o deployment/locks/project.lock pyproject.toml
	@$(UV) -o deployment/locks/ministack.lock deployment/locks/ministack.in
