"""The page's tables of accuracy by class, and its confusion matrices."""

from collections.abc import Sequence
from typing import NamedTuple

from audiodd_jax.report.class_scores import ClassScores
from audiodd_jax.report.groups import Group

# Most numbers of confusion matrices on a page: 20 matrices of fifty classes.
_MAX_CELLS = 50_000


class Cell(NamedTuple):
    """A share in percent, and its text."""

    percent: float
    text: str


class ByClass(NamedTuple):
    """Accuracy by class.

    Attributes:
      dataset: its name.
      metric: the score: accuracy of each class, or average precision of each tag.
      groups: one per column.
      rows: name of a class, and a cell per group; None without test clips.
    """

    dataset: str
    metric: str
    groups: Sequence[Group]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]


class Matrix(NamedTuple):
    """A confusion matrix.

    Attributes:
      group: scored by the matrix.
      class_names: headings of rows and columns.
      rows: a cell per prediction; None without clips.
      mistakes: the most frequent ones, in words.
    """

    group: Group
    class_names: Sequence[str]
    rows: Sequence[Sequence[Cell | None]]
    mistakes: Sequence[str]


def by_class(groups: Sequence[Group]) -> list[ByClass]:
    """Returns a dataset's tables of accuracy by class, one per set of classes."""
    alike: dict[tuple[bool, tuple[str, ...]], list[Group]] = {}
    for group in groups:
        if scores := group.classes:
            key = isinstance(scores, ClassScores), scores.class_names
            alike.setdefault(key, []).append(group)
    tables = []
    for (are_classes, names), members in alike.items():
        metric = "average precision of each tag"
        if are_classes:
            metric = "accuracy of each class"
        columns = zip(*(group.classes.accuracies for group in members), strict=True)
        rows = [
            (name, list(map(_cell, shares)))
            for name, shares in zip(names, columns, strict=True)
        ]
        tables.append(ByClass(members[0].first.dataset, metric, members, rows))
    return tables


def matrices(groups: Sequence[Group]) -> list[Matrix]:
    """Returns confusion matrices: the first ones, if there are too many for a page."""
    found, cells = [], 0
    for group in groups:
        scores = group.classes
        if not isinstance(scores, ClassScores):
            continue
        cells += scores.counts.size
        if found and cells > _MAX_CELLS:
            break
        rows = [list(map(_cell, shares)) for shares in scores.shares]
        mistakes = [
            f"{name}, mistaken for {other}: {count:,} of {total:,}"
            for name, other, count, total in scores.confused()
        ]
        found.append(Matrix(group, scores.class_names, rows, mistakes))
    return found


def _cell(share: float | None) -> Cell | None:
    if share is None:
        return None
    percent = 100 * share
    return Cell(percent, "<1" if 0 < percent < 0.5 else f"{percent:.0f}")
