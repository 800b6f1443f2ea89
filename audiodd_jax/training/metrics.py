"""Metrics of predictions: confusion matrix, accuracy per class, macro F1, interval.

Average precision is in ``features.metric``.
"""

import math
import statistics
from collections.abc import Sequence

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Int


def confusion_matrix(
    predicted: Int[np.ndarray, " b"], labels: Int[np.ndarray, " b"], num_classes: int
) -> Int[np.ndarray, "c c"]:
    """Number of clips by class (rows) and predicted class (columns)."""
    pairs = labels.astype(np.int64) * num_classes + predicted
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def per_class_accuracy(confusion: Int[np.ndarray, "c c"]) -> Float[np.ndarray, " c"]:
    """Fraction of each class's clips that are recognised; NaN for an empty class."""
    total = confusion.sum(1)
    hits = np.diag(confusion).astype(float)
    return np.divide(hits, total, out=np.full(len(total), np.nan), where=total > 0)


def macro_f1(confusion: Int[np.ndarray, "c c"]) -> float:
    """Mean over classes of ``2 hits / (clips + predictions)``.

    Classes without clips and predictions do not count.
    """
    return _mean_f1(np.diag(confusion), confusion.sum(0) + confusion.sum(1))


def macro_f1_of_tags(
    predicted: Bool[np.ndarray, "b c"], tags: Int[np.ndarray, "b c"]
) -> float:
    """Mean over tags of ``2 hits / (clips + predictions)``.

    Tags without clips and predictions do not count; 0 if no tag counts.
    """
    hits = (predicted & (tags > 0)).sum(0)
    return _mean_f1(hits, predicted.sum(0) + tags.sum(0, dtype=np.int64))


def _mean_f1(hits: Int[np.ndarray, " c"], size: Int[np.ndarray, " c"]) -> float:
    counts = size > 0
    if not counts.any():
        return 0.0
    return float(np.mean(2 * hits[counts] / size[counts]))


def interval95(values: Sequence[float]) -> float:
    """Half width of the 95 % confidence interval of the mean, by Student's t.

    NaN for fewer than two values.
    """
    count = len(values)
    if count < 2:
        return math.nan
    # scipy.stats has this quantile too, but takes half a second to import.
    quantile = scipy.special.stdtrit(count - 1, 0.975)
    return float(quantile * statistics.stdev(values) / math.sqrt(count))
