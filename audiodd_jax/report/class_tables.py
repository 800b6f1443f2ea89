"""The page's tables of scores by class, and its confusion matrices."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from audiodd_jax.report.groups import Group

# Most numbers of confusion matrices on a page: 20 matrices of fifty classes.
_MAX_CELLS = 50_000


class ByClass(NamedTuple):
    """A table of scores by class: a column per group, a row per class.

    Rows have the name of a class and a share per group; None without test clips.
    """

    dataset: str
    metric: str
    groups: Sequence[Group]
    rows: Sequence[tuple[str, Sequence[float | None]]]


class Matrix(NamedTuple):
    """A group's confusion matrix, and its most frequent mistakes in words.

    ``shares`` are those of each prediction (columns) in the clips of a class (rows).
    """

    group: Group
    class_names: Sequence[str]
    shares: Sequence[Sequence[float]]
    mistakes: Sequence[str]


def by_class(groups: Sequence[Group]) -> list[ByClass]:
    """Returns tables of scores by class, one per dataset and set of classes."""
    alike: dict[tuple[str, str, tuple[str, ...]], list[Group]] = {}
    for group in groups:
        if group.classes:
            kind = group.classes.metric, group.classes.class_names
            alike.setdefault((group.first.dataset, *kind), []).append(group)
    made = []
    for (dataset, metric, names), members in alike.items():
        columns = zip(*(group.classes.accuracies for group in members), strict=True)
        rows = list(zip(names, columns, strict=True))
        made.append(ByClass(dataset, metric, members, rows))
    return made


def matrices(groups: Sequence[Group]) -> list[Matrix]:
    """Returns confusion matrices: the first ones, if there are too many for a page."""
    made, cells = [], 0
    for group in groups:
        classes = group.classes
        if not classes or classes.counts is None:
            continue
        counts = classes.counts
        cells += counts.size
        if made and cells > _MAX_CELLS:
            break
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        mistakes = list(classes.mistakes())
        made.append(Matrix(group, classes.class_names, shares.tolist(), mistakes))
    return made
