"""Acquisition functions for few labels, which need no trained network.

A network that was trained on a few clips says little about the others. These functions
choose typical clips that cover the pool in an embedding that needs no labels: features
of random convolutional networks, or those of an encoder.

References:
  TypiClust: Hacohen, Dekel, Weinshall, *Active Learning on a Budget: Opposite
  Strategies Suit High and Low Budgets*, ICML 2022. ProbCover: Yehuda, Dekel, Hacohen,
  Weinshall, *Active Learning Through a Covering Lens*, NeurIPS 2022. Medoids: Zhao,
  Heittola, Virtanen, *Active Learning for Sound Event Classification by Clustering
  Unlabeled Data*, ICASSP 2017.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from audiodd_jax.active_learning.acquisition import check_count, tie_break
from audiodd_jax.config import RandomNetworkConfig
from audiodd_jax.coreset import clusters, selection
from audiodd_jax.runtime.memory import in_chunks

# TypiClust: most clusters, fewest clips of a queried cluster, neighbours.
_MAX_CLUSTERS, _MIN_CLUSTER, _NEIGHBOURS = 500, 5, 20
# ProbCover: share of the balls that must contain one pseudo-label only.
_PURITY = 0.95
# Clips whose distances to the whole pool are held at once.
_CHUNK = 256

# The embedding: the networks that RFAD distils clips with by default.
EMBEDDING = selection.Embedding(
    RandomNetworkConfig(width=32, readout="time_mean"), count=8
)


class Query(NamedTuple):
    """The arguments of an acquisition function.

    Attributes:
      features: embedding of the pool.
      labelled: rows of the labelled clips.
      count: clips to choose, at least one and at most the unlabelled ones.
      key: key of clusters and ties.
    """

    features: Float[Array, "b d"]
    labelled: Int[np.ndarray, " l"]
    count: int
    num_classes: int
    key: Key[Array, ""]

    @property
    def is_free(self) -> Bool[np.ndarray, " b"]:
        """Mask of the clips without a label."""
        mask = np.ones(self.features.shape[0], bool)
        mask[self.labelled] = False
        return mask


def choose(name: str, query: Query) -> Int[np.ndarray, " count"]:
    """Chooses clips by a function of ``COVERS``; returns their rows."""
    check_count(query.count, int(query.is_free.sum()))
    return COVERS[name](query)


def typiclust(query: Query) -> Int[np.ndarray, " count"]:
    """Chooses the most typical clips of the largest clusters without labels.

    The pool has as many clusters as there will be labels, at most 500. A clip is
    typical if the mean distance to its 20 nearest neighbours in its cluster is small.
    The next clip comes from the cluster with the fewest labels; the largest, if there
    are several.
    """
    k = min(query.labelled.size + query.count, _MAX_CLUSTERS, query.features.shape[0])
    assigned = np.asarray(clusters.k_means(query.key, query.features, k).assigned)
    features, is_free = np.asarray(query.features), query.is_free
    labels = np.bincount(assigned[query.labelled], minlength=k)
    sizes = np.bincount(assigned, minlength=k)
    # Unlabelled clips of each cluster, the most typical first.
    queues = []
    for c in range(k):
        rows = np.flatnonzero(assigned == c)
        if rows.size > 1:
            members = features[rows]
            squares = np.sum(members**2, 1)
            products = 2 * members @ members.T
            distances = np.sqrt(np.maximum(squares[:, None] + squares - products, 0.0))
            np.fill_diagonal(distances, np.inf)
            neighbours = min(_NEIGHBOURS, rows.size - 1)
            nearest = np.partition(distances, neighbours - 1, 1)[:, :neighbours]
            rows = rows[np.argsort(nearest.mean(1), kind="stable")]
        queues.append(rows[is_free[rows]].tolist())
    chosen = []
    # Small clusters are outliers, which are queried when there are no other clips.
    for is_queried in (sizes >= _MIN_CLUSTER, np.ones(k, bool)):
        while len(chosen) < query.count:
            waiting = [c for c in range(k) if is_queried[c] and queues[c]]
            if not waiting:
                break
            cluster = min(waiting, key=lambda c: (labels[c], -sizes[c]))
            chosen.append(queues[cluster].pop(0))
            labels[cluster] += 1
    return np.array(chosen)


def probcover(query: Query) -> Int[np.ndarray, " count"]:
    """Chooses clips greedily by the number of uncovered clips in their balls.

    The radius of a ball is the largest for which 95 % of all balls contain clips of one
    pseudo-label only, by k-means with as many clusters as classes.
    """
    features, pool = query.features, query.features.shape[0]
    cluster_key, tie_key = jax.random.split(query.key)
    k = min(query.num_classes, pool)
    pseudo = clusters.k_means(cluster_key, features, k).assigned
    radius = ball_radius(features, pseudo)
    noise = np.asarray(tie_break(tie_key, jnp.arange(pool)))
    is_free, is_covered = query.is_free, np.zeros(pool, bool)
    # Number of uncovered clips in each clip's ball.
    gains = _counts(features, np.arange(pool), radius)
    chosen, centres = [], query.labelled
    while True:
        newly = np.flatnonzero(_counts(features, centres, radius) > 0)
        newly = newly[~is_covered[newly]]
        is_covered[newly] = True
        gains = gains - _counts(features, newly, radius)
        if len(chosen) == query.count:
            return np.array(chosen)
        best = gains[is_free].max()
        row = int(np.argmax(np.where(is_free & (gains == best), noise, -1.0)))
        chosen.append(row)
        is_free[row] = False
        centres = np.array([row])


@jax.jit
def ball_radius(
    features: Float[Array, "b d"], pseudo: Int[Array, " b"]
) -> Float[Array, ""]:
    """The largest radius for which 95 % of all open balls have one pseudo-label.

    A clip's ball is pure up to the nearest clip with another pseudo-label, so it is the
    5 % quantile of these distances; infinite if all clips have the same pseudo-label.
    """

    def to_others(rows: Int[Array, " rows"]) -> Float[Array, " rows"]:
        distances = jnp.sqrt(selection.squared_distances(features[rows], features))
        is_other = pseudo[rows][:, None] != pseudo
        return jnp.min(jnp.where(is_other, distances, jnp.inf), 1)

    distances = in_chunks(to_others, jnp.arange(features.shape[0]), _CHUNK)
    return jnp.quantile(distances, 1 - _PURITY, method="lower")


def _counts(
    features: Float[Array, "b d"], rows: Int[np.ndarray, " m"], radius: Array
) -> Int[np.ndarray, " b"]:
    """Counts the clips of ``rows`` in the open ball of each clip of the pool."""
    total = np.zeros(features.shape[0], int)
    for start in range(0, rows.size, _CHUNK):
        block = rows[start : start + _CHUNK]
        # Padded to one of two shapes: a single clip, or a chunk.
        size = 1 if block.size == 1 else _CHUNK
        padded = np.pad(block, (0, size - block.size), constant_values=-1)
        total += np.asarray(_counts_of_block(features, padded, radius))
    return total


@jax.jit
def _counts_of_block(features: Array, rows: Array, radius: Array) -> Array:
    near = jnp.sqrt(selection.squared_distances(features, features[rows])) < radius
    return jnp.sum(near & (rows >= 0), 1)


def medoids(query: Query) -> Int[np.ndarray, " count"]:
    """Chooses the medoids of ``count`` clusters of the unlabelled clips."""
    free = np.flatnonzero(query.is_free)
    rows = clusters.k_medoids(query.key, query.features[free], query.count)
    return free[np.asarray(rows)]


# Functions of the pool's embedding, by name.
COVERS: dict[str, Callable[[Query], Int[np.ndarray, " count"]]] = {
    function.__name__: function for function in (typiclust, probcover, medoids)
}
