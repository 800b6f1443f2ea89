"""Active learning as a picture, a table and a card: accuracy against labels."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from audiodd_jax.report import tables
from audiodd_jax.report.tables import Table


class Curve(NamedTuple):
    """What an acquisition function's labels were worth.

    Attributes:
      name: of the function.
      counts: labelled clips at the end of each round.
      accuracies: ``[k, rounds]`` on the test split, a row a seed.
      seconds: of one seed's run, mean.
    """

    name: str
    counts: tuple[int, ...]
    accuracies: Float[np.ndarray, "k rounds"]
    seconds: float


class Point(NamedTuple):
    """What a network learnt from coresets of one size.

    Attributes:
      clips: spectrograms of a coreset.
      accuracies: on the test split, one a network.
      seconds: of one training, mean.
      name: of what made the coresets.
    """

    clips: int
    accuracies: tuple[float, ...]
    seconds: float
    name: str = "distilled coreset"


def curve(name: str, results: Sequence[dict[str, Any]]) -> Curve:
    """The curve of an acquisition function over its seeds.

    Args:
      name: of the function.
      results: what ``result.json`` of each seed's run holds.
    """
    rounds = [result["rounds"] for result in results]
    counts = tuple(row["counted"] for row in rounds[0])
    accuracies = np.array([[row["test_accuracy"] for row in rows] for rows in rounds])
    seconds = statistics.fmean(result["wall_seconds"] for result in results)
    return Curve(name, counts, accuracies, seconds)


def told(accuracies: Sequence[float]) -> str:
    """Mean ± sample standard deviation, in %; of one value itself."""
    mean = f"{100 * statistics.fmean(accuracies):.1f}"
    if len(accuracies) < 2:
        return mean
    return f"{mean} ± {100 * statistics.stdev(accuracies):.1f}"


def draw(
    curves: Sequence[Curve],
    points: Sequence[Point],
    num_train: int,
    title: str,
    path: Path,
) -> None:
    """Draws accuracy against labels, a curve a function, and the coresets' points.

    Args:
      curves: of the acquisition functions.
      points: of the coresets.
      num_train: clips of the whole training split.
      title: above the picture.
      path: where the PNG goes.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for i, curve in enumerate(curves):
        mean = 100 * curve.accuracies.mean(0)
        style = {"color": f"C{i}", "marker": "osv^DPX"[i % 7], "ms": 4}
        axes.plot(curve.counts, mean, label=curve.name.replace("_", " "), **style)
        if len(curve.accuracies) > 1:
            half = 100 * curve.accuracies.std(0, ddof=1)
            axes.fill_between(
                curve.counts, mean - half, mean + half, color=f"C{i}", alpha=0.07, lw=0
            )
    for i, name in enumerate(dict.fromkeys(point.name for point in points)):
        alike = [point for point in points if point.name == name]
        spread = [
            100 * statistics.stdev(p.accuracies) if len(p.accuracies) > 1 else 0.0
            for p in alike
        ]
        axes.errorbar(
            [point.clips for point in alike],
            [100 * statistics.fmean(point.accuracies) for point in alike],
            spread,
            fmt="*sDP"[i % 4],
            ms=14 if i == 0 else 7,
            color=("black", "saddlebrown", "deeppink", "teal")[i % 4],
            capsize=3,
            zorder=3,
            label=name,
        )
    axes.set_xscale("log")
    counts = sorted({c for curve in curves for c in curve.counts})
    # Labels of counts that lie close together would run into each other.
    shown = counts[:1]
    for count in counts[1:]:
        if count > 1.4 * shown[-1]:
            shown.append(count)
    axes.set_xticks(shown, [f"{c:,}\n{100 * c / num_train:.3g} %" for c in shown])
    axes.set_xticks([], minor=True)
    axes.set(xlabel="labelled clips (share of those that train)")
    axes.set(ylabel="test accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def cells(
    curves: Sequence[Curve],
    points: Sequence[Point],
    counts: Sequence[int],
    num_train: int,
) -> Table:
    """Accuracies as a table, a row a contender, a column a number of clips.

    Args:
      curves: of the acquisition functions.
      points: of the coresets.
      counts: labelled clips to show.
      num_train: clips of the whole training split.
    """
    counts = sorted({*counts, *(point.clips for point in points)})
    head = [f"{c:,} clips, {100 * c / num_train:.1f} %" for c in counts]
    rows = []
    for curve in curves:
        where = dict(zip(curve.counts, curve.accuracies.T, strict=True))
        row = [told(where[c].tolist()) if c in where else "" for c in counts]
        rows.append([curve.name, *row, f"{curve.seconds:.0f}"])
    if points:
        where = {point.clips: point for point in points}
        row = [told(where[c].accuracies) if c in where else "" for c in counts]
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


def verdicts(curves: Sequence[Curve], points: Sequence[Point]) -> list[str]:
    """A sentence a coreset: how far it is from the best function at as many clips."""
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
                "coreset's own number: add it to the budgets."
            )
            continue
        best = max(at, key=at.get)
        gap = 100 * (statistics.fmean(point.accuracies) - at[best])
        lines.append(
            f"At {point.clips:,} clips the coreset gives {told(point.accuracies)} %, "
            f"{abs(gap):.1f} points {'above' if gap >= 0 else 'below'} the best "
            f"acquisition function ({best}, {100 * at[best]:.1f} %)."
        )
    return lines


_CARD = """\
# {dataset}: {acquisition} with {model}

Clips labelled round by round by `{acquisition}`, from a {initial_draw} seed set of
{initial}; the network is trained {afresh} in each round, and tested.

| labelled | of train | test accuracy (%) | macro F1 | fewest and most of a class | s |
|---|---|---|---|---|---|
{rounds}

Seed {seed}; {wall_seconds:.0f} s. {passes}{counted}The test split decided nothing: each
round was tested to draw the curve.

![accuracy against labels](figures/learning_curve.png)

- `labelled.npy`: rows of the labelled clips, in the order in which they were labelled
  (`audiodd train --indices=labelled.npy` trains on them)
- `networks.npz`: the last round's network
- Data: {dataset} {dataset_version}, {num_train:,} clips that train. Licence: {licence}
"""


def card(result: dict[str, Any], config: Any) -> str:
    """The card of one run of active learning, as Markdown.

    Args:
      result: what ``result.json`` holds.
      config: the run's configuration.
    """
    active = config.active
    rows = [
        f"| {row['labelled']:,} | {100 * row['fraction']:.1f} % "
        f"| {100 * row['test_accuracy']:.1f} | {row['macro_f1']:.3f} "
        f"| {min(row['class_counts'])}, {max(row['class_counts'])} "
        f"| {row['training_seconds'] + row['scoring_seconds']:.0f} |"
        for row in result["rounds"]
    ]
    held = result["num_validation"]
    values = {
        "rounds": "\n".join(rows),
        "initial": active.initial,
        "initial_draw": active.initial_draw,
        "afresh": "on from the round before" if active.warm_start else "afresh",
        "passes": f"{result['passes']} Monte-Carlo passes. " * bool(result["passes"]),
        "counted": (
            f"{held:,} validation clips "
            f"{'count as labelled' if active.count_validation else 'are not counted'}. "
        )
        * bool(held),
    }
    return _CARD.format(**{**result, **values})
