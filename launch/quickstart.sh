#!/usr/bin/env bash
# Makes an environment, installs audiodd_jax in it, distils the embedded dataset, scores
# the coreset beside the real clips it started from, and draws it. No download of data.
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
  echo "look at $workdir/figures/coreset.png, read $workdir/README.md, and see what else"
  echo "there is: . ${AUDIODD_VENV:-.venv}/bin/activate && audiodd help"
fi
