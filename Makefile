# Every command that we use. `make` alone prints this list.
#
#   make run-cluster [NODES=3]          build, and run a cluster on this machine; Ctrl-C stops it
#   make test                           all tests, one build profile
#   make lint                           rustfmt, clippy and docs, warnings as errors
#   make build                          target/release/synodd and target/release/synod
#   make run-workload [WORKLOAD=...]    a workload script against the cluster of run-cluster
#   make bench [MIXES=...] [CLIENTS=...] [PIPELINES=...] [SIZES=...]   a fresh cluster against the bare replication loop
#   make bench-full                     the whole matrix of mixes, clients, pipelines and sizes: about half an hour
#   make bench-targets [PAIRS=10] [KILLS=100]   the ratios that are aimed at, in pairs with their references
#   make bench-plot                     throughput against latency: target/figures/throughput-latency.svg
#   make bench-failover [KILLS=100]     the leader killed, handed over, a follower killed, under 64 clients
#   make bench-memory                   growth of a node by a million keys
#   make bench-overload [OVERLOAD=60] [TIMES=2] [CONNECTIONS=n] [DEADLINE_MS=500]   twice what a cluster can take, for a minute
#   make bench-scale [TABLES="keys connections nodes sizes"] [KEYS=...]   tables and pictures of how figures change
#   make bench-disk [MIB=1024]          snapshots of much data: turns, directories, memory, a new disk, a restart (minutes)
#   make bench-micro [WORDS=...]        codec, log, acceptor, state machine and checker by themselves
#   make bench-limits                   what this machine allows: disk, echo, bare replication
#   make torture [DURATION=60s] [SEED=n]   five real nodes under load and every fault; nothing may be lost
#   make sim [DURATION=60s] [SEED=n]    simulated clusters under faults: fresh seeds for so long, or one seed again
#   make lesson-NAME                    one rule broken on purpose: its smallest story, and a diagram (`synod lesson` lists them)
#   make lessons                        all of them: each is noticed, and docs/lessons.md shows them as they are
#   make lessons-page                   docs/lessons.md, made anew
#   make model                          the whole of small worlds, above 10^7 states, and the shortest way to each broken rule
#   make fuzz [DURATION=60s] [TARGET=frame]   damaged input at everything that reads any; INPUT=file tries one again
#   make soak [SEEDS=2000]              the random worlds for longer
#   make soak-memory [SECS=20] [CONNECTIONS=9000]   the peak memory of real nodes under all that is bounded, beside the bounds' sum
#   make scripts                        record the golden scripts anew; read the diff before you commit it
#   make clean-data                     remove the data of run-cluster
#   make clean                          remove what was built, and the data

NODES ?= 3
DURATION ?=
SEEDS ?= 2000
WORKLOAD ?= workloads/smoke.workload
CARGO ?= cargo
SYNOD = target/release/synod
# Settings of the measurements (SECS, MIXES, PAIRS, KILLS, …) reach them as environment: `make bench SECS=5`.
FIGURES = $(CARGO) bench --quiet --locked --bench figures --
WORDS ?=

.DEFAULT_GOAL := help
.PHONY: help build run-cluster run-workload bench bench-full bench-targets bench-plot bench-failover bench-memory bench-overload bench-scale bench-disk bench-micro bench-limits torture test soak soak-memory sim lessons lessons-page model fuzz lint scripts clean-data clean

help:
	@sed -n 's/^#   //p' Makefile

build:
	$(CARGO) build --release --locked --bins

run-cluster: build
	@$(SYNOD) cluster --nodes $(NODES)

run-workload: build
	$(SYNOD) run $(WORKLOAD)

bench:
	JSON=target/figures/matrix.json $(FIGURES) matrix

bench-full:
	MIXES="put get mixed ycsb-a ycsb-b" CLIENTS="1 16 64 256" PIPELINES="1 32" SIZES="16 256 4096 65536" \
		JSON=target/figures/full.json $(FIGURES) matrix

bench-targets:
	JSON=target/figures/targets.json $(FIGURES) targets

bench-plot:
	JSON=target/figures/plot.json $(FIGURES) plot

bench-failover:
	JSON=target/figures/failover.json $(FIGURES) failover

bench-memory:
	$(FIGURES) memory

bench-overload:
	JSON=target/figures/overload.json $(FIGURES) overload

bench-scale:
	JSON=target/figures/scale.json $(FIGURES) scale

soak-memory:
	$(FIGURES) hold

bench-disk:
	$(FIGURES) disk

bench-limits:
	$(FIGURES) limits

bench-micro:
	$(CARGO) bench --quiet --locked --bench micro -- $(WORDS)

torture: build
	$(SYNOD) cluster --nodes 5 --torture $(or $(DURATION),60s) $(if $(SEED),--seed $(SEED))

test:
	$(CARGO) test --locked

sim: build
	@$(SYNOD) sim $(if $(SEED),--seed $(SEED),--duration $(or $(DURATION),60s)) $(FLAGS)

model:
	MODEL=all $(CARGO) test --locked --test model -- --nocapture

lesson-%: build
	@$(SYNOD) lesson $*

lessons:
	LESSONS=all $(CARGO) test --locked --test sim lesson

lessons-page: build
	@$(SYNOD) lesson --page > target/lessons.md
	@mv target/lessons.md docs/lessons.md

# TARGET, SEED, INPUT and KEEP=1 (new cases into tests/corpus) reach it as environment.
fuzz:
	FUZZ=$(or $(DURATION),60s) TARGET=$(TARGET) INPUT=$(INPUT) $(CARGO) test --locked --test fuzz -- --nocapture --test-threads=1

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
