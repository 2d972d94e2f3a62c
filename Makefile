# Every target works alone on a fresh machine that has Python 3.11 or newer, pip, make and a C compiler.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
BENCH := .venv-bench

.PHONY: fuzz soak setup format lint types imports test check audit constraints demo serve bench bench-readme clean
setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv || $(PYTHON) -m virtualenv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev]'
	@touch $(READY)

# What stillreel is compared with, in an environment of its own: moviepy takes an older Pillow along.
$(BENCH)/.ready: pyproject.toml
	$(PYTHON) -m venv $(BENCH) || $(PYTHON) -m virtualenv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $(BENCH)/.ready

format: $(READY) ; $(BIN)/ruff format . && $(BIN)/ruff check --fix .
lint: $(READY) ; $(BIN)/ruff format --check . && $(BIN)/ruff check .
types: $(READY) ; $(BIN)/mypy
imports: $(READY) ; $(BIN)/lint-imports
# Four at a time, because most tests wait for processes and sockets more than they work; a file stays with one of them,
# and tests/conftest.py says which are begun first. Compiled modules are kept, for many processes import them anew.
test: $(READY) ; PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder
check: lint types imports test
# Looks up known holes in what is installed; needs the network, so it is no part of check.
audit: $(READY) ; $(BIN)/pip-audit --skip-editable
demo: $(READY) ; $(BIN)/python scripts/demo.py
serve: $(READY) ; $(BIN)/stillreel serve
# Damaged pictures for an hour: no decoder may end its process, or show what was in memory before.
fuzz: $(READY) ; $(BIN)/python -m tests.pictures.fuzz
# The load tests with all that they can do, then a daemon and jobs through all doors for half an hour, while processes
# and the disk are troubled.
soak: $(READY)
	TEST_LOAD=full $(BIN)/python -m pytest -m load
	$(BIN)/python -m tests.soak
# The versions that the container's image installs; needs the network and the image's Python (PYTHON=python3.13).
constraints: ; $(PYTHON) scripts/constraints.py
bench: $(BENCH)/.ready ; $(BENCH)/bin/python -m benchmarks
# The tables and the plot of README.md, written into it: a quarter of an hour on two quiet cores.
bench-readme: $(BENCH)/.ready ; $(BENCH)/bin/python -m benchmarks readme
clean: ; rm -rf .venv $(BENCH) out .mypy_cache .ruff_cache .pytest_cache
