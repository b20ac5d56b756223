# Everything a person or CI runs. Each target installs what it needs, once.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test test-all test-cuda check format lint types docs notebooks clean

install: $(STAMP)

# torch first and pinned: another package would otherwise pull the newest build, with gigabytes of CUDA.
$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "$(PYTHON) is older than 3.11; name a newer one: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "installing the pinned packages into .venv (once; a few minutes)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: install
	$(BIN)/fedrec demo

# Workers with one thread each, since the tests are many, and small. The tests of a file go to one worker: they share what
# takes long to set up, a federation or a browser. tests/conftest.py says how many workers, and which files come first.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

test: install
	$(PYTEST)

test-all: install
	$(PYTEST) -m "not cuda"

test-cuda: install
	$(BIN)/python -m pytest -m cuda

check: install format lint types docs test

format: install
	$(BIN)/ruff format --check .

lint: install
	$(BIN)/ruff check .

types: install
	$(BIN)/pyright

# The documentation as pages, with the API reference, in var/site; a broken link is an error.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: install
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis *.egg-info
