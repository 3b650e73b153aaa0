# VoxAdapt. On a fresh machine: `make repro`, or `make test`.
#
#   make repro   set up, restore data/, run the pipeline, say where the report is
#   make test    set up, restore data/, run the whole test suite
#   make test-ray
#                install Ray (370 MB), test extraction and scoring on a cluster of this machine
#   make test-faults
#                kill every stage at random moments; writes docs/reliability.*
#   make lab     open the notebooks in JupyterLab
#   make setup   only create .venv and install
#   make clean   remove .venv and everything that the pipeline wrote
#
# PYTHON=python3.12              another interpreter (3.11 or newer)
# TORCH_INDEX=https://download.pytorch.org/whl/cpu
#                                a further package index; this one saves gigabytes on a Linux
#                                machine without a GPU
# EXTRAS=dev,gpu CONSTRAINTS=constraints-gpu.txt
#                                a CUDA machine
# LAB=--allow-root               options of JupyterLab; this one for root, as in a container
# PYTEST="-m 'not slow' -x"      options for the tests

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
EXTRAS ?= dev
CONSTRAINTS ?= constraints.txt
PYTEST ?=
LAB ?=

BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/.installed
# Stages and tests find python, dvc and voxadapt of the virtual environment.
export PATH := $(BIN):$(PATH)
export VIRTUAL_ENV := $(abspath $(VENV))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Imports are compiled once, not by each of the processes that a pipeline starts.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE
# A waiting OpenMP thread must not take the core from a working one.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup data repro test test-ray test-faults lab clean

help:
	@sed -n '3,/^#$$/s/^# *//p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(CONSTRAINTS)
	@command -v $(PYTHON) >/dev/null || \
	  { echo "No $(PYTHON) found. Install Python 3.11 or newer, or give PYTHON=/path/to/python."; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Give PYTHON=python3.11."; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) has no venv module. On Debian or Ubuntu: apt install python3-venv."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-input --no-compile --progress-bar off -c $(CONSTRAINTS) \
	  $(addprefix --extra-index-url ,$(TORCH_INDEX)) -e ".[$(EXTRAS)]"
	@$(BIN)/voxadapt notebook filter
	@touch $@

# Restored from the folder .dvcstore, without a network; a moment when it is already there.
data: $(STAMP)
	$(BIN)/dvc pull --quiet data.dvc

# On a CPU the voice and the language run side by side, so that one uses the cores while the other
# trains in one thread. `--downstream` keeps both from the stage that they share, `clean`; the last
# line runs nothing if nothing was missed.
repro: $(STAMP) data
	@if grep -qs '^  device: cpu' params.yaml; then \
	  $(BIN)/dvc repro --quiet clean && \
	  { $(BIN)/dvc --wait-for-lock repro --downstream language_data & language=$$!; \
	    $(BIN)/dvc --wait-for-lock repro --downstream audit; voice=$$?; \
	    wait $$language && test $$voice -eq 0; }; \
	fi
	$(BIN)/dvc repro
	@echo
	@echo "The voice:    $(CURDIR)/reports/index.html"
	@echo "The language: $(CURDIR)/reports/language/index.html"

test: $(STAMP) data
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST)

# Apart from the others, so that who needs no cluster need not download Ray. Compiled, because each
# of its many processes has seconds to start.
test-ray: $(STAMP)
	$(BIN)/python -m pip install --no-input --progress-bar off -c $(CONSTRAINTS) \
	  $(addprefix --extra-index-url ,$(TORCH_INDEX)) -e ".[$(EXTRAS),ray]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/core/test_executor.py

test-faults: $(STAMP) data
	rm -f docs/reliability.json
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/kills.py --kills 20 --real 3 \
	  --summary docs/reliability.json
	$(BIN)/python tests/faults/page.py

lab: $(STAMP) data
	$(BIN)/voxadapt lab $(LAB)

clean:
	rm -rf $(VENV) .work artifacts reports/notebooks reports/index.html reports/listen \
	  reports/language/index.html
