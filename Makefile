# make setup | build | test | lint | demo | clean      (README.md says what each needs)
# make test-minkowski      builds MinkowskiEngine (a quarter of an hour) and holds our network against it (docs/benchmarks.md)
PYTHON ?= python3
# Wheels of which ROS 2, where none is sourced: jazzy or kilted; one a checkout.
ROS_WHEELS ?= $(or $(shell cat .ros/wheels 2>/dev/null),jazzy)
export PYTHON TORCH TORCH_INDEX ROS_WHEELS
SHELL := /bin/bash

VENV := .venv
ROS_DONE := $(VENV)/.done-ros-$(ROS_WHEELS)
MESSAGES := $(wildcard msg/*.msg srv/*.srv)
INSTALLED := $(shell find instseg_ros launch config scripts/bin -type f ! -name '*.pyc' ! -name '*.so' 2>/dev/null)
RUN := . scripts/env.sh &&

.PHONY: all setup build lint test test-minkowski demo clean
all: build

setup: $(ROS_DONE)

$(VENV)/.done-venv:
	scripts/setup.sh venv
	@touch $@
$(VENV)/.done-package: $(VENV)/.done-venv setup.py pyproject.toml scripts/constraints.txt instseg_ros/sparse/kernels.cpp
	scripts/setup.sh package
	@touch $@
$(ROS_DONE): $(VENV)/.done-package scripts/ros-$(ROS_WHEELS)-wheels.txt scripts/mend_ros_wheels.py
	scripts/setup.sh ros
	@touch $@

build: $(VENV)/.done-build
$(VENV)/.done-build: $(ROS_DONE) CMakeLists.txt package.xml scripts/build.sh $(MESSAGES) $(INSTALLED)
	scripts/build.sh
	@touch $@

lint: $(ROS_DONE)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# pytest's closing line is printed again at the end: libraries may have something to say when the interpreter ends.
test: build lint
	@if [ "$$(cat .ros/mode)" = none ]; then echo "[instseg] no ROS 2 on this machine: tests that need it are skipped"; fi
	@mkdir -p log; set -o pipefail; $(RUN) python -m pytest $(PYTEST_ARGS) 2>&1 | tee log/make_test.txt; status=$$?; \
	grep -E '^=+ .*(passed|failed|error|skipped|no tests ran).* in .*=+$$' log/make_test.txt | tail -n 1; exit $$status

# Not part of `test`: MinkowskiEngine is an optional peer whose last release is from 2021.
test-minkowski: $(VENV)/.done-minkowski
	@$(RUN) python -m pytest test/models/test_minkowski.py $(PYTEST_ARGS)
$(VENV)/.done-minkowski: $(VENV)/.done-package scripts/minkowski.sh
	scripts/minkowski.sh
	@touch $@

demo: build
	@$(RUN) instseg demo $(DEMO_ARGS)

clean:
	rm -rf $(VENV) .ros build install log *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f instseg_ros/sparse/_kernels*.so
	find instseg_ros test -name __pycache__ -type d -prune -exec rm -rf {} +
