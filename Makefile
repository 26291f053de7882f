# Every command that we use. `make` alone prints this list.
#
#   make run-cluster [NODES=3]          build, and run a cluster on this machine; Ctrl-C stops it
#   make test                           all tests, one build profile
#   make lint                           rustfmt, clippy and docs, warnings as errors
#   make build                          target/release/synodd and target/release/synod
#   make run-workload [WORKLOAD=...]    a workload script against the cluster of run-cluster
#   make bench                          put, get and mixed at 1, 16, 64 and 256 clients, on a fresh cluster
#   make chaos [DURATION=30s]           five nodes under load, killed and failing at random; nothing may be lost
#   make sim [DURATION=60s] [SEED=n]    simulated clusters under faults: fresh seeds for so long, or one seed again
#   make soak [SEEDS=2000]              the random worlds for longer
#   make scripts                        record the golden scripts anew; read the diff before you commit it
#   make clean-data                     remove the data of run-cluster
#   make clean                          remove what was built, and the data

NODES ?= 3
DURATION ?=
SEEDS ?= 2000
WORKLOAD ?= workloads/smoke.workload
CARGO ?= cargo
SYNOD = target/release/synod

.DEFAULT_GOAL := help
.PHONY: help build run-cluster run-workload bench chaos test soak sim lint scripts clean-data clean

help:
	@sed -n 's/^#   //p' Makefile

build:
	$(CARGO) build --release --locked --bins

run-cluster: build
	@$(SYNOD) cluster --nodes $(NODES)

run-workload: build
	$(SYNOD) run $(WORKLOAD)

bench: build
	benches/matrix.sh

chaos: build
	$(SYNOD) cluster --nodes 5 --chaos $(or $(DURATION),30s)

test:
	$(CARGO) test --locked

sim: build
	@$(SYNOD) sim $(if $(SEED),--seed $(SEED),--duration $(or $(DURATION),60s)) $(FLAGS)

soak:
	SEEDS=$(SEEDS) $(CARGO) test --locked --test random_worlds

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

scripts:
	RECORD=1 $(CARGO) test --locked --test scripts
	git --no-pager diff --stat tests/scripts

clean-data:
	rm -rf data

clean: clean-data
	$(CARGO) clean
