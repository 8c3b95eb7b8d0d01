# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
#
# uv comes from the PATH, else from pip into .uv/ inside this checkout; the locked environment goes to .venv/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

UV := $(shell command -v uv || echo .uv/bin/uv)
RUN := .venv/bin/python
STAMP := .venv/.locked
MODELS ?= .demo/models
PORT ?= 8000
RUNS ?= .demo/runs
DATA ?=

.PHONY: help demo test coverage hosts faults soak lint serve tensorboard dashboards clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(STAMP)  ## train, judge, promote and serve a small model, and ask it; DATA=FOLDER for your own images
	@$(RUN) -m jobs.demo $(if $(DATA),--data "$(DATA)")

test: $(STAMP)  ## every test
	@$(RUN) -m pytest -m "not serial" --numprocesses=2
	@$(RUN) -m pytest -m serial

coverage: $(STAMP)  ## which lines of the core its own tests leave out
	@$(RUN) -m coverage erase
	@$(RUN) -m coverage run -m pytest tests/core
	@$(RUN) -m coverage combine --quiet
	@$(RUN) -m coverage report

hosts: $(STAMP)  ## a cluster of three hosts made of namespaces, over real ssh; needs root
	@bash reliability/cluster/run.sh

faults: $(STAMP)  ## break everything on purpose, one thing after another; writes docs/reliability.md
	@$(RUN) -m reliability.faults

soak: $(STAMP)  ## an hour of mixed requests and promotions: no failure, memory and open files flat
	@$(RUN) -m reliability.soak

lint: $(STAMP)  ## format, lint, types, import rules
	@.venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy && .venv/bin/lint-imports

serve: $(STAMP)  ## serve the promoted model; MODELS=FOLDER PORT=8000
	@exec $(RUN) -m serve_app --models "$(MODELS)" --port "$(PORT)"

tensorboard: $(STAMP)  ## look at the runs in TensorBoard; RUNS=FOLDER
	@exec .venv/bin/tensorboard --logdir "$(RUNS)" --host 127.0.0.1

dashboards:  ## Prometheus and Grafana beside the Ray that runs here, with its panels and ours
	@exec bash docs/monitoring/start.sh

clean:  ## remove the environment and everything the demo made
	rm -rf .venv .uv .demo

$(STAMP): uv.lock pyproject.toml $(filter .uv/bin/uv,$(UV))
	@echo "installing the locked environment into .venv/ ..." >&2
	@$(UV) sync --locked --quiet --compile-bytecode
	@touch $@

.uv/bin/uv:
	@echo "uv is not on the PATH: installing it into .uv/" >&2
	@python3 -m venv .uv
	@.uv/bin/pip install --quiet --disable-pip-version-check uv
