"""What predictions are worth: accuracy, per class, macro F1, intervals over seeds."""

import math
import statistics
from collections.abc import Sequence

import numpy as np
import scipy.stats
from jaxtyping import Float, Int


def confusion_matrix(
    predicted: Int[np.ndarray, " b"], labels: Int[np.ndarray, " b"], num_classes: int
) -> Int[np.ndarray, "c c"]:
    """Clips by their class (rows) and the class predicted for them (columns)."""
    pairs = labels.astype(np.int64) * num_classes + predicted
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def per_class_accuracy(confusion: Int[np.ndarray, "c c"]) -> Float[np.ndarray, " c"]:
    """Share of each class's clips that are recognised; NaN for a class without any."""
    total = confusion.sum(1)
    hits = np.diag(confusion).astype(float)
    return np.divide(hits, total, out=np.full(len(total), np.nan), where=total > 0)


def macro_f1(confusion: Int[np.ndarray, "c c"]) -> float:
    """Mean over classes of ``2 hits / (clips + predictions)``.

    Classes that neither have clips nor are predicted do not count.
    """
    size = confusion.sum(0) + confusion.sum(1)
    return float(np.mean(2 * np.diag(confusion)[size > 0] / size[size > 0]))


def interval95(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of the mean, by Student's t.

    NaN for fewer than two values, from which no spread can be told.
    """
    count = len(values)
    if count < 2:
        return math.nan
    quantile = scipy.stats.t.ppf(0.975, count - 1)
    return float(quantile * statistics.stdev(values) / math.sqrt(count))
