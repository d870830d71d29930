# Two commands do everything on a fresh machine: `make quickstart` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: quickstart test test-slurm lint bench clean

quickstart: $(INSTALLED)
	$(BIN)/mixbench run sweeps/quickstart.yaml
	$(BIN)/mixbench report sweeps/quickstart.yaml

test: $(INSTALLED)
	$(BIN)/python -m pytest

test-slurm: $(INSTALLED)
	$(BIN)/python -m pytest -m slurm tests/slurm

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(INSTALLED)
	for script in loop mixers transformmix puzzlemix comixup supermix augmix step buffers overhead report graph; do $(BIN)/python benchmarks/$$script.py || exit 1; done

clean:
	rm -rf .venv dist

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@
