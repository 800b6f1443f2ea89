"""Acquisition functions: which unlabelled clips to label.

Uncertainty functions score each clip by Monte Carlo predictions, and ``top`` takes the
highest scores. ``k_center`` and ``badge`` choose a diverse batch. Ties are broken by
noise from ``key`` and the clips' indices in the pool, ``ids``, so that its order does
not matter.

Each tag of a clip is a binary question, and the clip's score is the mean over tags:
``max_entropy`` is the mean binary entropy, and so on.

References:
  Max entropy: Shannon, 1948. Variation ratios: Freeman, *Elementary Applied
  Statistics*, 1965. BALD: Houlsby et al., *Bayesian Active Learning for Classification
  and Preference Learning*, 2011; with MC-dropout: Gal, Islam, Ghahramani, *Deep
  Bayesian Active Learning with Image Data*, ICML 2017. Margin: Scheffer et al., 2001.
  k-center: Sener and Savarese, *Active Learning for Convolutional Neural Networks: A
  Core-Set Approach*, ICLR 2018. BADGE: Ash et al., *Deep Batch Active Learning by
  Diverse, Uncertain Gradient Lower Bounds*, ICLR 2020. Query by committee:
  Seung, Opper, Sompolinsky, COLT 1992; vote entropy: Dagan and Engelson, ICML 1995;
  divergence from the consensus: McCallum and Nigam, ICML 1998. Weighted k-means:
  Zhdanov, *Diverse Mini-Batch Active Learning*, 2019. Costs: Settles, Craven,
  Friedland, *Active Learning with Real Annotation Costs*, NIPS workshop, 2008.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from audiodd_jax.config import extensions
from audiodd_jax.coreset import clusters
from audiodd_jax.coreset.selection import farthest_first, highest, squared_distances
from audiodd_jax.errors import UserError

# Labelled clips compared with the pool at once.
_CENTRES = 256


def mean_log_probs(log_probs: Float[Array, "p b c"]) -> Float[Array, "b c"]:
    """Logarithm of the mean probability over passes, of which there must be one."""
    passes = log_probs.shape[0]
    if not passes:
        raise UserError("Monte Carlo predictions need at least one pass, not zero")
    return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(passes)


def _entropy(log_probs: Float[Array, "... c"]) -> Float[Array, "..."]:
    """``-sum_c p log p`` in nats, where ``0 log 0 = 0``."""
    return jnp.sum(-_weighted(log_probs, log_probs), -1)


def _weighted(log_probs: Array, values: Array) -> Array:
    """``p * values``, and 0 where ``p`` is 0."""
    return jnp.where(log_probs == -jnp.inf, 0.0, jnp.exp(log_probs) * values)


def random(log_probs: Float[Array, "p b c"]) -> Float[Array, " b"]:
    """The same score for every clip: the tie-break decides."""
    return jnp.zeros(log_probs.shape[1])


def max_entropy(log_probs: Float[Array, "p b c"]) -> Float[Array, " b"]:
    """Entropy of the mean prediction, in nats: ``H[mean_p p]``."""
    return _entropy(mean_log_probs(log_probs))


def variation_ratios(log_probs: Float[Array, "p b c"]) -> Float[Array, " b"]:
    """``1 - max_c mean_p p_c``.

    The expected fraction of draws from the predictions that differ from their mode.
    Counting the votes of the passes would give steps of one pass.
    """
    return -jnp.expm1(mean_log_probs(log_probs).max(-1))


def bald(log_probs: Float[Array, "p b c"]) -> Float[Array, " b"]:
    """Mutual information of label and parameters: ``H[mean_p p] - mean_p H[p]``, nats.

    Computed as the mean divergence ``mean_p KL(p || mean)``, which is equal and does
    not cancel where the passes agree.
    """
    mean = mean_log_probs(log_probs)
    divergence = jnp.sum(_weighted(log_probs, log_probs - mean), -1).mean(0)
    return jnp.clip(divergence, 0.0, _entropy(mean))


def margin(log_probs: Float[Array, "p b c"]) -> Float[Array, " b"]:
    """Minus the difference of the two largest mean probabilities."""
    best = lax.top_k(jnp.exp(mean_log_probs(log_probs)), 2)[0]
    return best[:, 1] - best[:, 0]


def vote_entropy(log_probs: Float[Array, "p b c"]) -> Float[Array, " b"]:
    """Entropy of the votes of a committee, in nats.

    Each network has one vote, which is shared by classes that it finds equally likely.
    """
    is_best = log_probs == log_probs.max(-1, keepdims=True)
    votes = is_best / is_best.sum(-1, keepdims=True)
    return _entropy(jnp.log(votes.mean(0)))


def consensus_kl(log_probs: Float[Array, "p b c"]) -> Float[Array, " b"]:
    """Mean divergence of a committee's networks from their mean prediction, in nats.

    The formula of ``bald``, with networks in place of dropout passes.
    """
    return bald(log_probs)


# Scores of Monte Carlo predictions and of a committee's, by name.
SCORES: dict[str, Callable[[Array], Array]] = {
    function.__name__: function
    for function in (
        *(random, max_entropy, variation_ratios, bald, margin),
        *(vote_entropy, consensus_kl),
    )
}


def over_tags(score: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Averages a score of log-probabilities ``[p, b, 2]`` over tags: ``[p, b, c, 2]``.

    The last axis holds both answers to the question of a tag.
    """

    def mean(log_probs: Float[Array, "p b c 2"]) -> Float[Array, " b"]:
        passes, clips, classes, _ = log_probs.shape
        questions = log_probs.reshape(passes, clips * classes, 2)
        return score(questions).reshape(clips, classes).mean(1)

    return mean


def score_of(name: str) -> Callable[[Array], Array]:
    """Returns the score of this name, from this package or an installed entry point."""
    if name in SCORES:
        return SCORES[name]
    function = extensions.load(extensions.ACQUISITIONS, name)

    def score(log_probs: Float[Array, "p b c"]) -> Float[Array, " b"]:
        scores = function(log_probs)
        if getattr(scores, "shape", None) != log_probs.shape[1:2]:
            raise UserError(
                f"the acquisition function {name} must return a score per clip, of "
                f"shape {log_probs.shape[1:2]}, not {getattr(scores, 'shape', scores)}"
            )
        return scores

    return score


def tie_break(key: Key[Array, ""], ids: Int[Array, " b"]) -> Float[Array, " b"]:
    """Uniform noise from a key and the clips' indices."""
    return jax.vmap(lambda i: jax.random.uniform(jax.random.fold_in(key, i)))(ids)


def check_count(count: int, pool: int) -> None:
    """Checks that a query batch has at least one clip and at most the pool."""
    if count < 1:
        raise UserError(f"a query batch has at least one clip, not {count}")
    if count > pool:
        raise UserError(
            f"{count} clips are to be labelled, but the unlabelled pool has {pool}"
        )


def top(
    scores: Float[Array, " b"], count: int, ids: Int[Array, " b"], key: Key[Array, ""]
) -> Int[Array, " count"]:
    """Positions of the ``count`` highest scores, the highest first."""
    check_count(count, ids.size)
    return jnp.lexsort((-tie_break(key, ids), -scores))[:count]


def per_cost(
    scores: Float[Array, " b"], name: str, costs: Float[Array, " b"]
) -> Float[Array, " b"]:
    """Returns scores per unit of cost; the margin's, which are below 0, plus one."""
    return (scores + 1 if name == "margin" else scores) / costs


def diverse(
    features: Float[Array, "b d"],
    scores: Float[Array, " b"],
    count: int,
    factor: int,
    ids: Int[Array, " b"],
    key: Key[Array, ""],
) -> Int[Array, " count"]:
    """Positions of clips with high scores that differ from each other.

    The ``factor * count`` highest scores are clustered by k-means, weighted by their
    scores, into ``count`` clusters; each gives the clip nearest to its centre.
    """
    best = top(scores, min(factor * count, ids.size), ids, key)
    weights = scores[best] - scores[best].min()
    # The lowest score of these still has some weight, and equal ones the same.
    weights = weights + jnp.maximum(weights.max(), 1.0) * 1e-3
    rows = clusters.weighted_representatives(key, features[best], weights, count)
    return best[rows]


def k_center(
    features: Float[Array, "b d"],
    labelled: Float[Array, "l d"],
    count: int,
    ids: Int[Array, " b"],
    key: Key[Array, ""],
) -> Int[Array, " count"]:
    """Positions of clips that cover the pool, each the farthest from all earlier ones.

    Labelled clips count as earlier ones. The greedy choice is within twice the smallest
    radius that ``count`` more centres allow (the core-set of Sener and Savarese).
    """
    check_count(count, ids.size)
    gaps = jnp.full(ids.size, jnp.inf)
    for start in range(0, len(labelled), _CENTRES):
        centres = labelled[start : start + _CENTRES]
        gaps = jnp.minimum(gaps, squared_distances(features, centres).min(1))
    return farthest_first(features, gaps, tie_break(key, ids), count)


@functools.partial(jax.jit, static_argnums=2)
def badge(
    features: Float[Array, "b d"],
    log_probs: Float[Array, "b c *two"],
    count: int,
    ids: Int[Array, " b"],
    key: Key[Array, ""],
) -> Int[Array, " count"]:
    """Positions of clips with large and diverse gradients, by k-means++ seeding.

    The last layer's gradient under the predicted label is ``(p - e_y) h^T`` with the
    layer's input ``h``, the features; tags have two answers each. The first clip has
    the longest gradient; each further one is drawn with probability proportional to the
    squared distance to the nearest before it. Outer products are not formed:
    ``<r h, r' h'> = <r, r'> <h, h'>``.
    """
    check_count(count, ids.size)
    answers = log_probs.shape[-1]
    residual = jnp.exp(log_probs) - jax.nn.one_hot(log_probs.argmax(-1), answers)
    residual = residual.reshape(len(ids), -1)
    norms = jnp.sum(residual**2, 1) * jnp.sum(features**2, 1)
    dot = lambda a, b: jnp.dot(a, b, precision=lax.Precision.HIGHEST)

    def choose(state: tuple[Array, Array], i: Array) -> tuple[tuple, Array]:
        gaps, free = state
        uniform = tie_break(jax.random.fold_in(key, i), ids)
        # Gumbel-max trick: the argmax of log(weight) + noise is a draw by the weights.
        gumbel = -jnp.log(-jnp.log(jnp.maximum(uniform, jnp.finfo(jnp.float32).tiny)))
        drawn = jnp.where(free & (gaps > 0), jnp.log(gaps) + gumbel, -jnp.inf)
        drawn = jnp.where(i == 0, norms, drawn)
        # If no weight is left, any free clip.
        drawn = jnp.where(drawn.max() > -jnp.inf, drawn, 0.0)
        row = highest(jnp.where(free, drawn, -jnp.inf), uniform)
        inner = dot(residual, residual[row]) * dot(features, features[row])
        squared = jnp.maximum(norms + norms[row] - 2 * inner, 0.0)
        return (jnp.minimum(gaps, squared), free.at[row].set(False)), row

    start = (jnp.full(ids.size, jnp.inf), jnp.ones(ids.size, bool))
    return lax.scan(choose, start, jnp.arange(count))[1]
