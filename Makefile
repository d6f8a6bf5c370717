# The habits of this repository. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test test-mysql simulate mutants chaos soak lint fuzz bench bench-dlt bench-peers bench-quick bench-snapshot parts image site clean

# Container images are built with whichever of the two is here.
BUILDER ?= $(shell command -v buildah >/dev/null && echo buildah build || echo docker build)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the whole chain on throw-away parts: Postgres, PGMQ, libSQL, and the proof that both sides are equal
	@scripts/install-parts.sh demo
	cargo run --release --locked -- demo

# Most of a test is waiting, so more run at once than there are processors.
test: parts ## every test, against real Postgres, PGMQ, pgbouncer and sqld
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-5} cargo test --locked
	@$(MAKE) --no-print-directory test-mysql

# Debian has it in its unstable suite alone, which may be out of reach: then it says so.
test-mysql: parts ## the tests of a MySQL or MariaDB once more, against MySQL 9 of Debian unstable, where that can be had
	@scripts/install-parts.sh mysql; had=$$?; case $$had in \
		0) TEST_MYSQL=mysql PATH="$(CURDIR)/.parts/mysql/bin:$$PATH" RUST_TEST_THREADS=$${RUST_TEST_THREADS:-5} \
			cargo test --locked --test suite mysql:: ;; \
		3) echo "not tested against MySQL" ;; \
		*) exit $$had ;; \
	esac

simulate: ## the real step over both sides in memory, from a seed that is told: SECONDS (600), SEED, SCHEDULES, LENGTH
	MODEL_SEED=$(or $(SEED),$(shell date +%s)000000) MODEL_LENGTH=$(or $(LENGTH),1) \
		$(if $(SCHEDULES),MODEL_SCHEDULES=$(SCHEDULES),MODEL_SECONDS=$(or $(SECONDS),600)) \
		cargo test --locked --test model no_schedule -- --nocapture

mutants: ## what a change of one expression goes unnoticed by: a sample (MUTANTS_SHARD=k/n), half an hour or more
	scripts/mutants.sh $(MUTANTS_SHARD)

chaos: parts ## two minutes of faults on each write path and engine: CHAOS_SEED, CHAOS_SECONDS, CHAOS_PATH, CHAOS_ENGINE, CHAOS_REPORT
	CHAOS_SECONDS=$${CHAOS_SECONDS:-120} cargo test --locked --test chaos

soak: chaos ## the numbers of docs/reliability.md: chaos, pulls, a MySQL's and a MariaDB's binlog, the feed's other clients, rings, collections of RxDB (RX_ROUNDS), then 300 random migrations beside the worker (MIGRATIONS, MIGRATIONS_SEED)
	PULL_PASSES=$${PULL_PASSES:-500} cargo test --locked --test suite -- --nocapture pulls::
	@for kind in mariadb mysql; do \
		[ $$kind = mariadb ] || scripts/install-parts.sh mysql || continue; \
		TEST_MYSQL=$$kind PATH="$(CURDIR)/.parts/mysql/bin:$$PATH" TOLD_SECONDS=$${TOLD_SECONDS:-60} TOLD_SEEDS=$${TOLD_SEEDS:-5} \
			FAULT_SEEDS=$${FAULT_SEEDS:-5} RUST_TEST_THREADS=1 \
			cargo test --locked --test suite -- --nocapture mysql::writers mysql::told_writers mysql::faults || exit 1; \
	done
	RINGS=$${RINGS:-20000} cargo test --locked --test model no_schedule_loses
	FEED_SCHEDULES=$${FEED_SCHEDULES:-20000} cargo test --locked --test model feed::
	cargo test --locked --test suite -- --ignored feed::lanes
	RX_ROUNDS=$${RX_ROUNDS:-200} cargo test --locked --test suite -- --nocapture random_rounds
	RINGS=$${RINGS:-28000} cargo test --locked --test suite -- --nocapture no_ring_is_lost
	MIGRATIONS=$${MIGRATIONS:-300} cargo test --locked --test suite -- --nocapture random_migrations

lint: ## formatting, clippy and documentation, warnings are errors
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	@cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null # its lock file is complete
	cargo clippy --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked

fuzz: ## what takes text or bytes from outside, guided by coverage; FUZZ_SECONDS for each target (180)
	@scripts/install-parts.sh fuzz
	scripts/fuzz.sh

bench: parts ## speed beside floors and the reference algorithm, into docs/performance.md; SECTION=drain for one part
	cargo bench --locked --bench bench -- --write $(SECTION)

bench-dlt: parts ## pulls beside dlt, which it installs, into docs/performance.md
	dlt=$$(scripts/install-peers.sh dlt) && \
		DLT_PYTHON=$$dlt/bin/python cargo bench --locked --bench bench -- --write dlt

bench-peers: parts ## following beside zero-cache and dlt, which it installs, into docs/performance.md; ROUNDS (5); QUICK=1: to the terminal only
	zero=$$(scripts/install-peers.sh zero) && dlt=$$(scripts/install-peers.sh dlt) && ZERO_HOME=$$zero \
		DLT_PYTHON=$$dlt/bin/python cargo bench --locked --bench bench -- $(if $(QUICK),--quick,--write) peers

bench-quick: parts ## the same with fewer rows, to the terminal only
	cargo bench --locked --bench bench -- --quick $(SECTION)

bench-snapshot: parts ## copying and comparing whole tables, against a floor
	cargo bench --locked --bench snapshot

parts: ## install what the tests need: pg_cron, pgbouncer, sqld, PostgreSQL 18
	@scripts/install-parts.sh test

site: ## the pages as a website, by mdBook: target/site/index.html
	scripts/build-site.sh

image: ## the container image, localhost/pgflume
	$(BUILDER) --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) -t pgflume .

clean: ## remove what was built and unpacked
	cargo clean
	@scripts/install-parts.sh clean
	rm -rf fuzz/target .parts
