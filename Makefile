# `make gate` judges the bundled example, `make test` runs every test; each sets up .venv first.
PYTHON ?= python3
BIN = .venv/bin
export OMP_NUM_THREADS = 1

.PHONY: gate test lint clean

gate: .venv/.installed
	$(BIN)/python -m pytest --qgate qgate.toml

test: .venv/.installed-dev
	$(BIN)/python -m pytest -n 2

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict qgate plugins

clean:
	rm -rf .venv .qgate build *.egg-info

.venv/.installed: pyproject.toml constraints.txt setup.py $(wildcard qgate/quantization/_byte_*.[ch])
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
