# The commands of a working copy: `make demo`, `make test`, `make check`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo console test check format lock wheels clean

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/'

demo: $(INSTALLED) ## Judge the bundled sample images: services, worker, table, pictures
	@$(BIN)/filter-service demo

console: $(INSTALLED) ## The moderators' console with the samples in it, and a demo log-in
	@$(BIN)/filter-service console

test: $(INSTALLED) ## Run the tests, file by file on all cores, up to four
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: $(INSTALLED) ## Linters, types and the borders between rooms
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## Format and mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: ## Add to requirements.lock what pyproject.toml asks for (needs uv; UPGRADE=--upgrade renews)
	@cp requirements.lock requirements.lock.new
	uv pip compile pyproject.toml --extra dev --extra s3 --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate --quiet $(UPGRADE) --output-file requirements.lock.new
	@{ head -2 requirements.lock; cat requirements.lock.new; } > requirements.lock.whole
	@mv requirements.lock.whole requirements.lock && rm requirements.lock.new

wheels: ## Ask the index for a binary of every locked package, for Python 3.11 to 3.14 (needs uv)
	@.ci/wheels

clean: ## Remove the virtual environment and everything the demo wrote
	rm -rf $(VENV) .filter-service demo-output

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=python3.x")'
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed: install your system's python3-venv package and try again."; exit 1; }
	@echo "Installing (torch is large: some minutes on a slow line) ..."
	@if [ "$$(uname -sm)" = "Linux x86_64" ]; then \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .; \
	else \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,s3]'; \
	fi
	@touch $@
