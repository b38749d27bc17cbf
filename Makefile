# make demo   one whole run on generated data, from nothing to a table
# make test   the tests that take minutes in all; make test-all adds the slow ones
# make check  ruff, mypy --strict, import layers

PYTHON ?= python3
VENV   ?= .venv
# A fixed version keeps pip from choosing among builds of very different size.
TORCH  ?= torch==2.13.0
# An oracle of the tests. Its wheel is pure Python but asks for packages that it does not need.
ORACLE := pytorch-quantization==2.1.3
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test test-all check format report clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps --only-binary=:all: $(ORACLE)
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m qexp task=mrpc quant=w8a8 data=sample

test: $(READY)
	$(BIN)/python -m pytest -q -m "not slow"

test-all: $(READY)
	$(BIN)/python -m pytest -q

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

report: $(READY)
	$(BIN)/python -m qexp.report

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
