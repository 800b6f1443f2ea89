"""Accuracy by answers when an annotator errs, with and without a review.

    python experiments/label_noise.py --data_dir=/data/arabic_speech_commands

Clips are labelled round by round by an annotator who errs in 5 % of the answers. At
each budget a network is trained on the answers as they are, and one after a review: the
annotator, who errs as often, is asked again about answers that all networks contradict.
A review counts its answers. Test clips are those of other speakers.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from audiodd_jax import for_active, for_dataset
from audiodd_jax.active_learning import monte_carlo, review, rounds
from audiodd_jax.commands.main import explained
from audiodd_jax.config import fields
from audiodd_jax.features import dataset
from audiodd_jax.report import tables
from audiodd_jax.runtime.environment import standard_numerics
from audiodd_jax.runtime.files import write_json
from audiodd_jax.training import evaluation, programs

_DATASET = flags.DEFINE_string("dataset", "arabic_speech_commands", "dataset")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder with the recordings")
_FUNCTIONS = flags.DEFINE_list(
    "acquisition", ["random", "margin", "bald", "typiclust"], "acquisition functions"
)
_BUDGETS = flags.DEFINE_list("budgets", ["5/class", "10/class"], "labelled clips")
_STEPS = flags.DEFINE_integer("steps", 300, "training steps")
_SEEDS = flags.DEFINE_integer("num_seeds", 3, "seeds")
_ERRORS = flags.DEFINE_float("errors", 0.05, "share of wrong answers")
_OUT = flags.DEFINE_string("out", "runs/label_noise.json", "file of the results")


def wrong(labels, classes, share, rng):
    """Answers, of which a share is another class."""
    others = (labels + rng.integers(1, classes, labels.size)) % classes
    return np.where(rng.random(labels.size) < share, others, labels)


def run(config, data, seed):
    """Yields answers and test accuracy at each budget, without and with a review."""
    truth = np.asarray(data.train.labels)
    rng = np.random.default_rng(seed)
    answers = wrong(truth, data.num_classes, _ERRORS.value, rng)
    again = wrong(truth, data.num_classes, _ERRORS.value, rng)
    learnt = rounds.label_rounds(config, data, annotate=answers.__getitem__)
    compiled = programs.make(config.model, config.training, data)
    predict = monte_carlo.over_pool(
        lambda *given: monte_carlo.mean_probabilities(compiled.model, *given),
        data.train,
        config.active.chunk,
    )
    everything = np.arange(truth.size)

    def fitted(labels, rows, number):
        given = rounds.with_labels(data, labels)
        return rounds.train(given, compiled, rows, 1000 * seed + number)

    for row in learnt.rounds[1:]:
        rows = np.sort(learnt.labelled[: row["labelled"]])
        yield False, rows.size, row["test_accuracy"]

        def learn(part, number):
            networks = fitted(answers, part, number).networks
            return np.asarray(predict(networks, everything, jax.random.key(0)))

        found = review.contested(answers, rows, rows[:0], learn, seed).rows
        better = answers.copy()
        better[found] = again[found]
        scores = evaluation.networks(
            fitted(better, rows, 99), data.test, compiled.name, data.num_classes
        )
        yield True, rows.size + found.size, float(scores.mean)


def main(_):
    base = for_dataset(_DATASET.value, data__data_dir=_DATA_DIR.value)
    base = for_active(
        base, "convnet", steps=_STEPS.value, active__budgets=tuple(_BUDGETS.value)
    )
    loaded = dataset.load(base.data, base.features)
    data = rounds.by_known_labels(dataclasses.replace(loaded, balance="none"))
    results = []
    with standard_numerics():
        for seed in range(_SEEDS.value):
            for name in _FUNCTIONS.value:
                changes = {"active.acquisition": name, "seed": seed}
                config = fields.replace(base, changes)
                for i, found in enumerate(run(config, data, seed)):
                    is_reviewed, count, accuracy = found
                    row = (name, seed, is_reviewed, i // 2, count, accuracy)
                    results.append(row)
                    print(*row, flush=True)
    columns = ("acquisition", "seed", "review", "budget", "answers", "test_accuracy")
    Path(_OUT.value).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(_OUT.value), [dict(zip(columns, r, strict=True)) for r in results])
    rows = []
    for name in _FUNCTIONS.value:
        for budget, text in enumerate(_BUDGETS.value):
            for is_reviewed in (False, True):
                key = (name, is_reviewed, budget)
                same = [r for r in results if (r[0], *r[2:4]) == key]
                answers = np.mean([r[4] for r in same])
                score = tables.mean_std([r[5] for r in same])
                review_text = "with" if is_reviewed else "without"
                rows.append([name, text, review_text, f"{answers:.0f}", score])
    header = ["function", "budget", "review", "answers", "test accuracy (%)"]
    print(tables.markdown(tables.Table(header, rows)))


if __name__ == "__main__":
    explained(lambda: app.run(main))
