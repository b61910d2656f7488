# `make demo` and `make test` each work on a fresh machine with Python >= 3.11 and make.
IDIF_PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PY := $(BIN)/python
STAMP := $(VENV)/.installed

# Nothing is compiled by the installation: with this variable every process would compile torch again, for 6 s.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo docs pictures test test-long lint clean

setup: $(STAMP)

# The stamp is written last: an interrupted installation is repeated, never trusted. Python compiles the modules
# that are imported; compiling all of torch, diffusers and transformers beforehand would take a minute and a half.
$(STAMP): pyproject.toml
	$(IDIF_PYTHON) -c "import sys; sys.exit('idif needs Python 3.11 or newer, this is ' + sys.version.split()[0] + '; name another with IDIF_PYTHON=...' if sys.version_info < (3, 11) else 0)"
	$(IDIF_PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet --no-compile -e ".[test]"
	$(PY) -c "import pathlib; pathlib.Path('$(STAMP)').touch()"

demo: setup
	$(BIN)/idif demo

# docs/commands.md and docs/config.md from the code, benchmarks/results/README.md from its JSON files
docs: setup
	$(PY) docs/write_reference.py
	$(PY) benchmarks/results_page.py

# The pictures of docs/images, of generated parts alone; needs a Chromium.
pictures: demo
	$(PY) docs/make_pictures.py demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(PY) -m pytest -m "not long" -n 2 --dist loadfile --no-loadscope-reorder

test-long: setup
	$(PY) -m pytest -m long

clean:
	$(IDIF_PYTHON) -c "import shutil; [shutil.rmtree(p, ignore_errors=True) for p in ('$(VENV)', '.mypy_cache', '.ruff_cache', '.pytest_cache')]"
