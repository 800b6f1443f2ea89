"""Makes the coreset of a run the package's example coreset.

    audiodd distill --preset=transfer --dataset=arabic_speech_commands \
        --data_dir=ARABIC --samples_per_class=13 --config.coreset.factor=4x4:1 \
        --config.coreset.storage=int8 --config.coreset.views=8 \
        --config.optimizer.learning_rate=0.003 --workdir=runs/example
    python experiments/example_coreset.py --run=runs/example

The file is copied as it is.
"""

import shutil
from pathlib import Path

from absl import app, flags

import audiodd_jax
from audiodd_jax.commands.main import explained
from audiodd_jax.coreset import file as coreset_file

_RUN = flags.DEFINE_string("run", None, "run directory", required=True)
_OUT = Path(coreset_file.__file__).with_name("example_coreset.npz")
# Largest size of the file, so that the package stays small.
_MAX_BYTES = 300_000


def main(_):
    file = Path(_RUN.value) / "coreset.npz"
    audiodd_jax.load_coreset(file)  # whole, and of a format that is read
    size = file.stat().st_size
    if size > _MAX_BYTES:
        raise SystemExit(
            f"{file} has {size:,} bytes, more than the limit of {_MAX_BYTES:,}"
        )
    shutil.copyfile(file, _OUT)
    print(f"{_OUT}: {size:,} bytes")


if __name__ == "__main__":
    explained(lambda: app.run(main))
