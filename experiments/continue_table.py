"""Prints what a continued coreset loses against a fresh one of the same size.

    python experiments/continue_table.py --case=spoken_digit:1:/data/fsdd

Each case, DATASET:SAMPLES_PER_CLASS[:DATA_DIR], is distilled in four ways with each
seed: afresh from all recordings; continued by all of them from a coreset of a part of
the labels; continued by all of them from a coreset without one class; and the latter
continued by the recordings of this class alone. The class differs between seeds. Scores
are those of kernel regression on test clips.
"""

import ast
import dataclasses
import statistics
import tempfile
from pathlib import Path

import numpy as np
from absl import app, flags, logging

import audiodd_jax
from audiodd_jax.active_learning import labelled_subset
from audiodd_jax.commands import common
from audiodd_jax.commands.main import explained
from audiodd_jax.config import fields
from audiodd_jax.coreset import dataset as coreset_data
from audiodd_jax.coreset import sizes as coreset_sizes
from audiodd_jax.distillation import loop
from audiodd_jax.features import dataset
from audiodd_jax.kernels.ridge import Scoring
from audiodd_jax.report import distilled, tables
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import write_json
from audiodd_jax.training import evaluation

_CASES = flags.DEFINE_multi_string("case", ["tones:1"], "DATASET:SAMPLES[:DATA_DIR]")
_STEPS = flags.DEFINE_integer("steps", 100, "steps of each distillation")
_SET = flags.DEFINE_multi_string("set", [], "a setting, as network.width=16")
_FRACTION = flags.DEFINE_float("fraction", 0.2, "part of the labels known first")
_SEEDS = flags.DEFINE_integer("seeds", 3, "distillation seeds")
_OUT = flags.DEFINE_string("out", "runs/continue.json", "file of the results")


def part(data, names):
    """The data with clips of some classes alone."""
    column = np.full(data.num_classes, -1)
    column[[data.class_names.index(name) for name in names]] = np.arange(len(names))

    def of(clips):
        labels = column[np.asarray(clips.labels)]
        chosen = clips.subset(np.flatnonzero(labels >= 0))
        return chosen._replace(labels=labels[labels >= 0].astype(np.int32))

    splits = {name: of(getattr(data, name)) for name in ("train", "validation", "test")}
    return dataset.with_weights(dataclasses.replace(data, **splits, class_names=names))


def made(config, data, earlier=None):
    """Distils a coreset, from an earlier one in a file if given."""
    start = None
    if earlier:
        data = coreset_data.replayed(earlier, data)
        sizes = (config.coreset, config.method, data.class_clips, data.class_names)
        sizes = coreset_sizes.of_classes(*sizes)
        given = (earlier, config.coreset, data, sizes, config.seed)
        start = coreset_data.warm_start(*given)
    outcome = loop.distill(config, data, start=start)
    return distilled.coreset_of(outcome.best, outcome.classes, data, config)


def accuracies(config, coreset, data):
    """The test accuracy of each class that a coreset knows, by name."""
    known = part(data, coreset.class_names)
    scoring = Scoring.from_config(config, is_test=True)
    given = ([coreset.unpack()], known.test, scoring, range(config.evaluation.seeds))
    [scores] = evaluation.kernel_regression(*given)
    return dict(zip(coreset.class_names, map(float, scores.per_class), strict=True))


def rows_of(case):
    """Yields case, seed, way, and the accuracies of known, old and new classes."""
    name, samples, *data_dir = case.split(":", 2)
    given = (item.split("=") for item in _SET.value)
    base = audiodd_jax.for_dataset(
        name,
        steps=_STEPS.value,
        coreset__samples_per_class=int(samples),
        data__data_dir=data_dir[0] if data_dir else "",
        **{k.replace(".", "__"): ast.literal_eval(value) for k, value in given},
    )
    data = dataset.load(base.data, base.features)
    for seed in range(_SEEDS.value):
        config = fields.replace(base, {"seed": seed})
        new = data.class_names[(3 * seed + 2) % data.num_classes]
        old = tuple(name for name in data.class_names if name != new)
        few = fields.replace(config, {"labels.fraction": _FRACTION.value})
        few = labelled_subset.restrict(few, data)
        with tempfile.TemporaryDirectory() as folder:
            files = {"labels": Path(folder, "a.npz"), "class": Path(folder, "b.npz")}
            first = made(config, few), made(config, part(data, old))
            for file, coreset in zip(files.values(), first, strict=True):
                coreset.save(file)
            ways = {
                "afresh": made(config, data),
                f"{_FRACTION.value:.0%} of the labels": first[0],
                "continued by all labels": made(config, data, files["labels"]),
                "without one class": first[1],
                "continued by all recordings": made(config, data, files["class"]),
                "continued by the new class alone": made(
                    config, part(data, (new,)), files["class"]
                ),
            }
        for way, coreset in ways.items():
            found = accuracies(config, coreset, data)
            of_old = statistics.fmean(found[name] for name in old)
            mean = statistics.fmean(found.values())
            yield case, seed, way, mean, of_old, found.get(new)


def main(_):
    logging.set_verbosity(logging.WARNING)
    common.keep_compiled(None)
    results = []
    with standard_numerics():
        for case in _CASES.value:
            for row in rows_of(case):
                print(*row, flush=True)
                results.append(row)
    columns = ("case", "seed", "way", "all", "old", "new")
    Path(_OUT.value).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(_OUT.value), [dict(zip(columns, r, strict=True)) for r in results])
    rows = []
    for case, way in dict.fromkeys((row[0], row[2]) for row in results):
        same = [row[3:] for row in results if (row[0], row[2]) == (case, way)]
        cells = [
            "" if None in column else tables.mean_std(column)
            for column in zip(*same, strict=True)
        ]
        rows.append([":".join(case.split(":")[:2]), way, *cells])
    header = ["data", "coreset", "known classes (%)", "old classes (%)", "new (%)"]
    print(tables.markdown(tables.Table(header, rows)))


if __name__ == "__main__":
    explained(lambda: app.run(main))
