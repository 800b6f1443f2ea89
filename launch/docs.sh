#!/usr/bin/env bash
# Writes the reference of the Python API to build/docs/, from the docstrings.
#   bash launch/docs.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. launch/environment.sh
environment "[docs]"

"$PYTHON" - <<'END'
import pathlib

import audiodd_jax
import pdoc

# Public names are resolved on first use, and pdoc lists only resolved ones.
for name in audiodd_jax.__all__:
    setattr(audiodd_jax, name, getattr(audiodd_jax, name))
pdoc.render.configure(docformat="google")
modules = ("audiodd_jax", "audiodd_jax.config", "audiodd_jax.networks.user_network")
pdoc.pdoc(*modules, output_directory=pathlib.Path("build/docs"))
END
echo "wrote build/docs/index.html"
