# Targets are the interface users rely on; `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
KERNEL := service/conveyor/engine/executors/kernel
PROTO_OUT := service/conveyor/api/rpc/proto
PROTOC = $(BIN)/python -m grpc_tools.protoc -I protos --python_out=$(1) --pyi_out=$(1) conveyor/v1/conveyor.proto

.DEFAULT_GOAL := help
.PHONY: help serve test test-all lint format proto bench train evaluate image

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(INSTALLED): pyproject.toml constraints.txt hatch_build.py $(wildcard $(KERNEL)/*.[ch] $(KERNEL)/build.py)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

serve: $(INSTALLED)  ## start the server on models/
	@exec $(BIN)/conveyor serve

test: $(INSTALLED)  ## run the test suite, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

test-all: $(INSTALLED)  ## run the long tests too
	$(BIN)/python -m pytest -m "slow or not slow" --timeout 1800

lint: $(INSTALLED)  ## ruff, mypy, import rules, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@generated=$$(mktemp -d) && trap 'rm -rf "$$generated"' EXIT && \
	$(call PROTOC,$$generated) && \
	diff -r -x __pycache__ -x __init__.py $$generated $(PROTO_OUT) || { echo "generated protobuf differs: run make proto"; exit 1; }

format: $(INSTALLED)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(INSTALLED)  ## generate Python from protos/
	$(call PROTOC,$(PROTO_OUT))

bench: $(INSTALLED)  ## measure batching in simulation, or with PEERS="triton litserve" other servers beside ours
	$(if $(PEERS),PYTHONPATH=benchmarks $(BIN)/python -m peers $(PEERS),$(BIN)/python benchmarks/batching.py --measure models/sentiment-en/1)

train: $(INSTALLED)  ## train MODEL=name on the data under CONVEYOR_DATA_DIR
	$(BIN)/conveyor train $(MODEL)

evaluate: $(INSTALLED)  ## score MODEL=name on the data under CONVEYOR_DATA_DIR
	$(BIN)/conveyor evaluate $(MODEL)

image: $(INSTALLED)  ## build the container image
	deploy/build-image
