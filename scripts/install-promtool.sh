#!/usr/bin/env bash
# Puts promtool (out of Debian's package `prometheus`, which is not installed) into .parts/promtool-VERSION/ and prints
# where it is. Quiet when it is there. Needs no root, only apt-get's package lists, whose signatures vouch for the
# package; starts no service. PROMTOOL names another executable.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { echo "install-promtool: $*" >&2; }
die() { say "$*"; exit 1; }

main() {
  local found new version
  if [ -n "${PROMTOOL:-}" ]; then command -v "$PROMTOOL" || die "PROMTOOL=$PROMTOOL is no executable"; return; fi
  mkdir -p "$root/.parts"
  # Tests that run beside each other ask at the same time.
  exec 9>"$root/.parts/.installing"
  flock 9
  found=$(command -v promtool || ls "$root"/.parts/promtool-*/promtool 2>/dev/null | tail -n 1 || true)
  if [ -n "$found" ]; then echo "$found"; return; fi
  command -v apt-get >/dev/null || die "no promtool: install Prometheus by this system's means, or set PROMTOOL"
  new=$(mktemp -d "$root/.parts/promtool.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  say "downloading Debian's promtool"
  download "$new" || { [ "$(id -u)" != 0 ] || apt-get update -qq >&2; download "$new"; } ||
    die "Debian's package prometheus is not to be had: as root run  apt-get update, or set PROMTOOL"
  version=$(dpkg-deb --field "$new"/*.deb Version)
  dpkg-deb --fsys-tarfile "$new"/*.deb | tar -x -C "$new" --strip-components=3 ./usr/bin/promtool
  "$new/promtool" --version >/dev/null 2>&1 || die "the unpacked promtool does not run"
  rm "$new"/*.deb
  chmod 755 "$new"
  rm -rf "$root/.parts/promtool-$version"
  mv "$new" "$root/.parts/promtool-$version"
  trap - EXIT
  echo "$root/.parts/promtool-$version/promtool"
}

download() { (cd "$1" && apt-get download -qq prometheus >/dev/null 2>&1 </dev/null); }

main "$@"
