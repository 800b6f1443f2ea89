"""Classes with different numbers of clips weigh the same where they differ enough."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.features import batches, metric
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.labels import clip_weights
from audiodd_jax.kernels import ridge
from audiodd_jax.report import cards
from audiodd_jax.training import scores

# Of eight clips six are of class 0; one of class 1 is the only clip that is recognised
# besides four of class 0.
LABELS = np.array([0, 0, 0, 0, 0, 0, 1, 1])
PREDICTED = np.array([0, 0, 0, 0, 1, 1, 1, 0])
BALANCED = (4 / 6 + 1 / 2) / 2


@pytest.mark.parametrize(
    ("sizes", "setting", "name"),
    [
        ((30, 20), "auto", "accuracy"),
        ((31, 20), "auto", "balanced accuracy"),
        ((5, 0), "auto", "balanced accuracy"),
        ((31, 20), "accuracy", "accuracy"),
        ((20, 20), "balanced_accuracy", "balanced accuracy"),
    ],
)
def test_the_metric_depends_on_the_clips_per_class(sizes, setting, name):
    labels = np.repeat(np.arange(2), sizes)
    assert metric.name_of(labels, 2, setting) == name


def test_tags_keep_their_metric():
    tags = np.array([[1, 0], [1, 0], [1, 1]], np.int8)
    assert metric.name_of(tags, 2) == "mean average precision"
    assert not metric.is_unequal(tags, 2)


def test_weighted_scores_are_means_over_classes():
    outputs = jax.nn.one_hot(PREDICTED, 2) - 0.5
    weights = clip_weights(jnp.asarray(LABELS), 2)
    weights /= weights.sum()
    plain = ridge.score(outputs, jnp.asarray(LABELS))
    score = ridge.score(outputs, jnp.asarray(LABELS), None, weights)
    assert float(plain.accuracy) == pytest.approx(5 / 8)
    assert float(score.accuracy) == pytest.approx(BALANCED, abs=1e-6)
    # Each wrong clip has the loss 1/2 * mean((1, 1)).
    assert float(score.loss) == pytest.approx(0.5 * (1 - BALANCED), abs=1e-6)


def test_equal_classes_have_the_same_estimate_with_weights():
    values, labels = jnp.array([1.0, 0, 1, 1, 0, 1]), jnp.array([0, 0, 0, 1, 1, 1])
    weights = clip_weights(labels, 2) / 2
    plain, weighted = (metric.grouped_mean(values, None, w) for w in (None, weights))
    assert float(weighted.mean) == pytest.approx(float(plain.mean))
    # The plain estimate divides by one clip less.
    ratio = float(plain.error / weighted.error)
    assert ratio == pytest.approx(np.sqrt(6 / 5), rel=1e-5)


def test_copies_of_a_recording_weigh_as_much_as_one_clip_of_its_class():
    labels = jnp.array([0, 0, 0, 1])
    values = jnp.array([1.0, 1, 0, 0])
    weights = clip_weights(labels, 2, jnp.array([0, 0, 1, 2])) / 2
    found = metric.grouped_mean(values, jnp.array([0, 0, 1, 2]), weights)
    assert float(found.mean) == pytest.approx(0.25)


def test_batches_have_classes_in_equal_shares_and_use_every_clip():
    labels = np.repeat(np.arange(3), (40, 2, 7))
    rows = batches.oversampled(labels)
    assert np.bincount(labels[rows]).tolist() == [40, 40, 40]
    assert np.unique(rows).size == 49
    counts = np.bincount(rows)[40:42]
    assert counts.tolist() == [20, 20]
    data = Clips(jnp.zeros((49, 1, 1, 1)), jnp.asarray(labels))
    drawn = batches.uniform(30, rows)
    keys = jax.random.split(jax.random.key(0), 200)
    found = jax.vmap(lambda key: drawn(key, data))(keys)
    assert found.shape == (200, 30)
    shares = np.bincount(labels[np.asarray(found).ravel()]) / found.size
    np.testing.assert_allclose(shares, 1 / 3, atol=0.02)


def test_an_evaluation_shows_both_accuracies_and_leads_with_the_metric():
    plain = scores.evaluate("krr", PREDICTED[None], LABELS, 2)
    assert plain.mean == 5 / 8
    balanced = plain._replace(metric="balanced accuracy")
    assert balanced.mean == pytest.approx(BALANCED)
    assert str(balanced) == "58.3 %"
    summary = balanced.summary(("a", "b"))
    assert summary["test_accuracy"] == 5 / 8
    assert summary["test_balanced_accuracy"] == pytest.approx(BALANCED)
    assert summary["metric"] == "balanced accuracy"
    assert metric.score_of(summary) == pytest.approx(BALANCED)
    again = scores.from_summary(summary)
    assert again.mean == balanced.mean
    assert again.metric == balanced.metric


def test_a_class_without_test_clips_does_not_count():
    found = scores.evaluate("krr", PREDICTED[None], LABELS, 3)
    assert found.balanced == pytest.approx((BALANCED,))


@pytest.mark.parametrize(
    ("name", "score", "warns"),
    [
        ("accuracy", 0.835, True),
        ("accuracy", 0.85, False),
        ("balanced accuracy", 0.2, True),
        ("balanced accuracy", 0.25, False),
    ],
)
def test_a_score_like_the_constant_answer_is_said_to_be_one(name, score, warns):
    constant = metric.constant_answer(
        np.repeat(np.arange(5), (382, 30, 20, 15, 10)),
        np.repeat(np.arange(5), (167, 13, 9, 7, 4)),
        ("cat", "dog", "cow", "hen", "pig"),
    )
    assert constant["class_counts"]["cat"] == 382
    assert constant["majority_accuracy"] == 0.835
    words = metric.counts_in_words(constant)
    assert words.startswith("training clips: cat 382, dog 30")
    assert "always answering 'cat' is right for 83.5 % of the test clips" in words
    result = constant | {"measure": name, "num_classes": 5, "untested_classes": []}
    result |= {"test_accuracy": score, "test_balanced_accuracy": score}
    text = cards.constant_warning(result)
    assert ("no better than always answering 'cat'" in text) == warns
