# Needs GNU make and Python 3.11 or newer; everything else is installed into .venv.

VENV := .venv
PYTHON := $(VENV)/bin/python
# For two cores: while the tests of one process wait, those of another go on.
TEST_PROCESSES ?= 3
# Reads what every file of a release has for a hash. 37 MB, so that it is installed only for that.
LOCKSMITH := uv==0.13.9

# The first Python that is new enough. PYTHON3=/path/to/python chooses another.
PYTHON3 ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

.DEFAULT_GOAL := help
.PHONY: help run test lint types bench faults fuzz checklist audit sbom lock clean

help:  ## Show what there is to make
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.dev  ## Start everything, with demo data, under one Ctrl-C
	@$(PYTHON) -m fleet.embedded

test: $(VENV)/.dev  ## Run the tests (ARGS="tests/api -k rental" for some of them)
	@$(PYTHON) -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/.dev  ## Look for mistakes and untidiness
	@$(PYTHON) -m ruff check .

types: $(VENV)/.dev  ## Check the types
	@$(PYTHON) -m mypy

bench: $(VENV)/.bench  ## Measure against the limits of the machine, as ratios
	@$(PYTHON) -m tests.load.bench $(ARGS)

fuzz: $(VENV)/.dev  ## Send generated input as every role, more and other than the tests do (FUZZ_EXAMPLES=200)
	@FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-50} $(PYTHON) -m pytest -n $(TEST_PROCESSES) tests/security/test_schemathesis.py tests/security/test_fuzz.py $(ARGS)

checklist: $(VENV)/.dev  ## Run the tests of the security controls, and write docs/security/owasp-checklist.md from what came of it
	@$(PYTHON) -m tests.security.checklist $(ARGS)

faults: $(VENV)/.dev  ## Break the real processes, and prove after each fault that nothing is lost or doubled
	@$(PYTHON) -m tests.faults.run $(ARGS)

audit: $(VENV)/.dev  ## Look for vulnerable packages, and for secrets in every commit
	@$(PYTHON) -m tests.supply.history; secrets=$$?; $(PYTHON) -m tests.supply.audit && exit $$secrets

sbom: $(VENV)/.dev  ## Write what a deploy consists of into var/sbom.json (CycloneDX)
	@$(PYTHON) -m tests.supply.bill var/sbom.json

lock: $(VENV)/.dev  ## Write the locks anew, after a change of requirements*.txt
	@test -x var/lock/bin/uv || { $(PYTHON) -m venv var/lock && var/lock/bin/python -m pip install -qq $(LOCKSMITH); }
	@$(PYTHON) -m tests.supply.lock var/lock/bin/uv

clean:  ## Remove what was installed and cached; the data in var/ stays
	rm -rf $(VENV) var/test var/lock .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than what it was installed from, so that a second start installs nothing. The locks hold the hashes.
$(VENV)/.dev: requirements.lock requirements-dev.lock | $(PYTHON)
	@echo "Installing packages into $(VENV) (about a minute, this once)"
	@$(PYTHON) -m pip install -qq --disable-pip-version-check --require-hashes --requirement requirements-dev.lock
	@touch $@

$(VENV)/.bench: requirements-bench.lock $(VENV)/.dev
	@echo "Installing the peers of the benchmark into $(VENV)"
	@$(PYTHON) -m pip install -qq --disable-pip-version-check --require-hashes --requirement requirements-bench.lock
	@touch $@

$(PYTHON):
	@test -n "$(PYTHON3)" || { echo "Python 3.11 or newer is needed and was not found. Install it, or name it:" \
		"make PYTHON3=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON3) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON3) cannot make a virtual environment (on Debian: apt install python3-venv)." >&2; exit 1; }
