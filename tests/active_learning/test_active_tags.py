"""Active learning where clips have tags."""

import checks
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.active_learning import acquisition, monte_carlo, query
from audiodd_jax.active_learning import rounds as rounds_lib
from audiodd_jax.config import presets
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips
from audiodd_jax.features.normalization import Normalization

STATS = Normalization(*(np.full(8, v, np.float32) for v in (0, 10)))
KEY = jax.random.key(0)
SMALL = {
    "model__depth": 2,
    "model__width": 4,
    "training__steps": 6,
    "training__batch_size": 8,
    "training__log_every": 6,
    "training__checkpoint_every": 6,
    "active__passes": 3,
    "active__chunk": 16,
    "active__budgets": ("3/class",),
    "active__initial": "1/class",
}


def clips(b, seed=0):
    """Three tags, each a bump at another mel bin; some clips have none."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((b, 3)) < [0.6, 0.4, 0.2]).astype(np.int8)
    images = 0.5 * rng.standard_normal((b, 8, 8, 1)).astype(np.float32)
    images[:, 1:7:2] += 1.5 * labels[:, :, None, None]
    return Clips(jnp.asarray(images), jnp.asarray(labels))


def pairs(probabilities):
    p = jnp.asarray(probabilities, jnp.float32)
    return jnp.log(jnp.stack([p, 1 - p], -1))


def test_entropy_and_bald_of_tags_by_hand():
    # Two passes, two clips, two tags: certain and agreeing; certain, opposed in one.
    found = pairs([[[0.9, 0.5], [0.9, 0.5]], [[0.9, 0.5], [0.1, 0.5]]])
    h = lambda p: -p * np.log(p) - (1 - p) * np.log(1 - p)
    entropy = acquisition.over_tags(acquisition.max_entropy)(found)
    want = [(h(0.9) + h(0.5)) / 2, (h(0.5) + h(0.5)) / 2]
    np.testing.assert_allclose(entropy, want, rtol=1e-5)
    bald = acquisition.over_tags(acquisition.bald)(found)
    np.testing.assert_allclose(bald, [0, (h(0.5) - h(0.9)) / 2], atol=1e-6)
    ratios = acquisition.over_tags(acquisition.variation_ratios)(found)
    np.testing.assert_allclose(ratios, [0.3, 0.5], rtol=1e-5)
    margin = acquisition.over_tags(acquisition.margin)(found)
    np.testing.assert_allclose(margin, [-0.4, 0.0], atol=1e-6)


@pytest.mark.parametrize("name", sorted(acquisition.SCORES))
def test_tag_scores_are_invariant_to_order_and_to_flipped_answers(name):
    p = np.random.default_rng(0).uniform(0.05, 0.95, (3, 5, 4))
    score = acquisition.over_tags(acquisition.SCORES[name])
    first = np.asarray(score(pairs(p)))
    np.testing.assert_allclose(first, score(pairs(1 - p[..., ::-1])), atol=1e-6)


def test_log_probabilities_of_tags():
    logits = jnp.array([[0.0, 3.0, -80.0]])
    found = monte_carlo.log_probabilities(logits, True)
    assert found.shape == (1, 3, 2)
    np.testing.assert_allclose(jnp.exp(found).sum(-1), 1, atol=1e-6)
    assert np.isfinite(found).all()


def test_a_balanced_seed_set_draws_each_tag_in_turn():
    labels = clips(60).labels
    names = ("a", "b", "c")
    rows = query.seed_set(KEY, labels, 10, names, "balanced")
    assert np.unique(rows).size == 10
    assert (np.asarray(labels)[rows].sum(0) >= 3).all()
    few = jnp.asarray([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 0, 0]], jnp.int8)
    with pytest.raises(UserError, match="needs 2 per class, but 'b' has 1 in the pool"):
        query.seed_set(KEY, few, 6, names, "balanced")
    assert query.seed_set(KEY, few, 3, names, "uniform").size == 3


_SLOW = (pytest.param(name, marks=pytest.mark.slow) for name in ("badge", "typiclust"))


@pytest.mark.parametrize("name", ["bald", *_SLOW])
def test_a_run_labels_clips_and_reports_mean_average_precision(name):
    config = presets.for_active(
        presets.for_dataset("tones_tagged"),
        "convnet",
        **{**SMALL, "active__acquisition": name},
    )
    data = checks.prepared(clips(40), clips(10, 1), STATS, test=clips(30, 2))
    found = rounds_lib.label_rounds(config, data)
    assert np.unique(found.labelled).size == 9
    last = found.rounds[-1]
    chosen = np.asarray(data.train.labels)[found.labelled]
    assert last["class_counts"] == chosen.sum(0).tolist()
    assert 0.3 < last["test_accuracy"] <= 1
    assert len(last["per_class_average_precision"]) == 3
