# Two commands: `make train` and `make test`. Both make .venv and install what they need.
#   make train CONFIG=configs/segnet.py:camvid_small ARGS="--config.data.root=data/camvid"

PYTHON ?= python3
CONFIG ?= configs/pspnet.py
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# A file's tests stay together: they share what is compiled for them. One more than there are
# cores, as some wait for processes of their own.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
PARALLEL := -n $(WORKERS) --maxprocesses=5 --dist loadfile

.PHONY: train test slow lint clean

train: $(VENV)/.installed
	$(BIN)/python launch.py --config=$(CONFIG) $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --upgrade -r requirements-dev.txt
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info
