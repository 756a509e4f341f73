# TasteMatch: what a developer or a newcomer types. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETS := api worker demo dev
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint lint-types lint-imports lint-style format bench lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+%?:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(VENV)/.demo ## install, import the sample data, precompute, serve until Ctrl-C
	@$(BIN)/python -m tastematch.demo

# Five processes on two cores, since many tests wait for something. pytest compiles the tests anew
# at each start unless it may keep them.
test: $(VENV)/.dev ## the whole test suite, against real services it starts itself
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 5 --dist worksteal

lint: $(VENV)/.dev ## ruff, mypy --strict, import contracts, tests that can be collected
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target \
	  lint-types lint-imports lint-style lint-tests

lint-types:
	$(BIN)/mypy

lint-imports:
	$(BIN)/lint-imports --no-logo

lint-style:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# What pytest compiles here, beside mypy, each process of the test run would compile for itself.
lint-tests:
	@found=$$(PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --collect-only -qq) || \
	  { echo "$$found"; exit 1; }

format: $(VENV)/.dev ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev ## every benchmark, each prints a table
	@for file in benchmarks/bench_*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

bench-%: $(VENV)/.dev ## one benchmark: read, import, memory, ...
	@$(BIN)/python -m benchmarks.bench_$*

lock: ## pin all requirements anew (needs uv on PATH)
	@for set in $(SETS); do \
	  case $$set in \
	    demo) extras="--extra api --extra worker" ;; \
	    dev) extras="--extra api --extra worker --extra dask --extra dev" ;; \
	    *) extras="--extra $$set" ;; \
	  esac; \
	  uv pip compile pyproject.toml $$extras --extra build --universal --python-version 3.11 \
	    --generate-hashes --no-emit-index-url --no-header --quiet -o requirements/$$set.lock; \
	done

clean: ## remove the environment and the demo's data
	rm -rf $(VENV) .data

# The lock files are whole, so pip need not look for dependencies; it would also compile one file
# after the other. What nothing here imports stays uncompiled: other packages' tests and lexers, and
# mypy's sources, which it brings compiled to C. What does not compile are templates. TasteMatch itself
# is a line in the path (compat): a finder of modules would cost each process 12 ms.
# A stamp holds the checksum of the lock file it was made from: a second run installs nothing.
# The dev set contains the demo set, so a stamp of dev serves both.
$(VENV)/.demo: FORCE
	@$(call install,demo)

$(VENV)/.dev: FORCE
	@$(call install,dev)

define install
	sum=$$(cat requirements/$(1).lock pyproject.toml | sha256sum | cut -c1-16); \
	dev=$$(cat requirements/dev.lock pyproject.toml | sha256sum | cut -c1-16); \
	if [ -f $(VENV)/.ok-$(1)-$$sum ] || [ -f $(VENV)/.ok-dev-$$dev ]; then exit 0; fi; \
	$(PYTHON) -c 'import sys; sys.exit("TasteMatch needs Python 3.11 or newer") if sys.version_info < (3, 11) else None' && \
	echo "installing the $(1) requirements into $(VENV)" && \
	$(PYTHON) -m venv $(VENV) && \
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --require-hashes -r requirements/$(1).lock && \
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --no-index \
	  --config-settings editable_mode=compat -e . && \
	{ $(BIN)/python -m compileall -qq -j 2 -x '/(tests|lexers|mypy|mypyc|pip|setuptools)/' $(VENV)/lib || true; } && \
	rm -f $(VENV)/.ok-$(1)-* && touch $(VENV)/.ok-$(1)-$$sum
endef

FORCE:
