"""Learning curves of active learning as a figure, a table and sentences."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from audiodd_jax.features.metric import ACCURACY
from audiodd_jax.report import figures, tables
from audiodd_jax.report.figures import plain
from audiodd_jax.report.tables import Table, mean_std

# Of coresets; curves have the default cycle.
_COLORS = (
    *("black", "saddlebrown", "deeppink", "teal", "navy"),
    *("olive", "red", "gray", "darkorange", "slateblue"),
)
_MARKERS = "*sDP^vXodp"
# From one kind of coreset to the next, as a ratio on the logarithmic axis.
_STEP = 1.03


class Curve(NamedTuple):
    """The learning curve of an acquisition function.

    Attributes:
      name: of the function.
      counts: labelled clips in each round.
      accuracies: ``[k, rounds]`` on the test split, one row per seed.
      seconds: mean duration of a run.
    """

    name: str
    counts: tuple[int, ...]
    accuracies: Float[np.ndarray, "k rounds"]
    seconds: float


class Point(NamedTuple):
    """Accuracies of networks trained on coresets of one size.

    Attributes:
      clips: spectrograms of a coreset.
      accuracies: on the test split, one per network.
      seconds: mean duration of a training.
      name: of the coresets in the legend.
    """

    clips: int
    accuracies: tuple[float, ...]
    seconds: float
    name: str = "distilled coreset"


def curve(name: str, results: Sequence[dict[str, Any]]) -> Curve:
    """The curve of an acquisition function over its seeds.

    Args:
      name: of the function.
      results: ``result.json`` of each seed's run.
    """
    rounds = [result["rounds"] for result in results]
    counts = tuple(row["counted"] for row in rounds[0])
    accuracies = np.array([[row["test_accuracy"] for row in rows] for rows in rounds])
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

    Coresets of the same number of clips stand side by side around it.

    Args:
      curves: of the acquisition functions.
      points: of the coresets.
      num_train: clips of the training split.
      title: of the figure.
      path: of the PNG.
      everything: accuracies of networks trained on all clips.
      metric: what the accuracies are, in words.
    """
    names = list(dict.fromkeys(point.name for point in points))
    is_full = len(curves) + len(names) > 10
    figure = figures.blank(10.0 if is_full else 8.0, 5.0)
    axes = figure.subplots()
    for i, curve in enumerate(curves):
        mean = 100 * curve.accuracies.mean(0)
        style = {"color": f"C{i}", "marker": "osv^DPX"[i % 7], "ms": 4}
        axes.plot(
            curve.counts, mean, label=plain(curve.name.replace("_", " ")), **style
        )
        if len(curve.accuracies) > 1:
            half = 100 * curve.accuracies.std(0, ddof=1)
            axes.fill_between(
                curve.counts, mean - half, mean + half, color=f"C{i}", alpha=0.07, lw=0
            )
    if everything:
        level = 100 * statistics.fmean(everything)
        axes.axhline(level, ls="--", lw=1, color="black", label="all clips")
    for i, name in enumerate(names):
        alike = [point for point in points if point.name == name]
        spread = [
            100 * statistics.stdev(p.accuracies) if len(p.accuracies) > 1 else 0.0
            for p in alike
        ]
        axes.errorbar(
            [_beside(point, points) for point in alike],
            [100 * statistics.fmean(point.accuracies) for point in alike],
            spread,
            fmt=_MARKERS[i % len(_MARKERS)],
            ms=14 if i == 0 else 7,
            color=_COLORS[i % len(_COLORS)],
            capsize=3,
            zorder=3,
            label=plain(name),
        )
    axes.set_xscale("log")
    counts = sorted({c for curve in curves for c in curve.counts})
    # Tick labels of close counts would overlap.
    shown = counts[:1]
    for count in counts[1:]:
        if count > 1.4 * shown[-1]:
            shown.append(count)
    axes.set_xticks(shown, [f"{c:,}\n{100 * c / num_train:.3g} %" for c in shown])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="labelled clips (% of the training split)")
    axes.set(ylabel=f"test {metric} (%)")
    axes.grid(alpha=0.3)
    if is_full:
        figure.legend(frameon=False, loc="outside right upper")
    else:
        axes.legend(frameon=False, loc="lower right")
    figure.suptitle(plain(title))
    figure.savefig(path, dpi=120)


def _beside(point: Point, points: Sequence[Point]) -> float:
    """Where a point stands, so that it hides none of as many clips."""
    alike = (other.name for other in points if other.clips == point.clips)
    names = list(dict.fromkeys(alike))
    return point.clips * _STEP ** (names.index(point.name) - (len(names) - 1) / 2)


def cells(
    curves: Sequence[Curve],
    points: Sequence[Point],
    counts: Sequence[int],
    num_train: int,
) -> Table:
    """Accuracies as a table: one row per function, one column per number of clips.

    Args:
      curves: of the acquisition functions.
      points: of the coresets.
      counts: numbers of labelled clips to show.
      num_train: clips of the training split.
    """
    counts = sorted({*counts, *(point.clips for point in points)})
    head = [f"{c:,} clips, {100 * c / num_train:.1f} %" for c in counts]
    rows = []
    for curve in curves:
        where = dict(zip(curve.counts, curve.accuracies.T, strict=True))
        row = [mean_std(where[c].tolist()) if c in where else "" for c in counts]
        rows.append([curve.name, *row, f"{curve.seconds:.0f}"])
    if points:
        where = {point.clips: point for point in points}
        row = [mean_std(where[c].accuracies) if c in where else "" for c in counts]
        seconds = ", ".join(f"{point.seconds:.0f}" for point in points)
        rows.append(["distilled coreset", *row, seconds])
    return Table(["labels chosen by", *head, "s"], rows)


def table(
    curves: Sequence[Curve],
    points: Sequence[Point],
    counts: Sequence[int],
    num_train: int,
) -> str:
    """``cells`` as Markdown; the same arguments."""
    return tables.markdown(cells(curves, points, counts, num_train))


def summary_sentences(curves: Sequence[Curve], points: Sequence[Point]) -> list[str]:
    """A sentence per coreset: its distance from the best function at equal clips."""
    lines = []
    for point in points:
        at = {
            curve.name: float(
                curve.accuracies[:, curve.counts.index(point.clips)].mean()
            )
            for curve in curves
            if point.clips in curve.counts
        }
        if not at:
            lines.append(
                f"No acquisition function was tested at {point.clips:,} clips, the "
                "size of the coreset; add it to the budgets."
            )
            continue
        best = max(at, key=at.get)
        gap = 100 * (statistics.fmean(point.accuracies) - at[best])
        accuracy = mean_std(point.accuracies)
        lines.append(
            f"At {point.clips:,} clips the coreset gives {accuracy} %, {abs(gap):.1f} "
            f"points {'above' if gap >= 0 else 'below'} the best "
            f"acquisition function ({best}, {100 * at[best]:.1f} %)."
        )
    return lines
