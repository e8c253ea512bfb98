# Everything that is done with this checkout: `make help` lists it.
#
#     make demo PYTHON=python3.12             another Python for the virtual environment
#     make test ARGS="-k session -x"          arguments for pytest, or for the benchmarks
#     make fuzz SECONDS=600                   how long each fuzzer runs

PYTHON  = python3
ARGS    =
SECONDS = 60

SYSTEM = gcc libkrb5-dev libremctl-dev pkg-config python3-dev python3-venv \
         krb5-admin-server krb5-kdc krb5-user remctl-client remctl-server
BUILT  = pyproject.toml setup.py $(wildcard src_c/*)
BIN    = .venv/bin
DEV    = .venv/.stamp-dev
BENCH  = .venv/.stamp-bench
DOCS   = .venv/.stamp-docs
FUZZ   = .venv/.stamp-fuzz

.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help setup demo demo-jobs test test-memory fuzz lint bench docs clean system

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

setup: $(DEV) ## install what is missing: system packages, the virtual environment, the built extension

demo: $(DEV) ## show the main job against real servers on this machine
	@$(BIN)/python -m remctl.testing.demo

demo-jobs: $(DEV) ## show unattended jobs from an empty folder to a report, on this machine
	@$(BIN)/python -m remctl.jobs.demo

test: $(DEV) ## run all tests, in development mode, with warnings as errors
	@tools/system-packages chromium chromium-driver curl default-jre-headless faketime fish fonts-dejavu-core groovy libnet-remctl-perl \
	    libnss-wrapper openssl postgresql python3-pyremctl zsh
	$(BIN)/python -X dev -W error -m pytest $(ARGS)

test-memory: $(DEV) ## run the C part under valgrind
	@tools/system-packages valgrind
	PYTHONMALLOC=malloc $(BIN)/remctl-sandbox -- valgrind --quiet --error-exitcode=9 --leak-check=no \
	    --suppressions=tools/valgrind.supp $(BIN)/python tools/memory.py

fuzz: $(FUZZ) ## let a fuzzer try the protocol core and the server, for SECONDS each
	$(BIN)/python fuzzing/fuzz_protocol.py $(SECONDS)
	$(BIN)/python fuzzing/fuzz_server.py $(SECONDS)

lint: $(DEV) ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(BENCH) build/limit ## measure against the stock binding, the C client, procrastinate and what C can reach
	@tools/system-packages postgresql python3-pyremctl
	@PYTHONPATH=tests $(BIN)/python benchmarks/bench.py $(ARGS)

docs: $(DOCS) ## build the documentation in docs/_build/html
	$(BIN)/python -m sphinx -W -b html docs docs/_build/html

clean: ## remove everything that was built, the virtual environment too
	rm -rf .venv build dist docs/_build benchmarks/results fuzzing/corpus fuzzing/findings *.egg-info .hypothesis .*_cache
	rm -f remctl/*.so remctl/_libremctl.c
	find . -name __pycache__ -prune -exec rm -rf {} +

# How it is set up

system:
	@tools/system-packages $(SYSTEM)

$(BIN)/python $(BIN)/pip &: | system
	@tools/environment create "$(PYTHON)"

$(DEV): $(BUILT) $(BIN)/python $(BIN)/pip | system
	@tools/environment install dev
	@touch $@

$(BENCH): pyproject.toml $(DEV)
	@tools/environment install bench
	@touch $@

$(FUZZ): pyproject.toml $(DEV)
	@tools/environment install fuzz
	@touch $@

$(DOCS): pyproject.toml $(DEV)
	@tools/environment install docs
	@touch $@

build/limit: benchmarks/limit.c | system
	@echo "Compiling benchmarks/limit.c"
	@mkdir -p build
	@$(CC) -O2 -Wall -Wextra $$(pkg-config --cflags libremctl) -o $@ $< $$(pkg-config --libs libremctl)
