# make demo: the whole way on the embedded digits. make test: the tests. make browser-test: the report in Chromium. make lint: ruff and mypy.
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
EPOCHS ?=

.PHONY: demo test browser-test lint

demo: $(VENV)/installed
	rm -rf demo && mkdir demo
	cd demo && $(BIN)/adjcompress train $(if $(EPOCHS),--epochs $(EPOCHS))
	cd demo && $(BIN)/adjcompress extract --alpha 8
	cd demo && $(BIN)/adjcompress export model.onnx
	cd demo && $(BIN)/adjcompress bench

# Two at a time, each on one thread: most of the tests' work is Python's own.
test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# The report in a real browser: Chromium must be installed (Debian: apt-get install chromium).
browser-test: $(VENV)/installed-test
	$(BIN)/python -m pytest -m browser tests/browser

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/installed: setup.cfg pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@
