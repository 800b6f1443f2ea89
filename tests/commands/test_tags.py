"""The commands on clips with tags, from the first try to the refusals."""

import json

import numpy as np
import pytest
from command_line import fails

import audiodd_jax
from audiodd_jax.commands import main

WHAT = ["--dataset=tones_tagged", "--preset=quick", "--samples_per_class=2"]
LESS = [
    "--config.features.n_mels=16",
    "--config.features.frames=32",
    "--config.network.width=16",
    "--config.evaluation.width=16",
    "--config.loop.eval_every=60",
]


@pytest.mark.slow
@pytest.mark.optimized
def test_a_first_run_gains_ten_points_and_names_its_metric(tmp_path, capsys):
    # Less than the preset in all respects, which takes ten times as long.
    less = [*LESS, "--steps=60", "--config.evaluation.seeds=1"]
    main.main(["distill", *WHAT, *less, f"--workdir={tmp_path / 'run'}"])
    printed = capsys.readouterr().out
    assert "test mean average precision, distilled" in printed
    assert "accuracy" not in printed
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["measure"] == "mean average precision"
    assert result["test_accuracy"] > result["start_test_accuracy"] + 0.1
    assert 0 < result["macro_f1"] < 1
    card = (tmp_path / "run" / "README.md").read_text()
    assert "mean average precision on the test split" in card
    assert "tags are stored as `multi_hot - 1/10`" in card
    coreset = audiodd_jax.load_coreset(tmp_path / "run" / "coreset.npz")
    assert coreset.has_tags
    assert coreset.labels.shape == (20, 10)
    again = audiodd_jax.evaluate(coreset)
    assert again.mean == result["test_accuracy"]
    assert np.isfinite(again.per_class).all()


def test_matching_is_refused_before_a_folder_is_made(tmp_path, capsys):
    place = tmp_path / "run"
    said = fails(capsys, "distill", *WHAT, "--method=dm", f"--workdir={place}")
    assert said.startswith("dm matches clips class by class, but clips with tags")
    assert not place.exists()


def test_prepare_counts_tags(capsys):
    main.main(["prepare", "--dataset=tones_tagged", *LESS[:2]])
    printed = capsys.readouterr().out
    assert "2.00 per clip, at most 3" in printed
    assert "two_tone                 378 / 42 / 69" in printed


def test_a_network_on_clips_with_tags(tmp_path, capsys):
    few = ["--samples_per_class=4", "--steps=4", "--config.training.seeds=1"]
    place = f"--workdir={tmp_path / 'run'}"
    main.main(["train", WHAT[0], "--model=linear", *few, *LESS[:2], place])
    printed = capsys.readouterr().out
    assert "test mean average precision" in printed
    assert "accuracy" not in printed
    card = (tmp_path / "run" / "README.md").read_text()
    assert "average precision (%)" in card
    assert "![average precision](figures/confusion.png)" in card


@pytest.mark.slow
def test_labels_by_a_teacher_views_pseudo_labels_and_baselines(tmp_path, capsys):
    teacher = ["--config.teacher.networks=1", "--config.teacher.model=convnet"]
    bought = ["--config.labels.fraction=0.3", "--config.labels.pseudo=True"]
    sure = ["--config.teacher.steps=60", "--config.labels.confidence=0.6"]
    place = f"--workdir={tmp_path / 'run'}"
    views = ["--steps=4", "--config.coreset.views=2", "--config.evaluation.networks=2"]
    main.main(["distill", *WHAT, *LESS, *teacher, *bought, *sure, *views, place])
    assert "other clips with labels by the teacher" in capsys.readouterr().out
    coreset = audiodd_jax.load_coreset(tmp_path / "run" / "coreset.npz")
    labels = coreset.views().labels
    assert labels.shape == (40, 10)
    assert np.abs(labels.sum(1) - 1).max() > 0.2  # a probability of each tag
    against = ["--protocol=krr,linear", "--against=random,hard"]
    main.main(["evaluate", place, *against, "--steps=4", "--num_seeds=1"])
    printed = capsys.readouterr().out
    assert "mean average precision (%)" in printed
    assert "points over random clips with the same teacher's labels" in printed


@pytest.mark.slow
def test_a_run_continues_from_a_coreset_of_tags_or_of_classes(tmp_path, capsys):
    few = [*LESS, "--steps=2", "--config.evaluation.seeds=1"]
    few += ["--config.evaluation.networks=2"]
    for name in ("tones_tagged", "tones"):
        what = [f"--dataset={name}", "--preset=quick", "--samples_per_class=1"]
        main.main(["distill", *what, *few, f"--workdir={tmp_path / name}"])
        before = audiodd_jax.load_coreset(tmp_path / name / "coreset.npz")
        place, init = tmp_path / f"on-{name}", tmp_path / name / "coreset.npz"
        go_on = [f"--config.coreset.init={init}", f"--workdir={place}"]
        main.main(["distill", *WHAT, *few, "--seed=3", *go_on])
        after = audiodd_jax.load_coreset(place / "coreset.npz")
        same = np.abs(after.labels[::2] - before.labels).max()
        assert same < 0.2  # two steps of a small rate
    capsys.readouterr()
    other = f"--config.data.name=tones --workdir={tmp_path / 'tones_tagged'}".split()
    said = fails(capsys, "evaluate", *other)
    assert said == "this coreset of tones_tagged has tags; tones has one class per clip"


@pytest.mark.nightly
def test_a_first_run_with_the_defaults(tmp_path, capsys):
    what = ["--dataset=tones_tagged", "--samples_per_class=2"]
    main.main(["distill", *what, f"--workdir={tmp_path / 'run'}"])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_accuracy"] > result["start_test_accuracy"] + 0.2
    assert "test mean average precision, distilled" in capsys.readouterr().out
