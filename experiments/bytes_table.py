"""Accuracy of networks against the bytes that they learn from.

    python experiments/bytes_table.py --dataset=spoken_digit --data_dir=/data/fsdd \
        --budgets=1x,2x,64kB --arms="coreset,random clips" --split=validation

A budget is a number of bytes, or ``2x``: the bytes of two random clips per class in
float32 with 20 views each. Every arm stores at most so many bytes:

* ``coreset``: what ``audiodd distill --preset=transfer --budget=...`` makes;
* ``random clips``: real clips stored in the same way, with labels by the same teacher;
* ``plain clips``: real clips in float32 with 20 views each, as many as fit;
* ``hard labels``: real clips in int8 at full size with the labels of their classes;
* ``audio``: real clips as 16-bit audio, as many as fit;
* ``all clips``: all training clips, whatever their bytes.

Each seed draws clips or distils a coreset, and trains one network on the result by the
ConvNet's recipe. Prints a row per arm and budget; finished rows are read from
``--out``. The test split is read with ``--split=test`` only.
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
from audiodd_jax.config import Config, fields
from audiodd_jax.config.packing import bytes_of
from audiodd_jax.coreset import budget as budget_lib
from audiodd_jax.coreset import subsets
from audiodd_jax.coreset.file import Coreset
from audiodd_jax.coreset.subsets import Subset
from audiodd_jax.distillation import loop
from audiodd_jax.features import dataset
from audiodd_jax.features.dataset import Dataset
from audiodd_jax.report import distilled
from audiodd_jax.training import evaluation, programs, teacher
from audiodd_jax.training import source as source_lib
from audiodd_jax.training.source import Source

_DATASET = flags.DEFINE_string("dataset", "tones", "dataset")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder with the recordings")
_FOLD = flags.DEFINE_integer("fold", 0, "test fold")
_VALIDATION = flags.DEFINE_float("validation", 0.1, "fraction of training clips")
_BUDGETS = flags.DEFINE_list("budgets", ["1x", "2x"], "bytes, or 1x, 2x, ...")
_ARMS = flags.DEFINE_list("arms", ["coreset", "random clips", "plain clips"], "arms")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "seeds")
_SPLIT = flags.DEFINE_enum("split", "validation", ["validation", "test"], "clips")
_NETWORK = flags.DEFINE_string("network", "convnet", "network")
_CHANGES = flags.DEFINE_list("changes", [], "settings of all arms, as NAME=VALUE")
_RECIPE = flags.DEFINE_list("recipe", [], "settings of networks, as NAME=VALUE")
_FIXED = flags.DEFINE_list("fixed", [], "settings in place of the budget's choice")
_OUT = flags.DEFINE_string("out", "runs/bytes.jsonl", "file of finished rows")

_ONE_SIZE = ("plain clips", "all clips")


def configured(seed: int) -> Config:
    """Returns the configuration of ``--preset=transfer``, with the changes."""
    config = audiodd_jax.for_dataset(
        _DATASET.value,
        "transfer",
        seed=seed,
        data__data_dir=_DATA_DIR.value,
        data__fold=_FOLD.value,
        data__allow_partial=True,
        data__validation_fraction=_VALIDATION.value,
    )
    return fields.replace(config, parsed(_CHANGES.value))


def parsed(changes: list[str]) -> dict:
    """Returns settings by name from texts such as ``loop.steps=100``."""
    pairs = dict(text.split("=", 1) for text in changes)
    return {name: json.loads(value) for name, value in pairs.items()}


def made(config: Config, data: Dataset, distils: bool) -> Coreset:
    """Distils or draws a coreset with its teacher's labels, as its file has them."""
    ensemble = None
    if distils:
        folder = teacher.trained(config, data)
        ensemble = teacher.ensemble(folder, config.teacher.temperature)
    else:
        random = {"method": "random", "loop.keep": "best", "loop.steps": 0}
        config = fields.replace(config, random)
    found = loop.distill(config, data, teacher=ensemble)
    coreset = distilled.coreset_of(found.best, found.classes, data, config)
    labelled = teacher.label(coreset.unpack().images, config, data)
    return distilled.with_views(coreset, labelled)


def within(config: Config, data: Dataset, limit: int) -> Config:
    """Returns the settings that the budget's rule, or ``--fixed``, chooses."""
    if _FIXED.value:
        return fields.replace(config, parsed(_FIXED.value))
    config = fields.replace(config, {"coreset.budget": str(limit)})
    settings = fields.record(config, fields.DISTILLATION)
    changes = budget_lib.changes(settings, data)
    return fields.replace(config, {**changes, "coreset.budget": ""})


def real_clips(data: Dataset, count: int, seed: int) -> Source:
    """Returns random clips with the labels of their classes."""
    per_class = max(1, round(count / data.num_classes))
    sizes = np.minimum(per_class, data.class_clips)
    subset = Subset("random", per_class=tuple(sizes.tolist()))
    config = configured(seed)
    embedding = subsets.Embedding(config.network, config.evaluation.networks)
    rows = subsets.choose(subset, data, embedding, seed)
    return source_lib.subset_source(subset, rows, data, seed)


def training_set(arm: str, config: Config, data: Dataset, limit: int) -> tuple:
    """Returns a training set of at most ``limit`` bytes, its bytes, and in words."""
    seed = config.seed
    recipe = audiodd_jax.for_model(config, _NETWORK.value).training
    if arm == "all clips":
        clips = source_lib.subset_source(Subset(), np.array([], int), data, 0)
        return clips, data.train_bytes, f"{data.num_train} clips"
    if arm in ("hard labels", "audio"):
        pixels = int(np.prod(data.image_shape))
        each = pixels + 3 if arm == "hard labels" else data.train_bytes / data.num_train
        count = min(int(limit / each), data.num_train)
        count = max(count - count % data.num_classes, data.num_classes)
        clips = real_clips(data, count, seed)
        return clips, int(count * each), f"{count // data.num_classes} per class"
    if arm == "plain clips":
        config = fields.replace(config, {"coreset.samples_per_class": limit})
    else:
        config = within(config, data, limit)
    coreset = made(config, data, arm == "coreset")
    chosen = budget_lib.in_words(fields_of(config))
    source = source_lib.network_source(coreset, recipe)
    return source, coreset.file_bytes.total, chosen


def fields_of(config: Config) -> dict:
    """Returns the settings of a coreset's size, by their dotted names."""
    return {name: fields.get(config, name) for name in budget_lib.NAMES}


def score(arm: str, config: Config, data: Dataset, limit: int) -> dict:
    """Trains one network and returns its accuracy on the clips of ``--split``."""
    began = time.perf_counter()
    source, size, words = training_set(arm, config, data, limit)
    made_in = time.perf_counter() - began
    changes = {"training.seeds": 1, "training.eval_every": 0, **parsed(_RECIPE.value)}
    recipe = audiodd_jax.for_model(
        config,
        _NETWORK.value,
        **{name.replace(".", "__"): value for name, value in changes.items()},
    )
    trained = (recipe.model, recipe.training, config.seed, data, source, None)
    fitted = source_lib.fit_source(*trained)
    row = {"bytes": size, "words": words, "made_in": made_in}
    validate = programs.validation_program(fitted.model, recipe.training)
    row["validation"] = float(validate(fitted.networks, data.validation)[0][0])
    if _SPLIT.value == "test":
        given = (data.test, _NETWORK.value, data.num_classes)
        row["test"] = evaluation.networks(fitted, *given).accuracies[0]
    return {**row, "seconds": time.perf_counter() - began}


def plain_bytes(config: Config, data: Dataset, per_class: int) -> int:
    """Returns the bytes of random clips in float32 with 20 views each."""
    changes = {"coreset.samples_per_class": per_class}
    coreset = made(fields.replace(config, changes), data, False)
    return coreset.file_bytes.total


def main(_):
    logging.set_verbosity(logging.WARNING)
    out = Path(_OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = map(json.loads, out.read_text().splitlines() if out.exists() else [])
    done = {row["key"]: row for row in rows}
    data, limits = None, {}
    for budget in _BUDGETS.value:
        for arm in _ARMS.value:
            found = []
            for seed in map(int, _SEEDS.value):
                config = configured(seed)
                own = "" if arm == "all clips" else budget
                fixed = _FIXED.value if arm in ("coreset", "random clips") else ()
                given = (arm, own, *fixed, _NETWORK.value, *_RECIPE.value, _SPLIT.value)
                record = fields.record(config, fields.DISTILLATION)
                key = repr((*given, record))
                if key not in done:
                    data = data or dataset.load(config.data, config.features)
                    if budget.endswith("x") and arm not in _ONE_SIZE:
                        if budget not in limits:
                            size = plain_bytes(config, data, int(budget[:-1]))
                            limits[budget] = size
                        limit = limits[budget]
                    else:
                        limit = (
                            int(budget.removesuffix("x"))
                            if (budget.endswith("x"))
                            else bytes_of(budget)
                        )
                    row = {"key": key, "dataset": _DATASET.value, "arm": arm}
                    row |= {"budget": budget, "seed": seed, "fixed": list(fixed)}
                    row |= score(arm, config, data, limit)
                    with out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    done[key] = row
                    jax.clear_caches()
                found.append(done[key])
            report(budget, arm, found)


def report(budget: str, arm: str, rows: list[dict]) -> None:
    """Prints the mean and deviation over seeds."""
    cells = [_DATASET.value, budget, arm, f"{rows[0]['bytes']:,}", rows[0]["words"]]
    for name in ("validation", "test"):
        values = [100 * row[name] for row in rows if name in row]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{name} {statistics.fmean(values):.1f} ± {spread:.1f}")
    cells.append(f"{statistics.fmean(row['seconds'] for row in rows):.0f} s")
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    explained(lambda: app.run(main))
