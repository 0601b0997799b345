# make demo, make test: each makes .venv, installs what it needs there, and goes.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
# Tests wait more than they compute: two at a time for each processor. A module stays together, since
# its tests share servers. JOBS=0: one after the other, in one process.
JOBS ?= $(shell expr 2 \* $$(getconf _NPROCESSORS_ONLN))
# make demo HOSTS="a b node[1-6]": on these instead of hosts that it starts itself.
HOSTS ?=

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check
DOC := doc/_build/html

.PHONY: demo test bench doc lint types examples

demo: $(VENV)/.installed-plot,report
	$(RUN) examples/compression.py $(if $(strip $(HOSTS)),--hosts '$(HOSTS)')

test: $(VENV)/.installed-test
	tests/install-servers
	$(RUN) -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

# Each script prints its own comparison.
bench: $(VENV)/.installed-test
	@set -e; for script in tests/benchmarks/bench_*.py; do echo "== $$script"; $(RUN) "$$script"; done

lint: $(VENV)/.installed-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/.installed-test
	$(RUN) -m mypy

# Inheritance diagrams are drawn by graphviz.
doc: $(VENV)/.installed-doc
	@command -v dot >/dev/null || { echo "make doc needs graphviz: apt install graphviz" >&2; exit 1; }
	$(RUN) -m sphinx -W -n --keep-going -q -b html doc $(DOC)
	@echo "$(DOC)/index.html"

examples: $(VENV)/.installed
	@set -e; for script in examples/*.py; do echo "== $$script"; $(RUN) "$$script" </dev/null; done

# -- the virtual environment: made once, filled again when setup.cfg has changed ----------------

$(VENV)/.installed: $(RUN) setup.cfg pyproject.toml
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-%: $(RUN) setup.cfg pyproject.toml
	$(PIP) -e '.[$*]'
	@touch $@ $(VENV)/.installed

$(RUN):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "execo needs Python 3.11 or later: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
