#!/usr/bin/env bash
# Fuzzes what takes text or bytes from outside, guided by coverage (libFuzzer), with the stable toolchain.
#
#   fuzz.sh [TARGET…]             FUZZ_SECONDS for each (180 if it is not set); without a target: all
#   fuzz.sh TARGET INPUT          runs one input again, such as a crash that was kept
#
# What it learns stays in fuzz/corpus, what crashes in fuzz/artifacts; neither is committed.
set -euo pipefail

# cargo-fuzz passes the same; only its sanitizer of memory needs a nightly, and nothing that is fuzzed has unsafe code.
COVERAGE="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares"
TARGETS="message value hrana schema"
MAX_INPUT_BYTES=65536

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root/fuzz"

main() {
  build
  if [ $# = 2 ] && [ -f "$2" ]; then
    exec "$(program "$1")" "$2"
  fi
  local target failed=()
  for target in ${*:-$TARGETS}; do
    run "$target" || failed+=("$target")
  done
  [ ${#failed[@]} = 0 ] || { echo "fuzz: inputs were found that break: ${failed[*]}" >&2; exit 1; }
}

# --target keeps the flags away from build scripts and macros.
build() {
  host=$(rustc -vV | sed -n 's/^host: //p')
  RUSTFLAGS=$(echo $COVERAGE) cargo build --release --locked --target "$host"
}

program() { echo "${CARGO_TARGET_DIR:-target}/$host/release/$1"; }

run() {
  local target=$1 crash
  mkdir -p "corpus/$target" "artifacts/$target"
  echo "== fuzz $target for ${FUZZ_SECONDS:-180} s"
  if "$(program "$target")" -max_total_time="${FUZZ_SECONDS:-180}" -timeout=5 -rss_limit_mb=1024 \
    -max_len=$MAX_INPUT_BYTES -print_final_stats=1 -artifact_prefix="artifacts/$target/" \
    "corpus/$target" "seeds/$target"; then
    return 0
  fi
  crash=$(ls -t "artifacts/$target" | head -n 1)
  echo "fuzz: repeat with  scripts/fuzz.sh $target artifacts/$target/$crash" >&2
  return 1
}

main "$@"
