# Two commands on a fresh machine: `make demo` and `make test`. Both install into .venv by themselves, once.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
RUNS ?= runs

.PHONY: demo test test-cluster chaos fuzz check docs bench screenshots clean

demo: $(INSTALLED)
	$(BIN)/python tests/demo.py --runs $(RUNS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-cluster: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist load --maxschedchunk 1 tests/cluster tests/chaos -m 'cluster and not long'

chaos: $(INSTALLED)
	$(BIN)/python -m pytest tests/chaos tests/tuning/test_run.py tests/cluster -m long

fuzz: $(INSTALLED)
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest tests/fuzz

check: $(INSTALLED) docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(INSTALLED)
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

screenshots: $(INSTALLED)
	$(BIN)/python tests/screenshots.py

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,weights,server]'
	touch $@

clean:
	rm -rf .venv build dist site *.egg-info
