r"""Average precision of the scores of tags, for any weights of the clips.

For one tag, with the clips in order of descending score,

    AP = sum_n (R_n - R_{n-1}) P_n

where ``P_n`` and ``R_n`` are precision and recall of all clips with at least the n-th
distinct score: clips of equal score come in together, in whatever order they lie. There
is no interpolation. The mean over tags (mAP) is over those that some clip has.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from audiodd_jax.features.groups import Estimate

# Draws of the Bayesian bootstrap, and their key.
_DRAWS, _KEY = 64, 0xB007


class Ranked(NamedTuple):
    """The clips in order of descending score, for each tag.

    Attributes:
      order: ``[c, b]`` clips.
      has_tag: ``[c, b]`` whether they have the tag, in that order.
      last: ``[c, b]`` last place with the same score.
    """

    order: Int[Array, "c b"]
    has_tag: Float[Array, "c b"]
    last: Int[Array, "c b"]


def rank(scores: Float[Array, "b c"], tags: Int[Array, "b c"]) -> Ranked:
    """Sorts the clips by the scores of each tag.

    Args:
      scores: higher for more likely tags.
      tags: 1 where a clip has a tag, else 0.
    """
    count = scores.shape[0]
    order = jnp.argsort(-scores.T, axis=1)
    along = lambda values: jnp.take_along_axis(values.T, order, axis=1)
    found = along(scores)
    is_last = jnp.concatenate(
        [found[:, 1:] != found[:, :-1], jnp.ones((found.shape[0], 1), bool)], axis=1
    )
    places = jnp.where(is_last, jnp.arange(count), count)
    last = lax.cummin(places, axis=1, reverse=True)
    # Sums of many clips, whatever the precision of the scores.
    precision = jnp.promote_types(scores.dtype, jnp.float32)
    return Ranked(order, along(tags).astype(precision), last)


def of_ranked(ranked: Ranked, weights: Float[Array, " b"]) -> Float[Array, " c"]:
    """Average precision of each tag; NaN for a tag that no clip has.

    Args:
      ranked: the clips, by score.
      weights: of the clips, not negative.
    """
    own = weights[ranked.order]
    hits = own * ranked.has_tag
    at_last = lambda values: jnp.take_along_axis(
        jnp.cumsum(values, axis=1), ranked.last, axis=1
    )
    total = at_last(own)
    precision = at_last(hits) / jnp.where(total > 0, total, 1)
    return jnp.sum(hits * precision, axis=1) / jnp.sum(hits, axis=1)


def average_precision(
    scores: Float[Array, "b c"],
    tags: Int[Array, "b c"],
    weights: Float[Array, " b"] | None = None,
) -> Float[Array, " c"]:
    """Average precision of each tag; NaN for a tag that no clip has.

    Args:
      scores: higher for more likely tags.
      tags: 1 where a clip has a tag, else 0.
      weights: of the clips; None: all the same.
    """
    ranked = rank(scores, tags)
    if weights is None:
        weights = jnp.ones(scores.shape[0], ranked.has_tag.dtype)
    return of_ranked(ranked, weights)


def mean_average_precision(
    scores: Float[Array, "b c"],
    tags: Int[Array, "b c"],
    groups: Int[Array, " b"] | None = None,
) -> Estimate:
    """Mean average precision and its standard error; 0 if no clip has any tag.

    Groups of clips weigh the same. The error is the deviation over draws of the
    Bayesian bootstrap: exponential weights of the groups, always the same draws.

    Args:
      scores: higher for more likely tags.
      tags: 1 where a clip has a tag, else 0.
      groups: group of each clip, from 0 and below ``b``; None: each is its own.

    References:
      Rubin, *The Bayesian Bootstrap*, Annals of Statistics 1981.
    """
    ranked, count = rank(scores, tags), scores.shape[0]
    share = jnp.ones(count, ranked.has_tag.dtype)
    if groups is not None:
        share /= jnp.bincount(groups, length=count)[groups]
    is_there = tags.any(0)
    mean = lambda weights: (
        jnp.sum(jnp.where(is_there, of_ranked(ranked, weights), 0))
        / jnp.maximum(is_there.sum(), 1)
    )

    def drawn(key: Array) -> Float[Array, ""]:
        weights = jax.random.exponential(key, (count,), share.dtype)
        return mean(share * (weights if groups is None else weights[groups]))

    keys = jax.random.split(jax.random.key(_KEY), _DRAWS)
    return Estimate(mean(share), jnp.std(lax.map(drawn, keys), ddof=1))
