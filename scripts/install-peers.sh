#!/usr/bin/env bash
# Puts in place what pgflume is measured beside, and prints the directory that holds it. Quiet when it is there.
#
#   install-peers.sh zero    .parts/zero-VERSION/node_modules, by benches/peers/package-lock.json: Rocicorp's
#                            zero-cache, its SQLite, and a Node that is new enough for it
#   install-peers.sh dlt     .parts/dlt-VERSION, a virtual environment, by benches/dlt/requirements.txt
#
# Needs npm, or Python with venv. No package's scripts are run: what has to be native comes built.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
parts=$root/.parts

say() { echo "install-peers: $*" >&2; }
die() { say "$*"; exit 1; }

main() {
  mkdir -p "$parts"
  # Who installs beside this one would lose what is under its feet.
  exec 9>"$parts/.installing"
  flock 9
  case ${1:-} in
    zero) put_zero ;;
    dlt) put_dlt ;;
    *) die "usage: install-peers.sh zero|dlt" ;;
  esac
}

put_zero() {
  command -v npm >/dev/null || die "no npm: install Node.js with npm, then run this again"
  local wanted=$root/benches/peers version place new
  version=$(sed -nE 's/.*"@rocicorp\/zero": "([0-9.]+)".*/\1/p' "$wanted/package.json")
  place=$parts/zero-$version
  if ! cmp -s "$wanted/package-lock.json" "$place/done"; then
    new=$(mktemp -d "$place.XXXXXX")
    cp "$wanted/package.json" "$wanted/package-lock.json" "$new"
    say "installing $(basename "$place"), half a gigabyte"
    if ! quietly npm ci --prefix "$new" --ignore-scripts --no-audit --no-fund; then rm -rf "$new"; exit 1; fi
    # The prebuilt Node and SQLite have to fit this system: both say so here, and not in the middle of a measurement.
    quietly "$new/node_modules/.bin/node" -e 'new (require(process.argv[1]))(":memory:")' \
      "$new/node_modules/@rocicorp/zero-sqlite3" || { rm -rf "$new"; die "zero-cache does not run on this system"; }
    mv "$new/package-lock.json" "$new/done"
    chmod 755 "$new"
    rm -rf "$place"
    mv "$new" "$place"
  fi
  echo "$place"
}

put_dlt() {
  python3 -c 'import ensurepip' >/dev/null 2>&1 || die "no Python with venv: install python3-venv, then run this again"
  local wanted=$root/benches/dlt/requirements.txt version place
  version=$(sed -nE 's/^dlt(\[[a-z]*\])?==([0-9.]+).*/\2/p' "$wanted")
  place=$parts/dlt-$version
  if ! cmp -s "$wanted" "$place/done"; then
    say "installing $(basename "$place")"
    rm -rf "$place"
    quietly python3 -m venv "$place" || exit 1
    quietly "$place/bin/pip" install -q --only-binary :all: -r "$wanted" || exit 1
    cp "$wanted" "$place/done"
  fi
  echo "$place"
}

# Runs a talkative command and shows what it said only if it fails.
quietly() {
  local said
  said=$("$@" 2>&1 </dev/null) || { echo "$said" >&2; say "failed: $*"; return 1; }
}

main "$@"
