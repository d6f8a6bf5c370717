#!/usr/bin/env bash
# Changes one expression of the code at a time and asks whether the unit tests and 2,000 schedules of the simulator
# notice (cargo-mutants). A sample: every so many-th of all changes, some eighty, which take half an hour or more.
#
#   mutants.sh [K/N]    the K-th of N samples (0/43)
#
# What lives is printed, and stays in target/mutants.out.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
program=$(scripts/install-parts.sh mutants)
shard=${1:-0/43}
# The parts that the order of a step depends on, without what only tests use.
places=(src/core src/sync src/replica src/postgres/books)

export MODEL_SCHEDULES=${MODEL_SCHEDULES:-2000}
# What is changed is built again each time: seconds without optimization, minutes with.
export CARGO_INCREMENTAL=1 CARGO_PROFILE_DEV_OPT_LEVEL=0 CARGO_PROFILE_DEV_DEBUG=0
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target/mutants}
arguments=()
for place in "${places[@]}"; do arguments+=(--file "$place/**/*.rs"); done
status=0
"$program" mutants "${arguments[@]}" --exclude src/core/failpoint.rs \
  --shard "$shard" --sharding round-robin --output target --timeout 300 --build-timeout 900 --no-shuffle --colors never \
  -- --locked --lib --test model -- --skip a_rule_that_is_left_out || status=$?
# 2: some live; 3: some took too long, which is noticed too.
case $status in 0 | 2 | 3) ;; *) exit "$status" ;; esac
count() { grep -c . "target/mutants.out/$1.txt" || true; }
echo "mutants: $(count caught) noticed, $(count timeout) by taking too long, $(count missed) live, $(count unviable) do not compile"
