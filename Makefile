# The developer's interface. Everything installs itself into this checkout: .venv, .tools, .triton-server.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
RUN := $(VENV)/bin

.PHONY: help setup demo test lint types unit integration bench clean

help:  ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup  ## set everything up, run the main job, print the verdict and the path of its report
	@$(RUN)/radslo demo

# Most tests wait for servers and pods: two at a time, the cluster's first, as one process needs the longest for them.
# Kubernetes is built before, so that no test waits for that.
test: setup lint  ## set everything up, run all checks and all tests
	@$(RUN)/radslo cluster build --if-possible
	@$(RUN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

setup: $(VENV)/.installed  ## install the project and the embedded Triton server, once
	@$(RUN)/python -m deploy.embedded.install

$(VENV)/.installed: pyproject.toml uv.lock .ci/find-uv
	@uv="$$(.ci/find-uv)" && echo "installing the locked packages into $(VENV)" && "$$uv" sync --locked --quiet
	@touch $@

lint: $(VENV)/.installed  ## style, spelling, types, import contracts, lock
	@$(RUN)/ruff check --quiet
	@$(RUN)/ruff format --check --quiet
	@$(RUN)/codespell
	@$(RUN)/mypy --no-error-summary
	@$(RUN)/lint-imports --no-cache --no-logo

unit: $(VENV)/.installed  ## the tests that start no server
	@$(RUN)/pytest tests/unit

bench: setup  ## what our own client, recorder and verdicts cost; needs a few minutes and a quiet machine
	@$(RUN)/python -m benchmarks

clean:  ## remove all that was installed or built here; recordings in runs/ stay
	rm -rf $(VENV) .tools .triton-server build .mypy_cache .ruff_cache .pytest_cache .hypothesis
