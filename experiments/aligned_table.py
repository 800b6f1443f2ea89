"""Networks on coresets of the aligned loss, by validation accuracy only.

    python experiments/aligned_table.py --dataset=spoken_digit --data_dir=/data/fsdd \
        --samples_per_class=1 --arms="random clips,own labels,views 1,views 4"

Distils with ``--preset=transfer`` and the changes of each arm, labels views of the
coreset by the teacher, and trains ConvNets on these, as ``audiodd train`` does. The
start is the same in all arms of a seed: the ``random clips``. The test split is not
read. Prints a row per arm: mean and deviation over seeds and networks. Finished arms
are read from ``--out``.
"""

import json
import statistics
import time
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging

import audiodd_jax
from audiodd_jax.commands.main import explained
from audiodd_jax.config import fields
from audiodd_jax.distillation import loop
from audiodd_jax.features import dataset
from audiodd_jax.training import programs, teacher
from audiodd_jax.training import source as source_lib

_DATASET = flags.DEFINE_string("dataset", "tones", "dataset")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder with the recordings")
_FOLD = flags.DEFINE_integer("fold", 0, "test fold, which is not read")
_VALIDATION = flags.DEFINE_float("validation", 0.1, "fraction of training clips")
_SAMPLES = flags.DEFINE_integer("samples_per_class", 1, "spectrograms per class")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "seeds of the coresets")
_NETWORKS = flags.DEFINE_integer("networks", 2, "networks per coreset")
_STEPS = flags.DEFINE_integer("training_steps", 500, "training steps of the networks")
_ARMS = flags.DEFINE_list("arms", ["random clips", "own labels", "preset"], "arms")
_CHANGES = flags.DEFINE_list("changes", [], "settings of all arms, as NAME=VALUE")
_OUT = flags.DEFINE_string("out", "runs/aligned.jsonl", "file of finished arms")

ARMS = {
    "random clips": {"loop.steps": 0},
    # The loss of RFAD itself.
    "own labels": {"rfad.views": 0},
    "preset": {},
    **{f"views {m}": {"rfad.views": m} for m in (1, 2, 4, 8)},
    **{f"rate {r:g}": {"optimizer.learning_rate": r} for r in (1e-3, 3e-3, 1e-2, 3e-2)},
    **{f"steps {n}": {"loop.steps": n} for n in (50, 100, 150, 300)},
    **{f"networks {n}": {"rfad.networks": n} for n in (1, 4)},
    "packed": {"coreset.factor": "2x2"},
    "packed, random clips": {"coreset.factor": "2x2", "loop.steps": 0},
}


def configured(arm, seed):
    """Returns the configuration of an arm, ``name`` or ``name + other name``."""
    config = audiodd_jax.for_dataset(
        _DATASET.value,
        "transfer",
        seed=seed,
        samples_per_class=_SAMPLES.value,
        data__data_dir=_DATA_DIR.value,
        data__fold=_FOLD.value,
        data__allow_partial=True,
        data__validation_fraction=_VALIDATION.value,
    )
    changes = dict(text.split("=", 1) for text in _CHANGES.value)
    parsed = {name: json.loads(value) for name, value in changes.items()}
    for part in arm.split(" + "):
        parsed |= ARMS[part]
    return fields.replace(config, parsed)


def score(config, data):
    """Returns the validation scores of networks on a coreset, and its seconds."""
    began, is_random = time.perf_counter(), config.loop.steps == 0
    folder = teacher.trained(config, data)
    ensemble = teacher.ensemble(folder, config.teacher.temperature)
    row = {}
    if is_random:
        config = fields.replace(config, {"method": "random", "loop.keep": "best"})
    found = loop.distill(config, data, teacher=ensemble)
    if not is_random:
        names = ("loss", "batch_accuracy")
        row = {name: found.history[-1].get(name) for name in names}
    row["seconds"] = time.perf_counter() - began
    images = found.best.unpack(config.coreset.factor).images
    labelled = teacher.label(images, config, data)
    source = source_lib.views_source(labelled.views, "coreset")
    recipe = audiodd_jax.for_model(
        config,
        "convnet",
        training__seeds=_NETWORKS.value,
        training__steps=_STEPS.value,
        training__eval_every=0,
    )
    trained = (recipe.model, recipe.training, config.seed, data, source, None)
    fitted = source_lib.fit_source(*trained)
    validate = programs.validation_program(fitted.model, recipe.training)
    scores = np.asarray(validate(fitted.networks, data.validation)[0]).tolist()
    return {**row, "scores": scores, "teacher": labelled.record["validation_accuracy"]}


def main(_):
    logging.set_verbosity(logging.WARNING)
    out = Path(_OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = out.read_text().splitlines() if out.exists() else []
    done = {row["config"] + row["arm"]: row for row in map(json.loads, lines)}
    data = None
    for arm in _ARMS.value:
        scores = []
        for seed in map(int, _SEEDS.value):
            config = configured(arm, seed)
            key = repr(fields.record(config, fields.DISTILLATION))
            if key + arm not in done:
                data = data or dataset.load(config.data, config.features)
                row = score(config, data)
                row |= {"config": key, "arm": arm, "seed": seed}
                row |= {"dataset": _DATASET.value, "samples": _SAMPLES.value}
                with out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                done[key + arm] = row
                jax.clear_caches()
            scores += done[key + arm]["scores"]
        mean, deviation = statistics.fmean(scores), statistics.pstdev(scores)
        print(
            f"| {_DATASET.value} | {_SAMPLES.value} | {arm} | "
            f"{100 * mean:.1f} ± {100 * deviation:.1f} | {len(scores)} |",
            flush=True,
        )


if __name__ == "__main__":
    explained(lambda: app.run(main))
