# One word each: what a person types. `make help` lists them.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 39
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test slow check triage bench golden incidents clean
help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found; set PYTHON= to a Python of 3.11 or newer"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed ## train until the run stops by itself, then name the culprit (SEED=…)
	@$(BIN)/python demo.py --seed $(SEED)

test: $(VENV)/.installed ## the test suite, at most 8 minutes on two cores
	$(BIN)/python -m pytest -q -n 2

slow: $(VENV)/.installed ## the slow tests, at most 30 minutes on two cores
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'slow and not gpu'

check: $(VENV)/.installed triage ## ruff, format, mypy, the architecture test, and our own triage
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

triage: $(VENV)/.installed ## our own configurations and sources, audited; nothing may be found that can fail
	for config in configs/*/*.yaml; do $(BIN)/brainbrr-debug triage --config $$config --ignore 'env.*' --fail-on P3 || exit 1; done
	$(BIN)/brainbrr-debug triage --source . --strict --fail-on P3

bench: $(VENV)/.installed ## the benchmarks, side by side with their alternatives
	for script in tests/benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

incidents: $(VENV)/.installed ## planted failures and a healthy run, each verdict held against what is known
	@$(BIN)/python -m tests.incidents.run

golden: $(VENV)/.installed ## make the golden vectors of mamba_ssm again (an environment of its own)
	tests/golden/generate.sh

clean: ## remove what make and the runs created
	rm -rf $(VENV) runs cache corpus build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
