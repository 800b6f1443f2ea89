"""Scores of predictions over seeds: accuracies or mean average precisions."""

import functools
import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.special
from jaxtyping import Array, Float, Int, Num

from audiodd_jax.data import tags as tags_lib
from audiodd_jax.features import metric


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
      balanced: balanced accuracies, one per seed or fold; None for tags.
      confusions: ``[k, c, c]`` clips by class (rows) and prediction, per seed; None for
        tags, or if the accuracies are means.
      tags: scores of tags; None for classes, or if the accuracies are means.
      metric: name of the ``values``, which tables and messages show first.
    """

    protocol: str
    accuracies: tuple[float, ...]
    confusions: Int[np.ndarray, "k c c"] | None = None
    tags: TagScores | None = None
    metric: str = metric.ACCURACY
    balanced: tuple[float, ...] | None = None

    @property
    def measure(self) -> str:
        """The former name of ``metric``, kept for one version."""
        return self.metric

    @property
    def is_detailed(self) -> bool:
        """True if scores per class and macro F1 are known, not only means."""
        return self.confusions is not None or self.tags is not None

    @property
    def values(self) -> tuple[float, ...]:
        """Scores by the run's metric, one per seed or fold."""
        is_balanced = self.metric == metric.BALANCED_ACCURACY
        return self.balanced if is_balanced else self.accuracies

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float:
        """Sample standard deviation over seeds; 0 for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else 0.0

    @property
    def interval(self) -> float:
        """Half width of the 95 % confidence interval of the mean, or NaN."""
        return half_width(self.values)

    @property
    def per_class(self) -> Float[np.ndarray, " c"]:
        """Accuracy per class over all seeds, or mean average precision per tag.

        NaN for a class without clips.
        """
        if self.tags:
            return self.tags.precisions.mean(0)
        confusion = self.confusions.sum(0)
        total, hits = confusion.sum(1), np.diag(confusion).astype(float)
        nothing = np.full(len(total), np.nan)
        return np.divide(hits, total, out=nothing, where=total > 0)

    @property
    def macro_f1(self) -> float:
        """Macro F1, mean over seeds."""
        if self.tags:
            return float(self.tags.macro_f1s.mean())
        return statistics.fmean(
            _macro_f1(np.diag(confusion), confusion.sum(0) + confusion.sum(1))
            for confusion in self.confusions
        )

    def __str__(self) -> str:
        seeds = len(self.values)
        deviation = f" ± {100 * self.std:.1f}" if seeds > 1 else ""
        return f"{100 * self.mean:.1f}{deviation} %"

    def fields(self, prefix: str = "test") -> dict[str, Any]:
        """Returns accuracies and balanced accuracies as fields of a result."""
        found: dict[str, Any] = {}
        for kind, values in (("", self.accuracies), ("balanced_", self.balanced)):
            if values:
                name = f"{prefix}_{kind}accurac"
                scores = self._replace(accuracies=values, metric=metric.ACCURACY)
                found[f"{name}y"], found[f"{name}y_std"] = scores.mean, scores.std
                found[f"{name}y_interval95"] = _without_nan([scores.interval])[0]
                found[f"{name}ies"] = values
        return found

    def summary(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Returns all scores as JSON values."""
        result = {"protocol": self.protocol, "measure": self.metric}
        result |= {"metric": self.metric, **self.fields()}
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


def half_width(values: Sequence[float]) -> float:
    """Half width of the 95 % confidence interval of a mean, by Student's t.

    NaN for fewer than three values: that of two is 13 times as wide as their error.
    """
    count = len(values)
    if count < 3:
        return math.nan
    # scipy.stats has this quantile too, but takes half a second to import.
    quantile = scipy.special.stdtrit(count - 1, 0.975)
    return float(quantile * statistics.stdev(values) / math.sqrt(count))


def _without_nan(values: list[float]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values]


def _macro_f1(hits: Int[np.ndarray, " c"], size: Int[np.ndarray, " c"]) -> float:
    """Mean over classes or tags of ``2 hits / size``, clips plus predictions.

    Those without clips and predictions do not count; 0 if none counts.
    """
    counts = size > 0
    if not counts.any():
        return 0.0
    return float(np.mean(2 * hits[counts] / size[counts]))


def from_summary(summary: dict[str, Any]) -> Evaluation:
    """Inverse of ``Evaluation.summary``, for networks."""
    if "average_precisions" in summary:
        precisions = np.array(summary["average_precisions"], float)  # None is NaN
        scores = TagScores(precisions, np.array(summary["macro_f1s"]))
        return _of_tags(summary["protocol"], scores)
    confusions, accuracies = summary["confusions"], tuple(summary["test_accuracies"])
    scores = _of_confusions(summary["protocol"], np.array(confusions), accuracies)
    return scores._replace(metric=summary.get("metric", scores.metric))


def evaluate(
    protocol: str,
    answers: Num[Array | np.ndarray, "k b *c"],
    labels: Int[Array | np.ndarray, "b *c"],
    num_classes: int,
    threshold: float = 0.0,
) -> Evaluation:
    """Evaluates the answers of ``k`` seeds.

    Args:
      answers: predicted classes ``[k, b]``, or outputs for tags ``[k, b, c]``.
      labels: classes or tags of the clips.
      num_classes: number of classes ``c``.
      threshold: outputs above it predict the tag, for macro F1.
    """
    answers, labels = np.asarray(answers), np.asarray(labels)
    if not tags_lib.are_tags(labels):
        pairs = labels.astype(np.int64) * num_classes + answers
        count = functools.partial(np.bincount, minlength=num_classes**2)
        confusions = np.stack([count(row) for row in pairs])
        confusions = confusions.reshape(-1, num_classes, num_classes)
        hits = np.trace(confusions, axis1=1, axis2=2) / len(labels)
        return _of_confusions(protocol, confusions, tuple(hits.tolist()))
    precisions, f1s = [], []
    for outputs in answers:
        precision = metric.average_precision(jnp.asarray(outputs), jnp.asarray(labels))
        precisions.append(np.asarray(precision, float))
        predicted = outputs > threshold
        hits = (predicted & (labels > 0)).sum(0)
        f1s.append(_macro_f1(hits, predicted.sum(0) + labels.sum(0, dtype=np.int64)))
    return _of_tags(protocol, TagScores(np.stack(precisions), np.array(f1s)))


def _of_confusions(
    protocol: str, confusions: Int[np.ndarray, "k c c"], accuracies: tuple[float, ...]
) -> Evaluation:
    """The evaluation with balanced accuracies, over classes that have test clips."""
    sizes = confusions.sum(2)
    recalls = np.diagonal(confusions, axis1=1, axis2=2) / np.maximum(sizes, 1)
    balanced = recalls.sum(1) / np.maximum((sizes > 0).sum(1), 1)
    balanced = tuple(balanced.tolist())
    return Evaluation(protocol, accuracies, confusions, balanced=balanced)


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
    accuracies = tuple(accuracy for part in parts for accuracy in part.accuracies)
    confusions = np.concatenate([part.confusions for part in parts])
    scores = _of_confusions(parts[0].protocol, confusions, accuracies)
    return scores._replace(metric=parts[0].metric)
