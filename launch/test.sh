#!/usr/bin/env bash
# Creates the environment of quickstart.sh, adds the test dependencies and runs the tests.
#   bash launch/test.sh [arguments of pytest]     (all tiers: -m 'not gpu')
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/environment.sh
# neural-tangents computes the exact kernels, and openwakeword brings a trained encoder;
# their other dependencies, such as TensorFlow, are not needed.
environment "[test]" neural-tangents==0.6.5 openwakeword==0.4.0

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# Two workers: half of a test's time is compilation, which uses one core.
"$PYTHON" -m pytest -n 2 --dist=loadfile --no-loadscope-reorder "$@"
