# Two commands do everything on a fresh machine with Python 3.11+, make and a package manager:
#   make demo    a mesh on this machine: Bookinfo behind real Envoys (ONCE=1: show and tear down)
#   make test    every test, ending with a table of what ran and what was skipped
# the first interpreter that runs and is new enough (version switchers leave names that do not run)
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check faults cluster cluster-down cluster-test cluster-faults conformance bench bench-quick endurance performance gold format lock wheel clean

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort

setup: $(READY) ## the virtual environment with everything in requirements.lock

$(READY): requirements.lock pyproject.toml hatch_build.py tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh $(VENV)
	@touch $@

demo: $(READY) ## run Bookinfo on a local mesh
	@ONCE="$(ONCE)" $(BIN)/tulle demo $(DEMO_ARGS)

test: $(READY) ## all tests (TULLE_TEST_STRICT=1: a skip is a failure)
	@$(BIN)/python tools/run_tests.py

check: $(READY) ## format, lint, types, import contracts, unit and golden tests: under 90 seconds
	@$(BIN)/python tools/run_tests.py --quick

faults: $(READY) ## the fault table under load (about 10 minutes)
	@$(BIN)/python -m pytest -m faults tests/faults -s -q

cluster: $(READY) ## a real Kubernetes on this machine (root); NODES=1|2 NAME=dev DUAL=1 IMAGES=all DETACH=1; prints its kubeconfig
	@PYTHONPATH=tests/cluster $(BIN)/python -m kubelab up --name "$(or $(NAME),dev)" --nodes "$(or $(NODES),1)" \
	  --images "$(IMAGES)" $(if $(DETACH),--detach) $(if $(DUAL),--dual)

cluster-down: $(READY) ## take it down, dead or alive; ALL=1: all of them
	@PYTHONPATH=tests/cluster $(BIN)/python -m kubelab down --name "$(or $(NAME),dev)" $(if $(ALL),--all)

cluster-test: $(READY) ## what make test leaves out of the cluster: install, injection, Bookinfo, the source and writes (root; many minutes)
	@$(BIN)/python -m pytest -q -m "cluster and not faults" tests/cluster tests/installing

cluster-faults: $(READY) ## the same in a cluster of two nodes, kept in docs/faults.md (root; about half an hour); TULLE_FAULT_RATE=25
	@TULLE_FAULT_PAGE=docs/faults.md $(BIN)/python -m pytest -m "cluster and faults" tests/cluster/test_cluster_faults.py -s -q

conformance: $(READY) ## the official suite of the Gateway API in a cluster of its own (root; about 45 minutes); ARGS="--run TEST --cluster NAME"
	@PYTHONPATH=tests/cluster $(BIN)/python tests/cluster/conformance.py $(or $(ARGS),--save)

bench: $(READY) ## measure everything, keep the results (needs Go and Rust; about 25 minutes on a quiet machine)
	@$(BIN)/python -m bench first-answer --save
	@$(BIN)/python -m bench control-plane --grid default --save
	@$(BIN)/python -m bench control-plane --grid on-demand --save
	@$(BIN)/python -m bench control-plane --grid large --save
	@$(BIN)/python -m bench sidecar-memory --save
	@$(BIN)/python -m bench data-path --traffic http1,new,http2,grpc,tcp --save
	@$(BIN)/python -m bench filter-cost --save
	@$(BIN)/python -m bench page

bench-quick: $(READY) ## the same machinery in a minute or two, nothing is kept
	@$(BIN)/python -m bench control-plane --grid quick --repeat 1
	@$(BIN)/python -m bench sidecar-memory --services 100 --discovery full
	@$(BIN)/python -m bench data-path --cycles 2 --seconds 0.7

endurance: $(READY) ## 10,000 reconnects, 10,000 edits, one frozen among 200, a soak of 30 minutes: kept (about an hour)
	@$(BIN)/python -m bench endurance reconnects --save
	@$(BIN)/python -m bench endurance edits --sidecars 20 --save
	@$(BIN)/python -m bench endurance frozen --services 1000 --sidecars 200 --save
	@$(BIN)/python -m bench endurance soak --save
	@$(BIN)/python -m bench page

performance: $(READY) ## docs/performance.md from the saved results
	@$(BIN)/python -m bench page

gold: $(READY) ## rewrite golden files
	@TULLE_GOLD=1 $(BIN)/python -m pytest -q tests/golden tests/policies tests/dialects || true
	@git status --short tests

format: $(READY) ## format and mend what can be mended
	@$(BIN)/ruff format src tests tools bench hatch_build.py && $(BIN)/ruff check --fix src tests tools bench hatch_build.py

lock: $(READY) ## resolve requirements.lock anew
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate -q -o requirements.lock

wheel: $(READY) ## dist/*.whl, the example inside
	@rm -rf dist && $(BIN)/uv build --wheel -q -o dist . && ls dist

clean: ## remove what was made
	@rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis src/tulle/xds/data
