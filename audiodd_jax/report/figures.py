"""Figures of a run: curves, the coreset before and after, confusion matrices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from audiodd_jax.features.metric import ACCURACY
from audiodd_jax.training.scores import Evaluation

# Markers of lines, in order.
MARKERS = "osv^DPX"
# Most spectrograms per class in a figure of a coreset, in each of its halves.
MAX_COLUMNS = 8
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
    class_names: Sequence[str],
    seconds: float,
    title: str,
    path: Path,
    names: tuple[str, str] = ("start", "distilled"),
) -> None:
    """Draws a coreset as a grid of spectrograms in dB, one row per class.

    The spectrograms are in class order, as many of each class. ``seconds`` is the
    length of a clip, and ``names`` are titles of the left and right halves.
    """
    per_class = before.shape[0] // len(class_names)
    rows = min(len(class_names), MAX_ROWS)
    columns = min(per_class, MAX_COLUMNS)
    f, t = before.shape[1:]
    # Cells have the aspect ratio of a spectrogram, within limits.
    width = 1.1 if columns > 1 else 2.2
    height = width * min(1.0, max(0.45, f / t))
    figure = blank(max(4.5, 2 * columns * width + 2.2), rows * height + 1.0)
    # Before, a gap, after: in one grid, so that all cells have the same size.
    grid = figure.subplots(
        rows,
        2 * columns + 1,
        squeeze=False,
        gridspec_kw={"width_ratios": [1] * columns + [0.15] + [1] * columns},
    )
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    drawn = np.concatenate([images[: rows * per_class] for images in (before, after)])
    low, high = np.percentile(drawn, [1, 99.8])
    style = {"origin": "lower", "aspect": "auto", "cmap": "magma"}
    for row, axes in enumerate(grid):
        first = row * per_class
        left = before[first : first + columns]
        right = after[first : first + columns]
        for cell, image in zip(np.delete(axes, columns), [*left, *right], strict=True):
            picture = cell.imshow(image, vmin=low, vmax=high, **style)
            cell.set(xticks=[], yticks=[])
        axes[columns].set_axis_off()
        name = plain(class_names[row], _MAX_NAME)
        axes[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    shown = f" ({columns} of {per_class} per class)" if columns < per_class else ""
    grid[0, 0].set_title(names[0] + shown, loc="left", fontsize=10)
    grid[0, columns + 1].set_title(names[1], loc="left", fontsize=10)
    bar = figure.colorbar(picture, ax=grid, shrink=0.5, pad=0.02)
    bar.set_label("dB", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    if rows < len(class_names):
        title = f"{title}, {rows} of {len(class_names)} classes"
    figure.suptitle(f"{plain(title)}: {f} mel bins x {seconds:.3g} s", fontsize=11)
    figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.1)


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
