"""Compares every acquisition function with a coreset of the same size.

    python experiments/active_table.py --dataset=spoken_digit --data_dir=/data/fsdd \
        --samples_per_class=10 --seeds=3

Distils one coreset per seed and runs every acquisition function once per seed over the
budgets, which include the size of the coreset. Then trains on the coresets with the
same recipe. Finished runs are not repeated, and interrupted ones resume.
"""

from pathlib import Path

from absl import app, flags, logging

import audiodd_jax
from audiodd_jax.commands import active, common
from audiodd_jax.commands.main import explained
from audiodd_jax.config import presets
from audiodd_jax.config.names import ACQUISITIONS

_DATASET = flags.DEFINE_string("dataset", "tones", "dataset")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder with the recordings")
_PRESET = flags.DEFINE_string("preset", "transfer", "preset of the distillation")
_SAMPLES = flags.DEFINE_integer(
    "samples_per_class", 10, "coreset spectrograms per class"
)
_MODEL = flags.DEFINE_string("model", "convnet", "network")
_ACQUISITIONS = flags.DEFINE_list(
    "acquisitions", list(ACQUISITIONS), "acquisition functions"
)
_BUDGETS = flags.DEFINE_list(
    "budgets",
    ["5/class", "10/class", "20%", "30%", "40%", "60%"],
    "labelled clips at which rounds end: shares of the training clips, or clips per "
    "class; must include the size of the coreset",
)
_BATCH = flags.DEFINE_integer(
    "batch", 0, "largest number of clips per round; 0: no limit"
)
_STEPS = flags.DEFINE_integer("steps", 0, "training steps; 0: the network's default")
_SEEDS = flags.DEFINE_integer("seeds", 3, "number of seeds")
_WORKDIR = flags.DEFINE_string("workdir", "runs/active", "folder of the runs")


def distilled(seed):
    """Distils the coreset of a seed."""
    config = audiodd_jax.for_dataset(
        _DATASET.value,
        _PRESET.value,
        seed=seed,
        coreset__samples_per_class=_SAMPLES.value,
        data__data_dir=_DATA_DIR.value,
    )
    name = f"{_DATASET.value}-{_SAMPLES.value}-{_PRESET.value}-seed{seed}"
    return audiodd_jax.distill(config, Path(_WORKDIR.value) / name).coreset


def main(_):
    logging.set_verbosity(logging.WARNING)
    common.keep_compiled(None)
    coresets = [distilled(seed) for seed in range(_SEEDS.value)]
    config = presets.for_active(
        audiodd_jax.for_dataset(_DATASET.value, data__data_dir=_DATA_DIR.value),
        _MODEL.value,
        active__batch=_BATCH.value,
        active__budgets=tuple(_BUDGETS.value),
        **({"training__steps": _STEPS.value} if _STEPS.value else {}),
    )
    data = active.load(config.data, config.features, coresets)
    folder = Path(_WORKDIR.value) / f"{_DATASET.value}-{_MODEL.value}"
    table = active.compare(
        config, _ACQUISITIONS.value, _SEEDS.value, coresets, data, folder
    )
    print(table)
    print(f"\npicture: {folder / 'learning_curves.png'}")


if __name__ == "__main__":
    explained(lambda: app.run(main))
