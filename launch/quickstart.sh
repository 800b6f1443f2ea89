#!/usr/bin/env bash
# Creates an environment, installs audiodd_jax in it and distils the built-in dataset. Then
# scores and draws the coreset and the real clips it started from. Downloads no data.
#   bash launch/quickstart.sh [flags of audiodd distill]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/environment.sh
environment ""

workdir=runs/quickstart
case " $* " in *" --workdir"*) workdir="" ;; esac
"$PYTHON" -m audiodd_jax distill --dataset=tones --samples_per_class=5 \
  ${workdir:+--workdir="$workdir"} "$@"

if [ -n "$workdir" ]; then
  echo
  echo "results: $workdir/figures/coreset.png and $workdir/README.md; to list all commands:"
  echo "  . ${AUDIODD_VENV:-.venv}/bin/activate && audiodd help"
fi
