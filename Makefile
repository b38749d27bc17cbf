# make demo   one whole run on generated data, from nothing to a table
# make test   the tests that take minutes in all; make test-slow the others; make test-all both, and every
#             composition of placement, scheme and quant in every runtime, more drawn inputs and more kills
# make test-no-vnni   the tests that multiply 8-bit integers, as on a CPU without VNNI: forced, and in an emulator
# make sweep name=glue_ptq   a sweep of sweeps/; words="..." goes along, such as words="hydra/launcher=joblib"
# make packages   what the slow tests need besides Python, from Debian; they skip without
# make rtx    TensorRT for RTX, which builds engines without a GPU; the tests of it skip without
# make conformance    qexp beside the real programs, in environments of some gigabytes; prints a table
# make docs   the generated pages of the reference, and the site in build/site; mkdocs serve shows it, with search
# make test-lowest   the quick tests with the oldest versions that pyproject.toml allows, in an environment of its own
# make check  ruff, mypy --strict, import layers

PYTHON ?= python3
VENV   ?= .venv
CONFORMANCE ?= .conformance
LOWEST ?= .lowest
# A fixed version keeps pip from choosing among builds of very different size.
TORCH  ?= torch==2.13.0
# Pure Python that asks for packages it does not need, or for older ones than it works with: oracles of the
# tests (pulp is all that the calibrators of nvidia-modelopt need besides), and Hydra's sweeper that searches.
ALONE  := pytorch-quantization==2.1.3 nvidia-modelopt==0.47.0 pulp==3.3.2 hydra-optuna-sweeper==1.3.0
# NVIDIA's, under NVIDIA's licence. The package of both is a script that fetches them: its parts are what is needed.
RTX := 1.7.1.116
# A private SLURM for the tests of sweeps, a browser for that of the HTML page, an emulator of other CPUs, a shell for completion.
PACKAGES := slurm-wlm slurmdbd munge mariadb-server chromium qemu-user zsh
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# A process of tests for each core, files whole, since tests of one share what they train; each with one thread.
# Files go out in the order of tests/conftest.py, long ones first, so that no process waits for another at the end.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses auto --dist loadfile --no-loadscope-reorder

name   ?= smoke
words  ?=

# What is run on a CPU without VNNI; graphs are exported by the run before, since the emulator takes a minute for one.
EMULATED := tests/deploy/runtimes/onnxruntime/test_engine.py tests/deploy/onnx/test_uint8.py \
  tests/deploy/onnx/test_saturation.py \
  tests/deploy/runtimes/onnxruntime/test_session.py tests/deploy/runtimes/tensorrt/test_build.py

# What the oldest versions are tried on: data, configuration, quantization in torch, Records, and files of ONNX.
OLD := tests/config tests/data tests/records tests/artifacts tests/quant/calibration tests/quant/test_grid.py \
  tests/quant/test_quantizer.py tests/deploy/onnx/test_packing.py tests/deploy/onnx/test_export.py

.PHONY: docs test-lowest sweep packages rtx demo test test-all test-slow test-no-vnni conformance check format report clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps --only-binary=:all: $(ALONE)
	touch $(READY)

demo: $(READY)
	$(BIN)/python -m qexp task=mrpc quant=w8a8 data=sample data.train_rows=600

test: $(READY)
	$(PYTEST) -m "not slow"

test-all: $(READY)
	QEXP_TEST_CASES=100 QEXP_TEST_KILLS=20 $(PYTEST)

test-slow: $(READY)
	$(PYTEST) -m "slow and not exhaustive"

test-no-vnni: $(READY)
	@set -e; if [ -z "$${QEXP_TEST_GRAPHS:-}" ]; then \
	  QEXP_TEST_GRAPHS=$$(mktemp -d); export QEXP_TEST_GRAPHS; trap 'rm -rf "$$QEXP_TEST_GRAPHS"' EXIT; fi; \
	export QEXP_EXACT_INT8_PRODUCTS=1; $(PYTEST) -m "integer_products and not slow" tests/deploy; \
	$(PYTEST) tests/deploy/onnx/test_export_translation.py -k marian-int8; \
	unset QEXP_EXACT_INT8_PRODUCTS; \
	if command -v qemu-x86_64 > /dev/null; then \
	  OMP_NUM_THREADS=1 qemu-x86_64 -cpu Haswell $(BIN)/python -m pytest -q -p no:cacheprovider $(EMULATED) -k "not refuse"; \
	else echo "qemu-x86_64 is not here: SKIPPED what needs a CPU without VNNI; make packages installs it"; fi

# Of one Python, the oldest: PYTHON=python3.11 make test-lowest. LOWEST names the environment, of some gigabytes.
test-lowest:
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --constraint constraints-lowest.txt \
	  --editable ".[openvino,marian,cluster]" pytest pytest-timeout hypothesis
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -q -p no:cacheprovider -m "not slow" \
	  -W default::DeprecationWarning $(OLD)

docs: $(READY)
	$(BIN)/python docs/reference.py
	$(BIN)/mkdocs build --strict

conformance: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.conformance $(CONFORMANCE)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

sweep: $(READY)
	$(BIN)/python -m qexp --config-dir sweeps --config-name $(name) $(words)

packages:
	apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $(PACKAGES)

rtx: $(READY)
	$(BIN)/python -m pip install --quiet tensorrt-rtx-cu13-libs==$(RTX) tensorrt-rtx-cu13-bindings==$(RTX)
	$(BIN)/python -m pip install --quiet --no-deps tensorrt-rtx-cu13==$(RTX)

report: $(READY)
	$(BIN)/python -m qexp report

clean:
	rm -rf $(VENV) $(LOWEST) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
