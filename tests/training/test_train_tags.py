"""Networks that learn tags: targets, losses, and a short training."""

import checks
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import TrainingConfig, presets
from audiodd_jax.errors import UserError
from audiodd_jax.features.labels import centred_targets
from audiodd_jax.training import evaluation, fit, losses, networks_file, programs

TAGS = jnp.array([[1, 1, 0], [0, 0, 0]], jnp.int8)
CONFIG = TrainingConfig()


def test_targets_of_tags_by_hand():
    smooth = TrainingConfig(label_smoothing=0.2)
    found = losses.hard_targets(TAGS, 3, smooth)
    np.testing.assert_allclose(found, [[0.9, 0.9, 0.1], [0.1, 0.1, 0.1]], atol=1e-6)
    centred = centred_targets(TAGS, 3)
    soft = losses.soft_targets(centred, TrainingConfig(label_scale=2.0), True)
    one = 1 / (1 + np.exp(-2.0))
    np.testing.assert_allclose(
        soft, [[one, one, 1 - one], [1 - one, 1 - one, 1 - one]], rtol=1e-5
    )
    hard = losses.soft_targets(
        centred - 0.2, TrainingConfig(labels="hard", label_smoothing=0.0), True
    )
    np.testing.assert_allclose(hard, TAGS, atol=1e-6)


def test_the_loss_is_the_mean_over_tags():
    logits = jnp.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]])
    found = losses.per_clip(logits, TAGS.astype(jnp.float32), losses.BINARY)
    terms = [np.log1p(np.exp(x)) for x in (-2.0, 1.0, 0.5)]
    np.testing.assert_allclose(found, [np.mean(terms), np.log(2)], rtol=1e-5)


def test_squared_error_is_for_classes():
    assert losses.loss_name(TrainingConfig(loss="mse"), False) == "mse"
    assert losses.loss_name(CONFIG, False) == "cross_entropy"
    with pytest.raises(UserError, match="tags are learnt by cross_entropy"):
        losses.loss_name(TrainingConfig(loss="mse"), True)


def test_a_network_learns_tags_and_its_file_gives_a_probability_of_each(tmp_path):
    own = checks.tagged(noise=0.3, height=2.0)
    config = presets.for_model(
        presets.for_dataset("tones_tagged"),
        "linear",
        training__steps=60,
        training__seeds=1,
        training__batch_size=20,
        training__eval_every=30,
        training__log_every=30,
        training__patience=5,
        training__mixup=0.2,
    )
    made = programs.make(config.model, config.training, own)
    assert made.metric == "mean average precision"
    fitted = fit.fit(made, fit.real_set(own.train, 3, config.training), config.seed)
    assert fitted.history[-1]["validation_accuracy"] > 0.9
    assert fitted.history[-1]["batch_accuracy"] > 0.8
    scores = evaluation.networks(fitted, own.test, "linear", 3)
    assert scores.metric == "mean average precision"
    assert scores.mean > 0.9
    networks_file.save(tmp_path / "a.npz", fitted.networks, own, config.model)
    again = networks_file.load_networks(tmp_path / "a.npz")
    probabilities = np.asarray(again.predict(own.test.images))
    assert again.has_tags
    assert np.abs(probabilities.sum(1) - 1).max() > 0.2
    f1 = ((probabilities > 0.5) == (np.asarray(own.test.labels) > 0)).mean()
    assert f1 > 0.8


def test_soft_labels_of_a_coreset_train_too():
    own = checks.tagged(noise=0.3, height=2.0)
    config = presets.for_model(presets.for_dataset("tones_tagged"), "linear")
    labels = centred_targets(own.train.labels, 3)
    found = losses.soft_targets(labels, config.training, True)
    assert found.shape == (60, 3)
    assert ((found > 0.5) == (own.train.labels > 0)).all()
    assert not jnp.allclose(found.sum(1), 1)
