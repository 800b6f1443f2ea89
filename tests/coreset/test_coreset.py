import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import audiodd_jax
from audiodd_jax.config import CoresetConfig, FeaturesConfig
from audiodd_jax.coreset import file as coreset_file
from audiodd_jax.coreset import selection, sizes
from audiodd_jax.errors import UserError
from audiodd_jax.features import logmel
from audiodd_jax.features.clips import Clips

NAMES = ("a", "b", "c")


def train(counts=(5, 3, 4)):
    labels = np.repeat(np.arange(3, dtype=np.int32), counts)
    order = np.random.default_rng(0).permutation(labels.size)
    # Every clip is filled with a unique number.
    images = np.arange(labels.size, dtype=np.float32)[:, None, None, None]
    images = np.broadcast_to(images, (labels.size, 2, 3, 1))
    return Clips(jnp.asarray(images[order]), jnp.asarray(labels[order]))


def start(seed=0, data=None, **config):
    config, clips = CoresetConfig(**{"samples_per_class": 3, **config}), data or train()
    counts = np.bincount(clips.labels, minlength=3)
    stored = sizes.of_classes(config, "rfad", counts, NAMES)
    return selection.start(jax.random.key(seed), clips, NAMES, stored, config)


def test_real_clips_are_balanced_distinct_and_of_their_class():
    data = train()
    arrays = start(data=data)
    classes = np.asarray(arrays.labels).argmax(1)
    np.testing.assert_array_equal(classes, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    numbers = np.asarray(arrays.images[:, 0, 0, 0])
    assert len(set(numbers)) == 9
    for number, label in zip(numbers, classes, strict=True):
        at = int(np.flatnonzero(np.asarray(data.images[:, 0, 0, 0]) == number)[0])
        assert int(data.labels[at]) == label
    np.testing.assert_allclose(arrays.labels.sum(1), 0, atol=1e-6)


def test_the_key_draws_the_clips():
    images = [np.asarray(start(seed).images) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(images[0], images[1])
    assert np.abs(images[0] - images[2]).max() > 0


def test_noise_needs_no_clips():
    arrays = start(init="noise", samples_per_class=50)
    assert arrays.images.shape == (150, 2, 3, 1)
    assert float(arrays.images.std()) == pytest.approx(1, rel=0.1)


def test_bad_sizes_are_refused():
    with pytest.raises(UserError, match=r"'b' has 3 training clips, too few.*factor=4"):
        start(factor="4")
    with pytest.raises(UserError, match="the class 'b' has 0 training clips"):
        start(data=train((5, 0, 4)))


@pytest.fixture
def artefact():
    config = FeaturesConfig(sample_rate=8000, n_mels=8, frames=16, clip_seconds=0.5)
    rng = np.random.default_rng(0)
    return coreset_file.Coreset(
        rng.standard_normal((6, 8, 16, 1)).astype(np.float32),
        rng.standard_normal((6, 3)).astype(np.float32),
        NAMES,
        {
            "format": coreset_file.FORMAT,
            "dataset": "tones",
            "features": vars(config),
            "normalization": {"mean": [-30.0] * 8, "std": [12.0] * 8},
        },
    )


def test_save_and_load(artefact, tmp_path):
    artefact.save(tmp_path / "coreset.npz")
    loaded = audiodd_jax.load_coreset(tmp_path / "coreset.npz")
    np.testing.assert_array_equal(loaded.images, artefact.images)
    np.testing.assert_array_equal(loaded.labels, artefact.labels)
    assert loaded.class_names == NAMES
    assert loaded.metadata == artefact.metadata
    assert [p.name for p in tmp_path.iterdir()] == ["coreset.npz"]
    # NumPy alone can read the file.
    with np.load(tmp_path / "coreset.npz", allow_pickle=False) as file:
        assert file["images"].dtype == file["labels"].dtype == np.float32
        assert list(file["class_names"]) == list(NAMES)
        assert json.loads(str(file["metadata"]))["dataset"] == "tones"


@pytest.mark.parametrize(
    ("per_class", "kept", "expected"),
    [
        # As an earlier version wrote it: in class order, whatever the labels say.
        (2, range(6), [0, 0, 1, 1, 2, 2]),
        # Some were taken out, or nobody knows the order: the largest value decides.
        (2, [0, 4, 5], [1, 2, 0]),
        (0, range(6), [1, 1, 1, 1, 2, 0]),
    ],
)
def test_an_earlier_file_tells_its_classes(
    artefact, tmp_path, per_class, kept, expected
):
    labels = np.eye(3, dtype=np.float32)[[1, 1, 1, 1, 2, 0]][kept]
    settings = {"coreset": {"samples_per_class": per_class} if per_class else {}}
    metadata = {**artefact.metadata, "settings": settings}
    found = dataclasses.replace(
        artefact, images=artefact.images[kept], labels=labels, metadata=metadata
    )
    found.save(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as file:
        arrays = {name: file[name] for name in file.files if name != "classes"}
    np.savez(tmp_path / "old.npz", **arrays)
    for name in ("new.npz", "old.npz"):
        classes = coreset_file.load_coreset(tmp_path / name).classes
        assert classes.tolist() == expected


def test_classes_are_stored_whatever_the_labels_say(artefact, tmp_path):
    made = dataclasses.replace(artefact, made_for=np.array([0, 0, 0, 1, 2, 2]))
    made.save(tmp_path / "c.npz")
    found = coreset_file.load_coreset(tmp_path / "c.npz")
    assert found.classes.tolist() == [0, 0, 0, 1, 2, 2]
    # Whoever takes some out of the arrays need not know of the classes.
    labels = np.eye(3, dtype=np.float32)[[2, 0]]
    fewer = dataclasses.replace(found, images=found.images[:2], labels=labels)
    assert fewer.classes.tolist() == [2, 0]
    with np.load(tmp_path / "c.npz") as file:
        arrays = dict(file)
    for bad in (np.arange(2), np.full(6, 3), np.zeros(6)):
        np.savez(tmp_path / "bad.npz", **{**arrays, "classes": bad})
        with pytest.raises(UserError):
            coreset_file.load_coreset(tmp_path / "bad.npz")


def test_normalize_applies_the_preprocessing_of_the_coreset(artefact):
    size = logmel.frontend(artefact.features)
    wave = np.random.default_rng(1).uniform(-1, 1, size.samples).astype(np.float32)
    expected = (np.asarray(logmel.compute(wave[None], artefact.features)) + 30) / 12
    image = artefact.normalize(wave, 8000)
    assert image.shape == (1, 8, 16, 1)
    np.testing.assert_allclose(image[..., 0], expected, atol=1e-5)
    both = artefact.normalize(np.stack([wave, wave]), 8000)
    assert both.shape == (2, 8, 16, 1)
    # Another rate and length are resampled and fitted.
    other = artefact.normalize(np.repeat(wave, 2), 16000)
    assert other.shape == (1, 8, 16, 1)


def test_normalize_takes_channels_as_soundfile_reads_them(artefact):
    rng = np.random.default_rng(1)
    stereo = rng.uniform(-1, 1, (4000, 2)).astype(np.float32)
    image = artefact.normalize(stereo, 8000)
    assert image.shape == (1, 8, 16, 1)
    mean = artefact.normalize(stereo.mean(1), 8000)
    np.testing.assert_allclose(image, mean, atol=1e-4)
    wired = artefact.normalize(np.stack([stereo[:, 0], -stereo[:, 0]], 1), 8000)
    one = artefact.normalize(stereo[:, 0], 8000)
    np.testing.assert_allclose(wired, one, atol=1e-4)
    many = artefact.normalize(rng.uniform(-1, 1, (4000, 16)).astype(np.float32), 8000)
    assert many.shape == (1, 8, 16, 1)
    assert artefact.normalize(stereo.T, 8000).shape == (2, 8, 16, 1)


@pytest.mark.parametrize("shape", [(), (20, 2), (2, 20), (2, 1000, 2), (64, 64)])
def test_normalize_refuses_unclear_axes(artefact, shape):
    with pytest.raises(UserError, match="unclear what the axes"):
        artefact.normalize(np.zeros(shape, np.float32), 8000)


@pytest.mark.parametrize("factor", [1, 2])
def test_every_spectrogram_has_a_sound(artefact, factor):
    metadata = {
        **artefact.metadata,
        "platt_scale": 1.0,
        "settings": {"coreset": {"factor": factor}},
    }
    silence = (30 - artefact.features.top_db) / 12
    images = np.full_like(artefact.images, silence)
    images[1:, 3] = 2.5  # one mel bin, as loud as can be
    told = dataclasses.replace(artefact, images=images, metadata=metadata)
    sounds = told.sounds(iterations=4)
    size = logmel.frontend(artefact.features)
    assert sounds.shape == (6 * factor, size.samples)
    np.testing.assert_array_equal(sounds[:factor], 0)
    peaks = np.abs(sounds[factor:]).max(1)
    np.testing.assert_allclose(peaks, 0.9, atol=1e-4)
    # Their energy lies in the mel bin that is loud.
    bins = np.asarray(logmel.compute(sounds[factor:], artefact.features)).mean(2)
    assert (bins.argmax(1) == 3).all()
    assert np.abs(told.sounds(iterations=4, seed=1) - sounds).max() > 0.01
    with pytest.raises(UserError, match="at least 0, not -1"):
        told.sounds(iterations=-1)


def _cut(path):
    path.write_bytes(path.read_bytes()[:500])


def _text(path):
    path.write_text("no coreset")


def _other_arrays(path):
    np.savez(path, x=np.zeros(3))


def _future(path):
    _rewrite(path, metadata={"format": 99})


def _wrong_shape(path):
    _rewrite(path, images=np.zeros((6, 8, 15, 1), np.float32))


def _not_finite(path):
    _rewrite(path, labels=np.full((6, 3), np.nan, np.float32))


def _rewrite(path, metadata=None, **arrays):
    with np.load(path) as file:
        values = {**dict(file), **arrays}
    if metadata:
        values["metadata"] = np.array(json.dumps(metadata))
    np.savez(path, **values)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, "is not a coreset"),
        (_text, "is not a coreset"),
        (_other_arrays, "is not a coreset"),
        (_future, "has format 99"),
        (_wrong_shape, "is damaged"),
        (_not_finite, "is damaged"),
    ],
)
def test_damaged_artefacts_are_named(artefact, tmp_path, damage, words):
    path = tmp_path / "coreset.npz"
    artefact.save(path)
    damage(path)
    with pytest.raises(UserError, match=words):
        coreset_file.load_coreset(path)


def test_a_missing_artefact_is_named(tmp_path):
    with pytest.raises(UserError, match="there is no coreset"):
        coreset_file.load_coreset(tmp_path / "coreset.npz")
