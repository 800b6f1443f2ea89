#!/usr/bin/env bash
# Installs the compilers of TPUs and NVIDIA GPUs, which need neither, into a folder of the
# environment that nothing but `audiodd ... --dry_run --target=...` looks into.
#   bash launch/compilers.sh [tpu] [gpu]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/environment.sh
environment "[test]" neural-tangents==0.6.5
"$PYTHON" -m audiodd_jax.forecast.compilers "$@"
