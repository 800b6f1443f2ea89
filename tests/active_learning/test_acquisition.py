"""Acquisition functions: published numbers, known answers, properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from audiodd_jax.active_learning import acquisition
from audiodd_jax.errors import UserError

KEY = jax.random.key(0)
UNCERTAIN = ("max_entropy", "variation_ratios", "margin")


def log_probs(probabilities):
    """``[b, p, c]`` as written down, to log ``[p, b, c]``."""
    return jnp.log(jnp.asarray(probabilities)).transpose(1, 0, 2)


@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize(
    ("name", "theirs", "sign"),
    [
        ("bald", "bald", 1),
        ("max_entropy", "entropy", 1),
        ("margin", "margin", -1),
        ("variation_ratios", "certainty", -1),
    ],
)
def test_published_scores_and_rankings(golden, float64, name, theirs, sign, wide):
    reference = golden("acquisition.npz")
    with float64(wide):
        predictions = jnp.asarray(reference["probabilities_nct"]).transpose(2, 0, 1)
        scores = acquisition.SCORES[name](jnp.log(predictions))
        assert scores.dtype == (jnp.float64 if wide else jnp.float32)
        expected = sign * reference[f"{theirs}_score"]
        if name == "variation_ratios":
            expected = 1 + expected
        # A difference of probabilities is as exact as they are: 6e-8 in float32.
        tolerance = {"rtol": 1e-9} if wide else {"rtol": 1e-4, "atol": 6e-8}
        np.testing.assert_allclose(scores, expected, **tolerance)
        ranked = acquisition.top(scores, 40, jnp.arange(40), KEY)
    np.testing.assert_array_equal(ranked, reference[f"{theirs}_ranking"])


def test_hand_computed_scores():
    # First clip: two passes, certain of different classes. Second: certain of one.
    predictions = log_probs([[[1, 0], [0, 1]], [[1, 0], [1, 0]]])
    near = lambda name, expected: np.testing.assert_allclose(
        acquisition.SCORES[name](predictions), expected, atol=1e-6
    )
    near("max_entropy", [np.log(2), 0])
    near("bald", [np.log(2), 0])
    near("variation_ratios", [0.5, 0])
    near("margin", [0, -1])
    near("random", [0, 0])


def test_hand_computed_scores_of_a_committee():
    # Three networks: they vote 2 to 1, 3 to 0 (one nearly torn), and agree.
    predictions = log_probs(
        [
            [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]],
            [[0.9, 0.1], [0.8, 0.2], [0.51, 0.49]],
            [[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]],
        ]
    )
    votes = acquisition.vote_entropy(predictions)
    two_to_one = np.log(3) - 2 / 3 * np.log(2)
    np.testing.assert_allclose(votes, [two_to_one, 0, 0], atol=1e-6)
    p = np.exp(np.asarray(predictions, np.float64))
    divergence = (p * np.log(p / p.mean(0))).sum(-1).mean(0)
    found = acquisition.consensus_kl(predictions)
    np.testing.assert_allclose(found, divergence, rtol=1e-4, atol=1e-6)


def test_a_diverse_batch_takes_one_clip_of_each_group_of_high_scores():
    rng = np.random.default_rng(0)
    # Three groups of ten clips, and ten with low scores far from all of them.
    centres = np.repeat([[0.0, 0], [5, 0], [0, 5], [50, 50]], 10, axis=0)
    features = jnp.asarray(centres + 0.1 * rng.standard_normal((40, 2)))
    scores = jnp.asarray(np.repeat([3.0, 2.0, 1.0, 0.0], 10) + 0.01 * rng.random(40))
    ids = jnp.arange(40)
    alone = np.asarray(acquisition.top(scores, 3, ids, KEY)) // 10
    assert alone.tolist() == [0, 0, 0]
    found = np.asarray(acquisition.diverse(features, scores, 3, 10, ids, KEY))
    assert sorted(found // 10) == [0, 1, 2]
    # Of as many clips as the batch has, all are chosen.
    found = np.asarray(acquisition.diverse(features, scores, 40, 1, ids, KEY))
    assert sorted(found) == list(range(40))
    same = acquisition.diverse(features, jnp.zeros(40), 4, 10, ids, KEY)
    assert len(set(np.asarray(same).tolist())) == 4


def test_scores_per_second():
    costs = jnp.array([1.0, 4.0])
    near = np.testing.assert_allclose
    near(acquisition.per_cost(jnp.array([0.5, 1.0]), "bald", costs), [0.5, 0.25])
    # The margin lies between -1 and 0: more certain clips are worth less.
    near(acquisition.per_cost(jnp.array([-0.5, 0.0]), "margin", costs), [0.5, 0.25])


def pool_with_known_answers():
    """Three groups of 20 clips: certain, noisy, and unknown to the network.

    Of noisy ones each pass says the same, that nobody can tell; of unknown ones each
    pass is sure, of another class.
    """
    rng = np.random.default_rng(0)
    sure = np.tile([0.98, 0.01, 0.01], (20, 12, 1))
    noisy = np.tile([0.34, 0.33, 0.33], (20, 12, 1))
    unknown = np.full((20, 12, 3), 0.02)
    # Half of the passes predict one class: overall less uncertain than the noise.
    votes = rng.permuted(np.tile([0] * 6 + [1] * 3 + [2] * 3, (20, 1)), axis=1)
    np.put_along_axis(unknown, votes[:, :, None], 0.96, axis=2)
    return log_probs(np.concatenate([sure, noisy, unknown]))


def chosen(name, count=20):
    scores = acquisition.SCORES[name](pool_with_known_answers())
    return np.asarray(acquisition.top(scores, count, jnp.arange(60), KEY)) // 20


def test_bald_avoids_the_noise_that_entropy_prefers():
    assert set(chosen("bald")) == {2}
    for name in UNCERTAIN:
        # No function chooses clips that the network is certain of.
        assert 0 not in chosen(name, 40)
        assert set(chosen(name)) == {1}
    assert set(chosen("random", 30)) == {0, 1, 2}


def test_margin_compares_two_classes_and_entropy_all():
    """Two classes equally likely, or three with one ahead of the others."""
    pair, three = [0.5, 0.5, 0.0], [0.5, 0.25, 0.25]
    predictions = log_probs([[pair], [three]])
    assert acquisition.margin(predictions).argmax() == 0
    assert acquisition.max_entropy(predictions).argmax() == 1


def clusters():
    """Two far clusters of 10, a tight one of 10 at the origin; one clip far away."""
    rng = np.random.default_rng(1)
    noise = 0.1 * rng.standard_normal((31, 2))
    centres = [[0, 0]] * 10 + [[10, 0]] * 10 + [[0, 10]] * 10 + [[30, 30]]
    return jnp.asarray(centres + noise, jnp.float32)


def test_k_center_takes_one_of_each_cluster_the_farthest_first():
    features = clusters()
    places = acquisition.k_center(features, features[:2], 3, jnp.arange(31), KEY)
    assert places[0] == 30
    assert {int(p) // 10 for p in places[1:]} == {1, 2}


def test_k_center_is_greedy_by_hand():
    features = jnp.array([[0.0], [1.0], [4.0], [9.0], [10.0]])
    places = acquisition.k_center(features, jnp.array([[0.0]]), 3, jnp.arange(5), KEY)
    # 10 is farthest from 0; then 4 (4 away) before 9 (1 away); then 1 or 9, both 1.
    assert places[:2].tolist() == [4, 2]
    assert int(places[2]) in (1, 3)


def test_badge_takes_long_gradients_in_each_direction():
    """Certain clips have tiny gradients; two groups differ in their features only."""
    rng = np.random.default_rng(2)
    sure, unsure = np.log([1 - 2e-9, 1e-9, 1e-9]), np.log([0.5, 0.49, 0.01])
    predictions = jnp.asarray([sure] * 2 + [unsure] * 20, jnp.float32)
    features = np.repeat([[8.0, 0], [4.0, 0], [0, 4.0]], [2, 10, 10], axis=0)
    features = jnp.asarray(features + 0.01 * rng.standard_normal((22, 2)), jnp.float32)
    group = np.repeat([0, 1, 2], [2, 10, 10])
    others = []
    for key in jax.random.split(KEY, 100):
        places = acquisition.badge(features, predictions, 2, jnp.arange(22), key)
        first, second = group[np.asarray(places)]
        assert first != 0
        assert second != first
        others.append(second != 0)
    # 10 clips at twice the squared distance, or 2 at it: ten times in eleven.
    assert np.mean(others) > 0.8


def test_badge_draws_by_squared_distance():
    """Of clips at 1 and 3 from the first, k-means++ takes the other nine times in ten.

    The first is the longest gradient; the residuals of all are the same.
    """
    predictions = jnp.log(jnp.tile(jnp.array([[0.5, 0.5]]), (3, 1)))
    features = jnp.array([[10.0, 0], [9.0, 0], [7.0, 0]])
    second = [
        int(acquisition.badge(features, predictions, 2, jnp.arange(3), key)[1])
        for key in jax.random.split(KEY, 400)
    ]
    assert set(second) == {1, 2}
    assert abs(np.mean(np.array(second) == 2) - 0.9) < 0.05


def test_badge_continues_when_all_gradients_are_zero():
    features, predictions = jnp.ones((6, 2)), jnp.log(jnp.full((6, 2), 0.5))
    places = acquisition.badge(features, predictions, 6, jnp.arange(6), KEY)
    assert sorted(places.tolist()) == list(range(6))


# Few shapes, since each compiles.
predictions_of = st.sampled_from([(1, 3, 2), (4, 5, 3)]).flatmap(
    lambda shape: hnp.arrays(np.float32, shape, elements=st.floats(-30, 30, width=32))
)


@settings(max_examples=40, deadline=None)
@given(logits=predictions_of, seed=st.integers(0, 2**31 - 1))
def test_bald_lies_between_zero_and_entropy_and_is_invariant_to_order(logits, seed):
    found = jax.nn.log_softmax(jnp.asarray(logits))
    bald = acquisition.bald(found)
    assert (bald >= 0).all()
    assert (bald <= acquisition.max_entropy(found)).all()
    rng = np.random.default_rng(seed)
    passes, classes = rng.permutation(found.shape[0]), rng.permutation(found.shape[2])
    for score in acquisition.SCORES.values():
        expected = score(found)
        assert np.isfinite(expected).all()
        for changed in (found[passes], found[:, :, classes]):
            np.testing.assert_allclose(score(changed), expected, atol=2e-6)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_permuted_pool_gives_the_same_clips(data):
    """Equal scores too: the noise belongs to the clips, not to their positions."""
    # Small whole numbers, so that ties abound.
    b = data.draw(st.sampled_from([5, 8]))
    count = data.draw(st.sampled_from([1, 4]))
    integers = lambda *shape: data.draw(
        hnp.arrays(np.int32, shape, elements=st.integers(-2, 2))
    )
    features, classes = integers(b, 3), integers(b)
    order = np.array(data.draw(st.permutations(range(b))))
    ids = jnp.array(data.draw(st.permutations(range(100, 100 + b))))
    key = jax.random.key(data.draw(st.integers(0, 1000)))
    sure = jax.nn.log_softmax(4.0 * jax.nn.one_hot(classes % 3, 3))
    h = jnp.asarray(features, jnp.float32)
    for choose in (
        lambda r: acquisition.top(h[r, 0], count, ids[r], key),
        lambda r: acquisition.k_center(h[r], h[:0], count, ids[r], key),
        lambda r: acquisition.badge(h[r], sure[r], count, ids[r], key),
    ):
        here, there = choose(np.arange(b)), choose(order)
        assert ids[np.asarray(here)].tolist() == ids[order][np.asarray(there)].tolist()
        assert len(set(here.tolist())) == count


def test_ties_are_broken_by_key_and_not_by_position():
    picks = np.array(
        [
            acquisition.top(jnp.zeros(10), 1, jnp.arange(10), key)[0]
            for key in jax.random.split(KEY, 500)
        ]
    )
    counts = np.bincount(picks, minlength=10)
    # 50 expected of each, with a standard deviation of 6.7.
    assert counts.min() > 20
    assert counts.max() < 85


def test_certain_predictions_have_finite_scores():
    """Probabilities of exactly 0 and 1, whose logarithm is not finite."""
    predictions = log_probs([[[1, 0, 0], [0, 0, 1]], [[1, 0, 0], [1, 0, 0]]])
    for name, score in acquisition.SCORES.items():
        assert np.isfinite(score(predictions)).all(), name


@pytest.mark.parametrize("count", [0, 7])
def test_a_batch_is_at_least_one_clip_and_at_most_the_pool(count):
    ids, h = jnp.arange(6), jnp.ones((6, 2))
    message = "at least one clip" if not count else "the unlabelled pool has 6"
    for choose in (
        lambda: acquisition.top(h[:, 0], count, ids, KEY),
        lambda: acquisition.k_center(h, h, count, ids, KEY),
        lambda: acquisition.badge(h, h, count, ids, KEY),
    ):
        with pytest.raises(UserError, match=message):
            choose()


def test_zero_passes_are_refused():
    for name in ("max_entropy", "variation_ratios", "bald", "margin"):
        with pytest.raises(UserError, match="not zero"):
            acquisition.SCORES[name](jnp.zeros((0, 3, 2)))
