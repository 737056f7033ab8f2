# One entry point for everything. `make` alone prints the targets.
SIDESTREAM_CACHE ?= $(HOME)/.cache/sidestream
export SIDESTREAM_CACHE
export CARGO_TARGET_DIR ?= $(SIDESTREAM_CACHE)/target
TOPOLOGY ?= topologies/fraud.yaml

.DEFAULT_GOAL := help
.PHONY: help setup demo test unit sim check fmt soak bench

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

setup: ## Install what building needs (asks apt where it may, says what is missing otherwise)
	@scripts/setup.sh build

demo: setup ## Run the fraud example on the embedded log: no broker, no JVM, no Docker
	cargo run --release --quiet -- dev $(TOPOLOGY)

test: ## Run every test, those on a real Kafka included
	@scripts/setup.sh test
	cargo test --lib --bins --tests

unit: setup ## Run the tests that need no Kafka
	cargo test --lib --test architecture --test cli --test flow --test flow_tables --test simulation --test topology_files

sim: setup ## Simulate faults from new seeds until one is not survived (SIDESTREAM_SCHEDULES=count for so many)
	SIDESTREAM_SCHEDULES=$${SIDESTREAM_SCHEDULES:-forever} cargo test --test simulation nights -- --nocapture

check: setup ## Formatting, lints as errors, dependency licences
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; else echo "cargo-deny is not installed: dependency licences not checked"; fi

fmt: ## Format the sources
	cargo fmt

soak: ## Random faults on three real brokers, SIDESTREAM_SOAK_MINUTES at a time (120), until one is not survived; prints its seed
	@scripts/setup.sh test
	while cargo test --test soak --test faults --test exactly_once --test run -- --nocapture; do :; done

bench: ## Measure on a real Kafka, beside the bare client loops and Kafka Streams
	@scripts/setup.sh test
	cargo bench --bench throughput
