#!/usr/bin/env bash
# Creates the environment of quickstart.sh, adds the test dependencies and runs the tests.
#   bash launch/test.sh [arguments of pytest]     (all tiers: -m 'not gpu')
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/environment.sh
test_environment

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
# Two workers: half of a test's time is compilation, which uses one core.
"$PYTHON" -m pytest -n 2 --dist=loadfile --no-loadscope-reorder "$@"
