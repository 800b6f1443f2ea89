#!/usr/bin/env bash
# Makes the same environment as quickstart.sh, with what the tests need, and runs them.
#   bash launch/test.sh [arguments of pytest]     (slow tests too: -m '')
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/environment.sh
environment "[test]"

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m pytest "$@"
