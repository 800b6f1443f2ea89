"""Distillation of clips with tags: targets, starts, losses, and whole runs."""

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import RFADConfig, presets
from audiodd_jax.coreset import selection
from audiodd_jax.distillation import kernel_methods, label_solve, loop, registry, rfad
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.labels import (
    centred_targets,
    clip_weights,
    hard_tags,
    tag_threshold,
)
from audiodd_jax.kernels import ridge
from audiodd_jax.runtime import devices
from audiodd_jax.runtime.run_directory import RunDirectory

SMALL = {
    "network__depth": 2,
    "network__width": 4,
    "rfad__networks": 2,
    "coreset__samples_per_class": 2,
    "loop__steps": 8,
    "loop__batch_size": 16,
    "loop__log_every": 2,
    "loop__eval_every": 4,
    "loop__checkpoint_every": 4,
    "evaluation__networks": 2,
}
TAGS = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1], [1, 0, 1]], np.int8)
NAMES = ("a", "b", "c")


def at_random(key, labels, names, per_class):
    sizes = np.full(len(names), per_class)
    return selection.select("random", key, Clips(None, labels), names, sizes, None)


def settings(**changes):
    return presets.for_dataset("tones_tagged", **{**SMALL, **changes})


def test_a_clip_with_one_tag_has_the_target_of_its_class():
    classes = jnp.array([2, 0])
    one_hot = jnp.eye(3, dtype=jnp.int8)[classes]
    found = centred_targets(one_hot, 3)
    np.testing.assert_array_equal(found, centred_targets(classes, 3))
    np.testing.assert_array_equal(hard_tags(found), one_hot)
    several = centred_targets(jnp.asarray(TAGS), 3)
    np.testing.assert_array_equal(hard_tags(several), TAGS)


def test_random_clips_have_the_tag_that_they_are_drawn_for_and_none_comes_twice():
    rng = np.random.default_rng(0)
    labels = jnp.asarray((rng.random((80, 3)) < [0.9, 0.5, 0.1]).astype(np.int8))
    features = jnp.asarray(rng.standard_normal((80, 4)), jnp.float32)
    few = int(labels.sum(0).min())
    for rows in (
        at_random(jax.random.key(0), labels, NAMES, few),
        *(
            selection.class_by_class(method, features, labels, NAMES, np.full(3, few))
            for method in ("herding", "k_center")
        ),
    ):
        # The rarest tag has all of its clips, although they have other tags too.
        assert np.unique(rows).size == rows.size == 3 * few
        for tag, own in enumerate(rows.reshape(3, few)):
            assert (np.asarray(labels)[own, tag] == 1).all()
    rows = selection.random_fraction(jax.random.key(0), labels, 20)
    assert np.unique(rows).size == 20


def test_too_few_clips_are_refused_in_one_sentence():
    with pytest.raises(UserError, match="1 clips with the tag 'b' are left"):
        at_random(jax.random.key(0), jnp.asarray(TAGS), NAMES, 2)
    # Both clips of c have b, of which there are no others.
    labels = jnp.array([[0, 1, 1], [0, 1, 1], [1, 0, 0], [1, 0, 0]], jnp.int8)
    with pytest.raises(UserError, match="0 clips with the tag 'c' are left after"):
        at_random(jax.random.key(0), labels, NAMES, 2)


def test_a_start_has_all_tags_of_its_clips_and_shared_images_their_mean():
    own = checks.tagged()
    for factor in (1, 2):
        config = settings(coreset__factor=factor)
        key, sizes = jax.random.key(1), np.full(3, 2)
        found = selection.start(key, own.train, NAMES, sizes, config.coreset)
        tags = np.asarray(found.labels) + 1 / 3
        assert found.labels.shape == (6, 3)
        np.testing.assert_allclose(tags[np.arange(6), np.arange(6) // 2], 1, atol=1e-6)
        assert tags.sum() > 6.5  # others next to the one that each was drawn for


def test_tags_weigh_the_same_in_draws_by_recording():
    labels = jnp.asarray(TAGS)
    weights = clip_weights(labels, 3)
    # Of a: a quarter of each of four clips; b: one; c: a half of two; none: one.
    np.testing.assert_allclose(weights, [1.25, 0.25, 1, 0.75, 0.75], rtol=1e-6)


def test_the_platt_loss_is_binary_cross_entropy_around_one_half():
    batch = Clips(jnp.zeros((5, 2, 2, 1)), jnp.asarray(TAGS))
    y_s = jnp.asarray(np.random.default_rng(0).standard_normal((5, 3)), jnp.float32)
    params = kernel_methods.Params(jnp.zeros((5, 2, 2, 1)), y_s, jnp.float32(0.7))
    kernels = lambda *_: (jnp.eye(5), jnp.eye(5))
    config = RFADConfig(loss="platt", regularizer=0.0)
    value, y_hat = rfad.loss(params, jax.random.key(0), batch, kernels, config)
    np.testing.assert_allclose(y_hat, y_s, atol=1e-5)
    logits = np.exp(0.7) * (np.asarray(y_s) + 1 / 3 - 1 / 2)
    expected = np.where(TAGS, np.logaddexp(0, -logits), np.logaddexp(0, logits))
    assert float(value) == pytest.approx(expected.mean(), rel=1e-5)


def test_solved_labels_lower_the_loss_on_the_training_clips():
    own, config = checks.tagged(), settings(coreset__label_prior=1e-3)
    key, sizes = jax.random.key(1), np.full(3, 2)
    start = selection.start(key, own.train, NAMES, sizes, config.coreset)
    mesh = devices.make_mesh()
    scoring = ridge.Scoring(
        config.network, 2, chunk=64, regularizer=config.rfad.regularizer
    )
    solved = label_solve.solve(
        jax.random.key(2), start, own, config.coreset, scoring, mesh
    )

    def loss(arrays):
        predictions = ridge.predict_images(
            jax.random.key(2),
            own.train.images,
            arrays.images,
            arrays.labels,
            scoring,
        )
        return float(ridge.score(predictions, own.train.labels).loss)

    assert loss(solved) < loss(start)


@pytest.mark.slow
@pytest.mark.optimized
def test_a_resumed_run_matches_an_uninterrupted_one(tmp_path):
    def run(place):
        with RunDirectory(place, {}) as directory:
            return loop.distill(settings(), checks.tagged(), directory)

    whole = run(tmp_path / "whole")
    with checks.killed_at(6):
        run(tmp_path / "killed")
    resumed = run(tmp_path / "killed")
    for first, again in zip(whole.best, resumed.best, strict=True):
        np.testing.assert_array_equal(first, again)
    assert whole.history[-1]["validation_accuracy"] > 0.5


@pytest.mark.slow
def test_streamed_clips_give_the_same_coreset():
    own = checks.tagged()
    stored = np.asarray(own.train.images[..., 0], np.float16)
    stats = own.normalization
    device = Clips(jnp.asarray(stored), own.train.labels, stats)
    host = Clips(stored, own.train.labels, stats, rows=np.arange(60))
    found = [
        loop.distill(
            settings(loop__steps=2), own.__class__(**{**vars(own), "train": t})
        )
        for t in (device, host)
    ]
    np.testing.assert_allclose(found[0].best.images, found[1].best.images, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["frepo", "herding", "kip"])
def test_other_methods_learn_tags_too(method):
    found = loop.distill(settings(method=method, loop__steps=2), checks.tagged())
    assert np.isfinite(found.best.labels).all()
    assert 0 < found.history[-1]["validation_accuracy"] <= 1


@pytest.mark.parametrize("method", ["dc", "dsa", "dm"])
def test_matching_class_by_class_is_refused(method):
    with pytest.raises(UserError, match="do not have a single class: distil them by"):
        registry.check_labels(method, True)
    registry.check_labels(method, False)
    with pytest.raises(UserError, match="do not have a single class"):
        loop.distill(settings(method=method), checks.tagged())


def test_the_threshold_is_a_probability_of_one_half():
    assert tag_threshold(4) + 1 / 4 == 0.5
