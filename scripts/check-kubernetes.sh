#!/usr/bin/env bash
# Holds deploy/kubernetes/*.yaml against Kubernetes' own schemas, strictly (no unknown member, none missing, none of a
# wrong type), and against the rules of scripts/kubernetes_rules.py. Needs Python with pip or venv, and no cluster.
#
#   check-kubernetes.sh [FILE…]
set -euo pipefail

VALIDATE=1.37.0              # kubernetes-validate, which carries the schemas
KUBERNETES="1.31.0 1.37.0"   # the oldest and the newest that the manifests are held against
REQUIREMENTS="
kubernetes-validate==$VALIDATE
attrs==26.1.0
importlib-resources==7.1.0
jsonschema==4.26.0
jsonschema-specifications==2025.9.1
packaging==26.4
pyyaml==6.0.4
referencing==0.37.0
rpds-py==2026.9.1
typing-extensions==4.16.0
"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
parts=$root/.parts
place=$parts/kubernetes-validate-$VALIDATE

say() { echo "check-kubernetes: $*" >&2; }
die() { say "$*"; exit 1; }

main() {
  local file version
  # The validator says nothing of a file that it cannot find, and a file without a document would pass.
  for file in "$@"; do
    [ -s "$file" ] || die "$file is missing or empty"
  done
  [ $# -gt 0 ] || set -- "$root"/deploy/kubernetes/*.yaml
  install
  for version in $KUBERNETES; do
    PYTHONPATH=$place python3 -m kubernetes_validate --strict --kubernetes-version "$version" "$@"
  done
  PYTHONPATH=$place python3 "$root/scripts/kubernetes_rules.py" "$@"
}

# Into a directory of its own, not into a virtual environment: a Python without venv can do that, too, and so can one
# that is "externally managed". Compiled parts are for one version of Python.
install() {
  local python=python3 version new
  mkdir -p "$parts"
  # Tests that run beside each other ask at the same time.
  exec 9>"$parts/.installing"
  flock 9
  version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])') || die "no python3"
  [ "$(cat "$place/done" 2>/dev/null)" != "$version" ] || return 0
  if ! python3 -m pip --version >/dev/null 2>&1; then
    python3 -m venv "$parts/venv" >/dev/null 2>&1 ||
      die "Python has neither pip nor venv: as root run  apt-get install --no-install-recommends python3-venv"
    python=$parts/venv/bin/python
  fi
  say "installing kubernetes-validate $VALIDATE"
  new=$(mktemp -d "$parts/kubernetes-validate.XXXXXX")
  trap "rm -rf '$new'" EXIT
  # shellcheck disable=SC2086
  PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
    --no-deps --target "$new" $REQUIREMENTS >&2
  echo "$version" >"$new/done"
  rm -rf "$place"
  mv "$new" "$place"
  trap - EXIT
}

main "$@"
