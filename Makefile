# Two commands do all set-up on a fresh machine: `make demo` and `make test`. Both make .venv themselves.
PYTHON ?= python3
KILLS ?= 1000
BIN := .venv/bin

.PHONY: demo test test-crash crash test-slow test-gpu check format train-quick train train-custom docs hooks clean

demo: .venv/ready  ## the main job on this machine's CPU: database -> specialist -> report
	$(BIN)/tunesmith run recipes/sql/demo.yaml

test: .venv/ready-dev  ## the default ring: offline, CPU, minutes
	$(BIN)/pytest -n auto

test-crash: .venv/ready-dev  ## kills real processes
	$(BIN)/pytest -m crash

crash: .venv/ready-dev  ## make crash KILLS=10000: as many kills, and every other fault as often as a release wants it
	TUNESMITH_KILLS=$(KILLS) $(BIN)/pytest -m crash tests/crash

test-slow: .venv/ready-dev
	$(BIN)/pytest -m slow

test-gpu: .venv/ready-dev
	$(BIN)/pytest -m gpu

check: .venv/ready-dev  ## lint, types, import contract
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/ready-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

train-quick: .venv/ready  ## 20 steps of the demo, to see every stage work
	$(BIN)/tunesmith run recipes/sql/demo.yaml --quick-test --experiment-name sql-demo-quick --fresh

train: .venv/ready  ## the 7B recipe on your database; needs a GPU and the variables the recipe names
	$(BIN)/tunesmith run recipes/sql/mistral-7b.yaml

train-custom: .venv/ready  ## make train-custom CONFIG=my.yaml
	@test -n "$(CONFIG)" || { echo "say which recipe: make train-custom CONFIG=my.yaml" >&2; exit 2; }
	$(BIN)/tunesmith run $(CONFIG)

docs: .venv/ready-dev  ## the site under site/
	$(BIN)/python -m pip install -q --group docs
	$(BIN)/mkdocs build --strict

hooks: .venv/ready-dev
	$(BIN)/python -m pip install -q pre-commit
	$(BIN)/pre-commit install

clean:
	rm -rf .venv runs site .pytest_cache .mypy_cache .ruff_cache

# An up-to-date stamp means that nothing is to be installed, so a second `make` takes no time.
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e ".[sql]"
	@touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/python -m pip install -q --group dev
	@touch $@
