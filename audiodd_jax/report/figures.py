"""Figures of a run: curves, the coreset before and after, confusion matrices."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from audiodd_jax.features.metric import ACCURACY
from audiodd_jax.training.scores import Evaluation

# Markers of lines, in order.
MARKERS = "osv^DPX"
# Most spectrograms per class in a figure of a coreset, in each of its panels.
MAX_COLUMNS = 6
# Most classes in a figure of a coreset.
MAX_ROWS = 25
# Most classes whose names are written at an axis.
_MAX_TICKS = 120
# Most characters of a class name.
_MAX_NAME = 40
# Most classes for which a confusion matrix is annotated with numbers.
MAX_WRITTEN_CLASSES = 20


def plain(text: str, most: int = 120) -> str:
    """Makes a user's text safe for matplotlib: short, without formulas or controls."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if len(text) > most:
        text = text[:most] + "..."
    return text.replace("$", r"\$")


def blank(width: float, height: float) -> Any:
    """Returns an empty ``matplotlib.figure.Figure`` of this size in inches."""
    # Matplotlib takes half a second to import, and most commands draw nothing.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, title: str, path: Path) -> None:
    """Adds a user's title to a figure and writes it as a PNG."""
    figure.suptitle(plain(title))
    figure.savefig(path, dpi=120)


def curves(
    history: Sequence[dict[str, Any]],
    title: str,
    path: Path,
    metric: str = ACCURACY,
) -> None:
    """Draws the losses and accuracies in ``metrics.jsonl`` against steps."""
    figure = blank(9.0, 3.4)
    left, right = figure.subplots(1, 2)

    def line(axes: Any, name: str, label: str, scale: float, **style: Any) -> None:
        points = [(row["step"], scale * row[name]) for row in history if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)

    validation = {"color": "C1", "marker": "o", "ms": 3}
    line(left, "loss", "batch", 1.0, color="C0")
    line(left, "validation_loss", "validation", 1.0, **validation)
    left.set(xlabel="step", ylabel="loss")
    line(right, "batch_accuracy", "batch", 100.0, color="C0")
    line(right, "validation_accuracy", "validation", 100.0, **validation)
    best = [row for row in history if row.get("best")]
    if best and "validation_accuracy" in best[-1]:
        right.axvline(best[-1]["step"], color="C2", ls=":", label="best")
    right.set(xlabel="step", ylabel=f"{metric} (%)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    save(figure, title, path)


def coreset_grid(
    before: Float[np.ndarray, "s f t"],
    after: Float[np.ndarray, "s f t"],
    classes: Int[np.ndarray, " s"],
    class_names: Sequence[str],
    seconds: float,
    title: str,
    path: Path,
    names: tuple[str, str] = ("start", "distilled"),
) -> None:
    """Draws a coreset in dB as three panels: before, after, and their difference.

    A row shows the spectrograms of one of the ``classes``. ``seconds`` is the length of
    a clip, and ``names`` are titles of the first two panels.
    """
    most = int(np.bincount(classes).max())
    rows = min(len(class_names), MAX_ROWS)
    columns = min(most, MAX_COLUMNS)
    shown = [np.flatnonzero(classes == row)[:columns] for row in range(rows)]
    drawn = np.concatenate(shown)
    f, t = before.shape[1:]
    # Cells have the aspect ratio of a spectrogram, within limits.
    width = 0.8 if columns > 1 else 1.6
    height = width * min(1.0, max(0.45, f / t))
    figure = blank(max(6.5, 3 * columns * width + 2.6), rows * height + 1.3)
    levels = np.percentile([before[drawn], after[drawn]], [1, 99.8])
    change = after - before
    most_change = np.percentile(np.abs(change[drawn]), 99.8)
    part = f" ({columns} of {most} per class)" * (columns < most)
    changed, unit = (-most_change, most_change), "difference (dB)"
    panels = [
        (names[0] + part, before, levels, "magma", "dB"),
        (names[1], after, levels, "magma", "dB"),
        (f"{names[1]} minus {names[0]}", change, changed, "RdBu_r", unit),
    ]
    gap = math.ceil(0.04 * f), math.ceil(0.04 * t)
    pictures = figure.subplots(1, 3)
    for axes, panel in zip(pictures, panels, strict=True):
        name, images, (low, high), colours, unit = panel
        tiles = _tiles([images[chosen] for chosen in shown], columns, gap)
        style = {"vmin": low, "vmax": high, "cmap": colours, "aspect": "auto"}
        picture = axes.imshow(tiles, interpolation="nearest", **style)
        axes.set_title(name, loc="left", fontsize=10)
        # The clips of the first column stand for all.
        axes.set_xticks([-0.5, t - 0.5], ["0", f"{seconds:.3g}"], fontsize=7)
        axes.set_xlabel("time (s)", fontsize=8, loc="left")
        axes.set(yticks=[], frame_on=False)
        if name != panels[0][0]:  # the first two panels share their levels
            bar = figure.colorbar(picture, ax=axes, shrink=0.5, pad=0.02)
            bar.set_label(unit, fontsize=8)
            bar.ax.tick_params(labelsize=7)
    labels = [plain(name, _MAX_NAME) for name in class_names[:rows]]
    places = (f + gap[0]) * np.arange(rows) + (f - 1) / 2
    pictures[0].set_yticks(places, labels, fontsize=8)
    pictures[0].tick_params(axis="y", length=0)
    if rows < len(class_names):
        title = f"{title}, {rows} of {len(class_names)} classes"
    figure.suptitle(f"{plain(title)}: {f} mel bins x {seconds:.3g} s", fontsize=11)
    figure.savefig(path, dpi=100, bbox_inches="tight", pad_inches=0.1)


def _tiles(
    by_row: Sequence[Float[np.ndarray, "_ f t"]], columns: int, gap: tuple[int, int]
) -> Float[np.ndarray, "h w"]:
    """Lays out rows of spectrograms as one image, low frequencies at the bottom.

    Gaps, and places that a row has no spectrogram for, are NaN.
    """
    f, t = by_row[0].shape[1:]
    high, wide = f + gap[0], t + gap[1]
    tiles = np.full((len(by_row) * high, columns * wide), np.nan, np.float32)
    for row, images in enumerate(by_row):
        for column, image in enumerate(images):
            top, left = row * high, column * wide
            tiles[top : top + f, left : left + t] = image[::-1]
    return tiles[: -gap[0], : -gap[1]]


def by_class(
    scores: Evaluation, class_names: Sequence[str], title: str, path: Path
) -> None:
    """Draws the confusion matrix of all seeds, or the average precision of each tag."""
    if scores.tags is None:
        confusion(scores.confusions.sum(0), class_names, title, path)
        return
    classes = len(class_names)
    figure = blank(6.0, min(1.5 + 0.25 * classes, 16.0))
    axes = figure.subplots()
    axes.barh(range(classes), 100 * np.nan_to_num(scores.per_class), color="C0")
    axes.set_ylim(classes - 0.5, -0.5)
    if classes <= _MAX_TICKS:
        axes.set_yticks(range(classes), **_tick_labels(class_names))
    axes.set(xlabel="average precision (%)", xlim=(0, 100))
    axes.grid(alpha=0.3, axis="x")
    save(figure, title, path)


def _tick_labels(class_names: Sequence[str]) -> dict[str, Any]:
    size = max(3.5, min(9.0, 200.0 / max(len(class_names), 1)))
    return {
        "labels": [plain(name, _MAX_NAME) for name in class_names],
        "fontsize": size,
    }


def confusion(
    counts: Int[np.ndarray, "c c"], class_names: Sequence[str], title: str, path: Path
) -> None:
    """Draws a confusion matrix: clips by class (rows) and prediction (columns)."""
    classes = len(class_names)
    total = counts.sum(1, keepdims=True)
    shares = 100 * np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    side = min(3.0 + 0.42 * classes, 16.0)
    figure = blank(side + 1.0, side)
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    labels = _tick_labels(class_names)
    if classes <= _MAX_TICKS:
        axes.set_xticks(range(classes), rotation=60, ha="right", **labels)
        axes.set_yticks(range(classes), **labels)
    axes.set(xlabel="predicted class", ylabel="true class")
    if classes <= MAX_WRITTEN_CLASSES:
        centred = {"ha": "center", "va": "center", "fontsize": labels["fontsize"]}
        for row, column in zip(*np.nonzero(counts), strict=True):
            share = shares[row, column]
            text = f"{share:.0f}" if share >= 0.5 else "<1"
            color = "white" if share > 50 else "black"
            axes.text(column, row, text, color=color, **centred)
    bar = figure.colorbar(picture, ax=axes, shrink=0.7)
    bar.set_label("share of the class's clips (%)")
    save(figure, title, path)
