# The README's commands. Each sets up what it needs: see scripts/setup.py.
# Where LIBTORCH or CARGO_TARGET_DIR are set already, they are taken.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
CARGO ?= cargo
FAULT_ROUNDS ?= 5000
# A Python with what tests/reference/requirements.txt names
REFERENCE_PYTHON ?= python3
# libtorch and the kept build folder, in the environment of the command that follows
SETUP = env_lines="$$($(PYTHON) scripts/setup.py env)"; eval "$$env_lines"

.PHONY: help quickstart build test test-light faults bench-engine bench-rollout check-model lint fmt clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

quickstart: build ## Build, then let a small model improve itself (pipelines/quickstart.yaml)
	@$(SETUP); "$$CARGO_TARGET_DIR/release/genius" run pipelines/quickstart.yaml $(ARGS)

build: ## Build genius and genius-worker
	@$(SETUP); $(CARGO) build --release --locked

# The real model of the tests, made once a user by the programs themselves.
TEST_MODEL = GENIUS_TEST_MODEL="$$("$$CARGO_TARGET_DIR/release/genius" run pipelines/smollm2.yaml \
	--cache "$$GENIUS_HOME/test-cache" --quiet --json | $(PYTHON) scripts/output.py policy model)"; \
	export GENIUS_TEST_MODEL

test: build ## Every test, the real model through mistral.rs among them
	@$(SETUP); $(TEST_MODEL); $(CARGO) test --release --locked

test-light: ## The orchestrator alone: no libtorch, no mistral.rs
	@$(SETUP); $(CARGO) test --release --locked --no-default-features

faults: ## The fault injector at length: FAULT_ROUNDS=5000 kills (make test does 300)
	@$(SETUP); GENIUS_FAULT_ROUNDS=$(FAULT_ROUNDS) $(CARGO) test --release --locked \
	--no-default-features --test main -- faults --nocapture

bench-engine: build ## The engine's speed beside DVC and b3sum (ARGS=--quick; bench/out/engine.json)
	@$(SETUP); $(PYTHON) scripts/bench_engine.py --genius "$$CARGO_TARGET_DIR/release/genius" $(ARGS)

bench-rollout: build ## Sampling beside llama.cpp and transformers (ARGS=--quick; bench/out/rollout.json)
	@$(SETUP); $(TEST_MODEL); $(PYTHON) scripts/bench_rollout.py \
	--genius "$$CARGO_TARGET_DIR/release/genius" --model "$$GENIUS_TEST_MODEL" $(ARGS)

check-model: ## Hold MODEL=folder to transformers (REFERENCE_PYTHON: see tests/reference)
	@test -n "$(MODEL)" || { echo "make check-model MODEL=folder REFERENCE_PYTHON=venv/bin/python" >&2; exit 2; }
	@fixtures="$$(mktemp -d)"; trap 'rm -rf "$$fixtures"' EXIT; \
	$(REFERENCE_PYTHON) tests/reference/make_logits.py "$(MODEL)" "$$fixtures"; \
	$(SETUP); GENIUS_TEST_MODEL="$(MODEL)" GENIUS_TEST_FIXTURES="$$fixtures" \
	$(CARGO) test --release --locked --bin genius-worker real_model

lint: ## Formatting, clippy with warnings denied, both feature sets
	$(CARGO) fmt --all --check
	@$(SETUP); $(CARGO) clippy --release --locked --all-targets --no-default-features -- -D warnings
	@$(SETUP); $(CARGO) clippy --release --locked --all-targets -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt --all

clean: ## Remove this checkout's cache of results (the build folder is kept)
	rm -rf cache bench/out
