#!/usr/bin/env bash
# Puts in place what the programs of examples/ need, and the clients of the feed's tests, and prints the directory that holds it. Quiet when it is there.
#
#   install-examples.sh node     .parts/libsql-client-VERSION/node_modules, by examples/read-your-own-write/package-lock.json
#   install-examples.sh feed     .parts/feed-clients-VERSION/node_modules, by tests/suite/feed/package-lock.json
#   install-examples.sh follow   .parts/electric-client-VERSION/node_modules, by examples/node/package-lock.json
#   install-examples.sh web      .parts/web-example-VERSION/node_modules, by examples/web/package-lock.json
#   install-examples.sh lane-b   .parts/lane-b-VERSION/node_modules, by tests/suite/feed/lane-b/package-lock.json; so lane-d
#   install-examples.sh rxdb     .parts/rxdb-VERSION/node_modules, by tests/suite/feed/rxdb/package-lock.json
#   install-examples.sh python   .parts/psycopg-VERSION, a virtual environment, by its requirements.txt
#   install-examples.sh go       .parts/go-VERSION, Debian's Go with the two drivers, unpacked and not installed
#
# Packages are checked against their hashes, Debian's by apt-get; no package's scripts run. Starts no service.
set -euo pipefail

GO=1.19 # Debian 12's

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
wanted=$root/examples/read-your-own-write

say() { echo "install-examples: $*" >&2; }
die() { say "$*"; exit 1; }

main() {
  mkdir -p "$root/.parts"
  # Tests that run beside each other ask at the same time.
  exec 9>"$root/.parts/.installing"
  flock 9
  case ${1:-} in
    node) put_node "$wanted" @libsql/client libsql-client ;;
    feed) put_node "$root/tests/suite/feed" @electric-sql/client feed-clients ;;
    follow) put_node "$root/examples/node" @electric-sql/client electric-client ;;
    web) put_node "$root/examples/web" @tanstack/offline-transactions web-example ;;
    lane-b | lane-d) put_node "$root/tests/suite/feed/$1" @tanstack/db "$1" ;;
    rxdb) put_node "$root/tests/suite/feed/rxdb" rxdb rxdb ;;
    python) put_python ;;
    go) put_go ;;
    *) die "usage: install-examples.sh node|feed|follow|web|lane-b|lane-d|rxdb|python|go" ;;
  esac
}

# The packages of directory $1, under the name $3 with the version of $2.
put_node() {
  command -v npm >/dev/null || die "no Node.js with npm: install Node.js 20 or newer, then run this again"
  local wanted=$1 version place new
  version=$(node -p 'require(process.argv[1]).dependencies[process.argv[2]]' "$wanted/package.json" "$2")
  place=$root/.parts/$3-$version
  if ! cmp -s "$wanted/package-lock.json" "$place/done"; then
    say "installing $(basename "$place")"
    new=$(mktemp -d "$place.XXXXXX")
    cp "$wanted/package.json" "$wanted/package-lock.json" "$new"
    quietly npm ci --prefix "$new" --ignore-scripts --no-audit --no-fund || { rm -rf "$new"; exit 1; }
    mv "$new/package-lock.json" "$new/done"
    put "$new" "$place"
  fi
  echo "$place"
}

put_python() {
  local version place
  version=$(sed -nE 's/^psycopg==([0-9.]+).*/\1/p' "$wanted/requirements.txt")
  place=$root/.parts/psycopg-$version
  if ! cmp -s "$wanted/requirements.txt" "$place/done"; then
    say "installing $(basename "$place")"
    rm -rf "$place"
    quietly python3 -m venv "$place" || exit 1
    quietly "$place/bin/pip" install -q --no-deps --only-binary :all: --require-hashes -r "$wanted/requirements.txt" ||
      exit 1
    cp "$wanted/requirements.txt" "$place/done"
  fi
  echo "$place"
}

put_go() {
  local place=$root/.parts/go-$GO new
  if [ ! -e "$place/done" ]; then
    command -v apt-get >/dev/null || die "Go $GO is unpacked from Debian's packages: this system has no apt-get"
    new=$(mktemp -d "$place.XXXXXX")
    say "unpacking Debian's Go $GO"
    download "$new" || { [ "$(id -u)" != 0 ] || quietly apt-get update -qq; download "$new"; } ||
      { rm -rf "$new"; die "Debian's packages of Go $GO are not to be had: as root run  apt-get update"; }
    local package
    for package in "$new"/*.deb; do
      # Half of it is the standard library for race detection and for shared libraries.
      dpkg-deb --fsys-tarfile "$package" | tar -x -C "$new" --exclude='*_race' --exclude='*_dynlink' --exclude='*_shared'
      rm "$package"
    done
    touch "$new/done"
    put "$new" "$place"
  fi
  echo "$place"
}

download() {
  (cd "$1" && apt-get download -qq "golang-$GO-go" "golang-$GO-src" golang-github-lib-pq-dev \
    golang-github-mattn-go-sqlite3-dev libsqlite3-dev libsqlite3-0 >/dev/null 2>&1 </dev/null)
}

# The directory $1 becomes $2.
put() {
  chmod 755 "$1"
  rm -rf "$2"
  mv "$1" "$2"
}

# Runs a talkative command and shows what it said only if it fails.
quietly() {
  local said
  said=$("$@" 2>&1 </dev/null) || { echo "$said" >&2; say "failed: $*"; return 1; }
}

main "$@"
