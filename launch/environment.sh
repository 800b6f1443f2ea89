# shellcheck shell=bash
# Makes the project's own environment and installs the package in it, once.
# Sourced by quickstart.sh and test.sh; expects the repository as working directory.
#   environment EXTRAS [PACKAGE...]   leaves the environment's interpreter in $PYTHON
# The packages are installed without what they ask for.
# AUDIODD_VENV names another place than .venv; PYTHON another interpreter to start from.

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  echo "audiodd_jax needs Python 3.11 or newer; none was found (set PYTHON to name one)" >&2
  return 1
}

environment() {
  local extras="$1" venv="${AUDIODD_VENV:-.venv}" base stamp
  shift
  # What decides what is installed: another stamp, another installation.
  stamp="$(cat pyproject.toml audiodd_jax/version.py | cksum) $extras${*:+ $*}"
  if [ ! -x "$venv/bin/python" ]; then
    base="$(find_python)" || return 1
    echo "making the environment $venv with $("$base" --version)"
    "$base" -m venv "$venv" || {
      echo "python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2
      return 1
    }
  fi
  PYTHON="$venv/bin/python"
  # A line a kind of installation, so that quickstart and tests share one environment.
  if ! grep -qxF "$stamp" "$venv/audiodd-installed" 2>/dev/null; then
    echo "installing (once, a few minutes)"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check \
      --editable ".$extras" || return 1
    if [ $# -gt 0 ]; then
      "$PYTHON" -m pip install --quiet --disable-pip-version-check \
        --no-deps "$@" || return 1
    fi
    echo "$stamp" >>"$venv/audiodd-installed"
  fi
}
