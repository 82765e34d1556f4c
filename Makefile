# Everything a fresh machine needs is Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help quickstart test test-kills test-slow lint docs installed bench clean

help:
	@echo "make quickstart   create the environment and search the bundled digits (50 trials x 3 folds)"
	@echo "make test         create the environment and run the tests"
	@echo "make test-kills   a sample of the slow tests that kill workers, in a minute or two"
	@echo "make test-slow    all tests, the slow ones too"
	@echo "make lint         ruff, mypy, and what make docs does: no broken link, no undocumented name"
	@echo "make docs         the documentation as a site: build/site/index.html"
	@echo "make bench        the benchmarks, on the real MNIST where it is (MNIST=folder)"

$(BIN)/aesearch: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/dev: $(BIN)/aesearch pyproject.toml
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

quickstart: $(BIN)/aesearch
	$(BIN)/aesearch run --folds 3 --trials 50

# As many processes as cores.
test: $(VENV)/dev
	$(BIN)/python -m pytest -n auto --dist worksteal

# Every tenth commit of each study that is killed at all of them, and one play of chance of each kind.
KILLS := (killed_at_a_commit and 3-) or (ten_kills and 0) or (sixty_trials and sqlite and 0)
test-kills: $(VENV)/dev
	$(BIN)/python -m pytest -n auto --dist worksteal --slow tests/search -k "$(KILLS)"

test-slow: $(VENV)/dev
	$(BIN)/python -m pytest -n auto --dist worksteal --slow

lint: $(VENV)/dev installed docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=build/check $(BIN)/mypy -p aesearch

docs: $(VENV)/dev installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# mypy and mkdocstrings cannot see through the mapping of folders to packages: they read this.
installed: $(VENV)/dev
	rm -rf build/check build/lib && $(BIN)/python -m pip install --quiet --no-deps --target build/check .

MNIST ?= ../shared/data
bench: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python benchmarks/run.py --data-dir $(MNIST)

clean:
	rm -rf $(VENV) build *.egg-info
