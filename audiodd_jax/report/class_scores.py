"""Which classes or tags are recognised, and what classes are taken for otherwise."""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from audiodd_jax.errors import UserError
from audiodd_jax.training.metrics import per_class_accuracy

# Where ``Evaluation.summary`` has the scores of tags.
_PRECISIONS = "per_class_average_precision"


class TagPrecisions(NamedTuple):
    """Scores by tag, over all seeds.

    Attributes:
      class_names: ``c`` tags.
      accuracies: average precision of each, mean over seeds; None for a tag that no
        test clip has.
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
        found = per_class_accuracy(self.counts).tolist()
        return [None if math.isnan(share) else share for share in found]

    @property
    def shares(self) -> list[list[float | None]]:
        """Of each class's clips, the share of each prediction; None where it is 0."""
        total = self.counts.sum(1, keepdims=True)
        return [
            [count / size if count else None for count in row]
            for row, (size,) in zip(self.counts.tolist(), total.tolist(), strict=True)
        ]

    def confused(self, most: int = 5) -> Iterator[tuple[str, str, int, int]]:
        """The most frequent mistakes: class, prediction, their number, all clips.

        Args:
          most: number of mistakes.
        """
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        total = self.counts.sum(1)
        for place in np.argsort(-wrong, axis=None, kind="stable")[:most]:
            row, column = np.unravel_index(place, wrong.shape)
            if wrong[row, column]:
                names = self.class_names[row], self.class_names[column]
                yield *names, int(wrong[row, column]), int(total[row])


def pooled(
    summaries: Sequence[Mapping[str, Any]],
) -> ClassScores | TagPrecisions | None:
    """The scores of several seeds together.

    Args:
      summaries: of ``Evaluation.summary``, as ``result.json`` and ``evaluation.json``
        have them.

    Returns:
      None if a seed has no scores by class, or the seeds have different classes.

    Raises:
      UserError: a matrix does not have a row and a column per class, or a tag's score
        is no number.
    """
    if summaries and all(found.get(_PRECISIONS) for found in summaries):
        return _pooled_tags([found[_PRECISIONS] for found in summaries])
    if not summaries or not all(found.get("confusions") for found in summaries):
        return None
    names = {tuple(found["per_class_accuracy"]) for found in summaries}
    if len(names) > 1:
        return None
    (class_names,) = names
    counts = [_counts(found["confusions"], len(class_names)) for found in summaries]
    return ClassScores(class_names, np.sum(counts, axis=0))


def _pooled_tags(seeds: Sequence[Mapping[str, Any]]) -> TagPrecisions | None:
    """The scores of the same tags; None if they differ.

    Raises:
      UserError: a score is no number.
    """
    names = tuple(seeds[0])
    if any(tuple(scores) != names for scores in seeds):
        return None
    found = [[scores[name] for scores in seeds] for name in names]
    try:
        means = [None if None in each else statistics.fmean(each) for each in found]
    except TypeError as error:
        raise UserError("an average precision is not a number") from error
    return TagPrecisions(names, means)


def _counts(confusions: Any, classes: int) -> Int[np.ndarray, "c c"]:
    """A run's confusion matrices as one.

    Raises:
      UserError: not ``classes`` rows and columns of counts.
    """
    try:
        counts = np.array(confusions, np.int64)
    except (ValueError, TypeError, OverflowError):
        counts = np.zeros(0, np.int64)
    if counts.shape[1:] != (classes, classes) or counts.min() < 0:
        raise UserError(f"a confusion matrix does not have {classes} rows and columns")
    return counts.sum(0)
