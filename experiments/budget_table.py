"""The accuracy of each budget of clips: coresets and chosen clips in one table."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from audiodd_jax.report.tables import Table, mean_std


class Row(NamedTuple):
    """A network, trained on a number of clips or on as many spectrograms of a coreset.

    Attributes:
      learns_from: method that chose the clips or made the coreset.
      size: as requested: ``10 per class``, ``20 %``.
      clips: how many.
      stored: bytes of the coreset, or of so many real clips as 16-bit audio (their
        mean size times their number).
      accuracies: on the test split, one per seed; empty if nothing was run.
      seconds: of the runs behind each of ``accuracies``.
      reason: why nothing was run.
      published: accuracy in % that a source reports, or None.
      published_label: what the source calls this share.
    """

    learns_from: str
    size: str
    clips: int
    stored: int
    accuracies: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    reason: str = "not run"
    published: float | None = None
    published_label: str = ""


def table(
    rows: Sequence[Row], num_train: int, num_classes: int, train_bytes: int
) -> Table:
    """The rows as a table, with true percentages and bytes.

    Args:
      rows: of one network on one dataset.
      num_train: clips of the whole training split.
      num_classes: ``c``.
      train_bytes: all training clips as 16-bit audio.
    """
    columns = (
        "learns from",
        "budget",
        "clips",
        "clips per class",
        "of train (%)",
        "bytes",
        "raw audio / bytes",
        "accuracy (%)",
        "seeds",
        "s per seed",
        "published (%)",
        "published as",
    )
    cells = []
    for row in rows:
        per_class = row.clips / num_classes
        published = "" if row.published is None else f"{row.published:g}"
        cells.append(
            (
                row.learns_from.replace("_", " "),
                row.size,
                f"{row.clips:,}",
                f"{per_class:.0f}" if per_class.is_integer() else f"{per_class:.1f}",
                f"{100 * row.clips / num_train:.3g}",
                f"{row.stored:,}",
                f"{train_bytes / row.stored:.3g}",
                mean_std(row.accuracies) if row.accuracies else row.reason,
                str(len(row.accuracies)) if row.accuracies else "",
                f"{statistics.fmean(row.seconds):.0f}" if row.seconds else "",
                published,
                row.published_label,
            )
        )
    return Table(columns, cells).without_empty_columns()


def matrix(rows: Sequence[Row], num_train: int) -> Table:
    """Accuracies in %: a row per contender, a column per budget.

    Args:
      rows: of one network on one dataset.
      num_train: clips of the whole training split.
    """
    sizes = list(dict.fromkeys((row.size, row.clips) for row in rows))
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        cell = mean_std(row.accuracies) if row.accuracies else row.reason
        found.setdefault(row.learns_from.replace("_", " "), {})[row.size] = cell
    head = [
        f"{size} ({clips:,} clips, {100 * clips / num_train:.3g} %)"
        if not size.endswith("%")
        else f"{size} ({clips:,} clips)"
        for size, clips in sizes
    ]
    return Table(
        ["learns from", *head],
        [
            [name, *(at.get(size, "") for size, _ in sizes)]
            for name, at in found.items()
        ],
    )
