# Every target sets up its own environment in .venv; Python 3.11+, git and make suffice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo demo-search test lint docs accuracy bench regularization search papers clean

demo: $(STAMP)
	$(BIN)/python examples/demo.py

demo-search: $(STAMP)
	$(BIN)/python examples/demo_search.py

test: lint
	OMP_NUM_THREADS=1 SCIPY_ARRAY_API=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

accuracy: $(STAMP)
# Their upper bounds on pandas and numba would downgrade what the tests use.
	$(BIN)/python -m pip install -q --no-deps aeon==1.6.0 mnist1d==0.0.2.post1
	$(BIN)/python -m pip install -q -c constraints.txt numba requests deprecated
	$(BIN)/python benchmarks/accuracy/run.py

bench: $(STAMP)
	$(BIN)/python benchmarks/speed/run.py

search: $(STAMP)
	$(BIN)/python benchmarks/search/run.py

regularization: $(STAMP)
	$(BIN)/python benchmarks/regularization/run.py

# Reduced, for a CPU; as published on a GPU: make papers FLAGS=--full
papers: $(STAMP)
	$(BIN)/python benchmarks/papers/run.py $(FLAGS)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) docs/_build docs/auto_examples docs/generated
