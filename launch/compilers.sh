#!/usr/bin/env bash
# Installs the compilers for TPUs and NVIDIA GPUs; neither device is required. They go to a
# folder of the environment that only `audiodd ... --dry_run --target=...` uses.
#   bash launch/compilers.sh [tpu] [gpu]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/environment.sh
test_environment
"$PYTHON" -m audiodd_jax.forecast.compilers "$@"
