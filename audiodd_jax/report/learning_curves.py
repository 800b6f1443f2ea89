"""Learning curves of active learning as a figure, a table and sentences."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from audiodd_jax.features.metric import ACCURACY, score_of
from audiodd_jax.report import figures
from audiodd_jax.report.figures import plain
from audiodd_jax.report.tables import Table, mean_std

# For coresets; curves use the default colours.
_COLORS = (
    *("black", "saddlebrown", "deeppink", "teal", "navy"),
    *("olive", "red", "gray", "darkorange", "slateblue"),
)
_MARKERS = "*sDP^vXodp"
# Ratio on the logarithmic axis between neighbouring coresets of the same size.
_OFFSET = 1.03


class Curve(NamedTuple):
    """An acquisition function's labelled clips and test accuracies in each round.

    ``accuracies`` has a row per seed; ``seconds`` is the mean duration of a run.
    """

    name: str
    counts: tuple[int, ...]
    accuracies: Float[np.ndarray, "k rounds"]
    seconds: float


class Point(NamedTuple):
    """Test accuracies of networks trained on coresets of as many spectrograms.

    ``seconds`` is the mean duration of a training.
    """

    clips: int
    accuracies: tuple[float, ...]
    seconds: float
    name: str = "distilled coreset"


def curve(name: str, results: Sequence[dict[str, Any]]) -> Curve:
    """Returns the curve of an acquisition function from each seed's ``result.json``."""
    rounds = [result["rounds"] for result in results]
    counts = tuple(row["counted"] for row in rounds[0])
    accuracies = np.array([[score_of(row) for row in rows] for rows in rounds])
    seconds = statistics.fmean(result["wall_seconds"] for result in results)
    return Curve(name, counts, accuracies, seconds)


def draw(
    curves: Sequence[Curve],
    points: Sequence[Point],
    num_train: int,
    title: str,
    path: Path,
    everything: Sequence[float] = (),
    metric: str = ACCURACY,
) -> None:
    """Draws test accuracy against labelled clips, with coresets as points.

    Bands and error bars are one standard deviation. ``num_train`` is the size of the
    training split; networks trained on all of it have the accuracies ``everything``.
    """
    names = list(dict.fromkeys(point.name for point in points))
    is_full = len(curves) + len(names) > 10
    figure = figures.blank(10.0 if is_full else 8.0, 5.0)
    axes = figure.subplots()
    for i, curve in enumerate(curves):
        color, mean = f"C{i}", 100 * curve.accuracies.mean(0)
        label = plain(curve.name.replace("_", " "))
        marker = figures.MARKERS[i % len(figures.MARKERS)]
        axes.plot(curve.counts, mean, color=color, marker=marker, ms=4, label=label)
        if len(curve.accuracies) > 1:
            std = 100 * curve.accuracies.std(0, ddof=1)
            band = mean - std, mean + std
            axes.fill_between(curve.counts, *band, color=color, alpha=0.07, lw=0)
    if everything:
        level = 100 * statistics.fmean(everything)
        axes.axhline(level, ls="--", lw=1, color="black", label="all clips")
    for i, name in enumerate(names):
        _draw_points(axes, name, points, i)
    axes.set_xscale("log")
    ticks: list[int] = []
    for count in sorted({c for curve in curves for c in curve.counts}):
        if not ticks or count > 1.4 * ticks[-1]:  # or the labels would overlap
            ticks.append(count)
    axes.set_xticks(ticks, [f"{c:,}\n{100 * c / num_train:.3g} %" for c in ticks])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="labelled clips (% of the training split)")
    axes.set(ylabel=f"test {metric} (%)")
    axes.grid(alpha=0.3)
    if is_full:
        figure.legend(frameon=False, loc="outside right upper")
    else:
        axes.legend(frameon=False, loc="lower right")
    figures.save(figure, title, path)


def _draw_points(axes: Any, name: str, points: Sequence[Point], index: int) -> None:
    """Draws the coresets of one name, next to others of the same size."""
    x, means, stds = [], [], []
    for point in (point for point in points if point.name == name):
        same_size = (other.name for other in points if other.clips == point.clips)
        places = list(dict.fromkeys(same_size))
        x.append(point.clips * _OFFSET ** (places.index(name) - (len(places) - 1) / 2))
        means.append(100 * statistics.fmean(point.accuracies))
        is_one = len(point.accuracies) == 1
        stds.append(0.0 if is_one else 100 * statistics.stdev(point.accuracies))
    axes.errorbar(
        x,
        means,
        stds,
        fmt=_MARKERS[index % len(_MARKERS)],
        ms=14 if index == 0 else 7,
        color=_COLORS[index % len(_COLORS)],
        capsize=3,
        zorder=3,
        label=plain(name),
    )


def table(
    curves: Sequence[Curve],
    points: Sequence[Point],
    counts: Sequence[int],
    num_train: int,
) -> Table:
    """Returns accuracies with a row per function and a column per number of clips.

    The columns are ``counts`` and the sizes of the coresets.
    """
    counts = sorted({*counts, *(point.clips for point in points)})
    head = [f"{c:,} clips, {100 * c / num_train:.1f} %" for c in counts]
    cells = lambda at: [mean_std(at[c]) if c in at else "" for c in counts]
    rows = []
    for curve in curves:
        at = dict(zip(curve.counts, curve.accuracies.T.tolist(), strict=True))
        rows.append([curve.name, *cells(at), f"{curve.seconds:.0f}"])
    if points:
        at = {point.clips: point.accuracies for point in points}
        seconds = ", ".join(f"{point.seconds:.0f}" for point in points)
        rows.append(["distilled coreset", *cells(at), seconds])
    return Table(["labels chosen by", *head, "s"], rows)


def summary_sentences(curves: Sequence[Curve], points: Sequence[Point]) -> list[str]:
    """Compares each coreset with the best function at the same number of clips."""
    lines = []
    for point in points:
        means = {
            curve.name: float(
                curve.accuracies[:, curve.counts.index(point.clips)].mean()
            )
            for curve in curves
            if point.clips in curve.counts
        }
        if not means:
            lines.append(
                f"No acquisition function was tested at {point.clips:,} clips, the "
                "size of the coreset; add it to the budgets."
            )
            continue
        best = max(means, key=means.get)
        gap = 100 * (statistics.fmean(point.accuracies) - means[best])
        lines.append(
            f"With {point.clips:,} clips the coreset reaches "
            f"{mean_std(point.accuracies)} %, {abs(gap):.1f} points "
            f"{'above' if gap >= 0 else 'below'} the best acquisition function "
            f"({best}, {100 * means[best]:.1f} %)."
        )
    return lines
