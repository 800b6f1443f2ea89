import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from audiodd_jax.features.metric import average_precision, mean_average_precision


def arrays(scores, tags):
    return jnp.asarray(scores, jnp.float32), jnp.asarray(tags, jnp.int8)


def test_by_hand_with_a_tie_and_a_tag_that_no_clip_has():
    # First tag, by score: 0.9 has it, 0.8 not, then one of two equal scores has it:
    # AP = 1/2 * 1/1 + 1/2 * 2/4. Second: the only clip with it comes third.
    scores = [[0.9, 0.1, 5.0], [0.5, 0.3, 4.0], [0.8, 0.7, 3.0], [0.5, 0.6, 2.0]]
    tags = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]]
    found = np.asarray(average_precision(*arrays(scores, tags)))
    np.testing.assert_allclose(found[:2], [0.75, 1 / 3], rtol=1e-6)
    assert np.isnan(found[2])
    mean, error = mean_average_precision(*arrays(scores, tags))
    assert float(mean) == pytest.approx((0.75 + 1 / 3) / 2)
    assert float(error) > 0


def test_without_any_tag_the_mean_is_zero_and_not_nan():
    assert (
        float(mean_average_precision(*arrays(np.ones((3, 2)), np.zeros((3, 2))))[0])
        == 0
    )


def test_average_precision_matches_scikit_learn_with_ties_and_weights():
    rng = np.random.default_rng(0)
    for levels in (3, 20, 10_000):
        scores = rng.integers(0, levels, (60, 5)).astype(np.float32)
        tags = rng.random((60, 5)) < [0.05, 0.2, 0.5, 0.9, 1.0]
        tags[0] = True
        weights = rng.exponential(size=60).astype(np.float32)
        for own in (None, weights):
            found = average_precision(
                *arrays(scores, tags), None if own is None else jnp.asarray(own)
            )
            expected = [
                average_precision_score(tags[:, c], scores[:, c], sample_weight=own)
                for c in range(5)
            ]
            np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_copies_of_a_recording_weigh_as_much_as_one_clip():
    scores = [[3.0], [2.0], [2.0], [2.0], [1.0]]
    tags = [[1], [0], [0], [0], [1]]
    groups = jnp.asarray([0, 1, 1, 1, 2])
    grouped = mean_average_precision(*arrays(scores, tags), groups).mean
    alone = mean_average_precision(*arrays([[3.0], [2.0], [1.0]], [[1], [0], [1]])).mean
    assert float(grouped) == pytest.approx(float(alone))


cases = st.integers(1, 30).flatmap(
    lambda b: st.tuples(
        st.lists(st.integers(-4, 4), min_size=b, max_size=b),
        st.lists(st.booleans(), min_size=b, max_size=b),
        st.permutations(range(b)),
    )
)


@settings(max_examples=30, deadline=None)
@given(cases)
def test_average_precision_is_invariant_to_order_and_scale(case):
    scores, tags, order = (np.array(part) for part in case)
    tags = tags | (np.arange(tags.size) == 0)
    pad = 30 - tags.size  # one shape for all; clips without the tag, of lowest score
    whole = np.concatenate([scores, np.full(pad, -9)])[:, None]
    has = np.concatenate([tags, np.zeros(pad, bool)])[:, None]
    moved = np.concatenate([order, np.arange(tags.size, 30)])
    first = float(average_precision(*arrays(whole, has))[0])
    again = float(average_precision(*arrays(3.0 * whole[moved] + 1, has[moved]))[0])
    assert first == pytest.approx(again, rel=1e-5)
    assert 0 < first <= 1 + 1e-6
    if not tags[scores.argmax()] and (scores == scores.max()).sum() == 1:
        assert first < 1
