# Everything a person or CI does with Apus, by name. `make` alone lists the targets.
#
# One release build serves the demo, the tests and the benchmarks: numerics are never tested in debug, and a second
# configuration would compile everything, dependencies included, a second time. -enable-testing lets tests read
# internal declarations of that release build. Every swift command below takes the same BUILD_FLAGS: other flags
# would rebuild.

SWIFT ?= swift
BUILD_FLAGS := -c release -Xswiftc -enable-testing
APUS := .build/release/apus

TEXT ?=
STEPS ?=
OUT ?= runs/quickstart
FILTER ?=
BENCH ?= train

# The tests read files that we write with this Python's readers.
export APUS_PYTHON := $(CURDIR)/.apus/venv/bin/python3
# The folder of NVRTC, which the tests compile the CUDA kernels with; no GPU is needed.
export APUS_NVRTC := $(CURDIR)/.apus/venv/nvrtc

SWIFT_SOURCES := $(wildcard Package.swift Sources Tests Examples Benchmarks)

.PHONY: help setup build examples demo test bench report-ted soak lint format dist clean
.DEFAULT_GOAL := help

help: ## this list
	@printf 'Apus: train and serve Mixture-of-Experts language models.\n\n'
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup: ## install what this machine lacks (says what and why)
	@Scripts/setup.sh

build: ## the one release build: apus, the library and the tests
	$(SWIFT) build $(BUILD_FLAGS) --build-tests

# Each example is a package of its own, as a reader's would be; in the same build folder only its own files compile.
examples: build ## build every program in Examples
	@set -e; for package in $(dir $(wildcard Examples/*/Package.swift)); do \
		echo "$(SWIFT) build $(BUILD_FLAGS) --package-path $$package --scratch-path .build"; \
		$(SWIFT) build $(BUILD_FLAGS) --package-path $$package --scratch-path .build; done

demo: ## train the quickstart recipe and print a sample; TEXT=file STEPS=n OUT=folder
	@Scripts/setup.sh $(if $(TEXT),,--demo)
	@$(MAKE) --no-print-directory build
	@TEXT='$(TEXT)' STEPS='$(STEPS)' OUT='$(OUT)' Scripts/demo.sh

test: ## every test, in the release build; FILTER=regex for some
	@Scripts/setup.sh --test
	@$(MAKE) --no-print-directory build
	$(SWIFT) test $(BUILD_FLAGS) --skip-build --disable-xctest --xunit-output .build/tests.xml \
		$(if $(FILTER),--filter '$(FILTER)')
	@grep -q ' tests="[1-9]' .build/tests.xml || { printf \
		'error: no test ran: FILTER=%s matches no name; give part of a suite, a test or a target\n' '$(FILTER)' >&2; exit 1; }

report-ted: ## the DeepSpeed-TED report of this machine, Benchmarks/reports/ted.md
	@$(MAKE) --no-print-directory build
	@Benchmarks/ted.sh

soak: export APUS_SOAK := 1
soak: test ## the tests with their long forms whole (kills, fuzz, layouts, the quality report's runs); FILTER=regex for some
	@rm -rf .build/quality
	python3 Benchmarks/quality.py run --scale smoke --seeds 1 --apus $(APUS) --data README.md --work .build/quality \
		--results .build/quality/results.json

bench: ## measure speed and memory; BENCH='train gemm ...' picks among `apus bench --help`
	@Scripts/setup.sh
	@$(MAKE) --no-print-directory build
	@set -e; for name in $(BENCH); do printf '\n$$ apus bench %s\n' "$$name"; $(APUS) bench "$$name"; done

lint: ## check Swift format, the tree and the quality report's sums
	$(SWIFT) format lint --strict --parallel --recursive $(SWIFT_SOURCES)
	@Scripts/check-tree.sh
	@python3 Benchmarks/quality.py self-check

format: ## rewrite Swift files in the project's format
	$(SWIFT) format --in-place --parallel --recursive $(SWIFT_SOURCES)

dist: ## one archive for any x86-64 Linux with glibc 2.34 or later, in dist/
	@SWIFT='$(SWIFT)' Scripts/dist.sh

clean: ## remove builds and what set-up made here; runs stay
	rm -rf .build .build-* .apus
