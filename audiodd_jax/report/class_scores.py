"""Scores by class or tag over all seeds, and which classes are confused."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from audiodd_jax.training import scores as scores_lib
from audiodd_jax.training.scores import Evaluation

# Keys of ``Evaluation.summary``: the details of each seed, and the scores by class.
_KEYS = (
    ("confusions", "per_class_accuracy"),
    ("average_precisions", "per_class_average_precision"),
)


class ClassScores(NamedTuple):
    """Scores over all seeds, with the names of their ``c`` classes or tags."""

    class_names: tuple[str, ...]
    scores: Evaluation

    @property
    def metric(self) -> str:
        """The score of each class or tag."""
        tags = self.scores.tags
        return "average precision of each tag" if tags else "accuracy of each class"

    @property
    def accuracies(self) -> list[float | None]:
        """Accuracy or average precision of each; None without test clips."""
        shares = self.scores.per_class.tolist()
        return [None if math.isnan(share) else share for share in shares]

    @property
    def counts(self) -> Int[np.ndarray, "c c"] | None:
        """Clips by class (rows) and prediction (columns); None for tags."""
        confusions = self.scores.confusions
        return None if confusions is None else confusions.sum(0)

    @property
    def shares(self) -> list[list[float]]:
        """Each prediction's share of a class's clips."""
        totals = np.maximum(self.counts.sum(1, keepdims=True), 1)
        return (self.counts / totals).tolist()

    def mistakes(self, most: int = 5) -> Iterator[str]:
        """Describes the most frequent mistakes."""
        wrong, totals = self.counts, self.counts.sum(1)
        np.fill_diagonal(wrong, 0)
        for index in np.argsort(-wrong, axis=None, kind="stable")[:most]:
            row, column = np.unravel_index(index, wrong.shape)
            if wrong[row, column]:
                name, other = self.class_names[row], self.class_names[column]
                count = f"{wrong[row, column]:,} of {totals[row]:,}"
                yield f"{name}, mistaken for {other}: {count}"


def pooled(summaries: Sequence[Mapping[str, Any]]) -> ClassScores | None:
    """Pools the scores of several seeds, as ``Evaluation.summary`` gives them.

    Returns None if a seed has no scores by class, or the seeds have different classes.

    Raises:
      ValueError: a summary is damaged; also further exceptions of ``DAMAGE``.
    """
    kinds = {
        (key, tuple(row[names]))
        for row in summaries
        for key, names in _KEYS
        if row.get(key)
    }
    is_complete = all(any(row.get(key) for key, _ in _KEYS) for row in summaries)
    if len(kinds) != 1 or not is_complete:
        return None
    ((_, class_names),) = kinds
    scores = scores_lib.joined([scores_lib.from_summary(row) for row in summaries])
    size, confusions = len(class_names), scores.confusions
    if confusions is None:
        is_sound = scores.tags.precisions.shape[1:] == (size,)
    else:
        is_sound = confusions.shape[1:] == (size, size) and confusions.min() >= 0
    if not is_sound:
        raise ValueError(f"not the scores of {size} classes")
    return ClassScores(class_names, scores)
