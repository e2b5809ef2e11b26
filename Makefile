# The commands people type. `make help` lists them.

SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
.NOTPARALLEL:
export PYTHON ?= python3

bin := .venv/bin
code := csi_driver qos hack/vm/vm hack/clock.py hack/demo hack/bench tests
# Programs that tests use on this machine, with the Debian packages they are in.
programs := git:git mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs losetup:mount

# Seconds that each suite may take in `make test`, on two processors; a suite that takes longer fails. Several times what
# it takes on a quiet machine, since some of them run beside the VM and machines are slow at times.
budgets := unit=240 contract=240 rpc=60 native=360 kernel=1200 vm=600 states=300 killpoints=420 storm=240 faults=240 input=240
# The suites that attack the driver, and all that runs in the VM: of what is emulated, `make test` runs a part.
attacks := tests/states tests/killpoints tests/storm tests/faults tests/input tests/vm tests/kernel

.PHONY: help venv packages check lint unit test test-native test-vm torture vm csi-sanity demo bench proto format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: ## the Python environment in .venv, from constraints.txt; does nothing while it is up to date
	@hack/venv

packages: # what the native tests need of Debian; installs only what is missing
	@hack/need $(programs)

check: lint unit ## format, lint, types, import contracts, unit and contract tests: about a minute

lint: venv
	@echo "== format, lint, types, import contracts (about 30 s the first time, 5 s later)"
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy $(code)
	$(bin)/lint-imports --no-logo

unit: venv
	@echo "== unit and contract tests (about 40 s)"
	$(bin)/pytest tests/unit tests/contract

test: lint packages vm csi-sanity ## every check and every test, here and in the VM: as root; 25 minutes cold, 20 warm
	@echo "== all tests: unit, contract, native, and those in the VM (about 20 minutes)"
	$(bin)/pytest tests $(budgets:%=--budget=%) --durations=10

test-native: venv packages csi-sanity ## only the tests that need root and this machine's kernel
	$(bin)/pytest tests -m native

test-vm: venv vm csi-sanity ## only the tests that run in the VM; one of them: .venv/bin/pytest tests/kernel/FILE.py -k NAME
	$(bin)/pytest tests -m "kernel or boots"

torture: lint packages vm csi-sanity ## what attacks the driver and what runs in the VM, at full length and at random; figures go to spec/conformance.md
	@echo "== torture (hours)"
	SLUICE_TORTURE=1 $(bin)/pytest $(attacks) -v --figures spec/conformance.md

vm: venv ## the test machine's image and its QEMU; does nothing while they are up to date
	@hack/vm/build

csi-sanity: # the conformance suite, in build/bin
	@hack/csi-sanity

demo: venv ## the main job, shown: limits that hold between training and inference. As root; 5 minutes cold, 2 warm
	$(bin)/sluice demo

bench: venv packages ## what calls cost, beside the kernel's own cost and an empty server; targets. As root; 3 minutes
	hack/bench/rpc

proto: venv ## generate the gRPC stubs from spec/csi.proto
	hack/proto

format: venv ## bring the code into form
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

clean: ## remove what was built here; the test machine's image stays in the cache
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	find csi_driver qos tests hack -name __pycache__ -prune -exec rm -rf {} +
