# shellcheck shell=bash
# Creates the project's own environment and installs the package in it, once.
# The scripts in launch/ source this file from the root of the repository.
#   environment EXTRAS [PACKAGE...]   sets $PYTHON to the environment's interpreter
#   test_environment                  the same, with what the tests need
# Each PACKAGE is installed without its dependencies.
# AUDIODD_VENV sets the folder (default: .venv), PYTHON the interpreter to create it with.

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf '%s\n' "$candidate"
      return 0
    fi
  done
  echo "audiodd_jax needs Python 3.11 or newer, but found none; set PYTHON to its path" >&2
  return 1
}

environment() {
  local extras="$1" venv="${AUDIODD_VENV:-.venv}" base stamp
  shift
  # The package is installed again whenever this stamp changes.
  stamp="$(cat pyproject.toml audiodd_jax/version.py | cksum) $extras${*:+ $*}"
  if [ ! -x "$venv/bin/python" ]; then
    base="$(find_python)" || return 1
    echo "creating the environment $venv with $("$base" --version)"
    "$base" -m venv "$venv" || {
      echo "python -m venv failed; on Debian and Ubuntu, run: apt-get install python3-venv" >&2
      return 1
    }
  fi
  PYTHON="$venv/bin/python"
  # One line per set of extras, so that quickstart and tests share one environment.
  if ! grep -qxF "$stamp" "$venv/audiodd-installed" 2>/dev/null; then
    echo "installing the package (only once; takes a few minutes)"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check \
      --editable ".$extras" || return 1
    if [ $# -gt 0 ]; then
      "$PYTHON" -m pip install --quiet --disable-pip-version-check \
        --no-deps "$@" || return 1
    fi
    echo "$stamp" >>"$venv/audiodd-installed"
  fi
}

# neural-tangents computes the exact kernels, and openwakeword brings a trained encoder;
# their other dependencies, such as TensorFlow, are not needed.
test_environment() {
  environment "[test]" neural-tangents==0.6.5 openwakeword==0.4.0
}
