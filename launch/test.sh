#!/usr/bin/env bash
# Makes the same environment as quickstart.sh, with what the tests need, and runs them.
#   bash launch/test.sh [arguments of pytest]     (all tiers: -m 'not gpu')
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/environment.sh
# For the exact kernels, without TensorFlow.
environment "[test]" neural-tangents==0.6.5

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# Two at a time: half of a test is compilation, which takes one core.
"$PYTHON" -m pytest -n 2 --dist=loadfile "$@"
