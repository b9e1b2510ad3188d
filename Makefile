# Two commands do everything: `make demo` and `make test`. Each installs what it needs into .venv first.
PYTHON ?= python3
# A CPU build where the package index offers one. With a GPU: make demo TORCH=torch (or torch with your CUDA's index).
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= demo-run

.PHONY: demo test test-browser check install install-dev docs clean

# The default folder is the demo's own and is made anew; another one is left to the command, which refuses to overwrite.
demo: install
	@$(if $(filter demo-run,$(OUT)),rm -rf demo-run)
	$(BIN)/shelfwise demo --out $(OUT)

test: install-dev
	$(BIN)/python -m pytest -n 2

# The pages in a real browser: needs a Chromium on the PATH, or SHELFWISE_CHROMIUM.
test-browser: install-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[browser]"
	SHELFWISE_DEMAND_BROWSER=1 $(BIN)/python -m pytest -m browser tests/browser

check: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

# docs/cli.md and the README's tables are written by code, and tests hold them against it.
docs: install-dev
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) $(OUT) build dist
