"""k-means and k-medoids against scikit-learn and their definitions."""

import jax
import numpy as np
import pytest
from sklearn.cluster import KMeans

from audiodd_jax.coreset import clusters

KEY = jax.random.key(0)


@pytest.mark.parametrize("b", [40, 300])
def test_k_means_matches_scikit_learn(b):
    features = jax.random.normal(KEY, (b, 4))
    seeds = clusters.seeding(KEY, features, 5)
    found = clusters.k_means(KEY, features, 5)
    theirs = KMeans(5, init=np.asarray(features[seeds]), n_init=1, tol=0, max_iter=50)
    theirs.fit(np.asarray(features))
    np.testing.assert_array_equal(found.assigned, theirs.labels_)
    np.testing.assert_allclose(found.centres, theirs.cluster_centers_, atol=1e-5)


@pytest.mark.parametrize("k", [1, 7, 299, 300])
def test_medoids_minimize_distances_in_their_clusters(k):
    features = jax.random.normal(KEY, (300, 4))
    medoids = np.asarray(clusters.k_medoids(KEY, features, k))
    assert np.unique(medoids).size == k
    points = np.asarray(features, float)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    assigned = distances[:, medoids].argmin(1)
    for cluster, medoid in enumerate(medoids):
        mine = np.flatnonzero(assigned == cluster)
        sums = distances[np.ix_(mine, mine)].sum(1)
        assert sums[mine == medoid] <= sums.min() + 1e-4


def test_seeds_spread_by_squared_distance():
    # 50 copies each at 0 and 1, one clip at 10: it is drawn second in nearly all cases.
    features = np.r_[np.zeros(50), np.ones(50), 10.0].reshape(-1, 1)
    seeding = jax.jit(lambda key: clusters.seeding(key, jax.numpy.asarray(features), 2))
    draws = [np.asarray(seeding(jax.random.key(i))) for i in range(200)]
    far = np.mean([100 in draw[1:] for draw in draws if draw[0] != 100])
    # From 0: 100 / (100 + 50); from 1: 81 / (81 + 50).
    assert abs(far - (100 / 150 + 81 / 131) / 2) < 0.1
