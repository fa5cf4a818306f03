# make setup | test | demo | bench | docs | figures | clean

PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(name) -c 'import sys; assert sys.version_info >= (3, 11); print("$(name)")' 2>/dev/null)))
BIN := .venv/bin
# decide by linear algebra: run once more as on another processor, whose last bits differ
LAST_BIT := tests/data/test_photos.py

.PHONY: setup test checks suite demo bench docs figures clean

setup: .venv/ready

# --no-compile: modules are compiled when they are imported first, and most of them never are
.venv/ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "unrender needs Python 3.11 or newer: make setup PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev,gpu,photos,scans,surface,volumes,viewer,tensorboard]'
	@touch $@

test: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory --jobs=2 checks suite

checks: setup
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	OMP_NUM_THREADS=1 OPENBLAS_CORETYPE=Prescott $(BIN)/pytest --quiet -p no:cacheprovider $(LAST_BIT)

suite: setup
	OMP_WAIT_POLICY=passive $(BIN)/pytest --numprocesses 2 --dist worksteal

demo: setup
	$(BIN)/unrender demo

bench: setup
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

figures: setup
	$(BIN)/python docs/figures/draw.py
	$(BIN)/python docs/figures/symptoms.py

clean:
	rm -rf site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
