import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.coreset import selection
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips

NAMES = ("a", "b", "c")
LABELS = jnp.asarray(np.repeat([0, 1, 2], [20, 10, 5]), jnp.int32)
KEY = jax.random.key(0)


def at_random(key, labels, names, per_class):
    sizes = np.full(len(names), per_class)
    return selection.select("random", key, Clips(None, labels), names, sizes, None)


def test_random_rows_have_the_requested_count_per_class_without_repetition():
    rows = at_random(KEY, LABELS, NAMES, 4)
    np.testing.assert_array_equal(np.asarray(LABELS)[rows], np.repeat([0, 1, 2], 4))
    assert len(set(rows.tolist())) == 12
    other = at_random(jax.random.key(1), LABELS, NAMES, 4)
    assert (rows != other).any()
    with pytest.raises(UserError, match="5 clips of the class 'c' are available"):
        at_random(KEY, LABELS, NAMES, 6)


@pytest.mark.parametrize(("clips", "counts"), [(7, (4, 2, 1)), (35, (20, 10, 5))])
def test_a_fraction_keeps_the_class_proportions(clips, counts):
    rows = selection.random_fraction(KEY, LABELS, clips)
    assert len(set(rows.tolist())) == clips
    np.testing.assert_array_equal(np.bincount(np.asarray(LABELS)[rows]), counts)


def test_requests_beyond_the_pool_return_all_clips():
    assert selection.random_fraction(KEY, LABELS, 99).size == 35


def test_herding_approaches_the_mean_of_each_class():
    rng = np.random.default_rng(0)
    features = jnp.asarray(rng.standard_normal((35, 6)), jnp.float32)
    given = (features, LABELS, NAMES)
    rows = selection.class_by_class("herding", *given, np.full(3, 5))
    assert len(set(rows.tolist())) == 15
    np.testing.assert_array_equal(np.asarray(LABELS)[rows], np.repeat([0, 1, 2], 5))

    def greedy(members):
        """A plain implementation."""
        mean, chosen = features[members].mean(0), []
        for _ in range(5):
            gap = lambda m, c=chosen: np.linalg.norm(
                features[np.array([*c, m])].mean(0) - mean
            )
            chosen.append(min((m for m in members if m not in chosen), key=gap))
        return chosen

    want = [row for c in range(3) for row in greedy(np.flatnonzero(c == LABELS))]
    np.testing.assert_array_equal(rows, want)
    with pytest.raises(UserError, match="but 6 are needed"):
        selection.class_by_class("herding", *given, np.full(3, 6))


def test_embeddings_have_unit_length_and_depend_on_the_key():
    images = jax.random.normal(KEY, (35, 8, 8, 1))
    config = RandomNetworkConfig(depth=2, width=4, readout="time_mean")
    embedding = selection.Embedding(config, 3)
    clips = Clips(images, LABELS)
    features = selection.embed(KEY, clips, embedding)
    assert features.shape == (35, 3 * 4 * 2)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    other = selection.embed(jax.random.key(1), clips, embedding)
    assert np.abs(features - other).max() > 1e-3


def test_k_center_covers_each_class_from_its_centre():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(LABELS.size, 6)).astype(np.float32)
    given = (jnp.asarray(features), LABELS, NAMES)
    rows = selection.class_by_class("k_center", *given, np.full(3, 4))
    labels = np.asarray(LABELS)
    for label, own in enumerate(rows.reshape(len(NAMES), 4)):
        mine = np.flatnonzero(labels == label)
        middle = np.linalg.norm(features[mine] - features[mine].mean(0), axis=1)
        chosen = [int(mine[middle.argmin()])]
        while len(chosen) < 4:
            gaps = np.linalg.norm(features[mine][:, None] - features[chosen], axis=2)
            chosen.append(int(mine[gaps.min(1).argmax()]))
        assert own.tolist() == chosen
    with pytest.raises(UserError, match="but 99 are needed"):
        selection.class_by_class("k_center", *given, np.full(3, 99))
