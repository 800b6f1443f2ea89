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
from audiodd_jax.commands import active, common
from audiodd_jax.commands.main import explained
from audiodd_jax.config import fields
from audiodd_jax.features import encoders
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
_ENCODER = flags.DEFINE_string("encoder", "", "encoder; empty: a ConvNet learns")
_WIDTH = flags.DEFINE_integer("width", 32, "channels of the network")
_POOL = flags.DEFINE_integer("pool", 0, "training clips to choose from; 0: all")
_PARTIAL = flags.DEFINE_bool("allow_partial", False, "accept an incomplete dataset")
_SEEDS = flags.DEFINE_integer("num_seeds", 3, "seeds")
_ERRORS = flags.DEFINE_float("errors", 0.05, "share of wrong answers")
_OUT = flags.DEFINE_string("out", "runs/label_noise.json", "file of the results")


def wrong(labels, classes, share, rng):
    """Answers, of which a share is another class."""
    others = (labels + rng.integers(1, classes, labels.size)) % classes
    return np.where(rng.random(labels.size) < share, others, labels)


def networks_of(config, data):
    """Makes what trains on answers, tests, and predicts clips by several networks."""
    compiled = programs.make(config.model, config.training, data)
    predict = monte_carlo.over_pool(
        lambda *given: monte_carlo.mean_probabilities(compiled.model, *given),
        data.train,
        config.active.chunk,
    )

    def fitted(labels, rows, seed):
        return rounds.train(rounds.with_labels(data, labels), compiled, rows, seed)

    def accuracy(labels, rows, seed):
        networks = fitted(labels, rows, seed)
        given = (data.test, compiled.name, data.num_classes)
        return float(evaluation.networks(networks, *given).mean)

    def probabilities(labels, part, rows, seed):
        networks = fitted(labels, part, seed).networks
        found = np.zeros((len(labels), data.num_classes), np.float32)
        found[rows] = predict(networks, rows, jax.random.key(0))
        return found

    return accuracy, probabilities


def run(config, data, accuracy, probabilities):
    """Yields answers and test accuracy at each budget, without and with a review."""
    truth, seed = np.asarray(data.train.labels), config.seed
    rng = np.random.default_rng(seed)
    answers = wrong(truth, data.num_classes, _ERRORS.value, rng)
    again = wrong(truth, data.num_classes, _ERRORS.value, rng)
    learnt = rounds.label_rounds(config, data, annotate=answers.__getitem__)
    for row in learnt.rounds[1:]:
        rows = np.sort(learnt.labelled[: row["labelled"]])
        yield False, rows.size, row["test_accuracy"], 0

        def learn(part, number, rows=rows):
            return probabilities(answers, part, rows, 1000 * seed + number)

        found = review.contested(answers, rows, rows[:0], learn, seed).rows
        better = answers.copy()
        better[found] = again[found]
        score = accuracy(better, rows, 1000 * seed + 99)
        mended = (answers[found] != truth[found]) & (again[found] == truth[found])
        yield True, rows.size + found.size, score, int(mended.sum())


def load():
    """Loads the settings and the data, with a random part of the clips as the pool."""
    base = for_dataset(
        _DATASET.value,
        data__data_dir=_DATA_DIR.value,
        data__allow_partial=_PARTIAL.value,
        encoder__name=_ENCODER.value,
    )
    base = for_active(
        base,
        "linear" if _ENCODER.value else "convnet",
        steps=_STEPS.value,
        active__budgets=tuple(_BUDGETS.value),
        **({"model__width": _WIDTH.value} if not _ENCODER.value else {}),
    )
    encoder = encoders.load(base.encoder)
    features = encoders.front_end(base.features, encoder)
    data = active.load(base.data, features, encoder=encoder)
    count = len(data.train.labels)
    size = min(_POOL.value, count) or count
    rows = np.sort(np.random.default_rng(0).permutation(count)[:size])
    data = dataclasses.replace(data, train=data.train.subset(rows), balance="none")
    return base, data


def main(_):
    common.keep_compiled(None)
    base, data = load()
    results = []
    with standard_numerics():
        made = networks_of(base, data)
        for seed in range(_SEEDS.value):
            for name in _FUNCTIONS.value:
                changes = {"active.acquisition": name, "seed": seed}
                config = fields.replace(base, changes)
                for i, found in enumerate(run(config, data, *made)):
                    row = (name, seed, i // 2, *found)
                    results.append(row)
                    print(*row, flush=True)
    columns = ("acquisition", "seed", "budget", "review", "answers", "test_accuracy")
    columns += ("mended",)
    Path(_OUT.value).parent.mkdir(parents=True, exist_ok=True)
    write_json(Path(_OUT.value), [dict(zip(columns, r, strict=True)) for r in results])
    rows = []
    for name in _FUNCTIONS.value:
        for budget, text in enumerate(_BUDGETS.value):
            for is_reviewed in (False, True):
                key = (name, budget, is_reviewed)
                same = [r for r in results if (r[0], *r[2:4]) == key]
                answers, mended = (np.mean([r[i] for r in same]) for i in (4, 6))
                score = tables.mean_std([r[5] for r in same])
                own = ("with", f"{mended:.0f}") if is_reviewed else ("without", "")
                rows.append([name, text, own[0], f"{answers:.0f}", own[1], score])
    header = ["function", "budget", "review", "answers", "wrong answers mended"]
    print(tables.markdown(tables.Table([*header, "test accuracy (%)"], rows)))


if __name__ == "__main__":
    explained(lambda: app.run(main))
