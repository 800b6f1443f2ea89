"""Functions for few labels, on pools with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiodd_jax.active_learning import coverage
from audiodd_jax.coreset import selection
from audiodd_jax.errors import UserError
from audiodd_jax.features.clips import Clips

KEY = jax.random.key(0)
NONE = np.array([], int)


def choose(name, *of):
    return coverage.choose(name, coverage.Query(*of, KEY))


def blobs(sizes, spread=0.05):
    """Clusters far apart; the first clip of each lies in its middle."""
    rng = np.random.default_rng(0)
    parts = []
    for i, size in enumerate(sizes):
        middle = np.array([10.0 * i, 0, 0])
        own = middle + spread * rng.standard_normal((size, 3))
        own[0] = middle
        parts.append(own)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    return jnp.asarray(np.concatenate(parts), jnp.float32), owner


def typicality(features, rows):
    """By the definition: one over the mean distance to 20 neighbours."""
    mine = np.asarray(features, float)[rows]
    distances = np.linalg.norm(mine[:, None] - mine, axis=2)
    nearest = np.sort(distances, 1)[:, 1:21]
    return 1 / nearest.mean(1)


def test_typiclust_chooses_the_most_typical_clip_of_each_cluster():
    features, owner = blobs((30, 40, 25))
    rows = choose("typiclust", features, NONE, 3, 3)
    # The largest cluster first.
    assert owner[rows].tolist() == [1, 0, 2]
    for row in rows:
        mine = np.flatnonzero(owner == owner[row])
        assert row == mine[typicality(features, mine).argmax()]


def test_typiclust_leaves_clusters_that_have_labels_for_last():
    features, owner = blobs((30, 40, 25, 35))
    labelled = np.flatnonzero(owner == 1)[3:5]
    rows = choose("typiclust", features, labelled, 2, 4)
    assert not set(rows) & set(labelled)
    assert 1 not in owner[rows]


def test_typiclust_chooses_outliers_last():
    features, owner = blobs((20, 3, 30))
    rows = choose("typiclust", features, NONE, 3, 3)
    assert owner[rows].tolist() == [2, 0, 2]
    # One label in each large cluster, and three clusters in all.
    labelled = np.flatnonzero(owner != 1)
    last = choose("typiclust", features, labelled, 1, 3)
    assert owner[last].tolist() == [1]


def test_probcover_covers_most_first_by_hand():
    #  0 1 2   3 4   5: balls of radius 1.5 hold 2, 3, 2; 2, 2; 1 of them
    line = jnp.array([0.0, 1, 2, 10, 11, 20])
    features = jnp.stack([line, jnp.zeros(6)], 1)
    pseudo = jnp.array([0, 0, 0, 1, 1, 2])
    assert coverage.ball_radius(features, pseudo) == 8
    counts = coverage._counts(features, np.arange(6), jnp.float32(1.5))
    assert counts.tolist() == [2, 3, 2, 2, 2, 1]


@pytest.mark.parametrize("seed", range(3))
def test_probcover_is_greedy(seed):
    features = jax.random.normal(jax.random.fold_in(KEY, seed), (60, 3))
    labelled = np.array([4, 9])
    rows = choose("probcover", features, labelled, 12, 3)
    pseudo = coverage.clusters.k_means(jax.random.split(KEY)[0], features, 3).assigned
    radius = float(coverage.ball_radius(features, pseudo))
    points = np.asarray(features, float)
    near = np.linalg.norm(points[:, None] - points, axis=2) < radius
    covered = near[labelled].any(0)
    free = np.ones(60, bool)
    free[labelled] = False
    for row in rows:
        gains = (near & ~covered).sum(1)
        assert free[row]
        assert gains[row] == gains[free].max()
        covered |= near[row]
        free[row] = False


def test_balls_hold_a_single_pseudo_label_in_95_of_100_cases():
    features = jax.random.normal(KEY, (200, 2))
    pseudo = (features[:, 0] > 0).astype(jnp.int32)
    radius = float(coverage.ball_radius(features, pseudo))
    points, labels = np.asarray(features, float), np.asarray(pseudo)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    pure = lambda r: np.mean(
        [np.unique(labels[row < r]).size == 1 for row in distances]
    )
    assert pure(radius * 0.9999) >= 0.95 > pure(radius * 1.02)


def test_medoids_are_the_centres_of_unlabelled_clips():
    features, owner = blobs((9, 14, 11))
    rows = choose("medoids", features, np.array([5]), 3, 3)
    assert sorted(owner[rows]) == [0, 1, 2]
    points = np.asarray(features, float)
    for row in rows:
        mine = np.setdiff1d(np.flatnonzero(owner == owner[row]), [5])
        sums = np.linalg.norm(points[mine][:, None] - points[mine], axis=2).sum(1)
        assert row == mine[sums.argmin()]


@pytest.mark.parametrize("name", coverage.COVERS)
def test_a_pool_of_copies_runs_out_without_repeating_a_clip(name):
    features = jnp.repeat(jnp.eye(2), 6, axis=0)
    rows = choose(name, features, np.array([3]), 11, 2)
    assert sorted(rows) == [0, 1, 2, *range(4, 12)]
    for count, message in ((12, "the unlabelled pool has 11"), (0, "at least one")):
        with pytest.raises(UserError, match=message):
            choose(name, features, np.array([3]), count, 2)


def test_embeddings_have_unit_length_and_differ_between_clips():
    images = jax.random.normal(KEY, (5, 16, 16, 1)).at[4].set(0)
    images = images.at[4].set(images[0])
    found = selection.embed(KEY, Clips(images, jnp.arange(5)), coverage.EMBEDDING)
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=1), 1, rtol=1e-5)
    gaps = jnp.linalg.norm(found[0] - found[1:], axis=1)
    assert gaps[3] < 1e-3 < gaps[:3].min()
