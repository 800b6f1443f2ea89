"""Packs the coreset of a run as the package's example coreset.

    audiodd distill --preset=transfer --dataset=arabic_speech_commands \
        --data_dir=ARABIC --samples_per_class=1 --workdir=runs/example
    python experiments/example_coreset.py --run=runs/example

Images and labels are rounded to half precision, so that they compress to half their
size. They stay float32 in the file.
"""

import dataclasses
from pathlib import Path

import numpy as np
from absl import app, flags

import audiodd_jax
from audiodd_jax.commands.main import explained
from audiodd_jax.coreset import file as coreset_file
from audiodd_jax.runtime import files

_RUN = flags.DEFINE_string("run", None, "run directory", required=True)
_OUT = Path(coreset_file.__file__).with_name("example_coreset.npz")
# Largest size of the file, so that the package stays small.
_MAX_BYTES = 300_000


def main(_):
    coreset = audiodd_jax.load_coreset(Path(_RUN.value) / "coreset.npz")
    half = lambda x: x.astype(np.float16).astype(np.float32)
    changes = {"images": half(coreset.images), "labels": half(coreset.labels)}
    rounded = dataclasses.replace(coreset, **changes)
    rounded.save(_OUT)
    arrays = dict(files.load_npz(_OUT))
    np.savez_compressed(_OUT, **arrays)
    size = _OUT.stat().st_size
    if size > _MAX_BYTES:
        raise SystemExit(
            f"{_OUT} has {size:,} bytes, more than the limit of {_MAX_BYTES:,}"
        )
    print(f"{_OUT}: {size:,} bytes")


if __name__ == "__main__":
    explained(lambda: app.run(main))
