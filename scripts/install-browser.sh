#!/usr/bin/env bash
# Puts in place what the browser tests need; prints the directory that holds it. Quiet when nothing is missing.
#
#   .parts/playwright-core-VERSION/   node_modules (playwright-core, axe-core) by tests/browser/package-lock.json,
#                                     and `chromium`, a link to the system's headless Chromium
#
# As root on Debian and its relatives it installs a missing Chromium; as anybody else it names it.
# It starts no service and downloads no browser of Playwright's own. CHROMIUM names another executable.
set -euo pipefail

OLDEST_CHROMIUM=130 # what Debian has changes with each security update, so only a floor can be pinned
OLDEST_NODE=20      # what playwright-core asks for; Debian 12's own 18 is too old

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
wanted=$root/tests/browser

say() { echo "install-browser: $*" >&2; }
die() { say "$*"; exit 1; }

main() {
  need_node
  mkdir -p "$root/.parts"
  # Tests that run beside each other ask at the same time.
  exec 9>"$root/.parts/.installing"
  flock 9
  local version place chromium
  version=$(node -p 'require(process.argv[1]).dependencies["playwright-core"]' "$wanted/package.json")
  place=$root/.parts/playwright-core-$version
  chromium=$(find_chromium)
  if [ -z "$chromium" ]; then
    install_packages chromium-headless-shell fonts-dejavu-core
    chromium=$(find_chromium)
  fi
  [ -n "$chromium" ] || die "no Chromium found: install one, or set CHROMIUM to its executable"
  put_modules "$place"
  if [ "$(readlink "$place/chromium" || true)" != "$chromium" ]; then
    check_version "$chromium"
    ln -sfn "$chromium" "$place/chromium"
  fi
  echo "$place"
}

need_node() {
  local have
  have=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null) && command -v npm >/dev/null ||
    die "no Node.js with npm: install Node.js $OLDEST_NODE or newer, then run this again"
  [ "$have" -ge "$OLDEST_NODE" ] || die "Node.js $have is too old: install $OLDEST_NODE or newer"
}

# The headless shell first: it is smaller and starts faster, and a whole Chromium does as well.
find_chromium() {
  local name
  if [ -n "${CHROMIUM:-}" ]; then command -v "$CHROMIUM" || die "CHROMIUM=$CHROMIUM is no executable"; return; fi
  for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    if command -v "$name"; then return; fi
  done
}

check_version() {
  local said version
  said=$(timeout 30 "$1" --version 2>&1 </dev/null) || die "$1 does not run: $said"
  version=$(sed -nE 's/^[^0-9]* ([0-9]+)\..*/\1/p' <<<"$said" | tail -n 1)
  [ "${version:-0}" -ge "$OLDEST_CHROMIUM" ] || die "$1 is too old ($said): install $OLDEST_CHROMIUM or newer"
}

# By the lock file alone, hashes checked, no package's scripts run.
put_modules() {
  cmp -s "$wanted/package-lock.json" "$1/done" && return
  local new
  mkdir -p "$root/.parts"
  new=$(mktemp -d "$1.XXXXXX")
  cp "$wanted/package.json" "$wanted/package-lock.json" "$new"
  say "installing $(basename "$1") and axe-core"
  if ! quietly npm ci --prefix "$new" --ignore-scripts --no-audit --no-fund; then rm -rf "$new"; exit 1; fi
  mv "$new/package-lock.json" "$new/done"
  chmod 755 "$new"
  rm -rf "$1"
  mv "$new" "$1"
}

# As in install-parts.sh.
install_packages() {
  command -v apt-get >/dev/null || die "missing: $* (Debian's names): install them by this system's means"
  [ "$(id -u)" = 0 ] || die "missing packages: as root run  apt-get install --no-install-recommends $*"
  say "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  quietly apt-get update -qq || exit 1
  quietly apt-get install -qq -y --no-install-recommends "$@" || exit 1
}

# Runs a talkative command and shows what it said only if it fails.
quietly() {
  local said
  said=$("$@" 2>&1 </dev/null) || { echo "$said" >&2; say "failed: $*"; return 1; }
}

main "$@"
