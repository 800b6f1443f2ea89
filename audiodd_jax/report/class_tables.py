"""Accuracy by class and confusion matrices, as the page shows them."""

from collections.abc import Sequence
from typing import NamedTuple

from audiodd_jax.report.class_scores import ClassScores
from audiodd_jax.report.comparison import Compared

# Numbers of a confusion matrix on a page: 20 matrices of fifty classes.
_CELLS = 50_000


class Cell(NamedTuple):
    """A share in percent, and its text."""

    percent: float
    text: str


class Column(NamedTuple):
    """A run at the head of a column."""

    number: int
    name: str


class ByClass(NamedTuple):
    """Accuracy by class.

    Attributes:
      dataset: its name.
      of: what is shown of each: accuracy of a class, average precision of a tag.
      columns: one per run.
      rows: name of a class, and a cell per run; None without test clips.
    """

    dataset: str
    of: str
    columns: Sequence[Column]
    rows: Sequence[tuple[str, Sequence[Cell | None]]]


class Matrix(NamedTuple):
    """A confusion matrix.

    Attributes:
      number: of the run on the page.
      name: of the run.
      class_names: of rows and columns.
      rows: a cell per prediction; None where there is no clip.
      mistakes: the most frequent ones, in words.
    """

    number: int
    name: str
    class_names: Sequence[str]
    rows: Sequence[Sequence[Cell | None]]
    mistakes: Sequence[str]


def by_class(dataset: str, lines: Sequence[Compared]) -> list[ByClass]:
    """Tables of accuracy by class, one per set of classes; empty without scores.

    Args:
      dataset: its name.
      lines: its lines of the comparison.
    """
    alike: dict[tuple[type, tuple[str, ...]], list[Compared]] = {}
    for line in lines:
        if line.classes:
            kind = type(line.classes), line.classes.class_names
            alike.setdefault(kind, []).append(line)
    tables = []
    for (kind, names), members in alike.items():
        of = "average precision of each tag"
        if kind is ClassScores:
            of = "accuracy of each class"
        columns = [Column(line.number, described(line)) for line in members]
        scores = zip(*(line.classes.accuracies for line in members), strict=True)
        rows = [
            (name, [_cell(share) for share in shares])
            for name, shares in zip(names, scores, strict=True)
        ]
        tables.append(ByClass(dataset, of, columns, rows))
    return tables


def matrices(lines: Sequence[Compared]) -> list[Matrix]:
    """Confusion matrices, the first ones where they would be too much for a page."""
    found, cells = [], 0
    for line in lines:
        if not isinstance(line.classes, ClassScores):
            continue
        cells += line.classes.counts.size
        if found and cells > _CELLS:
            break
        rows = [[_cell(share) for share in row] for row in line.classes.shares]
        names = line.classes.class_names
        mistakes = [
            f"{name}, taken for {other}: {count:,} of {total:,}"
            for name, other, count, total in line.classes.confused()
        ]
        found.append(Matrix(line.number, described(line), names, rows, mistakes))
    return found


def described(line: Compared) -> str:
    """What was learnt from, and by what."""
    return f"{line.name}, by {line.learner}"


def _cell(share: float | None) -> Cell | None:
    if share is None:
        return None
    percent = 100 * share
    return Cell(percent, "<1" if 0 < percent < 0.5 else f"{percent:.0f}")
