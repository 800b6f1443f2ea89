"""Validation clips: the weights of recordings, and what percentages are of."""

import csv

import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

import audiodd_jax
from audiodd_jax.config import TrainingConfig
from audiodd_jax.features import dataset
from audiodd_jax.kernels import ridge_scoring
from audiodd_jax.training import losses


def test_recordings_of_a_class_weigh_the_same():
    """Three clips of ``a`` count as one of ``b``; a speaker's classes are apart."""
    groups = np.array(["a", "a", "a", "b", "", "", "s", "s"])
    labels = np.array([0, 0, 0, 0, 1, 1, 0, 1])
    weights = dataset._weights(groups, labels)
    raw = np.array([1 / 3, 1 / 3, 1 / 3, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(weights, raw / raw.mean(), rtol=1e-6)


def test_clips_without_shared_recordings_have_no_weights():
    assert dataset._weights(np.array(["", ""]), np.array([0, 1])) is None
    assert dataset._weights(np.array(["a", "b"]), np.array([0, 0])) is None
    assert dataset._weights(np.array([], str), np.array([], int)) is None


def test_scores_are_weighted_means():
    predictions = jnp.array([[0.5, -0.5], [0.5, -0.5], [-0.5, 0.5]])
    labels, weights = jnp.array([0, 1, 1], jnp.int32), jnp.array([1.0, 0.5, 0.5])
    plain = ridge_scoring.score(predictions, labels)
    weighted = ridge_scoring.score(predictions, labels, weights)
    assert np.isclose(plain.accuracy, 2 / 3)
    assert np.isclose(weighted.accuracy, 0.75)
    assert np.isclose(plain.loss, 0.5 / 3)
    assert np.isclose(weighted.loss, 0.5 * 0.5 / 2)


def test_losses_are_weighted_means():
    logits = jnp.array([[2.0, 0.0], [0.0, 0.0]])
    targets, weights = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([3.0, 1.0])
    values = np.array([np.log1p(np.exp(-2)), np.log(2)])
    for given, wanted in ((None, values.mean()), (weights, values @ [3, 1] / 4)):
        found = losses.loss(logits, targets, TrainingConfig().loss, given)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
    found = losses.loss(logits, targets, "mse", weights)
    np.testing.assert_allclose(found, 0.5 * (3 * 1 + 1 * 1) / 4)


@pytest.mark.parametrize(("given", "counted"), [(True, 8), (False, 12)])
def test_percentages_are_of_the_training_split_as_published(given, counted, tmp_path):
    """Given validation clips are no part of it; those that we hold out are."""
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
