# Two commands: `make train` and `make test`. Both make .venv and install what they need.
#   make train CONFIG=configs/segnet.py:camvid_small ARGS="--config.data.root=data/camvid"
#   make test PYTHON=python3.13

PYTHON ?= python3
CONFIG ?= configs/pspnet.py
ARGS ?=
# Each Python has an environment of its own: .venv, and .venv-3.13 for PYTHON=python3.13.
ifeq ($(PYTHON),python3)
VENV ?= .venv
else
override PYTHON := $(or $(shell bash .ci/find_python $(PYTHON)),$(error no Python to run with))
VENV ?= .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
endif
BIN := $(VENV)/bin
# A file's tests stay together: they share what is compiled for them. One more than there are
# cores, as some wait for processes of their own.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
PARALLEL := -n $(WORKERS) --maxprocesses=5 --dist loadfile

.PHONY: train test versions slow lint clean

train: $(VENV)/.installed
	$(BIN)/python launch.py --config=$(CONFIG) $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

# The tests marked so touch every package. What a dependency calls deprecated fails them.
versions: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m versions $(PARALLEL) $(ARGS)

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade -r requirements-dev.txt
	touch $@ $(VENV)/.installed

clean:
	rm -rf .venv .venv-* build *.egg-info
