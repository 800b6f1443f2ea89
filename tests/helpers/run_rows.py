"""Run directories and rows of reports, written by hand."""

import json

from audiodd_jax.report.groups import Group
from audiodd_jax.report.runs import Run

CONFUSION = [[3, 1], [0, 4]]


def summary(*confusions, names=("a", "b")):
    """Scores by class as ``Evaluation.summary`` gives them, one matrix per seed."""
    return {
        "protocol": "krr",
        "test_accuracies": [0.5] * len(confusions),
        "per_class_accuracy": dict.fromkeys(names, 0.5),
        "confusions": list(map(list, confusions)),
    }


def group(number=0, **changes):
    """A group of one run of RFAD."""
    values = {
        "path": None,
        "kind": "distill",
        "config": {"seed": 0},
        "dataset": "tones",
        "learns_from": "rfad, 1 per class",
        "learner": "kernel regression",
        "examples": 2,
        "num_bytes": 800,
        "accuracies": (0.5,),
        "seconds": 20.0,
    }
    run = Run(**{**values, **changes})
    return Group([run], num_bytes=run.num_bytes, number=number)


def distillation(path, seed=0, method="rfad", *, evaluation=(), config=None, **changes):
    """Writes a run directory of two validations, with rows of its evaluation."""
    result = {
        "dataset": "tones",
        "fold": 0,
        "method": method,
        "samples_per_class": 1,
        "num_samples": 2,
        "bytes": 800,
        "protocol": "krr",
        "test_accuracy": 0.5,
        "start": "real",
        "start_test_accuracy": 0.25,
        "steps": 10,
        "wall_seconds": 20.0,
        **changes,
    }
    history = [
        {"step": 0, "validation_accuracy": 0.2 + seed / 10},
        {"step": 5, "loss": 1.0},
        {"step": 10, "validation_accuracy": 0.4},
    ]
    settings = {
        "method": method,
        "seed": seed,
        "data": {"name": result["dataset"], "data_dir": ""},
        "features": {"n_mels": 8},
        "coreset": {"samples_per_class": 1},
        **(config or {}),
    }
    _write(path, settings, result, history)
    if evaluation:
        (path / "evaluation").mkdir()
        (path / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation))


def training(path, learns_from, digest, accuracies):
    """Writes a run directory of a network."""
    result = {
        "dataset": "tones",
        "model": "convnet",
        "learns_from": learns_from,
        "num_samples": 2,
        "test_accuracies": accuracies,
        "wall_seconds": 7.0,
    }
    source = {"name": learns_from} | ({"digest": digest} if digest else {})
    settings = {"seed": 0, "model": {"name": "convnet"}, "learns_from": source}
    _write(path, settings, result)


def active(path):
    """Writes a run directory of active learning of two rounds."""
    counted = ((10, 0.3), (20, 0.6))
    result = {
        "dataset": "tones",
        "acquisition": "bald",
        "model": "convnet",
        "wall_seconds": 30.0,
        "rounds": [{"counted": n, "test_accuracy": a} for n, a in counted],
    }
    _write(path, {"seed": 0, "active": {"acquisition": "bald"}}, result)


def _write(path, config, result, history=()):
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    (path / "result.json").write_text(json.dumps(result))
    lines = [json.dumps(row) + "\n" for row in history]
    (path / "metrics.jsonl").write_text("".join(lines))
