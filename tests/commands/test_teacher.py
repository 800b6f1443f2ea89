"""Coresets whose views a teacher labels, from end to end on small tones."""

import dataclasses
import json
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_line import TINY_SETTINGS as TINY

import audiodd_jax
from audiodd_jax.commands import evaluate, main
from audiodd_jax.config import fields
from audiodd_jax.coreset.file import load_coreset
from audiodd_jax.errors import UserError
from audiodd_jax.features.normalization import Normalization, invert
from audiodd_jax.networks import models
from audiodd_jax.networks.models import Network
from audiodd_jax.report import evaluation_table
from audiodd_jax.runtime.signals import Interrupted
from audiodd_jax.training import networks_file, teacher
from audiodd_jax.training import source as source_lib

RECIPE = {
    "model.depth": 2,
    "model.width": 4,
    "training.steps": 4,
    "training.seeds": 1,
}

NONE = Normalization(jnp.zeros(1), jnp.ones(1))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("teacher")


@pytest.fixture(scope="module")
def run(root):
    config = audiodd_jax.for_dataset("tones", "transfer", **TINY, rfad__views=2)
    return audiodd_jax.distill(config, root / "run", root / "cache")


def test_the_artefact_holds_both_kinds_of_labels(run):
    coreset = load_coreset(run.path / "coreset.npz")
    found = coreset.views()
    assert found.images.shape == (60, 8, 8, 1)
    np.testing.assert_allclose(found.labels.sum(1), 1, atol=2e-3)
    assert coreset.labels.shape == (20, 10)
    assert coreset.metadata["teacher"]["networks"] == 2
    assert run.result["teacher"]["seconds"] > 0
    assert "random views of each spectrogram" in (run.path / "README.md").read_text()


def test_labels_are_the_mean_of_the_ensemble(run, root):
    """By the saved networks, one by one, in NumPy from the logits on."""
    (place,) = (root / "cache" / "teachers").iterdir()
    trained = networks_file.load_networks(place / "networks.npz")
    model = models.make(trained.model, 10)
    views, parts = run.coreset.views(), []
    for i in range(2):
        pick = lambda x, i=i: x[i]
        one = Network(*jax.tree.map(pick, tuple(trained.networks)))
        out = models.network_logits(one, jnp.asarray(views.images), model)
        out = np.asarray(out, np.float64) / 2
        powers = np.exp(out - out.max(1, keepdims=True))
        parts.append(powers / powers.sum(1, keepdims=True))
    np.testing.assert_allclose(views.labels, np.mean(parts, 0), atol=1e-3)


def test_runs_share_a_teacher(run, root, monkeypatch):
    """Another seed and method trains none; another teacher does."""

    def no_training(*_):
        raise AssertionError("a teacher was trained")

    monkeypatch.setattr(source_lib, "fit_source", no_training)
    choice = {**TINY, "method": "random", "seed": 5}
    config = audiodd_jax.for_dataset("tones", **choice)
    other = audiodd_jax.distill(config, root / "random", root / "cache")
    assert other.coreset.teacher_labels.shape == (60, 10)
    config = fields.replace(config, {"teacher.steps": 41})
    with pytest.raises(AssertionError, match="was trained"):
        audiodd_jax.distill(config, root / "another", root / "cache")


def test_an_interrupted_teacher_resumes_to_the_same_labels(run, root, monkeypatch):
    config = audiodd_jax.for_dataset("tones", **TINY)
    data = audiodd_jax.prepare(config, root / "cache")
    real, images = source_lib.fit_source, run.coreset.unpack().images

    def cut(model, training, *others):
        real(model, dataclasses.replace(training, steps=20), *others)
        raise Interrupted(signal.SIGTERM, 20)

    # The shorter schedule would change the rate: a constant one, for both.
    monkeypatch.setattr(teacher, "recipe_of", constant_rate(teacher.recipe_of))
    monkeypatch.setattr(source_lib, "fit_source", real)
    cached = lambda name: fields.with_cache(config, root / name)
    whole = teacher.label(images, cached("whole"), data).views
    monkeypatch.setattr(source_lib, "fit_source", cut)
    with pytest.raises(Interrupted):
        teacher.label(images, cached("cut"), data)
    monkeypatch.setattr(source_lib, "fit_source", real)
    resumed = teacher.label(images, cached("cut"), data).views
    np.testing.assert_array_equal(resumed.labels, whole.labels)


def constant_rate(recipe):
    changes = {
        "training.schedule": "constant",
        "training.warmup": 0.0,
        "training.checkpoint_every": 20,
        "training.log_every": 20,
    }
    return lambda config: fields.replace(recipe(config), changes)


def test_baselines_get_the_same_labels(run, root):
    rows = evaluate.compare(
        run.coreset,
        ("krr", "convnet"),
        ("random",),
        config=fields.with_cache(run_config(run), root / "cache"),
        recipe=RECIPE,
        out=root / "evaluation",
    )
    found = {(row.protocol, row.learns_from): row for row in rows}
    assert ("krr", "random+teacher") not in found
    own = found["convnet", "random+teacher"]
    assert own.clips == found["convnet", "coreset"].clips == 20
    evaluation_table.write(rows, run.coreset.class_names, root / "evaluation")
    text = (root / "evaluation" / "README.md").read_text()
    assert "over random clips with the same teacher's labels" in text


def test_training_reads_the_views_unless_disabled(run, root):
    config = audiodd_jax.for_model(run_config(run), "convnet")
    config = fields.replace(config, RECIPE)
    trained = audiodd_jax.train(config, root / "t", run.coreset, root / "cache")
    off = fields.replace(config, {"training.teacher_labels": False})
    other = audiodd_jax.train(off, root / "u", run.coreset, root / "cache")
    read = lambda one: json.loads((one.path / "config.json").read_text())
    assert read(trained)["learns_from"] != read(other)["learns_from"]
    assert trained.result["num_samples"] == 60
    assert other.result["num_samples"] == 20


@pytest.mark.parametrize("factor", [1, "2x2"])
def test_scores_are_of_what_the_file_gives_back(root, factor):
    changes = {
        **TINY,
        "method": "random",
        "coreset__samples_per_class": 1,
        "coreset__factor": factor,
        "coreset__storage": "int8",
        "views__top_k": 3,
    }
    config = audiodd_jax.for_dataset("tones", **changes)
    place = root / f"stored-{factor}"
    made = audiodd_jax.distill(config, place, root / "cache")
    found = load_coreset(place / "coreset.npz")
    np.testing.assert_array_equal(found.unpack().images, made.coreset.unpack().images)
    np.testing.assert_array_equal(found.teacher_labels, made.coreset.teacher_labels)
    assert found.unpack().images.shape[0] == len(found.labels) * found.factor
    # At least 7 of the 10 classes of each view share what is left.
    assert max(len(set(row)) for row in found.teacher_labels.tolist()) <= 4
    given = fields.with_cache(run_config(made), root / "cache")
    (row,) = evaluate.compare(found, ("krr",), config=given)
    assert row.scores.accuracies == tuple(made.result["test_accuracies"])
    result, size = made.result, (place / "coreset.npz").stat().st_size
    assert result["bytes"] == result["image_bytes"] + result["label_bytes"]
    assert result["file_bytes"] == size == found.file_bytes.total
    assert result["image_bytes"] == 10 * (8 * 8 + 2)
    card = (place / "README.md").read_text()
    assert f"{result['image_bytes']:,} of images in int8" in card
    assert f"The file has {size:,} bytes" in card


def test_a_budget_holds_for_the_file(root, capsys):
    """From the command line and from Python, with a dry run first."""
    flags = ["--dataset=tones", f"--cache_dir={root / 'cache'}", "--budget=6kB"]
    flags += [f"--config.{k.replace('__', '.')}={v}" for k, v in TINY.items()]
    flags += ["--preset=transfer"]
    main.main(["distill", "--method=rfad", *flags, "--dry_run"])
    words = capsys.readouterr().out
    assert re.search(r"6kB: \d+ real clips per class, packed .x.:1, int2, \d+ ", words)
    place = root / "budget"
    main.main(["distill", *flags, f"--workdir={place}"])
    size = (place / "coreset.npz").stat().st_size
    assert 5000 < size <= 6000
    assert "chosen for a file of at most 6kB" in (place / "README.md").read_text()
    assert load_coreset(place / "coreset.npz").packing.is_single
    # The same command finds the run, and too small a budget names the least.
    main.main(["distill", *flags, f"--workdir={place}"])
    assert "finished already" in capsys.readouterr().out
    small = {**TINY, "method": "random", "budget": "1kB"}
    with pytest.raises(UserError, match="the least budget is"):
        audiodd_jax.distill(
            audiodd_jax.for_dataset("tones", **small), root / "small", root / "cache"
        )


def run_config(run):
    from audiodd_jax.coreset.dataset import coreset_config

    return coreset_config(run.coreset)


def test_a_run_continues_from_a_coreset_with_more_samples_and_learnt_labels(run, root):
    path = run.path / "coreset.npz"
    changes = {
        **TINY,
        "teacher__networks": 0,
        "coreset__views": 0,
        "coreset__init": str(path),
        "coreset__samples_per_class": 3,
        "loop__keep": "last",
        "optimizer__learning_rate": 1e-12,
        "loop__steps": 2,
    }
    config = audiodd_jax.for_dataset("tones", **changes)
    found = audiodd_jax.distill(config, root / "more", root / "cache")
    old, new = run.coreset, found.coreset
    rows = np.arange(30).reshape(10, 3)[:, :2].reshape(-1)
    np.testing.assert_allclose(new.images[rows], old.images, atol=1e-4)
    np.testing.assert_allclose(new.labels[rows], old.labels, atol=1e-6)
    assert found.result["start"] == "coreset.npz"
    assert str(root) not in json.dumps(new.metadata)
    fewer = fields.replace(config, {"coreset.samples_per_class": 1})
    with pytest.raises(
        UserError, match=r"2 spectrograms of the class .*, more than the 1"
    ):
        audiodd_jax.distill(fewer, root / "fewer", root / "cache")
    other = fields.replace(config, {"features.n_mels": 9})
    with pytest.raises(UserError, match=r"other features \(n_mels\)"):
        audiodd_jax.distill(other, root / "mels", root / "cache")


def test_classes_missing_from_the_earlier_coreset_start_from_real_clips(run, root):
    from audiodd_jax.coreset import dataset as coreset_data

    config = audiodd_jax.for_dataset("tones", **TINY)
    data = audiodd_jax.prepare(config, root / "cache")
    keep = np.arange(20) // 2 < 8
    part = dataclasses.replace(
        run.coreset,
        images=run.coreset.images[keep],
        labels=run.coreset.labels[keep][:, :8] + 1 / 10 - 1 / 8,
        class_names=data.class_names[:8],
        teacher_labels=None,
    )
    part.save(root / "part.npz")
    start = coreset_data.warm_start(
        root / "part.npz", config.coreset, data, np.full(10, 2), config.seed
    )
    np.testing.assert_allclose(start.images[:16], part.images, atol=1e-4)
    labels = np.asarray(start.labels)
    np.testing.assert_allclose(labels[:16, :8], run.coreset.labels[:16, :8], atol=1e-6)
    assert (labels.argmax(1) == np.arange(20) // 2).all()
    np.testing.assert_allclose(labels[:16, 8:], -0.1, atol=1e-6)


def only(data, first, last):
    """The data with some of its classes alone, and as many clips of each."""

    def of(clips):
        rows = np.flatnonzero((clips.labels >= first) & (clips.labels < last))
        chosen = clips.subset(rows)
        return chosen._replace(labels=chosen.labels - first)

    splits = {name: of(getattr(data, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(data, **splits, class_names=data.class_names[first:last])


def test_an_earlier_coreset_stands_in_for_classes_without_clips(run, root):
    from audiodd_jax.coreset import dataset as coreset_data

    config = audiodd_jax.for_dataset("tones", **TINY)
    data = audiodd_jax.prepare(config, root / "cache")
    path = run.path / "coreset.npz"
    assert coreset_data.replayed(path, data) is data
    last = only(data, 9, 10)
    new = dataclasses.replace(last, class_names=("new",), normalization=NONE)
    found = coreset_data.replayed(path, new)
    assert found.class_names == (*data.class_names, "new")
    assert found.class_clips.tolist() == [2] * 10 + [len(last.train.labels)]
    assert found.num_train == last.num_train
    assert set(found.test.labels.tolist()) == {10}
    # Clips and spectrograms are standardised by the coreset's statistics.
    np.testing.assert_allclose(
        found.train.images[-20:], run.coreset.unpack().images, atol=1e-5
    )
    decibel = invert(found.train.images[:1], run.coreset.normalization)
    np.testing.assert_allclose(decibel, last.train.images[:1, ..., 0], atol=1e-3)
    sizes = np.full(11, 2)
    start = coreset_data.warm_start(path, config.coreset, found, sizes, config.seed)
    np.testing.assert_allclose(start.images[:20], run.coreset.images, atol=1e-4)
    assert start.labels.argmax(1).tolist() == np.repeat(range(11), 2).tolist()
    # A class that the data knows by name alone has no clips either.
    named = dataclasses.replace(last, class_names=data.class_names)
    named = dataclasses.replace(
        named, train=last.train._replace(labels=last.train.labels + 9)
    )
    found = coreset_data.replayed(path, named)
    assert found.class_names == data.class_names
    assert found.num_replayed == 18
    for change, says in ({"is_embedded": True}, "--encoder"), (
        {"features": dataclasses.replace(data.features, n_mels=9)}, "n_mels"
    ):  # fmt: skip
        with pytest.raises(UserError, match=says):
            coreset_data.replayed(path, dataclasses.replace(new, **change))


def test_a_run_starts_from_selected_clips(root):
    init = "herding"
    config = {**TINY, "teacher__networks": 0, "coreset__views": 0}
    selected = audiodd_jax.for_dataset("tones", **{**config, "method": init})
    learnt = audiodd_jax.for_dataset("tones", **config, coreset__init=init)
    first = audiodd_jax.distill(selected, root / f"{init}1", root / "cache")
    second = audiodd_jax.distill(learnt, root / f"{init}2", root / "cache")
    accuracy = second.result["start_test_accuracy"]
    assert accuracy == first.result["test_accuracy"]
    assert "by " in (second.path / "README.md").read_text().split("initial real")[1]
