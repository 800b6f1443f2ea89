"""Runs on unequal classes: their metric, their words, and what they learn."""

import json

import numpy as np
import pytest
import soundfile

import audiodd_jax
from audiodd_jax.commands import main
from audiodd_jax.config import presets

SIZES = {"low": 60, "middle": 6, "high": 6}
SETTINGS = {
    "features.n_mels": 8,
    "features.frames": 8,
    "features.clip_seconds": 0.25,
    "network.depth": 2,
    "network.width": 4,
    "coreset.samples_per_class": 1,
    "loop.steps": 4,
    "loop.log_every": 2,
    "loop.eval_every": 2,
    "loop.batch_size": 32,
    "evaluation.networks": 1,
    "evaluation.width": 4,
    "evaluation.seeds": 2,
    "data.validation_fraction": 0.2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of three classes, the first ten times as large as the others."""
    place, rng = tmp_path_factory.mktemp("unequal"), np.random.default_rng(0)
    for (label, size), pitch in zip(SIZES.items(), (300, 900, 2500), strict=True):
        (place / label).mkdir()
        for i in range(size):
            time = np.arange(2000) / 8000
            wave = 0.4 * np.sin(2 * np.pi * pitch * rng.uniform(0.7, 1.4) * time)
            wave += 0.2 * rng.standard_normal(time.size)
            wave = wave.astype(np.float32)
            soundfile.write(place / label / f"{i:02d}.wav", wave, 8000)
    return place


def flags(folder, **changes):
    settings = {**SETTINGS, **changes}
    return [
        "--dataset=folder",
        f"--data_dir={folder}",
        *(f"--config.{name}={value}" for name, value in settings.items()),
    ]


def test_prepare_shows_the_largest_class_and_the_metric(folder, capsys):
    main.main(["prepare", "--dataset=folder", f"--data_dir={folder}"])
    out = capsys.readouterr().out
    assert "always answering 'low' is right for 85.7 % of the test clips" in out
    assert "balanced accuracy" in out


def test_a_distillation_leads_with_balanced_accuracy(folder, tmp_path, capsys):
    run = tmp_path / "run"
    main.main(["distill", *flags(folder), f"--workdir={run}"])
    out = capsys.readouterr().out
    result = json.loads((run / "result.json").read_text())
    assert result["metric"] == "balanced accuracy"
    assert result["balance"] == "classes"
    assert result["class_counts"] == {"high": 4, "low": 38, "middle": 4}
    assert result["majority_accuracy"] == pytest.approx(12 / 14)
    headline = out.split("test balanced accuracy, distilled")[1].split()[0]
    score = result["test_balanced_accuracy"]
    assert float(headline) == pytest.approx(100 * score, abs=0.06)
    assert "macro F1" in out
    assert "accuracy (%)" in out
    card = (run / "README.md").read_text()
    assert "training clips: low 38, high 4, middle 4" in card
    assert "balanced accuracy on the test split" in card
    report = tmp_path / "report"
    main.main(["report", str(run), f"--out={report}", "--galleries=0"])
    page = (report / "index.html").read_text()
    assert "training clips: low 38" in page
    assert "balanced accuracy (%)" in page
    main.main(["evaluate", f"--workdir={run}", f"--data_dir={folder}"])
    out = capsys.readouterr().out
    again = out.split("test balanced accuracy")[1].split()[0]
    assert float(again) == pytest.approx(100 * score, abs=0.06)


def test_settings_say_otherwise(folder, tmp_path, capsys):
    changes = {"evaluation.metric": "accuracy", "data.balance": "none"}
    run = tmp_path / "run"
    main.main(["distill", *flags(folder, **changes), f"--workdir={run}"])
    assert "test accuracy, distilled" in capsys.readouterr().out
    result = json.loads((run / "result.json").read_text())
    assert result["metric"] == "accuracy"
    assert result["balance"] == "none"


@pytest.mark.slow
def test_networks_and_active_learning_use_the_same_measure(folder, tmp_path, capsys):
    recipe = {
        "model.depth": 2,
        "model.width": 4,
        "training.steps": 4,
        "training.log_every": 2,
        "training.eval_every": 2,
        "training.patience": 1,
    }
    flagged = flags(folder, **recipe)
    run = tmp_path / "train"
    main.main(["train", *flagged, "--num_seeds=1", f"--workdir={run}"])
    assert "test balanced accuracy" in capsys.readouterr().out
    result = json.loads((run / "result.json").read_text())
    assert result["metric"] == "balanced accuracy"
    run = tmp_path / "active"
    budgets = "--budgets=5/class,8/class"
    main.main(["active", *flagged, budgets, "--acquisition=bald", f"--workdir={run}"])
    assert "test balanced accuracy" in capsys.readouterr().out
    result = json.loads((run / "result.json").read_text())
    assert "test_balanced_accuracy" in result
    assert all("test_balanced_accuracy" in row for row in result["rounds"])


def test_tags_are_not_weighed_like_classes(tmp_path):
    config = presets.for_dataset("tones_tagged", data__balance="classes")
    with pytest.raises(audiodd_jax.UserError, match="one class per clip"):
        audiodd_jax.prepare(config)


def test_a_coreset_of_few_labels_keeps_the_metric_of_its_run(folder, tmp_path, capsys):
    """Its labels were equal, and those of all training clips are not."""
    changes = {name.replace(".", "__"): value for name, value in SETTINGS.items()}
    config = audiodd_jax.for_dataset("folder", data__data_dir=str(folder), **changes)
    labels = np.asarray(audiodd_jax.prepare(config).train.labels)
    rows = [np.flatnonzero(labels == label)[:3] for label in range(3)]
    np.save(tmp_path / "rows.npy", np.concatenate(rows))
    run = tmp_path / "run"
    known = flags(folder, **{"labels.indices": tmp_path / "rows.npy"})
    main.main(["distill", "--method=random", *known, f"--workdir={run}"])
    assert json.loads((run / "result.json").read_text())["metric"] == "accuracy"
    assert (
        audiodd_jax.load_coreset(run / "coreset.npz").metadata["metric"] == "accuracy"
    )
    for metric in ("accuracy", "balanced_accuracy"):
        asked = [f"--config.evaluation.metric={metric}"] * (metric != "accuracy")
        capsys.readouterr()
        main.main(["evaluate", f"--workdir={run}", *asked])
        assert f"test {metric.replace('_', ' ')}  " in capsys.readouterr().out
