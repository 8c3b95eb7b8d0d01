# `make demo` and `make test` are enough to try it; `make help` lists all.
#
# uv comes from the PATH, or else from pip into .uv/. The locked environment and the project itself go into .venv/.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

UV := $(shell command -v uv || echo .uv/bin/uv)
UV_VERSION := 0.13.9
CLUSTER ?= .cluster
CLUSTER_FILES := pyproject.toml uv.lock serve_app/front.py docs/clusters/spot.sh
RUN := .venv/bin/python
STAMP := .venv/.locked
MODELS ?= models
PORT ?= 8000
RUNS ?= .demo/runs
DATA ?=

.PHONY: help demo test short coverage hosts faults soak settings lint serve tensorboard dashboards cluster-files clean

help:  ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(STAMP)  ## train, evaluate, promote and serve a small model, and send it an image; DATA=FOLDER for your own images
	@$(RUN) -m jobs.demo $(if $(DATA),--data "$(DATA)")

test: $(STAMP)  ## every test, in about 13 minutes on two cores; the last line says what failed
	@$(RUN) -m tests

short: $(STAMP)  ## short forms of the soak and of the attacks, which CI runs after the tests; a minute
	@$(RUN) -m reliability.soak --minutes 0.2 --small
	@$(RUN) -m reliability.attacks --only MPO

coverage: $(STAMP)  ## the lines of detector_core that its tests do not run; fails below 100%
	@$(RUN) -m coverage erase
	@$(RUN) -m coverage run -m pytest tests/core
	@$(RUN) -m coverage combine --quiet
	@$(RUN) -m coverage report

hosts: $(STAMP)  ## reliability/cluster: a Ray cluster of three simulated hosts (network namespaces); 8 minutes, needs root
	@bash reliability/cluster/run.sh

faults: $(STAMP)  ## reliability/faults: cause every fault in turn, write docs/reliability.md; 10,000 damaged files; 40 minutes
	@$(RUN) -m reliability.faults
	@DETECTOR_FUZZ=10000 $(RUN) -m pytest -n0 -s tests/serve/test_fuzz.py

soak: $(STAMP)  ## reliability/soak: an hour of mixed requests and promotions; nothing may fail, no memory may leak
	@$(RUN) -m reliability.soak

settings: $(STAMP)  ## write the table of settings in docs/http-api.md from their descriptions
	@$(RUN) -m serve_app.settings_table docs/http-api.md

lint: $(STAMP)  ## format, lint, types, import rules
	@.venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/mypy && .venv/bin/lint-imports

serve: $(STAMP)  ## serve the promoted model; MODELS=FOLDER PORT=8000
	@exec $(RUN) -m jobs.serve --models "$(MODELS)" --port "$(PORT)"

tensorboard: $(STAMP)  ## show the runs in TensorBoard; RUNS=FOLDER
	@exec .venv/bin/tensorboard --logdir "$(RUNS)" --host 127.0.0.1

dashboards:  ## Prometheus and Grafana for the Ray on this machine, with its panels and ours
	@exec bash docs/monitoring/start.sh

cluster-files:  ## copy into .cluster/ what the nodes of cluster.yaml and gcp.yaml mount; before every `ray up`
	@rm -rf "$(CLUSTER)" && mkdir -p "$(CLUSTER)" && cp $(CLUSTER_FILES) "$(CLUSTER)"

clean:  ## remove the environment and the demo's files
	rm -rf .venv .uv .demo .cluster

$(STAMP): uv.lock pyproject.toml $(filter .uv/bin/uv,$(UV))
	@echo "installing the locked environment into .venv/ ..." >&2
	@$(UV) sync --locked --quiet --compile-bytecode
	@touch $@

.uv/bin/uv:
	@echo "uv is not on the PATH: installing uv $(UV_VERSION) into .uv/" >&2
	@python3 -m venv .uv
	@.uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
