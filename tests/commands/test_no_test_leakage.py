"""No decision reads the test split: with noise for test labels, all stay as they were.

A whole path runs twice: distillation, training on a coreset and on chosen real clips,
the evaluation with every baseline. The second time test
labels are random, and test images too. Only the last scores may differ.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import audiodd_jax
from audiodd_jax.commands import evaluate
from audiodd_jax.features import dataset
from audiodd_jax.features.clips import Clips

pytestmark = pytest.mark.slow

TINY = {
    "features__n_mels": 8,
    "features__frames": 8,
    "network__depth": 2,
    "network__width": 4,
    "coreset__samples_per_class": 2,
    "loop__steps": 8,
    "loop__batch_size": 32,
    "loop__log_every": 2,
    "loop__eval_every": 2,
    "evaluation__networks": 2,
    "evaluation__width": 4,
    "evaluation__seeds": 2,
}
RECIPE = {
    "model.depth": 2,
    "model.width": 4,
    "training.steps": 8,
    "training.seeds": 2,
    "training.log_every": 2,
    "training.eval_every": 2,
    "training.patience": 2,
}
AGAINST = ("hard", "random", "herding")
# What holds scores of the test split, and what differs between any two runs.
SCORES = {
    "test_accuracy",
    "test_accuracy_std",
    "test_accuracy_interval95",
    "test_balanced_accuracy",
    "test_balanced_accuracy_std",
    "test_balanced_accuracy_interval95",
    "test_balanced_accuracies",
    "majority_accuracy",
    "test_accuracies",
    "start_test_accuracy",
    "start_test_accuracies",
    "start_test_accuracy_std",
    "start_test_accuracy_interval95",
    "start_test_balanced_accuracy_std",
    "start_test_balanced_accuracy_interval95",
    "start_test_balanced_accuracy",
    "start_test_balanced_accuracies",
    "start_macro_f1",
    "macro_f1",
    "per_class_accuracy",
    "confusions",
    "wall_seconds",
    "peak_memory_bytes",
}


def whole_path(folder):
    config = audiodd_jax.for_dataset("tones", **TINY)
    run = audiodd_jax.distill(config, folder / "distilled")
    dotted = {name.replace(".", "__"): value for name, value in RECIPE.items()}
    model = audiodd_jax.for_model(config, "convnet", **dotted)
    subset = audiodd_jax.Subset("herding", per_class=2)
    audiodd_jax.train(model, folder / "trained", subset)
    rows = evaluate.compare(
        run.coreset,
        ("krr", "convnet"),
        AGAINST,
        config=config,
        recipe=RECIPE,
        out=folder / "evaluation",
    )
    return [row.scores.accuracies for row in rows]


def decisions(folder):
    """Everything that a path wrote, but for what tells of test clips and of time."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.suffix == ".npz":
            with np.load(file) as arrays:
                found[name] = {key: arrays[key].tobytes() for key in arrays}
        elif file.name == "metrics.jsonl":
            rows = map(json.loads, file.read_text().splitlines())
            found[name] = [{**row, "seconds": 0} for row in rows]
        elif file.name in ("result.json", "config.json"):
            values = json.loads(file.read_text())
            found[name] = {k: v for k, v in values.items() if k not in SCORES}
    return found


def test_random_test_labels_change_no_decision(tmp_path, monkeypatch):
    honest = whole_path(tmp_path / "honest")
    load = dataset.load

    def blinded(*arguments, **options):
        data = load(*arguments, **options)
        keys = jax.random.split(jax.random.key(7))
        shape = data.test.images.shape
        labels = jax.random.randint(keys[0], data.test.labels.shape, 0, 10, jnp.int32)
        noise = Clips(jax.random.normal(keys[1], shape), labels)
        return dataclasses.replace(data, test=noise)

    monkeypatch.setattr(dataset, "load", blinded)
    blind = whole_path(tmp_path / "blind")
    expected = decisions(tmp_path / "honest")
    assert sum(name.endswith("networks.npz") for name in expected) == 6
    assert sum(name.endswith("coreset.npz") for name in expected) == 1
    assert decisions(tmp_path / "blind") == expected
    # And the scores are those of the test clips: noise is not recognised.
    assert blind != honest
    assert np.mean([np.mean(row) for row in blind]) == pytest.approx(0.1, abs=0.06)
