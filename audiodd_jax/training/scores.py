"""Scores of predictions over seeds: accuracies or mean average precisions."""

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from audiodd_jax.features import metric
from audiodd_jax.training import metrics


class TagScores(NamedTuple):
    """Scores of tags.

    Attributes:
      precisions: ``[k, c]`` average precision of each tag, per seed; NaN for tags that
        no clip has.
      macro_f1s: ``[k]`` macro F1 of the predicted tags, per seed.
    """

    precisions: Float[np.ndarray, "k c"]
    macro_f1s: Float[np.ndarray, " k"]


class Evaluation(NamedTuple):
    """Scores of one protocol.

    Attributes:
      protocol: name of the protocol.
      accuracies: one per seed or fold; mean average precisions for tags.
      confusions: ``[k, c, c]`` clips by class (rows) and prediction, per seed; None for
        tags, or if the accuracies are means.
      tags: scores of tags; None for classes, or if the accuracies are means.
      metric: name of the accuracies in tables and messages.
    """

    protocol: str
    accuracies: tuple[float, ...]
    confusions: Int[np.ndarray, "k c c"] | None = None
    tags: TagScores | None = None
    metric: str = metric.ACCURACY

    @property
    def measure(self) -> str:
        """The former name of ``metric``, kept for one version."""
        return self.metric

    @property
    def is_detailed(self) -> bool:
        """True if scores per class and macro F1 are known, not only means."""
        return self.confusions is not None or self.tags is not None

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds; 0 for a single seed."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    @property
    def interval(self) -> float:
        """Half width of the 95 % confidence interval; NaN for a single seed."""
        return metrics.interval95(self.accuracies)

    @property
    def per_class(self) -> Float[np.ndarray, " c"]:
        """Accuracy per class over all seeds, or mean average precision per tag."""
        if self.tags:
            return self.tags.precisions.mean(0)
        return metrics.per_class_accuracy(self.confusions.sum(0))

    @property
    def macro_f1(self) -> float:
        """Macro F1, mean over seeds."""
        if self.tags:
            return float(self.tags.macro_f1s.mean())
        return statistics.fmean(map(metrics.macro_f1, self.confusions))

    def __str__(self) -> str:
        seeds = len(self.accuracies)
        deviation = f" ± {100 * self.std:.1f}" if seeds > 1 else ""
        return f"{100 * self.mean:.1f}{deviation} %"

    def summary(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Returns all scores as JSON values."""
        result = {
            "protocol": self.protocol,
            "measure": self.metric,
            "test_accuracy": self.mean,
            "test_accuracy_std": self.std,
            "test_accuracy_interval95": _without_nan([self.interval])[0],
            "test_accuracies": self.accuracies,
        }
        if not self.is_detailed:
            return result
        result["macro_f1"] = self.macro_f1
        shares = _without_nan(self.per_class.tolist())
        per_class = dict(zip(class_names, shares, strict=True))
        if self.tags:
            return {
                **result,
                "macro_f1s": self.tags.macro_f1s.tolist(),
                "per_class_average_precision": per_class,
                "average_precisions": [
                    _without_nan(row) for row in self.tags.precisions.tolist()
                ],
            }
        return {
            **result,
            "per_class_accuracy": per_class,
            "confusions": self.confusions.tolist(),
        }


def _without_nan(values: list[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]


def from_summary(summary: dict[str, Any]) -> Evaluation:
    """Inverse of ``Evaluation.summary``, for networks."""
    if "average_precisions" in summary:
        precisions = np.array(summary["average_precisions"], float)  # None is NaN
        scores = TagScores(precisions, np.array(summary["macro_f1s"]))
        return _of_tags(summary["protocol"], scores)
    confusions = np.array(summary["confusions"])
    return Evaluation(
        summary["protocol"], tuple(summary["test_accuracies"]), confusions
    )


def from_predictions(
    protocol: str,
    predicted: Int[Array | np.ndarray, "k b"],
    labels: Int[Array | np.ndarray, " b"],
    num_classes: int,
) -> Evaluation:
    """Evaluates predicted classes, one row per seed."""
    labels = np.asarray(labels)
    confusions = np.stack(
        [
            metrics.confusion_matrix(row, labels, num_classes)
            for row in np.asarray(predicted)
        ]
    )
    hits = np.trace(confusions, axis1=1, axis2=2) / len(labels)
    return Evaluation(protocol, tuple(hits.tolist()), confusions)


def from_tag_outputs(
    protocol: str,
    outputs: Float[Array | np.ndarray, "k b c"],
    labels: Int[Array | np.ndarray, "b c"],
    threshold: float,
) -> Evaluation:
    """Evaluates outputs for tags, one matrix per seed.

    Args:
      threshold: outputs above it predict the tag, for macro F1.
    """
    labels = np.asarray(labels)
    precisions, f1s = [], []
    for of_seed in np.asarray(outputs):
        precision = metric.average_precision(jnp.asarray(of_seed), jnp.asarray(labels))
        precisions.append(np.asarray(precision, float))
        f1s.append(metrics.macro_f1_of_tags(of_seed > threshold, labels))
    return _of_tags(protocol, TagScores(np.stack(precisions), np.array(f1s)))


def _of_tags(protocol: str, scores: TagScores) -> Evaluation:
    """The evaluation with means over the tags that occur in the test clips."""
    occurs = ~np.isnan(scores.precisions).all(0)
    means = scores.precisions[:, occurs].mean(1) if occurs.any() else [0.0]
    means = tuple(map(float, means))
    name = metric.MEAN_AVERAGE_PRECISION
    return Evaluation(protocol, means, tags=scores, metric=name)


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """Joins the seeds of several evaluations into one."""
    if parts[0].tags:
        fields = zip(*(part.tags for part in parts), strict=True)
        return _of_tags(parts[0].protocol, TagScores(*map(np.concatenate, fields)))
    return Evaluation(
        parts[0].protocol,
        tuple(accuracy for part in parts for accuracy in part.accuracies),
        np.concatenate([part.confusions for part in parts]),
    )
