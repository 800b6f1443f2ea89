"""Searches the recipe of a network on a coreset, by validation accuracy only.

    python experiments/recipe_search.py --dataset=spoken_digit --data_dir=/data/fsdd \
        --samples_per_class=10 --model=convnet

Distils with the dataset's settings and ``--preset``. Then trains the network with its
preset and with one change at a time, on the coreset and on as many random real clips.
The test split is not scored. Finished trials are not repeated.
"""

import statistics
from pathlib import Path

from absl import app, flags, logging

import audiodd_jax
from audiodd_jax.commands.main import explained
from audiodd_jax.config import fields
from audiodd_jax.coreset import subsets
from audiodd_jax.features import dataset
from audiodd_jax.runtime.run_directory import RunDirectory
from audiodd_jax.training import source as source_lib

_DATASET = flags.DEFINE_string("dataset", "tones", "dataset")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder with the recordings")
_PRESET = flags.DEFINE_string("preset", "default", "preset of the distillation")
_SAMPLES = flags.DEFINE_integer(
    "samples_per_class", 10, "coreset spectrograms per class"
)
_MODEL = flags.DEFINE_string("model", "convnet", "network")
_SEEDS = flags.DEFINE_integer("seeds", 1, "networks per trial")
_TRIALS = flags.DEFINE_list("trials", [], "names of trials; empty: all")
_REAL = flags.DEFINE_bool("real", True, "also train on random real clips")
_WORKDIR = flags.DEFINE_string("workdir", "runs/recipes", "folder of the runs")

MODEL, TRAINED, AUGMENT = "model.", "training.", "training.augment."
TRIALS = {
    "preset": {},
    **{
        f"readout {r}": {MODEL + "readout": r} for r in ("flatten", "time_mean", "mean")
    },
    **{
        f"norm {n}": {MODEL + "norm": n} for n in ("batch", "instance", "group", "none")
    },
    "half the width": {MODEL + "width": 16},
    "twice the width": {MODEL + "width": 64},
    "depth 3": {MODEL + "depth": 3},
    "dropout 0.2": {MODEL + "dropout": 0.2},
    "random head": {MODEL + "head": "random"},
    "random head, centred outputs": {
        MODEL + "head": "random",
        TRAINED + "centre_outputs": True,
    },
    "mse, labels as learnt": {TRAINED + "loss": "mse", TRAINED + "label_scale": 1.0},
    "mse, labels times 8": {TRAINED + "loss": "mse", TRAINED + "label_scale": 8.0},
    **{
        f"label scale {s:g}": {TRAINED + "label_scale": s}
        for s in (2.0, 3.0, 5.0, 8.0, 10.0)
    },
    "hard labels": {TRAINED + "labels": "hard"},
    **{f"rate {r:g}": {TRAINED + "learning_rate": r} for r in (5e-4, 5e-3, 1e-2)},
    **{f"decay {d:g}": {TRAINED + "weight_decay": d} for d in (0.0, 0.5)},
    "sgd, rate 0.05": {
        TRAINED + "optimizer": "sgd",
        TRAINED + "learning_rate": 0.05,
        TRAINED + "weight_decay": 5e-4,
    },
    "batch 50": {TRAINED + "batch_size": 50},
    "1000 steps": {TRAINED + "steps": 1000},
    "averaged weights": {TRAINED + "average": 0.98},
    "mixup 0.5": {TRAINED + "mixup": 0.5},
    **{f"time shift {s:g}": {AUGMENT + "time_shift": s} for s in (0.0, 0.1, 0.2)},
    "noise 5 dB": {AUGMENT + "noise_db": 5.0},
    "masks": {AUGMENT + "time_mask": 0.2, AUGMENT + "frequency_mask": 0.2},
}


def trial(config, data, source, folder):
    """Returns the validation scores of a recipe on a source; reads no test clips."""
    record = fields.record(config, fields.TRAINING)
    with RunDirectory(folder, {**record, "learns_from": source.record}) as run:
        result = run.result()
        if result is None:
            fitted = source_lib.fit_source(
                config.model, config.training, config.seed, data, source, run
            )
            last = fitted.history[-1]
            kept = ("validation_accuracy", "validation_loss", "loss", "seconds")
            result = {name: last[name] for name in kept}
            run.finish(result)
        return result


def main(_):
    logging.set_verbosity(logging.WARNING)
    config = audiodd_jax.for_dataset(
        _DATASET.value,
        _PRESET.value,
        coreset__samples_per_class=_SAMPLES.value,
        data__data_dir=_DATA_DIR.value,
    )
    workdir = Path(_WORKDIR.value)
    name = f"{_DATASET.value}-{_PRESET.value}-{_SAMPLES.value}"
    coreset = audiodd_jax.distill(config, workdir / f"{name}-seed0").coreset
    data = dataset.load(config.data, config.features)
    drawn = subsets.Subset("random", per_class=_SAMPLES.value)
    embedding = subsets.Embedding(config.network, config.evaluation.networks)
    rows = subsets.choose(drawn, data, embedding, 0)
    sources = [source_lib.coreset_source(coreset.unpack())]
    if _REAL.value:
        sources.append(source_lib.subset_source(drawn, rows, data, 0))
    heads = [source.record["name"] for source in sources]
    print(f"| {_MODEL.value} | {' | '.join(heads)} | s |")
    print("|---" * (len(heads) + 2) + "|")
    for title in _TRIALS.value or TRIALS:
        changes = {"training.seeds": _SEEDS.value, **TRIALS[title]}
        recipe = audiodd_jax.for_model(config, _MODEL.value)
        recipe = fields.replace(recipe, changes)
        folder = workdir / f"{name}-{_MODEL.value}" / title.replace(" ", "_")
        results = [
            trial(recipe, data, source, folder.with_name(f"{folder.name}-{head}"))
            for source, head in zip(sources, heads, strict=True)
        ]
        scores = [f"{100 * result['validation_accuracy']:.1f}" for result in results]
        seconds = statistics.fmean(result["seconds"] for result in results)
        print(f"| {title} | {' | '.join(scores)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    explained(lambda: app.run(main))
