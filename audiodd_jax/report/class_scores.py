"""Scores by class or tag, and which classes are mistaken for each other."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from audiodd_jax.errors import UserError
from audiodd_jax.training.metrics import per_class_accuracy

# The key of tag scores in ``Evaluation.summary``.
_PRECISIONS = "per_class_average_precision"


class TagPrecisions(NamedTuple):
    """Scores by tag, over all seeds.

    Attributes:
      class_names: ``c`` tags.
      accuracies: average precision of each tag, mean over seeds; None for a tag without
        test clips.
    """

    class_names: tuple[str, ...]
    accuracies: Sequence[float | None]


class ClassScores(NamedTuple):
    """Test clips by class and prediction, over all seeds.

    Attributes:
      class_names: ``c`` names.
      counts: ``[c, c]``, classes in rows, predictions in columns.
    """

    class_names: tuple[str, ...]
    counts: Int[np.ndarray, "c c"]

    @property
    def accuracies(self) -> list[float | None]:
        """Accuracy of each class; None for a class without test clips."""
        shares = per_class_accuracy(self.counts).tolist()
        return [None if math.isnan(share) else share for share in shares]

    @property
    def shares(self) -> list[list[float | None]]:
        """Each prediction's share of a class's clips; None where it is 0."""
        totals = self.counts.sum(1).tolist()
        return [
            [count / total if count else None for count in row]
            for row, total in zip(self.counts.tolist(), totals, strict=True)
        ]

    def confused(self, most: int = 5) -> Iterator[tuple[str, str, int, int]]:
        """Yields the most frequent mistakes: class, prediction, their number, clips."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        total = self.counts.sum(1)
        for index in np.argsort(-wrong, axis=None, kind="stable")[:most]:
            row, column = np.unravel_index(index, wrong.shape)
            if wrong[row, column]:
                names = self.class_names[row], self.class_names[column]
                yield *names, int(wrong[row, column]), int(total[row])


def pooled(
    summaries: Sequence[Mapping[str, Any]],
) -> ClassScores | TagPrecisions | None:
    """Pools the scores of several seeds.

    Args:
      summaries: values of ``Evaluation.summary``, as in ``result.json`` and
        ``evaluation.json``.

    Returns:
      None if a seed has no scores by class, or the seeds have different classes.

    Raises:
      UserError: a matrix does not have a row and a column per class, or a tag's score
        is not a number.
    """
    if summaries and all(summary.get(_PRECISIONS) for summary in summaries):
        return _pooled_tags([summary[_PRECISIONS] for summary in summaries])
    if not summaries or not all(summary.get("confusions") for summary in summaries):
        return None
    class_names = tuple(summaries[0]["per_class_accuracy"])
    if any(tuple(row["per_class_accuracy"]) != class_names for row in summaries):
        return None
    counts = [_counts(row["confusions"], len(class_names)) for row in summaries]
    return ClassScores(class_names, np.sum(counts, axis=0))


def _pooled_tags(seeds: Sequence[Mapping[str, Any]]) -> TagPrecisions | None:
    """Averages the scores of the same tags; None if the tags differ.

    Raises:
      UserError: a score is not a number.
    """
    names = tuple(seeds[0])
    if any(tuple(scores) != names for scores in seeds):
        return None
    by_tag = [[scores[name] for scores in seeds] for name in names]
    try:
        means = [None if None in row else statistics.fmean(row) for row in by_tag]
    except TypeError as error:
        raise UserError("an average precision is not a number") from error
    return TagPrecisions(names, means)


def _counts(confusions: Any, classes: int) -> Int[np.ndarray, "c c"]:
    """Adds up a run's confusion matrices.

    Raises:
      UserError: they are not counts in ``classes`` rows and columns.
    """
    try:
        counts = np.array(confusions, np.int64)
    except (ValueError, TypeError, OverflowError):
        counts = np.zeros(0, np.int64)
    if counts.shape[1:] != (classes, classes) or counts.min() < 0:
        raise UserError(f"a confusion matrix does not have {classes} rows and columns")
    return counts.sum(0)
