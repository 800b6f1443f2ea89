"""Accuracy by number of clips: coresets and selected clips in one table."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from audiodd_jax.report.tables import Table, mean_std


class Row(NamedTuple):
    """A network trained on a number of clips or on as many spectrograms of a coreset.

    Attributes:
      learns_from: Method that selected the clips or distilled the coreset.
      size: Size as requested: ``10 per class``, ``20 %``.
      clips: Number of clips or spectrograms.
      stored: Bytes of the coreset, or of real clips as 16-bit audio (their mean size
        times their number); None for a coreset that was not distilled.
      accuracies: Test accuracy of each seed; empty if nothing was run.
      seconds: Duration of each seed's runs.
      reason: Reason for an empty row.
      published: Published accuracy in %, or None.
      published_label: Published label of this share.
    """

    learns_from: str
    size: str
    clips: int
    stored: int | None
    accuracies: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    reason: str = "not run"
    published: float | None = None
    published_label: str = ""


def table(
    rows: Sequence[Row], num_train: int, num_classes: int, train_bytes: int
) -> Table:
    """Returns the rows as a table, with true percentages and bytes.

    Args:
      num_train: Clips of the whole training split.
      train_bytes: Size of all training clips as 16-bit audio.
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
                f"{row.stored:,}" if row.stored else "",
                f"{train_bytes / row.stored:.3g}" if row.stored else "",
                mean_std(row.accuracies) if row.accuracies else row.reason,
                str(len(row.accuracies)) if row.accuracies else "",
                f"{statistics.fmean(row.seconds):.0f}" if row.seconds else "",
                published,
                row.published_label,
            )
        )
    return Table(columns, cells).without_empty_columns()


def matrix(rows: Sequence[Row], num_train: int) -> Table:
    """Returns accuracies in %, with one row per contender and one column per budget."""
    sizes = list(dict.fromkeys((row.size, row.clips) for row in rows))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        cell = mean_std(row.accuracies) if row.accuracies else row.reason
        cells.setdefault(row.learns_from.replace("_", " "), {})[row.size] = cell
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
            for name, at in cells.items()
        ],
    )


def verdict(rows: Sequence[Row], functions: Sequence[str], train_bytes: int) -> str:
    """Compares RFAD's largest coreset with the functions, random clips and raw audio.

    Args:
      functions: Names of the acquisition functions.
      train_bytes: Size of all training clips as 16-bit audio.
    """
    mean = lambda row: 100 * statistics.fmean(row.accuracies)
    of = lambda name: [r for r in rows if r.learns_from == name and r.accuracies]
    if not (coresets := of("RFAD")):
        return "No coreset was distilled."
    coreset = max(coresets, key=lambda row: row.clips)
    chosen = [row for name in functions for row in of(name)]
    named = lambda row: f"{row.learns_from.replace('_', ' ')} ({mean(row):.1f} %)"
    parts = [f"A coreset of {coreset.size} gives {mean(coreset):.1f} %"]
    if most := [row for row in chosen if row.size == "60 %"]:
        best = max(most, key=mean)
        gap = mean(coreset) - mean(best)
        side = "at or above" if gap >= 0 else f"{-gap:.1f} points below"
        parts.append(f"{side} the best function with 60 % of the labels, {named(best)}")
    if chosen:
        equal = [row for row in chosen if mean(row) >= mean(coreset)]
        if equal:
            first = min(equal, key=lambda row: row.clips)
            parts.append(
                f"the first function to equal it, {named(first)}, needs {first.size} "
                f"({first.clips:,} labels)"
            )
        else:
            parts.append("no function equals it at any of these budgets")
    everything, random = (
        of("all clips"),
        [row for row in of("random") if row.clips == coreset.clips],
    )
    if everything and random and mean(everything[0]) > mean(random[0]):
        gap = mean(everything[0]) - mean(random[0])
        share = 100 * (mean(coreset) - mean(random[0])) / gap
        closes = (
            f"closes {share:.0f} %"
            if share >= 0
            else f"is {mean(random[0]) - mean(coreset):.1f} points below, and closes "
            "nothing"
        )
        parts.append(
            f"it {closes} of the gap between as many random clips "
            f"({mean(random[0]):.1f} %) and all clips ({mean(everything[0]):.1f} %)"
        )
    parts.append(
        f"it takes {coreset.stored:,} bytes, raw audio {train_bytes:,} "
        f"({train_bytes / coreset.stored:.0f} times as many)"
    )
    return "; ".join(parts) + "."
