r"""Metrics of predictions: accuracies of classes, mean average precision of tags.

The form of the labels and the clips per class decide which. Validation, selection and
reports all use this module, so that a run has one metric. Balanced accuracy is the mean
over classes of the share of a class's clips that are recognised.

For one tag, with the clips in order of descending score,

    AP = sum_n (R_n - R_{n-1}) P_n

where ``P_n`` and ``R_n`` are precision and recall of all clips with at least the n-th
distinct score, so that the order of clips with equal scores has no effect. There is no
interpolation. The mean over tags (mAP) leaves out tags that no clip has.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from audiodd_jax.data.tags import are_tags, counts

ACCURACY, BALANCED_ACCURACY = "accuracy", "balanced accuracy"
MEAN_AVERAGE_PRECISION = "mean average precision"

# Classes are unequal above this ratio of the largest to the smallest.
UNEQUAL = 1.5

# Draws of the Bayesian bootstrap, and their key.
_DRAWS, _KEY = 64, 0xB007


class Estimate(NamedTuple):
    """A mean over groups and its standard error, which is 0 for a single group."""

    mean: Float[Array, ""]
    error: Float[Array, ""]


def is_unequal(labels: Int[np.ndarray, "b *c"], num_classes: int) -> bool:
    """Returns whether classes have so different numbers of clips that this matters."""
    sizes = counts(labels, num_classes)
    return not are_tags(labels) and bool(sizes.max() > UNEQUAL * sizes.min())


def name_of(
    labels: Int[np.ndarray, "b *c"], num_classes: int, setting: str = "auto"
) -> str:
    """Returns the metric of a run on these training labels.

    ``setting`` is ``evaluation.metric``.
    """
    if are_tags(labels):
        return MEAN_AVERAGE_PRECISION
    if setting != "auto":
        return setting.replace("_", " ")
    return BALANCED_ACCURACY if is_unequal(labels, num_classes) else ACCURACY


def constant_answer(
    train: Int[np.ndarray, "b *c"],
    test: Int[np.ndarray, "v *c"],
    class_names: tuple[str, ...],
) -> dict[str, Any]:
    """Returns a result's fields on the training clips of each class or tag.

    For classes they include the largest one, and the accuracy of always answering it.
    """
    sizes = counts(train, len(class_names))
    found = {"class_counts": dict(zip(class_names, sizes.tolist(), strict=True))}
    if not are_tags(train):
        largest = int(sizes.argmax())
        found["majority_class"] = class_names[largest]
        found["majority_accuracy"] = float(np.mean(test == largest))
    return found


def constant_in_words(result: Mapping[str, Any]) -> str:
    """Describes what the largest class alone would score; empty if unknown."""
    if "majority_class" not in result:
        return ""
    share = f"{100 * result['majority_accuracy']:.1f} %"
    name = result["majority_class"]
    return f"always answering {name!r} is right for {share} of the test clips"


def counts_in_words(result: Mapping[str, Any]) -> str:
    """Describes the fields of ``constant_answer``; empty if a result has none."""
    sizes = sorted(result.get("class_counts", {}).items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name} {size:,}" for name, size in sizes)
    parts = [f"training clips: {listed}" * bool(sizes), constant_in_words(result)]
    return "; ".join(filter(None, parts))


def score_of(result: Mapping[str, Any], of_accuracy: str = "test_accuracy") -> Any:
    """Returns a field of a result by its metric; takes the field for the accuracy."""
    is_balanced = result.get("measure") == BALANCED_ACCURACY
    kind = "balanced_accurac" if is_balanced else "accurac"
    return result[of_accuracy.replace("accurac", kind)]


def estimate(
    outputs: Float[Array, "b c"],
    labels: Int[Array, "b *c"],
    recordings: Int[Array, " b"] | None = None,
    weights: Float[Array, " b"] | None = None,
) -> Estimate:
    """Estimates the metric; all recordings have the same weight.

    Outputs are higher for more likely classes or tags. ``recordings`` are the groups of
    ``grouped_mean``; ``weights`` are for classes alone.
    """
    if are_tags(labels):
        return mean_average_precision(outputs, labels, recordings)
    hits = jnp.argmax(outputs, axis=1) == labels
    return grouped_mean(hits.astype(outputs.dtype), recordings, weights)


def of_batch(
    outputs: Float[Array, "b c"], labels: Int[Array, "b *c"]
) -> Float[Array, ""]:
    """Computes the metric of a step's clips."""
    if are_tags(labels):
        return mean_average_precision(outputs, labels).mean
    return jnp.mean(jnp.argmax(outputs, axis=1) == labels)


def grouped_mean(
    values: Float[Array, " b"],
    groups: Int[Array, " b"] | None = None,
    weights: Float[Array, " b"] | None = None,
) -> Estimate:
    """Estimates the mean of the groups' means, with each group as one observation.

    Groups of clips are numbers below ``b``; None: one clip per group. ``weights`` of
    the clips, which sum to one, replace equal weights of the groups.
    """
    if weights is not None:
        mean = jnp.sum(weights * values)
        gaps = weights * (values - mean)
        if groups is not None:
            gaps = jax.ops.segment_sum(gaps, groups, groups.shape[0])
        return Estimate(mean, jnp.sqrt(jnp.sum(gaps**2)))
    if groups is None:
        count = values.shape[0]
        mean = jnp.mean(values)
        squares = jnp.sum((values - mean) ** 2)
    else:
        total = lambda x: jax.ops.segment_sum(x, groups, groups.shape[0])
        sizes = total(jnp.ones_like(values))
        means = total(values) / jnp.maximum(sizes, 1)
        is_used = sizes > 0
        count = jnp.sum(is_used)
        mean = jnp.sum(means, where=is_used) / count
        squares = jnp.sum((means - mean) ** 2, where=is_used)
    variance = squares / jnp.maximum(count - 1, 1)
    return Estimate(mean, jnp.sqrt(variance / count))


def _of_weights(
    scores: Float[Array, "b c"], tags: Int[Array, "b c"]
) -> Callable[[Float[Array, " b"]], Float[Array, " c"]]:
    """Returns each tag's average precision as a function of the clips' weights."""
    count = scores.shape[0]
    order = jnp.argsort(-scores.T, axis=1)
    along = lambda values: jnp.take_along_axis(values.T, order, axis=1)
    ranked = along(scores)
    is_last = jnp.concatenate(
        [ranked[:, 1:] != ranked[:, :-1], jnp.ones((ranked.shape[0], 1), bool)], axis=1
    )
    # The last position with the same score.
    positions = jnp.where(is_last, jnp.arange(count), count)
    last = lax.cummin(positions, axis=1, reverse=True)
    has_tag = along(tags).astype(_precision(scores))
    at_last = lambda values: jnp.take_along_axis(
        jnp.cumsum(values, axis=1), last, axis=1
    )

    def of_weights(weights: Float[Array, " b"]) -> Float[Array, " c"]:
        in_order = weights[order]
        hits = in_order * has_tag
        total = at_last(in_order)
        precision = at_last(hits) / jnp.where(total > 0, total, 1)
        return jnp.sum(hits * precision, axis=1) / jnp.sum(hits, axis=1)

    return of_weights


def _precision(scores: Float[Array, "b c"]) -> jnp.dtype:
    """Sums over many clips need float32, whatever the precision of the scores."""
    return jnp.promote_types(scores.dtype, jnp.float32)


def average_precision(
    scores: Float[Array, "b c"],
    tags: Int[Array, "b c"],
    weights: Float[Array, " b"] | None = None,
) -> Float[Array, " c"]:
    """Computes the average precision of each tag; NaN for a tag that no clip has.

    Weights of the clips are not negative; None: all the same.
    """
    if weights is None:
        weights = jnp.ones(scores.shape[0], _precision(scores))
    return _of_weights(scores, tags)(weights)


def mean_average_precision(
    scores: Float[Array, "b c"],
    tags: Int[Array, "b c"],
    groups: Int[Array, " b"] | None = None,
) -> Estimate:
    """Estimates the mean average precision; 0 if no clip has any tag.

    All groups of clips have the same weight. The error is the deviation over draws of
    the Bayesian bootstrap: exponential weights of the groups, always the same draws.
    ``groups`` are as in ``grouped_mean``.

    References:
      Rubin, *The Bayesian Bootstrap*, Annals of Statistics 1981.
    """
    of_weights, count = _of_weights(scores, tags), scores.shape[0]
    share = jnp.ones(count, _precision(scores))
    if groups is not None:
        share /= jnp.bincount(groups, length=count)[groups]
    is_used = tags.any(0)
    mean = lambda weights: (
        jnp.sum(jnp.where(is_used, of_weights(weights), 0))
        / jnp.maximum(is_used.sum(), 1)
    )

    def drawn(key: Array) -> Float[Array, ""]:
        weights = jax.random.exponential(key, (count,), share.dtype)
        return mean(share * (weights if groups is None else weights[groups]))

    keys = jax.random.split(jax.random.key(_KEY), _DRAWS)
    return Estimate(mean(share), jnp.std(lax.map(drawn, keys), ddof=1))
