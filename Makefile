# Needs make, git and Python 3.11 or newer; everything else is installed into .venv from the lock files.
PYTHON ?= python3
VENV := .venv/bin/python
CASES ?= 10000
SEED ?= 1
MINUTES ?= 30
TIMES ?= 1000
JOBS ?= 10000

.DEFAULT_GOAL := help
.PHONY: demo run specs tables test lint types format lint-specs test-dynamodb-local fuzz chaos soak races herd bench \
	audit lock docs settings-page swagger-ui clean help

demo: .venv/runtime.stamp ## watch one request travel through the whole system, on free ports
	@$(VENV) -m datahog demo

run: .venv/runtime.stamp ## run the whole system on this machine until Ctrl-C; data stays in .datahog
	@$(VENV) -m datahog run

specs: .venv/runtime.stamp ## show both API documents in a browser (port 8080), nothing else running
	@$(VENV) -m datahog viewer

tables: .venv/runtime.stamp ## create the DynamoDB tables where the settings point
	@$(VENV) -m datahog tables

test: lint types ## check style and types, then run all tests
	@# Several files at a time, for most of their time is spent waiting; in their order, the slow ones first.
	@$(VENV) -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

lint: .venv/dev.stamp ## check style and formatting
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .

types: .venv/dev.stamp ## check the types
	@$(VENV) -m mypy

format: .venv/dev.stamp ## format the code, and mend what can be mended by itself
	@$(VENV) -m ruff check --fix .
	@$(VENV) -m ruff format .

lint-specs: specs/lint/node_modules/.stamp ## check both API documents with Redocly's and Spectral's rules (needs Node.js)
	@cd specs/lint && REDOCLY_SUPPRESS_UPDATE_NOTICE=true REDOCLY_TELEMETRY=off npm run --silent lint

specs/lint/node_modules/.stamp: specs/lint/package-lock.json
	@command -v npm > /dev/null || { echo >&2 "The linters of the API documents need Node.js 20 or newer with npm."; exit 1; }
	@cd specs/lint && npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

test-dynamodb-local: .venv/dev.stamp ## run the persistence tests on Amazon's DynamoDB Local
	@DATAHOG_TEST_DYNAMODB=local $(VENV) -m pytest tests/persistence

fuzz: .venv/dev.stamp ## fuzz both APIs for long: make fuzz CASES=100000 SEED=1; the same seed goes on where it stopped
	@$(VENV) -m tests.fuzz --cases $(CASES) --seed $(SEED)

chaos: .venv/dev.stamp ## kill, freeze and cut under load, and count what was lost: make chaos MINUTES=20 SEED=7
	@$(VENV) -m tests.faults.chaos --minutes $(MINUTES) --seed $(SEED)

soak: .venv/dev.stamp ## the load of chaos without its faults: memory stays, the queue drains: make soak MINUTES=30
	@$(VENV) -m tests.faults.chaos --minutes $(MINUTES) --calm

races: .venv/dev.stamp ## let 64 workers end one request at the same moment, again and again: make races TIMES=1000
	@$(VENV) -m tests.faults.races --times $(TIMES)

herd: .venv/dev.stamp ## take a provider down with 10,000 jobs waiting, and bring it back: make herd JOBS=10000
	@$(VENV) -m tests.faults.herd --jobs $(JOBS)

bench: .venv/bench.stamp ## measure Datahog against its peers (25 minutes); writes bench/RESULTS.md
	@if command -v npm > /dev/null; then npm ci --silent --ignore-scripts --no-audit --no-fund --prefix bench/peers/node; fi
	@$(VENV) -m bench

docs: .docs/.stamp tools/site/node_modules/.stamp ## build the pages as a site with search: .site/index.html (needs Node.js)
	@.docs/bin/zensical build --strict --clean
	@# What the pages would else fetch from another host.
	@cp tools/site/node_modules/mermaid/dist/mermaid.min.js .site/assets/
	@cp tools/site/node_modules/iframe-worker/shim/index.js .site/assets/iframe-worker.js
	@echo "Open .site/index.html"

.docs/.stamp: requirements-docs.lock
	@$(PYTHON) -m venv .docs
	@.docs/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r $<
	@touch $@

tools/site/node_modules/.stamp: tools/site/package-lock.json
	@command -v npm > /dev/null || { echo >&2 "The pages' diagrams need Node.js 20 or newer with npm."; exit 1; }
	@cd tools/site && npm ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

settings-page: .venv/dev.stamp ## write the table of all settings into docs/configuration.md
	@$(VENV) -m tools.settings_page

swagger-ui: ## take the newest release of Swagger UI into specs/swagger_ui (needs Node.js)
	@cd specs/swagger_ui && npm install --silent --ignore-scripts --no-audit --no-fund --save-exact swagger-ui-dist@latest
	@cd specs/swagger_ui/static/vendor && for file in *; do \
		cp ../../node_modules/swagger-ui-dist/$$file $$file || exit 1; \
	done

audit: .venv/dev.stamp .audit/.stamp ## look all pinned packages up in the databases of known vulnerabilities
	@$(VENV) -m tests.support.audit

.audit/.stamp: requirements-audit.lock
	@$(PYTHON) -m venv .audit
	@# Without pip-audit nothing can be looked up, which the audit then says.
	@.audit/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r $< && touch $@ || \
		echo >&2 "pip-audit could not be installed"

lock: .venv/dev.stamp ## take the newest releases of all packages into the lock files
	@$(VENV) -m pip install -qq --disable-pip-version-check uv
	@for set in requirements requirements-dev requirements-java requirements-bench requirements-audit \
		requirements-docs; do \
		$(VENV) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
			--no-header --output-file $$set.lock $$set.in > /dev/null || exit 1; \
	done

clean: ## remove the virtual environment, caches and builds (.datahog stays)
	@rm -rf .venv .audit .docs .site build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .schemathesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' Makefile

# Makes .venv from a lock file: $(call install,requirements.lock,how long it takes).
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || { echo >&2 \
		"Datahog needs Python 3.11 or newer, and '$(PYTHON)' is not. Name one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { echo >&2 \
		"'$(PYTHON)' lacks venv. Install it (Debian, Ubuntu: the package python3-venv) or name another Python:" \
		"make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing the packages of $(1) into .venv (once; about $(2))"
	@$(PYTHON) -m venv .venv
	@$(VENV) -m pip install -qq --disable-pip-version-check --require-hashes -r $(1)
endef

# The stamps tell whether .venv is as its lock file says. The development packages include all others.
.venv/runtime.stamp: requirements.lock
	$(call install,requirements.lock,20 s)
	@touch $@

.venv/dev.stamp: requirements-dev.lock
	$(call install,requirements-dev.lock,40 s)
	@touch .venv/runtime.stamp $@

.venv/bench.stamp: requirements-bench.lock .venv/dev.stamp
	@$(VENV) -m pip install -qq --disable-pip-version-check --require-hashes -r $<
	@touch $@
