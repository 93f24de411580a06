# Everything runs in a virtual environment of its own, .venv, made by whatever interpreter PYTHON names.
#   make demo [PORT=8000] [EVENTS=20]   the chat under gunicorn, followed in this terminal
#   make test [ARGS="-k decoder"] [PROCESSES=6]   everything the tests need, and the tests
#   make quick [ARGS=…]                 the tests that start no server and take no second: half a minute
#   make matrix [ARGS=…]                combinations that the tests leave out, and more random examples
#   make sdk                            all scenarios of all clients of others, and the page of what came of them
#   make check | types | docs | bench | coverage | clean
PYTHON ?= python3
PROCESSES ?= 6
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
# The demo reads them from its environment.
export PORT EVENTS
# The tests start several hundred processes, which would compile all that they import, and are collected by all processes.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test system quick matrix sdk check types docs bench coverage clean

demo: $(VENV)/demo.installed
	@$(BIN)/python example_projects/flask_chat/demo.py

# Most tests wait for something: four processes kept two cores at work for three quarters of the time, six keep them at
# work for nine tenths, as calculated from that. With eight, a wait of ten seconds was too short in 4 of 6,935 tests.
# The tests of a file stay together, as they share servers, and the files in the order of tests/order.py: xdist itself
# would begin with those that have most tests, and end with one process at work.
test: system $(VENV)/dev.installed $(VENV)/node.installed | tests/__pycache__/compiled
	@$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

# In a fresh clone each of these processes would compile all tests itself, which takes longer than to collect them.
tests/__pycache__/compiled: | $(VENV)/dev.installed
	@$(BIN)/python -m pytest --collect-only -qq tests/unit >/dev/null 2>&1 & \
	$(BIN)/python -m pytest --collect-only -qq --ignore tests/unit tests >/dev/null 2>&1; wait
	@mkdir -p $(@D) && touch $@

system:
	@tests/system_packages.sh chromium:chromium chromedriver:chromium-driver curl:curl nginx:nginx-light haproxy:haproxy apache2:apache2-bin varnishd:varnish caddy:caddy redis-server:redis-server cc:build-essential node:nodejs npm:npm

# Compiled tests are kept even where the environment says not to: compiling takes longer than the tests.
quick: $(VENV)/dev.installed
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --numprocesses 3 -m "not live and not slow" $(ARGS)

# Before a release, and each night where that is possible.
matrix: system $(VENV)/dev.installed
	@$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder -m matrix $(ARGS)
	@$(BIN)/python -m pytest --numprocesses 2 --hypothesis-profile thorough tests/unit/wire

# Records the results, from which the page is made.
sdk: system $(VENV)/dev.installed $(VENV)/node.installed
	@SDK_RECORD=1 $(BIN)/python -m pytest -m live tests/sdk/test_clients.py $(ARGS)
	@$(BIN)/python -m tests.sdk.page

# Branches too, of the core, by the quick tests. Python begins with measuring: pytest's plugin, which pytest loads before
# any option of its own, imports the package. The gate is fail_under in pyproject.toml.
coverage: $(VENV)/dev.installed
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest --numprocesses 2 --dist loadfile -m "not live and not slow" $(ARGS)
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

check: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

# Both type checkers. pyright's package fetches its program from npm when it first runs, so it is no part of check.
types: $(VENV)/dev.installed
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/dev.installed
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@touch docs/_build/passed

bench: $(VENV)/bench.installed
	@$(BIN)/python -m benchmarks.codec
	@$(BIN)/python -m benchmarks.reader
	@$(BIN)/python -m benchmarks.channels
	@$(BIN)/python -m benchmarks.fanout
	@$(BIN)/python -m benchmarks.answers
	@$(BIN)/python -m benchmarks.runs

clean:
	rm -rf $(VENV) tests/sdk/node/node_modules docs/_build build dist *.egg-info .nox .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The clients of tests/sdk, in exact releases.
$(VENV)/dev.installed: EXACT := --requirement tests/sdk/requirements.txt
$(VENV)/dev.installed: tests/sdk/requirements.txt

# Installed again when the dependencies change; the sources are used where they are.
$(VENV)/%.installed: setup.cfg pyproject.toml | $(VENV)/made
	@echo "Installing into $(VENV): ssesync[$*]"
	@$(PIP) install --editable ".[$*]" $(EXACT)
	@touch $@

# The clients in JavaScript. Where they cannot be installed, this says so and goes on: their tests are skipped, and fail
# under CI=true. Each command tries again. From an empty cache: 19 s, and 45 s with npm's own 15 connections.
$(VENV)/node.installed: tests/sdk/node/package.json tests/sdk/node/package-lock.json | $(VENV)/made system
	@echo "Installing into tests/sdk/node: clients in JavaScript"
	@(cd tests/sdk/node && npm ci --ignore-scripts --no-audit --no-fund --prefer-offline --maxsockets 40 --loglevel error) >/dev/null \
		&& touch $@ || echo "Not installed (that takes npm and its registry): clients in JavaScript"

# Debian's Python comes without venv, and a half-made environment must not look like a whole one.
$(VENV)/made:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed: PYTHON=python3.x')"
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || tests/system_packages.sh "no venv:python3-venv"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@
