"""Validation clips: scores by recording, and the base of percentages."""

import csv

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

import audiodd_jax
from audiodd_jax.features import dataset, metric
from audiodd_jax.kernels import ridge


def test_clips_of_one_recording_and_class_share_a_number():
    """Classes of a speaker differ; clips without a recording are their own."""
    groups = np.array(["a", "a", "b", "", "", "s", "s", "a"])
    labels = np.array([0, 0, 0, 1, 1, 0, 1, 0])
    numbers = np.asarray(dataset._recordings(groups, labels))
    same = numbers[:, None] == numbers
    wanted = np.eye(8, dtype=bool)
    for i, j in ((0, 1), (0, 7), (1, 7)):
        wanted[i, j] = wanted[j, i] = True
    np.testing.assert_array_equal(same, wanted)
    assert numbers.min() >= 0
    assert numbers.max() < 8


def test_without_shared_recordings_there_are_no_numbers():
    assert dataset._recordings(np.array(["", ""]), np.array([0, 1])) is None
    assert dataset._recordings(np.array(["a", "b"]), np.array([0, 0])) is None
    assert dataset._recordings(np.array([], str), np.array([], int)) is None


def test_each_recording_weighs_the_same_in_a_score():
    predictions = jnp.array([[0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, -0.5]])
    labels, recordings = jnp.array([0, 1, 1, 1], jnp.int32), jnp.array([3, 0, 0, 0])
    plain = ridge.score(predictions, labels)
    grouped = ridge.score(predictions, labels, recordings)
    assert np.isclose(plain.accuracy, 0.5)
    assert np.isclose(grouped.accuracy, (1 + 1 / 3) / 2)
    # The standard deviation of 0, 0, 1, 1 and of 1/3, 1, over the root of their number.
    assert np.isclose(plain.error, np.std([0, 0, 1, 1], ddof=1) / 2)
    assert np.isclose(grouped.error, np.std([1 / 3, 1], ddof=1) / 2**0.5)
    assert np.isclose(plain.loss, 0.5 * 2 / 4)
    assert np.isclose(grouped.loss, 0.5 * (2 / 3) / 2)


def test_the_error_of_a_single_recording_is_zero():
    found = metric.grouped_mean(jnp.array([1.0, 0.0]), jnp.array([1, 1]))
    assert (float(found.mean), float(found.error)) == (0.5, 0.0)


@pytest.mark.parametrize(("given", "counted"), [(True, 8), (False, 12)])
def test_percentages_refer_to_the_published_training_split(given, counted, tmp_path):
    """The split excludes published validation clips and includes held-out ones."""
    rows, rng = [], np.random.default_rng(0)
    parts = [("train", 4), ("validation" if given else "train", 2), ("test", 2)]
    for label in ("a", "b"):
        names = [part for part, clips in parts for _ in range(clips)]
        for i, part in enumerate(names):
            name, wave = f"{label}{i}.wav", 0.1 * rng.standard_normal(800)
            soundfile.write(tmp_path / name, wave, 8_000)
            rows.append((name, label, part))
    with open(tmp_path / "clips.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    config = audiodd_jax.for_dataset(
        "folder",
        data__data_dir=str(tmp_path / "clips.csv"),
        data__validation_fraction=0.3,
        features__frames=8,
        features__n_mels=8,
    )
    data = audiodd_jax.prepare(config, tmp_path / "cache")
    assert data.validation.labels.size > 0
    assert data.is_validation_official is given
    assert data.num_train == counted
    assert data.train_bytes == 2 * 800 * counted
